# SPDX-License-Identifier: Apache-2.0
"""The journals of this host: the command's own, and nova-compute's."""

from __future__ import annotations

import argparse
import os

from pcmig.cli.base import CommandError, UsageError, given, given_path
from pcmig.cli.record import find, is_called
from pcmig.journal import Entry, Journal, default_folders


def add_journal(parser: argparse.ArgumentParser) -> None:
    """`--journal`: which journal is looked at."""
    parser.add_argument(
        "--journal",
        metavar="FOLDER",
        type=given_path,
        help="the journal to look into (default: $PCMIG_JOURNAL_DIR, or the command's own, and as root "
        "nova-compute's in /var/lib/nova)",
    )


def add_entry(parser: argparse.ArgumentParser) -> None:
    """A migration on record: `--connect`, `--journal`, DOMAIN; see find_entry()."""
    parser.add_argument(
        "-c",
        "--connect",
        metavar="URI",
        type=given,
        help="libvirt of the source host, as the record has it, where several guests have this name",
    )
    add_journal(parser)
    parser.add_argument("domain", type=given, metavar="DOMAIN", help="guest: name or UUID")


def books(folder: str | None) -> list[Journal]:
    """The journal in FOLDER, or those there are. Raises UsageError for a FOLDER that cannot be read."""
    if folder:
        try:
            os.listdir(folder)
        except OSError as err:
            raise UsageError(
                f"--journal {folder!r}: {err.strerror}; give the folder that has the records"
            ) from err
    return [Journal(folder)] if folder else [Journal(each) for each in default_folders()]


def find_entry(folder: str | None, domain: str, source_uri: str | None) -> tuple[Journal, Entry]:
    """The entry of DOMAIN and the journal that has it. Raises CommandError."""
    places = books(folder)
    found = [(book, entry) for book in places if (entry := find(book, domain, source_uri)) is not None]
    if not found:
        where = " and ".join(str(book.folder) for book in places)
        others = {entry.source_uri for book in places for entry in book.all()[0] if is_called(entry, domain)}
        if source_uri and others:
            raise CommandError(
                f"no migration of {domain} from {source_uri} is on record in {where}: there is one from "
                f"{' and one from '.join(sorted(others))}"
            )
        raise CommandError(
            f"no migration of {domain} is on record in {where}; 'pcmig status' shows those there are"
        )
    if len(found) > 1:
        where = ", ".join(str(book.folder) for book, _ in found)
        raise CommandError(
            f"several journals have a migration of {domain}: give --journal with one of {where}"
        )
    return found[0]
