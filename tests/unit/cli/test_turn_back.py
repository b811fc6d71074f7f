# SPDX-License-Identifier: Apache-2.0
"""`pcmig turn-back`: what it takes, what it says, what it writes down, and that nothing is done before."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pcmig import _core, turn_back
from pcmig.cli import evidence, forget, status
from pcmig.cli import turn_back as command
from pcmig.journal import Entry, Journal, Owner
from pcmig_common.turned_back import OPTIONS
from tests.unit.cli import fake_core as fake
from tests.unit.cli.conftest import pcmig
from tests.unit.cli.fake_core import job as answer
from tests.unit.cli.test_resume import BROKEN, ENTRY, GONE, POSTCOPY, URI, owned, stranger
from tests.unit.cli.test_status import DOWN, OFF
from tests.unit.patience import PATIENCE_S

__all__ = ["stranger"]  # a fixture

HOST = "6f8d1f5e-0000-4000-8000-00000000000b"
CROSSED = dataclasses.replace(ENTRY, dest_host=HOST, crossed=True, crossed_at="2026-11-29T10:00:00.000Z")
TURNED = {**BROKEN, "runs": True}
LOOK = {
    "run_state": "finish-migrate",
    "migration": "postcopy-paused",
    "half": "waits",
    "remaining_bytes": 4096,
    "sent_bytes": 8192,
    "requests": 2,
    "qemu": 11_001_000,
    "sets_active": True,
    "discards_memory": False,
}
DISK = "<devices><disk type='file'><source file='/d'/><target dev='vda'/></disk></devices>"
COPIED = _core.parse_flags("VIR_MIGRATE_NON_SHARED_DISK").bits


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (evidence, forget, status, turn_back, command):
        monkeypatch.setattr(module, "_core", fake)
    monkeypatch.setattr(turn_back, "AGAIN_S", 0.0)
    monkeypatch.setattr(turn_back, "host_of", lambda uri: HOST)
    monkeypatch.setattr(fake, "flags_from_bits", _core.flags_from_bits)
    monkeypatch.setattr(fake, "look", dict(LOOK))
    monkeypatch.setattr(fake, "turned", [])
    fake.jobs[:], fake.dest_jobs[:] = [BROKEN], [GONE]
    yield


def with_disk(monkeypatch: pytest.MonkeyPatch, xml: str = DISK) -> None:
    monkeypatch.setattr(fake, "XML", fake.XML.replace("</domain>", f"{xml}</domain>"))


def test_it_goes_on_and_is_marked(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(CROSSED)
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert code == 0, text
    assert f"done: g1 goes on at {URI} from the moment of the switch; what it did since" in text
    assert f"virsh -c {URI} qemu-monitor-command g1 --hmp system_powerdown" in text
    assert fake.turned == [(URI, fake.UUID)]
    entry = book.read(fake.UUID)
    assert entry is not None and entry.owner is None and entry.turned_back is not None
    assert entry.turned_back["done"] is True and entry.turned_back["facts"]["disks"] == "none"


def test_the_journal_hears_of_it_before(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def fails(uri: str, uuid: str) -> list[str]:
        entry = book.read(uuid)
        assert entry is not None and entry.owner == Owner.of(os.getpid())
        seen.append(entry.turned_back)
        raise _core.LibvirtError("QEMU has no gdb stub for this guest")

    book.write(CROSSED)
    monkeypatch.setattr(fake, "turn_back", fails)
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert code == 1 and "no gdb stub" in text
    assert seen[0]["done"] is False and seen[0]["facts"]["answer"] == "go"
    entry = book.read(fake.UUID)
    assert entry is not None and entry.owner is None and not has_turned_back(entry, half(BROKEN))


def half(seen: Any) -> Any:
    fake.jobs[:] = [seen]
    return fake.half(URI, fake.UUID)


@pytest.mark.parametrize(
    ("source", "destination", "words", "says"),
    [
        (BROKEN, BROKEN, [], "pcmig resume"),
        (BROKEN, BROKEN, ["--destination-is-dead"], "pcmig resume"),
        (POSTCOPY, answer("postcopy", "postcopy"), ["--destination-is-dead"], "pcmig watch"),
        (BROKEN, DOWN, [], "if the silent host is dead:\n  pcmig turn-back --destination-is-dead"),
        (BROKEN, DOWN, ["--accept-newer-disks"], "pcmig resume"),
        (BROKEN, OFF, [], "pcmig forget"),
        (BROKEN, answer("none", "dead"), ["--destination-is-dead"], f"virsh -c '{fake.DEST}' destroy 'g1'"),
        (GONE, BROKEN, ["--destination-is-dead"], "pcmig forget"),
        (DOWN, GONE, ["--destination-is-dead"], "pcmig resume"),
        (DOWN, DOWN, ["--destination-is-dead"], "pcmig resume"),
    ],
)
def test_what_the_guard_refuses(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    source: Any,
    destination: Any,
    words: list[str],
    says: str,
) -> None:
    book.write(CROSSED)
    fake.jobs[:], fake.dest_jobs[:] = [source], [destination]
    code, text = pcmig(capsys, "turn-back", *words, "g1")
    assert code == 3 and says in text, text
    assert fake.turned == []
    entry = book.read(fake.UUID)
    assert entry is not None and entry.turned_back is None and entry.owner is None


@pytest.mark.parametrize(
    ("source", "destination", "named"),
    [(BROKEN, BROKEN, True), (BROKEN, POSTCOPY, True), (POSTCOPY, POSTCOPY, False), (BROKEN, DOWN, False)],
)
def test_what_helps_where_the_destination_hangs(
    capsys: pytest.CaptureFixture[str], book: Journal, source: Any, destination: Any, named: bool
) -> None:
    """It is there by its libvirt's word, and no resume gets through: somebody may end it."""
    book.write(CROSSED)
    fake.jobs[:], fake.dest_jobs[:] = [source], [destination]
    code, text = pcmig(capsys, "turn-back", "g1")
    assert code == 3 and fake.turned == []
    assert (f"  virsh -c {fake.DEST} destroy g1\n  pcmig turn-back " in text) is named, text


def test_a_half_that_comes_back_between_the_two_looks(
    capsys: pytest.CaptureFixture[str], book: Journal
) -> None:
    book.write(CROSSED)
    fake.dest_jobs[:] = [GONE, BROKEN]  # the first look, the second
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert code == 3 and "pcmig resume" in text and fake.turned == []


Asked = list[tuple[str, int | None]]


def answering(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object] = list) -> Asked:
    """Whom was asked, and with which patience. With all of it, a host answers after BEFORE() has returned."""
    asked: Asked = []
    at_once = fake.half

    def half(uri: str, uuid: str, timeout_ms: int | None = None) -> dict[str, Any]:
        asked.append((uri, timeout_ms))
        if timeout_ms is None:
            before()
        return at_once(uri, uuid)

    monkeypatch.setattr(fake, "half", half)
    return asked


def test_two_silent_hosts_are_waited_for_once(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.write(CROSSED)
    fake.jobs[:], fake.dest_jobs[:] = [DOWN], [DOWN]
    monkeypatch.setattr(evidence, "PROMPT_S", 0.1)
    asked = answering(monkeypatch, threading.Barrier(2, timeout=PATIENCE_S).wait)
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert code == 3 and text.count(": does not answer\n") == 2 and fake.turned == [], text
    # Before: four times, one after the other.
    assert sorted(uri for uri, _ in asked) == sorted([URI, fake.DEST])


def test_a_dead_destination_is_waited_for_once(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.write(CROSSED)
    fake.dest_jobs[:] = [DOWN]
    asked = answering(monkeypatch)
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert code == 0 and fake.turned == [(URI, fake.UUID)], text
    looks = [timeout_ms for uri, timeout_ms in asked if uri == fake.DEST]
    assert looks == [None, evidence.SILENT_AGAIN_MS]


def test_a_slow_source_is_still_asked_before_the_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the destination said meanwhile may be older than the source's word, and is not taken."""
    fake.jobs[:], fake.dest_jobs[:] = [BROKEN], [GONE, BROKEN]
    monkeypatch.setattr(evidence, "PROMPT_S", 0.1)
    said: list[str] = []
    source_asked, destination_answered = threading.Event(), threading.Event()
    at_once = fake.half

    def half(uri: str, uuid: str, timeout_ms: int | None = None) -> dict[str, Any]:
        if uri == URI:
            said.append("source asked")
            source_asked.set()
            assert destination_answered.wait(PATIENCE_S), "it is not asked meanwhile"
            said.append("source answers")
            return at_once(uri, uuid)
        assert source_asked.wait(PATIENCE_S)
        said.append("destination answers")
        answer = at_once(uri, uuid)
        destination_answered.set()
        return answer

    monkeypatch.setattr(fake, "half", half)
    source, destination = evidence.ask_both(CROSSED)
    assert (source["half"], destination["half"]) == ("postcopy-failed", "postcopy-failed")
    assert said == ["source asked", "destination answers", "source answers", "destination answers"]


def test_a_word_on_a_silent_host_is_taken(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    book.write(CROSSED)
    fake.dest_jobs[:] = [DOWN]
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "--json", "g1")
    assert code == 0 and fake.turned == [(URI, fake.UUID)]
    report = json.loads(text[text.index("{\n") : text.rindex("}") + 1])
    assert report["facts"]["destination"] == "unknown" and report["facts"]["destination_is_dead"] is True


@pytest.mark.parametrize(
    ("flags", "xml", "look", "unrun", "says"),
    [
        (0, DISK, {}, False, "vda: not copied by the migration"),
        (0, DISK, {}, True, None),
        (COPIED, DISK, {}, False, None),
        (COPIED, DISK.replace("<source", "<shareable/><source"), {}, False, "vda: not copied"),
        (COPIED, DISK, {"sets_active": False, "qemu": 9_002_000}, False, "that takes 10.0"),
        (0, DISK.replace("<source", "<readonly/><source"), {"sets_active": False}, False, None),
        (0, "<os><nvram>/v</nvram></os>", {}, False, None),
        (0, "<os><nvram>/v</nvram></os>", {"sets_active": False}, False, "that takes 10.0"),
        (COPIED, "<devices><hostdev mode='subsystem' type='scsi'/></devices>", {}, False, "a SCSI device"),
        (0, "", {"remaining_bytes": 0}, False, "has sent everything"),
        (0, "", {"remaining_bytes": 0}, True, None),
        (0, "", {"discards_memory": True}, True, "release-ram"),
        (0, "", {"half": "other", "run_state": "postmigrate"}, True, "run state postmigrate"),
    ],
)
def test_disks_and_memory(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    monkeypatch: pytest.MonkeyPatch,
    flags: int,
    xml: str,
    look: Any,
    unrun: bool,
    says: str | None,
) -> None:
    with_disk(monkeypatch, xml)
    fake.look.update(look)
    book.write(dataclasses.replace(CROSSED, engine={**CROSSED.engine, "flags": flags}, unrun=unrun))
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert (code, says is None) in ((0, True), (3, False)), text
    assert says is None or says in text, text
    assert bool(fake.turned) is (says is None)
    if says is None and unrun:
        assert "nothing is lost: no instruction of it ran at the destination" in text


@pytest.mark.parametrize(("xml", "look"), [(DISK, {}), ("", {"remaining_bytes": 0})])
def test_the_command_that_takes_the_risk_works(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch, xml: str, look: Any
) -> None:
    with_disk(monkeypatch, xml)
    fake.look.update(look)
    book.write(CROSSED)
    code, text = pcmig(capsys, "turn-back", "g1")
    for _ in range(2):  # a word on the destination's death first
        assert code == 3 and fake.turned == []
        [typed] = [line.split() for line in text.splitlines() if line.startswith("  pcmig turn-back --")]
        code, text = pcmig(capsys, *typed[1:])
    assert code == 0 and fake.turned, text


def test_who_looks_after_it_is_not_passed_over(
    capsys: pytest.CaptureFixture[str], book: Journal, stranger: subprocess.Popen[bytes]
) -> None:
    book.write(owned(stranger.pid))
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert code == 1 and f"kill {stranger.pid} && pcmig turn-back" in text
    book.write(dataclasses.replace(owned(stranger.pid), caller={"nova": {"side": "source"}}))
    code, text = pcmig(capsys, "turn-back", "g1")
    assert code == 1 and f"openstack pcmig turn-back {fake.UUID}" in text and fake.turned == []


def has_turned_back(entry: Entry | None, source: Any) -> bool:
    return turn_back.has_turned_back(entry, source, CROSSED.source_uri, CROSSED.uuid)


def test_the_mark_stays_with_that_very_qemu(book: Journal) -> None:
    marked = dataclasses.replace(CROSSED, turned_back={"id": 1, "boot": turn_back.boot_id(), "done": True})
    assert has_turned_back(marked, half(BROKEN))
    for entry in (None, CROSSED):
        assert not has_turned_back(entry, half(TURNED)), "it may be a destination: QEMU says no"
    fake.look.update({"half": "runs", "run_state": "running"})
    assert has_turned_back(CROSSED, half(TURNED)), "a migration that went out"
    assert not has_turned_back(marked, half({**BROKEN, "id": 2})), "another QEMU"
    assert not has_turned_back(marked, half(GONE))
    before = dataclasses.replace(marked, turned_back={"id": 1, "boot": "another", "done": True})
    assert not has_turned_back(before, half(BROKEN)), "another boot"
    begun = dataclasses.replace(marked, turned_back={"id": 1, "boot": turn_back.boot_id(), "done": False})
    assert has_turned_back(begun, half(BROKEN)), "whoever let it go on died over it, unnoticed"
    fake.look.update({"half": "stopped", "run_state": "paused"})
    assert has_turned_back(begun, half(BROKEN)), "and somebody stopped it"
    assert not has_turned_back(CROSSED, half(BROKEN)), "of that nobody of ours knows"
    fake.look.update({"half": "waits", "run_state": "finish-migrate"})
    assert not has_turned_back(begun, half(BROKEN)), "begun, and not done"


def test_nobody_gets_ahead_of_a_word(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    """Modes of what happens by itself: only where nothing is lost."""
    book.write(CROSSED)

    def ask() -> Any:
        return fake.half(URI, fake.UUID), fake.half(fake.DEST, fake.UUID)

    def by_itself(mode: Any, unrun: bool) -> bool:
        try:
            turn_back.turn_back(
                book,
                CROSSED,
                ask=ask,
                now=lambda: "2026-11-29T10:00:05.000Z",
                unrun=unrun,
                no_process=True,
                mode=mode,
            )
        except turn_back.RefusedError as err:
            assert "does not turn back by itself" in str(err)
            return False
        return True

    assert not by_itself("never", True) and not by_itself("ask", True) and not by_itself("unrun", False)
    assert fake.turned == []
    assert by_itself("unrun", True) and len(fake.turned) == 1


@pytest.mark.parametrize(("noted", "found"), [(HOST, "another"), (HOST, None), (None, HOST)])
def test_absent_counts_only_from_the_host_to_which_it_went(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    monkeypatch: pytest.MonkeyPatch,
    noted: str | None,
    found: str | None,
) -> None:
    """A mistyped address, or one that changed hands, truthfully has nothing of the guest."""
    monkeypatch.setattr(turn_back, "host_of", lambda uri: found)
    book.write(dataclasses.replace(CROSSED, dest_host=noted))
    code, text = pcmig(capsys, "turn-back", "g1")
    assert code == 3 and "not known to be the one" in text and fake.turned == []


@pytest.mark.parametrize("seen", [{}, {"unrun": True}, {"dest_ended": True}])
def test_absent_is_no_proof_where_nobody_saw_the_process_end(
    capsys: pytest.CaptureFixture[str], book: Journal, seen: dict[str, Any]
) -> None:
    """A libvirtd that lost its books says so of a QEMU that lives. The one that had the half says it of its
    end, and that the guest never ran there takes the event of that."""
    book.write(dataclasses.replace(CROSSED, **seen))
    code, text = pcmig(capsys, "turn-back", "g1")
    assert (code, bool(fake.turned)) == ((0, True) if seen else (3, False)), text
    if not seen:
        assert "nobody saw its QEMU end" in text and fake.UUID in text
        assert "pcmig turn-back --destination-is-dead" in text


@pytest.mark.parametrize("moved", [{"remaining_bytes": 0}, {"sent_bytes": 8193}, {"requests": 3}])
def test_a_stream_that_flows_is_stronger_than_a_word(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch, moved: dict[str, int]
) -> None:
    sends = {**LOOK, "half": "sends"}
    looks = iter([sends, {**sends, **moved}])
    monkeypatch.setattr(fake, "turn_back_look", lambda uri, uuid: next(looks))
    fake.dest_jobs[:] = [DOWN]
    book.write(CROSSED)
    words = ("--destination-is-dead", "--guest-is-nowhere-else")
    code, text = pcmig(capsys, "turn-back", *words, "g1")
    assert code == 3 and "its QEMU lives" in text and fake.turned == []


@pytest.mark.parametrize("done", [False, True])
def test_one_that_was_stopped_goes_on(capsys: pytest.CaptureFixture[str], book: Journal, done: bool) -> None:
    """Whoever let it go on died over its gdb stub, say. All was decided then, of its disks too."""
    facts = {"answer": "go", "disks": "shared"}
    mark = {"id": 1, "boot": turn_back.boot_id(), "at": "then", "done": done, "facts": facts}
    fake.look.update({"half": "stopped", "run_state": "paused", "remaining_bytes": 0})
    fake.jobs[:] = [{**BROKEN, "id": 2}]
    book.write(dataclasses.replace(CROSSED, dest_ended=True, turned_back=mark))
    code, text = pcmig(capsys, "turn-back", "g1")
    assert code == 3 and "no half" in text and fake.turned == [], "another QEMU"
    fake.jobs[:] = [BROKEN]
    code, text = pcmig(capsys, "turn-back", "g1")
    assert code == 0 and "something stopped it" in text and fake.turned == [(URI, fake.UUID)], text
    entry = book.read(fake.UUID)
    assert entry is not None and entry.turned_back == {**mark, "done": True, "steps": ["it runs"]}


def test_what_a_dead_process_left_open_is_closed(capsys: pytest.CaptureFixture[str], book: Journal) -> None:
    mark = {"id": 1, "boot": turn_back.boot_id(), "at": "then", "done": True, "steps": ["it ran"]}
    fake.look.update({"half": "runs", "run_state": "running"})
    fake.jobs[:] = [TURNED]
    book.write(dataclasses.replace(CROSSED, turned_back=mark))
    code, text = pcmig(capsys, "turn-back", "g1")
    assert code == 0 and fake.turned == [(URI, fake.UUID)], text
    entry = book.read(fake.UUID)
    assert entry is not None and entry.turned_back and entry.turned_back["steps"] == ["it ran"]


def test_a_dead_destination_does_not_say_that_the_guest_did_not_move_on(
    capsys: pytest.CaptureFixture[str], book: Journal
) -> None:
    fake.look["remaining_bytes"] = 0
    fake.dest_jobs[:] = [DOWN]
    book.write(CROSSED)
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert code == 3 and "--guest-is-nowhere-else" in text and fake.turned == []
    assert pcmig(capsys, "turn-back", "--destination-is-dead", "--guest-is-nowhere-else", "g1")[0] == 0


def test_a_silent_source_does_not_hide_that_it_turned_back() -> None:
    """Its record has the mark: resuming the migration would mix two pasts of the guest."""
    fake.jobs[:] = [DOWN]
    marked = dataclasses.replace(CROSSED, turned_back={"id": 1, "boot": "b", "done": True})
    assert command.bound(URI, fake.UUID, "g1", marked) is not None
    assert command.bound(URI, fake.UUID, "g1", CROSSED) is None


def shown(capsys: pytest.CaptureFixture[str]) -> tuple[int, str, list[str]]:
    """`pcmig status`: what it says, and what it has typed."""
    code, text = pcmig(capsys, "status", "-c", URI, "g1")
    return code, text, [line.strip() for line in text.splitlines() if line.startswith("  pcmig turn-back")]


@pytest.mark.parametrize(
    ("destination", "entry", "xml", "look", "words"),
    [
        (GONE, {}, "", {}, [turn_back.DEAD]),
        (GONE, {"dest_ended": True}, "", {}, []),
        (GONE, {"dest_ended": True, "dest_host": None}, "", {}, [turn_back.DEAD]),
        (GONE, {"unrun": True}, DISK, {"remaining_bytes": 0}, []),
        (GONE, {"dest_ended": True}, DISK, {}, [turn_back.NEWER_DISKS]),
        (GONE, {}, DISK, {"remaining_bytes": 0}, list(OPTIONS)),
        (DOWN, {}, "", {}, [turn_back.DEAD]),
        (DOWN, {}, DISK, {}, [turn_back.DEAD, turn_back.NEWER_DISKS]),
        # Where it cannot turn back at all no word is named.
        (GONE, {"dest_ended": True}, DISK, {"sets_active": False}, []),
    ],
)
def test_what_is_printed_has_the_words_that_it_takes(
    capsys: pytest.CaptureFixture[str],
    book: Journal,
    monkeypatch: pytest.MonkeyPatch,
    destination: Any,
    entry: dict[str, Any],
    xml: str,
    look: Any,
    words: list[str],
) -> None:
    with_disk(monkeypatch, xml)
    fake.look.update(look)
    fake.dest_jobs[:] = [destination]
    book.write(dataclasses.replace(CROSSED, **entry))
    code, text, [line] = shown(capsys)
    typed = shlex.split(line)
    assert code == 3 and {word for word in typed if word in OPTIONS} == set(words), text
    assert all(f"{word} is your word: " in text for word in words if destination is GONE), text
    code, text = pcmig(capsys, *typed[1:])
    assert (code, bool(fake.turned)) == ((3, False) if look.get("sets_active") is False else (0, True)), text


def test_each_host_is_asked_once_for_what_a_command_lacks(
    capsys: pytest.CaptureFixture[str], book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of three words was found by asking anew: a host that is slow to answer was waited for as often."""
    asked: list[str] = []

    def counted(module: Any, name: str) -> None:
        before = getattr(module, name)

        def ask(*words: Any) -> Any:
            asked.append(name)
            return before(*words)

        monkeypatch.setattr(module, name, ask)

    for name in ("turn_back_look", "domain_xml"):
        counted(fake, name)
    counted(turn_back, "host_of")
    with_disk(monkeypatch)
    fake.look.update({"remaining_bytes": 0})
    book.write(CROSSED)
    _, text, [line] = shown(capsys)
    assert all(word in line for word in OPTIONS), text
    assert sorted(asked) == ["domain_xml", "host_of", "turn_back_look"]


def test_a_definition_that_is_left_at_the_destination(
    capsys: pytest.CaptureFixture[str], book: Journal
) -> None:
    """From it a second copy could be started, by that host itself where it has autostart."""
    there = {**answer("none", "absent"), "defined": True}
    fake.dest_jobs[:] = [there]
    book.write(CROSSED)
    undefine = f"virsh -c {fake.DEST} undefine --keep-nvram --keep-tpm g1"
    code, text = pcmig(capsys, "turn-back", "--destination-is-dead", "g1")
    assert (
        code == 0 and "with autostart is started when that host comes up" in text and f"  {undefine}" in text
    )
    fake.look.update({"half": "runs", "run_state": "running"})
    fake.jobs[:] = [TURNED]
    code, text = pcmig(capsys, "status", "-c", URI, "g1")
    assert code == 3 and "cannot be migrated" in text and f"  {undefine}" in text
    # Powered off: the record stays for as long as that definition does.
    fake.jobs[:] = [{**answer("none", "absent"), "defined": True, "id": None}]
    code, text = pcmig(capsys, "status", "-c", URI, "g1")
    assert (
        code == 3 and "was powered off since; the destination still has" in text and f"  {undefine}" in text
    )
    fake.dest_jobs[:] = [GONE]
    code, text = pcmig(capsys, "status", "-c", URI, "g1")
    assert code == 0 and "its record is gone" in text and book.read(fake.UUID) is None
