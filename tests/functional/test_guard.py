# SPDX-License-Identifier: Apache-2.0
"""What the guard says while a real migration goes through its phases, told by the hosts themselves."""

from __future__ import annotations

from typing import Any

from tests.functional.scene import Scene
from tests.functional.test_core_migration import run_program

PROGRAM = """
import json, select, sys, time
from pcmig import _core

source, dest, migrate_uri, uuid = sys.argv[1:]
m = _core.Migration(uuid, dest, source_uri=source, migrate_uri=migrate_uri, policy="manual", bandwidth_mib=4,
                    postcopy_bandwidth_mib=4, recover=True)
poller = select.poll()
poller.register(m.fileno(), select.POLLIN)
# Harm at any time but where the guest is not.
ACTS = [(side, act) for side in ("source", "destination")
        for act in ("start", "resume", "reboot", "destroy", "delete-files", "rollback", "post-migration",
                    "migrate-resume")]

def until(condition):
    end = time.monotonic() + 60
    while not condition(m.status()):
        assert time.monotonic() < end, (m.status(), _core.half(source, uuid), _core.half(dest, uuid))
        poller.poll(500)
        m.clear()

def look(in_flight=True):
    begun = time.monotonic()
    here, there = _core.half(source, uuid), _core.half(dest, uuid)
    known = {"source": here["half"], "destination": there["half"], "job_active": here["job_active"],
             "in_flight": in_flight}
    answers = {f"{side}: {act}": _core.guard(side=side, act=act, **known) for side, act in ACTS}
    one = answers["source: start"]
    return {"halves": [here["half"], there["half"]], "job": here["job_active"],
            "there_job": there["job_active"], "situation": one["situation"],
            "memory": one["memory"], "took_s": time.monotonic() - begun,
            "allowed": [name for name, answer in answers.items() if answer["allowed"]]}

seen = {"before": look(False)}
m.start()
until(lambda s: s["phase"] == "precopy" and s["memory_processed_bytes"] > 4 << 20)
seen["precopy"] = look()
m.switch()
until(lambda s: s["phase"] == "postcopy")
seen["postcopy"] = look()
# An emulated guest's QEMU whose stream breaks at once waits for a page of the guest with its own lock
# held, and libvirt for QEMU.
time.sleep(2)
m.pause()
until(lambda s: s["phase"] == "paused")
time.sleep(1)  # the destination's half hears of it a moment later
seen["interrupted"] = look()
m.resume()
m.set_bandwidth(0)
until(lambda s: s["outcome"] is not None)
seen["after"] = look()
seen["settled"] = look(False)
print(json.dumps({"seen": seen, "outcome": m.status()["outcome"], "error": m.status()["error"]}))
"""


def test_every_phase_of_a_migration(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    uuid = source.virsh("domuuid", scene.name).strip()
    answer: dict[str, Any] = run_program(
        source, PROGRAM, source.uri, destination.remote_uri, destination.migrate_uri, uuid
    )
    assert answer["outcome"] == "completed", answer
    seen = answer["seen"]
    assert max(look["took_s"] for look in seen.values()) < 10, answer

    before = seen["before"]
    assert (before["halves"], before["job"]) == (["running", "absent"], False), before
    assert (before["situation"], before["memory"]) == ("home-source", "source")
    assert "destination: start" not in before["allowed"] and "source: reboot" in before["allowed"]

    precopy = seen["precopy"]
    assert (precopy["halves"], precopy["job"]) == (["running", "migrating"], True), precopy
    assert (precopy["situation"], precopy["allowed"]) == ("precopy", []), precopy

    postcopy = seen["postcopy"]
    assert postcopy["halves"] == ["postcopy", "postcopy"], postcopy
    assert (postcopy["memory"], postcopy["allowed"]) == ("both", []), postcopy

    interrupted = seen["interrupted"]
    assert interrupted["halves"] == ["postcopy-failed", "postcopy-failed"], interrupted
    assert interrupted["memory"] == "both", interrupted
    assert interrupted["allowed"] == ["source: migrate-resume", "destination: migrate-resume"], interrupted

    after = seen["after"]
    assert (after["halves"], after["job"], after["there_job"]) == (["absent", "running"], False, False), after
    assert after["situation"] == "at-destination"
    assert not {"source: start", "source: reboot", "source: rollback"} & set(after["allowed"]), after
    assert {"destination: reboot", "source: post-migration"} <= set(after["allowed"]), after
    assert "destination: destroy" not in after["allowed"] and "destination: rollback" not in after["allowed"]

    settled = seen["settled"]
    assert settled["situation"] == "home-destination"
    assert "source: start" not in settled["allowed"] and "destination: destroy" in settled["allowed"]
    scene.expect_at(destination)
