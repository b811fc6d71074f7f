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
        print(f"it went on within {done.elapsed_s:.2f} s of the request")
        report = json.loads(done.out)
        assert report["nothing_lost"] is False and report["facts"]["disks"] == "none"
        status(scene, source).expect(0, "turned back", "cannot be migrated")
        assert scene.guest is not None
        since_s = time.monotonic()
        scene.guest.wait_heartbeats(10, since_s=since_s, patience_s=60)
        beats = scene.guest.heartbeats(since_s)
        assert {(beat.host, beat.bad) for beat in beats} == {(source.name, beats[0].bad)}, beats[-1]
    finally:
        scene.remove()
