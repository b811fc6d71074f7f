# SPDX-License-Identifier: Apache-2.0
"""The test guest: a Debian cloud kernel, a memory worker in an initramfs, its XML, its start on a host."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import gzip
import hashlib
import pathlib
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from xml.sax.saxutils import escape

from tests.bed.accel import Accel
from tests.bed.errors import BedError
from tests.bed.host import Host
from tests.bed.layer import Reporter, cache_lock
from tests.bed.procs import run
from tests.bed.verdict import Heartbeat, Verdict, judge, parse_line

WORKER_SOURCE = pathlib.Path(__file__).parent / "guest" / "worker.c"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
CONSOLE = "/run/pcmig/console.sock"  # as the hosts see it
GUEST_FOLDER = "/run/pcmig/guest"
DISK_FOLDER = "/var/lib/libvirt"
# A type that QEMU 7.2 to 11.1 all know; a versioned one, as a migration needs the same on both sides.
MACHINE = "pc-i440fx-7.2"
SILENT_S = 10.0  # a guest without a heartbeat for so long is given up
TAIL_S = 2.0  # how long after a migration the guest is still judged


@dataclasses.dataclass(frozen=True)
class GuestSpec:
    """What to boot. A guest that is to stay idle has write_pps=0 and verify_pps=0."""

    name: str = "g1"
    memory_mib: int = 256
    kernel_mib: int = 0  # of which its kernel uses so many, and the rest is never touched; 0 = all
    worker_mib: int = 128
    write_pps: int = 10_000
    verify_pps: int = 10_000
    heartbeat_ms: int = 20
    persistent: bool = False
    disk_mib: int = 0  # 0 = none; a file on the host, DISK
    ide_disk: str = ""  # path of a file on the hosts, which have one each; "" = none
    panic: bool = False  # QEMU is told when the guest crashes
    bridge: str = ""  # of the hosts, which have one of this name each, for a network card; "" = none
    machine: str = MACHINE
    accel: Accel = Accel.TCG

    @property
    def disk(self) -> str:
        """Its disk, as the hosts see it."""
        return f"{DISK_FOLDER}/pcmig-{self.name}.raw"

    def check(self) -> None:
        if self.memory_mib < 96:
            raise BedError(f"a guest of {self.memory_mib} MiB does not boot: use 96 or more")
        # The kernel, its page tables and the unpacked initramfs take about 70 MiB.
        used_mib = self.kernel_mib or self.memory_mib
        if not 1 <= self.worker_mib <= used_mib - 72:
            raise BedError(
                f"a worker of {self.worker_mib} MiB does not fit a guest of {used_mib} MiB: "
                f"use 1 to {used_mib - 72}"
            )
        if min(self.write_pps, self.verify_pps) < 0 or self.heartbeat_ms < 1:
            raise BedError("rates of the guest cannot be negative, and its heartbeat takes at least 1 ms")

    def options(self) -> str:
        """What the guest's first program is told."""
        names = ("worker_mib", "write_pps", "verify_pps", "heartbeat_ms")
        return " ".join(f"{name}={getattr(self, name)}" for name in names)

    def xml(self) -> str:
        devices = ""
        if self.disk_mib:
            devices = f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{escape(self.disk)}'/>
      <target dev='vda' bus='virtio'/>
    </disk>"""
        if self.ide_disk:
            devices += f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' error_policy='stop'/>
      <source file='{escape(self.ide_disk)}'/>
      <target dev='hda' bus='ide'/>
    </disk>"""
        if self.bridge:
            devices += f"""
    <interface type='bridge'>
      <source bridge='{escape(self.bridge)}'/>
      <model type='virtio'/>
      <driver name='qemu'/>
      <rom enabled='no'/>
    </interface>"""
        panic = "\n    <panic model='isa'/>" if self.panic else ""
        memory = f" mem={self.kernel_mib}M" if self.kernel_mib else ""
        # no_timer_check: as Linux has it under KVM. One that boots while its pages are still on their way, on
        # a busy machine, hears too few ticks and panics. What follows "--" is for /init, which is the worker.
        cmdline = (
            "console=ttyS0 quiet mitigations=off random.trust_cpu=on no_timer_check"
            f"{memory} -- {self.options()}"
        )
        return f"""\
<domain type='{self.accel.domain_type}'>
  <name>{escape(self.name)}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, self.name)}</uuid>
  <memory unit='MiB'>{self.memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{self.machine}'>hvm</type>
    <kernel>{GUEST_FOLDER}/vmlinuz</kernel>
    <initrd>{GUEST_FOLDER}/initramfs</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model fallback='forbid'>{self.accel.cpu}</model></cpu>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>{devices}{panic}
    <serial type='unix'><source mode='connect' path='{CONSOLE}'/></serial>
  </devices>
</domain>
"""


class LostWrite(AssertionError):
    """QEMU 11 under emulation lost a page write, which it does by itself (doc/operate/check.rst). Such a test
    is run once more, see tests/conftest.py; no other is."""


_BAD = re.compile(r"BAD \d+ \d+ (?P<offset>\d+) (?P<wrong_words>\d+) (?P<age>\d+)\b")
_PAGE_WORDS = 512


def lost_writes(log: str) -> bool:
    """Whether all that is wrong in LOG of a guest is what QEMU 11 does by itself under emulation
    (doc/operate/check.rst): a whole page is as it was before it was written last."""
    bad = list(_BAD.finditer(log))
    return bool(bad) and all(
        (m["offset"], int(m["wrong_words"]), int(m["age"])) == ("0", _PAGE_WORDS, 1) for m in bad
    )


_CRASH = re.compile(r"\] (BUG: .*|Oops: .*|Kernel panic .*|general protection fault.*|.*NX-protected page.*)")


def crash(log: str) -> str | None:
    """What the guest's kernel said first when it crashed; None when it did not."""
    match = _CRASH.search(log)
    return match[1].strip() if match else None


def crash_told(log: str) -> str | None:
    """The same for whoever reads of a worthless round."""
    words = crash(log)
    return words and f"its kernel crashed ({words}): with QEMU 11 see 'emulation' in doc/operate/check.rst"


class Guest:
    """A guest of a bed, wherever it runs now."""

    def __init__(self, spec: GuestSpec, log: pathlib.Path) -> None:
        self.spec = spec
        self.name = spec.name
        self.log = log
        self._heard = Heard(log)

    def start(self, host: Host, patience_s: float = 120.0) -> None:
        """Boot on a host and wait for a few heartbeats (4-10 s)."""
        self.spec.check()
        started_s = time.monotonic()
        if self.spec.disk_mib:
            self.make_disk(host)
        xml = host.state / "run/pcmig" / f"{self.name}.xml"
        xml.write_text(self.spec.xml())
        inside = f"/run/pcmig/{xml.name}"
        if self.spec.persistent:
            host.virsh("define", inside)
            host.virsh("start", self.name)
        else:
            host.virsh("create", inside)
        self.wait_heartbeats(5, since_s=started_s, patience_s=patience_s)

    def said(self) -> str:
        """All that was heard, heartbeats and bad pages; on the two-host bed from guests before it as well."""
        try:
            return self.log.read_text(encoding="latin-1")
        except FileNotFoundError:
            return ""

    def make_disk(self, host: Host) -> pathlib.Path:
        """An empty disk on HOST: where the guest starts, and where it goes, as libvirt makes files only in
        pools."""
        path = host.state / "lib" / pathlib.Path(self.spec.disk).name
        with path.open("wb") as file:
            file.truncate(self.spec.disk_mib << 20)
        return path

    def tell(self, word: str) -> None:
        """Has the guest do something: "poweroff", "reboot", "crash" (for which `panic` is needed),
        "write" (to `ide_disk`)."""
        with open(f"{self.log}.say", "w", encoding="ascii") as console:
            console.write(f"{word}\n")

    def heartbeats(self, since_s: float = 0.0) -> list[Heartbeat]:
        return self._heard.since(since_s)

    def wait_heartbeats(self, count: int, since_s: float | None = None, patience_s: float = 30.0) -> None:
        since_s = time.monotonic() if since_s is None else since_s
        deadline_s = time.monotonic() + patience_s
        while len(self.heartbeats(since_s)) < count:
            if time.monotonic() > deadline_s:
                said: list[str] = []
                with contextlib.suppress(OSError):
                    said = self.log.read_text(errors="replace").splitlines()[-3:]
                raise BedError(
                    f"guest {self.name}: fewer than {count} heartbeats in {patience_s:.0f} s; last words:\n  "
                    + "\n  ".join(said or ["nothing"])
                )
            time.sleep(0.1)

    def wait_verified(self, since_s: float, patience_s: float = 60.0) -> bool:
        """Wait until the guest has verified every page since a time; False when it does not get there."""
        if not self.spec.verify_pps:
            return False
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            beats = self.heartbeats(since_s)
            # The first pass to end had begun before, so it takes two.
            if beats and beats[-1].passes >= beats[0].passes + 2:
                return True
            last_s = beats[-1].time_s if beats else since_s
            if time.monotonic() > last_s + SILENT_S:
                return False
            time.sleep(0.1)
        return False

    def host(self) -> str | None:
        """Name of the host that the last heartbeat came from."""
        beats = self.heartbeats()
        return beats[-1].host if beats else None

    def verdict(self, start_s: float, end_s: float, tail_s: float = TAIL_S) -> Verdict:
        """Judge a migration between two times of CLOCK_MONOTONIC; waits until its tail is over."""
        time.sleep(max(0.0, end_s + tail_s - time.monotonic()))
        return judge(self.heartbeats(), start_s, end_s, tail_s)


class Heard:
    """The heartbeats in a log that grows: what was read once is not read again, as who waits for something
    looks ten times a second."""

    def __init__(self, log: pathlib.Path) -> None:
        self.log = log
        self._offset = 0
        self._rest = b""
        self._beats: list[Heartbeat] = []

    def since(self, since_s: float = 0.0) -> list[Heartbeat]:
        """Those that came since, in the order of their arrival."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            found = (parse_line(line.decode("latin-1")) for line in lines)
            self._beats += [beat for beat in found if beat is not None]
        start = bisect.bisect_left(self._beats, since_s, key=lambda beat: beat.time_s)
        return self._beats[start:]


def read_log(log: pathlib.Path) -> list[Heartbeat]:
    """All heartbeats that the collector took down so far, in the order of their arrival."""
    return Heard(log).since()


def ensure_images(reporter: Reporter = lambda _: None) -> pathlib.Path:
    """The folder with the guest's vmlinuz and initramfs; downloads a kernel (27 MB) the first time."""
    return images(WORKER_SOURCE.read_bytes(), _make_initramfs, reporter)


def images(
    key: bytes, make: Callable[[pathlib.Path, pathlib.Path], None], reporter: Reporter
) -> pathlib.Path:
    """The folder with the kernel and the initramfs that MAKE writes to a path, in a folder for its work. What
    was made for the same KEY is used again."""
    name = hashlib.sha256(key + KERNEL_PACKAGE.encode()).hexdigest()[:12]
    with cache_lock(reporter) as cache:
        folder = cache / "guests" / name
        if not folder.is_dir():
            folder.parent.mkdir(exist_ok=True)
            work = pathlib.Path(tempfile.mkdtemp(prefix=".making.", dir=folder.parent))
            try:
                result = work / "result"
                result.mkdir(mode=0o755)
                shutil.copy(_kernel(cache, reporter), result / "vmlinuz")
                make(result / "initramfs", work)
                result.rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return folder


def _make_initramfs(path: pathlib.Path, work: pathlib.Path) -> None:
    build_program(WORKER_SOURCE, work / "init")
    path.write_bytes(gzip.compress(newc_archive({"init": (work / "init").read_bytes()})))


def _kernel(cache: pathlib.Path, reporter: Reporter) -> pathlib.Path:
    """vmlinuz of the newest cloud kernel that apt knows, taken out of its package; nothing is installed."""
    kernel = cache / "vmlinuz"
    if kernel.exists():
        return kernel
    package = kernel_package()
    reporter(f"downloading the guest's kernel ({package}, 27 MB)")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".kernel.") as name:
        work = pathlib.Path(name)
        # As root apt would drop its rights for the download, and could not write here.
        _run_in(work, ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package])
        deb = next(work.glob("*.deb"))
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    if re.fullmatch(r"(\./)?boot/vmlinuz-.*", member.name):
                        content = archive.extractfile(member)
                        assert content is not None
                        (work / "vmlinuz").write_bytes(content.read())
                        break
            process.kill()
        if not (work / "vmlinuz").exists():
            raise BedError(f"{package} holds no kernel below /boot: report this")
        (work / "vmlinuz").rename(kernel)
    return kernel


def kernel_package() -> str:
    """Name of the package with the newest cloud kernel that apt knows."""
    if not (package := _known_kernel_package()):
        run(["apt-get", "update", "-q"], "reading apt's lists of packages", timeout_s=300)
        package = _known_kernel_package()
    if not package:
        raise BedError(f"apt knows no package {KERNEL_PACKAGE}: the bed needs Debian 12 or newer on amd64")
    return package


def _known_kernel_package() -> str | None:
    output = run(["apt-cache", "depends", KERNEL_PACKAGE], "looking for a kernel package") if _known() else ""
    match = re.search(r"Depends: (linux-image-\S*cloud-amd64)", output)
    return match[1] if match else None


def _known() -> bool:
    return subprocess.run(["apt-cache", "show", KERNEL_PACKAGE], capture_output=True).returncode == 0


def _run_in(folder: pathlib.Path, argv: list[str]) -> None:
    done = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise BedError(f"{' '.join(argv)} failed:\n  {done.stderr.strip()}\n  (apt-get update may help)")


def build_program(source: pathlib.Path, program: pathlib.Path) -> None:
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-Wall", "-Wextra"]
    run(["gcc", *flags, str(source), "-o", str(program)], f"compiling the guest's {source.stem}")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What an initramfs has of one name; a symbolic link's content is where it points to."""

    name: str
    mode: int
    content: bytes = b""
    owner: int = 0
    device: tuple[int, int] = (0, 0)


# The console that the kernel opens for the first program.
CONSOLE_NODE = Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))


def newc_archive(programs: dict[str, bytes], files: dict[str, bytes] | None = None) -> bytes:
    """An initramfs of programs, the console, and files."""
    files = files or {}
    folders = dict.fromkeys(["dev", *(name.rpartition("/")[0] for name in files if "/" in name)])
    entries = [*(Entry(folder, stat.S_IFDIR | 0o755) for folder in folders), CONSOLE_NODE]
    entries += [Entry(name, stat.S_IFREG | 0o755, content) for name, content in programs.items()]
    entries += [Entry(name, stat.S_IFREG | 0o644, content) for name, content in files.items()]
    return newc(entries)


def newc(entries: Iterable[Entry]) -> bytes:
    """A "newc" cpio; a folder has to come before what is in it."""
    archive = bytearray()
    for inode, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        size, owner = len(entry.content), entry.owner
        header = [inode, entry.mode, owner, owner, 1, 0, size, 0, 0, *entry.device, len(entry.name) + 1, 0]
        archive += b"070701" + b"".join(b"%08X" % field for field in header) + entry.name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + entry.content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
