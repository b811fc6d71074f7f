# SPDX-License-Identifier: Apache-2.0
"""tools/demo --cloud: `nova live-migration` of a guest too busy for pre-copy, and what became of it."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from typing import Any

from rich.table import Table

from tests.bed.demo import EXIT_FAILED, EXIT_OK, PAGE_BYTES, SETTLE_S, Screen, add_stack
from tests.bed.errors import BedError
from tests.bed.fallback import on_a_stack
from tests.bed.guest import TAIL_S, GuestSpec
from tests.bed.verdict import Verdict
from tests.cloud.cloud import MIGRATION_ENDED, PCMIG_DRIVER, Cloud
from tests.cloud.server import Server

PROGRESS_S = 2.0
POST_COPY = {"libvirt": {"live_migration_permit_post_copy": True}}
EPILOG = """\
Exit status: 0 the guest runs on the destination with zero page errors, and all services say so;
1 it does not or something went wrong; 2 wrong usage; 130 interrupted."""


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    screen = Screen()
    screen.steps = 4
    return screen.show(lambda: _run(options, screen))


def _run(options: argparse.Namespace, screen: Screen) -> int:
    spec = GuestSpec(write_pps=options.write_rate)
    screen.console.print(
        "[bold]pcmig demo[/bold]: nova live-migration of a guest that is too busy for pre-copy"
    )
    screen.say(
        f"driver {options.driver}; takes 3 minutes, 5 more the first time; Ctrl-C takes everything down"
    )
    screen.step("An OpenStack with two compute hosts")

    def make(stack: str) -> Cloud:
        return Cloud(stack, options.rate, driver=options.driver, nova_conf=POST_COPY, reporter=screen.say)

    with on_a_stack(options.stack, make, screen.say) as cloud:
        screen.step("A guest that writes memory faster than the migration link")
        with screen.waiting("booting"):
            server = cloud.boot(spec)
            time.sleep(SETTLE_S)
        _show_guest(server, options.rate, screen)
        screen.step(f"nova live-migration {spec.name}")
        start_s = time.monotonic()
        record, end_s = _migrate(cloud, server, screen)
        screen.step("What Nova, neutron, placement and the guest say")
        with screen.waiting("letting the guest verify every page"):
            server.wait_verified(end_s)
            verdict = server.verdict(start_s, end_s, max(TAIL_S, time.monotonic() - end_s))
        ok = _show(cloud, server, record, verdict, end_s - start_s, screen)
    screen.say(f"everything is taken down; {screen.elapsed_s():.0f} s in all")
    return EXIT_OK if ok else EXIT_FAILED


def _show_guest(server: Server, rate_mbit: float, screen: Screen) -> None:
    beats = server.heartbeats()
    recent = [beat for beat in beats if beat.time_s > beats[-1].time_s - SETTLE_S / 2]
    written = (recent[-1].written - recent[0].written) / (recent[-1].time_s - recent[0].time_s)
    screen.say(
        f"it runs on {server.nova_host} as {server.domain}, address {server.port.address}, and writes "
        f"{written * PAGE_BYTES / 1e6:.1f} MB/s (the link carries {rate_mbit / 8:.1f} MB/s)"
    )


def _migrate(cloud: Cloud, server: Server, screen: Screen) -> tuple[dict[str, Any], float]:
    """The record of the migration once it has ended, and when that was."""
    command = subprocess.Popen(
        cloud.control.inside(["nova", "live-migration", server.id]),
        env=cloud.client_env(),
        stderr=subprocess.DEVNULL,  # that the command is deprecated
    )
    last = ""
    said_s = 0.0
    try:
        while True:
            records = cloud.migrations(server)
            if command.poll():
                raise BedError(f"nova live-migration ended with {command.returncode}")
            text = _progress(records[0], cloud.server_migration(server)) if records else ""
            ended = bool(records) and records[0]["status"] in MIGRATION_ENDED
            if text != last and (ended or time.monotonic() - said_s >= PROGRESS_S):
                screen.say(f"[dim]{screen.elapsed_s():4.0f} s[/dim]  {text}")
                last, said_s = text, time.monotonic()
            if ended:
                return records[0], time.monotonic()
            time.sleep(0.25)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(30)
        command.kill()


def _progress(record: dict[str, Any], running: dict[str, Any] | None) -> str:
    text = f"{record['status']}, {record['source_compute']} to {record['dest_compute']}"
    if running and running.get("memory_total_bytes"):
        total, done, left = (
            int(running[f"memory_{name}_bytes"] or 0) >> 20 for name in ("total", "processed", "remaining")
        )
        text += f": {done} MiB sent, {left} of {total} MiB left"
    return text


def _show(
    cloud: Cloud, server: Server, record: dict[str, Any], verdict: Verdict, took_s: float, screen: Screen
) -> bool:
    server_record = server.show()
    destination = record["dest_compute"].removeprefix("pcmig-")
    bindings, allocations = cloud.port_bindings(server), cloud.placement_allocations(server)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 5))
    rows = {
        "migration": f"{record['status']} after {took_s:.1f} s",
        "server": f"{server_record['status']} on {server_record['OS-EXT-SRV-ATTR:host']}",
        "port binding": ", ".join(f"{host} {status}" for host, status in bindings.items()),
        "allocations": ", ".join(f"{host} {resources}" for host, resources in allocations.items()),
        "pages checked": f"{verdict.pages_checked}, every page {verdict.full_passes_after} times since",
        "page errors": str(verdict.page_errors),
        "longest silence before": f"{verdict.before_silence_ms:.0f} ms",
        "silence at switchover": _ms(verdict.switch_silence_ms),
        "longest silence after": _ms(verdict.later_silence_ms),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    screen.console.print(table)
    wrong = {
        f"the migration is {record['status']}": record["status"] != "completed",
        f"the server is {server_record['status']}": server_record["status"] != "ACTIVE",
        f"the guest runs on {verdict.host}": verdict.host != destination or not verdict.alive,
        "the port is not bound there alone": bindings != {destination: "ACTIVE"},
        "placement has it elsewhere": set(allocations) != {destination},
        f"{verdict.page_errors} pages do not hold what the guest wrote": verdict.page_errors != 0,
        "not every page was verified since": verdict.full_passes_after < 1,
    }
    problems = [text for text, is_so in wrong.items() if is_so]
    for problem in problems:
        screen.bad(problem)
    if not problems:
        screen.good(f"the guest runs on {destination}, and every page holds what the guest wrote")
    return not problems


def _ms(value: float | None) -> str:
    return "it did not change hosts" if value is None else f"{value:.0f} ms"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/demo --cloud",
        description="Brings an OpenStack up on this machine and live-migrates a busy guest with it.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--rate", type=float, default=100, metavar="MBIT", help="migration link (default: 100)"
    )
    parser.add_argument("--write-rate", type=int, default=GuestSpec().write_pps, metavar="N", help="pages/s")
    parser.add_argument("--driver", default=PCMIG_DRIVER, help=f"compute_driver (default: {PCMIG_DRIVER})")
    add_stack(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
