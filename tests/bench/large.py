# SPDX-License-Identifier: Apache-2.0
"""A guest of hundreds of GiB, nearly all of them zero pages: how long it takes, and what it notices.

    sudo sysctl vm.overcommit_memory=1     # or QEMU gets no more memory than the machine has
    sudo .venv/bin/python -m tests.bench.large --memory 512

Its kernel uses 160 MiB, of which 32 are written to and verified all the time; QEMU has a bitmap, a pass and a
post-copy of all the rest. What it takes of the machine are page tables: 2 MiB for each GiB.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

from tests.bed import Bed, BedError, GuestSpec, Host
from tests.bench.program import STACKS, complain, make_console
from tests.functional.scene import Scene, SceneError, scene_on

WAYS = ("virsh", "auto", "immediate", "first-pass", "never")
KERNEL_MIB, WORKER_MIB, WRITE_PPS = 160, 32, 3000
OVERCOMMIT = pathlib.Path("/proc/sys/vm/overcommit_memory")


def virsh(scene: Scene, source: Host, destination: Host, patience_s: float) -> None:
    words = ["virsh", "--connect", source.inner_uri, "migrate", "--live", "--p2p", "--postcopy"]
    words += ["--postcopy-after-precopy", scene.name, destination.remote_uri]
    words += ["--migrateuri", destination.migrate_uri]
    subprocess.run(source.inside(words), check=True, timeout=patience_s)


def measure(scene: Scene, way: str, patience_s: float) -> str:
    """Moves the guest to the other host, and tells what that was like."""
    source = scene.source
    destination = scene.bed.other(source)
    began_s = time.monotonic()
    if way == "virsh":
        virsh(scene, source, destination, patience_s)
        scene.expect_at(destination)
        return f"{time.monotonic() - began_s:.1f} s"
    run = scene.migration("--policy", way, source=source).wait(patience_s)
    if run.code != 0:
        raise SceneError(f"{way}: {run.err}")
    verdict = scene.expect_at(destination, run)
    return (
        f"{run.elapsed_s:.1f} s, silent for {verdict.switch_silence_ms or 0:.0f} ms at the switch, for "
        f"{verdict.later_silence_ms or 0:.0f} ms after it, {verdict.pages_checked} pages verified"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.large", description=__doc__)
    parser.add_argument("--memory", type=int, default=512, metavar="GIB", help="of the guest (default: 512)")
    parser.add_argument(
        "--ways", default="virsh,immediate,auto", help=f"of {', '.join(WAYS)}, between commas"
    )
    parser.add_argument(
        "--rate", type=float, default=1000, metavar="MBIT", help="migration link (default: 1000)"
    )
    parser.add_argument(
        "--stack", choices=sorted(set(STACKS) - {"both"}), default="forky", help="(default: forky)"
    )
    options = parser.parse_args(argv)
    ways = options.ways.split(",")
    unknown = sorted(set(ways) - set(WAYS))
    if unknown or not 1 <= options.memory <= 1000:
        wrong = (
            f"--ways {unknown[0]}: use {', '.join(WAYS)}"
            if unknown
            else f"--memory {options.memory}: use 1 to 1000"
        )
        complain(BedError(wrong))
        return 2
    if OVERCOMMIT.read_text().strip() != "1":
        complain(
            BedError(
                "QEMU gets no such memory from this machine: sysctl vm.overcommit_memory=1, and 0 afterwards"
            )
        )
        return 1
    spec = GuestSpec(
        name="large",
        memory_mib=options.memory << 10,
        kernel_mib=KERNEL_MIB,
        worker_mib=WORKER_MIB,
        write_pps=WRITE_PPS,
        verify_pps=WRITE_PPS,
    )
    console = make_console()
    try:
        bed = Bed(options.stack, options.rate)
        with tempfile.TemporaryDirectory() as folder, scene_on(bed, pathlib.Path(folder)) as scene:
            scene.prepare(spec)
            for way in ways:
                told = measure(scene, way, 60 + 4 * options.memory)
                console.print(f"{options.memory} GiB, {way}: {told}")
    except (BedError, AssertionError, subprocess.SubprocessError) as error:
        console.print(f"[red]{error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
