# SPDX-License-Identifier: Apache-2.0
"""`_core.Migration` itself, as a driver uses it: many in one process, followed through descriptors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.bed import Host
from tests.functional.scene import Scene
from tests.functional.test_bad_input import other_xml

PROGRAM = '''
import asyncio, json, os, sys
from pcmig import _core

source, dest, migrate_uri, *names = sys.argv[1:]

def threads():
    return len(os.listdir("/proc/self/task"))

async def follow(migration, news):
    """asyncio's own loop, no thread of Python."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    def readable():
        migration.clear()
        news.append(migration.status()["phase"])
        if migration.status()["outcome"] is not None:
            done.set()
    loop.add_reader(migration.fileno(), readable)
    migration.start()
    await asyncio.wait_for(done.wait(), 100)
    loop.remove_reader(migration.fileno())
    return migration.status()

async def main():
    _core.job_status(source, names[0])  # starts the event thread
    before = threads()
    migrations = [_core.Migration(name, dest, source_uri=source, migrate_uri=migrate_uri, policy="immediate")
                  for name in names]
    news = [[] for _ in names]
    following = [asyncio.ensure_future(follow(m, n)) for m, n in zip(migrations, news)]
    peak = before
    while not all(future.done() for future in following):
        peak = max(peak, threads())
        await asyncio.sleep(0.05)
    ends = [future.result() for future in following]
    joined = [migration.join(0) for migration in migrations]
    try:
        migrations[0].start()
        again = "started"
    except _core.Error as err:
        again = str(err)
    print(json.dumps({"outcomes": [end["outcome"] for end in ends], "errors": [end["error"] for end in ends],
                      "phases": news, "joined": joined, "again": again, "before": before, "peak": peak}))

asyncio.run(main())
'''


def run_program(host: Host, text: str, *arguments: str) -> dict[str, object]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        host.command(["env", f"PYTHONPATH={root}", sys.executable, "-c", text, *arguments]),
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_three_guests_at_once_through_one_process(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    scene.bed.network.limit(1000)
    names = ["t1", "t2", "t3"]
    try:
        for name in names:
            xml = re.sub(r"<uuid>.*?</uuid>", "", other_xml()).replace("<name>other<", f"<name>{name}<")
            (source.state / f"run/pcmig/{name}.xml").write_text(xml)
            source.virsh("create", f"/run/pcmig/{name}.xml")
        answer = run_program(
            source, PROGRAM, source.uri, destination.remote_uri, destination.migrate_uri, *names
        )
        assert answer["outcomes"] == ["completed"] * 3, answer
        assert answer["joined"] == [True] * 3
        assert "start" in str(answer["again"]), answer
        # Control, call, and three that ask: two the source, one the destination. The event thread was
        # there before, and is shared.
        assert isinstance(answer["peak"], int) and isinstance(answer["before"], int)
        assert answer["peak"] <= answer["before"] + 5 * len(names), answer
        running = destination.virsh("list", "--name").split()
        assert set(names) <= set(running), running
        assert not set(names) & set(source.virsh("list", "--all", "--name").split())
    finally:
        for host in scene.bed.hosts:
            for name in set(names) & set(host.virsh("list", "--name").split()):
                host.virsh("destroy", name)
    scene.expect_at(source)


STEERED = """
import json, select, sys, time
from pcmig import _core

source, dest, migrate_uri, name = sys.argv[1:]
m = _core.Migration(name, dest, source_uri=source, migrate_uri=migrate_uri, policy="manual", bandwidth_mib=4)
early = []
for call in (m.switch, m.abort, m.detach):
    try:
        call()
        early.append("taken")
    except _core.Error as err:
        early.append(str(err))
m.start()
poller = select.poll()
poller.register(m.fileno(), select.POLLIN)

def until(condition):
    end = time.monotonic() + 60
    while not condition(m.status()):
        assert time.monotonic() < end, m.status()
        poller.poll(500)
        m.clear()

until(lambda s: s["phase"] == "precopy" and s["memory_processed_bytes"] > 4 << 20)
start = time.monotonic(), m.status()["memory_processed_bytes"]
time.sleep(2)
slow = (m.status()["memory_processed_bytes"] - start[1]) / (time.monotonic() - start[0])
m.set_bandwidth(0)
time.sleep(1)
start = time.monotonic(), m.status()["memory_processed_bytes"]
time.sleep(1.5)
fast = (m.status()["memory_processed_bytes"] - start[1]) / (time.monotonic() - start[0])
m.switch()
until(lambda s: s["outcome"] is not None)
late = []
for call in (m.switch, m.abort, m.detach):
    try:
        call()
        late.append("taken")
    except _core.Error as err:
        late.append(str(err))
status = m.status()
print(json.dumps({"early": early, "late": late, "slow": slow, "fast": fast, "outcome": status["outcome"],
                  "error": status["error"], "actions": [d["action"] for d in m.decisions()]}))
"""


def test_bandwidth_and_requests_at_run_time(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    answer = run_program(
        source, STEERED, source.uri, destination.remote_uri, destination.migrate_uri, scene.name
    )
    assert answer["outcome"] == "completed", answer
    assert "taken" not in str(answer["early"]) + str(answer["late"]), answer
    slow, fast = answer["slow"], answer["fast"]
    assert isinstance(slow, float) and isinstance(fast, float)
    assert slow < 6 << 20, answer
    assert fast > 2 * slow, answer
    assert "switch" in str(answer["actions"])
    scene.expect_at(destination)


FORGOTTEN = """
import sys
from pcmig import _core
source, dest, migrate_uri, name = sys.argv[1:]
m = _core.Migration(name, dest, source_uri=source, migrate_uri=migrate_uri, policy="first-pass")
m.start()
while m.status()["phase"] == "setup":
    m.join(50)
del m  # whoever forgets a migration does not end it
import time
end = time.monotonic() + 60
gone = False
while not gone:
    assert time.monotonic() < end
    time.sleep(0.2)
    try:
        _core.job_status(source, name)
    except _core.NoDomainError:
        gone = True
time.sleep(1)  # its threads tidy up: the route to the destination is as it was
print("{}")
"""


def test_a_migration_that_is_forgotten_goes_on(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    run_program(source, FORGOTTEN, source.uri, destination.remote_uri, destination.migrate_uri, scene.name)
    scene.expect_at(destination)
