# SPDX-License-Identifier: Apache-2.0
"""`pcmig report`: a page of what is kept of a migration that has ended."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pcmig.cli import report
from pcmig.cli.base import Command, CommandError, ExitCode, UsageError, given, given_path, natural, say
from pcmig.ledgers import opening
from pcmig.ledgers.store import Kept, LedgerError, Store, default_folders

EXTRA = (
    "a report is drawn with matplotlib, which is not installed: pip install 'pcmig[report]', or the package "
    "python3-matplotlib of the distribution. Without it there are --json and --list"
)


class Report(Command):
    """make a page of a migration that has ended

    Writes one HTML file that needs nothing else, of a kept ledger: time line, passes, rates, page requests,
    decisions with their reasons, silences, the ledger, both hosts' facts. FILE is a kept ledger, a trace, or
    what 'pcmig migrate --json' wrote; GUEST is a name or UUID, and means its last migration. With nothing
    named, lists the ledgers that are kept.
    """

    epilog = (
        "exit codes: 0 done; 1 a ledger cannot be read (the others are shown), none was found, or the page "
        "cannot be written; 2 usage"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "what",
            nargs="*",
            type=given_path,
            metavar="FILE|GUEST",
            help="which migrations; more than one: in order",
        )
        parser.add_argument(
            "--last", type=natural, metavar="N", help="the last N, of each GUEST or of this host"
        )
        parser.add_argument(
            "--compare", action="store_true", help="side by side instead of one after the other"
        )
        parser.add_argument(
            "--html",
            type=given_path,
            metavar="FILE",
            help="where the page goes ('-': stdout; default: GUEST-TIME.html in this folder, unless there is "
            "--pdf)",
        )
        parser.add_argument("--pdf", type=given_path, metavar="FILE", help="write it as a PDF ('-': stdout)")
        parser.add_argument("--json", action="store_true", help="print the ledgers themselves, as a list")
        parser.add_argument("--list", action="store_true", help="list the ledgers instead")
        parser.add_argument(
            "--ledgers",
            metavar="FOLDER",
            type=given_path,
            help="where kept ledgers are (default: $PCMIG_LEDGERS_DIR, or the command's own, and as root "
            "nova-compute's in /var/lib/nova)",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        if args.last == 0:
            raise UsageError("--last 0 is no migration")
        outputs = [name for name in ("html", "pdf") if getattr(args, name)]
        if args.json and (outputs or args.list):
            raise UsageError(f"--json contradicts --{'list' if args.list else outputs[0]}")
        if args.list and outputs:
            raise UsageError(f"--list contradicts --{outputs[0]}")
        if args.html and args.html == args.pdf:
            raise UsageError(f"--html and --pdf name the same file, {args.html!r}")
        for name in outputs:
            report.check_writable(getattr(args, name), f"--{name}")
        bare = not args.what and args.last is None and not outputs and not args.compare
        kept, errors = find(args, everything=bare or (args.list and args.last is None))
        shows = args.json or bare or args.list
        if not kept and not shows:
            raise none_left(args, errors)
        note(errors)
        if args.json:
            json.dump([each.document for each in kept], sys.stdout, indent=2)
            print()
        elif bare or args.list:
            errors += show(kept)
        else:
            errors += write(args, kept)
        return ExitCode.FAILED if errors else ExitCode.DONE


def find(args: argparse.Namespace, *, everything: bool) -> tuple[list[Kept], list[LedgerError]]:
    """What ARGS name, and what is wrong with it."""
    if args.ledgers and not os.path.isdir(args.ledgers):
        raise UsageError(f"--ledgers {args.ledgers!r} is no folder")
    stores = [Store(args.ledgers)] if args.ledgers else [Store(folder) for folder in default_folders()]
    found: list[Kept] = []
    errors: list[LedgerError] = []
    if not args.what:
        number = -1 if everything else args.last or 1
        for store in stores:
            _merge(store.newest(number), found, errors)
        found.sort(key=lambda kept: str(kept.document["ended"]))
        return (found if number < 0 else found[-number:]), errors
    for word in args.what:
        if os.sep in word or os.path.exists(word):
            try:
                found.append(opening.open_file(word))
                errors += map(LedgerError, (found[-1].document.get("more") or {}).get(opening.LACKS, ()))
            except LedgerError as err:
                errors.append(err)
        else:
            found += _of_guest(word, stores, -1 if args.list and not args.last else args.last or 1, errors)
    return found, errors


def _of_guest(guest: str, stores: Sequence[Store], number: int, errors: list[LedgerError]) -> list[Kept]:
    given(guest)
    found: list[Kept] = []
    broken: list[LedgerError] = []
    for store in stores:
        _merge(store.of_guest(guest), found, broken)
    errors += [error for error in broken if str(error) not in map(str, errors)]
    if not found:
        folders = " and ".join(str(store.folder) for store in stores)
        errors.append(
            LedgerError(
                f"no ledger of a guest {guest!r} is kept in {folders}; 'pcmig report' lists those there are"
            )
        )
    found.sort(key=lambda kept: str(kept.document["ended"]))
    return found if number < 0 else found[-number:]


def _merge(more: tuple[list[Kept], list[LedgerError]], found: list[Kept], errors: list[LedgerError]) -> None:
    found += more[0]
    errors += more[1]


def nothing(args: argparse.Namespace) -> str:
    if args.what:
        return f"nothing to show of {', '.join(args.what)}"
    folders = args.ledgers or " and ".join(str(folder) for folder in default_folders())
    return f"no ledger is kept in {folders}: each migration that ends leaves one, see pcmig migrate --help"


# What becomes of a document in which something is missing, or is of another type: the schema is not checked.
# Numbers that are too large for anything are arithmetic's.
DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def damaged(kept: Kept, err: Exception) -> LedgerError:
    """KEPT is left out."""
    return LedgerError(f"{kept.path} cannot be shown, it is damaged: {type(err).__name__}: {err}")


def note(errors: Sequence[LedgerError]) -> None:
    """Each of ERRORS is told beside what is shown."""
    for error in errors:
        say(f"pcmig: note: {error}", sys.stderr)


def none_left(args: argparse.Namespace, errors: Sequence[LedgerError]) -> CommandError:
    """ERRORS have left nothing to show; a single one is the command's own error, and told once."""
    if len(errors) == 1:
        return CommandError(str(errors[0]))
    note(errors)
    return CommandError(nothing(args))


def show(kept: Sequence[Kept]) -> list[LedgerError]:
    """One line for each. Returns what is wrong with ledgers that are left out."""
    rows: list[tuple[str, ...]] = [("ended", "guest", "from", "to", "end", "mode", "took", "stood still")]
    errors = []
    for each in kept:
        try:
            rows.append(_line(each.document))
        except DAMAGED as err:
            errors.append(damaged(each, err))
    note(errors)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows if len(rows) > 1 else ():
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print("".join(letter if letter.isprintable() else "?" for letter in line))  # a file may have anything
    if not kept:
        print("no ledger is kept here yet")
    return errors


def _line(document: dict[str, Any]) -> tuple[str, ...]:
    from pcmig.reports import facts

    source, destination = facts.ends(document)
    seen = document["ledger"]["totals"]["downtime_events_us"]
    return (
        facts.moment(document["ended"]),
        facts.name(document),
        source,
        destination,
        str(document["outcome"]),
        facts.mode(document),
        facts.duration(document["elapsed_ms"] * 1000),
        "-" if seen is None else facts.duration(seen),
    )


def write(args: argparse.Namespace, kept: Sequence[Kept]) -> list[LedgerError]:
    """The page, the PDF or both. Returns what is wrong with ledgers that are left out."""
    try:
        from pcmig.reports import page, paper
    except ImportError as err:
        if (err.name or "").partition(".")[0] != "matplotlib":
            raise
        raise CommandError(EXTRA) from err

    good, errors = [], []
    for each in kept:
        try:
            page.page([each.document], [str(each.path)])
        except DAMAGED as err:
            errors.append(damaged(each, err))
        else:
            good.append(each)
    if not good:
        raise none_left(args, errors)
    note(errors)
    documents, files = [each.document for each in good], [str(each.path) for each in good]
    html = args.html or (None if args.pdf else default_name(good))
    if html:
        make = page.comparison if args.compare else page.page
        try:
            text = make(documents, files)
        except DAMAGED as err:  # side by side more is asked of each
            names = ", ".join(files)
            raise CommandError(f"no page can be made of {names}: {type(err).__name__}: {err}") from err
        put(html, text.encode())
    if args.pdf:
        target = io.BytesIO()
        try:
            paper.write(target, documents, files, compare=args.compare)
        except DAMAGED as err:  # of what the page above does not show
            names = ", ".join(files)
            raise CommandError(f"no PDF can be made of {names}: {type(err).__name__}: {err}") from err
        put(args.pdf, target.getvalue())
    return errors


def default_name(kept: Sequence[Kept]) -> str:
    """g1-20261129T200038Z.html; of several "migrations-TIME.html" by the last one."""
    last = kept[-1].document
    name = str(last["guest"]["name"]) if len(kept) == 1 else "migrations"
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).lstrip(".-")
    time = str(last["ended"])[:19].replace("-", "").replace(":", "")
    return f"{safe or 'guest'}-{time}Z.html"


def put(path: str, data: bytes) -> None:
    """Writes DATA to PATH ('-': stdout), and says where it is."""
    if path == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        report.put(path, data)
    except OSError as err:
        raise CommandError(f"{path!r} cannot be written: {err.strerror}") from err
    print(path)
