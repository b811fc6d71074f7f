# SPDX-License-Identifier: Apache-2.0
"""Post-copy through pcmig's tunnel: what is on the wire, what breaks, disks, many guests."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Host
from tests.bed.guest import LostWrite, lost_writes
from tests.functional.scene import BUSY, IDLE, RATE_MBIT, Command, Run, played
from tests.functional.tunnel_scene import MARKERS, TunnelScene, seen, size_mib, wire

pytestmark = pytest.mark.timeout(300)

# A machine type whose guests may have several streams of QEMU's own: see pcmig.guest.early_page_channel.
SEVERAL = dataclasses.replace(IDLE, machine="pc-i440fx-8.2")
DISK_MIB = 48
MANY = 6


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunnelScene]:
    bed = Bed("forky", RATE_MBIT, keepalive_s=2)
    with played(TunnelScene(bed, tmp_path_factory.mktemp("tunnel"))) as scene:
        yield scene
        for daemon in scene.daemons.values():
            print(f"--- tunnel of host {daemon.host.name}\n{daemon.said()}")


@pytest.fixture
def scene(bed: TunnelScene) -> TunnelScene:
    bed.clear = False
    bed.start_daemons()
    bed.prepare()
    return bed


def ends(scene: TunnelScene) -> tuple[Host, Host]:
    source = scene.source
    return source, scene.bed.other(source)


def figures(run: Run, kind: str = "memory") -> dict[str, int]:
    assert run.report is not None
    found: dict[str, int] = run.report["tunnel"][kind]
    return found


def settled(scene: TunnelScene, destination: Host, *options: str) -> Command:
    """In post-copy for a while. Where the stream breaks at once, an emulated guest's QEMU waits for a page of
    the kernel with its own lock held, and libvirt for QEMU."""
    command = scene.in_postcopy(destination, *options)
    time.sleep(1.5)
    assert destination.domain_state(scene.name) == "running (post-copy)"
    return command


def test_no_page_is_on_the_wire(scene: TunnelScene) -> None:
    """And the same in clear, where they are found."""
    scene.prepare(IDLE)
    for clear in (False, True):
        scene.clear = clear
        source, destination = ends(scene)
        with wire(source, scene.folder) as path:
            run = scene.migrate("--policy", "immediate").expect(0, "post-copy", "done: ")
        scene.expect_at(destination, run)
        found = seen(path, MARKERS)
        print(
            f"{'in clear' if clear else 'tunnel'}: {found} of {len(MARKERS)} markers in "
            f"{size_mib(path):.1f} MiB"
        )
        assert size_mib(path) > 30, "the memory did pass here"
        assert found > len(MARKERS) // 2 if clear else found == 0
        path.unlink()


def test_accounting_and_the_end_of_a_name(scene: TunnelScene) -> None:
    source, destination = ends(scene)
    run = scene.migrate("--policy", "first-pass").expect(0, "done: ", "tunnel to .*, memory: ")
    scene.expect_at(destination, run)
    found = figures(run)
    assert run.report is not None
    sent = run.report["ledger"]["totals"]["wire_bytes"]
    assert 0.9 * sent < found["bytes_out"] < 1.2 * sent, (sent, found)
    assert found["bytes_in"] > 0 and found["records_out"] > 0
    show = scene.run("tunnel", "show", host=source)
    show.expect(0, "nothing goes through the tunnel")
    left = {file.name for file in (source.state / "run/pcmig/tunnel").iterdir()}
    assert left == {"source", "known"} and not list((source.state / "run/pcmig/tunnel/source").iterdir())


@pytest.mark.parametrize("policy", ["never", "auto"])
def test_pre_copy_goes_through_it_too(scene: TunnelScene, policy: str) -> None:
    scene.prepare(IDLE)
    source, destination = ends(scene)
    with wire(source, scene.folder) as path:
        run = scene.migrate("--policy", policy, "--tunnel-streams", "2").expect(0, "done: ")
    scene.expect_at(destination, run)
    assert figures(run)["bytes_out"] > 30 << 20
    assert size_mib(path) > 30 and seen(path, MARKERS) == 0
    path.unlink()


@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_daemon_is_killed_in_post_copy(scene: TunnelScene, end: str) -> None:
    source, destination = ends(scene)
    command = settled(scene, destination)
    daemon = scene.daemon(source if end == "source" else destination)
    began_s = time.monotonic()
    daemon.kill()
    scene.wait_for(lambda: "post-copy interrupted" in command.said(), "QEMU pauses")
    paused_s = time.monotonic() - began_s
    daemon.start()
    run = command.wait(120).expect(0, "resuming, attempt", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)
    print(f"noticed after {paused_s:.1f} s; whole after {run.end_s - began_s:.1f} s")
    assert paused_s < 10


def test_daemons_without_rights(scene: TunnelScene) -> None:
    """As the unit runs them: post-copy there, an interruption, and its resume."""
    source, destination = ends(scene)
    with scene.daemon(source).without_rights() as user, scene.daemon(destination).without_rights():
        for daemon in scene.daemons.values():
            assert daemon.process is not None
            status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
            assert re.search(rf"^Uid:(\t{user}){{4}}$", status, re.MULTILINE)
            assert len(re.findall(r"^Cap(?:Eff|Prm|Bnd|Inh|Amb):\t0{16}$", status, re.MULTILINE)) == 5
        command = settled(scene, destination)
        scene.daemon(destination).kill()
        scene.wait_for(lambda: "post-copy interrupted" in command.said(), "QEMU pauses")
        scene.daemon(destination).start()
        run = command.wait(120).expect(0, "resuming, attempt", "post-copy goes on", "done: ")
        scene.expect_at(destination, run)
        assert figures(run)["streams_ever"] >= 2


def test_several_streams_of_qemus_own(scene: TunnelScene) -> None:
    """VIR_MIGRATE_PARALLEL: a guest's memory over them, and no page of it on the wire."""
    scene.prepare(SEVERAL)  # anew, wherever the last one was
    source, destination = ends(scene)
    with wire(source, scene.folder) as path:
        run = scene.migrate("--policy", "first-pass", "--flags", "PARALLEL").expect(0, "done: ")
    scene.expect_at(destination, run)
    assert figures(run)["streams_ever"] >= 3, "the main one, and two of memory"
    assert size_mib(path) > 30 and seen(path, MARKERS) == 0
    path.unlink()


@pytest.mark.parametrize("end", ["source", "destination"])
def test_several_streams_of_qemus_own_are_interrupted(scene: TunnelScene, end: str) -> None:
    """In post-copy, and resumed: pages come over the main stream and that of requests then."""
    scene.prepare(SEVERAL)
    source, destination = ends(scene)
    command = settled(scene, destination, "--flags", "PARALLEL")
    daemon = scene.daemon(source if end == "source" else destination)
    if end == "destination":
        shown = scene.run("tunnel", "show", "--json", host=source).expect(0)
        (memory,) = json.loads(shown.out)["streams"].values()
        assert memory["streams_ever"] >= 4, "the main one, two of memory, and one of requests"
    daemon.kill()
    scene.wait_for(lambda: "post-copy interrupted" in command.said(), "QEMU pauses")
    daemon.start()
    run = command.wait(120).expect(0, "resuming, attempt", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)
    assert figures(run)["streams_ever"] >= (6 if end == "destination" else 2)


def test_a_daemon_ends_in_pre_copy(scene: TunnelScene) -> None:
    source, destination = ends(scene)
    command = scene.in_precopy(source)
    scene.daemon(destination).kill(signal.SIGTERM)
    run = command.wait(60).expect(1, "runs on at the source")
    scene.expect_at(source, run)
    scene.daemon(destination).start()
    run = scene.migrate("--policy", "first-pass").expect(0, "done: ")
    scene.expect_at(destination, run)


def test_the_network_is_cut_and_comes_back(scene: TunnelScene) -> None:
    """The daemons notice within their time, whatever TCP thinks."""
    _, destination = ends(scene)
    command = settled(scene, destination)
    scene.bed.network.link_down()
    began_s = time.monotonic()
    scene.wait_for(lambda: "post-copy interrupted" in command.said(), "the silence is noticed", 40)
    noticed_s = time.monotonic() - began_s
    time.sleep(8)
    scene.bed.network.link_up()
    scene.bed.network.limit(RATE_MBIT)
    run = command.wait(150).expect(0, "resuming, attempt", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)
    print(f"noticed after {noticed_s:.1f} s")
    assert noticed_s < 15
    assert figures(run)["streams_ever"] >= 2


def test_pcmig_is_killed_and_the_daemon_restarted(scene: TunnelScene) -> None:
    """The journal has the way."""
    source, destination = ends(scene)
    command = settled(scene, destination)
    command.kill()
    scene.daemon(source).kill()
    scene.daemon(source).start()
    scene.run("resume", "--migrateuri", destination.migrate_uri, scene.name, host=source).expect(
        2, "goes through the tunnel .* give --no-tunnel"
    )
    run = scene.start("resume", scene.name, host=source, report=True).wait(120)
    run.expect(0, "post-copy", "done: ")
    scene.expect_at(destination, run)
    assert figures(run)["bytes_out"] > 0


def test_certificates_are_replaced_meanwhile(scene: TunnelScene) -> None:
    _, destination = ends(scene)
    command = scene.in_postcopy(destination)
    for daemon in scene.daemons.values():
        daemon.send(signal.SIGHUP)
        scene.wait_for(lambda daemon=daemon: "reloaded: " in daemon.said(), "it has reloaded")  # type: ignore[misc]
    run = command.wait(90).expect(0, "done: ")
    assert "interrupted" not in run.out
    scene.expect_at(destination, run)


def test_disks_go_through_it_too(scene: TunnelScene) -> None:
    guest = scene.prepare(dataclasses.replace(IDLE, name="g-disk", disk_mib=DISK_MIB), on=scene.bed.a)
    source, destination = ends(scene)
    markers = [bytes([i % 251]) * 16 + b"pcmig marks this block of a disk" for i in range(64)]
    with (source.state / "lib" / f"pcmig-{guest.name}.raw").open("r+b") as disk:
        for i, marker in enumerate(markers):
            disk.seek(i * (DISK_MIB << 20) // len(markers))
            disk.write(marker * 8)
    copy = guest.make_disk(destination)
    with wire(source, scene.folder) as path:
        run = scene.migrate("--policy", "immediate", "--copy-storage-all", timeout_s=120).expect(0, "done: ")
    scene.expect_at(destination, run)
    assert figures(run, "disks")["bytes_out"] >= len(markers) * 4096
    assert seen(path, markers) == 0 and seen(path, MARKERS) == 0
    assert seen(copy, markers) == len(markers), "they arrived"
    path.unlink()


def test_refusals(scene: TunnelScene) -> None:
    """Before anything begins, with a reason."""
    source, destination = ends(scene)
    scene.daemon(destination).kill(signal.SIGTERM)
    scene.migrate().expect(1, "no way through the tunnel to ")
    scene.daemon(destination).start("--allow", "nobody.example.org")
    scene.migrate().expect(1, "no way through the tunnel to ")
    assert "nobody" in scene.daemon(destination).said() or "refused" in scene.daemon(destination).said()
    scene.run("tunnel", "probe", destination.address, host=source).expect(1)
    scene.daemon(destination).kill(signal.SIGTERM)
    scene.daemon(destination).start()
    scene.run("tunnel", "probe", destination.address, host=source).expect(0, "answers: CN=")
    scene.daemon(source).kill(signal.SIGTERM)
    scene.migrate().expect(1, "is not running")
    scene.expect_at(source)


def beats_since(scene: TunnelScene, since_s: float, sequence: str) -> list[list[str]]:
    """The heartbeats with that number, of all guests."""
    lines = [line.split() for line in scene.bed.log.read_text(errors="replace").splitlines()]
    return [line for line in lines if line[2:4] == ["HB", sequence] and float(line[0]) > since_s]


def test_many_guests_at_once(scene: TunnelScene) -> None:
    """Each by itself, all through the same two daemons."""
    scene.remove()
    scene.bed.network.limit(1000)
    source, destination = scene.bed.a, scene.bed.b
    specs = [
        dataclasses.replace(
            BUSY, name=f"many{i}", memory_mib=104, worker_mib=16, write_pps=200, verify_pps=500
        )
        for i in range(MANY)
    ]
    started_s = time.monotonic()
    for spec in specs:
        scene.bed.start_guest(spec, source)
    scene.spec = specs[0]  # for remove()
    # The console does not tell one guest from another: all have filled their memory when the sixth heartbeat
    # of each is there.
    while len(beats_since(scene, started_s, "5")) < MANY:
        assert time.monotonic() < started_s + 90, "all guests are at work"
        time.sleep(0.5)
    ends_ = [destination.remote_uri, "--connect", source.uri, "--tunnel", "--policy", "first-pass"]
    commands = [scene.start("migrate", spec.name, *ends_, host=source) for spec in specs]
    for command in commands:
        command.wait(240).expect(0, "done: ")
    assert sorted(source.qemu_pids()) == [] and len(destination.qemu_pids()) == MANY
    for spec in specs:
        assert "running" in (destination.domain_state(spec.name) or "")
    began_s = time.monotonic()
    time.sleep(10)
    lines = scene.bed.log.read_text(errors="replace").splitlines()
    beats = [line.split() for line in lines if " HB " in line and float(line.split()[0]) > began_s]
    assert len(beats) >= MANY and all(beat[1] == destination.name for beat in beats)
    wrong = [line for line in lines if re.search(r" (BAD|torn) ", line)]
    if lost_writes("\n".join(wrong)):
        raise LostWrite("\n".join(wrong))
    assert not [beat for beat in beats if re.search(r"^[1-9]", beat[7])], "\n".join(wrong[:40])
    scene.remove()
