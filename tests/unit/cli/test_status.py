# SPDX-License-Identifier: Apache-2.0
"""What `pcmig status` makes of the journal and of what hosts say."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
import re
import shlex
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pcmig import journal
from pcmig.cli import evidence, job, main, status
from pcmig.journal import Entry, Journal, Owner
from tests.unit.cli import fake_core as fake
from tests.unit.cli.fake_core import job as answer
from tests.unit.cli.test_resume import BROKEN, ENTRY, GONE, POSTCOPY, RUNS, URI
from tests.unit.patience import NEVER_S

RESUME = f"pcmig resume -c {URI} g1 {fake.DEST}"
WATCH = f"pcmig watch -c {URI} g1"
IN_NOVAS = "PCMIG_JOURNAL_DIR=FOLDER "
FORGET = f"pcmig forget -c '{URI}' 'g1'"
BY_WORD = f"pcmig turn-back --destination-is-dead -c '{URI}' 'g1'"
OFF = {**answer("none", "absent"), "shut_down": True, "defined": True}
DOWN = fake.ConnectError("cannot connect")
PRECOPY = answer(
    "precopy", memory_total_bytes=200 << 20, memory_remaining_bytes=100 << 20, normal_pages=25600
)
ARRIVING = answer("none", "migrating")
MIGRATING = {"uuid": fake.UUID, "name": "g1", "half": "running", "job_active": True}


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (job, status, evidence):
        monkeypatch.setattr(module, "_core", fake)
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    fake.jobs[:], fake.dest_jobs[:] = [RUNS], [GONE]
    fake.migrating.clear()
    yield


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main.main(["status", *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out + err


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, Any]]]:
    code, text = run(capsys, "--json", *words)
    return code, json.loads(text)["migrations"]


def mine(entry: Entry) -> Entry:
    return dataclasses.replace(entry, owner=Owner.of(os.getpid()))


def test_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys) == (0, "no migrations\n")
    assert rows(capsys) == (0, [])
    code, text = run(capsys, "g1")
    assert code == 1 and "pcmig: no migration of g1 is known here" in text


@pytest.mark.parametrize(
    ("source", "dest", "phase", "memory", "percent", "command", "code"),
    [
        (PRECOPY, ARRIVING, "precopy", "source", 25, RESUME, 0),
        (PRECOPY, DOWN, "precopy", "source", 25, RESUME, 0),
        (POSTCOPY, answer("postcopy", "postcopy"), "postcopy", "both", 75, RESUME, 0),
        (BROKEN, BROKEN, "interrupted", "both", 43, RESUME, 3),
        (BROKEN, DOWN, "cut-off", "both", 43, RESUME, 3),
        (DOWN, BROKEN, "cut-off", "both", None, RESUME, 3),
        (RUNS, GONE, "at-source", "source", None, RESUME, 0),
        (GONE, RUNS, "at-destination", "destination", None, RESUME, 0),
        (BROKEN, GONE, "half-lost", "nowhere", 43, BY_WORD, 3),
        (GONE, BROKEN, "half-lost", "nowhere", None, FORGET, 3),
        (GONE, GONE, "gone", "nowhere", None, FORGET, 3),
        (BROKEN, OFF, "ended", "nowhere", 43, f"virsh -c '{URI}' destroy 'g1' && {FORGET}", 0),
        (GONE, OFF, "ended", "nowhere", None, FORGET, 0),
        (OFF, GONE, "ended", "nowhere", None, FORGET, 0),
        (DOWN, DOWN, "silent", "unknown", None, RESUME, 3),
        (RUNS, RUNS, "double", "unknown", None, "destroy", 3),
    ],
)
def test_what_nobody_looks_after(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    source: Any,
    dest: Any,
    phase: str,
    memory: str,
    percent: int | None,
    command: str,
    code: int,
) -> None:
    book.write(dataclasses.replace(ENTRY, recovery=fake.RECOVERY))
    fake.jobs[:], fake.dest_jobs[:] = [source], [dest]
    done, [row] = rows(capsys)
    found = (row["phase"], row["newer_memory"], row["percent"], done, row["needs_operator"])
    assert found == (phase, memory, percent, code, code == 3)
    assert command in row["type"], row
    lost = {"the silent host is lost": FORGET} if source == DOWN else {}
    alone = {"it is to boot from its disks instead": FORGET} if source is BROKEN and dest is GONE else {}
    dead = {"the silent host is dead": BY_WORD} if (source, dest) == (BROKEN, DOWN) else {}
    assert row["otherwise"] == lost | alone | dead
    assert (row["pid"], row["recovery"], row["journal"]) == (None, None, True)
    code, text = run(capsys)
    assert code == done and row["text"] in text and row["type"] in text
    for when, instead in row["otherwise"].items():
        assert f"\nor, if {when}:\n  {instead}\n" in text
    assert f"{URI}: " in text.splitlines()[1] and f"\t{memory}\tnobody" in text.splitlines()[1]
    assert book.read(fake.UUID) is not None, "nothing is changed"


@pytest.mark.parametrize(
    ("side", "source", "dest", "said", "command", "otherwise", "code"),
    [
        (
            "source",
            BROKEN,
            BROKEN,
            "nova-compute will as soon as it runs; without it",
            IN_NOVAS + RESUME,
            False,
            3,
        ),
        (
            "source",
            BROKEN,
            DOWN,
            "nova-compute will as soon as it runs; without it",
            IN_NOVAS + RESUME,
            True,
            3,
        ),
        ("source", RUNS, GONE, "nova-compute closes the record", None, False, 0),
        ("destination", BROKEN, BROKEN, "nova-compute at its source looks after it", WATCH, False, 0),
        ("destination", PRECOPY, ARRIVING, "nova-compute at its source looks after it", WATCH, False, 0),
        ("destination", DOWN, BROKEN, "nova-compute there goes on when it does", None, True, 3),
        ("destination", DOWN, GONE, "nova-compute there goes on when it does", None, True, 3),
        ("destination", GONE, RUNS, "nova-compute closes the record", None, False, 0),
    ],
)
def test_what_is_novas(
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    side: str,
    source: Any,
    dest: Any,
    said: str,
    command: str | None,
    otherwise: bool,
    code: int,
) -> None:
    """Nothing is typed that nova-compute does; and what is typed finds its journal."""
    book = Journal(tmp_path / "nova's")
    book.write(dataclasses.replace(ENTRY, caller={"nova": {"side": side}}))
    fake.jobs[:], fake.dest_jobs[:] = [source], [dest]
    found, text = run(capsys, "--journal", str(book.folder))
    quoted = shlex.quote(str(book.folder))
    cut_off = (source, dest) == (BROKEN, DOWN)
    program, option = ("turn-back", "--destination-is-dead ") if cut_off else ("forget", "")
    last = f"pcmig {program} --journal {quoted} {option}-c '{URI}' 'g1'"
    typed = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    expected = [command.replace("FOLDER", quoted)] if command else []
    assert typed == expected + [last] * otherwise, text
    assert said in text and found == code
    lost = f"if the silent host is {'dead' if cut_off else 'lost'}:"
    assert (f"\n{'' if command is None else 'or, '}{lost}\n" in text) is otherwise


@pytest.mark.parametrize(
    ("source", "dest", "gone", "kept"),
    [(GONE, BROKEN, URI, fake.DEST)],
)
def test_what_cannot_be_saved_is_one_clear_sentence(
    capsys: pytest.CaptureFixture[str], book: Journal, source: Any, dest: Any, gone: str, kept: str
) -> None:
    book.write(mine(ENTRY))
    fake.jobs[:], fake.dest_jobs[:] = [source], [dest]
    code, text = run(capsys, "g1")
    assert code == 3
    assert (
        f"g1: the guest cannot be saved: the QEMU with its half at {gone} is gone, and with it memory that "
        f"nobody else had; the half at {kept} is left untouched"
    ) in text


@pytest.mark.parametrize(
    ("entry", "phase", "text", "command"),
    [
        (ENTRY, "interrupted", "post-copy interrupted at 43 %, resuming soon", WATCH),
        (
            dataclasses.replace(ENTRY, held=True),
            "held",
            "post-copy interrupted at 43 %, resuming soon",
            RESUME,
        ),
    ],
)
def test_what_somebody_looks_after(
    capsys: pytest.CaptureFixture[str], book: Journal, entry: Entry, phase: str, text: str, command: str
) -> None:
    book.write(mine(dataclasses.replace(entry, recovery=fake.RECOVERY)))
    fake.jobs[:], fake.dest_jobs[:] = [BROKEN], [BROKEN]
    code, [row] = rows(capsys, fake.UUID)
    assert (code, row["phase"], row["text"], row["type"]) == (0, phase, text, command)
    assert row["pid"] == os.getpid() and row["percent"] == 43
    assert f"\tprocess {os.getpid()}\n" in run(capsys)[1]


@pytest.mark.parametrize(
    ("found", "seen", "phase", "memory", "halves", "code"),
    [
        (MIGRATING, PRECOPY, "precopy", "source", ("running", "unknown"), 0),
        (
            {**MIGRATING, "half": "postcopy", "job_active": False},
            POSTCOPY,
            "postcopy",
            "both",
            ("postcopy", "unknown"),
            0,
        ),
        (
            {**MIGRATING, "half": "postcopy", "job_active": False},
            answer("postcopy", "postcopy"),
            "postcopy",
            "both",
            ("unknown", "postcopy"),
            0,
        ),
        (
            {**MIGRATING, "half": "postcopy-failed", "job_active": False},
            BROKEN,
            "interrupted",
            "both",
            ("unknown", "unknown"),
            3,
        ),
        (
            {**MIGRATING, "half": "migrating", "job_active": False},
            ARRIVING,
            "switching",
            "unknown",
            ("unknown", "migrating"),
            0,
        ),
    ],
)
def test_what_the_journal_does_not_know(
    capsys: pytest.CaptureFixture[str],
    found: dict[str, Any],
    seen: Any,
    phase: str,
    memory: str,
    halves: tuple[str, str],
    code: int,
) -> None:
    fake.migrating[:], fake.jobs[:] = [found], [seen]
    done, [row] = rows(capsys)
    assert (done, row["phase"], row["newer_memory"]) == (code, phase, memory)
    assert (row["source"], row["destination"], row["journal"], row["pid"]) == (*halves, False, None)
    text = run(capsys)[1]
    assert "the journal does not know" in text and "pcmig " in text


def test_no_migration_is_told_twice(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(ENTRY)
    fake.migrating[:], fake.jobs[:] = [MIGRATING], [PRECOPY]
    assert len(rows(capsys)[1]) == 1


def test_what_is_wrong_hides_nothing(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(ENTRY)
    (book.folder / "x.json").write_text("{")
    fake.migrating[:] = [DOWN]
    code, text = run(capsys)
    assert code == 0 and RESUME in text
    assert "note: cannot connect" in text and f"note: {book.folder}/x.json is no JSON" in text


def test_a_guest_whose_qemu_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    fake.migrating[:] = [{**MIGRATING, "half": "running", "job_active": None}]
    code, text = run(capsys)
    assert code == 1 and "whether g1 migrates is not known: QEMU does not answer" in text


def test_hosts_that_hang_hide_no_guest(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both hosts hang: what is on record is shown nevertheless, with what to type."""
    book.write(ENTRY)
    monkeypatch.setattr(status, "PATIENCE_S", 0.1)
    answers = threading.Event()  # which nobody waits for
    monkeypatch.setattr(fake, "half", lambda uri, uuid: answers.wait(NEVER_S))
    code, [row] = rows(capsys)
    answers.set()
    assert (code, row["name"], row["source"], row["destination"]) == (3, "g1", "unknown", "unknown")
    assert row["type"] == RESUME
    assert fake.connect_timeout_ms[-1] * 2 < 15_000, "two that do not answer leave no time to say so"


def test_somebody_elses_guest_at_a_host_that_hangs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.migrating[:] = [MIGRATING]
    monkeypatch.setattr(status, "PATIENCE_S", 0.1)
    answers = threading.Event()
    monkeypatch.setattr(fake, "job_status", lambda uri, uuid: answers.wait(NEVER_S))
    code, text = run(capsys)
    answers.set()
    assert code == 1 and "1 of 1 migrations are left out: libvirt does not answer" in text


def test_the_journal_of_nova_compute_is_looked_into_too(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nova = Journal(tmp_path / "nova")
    nova.write(ENTRY)
    assert rows(capsys) == (0, []), "what is named in the environment is all there is"
    assert len(rows(capsys, "--journal", str(nova.folder))[1]) == 1
    monkeypatch.delenv(journal.ENVIRONMENT)
    monkeypatch.setattr(journal, "NOVA_FOLDER", nova.folder)
    monkeypatch.setattr(journal, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert len(rows(capsys)[1]) == 1


def test_a_name_is_no_markup(monkeypatch: pytest.MonkeyPatch, book: Journal) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    name = "[bold]x[/] :smile: [link=file:///]"
    book.write(dataclasses.replace(ENTRY, name=name))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    main.main(["status"])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert shown.splitlines()[1].startswith(name) and f"\n{name}: " in shown


def test_two_on_record_with_one_name_are_told_apart(
    capsys: pytest.CaptureFixture[str], book: Journal
) -> None:
    """What is printed has to be taken by the command that is to be typed."""
    other = ENTRY.uuid.replace("-", "")[::-1]
    other = f"{other[:8]}-{other[8:12]}-{other[12:16]}-{other[16:20]}-{other[20:]}"
    fake.jobs[:] = [BROKEN]
    book.write(ENTRY)
    book.write(dataclasses.replace(ENTRY, uuid=other))
    commands = {row["uuid"]: row["type"] for row in rows(capsys)[1]}
    assert all(uuid in command.split()[-1] for uuid, command in commands.items()) and len(commands) == 2


@pytest.mark.parametrize("word", [fake.UUID.upper(), fake.UUID.replace("-", "")])
def test_a_uuid_as_libvirt_takes_it(capsys: pytest.CaptureFixture[str], book: Journal, word: str) -> None:
    book.write(ENTRY)
    assert len(rows(capsys, word)[1]) == 1


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_a_journal_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    code, text = run(capsys, "--journal", str(tmp_path / folder))
    assert code == 2 and f"--journal '{tmp_path / folder}': " in text and "give the folder" in text
