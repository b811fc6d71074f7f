# SPDX-License-Identifier: Apache-2.0
"""One libvirt host: a view of the machine of its own (holder.py) with its own libvirtd and QEMUs."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence

from tests.bed import network
from tests.bed.errors import BedError, StackError
from tests.bed.procs import ProcessId, run

START_PATIENCE_S = 30.0
PIDFILE = "/run/libvirtd.pid"

LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "0.0.0.0"
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
host_uuid = "{host_uuid}"
log_filters = "1:qemu.qemu_migration 3:*"
log_outputs = "1:file:/var/log/libvirt/libvirtd.log"
keepalive_interval = {keepalive_s}
keepalive_count = 5
"""

# No cgroups, no mount namespaces for QEMU and no virtlogd: a host is a few namespaces, not a machine.
QEMU_CONF = """\
user = "{user}"
group = "{group}"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
clear_emulator_capabilities = {clear_capabilities}
keepalive_interval = {keepalive_s}
keepalive_count = 5
"""


class Host:
    """Host "a" or "b" of a bed.

    uri:         its libvirtd, from anywhere on the machine
    remote_uri:  its libvirtd, from the other host
    migrate_uri: where the other host's QEMU sends a guest
    inner_uri:   its libvirtd, for what inside() runs
    """

    inner_uri = "qemu:///system"

    UNSHARE: tuple[str, ...] = (
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
    )

    def __init__(
        self,
        bed_id: str,
        name: str,
        state: pathlib.Path,
        qemu_user: str = "root",
        keepalive_s: int = 5,
        qemu_conf: str = "",
    ) -> None:
        self.name = name
        self.state = state
        self.namespace = network.namespace_name(bed_id, name)
        self.address = network.address(name)
        self.uri = f"qemu+unix:///system?socket={state}/run/libvirt/libvirt-sock"
        self.remote_uri = f"qemu+tcp://{self.address}/system"
        self.migrate_uri = f"tcp://{self.address}"
        self.qemu_user = qemu_user
        self.keepalive_s = keepalive_s
        self.qemu_conf = qemu_conf
        self.holder: ProcessId | None = None
        self._holder_process: subprocess.Popen[str] | None = None

    # Life

    def up(self, layer: pathlib.Path, guest_folder: pathlib.Path, stay: bool = False) -> None:
        """Make the host and start its libvirtd. It ends with this process unless it is to stay."""
        self._make_folders()
        self.hold(layer, guest_folder, stay)
        self.start_libvirtd()

    def hold(self, layer: pathlib.Path, guest_folder: pathlib.Path, stay: bool) -> None:
        """Make the host's view of the machine, and its first process, which keeps it."""
        holder = [sys.executable, "-I", "-S", str(pathlib.Path(__file__).with_name("holder.py"))]
        arguments = [
            self.name,
            str(self.state),
            str(layer),
            str(guest_folder),
            "stay" if stay else "lifeline",
        ]
        with (self.state / "holder.err").open("w") as errors:
            process = subprocess.Popen(
                self.command(["unshare", *self.UNSHARE, "--", *holder, *arguments]),
                # The other end of this pipe closes when we end, however we end: the host never outlives us.
                stdin=subprocess.DEVNULL if stay else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for us: we take the host down in order
            )
        self._holder_process = process
        assert process.stdout is not None
        answer = process.stdout.readline().strip()
        process.stdout.close()
        if not answer:
            process.wait()
            why = (self.state / "holder.err").read_text().strip() or f"it ended with {process.returncode}"
            raise BedError(
                f"host {self.name} could not be made: {why}\n"
                "  (the bed needs unshare, mount and overlay; in a container, a privileged one)"
            )
        self.holder = ProcessId.of(int(answer))

    def down(self) -> None:
        """End every process of the host: its first one takes the rest along."""
        if self.holder is not None:
            self.holder.end()
            self.holder = None
        if self._holder_process is not None:
            if self._holder_process.stdin is not None:
                self._holder_process.stdin.close()
            self._holder_process.wait()
            self._holder_process = None

    def start_libvirtd(self) -> None:
        with (self.state / "log" / "libvirtd.out").open("a") as log:
            process = subprocess.Popen(
                self.inside(["/usr/sbin/libvirtd", "--listen", "--daemon", "--pid-file", PIDFILE]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            process.wait(START_PATIENCE_S)
        # It goes to the background before its drivers are up, and ends yet when one of them is not content.
        deadline_s = time.monotonic() + START_PATIENCE_S
        while self.libvirtd() is not None and time.monotonic() < deadline_s:
            with contextlib.suppress(BedError):
                self.virsh("uri", timeout_s=START_PATIENCE_S)
                return
            time.sleep(0.05)
        raise StackError(f"libvirtd of host {self.name} did not start:\n  {self._libvirtd_says()}")

    def kill_libvirtd(self, number: int = signal.SIGKILL) -> None:
        """End libvirtd without a good-bye; QEMUs go on."""
        process = self.libvirtd()
        if process is None:
            raise BedError(f"host {self.name} has no libvirtd to end")
        process.signal(number)
        deadline_s = time.monotonic() + START_PATIENCE_S
        while process.alive():
            if time.monotonic() > deadline_s:
                raise BedError(f"libvirtd of host {self.name} (pid {process.pid}) does not end")
            time.sleep(0.01)

    def restart_libvirtd(self) -> None:
        if self.libvirtd() is not None:
            self.kill_libvirtd(signal.SIGTERM)
        self.start_libvirtd()

    # Use

    def command(self, argv: Sequence[str]) -> list[str]:
        """How to run a program of the machine in this host's network; nothing else about it changes."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *argv]

    def inside(self, argv: Sequence[str]) -> list[str]:
        """How to run a program as the host sees it: layer, /run, /etc/libvirt, network, processes."""
        if self.holder is None:
            raise BedError(f"host {self.name} is not up")
        return [
            "nsenter",
            "-t",
            str(self.holder.pid),
            "--mount",
            "--uts",
            "--pid",
            "--net",
            "--root",
            "--",
            *argv,
        ]

    def virsh(self, *words: str, timeout_s: float | None = 60.0) -> str:
        """Output of a virsh command on this host; BedError with virsh's words when it fails."""
        argv = self.inside(["virsh", "--quiet", "--connect", self.inner_uri, *words])
        return run(argv, f"host {self.name}: virsh {' '.join(words)}", timeout_s)

    def domain_state(self, domain: str) -> str | None:
        """E.g. "running (post-copy)"; None when the host does not know the domain."""
        with contextlib.suppress(BedError):
            return self.virsh("domstate", domain, "--reason", timeout_s=10).strip()
        return None

    def processed_bytes(self, domain: str) -> int:
        """Memory that the migration of a domain has sent from here; 0 also while libvirt does not say."""
        with contextlib.suppress(BedError):
            said = self.virsh("domjobinfo", domain, "--rawstats", timeout_s=10)
            match = re.search(r"memory_processed:\s*(\d+)", said)
            return int(match[1]) if match else 0
        return 0

    # Processes, by the machine's pids

    def processes(self) -> dict[int, tuple[int, str]]:
        """Every process of the host: machine's pid -> (pid inside, command)."""
        found: dict[int, tuple[int, str]] = {}
        if self.holder is None or not self.holder.alive():
            return found
        ours = os.stat(f"/proc/{self.holder.pid}/ns/pid").st_ino
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
                if os.stat(entry / "ns/pid").st_ino == ours:
                    status = dict(
                        ln.split(":\t", 1)
                        for ln in (entry / "status").read_text().splitlines()
                        if ":\t" in ln
                    )
                    found[int(entry.name)] = (int(status["NSpid"].split()[-1]), status["Name"])
        return found

    def signal_process(self, pid: int, number: int) -> None:
        """Signal a process by the machine's pid, provided that it is one of this host's."""
        process = ProcessId.of(pid)
        if process is None or pid not in self.processes():
            return
        process.signal(number)
        if number == signal.SIGCONT:
            self._continue_nsenter(pid)

    @staticmethod
    def _continue_nsenter(pid: int) -> None:
        """nsenter(1) stops itself when what it has started is stopped. It has to take up the end of that: the
        host's first process, when it goes, waits for everything in it."""
        with contextlib.suppress(OSError):
            parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if pathlib.Path(f"/proc/{parent}/comm").read_text().strip() == "nsenter":
                os.kill(parent, signal.SIGCONT)

    def libvirtd(self) -> ProcessId | None:
        with contextlib.suppress(OSError, ValueError):
            inner = int((self.state / "run" / pathlib.Path(PIDFILE).name).read_text())
            for pid, (pid_inside, command) in self.processes().items():
                if pid_inside == inner and command == "libvirtd":
                    return ProcessId.of(pid)
        return None

    def qemu_pids(self, guest: str = "") -> list[int]:
        """All of them, or those of the guest that libvirt knows by this name."""
        found = [pid for pid, (_, command) in self.processes().items() if command.startswith("qemu-system")]
        return sorted(pid for pid in found if not guest or _is_of(pid, guest))

    # Parts

    def _make_folders(self) -> None:
        for folder in (
            "run/pcmig/guest",
            "etc/qemu/networks",
            "etc/nwfilter",
            "etc/hooks",
            "lib",
            "log",
            "scratch",
        ):
            (self.state / folder).mkdir(parents=True, exist_ok=True)
        host_uuid = uuid.uuid5(uuid.NAMESPACE_DNS, self.namespace)
        (self.state / "etc/libvirtd.conf").write_text(
            LIBVIRTD_CONF.format(host_uuid=host_uuid, keepalive_s=self.keepalive_s)
        )
        (self.state / "etc/libvirt.conf").touch()
        (self.state / "etc/qemu.conf").write_text(
            QEMU_CONF.format(
                user=self.qemu_user,
                group="nogroup" if self.qemu_user == "nobody" else self.qemu_user,
                clear_capabilities=0 if self.qemu_user == "root" else 1,
                keepalive_s=self.keepalive_s,
            )
            + self.qemu_conf
        )
        # A user other than root, who must reach the console's socket and the guest's kernel.
        (self.state / "run/pcmig").chmod(0o777)

    def _libvirtd_says(self) -> str:
        lines: list[str] = []
        for log in ("libvirtd.out", "libvirtd.log"):
            with contextlib.suppress(OSError):
                lines += (self.state / "log" / log).read_text(errors="replace").splitlines()[-4:]
        return "\n  ".join(lines) or "it said nothing"

    def save_logs(self, folder: pathlib.Path) -> None:
        """Copy libvirtd's and QEMU's logs, e.g. beside a failed test's output."""
        shutil.copytree(self.state / "log", folder / f"host-{self.name}", dirs_exist_ok=True)


def _is_of(pid: int, guest: str) -> bool:
    """Whether libvirt has started this QEMU for GUEST: `-name guest=GUEST,...`."""
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it ended meanwhile
        return False
    return any(word.split(",")[0] == f"guest={guest}" for word in words)
