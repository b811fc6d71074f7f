# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.ovn [ROUNDS]`: how long others do not reach a guest that moves between two hosts of OVN's.
It needs root."""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile

from tests.ovn.cloud import NETWORKS
from tests.ovn.scene import Result, Way, station_scene

WAYS = (
    Way("rarp"),
    Way(""),
    Way(None),
    Way(None, bound_after_s=0.1),
    Way("rarp", stopped="b"),
    Way("", stopped="b"),
    Way("rarp", stopped="a"),
    Way("rarp", stopped="ab"),
    Way(None, bound_after_s=0.1, stopped="b"),
)


def middle(results: list[Result]) -> str:
    """The median of each silence, in ms, and the longest of all."""
    columns = (
        [result.client.longest_ms for result in results],
        [result.neighbour.longest_ms for result in results],
        [result.from_guest_ms for result in results],
    )
    texts = [f"{statistics.median(column):7.0f}" for column in columns]
    worst = max(result.worst_ms() for result in results)
    activated = [result.activated_ms for result in results if result.activated_ms is not None]
    told = f"{statistics.median(activated):5.0f}" if activated else "    -"
    lost = max(result.tempest_lost for result in results)
    own = max(max(result.client.own_ms, result.neighbour.own_ms) for result in results)
    return f"{'  '.join(texts)}  {worst:7.0f}  {told}  {lost:4d}  {own:5.0f}"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(
        "Silence in ms, medians: of client, of neighbour, of what the guest says by itself; the worst; the "
        "port is activated; pings lost of one each 0.2 s; the pingers' own silence"
    )
    for network in NETWORKS:
        with (
            tempfile.TemporaryDirectory(prefix="pcmig-ovn.") as folder,
            station_scene(pathlib.Path(folder), network) as scene,
        ):
            for way in WAYS:
                results = [scene.measure(way) for _ in range(rounds)]
                print(
                    f"{network:<9} {way!s:<42} bound after {way.bound_after_s:g} s  {middle(results)}",
                    flush=True,
                )


main()
