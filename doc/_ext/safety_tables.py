# SPDX-License-Identifier: Apache-2.0
"""The directives `pcmig-situations`, `pcmig-guard`, `pcmig-halves` and `pcmig-situations-picture`: all are
computed by the guard itself, so they cannot go stale. A situation that the picture lacks fails the build."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from boxes import Grid
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from pcmig import _core

HALVES = ("running", "paused", "migrating", "postcopy", "postcopy-failed", "dead", "absent", "unknown")

# Where a situation stands in the picture: column, row, and halves that are an example of it.
PLACES: dict[str, tuple[float, float, dict[str, Any]]] = {
    "home-source": (0, 0, {"source": "running", "destination": "absent"}),
    "precopy": (1, 0, {"source": "running", "destination": "migrating", "job_active": True}),
    "switching": (2, 0, {"source": "migrating", "destination": "migrating"}),
    "postcopy": (2, 1, {"source": "postcopy", "destination": "postcopy"}),
    "arrived": (2, 2, {"source": "postcopy", "destination": "running"}),
    "at-destination": (2, 3, {"source": "absent", "destination": "running", "in_flight": True}),
    "home-destination": (3, 3, {"source": "absent", "destination": "running"}),
    "at-source": (
        0,
        1,
        {"source": "running", "destination": "absent", "in_flight": True, "job_active": False},
    ),
    "leftover": (1, 1, {"source": "running", "destination": "migrating", "job_active": False}),
    "interrupted": (3, 1, {"source": "postcopy-failed", "destination": "postcopy-failed"}),
    "handed-over": (1, 3, {"source": "absent", "source_handed_off": True}),
    "cut-off": (4, 1, {"source": "postcopy-failed"}),
    "half-lost": (3, 2, {"source": "postcopy-failed", "destination": "absent"}),
    "unseen": (0, 4.2, {"source": "absent"}),
    "nobody": (1, 4.2, {"source": "absent", "destination": "absent"}),
    "runs-at-source": (3, 5, {"source": "running", "in_flight": True}),
    "runs-at-destination": (4, 5, {"destination": "running", "in_flight": True}),
    "silent": (0, 5, {"source": "paused", "in_flight": True}),
    "unconfirmed": (3, 4.2, {"source": "absent", "destination": "paused", "in_flight": True}),
    "ended": (4, 2, {"source": "postcopy-failed", "destination": "absent", "destination_shut_down": True}),
    "gone": (2, 4.2, {"source": "absent", "destination": "absent", "in_flight": True}),
    "turned-back": (
        3,
        5.8,
        {"source": "postcopy-failed", "destination": "absent", "turned_back": True},
    ),
    "double": (1, 5, {"source": "running", "destination": "running"}),
    "in-doubt": (2, 5, {"source": "dead", "destination": "paused", "in_flight": True}),
}
WAYS = (
    ("home-source", "precopy", "the migration begins"),
    ("precopy", "leftover", "it is aborted, or fails"),
    ("leftover", "at-source", "the destination's empty half is removed"),
    ("at-source", "home-source", "its end is on record"),
    ("precopy", "switching", "the switch, or the end of pre-copy"),
    ("switching", "postcopy", "the guest runs at the destination, pages are missing"),
    ("postcopy", "interrupted", "the stream breaks; and back, when it is resumed"),
    ("postcopy", "arrived", "the last page has come"),
    ("interrupted", "cut-off", "a host does not answer; and back, when it does"),
    ("interrupted", "half-lost", "the process of one half ends"),
    ("half-lost", "turned-back", "the guest turns back"),
    ("interrupted", "ended", "the guest is shut down at the destination before its last page has come"),
    ("arrived", "at-destination", "the source gives up its half"),
    ("at-destination", "home-destination", "its end is on record"),
    ("at-destination", "handed-over", "the destination does not answer; and back"),
)
COLOURS = {
    "source": "#bfd9f2",
    "destination": "#c5e8c5",
    "both": "#f7e2a4",
    "nowhere": "#f0b9b4",
    "unknown": "#d9d9d9",
}
GRID = Grid(pitch=184, step=92, width=152, height=52)


def entry(*content: nodes.Node) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", "", *content))


def literals(names: Sequence[str]) -> nodes.entry:
    content: list[nodes.Node] = []
    for name in names:
        if content:
            content.append(nodes.Text(", "))
        content.append(nodes.literal(name, name))
    return entry(*content or [nodes.Text("nothing")])


def table(columns: dict[str, int], rows: Sequence[Sequence[nodes.entry]]) -> nodes.table:
    """COLUMNS: header and relative width."""
    group = nodes.tgroup(cols=len(columns))
    for width in columns.values():
        group += nodes.colspec(colwidth=width)
    group += nodes.thead("", nodes.row("", *(entry(nodes.Text(name)) for name in columns)))
    group += nodes.tbody("", *(nodes.row("", *row) for row in rows))
    return nodes.table("", group)


class SituationsDirective(Directive):
    def run(self) -> list[nodes.Node]:
        rows = [
            (
                literals([row["name"]]),
                entry(nodes.Text(row["memory"])),
                entry(nodes.Text(f"{row['text'][0].upper()}{row['text'][1:]}.")),
                entry(nodes.literal(row["advice"], row["advice"])),
            )
            for row in _core.situations()
        ]
        return [table({"Situation": 16, "Memory": 12, "In words": 38, "What helps": 34}, rows)]


class GuardDirective(Directive):
    def run(self) -> list[nodes.Node]:
        rows = [
            (literals([row["name"]]), literals(row["source"]), literals(row["destination"]))
            for row in _core.situations()
        ]
        return [
            table({"Situation": 18, "Permitted at the source": 41, "Permitted at the destination": 41}, rows)
        ]


class HalvesDirective(Directive):
    """Argument: `record`, or `no-record`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        in_flight = {"record": True, "no-record": False}[self.arguments[0]]
        rows = []
        for source in HALVES:
            row = [literals([source])]
            for destination in HALVES:
                row.append(
                    entry(nodes.Text(situation(source=source, destination=destination, in_flight=in_flight)))
                )
            rows.append(row)
        return [table({"Source \\ destination": 12} | dict.fromkeys(HALVES, 11), rows)]


def situation(**evidence: Any) -> str:
    # The act makes no difference. Whether a job runs is known, unless an example says otherwise.
    return _core.guard(side="source", act="start", **{"job_active": False, **evidence})["situation"]


def picture() -> str:
    known = {row["name"]: row for row in _core.situations()}
    if known.keys() != PLACES.keys():
        raise ValueError(f"the picture and the guard differ in {sorted(known.keys() ^ PLACES.keys())}")
    width, height = GRID.size((4, 5.8))
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" style="width: 100%; font: 14px sans-serif"'
        ' xmlns="http://www.w3.org/2000/svg"><title>The situations of a guest between two hosts</title>'
        '<defs><marker id="pcmig-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="#808080"/></marker></defs>'
    ]
    for number, (start, end, text) in enumerate(WAYS, 1):
        (x1, y1), (x2, y2) = (
            GRID.border(PLACES[start][:2], PLACES[end][:2]),
            GRID.border(PLACES[end][:2], PLACES[start][:2]),
        )
        back = ' marker-start="url(#pcmig-tip)"' if "; and back" in text else ""
        parts.append(
            f'<path d="M{x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f}" stroke="#808080" stroke-width="2" fill="none"'
            f' marker-end="url(#pcmig-tip)"{back}/>'
            f'<circle cx="{(x1 + x2) / 2:.0f}" cy="{(y1 + y2) / 2 - 14 * (y1 == y2):.0f}" r="10" fill="#fff"'
            f' stroke="#808080"/><text x="{(x1 + x2) / 2:.0f}" y="{(y1 + y2) / 2 + 5 - 14 * (y1 == y2):.0f}"'
            f' text-anchor="middle" font-size="13" fill="#222">{number}</text>'
        )
    for name, (column, row, example) in PLACES.items():
        found = situation(**example)
        if found != name:
            raise ValueError(f"the picture's example of {name} is {found}")
        x, y = GRID.middle((column, row))
        memory = known[name]["memory"]
        parts += [
            GRID.box((column, row), COLOURS[memory]),
            f'<text x="{x:.0f}" y="{y - 3:.0f}" text-anchor="middle" font-weight="bold" fill="#222">'
            f"{html.escape(name)}</text>"
            f'<text x="{x:.0f}" y="{y + 16:.0f}" text-anchor="middle" font-size="13" fill="#222">'
            f"memory: {html.escape(memory)}</text>",
        ]
    return "".join([*parts, "</svg>"])


class PictureDirective(Directive):
    """The picture, and its ways in words."""

    def run(self) -> list[nodes.Node]:
        ways = nodes.enumerated_list(enumtype="arabic", prefix="", suffix=".")
        for start, end, text in WAYS:
            ways += nodes.list_item(
                "",
                nodes.paragraph(
                    "",
                    "",
                    nodes.literal(start, start),
                    nodes.Text(" → "),
                    nodes.literal(end, end),
                    nodes.Text(f": {text}"),
                ),
            )
        return [nodes.raw("", picture(), format="html"), ways]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("pcmig-situations", SituationsDirective)
    app.add_directive("pcmig-guard", GuardDirective)
    app.add_directive("pcmig-halves", HalvesDirective)
    app.add_directive("pcmig-situations-picture", PictureDirective)
    return {"parallel_read_safe": True}
