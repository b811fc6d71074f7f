# SPDX-License-Identifier: Apache-2.0
"""`pcmig watch` of a whole host, on answers of libvirt that are given here."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pcmig.cli import job, main, watch, watch_all, watched
from pcmig.journal import Entry, Journal
from tests.unit.cli import fake_core as fake
from tests.unit.cli.conftest import Start
from tests.unit.cli.fake_core import job as answer
from tests.unit.patience import wait_for

TOTAL = 256 * fake.MIB
FOUND = {"uuid": fake.UUID, "name": "g1", "half": "running", "job_active": True}
COMES = {**FOUND, "half": "migrating", "job_active": False}
PRE = answer(
    "precopy", memory_total_bytes=TOTAL, memory_remaining_bytes=TOTAL // 2, normal_pages=TOTAL // 8192
)
MOVED = answer("postcopy", "postcopy", memory_total_bytes=TOTAL, memory_remaining_bytes=TOTAL // 4)
GONE = fake.NoDomainError("Domain not found")


class Signals:
    """Ctrl-C once ENOUGH objects were printed, or nothing more can come."""

    def __init__(self, enough: Any) -> None:
        self._enough = enough

    def take(self) -> list[signal.Signals]:
        return [signal.SIGINT] if self._enough() else []


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == watch_all.THREADS]


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (job, watch, watch_all, watched):
        monkeypatch.setattr(module, "_core", fake)
    monkeypatch.setitem(main.sys.modules, "pcmig._core", fake)  # type: ignore[attr-defined]
    monkeypatch.setattr(watch_all, "SCAN_S", 0.01)
    monkeypatch.setattr(watch_all, "DRAW_S", 0.01)
    monkeypatch.setattr(watched, "POLL_S", 0.0)
    monkeypatch.setattr(watch, "CONFIRM_S", 0.0)
    fake.asked.clear()
    yield
    wait_for(lambda: not threads(), "the end of whoever looks: the next test has other answers")
    fake.migrating[:] = []
    fake.steering[:] = []


def watched_to_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> list[str]:
    """What `pcmig watch` prints until one migration has ended."""
    printed: list[str] = []
    monkeypatch.setattr(watch_all, "_print", printed.append)
    ends = ("done: ", "given up ", "was not seen", '"ended": true', "did not arrive", "arrived: ")
    signals = Signals(lambda: any(end in line for line in printed for end in ends))

    class Pipe:
        def __init__(self, *_: Any) -> None: ...
        def __enter__(self) -> Signals:
            return signals

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(watch, "SignalPipe", Pipe)
    assert main.main(["watch", *words]) == 0
    assert "Traceback" not in "".join(capsys.readouterr())
    return printed


def test_the_stream_has_one_object_for_each_look(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.migrating[:] = [FOUND]
    fake.steering[:] = [
        {
            "name": "g1",
            "phase": "draining",
            "turn": "held",
            "waits_for": "g2",
            "queue_bytes": 5,
            "pace_mib": None,
            "gate": "closed",
        }
    ]
    fake.jobs[:] = [PRE, PRE, MOVED, GONE]
    found = [json.loads(line) for line in watched_to_the_end(capsys, monkeypatch, "--json", "--shadow")]
    assert {(each["schema"], each["command"], each["uuid"], each["name"]) for each in found} == {
        (1, "watch", fake.UUID, "g1")
    }
    first, last = found[0], found[-1]
    assert (first["phase"], first["waits_for"], first["gate"], first["queue_bytes"]) == (
        "drain",
        "g2",
        "closed",
        5,
    )
    assert first["role"] == "source" and not first["ended"] and first["ledger"] is None
    assert first["shadow"]["would"] is None and first["shadow"]["policy"] == "auto"
    shares = [each["progress_permille"] for each in found]
    assert shares == sorted(shares) and shares[0] == 250
    assert (last["ended"], last["exit_code"]) == (True, 0) and last["words"].startswith("done: g1 has left")
    assert last["ledger"]["totals"]["guest_pages"] == TOTAL // 4096
    assert last["shadow"]["switched_at_ms"] is not None


def test_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.migrating[:] = [FOUND]
    fake.jobs[:] = [PRE, MOVED, GONE]
    lines = watched_to_the_end(capsys, monkeypatch)
    assert lines[0].startswith("g1: ") and "pre-copy pass 1 25%" in lines[0]
    assert any("post-copy" in line for line in lines)
    assert lines[-1].startswith("g1: done: g1 has left qemu:///system")


@pytest.mark.parametrize(
    ("half", "words"),
    [
        (answer("none"), "arrived: g1 is running at qemu:///system"),
        (GONE, "g1 did not arrive at qemu:///system: it is not running there"),
    ],
)
def test_a_guest_that_comes_in(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, half: Any, words: str
) -> None:
    """Nobody asks for its statistics here, which may block."""
    fake.migrating[:] = [COMES]
    fake.jobs[:] = [half]
    shown = 0

    def migrations(_uri: str) -> list[dict[str, Any]]:
        nonlocal shown
        shown += 1
        return [COMES] if shown < 3 else []

    monkeypatch.setattr(fake, "migrations", migrations)
    lines = watched_to_the_end(capsys, monkeypatch, "--shadow")
    assert lines[0] == "g1: arriving (paused for a migration)"
    assert words in lines[-1]


def turn(turn: str, waits_for: str | None = None) -> dict[str, Any]:
    return {
        "name": "g1",
        "phase": "waiting",
        "turn": turn,
        "waits_for": waits_for,
        "queue_bytes": None,
        "pace_mib": None,
        "gate": "none",
    }


def begun(book: Journal, started: str = "2026-11-29T20:00:00.000Z") -> None:
    """A migration of g1, by this process."""
    entry = Entry(
        uuid=fake.UUID,
        name="g1",
        source_uri="qemu:///system",
        dest_uri=fake.DEST,
        engine={},
        started=started,
    )
    book.claim(entry, entry.started)


def test_one_that_waits_for_others_is_seen_before_libvirt_knows_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, book: Journal
) -> None:
    """And for whom; from this host, and as long as it does."""
    begun(book)
    scans: list[dict[str, Any]] = [
        turn("waiting", "g2 (in pre-copy)"),
        turn("waiting", "g2 (in pre-copy)"),
        turn("waiting", "g3 (just switched)"),
    ]

    def migrations(_uri: str) -> list[dict[str, Any]]:
        waits = bool(scans)
        fake.steering[:] = [scans.pop(0) if waits else turn("free")]
        return [] if waits else [FOUND]

    monkeypatch.setattr(fake, "migrations", migrations)
    fake.jobs[:] = [PRE, MOVED, GONE]
    found = [json.loads(line) for line in watched_to_the_end(capsys, monkeypatch, "--json")]
    told = [(each["phase"], each["turn"], each["waits_for"]) for each in found]
    assert told[:3] == [
        ("setup", "waiting", "g2 (in pre-copy)"),
        ("setup", "waiting", "g2 (in pre-copy)"),
        ("setup", "waiting", "g3 (just switched)"),
    ]
    assert {each["turn"] for each in found[3:]} <= {"free"} and found[-1]["ended"]
    assert found[0]["role"] == "source" and found[0]["eta_words"] == "unknown: another guest goes first"
    assert found[0]["elapsed_ms"] > 0
    figures = ("memory_total_bytes", "memory_remaining_bytes", "send_bps", "dirty_bps", "progress_permille")
    assert {found[0][each] for each in figures} == {None}
    assert found[3]["memory_total_bytes"] == TOTAL and found[3]["progress_permille"] is not None
    assert watch_all.waiting("qemu:///session") == {}


def given_up(monkeypatch: pytest.MonkeyPatch, book: Journal, scans: list[dict[str, Any]]) -> None:
    """g1 waits as SCANS have it; then its process lets go of it."""
    left = list(scans)

    def migrations(_uri: str) -> list[dict[str, Any]]:
        fake.steering[:] = [left.pop(0)] if left else []
        if not fake.steering:
            book.remove(fake.UUID)
        return []

    monkeypatch.setattr(fake, "migrations", migrations)


@pytest.mark.parametrize(
    ("half", "words"),
    [
        (answer("none"), "given up before it began: g1 is running at qemu:///system"),
        (GONE, "its migration was not seen: g1 is not running there at qemu:///system"),
    ],
)
def test_one_that_waits_and_is_given_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, book: Journal, half: Any, words: str
) -> None:
    """Not while its process is about to make the call: libvirt does not know of it then, either."""
    begun(book)
    given_up(monkeypatch, book, [turn("waiting", "g2"), turn("free"), turn("waiting", "g2")])
    fake.jobs[:] = [half]
    found = [json.loads(line) for line in watched_to_the_end(capsys, monkeypatch, "--json", "--shadow")]
    assert [each["ended"] for each in found] == [False, False, True]
    assert (found[-1]["phase"], found[-1]["words"], found[-1]["exit_code"]) == ("finished", words, 1)
    assert found[-1]["memory_total_bytes"] is None and found[-1]["ledger"] is None


def test_lines_of_one_that_waits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, book: Journal
) -> None:
    """Whom it waits for is told at once, and its end; a journal may have a time without a zone."""
    begun(book, "2026-11-29T20:00:00.000")
    given_up(monkeypatch, book, [turn("waiting", who) for who in ("g2", "g2", "g3")])
    monkeypatch.setattr(watch_all, "LINE_S", float("inf"))
    fake.jobs[:] = [answer("none")]
    lines = watched_to_the_end(capsys, monkeypatch, "--shadow")
    assert len(lines) == 3
    assert lines[0].endswith("waits for g2") and lines[1].endswith("waits for g3")
    assert lines[2].startswith("g1: given up before it began: ")


def test_lines_of_one_that_waits_come_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, book: Journal
) -> None:
    begun(book)
    given_up(monkeypatch, book, [turn("waiting", "g2")] * 3)
    monkeypatch.setattr(watch_all, "LINE_S", 0.0)
    fake.jobs[:] = [answer("none")]
    lines = watched_to_the_end(capsys, monkeypatch)
    assert len(lines) == 4 and all(line.endswith("waits for g2") for line in lines[:3])


def test_one_guest_that_waits_is_told_to(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    begun(book)
    fake.steering[:] = [turn("waiting", "g2 (in pre-copy)")]
    fake.jobs[:] = [answer("none")]
    assert main.main(["watch", "g1"]) == 1
    assert "the migration of g1 has not begun: it waits for g2 (in pre-copy)" in capsys.readouterr().err
    fake.steering[:] = []
    fake.jobs[:] = [answer("none")]
    assert main.main(["watch", "g1"]) == 1
    assert "no migration of g1 is under way" in capsys.readouterr().err


def test_a_host_that_cannot_be_asked_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    fake.migrating[:] = [fake.ConnectError("refused")]
    assert main.main(["watch", "-c", "qemu+tcp://nowhere/system"]) == 1
    said = capsys.readouterr().err
    assert "qemu+tcp://nowhere/system cannot be asked for its migrations: refused" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dest", fake.DEST), "--dest is of one guest"),
        (("--policy", "never"), "--policy and --set say by what --shadow judges"),
        (("--shadow", "--policy", "sometimes"), "sometimes"),
        (("--shadow", "--set", "colour=3"), "colour"),
    ],
)
def test_what_makes_no_sense(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    assert main.main(["watch", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("found", [FOUND, COMES])
def test_nothing_piles_up_behind_the_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, found: Any
) -> None:
    """It shows how each migration is now, and takes no news."""
    fake.migrating[:] = [found]
    fake.jobs[:] = [PRE]
    hosts: list[watch_all.Host] = []

    def on_screen(host: watch_all.Host, *_: Any) -> None:
        hosts.append(host)
        wait_for(lambda: [row for row in host.rows() if row.moment is not None], "it is seen")

    monkeypatch.setattr(watch_all, "is_terminal", lambda _: True)
    monkeypatch.setattr(watch_all, "_on_screen", on_screen)
    assert main.main(["watch"]) == 0
    assert "Traceback" not in "".join(capsys.readouterr())
    (host,) = hosts
    assert host.news is None


def test_the_screen_comes_and_goes(start: Start) -> None:
    running = start("watched", "watch", terminal=True)
    running.read_until("no migration runs on this host")
    running.send(signal.SIGINT)
    code, text = running.finish()
    assert code == 0 and "Traceback" not in text
    assert text.index("\x1b[?1049h") < text.index("\x1b[?1049l"), "the alternate screen is left"


def test_whoever_looks_for_more_is_not_lost_by_what_nobody_thought_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would look no more, and nobody would hear of it."""
    host = watch_all.Host("qemu:///system", lambda: pytest.fail("nobody is followed"), False, lambda *_: None)
    host.start()

    def fails(uri: str) -> list[Any]:
        raise PermissionError(13, "Permission denied", "/run/pcmig/migrations")

    with monkeypatch.context() as patched:
        patched.setattr(watch_all, "waiting", fails)
        wait_for(lambda: host.trouble is not None, "what is the matter")
        assert host.trouble == (
            "qemu:///system cannot be looked at "
            "(PermissionError: [Errno 13] Permission denied: '/run/pcmig/migrations')"
        )
    wait_for(lambda: host.trouble is None, "it to look again")
    host.stop()
