# SPDX-License-Identifier: Apache-2.0
"""A migration that someone else started, seen from one host: what watch, abort and switch share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pcmig import _core
from pcmig.cli.base import CommandError
from pcmig.shadow import Shadow, sample_line
from pcmig_common.phases import POSTCOPY

if TYPE_CHECKING:
    from pcmig._core import Status

POLL_S = 0.5

# So long the migration has to do what libvirt took an order for.
CONFIRM_S = 10.0

# A failing statistics call looks like no job at all, and around the switch such calls fail for a moment:
# only when we have been told "none" so often in a row do we believe it.
NONE_POLLS = 3

# What the link carries in this time may be left at the last look at a pre-copy that then ended well.
NEARLY_DONE_S = NONE_POLLS * POLL_S + 1

# What one host says of its half of the guest, for people.
HALVES = {
    "unknown": "in a state that could not be read",
    "absent": "not running there",
    "running": "running",
    "paused": "paused",
    "migrating": "paused for a migration",
    "postcopy": "in post-copy",
    "postcopy-failed": "paused, because post-copy was interrupted",
    "dead": "crashed or shutting down",
}


class Job:
    """The migration of one guest as the host at `uri` sees it. `look()` asks anew."""

    def __init__(self, uri: str, domain: str, seen: Shadow | None = None) -> None:
        self.uri = uri
        self.domain = domain  # as it was typed; its name, once libvirt has told
        self.uuid = ""  # "": libvirt has not told
        self.other_job: str | None = None  # what libvirt does with the guest that is no migration
        self.state = "none"  # "precopy", "postcopy", "paused", "none"
        self.half = "unknown"
        self.silent = False  # libvirt waits for QEMU, and has not told how the migration is
        self.figures: dict[str, Any] = {}  # of the latest sample there was
        self.source = False  # this host is known to be the source
        self.switched = False  # post-copy was seen
        self._previous: tuple[float, int] | None = None
        self.seen = seen or Shadow()  # the account of what was seen, and what pcmig would have made of it
        self._requests_ps = 0
        self._nones = 0
        self._begun_s = time.monotonic()

    @property
    def word(self) -> str:
        """How to name the guest in a command."""
        return _core.guest_word(self.domain, self.uuid) if self.uuid else self.domain

    def look(self) -> None:
        """Asks once. Raises LibvirtError; a guest that is gone is no error once it was seen."""
        seen = self.half != "unknown"
        answer: _core.Job
        try:
            answer = self.ask()
        except _core.NoDomainError:
            if not seen:
                raise
            answer = {
                "name": self.domain,
                "uuid": self.uuid,
                "state": "none",
                "half": "absent",
                "other_job": None,
                "sample": None,
            }
        self.domain, self.uuid = answer["name"], answer["uuid"]
        self.half = answer["half"]
        self.other_job = answer["other_job"]
        if answer["sample"] is not None:
            self.figures = answer["sample"]
            self._count_requests()
        if not seen and answer["state"] in POSTCOPY:
            self.seen.saw(answer["state"])  # before figures that are of it
        self.seen.feed(self.heard(answer))
        # Only the source has statistics (libvirt refuses them at the destination).
        self.source = self.source or answer["state"] == "precopy" or answer["sample"] is not None
        self._nones = self._nones + 1 if answer["state"] == "none" else 0
        # "dead" is also what a source half is for a moment that ends as it should.
        sure = not seen or self.half == "absent" or self._nones >= NONE_POLLS
        self.switched = self.switched or answer["state"] == "postcopy"
        if answer["state"] == "unknown":
            self.silent = True
            return
        self.silent = False
        if answer["state"] != "none" or (sure and self.half != "migrating"):
            self.state = answer["state"]
        self.seen.saw(self.state)

    def ask(self) -> _core.Job:
        """By UUID once it is known: an id, or a name, may be another guest's by now."""
        return _core.job_status(self.uri, self.uuid or self.domain)

    def heard(self, answer: _core.Job) -> list[str]:
        """What ANSWER adds to the account."""
        figures = answer["sample"]
        if figures is None or not figures.get("memory_total_bytes"):
            return []
        elapsed_ms = figures.get("elapsed_ms") or round((time.monotonic() - self._begun_s) * 1000)
        return [sample_line(elapsed_ms * 1000, figures)]

    def nearly_done(self) -> bool:
        """Whether pre-copy may have ended by itself since the latest figures: a poll and a pause ago."""
        left = self.figures.get("memory_remaining_bytes", 0)
        return bool(left <= NEARLY_DONE_S * self.figures.get("memory_bps", 0))

    def find(self) -> None:
        """Asks for the first time. Raises CommandError when no migration is under way."""
        self.look()
        if self.silent:
            raise CommandError(
                f"libvirt at {self.uri} cannot tell what it does with {self.domain}: QEMU does not answer, "
                "or another call holds the guest"
            )
        if self.half == "migrating" and self.state == "none" and not self.other_job:
            raise CommandError(
                f"{self.domain} is about to arrive at {self.uri}; connect to the source host instead"
            )
        if self.state == "none":
            other = f", and libvirt runs another job for it: {self.other_job}" if self.other_job else ""
            raise CommandError(
                f"no migration of {self.domain} is under way at {self.uri} "
                f"(the guest is {HALVES[self.half]}{other})"
            )

    def wait_while(self, state: str, timeout_s: float) -> None:
        """Returns when the job is not in STATE any more, or TIMEOUT_S have passed."""
        end_s = time.monotonic() + timeout_s
        while True:
            self.look()
            if self.state != state or time.monotonic() > end_s:
                return
            time.sleep(POLL_S / 5)

    def status(self) -> Status:
        """What is known, in the form that a display takes."""
        figures, judged = self.figures, self.seen.look()
        if self.seen.final:
            figures = {**dict.fromkeys(figures, 0), **self.seen.final}
        total, remaining = figures.get("memory_total_bytes", 0), figures.get("memory_remaining_bytes", 0)
        queue_bytes = figures.get("queue_bytes")
        return {
            "state": self.state,
            "phase": self.state,
            "outcome": None,
            "error": None,
            "operator_command": None,
            "elapsed_ms": figures.get("elapsed_ms") or round((time.monotonic() - self._begun_s) * 1000),
            "passes": judged["passes"],
            "pass_permille": judged["pass_permille"],
            "memory_total_bytes": total,
            "memory_processed_bytes": figures.get("memory_processed_bytes", 0),
            "memory_remaining_bytes": remaining,
            "disk_total_bytes": figures.get("disk_total_bytes", 0),
            "disk_processed_bytes": figures.get("disk_processed_bytes", 0),
            "disk_remaining_bytes": figures.get("disk_remaining_bytes", 0),
            "downtime_ms": figures.get("downtime_ms", 0),
            "setup_time_ms": figures.get("setup_time_ms", 0),
            "send_bps": 0 if self.seen.final else judged["send_bps"],
            "link_bps": judged["link_bps"],
            "latency": judged["latency"],
            "dirty_pages_ps": figures.get("dirty_pages_ps", 0),
            "postcopy_requests": figures.get("postcopy_requests", 0),
            "requests_ps": self._requests_ps,
            "queue_bytes": queue_bytes if queue_bytes is not None and queue_bytes >= 0 else None,
            "pace_mib": None,
            "progress_permille": judged["progress_permille"],
            "eta": judged["eta"],
            "eta_ms": judged["eta"]["most_ms"],
            "downtime": judged["downtime"],
            "decision": None,
            "switch_late_us": None,
            "cpu_us": 0,
            "stream_peer": None,
            "quickack": "off",
            "stats_failed": 0,
            "inputs_lost": 0,
            "gate": "none",
            "recovery": None,
            "crossed": self.state in POSTCOPY,
            "left": self.state in POSTCOPY,
            "unrun": False,
            "dest_host": None,
            "dest_ended": False,
            "note": None,
            "turn": "free",
            "waits_for": None,
        }

    def _count_requests(self) -> None:
        now_s, requests = time.monotonic(), self.figures.get("postcopy_requests", 0)
        if self._previous and now_s > self._previous[0]:
            self._requests_ps = max(0, round((requests - self._previous[1]) / (now_s - self._previous[0])))
        self._previous = (now_s, requests)
