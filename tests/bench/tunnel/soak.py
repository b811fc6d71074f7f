# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.tunnel.soak: whether two tunnel daemons need more memory the more they carry."""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

from tests.bed import BedError
from tests.bench import program
from tests.bench.tunnel.session import Session
from tests.bench.tunnel.ways import HOSTS, PCMIG, Place, parse_ways, running

# What an allocator may still find for itself once everything has been used before.
SLACK_MIB = 4.0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.tunnel.soak",
        description="Sends stream after stream through two tunnel daemons and looks at their memory.",
        epilog=f"exit codes: 0 at most {SLACK_MIB:g} MiB more than after the first stream; 1 more; 2 usage",
        allow_abbrev=False,
    )
    parser.add_argument("--gigabytes", type=float, default=100.0, metavar="N", help="in total (default: 100)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="of one stream's two loads each (default: 20)",
    )
    return parser


def resident_mib(pid: int) -> float:
    """proc(5), VmRSS."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise BedError("a tunnel daemon has ended")
    return int(found[1]) / 1024


def soak(gigabytes: float, seconds: float) -> float:
    """By how much the larger of the two grew after the first stream, in MiB."""
    console = program.make_console()
    total_gb = grown_mib = 0.0
    first: list[float] = []
    with Session(seconds) as session:
        place = Place(session.folder / "soak", session.folder / "pki")
        place.folder.mkdir()
        with running(parse_ways(PCMIG)[0], place) as carrier:
            pids = [process.pid for process in carrier.processes]
            while total_gb < gigabytes:
                carrier.destination.unlink(missing_ok=True)
                row = session.stream(carrier.source, carrier.destination, pids)
                total_gb += (row["bulk_bytes"] + row["busy_bytes"]) / 1e9
                now = [resident_mib(pid) for pid in pids]
                first = first or now
                grown_mib = max(grown_mib, *(b - a for a, b in zip(first, now, strict=True)))
                sizes = ", ".join(f"{host}: {size:.1f} MiB" for host, size in zip(HOSTS, now, strict=True))
                console.print(f"{total_gb:6.1f} GB  {row['bulk_mb_s']:5.0f} MB/s  {sizes}")
    console.print(f"grown by {grown_mib:.1f} MiB while {total_gb:.0f} GB went through")
    return grown_mib


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    for option, number in (("--gigabytes", args.gigabytes), ("--seconds", args.seconds)):
        if not number > 0:
            program.complain(BedError(f"{option} {number:g}: use more than 0"))
            return 2
    try:
        return 0 if soak(args.gigabytes, args.seconds) <= SLACK_MIB else 1
    except BedError as error:
        program.complain(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
