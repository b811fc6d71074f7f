# SPDX-License-Identifier: Apache-2.0
"""What the displays print, and that none of them can end a migration."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pcmig.cli import progress
from pcmig.cli.base import make_console
from tests.unit.cli import fake_core as fake


def status(**changes: Any) -> Any:
    return {**fake.STATUS, **changes}


def test_setup_has_no_figures_yet() -> None:
    assert progress.plain_line(status(elapsed_ms=100)) == "0.1s setting up"


def test_disks_are_shown_when_there_are_any() -> None:
    line = progress.plain_line(status(**fake.PRECOPY, disk_total_bytes=1 << 30, disk_remaining_bytes=1 << 29))
    assert "left 130 MiB disk left 512 MiB rate" in line


def test_pace_without_bound() -> None:
    assert "pace unlimited" in progress.plain_line(status(**{**fake.POSTCOPY, "pace_mib": 0}))
    assert "pace" not in progress.plain_line(status(**{**fake.POSTCOPY, "pace_mib": None}))


def test_plain_lines_come_at_phase_changes_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("pcmig.cli.progress.time.monotonic", lambda: now_s)
    out = io.StringIO()
    display = progress.PlainDisplay(out)
    for _ in range(30):  # 6 s of pre-copy, then 1 s of post-copy
        display.update(status(**fake.PRECOPY))
        now_s += 0.2
    for _ in range(5):
        display.update(status(**fake.POSTCOPY))
        now_s += 0.2
    lines = out.getvalue().splitlines()
    assert [("post-copy" in line) for line in lines] == [False] * 3 + [True]


def test_a_display_that_breaks_is_dropped() -> None:
    class Broken:
        interval_ms = 5
        calls = 0

        def update(self, _: Any) -> None:
            type(self).calls += 1
            raise OSError("gone")

    safe = progress.SafeDisplay(Broken())  # type: ignore[arg-type]
    safe.update(status())
    safe.update(status())
    safe.close()
    assert (Broken.calls, safe.interval_ms) == (1, None)


def test_figures_that_are_missing_drop_the_display_only() -> None:
    safe = progress.SafeDisplay(progress.PlainDisplay(io.StringIO()))
    safe.update({"phase": "precopy"})  # type: ignore[typeddict-item]
    safe.note("still here")


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("changes", [{}, fake.PRECOPY, fake.POSTCOPY, fake.COMPLETED])
def test_live_block_fits_any_width(width: int, changes: dict[str, Any]) -> None:
    console = make_console(io.StringIO())
    console.width = width
    with console.capture() as captured:
        console.print(progress.live_block("[b]g1[/b] to qemu+tcp://b/system", status(**changes)))
    lines = captured.get().splitlines()
    assert (len(lines) == 1) if not changes else (3 <= len(lines) <= 16)
    assert "[b]g1" in lines[0], "names are not markup"
    assert max(map(len, lines)) <= width


def test_quiet_is_silent() -> None:
    out = io.StringIO()
    display = progress.make_display(out, "t", quiet=True, progress=True)
    display.update(status())
    display.note("x")
    display.decision(fake.DECISION)  # type: ignore[arg-type]
    assert out.getvalue() == "" and display.interval_ms is None


def test_a_host_without_statistics_shows_the_phase_only() -> None:
    line = progress.plain_line(status(phase="postcopy", memory_total_bytes=0, elapsed_ms=2000))
    assert line == "2.0s post-copy"
