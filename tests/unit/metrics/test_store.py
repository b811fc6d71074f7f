# SPDX-License-Identifier: Apache-2.0
"""What is counted outlives the processes that count, whatever ends them."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from pcmig.metrics import store
from pcmig.metrics.account import Increments
from pcmig.metrics.store import Store, StoreError
from tests.unit.metrics.figures import ended
from tests.unit.patience import PATIENCE_S, wait_for

ROOT = pathlib.Path(__file__).parents[3]
MIGRATIONS = ("pcmig_migrations_total", ("completed", "postcopy"))
SILENCE = ("pcmig_guest_silence_seconds", ("postcopy",))


def silence(seconds: float) -> Increments:
    more = Increments()
    more.observe(*SILENCE[:1], *SILENCE[1], value=seconds)
    return more


def child(code: str, *words: str) -> subprocess.Popen[str]:
    begin = (
        "import sys\nfrom pcmig.metrics.store import Store\nfrom pcmig.metrics.account import Increments\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", begin + code, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


def test_figures_are_added_up(tmp_path: pathlib.Path) -> None:
    for number in range(3):
        assert Store(tmp_path).add(f"m{number}", ended())
    counts = Store(tmp_path).counts()
    assert counts.counters[MIGRATIONS] == 3
    once = ended().counters
    assert {key: value / 3 for key, value in counts.counters.items()} == pytest.approx(once)


def test_buckets(tmp_path: pathlib.Path) -> None:
    for number, seconds in enumerate((0.001, 0.005, 0.3, 0.31, 1000.0)):
        Store(tmp_path).add(f"m{number}", silence(seconds))
    found = Store(tmp_path).counts().histograms[SILENCE]
    bounds = (*store._FAMILIES[SILENCE[0]].buckets, float("inf"))
    filled = {bound: count for bound, count in zip(bounds, found.buckets, strict=True) if count}
    assert filled == {0.005: 2, 0.3: 1, 0.5: 1, float("inf"): 1}, "a bound is in its bucket"
    assert found.sum == pytest.approx(1000.616)


def test_a_migration_counts_once(tmp_path: pathlib.Path) -> None:
    assert Store(tmp_path).add("m", ended())
    assert not Store(tmp_path).add("m", ended())
    assert Store(tmp_path).counts().counters[MIGRATIONS] == 1
    for number in range(store.REMEMBERED):
        Store(tmp_path).add(f"m{number}", Increments())
    assert len(Store(tmp_path).counts().ended) == store.REMEMBERED, "they are not remembered for ever"


COUNT = """
more = Increments()
more.count("pcmig_migrations_total", "completed", "postcopy")
for number in range(int(sys.argv[3])):
    Store(sys.argv[1]).add(f"{sys.argv[2]} {number}", more)
"""


def test_many_processes_at_once(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "counts")
    children = [child(COUNT, folder, str(number), "25") for number in range(4)]
    assert [each.wait(PATIENCE_S) for each in children] == [0, 0, 0, 0]
    assert Store(folder).counts().counters[MIGRATIONS] == 100


def test_a_process_that_is_killed_while_it_counts(tmp_path: pathlib.Path) -> None:
    """At whatever moment: the file is whole, and the lock is free."""
    folder = tmp_path / "counts"
    endless = child(COUNT, str(folder), "killed", "100000000")
    wait_for(lambda: (folder / store.COUNTS).exists(), "it counts")
    endless.send_signal(signal.SIGKILL)
    endless.wait(PATIENCE_S)
    before = Store(folder).counts().counters[MIGRATIONS]
    assert before > 0
    assert Store(folder).add("another", ended())
    assert Store(folder).counts().counters[MIGRATIONS] == before + 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("\xff", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "has schema None"),
        ('{"schema": 2}', "has schema 2, and this pcmig knows 1"),
        ('{"schema": 1}', "is not as pcmig writes it"),
        ('{"schema": 1, "since": 1, "counters": 7, "histograms": [], "ended": []}', "is not as"),
        (
            '{"schema": 1, "since": 1, "counters": [["pcmig_migrations_total", ["x"], 1]], "histograms": [], '
            '"ended": []}',
            r"pcmig_migrations_total has the labels \['x'\]",
        ),
        (
            '{"schema": 1, "since": 1, "counters": [["pcmig_page_requests_total", [], -1]], "histograms": '
            '[], "ended": []}',
            "-1 counts nothing",
        ),
        (
            '{"schema": 1, "since": 1, "counters": [], "histograms": [["pcmig_gate_wait_seconds", [], [1], '
            '[1, 2], 3]], "ended": []}',
            "pcmig_gate_wait_seconds has other buckets",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_moved_aside(tmp_path: pathlib.Path, text: str, why: str) -> None:
    path = tmp_path / store.COUNTS
    path.write_text(text, encoding="latin-1")
    told: list[str] = []
    with pytest.raises(store.UnusableError, match=why):
        Store(tmp_path).counts()
    assert Store(tmp_path, told.append).add("m", ended())
    (said,) = told
    assert said.startswith(str(path)) and said.endswith("counting begins anew")
    aside = tmp_path / f"{store.COUNTS}.unusable-1"
    assert str(aside) in said and aside.read_text(encoding="latin-1") == text
    assert Store(tmp_path).counts().counters[MIGRATIONS] == 1
    path.write_text("broken again")
    Store(tmp_path, told.append).add("m2", ended())
    assert (tmp_path / f"{store.COUNTS}.unusable-2").read_text() == "broken again", "nothing is written over"


def test_a_figure_of_a_newer_pcmig_is_left_out(tmp_path: pathlib.Path) -> None:
    Store(tmp_path).add("m", ended())
    path = tmp_path / store.COUNTS
    data = json.loads(path.read_text())
    data["counters"].append(["pcmig_wonders_total", [], 3])
    data["histograms"].append(["pcmig_wonder_seconds", [], [1], [0, 1], 3])
    path.write_text(json.dumps(data))
    assert Store(tmp_path).counts().counters[MIGRATIONS] == 1


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"metrics cannot be written in .*file"):
        Store(tmp_path / "file" / "metrics").add("m", ended())


def test_what_runs_ends_with_its_process(tmp_path: pathlib.Path) -> None:
    row = {"domain": "g1", "instance_uuid": "1", "phase": "precopy"}
    mine = Store(tmp_path)
    mine.write_live([row])
    assert Store(tmp_path).live() == [row]
    other = child(
        "Store(sys.argv[1]).write_live([{'instance_uuid': '2'}])\n"
        "print('there', flush=True)\nsys.stdin.read()",
        str(tmp_path),
    )
    assert other.stdout is not None
    other.stdout.readline()
    other.kill()
    other.wait(PATIENCE_S)
    left = tmp_path / f"{store.LIVE}{other.pid}.json"
    assert left.exists(), "it could tell nobody"
    assert Store(tmp_path).live() == [row]
    assert not left.exists()
    (tmp_path / f"{store.LIVE}x.json").write_text("{")
    mine.write_live([])
    assert Store(tmp_path).live() == []
    assert not (tmp_path / f"{store.LIVE}{os.getpid()}.json").exists()
