# SPDX-License-Identifier: Apache-2.0
"""What is shown while a migration runs: a live block on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pcmig import latency
from pcmig.cli.base import is_terminal, make_console
from pcmig_common import phases, units

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from pcmig._core import Decision, Status

PLAIN_INTERVAL_S = 2.0
LIVE_INTERVAL_S = 0.1


class Display(Protocol):
    """Where news of a migration go. No method raises: a display that breaks must not end a migration."""

    interval_ms: int | None  # how often the display wants to be updated without news; None = never

    def update(self, status: Status) -> None: ...
    def decision(self, decision: Decision) -> None: ...
    def note(self, text: str) -> None: ...
    def drop(self) -> None:
        """Nothing is shown from here on."""

    def close(self) -> None:
        """Leaves the terminal clean; what was printed above stays."""


def make_display(stream: TextIO, title: str, *, quiet: bool, progress: bool) -> Display:
    """The display that suits STREAM. QUIET: none; without PROGRESS: decisions and notes only."""
    if quiet:
        return SafeDisplay(None)
    if progress and is_terminal(stream):
        return SafeDisplay(LiveDisplay(make_console(stream), title))
    return SafeDisplay(PlainDisplay(stream, progress=progress))


class SafeDisplay:
    """Wraps a display: at its first error it is dropped, and the migration goes on unseen."""

    def __init__(self, display: Display | None) -> None:
        self._display = display
        self.interval_ms = display.interval_ms if display else None

    def update(self, status: Status) -> None:
        self._call("update", status)

    def decision(self, decision: Decision) -> None:
        self._call("decision", decision)

    def note(self, text: str) -> None:
        self._call("note", text)

    def drop(self) -> None:
        self._display = None
        self.interval_ms = None

    def close(self) -> None:
        self._call("close")

    def _call(self, method: str, *args: Any) -> None:
        if self._display is None:
            return
        try:
            getattr(self._display, method)(*args)
        except Exception:  # a reader that went away, a terminal that is gone, a figure that cannot be shown
            self.drop()


class PlainDisplay:
    """Lines for logs and pipes: one at each change of phase or of whom it waits for, and each decision,
    otherwise one every two seconds."""

    def __init__(self, stream: TextIO, *, progress: bool = True) -> None:
        self.interval_ms: int | None = int(PLAIN_INTERVAL_S * 1000) if progress else None
        self._stream = stream
        self._progress = progress
        self._shown: tuple[str, str | None] | None = None
        self._printed_s = float("-inf")
        self._elapsed_ms = 0

    def update(self, status: Status) -> None:
        self._elapsed_ms = status["elapsed_ms"]
        now_s = time.monotonic()
        shown = (status["phase"], status["waits_for"])
        if not self._progress or (shown == self._shown and now_s - self._printed_s < PLAIN_INTERVAL_S):
            return
        self._shown = shown
        self._printed_s = now_s
        self._print(plain_line(status))

    def decision(self, decision: Decision) -> None:
        self._print(f"{units.seconds(decision['t_us'] // 1000)} {decision['action']}: {decision['text']}")

    def note(self, text: str) -> None:
        self._print(f"{units.seconds(self._elapsed_ms)} {text}")

    def drop(self) -> None: ...
    def close(self) -> None: ...

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class LiveDisplay:
    """A block at the bottom of a terminal that is drawn anew; decisions and notes scroll above it."""

    def __init__(self, console: Console, title: str) -> None:
        self.interval_ms: int | None = 500  # so that the clock runs on when there are no news
        self._console = console
        self._title = title
        self._live: Live | None = None
        self._drawn_s = float("-inf")
        self._phase: str | None = None

    def update(self, status: Status) -> None:
        now_s = time.monotonic()
        if status["phase"] == self._phase and now_s - self._drawn_s < LIVE_INTERVAL_S:
            return
        self._phase = status["phase"]
        self._drawn_s = now_s
        if self._live is None:
            from rich.live import Live

            self._live = Live(
                console=self._console,
                auto_refresh=False,  # no thread: the loop wakes up often enough
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(live_block(self._title, status), refresh=True)

    def decision(self, decision: Decision) -> None:
        from rich.text import Text

        self._console.print(
            Text.assemble(
                (f"{units.seconds(decision['t_us'] // 1000):>7} ", "dim"),
                (f"{decision['action']} ", "bold cyan"),
                decision["text"],
            )
        )

    def note(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, "yellow"))

    def drop(self) -> None: ...

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def figures(status: Status) -> list[tuple[str, str]]:
    """(name, value) pairs of what is known and says something in this phase, in the order they are shown."""
    if not status["memory_total_bytes"]:
        return []  # a host without statistics: a destination in post-copy
    rows: list[tuple[str, str | None]] = [
        ("sent", units.size(status["memory_processed_bytes"])),
        ("left", units.size(status["memory_remaining_bytes"])),
        ("rate", units.rate(status["send_bps"])),
    ]
    if status["disk_total_bytes"]:
        rows.insert(2, ("disk left", units.size(status["disk_remaining_bytes"])))
    if status["phase"] in phases.MOVED:
        rows += [
            ("requests", f"{status['postcopy_requests']} ({status['requests_ps']}/s)"),
            ("page", latency.now_words(status["latency"]) if status["phase"] == "postcopy" else None),
            ("pace", pace(status["pace_mib"])),
        ]
    else:
        rows.append(("dirty", units.rate(status["dirty_pages_ps"] * units.PAGE_BYTES)))
    rows += [
        ("queue", None if status["queue_bytes"] is None else units.size(status["queue_bytes"])),
        ("eta", phases.eta_words(status["eta"])),
    ]
    return [(name, value) for name, value in rows if value is not None]


def pace(value_mib: int | None) -> str | None:
    """The post-copy bandwidth in force."""
    if value_mib is None:
        return None
    return f"{value_mib} MiB/s" if value_mib else "unlimited"


def waits_for(status: Status) -> str | None:
    """Which of the host's other migrations goes first: "waits for g2 (draining)"."""
    return None if status["waits_for"] is None else f"waits for {status['waits_for']}"


def plain_line(status: Status) -> str:
    """`12.3s pre-copy pass 1 22% sent 120 MiB left 130 MiB rate 11.8 MiB/s dirty 6.1 MiB/s eta 0:11-0:38`."""
    phase = status["phase"]
    words = [units.seconds(status["elapsed_ms"]), phases.name(phase)]
    if phase != "setup" and status["memory_total_bytes"]:
        if phase in ("precopy", "drain", "switchover"):
            words.append(f"pass {status['passes'] + 1}")
        words.append(phases.share_words(status))
        words += [f"{name} {value}" for name, value in figures(status)]
    if waiting := waits_for(status):
        words.append(waiting)
    return " ".join(words)


def live_block(title: str, status: Status) -> RenderableType:
    """The block of a terminal: title, phase and bar, figures, the latest decision."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    phase = status["phase"]
    moved = phase in phases.MOVED
    permille = status["progress_permille"]
    head = Text.assemble(
        (title, "bold"),
        "  ",
        (phases.name(phase), "bold green" if moved else "bold cyan"),
        "  ",
        units.clock(status["elapsed_ms"]),
        no_wrap=True,
        overflow="ellipsis",
    )
    lines: list[RenderableType] = [head]
    if phase != "setup" and status["memory_total_bytes"]:
        label = phases.share_words(status)
        if not moved:
            label = f"{label}  pass {status['passes'] + 1}"
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1000, completed=permille, width=40), label)
        # No line break within a pair.
        pairs = (f"{name} {value}".replace(" ", "\N{NO-BREAK SPACE}") for name, value in figures(status))
        lines += [bar, Text("  ".join(pairs), overflow="fold")]
    if waiting := waits_for(status):
        lines.append(Text(waiting, "yellow", no_wrap=True, overflow="ellipsis"))
    if status["decision"] is not None:
        lines.append(Text(status["decision"]["text"], "dim", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)
