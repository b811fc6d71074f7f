# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.nova.ports: how long after the guest's stop all of its ports are bound to the
destination, by Nova's own way and by pcmig's, with one port and with many. Needs root."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.bed import BedError, GuestSpec
from tests.bed.layer import STACKS
from tests.bench.nova import logs
from tests.bench.switchover.events import COMPLETE, Listeners
from tests.cloud.api import wait_until
from tests.cloud.cloud import MIGRATION_ENDED, PCMIG_DRIVER, STOCK_DRIVER, Cloud
from tests.cloud.config import Sections
from tests.cloud.server import Server

RATE_MBIT = 200
PORTS_MOST = 25  # well below the 32 places of the bus, some of which are taken
STOPPED = "Suspended Migrated"  # of the source's guest, for its switch
PERMIT: Sections = {"libvirt": {"live_migration_permit_post_copy": True}}
# Both switch when they are told to. The line that says that the last port is bound, as nova-compute logs it.
WAYS: dict[str, tuple[str, Sections, str]] = {
    "stock": (STOCK_DRIVER, PERMIT, "Activated binding for port"),
    "pcmig": (PCMIG_DRIVER, {**PERMIT, "pcmig": {"policy": "manual"}}, "ports are bound to"),
}


class Bench:
    def __init__(self, cloud: Cloud, rounds: int) -> None:
        self.cloud = cloud
        self.rounds = rounds
        self.rows: list[dict[str, Any]] = []

    def run(self, ways: Sequence[str], counts: Sequence[int]) -> None:
        for way in ways:
            driver, conf, last = WAYS[way]
            self.cloud.use(driver, conf)
            for ports in counts:
                spec = GuestSpec(name=f"{way}-{ports}", memory_mib=112, worker_mib=32)
                server = self.cloud.boot(spec, ports=ports)
                hosts = [compute.host for compute in self.cloud.computes.values()]
                with Listeners(hosts, server.domain) as listeners:
                    for number in range(self.rounds):
                        row = {"way": way, "ports": ports, "round": number + 1}
                        row |= self._measure(server, listeners, last)
                        print(row, flush=True)
                        self.rows.append(row)
                self.cloud.delete(server)

    def _measure(self, server: Server, listeners: Listeners, last: str) -> dict[str, Any]:
        cloud = self.cloud
        source = str(server.nova_host)
        target = "b" if source == "a" else "a"
        before, log_start = len(cloud.migrations(server)), len(cloud.compute_log(source))
        start_s = time.monotonic()
        clock_s = time.time() - start_s  # what the log's time is ahead of the monotonic clock
        host = cloud.computes[source].host
        cloud.live_migrate(server, target)
        wait_until(lambda: self._status(server, before) == "running", 60, "it runs")
        wait_until(lambda: host.processed_bytes(server.domain) > 0, 30, "memory flows")
        cloud.force_complete(server)
        wait_until(lambda: self._status(server, before) in MIGRATION_ENDED, 120, "it ends")
        status = self._status(server, before)
        if status != "completed":
            raise BedError(f"migration of {server.name} is {status}")
        stopped_s = listeners.wait(source, STOPPED, start_s, 5.0)
        complete_s = listeners.wait(target, COMPLETE, start_s, 5.0)
        server.wait_status("ACTIVE")
        moments = _moments(cloud.compute_log(source)[log_start:], last)
        wait_until(
            lambda: all(each.get(target) == "ACTIVE" for each in cloud.all_port_bindings(server)),
            30,
            "all ports are bound there",
        )
        if stopped_s is None or not moments:
            return {"bound_ms": None, "lines": len(moments)}
        bound_s = max(moments) - clock_s
        return {
            "bound_ms": round((bound_s - stopped_s) * 1000),
            "complete_ms": None if complete_s is None else round((complete_s - stopped_s) * 1000),
            "lines": len(moments),
        }

    def _status(self, server: Server, before: int) -> str:
        records = self.cloud.migrations(server)
        return str(records[0]["status"]) if len(records) > before else ""


def _moments(log: str, text: str) -> list[float]:
    """time.time() of all lines with TEXT."""
    found = (logs.moment(line, text) for line in log.splitlines() if text in line)
    return [time_s for time_s in found if time_s is not None]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nova.ports", description=__doc__)
    parser.add_argument("--stack", default="backports", help="QEMU and libvirt (default: backports)")
    parser.add_argument("--ways", default="stock,pcmig", help="default: stock,pcmig")
    parser.add_argument("--ports", default="1,4,16", help="of each guest (default: 1,4,16)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: 3)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="every round's figures")
    args = parser.parse_args()
    ways, words = args.ways.split(","), args.ports.split(",")
    if not all(word.isdecimal() and 1 <= int(word) <= PORTS_MOST for word in words):
        parser.error(f"--ports {args.ports}: use numbers from 1 to {PORTS_MOST}, between commas")
    counts = [int(word) for word in words]
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: use 1 or more")
    if args.stack not in STACKS:
        parser.error(f"--stack {args.stack}: use {', '.join(STACKS)}")
    if args.json is not None and (args.json.is_dir() or not os.access(args.json.parent, os.W_OK)):
        parser.error(f"--json {args.json}: cannot be written")
    if set(ways) - set(WAYS):
        parser.error(f"--ways {args.ways}: use {','.join(WAYS)}")
    with Cloud(args.stack, RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=PERMIT, reporter=print) as cloud:
        bench = Bench(cloud, args.rounds)
        try:
            bench.run(ways, counts)
        finally:
            if args.json is not None:
                args.json.write_text(json.dumps(bench.rows, indent=1))
    print(f"{'way':8}{'ports':>6}  guest's stop to last port bound, ms: median (least, most)")
    for way in ways:
        for ports in counts:
            found = [row["bound_ms"] for row in bench.rows if (row["way"], row["ports"]) == (way, ports)]
            known = [each for each in found if each is not None]
            spread = f"{statistics.median(known):.0f} ({min(known)}, {max(known)})" if known else "-"
            print(f"{way:8}{ports:6}  {spread}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
