# SPDX-License-Identifier: Apache-2.0
"""What fifty migrations at once cost the process that steers them: descriptors and CPU.

    sudo .venv/bin/python -m tests.bench.many.fifty [--guests N] [--stack STACK]

Real guests on the two-host bed, each of firmware and 48 MiB of random bytes, so they need no CPU of their
own. All are migrated by one process, as nova-compute does with a host that is drained; they take turns on the
link (doc/operate/drain.rst), and what is measured is the whole drain, a second at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

from tests.bed import Bed, BedError
from tests.bed.guest import MACHINE
from tests.bed.host import Host
from tests.bed.procs import run
from tests.bench.program import complain, make_console

GUESTS_MAX = 50  # for which the figures are asked, and 13 GiB
CONTENT_MIB = 48
FOLDER = "/run/pcmig"
PATIENCE_S = 120
RATE_MBIT = 1000
STARTING_S = 3  # what the calls of fifty at once cost is told by itself
FILES_MAX = 8  # of one migration
CPU_MAX_PERCENT = 25  # of one core, fifty migrations


def xml(number: int) -> str:
    """QEMU's loader fills memory from a file, so that there is something to send."""
    return f"""\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>many{number}</name>
  <memory unit='MiB'>80</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{MACHINE}'>hvm</type></os>
  <cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-device'/>
    <qemu:arg value='loader,file={FOLDER}/content,addr=0x1000000,force-raw=on'/>
  </qemu:commandline>
</domain>
"""


# --- in the source host's network ---------------------------------------------------------------------------


def sample(seconds: float) -> dict[str, float]:
    """What this process costs for SECONDS from now on."""
    cpu_s, begin_s = time.process_time(), time.monotonic()
    time.sleep(seconds)
    return {
        "cpu_percent": 100 * (time.process_time() - cpu_s) / (time.monotonic() - begin_s),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def steer(source_uri: str, dest_uri: str, migrate_uri: str, guests: int) -> dict[str, Any]:
    from pcmig import _core

    files_before = len(os.listdir("/proc/self/fd"))
    migrations = [
        _core.Migration(
            f"many{number}",
            dest_uri,
            source_uri=source_uri,
            migrate_uri=migrate_uri,
            connect_timeout_ms=60_000,
            recover=True,
        )
        for number in range(guests)
    ]
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    for migration in migrations:
        migration.start()
    threading.Thread(target=follow, args=(migrations,), daemon=True).start()
    samples = [sample(STARTING_S)]
    while not all(migration.status()["outcome"] for migration in migrations):
        samples.append(sample(1))
        if time.monotonic() - began_s > PATIENCE_S * guests / 10:
            raise SystemExit(f"not at its end: {outcomes(migrations)}")
    return {
        "files_before": files_before,
        "seconds": time.monotonic() - began_s,
        "cpu_s": time.process_time() - began_cpu_s,
        "samples": samples,
        "outcomes": outcomes(migrations),
    }


def follow(migrations: list[Any]) -> None:
    """As nova-compute does: a look at the news, four times a second."""
    while any(migration.status()["outcome"] is None for migration in migrations):
        time.sleep(0.25)


def outcomes(migrations: list[Any]) -> dict[str, int]:
    """How many came to each end, and why where it is a bad one."""
    ends = []
    for status in (migration.status() for migration in migrations):
        outcome = str(status["outcome"])
        ends.append(outcome if outcome == "completed" else f"{outcome}: {status['error']}")
    return dict(Counter(ends))


# --- the bed ------------------------------------------------------------------------------------------------


def prepare(host: Host, guests: int, workers: int) -> None:
    with (host.state / "etc/libvirtd.conf").open("a") as file:
        file.write(f"max_workers = {workers}\nmax_clients = 1000\nmax_anonymous_clients = 200\n")
    host.restart_libvirtd()
    (host.state / "run/pcmig/content").write_bytes(os.urandom(CONTENT_MIB << 20))
    if host.name != "a":
        return
    for number in range(guests):
        (host.state / "run/pcmig/many.xml").write_text(xml(number))
        host.virsh("create", f"{FOLDER}/many.xml")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many.fifty", description=__doc__)
    parser.add_argument(
        "--guests", type=int, default=GUESTS_MAX, metavar="N", help=f"1 to {GUESTS_MAX} (default)"
    )
    parser.add_argument(
        "--stack", choices=("forky", "backports"), default="forky", help="QEMU and libvirt (default: forky)"
    )
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not 1 <= options.guests <= GUESTS_MAX:
        complain(BedError(f"--guests {options.guests}: use 1 to {GUESTS_MAX}"))
        return 2
    if options.inside:
        source_uri, dest_uri, migrate_uri = options.inside
        print(json.dumps(steer(source_uri, dest_uri, migrate_uri, options.guests)))
        return 0
    console = make_console()
    try:
        with Bed(options.stack, RATE_MBIT, reporter=lambda line: console.print(f"[dim]{line}")) as bed:
            for host in bed.hosts:
                prepare(host, options.guests, 3 * options.guests + 10)
            console.print(f"{options.guests} guests are up")
            inside = ["--inside", bed.a.uri, bed.b.remote_uri, bed.b.migrate_uri]
            words = [sys.executable, "-m", "tests.bench.many.fifty", "--guests", str(options.guests), *inside]
            found = json.loads(run(bed.a.command(words), "the migrations", PATIENCE_S * options.guests))
    except (BedError, subprocess.SubprocessError) as error:
        console.print(f"[red]{error}")
        return 1
    starting, *rest = found["samples"]
    each = (max(sample["files"] for sample in found["samples"]) - found["files_before"]) / options.guests
    cpu = 100 * found["cpu_s"] / found["seconds"]
    worst = max((sample["cpu_percent"] for sample in rest), default=0.0)
    told = ", ".join(f"{count} {outcome}" for outcome, count in found["outcomes"].items())
    console.print(
        f"{told} in {found['seconds']:.0f} s: at most {each:.1f} descriptors each (below {FILES_MAX}), "
        f"{cpu:.1f} % of a core (below {CPU_MAX_PERCENT} of 50), {starting['cpu_percent']:.1f} % in the "
        f"first {STARTING_S} s, {worst:.1f} % in the worst second after, "
        f"{max(sample['threads'] for sample in found['samples']):.0f} threads"
    )
    good = found["outcomes"] == {"completed": options.guests} and each < FILES_MAX
    return 0 if good and cpu < CPU_MAX_PERCENT * options.guests / 50 else 1


if __name__ == "__main__":
    sys.exit(main())
