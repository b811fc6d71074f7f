# SPDX-License-Identifier: Apache-2.0
"""resume and pause, and what migrate keeps for them: on a scripted core, with a journal of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pcmig.cli import (
    abort,
    evidence,
    follow,
    job,
    main,
    migrate,
    options,
    pause,
    resume,
    run,
    status,
    watch,
    watch_all,
    watched,
)
from pcmig.cli import huge_pages as cli_huge_pages
from pcmig.journal import Entry, Journal, Owner
from pcmig.ledgers.store import Store
from tests.unit.cli import fake_core as fake
from tests.unit.cli.conftest import MIGRATE, Start, pcmig
from tests.unit.cli.fake_core import job as answer

URI = "qemu:///system"
ENTRY = Entry(
    uuid=fake.UUID,
    name="g1",
    source_uri=URI,
    dest_uri=fake.DEST,
    engine={
        "flags": 3,
        "policy": "passes=3",
        "params": {"request_wait_ms": 7},
        "migrate_uri": "tcp://10.0.0.2",
        "resume_uris": ["tcp://10.1.0.2"],
        "recover": False,
    },
    started="2026-11-21T10:00:00Z",
    caller={"program": "pcmig"},
)
RUNS = answer("none")
POSTCOPY = answer("postcopy", "postcopy", memory_total_bytes=100, memory_remaining_bytes=25)
BROKEN = answer("paused", "postcopy-failed")
GONE = fake.NoDomainError("Domain not found")


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (
        evidence,
        follow,
        job,
        migrate,
        options,
        pause,
        resume,
        run,
        status,
        watch,
        watch_all,
        watched,
    ):
        monkeypatch.setattr(module, "_core", fake)
    monkeypatch.setitem(main.sys.modules, "pcmig._core", fake)  # type: ignore[attr-defined]
    monkeypatch.setattr(fake.Migration, "script", [(0.0, fake.POSTCOPY), (0.05, fake.COMPLETED)])
    monkeypatch.setattr(fake.Migration, "arguments", {})
    monkeypatch.setattr(job, "POLL_S", 0.01)
    clock = fake.Clock()
    for timed in (job, watch):
        monkeypatch.setattr(timed, "time", clock)
    monkeypatch.setattr(pause, "ASKED_S", 0.3)
    monkeypatch.setattr(pause, "CONFIRM_S", 0.3)
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    fake.Migration.calls.clear()
    fake.jobs[:], fake.dest_jobs[:] = [RUNS], [GONE]
    fake.migrating.clear()
    fake.versions.clear()
    yield


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives and does not know our signal."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


# migrate


@pytest.mark.parametrize(
    ("options", "told", "asked"),
    [((), False, True), (("--persistent",), False, True), (("--keep-definition",), True, False)],
)
def test_a_guest_that_starts_with_its_host(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    told: bool,
    asked: bool,
) -> None:
    """It starts with the host that has it, or whoever keeps its definition is told of the second copy."""
    monkeypatch.setattr(fake, "starts_with_host", True)
    code, text = pcmig(capsys, *MIGRATE, *options)
    assert code == 0
    assert ("  virsh -c qemu:///system autostart --disable g1" in text) is told
    assert fake.Migration.arguments.get("autostart", False) is asked


def owned(pid: int) -> Entry:
    return dataclasses.replace(ENTRY, owner=Owner.of(pid), owned="2026-11-21T10:00:01Z")


# What migrate keeps


def test_what_is_settled_leaves_nothing(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    for last, code in ((fake.COMPLETED, 0), (fake.FAILED, 1)):
        fake.Migration.script = [(0.0, last)]
        assert pcmig(capsys, *MIGRATE)[0] == code
        assert book.all() == ([], [])


def test_what_is_not_settled_is_kept(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    fake.Migration.script = [(0.0, fake.NEEDS_OPERATOR)]
    words = ("--set", "request_wait_ms=7", "--migrateuri", "tcp://10.0.0.2", "--resume-uri", "tcp://10.1.0.2")
    code, text = pcmig(capsys, *MIGRATE, *words, "--policy", "passes=3", "--connect-timeout", "3")
    assert code == 3 and f"pcmig resume -c {URI} g1 {fake.DEST}" in text
    [entry] = book.all()[0]
    assert (entry.uuid, entry.name, entry.source_uri, entry.dest_uri) == (fake.UUID, "g1", URI, fake.DEST)
    assert entry.owner is None and not entry.held and entry.caller == {"program": "pcmig"}
    assert entry.engine["policy"] == "passes=3" and entry.engine["params"] == {"request_wait_ms": 7}
    assert entry.engine["migrate_uri"] == "tcp://10.0.0.2" and entry.engine["connect_timeout_ms"] == 3000
    assert entry.engine["resume_uris"] == ["tcp://10.1.0.2"] and entry.engine["flags"] == 5


def test_killed_it_is_kept_and_owned_by_nobody(start: Start, book: Journal) -> None:
    running = start("precopy", *MIGRATE)
    running.read_until("45%")
    [entry] = book.all()[0]
    assert entry.keeper is not None and entry.keeper.pid == running.process.pid
    running.send(signal.SIGKILL)
    running.finish()
    [entry] = book.all()[0]
    assert entry.keeper is None and entry.owner is not None


def test_a_defect_keeps_it(start: Start, book: Journal) -> None:
    assert start("broken", *MIGRATE).finish()[0] == 70
    assert len(book.all()[0]) == 1


def test_one_guest_has_one_process(start: Start, book: Journal) -> None:
    running = start("precopy", *MIGRATE)
    running.read_until("45%")
    code, text = start("quick", *MIGRATE).finish()
    assert code == 1
    assert f"process {running.process.pid} looks after the migration of g1 to {fake.DEST}, since 20" in text
    assert f"pcmig watch -c {URI} g1" in text
    running.send(signal.SIGINT)
    assert running.finish()[0] == 1


def test_migrate_does_not_forget_what_is_not_over(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(ENTRY)
    fake.jobs[:] = [BROKEN]
    code, text = pcmig(capsys, *MIGRATE)
    assert code == 1 and "is not over, and nobody looks after it" in text
    assert f"pcmig resume -c {URI} g1 {fake.DEST}" in text
    assert book.read(fake.UUID) == ENTRY
    fake.jobs[:] = [RUNS]  # it ended, and nobody saw it
    assert pcmig(capsys, *MIGRATE)[0] == 0


def test_a_journal_that_cannot_be_written_is_a_note(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").touch()
    monkeypatch.setenv("PCMIG_JOURNAL_DIR", str(tmp_path / "full"))
    code, text = pcmig(capsys, *MIGRATE)
    assert code == 0 and "note: the journal" in text and "will not know the options" in text


def test_an_entry_that_is_not_understood_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], book: Journal
) -> None:
    book.folder.mkdir()
    path = book.folder / f"{fake.UUID}.json"
    path.write_text('{"schema": 99}')
    for words in (MIGRATE, ("resume", fake.UUID)):
        code, text = pcmig(capsys, *words)
        assert code == 1 and str(path) in text and "newer pcmig" in text
    assert path.read_text() == '{"schema": 99}'


# resume


@pytest.mark.parametrize("domain", ["g1", fake.UUID])
def test_the_journal_knows_everything(
    capsys: pytest.CaptureFixture[str], book: Journal, domain: str, tmp_path: pathlib.Path
) -> None:
    book.write(dataclasses.replace(ENTRY, held=True))
    report = tmp_path / "report.json"
    code, text = pcmig(capsys, "resume", domain, "--json", str(report))
    assert code == 0 and f"done: g1 runs at {fake.DEST}" in text
    arguments = fake.Migration.arguments
    assert (arguments["domain"], arguments["dest_uri"], arguments["adopt"]) == (fake.UUID, fake.DEST, True)
    assert arguments["source_uri"] == URI and arguments["recover"] is True
    assert arguments["policy"] == "passes=3" and arguments["params"] == {"request_wait_ms": 7}
    assert arguments["flags"] == 3 and arguments["migrate_uri"] == "tcp://10.0.0.2"
    assert arguments["resume_uris"] == ["tcp://10.1.0.2"]
    assert book.all() == ([], [])
    result = json.loads(report.read_text())
    assert (result["command"], result["domain"], result["dest_uri"]) == ("resume", "g1", fake.DEST)
    assert result["flags"] == ["LIVE", "PEER2PEER", "POSTCOPY"] and result["outcome"] == "completed"


@pytest.mark.parametrize(("words", "adopts"), [(("resume", "g1"), True), (MIGRATE, False)])
def test_who_takes_a_migration_over_says_so(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    adopts: bool,
) -> None:
    """In its ledger, with the time when it began; where huge pages are looked at, of which nobody knows any
    more how they were before; and where it is followed."""
    told: list[tuple[str, bool]] = []
    begin = cli_huge_pages.begin

    def looks(uuid: str, source_uri: str, *, adopted: bool = False) -> Any:
        told.append(("huge pages", adopted))
        return begin(uuid, source_uri, adopted=adopted)

    class Follower(follow.Follower):
        def __init__(self, *arguments: Any, adopts: bool, **named: Any) -> None:
            told.append(("follower", adopts))
            super().__init__(*arguments, adopts=adopts, **named)

    monkeypatch.setattr(cli_huge_pages, "begin", looks)
    monkeypatch.setattr(run, "Follower", Follower)
    if adopts:
        book.write(ENTRY)
    assert pcmig(capsys, *words)[0] == 0
    assert told == [("huge pages", adopts), ("follower", adopts)]
    (kept,), _ = Store(book.folder / "ledgers").all()
    assert kept.document["adopted"] is adopts
    assert (kept.document["begun"] == ENTRY.started) is adopts


def test_what_is_typed_counts_more(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(ENTRY)
    words = ("--migrateuri", "tcp://10.9.0.2", "--policy", "immediate", "--set", "downtime_limit_ms=50")
    other = "qemu+ssh://c/system"
    assert pcmig(capsys, "resume", "g1", other, *words, "--keep-definition")[0] == 0
    arguments = fake.Migration.arguments
    assert arguments["dest_uri"] == other and arguments["migrate_uri"] == "tcp://10.9.0.2"
    assert arguments["resume_uris"] == ["tcp://10.1.0.2"] and arguments["policy"] == "immediate"
    assert arguments["params"] == {"request_wait_ms": 7, "downtime_limit_ms": 50}


def test_without_the_journal(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    fake.jobs[:] = [BROKEN]
    code, text = pcmig(capsys, "resume", "g1")
    assert code == 2 and "name DESTURI: the journal" in text
    assert pcmig(capsys, "resume", "g1", fake.DEST, "--migrateuri", "tcp://b")[0] == 0
    arguments = fake.Migration.arguments
    assert arguments["domain"] == fake.UUID and arguments["adopt"] is True
    assert arguments["flags"] == 5, "with the definition, as migrate would have"
    assert arguments["migrate_uri"] == "tcp://b" and book.all() == ([], [])


@pytest.mark.parametrize(
    ("source", "dest", "words", "said"),
    [
        (RUNS, None, ("g1",), f"no migration of g1 is under way: it is running at {URI}"),
        (RUNS, GONE, ("g1", fake.DEST), f"it is running at {URI}, not running there at {fake.DEST}"),
        (answer("none", "absent"), RUNS, ("g1", fake.DEST), f"not running there at {URI}, running at"),
        (RUNS, None, ("nosuch",), f"no guest 'nosuch' at {URI}, and the journal"),
        (RUNS, None, ("nosuch", fake.DEST), f"no guest 'nosuch' at {URI} and {fake.DEST}"),
    ],
)
def test_nothing_to_resume(
    capsys: pytest.CaptureFixture[str], source: Any, dest: Any, words: tuple[str, ...], said: str
) -> None:
    fake.jobs[:], fake.dest_jobs[:] = [source], [dest]
    code, text = pcmig(capsys, "resume", *words)
    assert (code, "nothing to resume" in text, said in text) == (1, True, True), text
    assert fake.Migration.arguments == {}


def test_two_guests_of_one_name(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(ENTRY)
    other = dataclasses.replace(ENTRY, uuid=fake.UUID[:-1] + "2", source_uri="qemu+ssh://c/system")
    book.write(other)
    code, text = pcmig(capsys, "resume", "g1")
    assert code == 1 and fake.UUID in text and other.uuid in text
    assert pcmig(capsys, "resume", "-c", "qemu+ssh://c/system", "g1")[0] == 0
    assert fake.Migration.arguments["domain"] == other.uuid


def test_a_source_that_is_typed_alone_says_where_to_look(
    capsys: pytest.CaptureFixture[str], book: Journal
) -> None:
    """What the journal has may have come from there; or the same host is reached in another way."""
    book.write(ENTRY)
    assert pcmig(capsys, "resume", "-c", "qemu+ssh://c/system", "g1")[0] == 0
    arguments = fake.Migration.arguments
    assert (arguments["source_uri"], arguments["dest_uri"]) == (URI, fake.DEST)
    book.write(ENTRY)
    assert pcmig(capsys, "resume", "-c", "qemu+ssh://c/system", "g1", "qemu+ssh://d/system")[0] == 0
    arguments = fake.Migration.arguments
    assert (arguments["source_uri"], arguments["dest_uri"]) == ("qemu+ssh://c/system", "qemu+ssh://d/system")


def test_another_program_is_not_sent_a_signal_that_would_end_it(
    capsys: pytest.CaptureFixture[str], book: Journal, stranger: subprocess.Popen[bytes]
) -> None:
    for caller in ({"program": "nova-compute"}, {"program": "pcmig"}):
        book.write(dataclasses.replace(owned(stranger.pid), caller=caller))
        code, text = pcmig(capsys, "resume", "g1")
        assert code == 1 and f"process {stranger.pid} looks after the migration of g1" in text
    assert stranger.poll() is None and fake.Migration.arguments == {}


def test_an_entry_of_another_program_is_left_to_it(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    """Its record has to be completed too; here it is dead, and its guest is looked after all the same."""
    book.write(dataclasses.replace(ENTRY, caller={"program": "nova-compute", "migration": 7}))
    assert pcmig(capsys, "resume", "g1")[0] == 0
    [entry] = book.all()[0]
    assert entry.caller == {"program": "nova-compute", "migration": 7} and entry.owner is None


def test_ctrl_c_before_the_end_keeps_the_entry(start: Start, book: Journal) -> None:
    book.write(ENTRY)
    running = start("interrupted", "resume", "g1")
    running.read_until("post-copy interrupted at 43 %")
    running.send(signal.SIGINT)
    code, text = running.finish()
    assert code == 3 and f"pcmig resume -c {URI} g1 {fake.DEST}" in text
    [entry] = book.all()[0]
    assert entry.owner is None and entry.recovery is not None and entry.recovery["permille"] == 430


# pause, and resume of what is looked after


def test_pause_and_resume_of_what_is_looked_after(
    capsys: pytest.CaptureFixture[str], start: Start, book: Journal
) -> None:
    running = start("postcopy", *MIGRATE)
    running.read_until("post-copy 75%")
    fake.jobs[:], fake.dest_jobs[:] = [POSTCOPY, POSTCOPY, POSTCOPY, BROKEN], [BROKEN]
    code, text = pcmig(capsys, "pause", "g1")
    assert code == 0 and f"pcmig resume -c {URI} g1 {fake.DEST}" in text
    assert fake.Migration.calls == [], "the process that looks after it does it"
    running.read_until("paused on request until it is resumed")
    [entry] = book.all()[0]
    assert entry.held and entry.recovery is not None and entry.recovery["state"] == "held"
    code, text = pcmig(capsys, "resume", "g1")
    assert code == 4 and f"process {running.process.pid} looks after the migration" in text
    running.read_until("post-copy goes on")
    assert not book.all()[0][0].held
    running.send(signal.SIGINT)
    assert running.finish()[0] == 4


def test_pause_of_what_nobody_looks_after(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(ENTRY)
    fake.jobs[:] = [POSTCOPY, BROKEN]
    assert pcmig(capsys, "pause", "g1")[0] == 0
    assert fake.Migration.calls == ["job_pause"]
    assert book.all()[0][0].held


def test_pause_without_the_journal(capsys: pytest.CaptureFixture[str]) -> None:
    fake.jobs[:] = [POSTCOPY, BROKEN]
    code, text = pcmig(capsys, "pause", "-c", URI, "g1")
    assert code == 0 and f"pcmig resume -c {URI} g1 DESTURI" in text


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ((RUNS,), 1, "no migration of"),
        ((answer("precopy"),), 1, f"nothing to pause; to leave it there:\n  pcmig abort -c {URI} g1"),
        ((POSTCOPY,), 1, "libvirt took the request, but post-copy still runs"),
        ((POSTCOPY, GONE), 1, "ended before it could be paused"),
        ((BROKEN,), 0, "paused"),
    ],
)
def test_pause_that_changes_nothing(
    capsys: pytest.CaptureFixture[str], book: Journal, answers: tuple[Any, ...], code: int, words: str
) -> None:
    book.write(ENTRY)
    fake.jobs[:] = answers
    done, text = pcmig(capsys, "pause", "g1")
    assert (done, words in text) == (code, True), text
    entry = book.read(fake.UUID)
    assert entry is not None and entry.held is (code == 0)


@pytest.mark.parametrize(
    ("host", "libvirt", "why"),
    [
        (fake.DEST, 11_003_000, "libvirt 11.2 and 11.3 at the destination crash"),
        (fake.DEST, 8_004_000, "libvirt before 8.5 cannot resume post-copy: upgrade libvirt at both ends"),
        (URI, 8_000_000, "libvirt before 8.5 cannot resume post-copy: upgrade libvirt at both ends"),
    ],
)
def test_what_could_not_be_resumed_is_not_paused(
    capsys: pytest.CaptureFixture[str], book: Journal, host: str, libvirt: int, why: str
) -> None:
    book.write(ENTRY)
    fake.jobs[:] = [POSTCOPY]
    fake.versions[host] = libvirt
    code, text = pcmig(capsys, "pause", "g1")
    assert code == 1 and f"could not be resumed: {why}" in text
    assert fake.Migration.calls == [] and book.read(fake.UUID) == ENTRY


# watch


def test_watch_shows_what_is_being_resumed(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.01)
    monkeypatch.setattr(watch, "INTERRUPTED_S", 0.0)
    monkeypatch.setattr(watch, "CONFIRM_S", 0.0)
    book.write(
        dataclasses.replace(owned(os.getpid()), recovery={"text": "post-copy interrupted at 43 %, wait"})
    )
    fake.jobs[:] = [POSTCOPY, BROKEN, BROKEN, BROKEN, POSTCOPY, GONE]
    code, text = pcmig(capsys, "watch", "g1")
    assert code == 0 and "done: g1 has left" in text
    assert text.count(f"post-copy interrupted at 43 %, wait (process {os.getpid()} looks after it)") == 1


def test_watch_of_what_nobody_resumes(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.01)
    monkeypatch.setattr(watch, "INTERRUPTED_S", 0.0)
    book.write(ENTRY)
    fake.jobs[:] = [POSTCOPY, BROKEN]
    fake.asked.clear()
    code, text = pcmig(capsys, "watch", "g1")
    assert code == 3 and f"nobody resumes it; type:\n  pcmig resume -c {URI} g1 {fake.DEST}" in text
    assert len(fake.asked) < 10 and book.read(fake.UUID) == ENTRY


def test_watch_closes_the_books_of_what_was_left(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.01)
    book.write(ENTRY)
    fake.jobs[:] = [POSTCOPY, GONE]
    assert pcmig(capsys, "watch", "g1")[0] == 0
    assert book.all() == ([], [])


@pytest.mark.parametrize(
    ("source", "there", "frees"),
    [
        (answer("precopy"), answer("none", "migrating"), True),
        (answer("precopy"), answer("none", "running"), False),  # somebody's guest: nothing to throw away
        (answer("precopy", "paused"), answer("none", "migrating"), False),
        (answer("precopy"), GONE, False),
    ],
)
def test_an_abort_that_does_not_end(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    monkeypatch: pytest.MonkeyPatch,
    source: Any,
    there: Any,
    frees: bool,
) -> None:
    for name in ("_core", "CONFIRM_S"):
        monkeypatch.setattr(abort, name, fake if name == "_core" else 0.1)
    book.write(ENTRY)
    fake.jobs[:], fake.dest_jobs[:] = [source], [there]
    code, text = pcmig(capsys, "abort", "g1")
    assert code == 1 and "the migration still runs" in text
    assert (f"\n  virsh -c {fake.DEST} destroy {fake.UUID}\n" in text) is frees


@pytest.mark.parametrize(("there", "helps"), [("migrating", True), ("running", False)])
def test_an_abort_where_qemu_does_not_answer(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    monkeypatch: pytest.MonkeyPatch,
    there: str,
    helps: bool,
) -> None:
    monkeypatch.setattr(abort, "_core", fake)
    book.write(ENTRY)
    fake.jobs[:], fake.dest_jobs[:] = [answer("unknown")], [answer("none", there)]
    code, text = pcmig(capsys, "abort", "g1")
    assert code == 1 and "cannot tell what it does with g1" in text
    assert (f"\n  virsh -c {fake.DEST} destroy {fake.UUID}\n" in text) is helps


@pytest.mark.parametrize("crossed", [False, True])
def test_an_abort_that_does_not_end_frees_the_source(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch, crossed: bool
) -> None:
    for name in ("_core", "CONFIRM_S"):
        monkeypatch.setattr(abort, name, fake if name == "_core" else 0.1)
    monkeypatch.setattr(fake, "removable", [True])
    monkeypatch.setattr(fake, "removed", [])
    book.write(dataclasses.replace(ENTRY, crossed=crossed))
    fake.jobs[:], fake.dest_jobs[:] = [answer("precopy")], [answer("none", "migrating")]
    code, text = pcmig(capsys, "abort", "g1")
    assert fake.removed == ([] if crossed else [(URI, fake.DEST, fake.UUID)])
    assert ("the empty half at the destination was removed" in text) is not crossed
    assert code == (1 if crossed else 0) and ("cancelled: g1 runs on" in text) is not crossed


def test_a_half_that_is_lost_is_not_asked_to_go_on(
    capsys: pytest.CaptureFixture[str], book: Journal, stranger: subprocess.Popen[bytes]
) -> None:
    book.write(dataclasses.replace(owned(stranger.pid), held=True))
    fake.jobs[:], fake.dest_jobs[:] = [BROKEN], [GONE]
    code, text = pcmig(capsys, "resume", "g1")
    assert (
        code == 3
        and "can turn back" in text
        and "pcmig turn-back --destination-is-dead -c" in text
        and "was asked" not in text
    )
    entry = book.read(fake.UUID)
    assert entry is not None and entry.held


@pytest.mark.parametrize(("typed", "waits_ms"), [((), 3000), (("--connect-timeout", "0.5"), 500)])
def test_the_time_for_a_connection_is_that_of_the_record(
    capsys: pytest.CaptureFixture[str], book: Journal, typed: tuple[str, ...], waits_ms: int
) -> None:
    """For all that is asked besides the engine, too; what is typed counts more."""
    book.claim(dataclasses.replace(ENTRY, engine={**ENTRY.engine, "connect_timeout_ms": 3000}), "now")
    book.update(fake.UUID, owner=None)
    fake.Migration.script = [(0.0, fake.COMPLETED)]
    pcmig(capsys, "resume", *typed, "g1")
    assert fake.connect_timeout_ms[-1] == waits_ms
