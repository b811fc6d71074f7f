# SPDX-License-Identifier: Apache-2.0
"""Names and paths that are no words, and hosts whose names nobody knows."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.bed import Host
from tests.cases import told
from tests.cases.scene import CaseScene, firmware_guest

FOLDER = "Home Assistant"
DISK = f"""<disk type='file' device='disk'><driver name='qemu' type='raw'/>
  <source file='/var/lib/libvirt/{FOLDER}/vdisk 1.raw'/><target dev='vda' bus='virtio'/></disk>"""
NAMES = [
    "Home Assistant",
    "bücher-" + "東京" * 30,
    "n" * 200,
    "a;b&c<d> %s %n",
    "[bold]x[blink] :smile:",  # libvirt takes no "/" in a name
    'it\'s "so" $HOME `id` \\n',
]
MIB = 4


def disks(scene: CaseScene) -> None:
    for host in scene.bed.hosts:
        (host.state / "lib" / FOLDER).mkdir(exist_ok=True)
        with (host.state / "lib" / FOLDER / "vdisk 1.raw").open("wb") as file:
            file.truncate(MIB << 20)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name(scene: CaseScene, name: str) -> None:
    """Moved; then moved back, interrupted, looked at, and resumed with the command as it is printed."""
    a, b = scene.bed.hosts
    disks(scene)
    told.start(scene, a, name=name, devices=DISK)
    trace = scene.folder / "a trace; of $it"
    run = scene.move(name, "--copy-storage-all", "--trace", str(trace))
    run.expect(0, re.escape(f"done: {name} runs at"))
    scene.expect_moved(name, b, persistent=True)
    scene.run("replay", str(trace), host=a).expect(0)

    scene.bed.network.limit(40)
    command = scene.start(
        *("migrate", "-c", b.uri, "--migrateuri", a.migrate_uri, "--policy", "immediate", "--no-resume"),
        *("--no-progress", "--copy-storage-all", "--", name, a.remote_uri),
        host=b,
    )
    scene.wait_for(lambda: "post-copy" in (a.domain_state(name) or ""), "it is in post-copy", 60)
    (row,) = scene.status(b)["migrations"]
    assert row["name"] == name and row["phase"] == "postcopy"
    scene.run("pause", "-c", b.uri, "--", name, host=b).expect(
        0, re.escape(f"both halves of {name} are kept")
    )
    run = command.wait(60).expect(3, re.escape(f"{name} needs an operator"))
    assert len(scene.entries()) == 1
    assert json.loads(scene.entries()[0].read_text())["name"] == name
    printed = re.findall(r"^  (pcmig resume .*)$", run.err, re.M)
    table = scene.run("status", "-c", b.uri, host=b).expect(3, "interrupted")
    assert table.out.splitlines()[1].split("\t")[0] == name
    assert printed and printed[0] in table.out
    scene.bed.network.limit(200)
    shell(scene, b, printed[0]).check_returncode()
    scene.expect_moved(name, a, persistent=True)


def shell(scene: CaseScene, host: Host, line: str) -> subprocess.CompletedProcess[str]:
    """What somebody types in a shell on HOST."""
    import os
    import sys

    folder = os.path.dirname(sys.executable)
    words = [
        "env",
        f"PATH={folder}:{os.environ['PATH']}",
        f"PCMIG_JOURNAL_DIR={scene.journal}",
        "sh",
        "-c",
        line,
    ]
    done = subprocess.run(host.command(words), capture_output=True, text=True, timeout=120)
    print(line, done.returncode, done.stdout, done.stderr, sep="\n")
    return done


def test_a_name_that_nobody_knows(scene: CaseScene) -> None:
    """Without --migrateuri the destination's own name counts, which the source's resolver does not know."""
    a, b = scene.bed.hosts
    scene.define(a, firmware_guest())
    before = scene.definition(a, "other")
    run = scene.run("migrate", "-c", a.uri, "--no-progress", "other", b.remote_uri, host=a)
    run.expect(1, "--migrateuri tcp://", "runs on")
    scene.expect_untouched("other", before)
    check = scene.run("check", "-c", a.uri, "--peer", b.remote_uri, host=a)
    print(check.out)
    assert re.search(r"warn +both +peer's name +pcmig-b is not known here", check.out), check.out
    assert "--migrateuri tcp://ADDRESS" in check.out
