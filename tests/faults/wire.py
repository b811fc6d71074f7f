# SPDX-License-Identifier: Apache-2.0
"""Faults of the network: packets that do not arrive, by nftables in the hosts' network namespaces; sysctls.

libvirt's own connection and the stream of a migration share one link, and are told apart by their ports.
Nothing is rejected: as with a pulled cable, nobody hears anything.
"""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable, Mapping, Sequence

from tests.bed.errors import BedError
from tests.bed.network import LINK, Network
from tests.bed.procs import run

TABLE = "pcmig_fault"
LIBVIRT_PORT = 16509  # libvirtd.conf: tcp_port
STREAM_PORTS = "49152-49215"  # qemu.conf: migration_port_min, migration_port_max; disks as well

# What a host does not hear any more, as rules for what comes in.
STREAM = (f"tcp dport {STREAM_PORTS} drop", f"tcp sport {STREAM_PORTS} drop")
CONTROL = (f"tcp dport {LIBVIRT_PORT} drop", f"tcp sport {LIBVIRT_PORT} drop")
ALL = ("drop",)


def stream_after(count: int) -> tuple[str, ...]:
    """COUNT bytes of the stream arrive, and nothing after them."""
    return tuple(f"tcp {end} {STREAM_PORTS} quota over {count} bytes drop" for end in ("dport", "sport"))


def loss(permille: int) -> tuple[str, ...]:
    return (f"numgen random mod 1000 < {permille} drop",)


def ruleset(rules: Sequence[str], cut_off: str | None = None) -> str:
    """For `nft -f`: RULES for what comes in by the migration link; nothing passes interface CUT_OFF."""
    lines = [f'    iifname "{LINK}" {rule}' for rule in rules]
    outgoing: list[str] = []
    if cut_off is not None:
        lines.append(f'    iifname "{cut_off}" drop')
        outgoing.append(f'    oifname "{cut_off}" drop')
    chains = "".join(
        f"  chain {hook} {{\n    type filter hook {hook} priority 0;\n" + "\n".join(found) + "\n  }\n"
        for hook, found in (("input", lines), ("output", outgoing))
        if found
    )
    return f"table inet {TABLE} {{\n{chains}}}\n"


class Wire:
    """The network of a bed's two hosts, to be broken."""

    def __init__(self, network: Network, folder: pathlib.Path) -> None:
        self.network = network
        self.folder = folder
        self._kept: dict[tuple[str, str], str] = {}

    def breaker(
        self, rules: Sequence[str], cut_off: Mapping[str, str] | None = None, name: str = "fault"
    ) -> Callable[[], None]:
        """What breaks both ends at once when called. CUT_OFF: by host, an interface that goes as well. NAME:
        of the files that say so, where a fault has several."""
        files = {}
        for host in self.network.namespaces:
            path = self.folder / f"{name}-{host}.nft"
            path.write_text(ruleset(rules, (cut_off or {}).get(host)))
            files[host] = path
        return lambda: self._nft({host: ["-f", str(path)] for host, path in files.items()})

    def mend(self) -> None:
        """Also when nothing is broken."""
        words = [f"add table inet {TABLE}; delete table inet {TABLE}"]
        self._nft(dict.fromkeys(self.network.namespaces, words))

    def set(self, values: Mapping[str, int]) -> None:
        for host in self.network.namespaces:
            for name, value in values.items():
                self._kept.setdefault((host, name), self._sysctl(host, "-n", name))
                self._sysctl(host, "-qw", f"{name}={value}")

    def restore(self) -> None:
        for (host, name), value in self._kept.items():
            self._sysctl(host, "-qw", f"{name}={value}")
        self._kept.clear()

    def _sysctl(self, host: str, *words: str) -> str:
        return run([*self._inside(host), "sysctl", *words], "reading or setting a sysctl").strip()

    def _inside(self, host: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.network.namespaces[host]}", "--"]

    def _nft(self, words: Mapping[str, Sequence[str]]) -> None:
        try:
            processes = [
                subprocess.Popen(
                    [*self._inside(host), "nft", *each],
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for host, each in words.items()
            ]
        except FileNotFoundError as error:
            raise BedError(f"{error.filename} is not installed (run: tools/bootstrap bed)") from error
        for process in processes:
            _, said = process.communicate(timeout=30)
            if process.returncode:
                hint = " (is nftables installed? run: tools/bootstrap bed)" if "nft" in said else ""
                raise BedError(f"nft ended with {process.returncode}: {said.strip()[-300:]}{hint}")
