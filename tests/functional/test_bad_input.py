# SPDX-License-Identifier: Apache-2.0
"""What cannot work is refused with the reason, and neither host notices."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pcmig import _core
from tests.bed import Bed, BedError, Host
from tests.functional.scene import BUSY, RATE_MBIT, Scene, scene_on


@contextlib.contextmanager
def other_guest(scene: Scene, host: Host, xml: str, paused: bool = False) -> Iterator[None]:
    """A further guest without a console; BedError when it does not start."""
    path = host.state / "run/pcmig/other.xml"
    path.write_text(xml)
    host.virsh("create", "/run/pcmig/other.xml", *(["--paused"] if paused else []))
    try:
        yield
    finally:
        with contextlib.suppress(BedError):
            host.virsh("destroy", "other")


def other_xml(devices: str = "", extra: str = "", maximum: str = "", cpu: str = "") -> str:
    """A guest that needs neither kernel nor disk: it waits in its firmware."""
    xml = dataclasses.replace(BUSY, name="other", memory_mib=96, worker_mib=1).xml()
    xml = re.sub(r"<(kernel|initrd|cmdline)>.*?</\1>", "", xml, flags=re.S)
    xml = re.sub(r"<serial .*?</serial>", devices, xml, flags=re.S)
    xml = xml.replace("</cpu>", f"{cpu}</cpu>")
    return xml.replace("<memory unit", f"{maximum}<memory unit").replace("<vcpu>", f"{extra}<vcpu>")


def test_an_unknown_domain(scene: Scene) -> None:
    source = scene.source
    run = scene.migration(domain="nosuch").wait()
    run.expect(1, r'no guest "nosuch" on qemu\+unix', r"list --all")
    for command in ("watch", "abort", "switch"):
        scene.ask(command, source, domain="nosuch").expect(1, "nosuch")
    scene.expect_at(source, run)


def test_an_unreachable_destination(scene: Scene) -> None:
    """Nobody answers at the address, not even with a refusal."""
    source = scene.source
    uri = "qemu+tcp://10.77.0.99/system"
    # A neighbour that is known and does not exist: the connection times out, instead of "no route to host".
    add = ["ip", "neigh", "replace", "10.77.0.99", "lladdr", "02:00:00:00:00:99", "dev", "mig0"]
    _run_in(source, add)
    run = scene.run("migrate", "-c", source.uri, scene.name, uri, "--connect-timeout", "2", host=source)
    run.expect(1, rf"cannot connect to the destination {re.escape(uri)}", r"within 2\.0 s", "runs on")
    assert run.elapsed_s < 9, "it waited for the usual 10 s"
    scene.expect_at(source, run)


def _run_in(host: Host, argv: list[str]) -> None:
    import subprocess

    subprocess.run(host.command(argv), check=True)


def test_a_refused_connection(scene: Scene) -> None:
    source = scene.source
    uri = f"qemu+tcp://{scene.bed.other(source).address}:1/system"
    run = scene.run("migrate", "-c", source.uri, scene.name, uri, host=source)
    run.expect(1, rf"cannot connect to the destination {re.escape(uri)}", "Connection refused")
    scene.expect_at(source, run)


def test_a_destination_that_is_no_uri(scene: Scene) -> None:
    source = scene.source
    run = scene.run("migrate", "-c", source.uri, scene.name, "nohost", host=source)
    run.expect(1, "cannot connect to the destination nohost")
    scene.expect_at(source, run)


def test_an_unreachable_source(scene: Scene) -> None:
    source = scene.source
    nowhere = "qemu+unix:///system?socket=/run/nowhere"
    run = scene.run("migrate", "-c", nowhere, scene.name, "qemu+tcp://10.77.0.2/system", host=source)
    run.expect(1, "/run/nowhere", "No such file or directory")
    scene.expect_at(source, run)


@pytest.mark.parametrize("loopback", [False, True])
def test_the_source_as_destination(scene: Scene, loopback: bool) -> None:
    source = scene.source
    uri = f"qemu+tcp://{'127.0.0.1' if loopback else source.address}/system"
    run = scene.run("migrate", "-c", source.uri, scene.name, uri, host=source)
    run.expect(1, r"same host")
    scene.expect_at(source, run)


def test_a_guest_that_is_shut_off(scene: Scene) -> None:
    source = scene.source
    (source.state / "run/pcmig/off.xml").write_text(other_xml().replace("<name>other<", "<name>off<"))
    source.virsh("define", "/run/pcmig/off.xml")
    try:
        scene.migration(domain="off").wait().expect(1, "guest off is not running", "shut off")
        assert source.domain_state("off") == "shut off (unknown)"
        assert scene.bed.other(source).domain_state("off") is None
    finally:
        source.virsh("undefine", "off")


def test_persistent_memory_is_found_beforehand(scene: Scene) -> None:
    source = scene.source
    (source.state / "run/pcmig/nvdimm").write_bytes(b"")
    with (source.state / "run/pcmig/nvdimm").open("wb") as file:
        file.truncate(32 << 20)
    memory = """<memory model='nvdimm'><source><path>/run/pcmig/nvdimm</path></source>
      <target><size unit='MiB'>32</size><node>0</node></target></memory>"""
    numa = "<numa><cell id='0' cpus='0' memory='96' unit='MiB'/></numa>"
    maximum = "<maxMemory slots='2' unit='MiB'>512</maxMemory>"
    with other_guest(scene, source, other_xml(memory, maximum=maximum, cpu=numa)):
        run = scene.migration(domain="other").wait()
        run.expect(1, "cannot be moved with post-copy", "nvdimm", "--policy never")
        assert "running" in (source.domain_state("other") or "")
        assert scene.bed.other(source).domain_state("other") is None


def test_devices_that_stay_behind_are_found_beforehand(scene: Scene) -> None:
    """What libvirt would refuse is refused with the device's name; what may go well goes, with a note."""
    source, destination = scene.source, scene.bed.other(scene.source)
    shmem = "<shmem name='s'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>"
    with other_guest(scene, source, other_xml(shmem)):
        run = scene.migration(domain="other").wait()
        run.expect(1, "cannot be moved with post-copy: <shmem> s", "role='master'")
        with pytest.raises(BedError, match=r"cannot be migrated|peer mode"):
            source.virsh(
                "migrate", "--live", "--p2p", "other", destination.remote_uri, *scene.way(destination)
            )
        assert "running" in (source.domain_state("other") or "")
        assert destination.domain_state("other") is None
    filesystem = "<filesystem type='mount'><source dir='/run/pcmig'/><target dir='x'/></filesystem>"
    with other_guest(scene, source, other_xml(filesystem)):
        run = scene.migration("--policy", "immediate", domain="other").wait()
        run.expect(0, "note: <filesystem> with 9p x", "Unmount it in the guest", "done: other")
        destination.virsh("destroy", "other")


def test_shared_memory_is_no_obstacle(scene: Scene) -> None:
    source = scene.source
    backing = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    with other_guest(scene, source, other_xml(extra=backing)):
        destination = scene.bed.other(source)
        scene.migration("--policy", "immediate", domain="other").wait().expect(0, "done: other")
        assert destination.domain_state("other") == "running (migrated)" or "running" in (
            destination.domain_state("other") or ""
        )
        destination.virsh("destroy", "other")
        assert source.domain_state("other") is None


def test_an_option_that_is_wrong_is_usage(scene: Scene) -> None:
    source = scene.source
    for options, text in (
        (["--policy", "sometimes"], "sometimes"),
        (["--policy", "passes=0"], "passes"),
        (["--flags", "TUNNELLED"], "TUNNELLED"),
        (["--flags", "POST_COPPY"], "POSTCOPY"),
        (["--set", "request_wait_ms=0"], "1 to"),
    ):
        scene.migrate(*options).expect(2, text)
    scene.expect_at(source)


def test_a_guest_that_the_destination_has(scene: Scene) -> None:
    """A definition of the same name there, but of another guest."""
    source = scene.source
    destination = scene.bed.other(source)
    xml = other_xml().replace("<name>other<", f"<name>{scene.name}<")
    xml = re.sub(r"<uuid>.*?</uuid>", "", xml)
    (destination.state / "run/pcmig/same.xml").write_text(xml)
    destination.virsh("define", "/run/pcmig/same.xml")
    try:
        run = scene.migrate()
        run.expect(1, rf"'{scene.name}' already exists|already", "runs on")
    finally:
        destination.virsh("undefine", scene.name)
    scene.expect_at(source, run)


def test_qemu_7_under_emulation_is_refused(tmp_path: pathlib.Path) -> None:
    """Its dirty bitmap misses pages: the guest would be corrupted, by any migration."""
    with scene_on(Bed("bookworm", RATE_MBIT), tmp_path) as scene:
        scene.prepare()
        for options in ([], ["--policy", "never"]):
            run = scene.migrate(*options)
            run.expect(1, "software emulation", r"QEMU 7\.2", r"use QEMU 9\.0 or newer", "runs on")
            assert scene.bed.b.qemu_pids() == []
        scene.expect_at(scene.bed.a, run)


def test_userfaultfd_that_the_destination_is_denied(tmp_path: pathlib.Path) -> None:
    user = _core.probe_host("nobody")["user"]
    assert user is not None and user["uffd"] is not None
    assert not user["uffd"]["syscall"]["ok"] and not user["uffd"]["node"]["ok"], (
        f"this machine lets nobody use userfaultfd, so it cannot be denied here: {user['uffd']}"
    )
    bed = Bed("forky", RATE_MBIT)
    bed.b.qemu_user = "nobody"
    with scene_on(bed, tmp_path) as scene:
        scene.prepare()
        run = scene.migrate()
        run.expect(1, "[Uu]serfaultfd", "/dev/userfaultfd|vm.unprivileged_userfaultfd", "runs on")
        assert run.report is not None and run.report["status"]["memory_processed_bytes"] == 0
        verdict = scene.expect_at(bed.a, run)
        assert verdict.before_silence_ms < 2000, verdict


def test_a_destination_that_falls_silent_while_we_connect(scene: Scene) -> None:
    """It takes the connection and never says a word."""
    source = scene.source
    destination = scene.bed.other(source)
    with _silent_server(destination) as port:
        uri = f"qemu+tcp://{destination.address}:{port}/system"
        start_s = time.monotonic()
        run = scene.run("migrate", "-c", source.uri, scene.name, uri, "--connect-timeout", "1.5", host=source)
        run.expect(1, r"within 1\.5 s", re.escape(uri))
        assert time.monotonic() - start_s < 9, "it waited for the usual 10 s"
    scene.expect_at(source, run)


@contextlib.contextmanager
def _silent_server(host: Host) -> Iterator[int]:
    """A port in the host's network that accepts, made by a thread that visits that namespace."""
    import ctypes
    import os

    made: list[socket.socket] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        handle = os.open(f"/run/netns/{host.namespace}", os.O_RDONLY)
        try:
            if libc.setns(handle, 0x40000000):  # CLONE_NEWNET, of this thread alone
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(handle)
        server = socket.socket()
        server.bind(("0.0.0.0", 0))
        server.listen()
        made.append(server)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    try:
        yield made[0].getsockname()[1]
    finally:
        made[0].close()
