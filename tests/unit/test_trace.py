# SPDX-License-Identifier: Apache-2.0
"""replay() and ledger_from_trace(): recorded migrations through the binding."""

from __future__ import annotations

import pathlib
import threading

import pytest

from pcmig import _core
from tests.unit import traces


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return traces.recorded()


def test_identical(lines: list[str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "trace"
    path.write_text("\n".join(lines) + "\n")
    for trace in (path, str(path), bytes(path), lines, iter(lines), [line.encode() for line in lines]):
        result = _core.replay(trace)
        assert result["identical"]
        assert result["different"] == 0
        assert result["first_difference"] is None
        assert result["recorded"] == result["replayed"] == len(result["decisions"]) >= 3
    assert result["policy"] == "auto"
    assert result["params"]["downtime_limit_ms"] == 300
    actions = [answer["replayed"]["action"] for answer in result["decisions"] if answer["replayed"]]
    assert "switch" in actions
    first = result["decisions"][0]["recorded"]
    assert first is not None
    assert first["text"]


def test_gate() -> None:
    """The header says whether there was a gate; the same answers give the same decisions."""
    inputs = traces.inputs()
    inputs[1] = "params policy=auto gate=1"
    held = _core.replay(inputs)
    assert held["gate"]
    actions = [answer["replayed"]["action"] for answer in held["decisions"] if answer["replayed"]]
    assert "ask" in actions and "undrain" in actions and not {"drain", "switch"} & set(actions)
    ask = next(answer["replayed"] for answer in held["decisions"] if answer["replayed"])
    assert ask["action"] == "ask"
    for later_us in (1, 2_000_000):
        time_us = ask["t_us"] + later_us
        at = next(i for i, line in enumerate(inputs) if i > 1 and int(line.split()[0]) >= time_us)
        opened = [*inputs[:at], f"{time_us} request open-gate", *inputs[at:]]
        lines = traces.with_decisions(opened)
        again = _core.replay(lines)
        assert again["identical"] and again["gate"] and again["recorded"] >= 3
        told = [each["recorded"] for each in again["decisions"] if each["recorded"]]
        assert [each["reason"] for each in told if each["action"] in ("drain", "switch")] == [
            "gate-open",
            "drained",
        ]
        lines[1] = "params policy=auto"  # without the gate nothing would have waited
        assert not _core.replay(lines)["identical"]


def test_difference(lines: list[str]) -> None:
    number = next(i for i, line in enumerate(lines) if " decision " in line)
    changed = [*lines[:number], lines[number].replace(" a=", " a=9"), *lines[number + 1 :]]
    result = _core.replay(changed)
    assert not result["identical"]
    assert result["different"] == 1
    first = result["first_difference"]
    assert first is not None
    assert first["line"] == number + 1
    assert first["recorded"] is not None and first["replayed"] is not None
    assert first["recorded"]["a"] != first["replayed"]["a"]
    assert first in result["decisions"]


def test_what_if(lines: list[str]) -> None:
    never = _core.replay(lines, policy="never")
    assert never["policy"] == "never"
    assert all(a["replayed"] is None or a["replayed"]["action"] != "switch" for a in never["decisions"])
    passes = _core.replay(lines, policy="passes=2")
    assert passes["params"]["passes"] == 2
    slow = _core.replay(lines, params={"request_wait_ms": 3})
    assert slow["params"]["request_wait_ms"] == 3
    assert not slow["identical"]


@pytest.mark.parametrize(
    ("trace", "line", "words"),
    [
        ([], 0, "empty"),
        (["pcmig-trace 1"], 0, "no params"),
        (["pcmig-trace 1", "params policy=auto"], 0, "no inputs"),
        (["0 tick"], 1, "not a trace"),
        (["pcmig-trace 1", "params policy=auto", "", "# note", "5 sample speed=1"], 5, "'speed'"),
        (["pcmig-trace 1", "params policy=auto", "5 tick\n", "6 tick\n7 tick"], 4, "tick"),
        (["pcmig-trace 1", "#" * 5000], 2, "longer"),
        (
            ["pcmig-trace 1", "params policy=auto drain_max_ms=5"],
            2,
            "older pcmig.*: it follows from the link",
        ),
    ],
)
def test_trace_error(trace: list[str], line: int, words: str) -> None:
    with pytest.raises(_core.TraceError, match=words) as caught:
        _core.replay(trace)
    assert caught.value.line == line
    if line:
        assert f"line {line}" in str(caught.value)
        if words != "no inputs":
            with pytest.raises(_core.TraceError):
                _core.ledger_from_trace(trace)


def test_files(lines: list[str], tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        _core.replay(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        _core.ledger_from_trace(tmp_path)
    endless = tmp_path / "zero"
    endless.symlink_to("/dev/zero")
    with pytest.raises(_core.TraceError, match="line 1: longer"):
        _core.replay(endless)


def test_a_file_that_is_cut(lines: list[str], tmp_path: pathlib.Path) -> None:
    """Wherever it ends within a line, also within a number, which seems to be whole then: that line is left
    out, and named; what comes before it is as it was."""
    path = tmp_path / "cut"
    text = "\n".join(lines) + "\n"
    path.write_text(text)
    whole = _core.replay(path)
    assert whole["cut"] is None and whole["identical"]
    decision = next(i for i, line in enumerate(lines) if " decision " in line)
    number = next(i for i in range(decision, len(lines)) if " sample " in lines[i] and len(lines[i]) > 99)
    for line, kept in (
        (len(lines) - 1, len(lines[-1]) - 1),
        (len(lines) - 1, len(lines[-1])),
        (number, len(lines[number]) - 2),
        (decision, 5),
        (decision, len(lines[decision])),
    ):
        path.write_text("\n".join([*lines[:line], lines[line][:kept]]))
        result = _core.replay(path)
        assert result["cut"] == line + 1
        assert result["identical"] and result["recorded"] == result["replayed"] < len(lines)
        assert result["inputs"] == sum(" decision " not in each for each in lines[2:line])
        assert _core.ledger_from_trace(path) == _core.ledger_from_trace(lines[:line])
    for line, words in ((0, "the trace is empty"), (1, "the trace has no params line"), (2, "no inputs")):
        path.write_text("\n".join([*lines[:line], lines[line][:9]]))
        with pytest.raises(
            _core.TraceError, match=rf"line {line + 1}: .*{words} \(the file .* cut off"
        ) as caught:
            _core.replay(path)
        assert caught.value.line == line + 1
    assert _core.replay(lines)["cut"] is None, "lines that have no end of their own are no file"


def test_arguments(lines: list[str]) -> None:
    with pytest.raises(_core.PolicyError, match="unknown parameter 'speed'"):
        _core.replay(lines, params={"speed": 1})
    for value in (0, 10**30):
        with pytest.raises(_core.PolicyError, match=r"request_wait_ms.* from 1 to"):
            _core.replay(lines, params={"request_wait_ms": value})
    with pytest.raises(_core.PolicyError):
        _core.replay(lines, policy="fast")
    with pytest.raises(TypeError):
        _core.replay(lines, params={"request_wait_ms": 1.5})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        _core.replay(lines, params=[])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.replay(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        _core.replay([5])  # type: ignore[list-item]

    def broken() -> object:
        yield "pcmig-trace 1"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        _core.replay(broken())  # type: ignore[arg-type]


def test_gil_is_free_while_reading(tmp_path: pathlib.Path) -> None:
    """A named pipe that nobody writes to yet must not stop other threads."""
    import os

    path = tmp_path / "pipe"
    os.mkfifo(path)
    found: list[_core.Replay] = []
    reader = threading.Thread(target=lambda: found.append(_core.replay(path)))
    reader.start()
    with open(path, "w") as pipe:
        pipe.write("pcmig-trace 1\nparams policy=auto\n0 tick\n")
    reader.join()
    assert found[0]["inputs"] == 1


def test_ledger(lines: list[str]) -> None:
    ledger = _core.ledger_from_trace(lines)
    names = [row["phase"] for row in ledger["phases"]]
    assert names[0] == "setup" and names[1] == "precopy" and "drain" in names
    assert names[-3:] == ["switchover", "postcopy", "finished"]
    assert ledger["phase"] == "finished"
    assert ledger["balance"]["balanced"]
    assert ledger["balance"]["text"] == "balanced"
    for name, quantity in ledger["balance"]["quantities"].items():
        assert quantity["phases"] == sum(row[name] for row in ledger["phases"])  # type: ignore[literal-required]
    totals = ledger["totals"]
    assert totals["guest_pages"] == traces.GUEST_PAGES
    assert totals["total_us"] == sum(totals["phase_us"].values())
    assert totals["downtime_reported_ms"] == 4
    assert totals["downtime_events_us"] == 1000
    assert totals["passes"] >= 1
    assert totals["requests"] == 20 * 73
    assert totals["retransmitted_pages"] == totals["normal_pages"] - traces.GUEST_PAGES
    assert ledger["passes"][0]["complete"]
    assert {"t_us": 0, "kind": "event", "name": "migrate-called"} in ledger["events"]
    assert ledger["events_lost"] == 0


def test_ledger_without_end(lines: list[str]) -> None:
    ledger = _core.ledger_from_trace(lines[:40])
    assert ledger["phase"] == "precopy"
    assert ledger["balance"] == {
        "final": False,
        "balanced": False,
        "text": "no final statistics",
        "quantities": {},
    }
    assert ledger["totals"]["downtime_reported_ms"] is None
    assert ledger["totals"]["downtime_events_us"] is None


@pytest.mark.parametrize(
    "more", ["weather fine", "event dst-flew", "sample heat=x", "decision jump none a=1"]
)
def test_what_another_pcmig_wrote_is_left_out_where_it_is_not_known(
    lines: list[str], tmp_path: pathlib.Path, more: str
) -> None:
    """A trace decides nothing: what is not known is counted, and told. Of one's own it is damage."""
    word = more.split()[1 if more.split()[0] in ("event", "decision", "sample") else 0].partition("=")[0]
    for writer, read in (("9.8.7", True), (_core.VERSION, False), (None, False)):
        at = next(i for i, line in enumerate(lines) if " sample " in line)
        changed = [*lines[:at], f"1001 {more}", f"1002 {more}", *lines[at:]]
        if writer is not None:
            changed.insert(1, f"# pcmig {writer}")
        if not read:
            for take in (_core.replay, _core.ledger_from_trace):
                with pytest.raises(_core.TraceError, match=f"'{word}'"):
                    take(changed)
            continue
        result = _core.replay(changed)
        assert (result["identical"], result["written_by"]) == (True, writer)
        left_out = result["left_out"]
        assert left_out is not None and (left_out["lines"], left_out["first"]) == (2, at + 2)
        assert f"'{word}'" in left_out["what"]
        if "sample" not in more:  # of which the figures that are known count
            assert _core.ledger_from_trace(changed) == _core.ledger_from_trace(lines)
    assert _core.replay(lines)["left_out"] is None and _core.replay(lines)["written_by"] is None
