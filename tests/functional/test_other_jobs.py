# SPDX-License-Identifier: Apache-2.0
"""A job that is no migration is none of pcmig's: a guest that is being backed up is not taken for one that
migrates, and keeps its backup."""

from __future__ import annotations

import re
import shlex

from tests.bed import Host
from tests.functional.scene import Run, Scene
from tests.functional.test_bad_input import other_guest, other_xml

DISK = "/var/lib/libvirt/other.raw"
DEVICES = f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{DISK}'/>
      <target dev='vda' bus='virtio'/>
    </disk>"""
BACKUP = """
<domainbackup mode='pull'>
  <server transport='unix' socket='/run/pcmig/backup.sock'/>
</domainbackup>"""


def operation(host: Host) -> str:
    match = re.search(r"Operation:\s*(\S+)", host.virsh("domjobinfo", "other"))
    return match[1] if match else "none"


def printed(run: Run, word: str) -> str:
    """The command with WORD that was printed, to the end of its line."""
    match = re.search(rf"virsh .*{word}.*", run.out + run.err)
    assert match is not None, run.out + run.err
    return match[0]


def test_a_backup(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    with (source.state / "lib/other.raw").open("wb") as disk:
        disk.truncate(16 << 20)
    (source.state / "run/pcmig/backup.xml").write_text(BACKUP)
    with other_guest(scene, source, other_xml(DEVICES)):
        source.virsh("backup-begin", "other", "/run/pcmig/backup.xml")
        for command in ("watch", "abort", "switch", "pause"):
            run = scene.ask(command, source, domain="other")
            run.expect(1, "no migration of other is under way", "another job for it: backup")
            assert run.elapsed_s < 25
        scene.run("status", "-c", source.uri, host=source).expect(0, "no migrations")
        scene.ask("resume", source, destination.remote_uri, domain="other").expect(1, "nothing to resume")
        run = scene.migration("--unsafe", domain="other").wait()
        run.expect(
            1, "libvirt runs a job for guest other, backup", "domjobabort other", "runs on at the source"
        )
        assert run.elapsed_s < 25
        assert operation(source) == "Backup"
        assert destination.domain_state("other") is None
        assert list(scene.journal.glob("*.json")) == []
        # What it says would end it does.
        words = shlex.split(printed(run, "domjobabort"))
        assert words[:3] == ["virsh", "-c", source.uri]
        source.virsh(*words[3:])
        assert operation(source) == "none"
    scene.expect_at(source)
