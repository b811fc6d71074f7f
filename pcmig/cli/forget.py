# SPDX-License-Identifier: Apache-2.0
"""`pcmig forget`: throws the record of a migration away that nobody can bring to its end any more."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import time
from typing import Any

from pcmig import _core, journal, turn_back
from pcmig.cli import evidence
from pcmig.cli.base import Command, CommandError, ExitCode
from pcmig.cli.books import add_entry, find_entry
from pcmig.cli.evidence import Evidence
from pcmig.cli.job import HALVES
from pcmig.cli.record import choices, forget_in, watch_command
from pcmig.journal import Entry, Journal, Owner

# Before a guest that neither host has is believed to be gone.
AGAIN_S = 2.0


class Forget(Command):
    """throw away the record of a migration that cannot be brought to its end

    Both hosts are asked first, and what they still have of the guest is said. Nothing of it is touched: no
    half is ended, started or resumed, no definition or file removed; the commands for that are printed. Where
    something could be lost it takes --accept-loss. A migration that goes on, or that a process looks after,
    is not forgotten.
    """

    epilog = (
        "exit codes: 0 the record is gone; 1 there is none, or the migration goes on, or a process looks "
        "after it; 2 usage; 3 something could be lost: nothing was done, --accept-loss is needed"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_entry(parser)
        parser.add_argument(
            "--accept-loss", action="store_true", help="forget it even where something could be lost"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        book, entry = find_entry(args.journal, args.domain, args.connect)
        refuse_kept(entry.keeper, entry)
        seen = evidence.of_entry(entry)
        answer = ask_guard(entry, seen, args.accept_loss)
        if answer["situation"] in ("gone", "ended"):
            time.sleep(AGAIN_S)
            seen = evidence.of_entry(entry)
            answer = ask_guard(entry, seen, args.accept_loss)
        for line in told(book, entry, seen):
            print(line)
        if not answer["allowed"]:
            raise refusal(book, entry, seen, answer)
        try:
            book.remove_if(entry)
        except journal.HeldError as err:
            refuse_kept(err.owner, err.entry)
        print(f"forgotten: {answer['reason']}")
        for line in left(entry, seen, answer):
            print(line)
        return ExitCode.DONE


def ask_guard(entry: Entry, seen: Evidence, insist: bool) -> _core.Permission:
    return _core.guard(
        side=side_of(entry),
        act="forget",
        insist=insist,
        guest=guest_word(entry),
        source_uri=entry.source_uri,
        dest_uri=entry.dest_uri,
        **seen.arguments(),
    )


def refuse_kept(keeper: Owner | None, entry: Entry) -> None:
    """Raises CommandError where a process looks after the migration."""
    if keeper is None:
        return
    raise CommandError(
        f"process {keeper.pid} ({command_line(keeper)}) looks after the migration of {entry.name} to "
        f"{entry.dest_uri}, since {entry.owned or entry.started}: nothing was forgotten; to see it:\n"
        f"  {watch_command(entry.source_uri, guest_word(entry))}"
    )


def command_line(owner: Owner) -> str:
    try:
        words = pathlib.Path(f"/proc/{owner.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "it has just ended"
    text = " ".join(word.decode(errors="replace") for word in words if word)
    return text if len(text) <= 200 else f"{text[:200]}..."


def side_of(entry: Entry) -> Any:
    """Whose record it is: nova-compute keeps one on each host."""
    noted = entry.caller.get("nova")
    side = noted.get("side") if isinstance(noted, dict) else None
    return side if side in ("source", "destination") else "source"


def told(book: Journal, entry: Entry, seen: Evidence) -> list[str]:
    """What there is: both halves, definitions, the record."""
    lines = []
    for side, uri, half in (
        ("source", entry.source_uri, seen.source),
        ("destination", entry.dest_uri, seen.destination),
    ):
        state = "shut down there" if half["shut_down"] else HALVES[half["half"]]
        if half["half"] == "unknown":
            state = "does not answer"
        elif side == "source" and seen.turned_back:
            state = "running again, from the moment of the switch"
        lines.append(f"{side} {uri}: {state}{', has a definition' if half['defined'] else ''}")
    lines.append(f"record {book.path(entry.uuid)}: since {entry.started}")
    if seen.disks_copied:
        lines.append("its disks were copied: once a guest has switched, those at the destination are newer")
    return lines


def refusal(book: Journal, entry: Entry, seen: Evidence, answer: _core.Permission) -> CommandError:
    """Says what helps, and whether the operator's word would do."""
    reason = f"{entry.name} is not forgotten: {answer['reason']}"
    if not ask_guard(entry, seen, insist=True)["allowed"]:
        return CommandError(f"{reason}; type:\n  {forget_in(book, answer['advice'] or '')}")
    folder = [] if book.folder == journal.default_folder() else ["--journal", str(book.folder)]
    word = shlex.join(["pcmig", "forget", *folder, "--accept-loss", entry.uuid])
    halves = (seen.source, seen.destination)
    advice, _ = turn_back.with_words(answer["advice"] or "", entry, halves, seen.asked)
    helps = choices(advice)[0]
    if helps.startswith("pcmig resume ") and "nova" in entry.caller:
        reason += "; nova-compute at its source goes on by itself when it runs and both hosts answer;"
    elif not helps.startswith("pcmig forget "):
        reason += f"; type:\n  {helps}\nor"
    else:
        reason += ";"
    return CommandError(f"{reason} to take the loss:\n  {word}", ExitCode.NEEDS_OPERATOR)


def left(entry: Entry, seen: Evidence, answer: _core.Permission) -> list[str]:
    """What to type about what is still there."""
    lines = []
    if answer["rest"]:
        lines += [
            "what is left of it is of no use any more, and may still write to its disks; to end it, before "
            "the guest is started anywhere:",
            f"  {answer['rest']}",
        ]
    ends = ((entry.source_uri, seen.source), (entry.dest_uri, seen.destination))
    defined = [uri for uri, half in ends if half["defined"]]
    off = all(half["half"] in ("absent", "dead") for _, half in ends)
    if "nova" in entry.caller:
        if seen.disks_copied and side_of(entry) == "destination":
            folder = entry.caller["nova"].get("folder")
            where = "" if folder else f", below {entry.uuid}"
            lines.append(
                f"copies of its disks may be left here, in nova-compute's folder of instances{where}; Nova "
                "neither migrates the server to this host nor evacuates it here from its image as long as "
                f"they are{':' if folder else ''}"
            )
            lines += [f"  {shlex.join(['ls', '-d', str(folder)])}"] if folder else []
        if (
            seen.destination["defined"]
            and side_of(entry) == "destination"
            and answer["situation"] in ("half-lost", "gone", "cut-off", "interrupted")
        ):
            lines += [
                "its definition here, which must not be started, nor stand in the way of an evacuation:",
                f"  {virsh(entry.dest_uri, 'undefine', '--keep-nvram', '--keep-tpm', guest_word(entry))}",
            ]
        lines.append(
            "nova-compute follows within a minute; the other host's may have a record of its own: type this "
            "command there too. A server that is off is started again by: openstack server reboot --hard "
            f"{entry.uuid}"
        )
    elif len(defined) == 2:
        lines += ["both hosts have a definition, and one may be started twice; on the host that loses it:"]
        lines += [
            f"  {virsh(uri, 'undefine', '--keep-nvram', '--keep-tpm', guest_word(entry))}" for uri in defined
        ]
    elif defined and off:
        lines += ["to start it again from its disks:", f"  {virsh(defined[0], 'start', guest_word(entry))}"]
    return lines


def guest_word(entry: Entry) -> str:
    """As both hosts know it, and as no program takes it for anything else."""
    if entry.engine.get("dest_name") not in (None, entry.name):
        return entry.uuid
    return _core.guest_word(entry.name, entry.uuid)


def virsh(uri: str, *words: str) -> str:
    return shlex.join(["virsh", "-c", uri, *words])
