# SPDX-License-Identifier: Apache-2.0
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
LIVE, BLOCK = "live_migration_flag", "block_migration_flag"
# A whole line of nova.conf, under whatever name somebody gave the option.
ASSIGNMENT = re.compile(r"\s*(?P<name>[\w-]*migration[_-]flags?)\s*[=:]", re.IGNORECASE)
TUNNELLED = next(row["bit"] for row in _core.flags_table() if row["name"] == f"{PREFIX}TUNNELLED")
COLOURS = {"error": "bold red", "warning": "yellow"}


class Flags(Command):
    """explain a line of migration flags, names of old included, and check it

    LINE is what nova.conf holds: the value of live_migration_flag or block_migration_flag, in quotes or not,
    or the whole line with the option's name. Without it, every flag is listed.
    """

    epilog = "exit codes: 0 the line works, perhaps with warnings; 2 a name is unknown, or flags conflict"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("line", metavar="LINE", nargs="?", help='for example "LIVE, POSTCOPY"')
        parser.add_argument(
            "--nova",
            action="store_true",
            help="check it as nova-compute does when its nova.conf has nothing else (a line with the "
            "option's name is always checked so)",
        )
        parser.add_argument(
            "--block", action="store_true", help="it is the line of block_migration_flag; implies --nova"
        )
        parser.add_argument(
            "--permit-post-copy",
            action="store_true",
            help="with live_migration_permit_post_copy = true beside it; implies --nova",
        )
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
        option, line = as_nova_reads(parsed_args.line)
        if option is not None and parsed_args.block and option != BLOCK:
            raise UsageError(f"--block contradicts {option}, which the line begins with")
        option = BLOCK if parsed_args.block else option
        if option is None and (parsed_args.nova or parsed_args.permit_post_copy):
            option = LIVE
        try:
            flags = _core.parse_flags(line)
        except _core.FlagsError as err:
            if not parsed_args.json:
                raise UsageError(f"{err} ('pcmig flags' lists them all)") from err
            print(json.dumps({"ok": False, "error": unknown_as_json(err)}, indent=2))
            return ExitCode.USAGE
        versions = (parsed_args.qemu_version, parsed_args.libvirt_version)
        report = as_json(flags)
        if option is None:
            report |= by_libvirt(flags, *versions)
        else:
            report |= by_nova(option, line, flags, parsed_args.permit_post_copy, versions)
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


def as_nova_reads(text: str) -> tuple[str | None, str]:
    """The option that TEXT begins with, if any, and what oslo.config takes for its value. What does not
    belong to the value is blank, so that positions stay."""
    match = ASSIGNMENT.match(text)
    if match and match["name"] not in (LIVE, BLOCK):
        raise UsageError(
            f"nova-compute does not read {match['name']}: the options are {LIVE} and {BLOCK}, in the section "
            "[libvirt]"
        )
    start = match.end() if match else 0
    first, newline, rest = text[start:].partition("\n")
    bare = first.strip()
    # oslo.config, iniparser.py: a pair of quotes around what stands on the option's own line.
    if bare and bare[0] == bare[-1] and bare[0] in "\"'":
        at = first.index(bare[0])
        first = f"{first[:at]} {bare[1:-1]} "
    return match["name"] if match else None, " " * start + first + newline + rest


def as_json(flags: _core.Flags) -> dict[str, Any]:
    """What --json prints of the flags by themselves, and what the text is made of."""
    table = {row["name"]: row for row in _core.flags_table()}
    return {
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
    }


def by_libvirt(flags: _core.Flags, qemu_version: int | None, libvirt_version: int | None) -> dict[str, Any]:
    """What libvirt and QEMU make of them."""
    findings = flags.check(qemu_version, libvirt_version)
    resolved = flags.resolved(qemu_version, libvirt_version)
    return {
        "ok": all(severity != "error" for severity, _, _ in findings),
        "findings": [
            {"severity": severity, "message": message, "flags": list(names)}
            for severity, message, names in findings
        ],
        "suggested": None if resolved.bits == flags.bits else str(resolved),
    }


def by_nova(
    option: str,
    line: str,
    flags: _core.Flags,
    permit_post_copy: bool,
    versions: tuple[int | None, int | None],
) -> dict[str, Any]:
    """What nova-compute makes of OPTION = LINE: its own words, from the code that it runs."""
    from pcmig.nova.flags import ConfigError, of_line

    try:
        kind, warnings = of_line(option, line, permit_post_copy, *versions)
    except ConfigError as err:
        return {
            "ok": False,
            "findings": [finding("error", err.problem)],
            "suggested": err.line,
            "nova": {"option": option},
        }
    merged = _core.flags_from_bits(kind.bits)
    # What is left out. VIR_MIGRATE_TUNNELLED is not, where it stands for pcmig's tunnel.
    used = _core.flags_from_bits(flags.bits & (kind.bits | (TUNNELLED if kind.tunnel else 0)))
    return {
        "ok": True,
        "findings": [
            finding("warning", warning.removeprefix(f"[libvirt] {option}: ")) for warning in warnings
        ],
        "suggested": None if used.bits == flags.bits else str(used),
        "nova": {
            "option": option,
            "flags": list(merged.names),
            "policy": kind.policy if kind.post_copy else None,
            "tunnel": kind.tunnel,
        },
    }


def finding(severity: str, message: str) -> dict[str, Any]:
    names = re.findall(rf"{PREFIX}[A-Z0-9_]+", message)
    return {"severity": severity, "message": message, "flags": list(dict.fromkeys(names))}


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
    nova = report.get("nova", {})
    if "flags" in nova:
        tunnel = ", through pcmig's tunnel" if nova["tunnel"] else ""
        console.print(f"with Nova: {', '.join(nova['flags'])}{tunnel}")
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
