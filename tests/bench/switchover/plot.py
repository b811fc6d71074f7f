# SPDX-License-Identifier: Apache-2.0
"""The trade as a picture: total time against silence at the switch; large points are medians."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

from tests.bed import BedError
from tests.bench.switchover.figures import Results, clouds

MARKERS = "osD^v<>Ph*Xp"


def need_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise BedError("--plot needs matplotlib: pip install -e '.[bench]'")


def draw(content: dict[str, Any], path: pathlib.Path) -> None:
    """One panel per stack, as SVG. The same content gives the same bytes with the same matplotlib."""
    need_matplotlib()
    import matplotlib
    from matplotlib import pyplot

    pyplot.switch_backend("svg")
    # Ids from a fixed salt, no date, text as text: a new run changes only what has changed.
    style: Any = {"svg.hashsalt": "pcmig", "svg.fonttype": "none", "font.size": 9}
    panels = [
        (stack, found)
        for stack in content["machine"]["stacks"]
        if (found := clouds(Results(content["rounds"], stack)))
    ]
    if not panels:
        raise BedError(f"--plot {path}: no round switched to post-copy, there is nothing to draw")
    colours = pyplot.get_cmap("tab10")
    ways = list(dict.fromkeys(cloud.way for _, found in panels for cloud in found))
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(
            len(panels), 1, figsize=(7.5, 4.2 * len(panels)), squeeze=False, layout="constrained"
        )
        for (stack, found), axis in zip(panels, axes[:, 0], strict=True):
            for cloud in found:
                index = ways.index(cloud.way)
                look = {"color": colours(index % colours.N), "marker": MARKERS[index % len(MARKERS)]}
                x, y = zip(*cloud.points, strict=True)
                axis.scatter(x, y, s=16, alpha=0.5, linewidths=0, **look)
                axis.scatter(*cloud.median, s=70, edgecolors="black", linewidths=0.8, label=cloud.way, **look)
            versions = content["machine"]["stacks"][stack]
            axis.set_title(f"QEMU {versions.get('qemu')}, libvirt {versions.get('libvirt')}")
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
            axis.set_xlabel("total time, s")
            axis.set_ylabel("silence of the guest at the switch, ms")
            axis.grid(True, which="both", linewidth=0.3)
            axis.legend(title="median of", fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        try:
            figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        except OSError as error:
            raise BedError(f"--plot {path}: {error.strerror}") from error
        finally:
            pyplot.close(figure)
