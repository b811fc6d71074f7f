# SPDX-License-Identifier: Apache-2.0
"""A scripted stand-in for pcmig._core, for tests of the command that need a migration to go a certain way.

`install(script)` puts it in place of the real module. A script is a list of (seconds, changes of the
status): the changes happen on a thread, as news of the real core do. It stops at the end of the script, or
when a request changes the course of things.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from types import ModuleType
from typing import Any, ClassVar

from pcmig._core import (
    VERSION,
    Judge,
    PolicyError,
    guard,
    guest_word,
    memory_where,
    parse_policy,
    resume_hold,
    situations,
    turn_back_rule,
)

# What needs no script is the core's own.
from pcmig._core import (
    Migration as RealMigration,
)
from pcmig.shadow import sample_line

__all__ = [
    "VERSION",
    "Judge",
    "PolicyError",
    "guard",
    "guest_word",
    "memory_where",
    "parse_policy",
    "resume_hold",
    "situations",
    "turn_back_rule",
]

MIB = 1024 * 1024


class Error(Exception):
    pass


class FlagsError(Error):
    pass


class LibvirtError(Error):
    code = 0
    domain = 0
    hint: str | None = None


class ConnectError(LibvirtError):
    pass


class NoDomainError(LibvirtError):
    pass


class InvalidOperationError(LibvirtError):
    pass


STATUS: dict[str, Any] = {
    "state": "precopy",
    "phase": "setup",
    "outcome": None,
    "error": None,
    "operator_command": None,
    "elapsed_ms": 0,
    "passes": 0,
    "pass_permille": 0,
    "memory_total_bytes": 256 * MIB,
    "memory_processed_bytes": 0,
    "memory_remaining_bytes": 256 * MIB,
    "disk_total_bytes": 0,
    "disk_processed_bytes": 0,
    "disk_remaining_bytes": 0,
    "downtime_ms": 0,
    "setup_time_ms": 0,
    "send_bps": 0,
    "link_bps": None,
    "latency": None,
    "dirty_pages_ps": 0,
    "postcopy_requests": 0,
    "requests_ps": 0,
    "queue_bytes": None,
    "pace_mib": None,
    "progress_permille": 0,
    "eta": {"outlook": "too-early", "least_ms": None, "most_ms": None},
    "eta_ms": None,
    "downtime": None,
    "decision": None,
    "switch_late_us": None,
    "cpu_us": 0,
    "quickack": "off",
    "stats_failed": 0,
    "inputs_lost": 0,
    "gate": "none",
    "recovery": None,
    "note": None,
    "turn": "free",
    "waits_for": None,
    "crossed": False,
    "left": False,
    "unrun": False,
    "dest_host": None,
    "dest_ended": False,
}

PRECOPY = {
    "phase": "precopy",
    "pass_permille": 450,
    "progress_permille": 450,
    "eta": {"outlook": "range", "least_ms": 11_000, "most_ms": 38_000},
    "memory_processed_bytes": 120 * MIB,
    "memory_remaining_bytes": 130 * MIB,
    "send_bps": int(11.8 * MIB),
    "dirty_pages_ps": 1562,
}
DECISION = {
    "t_us": 1_200_000,
    "action": "switch",
    "reason": "not-converging",
    "a": 31804,
    "b": 32768,
    "c": 970,
    "pace_mib": 3,
    "text": "pass 2 dirtied 31804 of 32768 pages (97 %): pre-copy does not converge",
}
POSTCOPY = {
    "phase": "postcopy",
    "memory_remaining_bytes": 64 * MIB,
    "postcopy_requests": 1330,
    "requests_ps": 412,
    "pace_mib": 3,
    "queue_bytes": 65536,
    "progress_permille": 750,
    "eta": {"outlook": "range", "least_ms": 9_000, "most_ms": 11_000},
    "eta_ms": 11_000,
    "decision": DECISION,
}
COMPLETED = {"phase": "finished", "outcome": "completed", "memory_remaining_bytes": 0, "elapsed_ms": 33_700}
FAILED = {"phase": "finished", "outcome": "failed", "error": "connection refused"}
NEEDS_OPERATOR = {
    "phase": "paused",
    "outcome": "needs-operator",
    "error": "post-copy was interrupted",
    "operator_command": "virsh migrate --postcopy --postcopy-resume g1 qemu+tcp://b/system",
}

RECOVERY = {
    "state": "waiting",
    "attempts": 0,
    "permille": 430,
    "since_ms": 100,
    "next_ms": None,
    "text": "post-copy interrupted at 43 %, resuming soon",
}
BROKEN = {"phase": "paused", "recovery": RECOVERY}
HELD = {
    "phase": "paused",
    "recovery": {
        **RECOVERY,
        "state": "held",
        "text": "post-copy interrupted at 43 %, paused on request until it is resumed",
    },
}

EMPTY_LEDGER = RealMigration("g1", "qemu+tcp://b/system").ledger()

# Of a guest that no process of this machine has; a test that starts some has a UUID of its own for them.
UUID_ENVIRONMENT = "FAKE_CORE_UUID"
UUID = os.environ.get(UUID_ENVIRONMENT, "aaaaaaaa-0000-4000-8000-000000000001")
XML = f"<domain type='kvm'><name>g1</name><uuid>{UUID}</uuid></domain>"

Script = list[tuple[float, dict[str, Any]]]

# In place of seconds: until the test makes the file that is named in the environment.
GO = -1.0
GO_ENVIRONMENT = "FAKE_CORE_GO"


class Migration:
    """Plays `script`, a class attribute set by install()."""

    script: ClassVar[Script] = []
    abort_works = True
    arguments: ClassVar[dict[str, Any]] = {}
    calls: ClassVar[list[str]] = []

    def __init__(self, domain: str, dest_uri: str, **options: Any) -> None:
        type(self).arguments = {"domain": domain, "dest_uri": dest_uri, **options}
        self._status = dict(STATUS)
        self._decisions: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stop = threading.Event()
        self._seen = threading.Event()
        self._seen.set()
        self._news_count = self._read_count = 0
        self._begun_s = time.monotonic()

    def start(self) -> None:
        self._begun_s = time.monotonic()
        threading.Thread(target=self._play, daemon=True).start()

    def _play(self) -> None:
        for delay_s, changes in self.script:
            # Whoever follows has seen what came before, however late the machine lets it.
            while not self._seen.wait(0.01) and not self._stop.is_set():
                pass
            while delay_s == GO and not os.path.exists(os.environ[GO_ENVIRONMENT]):
                if self._stop.wait(0.01):
                    return
            if self._stop.wait(max(0.0, delay_s)):
                return
            self._news(changes)

    def _news(self, changes: dict[str, Any]) -> None:
        with self._lock:
            if self._status["outcome"] is not None:
                return
            self._seen.clear()
            self._news_count += 1
            self._status["elapsed_ms"] = int((time.monotonic() - self._begun_s) * 1000)
            self._status |= changes
            if changes.get("decision"):
                self._decisions.append(changes["decision"])
        os.write(self._write, b"x")

    def fileno(self) -> int:
        return self._read

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def status(self) -> dict[str, Any]:
        with self._lock:
            self._read_count = self._news_count
            return dict(self._status)

    def decisions(self, first: int = 0) -> list[dict[str, Any]]:
        """Asked for after the status."""
        with self._lock:
            if self._read_count == self._news_count:
                self._seen.set()
            return self._decisions[first:]

    def ledger(self) -> dict[str, Any]:
        """That of the real core before anything has happened."""
        return dict(EMPTY_LEDGER)

    def switch(self) -> None:
        self.calls.append("switch")
        self._news(POSTCOPY)

    def abort(self) -> None:
        self.calls.append("abort")
        if self.abort_works:
            self._stop.set()
            self._news({"phase": "finished", "outcome": "failed", "error": "cancelled by the operator"})

    def pause(self) -> None:
        self.calls.append("pause")
        self._news(HELD)

    def resume(self) -> None:
        self.calls.append("resume")
        self._news({**POSTCOPY, "recovery": None})

    def detach(self) -> None:
        self.calls.append("detach")
        self._stop.set()
        self._news({"outcome": "detached"})

    def join(self, timeout_ms: int = -1) -> bool:
        return self.status()["outcome"] is not None


def gone_param(name: str) -> str | None:
    return "it follows from request_wait_ms" if name == "drain_max_ms" else None


def params() -> list[dict[str, Any]]:
    return [
        {
            "name": "downtime_limit_ms",
            "unit": "ms",
            "default": 300,
            "min": 1,
            "max": 2000000,
            "doc": "Pause.",
        },
        {"name": "abort_after_ms", "unit": "ms", "default": 0, "min": 0, "max": 86400000, "doc": "Give up."},
        {
            "name": "request_wait_ms",
            "unit": "ms",
            "default": 30,
            "min": 1,
            "max": 90,
            "doc": "Longest wait.",
        },
    ]


class Flags:
    def __init__(self, names: tuple[str, ...], policy: str | None) -> None:
        self.bits, self.names, self.policy = len(names), names, policy

    def check(self) -> list[tuple[str, str, tuple[str, ...]]]:
        bad = "TUNNELLED" in self.names and "POSTCOPY" in self.names
        return (
            [("error", "libvirt's tunnel does not carry post-copy", ("TUNNELLED", "POSTCOPY"))] if bad else []
        )


def parse_flags(text: str) -> Flags:
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    if "BOGUS" in names:
        raise FlagsError("unknown flag 'BOGUS'")
    return Flags(names, "first-pass" if "POSTCOPY_AFTER_PRECOPY" in names else None)


def flags_from_bits(bits: int) -> Flags:
    return Flags(("LIVE", "PEER2PEER", "POSTCOPY")[:bits], None)


DEST = "qemu+tcp://b/system"
jobs: list[Any] = []  # what job_status() answers in turn; the last one stays
dest_jobs: list[Any] = []  # the same, for DEST
asked: list[tuple[str, str]] = []


def job_status(uri: str, domain: str) -> dict[str, Any]:
    asked.append((uri, domain))
    answers = dest_jobs if uri == DEST else jobs
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, Exception):
        raise answer
    return dict(answer)


class JobWatch:
    """Looks are job_status() under another name; there are no events."""

    def __init__(self, uri: str, domain: str, *, source: bool = True) -> None:
        self._uri, self._word, self._source = uri, domain, source
        self._lines: list[str] = []
        self._looks = 0

    def look(self) -> dict[str, Any]:
        if not self._source:
            raise NoDomainError("no events are played")
        answer = job_status(self._uri, self._word)
        self._word = answer["uuid"]
        self._looks += 1
        figures = answer["sample"] or {}
        if figures.get("memory_total_bytes"):
            self._lines.append(sample_line(figures.get("elapsed_ms", self._looks) * 1000, figures))
        return answer

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def now_us(self) -> int:
        return self._looks * 1000

    def close(self) -> None: ...


steering: list[Any] = []  # what turns() answers


def turns() -> list[dict[str, Any]]:
    return steering


class Clock:
    """In place of the module `time`: a hundredth of a second passes each time that the source's libvirt is
    asked, and nothing else takes any. So no outcome depends on how busy the machine is."""

    def __init__(self) -> None:
        self._slept_s = 0.0

    def monotonic(self) -> float:
        return self._slept_s + sum(uri != DEST for uri, _ in asked) / 100

    def sleep(self, seconds: float) -> None:
        self._slept_s += seconds


def job(state: str, half: str = "running", **sample: Any) -> dict[str, Any]:
    return {
        "name": "g1",
        "uuid": UUID,
        "state": state,
        "half": half,
        "other_job": None,
        "sample": sample or None,
    }


connect_timeout_ms: list[int] = []  # as set_connect_timeout() was told


def set_connect_timeout(timeout_ms: int) -> None:
    connect_timeout_ms.append(timeout_ms)


def half(uri: str, uuid: str, connect_timeout_ms: int = 10_000) -> dict[str, Any]:
    try:
        answer = job_status(uri, uuid)
    except NoDomainError:
        return {
            "half": "absent",
            "job_active": False,
            "shut_down": False,
            "defined": False,
            "runs": False,
            "running": False,
            "id": None,
        }
    return {
        "half": answer["half"],
        "job_active": answer["state"] == "precopy",
        "shut_down": answer.get("shut_down", False),
        "runs": answer.get("runs", False),
        "running": answer["half"] == "running" or answer.get("runs", False),
        "id": answer.get("id", 1),
        "defined": answer.get("defined", False),
    }


migrating: list[Any] = []  # what migrations() answers


def migrations(uri: str) -> list[dict[str, Any]]:
    if migrating and isinstance(migrating[0], Exception):
        raise migrating[0]
    return migrating


versions: dict[str, int] = {}  # of libvirt, by URI


look: dict[str, Any] = {}  # of turn_back_look()
turned: list[tuple[str, str]] = []  # by turn_back()


def turn_back_look(uri: str, uuid: str) -> dict[str, Any]:
    return look


def turn_back(uri: str, uuid: str) -> list[str]:
    turned.append((uri, uuid))
    return ["it runs"]


def host_facts(uri: str) -> dict[str, Any]:
    return {"libvirt_version": versions.get(uri, 12_008_000), "qemu_version": 11_001_000, "host_uuid": None}


def job_pause(uri: str, domain: str) -> None:
    Migration.calls.append("job_pause")


def job_abort(uri: str, domain: str) -> None:
    Migration.calls.append("job_abort")


arrivals: list[Any] = []  # what arrival() answers, one after the other
resets: list[Any] = []  # and arrival_reset()


def _next(answers: list[Any]) -> Any:
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


def arrival(uuid: str) -> Any:
    return _next(arrivals)


def arrival_reset(uuid: str) -> Any:
    count = _next(resets)
    resets.clear()
    return count


removable: list[bool] = [False]  # whether remove_empty_half() finds one
removed: list[tuple[str, str, str]] = []


def remove_empty_half(source_uri: str, dest_uri: str, uuid: str) -> None:
    if not removable[0]:
        raise LibvirtError("it is no empty half")
    removed.append((source_uri, dest_uri, uuid))
    jobs[:] = [job("none")]


def job_switch(uri: str, domain: str) -> None:
    Migration.calls.append("job_switch")


def domain_xml(uri: str, domain: str) -> str:
    if domain == "nosuch":
        raise NoDomainError("Domain not found: no domain with matching name 'nosuch'")
    if domain == "vfio":
        return XML.replace("</domain>", "<devices><hostdev mode='subsystem' type='pci'/></devices></domain>")
    return XML


def domain_persistent(uri: str, domain: str) -> bool:
    return True


starts_with_host = False


def domain_autostart(uri: str, domain: str) -> bool:
    return starts_with_host


def install(script: Script | None = None) -> ModuleType:
    """Puts this module in place of pcmig._core for the rest of the process."""
    import pcmig

    module = sys.modules[__name__]
    Migration.script = script or [(0.0, PRECOPY), (0.01, POSTCOPY), (0.01, COMPLETED)]
    sys.modules["pcmig._core"] = module
    pcmig._core = module
    return module
