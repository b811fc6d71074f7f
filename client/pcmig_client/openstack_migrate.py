# SPDX-License-Identifier: Apache-2.0
"""Post-copy for `openstack server migrate`: a hook of cliff's, so that the command stays the installed one's.

cliff calls the hook when the command's parser is made, before it runs and after it has (cliff/hooks.py).
"""

from __future__ import annotations

import argparse
from typing import Any

from cliff import hooks
from osc_lib import exceptions

from pcmig_client import asking, state, waiting


class Migrate(hooks.CommandHook):
    """Entry point of the group openstack.cli.server_migrate."""

    def __init__(self, command: Any) -> None:
        super().__init__(command)
        self._api: asking.Api | None = None
        self._server_id = ""
        self._before: Any = None

    def get_parser(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        group = parser.add_argument_group("post-copy (with --live-migration)")
        either = group.add_mutually_exclusive_group()
        for option, dest, action, text in asking.OPTIONS:
            target = either if dest == "post_copy" else group
            target.add_argument(option, dest=dest, action=action, default=None, help=text)
        return parser

    def get_epilog(self) -> str:
        return (
            "With --wait and one of the post-copy options, phase and percent are shown, and the exit status "
            "says whether the server has moved. 'openstack pcmig show' has more."
        )

    def before(self, parsed_args: argparse.Namespace) -> argparse.Namespace:
        wish = asking.wish_of(parsed_args)
        compute = compute_client(self.cmd)
        adapter = compute_adapter(compute)
        asking.Courier.dismiss(adapter)  # that of an earlier command, which may have failed
        if wish is None:
            return parsed_args
        if not parsed_args.live_migration:
            raise exceptions.CommandError(
                "--live-migration must be specified if --post-copy, --no-post-copy or "
                "--post-copy-by-metadata is specified"
            )
        api = asking.Api(adapter)
        if parsed_args.wait:
            self._server_id = server_id(compute, parsed_args.server)
            try:
                self._before = waiting.migration_id(api, self._server_id)
            except state.NoState:
                pass  # the command's own way to wait remains
            else:
                self._api = api
                parsed_args.wait = False
        asking.Courier(adapter, wish, exceptions.CommandError)
        return parsed_args

    def after(self, parsed_args: argparse.Namespace, return_code: int) -> int:
        if self._api is not None and not return_code:
            out = self.cmd.app.stdout
            try:
                text = waiting.wait(self._api, self._server_id, self._before, out)
            except waiting.Failed as err:
                raise exceptions.CommandError(str(err)) from err
            out.write(f"{text}\n")
        return return_code


class Complete(hooks.CommandHook):
    """Entry point of the group openstack.cli.complete: `openstack complete` makes the commands without their
    names, so that cliff does not find their hooks; here `server migrate` gets its name."""

    def get_parser(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return parser

    def get_epilog(self) -> str:
        return ""

    def before(self, parsed_args: argparse.Namespace) -> argparse.Namespace:
        name = "server migrate"
        manager = self.cmd.app.command_manager
        try:
            installed = manager.find_command(name.split())[0]
        except ValueError:
            return parsed_args

        def named(app: Any, app_args: Any, cmd_name: str | None = None) -> Any:
            return installed(app, app_args, cmd_name or name)

        make: Any = named
        manager.add_command(name, make)
        return parsed_args

    def after(self, parsed_args: argparse.Namespace, return_code: int) -> int:
        return return_code


def compute_client(cmd: Any) -> Any:
    """What a command of the client's asks nova-api by."""
    return cmd.app.client_manager.compute


def compute_adapter(compute: Any) -> Any:
    """The adapter that requests go through: openstacksdk's proxy is one, older clients have novaclient's."""
    return compute if hasattr(compute, "request") else compute.client


def server_id(compute: Any, name_or_id: str) -> str:
    """Raises the client's own exception for a server that is not there."""
    if hasattr(compute, "find_server"):
        return str(compute.find_server(name_or_id, ignore_missing=False).id)
    from osc_lib import utils

    return str(utils.find_resource(compute.servers, name_or_id).id)
