# SPDX-License-Identifier: Apache-2.0
"""[pcmig] shadow: Nova's own driver migrates, pcmig's judgement is logged and kept, nothing else changes."""

from __future__ import annotations

import json
import pathlib
import threading
import types
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import pytest
from nova import context, objects
from nova.virt.libvirt import driver as libvirt_driver

from pcmig import _core
from pcmig.huge_pages import HugePages, Seen
from pcmig.ledgers.store import LedgerError, Store
from pcmig.nova import conf, driver, flags, planning, releases, shadowing
from tests.nova_own.test_asking import UUID, Instance, Nova, compute, nova
from tests.unit import traces

__all__ = ["nova"]  # the fixture

DEADLINE_S = 60.0


class Watch:
    """Plays a recorded migration: all of it is seen by the time that Nova is done."""

    lines: ClassVar[list[str]] = []
    seen = threading.Event()
    closed = 0

    def __init__(self, uri: str, domain: str) -> None:
        assert (uri, domain) == ("qemu:///system", UUID)
        self._lines = list(self.lines)

    def look(self) -> dict[str, Any]:
        figures = dict.fromkeys(
            (
                "memory_remaining_bytes",
                "memory_processed_bytes",
                "dirty_pages_ps",
                "memory_bps",
                "postcopy_requests",
                "queue_bytes",
            ),
            1,
        )
        return {"state": "precopy", "sample": figures}

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        self.seen.set()
        return lines

    def now_us(self) -> int:
        return 0

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Watch]]:
    Watch.lines, Watch.closed = traces.inputs(), 0
    Watch.seen.clear()
    monkeypatch.setattr(_core, "JobWatch", Watch)
    monkeypatch.setattr(_core, "host_facts", lambda _uri: {})
    # Between the looks at huge pages.
    monkeypatch.setattr(shadowing, "time", types.SimpleNamespace(sleep=lambda _seconds: None))
    yield Watch


def looked_on(
    made: driver.PostCopyLibvirtDriver, instance: Any, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Nova migrates; what was logged of it."""
    begun: list[shadowing.Shadowing] = []
    enter = shadowing.Shadowing.__enter__

    def entered(self: shadowing.Shadowing) -> shadowing.Shadowing:
        begun.append(self)
        return enter(self)

    monkeypatch.setattr(shadowing.Shadowing, "__enter__", entered)
    data = objects.LibvirtLiveMigrateData(
        block_migration=False, migration=objects.Migration(uuid=UUID, dest_compute="there")
    )
    with (
        mock.patch.object(shadowing.LOG, "info") as told,
        mock.patch.object(shadowing.LOG, "warning") as warned,
    ):
        made._live_migration(context.get_admin_context(), instance, "there", None, None, False, data)
        assert all(one.join(DEADLINE_S) for one in begun)
    assert not warned.called, warned.call_args
    return [" ".join(map(str, call.args)) for call in told.call_args_list]


def in_shadow(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, shadow: bool = True) -> Any:
    made = compute()
    made._flags = None if shadow else made._flags
    made._options = conf.Options(shadow=shadow, ledger_dir=str(folder))
    monkeypatch.setattr(made, "_live_migration_uri", lambda dest: f"qemu+tcp://{dest}/system", raising=False)
    looks = iter(range(1, 4))
    pages = HugePages(lambda: Seen(9, None), lambda: Seen(next(looks), None), "nobody looked")
    monkeypatch.setattr(made, "_huge_pages", lambda *_: pages)
    return made


def test_nova_migrates_and_the_judgement_is_kept(
    nova: Nova, played: type[Watch], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = looked_on(in_shadow(tmp_path, monkeypatch), Instance({}), monkeypatch)
    assert [name for name, _ in nova.calls] == ["_live_migration"]
    assert "pcmig would have switched at 24.3 s" in told[0]
    assert "the ledger is kept" in told[1]
    assert played.closed == 1
    [path] = [each for each in tmp_path.rglob("*") if each.is_file() and UUID in each.name]
    found = json.loads(path.read_text())
    assert (found["steered"], found["outcome"], found["guest"]["uuid"]) == (False, "completed", UUID)
    assert found["more"]["shadow"]["would"] == "switch" and found["more"]["shadow"]["at_ms"] == 24_255
    assert found["decisions"][0]["reason"] == found["more"]["shadow"]["reason"]
    assert found["by"]["migration"] == UUID
    assert found["huge_pages"]["what"] == "read"
    assert [reading["bytes"] for reading in found["huge_pages"]["readings"]] == [1, 2, 3]


def test_the_times_of_huge_pages_count_from_the_last_look_at_the_job(
    nova: Nova, played: type[Watch], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from when Nova is done; and a ledger that is kept is not lost, though it lacks these figures."""
    ended: list[bool] = []
    made = in_shadow(tmp_path, monkeypatch)
    pages = made._huge_pages()
    end = pages.ended

    def note_and_end() -> None:
        ended.append(not played.closed)
        end()

    monkeypatch.setattr(pages, "ended", note_and_end)

    def refuse(*_: Any) -> None:
        raise LedgerError("the disk is full")

    monkeypatch.setattr(Store, "amend", refuse)
    with pytest.raises(AssertionError) as warned:  # that a warning was logged, and which
        looked_on(made, Instance({}), monkeypatch)
    assert "Shadow: huge pages are missing in a ledger: %s" in str(warned.value)
    assert ended and all(ended), "while the job was watched"
    assert [each for each in tmp_path.rglob("*") if each.is_file() and UUID in each.name]


def test_without_it_nobody_looks_on(
    nova: Nova, played: type[Watch], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = in_shadow(tmp_path, monkeypatch, shadow=False)
    made._flags.of = lambda _: mock.Mock(post_copy=False, tunnel=False)
    assert looked_on(made, Instance({}), monkeypatch) == []
    assert not played.seen.is_set() and not list(tmp_path.iterdir())


def test_what_goes_wrong_beside_it_does_not_reach_nova(
    nova: Nova, played: type[Watch], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Watch) -> Any:
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(played, "take", broken)
    made = in_shadow(tmp_path, monkeypatch)
    with mock.patch.object(shadowing.LOG, "warning") as warned:
        one = made._shadowing(context.get_admin_context(), Instance({}), "there", mock.Mock())
        with one:
            pass
        assert one.join(DEADLINE_S)
    assert "what nobody thought of" in str(warned.call_args)


def test_what_goes_wrong_before_it_does_not_reach_nova(
    nova: Nova, played: type[Watch], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> Any:
        raise RuntimeError("what nobody thought of")

    made = in_shadow(tmp_path, monkeypatch)
    monkeypatch.setattr(made, "_live_migration_uri", broken, raising=False)
    with mock.patch.object(planning.LOG, "warning") as warned:
        assert looked_on(made, Instance({}), monkeypatch) == []
    assert [name for name, _ in nova.calls] == ["_live_migration"]
    assert "what nobody thought of" in str(warned.call_args)
    assert not played.seen.is_set()


def test_what_blocks_is_done_beside_eventlets_hub(
    nova: Nova, played: type[Watch], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt's calls are C, and a file is written and synced: no other green thread runs meanwhile."""
    beside: list[str] = []
    off_hub = releases.off_hub

    def noted(call: Any, *arguments: Any) -> Any:
        beside.append(getattr(call, "__name__", ""))
        return off_hub(call, *arguments)

    monkeypatch.setattr(releases, "off_hub", noted)
    looked_on(in_shadow(tmp_path, monkeypatch), Instance({}), monkeypatch)
    assert [name for name in beside if name in ("close", "add")] == ["close", "add"]


def test_requests_are_novas_own_business(
    nova: Nova, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word for post-copy refuses nothing, as with Nova's driver."""
    made = in_shadow(tmp_path, monkeypatch)
    instance = Instance({"pcmig:post_copy": "true"})
    made.check_can_live_migrate_source(None, instance, None)
    assert [name for name, _ in nova.calls] == ["check_can_live_migrate_source"]


def test_flags_stay_novas(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    made = in_shadow(tmp_path, monkeypatch)
    made._this_thread = threading.local()

    def stock(self: Any) -> None:
        self._live_migration_flags, self._block_migration_flags = 27, 91

    monkeypatch.setattr(libvirt_driver.LibvirtDriver, "_parse_migration_flags", stock)
    merged = mock.Mock()
    monkeypatch.setattr(flags, "merge", lambda *_, **__: merged)
    made._parse_migration_flags()
    assert (made._live_migration_flags, made._block_migration_flags, made._flags) == (27, 91, None)
