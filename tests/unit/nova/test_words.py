# SPDX-License-Identifier: Apache-2.0
"""What the server's owner reads: for every situation of a guest and every state of an interruption."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from pcmig import _core
from pcmig.nova import words
from pcmig_api import views

HALVES = ("running", "paused", "migrating", "postcopy", "postcopy-failed", "dead", "absent", "unknown")
ACTS = (
    "start",
    "resume",
    "reboot",
    "shutdown",
    "destroy",
    "undefine",
    "delete-files",
    "rollback",
    "post-migration",
)
HOST = "compute-0042.example.org"
NAMES = {
    "guest": "instance-0000002a",
    "source_uri": "qemu:///system",
    "dest_uri": f"qemu+tls://{HOST}/system",
}
# What only operators are to read.
INNER = re.compile(r"compute-|qemu|libvirt|virsh|pcmig|instance-0|://|/")


def answers() -> list[Any]:
    guard: Any = _core.guard
    return [
        guard(
            side=side,
            act=act,
            source=source,
            destination=destination,
            job_active=job,
            in_flight=in_flight,
            **NAMES,
        )
        for source, destination, act, side, job, in_flight in itertools.product(
            HALVES, HALVES, ACTS, ("source", "destination"), (None, True, False), (True, False)
        )
    ]


def whole(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Z][^\n]*\.", text)) and len(text) <= words.LENGTH


def test_every_refusal_is_short_whole_and_neutral() -> None:
    refused = [answer for answer in answers() if not answer["allowed"]]
    assert len({answer["situation"] for answer in refused}) > 15
    for answer in refused:
        text = words.refusal(answer["situation"])
        assert answer["situation"] in words._REFUSALS, "a row of its own"
        assert whole(text) and not INNER.search(text), (answer["situation"], text)


def test_operators_are_told_what_helps_first() -> None:
    for answer in answers():
        if answer["allowed"]:
            continue
        text = words.for_operators(answer["reason"], answer["advice"])
        # Commands first, the reason last; between them, behind comment signs, there may be an alternative.
        command, why = text.split("  # ")[0], text.rpartition("  # ")[2]
        assert command.split()[0] in ("pcmig", "virsh") and why == answer["reason"]
    assert words.for_operators("why", None) == "why"


def test_a_situation_that_is_not_known_is_one_in_doubt() -> None:
    assert words.refusal("invented") == words.refusal("in-doubt")


STATES = [
    (None, 0, "finding out how it stands"),
    ("waiting", 0, "waiting to be resumed"),
    ("resuming", 1, "resuming, attempt 1"),
    ("waiting", 3, "attempt 3 failed, trying again"),
    ("held", 0, "waiting for an operator"),
    ("held", 2, "waiting for an operator"),
]


@pytest.mark.parametrize(("state", "attempts", "what"), STATES)
@pytest.mark.parametrize("total", [0, 200])
def test_an_interruption(state: str | None, attempts: int, what: str, total: int) -> None:
    recovery = {
        "state": state,
        "attempts": attempts,
        "permille": 435,
        "text": f"attempt {attempts} failed (unable to connect to server at '{HOST}:49152')",
    }
    status = {
        "memory_total_bytes": total,
        "memory_remaining_bytes": 113,
        "recovery": recovery if state else None,
    }
    text = words.interruption(status)
    assert text == f"post-copy interrupted{' at 43 %' if total else ''}, {what}"
    assert not INNER.search(text)
    assert views.in_post_copy(text) and views.in_progress(text)


def test_what_operators_were_told_is_kept_for_the_latest() -> None:
    told = words.Told()
    for number in range(told.MOST + 1):
        told.note(str(number), "why")
    told.note("5", "another")
    assert (told.of("0"), told.of("1"), told.of("5")) == (None, "why", "another")
    told.note("new", "why")
    assert told.of("1") is None
    told.forget("5")
    told.forget("5")
    assert told.of("5") is None
