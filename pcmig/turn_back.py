# SPDX-License-Identifier: Apache-2.0
"""Turning back: a guest goes on at the source from the moment of the switch, its other half being dead.

What both the command and nova-compute do for it: facts are collected from both hosts, asked twice, the core
decides (core/guard.h, core/turn_back.h), the journal hears of it before anything is done, and every step is
looked at. Blocking; whoever calls it looks after the migration (has claimed its entry in the journal).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

from pcmig import _core, guest
from pcmig.journal import Entry, Journal
from pcmig_common.turned_back import OPTIONS, Words

Answer = TypeVar("Answer")
Disks = Literal["none", "own", "shared"]
Mode = Literal["never", "unrun", "ask"]
MODES: tuple[Mode, ...] = ("never", "unrun", "ask")
NO_WORDS = Words()  # nobody vouches for anything

COMMAND = "pcmig turn-back"  # how the engine's command begins where only the source's half is left, too
DEAD, NEWER_DISKS, NOWHERE_ELSE = OPTIONS  # words of somebody's, as they are typed

# Between the two times that the hosts are asked.
AGAIN_S = 1.0

# Figures of a stream that stand still when nobody is at its other end (TurnBackLook).
STREAM: dict[Literal["remaining_bytes", "sent_bytes", "requests"], str] = {
    "remaining_bytes": "bytes left",
    "sent_bytes": "bytes sent",
    "requests": "pages asked for",
}

COPIES_DISKS = ("VIR_MIGRATE_NON_SHARED_DISK", "VIR_MIGRATE_NON_SHARED_INC")


class RefusedError(Exception):
    """The guest may not turn back, or could not; the text is a sentence without its full stop."""

    def __init__(self, reason: str, advice: str | None = None, word: str | None = None) -> None:
        super().__init__(reason)
        self.advice = advice  # commands that help, of the guard
        self.word = word  # the option with which somebody can take the risk


@dataclasses.dataclass(frozen=True)
class Facts:
    """What there is to decide by, as the report shows it."""

    source: str  # halves
    destination: str
    destination_is_dead: bool  # on somebody's word
    accept_newer_disks: bool
    nowhere_else: bool  # likewise: it was not whole at the destination and moved on from there
    unrun: bool  # it is certain that no instruction ran at the destination
    ran_at_most_s: float | None  # since the switch; None = not known
    disks: Disks
    disks_why: str  # "no disk that it writes to", "vda: shared"
    look: _core.TurnBackLook
    answer: str  # of the rule
    text: str


class Asked:
    """What the hosts of ENTRY say besides their halves, at one look: each is asked for each thing once,
    however often that is needed. One that does not answer holds up whoever asks."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._answers: dict[str, Any] = {}

    def dest_host(self) -> str | None:
        """Of the destination, as host_of()."""
        return self._once("dest_host", lambda: host_of(self._entry.dest_uri))

    def look(self) -> _core.TurnBackLook:
        """Of QEMU at the source. Raises LibvirtError."""
        return self._once("look", lambda: _core.turn_back_look(self._entry.source_uri, self._entry.uuid))

    def xml(self) -> str:
        """The guest's definition there. Raises LibvirtError."""
        return self._once("xml", lambda: _core.domain_xml(self._entry.source_uri, self._entry.uuid))

    def _once(self, what: str, ask: Callable[[], Answer]) -> Answer:
        if what not in self._answers:
            try:
                self._answers[what] = ask()
            except _core.LibvirtError as err:
                self._answers[what] = err
        answer = self._answers[what]
        if isinstance(answer, _core.LibvirtError):
            raise answer
        return cast("Answer", answer)


@dataclasses.dataclass(frozen=True)
class TurnedBack:
    facts: Facts
    nothing_lost: bool
    steps: list[str]
    entry: Entry  # with its mark


def mark(half: _core.Half, now: str) -> dict[str, Any]:
    """What the journal keeps of a guest that turned back: for as long as this very QEMU runs."""
    return {"id": half["id"], "boot": boot_id(), "at": now}


def boot_id() -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def host_of(uri: str) -> str | None:
    """The UUID by which the host at URI is known again, whatever its address; None = it does not say."""
    with contextlib.suppress(_core.LibvirtError):
        return _core.host_facts(uri)["host_uuid"]
    return None


def refuse_other_host(entry: Entry, asked: Asked) -> None:
    """Raises RefusedError unless it is the very host to which the guest of ENTRY went that says "absent".

    The journal has its UUID since the migration began. Where it has none, somebody's word is needed."""
    if entry.dest_host is None or asked.dest_host() != entry.dest_host:
        raise RefusedError(
            f"the host at {entry.dest_uri} has nothing of the guest, but it is not known to be the one to "
            "which the guest went",
            word=DEAD,
        )


def marked(entry: Entry | None, source: _core.Half) -> dict[str, Any] | None:
    """The mark of ENTRY, begun or done, if it is of the very QEMU that SOURCE is of."""
    noted = entry.turned_back if entry is not None else None
    if noted is None or source["id"] is None:
        return None
    return noted if (noted.get("id"), noted.get("boot")) == (source["id"], boot_id()) else None


def has_turned_back(
    entry: Entry | None, source: _core.Half, uri: str, uuid: str, asked: Asked | None = None
) -> bool:
    """Whether the guest UUID at the SOURCE of ENTRY (at URI) turned back and was not powered off since."""
    noted = marked(entry, source)
    if noted is not None and noted.get("done") is True:
        return True
    if noted is None and not source["runs"]:
        return False
    # An interrupted destination looks just like it; there may be no record, or one of an older migration.
    # And where it was let go on by a process that died over it, libvirt may say that it waits.
    try:
        half = (asked.look() if asked is not None else _core.turn_back_look(uri, uuid))["half"]
    except _core.LibvirtError:
        return noted is not None and source["runs"]
    return half == "runs" or (half == "stopped" and noted is not None)


def copies_disks(flags: int) -> bool:
    """Whether a migration with FLAGS copies disks."""
    return any(name in COPIES_DISKS for name in _core.flags_from_bits(flags).names)


def kind_of_disks(xml: str, flags: int, copied: list[str] | None) -> tuple[Disks, str]:
    """Whose the disks are that the guest of XML writes to, and why. FLAGS and COPIED (--migrate-disks) are
    the migration's."""
    copies = copies_disks(flags)
    own, shared = guest.own_and_shared(xml, copied if copies and copied else copies)
    if shared:
        return "shared", f"{', '.join(shared)}: not copied by the migration"
    if own:
        return "own", f"{', '.join(own)}: each host has its own"
    return "none", "no disk that it writes to"


def turn_back(
    book: Journal,
    entry: Entry,
    *,
    ask: Callable[[], tuple[_core.Half, _core.Half]],
    now: Callable[[], str],
    seen: tuple[_core.Half, _core.Half] | None = None,
    words: Words = NO_WORDS,
    unrun: bool = False,
    no_process: bool = False,
    mode: Mode | None = None,
    tell: Callable[[str], None] = lambda text: None,
    do: Callable[[str, str], list[str]] | None = None,
) -> TurnedBack:
    """Has the guest of ENTRY (of BOOK) go on at its source.

    ASK asks both hosts, the source first; NOW is the time for the journal; TELL hears of each step, in words.
    SEEN: what they said a moment ago, if that is known, which is then the first of two looks.
    WORDS: what somebody vouches for. UNRUN: it is certain that no instruction ran at the destination (status
    of the Migration, or the entry). NO_PROCESS: see ask_guard(). MODE: nobody asks, it is to happen by
    itself. DO: in the place of _core.turn_back, for whom the guest's own folder of libvirt is closed. Raises
    RefusedError, LibvirtError, JournalError.
    """
    saw_end = no_process or unrun
    source, destination = seen or ask()
    ask_guard(entry, (source, destination), words.destination_is_dead, saw_end)
    begun = marked(entry, source) is not None
    facts, rule = decide(entry, words, unrun, mode, now(), begun)
    if rule["answer"] == "done":
        return _done_before(book, entry, facts, rule, source, now())
    tell("asking both hosts once more")
    time.sleep(AGAIN_S)
    source, destination = ask()
    ask_guard(entry, (source, destination), words.destination_is_dead, saw_end)
    before = facts.look
    begun = marked(entry, source) is not None
    facts, rule = decide(entry, words, unrun, mode, now(), begun)
    refuse_living(before, facts.look)
    if rule["answer"] == "done":
        return _done_before(book, entry, facts, rule, source, now())
    facts = dataclasses.replace(facts, source=source["half"], destination=destination["half"])
    # Whoever comes after a process that dies in the next moment knows what was begun, and why. What is known
    # of a guest that went on once, and was stopped, is known of the first time.
    if begun and facts.look["half"] == "stopped":
        noted = entry.turned_back or {}
    else:
        noted = mark(source, now()) | {"done": False, "facts": dataclasses.asdict(facts)}
        book.update(entry.uuid, turned_back=noted)
    tell(f"letting it go on at {entry.source_uri}: {rule['text']}")
    steps = (do or _core.turn_back)(entry.source_uri, entry.uuid)
    return _close(book, entry, facts, rule, noted, steps)


def _done_before(
    book: Journal,
    entry: Entry,
    facts: Facts,
    rule: _core.TurnBackRule,
    source: _core.Half,
    now: str,
) -> TurnedBack:
    """It runs already. Whoever let it go on may have died over it: what he left open is closed."""
    noted = marked(entry, source) or mark(source, now)
    again = _core.turn_back(entry.source_uri, entry.uuid)
    return _close(book, entry, facts, rule, noted, [str(step) for step in noted.get("steps", again)])


def refuse_living(before: _core.TurnBackLook, after: _core.TurnBackLook) -> None:
    """Raises RefusedError where memory flowed between two looks, whoever gave his word."""
    if before["half"] != "sends":
        return
    moved = [
        f"{before[figure]}, then {after[figure]} {what}"
        for figure, what in STREAM.items()
        if before[figure] is None or before[figure] != after[figure]
    ]
    if moved:
        raise RefusedError(
            "memory flows to the destination, so its QEMU lives, whatever its libvirt says "
            f"({'; '.join(moved)}); of a host that has just been switched off, type it again in a moment"
        )


def ask_guard(
    entry: Entry,
    halves: tuple[_core.Half, _core.Half],
    destination_is_dead: bool,
    no_process: bool = False,
    asked: Asked | None = None,
) -> None:
    """Raises RefusedError unless the guard lets it turn back. ASKED: what was asked at this look already.

    A libvirtd that lost its books says "absent" of a QEMU that lives. So that counts only where somebody saw
    the half's process end: NO_PROCESS (the destination's nova-compute looked), or the libvirt that looked
    after it (Entry.unrun, Entry.dest_ended). Otherwise it takes somebody's word."""
    source, destination = halves
    asked = asked or Asked(entry)
    turned_back = has_turned_back(entry, source, entry.source_uri, entry.uuid, asked)
    lost = source["half"] in ("postcopy", "postcopy-failed", "paused", "migrating")
    if destination["half"] == "absent" and lost and not destination_is_dead and not turned_back:
        refuse_other_host(entry, asked)
        if not (no_process or entry.unrun or entry.dest_ended):
            raise RefusedError(
                f"libvirt at {entry.dest_uri} has nothing of the guest, but nobody saw its QEMU end there, "
                f"and one that lost its books says so of a QEMU that lives (there: pgrep -fa {entry.uuid})",
                word=DEAD,
            )
    answer = _core.guard(
        side="source",
        act="turn-back",
        source=source["half"],
        destination=destination["half"],
        in_flight=True,
        job_active=source["job_active"],
        insist=destination_is_dead,
        destination_shut_down=destination["shut_down"],
        crossed=entry.crossed,
        turned_back=turned_back,
        guest=_core.guest_word(entry.name, entry.uuid),
        source_uri=entry.source_uri,
        dest_uri=entry.dest_uri,
    )
    if not answer["allowed"]:
        raise RefusedError(answer["reason"], answer["advice"])


def decide(
    entry: Entry,
    words: Words,
    unrun: bool,
    mode: Mode | None,
    now: str,
    begun: bool = False,
    asked: Asked | None = None,
) -> tuple[Facts, _core.TurnBackRule]:
    """The facts, and what follows from them. ASKED: see ask_guard(). Raises RefusedError, LibvirtError."""
    asked = asked or Asked(entry)
    look = asked.look()
    disks, why = kind_of_disks(
        asked.xml(),
        entry.engine.get("flags", 0),
        entry.engine.get("disks"),
    )
    unrun = unrun or entry.unrun
    rule = _core.turn_back_rule(
        half=look["half"],
        disks=disks,
        begun=begun,
        unrun=unrun,
        everything_sent=look["remaining_bytes"] == 0,
        sets_active=look["sets_active"],
        discards_memory=look["discards_memory"],
        nowhere_else=words.guest_is_nowhere_else,
        accept_newer_disks=words.accept_newer_disks,
        mode=mode or "never",
    )
    facts = Facts(
        source="",
        destination="",
        destination_is_dead=words.destination_is_dead,
        accept_newer_disks=words.accept_newer_disks,
        nowhere_else=words.guest_is_nowhere_else,
        unrun=unrun,
        ran_at_most_s=0.0 if unrun else seconds_between(entry.crossed_at, now),
        disks=disks,
        disks_why=why,
        look=look,
        answer=rule["answer"],
        text=rule["text"],
    )
    if rule["answer"] not in ("go", "done"):
        raise RefusedError(refusal(rule, facts), word=rule["word"])
    if mode is not None and rule["answer"] == "go" and not rule["by_itself"]:
        raise RefusedError(f"it does not turn back by itself (turn_back = {mode}): {rule['text']}")
    return facts, rule


def words_needed(
    entry: Entry,
    halves: tuple[_core.Half, _core.Half],
    given: tuple[str, ...] = (),
    asked: Asked | None = None,
) -> dict[str, str]:
    """The words without which the guest of ENTRY would be refused now, beside those that are GIVEN, and what
    asks for each. ASKED: see ask_guard()."""
    asked = asked or Asked(entry)
    needed: dict[str, str] = {}
    while True:
        said = {*given, *needed}
        try:
            ask_guard(entry, halves, DEAD in said, asked=asked)
            decide(entry, Words.of(said), False, None, "", marked(entry, halves[0]) is not None, asked)
        except RefusedError as err:
            if err.word is None or err.word in said:
                return needed
            needed[err.word] = str(err)
        except (_core.Error, guest.GuestXmlError):
            return needed
        else:
            return needed


def with_words(
    text: str, entry: Entry, halves: tuple[_core.Half, _core.Half], asked: Asked | None = None
) -> tuple[str, dict[str, str]]:
    """TEXT, whose `pcmig turn-back` of ENTRY has the words that it takes now; those that it lacked, and what
    asks for each. ASKED: see ask_guard()."""
    if f"{COMMAND} " not in text:
        return text, {}
    needed = words_needed(entry, halves, tuple(word for word in OPTIONS if word in text), asked)
    return text.replace(f"{COMMAND} ", " ".join([COMMAND, *needed, ""])), needed


def refusal(rule: _core.TurnBackRule, facts: Facts) -> str:
    """Why the rule refuses, with the figures and names behind it."""
    reason = rule["text"]
    if rule["answer"] == "no-half":
        reason += f" (run state {facts.look['run_state']}, migration {facts.look['migration']})"
    if rule["answer"] in ("old-qemu", "newer-disks"):
        reason += f" ({facts.disks_why}); its disks are as a power cut leaves them, and boot"
    return reason


def _close(
    book: Journal,
    entry: Entry,
    facts: Facts,
    rule: _core.TurnBackRule,
    noted: dict[str, Any],
    steps: list[str],
) -> TurnedBack:
    """It runs: the journal says so, for as long as that QEMU does. NOTED: its mark so far."""
    done = {"facts": dataclasses.asdict(facts)} | noted | {"done": True, "steps": steps}
    book.update(entry.uuid, turned_back=done, held=False, recovery=None)
    return TurnedBack(
        facts,
        rule["nothing_lost"],
        steps,
        dataclasses.replace(entry, turned_back=done, held=False, recovery=None),
    )


def seconds_between(since: str | None, until: str) -> float | None:
    """Of two times of the journal."""
    try:
        return round(
            (
                datetime.datetime.fromisoformat(until) - datetime.datetime.fromisoformat(since or "")
            ).total_seconds(),
            1,
        )
    except ValueError:
        return None
