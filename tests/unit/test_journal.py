# SPDX-License-Identifier: Apache-2.0
"""The journal of migrations in flight."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pcmig import _core, journal
from pcmig.journal import Entry, HeldError, Journal, JournalError, Owner

UUID = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER = "aaaaaaaa-0000-4000-8000-000000000002"
ENTRY = Entry(
    uuid=UUID,
    name="g1",
    source_uri="qemu:///system",
    dest_uri="qemu+tcp://b/system",
    engine={"flags": 3, "params": {"stall_ms": 4000}, "resume_uris": ["tcp://c"], "recover": True},
    started="2026-11-21T10:00:00Z",
    recovery={"state": "waiting", "attempts": 2},
    caller={"program": "a test", "nested": {"x": [1, None]}},
)
NOW = "2026-11-21T10:00:01Z"


@pytest.fixture
def book(tmp_path: pathlib.Path) -> Journal:
    return Journal(tmp_path / "made" / "when needed")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def owner_of(pid: int) -> Owner:
    owner = Owner.of(pid)
    assert owner is not None
    return owner


def test_what_is_written_is_read(book: Journal) -> None:
    assert book.read(UUID) is None and book.all() == ([], [])
    book.write(ENTRY)
    assert book.read(UUID) == ENTRY
    assert book.all() == ([ENTRY], [])
    assert book.update(UUID, held=True) == dataclasses.replace(ENTRY, held=True)
    assert book.read(UUID) == dataclasses.replace(ENTRY, held=True)
    book.remove(UUID)
    book.remove(UUID)
    assert book.read(UUID) is None
    assert book.update(UUID, held=False) is None


def test_an_entry_that_says_nothing_of_the_switch(book: Journal) -> None:
    """As older releases wrote it."""
    book.write(ENTRY)
    data = json.loads(book.path(UUID).read_text())
    del data["crossed"]
    book.path(UUID).write_text(json.dumps(data))
    entry = book.read(UUID)
    assert entry is not None and not entry.crossed


def test_oldest_first(book: Journal) -> None:
    later = dataclasses.replace(ENTRY, uuid=OTHER, started="2026-11-20T00:00:00Z")
    for entry in (ENTRY, later):
        book.write(entry)
    assert book.all()[0] == [later, ENTRY]


def test_files_are_the_owners_alone_and_whole(book: Journal) -> None:
    book.write(ENTRY)
    names = {path.name for path in book.folder.iterdir()}
    assert names == {f"{UUID}.json", ".lock"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in book.folder.iterdir())
    assert stat.S_IMODE(book.folder.stat().st_mode) == 0o700
    assert json.loads(book.path(UUID).read_text())["schema"] == 1


def test_what_the_engine_does_not_take_is_not_written(book: Journal) -> None:
    arguments = {"flags": 1, "trace_path": "x", "gate": True, "migrate_uri": None}
    assert journal.engine_arguments(arguments) == {"flags": 1}
    with pytest.raises(ValueError, match="trace_path"):
        book.write(dataclasses.replace(ENTRY, engine=arguments))
    assert not list(book.folder.glob("*.json"))


def test_every_argument_that_is_kept_is_one_of_the_engines() -> None:
    values: dict[Any, Any] = {int: 0, str: "auto", bool: False, dict: {}, list: []}
    _core.Migration("g", "d", **{name: values[kind] for name, kind in journal.ENGINE.items()})


def test_an_owner_that_lives_keeps_others_out(book: Journal, stranger: subprocess.Popen[bytes]) -> None:
    book.write(dataclasses.replace(ENTRY, owner=owner_of(stranger.pid), owned="2026-11-21T10:00:00Z"))
    with pytest.raises(HeldError) as caught:
        book.claim(ENTRY, NOW)
    said = str(caught.value)
    assert f"process {stranger.pid} looks after the migration of g1 to qemu+tcp://b/system" in said
    assert "since 2026-11-21T10:00:00Z" in said
    stranger.kill()
    stranger.wait()
    mine = book.claim(ENTRY, NOW)
    assert mine == book.read(UUID) and mine.keeper == owner_of(os.getpid()) and mine.owned == NOW
    book.claim(ENTRY, NOW)  # what is ours already is no obstacle


def test_a_number_that_another_process_has_now_is_no_owner(
    book: Journal, stranger: subprocess.Popen[bytes]
) -> None:
    here = owner_of(stranger.pid)
    for gone in (
        dataclasses.replace(here, start_ticks=here.start_ticks - 1),
        dataclasses.replace(here, boot="another boot"),
    ):
        book.write(dataclasses.replace(ENTRY, owner=gone))
        entry = book.read(UUID)
        assert entry is not None and entry.keeper is None
        book.claim(ENTRY, NOW)


def test_a_zombie_owns_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Owner.of(process.pid) is None
    process.wait()


CLAIM = """
import sys
from tests.unit.test_journal import ENTRY, NOW, HeldError, Journal
sys.stdin.readline()
try:
    Journal(sys.argv[1]).claim(ENTRY, NOW)
except HeldError:
    print("held", flush=True)
else:
    print("mine", flush=True)
sys.stdin.readline()
"""


def test_of_many_at_once_one_gets_it(book: Journal) -> None:
    words = [sys.executable, "-c", CLAIM, str(book.folder)]
    pipe = subprocess.PIPE
    racers = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(6)]
    said = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        assert racer.stdout is not None
        said.append(racer.stdout.readline().strip())
    for racer in racers:
        racer.communicate("\n")
    assert sorted(said) == ["held"] * 5 + ["mine"]


def changed(**changes: Any) -> str:
    """The file of ENTRY, as a pcmig wrote it that did not say which."""
    written = dataclasses.asdict(ENTRY)
    del written["unknown"]
    return json.dumps({"schema": 1, **written, **changes})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("\x00", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "it has no schema"),
        ("{}", "it has no schema"),
        ('{"schema": true}', "it has no schema"),
        ('{"schema": 2}', "written by a newer pcmig (schema 2, and 1 is known here; this one is"),
        ('{"schema": 1}', "has no valid 'uuid'"),
        (changed(uuid=OTHER), f"is about another guest, {OTHER!r}"),
        (changed(name=None), "has no valid 'name'"),
        (changed(held=1), "has no valid 'held'"),
        (changed(engine={"flags": "x"}), "has no valid 'flags' in 'engine'"),
        (changed(engine={"flags": True}), "has no valid 'flags' in 'engine'"),
        (
            changed(engine={"warp": 1}),
            "written by a newer pcmig ('engine.warp' is not known here; this one is",
        ),
        (changed(engine={"params": {"warp_ms": 1}}), "('engine.params.warp_ms' is not known here"),
        (changed(engine={"policy": "warp=9"}), "('engine.policy': "),
        (changed(engine={"policy": "\ud800"}), "('engine.policy': "),
        (changed(split=True), "written by a newer pcmig ('split' is not known here"),
        (changed(split=True, may_ignore=["split.", "engine.split"]), "('split' is not known here"),
        (changed(**{"a.b": 1}, may_ignore=["a.b"]), "('a.b' is not known here"),
        (changed(may_ignore="split"), "has no valid 'may_ignore'"),
        (changed(owner={"pid": "x"}), "has no valid 'owner'"),
        (changed(owner={"pid": 1, "start_ticks": 2}), "has no valid 'owner'"),
        (changed(owner={"pid": float("inf"), "start_ticks": 2, "boot": ""}), "has no valid 'owner'"),
        (changed(owner=[]), "has no valid 'owner'"),
    ],
)
def test_what_cannot_be_used_is_named_and_hides_no_other(book: Journal, text: str, words: str) -> None:
    book.write(dataclasses.replace(ENTRY, uuid=OTHER))
    book.path(UUID).write_text(text)
    with pytest.raises(JournalError) as caught:
        book.read(UUID)
    assert words in str(caught.value) and str(book.path(UUID)) in str(caught.value)
    with pytest.raises(JournalError):
        book.claim(ENTRY, NOW)
    assert book.path(UUID).read_text() == text, "nothing that is not understood is overwritten"
    entries, errors = book.all()
    assert [entry.uuid for entry in entries] == [OTHER] and [error.uuid for error in errors] == [UUID]


def test_what_is_not_known_is_refused_by_name_and_stays(book: Journal) -> None:
    """It may say which half is kept: what, whose, where, and what helps; and nobody writes over it."""
    book.write(ENTRY)
    path = book.path(UUID)
    text = changed(split=True, seen=5, may_ignore=["seen"], written_by="9.8.7")
    path.write_text(text)
    uses: tuple[Callable[[], object], ...] = (
        lambda: book.read(UUID),
        lambda: book.claim(ENTRY, NOW),
        lambda: book.write(ENTRY),
        lambda: book.update(UUID, held=True),
        lambda: book.remove(UUID),
        lambda: book.remove_if(ENTRY),
    )
    for use in uses:
        with pytest.raises(JournalError) as caught:
            use()
        said = str(caught.value)
        assert said.startswith(f"{path} was written by a newer pcmig, 9.8.7 ('split' is not known here; ")
        assert f"this one is {_core.VERSION})" in said
        assert said.endswith(
            f"Install pcmig 9.8.7, or a later one, and then: pcmig status --journal '{book.folder}' {UUID}"
        )
        assert path.read_text() == text


def test_what_may_be_ignored_is_and_is_written_again(book: Journal) -> None:
    """What a newer pcmig measures is no argument of this engine, and is there when that one is back."""
    more = {"seen": [1, None], "engine.laps": 3, "engine.params.lap_ms": 7}
    engine = {**ENTRY.engine, "laps": 3, "params": {"stall_ms": 4000, "lap_ms": 7}}
    book.write(ENTRY)
    book.path(UUID).write_text(
        changed(engine=engine, seen=[1, None], may_ignore=[*more, "not there"], written_by="9.8.7")
    )
    entry = book.read(UUID)
    assert entry == dataclasses.replace(ENTRY, unknown=more)
    assert entry is not None and entry.engine == ENTRY.engine
    book.claim(entry, NOW)
    book.update(UUID, held=True)
    data = json.loads(book.path(UUID).read_text())
    assert (data["engine"], data["seen"], data["held"]) == (engine, [1, None], True)
    assert data["may_ignore"] == sorted([*more, "recovery"]) and data["written_by"] == _core.VERSION
    assert "unknown" not in data


def test_the_writer_says_who_it_is_and_what_others_may_ignore(book: Journal) -> None:
    book.write(dataclasses.replace(ENTRY, engine={"flags": 1, "count_faults": True}, recovery=None))
    data = json.loads(book.path(UUID).read_text())
    assert data["written_by"] == (pathlib.Path(__file__).parents[2] / "VERSION").read_text().strip()
    assert data["may_ignore"] == ["engine.count_faults"]
    known = {*(f"engine.{name}" for name in journal.ENGINE), *(f.name for f in dataclasses.fields(Entry))}
    assert known >= journal.MAY_IGNORE


def test_thresholds_that_are_gone_do_not_disturb(book: Journal) -> None:
    """An older pcmig had them; whoever adopts the migration leaves them out."""
    engine = {"params": {"stall_ms": 4000, "drain_max_ms": 5}}
    book.write(ENTRY)
    book.path(UUID).write_text(changed(engine=engine))
    entry = book.read(UUID)
    assert entry is not None and entry.engine == engine and not entry.unknown


def test_what_is_no_uuid_is_no_file(book: Journal) -> None:
    for uuid in ("../x", "g1", UUID.upper(), ""):
        with pytest.raises(JournalError, match="is no UUID"):
            book.read(uuid)


def test_a_folder_that_cannot_be_made(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    book = Journal(tmp_path / "file" / "below")
    with pytest.raises(JournalError, match="below cannot be written: Not a directory"):
        book.claim(ENTRY, NOW)
    assert book.all() == ([], [])


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv(journal.ENVIRONMENT, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert journal.default_folder() == pathlib.Path("/var/lib/pcmig/migrations")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Journal().folder == tmp_path / "pcmig" / "migrations"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert journal.default_folder() == pathlib.Path("/home/me/.local/state/pcmig/migrations")
    monkeypatch.setenv(journal.ENVIRONMENT, "/elsewhere")
    assert journal.default_folder() == pathlib.Path("/elsewhere")
