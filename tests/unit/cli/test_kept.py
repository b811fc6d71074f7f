# SPDX-License-Identifier: Apache-2.0
"""`pcmig migrate` and `resume` keep the ledger of what they followed to its end."""

from __future__ import annotations

import json
import pathlib
import pwd

import pytest

from pcmig.cli import run
from pcmig.journal import Journal
from pcmig.ledgers.store import Store
from tests.unit.cli.conftest import MIGRATE, Start
from tests.unit.cli.fake_core import UUID
from tests.unit.ledgers.test_document import validate


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
