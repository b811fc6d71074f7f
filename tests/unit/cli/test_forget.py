# SPDX-License-Identifier: Apache-2.0
"""`pcmig forget`: what it says, what it takes, and that it touches the record alone."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from pcmig import _core, journal
from pcmig.cli import evidence, forget
from pcmig.journal import Entry, Journal, Owner
from tests.unit.cli import fake_core as fake
from tests.unit.cli.conftest import pcmig
from tests.unit.cli.fake_core import job as answer
from tests.unit.cli.test_resume import BROKEN, ENTRY, GONE, POSTCOPY, RUNS, URI
from tests.unit.cli.test_status import DOWN, OFF, PRECOPY

END_A, END_B = f"virsh -c '{URI}' destroy 'g1'", f"virsh -c '{fake.DEST}' destroy 'g1'"
INSIST = f"pcmig forget --accept-loss {fake.UUID}"
DEFINED = {**answer("none", "absent"), "defined": True}


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(evidence, "_core", fake)
    monkeypatch.setattr(forget, "AGAIN_S", 0.0)
    fake.jobs[:], fake.dest_jobs[:] = [GONE], [GONE]
    yield


def hosts(source: Any, destination: Any) -> None:
    fake.jobs[:], fake.dest_jobs[:] = [source], [destination]


@pytest.mark.parametrize(
    ("source", "destination", "says"),
    [
        (GONE, GONE, ["not running there", "forgotten: the guest ended on both hosts"]),
        (RUNS, GONE, ["the guest is at the source alone"]),
        (RUNS, answer("none", "migrating"), [END_B]),
        (BROKEN, OFF, ["shut down there", END_A]),
        (OFF, GONE, ["forgotten: the guest was shut down"]),
        (DEFINED, GONE, ["has a definition", f"virsh -c {URI} start g1"]),
        (DEFINED, DEFINED, ["both hosts", f"virsh -c {fake.DEST} undefine --keep-nvram --keep-tpm g1"]),
    ],
)
def test_where_nothing_can_be_lost_it_just_goes(
    capsys: pytest.CaptureFixture[str], book: Journal, source: Any, destination: Any, says: list[str]
) -> None:
    book.write(ENTRY)
    hosts(source, destination)
    code, text = pcmig(capsys, "forget", "g1")
    assert code == 0, text
    assert all(words in text for words in says), text
    assert book.read(fake.UUID) is None
    code, text = pcmig(capsys, "forget", "g1")
    assert code == 1 and f"no migration of g1 is on record in {book.folder}" in text


@pytest.mark.parametrize(
    ("source", "destination", "helps", "left"),
    [
        (GONE, BROKEN, "to take the loss", END_B),
        (BROKEN, GONE, "to take the loss", END_A),
        (BROKEN, DOWN, "pcmig resume", END_A),
        (BROKEN, BROKEN, "pcmig resume", f"{END_A}; {END_B}"),
        (GONE, RUNS, "pcmig resume", "forgotten"),
        (DOWN, DOWN, "pcmig resume", "forgotten"),
        (RUNS, RUNS, "the copy that is not wanted", "the copy that is not wanted"),
        (answer("none", "dead"), answer("none", "paused"), "to take the loss", "forgotten"),
    ],
)
def test_where_something_could_be_lost_it_takes_a_word(
    capsys: pytest.CaptureFixture[str], book: Journal, source: Any, destination: Any, helps: str, left: str
) -> None:
    book.write(ENTRY)
    hosts(source, destination)
    code, text = pcmig(capsys, "forget", "g1")
    assert code == 3, text
    assert helps in text and INSIST in text and "record" in text
    assert book.read(fake.UUID) == ENTRY
    code, text = pcmig(capsys, *INSIST.split()[1:])
    assert code == 0 and left in text and "because the operator takes the loss" in text
    assert book.read(fake.UUID) is None


@pytest.mark.parametrize(
    ("source", "destination", "helps"),
    [
        (PRECOPY, answer("none", "migrating"), "pcmig abort"),
        (POSTCOPY, answer("postcopy", "postcopy"), "pcmig watch"),
    ],
)
def test_what_goes_on_is_not_forgotten(
    capsys: pytest.CaptureFixture[str], book: Journal, source: Any, destination: Any, helps: str
) -> None:
    book.write(ENTRY)
    hosts(source, destination)
    for more in ((), ("--accept-loss",)):
        code, text = pcmig(capsys, "forget", *more, "g1")
        assert code == 1 and helps in text and "--accept-loss" not in text
    assert book.read(fake.UUID) == ENTRY


def test_copied_disks_need_the_word(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(dataclasses.replace(ENTRY, caller={"nova": {"side": "source", "block_migration": True}}))
    code, text = pcmig(capsys, "forget", "g1")
    assert code == 3 and "those at the destination are newer" in text
    code, text = pcmig(capsys, "forget", "--accept-loss", "g1")
    assert code == 0 and f"openstack server reboot --hard {fake.UUID}" in text
    assert "ls -d" not in text, "those at the source are its disks"
    noted = {"side": "destination", "block_migration": True}
    for more, listed in (
        ({}, None),  # of a release that did not note it
        ({"folder": f"/srv/vm's/{fake.UUID}"}, f"  ls -d '/srv/vm'\"'\"'s/{fake.UUID}'\n"),
    ):
        book.write(dataclasses.replace(ENTRY, caller={"nova": noted | more}))
        code, text = pcmig(capsys, "forget", "--accept-loss", "g1")
        assert code == 0 and "copies of its disks may be left here" in text and fake.UUID in text
        assert listed in text if listed else "ls -d" not in text
        assert "undefine" not in text
    half = {**BROKEN, "defined": True}
    for ends, (side, printed) in itertools.product(
        [(DEFINED, DEFINED), (DEFINED, half), (DOWN, half), (half, half)],
        [("source", False), ("destination", True)],
    ):
        hosts(*ends)
        book.write(dataclasses.replace(ENTRY, caller={"nova": {"side": side, "block_migration": True}}))
        code, text = pcmig(capsys, "forget", "--accept-loss", "g1")
        assert code == 0 and (f"virsh -c {fake.DEST} undefine --keep-nvram --keep-tpm g1" in text) is printed


def test_what_a_process_looks_after_is_its_own(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    mine = dataclasses.replace(ENTRY, owner=Owner.of(os.getpid()), owned="2026-11-21T10:00:01Z")
    book.write(mine)
    for more in ((), ("--accept-loss",)):
        code, text = pcmig(capsys, "forget", *more, "g1")
        assert code == 1
        assert f"process {os.getpid()} (" in text and "python" in text
        assert "since 2026-11-21T10:00:01Z" in text and "pcmig watch" in text
    assert book.read(fake.UUID) == mine


def test_what_was_taken_over_meanwhile_stays(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(entry: Entry) -> Any:
        book.write(dataclasses.replace(entry, owner=Owner.of(os.getppid())))
        return asked(entry)

    book.write(ENTRY)
    asked = evidence.of_entry
    monkeypatch.setattr(evidence, "of_entry", taken)
    code, text = pcmig(capsys, "forget", "g1")
    assert code == 1 and f"process {os.getppid()} (" in text
    assert book.read(fake.UUID) is not None
    book.write(dataclasses.replace(ENTRY, started="2026-11-22T10:00:00Z"))
    with pytest.raises(journal.JournalError, match="is of a newer migration by now: it stays"):
        book.remove_if(ENTRY)


def test_a_guest_that_shows_up_at_the_second_look_is_kept(
    capsys: pytest.CaptureFixture[str], book: Journal
) -> None:
    book.write(ENTRY)
    fake.dest_jobs[:] = [GONE, RUNS]
    code, text = pcmig(capsys, "forget", "g1")
    assert code == 3 and "at the destination alone" in text
    assert book.read(fake.UUID) == ENTRY


def test_journals(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nova = Journal(tmp_path / "nova")
    nova.write(dataclasses.replace(ENTRY, caller={"nova": {"side": "destination"}}))
    hosts(GONE, BROKEN)
    code, text = pcmig(capsys, "forget", "--journal", str(nova.folder), "g1")
    assert code == 3 and f"--journal {nova.folder} --accept-loss" in text
    monkeypatch.setattr(forget, "journal", journal)
    monkeypatch.delenv(journal.ENVIRONMENT)
    monkeypatch.setattr(journal, "NOVA_FOLDER", nova.folder)
    monkeypatch.setattr(journal, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(journal, "hand_over", lambda *_: None)
    Journal(tmp_path / "system").write(ENTRY)
    code, text = pcmig(capsys, "forget", "g1")
    assert code == 1 and f"give --journal with one of {tmp_path / 'system'}, {nova.folder}" in text
    Journal(tmp_path / "system").remove(fake.UUID)
    assert pcmig(capsys, "forget", "--accept-loss", "g1")[0] == 0
    assert nova.read(fake.UUID) is None


@pytest.mark.parametrize(("bits", "copied"), [("LIVE,PEER2PEER", False), ("LIVE,NON_SHARED_INC", True)])
def test_disks_that_are_copied(monkeypatch: pytest.MonkeyPatch, bits: str, copied: bool) -> None:
    monkeypatch.setattr(evidence, "_core", _core)
    flags = _core.parse_flags(bits).bits
    assert evidence.disks_copied(dataclasses.replace(ENTRY, engine={"flags": flags})) == copied
