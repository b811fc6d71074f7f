# SPDX-License-Identifier: Apache-2.0
"""A bed whose hosts, called a and b, have an sshd and libvirt's TLS, and people at their terminals.

As on real hosts, a control network is apart from that of the migrations: the names a and b are addresses of
the one, and pcmig-a and pcmig-b, which the hosts give themselves, of the other. root has a home, a key and
known hosts of its own on each. Nothing of the machine's own ssh is read or written.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pcmig.tunnel import keygen
from tests.bed import Bed, Host
from tests.bed.network import SECOND_LINK, address, second_address
from tests.bed.procs import run
from tests.functional.scene import PATIENCE_S, RATE_MBIT, Command, Run, Scene, SceneError

STACK = "forky-more"  # with openssh
HOME = "/run/pcmig/home"
SSHD = "/run/pcmig/sshd"
PATH = f"{pathlib.Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SSHD_CONFIG = f"""\
Port 22
HostKey {SSHD}/host
AuthorizedKeysFile .ssh/authorized_keys
StrictModes no
UsePAM no
PerSourcePenalties no
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin yes
PidFile {SSHD}/pid
SetEnv PATH={PATH}
"""
CTRL_C = b"\x03"
SECOND = datetime.timedelta(seconds=1)


def inside(host: Host, *words: str) -> str:
    """Output of a program as HOST sees it."""
    return run(host.inside(list(words)), f"host {host.name}: {' '.join(words)}", 60)


def shell(host: Host, text: str) -> str:
    return inside(host, "sh", "-ec", text)


# ssh


class Sshd:
    """sshd of a host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.state / "run/pcmig/sshd"

    def make(self) -> None:
        user = "sshd:x:65530:65534::/run/sshd:/bin/false"
        shell(
            self.host,
            f"""
            mkdir -p {SSHD} /run/sshd {HOME}/.ssh
            grep -q ^sshd: /etc/passwd || echo {user} >> /etc/passwd
            sed -i 's,^\\(root:[^:]*:[^:]*:[^:]*:[^:]*\\):[^:]*,\\1:{HOME},' /etc/passwd
            sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow
            rm -rf /etc/ssh && mkdir /etc/ssh
            ssh-keygen -q -t ed25519 -N '' -f {SSHD}/host
            ssh-keygen -q -t ed25519 -N '' -f {HOME}/.ssh/id_ed25519
            """,
        )

    @property
    def home(self) -> pathlib.Path:
        """root's, as the machine sees it."""
        return self.host.state / "run/pcmig/home"

    def host_key(self) -> str:
        return " ".join((self.folder / "host.pub").read_text().split()[:2])

    def own_key(self) -> str:
        return (self.home / ".ssh/id_ed25519.pub").read_text()

    def start(self, more: str = "") -> None:
        """With MORE in its configuration, whose first word on anything counts."""
        (self.folder / "config").write_text(more + SSHD_CONFIG)
        inside(self.host, "/usr/sbin/sshd", "-f", f"{SSHD}/config", "-E", f"{SSHD}/log")

    def stop(self) -> None:
        """With all its connections."""
        for pid in self.processes():
            self.host.signal_process(pid, signal.SIGKILL)
        deadline_s = time.monotonic() + PATIENCE_S
        while self.processes():
            if time.monotonic() > deadline_s:
                raise SceneError(f"sshd of host {self.host.name} does not end")
            time.sleep(0.02)

    def processes(self) -> list[int]:
        return [pid for pid, (_, name) in self.host.processes().items() if name.startswith("sshd")]

    def sessions(self) -> list[int]:
        """The processes that have connections, by the machine's pids."""
        found = self.host.processes().items()
        return [pid for pid, (_, name) in found if name.startswith("sshd-session")]

    def cut(self) -> None:
        """Ends every connection, as a host does whose sshd is killed; new ones are welcome."""
        for pid in self.sessions():
            self.host.signal_process(pid, signal.SIGKILL)


# TLS


class Authority:
    """A CA, and hosts' certificates by it."""

    def __init__(self, folder: pathlib.Path, name: str = "the tests") -> None:
        self.folder = folder
        keygen.make_ca(folder, 30, name)

    def give(self, host: Host, names: list[str], *, days: int = 10) -> None:
        """HOST one for NAMES, to serve and to dial with; of no days it has expired."""
        ca, ca_key = keygen.read_ca(self.folder)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = keygen.host_certificate(
            ca, ca_key, names[0], keygen.san_of(names), key.public_key(), days
        )
        while not days and datetime.datetime.now(datetime.UTC) <= certificate.not_valid_after_utc + SECOND:
            time.sleep(0.1)
        give_certificate(host, ca, certificate, key)


def give_certificate(
    host: Host, ca: x509.Certificate, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    pki = host.state / "run/pcmig/pki"
    pki.mkdir(exist_ok=True)
    (pki / "ca").write_bytes(keygen.pem(ca))
    (pki / "cert").write_bytes(keygen.pem(certificate))
    (pki / "key").write_bytes(keygen.pem_key(key))
    shell(
        host,
        """
        mkdir -p /etc/pki/CA /etc/pki/libvirt/private
        cp /run/pcmig/pki/ca /etc/pki/CA/cacert.pem
        for end in server client; do
            cp /run/pcmig/pki/cert /etc/pki/libvirt/${end}cert.pem
            cp /run/pcmig/pki/key /etc/pki/libvirt/private/${end}key.pem
        done
        """,
    )


def listen_tls(host: Host, more: str = "") -> None:
    """Restarts libvirtd so that it listens with TLS, too, and with MORE in its configuration."""
    path = host.state / "etc/libvirtd.conf"
    text = path.read_text().replace("listen_tls = 0", "listen_tls = 1")
    path.write_text(re.sub(r"(?s)# more\n.*", "", text) + (f"# more\n{more}\n" if more else ""))
    host.restart_libvirtd()


# People


class Terminal(Command):
    """A command at a terminal of a host, whose keys the test strikes."""

    def __init__(self, words: list[str], argv: list[str], report: pathlib.Path | None) -> None:
        self.words = words
        self._report = report
        self._heard = bytearray()
        self.start_s = time.monotonic()
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, close_fds=True
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # nobody has it open any more
            while data := os.read(self._master, 65536):
                self._heard += data

    def strike(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> None:
        """The window is closed."""
        os.close(self._master)

    def said(self) -> str:
        text = bytes(self._heard).decode(errors="replace").replace("\r\n", "\n")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    def wait(self, timeout_s: float = PATIENCE_S) -> Run:
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise SceneError(f"pcmig {' '.join(self.words)}: no end; it said\n{self.said()}") from None
        end_s = time.monotonic()
        self._reader.join(10)
        return Run(self.words, code, self.said(), "", self.start_s, end_s, None)


class RemoteScene(Scene):
    """Commands are typed on a host, as root of that host, with its own files alone."""

    def __init__(self, bed: Bed, folder: pathlib.Path) -> None:
        super().__init__(bed, folder)
        self.sshd = {host.name: Sshd(host) for host in bed.hosts}
        self.authority: Authority | None = None
        self.more: dict[str, str] = {}  # in the environment of commands

    # Hosts

    def set_up(self) -> None:
        """Once the bed is up."""
        a, b = self.bed.hosts
        self.bed.network.add_second()
        names = "".join(
            f"{second_address(host.name)} {host.name}\n{address(host.name)} pcmig-{host.name}\n"
            for host in (a, b)
        )
        self.authority = Authority(self.folder / "ca")
        for host in (a, b):
            shell(host, f"printf '127.0.0.1 localhost\n{names}' > /etc/hosts")
            self.sshd[host.name].make()
        self.trust()
        for host in (a, b):
            self.sshd[host.name].start()
        self.certify()

    def certify(self) -> None:
        """A certificate for each host, by a CA that both know."""
        assert self.authority is not None
        for host in self.bed.hosts:
            self.authority.give(host, [host.name, f"pcmig-{host.name}"])
            listen_tls(host)

    def trust(self) -> None:
        """Each host's root knows both hosts, and is let in by both."""
        known = "".join(f"{name} {sshd.host_key()}\n" for name, sshd in self.sshd.items())
        keys = "".join(sshd.own_key() for sshd in self.sshd.values())
        for sshd in self.sshd.values():
            (sshd.home / ".ssh/known_hosts").write_text(known)
            (sshd.home / ".ssh/authorized_keys").write_text(keys)

    def mend(self) -> None:
        """After a test, whatever it did."""
        self.bed.network.link_up()
        self.control_up()
        self.end_commands()
        for sshd in self.sshd.values():
            sshd.stop()
            (sshd.home / ".ssh/config").unlink(missing_ok=True)
            sshd.start()
        self.trust()

    # The control network

    def control_down(self) -> None:
        run(
            ["ip", "-n", self.bed.a.namespace, "link", "set", SECOND_LINK, "down"],
            "cutting the control network",
        )

    def control_up(self) -> None:
        run(
            ["ip", "-n", self.bed.a.namespace, "link", "set", SECOND_LINK, "up"],
            "the control network comes back",
        )

    # Commands

    def _argv(self, host: Host, words: list[str], terminal: bool) -> list[str]:
        values = {
            "PATH": PATH,
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "PCMIG_METRICS_DIR": "",
            **self.more,
        }
        environment = [f"{name}={value}" for name, value in values.items()]
        session = ["setsid", "--ctty"] if terminal else ["setsid"]
        return host.inside(
            [
                *session,
                "env",
                "-i",
                "--default-signal",
                *environment,
                "sh",
                "-c",
                'cd; exec "$@"',
                "sh",
                *words,
            ]
        )

    def start(self, *words: str, host: Host | None = None, report: bool = False) -> Command:
        """`pcmig WORDS` on HOST (default: where the guest is), without a terminal."""
        host = host or self.source
        path = self.folder / f"report-{time.monotonic_ns()}.json" if report else None
        typed = [*words, *(["--json", str(path)] if path else [])]
        command = Command(typed, self._argv(host, ["pcmig", *typed], False), path)
        self._commands.append(command)
        return command

    def at_terminal(self, *words: str, host: Host | None = None) -> Terminal:
        """`pcmig WORDS` on HOST (default: where the guest is), at a terminal."""
        typed = list(words)
        command = Terminal(typed, self._argv(host or self.source, ["pcmig", *typed], True), None)
        self._commands.append(command)
        return command

    def pcmig(self, host: Host) -> list[int]:
        """The commands that run there, by the machine's pids. (What a test has started is nsenter.)"""
        return [pid for pid, (_, name) in host.processes().items() if name == "pcmig"]

    def own_ssh(self, host: Host) -> set[int]:
        """Of the commands that run there, and none of libvirt's."""
        mine = self.pcmig(host)
        return {pid for pid, (_, name) in host.processes().items() if name == "ssh" and _parent(pid) in mine}

    def end_commands(self) -> None:
        """Nothing of them goes on."""
        for command in self._commands:
            command.end()
        for host in self.bed.hosts:
            for pid in self.pcmig(host):
                host.signal_process(pid, signal.SIGKILL)
        self.wait_for(lambda: not any(self.pcmig(host) for host in self.bed.hosts), "the commands have ended")

    def remove(self) -> None:
        self.end_commands()
        super().remove()
        for host in self.bed.hosts:
            shell(host, "rm -rf /var/lib/pcmig /run/pcmig/journal")


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):  # it ended meanwhile
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def uri(transport: str, host: Host, more: str = "") -> str:
    """As one types it."""
    return {
        "ssh": f"qemu+ssh://root@{host.name}/system",
        "tls": f"qemu+tls://{host.name}/system",
    }[transport] + more


@contextlib.contextmanager
def remote_scene(folder: pathlib.Path) -> Iterator[RemoteScene]:
    scene = RemoteScene(Bed(STACK, RATE_MBIT, keepalive_s=2), folder)
    with scene.bed:
        scene.set_up()
        try:
            yield scene
        finally:
            for command in scene._commands:
                command.end()
