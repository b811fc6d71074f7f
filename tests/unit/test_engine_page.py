# SPDX-License-Identifier: Apache-2.0
"""The engine's states, and the picture of them in the pages."""

import pathlib
import sys
from collections.abc import Iterator

import pytest

from pcmig import _core

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("docutils")
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "doc" / "_ext"))
    yield
    sys.modules.pop("engine_picture", None)


def test_the_picture_has_every_state_and_way(page: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import engine_picture

    drawn = engine_picture.picture()
    for row in _core.engine_states():
        assert f">{row['name']}</text>" in drawn
    shown = [way for way in engine_picture.ways() if way[1] != "over" or way[0] == "confirming"]
    assert drawn.count('<path d="M') - 1 == len(shown)  # and the arrow's tip
    monkeypatch.delitem(engine_picture.PLACES, "resuming")
    with pytest.raises(ValueError, match="resuming"):
        engine_picture.picture()


def test_states_are_reached_and_left() -> None:
    rows = {row["name"]: row for row in _core.engine_states()}
    reached = {to for row in rows.values() for _, to in row["ways"]}
    assert reached == rows.keys() - {"preparing"}
    assert not rows["over"]["ways"] and all(row["ways"] for name, row in rows.items() if name != "over")
    assert _core.Migration("test", "test:///default").status()["state"] == "preparing"
