# SPDX-License-Identifier: Apache-2.0
"""Plays one cell: migrate, break, mend, wait, judge."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import statistics
import subprocess
import time
from typing import Any

from tests.bed import BedError
from tests.bed.guest import lost_writes
from tests.faults.faults import Act, Fault
from tests.faults.judge import (
    RUNS,
    End,
    Evidence,
    Half,
    Kind,
    find_end,
    judge,
    longest_silence_s,
    settled,
    since_boot,
)
from tests.faults.moments import POSTCOPY, PRECOPY, SWITCH, cell_name, delay_s
from tests.faults.stage import PCMIG, Stage

HEAL_PATIENCE_S = 120.0  # from the mending
FOR_EVER_S = 40.0  # from a fault that is never mended: everybody has given up long before
HOPELESS_S = 12.0  # from the command's end, when the guest is not whole
ADVISED_S = 40.0  # likewise, where somebody has typed what was printed
GONE_S = 3.0
BOOT_PATIENCE_S = 60.0  # for a guest that began anew, on a machine that does other work
LOOK_S = 0.5
ASK_S = 1.0  # from the mending, where the switch is still to be asked for
ASK_AGAIN_S = 3.0
HURRY_S = 3.0  # from the strike of what is over at once: until then it meets post-copy as slow as ever
SWITCH_PATIENCE_S = 30.0
FIRST_LATENCY_S = 0.15  # from asking for the switch to the switch, until it has been seen
SAID_CHARS = 2000
ROOT = pathlib.Path(__file__).parents[2]
SOURCES = ("csrc", "pcmig", "setup.py")


class Runner:
    """Knows from cell to cell how long a switch takes from being asked for."""

    def __init__(self, stage: Stage, bed: str, stack: str) -> None:
        self.stage = stage
        self.commit = code_of(stage.driver)
        self.bed = bed
        self.stack = stack
        self._latencies_s: list[float] = []

    def play(self, fault: Fault, moment: str, seed: int) -> dict[str, Any]:
        """The record of one cell. Where the fault could not even strike, it has an "error" and no verdict."""
        row: dict[str, Any] = {
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": self.commit,
            "bed": self.bed,
            "driver": self.stage.driver,
            "stack": self.stack,
            "cell": cell_name(fault.name, moment),
            "fault": fault.name,
            "moment": moment,
            "seed": seed,
            "delay_s": delay_s(cell_name(fault.name, moment), seed),
        }
        try:
            row |= self._play(fault, moment, row["delay_s"])
        except (BedError, AssertionError) as error:
            row |= {"good": None, "error": str(error)}
        finally:
            with contextlib.suppress(BedError):  # the next cell begins with it, and tells
                self.stage.restore()
        return row

    def _play(self, fault: Fault, moment: str, chance_s: float) -> dict[str, Any]:
        stage = self.stage
        stage.prepare(fault.tunnel, fault.disk)
        stage.wire.set(fault.sysctls)
        # The file has what guests before this one said as well.
        errors_before = next((beat.bad for beat in reversed(stage.guest.heartbeats())), 0)
        start_s = time.monotonic()
        said_chars = len(stage.guest.said())
        stage.start()
        act = fault.arm(stage)
        strike_s = self._strike(act, moment, chance_s)
        mended_s = None
        if fault.lasts_s is not None:
            time.sleep(max(0.0, strike_s + fault.lasts_s - time.monotonic()))
            act.mend()
            mended_s = time.monotonic()
        settled_s = self._settle(strike_s, mended_s)
        end_s = time.monotonic()
        evidence = self._evidence(start_s, errors_before, said_chars, fault.boots)
        switched_s = stage.switched_s(start_s)
        offset_s = None if switched_s is None else strike_s - switched_s
        verdict = judge(evidence, fault.allowed_at(moment, offset_s))
        if verdict.end in (End.TURNED_BACK, End.UNRUN) or not evidence.verified:
            stage.replace_guest()
        problems = [[problem.kind.value, problem.text] for problem in verdict.problems]
        if mended_s is not None and settled_s is None and verdict.end in RUNS and not problems:
            problems.append(
                [Kind.STUCK.value, f"not settled {HEAL_PATIENCE_S:.0f} s after the fault was over"]
            )
        healed_s = None
        if settled_s is not None and verdict.end in RUNS:
            healed_s = max(0.0, settled_s - (strike_s if mended_s is None else mended_s))
        return {
            "good": not problems,
            "end": verdict.end.value,
            "problems": problems,
            "offset_ms": _ms(offset_s),
            "heal_s": None if healed_s is None else round(healed_s, 1),
            "load": round(os.getloadavg()[0], 1),
            "silence_s": round(longest_silence_s(evidence.beats, strike_s, end_s), 2),
            "claim": evidence.claim.value,
            "halves": {name: [half.state, half.qemus] for name, half in evidence.halves.items()},
            "direction": f"{evidence.source}->{evidence.destination}",
            "beats": {
                host.name: sum(b.host == host.name for b in evidence.beats) for host in stage.bed.hosts
            },
            "page_errors": evidence.errors,
            "lost_writes": evidence.lost_writes,
            "said": evidence.said[-SAID_CHARS:],
            **stage.facts(),
            **({"logs": stage.logs()} if problems else {}),
        }

    # The moment

    def _strike(self, act: Act, moment: str, chance_s: float) -> float:
        """Strikes at the moment; returns when."""
        if moment == PRECOPY:
            time.sleep(chance_s)
            return _struck(act)
        asked_s = time.monotonic()
        if moment == SWITCH and chance_s < 0:
            # Nobody can know when the switch will be: as long after the request as it was before.
            latency_s = statistics.median(self._latencies_s) if self._latencies_s else FIRST_LATENCY_S
            self.stage.switch()
            time.sleep(max(0.0, asked_s + latency_s + chance_s - time.monotonic()))
            struck_s = _struck(act)
            self._note_latency(asked_s, 1.0)
            return struck_s
        self.stage.switch()
        switched_s = self._note_latency(asked_s, SWITCH_PATIENCE_S)
        if switched_s is None:
            raise BedError(f"the migration did not switch within {SWITCH_PATIENCE_S:.0f} s")
        time.sleep(max(0.0, switched_s + chance_s - time.monotonic()))
        # Stock Nova may have given it up by then, and libvirt goes on.
        if moment == POSTCOPY and self.stage.over() and settled(*self._halves()):
            raise BedError("post-copy was over before the fault could strike")
        return _struck(act)

    def _note_latency(self, asked_s: float, patience_s: float) -> float | None:
        deadline_s = time.monotonic() + patience_s
        while (switched_s := self.stage.switched_s(asked_s)) is None and time.monotonic() < deadline_s:
            time.sleep(0.002)
        if switched_s is not None:
            self._latencies_s = [*self._latencies_s[-6:], switched_s - asked_s]
        return switched_s

    # The end

    def _settle(self, strike_s: float, mended_s: float | None) -> float | None:
        """Waits until nothing more is to be expected; returns when the guest was whole and the operator's
        side had come to its end."""
        deadline_s = mended_s + HEAL_PATIENCE_S if mended_s is not None else strike_s + FOR_EVER_S
        over_s = asked_s = None
        advised = hurried = ended = False
        while (now_s := time.monotonic()) < deadline_s:
            if not hurried and mended_s is not None and now_s > strike_s + HURRY_S:
                # The fault is over, and the memory has left: nobody learns more by waiting for the rest.
                hurried = self.stage.switched_s(0.0) is not None
                if hurried:
                    self.stage.hurry()
            over_s = (over_s or now_s) if self.stage.over() else None
            pair = self._halves()
            end = find_end(*pair)
            if over_s is not None:
                if settled(*pair):
                    return now_s
                if not advised and end in (End.SOURCE_HALF, End.PAUSED) and self.stage.follow_advice():
                    advised = True
                    over_s = None
                    continue
                if now_s > over_s + (GONE_S if end is End.GONE else ADVISED_S if advised else HOPELESS_S):
                    return None
            elif mended_s is not None and end is End.SPLIT and not ended:
                ended = self.stage.end_what_hangs()
            elif (
                mended_s is not None
                and end is End.STAYED
                and self.stage.switched_s(0.0) is None
                and now_s > (mended_s + ASK_S if asked_s is None else asked_s + ASK_AGAIN_S)
            ):
                # It survived the fault in pre-copy, where the migration stays until it is told to switch.
                self.stage.switch()
                asked_s = now_s
            time.sleep(LOOK_S)
        return None

    def _halves(self) -> tuple[Half, Half]:
        halves = self.stage.halves()
        return halves[self.stage.source.name], halves[self.stage.destination.name]

    def _evidence(self, start_s: float, errors_before: int, said_chars: int, boots: bool) -> Evidence:
        """ERRORS_BEFORE, SAID_CHARS: bad pages and words of the guest before the start. BOOTS: it began anew
        since."""
        stage = self.stage
        halves = stage.halves()
        end = find_end(halves[stage.source.name], halves[stage.destination.name])
        if boots and end in RUNS:
            with contextlib.suppress(BedError):  # then it does not verify anything
                stage.guest.wait_heartbeats(1, patience_s=BOOT_PATIENCE_S)
        verified = end in RUNS and stage.guest.wait_verified(time.monotonic())
        claim, contradictions, said = stage.claim()
        beats = stage.guest.heartbeats(start_s)
        if boots:
            beats, errors_before = since_boot(beats), 0
        return Evidence(
            stage.source.name,
            stage.destination.name,
            halves,
            beats,
            max((beat.bad for beat in beats), default=errors_before) - errors_before,
            verified,
            claim,
            contradictions,
            said,
            lost_writes(stage.guest.said()[said_chars:]),
        )


def code_of(driver: str) -> str:
    """What was put to the test: of pcmig the last commit that changed it ("" outside of a repository); of the
    control the stack tells."""
    if driver != PCMIG:
        return driver
    changed = _git("status", "--porcelain", "--", *SOURCES)
    return _git("log", "-1", "--format=%h", "--", *SOURCES) + ("-dirty" if changed else "")


def _git(*words: str) -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
        return done.stdout.strip()
    return ""


def _struck(act: Act) -> float:
    struck_s = time.monotonic()
    act.strike()
    return struck_s


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
