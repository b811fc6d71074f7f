# SPDX-License-Identifier: Apache-2.0
"""Names, XML, options and identities: what the bed decides without touching the machine."""

from __future__ import annotations

import os
import pathlib
import subprocess
from xml.etree import ElementTree

import pytest

from tests.bed import network
from tests.bed.bed import Bed
from tests.bed.errors import BedError
from tests.bed.guest import Guest, GuestSpec, newc_archive, read_log
from tests.bed.procs import ProcessId, run
from tests.unit.patience import PATIENCE_S


def test_two_beds_share_no_name() -> None:
    first, second = Bed(), Bed()
    assert set(first.network.namespaces.values()).isdisjoint(second.network.namespaces.values())
    assert first.state != second.state


def test_hosts_addresses() -> None:
    bed = Bed()
    assert bed.a.remote_uri == "qemu+tcp://10.77.0.1/system"
    assert bed.b.migrate_uri == "tcp://10.77.0.2"
    assert bed.a.uri == f"qemu+unix:///system?socket=/run/pcmig-bed/{bed.id}/a/run/libvirt/libvirt-sock"
    assert bed.a.command(["true"]) == ["nsenter", f"--net=/run/netns/pcmig-{bed.id}-a", "--", "true"]
    assert bed.other(bed.a) is bed.b


def test_unix_socket_paths_fit() -> None:
    bed = Bed()
    assert len(str(bed.a.state / "run/libvirt/libvirt-sock-ro")) < 108  # sizeof sun_path, unix(7)


def test_namespace_names_can_be_told_from_others() -> None:
    assert network.namespace_name("12ab", "a").startswith(network.PREFIX)


@pytest.mark.parametrize("rate_mbit", [0, -1, 0.5, 1e9])
def test_rates_out_of_range(rate_mbit: float) -> None:
    with pytest.raises(BedError, match="out of range"):
        Bed(rate_mbit=rate_mbit)


def test_unknown_stack() -> None:
    with pytest.raises(BedError, match="unknown stack"):
        Bed("woody")


def test_xml_of_the_guest() -> None:
    domain = ElementTree.fromstring(GuestSpec(name="a<b", memory_mib=300, write_pps=0).xml())
    assert domain.get("type") == "qemu"
    assert domain.findtext("name") == "a<b"
    assert domain.findtext("memory") == "300"
    assert domain.findtext("on_crash") == "preserve"
    assert domain.find("devices/interface") is None
    kernel, _, worker = (domain.findtext("os/cmdline") or "").partition(" -- ")
    assert "console=ttyS0" in kernel
    assert worker.split() == ["worker_mib=128", "write_pps=0", "verify_pps=10000", "heartbeat_ms=20"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (GuestSpec(memory_mib=64), "does not boot"),
        (GuestSpec(memory_mib=256, worker_mib=250), "use 1 to 184"),
        (GuestSpec(worker_mib=0), "use 1 to"),
        (GuestSpec(write_pps=-1), "cannot be negative"),
        (GuestSpec(heartbeat_ms=0), "at least 1 ms"),
    ],
)
def test_guests_that_cannot_be(spec: GuestSpec, words: str) -> None:
    with pytest.raises(BedError, match=words):
        spec.check()


def test_where_the_guest_spoke_last(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "console.log"
    guest = Guest(GuestSpec(), log)
    assert guest.host() is None
    log.write_text("1.0 a FILLED 10\n1.1 a HB 0 1 2 3 0 0\n1.2 b HB 1 2 3 4 0 0\n1.3 b HB 2 3")
    assert guest.host() == "b"
    assert [beat.sequence for beat in read_log(log)] == [0, 1]
    assert [beat.sequence for beat in guest.heartbeats(since_s=1.15)] == [1]
    with log.open("a") as more:
        more.write(" 4 5 0 0\n1.4 a HB 3 4 5 6 0 0\n")
    assert [beat.sequence for beat in guest.heartbeats(since_s=1.15)] == [1, 2, 3]
    assert guest.host() == "a"


def test_initramfs_is_whatnewc_archive_reads(tmp_path: pathlib.Path) -> None:
    archive = newc_archive({"init": b"#!program\n", "other": b"abc"})
    assert len(archive) % 4 == 0
    assert archive.count(b"070701") == 5
    assert b"TRAILER!!!" in archive
    assert b"#!program\n" in archive


def test_identity_of_a_process() -> None:
    ours = ProcessId.of(os.getpid())
    assert ours is not None
    assert ours.alive()
    reused = ProcessId(ours.pid, ours.start_ticks + 1)
    assert not reused.alive()
    reused.end(patience_s=0)  # must not hit us


def test_end_of_a_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = ProcessId.of(process.pid)
        assert identity is not None
        identity.end(PATIENCE_S)
        assert not identity.alive()
    assert ProcessId.of(2**22 + 1) is None


def test_failed_command_says_what_and_why() -> None:
    with pytest.raises(BedError, match=r"(?s)counting: sh ended with 3: .*no fingers"):
        run(["sh", "-c", "echo no fingers >&2; exit 3"], "counting")


def test_missing_command_says_what_to_run() -> None:
    with pytest.raises(BedError, match="tools/bootstrap bed"):
        run(["no-such-program-here"], "counting")


def test_endless_command() -> None:
    with pytest.raises(BedError, match="no end after"):
        run(["sleep", "60"], "waiting", timeout_s=0.05)
