# SPDX-License-Identifier: Apache-2.0
"""Builds the simulator and puts scenarios through it: a line in, a line out."""

from __future__ import annotations

import fcntl
import os
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent

Scenario = Mapping[str, float | str]
Result = dict[str, float | str]


class SimError(Exception):
    """Something that the user of the simulator should read."""


def build() -> pathlib.Path:
    where = ROOT / "build" / "sim"
    where.mkdir(parents=True, exist_ok=True)
    with open(where / "lock", "w") as lock:  # tests run beside each other
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            ["make", "-s", "-j2", "-C", str(HERE)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if made.returncode != 0:
        raise SimError(f"the simulator does not build:\n{made.stdout}")
    return ROOT / "build" / "sim" / "sim"


def line(scenario: Scenario) -> str:
    """SCENARIO as the program reads it, and as --try takes it."""
    return " ".join(
        f"{name}={value if isinstance(value, str) else format(value, '.10g')}"
        for name, value in scenario.items()
    )


def parse(text: str) -> Result:
    """What the program wrote about one scenario."""
    if text.startswith("error="):
        raise SimError(text.removeprefix("error="))
    found: Result = {}
    for word in text.split():
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = value
    if "outcome" not in found:
        raise SimError(f"the simulator wrote nothing that can be read: {text!r}")
    return found


def _run(lines: Sequence[str], arguments: Sequence[str]) -> list[Result]:
    done = subprocess.run(
        [str(build()), *arguments], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, text=True
    )
    answers = done.stdout.splitlines()
    if done.returncode != 0 or len(answers) != len(lines):
        at = lines[len(answers)] if len(answers) < len(lines) else "after the last one"
        raise SimError(f"the simulator ended with status {done.returncode} at: {at}")
    return [parse(answer) for answer in answers]


def run(scenarios: Sequence[Scenario], *arguments: str, jobs: int | None = None) -> list[Result]:
    """The results of SCENARIOS, in their order."""
    build()
    lines = [line(scenario) for scenario in scenarios]
    jobs = min(jobs or os.cpu_count() or 1, len(lines)) or 1
    # Dealt out like cards: neighbours take about as long as each other.
    with ThreadPoolExecutor(jobs) as pool:
        hands = list(pool.map(lambda i: _run(lines[i::jobs], arguments), range(jobs)))
    return [hands[i % jobs][i // jobs] for i in range(len(lines))]
