# SPDX-License-Identifier: Apache-2.0
"""`pcmig status`: the migrations that this host knows of, and what each of them needs."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from pcmig import _core, turn_back
from pcmig.cli import evidence
from pcmig.cli.base import (
    Command,
    CommandError,
    ExitCode,
    default_connect,
    given,
    given_uri,
    is_terminal,
    make_console,
)
from pcmig.cli.books import add_journal, books
from pcmig.cli.job import HALVES
from pcmig.cli.record import choices, forget_in, is_called, is_uuid, resume_command, resume_in, watch_command
from pcmig.cli.turn_back import BOUND, LEFT_DEFINED, cycled, undefine
from pcmig.journal import Entry, Journal, JournalError
from pcmig.shadow import Shadow, sample_line
from pcmig_common import phases

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1

# So long the hosts have to answer, all together; who does not is "unknown". A host that does not take a
# connection leaves time to ask the other one.
PATIENCE_S = 15.0
CONNECT_S = 5.0

# Situations of the core (core/situation.h) in words for a column.
PHASES = {
    "precopy": "pre-copy",
    "switching": "switching",
    "postcopy": "post-copy",
    "interrupted": "interrupted",
    "cut-off": "cut off",
    "at-source": "ended, at the source",
    "leftover": "ended, at the source",
    "arrived": "arrived",
    "at-destination": "ended, at the destination",
    "runs-at-source": "ended, at the source",
    "runs-at-destination": "ended, at the destination",
    "handed-over": "handed over",
    "half-lost": "half lost",
    "turned-back": "turned back",
    "ended": "shut down",
}

# What `pcmig resume` brings to its end, or closes the books of. Everything else is for an operator.
# (It waits for a host that does not answer.)
RESUMABLE = (
    "precopy",
    "switching",
    "postcopy",
    "interrupted",
    "cut-off",
    "runs-at-source",
    "runs-at-destination",
    "silent",
)
# What goes on by itself, though nobody steers it.
MOVING = ("precopy", "switching", "postcopy")
ENDED = ("at-source", "at-destination", "home-source", "home-destination")

Row = dict[str, Any]


class Status(Command):
    """show the migrations in the journal and on this host

    Both hosts are asked for their half of each guest, and what they say is put together: how the migration
    stands, where the newer memory is, who looks after it, and what to type next. Nothing is changed.
    """

    epilog = (
        "exit codes: 0 nothing needs an operator; 1 DOMAIN does not migrate, or libvirt could not be asked; "
        "2 usage; 3 a guest needs an operator"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "-c",
            "--connect",
            metavar="URI",
            type=given_uri,
            default=default_connect(),
            help="libvirt of this host (default: $LIBVIRT_DEFAULT_URI, or qemu:///system)",
        )
        parser.add_argument(
            "domain", type=given, nargs="?", metavar="DOMAIN", help="this guest only: name or UUID"
        )
        add_journal(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        rows, problems = gather(books(args.journal), args.connect, args.domain)
        if args.json:
            report = {"schema": SCHEMA, "command": "status", "migrations": rows, "problems": problems}
            print(json.dumps(report, indent=2))
        else:
            show(rows, problems)
        if not rows and (args.domain or problems):
            reason = f"no migration of {args.domain} is known here" if args.domain else "nothing is known"
            raise CommandError("; ".join([reason, *problems]) if args.json else reason)
        return ExitCode.NEEDS_OPERATOR if any(row["needs_operator"] for row in rows) else ExitCode.DONE


def gather(journals: list[Journal], uri: str, domain: str | None) -> tuple[list[Row], list[str]]:
    """A row for each migration, and what could not be found out."""
    entries: list[tuple[Journal, Entry]] = []
    errors: list[JournalError] = []
    for book in journals:
        there, broken = book.all()
        entries += [(book, entry) for entry in there]
        errors += broken
    problems = [str(error) for error in errors]
    _core.set_connect_timeout(round(CONNECT_S * 1000))
    try:
        local: list[_core.Migrating] = _core.migrations(uri)
    except _core.LibvirtError as err:
        local = []
        problems.append(str(err))
    known = {entry.uuid for _, entry in entries}
    untold = [found for found in local if found["job_active"] is None]
    local = [found for found in local if found["job_active"] is not None]
    problems += [
        f"whether {found['name']} migrates is not known: QEMU does not answer libvirt at {uri}"
        for found in untold
        if found["uuid"] not in known and is_asked_for(found, domain)
    ]
    todo = [
        Todo(
            lambda entry=entry, book=book: of_entry(book, entry),  # type: ignore[misc]
            lambda entry=entry, book=book: of_entry(book, entry, evidence.of_entry(entry, evidence.untold)),  # type: ignore[misc]
        )
        for book, entry in entries
        if domain is None or is_called(entry, domain)
    ]
    todo += [
        Todo(lambda found=found: of_host(uri, found))  # type: ignore[misc]
        for found in local
        if found["uuid"] not in known and is_asked_for(found, domain)
    ]
    return at_once(todo, problems), problems


def is_asked_for(found: _core.Migrating, domain: str | None) -> bool:
    return domain in (None, found["name"]) or is_uuid(str(domain), found["uuid"])


class Todo(NamedTuple):
    ask: Callable[[], Row]
    instead: Callable[[], Row] | None = None  # of hosts that do not answer in time; None = there is no row


def at_once(todo: list[Todo], problems: list[str]) -> list[Row]:
    """What there is to do. Each has a thread of its own: one host that hangs delays no other, and all of
    them together no longer than PATIENCE_S."""
    rows: list[Row | None] = [None] * len(todo)

    def call(number: int) -> None:
        try:
            rows[number] = todo[number].ask()
        except Exception as err:  # a thread of its own would only print it
            problems.append(f"{type(err).__name__}: {err}")

    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(len(todo))]
    end_s = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    late = [each for each, thread in zip(todo, threads, strict=True) if thread.is_alive()]
    done = [row for row in rows if row is not None]
    done += [each.instead() for each in late if each.instead is not None]
    left_out = sum(each.instead is None for each in late)
    if left_out:
        problems.append(f"{left_out} of {len(todo)} migrations are left out: libvirt does not answer")
    return done


def percent(uri: str, uuid: str, source: _core.Half, entry: Entry | None) -> int | None:
    """How much of the guest's memory has crossed in post-copy; in pre-copy how far the migration is, as far
    as one look tells."""
    if entry is not None and entry.recovery and source["half"] == "postcopy-failed":
        permille = entry.recovery.get("permille")
        # 0: of a process that took it over like this, and never saw a figure.
        return permille // 10 if permille and isinstance(permille, int) else None
    # Where a job is known to run, asking for it does not block.
    if source["half"] != "postcopy" and not source["job_active"]:
        return None
    try:
        sample = _core.job_status(uri, uuid)["sample"]
    except _core.LibvirtError:
        return None
    if not sample or not sample.get("memory_total_bytes"):
        return None
    if source["half"] != "postcopy":
        seen = Shadow()
        seen.feed([sample_line(sample.get("elapsed_ms", 0) * 1000, sample)])
        return seen.look()["progress_permille"] // 10
    total, left = sample["memory_total_bytes"], sample["memory_remaining_bytes"]
    return phases.arrived_permille(total, left) // 10


def of_entry(book: Journal, entry: Entry, seen: evidence.Evidence | None = None) -> Row:
    """A migration of BOOK, of which the hosts say what was SEEN; None: they are asked."""
    seen = seen or evidence.of_entry(entry)
    source, destination = seen.source, seen.destination
    gone = cycled(book, entry, source, destination, seen.asked)
    there = entry.engine.get("dest_name")
    # Of two on record with this name, one is of a guest that was there before: a name would say neither.
    namesakes = [
        other for other in book.all()[0] if (other.name, other.source_uri) == (entry.name, entry.source_uri)
    ]
    called = entry.uuid if len(namesakes) > 1 else _core.guest_word(entry.name, entry.uuid)
    view = _core.guard(
        side="source",
        act="migrate-resume",
        **seen.arguments(),
        guest=entry.uuid if there not in (None, entry.name) else called,
        source_uri=entry.source_uri,
        dest_uri=entry.dest_uri,
    )
    halves = (source, destination)
    view["advice"], needed = turn_back.with_words(view["advice"] or "", entry, halves, seen.asked)
    keeper = entry.keeper
    row: Row = {
        "uuid": entry.uuid,
        "name": entry.name,
        "dest_name": there,
        "source_uri": entry.source_uri,
        "dest_uri": entry.dest_uri,
        "started": entry.started,
        "journal": True,
        "phase": "held" if entry.held and view["situation"] == "interrupted" else view["situation"],
        "source": source["half"],
        "destination": destination["half"],
        "newer_memory": view["memory"],
        "percent": percent(entry.source_uri, entry.uuid, source, entry),
        "pid": keeper.pid if keeper else None,
        "program": entry.caller.get("program"),
        "recovery": entry.recovery["text"]
        if keeper and entry.recovery and entry.recovery.get("text")
        else None,
        "text": "",
        "type": None,
        "otherwise": {},
        "needs_operator": False,
    }
    advise(row, view, resume_in(book, row["source_uri"], called, row["dest_uri"]))
    for said, why in needed.items():
        row["text"] += f"; {said} is your word: {why}"
    left_defined(row, entry, seen)
    if isinstance(entry.caller.get("nova"), dict) and not row["pid"]:
        advise_novas(row, entry.caller["nova"].get("side"))
    if gone:
        row["text"] = (
            "the guest turned back, and was powered off since: it is as any other, and its record is gone"
        )
        row["type"], row["otherwise"], row["needs_operator"] = None, {}, False
    for key, text in row["otherwise"].items():
        row["otherwise"][key] = forget_in(book, text)
    row["type"] = forget_in(book, row["type"]) if row["type"] else None
    return row


def left_defined(row: Row, entry: Entry, seen: evidence.Evidence) -> None:
    """What to do with a definition at the destination of a guest that turned back."""
    if entry.turned_back is None or entry.turned_back.get("done") is not True:
        return
    if not seen.destination["defined"] or seen.destination["half"] != "absent":
        return
    if not seen.turned_back:
        if seen.source["half"] == "unknown":
            return
        row["text"] = "the guest turned back, and was powered off since"
    row["text"] += f"; {LEFT_DEFINED}"
    row["type"], row["otherwise"], row["needs_operator"] = undefine(entry), {}, True


def advise(row: Row, view: _core.Permission, resume: str) -> None:
    """Fills in what to say and what to type."""
    situation = view["situation"]
    row["text"] = next(each["text"] for each in _core.situations() if each["name"] == situation)
    if situation == "half-lost":
        gone, kept = (
            (row["source_uri"], row["dest_uri"])
            if row["source"] in ("absent", "dead")
            else (row["dest_uri"], row["source_uri"])
        )
        row["text"] = (
            f"the guest can turn back: the QEMU with its half at {gone} is gone, and with it what it did "
            f"since the switch; the half at {kept} is whole as it was then"
            if kept == row["source_uri"]
            else f"the guest cannot be saved: the QEMU with its half at {gone} is gone, and with it memory "
            f"that nobody else had; the half at {kept} is left untouched"
        )
        row["type"], row["otherwise"] = choices(view["advice"] or "")
        row["needs_operator"] = True
    elif situation == "turned-back":
        row["text"] += f"; {BOUND}"
        row["type"], row["otherwise"] = choices(view["advice"] or "")
        if view["rest"]:
            row["text"] += "; what the destination has of it is of the past, and is to go"
            row["type"], row["needs_operator"] = view["rest"], True
            row["otherwise"] = {}
    elif situation == "ended":
        # Nothing is lost; where a half is left, it is ended first.
        row["type"] = " && ".join(filter(None, [view["rest"], view["advice"]]))
    elif situation in ENDED:
        row["type"] = None if row["pid"] else resume
        row["text"] += "" if row["pid"] else "; resume tells how it ended, and closes the record"
    elif row["pid"]:
        row["text"] = row["recovery"] or row["text"]
        row["type"] = resume if row["phase"] == "held" else watch_command(row["source_uri"], word(row))
    elif situation in RESUMABLE:
        row["type"], row["needs_operator"] = resume, situation not in MOVING
        row["otherwise"] = choices(view["advice"] or "")[1]
        row["text"] += "; nobody looks after it"
    else:
        row["type"], row["otherwise"] = choices(view["advice"] or "")
        row["needs_operator"] = True


def advise_novas(row: Row, side: str | None) -> None:
    """Corrects that for a migration of Nova's that no process of this host looks after."""
    if row["phase"] in ENDED:
        row["text"] = row["text"].partition("; resume tells")[0] + "; nova-compute closes the record"
        row["type"] = None
    elif row["phase"] not in RESUMABLE:
        return
    elif side == "destination":
        # Of two processes that resume it each would undo what the other does.
        row["text"] = row["text"].partition("; nobody looks")[0] + (
            "; nova-compute at its source looks after it"
            if row["source"] != "unknown"
            else "; nova-compute there goes on when it does"
        )
        row["type"] = None if row["source"] == "unknown" else watch_command(row["source_uri"], word(row))
        row["needs_operator"] = row["source"] == "unknown"
    else:
        row["text"] += ", but nova-compute will as soon as it runs; without it"


def of_host(uri: str, found: _core.Migrating) -> Row:
    """A migration that the journal does not know: somebody else's, and only this host's half of it."""
    job = _core.job_status(uri, found["uuid"]) if found["half"] in ("running", "postcopy") else None
    # Only the source has statistics.
    source = found["job_active"] or (job is not None and job["sample"] is not None)
    interrupted = found["half"] == "postcopy-failed"
    phase = {"postcopy": "postcopy", "postcopy-failed": "interrupted"}.get(found["half"])
    phase = phase or ("precopy" if found["job_active"] else "switching")
    half: _core.Half = {
        "half": "unknown",
        "job_active": True if source else None,
        "shut_down": False,
        "defined": False,
        "runs": False,
        "running": False,
        "id": None,
    }
    row: Row = {
        "uuid": found["uuid"],
        "name": found["name"],
        "dest_name": None,
        "source_uri": uri if source else None,
        "dest_uri": None,
        "started": None,
        "journal": False,
        "phase": phase,
        "source": found["half"] if source else "unknown",
        "destination": "unknown" if source else found["half"],
        "newer_memory": "both" if phase in ("postcopy", "interrupted") else "unknown",
        "percent": percent(uri, found["uuid"], half, None) if source else None,
        "pid": None,
        "program": None,
        "recovery": None,
        "text": "the journal does not know it: somebody else's, or begun on another host",
        "type": watch_command(uri, _core.guest_word(found["name"], found["uuid"])),
        "otherwise": {},
        "needs_operator": interrupted,
    }
    if phase == "precopy":
        row["newer_memory"] = "source"
    if interrupted:
        row["source"], row["destination"] = "unknown", "unknown"
        row["text"] = f"post-copy is interrupted, {uri} says; the journal does not know whose it is"
        row["type"] = resume_command("SOURCEURI", word(row), "DESTURI")
    return row


def word(row: Row) -> str:
    """How to name the guest of ROW in a command."""
    return _core.guest_word(row["name"], row["uuid"])


def show(rows: list[Row], problems: list[str]) -> None:
    """A table, and below it what each migration needs."""
    console = make_console()
    if rows:
        table(console, rows)
    elif not problems:
        print("no migrations")
    for row in rows:
        console.print(f"\n{row['name']}: {row['text']}", soft_wrap=True)
        if row["type"]:
            console.print(f"  {row['type']}", soft_wrap=True)  # one line, to be copied
        for when, command in row["otherwise"].items():
            console.print(f"{'or, ' if row['type'] else ''}if {when}:\n  {command}", soft_wrap=True)
    for problem in problems:
        console.print(f"\nnote: {problem}", soft_wrap=True)


def table(console: Console, rows: list[Row]) -> None:
    """One line for each migration. Off a terminal, columns are separated by tabs."""
    titles = ("guest", "phase", "done", "source", "destination", "newer memory", "looked after by")
    halves = {**HALVES, "unknown": "unknown"}
    lines: list[tuple[str, ...]] = [
        (
            str(row["name"]) + (f" ({row['dest_name']} there)" if row["dest_name"] else ""),
            str(PHASES.get(row["phase"], row["phase"])),
            "" if row["percent"] is None else f"{row['percent']}%",
            f"{row['source_uri'] or '?'}: "
            + ("running again" if row["phase"] == "turned-back" else halves[row["source"]]),
            f"{row['dest_uri'] or '?'}: {halves[row['destination']]}",
            str(row["newer_memory"]),
            f"process {row['pid']}" if row["pid"] else "nobody",
        )
        for row in rows
    ]
    if not is_terminal(console.file):  # type: ignore[arg-type]
        for line in (titles, *lines):
            print("\t".join(line))
        return
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        grid.add_column(title, overflow="fold")
    for line in lines:
        grid.add_row(*line)
    console.print(grid)
