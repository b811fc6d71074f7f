# SPDX-License-Identifier: Apache-2.0
"""The destination dies in post-copy: the guest goes on at the source when somebody asks for it. More of it:
tests/turn_back."""

from __future__ import annotations

import json
import signal
import time

from tests.functional.scene import Scene
from tests.functional.test_lost import commands, end_qemu, status


def test_it_goes_on_when_somebody_asks(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    try:
        command = scene.in_postcopy(destination)
        time.sleep(1)
        end_qemu(destination, signal.SIGKILL)
        run = command.wait(60).expect(3, "one half of the guest is gone", "pcmig turn-back -c")
        status(scene, source).expect(3, "can turn back", "pcmig turn-back -c")
        assert any(line.startswith("pcmig turn-back") for line in commands(run))
        assert "paused" in (source.domain_state(scene.name) or ""), "nothing happens without a request"
        # libvirt there saw its QEMU end, and told: no word is asked for.
        done = scene.run("turn-back", "--json", scene.name, host=source)
        done.expect(0, "done: ", "system_powerdown")
        assert done.elapsed_s < 5
        report = json.loads(done.out)
        assert report["nothing_lost"] is False and report["facts"]["disks"] == "none"
        status(scene, source).expect(0, "turned back", "cannot be migrated")
        time.sleep(2)
        assert scene.guest is not None
        now_s = time.monotonic()
        verdict = scene.guest.verdict(now_s - 1.5, now_s, 0)
        assert verdict.page_errors == 0 and verdict.host == source.name, verdict
    finally:
        scene.remove()
