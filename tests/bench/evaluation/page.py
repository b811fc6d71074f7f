# SPDX-License-Identifier: Apache-2.0
"""The run as one HTML file that needs nothing else: pictures, tables, what was said against what was seen."""

from __future__ import annotations

import html
import io
import pathlib
from typing import Any

from tests.bed import BedError
from tests.bench.evaluation.figures import Outcome, Place, known, limits, outcome, places, statements
from tests.bench.switchover import plot

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #222 }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.2rem }
.wide { overflow-x: auto } svg { max-width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: bottom }
td { white-space: nowrap } .words td { text-align: left; white-space: normal }
th:first-child, td:first-child, .words th { text-align: left }
.never { color: #a40000 } .note { color: #555 }
@media print { body { margin: 0; max-width: none } h2 { break-after: avoid }
  table, svg { break-inside: avoid } }
"""
PICTURES = (
    "complete_s",
    "guest_switch_silence_ms",
    "kept_during",
    "kept_0_10",
    "tps_during",
    "slowest_during",
)
NEVER = "not within"


def write(content: dict[str, Any], path: pathlib.Path) -> None:
    """Raises BedError."""
    plot.need_matplotlib()
    try:
        path.write_text(page(content), encoding="utf-8")
    except OSError as error:
        raise BedError(f"--html {path}: {error.strerror}") from error


def page(content: dict[str, Any]) -> str:
    rows, machine = content["rounds"], content["machine"]
    versions = "; ".join(
        f"QEMU {found.get('qemu')}, libvirt {found.get('libvirt')}" for found in machine["stacks"].values()
    )
    facts = (
        f"{content['started']}; {machine['cores']} cores ({machine['cpu']}), {machine['memory_mib']} MiB, "
        f"Linux {machine['kernel']}; {versions}; guests under {content['accelerator']}"
    )
    parts = [
        "<h1>Live migration: pre-copy, post-copy and both</h1>",
        f"<p class=note>{html.escape(facts)}</p>",
        "<h2>What is said of them, and what was seen</h2>",
        _table(
            ["statement", "", "migrations"],
            [[_text(each.text), _text(each.word), _text(each.evidence)] for each in statements(rows)],
            "words",
        ),
    ]
    for place in places(rows):
        parts += _place(content, place)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of live migration</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _place(content: dict[str, Any], place: Place) -> list[str]:
    load, rate_mbit, transport = place
    found = {
        way: each for way in content["ways"] if (each := outcome(content["rounds"], place, way)) is not None
    }
    title = f"{load} guest, {rate_mbit:g} Mb/s" + (
        ", through pcmig's tunnel" if transport == "tunnel" else ""
    )
    shown = known(found.values())
    heads = ["way", "ended", *(f"{figure.title}, {figure.unit}" for figure in shown), "limited by"]
    lines = [
        [
            html.escape(way),
            _ended(each, content["give_up_s"]),
            *(each.text(figure) for figure in shown),
            html.escape(limits(each, content["accelerator"])),
        ]
        for way, each in found.items()
    ]
    return [
        f"<h2>{html.escape(title)}</h2>",
        f"<div class=wide>{_picture(found)}</div>",
        f"<div class=wide>{_table(heads, lines)}</div>",
    ]


def _ended(found: Outcome, give_up_s: float) -> str:
    count = len(found.rows)
    if found.ended == 0:
        return f"<span class=never>{NEVER} {give_up_s:g} s</span>"
    return f"{found.ended} of {count}"


def _picture(found: dict[str, Outcome]) -> str:
    """A panel for each figure that tells most, a bar for each way; empty where a migration did not end."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    shown = {figure.key: figure for figure in known(found.values()) if figure.key in PICTURES}
    style: Any = {"svg.hashsalt": "pcmig", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        canvas = Canvas(figsize=(11, 0.6 + 0.28 * len(found)), layout="constrained")
        axes = canvas.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
        for axis, figure in zip(axes, shown.values(), strict=False):
            values = [(each.median(figure.key) or 0.0) / figure.per for each in found.values()]
            bars = axis.barh(
                list(found), values, color=["#3465a4" if "pcmig" in w else "#999" for w in found]
            )
            axis.bar_label(
                bars, [f"{value:.{figure.digits}f}" if value else "" for value in values], padding=2
            )
            axis.set_title(f"{figure.title}, {figure.unit}", fontsize=9)
            axis.margins(x=0.2)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].invert_yaxis()
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue().partition("<svg")[1] + file.getvalue().partition("<svg")[2]


def _text(words: str) -> str:
    return html.escape(words)


def _table(heads: list[str], lines: list[list[str]], kind: str = "figures") -> str:
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>\n" for line in lines)
    return f"<table class={kind}><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
