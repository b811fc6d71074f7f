# SPDX-License-Identifier: Apache-2.0
"""One bed and some guests that go to and fro between its hosts all at once, each time by another way."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.bed import Bed, BedError, Guest, GuestSpec, Host
from tests.bed.guest import CONSOLE, crash_told
from tests.bed.layer import Reporter
from tests.bench.calm import Calm
from tests.bench.figures import since
from tests.bench.many.figures import summary
from tests.bench.switchover import machine
from tests.bench.switchover.commands import Place, Ran, migrate
from tests.bench.switchover.events import COMPLETE, Listeners
from tests.bench.switchover.ways import Way

COLLECTOR = pathlib.Path(__file__).parents[2] / "bed" / "collector.py"
SETTLE_PATIENCE_S = 30.0
EVENT_PATIENCE_S = 15.0
TAIL_S = 2.0


@dataclasses.dataclass(frozen=True)
class OwnConsole(GuestSpec):
    """A guest among others: each has a console of its own."""

    @property
    def console(self) -> str:
        return CONSOLE.replace("console.sock", f"{self.name}.sock")

    def xml(self) -> str:
        return super().xml().replace(CONSOLE, self.console)


class Session:
    """`with Session(...) as session: session.measure(way, round)`, as often as wanted."""

    def __init__(
        self,
        stack: str,
        rate_mbit: float,
        specs: list[OwnConsole],
        traces: pathlib.Path | None,
        reporter: Reporter,
    ) -> None:
        self.stack = stack
        self.specs = specs
        self.traces = traces
        self.bed = Bed(stack, rate_mbit, reporter=reporter)
        self.guests: list[Guest] = []
        self._exits = contextlib.ExitStack()
        self._calm = {spec.name: Calm(spec.heartbeat_ms, SETTLE_PATIENCE_S) for spec in specs}

    def __enter__(self) -> Session:
        with contextlib.ExitStack() as exits:
            exits.enter_context(self.bed)
            self.listeners = exits.enter_context(Listeners(self.bed.hosts))
            self.guests = [self._boot(spec, exits) for spec in self.specs]
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._exits.close()

    def _boot(self, spec: OwnConsole, exits: contextlib.ExitStack) -> Guest:
        log = self.bed.state / f"{spec.name}.log"
        exits.enter_context(_collector(log, spec, self.bed.hosts))
        guest = Guest(spec, log)
        guest.start(self.bed.a)
        return guest

    def measure(self, way: Way, number: int) -> dict[str, Any]:
        """All guests migrate to the other host; raw figures as they go into the JSON."""
        settle = [self._calm[guest.name].wait(guest.log)["disturbed"] for guest in self.guests]
        source = self.bed.where(self.guests[0])
        destination = self.bed.other(source)
        sent, cpu = machine.bytes_sent(source), machine.CpuTimes.now()
        start_s = time.monotonic()
        ran = self._all(way, number, source, destination)
        arrived = {guest.name: self._arrival(guest, destination, ran[guest.name]) for guest in self.guests}
        sent, load = machine.bytes_sent(source) - sent, machine.CpuTimes.now().shares_since(cpu)
        guests = []
        for guest in self.guests:
            end_s = arrived[guest.name] or ran[guest.name].end_s
            verdict = dataclasses.asdict(guest.verdict(start_s, end_s, TAIL_S))
            guests.append(
                {
                    "name": guest.name,
                    "arrived_s": since(start_s, arrived[guest.name]),
                    "command_s": round(ran[guest.name].end_s - start_s, 3),
                    "cpu_ms": round(ran[guest.name].cpu_s * 1000, 1),
                    "error": _error(ran[guest.name], verdict, destination, arrived[guest.name], guest.said()),
                    **verdict,
                }
            )
        return {
            "stack": self.stack,
            "way": way.name,
            "round": number,
            "direction": f"{source.name}->{destination.name}",
            "bytes": sent,
            "settle": [why for why in settle if why],
            **load,
            "guests": guests,
            **summary(guests),
        }

    def _all(self, way: Way, number: int, source: Host, destination: Host) -> dict[str, Ran]:
        ran: dict[str, Ran] = {}

        def one(guest: Guest) -> None:
            trace = (self.traces or self.bed.state) / f"{self.stack}.{way.name}.{number}.{guest.name}.trace"
            ran[guest.name] = migrate(way, Place(source, destination, guest.name), trace)

        threads = [threading.Thread(target=one, args=(guest,)) for guest in self.guests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if missing := [guest.name for guest in self.guests if guest.name not in ran]:
            raise BedError(f"no migration of {', '.join(missing)} could be begun")
        return ran

    def _arrival(self, guest: Guest, destination: Host, ran: Ran) -> float | None:
        deadline_s = time.monotonic() + (0.0 if ran.code else EVENT_PATIENCE_S)
        while True:
            for event in self.listeners.since(ran.start_s):
                if (event.domain, event.host, event.text) == (guest.name, destination.name, COMPLETE):
                    return event.time_s
            if time.monotonic() > deadline_s:
                return None
            time.sleep(0.1)


@contextlib.contextmanager
def _collector(log: pathlib.Path, spec: OwnConsole, hosts: tuple[Host, Host]) -> Iterator[None]:
    """Takes the console of one guest down, on whichever host it is."""
    sockets = [f"{host.name}={host.state}{spec.console}" for host in hosts]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(COLLECTOR), str(log), "lifeline", *sockets],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise BedError(f"the collector of {spec.name}'s heartbeats did not start")
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _error(
    ran: Ran, verdict: dict[str, Any], destination: Host, arrived_s: float | None, said: str
) -> str | None:
    """What makes a round worthless."""
    if ran.error:
        return ran.error
    if words := crash_told(said):
        return words
    if verdict["host"] != destination.name:
        return f"does not run on host {destination.name}"
    if verdict["page_errors"]:
        return f"{verdict['page_errors']} pages do not hold what the guest wrote"
    return None if arrived_s is not None else f"host {destination.name} never said {COMPLETE!r}"
