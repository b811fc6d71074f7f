# SPDX-License-Identifier: Apache-2.0
"""`openstack pcmig show`, `openstack pcmig list` and `openstack pcmig turn-back`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cliff import columns
from osc_lib import exceptions
from osc_lib.command import command

from pcmig_client import asking, state
from pcmig_client.openstack_migrate import compute_adapter, compute_client, server_id
from pcmig_common.turned_back import Words

if TYPE_CHECKING:
    Column = columns.FormattableColumn[Any]
else:
    Column = columns.FormattableColumn  # no generic one before cliff 4.8


class Figure(Column):
    """A value that scripts get as it is, and people with a unit."""

    def __init__(self, value: Any, kind: str = "text") -> None:
        super().__init__(value)
        self._kind = kind

    def human_readable(self) -> str:
        return state.readable(self._value, self._kind)


class TurnBack(command.Command):
    """Let a server go on at its source, from the moment of the switch, whose destination was lost in post-
    copy"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", metavar="<server>", help="Server (name or ID)")
        for option, text in asking.TURN_BACK_OPTIONS:
            parser.add_argument(option, action="store_true", help=text)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        compute = compute_client(self)
        id_ = server_id(compute, parsed_args.server)
        try:
            asking.turn_back(
                asking.Api(compute_adapter(compute)),
                id_,
                Words.parsed(parsed_args),
            )
        except asking.NotAnswered as err:
            raise exceptions.CommandError(str(err)) from err
        self.app.stdout.write(
            f"{id_} turns back: openstack pcmig show {id_} says how it stands; afterwards openstack server "
            f"reboot --hard {id_}, when it suits, makes it one like any other\n"
        )


class Show(command.ShowOne):
    """Show the state of a server's live migration, the one in progress or else the newest"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", metavar="<server>", help="Server (name or ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        compute = compute_client(self)
        id_ = server_id(compute, parsed_args.server)
        try:
            found = state.fetch(asking.Api(compute_adapter(compute)), id_)
        except state.NoState as err:
            raise exceptions.CommandError(str(err)) from err
        return show_row(id_, found)


def show_row(id_: str, found: dict[str, Any]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    may: dict[str, Any] = found.get("post_copy") or {}
    migration = found.get("migration") or {}
    progress = migration.get("progress") or {}
    row = [
        ("server", Figure(id_)),
        ("may_ask", Figure(may.get("may_ask"))),
        ("post_copy_forbidden", Figure(may.get("forbidden"))),
        ("post_copy_required", Figure(may.get("required"))),
    ]
    way_back = found.get("way_back") or {}
    row += [
        ("may_turn_back", Figure(way_back.get("may_ask"))),
        ("turned_back", Figure(way_back.get("turned_back"))),
    ]
    for name, part, kind in state.FIELDS:
        value = (progress if part else migration).get(name)
        if name == "phase" and value is None and migration.get("in_progress"):
            value = state.phase(migration)
        elif name == "percent" and value is None and migration:
            value = state.percent(migration)
        row.append((name, Figure(value, kind)))
    return tuple(name for name, _ in row), tuple(value for _, value in row)


class List(command.Lister):
    """List the live migrations in progress with their phases"""

    COLUMNS = (
        "server",
        "name",
        "status",
        "phase",
        "percent",
        "remaining_bytes",
        "source_compute",
        "dest_compute",
    )

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        api = asking.Api(compute_adapter(compute_client(self)))
        try:
            servers = api.ask("GET", "/servers/detail?status=MIGRATING&all_tenants=1")["servers"]
        except asking.NotAnswered as err:
            raise exceptions.CommandError(f"the API does not list servers that migrate: {err}") from err
        rows = [self._row(api, server) for server in servers]
        return self.COLUMNS, [row for row in rows if row is not None]

    def _row(self, api: asking.Api, server: dict[str, Any]) -> tuple[Any, ...] | None:
        try:
            migration = _migration(api, server["id"])
        except (state.NoState, asking.NotAnswered) as err:
            if err.status == 404:  # the server has gone meanwhile
                return None
            raise exceptions.CommandError(f"the API does not tell how far {server['id']} is: {err}") from err
        if migration is None or migration.get("in_progress") is False:
            return None  # it has ended meanwhile
        return (
            server["id"],
            server["name"],
            migration["status"],
            state.phase(migration),
            Figure(state.percent(migration), "percent"),
            Figure(state.remaining_bytes(migration), "bytes"),
            migration["source_compute"],
            migration["dest_compute"],
        )


def _migration(api: asking.Api, server_id: str) -> dict[str, Any] | None:
    """The newest of a server: the filter's, and without a filter what Nova's own list has."""
    try:
        found: dict[str, Any] | None = state.fetch(api, server_id).get("migration")
        return found
    except state.NoState as err:
        if err.status != 404:
            raise
    records = api.ask("GET", f"/os-migrations?instance_uuid={server_id}")["migrations"]
    return max(records, key=lambda record: int(record["id"]), default=None)
