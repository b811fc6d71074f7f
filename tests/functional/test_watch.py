# SPDX-License-Identifier: Apache-2.0
"""`pcmig watch` beside a migration that virsh drives."""

from __future__ import annotations

import json
import subprocess

from tests.functional.scene import Scene


def test_a_migration_of_virsh_is_seen_to_its_end(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    watching = scene.start("watch", "--json", "--shadow", "-c", source.uri, host=source)
    words = ["--live", "--p2p", "--postcopy", scene.name, destination.remote_uri]
    words += ["--migrateuri", destination.migrate_uri]
    virsh = subprocess.Popen(
        source.inside(["virsh", "-c", "qemu:///system", "migrate", *words]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        scene.wait_for(lambda: '"would": "switch"' in watching.said(), "pcmig would have switched", 90.0)
        source.virsh("migrate-postcopy", scene.name)
        said, _ = virsh.communicate(timeout=60)
        assert virsh.returncode == 0, said
        scene.wait_for(lambda: '"ended": true' in watching.said(), "watch tells the end", 60.0)
    finally:
        if virsh.poll() is None:
            virsh.kill()
            virsh.wait()
    watching.interrupt()
    run = watching.wait()
    assert (run.code, run.err) == (0, "")
    looks = [json.loads(line) for line in run.out.splitlines()]
    last = looks[-1]
    assert {look["name"] for look in looks} == {scene.name} and last["ended"] and last["exit_code"] == 0
    shares = [look["progress_permille"] for look in looks]
    assert shares == sorted(shares) and shares[-1] == 1000 and shares[0] < 500
    assert {"precopy", "postcopy"} <= {look["phase"] for look in looks}

    # What was shown is what the account says, and that is libvirt's own.
    ledger = last["ledger"]
    assert ledger["balance"]["final"] and ledger["balance"]["balanced"], ledger["balance"]
    totals = ledger["totals"]
    assert totals["requests"] == last["postcopy_requests"] > 0
    assert totals["wire_bytes"] == last["memory_processed_bytes"]
    assert last["downtime"] == {"ms": totals["downtime_reported_ms"], "source": "libvirt"}
    switched = next(row for row in ledger["phases"] if row["phase"] == "switchover")
    shadow = last["shadow"]
    assert shadow["switched_at_ms"] is not None
    assert shadow["at_ms"] < switched["start_us"] / 1000, "it was judged before virsh switched"
    assert shadow["text"].startswith("pcmig would have switched at ")
    scene.expect_at(destination)
