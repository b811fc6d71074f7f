# SPDX-License-Identifier: Apache-2.0
"""The tables of doc/refer/evaluation.rst, from a run's file: of migrations, and of what is said of them."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.bed import BedError
from tests.bench.evaluation.figures import Outcome, known, limits, outcome, places, statements
from tests.bench.figures import Figure

MADE_BY = "python -m tests.bench.evaluation --from FILE --rst FILE"
HEAD = f".. SPDX-License-Identifier: Apache-2.0\n.. made by {MADE_BY}\n"


def write(content: dict[str, Any], path: pathlib.Path) -> None:
    """PATH, and what is said beside it: evaluation-said.inc of evaluation-table.inc. Raises BedError."""
    for file, text in ((path, tables(content)), (beside(path), said(content))):
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise BedError(f"--rst {file}: {error.strerror}") from error


def beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.stem.removesuffix('-table')}-said{path.suffix}")


def said(content: dict[str, Any]) -> str:
    """What the original documents said, one by one."""
    judged = [[each.text, each.word, each.evidence] for each in statements(content["rounds"])]
    return f"{HEAD}\n{_table('What is said', ['statement', '', 'migrations'], judged)}"


def tables(content: dict[str, Any]) -> str:
    """A table for each load of the guest."""
    rows = content["rounds"]
    parts = [HEAD]
    for load in dict.fromkeys(row["load"] for row in rows):
        found = [
            (place, way, each)
            for place in places(rows)
            if place[0] == load
            for way in content["ways"]
            if (each := outcome(rows, place, way)) is not None
        ]
        shown = known(each for _, _, each in found)
        heads = ["Link, way", *(f"{figure.title}, {figure.unit}" for figure in shown), "limited by"]
        lines = [
            [
                _name(place, way),
                *_values(each, shown, content["give_up_s"]),
                limits(each, content["accelerator"]),
            ]
            for place, way, each in found
        ]
        parts.append(_table(f"{load} guest", heads, lines))
    return "\n".join(parts)


def _name(place: tuple[str, float, str], way: str) -> str:
    _, rate_mbit, transport = place
    rate = f"{rate_mbit / 1000:g} Gb/s" if rate_mbit >= 1000 else f"{rate_mbit:g} Mb/s"
    return f"{rate}, ``{way}``" + (", tunnel" if transport == "tunnel" else "")


def _values(found: Outcome, shown: list[Figure], give_up_s: float) -> list[str]:
    never = f"**not within {give_up_s:g} s**"
    return [
        never if not found.ended and figure.key == "complete_s" else found.text(figure) for figure in shown
    ]


def _table(title: str, heads: list[str], lines: list[list[str]]) -> str:
    text = f".. list-table:: {title}\n   :header-rows: 1\n\n"
    for line in [heads, *lines]:
        text += "   * - " + "\n     - ".join(cell or "\\" for cell in line) + "\n"
    return text
