# SPDX-License-Identifier: Apache-2.0
"""Commands that are printed to be pasted: a shell makes the words of them that were meant, for guests of any
name, and the command that is named takes them."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from pcmig import _core, journal
from pcmig.cli import abort, evidence, job, main, options, pause, record, run, status, watch
from pcmig.cli.base import CommandError
from tests.unit.cli import fake_core as fake
from tests.unit.cli.fake_core import job as answer

SOURCE = "qemu+ssh://root@a/system?keyfile=/it's"
DEST = "qemu+tcp://[fd00::2]/system"
WEIRD = {
    "web1": "web1",
    "web's": "web's",
    "a'; reboot #'": "a'; reboot #'",
    "Home Assistant": "Home Assistant",
    "bücher-東京": "bücher-東京",
    "$(id) `id` %s \\": "$(id) `id` %s \\",
    "-dash": fake.UUID,
    "--json": fake.UUID,
    "17": fake.UUID,
    "a\tb": fake.UUID,
    "11111111-1111-1111-1111-111111111111": fake.UUID,
}
ENTRY = journal.Entry(
    uuid=fake.UUID, name="", source_uri=SOURCE, dest_uri=DEST, engine={}, started="today", caller={}
)


def shell(text: str) -> list[list[str]]:
    """The argument vectors of all commands in TEXT: what is printed on lines of their own, two blanks in."""
    commands = re.findall(r"^  ((?:pcmig|virsh) .*)$", text, flags=re.M)
    assert commands, text
    functions = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\" END; }}\n" for name in ("pcmig", "virsh"))
    done = subprocess.run(
        ["sh", "-c", functions + "\n".join(commands)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    vectors = [part.split("\0")[:-1] for part in done.stdout.split("END\0")[:-1]]
    for words in vectors:
        if words[0] == "pcmig":  # argparse ends the test where it does not take them
            program: Any = main.Pcmig()
            chosen = program.command_manager.commands[words[1]].load()(program, None, words[1])
            chosen.get_parser(words[1]).parse_args(chosen.arrange(words[2:]))
    return vectors


def raised(call: Callable[[], object]) -> str:
    with pytest.raises(CommandError) as caught:
        call()
    return str(caught.value)


def a_job(name: str, state: str = "precopy", half: str = "running") -> job.Job:
    fake.jobs[:] = [{**answer(state, half), "name": name}]
    seen = job.Job(SOURCE, fake.UUID)
    seen.look()
    return seen


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (abort, job, pause, watch):
        monkeypatch.setattr(module, "_core", fake)


@pytest.mark.parametrize("name", WEIRD)
def test_of_a_job(name: str) -> None:
    word = WEIRD[name]
    assert shell(raised(lambda: pause.refuse(a_job(name), None))) == [["pcmig", "abort", "-c", SOURCE, word]]
    too_late = raised(lambda: abort.refuse(a_job(name, "postcopy", "postcopy")))
    assert shell(too_late) == [["pcmig", "watch", "-c", SOURCE, word]]
    gone = a_job(name)
    gone.figures["memory_remaining_bytes"] = fake.MIB
    end = watch.vanished(gone, None, 99.0)
    assert end is not None and shell(end[1]) == [
        ["virsh", "-c", "DESTURI", "domstate", "--reason", fake.UUID]
    ]


@pytest.mark.parametrize("name", WEIRD)
def test_of_the_journal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    word, entry, book = WEIRD[name], dataclasses.replace(ENTRY, name=name), journal.Journal()
    owner = journal.Owner(1, 1, "boot")
    assert shell(record.held_by(owner, entry)) == [["pcmig", "watch", "-c", SOURCE, word]]
    halves = {SOURCE: "postcopy-failed", DEST: "postcopy-failed"}
    monkeypatch.setattr(
        evidence, "ask", lambda uri, uuid: {**evidence.untold(uri, uuid), "half": halves[uri]}
    )
    assert shell(f"  {status.of_entry(book, entry)['type']}") == [
        ["pcmig", "resume", "-c", SOURCE, word, DEST]
    ]
    # Under another name there, only its UUID means the guest on both.
    renamed = dataclasses.replace(entry, engine={"dest_name": "other"})
    for each, named in ((entry, word), (renamed, fake.UUID)):
        printed = set()
        for halves[SOURCE], halves[DEST] in itertools.product(job.HALVES, repeat=2):
            row = status.of_entry(book, each)
            for typed in (row["type"], *row["otherwise"].values()):
                if typed and ", or " not in typed:  # a choice is no command: pasted, it does nothing
                    printed.add(f"  {typed}")
        for words in shell("\n".join(sorted(printed))):
            assert words[0] == "virsh" or words[words.index("-c") + 2] in (word, named), words
            assert words[0] == "pcmig" or words[-1] == named, words


@pytest.mark.parametrize("name", WEIRD)
def test_of_a_verdict(name: str) -> None:
    plan = options.Plan(
        domain=name,
        source_uri=SOURCE,
        dest_uri=DEST,
        policy="auto",
        policy_given=False,
        params={},
        flag_names=[],
        flags_text="",
        move_definition=False,
        engine={},
        uuid=fake.UUID,
    )
    resume = ["pcmig", "resume", "-c", SOURCE, WEIRD[name], DEST]
    for outcome in ({"outcome": "needs-operator", "phase": "paused"}, {"outcome": "detached"}):
        base: Any = {**fake.STATUS, **outcome, "operator_command": "virsh x", "recovery": None}
        told = run.verdict(plan, base, False)
        first = resume if outcome["outcome"] != "detached" else ["pcmig", "watch", "-c", SOURCE, WEIRD[name]]
        assert shell(told)[0] == first
    done: Any = {**fake.STATUS, "outcome": "completed"}
    assert name in run.verdict(plan, done, False)
    for text in (run.OFF_THERE, run.CRASHED_THERE):  # a guest that does not run is not said to run
        off: Any = {**done, "error": f"the guest has moved, and {text}"}
        told = run.verdict(plan, off, False)
        assert name in told and " runs at " not in told
    silent: Any = {**done, "error": f"moved; {run.SILENT_SOURCE}", "operator_command": "pcmig resume x"}
    assert "may still know it, shut off" in run.verdict(plan, silent, False)


def test_words_of_the_core_that_are_looked_for() -> None:
    told = (pathlib.Path(__file__).parents[3] / "csrc/core/outcome.c").read_text()
    for text in (run.OFF_THERE, run.CRASHED_THERE, run.SILENT_SOURCE):
        assert text in told


@pytest.mark.parametrize("name", WEIRD)
def test_of_the_guard(name: str) -> None:
    """What nova-compute and status tell when something is refused."""
    answer = _core.guard(
        side="source",
        act="destroy",
        source="running",
        destination="absent",
        in_flight=True,
        guest=_core.guest_word(name, fake.UUID),
        source_uri=SOURCE,
        dest_uri=DEST,
    )
    assert shell(f"  {answer['advice']}") == [["pcmig", "abort", "-c", SOURCE, WEIRD[name]]]
