# SPDX-License-Identifier: Apache-2.0
"""`pcmig tunnel`, the daemon, and the commands beside it: keygen, show, probe."""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import sys
from typing import Any

from pcmig.cli.base import (
    Command,
    CommandError,
    ExitCode,
    UsageError,
    given,
    given_path,
    is_terminal,
    make_console,
    natural,
    say,
)
from pcmig.tunnel import peer, settings
from pcmig.tunnel.client import Client, Figures, TunnelError, UnknownNameError
from pcmig.tunnel.peer import Peer

MIB = 1024 * 1024
DAYS, CA_DAYS = 730, 3650
DEFAULT_OUT = "pcmig-pki"
# A peer whose clock is so far off may soon refuse a fresh certificate.
SKEW_MS = 60_000


class Tunnel(Command):
    """run the daemon that carries migrations between hosts, encrypted

    Runs in the foreground, as systemd likes it, and logs to standard error. Settings come from the file and
    from the options here, which count more. SIGHUP reads the certificates again, without disturbing what
    runs; SIGTERM ends. Sub-commands: 'pcmig tunnel keygen', 'pcmig tunnel show', 'pcmig tunnel probe'.
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
        try:
            found = settings.read_file(args.config or settings.FILE, required=args.config is not None)
            settled = settings.settle(found | typed)
        except settings.SettingsError as err:
            raise UsageError(str(err)) from err
        try:
            daemon.run(settled, debug=args.debug or self.app.options.debug)
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


class Keygen(Command):
    """make a CA and certificates for hosts, for the tunnel

    Each HOST gets a folder FOLDER/HOST with ca.pem, host.pem and host-key.pem, to be put into /etc/pki/pcmig
    of that host. HOST is a list of names and addresses between commas, under which other hosts know it; the
    first one names the folder. The CA is made with the first certificate, in FOLDER itself; its key,
    FOLDER/ca-key.pem, belongs to no host.
    """

    epilog = "exit codes: 0 made; 1 a file is in the way or cannot be written; 2 usage"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("hosts", metavar="HOST", nargs="+", type=_names, help="NAME[,NAME|ADDRESS]...")
        parser.add_argument(
            "--out", metavar="FOLDER", type=given_path, default=DEFAULT_OUT, help=f"default: {DEFAULT_OUT}"
        )
        parser.add_argument(
            "--days",
            metavar="N",
            type=natural,
            default=DAYS,
            help=f"days that a host's certificate is good for (default: {DAYS})",
        )
        parser.add_argument(
            "--ca-days",
            metavar="N",
            type=natural,
            default=CA_DAYS,
            help=f"days that the CA is good for (default: {CA_DAYS})",
        )
        parser.add_argument(
            "--force", action="store_true", help="replace certificates of hosts (never the CA)"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        for option, days in (("--days", args.days), ("--ca-days", args.ca_days)):
            if not 1 <= days <= 36500:
                raise UsageError(f"{option}: {days} is not from 1 to 36500")
        firsts = [names[0] for names in args.hosts]
        if len(set(firsts)) < len(firsts):
            raise UsageError("two HOSTs have the same first name, and would have the same folder")
        try:
            from pcmig.tunnel import keygen
        except ImportError as err:
            raise CommandError(
                f"keygen needs the Python library cryptography ({err}): pip install cryptography, or "
                "apt-get install python3-cryptography; certificates of another PKI do as well"
            ) from err
        folder = pathlib.Path(args.out)
        try:
            ca = keygen.make_ca(folder, args.ca_days)
            if ca is None:
                print(f"CA          {folder / keygen.CA} (was there)")
            else:
                print(f"CA          {folder / keygen.CA}, good until {_day(ca.not_after)}")
                print(f"            keep {folder / keygen.CA_KEY} where no host has it: it makes hosts")
            for names in args.hosts:
                made = keygen.make_host(folder, names, args.days, force=args.force)
                place = f"{made.files[0].parent}/, good until {_day(made.not_after)}"
                print(f"{names[0]:<11} {place}: {', '.join(names)}")
        except keygen.KeygenError as err:
            raise CommandError(str(err)) from err
        first = firsts[0]
        print(
            "on each host: install -d -m 700 /etc/pki/pcmig, put its files there "
            f"(scp {folder}/{first}/*.pem root@{first}:/etc/pki/pcmig/), systemctl enable --now pcmig-tunnel"
        )
        return ExitCode.DONE


def _names(text: str) -> list[str]:
    """An argparse type: "a,a.example.org,10.0.0.1"."""
    names = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no host")
    for name in names:
        try:
            found = peer.parse(f"[{name}]" if name.count(":") > 1 else name)
        except ValueError as err:
            raise argparse.ArgumentTypeError(str(err)) from err
        if ":" in name and found.host != name:
            raise argparse.ArgumentTypeError(f"{name!r}: a certificate names hosts, not ports")
    return names


def _day(when: datetime.datetime) -> str:
    return when.date().isoformat()


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
                f"its certificate is good until {_day(datetime.datetime.fromtimestamp(until, datetime.UTC))}"
            )
        if isinstance(skew_ms := found.get("clock_skew_ms"), int) and abs(skew_ms) >= SKEW_MS:
            direction = "ahead of" if skew_ms > 0 else "behind"
            print(f"its clock is {abs(skew_ms) / 1000:.0f} s {direction} this host's: set them by NTP")
        return ExitCode.DONE
