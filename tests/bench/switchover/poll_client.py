# SPDX-License-Identifier: Apache-2.0
"""Looks at a migration's statistics every so often, and switches to post-copy when they say so.

With --to it makes the migrate call too, in a thread and on a connection of its own: that is how Nova's driver
does it. Without, it watches a migration that somebody else makes. It calls the machine's libvirt.so itself:
libvirt-python would have to be built against the very same version.

Prints one JSON object: when the switch was issued (CLOCK_MONOTONIC), the polls, and how the call ended.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

# <libvirt/libvirt-domain.h>
MIGRATE_LIVE, MIGRATE_PEER2PEER, MIGRATE_POSTCOPY = 1 << 0, 1 << 1, 1 << 15
PARAM_URI = b"migrate_uri"
JOB_NONE = 0
FIELDS = ("memory_iteration", "memory_total", "memory_normal", "memory_constant", "memory_page_size")

NULL_ERROR_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda _data, _error: None)


class CallError(Exception):
    """A call to libvirt failed, in libvirt's words."""


class Libvirt:
    """The few calls needed. A failing one raises CallError; calls run without the GIL."""

    def __init__(self) -> None:
        self.library = library = ctypes.CDLL("libvirt.so.0")
        handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint
        signatures: dict[str, tuple[Any, ...]] = {  # result, arguments
            "virGetLastErrorMessage": (text,),
            "virConnectOpen": (handle, text),
            "virDomainLookupByName": (handle, handle, text),
            "virDomainGetJobStats": (ctypes.c_int, handle, handle, handle, handle, number),
            "virDomainMigrateStartPostCopy": (ctypes.c_int, handle, number),
            "virDomainMigrateToURI3": (ctypes.c_int, handle, text, handle, number, number),
            "virTypedParamsGetULLong": (ctypes.c_int, handle, ctypes.c_int, text, handle),
            "virTypedParamsAddString": (ctypes.c_int, handle, handle, handle, text, text),
            "virTypedParamsFree": (None, handle, ctypes.c_int),
            "virSetErrorFunc": (None, handle, handle),
        }
        for name, (result, *arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        library.virSetErrorFunc(None, NULL_ERROR_HANDLER)  # errors are ours to print

    def error(self) -> CallError:
        said = self.library.virGetLastErrorMessage()
        return CallError(said.decode(errors="replace") if said else "unknown error")

    def domain(self, uri: str, name: str) -> Domain:
        """The domain, on a connection of its own; both live as long as this process."""
        connection = self.library.virConnectOpen(uri.encode())
        if not connection:
            raise self.error()
        handle = self.library.virDomainLookupByName(connection, name.encode())
        if not handle:
            raise self.error()
        return Domain(self, handle)


@dataclasses.dataclass
class Domain:
    libvirt: Libvirt
    handle: int

    def job_stats(self) -> dict[str, int] | None:
        """FIELDS of the running job, 0 where one is not reported; None without a job."""
        library = self.libvirt.library
        kind, count = ctypes.c_int(), ctypes.c_int()
        params = ctypes.c_void_p()
        if library.virDomainGetJobStats(
            self.handle, ctypes.byref(kind), ctypes.byref(params), ctypes.byref(count), 0
        ):
            raise self.libvirt.error()
        stats = {}
        for field in FIELDS:
            value = ctypes.c_ulonglong()
            library.virTypedParamsGetULLong(params, count, field.encode(), ctypes.byref(value))
            stats[field] = value.value
        library.virTypedParamsFree(params, count)
        return stats if kind.value != JOB_NONE else None

    def start_postcopy(self) -> None:
        if self.libvirt.library.virDomainMigrateStartPostCopy(self.handle, 0):
            raise self.libvirt.error()

    def migrate(self, to: str, migrate_uri: str) -> None:
        """Returns when the guest has moved."""
        library = self.libvirt.library
        params, count, room = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        if library.virTypedParamsAddString(
            ctypes.byref(params), ctypes.byref(count), ctypes.byref(room), PARAM_URI, migrate_uri.encode()
        ):
            raise self.libvirt.error()
        flags = MIGRATE_LIVE | MIGRATE_PEER2PEER | MIGRATE_POSTCOPY
        failed = library.virDomainMigrateToURI3(self.handle, to.encode(), params, count.value, flags)
        error = self.libvirt.error() if failed else None
        library.virTypedParamsFree(params, count)
        if error:
            raise error


def second_iteration(stats: dict[str, int]) -> bool:
    """The second iteration has begun: what virsh's --postcopy-after-precopy takes for the end of a pass."""
    return stats["memory_iteration"] >= 2


def one_pass(stats: dict[str, int]) -> bool:
    """As many pages were sent or found to be zero as the guest has."""
    pages = stats["memory_total"] // (stats["memory_page_size"] or 4096)
    return 0 < pages <= stats["memory_normal"] + stats["memory_constant"]


def iterations(number: int) -> Callable[[dict[str, int]], bool]:
    """QEMU's counter has come to NUMBER, as its tests/migration-stress/guestperf has it; 0: as soon as there
    are statistics of memory."""
    return lambda stats: stats["memory_total"] > 0 and stats["memory_iteration"] >= number


WHEN = {"iteration": second_iteration, "pass": one_pass}


def when(text: str) -> Callable[[dict[str, int]], bool]:
    if text.isdecimal():
        return iterations(int(text))
    try:
        return WHEN[text]
    except KeyError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: use {', '.join(WHEN)} or a number of iterations"
        ) from None


class MigrateThread(threading.Thread):
    """The migrate call of Nova's driver."""

    def __init__(self, domain: Domain, to: str, migrate_uri: str) -> None:
        super().__init__(daemon=True)
        self.domain, self.to, self.migrate_uri = domain, to, migrate_uri
        self.error: str | None = None

    def run(self) -> None:
        try:
            self.domain.migrate(self.to, self.migrate_uri)
        except CallError as error:
            self.error = str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", required=True, metavar="URI")
    parser.add_argument("--domain", required=True)
    parser.add_argument("--to", metavar="URI", help="migrate there; otherwise only watch")
    parser.add_argument("--migrate-uri", metavar="URI")
    parser.add_argument("--when", type=when, required=True, help="switch when the statistics show this")
    parser.add_argument("--period-ms", type=int, required=True)
    args = parser.parse_args()

    libvirt = Libvirt()
    try:
        domain = libvirt.domain(args.connect, args.domain)
        thread = None
        if args.to:
            thread = MigrateThread(libvirt.domain(args.connect, args.domain), args.to, args.migrate_uri)
            thread.start()
        result = follow(domain, thread, args.when, args.period_ms / 1000)
    except CallError as error:
        print(f"poll client: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    if result["error"]:
        print(f"poll client: {result['error']}", file=sys.stderr)
    return 1 if result["error"] else 0


def follow(
    domain: Domain,
    thread: MigrateThread | None,
    reached: Callable[[dict[str, int]], bool],
    period_s: float,
    give_up_s: float = 300.0,
) -> dict[str, Any]:
    """Poll until the call returns; without a call, until the switch is issued."""
    result: dict[str, Any] = {"switch_s": None, "polls": 0, "failed_polls": 0, "refused": 0, "error": None}
    end_s = time.monotonic() + give_up_s
    while thread.is_alive() if thread else result["switch_s"] is None and time.monotonic() < end_s:
        try:
            stats = domain.job_stats()
            result["polls"] += 1
        except CallError:  # around the switch libvirt may not know QEMU's state; the call goes on
            stats = None
            result["failed_polls"] += 1
        if stats and result["switch_s"] is None and reached(stats):
            try:
                domain.start_postcopy()
                result["switch_s"] = time.monotonic()
            except CallError:
                result["refused"] += 1
        time.sleep(period_s)
    if thread:
        result["error"] = thread.error
    return result


if __name__ == "__main__":
    sys.exit(main())
