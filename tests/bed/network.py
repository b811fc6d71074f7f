# SPDX-License-Identifier: Apache-2.0
"""The wire between the two hosts: a network namespace each, one link, a rate, and a way to cut it.

All names carry the bed's id, so that two beds, or one that crashed, never meet. Only the namespaces' names
are seen on the machine: links are made inside them.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable

from tests.bed.errors import BedError
from tests.bed.procs import run

PREFIX = "pcmig-"
LINK = "mig0"
SUBNET = "10.77.0"
SECOND_LINK = "mig1"
SECOND_SUBNET = "10.77.1"
QUEUE_LATENCY_MS = 100  # how long a packet may wait in the rate limiter's queue before it is dropped
BURST_KB = 256


def namespace_name(bed_id: str, host: str) -> str:
    return f"{PREFIX}{bed_id}-{host}"


def address(host: str) -> str:
    """Address of host "a" or "b" on the migration link; the namespaces keep it apart from any other bed's."""
    return f"{SUBNET}.{'ab'.index(host) + 1}"


def second_address(host: str) -> str:
    """Address of host "a" or "b" on the second link, where there is one."""
    return f"{SECOND_SUBNET}.{'ab'.index(host) + 1}"


class Network:
    """Two namespaces and the migration link between them."""

    def __init__(self, bed_id: str) -> None:
        self.bed_id = bed_id
        self.namespaces = {host: namespace_name(bed_id, host) for host in "ab"}

    def up(self) -> None:
        for host, namespace in self.namespaces.items():
            try:
                run(["ip", "netns", "add", namespace], f"making the network namespace of host {host}")
            except BedError as error:
                raise BedError(f"{error}\n  (in a container, the bed needs a privileged one)") from error
            self._ip(host, "link", "set", "lo", "up")
        self._connect(LINK, address)

    def add_second(self) -> None:
        """A link beside the first one, which knows no rate limit and no cut."""
        self._connect(SECOND_LINK, second_address)

    def _connect(self, link: str, address_of: Callable[[str], str]) -> None:
        a, b = self.namespaces["a"], self.namespaces["b"]
        run(
            ["ip", "-n", a, "link", "add", link, "type", "veth", "peer", "name", link, "netns", b],
            f"making the link {link}",
        )
        for host in self.namespaces:
            self._ip(host, "address", "add", f"{address_of(host)}/24", "dev", link)
            self._ip(host, "link", "set", link, "up")

    def down(self) -> None:
        for namespace in self.namespaces.values():
            remove_namespace(namespace)

    def limit(self, rate_mbit: float | None) -> None:
        """Limit each direction of the migration link; None takes the limit off."""
        for host, namespace in self.namespaces.items():
            tc = ["tc", "-n", namespace, "qdisc"]
            if rate_mbit is None:
                with contextlib.suppress(BedError):  # there was none
                    run([*tc, "del", "dev", LINK, "root"], "taking the rate limit off")
                continue
            tbf = ["tbf", "rate", f"{round(rate_mbit * 1000)}kbit", "burst", f"{BURST_KB}kb"]
            run(
                [*tc, "replace", "dev", LINK, "root", *tbf, "latency", f"{QUEUE_LATENCY_MS}ms"],
                f"limiting the migration link of host {host} to {rate_mbit:g} Mb/s",
            )

    def silence(self, host: str) -> None:
        """From now on nothing that HOST sends arrives over the migration link; what is sent to it does."""
        tbf = ["tbf", "rate", "8kbit", "burst", "40", "latency", "1ms"]  # no packet is as short as that
        run(
            ["tc", "-n", self.namespaces[host], "qdisc", "replace", "dev", LINK, "root", *tbf],
            f"silencing host {host} on the migration link",
        )

    def link_down(self) -> None:
        """Cut the migration link: both ends lose their carrier."""
        self._ip("a", "link", "set", LINK, "down")

    def link_up(self) -> None:
        self._ip("a", "link", "set", LINK, "up")

    def set_tcp_retries(self, retries2: int) -> None:
        """Retransmissions before TCP gives a connection up (5: 14-15 s; the default of 15: minutes)."""
        for namespace in self.namespaces.values():
            run(
                ["ip", "netns", "exec", namespace, "sysctl", "-qw", f"net.ipv4.tcp_retries2={retries2}"],
                "setting tcp_retries2",
            )

    def _ip(self, host: str, *words: str) -> None:
        run(["ip", "-n", self.namespaces[host], *words], f"network of host {host}")


def namespaces_present() -> list[str]:
    """Names of all network namespaces of beds on this machine, also of crashed ones."""
    with contextlib.suppress(OSError):
        return sorted(
            path.name for path in pathlib.Path("/run/netns").iterdir() if path.name.startswith(PREFIX)
        )
    return []


def remove_namespace(namespace: str) -> None:
    """The links inside go with it. Does nothing when there is none, also when somebody else was faster."""
    if namespace not in namespaces_present():
        return
    try:
        run(["ip", "netns", "delete", namespace], f"removing the network namespace {namespace}")
    except BedError:
        if namespace in namespaces_present():
            raise
