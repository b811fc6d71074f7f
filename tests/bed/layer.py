# SPDX-License-Identifier: Apache-2.0
"""QEMU and libvirt as a layer: a folder to lay over /usr in a test host, so that the machine stays as it is.

A stack, or any other layer, is what Debian's own packages of one release hold, extracted and never
installed. It is made once and kept in the cache folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

from tests.bed.errors import BedError, StackError
from tests.bed.procs import run

Reporter = Callable[[str], None]

REVISION = 1  # of what is made out of the packages: layers of another one are made anew
NEEDED_MIB = 800  # a stack takes 270 MiB, and as much again for packages while it is made
PACKAGES = (
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-utils",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-system",
    "libvirt-clients",
    "nftables",  # without a firewall backend libvirt's network driver, and with it libvirtd, does not start
)
# Loadable modules of another version make QEMU and libvirtd stop: these folders hide those of the machine.
OPAQUE_FOLDERS = ("usr/lib/x86_64-linux-gnu/libvirt", "usr/lib/x86_64-linux-gnu/qemu", "usr/share/qemu")
# What must work with a stack over /usr: testing moves, and what it holds today need not run over this
# machine's kernel and C library.
TRIAL = (
    "libvirtd --version && "
    "echo quit | qemu-system-x86_64 -accel tcg -machine q35 -display none -nodefaults -S -monitor stdio"
)


@dataclasses.dataclass(frozen=True)
class Stack:
    """Where a layer's packages come from."""

    name: str
    suites: tuple[str, ...]
    packages: tuple[str, ...] = PACKAGES
    holds: str = "QEMU and libvirt"
    needed_mib: int = NEEDED_MIB
    told: tuple[tuple[str, str], ...] = (("qemu", "qemu-system-x86"), ("libvirt", "libvirt0"))  # versions of
    trial: str = TRIAL

    def recipe(self) -> dict[str, object]:
        return {
            "revision": REVISION,
            "suites": list(self.suites),
            "packages": list(self.packages),
            "opaque": list(OPAQUE_FOLDERS),
        }


STACKS = {
    stack.name: stack
    for stack in (
        Stack("forky", ("forky",)),  # libvirt 12, QEMU 11
        # Beside it, for guests with UEFI and a vTPM, and for ssh between the hosts (tests/cases): what
        # everything else needs stays as small as it is.
        Stack(
            "forky-more",
            ("forky",),
            (*PACKAGES, "ovmf", "swtpm", "swtpm-tools", "openssh-client", "openssh-server"),
        ),
        Stack("backports", ("bookworm", "bookworm-backports")),  # libvirt 11, QEMU 10
        Stack("bookworm", ("bookworm",)),  # libvirt 9, QEMU 7.2: only to show that it is refused
    )
}
RBD_SUFFIX = "-rbd"
# Stacks whose QEMU opens RBD images: the module for it must be of the same build as QEMU.
RBD_STACKS = {
    stack.name: stack
    for stack in (
        dataclasses.replace(
            STACKS[name],
            name=name + RBD_SUFFIX,
            packages=(*PACKAGES, "qemu-block-extra"),
            holds="QEMU with RBD, and libvirt",
        )
        for name in ("forky", "backports")
    )
}
CEPH = Stack(
    "ceph",
    ("bookworm",),  # librbd of every stack works with its Ceph 16, which is not so the other way round
    ("ceph-mon", "ceph-osd", "ceph-mgr", "ceph-common", "python3-rados", "python3-rbd", "qemu-utils"),
    holds="Ceph",
    needed_mib=1800,
    told=(("ceph", "ceph-mon"),),
    trial="ceph-mon --version && ceph-osd --version && rbd --version",
)
OVN = Stack(
    "ovn",
    ("bookworm",),  # the newest that Debian has OVN in, of those that run beside every stack
    ("ovn-central", "ovn-host", "openvswitch-switch"),
    holds="OVN and Open vSwitch",
    needed_mib=600,
    told=(("ovn", "ovn-common"), ("openvswitch", "openvswitch-common")),
    trial="ovn-controller --version && /usr/lib/openvswitch-switch/ovs-vswitchd --version",
)
DATABASE = Stack(
    "database",
    ("bookworm",),  # as the guest's kernel is this machine's release's: any will do
    ("postgresql-15",),
    holds="PostgreSQL",
    needed_mib=900,
    told=(("postgresql", "postgresql-15"),),
    trial="/usr/lib/postgresql/15/bin/postgres --version",
)
LAYERS = {**STACKS, **RBD_STACKS, **{layer.name: layer for layer in (CEPH, OVN, DATABASE)}}


def cache_dir() -> pathlib.Path:
    return pathlib.Path(os.environ.get("PCMIG_CACHE") or "/var/cache/pcmig")


def parse_one_line_sources(text: str) -> Iterator[tuple[str, list[str]]]:
    """(URI, suites) of every `deb` line of a sources.list."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", line)
        if match:
            yield match[1], [match[2]]


def parse_deb822_sources(text: str) -> Iterator[tuple[str, list[str]]]:
    """(URI, suites) of every binary source of a deb822 file that is not disabled."""
    for stanza in re.split(r"\n\s*\n", "\n".join(ln for ln in text.splitlines() if not ln.startswith("#"))):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1] in " \t":
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        for uri in fields.get("uris", "").split():
            yield uri, fields.get("suites", "").split()


def choose_mirror(sources: list[tuple[str, list[str]]], codename: str) -> str | None:
    """The URI that carries the machine's own Debian release; security and others' archives do not count."""
    for uri, suites in sources:
        if not uri.startswith(("http://", "https://", "file:", "mirror+", "copy:")):
            continue
        if any(
            suite in (codename, "stable", "testing", "unstable", "sid") for suite in suites
        ) and not uri.rstrip("/").endswith("-security"):
            return uri.rstrip("/")
    return None


def find_mirror(etc: pathlib.Path = pathlib.Path("/etc")) -> str:
    """The Debian mirror that apt uses on this machine (PCMIG_MIRROR overrides)."""
    if override := os.environ.get("PCMIG_MIRROR"):
        return override.rstrip("/")
    codename = ""
    with contextlib.suppress(OSError):
        match = re.search(r'^VERSION_CODENAME="?(\w+)', (etc / "os-release").read_text(), re.MULTILINE)
        codename = match[1] if match else ""
    sources: list[tuple[str, list[str]]] = []
    apt = etc / "apt"
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        sources += parse_deb822_sources(path.read_text())
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        if path.exists():
            sources += parse_one_line_sources(path.read_text())
    mirror = choose_mirror(sources, codename)
    if mirror is None:
        raise BedError(
            "no Debian mirror found in /etc/apt: name the one to use, e.g. PCMIG_MIRROR=http://MIRROR/debian"
        )
    return mirror


@contextlib.contextmanager
def cache_lock(reporter: Reporter, folder: str = ".", name: str = "lock") -> Iterator[pathlib.Path]:
    """A folder of the cache, held against a second process that fills it at the same time."""
    cache = cache_dir() / folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / name).open("w")
    except OSError as error:
        raise BedError(
            f"cache folder {cache}: {error.strerror} (set PCMIG_CACHE to a writable one)"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter(f"waiting for another process that fills {cache}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def ensure(name: str, reporter: Reporter = lambda _: None) -> pathlib.Path:
    """The folder of a layer; downloads and extracts it the first time (a stack: about 15 s and 270 MiB)."""
    if name not in LAYERS:
        raise BedError(f"unknown stack {name!r}: use one of {', '.join(LAYERS)}")
    stack = LAYERS[name]
    folder = cache_dir() / "stacks" / name
    if _is_current(folder, stack):
        return folder
    with cache_lock(reporter) as cache:
        if not _is_current(folder, stack):
            _build(stack, folder, cache, reporter)
    return folder


def versions(folder: pathlib.Path) -> dict[str, str]:
    """Package versions that a layer holds."""
    stamp = json.loads((folder / "pcmig-layer.json").read_text())
    return dict(stamp["versions"])


def _is_current(folder: pathlib.Path, stack: Stack) -> bool:
    try:
        stamp = json.loads((folder / "pcmig-layer.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(stamp.get("recipe") == stack.recipe())


def _build(stack: Stack, folder: pathlib.Path, cache: pathlib.Path, reporter: Reporter) -> None:
    if os.uname().machine != "x86_64":
        raise BedError(f"the test hosts need an x86-64 machine, this one is {os.uname().machine}")
    free_mib = shutil.disk_usage(cache).free >> 20
    if free_mib < stack.needed_mib:
        raise BedError(
            f"{cache} has {free_mib} MiB free, the {stack.name} stack needs {stack.needed_mib}: "
            "make room or set PCMIG_CACHE to a folder with more"
        )
    mirror = find_mirror()
    started_s = time.monotonic()
    reporter(f"downloading the {stack.name} stack ({stack.holds}) from {mirror}: about 15 s")
    (cache / "stacks").mkdir(exist_ok=True)
    for left_over in (cache / "stacks").glob(
        f".{stack.name}.*"
    ):  # of a build that was interrupted: we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{stack.name}.", dir=cache / "stacks"))
    try:
        work.chmod(0o755)
        _extract(stack, mirror, work)
        _merge_usr(work)
        _try_out(stack, work)
        for opaque in OPAQUE_FOLDERS:
            if (work / opaque).is_dir():
                os.setxattr(work / opaque, "trusted.overlay.opaque", b"y")
        stamp = {"recipe": stack.recipe(), "mirror": mirror, "versions": _versions(work, stack)}
        (work / "pcmig-layer.json").write_text(json.dumps(stamp, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    except OSError as error:
        raise BedError(f"making the {stack.name} stack in {work}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    reporter(f"the {stack.name} stack is in {folder} ({time.monotonic() - started_s:.0f} s)")


def _extract(stack: Stack, mirror: str, work: pathlib.Path) -> None:
    release = stack.suites[-1]
    sources = [f"deb {mirror} {suite} main" for suite in stack.suites]
    argv = ["mmdebstrap", "--quiet", "--variant=extract", "--include=" + ",".join(stack.packages)]
    # A mirror may be a dated copy of the archive, whose Release file is past its date.
    argv += ['--aptopt=Acquire::Check-Valid-Until "false"', f'--aptopt=APT::Default-Release "{release}"']
    argv += [stack.suites[0], str(work), *sources]
    try:
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            said = process.communicate()[0]
    except FileNotFoundError as error:
        raise BedError("mmdebstrap is not installed (run: tools/bootstrap bed)") from error
    if process.returncode:
        errors = [ln for ln in said.splitlines() if ln.startswith("E:")] or said.splitlines()
        raise StackError(
            f"the {stack.name} stack could not be made from {mirror} (is the mirror reachable?):\n  "
            + "\n  ".join(errors[-5:])
        )


def _merge_usr(work: pathlib.Path) -> None:
    """Move bookworm's /lib and /sbin below /usr, as on the machine: only /usr is laid over."""
    for folder in ("bin", "sbin", "lib", "lib64"):
        if (work / folder).is_dir() and not (work / folder).is_symlink():
            (work / "usr" / folder).mkdir(exist_ok=True)
            run(
                ["cp", "-a", f"{work / folder}/.", str(work / "usr" / folder)], f"moving /{folder} below /usr"
            )
    for path in work.iterdir():
        if path.name != "usr":
            path.unlink() if path.is_symlink() else shutil.rmtree(path)


def _try_out(stack: Stack, work: pathlib.Path) -> None:
    script = f'mount -t overlay pcmig -o "ro,lowerdir=$1/usr:/usr" /usr && {stack.trial}'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(work)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise StackError(f"the {stack.name} stack does not run on this machine:\n  " + "\n  ".join(said[-5:]))


def _versions(work: pathlib.Path, stack: Stack) -> dict[str, str]:
    """Debian versions, from the changelogs: the extract variant keeps no database of packages."""
    found: dict[str, str] = {}
    for key, package in stack.told:
        for path in (work / "usr/share/doc" / package).glob("changelog.Debian*.gz"):
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as changelog:
                if match := re.match(r"\S+ \((?:\d+:)?([^)]+)\)", changelog.readline()):
                    found[key] = match[1]
    return found
