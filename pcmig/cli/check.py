# SPDX-License-Identifier: Apache-2.0
"""`pcmig check`: what stands in the way of post-copy on this host, and between it and another."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from typing import Any

from pcmig import check
from pcmig.check import gather, qemuconf
from pcmig.cli.base import (
    Command,
    ExitCode,
    UsageError,
    add_connect,
    given,
    given_path,
    given_uri,
    is_terminal,
    make_console,
)
from pcmig.cli.options import arrange, peer_or_default
from pcmig.tunnel import peer

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "cyan"}


class Check(Command):
    """check what post-copy needs on this host, and between it and another

    Each row that is not ok says why it matters and how to fix it. Exit code 0: nothing fails
    (there may be warnings); 1: something does; 2: usage.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_connect(parser)
        parser.add_argument(
            "--peer", type=given_uri, metavar="URI", help="libvirt of the other host, as this host reaches it"
        )
        parser.add_argument(
            "--domain", type=given, metavar="NAME", help="also check this guest of the source host"
        )
        parser.add_argument(
            "--qemu-user",
            type=given,
            metavar="USER",
            help="whom QEMU runs as (default: user of qemu.conf, else libvirt-qemu, qemu or root)",
        )
        parser.add_argument(
            "--qemu-conf",
            type=given_path,
            metavar="FILE",
            help=f"libvirt's QEMU settings (default: {qemuconf.DEFAULT_PATH})",
        )
        parser.add_argument(
            "--tunnel",
            nargs="?",
            const="",
            type=peer_or_default,
            metavar="PEER[:PORT]",
            help="also check pcmig's tunnel on this host, and the way to PEER's (--tunnel=PEER; default: the "
            "host of --peer)",
        )
        parser.add_argument("--json", action="store_true", help="print rows and facts as JSON")
        return parser

    def arrange(self, argv: list[str]) -> list[str]:
        return arrange(argv)

    def take_action(self, parsed_args: argparse.Namespace) -> ExitCode:
        if parsed_args.qemu_conf is not None:
            check_readable(parsed_args.qemu_conf)
        asked = parsed_args.tunnel
        found = gather.gather(
            parsed_args.connect,
            with_tunnel=asked is not None,
            tunnel_peer=peer.parse(asked) if asked else peer.of_uri(parsed_args.peer),
            peer=parsed_args.peer,
            domain=parsed_args.domain,
            qemu_user=parsed_args.qemu_user,
            qemu_conf=parsed_args.qemu_conf or qemuconf.DEFAULT_PATH,
        )
        rows = check.run(found)
        if parsed_args.json:
            print(json.dumps(as_json(rows, found), indent=2))
        elif is_terminal(sys.stdout):
            print_table(rows)
        else:
            print_plain(rows)
        return ExitCode.FAILED if check.failed(rows) else ExitCode.DONE


def check_readable(path: str) -> None:
    """Raises UsageError when the file that was named cannot be read: libvirt's defaults would answer in its
    place."""
    try:
        with open(path, encoding="utf-8", errors="replace"):
            pass
    except OSError as err:
        raise UsageError(f"--qemu-conf {path!r}: {err.strerror}") from err


def as_json(rows: list[check.Row], found: check.Facts) -> dict[str, Any]:
    """What --json prints: the verdict, the rows, and the facts they rest on."""
    return {
        "ok": not check.failed(rows),
        "rows": [dataclasses.asdict(row) for row in rows],
        "facts": dataclasses.asdict(found),
    }


def summary(rows: list[check.Row]) -> str:
    """One line on all ROWS."""
    counts = {status: sum(row.status == status for row in rows) for status in COLOURS}
    parts = [f"{counts['ok']} ok"]
    for status, text in (("warn", "warnings"), ("fail", "failures"), ("unknown", "unknown")):
        if counts[status]:
            parts.append(f"{counts[status]} {text if counts[status] > 1 else text.removesuffix('s')}")
    return ", ".join(parts)


def print_plain(rows: list[check.Row]) -> None:
    """One line a row, and indented lines under those that are not ok."""
    subject_width = max(len(row.subject) for row in rows)
    name_width = max(len(row.name) for row in rows)
    for row in rows:
        print(f"{row.status:<7}  {row.subject:<{subject_width}}  {row.name:<{name_width}}  {row.found}")
        for label, text in details(row):
            print(f"         {label}: {text}")
    print(summary(rows))


def details(row: check.Row) -> list[tuple[str, str]]:
    """What a row that is not ok has to say beyond what was found."""
    if row.status == "ok":
        return []
    return [
        (label, text) for label, text in (("wanted", row.wanted), ("why", row.why), ("fix", row.fix)) if text
    ]


def print_table(rows: list[check.Row]) -> None:
    """A table, followed by what to do about the rows that are not ok."""
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "of", "check", "found"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(Text(row.status, style=COLOURS[row.status]), row.subject, row.name, row.found)
    console.print(table)
    for row in rows:
        lines = details(row)
        if not lines:
            continue
        console.print()
        console.print(Text(f"{row.subject}: {row.name}", style=COLOURS[row.status]))
        for label, text in lines:
            console.print(
                textwrap.fill(
                    text,
                    max(console.width - 2, 20),
                    initial_indent=f"  {label}: ",
                    subsequent_indent=" " * 10,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
    console.print()
    console.print(summary(rows))
