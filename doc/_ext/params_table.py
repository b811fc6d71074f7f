# SPDX-License-Identifier: Apache-2.0
"""The directive `pcmig-params`: every threshold, read from the built extension, so it cannot go stale."""

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

import pcmig._core

COLUMNS = {"Parameter": 24, "Unit": 8, "Default": 8, "Bounds": 16, "Meaning": 44}  # header -> relative width


def cell(text: str, *, literal: bool = False) -> nodes.entry:
    content = nodes.literal(text, text) if literal else nodes.Text(text)
    return nodes.entry("", nodes.paragraph("", "", content))


def params_table() -> nodes.table:
    group = nodes.tgroup(cols=len(COLUMNS))
    for width in COLUMNS.values():
        group += nodes.colspec(colwidth=width)
    group += nodes.thead("", nodes.row("", *(cell(name) for name in COLUMNS)))
    body = nodes.tbody()
    for param in pcmig._core.params():
        body += nodes.row(
            "",
            cell(param["name"], literal=True),
            cell(param["unit"]),
            cell(str(param["default"])),
            cell(f"{param['min']} to {param['max']}"),
            cell(param["doc"]),
        )
    group += body
    return nodes.table("", group)


class ParamsDirective(Directive):
    def run(self) -> list[nodes.Node]:
        return [params_table()]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("pcmig-params", ParamsDirective)
    return {"parallel_read_safe": True}
