# SPDX-License-Identifier: Apache-2.0
"""What belongs to a guest's definition and must come along, or be in nobody's way: NVRAM, vTPM, snapshots,
saved states, and other guests that have its name or its UUID."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import time

import pytest

from tests.bed import BedError, Host
from tests.cases.scene import CaseScene, firmware_guest, inside, uuid_of

UEFI = """<domain type='qemu'>
  <name>uefi</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>160</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    {devices}
  </devices>
</domain>"""
VTPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"


def uefi(devices: str = "") -> str:
    return UEFI.format(uuid=uuid_of("uefi"), devices=devices)


def nvram(host: Host) -> pathlib.Path:
    return host.state / "lib/qemu/nvram/uefi_VARS.fd"


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def worked_s(host: Host) -> float:
    """Processor time that the host's one QEMU has had."""
    (pid,) = host.qemu_pids()
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_written(scene: CaseScene, host: Host) -> str:
    """Until the firmware has put its variables into its NVRAM, and is done; what is in there then. On a busy
    machine it stands still for long: it is done when it worked for 4 s, or idled, without writing."""
    last, deadline_s = digest(nvram(host)), time.monotonic() + 90
    since_s, worked = time.monotonic(), worked_s(host)
    while time.monotonic() < deadline_s:
        time.sleep(0.5)
        passed_s, work_s = time.monotonic() - since_s, worked_s(host) - worked
        if (now := digest(nvram(host))) != last:
            last, since_s, worked = now, time.monotonic(), worked_s(host)
        elif passed_s > 4 and (work_s > 4 or work_s < passed_s / 50):
            break
    return last


def test_nvram_goes_there_and_back(scene: CaseScene) -> None:
    """Three round trips: the definition leaves each time, the content stays, and no file blocks the next."""
    hosts = [scene.bed.a, scene.bed.b]
    scene.define(hosts[0], uefi())
    content = wait_written(scene, hosts[0])
    for trip in range(6):
        source, destination = hosts[trip % 2], hosts[(trip + 1) % 2]
        scene.move("uefi", "--policy", "immediate", source=source).expect(0, "done: uefi")
        scene.expect_moved("uefi", destination, persistent=True)
        assert digest(nvram(destination)) == content, f"trip {trip}"


def test_nvram_and_vtpm_when_the_destinations_daemon_ends_unheard(scene: CaseScene) -> None:
    """libvirt's last answer is lost, so that the rest at the source is pcmig's to remove: the definition, and
    not what may be the only copy on shared storage. The way back is free all the same."""
    source, destination = scene.bed.a, scene.bed.b
    scene.define(source, uefi(VTPM))
    content = wait_written(scene, source)
    scene.bed.network.limit(8)
    command = scene.start(
        *("migrate", "-c", source.uri, "--migrateuri", destination.migrate_uri, "--policy", "immediate"),
        *("--no-progress", "uefi", destination.remote_uri),
        host=source,
    )
    scene.wait_for(lambda: "post-copy" in (destination.domain_state("uefi") or ""), "it is in post-copy", 60)
    destination.kill_libvirtd()
    scene.bed.network.limit(200)
    scene.wait_for(lambda: "running" not in (source.domain_state("uefi") or ""), "the source is done", 60)
    time.sleep(2)
    destination.start_libvirtd()
    command.wait(120).expect(0, "done: uefi")
    scene.expect_moved("uefi", destination, persistent=True)
    assert digest(nvram(destination)) == content
    scene.move("uefi", "--policy", "immediate", source=destination).expect(0, "done: uefi")
    scene.expect_moved("uefi", source, persistent=True)


@pytest.mark.parametrize("persistent", [True, False])
def test_vtpm_goes_there_and_back(scene: CaseScene, persistent: bool) -> None:
    hosts = [scene.bed.a, scene.bed.b]
    (scene.define if persistent else scene.create)(hosts[0], uefi(VTPM))
    for trip in range(4):
        source, destination = hosts[trip % 2], hosts[(trip + 1) % 2]
        scene.move("uefi", "--policy", "immediate", source=source).expect(0, "done: uefi")
        scene.expect_moved("uefi", destination, persistent=persistent)
        state = destination.state / "lib/swtpm" / uuid_of("uefi")
        assert [path.name for path in state.rglob("*permall")] == ["tpm2-00.permall"]


def snapshot_guest(scene: CaseScene) -> None:
    for host in scene.bed.hosts:
        path = host.state / "lib/snap.qcow2"
        path.unlink(missing_ok=True)
        inside(host, "qemu-img", "create", "-q", "-f", "qcow2", "/var/lib/libvirt/snap.qcow2", "16M")
    disk = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='/var/lib/libvirt/snap.qcow2'/><target dev='vda' bus='virtio'/></disk>"""
    scene.define(scene.bed.a, firmware_guest(devices=disk))


def test_snapshots(scene: CaseScene) -> None:
    """Refused by libvirt before anything; what to do about it is said."""
    snapshot_guest(scene)
    source = scene.bed.a
    source.virsh("snapshot-create-as", "other", "s1")
    before = scene.definition(source, "other")
    for options in (["--copy-storage-all"], ["--copy-storage-all", "--policy", "never"]):
        run = scene.move("other", *options)
        run.expect(1, "snapshot", "snapshot-delete .*--metadata", "runs on")
        scene.expect_untouched("other", before)
        assert source.virsh("snapshot-list", "other", "--name").split() == ["s1"]
    source.virsh("snapshot-delete", "other", "s1", "--metadata")
    scene.move("other", "--copy-storage-all").expect(0, "done: other")
    scene.expect_moved("other", scene.bed.b, persistent=True)


def test_a_checkpoint(scene: CaseScene) -> None:
    """What a backup program leaves is in nobody's way."""
    snapshot_guest(scene)
    scene.bed.a.virsh("checkpoint-create-as", "other", "c1")
    scene.move("other", "--copy-storage-all").expect(0, "done: other")
    scene.expect_moved("other", scene.bed.b, persistent=True)


def test_a_saved_state_at_the_destination(scene: CaseScene) -> None:
    """Of an earlier stay. libvirt would keep it, and load it at the guest's next start: old memory over a
    disk that has gone on."""
    snapshot_guest(scene)
    source, destination = scene.bed.a, scene.bed.b
    scene.define(destination, source.virsh("dumpxml", "--inactive", "other"))
    destination.virsh("managedsave", "other")
    before = scene.definition(source, "other")
    run = scene.move("other", "--copy-storage-all")
    run.expect(1, "saved state", "managedsave-remove", "runs on")
    assert destination.domain_state("other") == "shut off (saved)"
    assert scene.definition(source, "other") == before
    # As it is printed.
    command = re.findall(r"virsh -c .*managedsave-remove.*", run.err)[0]
    inside(source, "sh", "-c", command.replace(source.uri, "qemu:///system"))
    scene.move("other", "--copy-storage-all").expect(0, "done: other")
    scene.expect_moved("other", destination, persistent=True)
    assert re.search(r"Managed save:\s+no", destination.virsh("dominfo", "other"))


def test_the_same_uuid_under_another_name(scene: CaseScene) -> None:
    source, destination = scene.bed.a, scene.bed.b
    scene.define(source, firmware_guest())
    before = scene.definition(source, "other")
    xml = firmware_guest().replace("<name>other<", "<name>somebody<")
    scene.define(destination, xml, start=False)
    run = scene.move("other")
    run.expect(1, "somebody", "runs on")
    assert destination.domain_state("somebody") == "shut off (unknown)"
    destination.virsh("undefine", "somebody")
    scene.expect_untouched("other", before)
    scene.move("other").expect(0, "done: other")


def test_the_same_name_of_another_guest(scene: CaseScene) -> None:
    source, destination = scene.bed.a, scene.bed.b
    scene.define(source, firmware_guest())
    before = scene.definition(source, "other")
    xml = re.sub(r"<uuid>.*?<", "<uuid>11111111-2222-3333-4444-555555555555<", firmware_guest())
    scene.define(destination, xml, start=False)
    scene.move("other").expect(1, "other", "11111111-2222-3333-4444-555555555555", "--dname", "runs on")
    assert destination.domain_state("other") == "shut off (unknown)"
    destination.virsh("undefine", "other")
    scene.expect_untouched("other", before)


def test_its_own_definition_is_left_there(scene: CaseScene) -> None:
    """Of an earlier stay: libvirt takes it over, and the guest runs at one host only."""
    source, destination = scene.bed.a, scene.bed.b
    scene.define(source, firmware_guest())
    scene.define(destination, firmware_guest(), start=False)
    scene.move("other").expect(0, "done: other")
    scene.expect_moved("other", destination, persistent=True)
    with pytest.raises(BedError):
        source.virsh("dominfo", "other")
