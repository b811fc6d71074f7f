# SPDX-License-Identifier: Apache-2.0
"""The directives `pcmig-choice` and `pcmig-choice-rules`: who decides about one guest's migration. They are
computed by the function that decides, so they cannot go stale."""

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from pcmig.guest import Obstacle
from pcmig_common.choice import EXTRA_SPEC, IMAGE_PROPERTY, RULES, Choice, decide, mistake

NOTHING = "(nothing)"
REQUESTS = {"(nothing)": None, "for": True, "against": False}
# One that blocks; which one makes no difference.
OBSTACLE = Obstacle("a device", "a reason", "a remedy", True)


def outcome(choice: Choice) -> str:
    return "refused" if choice.refused else "post-copy" if choice.post_copy else "no post-copy"


def choices() -> list[tuple[str, ...]]:
    """A row for each rule of the guest, or default, and each request."""
    rows = []
    for rule in RULES:
        for label, request in REQUESTS.items():
            guest = {EXTRA_SPEC: rule}
            results = (decide(request, guest, {}, "allowed", obstacles) for obstacles in ((), (OBSTACLE,)))
            rows.append((rule, label, *map(outcome, results)))
    for default in RULES:
        for label, request in REQUESTS.items():
            results = (decide(request, {}, {}, default, obstacles) for obstacles in ((), (OBSTACLE,)))
            rows.append((f"{NOTHING}; default_choice = {default}", label, *map(outcome, results)))
    return rows


def rules() -> list[tuple[str, ...]]:
    """A row for each value of the flavor, a column for each of the image: what a migration gets without a
    request, of a guest that can and of one that cannot; or that no such server is made."""
    rows = []
    for flavor in (None, *RULES):
        row = [flavor or NOTHING]
        for image in (None, *RULES):
            specs = {EXTRA_SPEC: flavor} if flavor else {}
            properties = {IMAGE_PROPERTY: image} if image else {}
            if mistake(specs, properties):
                row.append("no such server is made")
                continue
            can, cannot = (
                outcome(decide(None, specs, properties, "allowed", found)) for found in ((), (OBSTACLE,))
            )
            row.append(can if can == cannot else f"{can} / {cannot}")
        rows.append(tuple(row))
    return rows


def table(titles: dict[str, int], rows: list[tuple[str, ...]]) -> nodes.table:
    """TITLES with relative widths."""
    group = nodes.tgroup(cols=len(titles))
    for width in titles.values():
        group += nodes.colspec(colwidth=width)
    group += nodes.thead("", table_row(tuple(titles)))
    group += nodes.tbody("", *map(table_row, rows))
    return nodes.table("", group)


def table_row(texts: tuple[str, ...]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in texts))


class ChoiceDirective(Directive):
    def run(self) -> list[nodes.Node]:
        titles = {"Flavor": 36, "Request": 12, "The guest can": 16, "The guest cannot": 16}
        return [table(titles, choices())]


class RulesDirective(Directive):
    def run(self) -> list[nodes.Node]:
        return [table({"Flavor": 16, "Image: " + NOTHING: 16} | dict.fromkeys(RULES, 16), rules())]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("pcmig-choice", ChoiceDirective)
    app.add_directive("pcmig-choice-rules", RulesDirective)
    return {"parallel_read_safe": True}
