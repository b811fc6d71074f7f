# SPDX-License-Identifier: Apache-2.0
"""`pcmig tunnel`, the daemon, and the commands beside it."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from typing import Any

from pcmig import files
from pcmig.cli.base import (
    Command,
    CommandError,
    ExitCode,
    UsageError,
    day,
    given,
    given_path,
    is_terminal,
    make_console,
    say,
)
from pcmig.metrics import exposition
from pcmig.metrics.meter import MODE
from pcmig.tunnel import metrics, peer, settings
from pcmig.tunnel.client import Client, Figures, TunnelError, UnknownNameError
from pcmig.tunnel.peer import Peer

MIB = 1024 * 1024
# A peer whose clock is so far off may soon refuse a fresh certificate.
SKEW_MS = 60_000


class Tunnel(Command):
    """run the daemon that carries migrations between hosts, encrypted

    Runs in the foreground, as systemd likes it, and logs to standard error. Settings come from the file and
    from the options here, which count more. SIGHUP reads file and certificates again, as 'pcmig tunnel
    reload' does; SIGTERM ends. Sub-commands: 'pcmig tunnel close', 'keygen', 'metrics', 'peers', 'probe',
    'reload', 'show'.
    """

    epilog = "exit codes: 0 ended by a signal; 1 it could not start; 2 usage, or a setting that is not valid"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--config",
            type=given_path,
            metavar="FILE",
            help=f"settings (default: {settings.FILE}, where that exists)",
        )
        for row in settings.ROWS:
            option = f"--{row.name.replace('_', '-')}"
            if row.kind == "switch":
                parser.add_argument(option, action="store_const", const=True, help=row.help)
            else:
                parser.add_argument(option, metavar=row.metavar, type=_reader(row), help=_help(row))
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        from pcmig.tunnel import daemon

        typed = {row.name: value for row in settings.ROWS if (value := getattr(args, row.name)) is not None}

        def read() -> settings.Settings:
            found = settings.read_file(args.config or settings.FILE, required=args.config is not None)
            return settings.settle(found | typed)

        try:
            daemon.run(read, debug=args.debug or self.app.options.debug)
        except settings.SettingsError as err:
            raise UsageError(str(err)) from err
        except daemon.StartError as err:
            raise CommandError(f"the tunnel cannot be started: {err}") from err
        return ExitCode.DONE


def _reader(row: settings.Row) -> Any:
    def read(text: str) -> Any:
        try:
            return settings.parse_value(row, text)
        except ValueError as err:
            raise argparse.ArgumentTypeError(str(err)) from err

    return read


def _help(row: settings.Row) -> str:
    if row.default in (None, []):
        return row.help
    text = ", ".join(row.default) if isinstance(row.default, list) else f"{row.default}"
    return f"{row.help} (default: {text})"


def peer_argument(text: str) -> Peer:
    """An argparse type: HOST[:PORT]."""
    try:
        return peer.parse(given(text))
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


def add_control(parser: argparse.ArgumentParser) -> None:
    """`--control`."""
    parser.add_argument(
        "--control",
        type=given_path,
        metavar="SOCKET",
        help="the daemon's control socket (default: $PCMIG_TUNNEL_CONTROL, or /run/pcmig/tunnel.control)",
    )


class Show(Command):
    """show what goes through the tunnel of this host

    One row for each name: a stream of a migration's memory, or of its disks.
    """

    epilog = "exit codes: 0 shown; 1 the tunnel does not run, or does not know NAME; 2 usage"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_control(parser)
        parser.add_argument(
            "name", metavar="NAME", nargs="?", type=_stream_name, help="this one only, in full"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        client = Client(args.control)
        try:
            found = {args.name: client.show(args.name)} if args.name else everything(client)
        except TunnelError as err:
            raise CommandError(str(err)) from err
        if args.json:
            print(json.dumps({"schema": 1, "command": "tunnel show", "streams": found}, indent=2))
        elif args.name:
            for key, value in found[args.name].items():
                print(f"{key:<18} {value}")
        elif found:
            print_rows([("name", "peer", *(title for title, _, _ in COLUMNS)), *map(row_of, found.items())])
        else:
            print("nothing goes through the tunnel")
        return ExitCode.DONE


def everything(client: Client) -> dict[str, Figures]:
    """The figures of all names; those that end meanwhile are left out."""
    found = {}
    for name in client.names():
        try:
            found[name] = client.show(name)
        except UnknownNameError:
            continue
    return found


def _stream_name(text: str) -> str:
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a stream: 32 hexadecimal digits")
    return text


# Columns of figures: title, key, divisor.
COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("out MiB", "bytes_out", MIB),
    ("in MiB", "bytes_in", MIB),
    ("streams", "streams", 1),
    ("TCP", "connections", 1),
    ("reconnects", "reconnects", 1),
    ("crypto s", "crypto_us", 1e6),
    ("queue KiB", "queue_bytes", 1024),
    ("RTT ms", "rtt_us", 1000),
)


def row_of(item: tuple[str, Figures]) -> tuple[str, ...]:
    """One row of the table."""
    name, figures = item
    figures = figures | {"crypto_us": figures.get("crypto_out_us", 0) + figures.get("crypto_in_us", 0)}
    peer_text = str(figures.get("peer", "-"))
    return name, peer_text, *(figure(figures, key, divisor) for _, key, divisor in COLUMNS)


def figure(figures: Figures, key: str, divisor: float) -> str:
    """A figure as it stands in a column; "-" where there is none."""
    value = figures.get(key)
    if not isinstance(value, int):
        return "-"
    return f"{value / divisor:.1f}" if divisor != 1 else str(value)


def print_rows(rows: list[tuple[str, ...]]) -> None:
    """A table: names to the left, figures to the right."""
    if is_terminal(sys.stdout):
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, title in enumerate(rows[0]):
            table.add_column(title, justify="left" if i < 2 else "right", no_wrap=i >= 2)
        for row in rows[1:]:
            table.add_row(*row)
        make_console().print(table)
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(widths[i]) if i < 2 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        say("  ".join(cells).rstrip(), sys.stdout)


class Peers(Command):
    """show which hosts the tunnel of this host is connected to, by certificate

    Those with a connection now, and the latest of those that had one: to see who a stream is from, and whom
    to lock out.
    """

    epilog = "exit codes: 0 shown; 1 the tunnel does not run; 2 usage"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_control(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        try:
            found = Client(args.control).peers()
        except TunnelError as err:
            raise CommandError(str(err)) from err
        if args.json:
            print(json.dumps({"schema": 1, "command": "tunnel peers", "peers": found}, indent=2))
        elif found:
            titles = ("subject", "address", "from it", "to it", "ever", "serial", "SHA-256")
            print_rows([titles, *(tuple(str(peer.get(key, "-")) for key in PEER_COLUMNS) for peer in found)])
        else:
            print("no host with a certificate was connected yet")
        return ExitCode.DONE


class Metrics(Command):
    """print the figures of this host's tunnel, for Prometheus

    Handshakes, refusals by reason, streams, bytes, queues, and when its certificates expire.
    """

    epilog = (
        "exit codes: 0 printed, or written; 1 the tunnel does not run, FILE cannot be written, or "
        "prometheus-client is not installed; 2 usage"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_control(parser)
        parser.add_argument(
            "--textfile",
            metavar="FILE",
            type=given_path,
            help="write them there, for node_exporter's textfile collector (FILE ends in .prom)",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        down: TunnelError | None = None
        figures = None
        try:
            figures = Client(args.control).metrics()
        except TunnelError as err:
            down = err
        try:
            content = metrics.text(figures)
        except ImportError as err:
            raise CommandError(exposition.MISSING.format(err)) from err
        if args.textfile is None:
            if down is not None:
                raise CommandError(str(down))
            print(content, end="")
            return ExitCode.DONE
        try:
            files.replace(args.textfile, content, MODE)
        except OSError as err:
            raise CommandError(f"{args.textfile} cannot be written: {err.strerror}") from err
        if down is not None:
            raise CommandError(f"{args.textfile} says that the tunnel is down: {down}")
        return ExitCode.DONE


PEER_COLUMNS = ("subject", "address", "accepted", "dialled", "ever", "serial", "fingerprint")


class Reload(Command):
    """have the tunnel of this host read its settings and certificates again

    What was revoked, or is no longer allowed, is locked out at once, with the streams that it has. If the new
    settings or certificates could not work, nothing changes.
    """

    epilog = "exit codes: 0 reloaded; 1 refused, and why: the old ones go on; 2 usage"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_control(parser)
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        try:
            waiting = Client(args.control).reload()
        except TunnelError as err:
            raise CommandError(f"not reloaded, everything stays as it was: {err}") from err
        print("reloaded")
        if waiting:
            print(f"these take effect when the daemon is started again: {', '.join(waiting)}")
        return ExitCode.DONE


class Close(Command):
    """close a name of the tunnel, and end the streams that go through it

    A migration in post-copy pauses then until 'pcmig resume' or nova-compute opens a way for it again.
    """

    epilog = "exit codes: 0 closed; 1 the tunnel does not run, or does not know NAME; 2 usage"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_control(parser)
        parser.add_argument("name", metavar="NAME", type=_stream_name, help="as 'pcmig tunnel show' has it")
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        try:
            Client(args.control).close(args.name)
        except TunnelError as err:
            raise CommandError(str(err)) from err
        print(f"{args.name} closed")
        return ExitCode.DONE


class Probe(Command):
    """try the way to another host's tunnel

    Both daemons verify each other as for a migration; nothing is sent.
    """

    epilog = "exit codes: 0 a migration could go there; 1 it could not, and why; 2 usage"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_control(parser)
        parser.add_argument(
            "peer",
            metavar="PEER[:PORT]",
            type=peer_argument,
            help="the other host, as its certificate names it",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        try:
            found = Client(args.control).probe(args.peer)
        except TunnelError as err:
            raise CommandError(str(err)) from err
        if args.json:
            print(
                json.dumps(
                    {"schema": 1, "command": "tunnel probe", "peer": str(args.peer), **found}, indent=2
                )
            )
            return ExitCode.DONE
        print(f"{args.peer} answers: {found.get('subject', 'no certificate')}")
        if isinstance(until := found.get("not_after"), int):
            print(
                f"its certificate is good until {day(datetime.datetime.fromtimestamp(until, datetime.UTC))}"
            )
        if isinstance(skew_ms := found.get("clock_skew_ms"), int) and abs(skew_ms) >= SKEW_MS:
            direction = "ahead of" if skew_ms > 0 else "behind"
            print(f"its clock is {abs(skew_ms) / 1000:.0f} s {direction} this host's: set them by NTP")
        return ExitCode.DONE
