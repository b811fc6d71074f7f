# SPDX-License-Identifier: Apache-2.0
"""The guard as Python sees it. Every combination is gone through in tests/c/test_halves.c."""

from __future__ import annotations

import ast
import itertools
import pathlib
import socket
import threading
import time
from typing import Any

import pytest

from pcmig import _core
from tests.unit.patience import wait_for

TEST = "test:///default"  # libvirt's own test driver: a guest named "test" that runs
UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
NOBODY = "00000000-0000-0000-0000-000000000001"

HALVES = ("unknown", "absent", "running", "paused", "migrating", "postcopy", "postcopy-failed", "dead")
SIDES = ("source", "destination")
RESUME = "pcmig resume -c 'qemu+tcp://a/system' 'g1' 'qemu+tcp://b/system'"


def guard(side: Any, act: Any, source: Any, destination: Any, **more: Any) -> _core.Permission:
    return _core.guard(side=side, act=act, source=source, destination=destination, **more)


def test_an_interrupted_post_copy_is_resumed_and_not_touched() -> None:
    names = {"guest": "g1", "source_uri": "qemu+tcp://a/system", "dest_uri": "qemu+tcp://b/system"}
    halves = ("postcopy-failed", "postcopy-failed")
    refused = guard("destination", "destroy", *halves, in_flight=True, **names)
    assert refused == {
        "allowed": False,
        "reason": "post-copy was interrupted: the guest waits, and each host has memory that the other "
        "lacks; destroying the half at the destination may lose memory that nobody else has",
        "advice": RESUME,
        "rest": "virsh -c 'qemu+tcp://a/system' destroy 'g1'; virsh -c 'qemu+tcp://b/system' destroy 'g1'",
        "situation": "interrupted",
        "memory": "both",
    }
    resume = guard("source", "migrate-resume", *halves, **names)
    assert (resume["allowed"], resume["advice"]) == (True, None)
    deleted = guard("source", "destroy", *halves, insist=True, **names)
    assert deleted["allowed"] and deleted["advice"] == "virsh -c 'qemu+tcp://b/system' destroy 'g1'"


def test_no_second_copy_after_a_migration_that_nobody_recorded() -> None:
    for act in ("start", "resume", "reboot"):
        assert not guard("source", act, "absent", "running")["allowed"]
        assert not guard("source", act, "absent", "running", in_flight=True)["allowed"]
        assert not guard("source", act, "absent", "unknown", in_flight=True)["allowed"]
        assert not guard("source", act, "absent", "unknown", source_handed_off=True)["allowed"]
        assert guard("source", act, "absent", "unknown")["allowed"]
        assert guard("destination", act, "absent", "running", in_flight=True)["allowed"]


@pytest.mark.parametrize(
    ("job_active", "situation", "allowed"),
    [(True, "precopy", False), (None, "precopy", False), (False, "leftover", True)],
)
def test_a_job_that_nobody_asked_about_may_run(job_active: Any, situation: str, allowed: bool) -> None:
    answer = guard("destination", "rollback", "running", "migrating", in_flight=True, job_active=job_active)
    assert (answer["situation"], answer["allowed"]) == (situation, allowed)


@pytest.mark.parametrize(
    ("crossed", "situation", "allowed"), [(False, "at-source", True), (True, "half-lost", False)]
)
def test_a_source_that_stands_still_is_old_once_the_guest_may_have_crossed(
    crossed: bool, situation: str, allowed: bool
) -> None:
    answer = guard("source", "resume", "paused", "absent", in_flight=True, job_active=False, crossed=crossed)
    assert (answer["situation"], answer["allowed"]) == (situation, allowed)


def test_memory() -> None:
    assert _core.memory_where() == "unknown"
    assert _core.memory_where(source="running", destination="migrating", job_active=True) == "source"
    assert _core.memory_where(source="postcopy", destination="postcopy") == "both"
    assert _core.memory_where(source="absent", destination="postcopy-failed", in_flight=True) == "nowhere"
    assert _core.memory_where(source="absent", destination="running", in_flight=True) == "destination"
    assert (
        _core.memory_where(source="absent", destination="unknown", in_flight=True, call_succeeded=True)
        == "destination"
    )


def test_situations_are_what_guard_answers_by() -> None:
    rows = {row["name"]: row for row in _core.situations()}
    acts = {act for row in rows.values() for side in SIDES for act in row[side]}  # type: ignore[literal-required]
    assert len(acts) == 12, "an act that no situation permits"
    seen = set()
    for source, destination, in_flight, moved, off, job, side, act in itertools.product(
        HALVES, HALVES, *[(False, True)] * 3, (None, False, True), SIDES, sorted(acts)
    ):
        answer = guard(
            side,
            act,
            source,
            destination,
            in_flight=in_flight,
            call_succeeded=moved,
            job_active=job,
            destination_shut_down=off and destination == "absent",
        )
        row: Any = rows[answer["situation"]]
        seen.add(answer["situation"])
        nothing = act == "destroy" and (source if side == "source" else destination) == "absent"
        if act == "turn-back":  # it takes particular halves, too
            assert not answer["allowed"] or act in row[side]
        elif (answer["situation"], side, act) == ("arrived", "source", "destroy"):
            assert act in row[side] and answer["allowed"] == nothing, "the engine alone hears QEMU's word"
        else:
            assert answer["allowed"] == (act in row[side] or nothing)
        assert answer["memory"] == row["memory"] and answer["reason"].startswith(row["text"])
        if "turn-back" not in (answer["advice"] or ""):
            assert answer["advice"] == (None if answer["allowed"] else row["advice"])
        else:
            assert answer["situation"] in ("half-lost", "cut-off"), "of one half alone"
    assert seen | {"turned-back"} == set(rows)


DEAD_ENDS = ("gone", "ended", "half-lost", "silent", "unseen", "double", "in-doubt", "cut-off")


def test_every_refusal_names_a_command_first() -> None:
    for row in _core.situations():
        assert row["advice"].split(" ", 1)[0] in ("pcmig", "virsh"), row
        if row["name"] in DEAD_ENDS:
            assert "domstate" not in row["advice"] and "dominfo" not in row["advice"], row
    words = {row["name"]: row["advice"].split()[1] for row in _core.situations()}
    assert words["half-lost"] == words["gone"] == words["in-doubt"] == "forget"


@pytest.mark.parametrize(
    ("halves", "more", "calm", "insisting"),
    [
        (("absent", "absent"), {}, True, True),
        (("absent", "absent"), {"disks_copied": True}, False, True),
        (("absent", "postcopy-failed"), {}, False, True),
        (("postcopy-failed", "absent"), {"destination_shut_down": True}, True, True),
        (("unknown", "running"), {}, False, True),
        (("running", "migrating"), {"job_active": True}, False, False),
        (("postcopy", "postcopy"), {}, False, False),
    ],
)
def test_forgetting(halves: tuple[str, str], more: dict[str, Any], calm: bool, insisting: bool) -> None:
    for insist, allowed in ((False, calm), (True, insisting)):
        answer = guard("source", "forget", *halves, in_flight=True, insist=insist, **more)
        assert answer["allowed"] == allowed, answer


def stub_names(name: str) -> list[str]:
    """The values of a Literal in _core.pyi."""
    stub = ast.parse((pathlib.Path(_core.__file__ or "").parent / "_core.pyi").read_text())
    values = [
        node.value.slice
        for node in stub.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Subscript)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == name
    ]
    return list(ast.literal_eval(values[0]))


@pytest.mark.parametrize(
    ("argument", "literal"), [("source", "_HalfName"), ("side", "_Side"), ("act", "_Act")]
)
def test_the_stub_has_every_name(argument: str, literal: str) -> None:
    known: dict[str, Any] = {"side": "source", "act": "start", argument: "?"}
    with pytest.raises(ValueError) as caught:
        _core.guard(**known)
    assert str(caught.value).partition(" is none of ")[2].split(", ") == stub_names(literal)


def test_the_stub_has_every_memory() -> None:
    assert {row["memory"] for row in _core.situations()} == set(stub_names("_Memory"))


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"side": "left"}, ValueError, 'side: "left" is none of source, destination'),
        ({"act": "reset"}, ValueError, 'act: "reset" is none of start, resume, reboot, '),
        ({"source": "gone"}, ValueError, 'source: "gone" is none of unknown, absent, '),
        ({"destination": ""}, ValueError, 'destination: "" is none of unknown, absent, '),
        ({"side": None}, TypeError, "str"),
        ({"more": 1}, TypeError, "more"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        _core.guard(**{"side": "source", "act": "start", **wrong})


@pytest.mark.parametrize("missing", ["side", "act"])
def test_side_and_act_are_needed(missing: str) -> None:
    arguments: dict[str, Any] = {"side": "source", "act": "start"}
    del arguments[missing]
    with pytest.raises(TypeError, match=f"missing the keyword argument '{missing}'"):
        _core.guard(**arguments)


def test_long_names_are_not_cut() -> None:
    answer = guard(
        "source", "start", "running", "running", guest="g" * 300, source_uri="a" * 5000, dest_uri="b"
    )
    assert answer["advice"] is not None
    assert answer["advice"].count("g" * 300) == 2 and "a" * 5000 in answer["advice"]


def test_half_of_a_guest() -> None:
    answer = _core.half(TEST, UUID)
    assert answer["half"] == "running"
    assert answer["job_active"] in (None, False)  # the test driver has no migrations
    assert _core.half(TEST, NOBODY) == {
        "half": "absent",
        "job_active": False,
        "shut_down": False,
        "defined": False,
        "runs": False,
        "running": False,
        "id": None,
    }
    assert answer["running"] is True
    assert answer["id"] == 1  # the test driver's first
    assert (answer["shut_down"], answer["defined"]) == (False, True)


@pytest.mark.parametrize(
    ("uri", "uuid", "error", "text"),
    [
        (TEST, "g1", _core.LibvirtError, "cannot ask test:///default about g1: .*UUID"),
        (
            "test:///nonexistent.xml",
            UUID,
            _core.LibvirtError,
            "cannot ask test:///nonexistent.xml about 6695eb01",
        ),
        (
            "qemu+tcp://127.0.0.1:1/system",
            UUID,
            _core.ConnectError,
            "cannot ask qemu.tcp://127.0.0.1:1/system",
        ),
    ],
)
def test_a_host_that_does_not_tell(uri: str, uuid: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        _core.half(uri, uuid)


def test_half_takes_a_time_that_is_one() -> None:
    with pytest.raises(ValueError, match="connect_timeout_ms: 0, expected more than 0"):
        _core.half(TEST, UUID, 0)


def test_half_gives_up_on_a_silent_host_and_holds_nobody_up() -> None:
    """A port that accepts and never answers."""
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.02):
            ticks += 1

    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"qemu+tcp://127.0.0.1:{server.getsockname()[1]}/system"

        def ask() -> int:
            before, begun_s = ticks, time.monotonic()
            with pytest.raises(_core.ConnectError, match=r"no answer from .* within 0\.5 s"):
                _core.half(uri, UUID, connect_timeout_ms=500)
            assert time.monotonic() - begun_s > 0.45
            return ticks - before

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            # A busy machine lets it run late, now and then.
            wait_for(lambda: ask() >= 5, "another thread's turn, without the GIL,")
        finally:
            stop.set()
            thread.join()
