# SPDX-License-Identifier: Apache-2.0
"""`pcmig replay`: the decisions of a recorded migration, again, or under other parameters."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pcmig import _core
from pcmig.cli.base import (
    Command,
    CommandError,
    ExitCode,
    UsageError,
    given_path,
    is_terminal,
    make_console,
    say,
)
from pcmig.cli.options import check_policy, parse_settings
from pcmig.ledgers.opening import not_whole

if TYPE_CHECKING:
    from pcmig._core import Answer, Decision


class Replay(Command):
    """replay a trace and compare its decisions

    Feeds the recorded inputs to the policy and compares every decision with the recorded one. With --policy
    or --set, shows instead where decisions would differ. The inputs stay those that were recorded, so after
    the first difference the rest is a guess.
    """

    epilog = (
        "exit codes: 0 all decisions are identical, or --policy or --set was given; 1 a decision differs; "
        "2 usage, or the trace cannot be read"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("trace", type=given_path, metavar="TRACE", help="file that migrate --trace wrote")
        parser.add_argument("--policy", metavar="POLICY", help="replay under this policy")
        parser.add_argument(
            "--set",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            dest="settings",
            help="replay with this parameter (more than one: repeat it)",
        )
        parser.add_argument("--ledger", action="store_true", help="show the accounting of the trace as well")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        what_if = args.policy is not None or bool(args.settings)
        params = parse_settings(args.settings, _core.params())
        if args.policy is not None:
            check_policy("--policy", args.policy, params)
        try:
            result = _core.replay(args.trace, policy=args.policy, params=params)
            ledger = _core.ledger_from_trace(args.trace) if args.ledger else None
        except _core.TraceError as err:
            raise CommandError(f"{args.trace}: {err}", ExitCode.USAGE) from err
        except _core.PolicyError as err:
            raise UsageError(str(err)) from err
        except (OSError, ValueError) as err:  # ValueError: a NUL in the name
            reason = getattr(err, "strerror", None) or err
            raise CommandError(f"{args.trace}: {reason}", ExitCode.USAGE) from err

        for sentence in not_whole(args.trace, result):
            say(f"pcmig: note: {sentence}", sys.stderr)
        if args.json:
            report: dict[str, Any] = {**result, "what_if": what_if}
            if ledger is not None:
                report["ledger"] = ledger
            json.dump(report, sys.stdout, indent=2)
            print()
        else:
            show(result)
            if ledger is not None:
                from pcmig import accounting

                accounting.render(ledger, make_console())
            print(verdict(result, what_if))
        return ExitCode.DONE if what_if or result["identical"] else ExitCode.FAILED


def rows(result: _core.Replay) -> list[tuple[str, str, str, str, str]]:
    """Line, time, mark, action and sentence of each decision; a difference has a row for either side."""
    found = []
    for answer in result["decisions"]:
        if answer["recorded"] == answer["replayed"]:
            found.append(_row(answer, answer["recorded"], ""))
        else:
            found += [
                _row(answer, answer["recorded"], "recorded"),
                _row(answer, answer["replayed"], "replayed"),
            ]
    return found


def _row(answer: Answer, decision: Decision | None, mark: str) -> tuple[str, str, str, str, str]:
    line = str(answer["line"])
    if decision is None:
        other = answer["recorded"] or answer["replayed"]
        time_s = f"{other['t_us'] / 1e6:.3f}" if other else ""
        return line, time_s, mark, "keep", "nothing"
    return line, f"{decision['t_us'] / 1e6:.3f}", mark, decision["action"], decision["text"]


def show(result: _core.Replay) -> None:
    """Prints the decisions as a table, as plain columns where stdout is no terminal."""
    heading = ("line", "time s", "", "action", "decision")
    found = rows(result)
    print(f"policy {result['policy']}: {result['inputs']} inputs, {result['replayed']} decisions")
    if not found:
        return
    if is_terminal(sys.stdout):
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(heading):
            table.add_column(name, justify="right" if i < 2 else "left", no_wrap=i < 4)
        for row in found:
            table.add_row(*row, style={"recorded": "red", "replayed": "yellow"}.get(row[2]))
        make_console().print(table)
        return
    if all(row[2] == "" for row in found):
        _print_columns((*heading[:2], *heading[3:]), [(*row[:2], *row[3:]) for row in found])
    else:
        _print_columns(heading, found)


def _print_columns(heading: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> None:
    """Aligned text; the first two columns to the right, the last one as long as it is."""
    widths = [max(len(line[i]) for line in [heading, *lines]) for i in range(len(heading) - 1)]
    for line in [heading, *lines]:
        cells = [
            cell.rjust(widths[i]) if i < 2 else cell.ljust(widths[i]) for i, cell in enumerate(line[:-1])
        ]
        print("  ".join([*cells, line[-1]]).rstrip())


def verdict(result: _core.Replay, what_if: bool) -> str:
    """The last line."""
    answers = len(result["decisions"])
    if what_if:
        first = result["first_difference"]
        if first is None:
            return f"nothing would change: {answers} decisions are the same"
        return f"{result['different']} of {answers} decisions would differ, from line {first['line']} on"
    if result["identical"]:
        return f"identical: {answers} decisions, {result['inputs']} inputs"
    first = result["first_difference"]
    assert first is not None
    where = f"the first in line {first['line']}{_detail(first)}"
    return f"different: {result['different']} of {answers} decisions; {where}"


def _detail(answer: Answer) -> str:
    """What differs, where both sides decided something."""
    recorded, replayed = answer["recorded"], answer["replayed"]
    if recorded is None or replayed is None:
        return ""
    fields = ("t_us", "action", "reason", "a", "b", "c", "pace_mib", "next_us")
    pairs = [(name, recorded[name], replayed[name]) for name in fields if recorded[name] != replayed[name]]  # type: ignore[literal-required]
    return ": " + ", ".join(f"{name} was {was}, is {now}" for name, was, now in pairs)
