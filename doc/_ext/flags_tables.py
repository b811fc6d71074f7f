# SPDX-License-Identifier: Apache-2.0
"""The directives `pcmig-flags`, `pcmig-old-flags` and `pcmig-flag-conflicts`: tables read from the
extension, so they cannot go stale."""

from collections.abc import Iterable, Sequence

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from pcmig import _core

PREFIX = "VIR_MIGRATE_"
Cell = str | Sequence[str]  # a text, or names that are set as literals


def cell(content: Cell) -> nodes.entry:
    paragraph = nodes.paragraph()
    if isinstance(content, str):
        paragraph += nodes.Text(content)
    else:
        for i, name in enumerate(content):
            if i:
                paragraph += nodes.Text(", ")
            paragraph += nodes.literal(name, name)
    return nodes.entry("", paragraph)


def table(columns: dict[str, int], rows: Iterable[Sequence[Cell]]) -> nodes.table:
    """COLUMNS: header and relative width."""
    group = nodes.tgroup(cols=len(columns))
    for width in columns.values():
        group += nodes.colspec(colwidth=width)
    group += nodes.thead("", nodes.row("", *(cell(name) for name in columns)))
    group += nodes.tbody("", *(nodes.row("", *(cell(content) for content in row)) for row in rows))
    return nodes.table("", group)


def short(names: Iterable[str]) -> list[str]:
    return [name.removeprefix(PREFIX) for name in names]


class FlagsDirective(Directive):
    def run(self) -> list[nodes.Node]:
        rows = (
            (short([row["name"]]), hex(row["bit"]), row["since"], row["doc"]) for row in _core.flags_table()
        )
        return [table({"Flag": 34, "Bit": 11, "libvirt": 9, "Meaning": 46}, rows)]


class OldFlagsDirective(Directive):
    def run(self) -> list[nodes.Node]:
        today = {row["bit"]: row["name"] for row in _core.flags_table()}
        rows = (
            (
                short([row["name"]]),
                short([today[row["bit"]]]),
                [row["policy"]] if row["policy"] else "none",
                row["doc"],
            )
            for row in _core.flags_old_names()
        )
        return [table({"Name": 28, "Flag today": 14, "Policy": 14, "Meaning": 44}, rows)]


class ConflictsDirective(Directive):
    """Argument: for whom, as flags_conflicts() names it. `anyone` includes what is not for Nova."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        users = {"anyone": ("anyone", "not-nova"), "nova": ("nova",)}[self.arguments[0]]
        rows = (
            (
                short([*row["all"], *row["any"]]) or "any",
                short(row["none"]) or "",
                row["severity"],
                f"{row['problem'][0].upper()}{row['problem'][1:]}: {row['remedy']}.",
            )
            for row in _core.flags_conflicts()
            if row["user"] in users
        )
        return [table({"Flags": 24, "without": 20, "": 9, "What is wrong, and what to do": 47}, rows)]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("pcmig-flags", FlagsDirective)
    app.add_directive("pcmig-old-flags", OldFlagsDirective)
    app.add_directive("pcmig-flag-conflicts", ConflictsDirective)
    return {"parallel_read_safe": True}
