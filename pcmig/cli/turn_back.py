# SPDX-License-Identifier: Apache-2.0
"""`pcmig turn-back`: a guest whose destination died in post-copy goes on at the source."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from typing import Any

from pcmig import _core, guest, journal, turn_back
from pcmig.cli import evidence
from pcmig.cli.base import Command, CommandError, ExitCode, say
from pcmig.cli.books import add_entry, find_entry
from pcmig.cli.forget import command_line, guest_word, told
from pcmig.cli.record import PROGRAM, choices, forget_in, utc_now
from pcmig.journal import Entry, Journal, Owner
from pcmig_common.turned_back import Words

# What libvirt refuses such a guest: it keeps the migration's job for as long as that QEMU runs.
BOUND = (
    "it turned back from a migration, and libvirt takes it for one that migrates until it has been powered "
    "off once: until then it cannot be migrated, suspended, saved or shut down through libvirt"
)


class TurnBack(Command):
    """have a guest go on at the source whose destination died in post-copy

    The source still has the guest as it was when it switched. What it did since, at the destination, is
    undone, and what it told others meanwhile stays told. Two copies must never run: the destination's host
    has to answer, and to have nothing of the guest any more. Of a host that does not answer, or where nobody
    saw the guest's QEMU end, somebody has to know: with --destination-is-dead you give your word that it is
    off, or fenced, and stays so until it is started anew, or that no QEMU of the guest runs there; if one
    does, the guest then runs twice.
    """

    epilog = (
        "exit codes: 0 it goes on at the source; 1 there is no such migration, or a process looks after it, "
        "or it could not be let go on; 2 usage; 3 it may not turn back, or not without a word of yours: "
        "nothing was done"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_entry(parser)
        parser.add_argument(
            turn_back.DEAD,
            action="store_true",
            help="my word that the destination is off or fenced, or that no QEMU of the guest runs there",
        )
        parser.add_argument(
            turn_back.NEWER_DISKS,
            action="store_true",
            help="go on although its disks may have been written to since: file systems may break",
        )
        parser.add_argument(
            turn_back.NOWHERE_ELSE,
            action="store_true",
            help="my word that it was not whole at the destination and moved on from there",
        )
        parser.add_argument("--json", action="store_true", help="print the facts and the decision as JSON")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        book, entry = find_entry(args.journal, args.domain, args.connect)
        refuse_kept(entry.keeper, entry)
        try:
            entry = book.claim(entry, utc_now())
        except journal.HeldError as err:
            refuse_kept(err.owner, err.entry)
        out = sys.stderr if args.json else sys.stdout
        words = Words.parsed(args)
        try:
            seen = evidence.of_entry(entry)
            for line in told(book, entry, seen):
                say(line, out)
            halves = (seen.source, seen.destination)
            done = turn_back.turn_back(
                book,
                entry,
                seen=halves,
                ask=evidence.Looks(entry, halves),
                now=utc_now,
                words=words,
                tell=lambda text: say(text, out),
            )
        except turn_back.RefusedError as err:
            raise refusal(book, entry, err, words.options(), halves) from err
        except guest.GuestXmlError as err:
            raise CommandError(f"{entry.name}: {err}") from err
        finally:
            book.update(entry.uuid, owner=None, owned=None)
        silent = done.facts.destination == "unknown"
        left = (evidence.untold if silent else evidence.ask)(entry.dest_uri, entry.uuid)
        for line in last_words(entry, done, left):
            say(line, out)
        if args.json:
            print(json.dumps(report(entry, done), indent=2))
        return ExitCode.DONE


def refuse_kept(keeper: Owner | None, entry: Entry) -> None:
    """Raises CommandError where a process looks after the migration: nobody takes it out of its hands."""
    if keeper is None:
        return
    word = guest_word(entry)
    if "nova" in entry.caller:
        helps = shlex.join(["openstack", "pcmig", "turn-back", entry.uuid])
        text = "have nova-compute do it"
    else:
        helps = f"kill {keeper.pid} && {shlex.join(['pcmig', 'turn-back', '-c', entry.source_uri, word])}"
        text = "end that one, which leaves the guest as it is"
    raise CommandError(
        f"process {keeper.pid} ({command_line(keeper)}) looks after the migration of {entry.name} to "
        f"{entry.dest_uri}, since {entry.owned or entry.started}: nothing was done; {text}:\n  {helps}"
    )


def refusal(
    book: Journal,
    entry: Entry,
    err: turn_back.RefusedError,
    words: list[str],
    halves: tuple[_core.Half, _core.Half],
) -> CommandError:
    """Says what helps. WORDS: the options that were given. HALVES: as they were at the first look."""
    lines = [f"{entry.name} does not turn back: {err}"]
    if err.advice:
        command, otherwise = choices(forget_in(book, err.advice))
        lines[0] += "; type:"
        lines.append(f"  {command}")
        for when, instead in otherwise.items():
            lines += [f"or, if {when}:", f"  {instead}"]
        if [half["half"] for half in halves] in HANGS:
            lines += [f"or, if {HANGING}:", f"  {end_there(entry)}", f"  {again(book, entry, words)}"]
    elif err.word:
        lines[0] += "; to start it from its disks instead, as after a power cut:"
        lines.append(f"  {forget_in(book, shlex.join(['pcmig', 'forget', entry.uuid]))}")
        lines.append("to take the risk:")
        lines.append(f"  {again(book, entry, [*words, err.word])}")
    else:
        lines[0] += "; to see what there is, and what to type:"
        lines.append(f"  {forget_in(book, shlex.join(['pcmig', 'forget', entry.uuid]))}")
    return CommandError("\n".join(lines), ExitCode.NEEDS_OPERATOR)


# Of an interrupted post-copy whose destination's half, by its libvirt's word, is there.
HANGS = (["postcopy-failed", "postcopy"], ["postcopy-failed", "postcopy-failed"])
HANGING = (
    "its QEMU there hangs, so that no resume gets through (what it did since the switch is lost then; end "
    "first whatever looks after the migration)"
)


def end_there(entry: Entry) -> str:
    """Ends its half at the destination, also one whose QEMU answers nobody."""
    there = entry.engine.get("dest_name") or entry.name
    return shlex.join(["virsh", "-c", entry.dest_uri, "destroy", _core.guest_word(there, entry.uuid)])


def again(book: Journal, entry: Entry, words: list[str]) -> str:
    folder = [] if book.folder == journal.default_folder() else ["--journal", str(book.folder)]
    return shlex.join(["pcmig", "turn-back", *folder, *words, entry.uuid])


def lost(done: turn_back.TurnedBack) -> str:
    """What turning back undid."""
    if done.nothing_lost:
        return "nothing is lost: no instruction of it ran at the destination"
    seconds = done.facts.ran_at_most_s
    time = f"{seconds:.0f} s at the most" if seconds is not None else "how long is not known"
    return f"what it did since the switch is undone ({time}), and what it told others meanwhile stays told"


def last_words(entry: Entry, done: turn_back.TurnedBack, destination: _core.Half) -> list[str]:
    off = power_off(entry.source_uri, guest_word(entry))
    lines = [
        f"done: {entry.name} goes on at {entry.source_uri} from the moment of the switch; {lost(done)}",
        f"note: {BOUND}; to power it off:",
        f"  {off}",
    ]
    if destination["defined"]:
        lines += [f"note: {LEFT_DEFINED}:", f"  {undefine(entry)}"]
    return lines


# What a migration that persists at the destination leaves there.
LEFT_DEFINED = (
    "the destination still has a definition of it, from which a second copy can be started, and with "
    "autostart is started when that host comes up; to remove it"
)


def undefine(entry: Entry) -> str:
    """Its definition at the destination."""
    there = entry.engine.get("dest_name") or entry.name
    word = _core.guest_word(there, entry.uuid)
    return shlex.join(["virsh", "-c", entry.dest_uri, "undefine", "--keep-nvram", "--keep-tpm", word])


def power_off(uri: str, word: str) -> str:
    """What still works: through QEMU, past libvirt's job."""
    return shlex.join(["virsh", "-c", uri, "qemu-monitor-command", word, "--hmp", "system_powerdown"])


def report(entry: Entry, done: turn_back.TurnedBack) -> dict[str, Any]:
    return {
        "schema": 1,
        "command": "turn-back",
        "uuid": entry.uuid,
        "name": entry.name,
        "source_uri": entry.source_uri,
        "dest_uri": entry.dest_uri,
        "nothing_lost": done.nothing_lost,
        "facts": dataclasses.asdict(done.facts),
        "steps": done.steps,
    }


def bound(uri: str, uuid: str, name: str, entry: Entry | None = None) -> str | None:
    """What to say of a guest that turned back and was not powered off since; None where it is none."""
    try:
        half = _core.half(uri, uuid)
    except _core.LibvirtError:
        # Silent: then the record counts, whose mark stays until the guest was seen to be powered off.
        if entry is None or not (entry.turned_back or {}).get("done"):
            return None
    else:
        if not turn_back.has_turned_back(entry, half, uri, uuid):
            return None
    return f"{name}: {BOUND}; to power it off:\n  {power_off(uri, _core.guest_word(name, uuid))}"


def refuse_bound(uri: str, uuid: str, name: str, entry: Entry | None = None) -> None:
    """Raises CommandError for such a guest: libvirt would refuse in words of its own."""
    if words := bound(uri, uuid, name, entry):
        raise CommandError(words)


def cycled(
    book: Journal,
    entry: Entry,
    source: _core.Half,
    destination: _core.Half,
    asked: turn_back.Asked | None = None,
) -> bool:
    """Whether ENTRY is of a guest that turned back and was powered off since, with nothing left of it at the
    destination: then its mark goes, which is the command's own to take away. As long as the destination has a
    definition of it, it is kept, which says so."""
    if (
        entry.turned_back is None
        or entry.turned_back.get("done") is not True
        or entry.keeper is not None
        or entry.caller.get("program") != PROGRAM
        or source["half"] == "unknown"
        or destination["half"] != "absent"
        or destination["defined"]
        or turn_back.has_turned_back(entry, source, entry.source_uri, entry.uuid, asked)
    ):
        return False
    book.remove_if(entry)
    return True
