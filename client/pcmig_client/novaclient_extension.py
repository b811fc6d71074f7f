# SPDX-License-Identifier: Apache-2.0
"""The extension of python-novaclient: --post-copy for `nova live-migration` and `nova host-evacuate-live`.

The shell calls the two functions with names in double underscores, which are its own hooks for extensions
(novaclient/shell.py, _run_extension_hooks): the first adds the options, the second sees the parsed command
line. Nothing of novaclient is changed beyond the list of a command's arguments, which utils.add_arg() is for.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

from novaclient import exceptions, utils
from novaclient.v2 import shell

from pcmig_client import asking

# host-evacuate-live went and may go from novaclient before the rest does.
COMMANDS = ("do_live_migration", "do_host_evacuate_live")


class OneOf(argparse.Action):
    """Stores a constant, and refuses an option that would store another: what a mutually exclusive group
    does, for which add_arg() has no word before novaclient 17."""

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) not in (None, self.const):
            raise argparse.ArgumentError(self, "not allowed with the other one")
        setattr(namespace, self.dest, self.const)


def __pre_parse_args__() -> None:
    for name in COMMANDS:
        command = getattr(shell, name, None)
        if command is None:
            continue
        # add_arg puts each before those that are there.
        for option, dest, action, text in reversed(asking.OPTIONS):
            value = action == "store_true"
            utils.add_arg(command, option, dest=dest, action=OneOf, const=value, default=None, help=text)


def __post_parse_args__(args: argparse.Namespace) -> None:
    wish = asking.wish_of(args)
    if wish is not None:
        args.func = _asking(args.func, wish)


def _asking(command: Any, wish: asking.Wish) -> Any:
    """COMMAND, with WISH in every live migration it asks for."""

    @functools.wraps(command)
    def run(client: Any, args: argparse.Namespace) -> None:
        reasons: list[str] = []

        def refusal(words: str) -> Exception:
            reasons.append(words)
            error: Exception = exceptions.CommandError("refused, see below the table" if has_table else words)
            return error

        # host-evacuate-live goes on after a refusal, and shows them in its table.
        has_table = command.__name__ == "do_host_evacuate_live"
        courier = asking.Courier(client.client, wish, refusal)
        command(client, args)
        if courier.refused:
            counted = f"{courier.refused} of {courier.asked} live migrations were refused"
            raise exceptions.CommandError(f"{counted}: {reasons[-1]}" if reasons else counted)

    return run
