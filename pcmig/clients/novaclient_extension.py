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

from pcmig.clients import asking

# host-evacuate-live went and may go from novaclient before the rest does.
COMMANDS = ("do_live_migration", "do_host_evacuate_live")


def __pre_parse_args__() -> None:
    for name in COMMANDS:
        command = getattr(shell, name, None)
        if command is None:
            continue
        # add_arg puts each before those that are there.
        for option, dest, action, text in reversed(asking.OPTIONS):
            group = {"group": "post_copy"} if dest == "post_copy" else {}
            utils.add_arg(command, option, dest=dest, action=action, default=None, help=text, **group)


def __post_parse_args__(args: argparse.Namespace) -> None:
    wish = asking.wish_of(args)
    if wish is not None:
        args.func = _asking(args.func, wish)


def _asking(command: Any, wish: asking.Wish) -> Any:
    """COMMAND, with WISH in every live migration it asks for."""

    @functools.wraps(command)
    def run(client: Any, args: argparse.Namespace) -> None:
        courier = asking.Courier(client.client, wish, exceptions.CommandError)
        command(client, args)
        # host-evacuate-live goes on after a refusal, and shows them in its table.
        if courier.refused:
            raise exceptions.CommandError(
                f"{courier.refused} of {courier.asked} live migrations were refused, see above"
            )

    return run
