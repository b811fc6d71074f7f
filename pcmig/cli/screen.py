# SPDX-License-Identifier: Apache-2.0
"""The screens of `pcmig watch`: values in, what rich draws out. Nothing here looks at a host or a clock."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pcmig.cli.progress import figures
from pcmig.cli.watched import Rates, bars
from pcmig_common import phases, units

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

    from pcmig._core import Ledger, Status

# Of a block of one migration, its blank line included.
BLOCK_LINES = 6
TABLE_COLUMNS = 62  # of a table beside the names
SPARKS = "▁▂▃▄▅▆▇█"
GAP = " "


class Row(NamedTuple):
    """A migration as it is shown."""

    name: str
    status: Status
    rates: Sequence[Rates]
    driver: str | None = None  # who drives it, as far as that is known
    tunnel: bool = False
    arriving: bool = False
    waiting: bool = False  # for others of the host: its migrate call is not made yet
    recovery: str | None = None
    shadow: str | None = None
    outcome: str | None = None  # its last words
    good: bool = True  # they are of a guest that needs nobody
    ledger: Ledger | None = None
    decision: str | None = None


def spark(values: Sequence[int], top: int) -> str:
    """One character for each of VALUES, TOP as the highest."""
    if top <= 0:
        return "".join(GAP if value < 0 else SPARKS[0] for value in values)
    last = len(SPARKS) - 1
    return "".join(GAP if value < 0 else SPARKS[min(last, value * last // top)] for value in values)


def everything(
    uri: str, rows: Sequence[Row], now_s: float, clock: str, width: int, height: int, note: str | None = None
) -> Group:
    """All migrations of a host on a screen of WIDTH and HEIGHT."""
    from rich.console import Group
    from rich.text import Text

    waiting = sum(row.waiting for row in rows)
    running = sum(row.outcome is None for row in rows) - waiting
    counted = f"{_count(running)}{f', {waiting} waiting' if waiting else ''}"
    lines: list[RenderableType] = [heading(f"{counted}  {uri}", clock, width), Text("")]
    room = height - 3
    if not rows:
        lines.append(_line(width, ("no migration runs on this host; new ones appear here", "dim")))
    elif len(rows) * BLOCK_LINES <= room:
        spare = (room - len(rows) * BLOCK_LINES) // len(rows)  # lines for more words of each
        for row in rows:
            lines += [*block(row, now_s, width, spare=min(2, spare)), Text("")]
    else:
        lines += table(rows, now_s, width, room)
    return Group(*_fitting(lines, height - 1), foot(note, width))


def _count(running: int) -> str:
    return f"{running} migration{'' if running == 1 else 's'}"


def _fitting(lines: list[RenderableType], height: int) -> list[RenderableType]:
    """No line more than fits; every one of them is one line of the screen."""
    return lines[:height]


def heading(left: str, right: str, width: int) -> Text:
    from rich.text import Text

    room = max(0, width - len(right) - 2)
    left = left if len(left) <= room else f"{left[: room - 1]}…"[:room]
    return Text(f"{left}{right:>{max(0, width - len(left))}}", "reverse", no_wrap=True, overflow="crop")


def foot(note: str | None, width: int) -> Text:
    from rich.text import Text

    words = "q or Ctrl-C leaves; nothing here steers anything" if note is None else note
    return Text(words[:width], "dim" if note is None else "yellow", no_wrap=True, overflow="crop")


def _line(width: int, *parts: tuple[str, str]) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    for words, style in parts:
        text.append(words, style)
    text.truncate(width, overflow="ellipsis")
    return text


def _phase(row: Row) -> tuple[str, str]:
    if row.outcome is not None:
        return ("ended", "dim" if row.good else "bold red")
    if row.arriving:
        return ("arriving", "bold green")
    if row.waiting:
        return ("waiting", "bold yellow")
    phase = row.status["phase"]
    style = "bold green" if phase in phases.MOVED else "bold cyan"
    return (phases.name(phase), "bold red" if phase == "paused" else style)


def _share(row: Row, width: int) -> list[tuple[str, str]]:
    """A bar, the share, and how long it still takes, in WIDTH."""
    status = row.status
    permille = status["progress_permille"]
    endless = status["eta"]["outlook"] == "not-converging"
    share, eta = f" {phases.share_words(status)}", phases.eta_words(status["eta"])
    # Why there is no time to tell is the share's own word already, or the phase's.
    words = "" if eta is None else f"  eta {'unknown' if eta.startswith('unknown') else eta}"
    bar = min(40, max(10, width - len(share) - len(words)))
    done = permille * bar // 1000
    return [
        ("━" * done, "red" if endless else "green"),
        ("━" * (bar - done), "bright_black"),
        (share, "bold red" if endless else "bold"),
        (words, ""),
    ]


def _wrapped(words: str, style: str, width: int, most: int) -> list[Text]:
    """WORDS on as many lines as it takes, but no more than MOST."""
    # Not within a URI or a path.
    lines = textwrap.wrap(words, max(10, width - 2), break_on_hyphens=False) or [""]
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]  # its end is cut off
    return [_line(width, (f"  {line}", style)) for line in lines]


def block(
    row: Row, now_s: float, width: int, words: Sequence[str] | None = None, spare: int = 0
) -> list[Text]:
    """BLOCK_LINES - 1 lines on one migration, and as many as SPARE more if it takes them. WORDS: what there
    is to say of it stands elsewhere."""
    status = row.status
    head = [(row.name, "bold"), ("  ", ""), _phase(row)]
    if status["phase"] in ("precopy", "drain", "switchover") and row.outcome is None and not row.arriving:
        head.append((f" pass {status['passes'] + 1}", ""))
    head.append((f"  {units.clock(status['elapsed_ms'])}", ""))
    if row.driver:
        head.append((f"  by {row.driver}", "dim"))
    if row.tunnel:
        head.append(("  tunnel", "dim"))
    lines = [_line(width, *head)]
    if row.outcome is not None:
        lines += _wrapped(row.outcome, "" if row.good else "red", width, 2 + spare // 2)
        if downtime := phases.downtime_words(status["downtime"]):
            lines.append(_line(width, (f"  downtime {downtime}", "")))
    elif row.arriving:
        lines.append(_line(width, ("  its source has the figures", "dim")))
    elif row.waiting:
        lines.append(_line(width, ("  not begun: its guest runs as ever until its turn comes", "dim")))
    else:
        lines.append(_line(width, ("  ", ""), *_share(row, width - 2)))
        lines.append(_line(width, (f"  {_pairs(row)}", "")))
        lines.append(_sparks(row, now_s, width))
    room = BLOCK_LINES - 1 + spare - len(lines)
    if words is None and room > 0 and (said := _last(row, (width - 2) * (1 + spare))):
        lines += _wrapped(said, "yellow", width, min(room, 1 + spare))
    while len(lines) < BLOCK_LINES - 1:
        lines.append(_line(width, ("", "")))
    return lines


def _words(row: Row) -> list[str]:
    """What there is a word for; what matters most first."""
    waits = row.status["waits_for"]
    parts = [row.recovery, None if waits is None else f"waits for {waits}", row.shadow, row.decision]
    return [part for part in parts if part]


def _last(row: Row, width: int) -> str | None:
    """As many of them as fit."""
    said: str | None = None
    for part in _words(row):
        if said is not None and len(said) + len(part) + 2 > width:
            break
        said = part if said is None else f"{said}; {part}"
    return said


def _pairs(row: Row) -> str:
    """Figures without those that stand on another line."""
    elsewhere = ("rate", "dirty", "eta", *_beside(row))
    found = [(name, value) for name, value in figures(row.status) if name not in elsewhere]
    if row.status["gate"] not in ("none",):
        found.append(("gate", row.status["gate"]))
    order = {"left": 1, "requests": 2, "page": 3, "pace": 4, "queue": 5, "gate": 6, "sent": 7}
    found.sort(key=lambda pair: order.get(pair[0], 8))
    return "  ".join(f"{name} {value}" for name, value in found)


def _beside(row: Row) -> tuple[str, ...]:
    """Figures beside what is sent: nothing is dirtied any more, and there is room."""
    return ("queue", "sent") if row.status["phase"] in phases.MOVED else ()


def _sparks(row: Row, now_s: float, width: int) -> Text:
    """Dirty rate and send rate of the last minute, on one scale."""
    status = row.status
    room = max(8, min(60, (width - 44) // 2))
    dirty, send, top = bars(row.rates, now_s, room)
    dirty_bps = status["dirty_pages_ps"] * units.PAGE_BYTES
    parts = [("  send ", ""), (spark(send, top), "green"), (f" {units.rate(status['send_bps']):<12}", "")]
    if status["phase"] not in phases.MOVED:
        parts += [(" dirty ", ""), (spark(dirty, top), "red"), (f" {units.rate(dirty_bps)}", "")]
    parts += [(f"  {name} {value}", "") for name, value in figures(status) if name in _beside(row)]
    return _line(width, *parts)


def shortened(name: str, width: int) -> str:
    """NAME in WIDTH: guests often differ by the end of theirs."""
    if len(name) <= width:
        return name
    head = max(0, width - 1) // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def table(rows: Sequence[Row], now_s: float, width: int, room: int) -> list[RenderableType]:
    """One line for each, as many as fit in ROOM; those that run first, those that have ended last."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i].outcome is not None, rows[i].waiting, i))
    shown = [rows[i] for i in order]
    left_out = max(0, len(shown) - (room - 1)) + (1 if len(shown) > room - 1 else 0)
    if left_out:
        shown = shown[: len(rows) - left_out]
    # At 80 columns those of Nova's guests fit: instance-0000002a.
    names = max(5, min(24, width - TABLE_COLUMNS, max(len(row.name) for row in rows)))
    sparks = max(0, min(20, (width - names - TABLE_COLUMNS) // 2))
    head = f"{'guest':<{names}} {'phase':<11} {'pass':>4} {'share':>6} {'time to go':<13} "
    head += f"{'send':>11} {'dirty':>11}"
    lines: list[RenderableType] = [_line(width, (head, "bold"))]
    for row in shown:
        status = row.status
        words, style = _phase(row)
        moved = status["phase"] in phases.MOVED
        parts = [(f"{shortened(row.name, names):<{names}} ", ""), (f"{words:<11.11} ", style)]
        if row.outcome is not None:
            parts.append((row.outcome, "" if row.good else "red"))
        elif row.arriving:
            parts.append(("its source has the figures", "dim"))
        elif row.waiting:
            parts.append((f"not begun: waits for {status['waits_for'] or 'its turn'}", "yellow"))
        else:
            endless = status["eta"]["outlook"] == "not-converging"
            share = "no end" if endless else f"{status['progress_permille'] // 10}%"
            eta = phases.eta_words(status["eta"]) or ""
            time_to_go = "unknown" if eta.startswith("unknown") else eta
            if status["eta"]["outlook"] == "waits" and status["waits_for"]:
                time_to_go = f"after {status['waits_for']}"
                time_to_go = time_to_go if len(time_to_go) <= 13 else f"{time_to_go[:12]}…"
            parts += [
                (f"{'' if moved else status['passes'] + 1:>4} ", ""),
                (f"{share:>6} ", "bold red" if endless else "bold"),
                (f"{time_to_go:<13.13} ", "yellow" if time_to_go.startswith("after ") else ""),
                (f"{units.rate(status['send_bps']):>11} ", ""),
                (f"{'' if moved else units.rate(status['dirty_pages_ps'] * units.PAGE_BYTES):>11}", ""),
            ]
            if sparks >= 5:
                dirty, send, top = bars(row.rates, now_s, sparks)
                parts += [(" ", ""), (spark(send, top), "green"), (" ", ""), (spark(dirty, top), "red")]
        lines.append(_line(width, *parts))
    if left_out:
        lines.append(_line(width, (f"... and {left_out} more: a higher window shows them", "dim")))
    return lines


def one(
    uri: str, row: Row, now_s: float, clock: str, width: int, height: int, notes: Sequence[str] = ()
) -> Group:
    """One migration in detail."""
    from rich.console import Group

    lines: list[RenderableType] = [heading(f"{row.name} from {uri}", clock, width), _line(width, ("", ""))]
    words = _words(row)
    lines += block(row, now_s, width, words)[: BLOCK_LINES - 2]
    for said in words:
        lines += _wrapped(said, "yellow", width, 3)
    # Who looks after it stands above already.
    told = [note for note in notes if row.recovery is None or not note.startswith(row.recovery)]
    below = [line for note in told if note not in words for line in _wrapped(note, "dim", width, 2)]
    ledger = row.ledger
    if ledger is not None:
        lines += [_line(width, ("", "")), *_phases(ledger, width)]
        room = height - len(lines) - len(below) - 3
        if passes := _passes(ledger, width, room - 1):
            lines += [_line(width, ("", "")), *passes]
    lines += [_line(width, ("", "")), *below] if below else []
    return Group(*_fitting(lines, height - 1), foot(None, width))


def _phases(ledger: Ledger, width: int) -> list[Text]:
    heads = f"  {'phase':<12} {'took':>9} {'sent':>10} {'left':>10} {'requests':>9}"
    lines = [_line(width, (heads, "bold"))]
    for found in [row for row in ledger["phases"] if row["phase"] != "finished"][-6:]:
        lines.append(
            _line(
                width,
                (
                    f"  {phases.name(found['phase']):<12} {found['duration_us'] / 1e6:>7.1f} s "
                    f"{units.size(found['wire_bytes']):>10} {units.size(found['remaining_end_bytes']):>10} "
                    f"{found['requests'] or '':>9}",
                    "",
                ),
            )
        )
    return lines


def _passes(ledger: Ledger, width: int, room: int) -> list[Text]:
    passes: list[Any] = ledger["passes"][-max(0, room - 1) :] if room > 1 else []
    if not passes:
        return []
    heads = f"  {'pass':<12} {'took':>9} {'sent':>10} {'left':>10} {'dirtied':>14}"
    lines = [_line(width, (heads, "bold"))]
    for found in passes:
        dirtied = units.rate(found["dirty_pages_ps"] * units.PAGE_BYTES)
        lines.append(
            _line(
                width,
                (
                    f"  {found['number']:<12} {found['duration_us'] / 1e6:>7.1f} s "
                    f"{units.size(found['wire_bytes']):>10} {units.size(found['remaining_end_bytes']):>10} "
                    f"{dirtied:>14}",
                    "",
                ),
            )
        )
    return lines
