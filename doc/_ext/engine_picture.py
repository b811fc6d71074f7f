# SPDX-License-Identifier: Apache-2.0
"""The directives `pcmig-engine-picture` and `pcmig-engine-states`: made from the engine's own table, so they
cannot go stale. A state that the picture has no place for fails the build."""

from __future__ import annotations

import html

from boxes import Grid
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from pcmig import _core

# Where a state stands in the picture: column and row.
PLACES = {
    "preparing": (0.0, 0.0),
    "precopy": (1.0, 0.0),
    "draining": (2.0, 0.0),
    "issuing": (3.0, 0.0),
    "switching": (3.0, 1.0),
    "postcopy": (3.0, 2.0),
    "interrupted": (2.0, 2.0),
    "resuming": (2.0, 3.0),
    "confirming": (1.0, 1.0),
    "over": (0.0, 1.0),
}
GRID = Grid(pitch=200, step=104, width=132, height=46)
COLOURS = {True: "#bfd9f2", False: "#c5e8c5"}  # both hosts are asked, or not


def states() -> list[_core.EngineState]:
    rows = _core.engine_states()
    if {row["name"] for row in rows} != PLACES.keys():
        raise ValueError(f"the picture and the engine differ in {[row['name'] for row in rows]}")
    return rows


def ways() -> dict[tuple[str, str], list[str]]:
    """From where to where, and by what."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in states():
        for trigger, to in row["ways"]:
            found.setdefault((row["name"], to), []).append(trigger)
    return found


def picture() -> str:
    width, height = GRID.size((3, 3))
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" style="width: 100%; font: 14px sans-serif"'
        ' xmlns="http://www.w3.org/2000/svg"><title>The states of the engine</title>'
        '<defs><marker id="pcmig-engine-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#808080"/></marker></defs>'
    ]
    for start, end in ways():
        if end == "over" and start != "confirming":
            continue  # from everywhere
        (x1, y1), (x2, y2) = GRID.line(PLACES[start], PLACES[end])
        parts.append(
            f'<path d="M{x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f}" stroke="#808080" stroke-width="1.5" fill="none"'
            ' marker-end="url(#pcmig-engine-tip)"/>'
        )
    for row in states():
        place = PLACES[row["name"]]
        x, y = GRID.middle(place)
        parts += [
            GRID.box(place, COLOURS[row["asks"]]),
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" font-weight="bold" fill="#222">'
            f"{html.escape(row['name'])}</text>",
        ]
    return "".join([*parts, "</svg>"])


class PictureDirective(Directive):
    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", picture(), format="html")]


class StatesDirective(Directive):
    """Each state with its meaning, and what leads out of it."""

    def run(self) -> list[nodes.Node]:
        rows = nodes.definition_list()
        leads = ways()
        for row in states():
            item = nodes.definition("", nodes.paragraph("", f"{row['text'][0].upper()}{row['text'][1:]}."))
            out = nodes.bullet_list()
            for (start, end), triggers in leads.items():
                if start == row["name"] and end != "over":
                    what = nodes.paragraph("", f"{'; '.join(triggers)} → ")
                    what += nodes.literal(end, end)
                    out += nodes.list_item("", what)
            if len(out):
                item += out
            rows += nodes.definition_list_item(
                "", nodes.term("", "", nodes.literal(row["name"], row["name"])), item
            )
        return [rows]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("pcmig-engine-picture", PictureDirective)
    app.add_directive("pcmig-engine-states", StatesDirective)
    return {"parallel_read_safe": True}
