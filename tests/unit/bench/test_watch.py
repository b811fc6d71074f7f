# SPDX-License-Identifier: Apache-2.0
"""What it costs to be watched: from rounds to ratios, and what is asked for wrongly."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.bench.program import SCHEMA
from tests.bench.watch.__main__ import WATCHERS, main


def recorded(folder: pathlib.Path, looks: int = 9) -> pathlib.Path:
    rounds = [
        {
            "way": way,
            "round": number,
            "error": None,
            "complete_s": 8.0 + number if way == "alone" else 10.0 + number,
            "guest_switch_silence_ms": 100,
            "guest_later_silence_ms": 50,
            "bytes": 100_000_000,
            "looks": None if way == "alone" else looks,
            "watch_cpu_ms": None if way == "alone" else 120,
        }
        for number in (1, 2, 3)
        for way in WATCHERS
    ]
    path = folder / "run.json"
    ways = dict.fromkeys(WATCHERS, "")
    path.write_text(json.dumps({"schema": SCHEMA, "watched": "", "ways": ways, "rounds": rounds}))
    return path


def test_watched_against_alone(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", str(recorded(tmp_path))]) == 0
    text = capsys.readouterr().out
    assert "watch against alone, median to median: total time 1.20, silence at switch 1.00" in text


def test_a_watcher_that_saw_nothing_is_none(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--from", str(recorded(tmp_path, looks=0))]) == 1
    assert "watch, round 1: it saw nothing of the migration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rounds", "0"], "--rounds 0: use 1 or more"),
        (["--way", "xen"], "unknown way 'xen'"),
        (["--stack", "etch"], "unknown stack 'etch'"),
    ],
)
def test_what_is_asked_for_wrongly(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert says in capsys.readouterr().err
