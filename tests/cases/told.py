# SPDX-License-Identifier: Apache-2.0
"""A guest that crashes, powers off or restarts when it is told to."""

from __future__ import annotations

import gzip
import hashlib
import os
import pathlib
import re
import select
import time

from tests.bed import BedError, Host
from tests.bed.guest import GUEST_FOLDER, ensure_images, newc_archive
from tests.bed.layer import cache_lock
from tests.bed.procs import run
from tests.cases.scene import CaseScene, firmware_guest

SOURCE = pathlib.Path(__file__).parent / "guest" / "init.c"
NAME = "told"
OPEN_S = 2.5  # QEMU looks once a second whether somebody has opened the terminal
BOOT = (
    "<kernel>{0}/vmlinuz</kernel><initrd>/run/pcmig/told.cpio</initrd>"
    "<cmdline>console=ttyS0 quiet mitigations=off random.trust_cpu=on</cmdline>"
)


def _initramfs() -> bytes:
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    with cache_lock(lambda _: None) as cache:
        program = cache / f"told-{key}"
        if not program.exists():
            flags = ["-std=gnu11", "-O2", "-static", "-Wall", "-Wextra"]
            run(["gcc", *flags, str(SOURCE), "-o", str(program)], "compiling a guest's first process")
    return gzip.compress(newc_archive({"init": program.read_bytes()}))


def start(
    scene: CaseScene, host: Host, on_crash: str = "destroy", name: str = NAME, devices: str = ""
) -> None:
    """Persistent, on HOST, until it is ready."""
    ensure_images()
    for each in scene.bed.hosts:
        (each.state / "run/pcmig/told.cpio").write_bytes(_initramfs())
    devices += "<serial type='pty'/><panic model='isa'><address type='isa' iobase='0x505'/></panic>"
    xml = firmware_guest(name, devices=devices, memory_mib=128)
    xml = xml.replace("</os>", BOOT.format(GUEST_FOLDER) + "</os>")
    xml = re.sub(r"<on_crash>.*?<", f"<on_crash>{on_crash}<", xml)
    scene.define(host, xml)
    deadline_s = time.monotonic() + 90
    heard = ""
    with pathlib.Path(_terminal(host, name)).open("r+b", buffering=0) as terminal:
        while "ready" not in heard:
            if time.monotonic() > deadline_s:
                raise BedError(f"the guest does not get ready: {heard!r}")
            if select.select([terminal], [], [], 1)[0]:
                heard += terminal.read(4096).decode(errors="replace")


def tell(host: Host, word: str) -> None:
    """On HOST, where it runs."""
    descriptor = os.open(_terminal(host), os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(descriptor, f"{word}\n".encode())
        time.sleep(OPEN_S)
    finally:
        os.close(descriptor)


def _terminal(host: Host, name: str = NAME) -> str:
    return host.virsh("ttyconsole", name).strip()
