# SPDX-License-Identifier: Apache-2.0
"""The bed's guest with network cards that it uses, and an address on each."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import pathlib
import re
import shutil
import tempfile

from tests.bed import GuestSpec, Host
from tests.bed.guest import WORKER_SOURCE, newc_archive
from tests.bed.layer import Reporter, cache_lock
from tests.bed.procs import run
from tests.bench.ports.wiring import GUEST, address, address6, bridge, mac
from tests.cloud.image import MODULES, unpack_kernel

INIT_SOURCE = pathlib.Path(__file__).parent / "guest" / "init.c"
FOLDER = "/run/pcmig/wired"  # as a host sees it
CFLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-Wall", "-Wextra", "-Werror")


@dataclasses.dataclass(frozen=True)
class Wired(GuestSpec):
    """Its pre-copy does not end by itself at 100 Mb/s: the worker writes to all that it has in a second."""

    name: str = "wired"
    memory_mib: int = 128
    worker_mib: int = 32
    write_pps: int = 10_000
    verify_pps: int = 1000
    nics: int = 1
    openvswitch: bool = False

    def options(self) -> str:
        networks = (
            f"net=eth{each},{address(each, GUEST)},{address6(each, GUEST)}" for each in range(self.nics)
        )
        return " ".join([super().options(), *networks])

    def xml(self) -> str:
        xml = re.sub(r"(<kernel>|<initrd>)[^<]*/", rf"\g<1>{FOLDER}/", super().xml())
        cards = "".join(self._card(each) for each in range(self.nics))
        return xml.replace("<serial", f"{cards}<serial", 1)

    def _card(self, network: int) -> str:
        port = "<virtualport type='openvswitch'/>" if self.openvswitch else ""
        return (
            f"<interface type='bridge'><mac address='{mac(network)}'/>"
            f"<source bridge='{bridge(network)}'/>{port}<model type='virtio'/><driver name='qemu'/>"
            "<rom enabled='no'/></interface>"
        )

    def give_image(self, host: Host, reporter: Reporter = lambda _: None) -> None:
        """What it boots, where HOST finds it."""
        shutil.copytree(ensure_image(reporter), host.state / FOLDER.removeprefix("/"), dirs_exist_ok=True)


def ensure_image(reporter: Reporter) -> pathlib.Path:
    """The folder with vmlinuz and initramfs; downloads a kernel (27 MB) the first time."""
    sources = [path.read_bytes() for path in (WORKER_SOURCE, INIT_SOURCE)]
    key = hashlib.sha256(b"\0".join(sources)).hexdigest()[:12]
    with cache_lock(reporter, "guests") as cache:
        folder = cache / f"wired-{key}"
        if folder.is_dir():
            return folder
        work = pathlib.Path(tempfile.mkdtemp(prefix=".making.", dir=cache))
        try:
            work.chmod(0o755)
            reporter("making the guest's image (downloads a kernel, 27 MB)")
            modules = {name: data for name, data in unpack_kernel(work).items() if name in MODULES}
            define = f'-DMODULES="{" ".join(modules)}"'
            programs = {
                "init": _compile(INIT_SOURCE, work / "init", define),
                "worker": _compile(WORKER_SOURCE, work / "worker"),
            }
            files = {f"modules/{name}": content for name, content in modules.items()}
            (work / "initramfs").write_bytes(gzip.compress(newc_archive(programs, files)))
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return folder


def _compile(source: pathlib.Path, program: pathlib.Path, *options: str) -> bytes:
    run(["gcc", *CFLAGS, *options, str(source), "-o", str(program)], f"compiling the guest's {program.name}")
    content = program.read_bytes()
    program.unlink()
    return content
