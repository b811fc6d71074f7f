# SPDX-License-Identifier: Apache-2.0
"""The report as a PDF: the page's figures and texts, on sheets of A4."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from pcmig import accounting
from pcmig.reports import facts, figures
from pcmig.reports.facts import Document

SHEET_IN = (8.27, 11.69)
MARGIN_IN = 0.6
LINE_IN = 0.155  # of text
LETTERS = 104  # in a line, of a letter that is as wide as every other
GAP_IN = 0.12

# Of a drawing: beside its axes there are numbers and words.
CELL_IN = 3.45
INSIDE_IN = (0.5, 0.4, 0.42, 0.5)  # left, below, right, above
# Smaller than on a screen: two drawings stand beside each other.
STYLE: Any = {
    "font.size": 7.5,
    "legend.fontsize": 6.5,
    "legend.columnspacing": 1.0,
    "legend.handlelength": 1.3,
    "legend.handletextpad": 0.4,
}


class Sheets:
    """Text and drawings from top to bottom, on as many sheets as it takes."""

    def __init__(self, pdf: PdfPages) -> None:
        self._pdf = pdf
        self._figure: Figure | None = None
        self._y_in = 0.0  # from below: what is left of the sheet

    def close(self) -> None:
        if self._figure is not None:
            self._pdf.savefig(self._figure)  # type: ignore[no-untyped-call]
            self._figure = None

    def title(self, text: str) -> None:
        for line in textwrap.wrap(text, 64) or [""]:
            self._text(line, 0.3, size=14, weight="bold")

    def heading(self, text: str, below_in: float = 3 * LINE_IN) -> None:
        """One that is not the last thing on its sheet: BELOW_IN is what follows at once."""
        self._take(0.42 + below_in)
        self._y_in += below_in
        self._write(text, size=10.5, weight="bold")

    def paragraph(self, text: str) -> None:
        for line in text.splitlines():
            for part in textwrap.wrap(line, LETTERS + 14) or [""]:
                self._text(part, LINE_IN)
        self._y_in -= GAP_IN / 2

    def table(self, rows: Sequence[Sequence[str]], right: bool = False) -> None:
        """ROWS in columns; the last one is wrapped. With RIGHT all but the first are numbers."""
        if not rows:
            return
        columns = len(rows[0])
        widths = [max(len(row[i]) for row in rows) for i in range(columns)]
        for row in rows:
            if right:
                cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, columns))]
                self._text("  ".join(cells), LINE_IN, family="monospace", size=7)
                continue
            start = "  ".join(row[i].ljust(widths[i]) for i in range(columns - 1))
            room = max(20, LETTERS - len(start) - 2)
            for i, part in enumerate(textwrap.wrap(row[-1], room) or [""]):
                line = f"{start if i == 0 else ' ' * len(start)}  {part}"
                self._text(line, LINE_IN, family="monospace", size=7.5)
        self._y_in -= GAP_IN / 2

    def drawings(self, drawn: Sequence[tuple[str, Callable[[Any], None], float]]) -> None:
        """Title, how, height in inches; the first one over the whole width, the others in pairs."""
        rows = [drawn[:1], *(drawn[place : place + 2] for place in range(1, len(drawn), 2))]
        for row in rows:
            height_in = max((height for _, _, height in row), default=0.0)
            self._take(height_in + GAP_IN)
            wide_in = 2 * CELL_IN if row is rows[0] else CELL_IN
            for column, (title, draw, _) in enumerate(row):
                self._draw(title, draw, MARGIN_IN + column * (CELL_IN + 0.17), wide_in, height_in)

    def _draw(
        self, title: str, draw: Callable[[Any], None], left_in: float, wide_in: float, height_in: float
    ) -> None:
        assert self._figure is not None
        wide, high = SHEET_IN
        left, below, right, above = INSIDE_IN
        box = (
            (left_in + left) / wide,
            (self._y_in + GAP_IN + below) / high,
            (wide_in - left - right) / wide,
            (height_in - below - above) / high,
        )
        draw(self._figure.add_axes(box))
        y = (self._y_in + GAP_IN + height_in - 0.06) / high
        self._figure.text(left_in / wide, y, title, size=9, weight="bold", va="top")

    def _text(self, text: str, height_in: float, **how: Any) -> None:
        self._take(height_in)
        self._write(text, **how)

    def _write(self, text: str, **how: Any) -> None:
        assert self._figure is not None
        wide, high = SHEET_IN
        how = {"size": 8.5, **how}
        self._figure.text(MARGIN_IN / wide, self._y_in / high, text, va="bottom", **how)

    def _take(self, height_in: float) -> None:
        """Room for so much, on another sheet if need be."""
        if self._figure is None or self._y_in - height_in < MARGIN_IN:
            self.close()
            self._figure = Figure(figsize=SHEET_IN, facecolor="white")
            self._y_in = SHEET_IN[1] - MARGIN_IN
        self._y_in -= height_in


def write(target: Any, documents: Sequence[Document], files: Sequence[str], *, compare: bool) -> None:
    """A PDF of DOCUMENTS, which are in FILES, into TARGET, a path or a binary file; with COMPARE side by side
    first."""
    with (
        figures.style(),
        rc_context(STYLE),
        PdfPages(target, metadata={"Title": "pcmig report", "CreationDate": None}) as pdf,
    ):
        sheets = Sheets(pdf)
        if compare:
            _comparison(sheets, documents)
        else:
            for document in documents:
                sheets.close()  # each begins on a sheet of its own
                _migration(sheets, document)
        sheets.heading("Made of")
        for file in files:
            sheets.paragraph(file)
        sheets.close()


def _migration(sheets: Sheets, document: Document) -> None:
    source, destination = facts.ends(document)
    to = f": {source} → {destination}" if source or destination else ""
    sheets.title(facts.name(document) + to)
    sheets.paragraph(f"{facts.outcome(document)} · {facts.mode(document)} · policy {document['policy']}")
    sheets.paragraph(document["words"])
    for remark in facts.remarks(document):
        sheets.paragraph(remark)
    sheets.table([(fact.label, fact.text, fact.note) for fact in facts.figures(document)])
    if reason := facts.reason(document):
        sheets.paragraph(f"Why it switched: {reason}")
    drawn = figures.drawings(document)
    sheets.drawings(
        [(title, lambda axes, draw=draw: draw(axes, document), height) for title, _, draw, height in drawn]  # type: ignore[misc]
    )
    if rows := facts.decisions(document):
        sheets.heading("Decisions")
        sheets.table([("", "second", "decision", "reason"), *rows])
    if paces := facts.paces(document):
        sheets.paragraph(f"changes of the pace: {len(paces)}")
    if silences := facts.silences(document):
        sheets.heading("When the guest stood still")
        sheets.table(
            [
                ("at second", "by", "how long", "what"),
                *((since, by, fact.text, fact.label) for fact, by, since in silences),
            ]
        )
    if huge := facts.huge(document):
        sheets.heading("Huge pages of the guest")
        sheets.table([(fact.label, fact.text) for fact in huge])
    ledger: Any = document["ledger"]
    for section in accounting.sections(ledger):
        sheets.heading(section.title)
        sheets.table([(section.first, *accounting.COLUMNS), *section.rows], right=True)
    for line in facts.sentences(document):
        sheets.paragraph(line)
    if hosts := facts.hosts(document):
        sheets.heading("Hosts")
        sheets.table([("", "source", "destination"), *hosts])
    sheets.heading("What was asked for")
    sheets.table(facts.settings(document))


def _comparison(sheets: Sheets, documents: Sequence[Document]) -> None:
    from pcmig.reports.page import labels

    names = labels(documents)
    sheets.title(f"{len(documents)} migrations side by side")
    columns = [facts.compared(document) for document in documents]
    rows = [
        ("", *names),
        ("end", *(document["outcome"] for document in documents)),
        ("mode", *(facts.mode(document) for document in documents)),
        ("policy", *(document["policy"] for document in documents)),
        *(
            (columns[0][place].label, *(column[place].text for column in columns))
            for place in range(len(columns[0]))
        ),
    ]
    sheets.table(rows, right=True)
    drawn = figures.comparisons(documents)
    sheets.drawings(
        [
            (title, lambda axes, draw=draw: draw(axes, documents, names), height)  # type: ignore[misc]
            for title, _, draw, height in drawn
        ]
    )
    sheets.heading("Why each switched")
    sheets.table(
        [
            (name, facts.reason(document) or "no switch")
            for name, document in zip(names, documents, strict=True)
        ]
    )
