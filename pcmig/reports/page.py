# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file that needs nothing else: no script, nothing from the network. It follows the
reader's theme, and prints on white."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from pcmig import _core, accounting
from pcmig.reports import facts, figures
from pcmig.reports.facts import NONE, Document, Fact

STYLE = resources.files("pcmig.reports").joinpath("page.css").read_text(encoding="utf-8")


def page(documents: Sequence[Document], files: Sequence[str]) -> str:
    """A report of each of DOCUMENTS, which are in FILES, one after the other."""
    names = ", ".join(dict.fromkeys(facts.name(document) for document in documents))
    body = "".join(_section(document, f"m{i}") for i, document in enumerate(documents))
    return _whole(f"Migration of {names}", body, files)


def comparison(documents: Sequence[Document], files: Sequence[str]) -> str:
    """DOCUMENTS side by side."""
    letters = labels(documents)
    title = f"{len(documents)} migrations side by side"
    head = "".join(f"<th>{escape(label)}</th>" for label in letters)
    columns = [facts.compared(document) for document in documents]
    rows = [
        _row("", [escape(facts.outcome(d)) for d in documents], "end"),
        _row("", [escape(facts.mode(d)) for d in documents], "mode"),
        _row("", [escape(d["policy"]) for d in documents], "policy"),
        *(
            _row(
                "",
                [_data(documents[i], column[place]) for i, column in enumerate(columns)],
                columns[0][place].label,
            )
            for place in range(len(columns[0]))
        ),
        _row("", [escape(" → ".join(facts.ends(d))) for d in documents], "hosts"),
        _row("", [_versions(d, "qemu") for d in documents], "QEMU"),
        _row("", [_versions(d, "libvirt") for d in documents], "libvirt"),
        _row("", [escape(facts.moment(d["ended"])) for d in documents], "ended"),
    ]
    table = (
        f'<div class="wide"><table class="numbers side"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
    )
    drawn = "".join(
        _figure(
            title_,
            figures.svg(functools.partial(_swapped, draw, documents, letters), height, f"c{i}", alt),
        )
        for i, (title_, alt, draw, height) in enumerate(figures.comparisons(documents))
    )
    why = "".join(
        f"<tr><td>{escape(label)}</td><td>{escape(facts.reason(document) or 'no switch')}</td></tr>"
        for label, document in zip(letters, documents, strict=True)
    )
    reasons = f'<h2>Why each switched</h2><div class="wide"><table class="text">{why}</table></div>'
    over_time = f'<h2>Over time</h2><div class="drawings">{drawn}</div>'
    body = f"<section><h1>{title}</h1>{table}{over_time}{reasons}</section>"
    return _whole(title, body, files)


def labels(documents: Sequence[Document]) -> list[str]:
    """How each of several is called: A, B, ... and its guest."""
    return [f"{_letters(i)} {facts.name(document)}" for i, document in enumerate(documents)]


def _letters(number: int) -> str:
    """0 -> A, 25 -> Z, 26 -> AA"""
    text = chr(ord("A") + number % 26)
    return text if number < 26 else _letters(number // 26 - 1) + text


def _whole(title: str, body: str, files: Sequence[str]) -> str:
    made = f"made by pcmig {escape(_core.VERSION)} of " + ", ".join(escape(file) for file in files)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{body}<footer>{made}</footer></body></html>\n"
    )


def _section(document: Document, prefix: str) -> str:
    source, destination = facts.ends(document)
    to = f": {source} → {destination}" if source or destination else ""
    outcome = document["outcome"]
    parts = [
        f"<h1>{escape(facts.name(document) + to)}</h1>",
        f'<span class="badge {escape(outcome)}">{escape(facts.outcome(document))}</span>',
        f'<span class="badge">{escape(facts.mode(document))}</span>',
        f'<span class="badge">policy {escape(document["policy"])}</span>',
        f'<p class="words">{escape(document["words"])}</p>',
        *(f'<p class="remark words">{escape(text)}</p>' for text in facts.remarks(document)),
        _figures(document),
    ]
    if reason := facts.reason(document):
        parts.append(f'<p class="why"><b>Why it switched:</b> {escape(reason)}</p>')
    drawn = [
        _figure(
            title,
            figures.svg(functools.partial(_swapped, draw, document), height, f"{prefix}f{i}", alt),
        )
        for i, (title, alt, draw, height) in enumerate(figures.drawings(document))
    ]
    if drawn:
        parts.append(f'<h2>Over time</h2><div class="drawings">{"".join(drawn)}</div>')
    parts += [
        _decisions(document),
        _silences(document),
        _huge(document),
        _ledger(document),
        _around(document),
    ]
    return f"<section>{''.join(parts)}</section>\n"


def _figure(title: str, drawn: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>"


def _data(document: Document, fact: Fact) -> str:
    """The figure as it is read, with the document's own number, and which it is."""
    if fact.of is None:
        return escape(fact.text)
    value = escape(str(facts.at(document, fact.of)))  # who wrote the file may have put a text for a number
    return f'<data value="{value}" data-of="{escape(fact.of)}">{escape(fact.text)}</data>'


def _figures(document: Document) -> str:
    boxes = "".join(
        f"<div><small>{escape(fact.label)}</small><b>{_data(document, fact)}</b>"
        f"<small>{escape(fact.note)}</small></div>"
        for fact in facts.figures(document)
    )
    return f'<div class="figures">{boxes}</div>'


def _decisions(document: Document) -> str:
    rows, paces = facts.decisions(document), facts.paces(document)
    found = "<h2>Decisions</h2>"
    if not rows and not paces:
        return f'{found}<p class="soft">none but to keep going</p>'
    if rows:
        found += _text_table(("", "second", "decision", "reason"), rows)
    if paces:
        table = _text_table(("second", "decision", "reason"), paces)
        found += f"<details><summary>changes of the pace: {len(paces)}</summary>{table}</details>"
    return found


def _silences(document: Document) -> str:
    rows = facts.silences(document)
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td>{escape(fact.label)}</td><td>{_data(document, fact)}</td><td>{escape(by)}</td>"
        f"<td>{escape(since)}</td></tr>"
        for fact, by, since in rows
    )
    return (
        "<h2>When the guest stood still</h2>"
        '<div class="wide"><table class="text few">'
        "<tr><th>what</th><th>how long</th><th>by</th><th>at second</th></tr>"
        f'{cells}</table></div><p class="soft">libvirt&rsquo;s figure is QEMU&rsquo;s, and ends when the '
        "guest&rsquo;s state has arrived; the events tell when it ran. What a guest feels beyond that are "
        "page requests that queue.</p>"
    )


def _huge(document: Document) -> str:
    rows = facts.huge(document)
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td>{escape(fact.label)}</td><td>{_data(document, fact)}</td></tr>" for fact in rows
    )
    return (
        f'<h2>Huge pages of the guest</h2><div class="wide"><table class="text few">{cells}</table></div>'
        '<p class="soft">Post-copy breaks them at the destination; where they come back, that is the '
        "host&rsquo;s kernel&rsquo;s work, and the guest is slower until then.</p>"
    )


def _ledger(document: Document) -> str:
    ledger: Any = document["ledger"]
    found = "<h2>Ledger</h2>"
    for section in accounting.sections(ledger):
        head = "".join(f"<th>{escape(name)}</th>" for name in (section.first, *accounting.COLUMNS))
        rows = "".join(
            f"<tr{' class=total' if row[0] == 'total' else ''}>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in row)
            + "</tr>"
            for row in section.rows
        )
        table = f'<table class="numbers ledger"><tr>{head}</tr>{rows}</table>'
        found += f'<h3 class="soft">{escape(section.title)}</h3><div class="wide">{table}</div>'
    lines = facts.sentences(document)
    return found + "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)


def _around(document: Document) -> str:
    hosts = facts.hosts(document)
    found = ""
    if hosts:
        table = _text_table(("", "source", "destination"), hosts)
        found += f"<div><h2>Hosts</h2>{table}</div>"
    found += f"<div><h2>What was asked for</h2>{_text_table((), facts.settings(document))}</div>"
    return f'<div class="pairs">{found}</div>'


def _text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    top = f"<tr>{first}</tr>" if first else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="text">{top}{body}</table></div>'


def _row(kind: str, cells: Iterable[str], label: str) -> str:
    return f"<tr{kind}><td>{escape(label)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _versions(document: Document, key: str) -> str:
    versions = [facts.sides(document)[side][key] or NONE for side in ("source", "destination")]
    return escape(versions[0] if versions[0] == versions[1] else " → ".join(versions))


def _swapped(draw: Callable[..., None], *of: Any) -> None:
    """DRAW takes the axes first, and partial() gives them last."""
    *rest, axes = of
    draw(axes, *rest)
