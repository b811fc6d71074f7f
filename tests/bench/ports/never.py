# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.ports.never: a destination whose port never forwards, and what --ports-then makes of
it. See tests/bench/README.rst."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

from tests.bed import BedError, Host
from tests.bed.procs import run
from tests.bench import program
from tests.bench.ports.figures import silence_ms
from tests.bench.ports.session import Session
from tests.bench.ports.ways import SETUPS
from tests.bench.ports.wiring import Pinger, bridge, until

RATE_MBIT = (
    100  # of the migration link: the guest writes more, or pre-copy ends by itself, which nothing holds
)
WAIT_S = 3
LONGER_S = 6.0  # than it was to wait
REACHED_MS = 300.0  # as on a machine that others load
CANCELLED = 1


class Case:
    """The guest, the bridge that does not forward, and the outside client."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.source = session.bed.where(session.guest)
        self.destination = session.bed.other(self.source)
        self.client: Pinger = session.wiring.pinger(None)
        self.told: list[str] = []

    def forwards(self, up: bool) -> None:
        words = ["ip", "link", "set", bridge(0), "up" if up else "down"]
        run(self.destination.command(words), "the destination's bridge")

    def start(self, then: str) -> subprocess.Popen[str]:
        options = [f"--ports=root@{self.destination.name}", "--ports-wait", str(WAIT_S), "--ports-then", then]
        return subprocess.Popen(
            self.session.pcmig(self.source, self.destination, options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], code: int) -> str:
        said = process.communicate(timeout=150)[0]
        if process.returncode == 0 and "all ports forward" not in said and "anyway" not in said:
            raise BedError("pre-copy ended by itself: the machine is too busy for the guest to write enough")
        self.expect(process.returncode == code, f"exit status {process.returncode}: {said}")
        return said

    def is_at(self, host: Host) -> None:
        until(lambda: self.session.guest.host() == host.name, f"the guest is at host {host.name}")

    def silence(self, start_s: float) -> float:
        """The longest that the client had to wait, at any of the guest's addresses."""
        end_s = time.monotonic()
        return max(silence_ms(each["came"], start_s, end_s) for each in self.client.take().values())

    def expect(self, condition: object, what: str) -> None:
        if not condition:
            raise BedError(what)

    def tell(self, text: str) -> None:
        self.told.append(text)


def stay(case: Case) -> None:
    """In pre-copy, and reached there; it goes as soon as the port forwards."""
    start_s = time.monotonic()
    process = case.start("stay")
    time.sleep(WAIT_S + 2 * LONGER_S)
    waited_ms = case.silence(start_s)
    case.is_at(case.source)
    case.expect(process.poll() is None, "it has ended")
    case.expect(waited_ms < REACHED_MS, f"not reached for {waited_ms:.0f} ms while it stayed")
    up_s = time.monotonic()
    case.forwards(True)
    case.end(process, 0)
    case.is_at(case.destination)
    time.sleep(1)
    moved_ms = case.silence(up_s)
    case.tell(
        f"in pre-copy: silence {waited_ms:.0f} ms; moved once the port forwarded: silence {moved_ms:.0f} ms"
    )
    case.expect(moved_ms < 2 * REACHED_MS, f"not reached for {moved_ms:.0f} ms when it moved")


def abort(case: Case) -> None:
    """Where it was, and reached all the time."""
    start_s = time.monotonic()
    said = case.end(case.start("abort"), CANCELLED)
    case.is_at(case.source)
    silence = case.silence(start_s)
    case.expect("cancelling" in said, said)
    case.tell(f"cancelled after {time.monotonic() - start_s:.0f} s: silence {silence:.0f} ms")
    case.expect(silence < REACHED_MS, f"not reached for {silence:.0f} ms")


def switch(case: Case) -> None:
    """There, and not reached; announced the moment that the port forwards."""
    case.end(case.start("switch"), 0)
    case.is_at(case.destination)
    case.client.take()
    time.sleep(LONGER_S)
    lost = not any(each["came"] for each in case.client.take().values())
    case.expect(lost, "somebody reached the guest, whose port does not forward")
    up_s = time.monotonic()
    case.forwards(True)
    time.sleep(3)
    first_ms = max(
        (min(time_s for _, time_s in each["came"]) - up_s) * 1000 if each["came"] else 3000.0
        for each in case.client.take().values()
    )
    case.tell(f"unreachable there; reached {first_ms:.0f} ms after the port forwards")
    case.expect(first_ms < 2000, f"reached {first_ms:.0f} ms after the port forwards")


CASES: dict[str, Callable[[Case], None]] = {"stay": stay, "abort": abort, "switch": switch}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ports.never", description=__doc__)
    parser.add_argument("--stack", choices=("forky", "backports"), default="forky", help="QEMU and libvirt")
    args = parser.parse_args(argv)
    failed = 0
    try:
        with Session(args.stack, RATE_MBIT, SETUPS[0], print) as session:
            for then, play in CASES.items():
                case = Case(session)
                session.settle({"client": case.client})
                case.forwards(False)
                try:
                    play(case)
                except BedError as error:
                    failed += 1
                    case.tell(f"FAILED: {error}")
                finally:
                    case.forwards(True)
                print(f"--ports-then {then}: {'; '.join(case.told)}", flush=True)
    except BedError as error:
        program.complain(error)
        return 1
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
