# SPDX-License-Identifier: Apache-2.0
"""What a cloud guest boots: the bed's kernel with the drivers of a NIC, and the bed's memory worker."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile

from tests.bed.errors import BedError
from tests.bed.guest import WORKER_SOURCE, kernel_package, newc_archive
from tests.bed.layer import Reporter, cache_dir
from tests.bed.procs import run
from tests.cloud.network import COLLECTOR, COLLECTOR_MAC, COLLECTOR_PORT, FLAT_NETMASK

INIT_SOURCE = pathlib.Path(__file__).parent / "guest" / "init.c"
DISK_SOURCE = INIT_SOURCE.with_name("disk.c")
# In the order of loading (virtio needs symbols of virtio_ring); a kernel may have some of them built in.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)
DISK_MODULES = ("virtio_blk",)  # loaded for guests that have work for a disk
CFLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-Wall", "-Wextra", "-Werror")


def ensure_images(reporter: Reporter = lambda _: None) -> pathlib.Path:
    """The folder with vmlinuz and initramfs of cloud guests; downloads a kernel (27 MB) the first time."""
    sources = [
        path.read_bytes() for path in (WORKER_SOURCE, INIT_SOURCE, DISK_SOURCE, pathlib.Path(__file__))
    ]
    key = hashlib.sha256(b"\0".join(sources)).hexdigest()[:12]
    folder = cache_dir() / "cloud" / "guests" / key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=".making.", dir=folder.parent))
    try:
        work.chmod(0o755)
        reporter("making the guest's image (downloads a kernel, 27 MB)")
        modules = unpack_kernel(work)
        programs = {
            "init": _compile_init(work, modules),
            "worker": _compile(WORKER_SOURCE, work / "worker", []),
            "disk": _compile(DISK_SOURCE, work / "disk", []),
        }
        archive = newc_archive(programs, {f"modules/{name}": content for name, content in modules.items()})
        (work / "initramfs").write_bytes(gzip.compress(archive))
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def unpack_kernel(work: pathlib.Path) -> dict[str, bytes]:
    """Puts vmlinuz into the folder and returns the modules, in the order of loading."""
    package = kernel_package()
    wanted = re.compile(rf".*/({'|'.join(MODULES + DISK_MODULES)})\.ko(\.xz)?")
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(dir=work) as name:
        # As root apt would drop its rights for the download, and could not write here.
        download = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package]
        done = subprocess.run(download, cwd=name, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise BedError(f"downloading {package}: {done.stderr.strip()} (apt-get update may help)")
        deb = next(pathlib.Path(name).glob("*.deb"))
        with (
            subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process,
            tarfile.open(fileobj=process.stdout, mode="r|") as archive,
        ):
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                if re.fullmatch(r"(\./)?boot/vmlinuz-.*", member.name):
                    (work / "vmlinuz").write_bytes(content.read())
                elif match := wanted.fullmatch(member.name):
                    data = content.read()
                    found[match[1]] = lzma.decompress(data) if match[2] else data
    if not (work / "vmlinuz").exists() or "virtio_net" not in found:
        raise BedError(f"{package} holds no kernel with a virtio_net module: report this")
    return {name: found[name] for name in MODULES + DISK_MODULES if name in found}


def _compile_init(work: pathlib.Path, modules: dict[str, bytes]) -> bytes:
    texts = {
        "MODULES": " ".join(name for name in MODULES if name in modules),
        "DISK_MODULES": " ".join(name for name in DISK_MODULES if name in modules),
        "COLLECTOR_ADDRESS": COLLECTOR,
        "COLLECTOR_MAC": COLLECTOR_MAC.replace(":", ""),
        "NETMASK": FLAT_NETMASK,
    }
    defines = [f'-D{name}="{text}"' for name, text in texts.items()] + [f"-DCOLLECTOR_PORT={COLLECTOR_PORT}"]
    return _compile(INIT_SOURCE, work / "init", defines)


def _compile(source: pathlib.Path, program: pathlib.Path, defines: list[str]) -> bytes:
    run(["gcc", *CFLAGS, *defines, str(source), "-o", str(program)], f"compiling the guest's {program.name}")
    content = program.read_bytes()
    program.unlink()
    return content
