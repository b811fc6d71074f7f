# SPDX-License-Identifier: Apache-2.0
"""The picture of doc/refer/simulator.rst: what the ways cost on links from 1 to 100 Gb/s."""

from __future__ import annotations

import importlib.util
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from tests.sim import compare, program, scenarios
from tests.sim.program import Result, Scenario, SimError

LINKS_GBPS = (1, 2.5, 10, 25, 40, 100)
WAYS = ("pcmig", "virsh", "virsh-pass", "nova", "kubevirt")
MARKERS = "osD^v"
SILENCES_MS = (50, 100, 200, 500, 1000, 2000)
TIMES_MAX = 2.5


def guests(gbps: float, qemu: int, count: int) -> Sequence[Scenario]:
    """Drawn guests that virsh moves in post-copy."""
    drawn = [
        {**scenarios.draw(seed, gbps * 1000), "qemu": qemu, "preempt": 1} for seed in range(1, 4 * count)
    ]
    results = program.run([{**scenario, "way": "precopy"} for scenario in drawn])
    busy = [s for s, result in zip(drawn, results, strict=True) if result["outcome"] == "unfinished"]
    return busy[:count]


def figures(gbps: float, qemu: int, count: int) -> dict[str, tuple[float, float]]:
    """Of each way: mean total time against one pass with unpaced post-copy, median silence in ms."""
    found = guests(gbps, qemu, count)
    results: dict[str, list[Result]] = {
        way: program.run([{**scenario, "way": way} for scenario in found]) for way in WAYS
    }
    measured = {}
    for way in WAYS:
        ratios = [
            math.log(compare.total(new) / compare.total(old))
            for new, old in zip(results[way], results["virsh-pass"], strict=True)
            if math.isfinite(compare.total(new)) and math.isfinite(compare.total(old))
        ]
        silences = [compare.silence(result) for result in results[way]]
        measured[way] = (math.exp(statistics.fmean(ratios)), statistics.median(silences))
    return measured


def draw(path: pathlib.Path, count: int = 16) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise SimError("--figure needs matplotlib: pip install -e '.[bench]'")
    import matplotlib
    from matplotlib import pyplot

    pyplot.switch_backend("svg")
    style: Any = {"svg.hashsalt": "pcmig", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        plot, axes = pyplot.subplots(
            2, 2, figsize=(8.5, 6.5), sharex=True, sharey="row", layout="constrained"
        )
        for column, qemu in enumerate((10, 11)):
            points = {gbps: figures(gbps, qemu, count) for gbps in LINKS_GBPS}
            for marker, way in zip(MARKERS, WAYS, strict=True):
                for row in (0, 1):
                    values = [points[gbps][way][1 - row] for gbps in LINKS_GBPS]
                    axes[row, column].plot(LINKS_GBPS, values, marker=marker, label=way, linewidth=1)
            axes[0, column].set_title(f"QEMU {qemu}")
            axes[1, column].set_xlabel("link, Gb/s")
        axes[0, 0].set_ylabel("longest silence, ms (median)")
        axes[1, 0].set_ylabel("total time of virsh-pass's")
        for axis in axes[0]:
            axis.set_yscale("log")
            axis.set_yticks(SILENCES_MS, [f"{ms}" for ms in SILENCES_MS])
        for axis in axes[1]:
            # Nova's is a hundred times the others': with it, nothing else could be told apart.
            axis.set_ylim(0.5, TIMES_MAX)
            axis.text(1, TIMES_MAX * 0.93, "nova: 40 to 1000, by its timeout", fontsize=8)
        for axis in axes.flat:
            axis.set_xscale("log")
            axis.set_xticks(LINKS_GBPS, [f"{gbps:g}" for gbps in LINKS_GBPS])
            axis.minorticks_off()
            axis.grid(True, linewidth=0.3)
        axes[0, 1].legend(fontsize=8)
        try:
            plot.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        except OSError as err:
            raise SimError(f"--figure {path}: {err}") from None
