# SPDX-License-Identifier: Apache-2.0
"""Hosts that are not reached: the message names what is wrong and what helps, and the guest is as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.bed import BedError, Host
from tests.remote.scene import SSHD, Authority, RemoteScene, listen_tls, shell, uri

NOWHERE = "nowhere.invalid"


@dataclasses.dataclass(frozen=True)
class Case:
    """MAKE has it go wrong with a destination, and gives the URI that is typed (None: the usual one)."""

    name: str
    make: Callable[[RemoteScene, Host, Host], str | None]
    told: str
    transport: str = "ssh"


def no_key(scene: RemoteScene, source: Host, destination: Host) -> None:
    (scene.sshd[destination.name].home / ".ssh/authorized_keys").write_text("")


def no_key_and_a_banner(scene: RemoteScene, source: Host, destination: Host) -> None:
    no_key(scene, source, destination)
    sshd = scene.sshd[destination.name]
    (sshd.folder / "banner").write_text("Authorized users only. All activity is recorded.\n" * 12)
    sshd.stop()
    sshd.start(f"Banner {SSHD}/banner\n")


def unknown_host(scene: RemoteScene, source: Host, destination: Host) -> None:
    (scene.sshd[source.name].home / ".ssh/known_hosts").write_text("")


def another_host_key(scene: RemoteScene, source: Host, destination: Host) -> None:
    known = scene.sshd[source.name].home / ".ssh/known_hosts"
    known.write_text(f"{destination.name} {scene.sshd[source.name].host_key()}\n")


def no_such_name(scene: RemoteScene, source: Host, destination: Host) -> str:
    return f"qemu+ssh://root@{NOWHERE}/system"


def closed_port(scene: RemoteScene, source: Host, destination: Host) -> str:
    return f"qemu+ssh://root@{destination.name}:2222/system"


def no_helper(scene: RemoteScene, source: Host, destination: Host) -> None:
    shell(destination, "mount --bind /dev/null /usr/bin/virt-ssh-helper")


def chatty_shell(scene: RemoteScene, source: Host, destination: Host) -> None:
    (scene.sshd[destination.name].home / ".bashrc").write_text("echo Welcome to the host\n")


def no_daemon(scene: RemoteScene, source: Host, destination: Host) -> None:
    destination.kill_libvirtd(signal.SIGTERM)


def no_network(scene: RemoteScene, source: Host, destination: Host) -> None:
    scene.control_down()


def no_such_name_tls(scene: RemoteScene, source: Host, destination: Host) -> str:
    return f"qemu+tls://{NOWHERE}/system"


def closed_port_tls(scene: RemoteScene, source: Host, destination: Host) -> str:
    return f"qemu+tls://{destination.name}:16515/system"


def no_listener(scene: RemoteScene, source: Host, destination: Host) -> None:
    path = destination.state / "etc/libvirtd.conf"
    path.write_text(path.read_text().replace("listen_tls = 1", "listen_tls = 0"))
    destination.restart_libvirtd()


def expired(scene: RemoteScene, source: Host, destination: Host) -> None:
    assert scene.authority is not None
    scene.authority.give(destination, [destination.name], days=0)
    listen_tls(destination, "tls_no_sanity_certificate = 1")


def of_another_ca(scene: RemoteScene, source: Host, destination: Host) -> None:
    Authority(scene.folder / "other-ca", "somebody else").give(destination, [destination.name])
    listen_tls(destination)


def for_another_name(scene: RemoteScene, source: Host, destination: Host) -> None:
    assert scene.authority is not None
    scene.authority.give(destination, ["elsewhere"])
    listen_tls(destination)


def none_of_the_clients(scene: RemoteScene, source: Host, destination: Host) -> None:
    shell(source, "rm /etc/pki/libvirt/clientcert.pem")


def no_ca_at_the_client(scene: RemoteScene, source: Host, destination: Host) -> None:
    shell(source, "rm /etc/pki/CA/cacert.pem")


CASES = [
    Case("no key", no_key, r"Permission denied \(.*ssh-copy-id"),
    Case("no key, and a banner", no_key_and_a_banner, r"Permission denied \(.*ssh-copy-id"),
    Case("unknown host", unknown_host, "Host key verification failed.*known_hosts"),
    Case("another host key", another_host_key, "ssh-keygen -R HOST"),
    Case("no such name", no_such_name, "Could not resolve hostname.*/etc/hosts"),
    Case("closed port", closed_port, "Connection refused.*qemu.ssh://HOST:PORT"),
    Case("no helper", no_helper, "neither virt-ssh-helper"),
    Case("chatty shell", chatty_shell, "must print nothing"),
    Case("no daemon", no_daemon, "systemctl start libvirtd"),
    Case("no network", no_network, "Network is unreachable.*no sshd is reached"),
    Case("no such name", no_such_name_tls, "resolve address 'nowhere.invalid'.*/etc/hosts", "tls"),
    Case("closed port", closed_port_tls, "Connection refused.*libvirtd-tls.socket", "tls"),
    Case("no listener", no_listener, "Connection refused.*libvirtd-tls.socket", "tls"),
    Case("expired", expired, "verify peer's certificate.*openssl s_client", "tls"),
    Case("of another CA", of_another_ca, "verify peer's certificate.*openssl s_client", "tls"),
    Case("for another name", for_another_name, "verify peer's certificate.*openssl s_client", "tls"),
    Case("none of the client's", none_of_the_clients, "clientcert.pem.*pkipath", "tls"),
    Case("no CA", no_ca_at_the_client, "cacert.pem.*pkipath", "tls"),
]


@pytest.fixture
def mended(scene: RemoteScene) -> Iterator[RemoteScene]:
    """With certificates, start-up files and daemons as before, afterwards."""
    yield scene
    for host in scene.bed.hosts:
        with contextlib.suppress(BedError):
            shell(host, "umount /usr/bin/virt-ssh-helper")
        (scene.sshd[host.name].home / ".bashrc").unlink(missing_ok=True)


@pytest.fixture
def certified(mended: RemoteScene) -> Iterator[RemoteScene]:
    yield mended
    mended.certify()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.transport}: {case.name}")
def test_not_reached(certified: RemoteScene, case: Case) -> None:
    scene = certified
    source = scene.source
    destination = scene.bed.other(source)
    typed = case.make(scene, source, destination) or uri(case.transport, destination)
    words = ["migrate", "--no-progress", scene.name, typed]
    for run in (
        scene.run(*words, host=source),
        scene.at_terminal(*words, host=source).wait(),  # where ssh would ask
    ):
        told = f"cannot connect to the destination {re.escape(typed)}: .*{case.told}"
        run.expect(1, told, "runs on at the source")
    scene.run("check", "--peer", typed, host=source).expect(1, "fail +peer +libvirt", f"(?s){case.told}")
    scene.control_up()
    if destination.libvirtd() is None:
        destination.start_libvirtd()
    scene.expect_at(source)


def test_the_key_is_in_an_agent_alone(mended: RemoteScene) -> None:
    """pcmig connects with it. libvirt at the source connects as well, without."""
    scene = mended
    source = scene.source
    destination = scene.bed.other(source)
    shell(
        source,
        """
        ssh-keygen -q -t ed25519 -N '' -f /run/pcmig/agents
        ssh-agent -a /run/pcmig/agent > /dev/null
        SSH_AUTH_SOCK=/run/pcmig/agent ssh-add -q /run/pcmig/agents
        """,
    )
    try:
        key = (source.state / "run/pcmig/agents.pub").read_text()
        (scene.sshd[destination.name].home / ".ssh/authorized_keys").write_text(key)
        scene.more = {"SSH_AUTH_SOCK": "/run/pcmig/agent"}
        scene.run("check", "--peer", uri("ssh", destination), host=source).expect(0, "encrypted or local")
        run = scene.run("migrate", "--no-progress", scene.name, uri("ssh", destination), host=source)
        run.expect(1, r"Permission denied \(.*libvirt at the source", "BatchMode")
    finally:
        scene.more = {}
        for pid, (_, name) in source.processes().items():
            if name == "ssh-agent":
                source.signal_process(pid, signal.SIGKILL)
        shell(source, "rm -f /run/pcmig/agent*")
    scene.expect_at(source)
