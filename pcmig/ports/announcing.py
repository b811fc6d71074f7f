# SPDX-License-Identifier: Apache-2.0
"""A guest that has begun to run on this host is announced until the network has learned where it is. When to,
and until when, is the core's word (core/announce.h)."""

from __future__ import annotations

import contextlib
import dataclasses
import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pcmig import _core
from pcmig.ports import frames
from pcmig.ports.ear import Ear, EarError
from pcmig.ports.host import HostError

if TYPE_CHECKING:
    from pcmig.ports.host import Host
    from pcmig.ports.model import Nic, Port

FOR_S = 30.0
LOOK_MS = 50  # how soon it is seen that a port forwards,
CALM_LOOK_MS = 500  # and that one does not any more
BY_QEMU = 5  # so many frames QEMU sends for the guest as it arrives (announce-rounds)


@dataclasses.dataclass
class Announced:
    """What came of it at one port. Times are from the call: the guest ran by then."""

    mac: str
    device: str | None
    sent: int = 0  # times
    first_ms: int | None = None
    heard_ms: int | None = None  # when the guest itself was heard there
    problem: str | None = None  # the last one


def announce_until_learned(
    nics: Sequence[Nic],
    host: Host,
    *,
    addresses: Mapping[str, Sequence[str]] | None = None,
    ports: Sequence[Port] | None = None,
    for_s: float = FOR_S,
    stop: Callable[[], bool] = lambda: False,
    told: Callable[[list[Port]], None] = lambda _: None,
) -> list[Announced]:
    """To be called on the destination host as soon as the guest runs there. Returns when it was heard at each
    of its ports, FOR_S after each forwards, or when STOP() is true, which is asked at least each 50 ms.

    ADDRESSES: IP addresses by MAC (in lower case), besides those that libvirt knows. PORTS: as HOST.look()
    said a moment ago, which spares the first look. TOLD gets the ports at each look. Raises HostError when
    the host cannot be asked; what is wrong with one port is in its row. It needs CAP_NET_RAW and
    CAP_NET_ADMIN, and for Open vSwitch access to ovs-vswitchd's sockets."""
    begun_s = time.monotonic()
    with contextlib.ExitStack() as opened:
        rows = [_Row(nic, (addresses or {}).get(nic.mac.lower(), ()), for_s) for nic in nics]
        for row in rows:
            opened.callback(row.close)
        looked_ms = 0
        while True:
            now_ms = int((time.monotonic() - begun_s) * 1000)
            calm = ports is not None and all(port.forwards for port in ports)
            if ports is None or now_ms - looked_ms >= (CALM_LOOK_MS if calm else LOOK_MS):
                looked_ms, ports = now_ms, host.look(list(nics))
                told(list(ports))
                now_ms = int((time.monotonic() - begun_s) * 1000)  # a look may take its time
            for row, port in zip(rows, ports, strict=True):
                row.look(now_ms, port, host)
            waits_ms = [wait_ms for row in rows if (wait_ms := row.wait_ms(now_ms)) is not None]
            if not waits_ms or stop():
                return [row.account for row in rows]
            listening = [row for row in rows if row.listens]
            select.select(listening, [], [], min(*waits_ms, LOOK_MS) / 1000)


class _Row:
    """One port of the guest."""

    def __init__(self, nic: Nic, addresses: Sequence[str], for_s: float) -> None:
        self.account = Announced(nic.mac, nic.device)
        self._rule = _core.Announce(round(for_s * 1000))
        self._ear: Ear | None = None
        self._forwards = False
        self._deaf = False  # it cannot be listened to: what its device counts has to do
        self._counted: int | None = None  # by its device, when the port began to forward
        self._unheard: str | None = None  # why nobody can tell: announced to the end
        self._frames: list[bytes] = []
        if nic.pulled:  # whoever has this address may be elsewhere, as with a pair of which one is out
            self.account.problem = "the guest has its link down"
            return
        try:
            self._frames = frames.announcements(nic.mac, [*dict.fromkeys([*nic.addresses, *addresses])])
        except ValueError as err:
            self.account.problem = str(err)

    @property
    def listens(self) -> bool:
        """Whether the guest may be heard any moment. While the port does not forward nobody cares."""
        return self._ear is not None and self._forwards and self.account.heard_ms is None

    def fileno(self) -> int:
        assert self._ear is not None
        return self._ear.fileno()

    def wait_ms(self, now_ms: int) -> int | None:
        return self._rule.wait_ms(now_ms) if self._frames else None

    def look(self, now_ms: int, port: Port, host: Host) -> None:
        if not self._frames:
            return
        heard = self._listen(port, host)
        self._forwards = port.forwards
        if not self._forwards:
            self.account.heard_ms = self._counted = None
        elif heard and self.account.heard_ms is None:
            self.account.heard_ms = now_ms
            self.close()
        if self._rule.feed(now_ms, forwards=self._forwards, heard=heard):
            self._announce(now_ms, port, host)

    def _listen(self, port: Port, host: Host) -> bool:
        """Whether it was heard since the last look. Who may open no packet socket goes by what its device has
        counted since the port forwards: more than the frames that QEMU sends, all of which may come after
        that. What was sent before taught nobody."""
        if self._ear is not None:
            return self._ear.heard()
        if port.device is None or self.account.heard_ms is not None:
            return False
        self.account.device = port.device
        if not self._deaf:
            try:
                self._ear = Ear(port.device, port.mac)
                return False
            except EarError as err:
                self._deaf = True
                if host.frames_from(port.device) is None:
                    self._unheard = self.account.problem = str(err)
        if self._unheard is not None or not port.forwards:
            return False
        count = host.frames_from(port.device)
        if count is None:
            return False
        if self._counted is None:
            self._counted = count
        return count - self._counted > BY_QEMU

    def _announce(self, now_ms: int, port: Port, host: Host) -> None:
        try:
            host.announce(port, self._frames)
        except HostError as err:
            self.account.problem = str(err)
            return
        self.account.problem = self._unheard  # another one was for a moment
        self.account.sent += 1
        if self.account.first_ms is None:
            self.account.first_ms = now_ms

    def close(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None


def in_words(rows: Sequence[Announced]) -> str:
    """For people."""
    return "; ".join(_words(row) for row in rows) or "the guest has no network interface"


def _words(row: Announced) -> str:
    name = row.device or row.mac
    if row.first_ms is None:
        return f"{name}: not announced: {row.problem or 'its port did not forward'}"
    times = "once" if row.sent == 1 else f"{row.sent} times"
    heard = "not heard" if row.heard_ms is None else f"heard after {row.heard_ms} ms"
    problem = f" ({row.problem})" if row.problem else ""
    return f"{name}: announced {times} from {row.first_ms} ms on, {heard}{problem}"


def as_json(rows: Sequence[Announced]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(row) for row in rows]
