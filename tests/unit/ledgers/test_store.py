# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime
import json
import os
import pathlib
import stat
import time
from typing import Any

import pytest

from pcmig import _core, journal
from pcmig.ledgers import store
from pcmig.ledgers.store import LedgerError, Store
from tests.unit.ledgers import made

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"


@pytest.fixture
def document(tmp_path: pathlib.Path) -> dict[str, Any]:
    return made.document(tmp_path)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "kept"


def now(days: float = 0.0) -> str:
    when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_what_was_added_is_found(folder: pathlib.Path, document: dict[str, Any]) -> None:
    kept = Store(folder)
    assert kept.all() == ([], [])
    path = kept.add(document)
    assert path is not None
    assert path.name == f"20261129T200038446Z-{made.UUID}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    found, errors = kept.all()
    assert errors == []
    assert [(each.path, each.document) for each in found] == [(path, json.loads(json.dumps(document)))]


def test_what_is_known_later_is_put_in(folder: pathlib.Path, document: dict[str, Any]) -> None:
    kept = Store(folder)
    path = kept.add(document)
    assert path is not None
    kept.amend(path, {"huge_pages": {"what": "unknown"}})
    (found,), _ = kept.all()
    assert found.path == path and found.document["huge_pages"] == {"what": "unknown"}
    assert {**found.document, "huge_pages": document["huge_pages"]} == json.loads(json.dumps(document))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("{")
    with pytest.raises(LedgerError, match="only the beginning of it"):
        kept.amend(path, {"huge_pages": None})
    path.unlink()
    kept.amend(path, {"huge_pages": None})
    assert kept.paths() == [], "one that has been removed stays away"


def test_of_one_guest(folder: pathlib.Path, document: dict[str, Any]) -> None:
    kept = Store(folder)
    kept.add(document)
    kept.add({**document, "guest": {"name": "g2", "uuid": OTHER}})
    for word in ("g2", OTHER, OTHER.upper(), OTHER.replace("-", "")):
        found, _ = kept.of_guest(word)
        assert [each.document["guest"]["name"] for each in found] == ["g2"]
    assert kept.of_guest("g3") == ([], [])


def test_two_ends_in_the_same_millisecond(folder: pathlib.Path, document: dict[str, Any]) -> None:
    kept = Store(folder)
    paths = [kept.add(document) for _ in range(3)]
    assert len(set(paths)) == 3
    assert len(kept.all()[0]) == 3


def test_no_more_than_so_many_stay(folder: pathlib.Path, document: dict[str, Any]) -> None:
    kept = Store(folder, kept=3)
    for day in (5, 4, 3, 2, 1):
        kept.add({**document, "ended": now(day), "policy": f"passes={day}"})
    assert [each.document["policy"] for each in kept.all()[0]] == ["passes=3", "passes=2", "passes=1"]
    assert [each.document["policy"] for each in kept.newest(2)[0]] == ["passes=2", "passes=1"]


def test_none_stays_too_long(folder: pathlib.Path, document: dict[str, Any]) -> None:
    Store(folder, days=100).add({**document, "ended": now(20)})
    Store(folder, days=10).add({**document, "ended": now()})
    assert len(Store(folder).all()[0]) == 1


def test_other_files_are_left_alone(folder: pathlib.Path, document: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "notes.json").write_text("mine")
    kept = Store(folder, kept=1)
    for _ in range(3):
        kept.add({**document, "ended": now()})
    assert (folder / "notes.json").read_text() == "mine"
    assert len(kept.paths()) == 1


def test_no_number_none_kept(folder: pathlib.Path, document: dict[str, Any]) -> None:
    assert Store(folder, kept=0).add(document) is None
    assert not folder.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "is no JSON, or only the beginning of it"),
        (lambda text: "", "is no JSON, or only the beginning of it"),
        (lambda text: "[" * 100_000, "is no JSON that pcmig wrote"),
        (lambda text: "\0" * 100, "is no JSON"),
        (lambda text: "[]", 'is no kept ledger: it has no "format": "pcmig-ledger"'),
        (
            lambda text: text.replace('"version":1', '"version":2', 1),
            f"was written by a newer pcmig, {_core.VERSION} (version 2, and 1 is known here)",
        ),
        (lambda text: text.replace('"version":1', '"version":"1"', 1), "has no valid 'version': '1'"),
        (lambda text: text.replace('"mode"', '"mood"', 1), "has no valid 'mode'"),
        (lambda text: text.replace('"balance"', '"balanse"', 1), "has no 'balance' in 'ledger'"),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_shown(
    folder: pathlib.Path, document: dict[str, Any], damage: Any, words: str
) -> None:
    kept = Store(folder)
    first, second, third = (kept.add({**document, "ended": now(day)}) for day in (3, 2, 1))
    assert first and second and third
    second.write_text(damage(second.read_text()))
    found, errors = kept.all()
    assert [each.path for each in found] == [first, third]
    assert len(errors) == 1
    assert str(second) in str(errors[0]) and words in str(errors[0])
    found, errors = kept.newest(2)
    assert [each.path for each in found] == [first, third] and len(errors) == 1
    assert kept.newest(1)[1] == []  # it is not among them


def test_a_folder_that_cannot_be_used(tmp_path: pathlib.Path, document: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    kept = Store(tmp_path / "file")
    with pytest.raises(LedgerError, match=r"file cannot be read: Not a directory"):
        kept.all()
    with pytest.raises(LedgerError, match=r"file cannot be written: File exists"):
        kept.add(document)


def test_what_could_not_be_written_leaves_nothing(
    folder: pathlib.Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match="No space left on device"):
        Store(folder).add(document)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_old_ones_make_room_on_a_full_disk(
    folder: pathlib.Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Store(folder, kept=3, days=100)
    for day in (90, 2, 1):
        kept.add({**document, "ended": now(day), "policy": f"passes={day}"})
    real = os.fsync

    def full(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode) and len(kept.paths()) == 3:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    kept.add({**document, "ended": now(), "policy": "passes=0"})
    assert [each.document["policy"] for each in kept.all()[0]] == ["passes=2", "passes=1", "passes=0"]
    kept.days = 1
    kept.kept = 9
    kept.add({**document, "ended": now(), "policy": "passes=7"})
    assert [each.document["policy"] for each in kept.all()[0]] == ["passes=0", "passes=7"]


def test_one_that_cannot_be_removed_keeps_no_other_from_being_kept(
    folder: pathlib.Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    kept = Store(folder, kept=1)
    kept.add({**document, "ended": now(1)})
    monkeypatch.setattr(pathlib.Path, "unlink", refused)
    with pytest.raises(LedgerError, match="Operation not permitted"):
        kept.add({**document, "ended": now(), "policy": "passes=0"})
    assert kept.all()[0][-1].document["policy"] == "passes=0"


def test_what_a_killed_process_left_half_written_goes(folder: pathlib.Path, document: dict[str, Any]) -> None:
    folder.mkdir()
    old, fresh = folder / ".new-old", folder / ".new-fresh"
    for path in (old, fresh):
        path.write_text("{")
    os.utime(old, (time.time() - 2 * store.LEFT_S,) * 2)
    Store(folder).add(document)
    assert not old.exists() and fresh.exists(), "somebody may be writing that"


def test_default_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(journal.ENVIRONMENT, raising=False)
    monkeypatch.delenv(store.ENVIRONMENT, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert store.default_folder() == pathlib.Path("/var/lib/pcmig/ledgers")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/state")
    assert store.default_folders() == [pathlib.Path("/home/u/state/pcmig/ledgers")]
    monkeypatch.setenv(journal.ENVIRONMENT, "/j")
    assert store.default_folders() == [pathlib.Path("/j/ledgers")]
    monkeypatch.setenv(store.ENVIRONMENT, "/elsewhere")
    assert store.default_folders() == [pathlib.Path("/elsewhere")]


def test_root_looks_at_novas_too(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(journal.ENVIRONMENT, raising=False)
    monkeypatch.delenv(store.ENVIRONMENT, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(store, "NOVA_FOLDER", tmp_path)
    assert store.default_folders() == [pathlib.Path("/var/lib/pcmig/ledgers"), tmp_path]
