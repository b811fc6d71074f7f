# SPDX-License-Identifier: Apache-2.0
"""Addresses, certificates and connections that are not as one thinks."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pcmig.tunnel import keygen
from tests.bed import Bed, Host
from tests.bed.network import SECOND_LINK, Network, second_address
from tests.cases.scene import CaseScene, firmware_guest, inside
from tests.functional.scene import BUSY, RATE_MBIT, SLOW_MBIT, Run, Scene, scene_on


def test_an_address_that_the_destination_does_not_have(scene: CaseScene) -> None:
    a, b = scene.bed.hosts
    scene.define(a, firmware_guest())
    before = scene.definition(a, "other")
    run = scene.move("other", "--listen-address", "10.99.9.9")
    run.expect(1, "Cannot assign requested address", "--listen-address", "runs on")
    scene.expect_untouched("other", before)
    scene.move("other", "--listen-address", "0.0.0.0").expect(0, "done: other")
    scene.expect_moved("other", b, persistent=True)


def test_listening_at_every_address(scene: CaseScene) -> None:
    scene.define(scene.bed.a, firmware_guest())
    scene.move("other", "--listen-address", "::").expect(0, "done: other")
    scene.expect_moved("other", scene.bed.b, persistent=True)


# QEMU's own TLS

QEMU_PKI = "/etc/pki/qemu"


@pytest.fixture
def pki(scene: CaseScene, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    keygen.make_ca(tmp_path, 30)
    yield tmp_path
    for host in scene.bed.hosts:
        inside(host, "rm", "-rf", QEMU_PKI)


def give_certificates(host: Host, pki: pathlib.Path) -> None:
    keygen.make_host(pki, [host.address, f"pcmig-{host.name}"], 10)
    shutil.copytree(pki / host.address, host.state / "run/pcmig/pki", dirs_exist_ok=True)
    inside(host, "mkdir", "-p", QEMU_PKI)
    for ours, theirs in (
        ("ca.pem", "ca-cert.pem"),
        *((ours, f"{end}-{theirs}") for end in ("server", "client") for ours, theirs in PAIR),
    ):
        inside(host, "cp", f"/run/pcmig/pki/{ours}", f"{QEMU_PKI}/{theirs}")


PAIR = (("host.pem", "cert.pem"), ("host-key.pem", "key.pem"))


def test_certificates_newer_than_the_guest(scene: CaseScene, pki: pathlib.Path) -> None:
    """Without any, and with those of one end, it is refused with path and host; a guest from before moves."""
    a, b = scene.bed.hosts
    scene.define(a, firmware_guest())
    before = scene.definition(a, "other")
    for _ in range(2):
        run = scene.move("other", "--tls", "--policy", "immediate")
        run.expect(1, r"/etc/pki/\S+", "both hosts", "runs on")
        scene.expect_untouched("other", before)
    give_certificates(b, pki)
    run = scene.move("other", "--tls", "--policy", "immediate")
    run.expect(1, r"/etc/pki/\S+", "both hosts", "runs on")
    scene.expect_untouched("other", before)
    give_certificates(a, pki)
    scene.move("other", "--tls", "--policy", "immediate").expect(0, "done: other")
    scene.expect_moved("other", b, persistent=True)
    scene.move("other", source=b).expect(0, "done: other")


# ssh

SSHD = """Port 2222
HostKey /run/pcmig/ssh/host
AuthorizedKeysFile /run/pcmig/ssh/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PidFile /run/pcmig/ssh/pid
SetEnv PATH={path} PYTHONPATH={root}
"""
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def key(scene: CaseScene) -> Iterator[str]:
    """sshd on host b; a key that it takes, as host a names it."""
    a, b = scene.bed.hosts
    for host in (a, b):
        inside(host, "mkdir", "-p", "/run/pcmig/ssh")
    inside(a, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/run/pcmig/ssh/key")
    inside(b, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/run/pcmig/ssh/host")
    ssh = b.state / "run/pcmig/ssh"
    (ssh / "authorized").write_text((a.state / "run/pcmig/ssh/key.pub").read_text())
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    (ssh / "config").write_text(SSHD.format(path=path, root=ROOT))
    host_key = " ".join((ssh / "host.pub").read_text().split()[:2])
    (a.state / "run/pcmig/ssh/known").write_text(f"[{b.address}]:2222 {host_key}\n")
    (a.state / "run/pcmig/ssh/unknown").touch()
    user = "sshd:x:65530:65534::/run/sshd:/bin/false"
    add = f"mkdir -p /run/sshd; grep -q ^sshd: /etc/passwd || echo {user} >> /etc/passwd"
    inside(b, "sh", "-c", add)
    inside(b, "sh", "-c", "sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow")
    for known in ("known", "unknown"):  # libvirt hands known_hosts to its own ssh libraries alone
        program = a.state / f"run/pcmig/ssh/ssh-{known}"
        program.write_text(
            f"#!/bin/sh\nexec ssh -F none -o UserKnownHostsFile=/run/pcmig/ssh/{known} "
            '-o GlobalKnownHostsFile=none "$@"\n'
        )
        program.chmod(0o755)
    inside(b, "/usr/sbin/sshd", "-f", "/run/pcmig/ssh/config")
    yield "/run/pcmig/ssh/key"
    inside(b, "sh", "-c", "kill $(cat /run/pcmig/ssh/pid)")
    for host in (a, b):
        inside(host, "rm", "-r", "/run/pcmig/ssh")


def over_ssh(scene: CaseScene, uri: str) -> tuple[int, str]:
    """`pcmig migrate other URI` as host a sees it: with its files, and its libvirtd's socket."""
    a, b = scene.bed.hosts
    environment = [
        f"PYTHONPATH={ROOT}",
        f"PCMIG_JOURNAL_DIR={scene.journal}",
        f"PATH={os.environ['PATH']}",
    ]
    words = [sys.executable, "-m", "pcmig.cli.main", "migrate", "-c", "qemu:///system", "--no-progress"]
    words += ["--migrateuri", b.migrate_uri, "other", uri]
    start_s = time.monotonic()
    # With a terminal of its own, on which ssh would ask: nobody answers.
    done = subprocess.run(
        a.inside(
            ["script", "-qec", " ".join(f"'{word}'" for word in ["env", *environment, *words]), "/dev/null"]
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    print(uri, done.returncode, f"{time.monotonic() - start_s:.1f} s", done.stdout, done.stderr, sep="\n")
    return done.returncode, done.stdout


def test_ssh_with_port_and_key(scene: CaseScene, key: str) -> None:
    a, b = scene.bed.hosts
    scene.define(a, firmware_guest())
    before = scene.definition(a, "other")
    base = f"qemu+ssh://root@{b.address}:2222/system?keyfile={key}&no_tty=1"
    good = f"{base}&command=/run/pcmig/ssh/ssh-known"
    for bad, text in (
        (f"{base}&command=/run/pcmig/ssh/ssh-unknown", "Host key verification failed"),
        (good.replace("/key&", "/nokey&"), "Permission denied"),
        (good.replace("2222", "2223"), "Connection refused"),
    ):
        code, said = over_ssh(scene, bad)
        assert code == 1, said
        assert re.search(text, said), said
        assert "cannot connect to the destination" in said
        scene.expect_untouched("other", before)
    code, said = over_ssh(scene, good)
    assert code == 0, said
    scene.expect_moved("other", b, persistent=True)


def test_ssh_that_would_ask(scene: CaseScene, key: str) -> None:
    """An unknown host key without no_tty: nobody can answer, and the command ends all the same."""
    a, b = scene.bed.hosts
    scene.define(a, firmware_guest())
    before = scene.definition(a, "other")
    uri = f"qemu+ssh://root@{b.address}:2222/system?keyfile={key}&command=/run/pcmig/ssh/ssh-unknown"
    code, said = over_ssh(scene, uri)
    assert code == 1, said
    scene.expect_untouched("other", before)


@pytest.fixture
def plugged(scene: CaseScene) -> Iterator[None]:
    """The busy guest on host a, with a network card in a bridge that each host has."""
    for host in scene.bed.hosts:
        inside(host, "ip", "link", "add", "br0", "type", "bridge")
        inside(host, "ip", "link", "set", "br0", "up")
    scene.prepare(dataclasses.replace(BUSY, bridge="br0"), scene.bed.a)
    yield
    scene.remove()
    for host in scene.bed.hosts:
        inside(host, "ip", "link", "delete", "br0")


def test_ports_over_ssh(scene: CaseScene, key: str, plugged: None) -> None:
    """The destination is asked over ssh itself. The guest drives no network card and is never heard, so the
    destination is still announcing it when the migration is over."""
    a, b = scene.bed.hosts
    environment = {
        "PYTHONPATH": str(ROOT),
        "PCMIG_JOURNAL_DIR": str(scene.journal),
        "PATH": os.environ["PATH"],
        "PCMIG_SSH": f"/run/pcmig/ssh/ssh-known -p 2222 -i {key}",
    }
    words = [sys.executable, "-m", "pcmig.cli.main", "migrate", "-c", "qemu:///system", "--no-progress"]
    words += ["--migrateuri", b.migrate_uri, "--policy", "immediate", "--json", "/run/pcmig/ssh/report.json"]
    words += [f"--ports=root@{b.address}", scene.name, b.remote_uri]
    argv = a.inside(["env", *(f"{name}={value}" for name, value in environment.items()), *words])
    start_s = time.monotonic()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done
    ports = json.loads((a.state / "run/pcmig/ssh/report.json").read_text())["ports"]
    assert [each["level"] for each in ports["said"]][-1] == "ready", ports
    assert ports["announced"] is None, ports
    assert [row["problem"] for row in ports["forgotten"]] == [None], ports
    run = Run(words, 0, done.stdout, done.stderr, start_s, time.monotonic(), None)
    scene.expect_at(b, run)


# Another family, and connections that nobody watches


@pytest.fixture
def second_network(scene: CaseScene) -> Iterator[Network]:
    """Another link, with IPv6 too; on the first one, which is there again afterwards, TCP gives up soon."""
    network = scene.bed.network
    network.add_second()
    for last, namespace in enumerate(network.namespaces.values(), 1):
        words = ["ip", "-n", namespace, "addr", "add", f"fd00:78::{last}/64", "dev", SECOND_LINK, "nodad"]
        subprocess.run(words, check=True)
    network.set_tcp_retries(4)
    yield network
    network.set_tcp_retries(15)
    network.link_up()
    network.limit(RATE_MBIT)
    subprocess.run(["ip", "-n", network.namespaces["a"], "link", "del", SECOND_LINK], check=True)


def test_resumed_over_the_other_family(scene: CaseScene, second_network: Network) -> None:
    """Begun over IPv4 on a network that never comes back, resumed over IPv6 on another one."""
    scene.prepare(BUSY)
    source, destination = scene.bed.a, scene.bed.b
    second_network.limit(SLOW_MBIT)
    there = second_address(destination.name)
    command = scene.start(
        *("migrate", scene.name, f"qemu+tcp://{there}/system", "--connect", source.uri),
        *("--migrateuri", destination.migrate_uri, "--resume-uri", "tcp://[fd00:78::2]"),
        *("--policy", "immediate", "--set", "stall_ms=4000", "--no-progress"),
        report=True,
    )
    scene.wait_postcopy(destination)
    # A destination that waits for a page whose request has arrived sends nothing, and never notices. So its
    # next requests get lost before the link does.
    second_network.silence(destination.name)
    time.sleep(1)
    second_network.link_down()
    run = command.wait(150)
    run.expect(0, "post-copy interrupted", "resuming, attempt", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)


@pytest.fixture(scope="module")
def unwatched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Nobody asks whether the other end of a connection is still there."""
    with scene_on(Bed("forky", 200, keepalive_s=-1), tmp_path_factory.mktemp("unwatched")) as scene:
        yield scene


DOWN_S = 90


@pytest.mark.timeout(400)
def test_without_keepalive_in_pre_copy(unwatched: Scene) -> None:
    scene = unwatched
    scene.prepare(BUSY)
    source, destination = scene.bed.a, scene.bed.b
    command = scene.in_precopy(source)
    scene.bed.network.link_down()
    time.sleep(DOWN_S)
    assert (source.domain_state(scene.name) or "").startswith("running")
    scene.bed.network.link_up()
    if command.process.poll() is None:
        scene.run("switch", "-c", source.uri, scene.name, host=source)
    run = command.wait(150)
    assert run.code in (0, 1), run
    scene.expect_at(destination if run.code == 0 else source, run)


@pytest.mark.timeout(400)
def test_without_keepalive_in_post_copy(unwatched: Scene) -> None:
    scene = unwatched
    scene.prepare(BUSY, scene.bed.a)
    destination = scene.bed.b
    command = scene.in_postcopy(destination)
    scene.bed.network.link_down()
    time.sleep(DOWN_S)
    scene.bed.network.link_up()
    scene.bed.network.limit(200)
    run = command.wait(200)
    run.expect(0, "done: ")
    scene.expect_at(destination, run)
