# SPDX-License-Identifier: Apache-2.0
"""What became of a guest, by the word of both hosts, of the guest, and of what operators see."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import re
from collections.abc import Collection, Mapping, Sequence

from tests.bed.verdict import Heartbeat

# How late the last words from the source may be.
LATE_S = 0.5
LATE_BEATS = 50


class End(enum.Enum):
    """Where the guest is in the end; the value is the table's word for it."""

    MOVED = "moved"  # it runs at the destination, whole, and nowhere else
    STAYED = "stayed"  # the same at the source
    TURNED_BACK = "turned back"  # it had left, and goes on at the source from the moment of the switch
    UNRUN = (
        "turned back, nothing lost"  # so it did, by itself, as no instruction of it ran where it was to go
    )
    SPLIT = "kept in halves"  # post-copy is broken or hangs, and both halves are there
    SOURCE_HALF = "source half kept"  # the destination's QEMU is gone, the source's waits
    DESTINATION_HALF = "destination half kept"
    UNHEARD = (
        "turned back, never heard where it was to go"  # of a fault's allowed ends only: TURNED_BACK, on that
    )
    CRASHED = "crashed, and kept"  # by itself, on one host, as its definition wants it
    PAUSED = "paused"  # whole, on one host, and nobody lets it run
    DOUBLE = "runs twice"
    GONE = "gone"


WHOLE = frozenset({End.MOVED, End.STAYED})
RUNS = WHOLE | {End.TURNED_BACK, End.UNRUN}
NOTHING_RAN = "no instruction of it ran at the destination"
HALVES = frozenset({End.SPLIT, End.SOURCE_HALF, End.DESTINATION_HALF})


class Claim(enum.Enum):
    """What the operator is told: exit status and words of the command, or Nova's record."""

    MOVED = "moved"
    STAYED = "stayed"
    PAUSED = "paused, but whole"
    OFF = "off, by its own will"
    FAILED = "failed"  # and not a word about where the guest is
    OPERATOR = "needs an operator"
    RECOVERING = "recovering"  # it says that post-copy is interrupted, and goes on
    SILENT = "no end and no word"
    TURNED_BACK = "turned back"
    WRONG = "told wrong"  # it cannot be true, or says something else in each place


# What may be said of each end. "failed" alone sends the operator to look, so it is right wherever the guest
# does not run at the destination.
TRUE_CLAIMS: Mapping[End, frozenset[Claim]] = {
    End.MOVED: frozenset({Claim.MOVED}),
    End.STAYED: frozenset({Claim.STAYED, Claim.FAILED}),
    End.TURNED_BACK: frozenset({Claim.TURNED_BACK, Claim.OPERATOR}),
    End.UNRUN: frozenset({Claim.STAYED, Claim.TURNED_BACK}),
    End.CRASHED: frozenset({Claim.MOVED, Claim.OPERATOR, Claim.FAILED}),
    End.SPLIT: frozenset({Claim.OPERATOR, Claim.RECOVERING, Claim.FAILED}),
    End.SOURCE_HALF: frozenset({Claim.OPERATOR, Claim.FAILED}),
    End.DESTINATION_HALF: frozenset({Claim.OPERATOR, Claim.FAILED}),
    End.PAUSED: frozenset({Claim.PAUSED, Claim.OPERATOR, Claim.FAILED}),
    End.DOUBLE: frozenset(),
    End.GONE: frozenset({Claim.OPERATOR, Claim.FAILED, Claim.OFF}),
}


@dataclasses.dataclass(frozen=True)
class Half:
    """One host's view.

    state: `virsh domstate --reason`; "" where the host does not know the guest, None where it does not answer
    qemus: how many QEMU processes of the guest are there
    """

    state: str | None
    qemus: int

    @property
    def runs(self) -> bool:
        """With all of its memory."""
        return (self.state or "").startswith("running") and "post-copy" not in (self.state or "")

    @property
    def turned_back(self) -> bool:
        """Of a source: libvirt knows of no other way in which a half that serves post-copy could run."""
        return (self.state or "").startswith("running (post-copy")

    @property
    def crashed(self) -> bool:
        return (self.state or "").startswith("crashed")

    @property
    def whole_but_paused(self) -> bool:
        return bool(re.match(r"paused \((?!migrating|post-copy|starting)", self.state or ""))


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a cell's verdict is made of.

    beats:    heartbeats since the start
    errors:   pages found bad since the start
    lost_writes: all of them have the shape of what QEMU 11 does by itself under emulation
        (doc/operate/check.rst)
    verified: every page was verified after the end
    contradictions: in what the operator is told, each with its value
    """

    source: str
    destination: str
    halves: Mapping[str, Half]
    beats: Sequence[Heartbeat]
    errors: int
    verified: bool
    claim: Claim
    contradictions: tuple[str, ...] = ()
    said: str = ""
    lost_writes: bool = False


class Kind(enum.Enum):
    """Of a problem; the value is the summary's word for it."""

    LOST = "guests lost"
    DOUBLE = "double runs"
    MEMORY = "memory wrong"
    TOLD = "wrong records"
    STUCK = "left to be healed by hand"


@dataclasses.dataclass(frozen=True)
class Problem:
    kind: Kind
    text: str


@dataclasses.dataclass(frozen=True)
class Judgment:
    end: End
    problems: tuple[Problem, ...]


def find_end(source: Half, destination: Half) -> End:
    if (source.runs or source.turned_back) and destination.runs:
        return End.DOUBLE
    if source.turned_back:
        return End.DOUBLE if destination.qemus else End.TURNED_BACK
    if destination.runs:
        return End.MOVED
    if source.runs:
        return End.STAYED
    if (source.crashed and source.qemus) or (destination.crashed and destination.qemus):
        return End.CRASHED
    if source.qemus and destination.qemus:
        return End.SPLIT
    if source.qemus:
        return End.PAUSED if source.whole_but_paused else End.SOURCE_HALF
    if destination.qemus:
        return End.PAUSED if destination.whole_but_paused else End.DESTINATION_HALF
    return End.GONE


def settled(source: Half, destination: Half) -> bool:
    """The guest runs on one host, and the other has nothing of it."""
    end = find_end(source, destination)
    other = source if end is End.MOVED else destination
    return end in RUNS and not other.qemus and not other.state


def judge(evidence: Evidence, allowed: Collection[End]) -> Judgment:
    """ALLOWED: the ends that are as good as can be after this fault."""
    end = find_end(evidence.halves[evidence.source], evidence.halves[evidence.destination])
    # A libvirtd that ended meanwhile has forgotten the migration, and calls it "running (unpaused)".
    if end is End.STAYED and evidence.claim is Claim.TURNED_BACK:
        end = End.TURNED_BACK
    if end is End.TURNED_BACK and _nothing_ran(evidence):
        end = End.UNRUN
        as_good = {End.STAYED, End.TURNED_BACK, End.UNHEARD}
        allowed = {*allowed, *({End.UNRUN} if as_good & set(allowed) else ())}
    fits = {end, End.UNHEARD} if end is End.TURNED_BACK and _unheard(evidence) else {end}
    problems: list[Problem] = []
    if not fits & set(allowed):
        kind = {End.DOUBLE: Kind.DOUBLE, End.SPLIT: Kind.STUCK, End.PAUSED: Kind.STUCK}.get(end, Kind.LOST)
        if End.UNHEARD in fits:
            kind = Kind.STUCK  # it runs, and nothing that anybody heard of is undone: it took a hand
        best = " or ".join(sorted(each.value for each in allowed))
        problems.append(Problem(kind, f"{end.value} ({_states(evidence)}) where {best} was possible"))
    # What the guest did at the destination is undone by turning back, and done once more: its count too.
    twice = overlap if end is End.TURNED_BACK else double_runs
    problems += [Problem(Kind.DOUBLE, text) for text in twice(evidence.beats, evidence.source)]
    if evidence.errors:
        text = f"{evidence.errors} pages do not hold what the guest wrote"
        if evidence.lost_writes:
            text += ", each one write behind, as emulation with QEMU 11 leaves them by itself"
        problems.append(Problem(Kind.MEMORY, text))
    if end in RUNS:
        problems += _not_quite_whole(evidence, end)
    true = TRUE_CLAIMS[end]
    if end is End.SOURCE_HALF and evidence.halves[evidence.destination].state is None:
        true |= {Claim.RECOVERING}  # whether a host that does not answer has lost its half, nobody can tell
    if evidence.claim not in true:
        problems.append(Problem(Kind.TOLD, f"{end.value}, and the operator is told: {evidence.claim.value}"))
    problems += [Problem(Kind.TOLD, text) for text in evidence.contradictions]
    if end not in RUNS and re.search(r"^done: .* runs at ", evidence.said, re.MULTILINE):
        problems.append(Problem(Kind.TOLD, f"{end.value}, and the operator is told that it runs"))
    if "Traceback" in evidence.said:
        problems.append(Problem(Kind.TOLD, "a traceback was printed"))
    return Judgment(end, tuple(problems))


def double_runs(beats: Sequence[Heartbeat], source: str) -> list[str]:
    """Signs of two copies in the guest's own count of its heartbeats: a number told twice, or by a host that
    it had left. Arrival says nothing: the source's last ones may come after the destination's first ones."""
    problems = []
    hosts: dict[int, str] = {}
    for beat in beats:
        if beat.sequence in hosts:
            both = "both hosts" if hosts[beat.sequence] != beat.host else f"host {beat.host} twice"
            problems.append(f"heartbeat {beat.sequence} came from {both}")
            break
        hosts[beat.sequence] = beat.host
    ordered = [hosts[sequence] for sequence in sorted(hosts)]
    changes = sum(a != b for a, b in itertools.pairwise(ordered))
    if ordered and (changes > 1 or (changes == 1 and ordered[0] != source)):
        problems.append(f"the guest changed hosts {changes} times, from {ordered[0]} first")
    return problems


def overlap(beats: Sequence[Heartbeat], source: str) -> list[str]:
    """Signs of two copies of a guest that left SOURCE and turned back: it was heard from there while the
    destination still had words of it. Its last words before the switch may be a little late."""
    there = [beat.time_s for beat in beats if beat.host != source]
    if not there:
        return []
    left = max((beat.sequence for beat in beats if beat.host == source and beat.time_s < there[0]), default=0)
    early = [
        beat
        for beat in beats
        if beat.host == source and there[0] + LATE_S < beat.time_s < there[-1] and beat.sequence > left
    ]
    if not early:
        return []
    return [f"heartbeat {early[0].sequence} came from host {source} before the last one of the other"]


def since_boot(beats: Sequence[Heartbeat]) -> list[Heartbeat]:
    """The beats since the guest began to count anew."""
    first = 0
    for index, (before, after) in enumerate(itertools.pairwise(beats), 1):
        # One that had just booted before may not have counted far.
        if after.sequence == 0 or after.sequence < before.sequence - LATE_BEATS:
            first = index
    return list(beats[first:])


def longest_silence_s(beats: Sequence[Heartbeat], start_s: float, end_s: float) -> float:
    """In the time from START_S to END_S."""
    times = [start_s, *(beat.time_s for beat in beats if start_s < beat.time_s < end_s), end_s]
    return max(b - a for a, b in itertools.pairwise(times))


def _nothing_ran(evidence: Evidence) -> bool:
    """By the guest's word and that of whoever steered: one that turned back is then as good as one that
    stayed."""
    return NOTHING_RAN in evidence.said and _unheard(evidence)


def _unheard(evidence: Evidence) -> bool:
    """The guest had no word from the destination. Nothing that it did is then undone, though pcmig may not be
    able to prove it."""
    return all(beat.host != evidence.destination for beat in evidence.beats)


def _not_quite_whole(evidence: Evidence, end: End) -> list[Problem]:
    here, there = evidence.destination, evidence.source
    if end in (End.STAYED, End.TURNED_BACK, End.UNRUN):
        here, there = there, here
    problems = []
    left = evidence.halves[there]
    if left.qemus or left.state:
        text = f"host {there} still has {left.qemus} QEMU of it ({left.state or 'unknown to libvirt'})"
        problems.append(Problem(Kind.STUCK, text))
    if not evidence.verified:
        problems.append(Problem(Kind.STUCK, "the guest does not verify its memory any more"))
    if evidence.beats and evidence.beats[-1].host != here:
        text = f"the last heartbeat came from host {evidence.beats[-1].host}, not {here}"
        problems.append(Problem(Kind.DOUBLE, text))
    return problems


def _states(evidence: Evidence) -> str:
    return ", ".join(f"{name}: {half.state or 'none'}" for name, half in sorted(evidence.halves.items()))
