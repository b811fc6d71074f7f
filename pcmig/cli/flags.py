"""`pcmig flags`: what a line of migration flags means, and whether it works."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from pcmig import _core
from pcmig.cli.base import Command, ExitCode, UsageError, is_terminal, make_console

PREFIX = "VIR_MIGRATE_"
COLOURS = {"error": "bold red", "warning": "yellow"}


class Flags(Command):
    """explain a line of migration flags, names of old included, and check it

    LINE is what nova.conf's live_migration_flag holds. Without it, every flag is listed.
    """

    epilog = "exit codes: 0 the line works, perhaps with warnings; 2 a name is unknown, or flags conflict"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("line", metavar="LINE", nargs="?", help='for example "LIVE, POSTCOPY"')
        parser.add_argument("--nova", action="store_true", help="check it as Nova's live_migration_flag")
        for name, label in (("qemu", "QEMU"), ("libvirt", "libvirt")):
            parser.add_argument(
                f"--{name}-version",
                type=version,
                metavar="VERSION",
                help=f"{label} of the two hosts, the older one, such as 10.1",
            )
        parser.add_argument("--json", action="store_true", help="print everything as JSON")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> ExitCode:
        if parsed_args.line is None:
            show_list(parsed_args.json)
            return ExitCode.DONE
        try:
            flags = _core.parse_flags(parsed_args.line)
        except _core.FlagsError as err:
            if not parsed_args.json:
                raise UsageError(f"{err} ('pcmig flags' lists them all)") from err
            print(json.dumps({"ok": False, "error": unknown_as_json(err)}, indent=2))
            return ExitCode.USAGE
        report = as_json(
            flags,
            qemu_version=parsed_args.qemu_version,
            libvirt_version=parsed_args.libvirt_version,
            nova=parsed_args.nova,
        )
        if parsed_args.json:
            print(json.dumps(report, indent=2))
        else:
            show(report)
        return ExitCode.DONE if report["ok"] else ExitCode.USAGE


def version(text: str) -> int:
    """A version as libvirt counts it, from "10", "10.1" or "10.1.2"."""
    match = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a version such as 10.1 or 10.1.2")
    major, minor, micro = (int(part or 0) for part in match.groups())
    if major == minor == micro == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no version that was ever released")
    return major * 1_000_000 + minor * 1000 + micro


def unknown_as_json(err: _core.FlagsError) -> dict[str, Any]:
    """What --json says of a name that is not known."""
    return {
        "message": str(err),
        "position": err.position,
        "item": err.item,
        # A name from a command line that is not UTF-8 would otherwise not be valid JSON text.
        "token": err.token.encode("utf-8", "backslashreplace").decode("utf-8"),
        "suggestion": err.suggestion,
    }


def as_json(
    flags: _core.Flags, *, qemu_version: int | None, libvirt_version: int | None, nova: bool
) -> dict[str, Any]:
    """What --json prints, and what the text is made of."""
    table = {row["name"]: row for row in _core.flags_table()}
    findings = flags.check(qemu_version, libvirt_version, nova)
    resolved = flags.resolved(qemu_version, libvirt_version, nova)
    return {
        "ok": all(severity != "error" for severity, _, _ in findings),
        "bits": flags.bits,
        "hex": hex(flags.bits),
        "line": str(flags),
        "policy": flags.policy,
        "flags": [
            {
                "given": given,
                "position": position,
                "name": name,
                "bit": bit,
                "since": table[name]["since"],
                "policy": policy,
                "meaning": table[name]["doc"],
            }
            for given, name, bit, policy, position in flags.items
        ],
        "findings": [
            {"severity": severity, "message": message, "flags": list(names)}
            for severity, message, names in findings
        ],
        "suggested": None if resolved.bits == flags.bits else str(resolved),
    }


def show(report: dict[str, Any]) -> None:
    """The REPORT of as_json() for people."""
    rows = []
    for flag in report["flags"]:
        old = flag["given"].upper().removeprefix(PREFIX) != flag["name"].removeprefix(PREFIX)
        meaning = flag["meaning"]
        if flag["policy"]:
            meaning = f"Policy {flag['policy']}, and: {meaning}"
        rows.append((flag["given"], flag["name"] if old else "", hex(flag["bit"]), flag["since"], meaning))
    show_table(("given", "today", "bit", "since", "meaning"), rows)
    console = make_console()
    if rows:
        console.print()
    console.print(f"bits:      {report['hex']} ({report['bits']})")
    if report["policy"]:
        policy = report["policy"]
        console.print(f"policy:    {policy} (from an old name; no part of the line: --policy {policy})")
    console.print(f"line:      {report['line'] or '(no flags)'}")
    for finding in report["findings"]:
        severity = finding["severity"]
        console.print(f"{severity + ':':<10}", style=COLOURS[severity], end=" ")
        console.print(finding["message"])
    if report["suggested"] is not None:
        console.print(f"suggested: {report['suggested'] or '(no flags)'}")


def show_list(as_json: bool) -> None:
    """Every flag, and every name of old."""
    table, old_names = _core.flags_table(), _core.flags_old_names()
    if as_json:
        print(json.dumps({"flags": table, "old_names": old_names}, indent=2))
        return
    rows = [(row["name"], hex(row["bit"]), row["since"], row["doc"]) for row in table]
    show_table(("flag", "bit", "since", "meaning"), rows)
    print()
    today = {row["bit"]: row["name"] for row in table}
    show_table(
        ("name of old", "today", "policy", "meaning"),
        [(old["name"], today[old["bit"]], old["policy"] or "", old["doc"]) for old in old_names],
    )


def show_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table as wide as the terminal, or one line a row in a pipe. Without rows, nothing."""
    if not rows:
        return
    if is_terminal(sys.stdout):
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in titles:
            table.add_column(title, overflow="fold")
        for row in rows:
            table.add_row(*row)
        make_console().print(table)
        return
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(titles))]
    for row in (titles, *rows):
        print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
