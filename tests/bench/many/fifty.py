# SPDX-License-Identifier: Apache-2.0
"""What fifty migrations at once cost the process that steers them: descriptors and CPU.

    sudo .venv/bin/python -m tests.bench.many.fifty [--guests N] [--seconds S] [--stack STACK]

Real guests on the two-host bed, each of firmware and 48 MiB of random bytes, so they need no CPU of their
own; at 1 MiB/s each, so that all are under way for long enough. First all in pre-copy, then all in post-copy.
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
from collections.abc import Callable
from typing import Any

from tests.bed import Bed, BedError
from tests.bed.guest import MACHINE
from tests.bed.host import Host
from tests.bed.procs import run
from tests.bench.program import make_console

CONTENT_MIB = 48
FOLDER = "/run/pcmig"
PATIENCE_S = 120
SWITCH_S = 20  # for all to switch; what is under way by then is measured
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


def wait_for(what: str, reached: Callable[[], bool], statuses: Callable[[], list[str]]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not reached():
        failed = [status for status in statuses() if "failed" in status or "operator" in status]
        if time.monotonic() > deadline_s or failed:
            raise SystemExit(f"not {what}: {failed or sorted(set(statuses()))}")
        time.sleep(0.1)


def costs(seconds: float) -> dict[str, float]:
    """Of this process, over SECONDS."""
    cpu_s, begin_s = time.process_time(), time.monotonic()
    time.sleep(seconds)
    return {
        "cpu_percent": 100 * (time.process_time() - cpu_s) / (time.monotonic() - begin_s),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading_count(),
    }


def threading_count() -> int:
    return len(os.listdir("/proc/self/task"))


def steer(source_uri: str, dest_uri: str, migrate_uri: str, guests: int, seconds: float) -> dict[str, Any]:
    from pcmig import _core

    before = len(os.listdir("/proc/self/fd"))
    migrations = [
        _core.Migration(
            f"many{number}",
            dest_uri,
            source_uri=source_uri,
            migrate_uri=migrate_uri,
            policy="manual",
            bandwidth_mib=1,
            postcopy_bandwidth_mib=1,
            connect_timeout_ms=60_000,
            recover=True,
        )
        for number in range(guests)
    ]

    def phases() -> list[str]:
        return [
            f"{status['phase']} {status['outcome']} {status['error'] or ''}"
            for status in (migration.status() for migration in migrations)
        ]

    def all_in(*names: str) -> bool:
        return all(any(phase.startswith(name) for name in names) for phase in phases())

    def followed() -> None:  # as nova-compute does: a look at the news, four times a second
        while any(migration.status()["outcome"] is None for migration in migrations):
            time.sleep(0.25)

    for migration in migrations:
        migration.start()
    threading.Thread(target=followed, daemon=True).start()
    wait_for("all in pre-copy", lambda: all_in("precopy"), phases)
    precopy = costs(seconds)
    for migration in migrations:
        migration.switch()
    switched_s = time.monotonic()  # they may wait for each other
    wait_for(
        "all in post-copy",
        lambda: all_in("postcopy") or time.monotonic() - switched_s > SWITCH_S,
        phases,
    )
    postcopy = costs(seconds)
    seen = Counter(phase.split()[0] for phase in phases())
    wait_for("all done", lambda: all_in("finished completed"), phases)
    return {"files_before": before, "precopy": precopy, "postcopy": postcopy, "seen": dict(seen)}


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
    parser.add_argument("--guests", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement (default: 8)")
    parser.add_argument("--stack", default="forky")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside:
        source_uri, dest_uri, migrate_uri = options.inside
        print(json.dumps(steer(source_uri, dest_uri, migrate_uri, options.guests, options.seconds)))
        return 0
    console = make_console()
    try:
        with Bed(options.stack, None, reporter=lambda line: console.print(f"[dim]{line}")) as bed:
            for host in bed.hosts:
                prepare(host, options.guests, 3 * options.guests + 10)
            console.print(f"{options.guests} guests are up")
            inside = ["--inside", bed.a.uri, bed.b.remote_uri, bed.b.migrate_uri]
            words = [sys.executable, "-m", "tests.bench.many.fifty", "--guests", str(options.guests)]
            words += ["--seconds", str(options.seconds), *inside]
            found = json.loads(run(bed.a.command(words), "the migrations", 3 * PATIENCE_S))
    except (BedError, subprocess.SubprocessError) as error:
        console.print(f"[red]{error}")
        return 1
    good = True
    for phase in ("precopy", "postcopy"):
        each = (found[phase]["files"] - found["files_before"]) / options.guests
        cpu = found[phase]["cpu_percent"]
        good = good and each < FILES_MAX and cpu < CPU_MAX_PERCENT * options.guests / 50
        console.print(
            f"{phase}: {each:.1f} descriptors each (below {FILES_MAX}), {cpu:.1f} % of a core in all (below "
            f"{CPU_MAX_PERCENT} of 50), {found[phase]['threads']} threads"
        )
    seen = ", ".join(f"{count} in {phase}" for phase, count in sorted(found["seen"].items()))
    console.print(f"at the end of the second measurement: {seen}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
