# SPDX-License-Identifier: Apache-2.0
"""Who is there on an OVN bed: a client outside, a neighbour on the source's host, and a guest that moves."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Iterator

from pcmig.ports import judgement
from pcmig.ports.model import Readiness, SwitchPort, Verdict
from tests.bed.errors import BedError
from tests.ovn.cloud import CLIENT, Ovn
from tests.ovn.frames import Station
from tests.ovn.mover import SILENT_MS, Mover
from tests.ovn.pinger import Pinger, Silence
from tests.ovn.place import Place, until

# The cloud's guest sends its heartbeats to this MAC and address (tests/cloud/network.py).
OUTSIDE = Station("02:70:63:6d:69:67", "10.80.0.1")
NEIGHBOUR = Station("02:70:63:6d:69:02", "10.80.0.2")
GUEST = Station("fa:16:3e:70:00:10", "10.80.0.16")
GUEST_PORT = "5b1e7a10-0c4d-4c22-9d0c-6f0e00000010"  # libvirt takes a UUID only
NEIGHBOUR_DEVICE, GUEST_DEVICE = "neigh", "guest"
SETTLED_S = 0.5
TAIL_S = 2.5
CONTROLLER = "ovn-controller"


@dataclasses.dataclass(frozen=True)
class Way:
    """How a guest is switched."""

    strategy: str | None  # "rarp", "" (both hosts at once), None: the port is at one host at a time
    bound_after_s: float = 1.0  # from the switch until neutron has bound the port to the destination alone
    stopped: str = ""  # hosts whose ovn-controller stands still, from 0.5 s before the switch on
    stopped_s: float = 1.0

    def __str__(self) -> str:
        name = {"rarp": "rarp", "": "both at once", None: "one host"}[self.strategy]
        return f"{name}{', ovn-controller stopped at ' + self.stopped if self.stopped else ''}"


@dataclasses.dataclass(frozen=True)
class Result:
    """Silences as the client and the neighbour had them."""

    own_ms: float
    client: Silence
    neighbour: Silence
    from_guest_ms: float  # nothing of the guest's own datagrams came to the client
    tempest_lost: int
    activated_ms: float | None = None  # after the switch, the southbound database's word

    def worst_ms(self) -> float:
        return max(self.client.longest_ms, self.neighbour.longest_ms, self.from_guest_ms)


class Scene:
    """An OVN with client and neighbour; the guest's port is there, plugged at a."""

    def __init__(self, ovn: Ovn) -> None:
        self.ovn = ovn

    def furnish(self) -> None:
        ovn = self.ovn
        if ovn.network == "geneve":
            ovn.add_port("client", OUTSIDE.mac, OUTSIDE.address, "c")
            ovn.c.plug(CLIENT, "client")
        self.neighbour = ovn.a.add_station(NEIGHBOUR_DEVICE)
        ovn.add_port("neighbour", NEIGHBOUR.mac, NEIGHBOUR.address, "a")
        ovn.a.plug(NEIGHBOUR_DEVICE, "neighbour")
        ovn.add_port(GUEST_PORT, GUEST.mac, GUEST.address, "a")
        if ovn.network == "geneve":
            self.wait_installed(ovn.c, CLIENT)
        self.wait_installed(ovn.a, NEIGHBOUR_DEVICE)

    def port(self, place: Place, device: str) -> SwitchPort | None:
        """What `pcmig ports` reads of it."""
        with contextlib.closing(self.ovn.database(place)) as database:
            return database.port(device)

    def verdict(self, place: Place, device: str) -> Verdict | None:
        port = self.port(place, device)
        return None if port is None else judgement.of_switch(port)

    def wait_installed(self, place: Place, device: str, patience_s: float = 20.0) -> float:
        """Until `pcmig ports` says that the port forwards; how long that took, in ms."""
        started_s = time.monotonic()
        with contextlib.closing(self.ovn.database(place)) as database:

            def ready() -> bool:
                port = database.port(device)
                return port is not None and judgement.of_switch(port).readiness == Readiness.READY

            until(ready, f"{device} of {place.name} forwards", patience_s)
        return (time.monotonic() - started_s) * 1000

    def pingers(self) -> tuple[Pinger, Pinger]:
        a, c = self.ovn.a, self.ovn.c
        return (
            Pinger(c.namespace, self.ovn.client, OUTSIDE, GUEST),
            Pinger(a.namespace, self.neighbour, NEIGHBOUR, GUEST),
        )

    @contextlib.contextmanager
    def stopped(self, way: Way) -> Iterator[None]:
        """Their ovn-controllers stand still for so long, whatever the block does."""
        places = [self.ovn.places[host] for host in way.stopped]
        go_on = threading.Event()

        def hold() -> None:
            with contextlib.ExitStack() as stack:
                for place in places:
                    stack.enter_context(place.stopped(CONTROLLER))
                go_on.set()
                time.sleep(way.stopped_s)

        thread = threading.Thread(target=hold)
        thread.start()
        go_on.wait()
        try:
            yield
        finally:
            thread.join()


class StationScene(Scene):
    """The guest is a station: see mover.py."""

    def furnish(self) -> None:
        super().furnish()
        self.at = {
            place.name: (place.namespace, place.add_station(GUEST_DEVICE))
            for place in (self.ovn.a, self.ovn.b)
        }

    def at_source(self) -> None:
        """As before a migration."""
        self.ovn.b.unplug(GUEST_DEVICE)
        self.ovn.bind(GUEST_PORT, "a")
        self.ovn.a.plug(GUEST_DEVICE, GUEST_PORT)
        self.wait_installed(self.ovn.a, GUEST_DEVICE)
        until(lambda: self.ovn.binding(GUEST_PORT)["additional_chassis"] == "[]", "the port is at a alone")

    def announce_migration(self, way: Way) -> None:
        """What neutron does when a migration begins, and the plug at the destination."""
        if way.strategy is not None:
            self.ovn.bind(GUEST_PORT, "a,b", way.strategy)
        self.ovn.b.plug(GUEST_DEVICE, GUEST_PORT)

    def measure(self, way: Way, *, gate: bool = True, late_s: float = 0.0) -> Result:
        """One switch from a to b. GATE: not before the port forwards at b, where it can before it is bound.
        LATE_S: so long ovn-controller stands still at b before it hears of the port."""
        self.at_source()
        client, neighbour = self.pingers()
        with Mover(GUEST, OUTSIDE, self.at) as guest, client, neighbour, self._late(late_s):
            time.sleep(SETTLED_S)
            self.announce_migration(way)
            if gate and way.strategy is not None:
                self.wait_installed(self.ovn.b, GUEST_DEVICE)
            time.sleep(SETTLED_S)
            began_s = time.monotonic()
            if not client.answered or not neighbour.answered:
                raise BedError(f"the guest is not reached before the switch: {self.ovn.binding(GUEST_PORT)}")
            return self._switched(way, guest, client, neighbour, began_s, late_s)

    @contextlib.contextmanager
    def _late(self, late_s: float) -> Iterator[None]:
        if not late_s:
            yield
            return
        self.ovn.b.pause(CONTROLLER)
        timer = threading.Timer(late_s, self.ovn.b.go_on, (CONTROLLER,))
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def _switched(
        self, way: Way, guest: Mover, client: Pinger, neighbour: Pinger, began_s: float, late_s: float
    ) -> Result:
        with self.stopped(way):
            if way.stopped:
                time.sleep(way.stopped_s / 2)
            switched: list[float] = []
            thread = threading.Thread(target=lambda: switched.append(guest.switch("b")))
            started_s = time.monotonic()
            thread.start()
            activated_ms = self._bind_later(way, started_s)
            thread.join()
        time.sleep(max(0.0, started_s + TAIL_S + late_s - time.monotonic()))
        end_s = time.monotonic() - 0.2
        return Result(
            own_ms=SILENT_MS,
            client=client.silence(began_s, end_s),
            neighbour=neighbour.silence(began_s, end_s),
            from_guest_ms=client.silence_of("udp", began_s, end_s),
            tempest_lost=client.tempest(began_s, end_s),
            activated_ms=activated_ms,
        )

    def _bind_later(self, way: Way, started_s: float) -> float | None:
        """Meanwhile looks when the port is activated; then binds it to b alone."""
        activated_ms = None
        bound_s = started_s + way.bound_after_s
        while time.monotonic() < bound_s:
            if way.strategy and activated_ms is None and self.ovn.activated(GUEST_PORT):
                activated_ms = (time.monotonic() - started_s) * 1000
            time.sleep(0.02)
        self.ovn.bind(GUEST_PORT, "b")
        return activated_ms


@contextlib.contextmanager
def station_scene(folder: pathlib.Path, network: str) -> Iterator[StationScene]:
    ovn = Ovn(folder, network)
    try:
        ovn.up()
        scene = StationScene(ovn)
        scene.furnish()
        yield scene
    finally:
        ovn.down()
