# SPDX-License-Identifier: Apache-2.0
"""The screens of `pcmig watch`: what a person sees in windows of several sizes."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pcmig.cli import screen
from pcmig.cli.base import make_console
from pcmig.cli.watched import Rates, bars, shifted
from pcmig.shadow import Shadow
from tests.unit import traces
from tests.unit.cli import fake_core as fake

MIB = 1 << 20
SIZES = [(80, 24), (160, 50), (40, 12), (200, 10), (20, 5)]
RATES = [Rates(100.0 - i, 40 * MIB if i % 2 else 20 * MIB, 11 * MIB) for i in range(50)]


def row(name: str = "web1", changes: dict[str, Any] | None = None, **more: Any) -> screen.Row:
    status: Any = {**fake.STATUS, **fake.PRECOPY, "elapsed_ms": 42_000, **(changes or {})}
    return screen.Row(name=name, status=status, rates=more.pop("rates", RATES), **more)


ENDLESS = row(changes={"eta": {"outlook": "not-converging", "least_ms": 1, "most_ms": None}, "passes": 6})
MOVED = row("db1", fake.POSTCOPY, driver="pcmig (4711)", tunnel=True)
WAITS = row("g3", {"waits_for": "db1", "gate": "closed"})
SHADOW = row("g4", shadow="pcmig would have switched at 12.4 s: pre-copy does not converge")
DONE = row("g5", {"downtime": {"ms": 61, "source": "events"}}, outcome="done: g5 has left qemu:///system")
LOST = row("g6", outcome="g6 is gone from qemu:///system in the middle of pre-copy", good=False)
COMES = row("g7", arriving=True)
BOUND = row("g8", {"eta": {"outlook": "waits", "least_ms": None, "most_ms": None}, "waits_for": "db1"})
UNBEGUN = row("g9", {"phase": "setup", "turn": "waiting", "waits_for": "db1"}, waiting=True)
ALL = [ENDLESS, MOVED, WAITS, SHADOW, DONE, LOST, COMES, BOUND, UNBEGUN]


def drawn(picture: Any, width: int, height: int) -> list[str]:
    console = make_console(io.StringIO())
    console.width, console.height = width, height
    with console.capture() as captured:
        console.print(picture)
    lines = captured.get().splitlines()
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    return lines


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("count", [0, 1, 3, 7, 70])
def test_everything_fits_its_window(width: int, height: int, count: int) -> None:
    rows = [ALL[i % len(ALL)] for i in range(count)]
    lines = drawn(screen.everything("qemu:///system", rows, 100.0, "12:00:00", width, height), width, height)
    assert "12:00:00" in lines[0]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_one_fits_its_window(width: int, height: int) -> None:
    seen = Shadow()
    seen.feed(traces.inputs())
    one = MOVED._replace(ledger=seen.ledger())
    picture = screen.one("qemu:///system", one, 100.0, "12:00:00", width, height, ["a note"])
    lines = drawn(picture, width, height)
    if height >= 24:
        text = "\n".join(lines)
        assert "a note" in text and "post-copy" in text and "requests 1330 (412/s)" in text
        assert "pass " in text and "dirtied" in text


def text_of(*rows: screen.Row, width: int = 80, height: int = 24) -> str:
    picture = screen.everything("qemu:///system", rows, 100.0, "12:00:00", width, height)
    return "\n".join(drawn(picture, width, height))


def test_a_block_has_what_matters() -> None:
    text = text_of(ENDLESS)
    assert "1 migration" in text.splitlines()[0]
    for words in (
        "web1  pre-copy pass 7  0:42",
        "does not converge",
        "does not converge  eta unknown",
        "send ",
        " dirty ",
        "q or Ctrl-C leaves",
    ):
        assert words in text, text
    assert "%" not in text, "no share of what has no end"
    assert any(each in text for each in screen.SPARKS)


def test_no_figure_is_cut_off_in_a_window_of_80_columns() -> None:
    changes = {**fake.POSTCOPY, "postcopy_requests": 123456, "requests_ps": 23456, "pace_mib": 1200}
    changes |= {"memory_processed_bytes": 123 << 30, "memory_remaining_bytes": 101 << 30}
    changes |= {"latency": {"source": "estimated", "mean_us": 690, "now_us": 690}}
    text = text_of(row("db1", changes, rates=[]))
    for words in ("left 101 GiB", "requests 123456 (23456/s)", "page ~0.69 ms", "pace 1200 MiB/s"):
        assert words in text, text
    assert "queue 64 KiB" in text and "sent 123 GiB" in text and "eta 0:09-0:11" in text
    assert "…" not in text
    text = text_of(row("web1", {"eta": {"outlook": "least", "least_ms": 4_000_000, "most_ms": None}}))
    assert "eta at least 1:06:40" in text and "…" not in text


def test_what_matters_most_is_not_cut_off_by_what_matters_less() -> None:
    why = "post-copy interrupted at 89 %, paused on request until it is resumed"
    broken = row("g1", fake.BROKEN, recovery=why, shadow="it was switched at 8.6 s, before pcmig would have")
    text = text_of(broken)
    assert why in text and "…" not in text
    note = f"{why} (process 9702 looks after it)"
    picture = screen.one("qemu:///system", broken, 100.0, "12:00:00", 80, 24, [note])
    text = "\n".join(drawn(picture, 80, 24))
    assert text.count(why) == 1 and "it was switched at 8.6 s, before pcmig would have" in text
    gone = row(
        "g1", outcome="done: g1 has left qemu+unix:///system?socket=/run/libvirt-of-another-kind/libvirt-sock"
    )
    assert "libvirt-sock" in text_of(gone)
    uri = "qemu+ssh://root@a-host-with-a-long-name.example.org:2222/system?keyfile=/root/key"
    picture = screen.everything(uri, [], 100.0, "12:00:00", 80, 24)
    assert "…  12:00:00" in drawn(picture, 80, 24)[0]


def test_what_others_tell_stands_beside_it() -> None:
    assert "db1  post-copy  0:42  by pcmig (4711)  tunnel" in text_of(MOVED)
    assert "waits for db1" in text_of(WAITS) and "gate closed" in text_of(WAITS)
    assert "pcmig would have switched at 12.4 s" in text_of(SHADOW)
    assert "downtime 61 ms (as both hosts' events tell)" in text_of(DONE)
    assert "arriving" in text_of(COMES) and "its source has the figures" in text_of(COMES)


def test_many_become_a_table_and_say_how_many_are_left_out() -> None:
    text = text_of(*ALL)
    assert "guest" in text and "time to go" in text and "no end" in text
    rows = [row(f"g{i}") for i in range(70)]
    lines = text_of(*rows).splitlines()
    shown = sum(line.startswith("g") and not line.startswith("guest") for line in lines)
    assert f"... and {70 - shown} more" in "\n".join(lines)


def test_those_that_run_come_first_in_the_table() -> None:
    lines = text_of(*[DONE._replace(name=f"old{i}") for i in range(40)], row("new")).splitlines()
    assert next(line for line in lines if line.startswith(("old", "new"))).startswith("new")


def test_names_are_no_markup() -> None:
    assert "[b]x[/b]" in text_of(row("[b]x[/b]"))


def test_a_sparkline_has_one_scale() -> None:
    assert screen.spark([-1, 0, 50, 100], 100) == " ▁▄█"
    assert screen.spark([0, -1], 0) == "▁ "
    dirty, send, top = bars([Rates(99.0, 10, 4), Rates(99.5, 20, 2), Rates(30.0, 99, 99)], 100.0, 4)
    assert (dirty, send, top) == ([-1, -1, -1, 20], [-1, -1, -1, 4], 20)


def test_lines_of_another_clock() -> None:
    assert shifted("1000 event dst-started", 500) == "1500 event dst-started"
    assert shifted("1000 event dst-started", -5000) == "0 event dst-started"


def test_who_waits_for_whom_in_a_drain() -> None:
    """Also those of which libvirt knows nothing yet; and no time that only those know who go first."""
    rows = [MOVED, BOUND, UNBEGUN]
    lines = drawn(screen.everything("qemu:///system", rows, 100.0, "12:00:00", 80, 24), 80, 24)
    assert lines[0].startswith("2 migrations, 1 waiting  qemu:///system")
    (place,) = [i for i, line in enumerate(lines) if line.startswith("g9  waiting")]
    assert "its guest runs as ever" in lines[place + 1] and "waits for db1" in lines[place + 2]
    assert not any("eta at least" in line for line in lines)
    lines = drawn(screen.everything("qemu:///system", rows * 8, 100.0, "12:00:00", 80, 24), 80, 24)
    assert any(line.startswith("g9") and "not begun: waits for db1" in line for line in lines)
    assert any(line.startswith("g8") and "after db1" in line for line in lines)


def test_what_there_is_to_say_takes_the_lines_that_there_are() -> None:
    long = "pcmig would have switched at 9.2 s: pre-copy converges, but would take too long: 966 pages again"
    told = row("g4", shadow=long)
    lines = drawn(screen.everything("qemu:///system", [told], 100.0, "12:00:00", 80, 24), 80, 24)
    assert long in " ".join(line.strip() for line in lines)
    path = row(
        "g5", outcome="done: g5 has left qemu+unix:///system?socket=/run/pcmig-bed/c0d7f4/a/run/libvirt"
    )
    lines = drawn(screen.everything("qemu:///system", [path], 100.0, "12:00:00", 80, 24), 80, 24)
    assert any("pcmig-bed" in line for line in lines), "no path is broken within a word"


def test_guests_are_told_apart_by_the_end_of_their_names() -> None:
    """As Nova calls them."""
    names = [f"instance-{number:08x}" for number in range(12)]
    rows = [row(name) for name in names]
    lines = drawn(screen.everything("qemu:///system", rows, 100.0, "12:00:00", 80, 24), 80, 24)
    assert [line.split()[0] for line in lines if line.startswith("instance-")] == names
    assert screen.shortened("a-guest-with-a-long-name-1", 11) == "a-gue…ame-1"
    assert [len(screen.shortened(names[0], width)) for width in range(1, 20)] == [*range(1, 18), 17, 17]
