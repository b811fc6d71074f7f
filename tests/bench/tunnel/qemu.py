# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.tunnel.qemu: the tunnel against QEMU's own TLS, in real migrations of an idle guest.

See tests/bench/README.rst.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any

from rich.console import Console

from tests.bed import Bed, BedError, GuestSpec, Host
from tests.bench import program
from tests.bench.figures import Figure, Row, ratio, spread
from tests.bench.switchover import machine
from tests.functional.scene import SceneError, played
from tests.functional.tunnel_scene import TunnelScene

WAYS = {
    "tcp": "nothing encrypts",
    "qemu-tls": "QEMU's own TLS (pcmig migrate --tls)",
    "pcmig": "pcmig tunnel (pcmig migrate --tunnel)",
}
GOAL = 1.2
SETTLE_S = 2.0  # after a migration
PKI = "/run/pki"  # as the hosts see it
QEMU_CONF = f'migrate_tls_x509_cert_dir = "{PKI}"\nmigrate_tls_x509_verify = 1\n'
QEMU_NAMES = {  # QEMU's name of a file -> ours
    "ca-cert.pem": "ca.pem",
    **{f"{role}-cert.pem": "host.pem" for role in ("server", "client")},
    **{f"{role}-key.pem": "host-key.pem" for role in ("server", "client")},
}
FIGURES = (
    Figure("mb_s", "memory", "MB/s"),
    Figure("seconds", "pre-copy", "s", 2),
    Figure("bytes", "sent", "MB", 0, 1e6),
    Figure("busy_percent", "machine busy", "%"),
)


def measure(scene: TunnelScene, way: str, number: int) -> Row:
    """One migration to the other host. `error` says what did not go as it should."""
    row: Row = {"way": way, "round": number, "error": None}
    scene.clear = way != "pcmig"
    destination = scene.bed.other(scene.source)
    before = machine.CpuTimes.now()
    try:
        options = ["--policy", "never", *(["--tls"] if way == "qemu-tls" else [])]
        run = scene.migrate(*options, timeout_s=300)
        row |= machine.CpuTimes.now().shares_since(before)
        if run.code != 0 or run.report is None:
            raise SceneError(f"pcmig migrate ended with {run.code}: {run.err.strip()}")
        (precopy,) = (row for row in run.report["ledger"]["phases"] if row["phase"] == "precopy")
        row["seconds"] = precopy["duration_us"] / 1e6
        row["bytes"] = precopy["wire_bytes"]
        row["mb_s"] = precopy["wire_bytes"] / precopy["duration_us"]
        # Its pages it verifies all the time; a whole turn over them would take minutes.
        time.sleep(SETTLE_S)
        assert scene.guest is not None
        verdict = scene.guest.verdict(run.start_s, run.end_s, SETTLE_S)
        if verdict.host != destination.name or not verdict.alive or verdict.page_errors:
            raise SceneError(f"the guest did not arrive whole: {verdict}")
    except SceneError as error:
        row["error"] = str(error).splitlines()[0]
    return row


def give_certificates(host: Host, pki: pathlib.Path) -> None:
    """QEMU's TLS takes those of the tunnel. libvirtd starts only when their folder is there."""
    there = host.state / "run" / pathlib.Path(PKI).name
    there.mkdir()
    for theirs, ours in QEMU_NAMES.items():
        shutil.copy(pki / ours, there / theirs)
    with (host.state / "etc/qemu.conf").open("a") as conf:
        conf.write(QEMU_CONF)
    host.restart_libvirtd()


def run_rounds(args: argparse.Namespace, content: dict[str, Any], console: Console) -> None:
    spec = GuestSpec(memory_mib=args.memory, worker_mib=args.memory * 3 // 4, write_pps=20, verify_pps=2000)
    content |= {
        **program.head(),
        "machine": machine.facts([args.stack]),
        "memory_mib": args.memory,
        "steal_percent": args.steal,
        "ways": WAYS,
    }
    with tempfile.TemporaryDirectory(prefix="pcmig-bench-") as folder:
        scene = TunnelScene(Bed(args.stack, None), pathlib.Path(folder))
        with played(scene):
            for host in scene.bed.hosts:
                give_certificates(host, scene.folder / "pki" / host.name)
            scene.start_daemons()
            scene.prepare(spec)
            scene.bed.network.limit(None)
            for number, way in program.in_turn(list(WAYS), args.rounds):
                row = program.undisturbed(functools.partial(measure, scene, way, number), args.steal)
                program.take(args, content, console, row, FIGURES)


def show(console: Console, content: dict[str, Any]) -> None:
    rows = [row for row in content["rounds"] if not row["error"]]
    for versions in content["machine"]["stacks"].values():
        console.print(
            f"QEMU {versions.get('qemu')}, libvirt {versions.get('libvirt')}, congestion control of the "
            f"hosts {content['machine']['congestion']}"
        )
    console.print(program.table_of_ways(FIGURES, WAYS, content["rounds"]))
    medians = {way: spread(row["mb_s"] for row in rows if row["way"] == way) for way in WAYS}
    value = ratio(medians["pcmig"], medians["qemu-tls"])
    if value is not None:
        word = "reached" if value >= GOAL else "missed"
        console.print(f"pcmig: {value:.2f} times QEMU's TLS (goal: {GOAL} or more): {word}")
    program.say_how_calm(console, content["rounds"], content["steal_percent"])
    for row in content["rounds"]:
        program.say_if_left_out(console, row)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.tunnel.qemu",
        description="Compares pcmig's tunnel with QEMU's own TLS in real migrations. Needs root.",
        allow_abbrev=False,
    )
    parser.add_argument("--stack", default="forky", help="QEMU and libvirt (default: forky)")
    parser.add_argument(
        "--memory", type=int, default=2048, metavar="MIB", help="of the guest (default: 2048)"
    )
    program.add_options(parser, rounds=5, rate=False, steal=True)
    args = parser.parse_args(argv)
    console = program.make_console()
    content: dict[str, Any] = {}
    try:
        program.check_options(args)
        if not 256 <= args.memory <= 16384:
            raise BedError(f"--memory {args.memory}: use 256 to 16384")
    except BedError as error:
        program.complain(error)
        return 2

    def fill() -> None:
        if args.recorded:
            content.update(program.read(args.recorded, "memory_mib"))
        else:
            run_rounds(args, content, console)

    return program.finish(content, fill, lambda: show(console, content))


if __name__ == "__main__":
    sys.exit(main())
