# SPDX-License-Identifier: Apache-2.0
"""`pcmig tunnel keygen`: certificates for who has no PKI of their own, from the first day to the next CA."""

from __future__ import annotations

import argparse
import datetime
import pathlib

from pcmig.cli.base import Command, CommandError, ExitCode, UsageError, day, given_path, natural
from pcmig.tunnel import peer

DAYS, CA_DAYS, CRL_DAYS = 730, 3650, 365
DEFAULT_OUT = "pcmig-pki"
RELOAD = "on each host: put its files into /etc/pki/pcmig, then pcmig tunnel reload; streams go on meanwhile"


class Keygen(Command):
    """make a CA and certificates for hosts, for the tunnel; renew them

    Each HOST gets a folder FOLDER/HOST with ca.pem, host.pem and host-key.pem, to be put into /etc/pki/pcmig
    of that host. HOST is a list of names and addresses between commas, under which other hosts know it; the
    first one names the folder. The CA is made with the first certificate, in FOLDER itself; its key,
    FOLDER/ca-key.pem, belongs to no host.
    """

    epilog = "exit codes: 0 made; 1 a file is in the way or cannot be written; 2 usage"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("hosts", metavar="HOST", nargs="*", help="NAME[,NAME|ADDRESS]...")
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--request",
            action="store_true",
            help="on the host itself: a key, and a request (host.csr) for --sign, in FOLDER",
        )
        what.add_argument(
            "--sign", metavar="FILE", type=given_path, help="the certificate that a request asks for"
        )
        what.add_argument(
            "--renew",
            action="store_true",
            help="new certificates for these hosts, by first name (default: all that are not revoked)",
        )
        what.add_argument(
            "--revoke",
            action="store_true",
            help="put all certificates of these hosts on crl.pem; without HOST: only make it anew",
        )
        what.add_argument(
            "--new-ca", action="store_true", help="a new CA beside the old one, and ca.pem with both"
        )
        what.add_argument("--drop-old-ca", action="store_true", help="ca.pem with the new one alone")
        parser.add_argument(
            "--out", metavar="FOLDER", type=given_path, default=DEFAULT_OUT, help=f"default: {DEFAULT_OUT}"
        )
        for option, days, whose in (
            ("--days", DAYS, "a host's certificate"),
            ("--ca-days", CA_DAYS, "the CA"),
            ("--crl-days", CRL_DAYS, "the list of revoked certificates"),
        ):
            parser.add_argument(
                option,
                metavar="N",
                type=natural,
                default=days,
                help=f"days that {whose} is good for (default: {days})",
            )
        parser.add_argument(
            "--force",
            action="store_true",
            help="replace certificates of hosts (never the CA), and requests; make one for a revoked key",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        for option in ("--days", "--ca-days", "--crl-days"):
            days = getattr(args, option[2:].replace("-", "_"))
            if not 1 <= days <= 36500:
                raise UsageError(f"{option}: {days} is not from 1 to 36500")
        chosen = next((name for name in _ACTIONS if name != "hosts" and getattr(args, name)), "hosts")
        if args.hosts and chosen in ("sign", "new_ca", "drop_old_ca"):
            raise UsageError(f"--{chosen.replace('_', '-')} takes no HOST")
        if not args.hosts and chosen in ("hosts", "request"):
            raise UsageError("name a HOST: NAME[,NAME|ADDRESS]...")
        try:
            from pcmig.tunnel import keygen
        except ImportError as err:
            raise CommandError(
                f"keygen needs the Python library cryptography ({err}): pip install cryptography, or "
                "apt-get install python3-cryptography; certificates of another PKI do as well"
            ) from err
        try:
            _ACTIONS[chosen](args, pathlib.Path(args.out))
        except keygen.KeygenError as err:
            raise CommandError(str(err)) from err
        return ExitCode.DONE


def _make(args: argparse.Namespace, folder: pathlib.Path) -> None:
    from pcmig.tunnel import keygen

    hosts = [_names(text) for text in args.hosts]
    firsts = [names[0] for names in hosts]
    if len(set(firsts)) < len(firsts):
        raise UsageError("two HOSTs have the same first name, and would have the same folder")
    keygen.make_folder(folder)
    with keygen.alone(folder):
        _make_each(args, folder, hosts)
    first = firsts[0]
    print(
        "on each host: install -d -m 700 /etc/pki/pcmig, put its files there "
        f"(scp {folder}/{first}/*.pem root@{first}:/etc/pki/pcmig/), systemctl enable --now pcmig-tunnel"
    )


def _make_each(args: argparse.Namespace, folder: pathlib.Path, hosts: list[list[str]]) -> None:
    from pcmig.tunnel import keygen

    ca = keygen.make_ca(folder, args.ca_days)
    if ca is None:
        print(f"CA          {folder / keygen.CA} (was there)")
    else:
        print(f"CA          {folder / keygen.CA}, good until {day(ca.not_after)}")
        print(f"            keep {folder / keygen.CA_KEY} where no host has it: it makes hosts")
    for names in hosts:
        made = keygen.make_host(folder, names, args.days, force=args.force)
        place = f"{made.files[0].parent}/, good until {day(made.not_after)}"
        print(f"{names[0]:<11} {place}: {', '.join(names)}")


def _request(args: argparse.Namespace, folder: pathlib.Path) -> None:
    from pcmig.tunnel import renewal

    if len(args.hosts) != 1:
        raise UsageError("--request is for one HOST, the one that this runs on")
    key, path = renewal.request(folder, _names(args.hosts[0]), force=args.force)
    print(f"{path}: for the CA: pcmig tunnel keygen --sign {path.name}; {key} stays here")


def _sign(args: argparse.Namespace, folder: pathlib.Path) -> None:
    from pcmig.tunnel import keygen, renewal

    with keygen.alone(folder):
        names, made = renewal.sign(folder, pathlib.Path(args.sign), args.days, force=args.force)
    print(f"{names[0]:<11} {made.files[0].parent}/, good until {day(made.not_after)}: {', '.join(names)}")
    files = ", ".join(path.name for path in made.files)
    print(f"put {files} beside the host's key, then pcmig tunnel reload there")


def _renew(args: argparse.Namespace, folder: pathlib.Path) -> None:
    from pcmig.tunnel import keygen

    with keygen.alone(folder):
        _renew_each(args, folder)


def _renew_each(args: argparse.Namespace, folder: pathlib.Path) -> None:
    from pcmig.tunnel import renewal

    there, out = renewal.hosts(folder), renewal.left_out(folder)
    names = args.hosts or [name for name in there if name not in out]
    if not there:
        raise CommandError(f"{folder} has no host: --out names another folder")
    for name in names:
        made = renewal.renew(folder, name, args.days, force=args.force)
        again = f" ({out[name]}: this one lets it in again)" if name in out else ""
        print(f"{name:<11} {folder / name}/, good until {day(made.not_after)}{again}")
    if not args.hosts:
        for name, why in out.items():
            print(f"{name:<11} left out: {why}; to let it in again: pcmig tunnel keygen --renew {name}")
    if names:
        print(RELOAD)


def _revoke(args: argparse.Namespace, folder: pathlib.Path) -> None:
    from pcmig.tunnel import keygen, renewal

    with keygen.alone(folder):
        end, there = renewal.revoke(folder, args.hosts, args.crl_days)
    print(f"{folder / keygen.CRL}, good until {day(end)}, for {', '.join(there) or 'no host that is left'}")
    print(RELOAD)


def _new_ca(args: argparse.Namespace, folder: pathlib.Path) -> None:
    from pcmig.tunnel import keygen, renewal

    with keygen.alone(folder):
        made, there = renewal.new_ca(folder, args.ca_days, datetime.date.today(), args.crl_days)
    print(f"CA          {made.files[0]}, good until {day(made.not_after)}")
    print(f"            ca.pem has both CAs now, for {', '.join(there)}")
    print(RELOAD)
    print("when ALL hosts have it: pcmig tunnel keygen --renew, the same again, then --drop-old-ca")


def _drop_old_ca(args: argparse.Namespace, folder: pathlib.Path) -> None:
    from pcmig.tunnel import keygen, renewal

    with keygen.alone(folder):
        there = renewal.drop_old_ca(folder, args.crl_days)
    print(f"ca.pem has the new CA alone for {', '.join(there)}")
    print(RELOAD)


_ACTIONS = {
    "hosts": _make,
    "request": _request,
    "sign": _sign,
    "renew": _renew,
    "revoke": _revoke,
    "new_ca": _new_ca,
    "drop_old_ca": _drop_old_ca,
}


def _names(text: str) -> list[str]:
    """From "a,a.example.org,10.0.0.1". Raises UsageError."""
    names = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not names:
        raise UsageError(f"{text!r} names no host")
    for name in names:
        try:
            found = peer.parse(f"[{name}]" if name.count(":") > 1 else name)
        except ValueError as err:
            raise UsageError(str(err)) from err
        if ":" in name and found.host != name:
            raise UsageError(f"{name!r}: a certificate names hosts, not ports")
    return names
