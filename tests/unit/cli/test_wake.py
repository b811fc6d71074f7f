# SPDX-License-Identifier: Apache-2.0
"""`pcmig wake`, on a scripted core."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from pcmig.cli import main, wake
from tests.unit.cli import fake_core as fake
from tests.unit.cli.fake_core import job as answer

POSTCOPY = answer("postcopy", "postcopy")
BROKEN = answer("paused", "postcopy-failed")
DENIED = PermissionError(errno.EPERM, "Operation not permitted")


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(wake, "_core", fake)
    monkeypatch.setattr(wake, "LOOK_S", 0.01)
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    fake.arrivals[:], fake.resets[:] = [{"connections": 2, "silent_ms": 30_000}], [2]
    yield


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main.main(["wake", *words, "g1"])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out + err


@pytest.mark.parametrize("half", [POSTCOPY, BROKEN])
def test_a_silent_stream_is_reset(capsys: pytest.CaptureFixture[str], half: Any) -> None:
    fake.jobs[:] = [half]
    code, text = run(capsys)
    assert code == 0 and "2 silent connections were reset" in text and fake.resets == []


@pytest.mark.parametrize(
    ("half", "arrival", "reset", "text"),
    [
        (answer("none", "migrating"), None, 2, "does not come in by post-copy"),  # in pre-copy
        (answer("none"), None, 2, "its half is running"),
        (POSTCOPY, {"connections": 2, "silent_ms": 400}, 2, "brought something 0.4 s ago"),
        (POSTCOPY, {"connections": 0, "silent_ms": None}, 2, "knows that its stream is gone"),
        (POSTCOPY, ProcessLookupError(errno.ESRCH, "No such process"), 2, "run it on the destination host"),
        (POSTCOPY, PermissionError(errno.EACCES, "Permission denied"), 2, "run it as root"),
        (POSTCOPY, None, DENIED, "CAP_NET_ADMIN"),
    ],
)
def test_what_is_left_alone(
    capsys: pytest.CaptureFixture[str], half: Any, arrival: Any, reset: Any, text: str
) -> None:
    fake.jobs[:], fake.resets[:] = [half], [reset]
    if arrival is not None:
        fake.arrivals[:] = [arrival]
    code, said = run(capsys)
    assert code == 1 and text in said
    assert isinstance(reset, OSError) or fake.resets == [reset]


def test_it_follows_until_all_has_arrived(capsys: pytest.CaptureFixture[str]) -> None:
    fake.jobs[:] = [
        fake.NoDomainError("Domain not found"),
        answer("none", "migrating"),
        answer("none", "migrating"),
        POSTCOPY,
        POSTCOPY,
        fake.ConnectError("refused"),
        answer("none"),
    ]
    fake.arrivals[:] = [{"connections": 2, "silent_ms": 20}, {"connections": 2, "silent_ms": 11_000}]
    code, text = run(capsys, "--follow")
    assert code == 0 and text.count("were reset") == 1 and "nothing comes in any more (running)" in text


def test_how_long_it_may_be_silent(capsys: pytest.CaptureFixture[str]) -> None:
    fake.jobs[:] = [POSTCOPY]
    assert run(capsys, "--silent", "60")[0] == 1 and fake.resets == [2]
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "--silent", "0")
    assert run(capsys, "--silent", "20")[0] == 0 and fake.resets == []
