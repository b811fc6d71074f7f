# SPDX-License-Identifier: Apache-2.0
"""`pcmig migrate` and `resume` keep the ledger of what they followed to its end."""

from __future__ import annotations

import contextlib
import json
import pathlib
import pwd
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import pytest

from pcmig import huge_pages
from pcmig.cli import huge_pages as cli_huge_pages
from pcmig.cli import run
from pcmig.journal import Journal
from pcmig.ledgers.store import Store
from tests.unit.cli.conftest import MIGRATE, Start
from tests.unit.cli.fake_core import UUID, UUID_ENVIRONMENT
from tests.unit.ledgers.test_document import validate
from tests.unit.patience import PATIENCE_S, wait_for


def test_it_is_kept(start: Start, book: Journal, tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.json"
    code, text = start("quick", *MIGRATE, "--json", str(report)).finish()
    assert code == 0, text
    (kept,), errors = Store(book.folder / "ledgers").all()
    assert errors == []
    found = kept.document
    validate(found)
    assert json.loads(report.read_text())["kept"] == str(kept.path)
    assert found["guest"] == {"name": "g1", "uuid": UUID}
    assert found["by"]["program"] == "pcmig migrate"
    assert found["outcome"] == "completed"
    assert found["words"].startswith("done: g1 runs at qemu+tcp://b/system after 33.7 s")
    assert found["hosts"]["destination"]["libvirt"] == "12.8.0"
    assert [decision["action"] for decision in found["decisions"]] == ["switch"]
    assert found["samples"]["phase"] == ["setup", "precopy", "postcopy"] or found["samples"]["phase"] == [
        "precopy",
        "postcopy",
    ]
    assert found["samples"]["pace_mib"][-1] == 3


@pytest.mark.parametrize(
    ("script", "outcome", "words"),
    [
        ("failed", "failed", "failed after"),
        ("operator", "needs-operator", "g1 needs an operator: post-copy was interrupted"),
    ],
)
def test_other_ends_are_kept_in_the_commands_words(
    start: Start, book: Journal, script: str, outcome: str, words: str
) -> None:
    start(script, *MIGRATE).finish()
    (kept,), _ = Store(book.folder / "ledgers").all()
    validate(kept.document)
    assert kept.document["outcome"] == outcome
    assert kept.document["words"].startswith(words)


def test_none_is_kept_on_request(start: Start, book: Journal) -> None:
    code, _ = start("quick", *MIGRATE, "--keep-ledgers", "0").finish()
    assert code == 0
    assert not (book.folder / "ledgers").exists()


def test_one_that_cannot_be_kept_is_a_note(start: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    running = start("quick", *MIGRATE, env={"PCMIG_LEDGERS_DIR": str(tmp_path / "file")})
    code, text = running.finish()
    assert code == 0
    assert f"pcmig: note: the kept ledgers in {tmp_path / 'file'} cannot be written: File exists" in text


@pytest.mark.parametrize("value", ["0", "-1", "x", "99999"])
def test_days(start: Start, value: str) -> None:
    code, text = start("quick", *MIGRATE, f"--keep-days={value}").finish()
    assert code == 2
    assert f"{value!r} is not a" in text


def test_who_typed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    assert run.user() == "ann"
    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setattr(pwd, "getpwuid", lambda _: (_ for _ in ()).throw(KeyError()))
    assert run.user().isdigit()


@contextlib.contextmanager
def halves() -> Iterator[str]:
    """Both QEMUs of a guest, as far as huge pages go: processes of this machine. Its UUID is its own: other
    tests need none with theirs, on the whole machine."""
    own = str(uuid.uuid4())
    words = [sys.executable, "-c", "input()", "-uuid", own]
    both = []
    try:
        for number in (1, 2):
            both.append(subprocess.Popen(words, stdin=subprocess.PIPE))
            wait_for(lambda number=number: len(huge_pages.processes(own)) == number, "it is there")  # type: ignore[misc]
        yield own
    finally:
        for each in both:
            each.communicate(b"\n")


def test_huge_pages_are_looked_at_for_as_long_as_somebody_waits(start: Start, book: Journal) -> None:
    with halves() as own:
        running = start("arrived", *MIGRATE, "--huge-pages", env={UUID_ENVIRONMENT: own})
        running.read_until("looking at huge pages for 30 s (Ctrl-C leaves)")
        (kept,), _ = Store(book.folder / "ledgers").all()
        assert kept.document["huge_pages"]["readings"][0]["bytes"] is not None, "it is kept before"
        running.send(signal.SIGINT)
        code, text = running.finish()
    assert code == 0, text
    (kept,), _ = Store(book.folder / "ledgers").all()
    validate(kept.document)
    found = kept.document["huge_pages"]
    assert found["what"] == "read" and found["before_bytes"] is not None
    assert [reading["bytes"] is None for reading in found["readings"]] == [False, True, True]
    assert found["readings"][1]["why"] == "left before it was made"
    assert f"pcmig: {huge_pages.words(found)}" not in text and str(huge_pages.words(found)) in text


def test_a_look_at_huge_pages_that_takes_too_long_is_not_taken_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked for it stays all the same, and one that was adopted has no figure of before."""
    go, done = threading.Event(), threading.Event()

    def slow(self: cli_huge_pages.Halves) -> huge_pages.Seen:
        assert go.wait(PATIENCE_S)
        done.set()
        return huge_pages.Seen(4096, None)

    monkeypatch.setattr(cli_huge_pages.Halves, "destination", slow)
    monkeypatch.setattr(cli_huge_pages, "PATIENCE_S", 0.01)
    pages = cli_huge_pages.begin(str(uuid.uuid4()), "qemu:///system", adopted=True)
    assert pages.document()["before_why"] == huge_pages.ADOPTED
    assert cli_huge_pages.look(pages, asked=True)
    found = pages.document()
    go.set()
    assert done.wait(PATIENCE_S)
    assert pages.document() == found and found["why"] == "no answer within 0.01 s"
    assert [reading["why"] for reading in found["readings"]][1:] == [cli_huge_pages.LEFT] * 2
    assert not cli_huge_pages.look(cli_huge_pages.begin(str(uuid.uuid4()), "qemu:///system"), asked=False)


def test_huge_pages_elsewhere_are_not_known(start: Start, book: Journal) -> None:
    code, text = start("arrived", *MIGRATE, "--huge-pages").finish()
    assert code == 0 and "looking at huge pages" not in text
    assert "huge pages at the destination: not known: only the destination's own kernel can tell" in text
    (kept,), _ = Store(book.folder / "ledgers").all()
    validate(kept.document)
    assert kept.document["huge_pages"]["readings"][2]["why"] == cli_huge_pages.IN_VAIN
    assert {reading["bytes"] for reading in kept.document["huge_pages"]["readings"]} == {None}


def test_no_word_of_huge_pages_that_nobody_asked_for(start: Start) -> None:
    _, text = start("arrived", *MIGRATE).finish()
    assert "huge pages" not in text
