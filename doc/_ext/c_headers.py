# SPDX-License-Identifier: Apache-2.0
"""The directive `c-headers`: lists every header of the folders given, each in full."""

import pathlib

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class HeadersDirective(SphinxDirective):
    """Arguments: folders relative to the root of the source. One section per header, sorted by name."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for folder in self.arguments[0].split():
            for path in sorted((ROOT / folder).glob("*.h")):
                self.env.note_dependency(str(path))
                name = str(path.relative_to(ROOT / "csrc"))
                text = path.read_text(encoding="utf-8")
                section = nodes.section(ids=[nodes.make_id(name)], names=[name])
                section += nodes.title(name, name)
                section += nodes.literal_block(text, text, language="c")
                sections.append(section)
        return sections


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("c-headers", HeadersDirective)
    return {"parallel_read_safe": True}
