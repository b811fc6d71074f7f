# SPDX-License-Identifier: Apache-2.0
"""The drawings of a report, each onto axes that it is given: the same ones are on the page and on paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pcmig import latency
from pcmig.ledgers.document import true_rate
from pcmig_common.units import MIB, PAGE_BYTES

Document = Mapping[str, Any]

# Readable on white and on black.
PHASES = {
    "setup": "#8c939c",
    "precopy": "#4a86e8",
    "drain": "#e69138",
    "switchover": "#e04848",
    "postcopy": "#3aa76d",
    "paused": "#9a6be0",
}
SENT, DIRTIED, ASKED, PACE = "#4a86e8", "#e69138", "#3aa76d", "#9a6be0"
SEVERAL = ("#4a86e8", "#e69138", "#3aa76d", "#e04848", "#9a6be0", "#17a2b8", "#b5a400", "#8c939c")

# Of text and lines; on the page it becomes the colour of the text around it.
INK = "#0a0b0c"
WIDTH_IN = 4.9  # so that letters are large enough on a screen of 400 pixels
HEIGHT_IN = 2.35

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # text stays text: it can be searched, and is small
    "pdf.fonttype": 42,
    "text.parse_math": False,  # names may have dollars
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"),
        INK,
    ),
}


@contextmanager
def style() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE):
        yield


# --- one migration ------------------------------------------------------------------------------------


def seconds(document: Document) -> list[float]:
    return [t_ms / 1000 for t_ms in document["samples"]["t_ms"]]


def end_s(document: Document) -> float:
    """The length of the time axis."""
    ends = [row["end_us"] / 1e6 for row in document["ledger"]["phases"]]
    return float(max([*ends, *seconds(document)[-1:], 0.001]))


def shade(axes: Any, document: Document) -> None:
    """The phases behind a curve."""
    for row in document["ledger"]["phases"]:
        if row["phase"] in PHASES:
            axes.axvspan(
                row["start_us"] / 1e6,
                row["end_us"] / 1e6,
                color=PHASES[row["phase"]],
                alpha=0.13,
                linewidth=0,
            )
    for row in document["ledger"]["phases"]:
        if row["phase"] == "switchover":  # too short to be seen
            axes.axvline(row["start_us"] / 1e6, color=PHASES["switchover"], linewidth=1, alpha=0.8)
    axes.set_xlim(0, end_s(document))
    axes.set_xlabel("seconds")


def phases(axes: Any, document: Document) -> None:
    strip(axes, document, 0.0)
    marks(axes, document)
    axes.set_ylim(-1.0, 0.5)
    axes.set_yticks([])
    axes.set_xlim(0, end_s(document))
    axes.set_xlabel("seconds")
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    legend(axes, [document])


def marks(axes: Any, document: Document) -> None:
    """When each decision was taken, with the number that it has in the list of them."""
    last_s = -1.0
    for number, row in numbered(document):
        at_s = row["t_us"] / 1e6
        axes.plot(at_s, -0.42, "^", color=INK, markersize=3.5)
        if last_s < 0 or at_s - last_s > end_s(document) / 40:  # else one number would stand on another
            axes.text(at_s, -0.58, str(number), ha="center", va="top", size=7.5)
            last_s = at_s


def numbered(document: Document) -> list[tuple[int, Mapping[str, Any]]]:
    """The decisions with their numbers, but for changes of the pace."""
    rows = [row for row in document["decisions"] if row["action"] != "set-pace"]
    return list(enumerate(rows, 1))


def strip(axes: Any, document: Document, at: float) -> None:
    """One bar, its parts in the colours of the phases."""
    for row in document["ledger"]["phases"]:
        if row["phase"] in PHASES:
            start, length = row["start_us"] / 1e6, row["duration_us"] / 1e6
            axes.barh(at, length, left=start, height=0.55, color=PHASES[row["phase"]], linewidth=0)
            if row["phase"] == "switchover":
                axes.plot([start, start], [at - 0.42, at + 0.42], color=PHASES["switchover"], linewidth=1.5)


def legend(axes: Any, documents: Sequence[Document]) -> None:
    """Of the phases that there were."""
    seen = {row["phase"] for document in documents for row in document["ledger"]["phases"]}
    handles = [Patch(color=color, label=name) for name, color in PHASES.items() if name in seen]
    if handles:
        axes.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(handles), 5)
        )


def remaining(axes: Any, document: Document) -> None:
    shade(axes, document)
    samples = document["samples"]
    left = [
        None if phase == "setup" else value / MIB  # nothing was counted yet
        for value, phase in zip(samples["remaining_bytes"], samples["phase"], strict=True)
    ]
    axes.plot(seconds(document), left, color=SENT)
    for row in document["ledger"]["passes"]:
        if row["complete"]:
            axes.plot(row["end_us"] / 1e6, row["remaining_end_bytes"] / MIB, "o", color=SENT, markersize=3.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("MiB left")


def passes(axes: Any, document: Document) -> None:
    rows = document["ledger"]["passes"]
    page_bytes = document["ledger"]["totals"]["page_size_bytes"] or PAGE_BYTES
    places = range(len(rows))
    axes.bar(
        [place - 0.2 for place in places],
        [row["remaining_end_bytes"] / MIB for row in rows],
        width=0.38,
        color=SENT,
        label="left at its end",
    )
    axes.bar(
        [place + 0.2 for place in places],
        [row["dirtied_pages"] * page_bytes / MIB for row in rows],
        width=0.38,
        color=DIRTIED,
        label="dirtied in it",
    )
    step = max(1, len(rows) // 12)
    axes.set_xticks(list(places)[::step], [str(row["number"]) for row in rows][::step])
    axes.set_xlabel("pass over the guest's memory")
    axes.set_ylabel("MiB")
    axes.grid(axis="x", visible=False)
    _legend_above(axes)


def values_of(document: Document, what: str) -> list[Any]:
    """A column of the samples; older ledgers have a rate also where post-copy was interrupted."""
    samples = document["samples"]
    if what != "send_bps":
        return list(samples[what])
    return [true_rate(phase, bps) for phase, bps in zip(samples["phase"], samples[what], strict=True)]


def rates(axes: Any, document: Document) -> None:
    shade(axes, document)
    samples = document["samples"]
    page_bytes = document["ledger"]["totals"]["page_size_bytes"] or PAGE_BYTES
    times = seconds(document)
    axes.plot(times, [value / MIB for value in values_of(document, "send_bps")], color=SENT, label="sent")
    # QEMU tells a rate when it has synchronised its bitmap, after the first pass at the latest.
    dirtied = [
        value * page_bytes / MIB if phase in ("precopy", "drain") and (value or passes) else None
        for value, phase, passes in zip(
            samples["dirty_pages_ps"], samples["phase"], samples["passes"], strict=True
        )
    ]
    axes.plot(times, dirtied, color=DIRTIED, label="dirtied by the guest")
    if link := document["link"]["rate_bps"]:
        axes.axhline(link / MIB, color=INK, linewidth=0.8, linestyle="--", label="link, as measured")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("MiB/s")
    _legend_above(axes)


def requests(axes: Any, document: Document) -> None:
    shade(axes, document)
    start_s = min(
        (
            row["start_us"] / 1e6
            for row in document["ledger"]["phases"]
            if row["phase"] in ("switchover", "postcopy")
        ),
        default=0.0,
    )
    samples = document["samples"]
    times = seconds(document)
    (asked,) = axes.plot(times, samples["requests_ps"], color=ASKED, label="page requests a second")
    axes.set_xlim(start_s, end_s(document))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("requests/s")
    handles = [asked]
    pace = [value or None for value in samples["pace_mib"]]
    if any(pace):
        other = axes.twinx()
        other.spines["right"].set_visible(True)
        (paced,) = other.plot(
            times, pace, color=PACE, drawstyle="steps-post", label="pace of other pages, MiB/s"
        )
        other.set_ylim(bottom=0)
        other.set_ylabel("MiB/s")
        other.grid(False)
        handles.append(paced)
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.1)


def latencies(axes: Any, document: Document) -> None:
    """How many requests took how long, in steps of two."""
    waited = document["ledger"]["latency"]
    places = [place for place, count in enumerate(waited["buckets"]) if count]
    shown = range(places[0], places[-1] + 1)
    axes.bar(
        [place - shown[0] for place in shown], [waited["buckets"][place] for place in shown], color=ASKED
    )
    step = max(1, len(shown) // 8)
    names = [
        latency.milliseconds(latency.bound_us(place)) if place < latency.BUCKETS - 1 else "longer"
        for place in shown
    ]
    axes.set_xticks(list(range(len(shown)))[::step], names[::step])
    axes.set_xlabel(f"took less than ({latency.source_words(waited['source'])})")
    axes.set_ylabel("requests")
    axes.grid(axis="x", visible=False)


def _legend_above(axes: Any) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.1)


Draw = Callable[[Any, Document], None]


def drawings(document: Document) -> list[tuple[str, str, Draw, float]]:
    """Those that DOCUMENT has figures for: title, what it shows, how, height in inches."""
    ledger, over_time = document["ledger"], bool(document["samples"]["t_ms"])
    found: list[tuple[str, str, Draw, float]] = []
    if any(row["phase"] in PHASES for row in ledger["phases"]):
        found.append(("Phases", "phases over time, and decisions", phases, 1.5))
    if over_time:
        found.append(
            ("Memory left to send", "memory left over time, a dot for each pass", remaining, HEIGHT_IN)
        )
    if ledger["passes"]:
        found.append(("Pass by pass", "memory left after each pass, and dirtied in it", passes, HEIGHT_IN))
    if over_time:
        found.append(("Sent and dirtied", "rates over time", rates, HEIGHT_IN))
        if ledger["totals"]["requests"] or document["mode"] == "postcopy":
            found.append(
                ("Page requests in post-copy", "page requests a second and the pace", requests, HEIGHT_IN)
            )
    if (waited := ledger.get("latency")) is not None and waited["requests"]:
        found.append(
            ("How long requested pages took", "page requests by how long they took", latencies, HEIGHT_IN)
        )
    return found


# --- several ------------------------------------------------------------------------------------------


def strips(axes: Any, documents: Sequence[Document], names: Sequence[str]) -> None:
    for place, document in enumerate(documents):
        strip(axes, document, -float(place))
    axes.set_yticks([-float(place) for place in range(len(documents))], names)
    axes.set_ylim(-len(documents) + 0.4, 0.6)
    axes.set_xlim(0, max(end_s(document) for document in documents))
    axes.set_xlabel("seconds")
    axes.grid(axis="y", visible=False)
    legend(axes, documents)


def together(
    axes: Any, documents: Sequence[Document], names: Sequence[str], what: str, scale: float, label: str
) -> None:
    """One column of the samples of each, from the same zero."""
    for place, (document, name) in enumerate(zip(documents, names, strict=True)):
        values = [
            None if phase == "setup" else value / scale
            for value, phase in zip(values_of(document, what), document["samples"]["phase"], strict=True)
        ]
        axes.plot(seconds(document), values, color=SEVERAL[place % len(SEVERAL)], label=name)
    axes.set_xlim(0, max(end_s(document) for document in documents))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel(label)
    _legend_above(axes)


DrawAll = Callable[[Any, Sequence[Document], Sequence[str]], None]


def comparisons(documents: Sequence[Document]) -> list[tuple[str, str, DrawAll, float]]:
    """As drawings(), for several documents side by side."""
    found: list[tuple[str, str, DrawAll, float]] = [
        ("Phases", "phases of each over time", strips, 0.95 + 0.32 * len(documents))
    ]
    for title, column, scale, label in (
        ("Memory left to send", "remaining_bytes", float(MIB), "MiB left"),
        ("Sent", "send_bps", float(MIB), "MiB/s"),
        ("Page requests", "requests_ps", 1.0, "requests/s"),
    ):
        if any(any(document["samples"][column]) for document in documents):
            found.append(
                (title, f"{title.lower()} over time, each", _curves(column, scale, label), HEIGHT_IN)
            )
    return found


def _curves(column: str, scale: float, label: str) -> DrawAll:
    def draw(axes: Any, documents: Sequence[Document], names: Sequence[str]) -> None:
        together(axes, documents, names, column, scale, label)

    return draw


# --- as SVG -------------------------------------------------------------------------------------------


def svg(draw: Callable[[Any], None], height_in: float, prefix: str, title: str) -> str:
    """What DRAW puts onto axes, as an SVG element to stand in a page: in the colour of its text, and with
    identifiers that begin with PREFIX. TITLE is what it shows, for who cannot see it."""
    with style(), matplotlib.rc_context({"svg.hashsalt": prefix}):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure.add_subplot())
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    return _embedded(text.getvalue(), prefix, title)


def _embedded(text: str, prefix: str, title: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'xlink:href="#{prefix}-')
    text = text.replace(INK, "currentColor")
    # The page says how large it is.
    text = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", text, count=1)
    text = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", text, count=1)
    return re.sub(r"^<svg", f'<svg role="img" aria-label="{title}"', text, count=1).strip()
