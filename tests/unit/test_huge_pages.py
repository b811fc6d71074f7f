# SPDX-License-Identifier: Apache-2.0
"""Huge pages of a guest: what is read of them, and what is said where nothing can be."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import uuid
from typing import Any

import pytest

from pcmig import huge_pages
from pcmig.huge_pages import AT_S, HugePages, Seen, unknown
from tests.unit.patience import wait_for

UUID = "aaaaaaaa-0000-4000-8000-000000000001"
MIB = 1 << 20
ROLLUP = """55d0-7ffd ---p 00000000 00:00 0    [rollup]
Rss:              200000 kB
AnonHugePages:    184320 kB
ShmemPmdMapped:     2048 kB
FilePmdMapped:      4096 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
"""


def process(
    proc: pathlib.Path, pid: int, started: int, rollup: str | None = ROLLUP, guest: str = UUID
) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    words = ["qemu-system-x86_64", "-name", "guest=g1", "-uuid", guest]
    (folder / "cmdline").write_text("\0".join(words) + "\0")
    (folder / "stat").write_text(f"{pid} (qemu (x) y) S " + " ".join(["0"] * 18) + f" {started} 0 0")
    if rollup is not None:
        (folder / "smaps_rollup").write_text(rollup)


def test_what_the_kernel_tells() -> None:
    assert huge_pages.parse(ROLLUP) == Seen(182 * MIB, None, False)
    assert huge_pages.parse(ROLLUP.replace("Private_Hugetlb:       0", "Private_Hugetlb:    2048")).hugetlbfs
    assert huge_pages.parse("Rss: 4 kB\n") == unknown("this kernel does not tell")


def test_which_half_is_which(tmp_path: pathlib.Path) -> None:
    """Where two hosts are one machine, the half that the guest leaves is the older."""
    process(tmp_path, 70, 900)
    process(tmp_path, 80, 500, ROLLUP.replace("184320", "0").replace("2048", "0"))
    process(tmp_path, 90, 950, guest=UUID.replace("1", "2"))
    assert huge_pages.processes(UUID, str(tmp_path)) == [80, 70]
    assert huge_pages.at_source(UUID, str(tmp_path)).bytes == 0
    assert huge_pages.at_destination(UUID, str(tmp_path)).bytes == 182 * MIB
    assert huge_pages.at_destination(UUID, str(tmp_path), other_than=70).bytes == 0


def test_what_cannot_be_read_is_not_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert huge_pages.at_source(UUID, str(tmp_path)) == unknown(huge_pages.NOT_HERE)
    process(tmp_path, 70, 900, rollup=None)
    said = huge_pages.at_destination(UUID, str(tmp_path))
    assert said.bytes is None and said.why == "QEMU's process cannot be read: No such file or directory"

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert huge_pages.of_process(70, str(tmp_path)) == unknown(huge_pages.DENIED)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ([4096, None, False], Seen(4096, None)),
        ((0, None, True), Seen(0, None, True)),
        ([None, "why", False], unknown("why")),
        ([-1, "why", False], unknown("why")),
        ([True, None, False], unknown("None")),
        (None, unknown("its answer makes no sense")),
        ({"bytes": 1}, unknown("its answer makes no sense")),
    ],
)
def test_another_hosts_word(answer: Any, seen: Seen) -> None:
    assert huge_pages.understand(answer) == seen


def test_of_a_real_process(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own memory, as another process reads it."""
    own = str(uuid.uuid4())  # other tests look for UUID among all processes
    child = subprocess.Popen([sys.executable, "-c", "input()", "-uuid", own], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: huge_pages.processes(own), "the process is there")
        done = subprocess.run(
            [sys.executable, "-m", "pcmig.huge_pages", "destination", own],
            capture_output=True,
            text=True,
            check=True,
        )
        size, why, hugetlbfs = json.loads(done.stdout)
        assert os.path.exists("/proc/self/smaps_rollup") and why is None
        assert size >= 0 and hugetlbfs is False
    finally:
        child.communicate(b"\n")
    assert huge_pages.main([]) == huge_pages.main(["middle", UUID]) == 2
    assert huge_pages.main(["destination", "g1"]) == 2
    assert "'g1' is no UUID of a guest; virsh domuuid GUEST prints it" in capsys.readouterr().err


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds
        return False


def watched(before: Seen, after: list[Seen], clock: Clock) -> HugePages:
    found = HugePages(lambda: before, lambda: after.pop(0), "nobody looked", lambda: clock.now_s)
    found.begin()
    wait_for(lambda: found.document()["before_why"] != "nobody has looked before the migration", "a look")
    return found


def test_a_guest_that_gets_them_back() -> None:
    clock = Clock()
    seen = [Seen(0, None), Seen(24 * MIB, None), unknown("it is away")]
    found = watched(Seen(180 * MIB, None), seen, clock)
    found.ended()
    told: list[dict[str, Any]] = []
    found.follow(told.append, clock.wait)
    assert [each["readings"][0]["bytes"] for each in told] == [0, 0, 0]
    assert told[0]["readings"][1] == {"at_s": 10, "t_ms": None, "bytes": None, "why": "nobody looked"}
    assert [(each["t_ms"], each["bytes"]) for each in told[-1]["readings"]] == [
        (0, 0),
        (10_000, 24 * MIB),
        (30_000, None),
    ]
    assert huge_pages.words(told[-1]) == (
        "in huge pages: 180 MiB before, at the source; at the destination 0 B at the end, "
        "24.0 MiB 10 s after the end, not known 30 s after the end"
    )
    assert len(AT_S) == len(told)


def test_whoever_leaves_before_the_last_look() -> None:
    clock = Clock()
    found = watched(unknown("x"), [Seen(0, None), Seen(0, None)], clock)
    found.ended()
    told: list[dict[str, Any]] = []
    found.follow(told.append, lambda seconds: seconds > 0)
    assert len(told) == 1 and found.document()["readings"][1]["why"] == "nobody looked"
    assert str(huge_pages.words(told[0])).startswith(
        "in huge pages: not known how much before, at the source;"
    )


def test_nothing_known_is_never_none_at_all() -> None:
    def fail() -> Seen:
        raise OSError("the bus is down")

    found = HugePages(fail, fail, "nobody looked")
    found.ended()
    found.look()
    part = found.document()
    assert part["what"] == "unknown" and part["why"] == "OSError: the bus is down"
    assert {reading["bytes"] for reading in part["readings"]} == {None}
    assert huge_pages.words(part) == "huge pages at the destination: not known: OSError: the bus is down"
    assert huge_pages.words(None) is None


def test_what_the_source_had_before_one_that_is_adopted_is_not_known() -> None:
    """A look in the middle of post-copy is none of before."""
    looks: list[Seen] = []
    found = HugePages(lambda: looks.pop(), lambda: Seen(0, None), "nobody looked", adopted=True)
    found.begin()  # on no thread: there is nothing to look at
    part = found.document()
    assert part["before_bytes"] is None and part["before_why"] == huge_pages.ADOPTED


def test_a_guest_with_some_memory_in_hugetlbfs_keeps_its_figures() -> None:
    clock = Clock()
    found = watched(Seen(180 * MIB, None, True), [Seen(0, None, True), *[Seen(MIB, None, True)] * 2], clock)
    found.ended()
    told: list[dict[str, Any]] = []
    found.follow(told.append, clock.wait)
    assert len(told) == len(AT_S) and {each["what"] for each in told} == {"read"}


@pytest.mark.parametrize("side", ["before", "after"])
def test_hugetlbfs_is_another_matter(side: str) -> None:
    clock = Clock()
    other, plain = Seen(0, None, True), Seen(0, None)
    found = watched(other if side == "before" else plain, [plain if side == "before" else other] * 3, clock)
    found.ended()
    told: list[dict[str, Any]] = []
    found.follow(told.append, clock.wait)
    assert len(told) == 1, "there is nothing to wait for"
    assert told[0]["what"] == "hugetlbfs"
    assert huge_pages.words(told[0]) == f"huge pages: {huge_pages.HUGETLBFS}"
