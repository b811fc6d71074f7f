# SPDX-License-Identifier: Apache-2.0
"""A program's file for node_exporter: what is in it when."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
from typing import Any

import pytest

from pcmig.journal import Entry, Journal, Owner
from pcmig.metrics import live, meter, store, view
from pcmig.metrics.families import COMMAND, NOVA
from pcmig.metrics.meter import Meter
from pcmig.metrics.store import Store
from tests.unit.cli import fake_core as fake
from tests.unit.metrics.figures import UUID, ended, names, read, status, value
from tests.unit.patience import PATIENCE_S

OTHER = "aaaaaaaa-0000-4000-8000-000000000002"


class Stage:
    """A journal, a place to count in, node_exporter's folder, and what was told."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.book = Journal(folder / "migrations")
        self.textfiles = folder / "textfiles"
        self.textfiles.mkdir()
        self.told: list[str] = []

    def meter(self, program: str = COMMAND) -> Meter:
        return Meter(
            program, self.folder / "metrics", self.book.folder, str(self.textfiles), self.told.append
        )

    @property
    def file(self) -> pathlib.Path:
        return self.textfiles / "pcmig.prom"

    def read(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        assert self.told == []
        return read(self.file.read_text())

    def entry(self, uuid: str = UUID, **more: object) -> Entry:
        entry = dataclasses.replace(
            Entry(
                uuid=uuid,
                name="g1",
                source_uri="qemu:///system",
                dest_uri=fake.DEST,
                engine={},
                started="2026-11-29T10:00:00+00:00",
                caller={"program": "pcmig"},
            ),
            **more,  # type: ignore[arg-type]
        )
        self.book.write(entry)
        return entry


@pytest.fixture
def stage(tmp_path: pathlib.Path) -> Stage:
    return Stage(tmp_path)


def rows(**changes: object) -> list[live.Row]:
    return [
        live.row(
            name="g1",
            uuid=UUID,
            dest_uri=fake.DEST,
            policy="auto",
            status=status(**changes),
            page_bytes=4096,
        )
    ]


def test_gauges_vanish_with_the_migration_and_counts_stay(stage: Stage) -> None:
    one = stage.meter()
    one.look(rows)
    assert value(stage.read(), "pcmig_migration_data_remaining_bytes", domain="g1") == 130 << 20
    assert stage.file.stat().st_mode & 0o777 == 0o644, "node_exporter has a user of its own"
    one.ended("m", ended())
    one.close()
    found = stage.read()
    assert not [name for name, labels in found if "domain" in dict(labels)]
    assert value(found, "pcmig_migrations_total", outcome="completed", mode="postcopy") == 1
    stage.meter().ended("m2", ended())
    stage.meter().publish()
    assert value(stage.read(), "pcmig_migrations_total", outcome="completed", mode="postcopy") == 2
    assert [path.name for path in stage.textfiles.iterdir()] == ["pcmig.prom"]


def test_it_looks_now_and_then(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(meter.time, "monotonic", lambda: now_s)  # type: ignore[attr-defined]
    one, looks = stage.meter(), 0

    def counted() -> list[live.Row]:
        nonlocal looks
        looks += 1
        return rows()

    for later_s in (0.0, 0.1, 4.9, 5.0, 5.1, 10.0):
        now_s = 100.0 + later_s
        one.look(counted)
    assert looks == 3
    for phase in ("precopy", "precopy", "postcopy"):
        one.look(counted, phase)
    assert looks == 5, "each phase as it begins"


def test_each_program_has_its_own_file(stage: Stage) -> None:
    stage.meter().publish(rows())
    stage.meter(NOVA).publish()
    assert sorted(path.name for path in stage.textfiles.iterdir()) == [
        "pcmig-nova-compute.prom",
        "pcmig.prom",
    ]


def test_migrations_that_nobody_looks_after(stage: Stage) -> None:
    dead = Owner(os.getpid(), 1, "another boot")
    stage.entry(owner=Owner.of(os.getpid()))
    stage.meter().publish()
    assert value(stage.read(), "pcmig_unattended") == 0
    stage.entry(owner=dead, recovery={**fake.RECOVERY})
    stage.entry(OTHER, owner=None)
    stage.meter().publish()
    found = stage.read()
    assert (value(found, "pcmig_unattended"), value(found, "pcmig_interrupted")) == (2, 1)
    assert value(found, "pcmig_half_lost") == value(found, "pcmig_resume_impossible") == 0
    stage.meter().publish(situations={UUID: "postcopy", OTHER: "half-lost"})
    found = stage.read()
    assert (value(found, "pcmig_unattended"), value(found, "pcmig_interrupted")) == (2, 0)
    assert value(found, "pcmig_half_lost") == 1
    stage.meter().publish()
    assert value(stage.read(), "pcmig_half_lost") == 1, "as it was said last"
    stage.book.remove(OTHER)
    stage.meter().publish()
    assert (value(stage.read(), "pcmig_half_lost"), value(stage.read(), "pcmig_unattended")) == (0, 1)


def test_who_needs_nobody(stage: Stage) -> None:
    stage.entry(turned_back={"done": True})
    stage.entry(OTHER, caller={"nova": {"side": "destination"}})
    stage.meter().publish()
    assert value(stage.read(), "pcmig_unattended") == 0


def test_a_resume_that_is_impossible(stage: Stage) -> None:
    text = f"post-copy interrupted at 43 %, {live._CANNOT_RESUME[0]}"
    stage.entry(owner=None, recovery={**fake.RECOVERY, "state": "held", "text": text})
    stage.meter().publish()
    assert value(stage.read(), "pcmig_resume_impossible") == 1


def test_what_goes_wrong_is_told_once(stage: Stage) -> None:
    one = stage.meter()
    stage.textfiles.rmdir()
    one.publish(rows())
    one.publish()
    one.ended("m", ended())
    (said,) = stage.told
    assert str(stage.textfiles) in said and "No such file" in said
    assert one.store.counts().counters["pcmig_migrations_total", ("completed", "postcopy")] == 1


def test_a_full_disk_is_told_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file has another name while it is written."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(stage.folder / "metrics" / f".new-{letters.pop()}"))

    letters = list("abc")
    monkeypatch.setattr(store.os, "replace", full)  # type: ignore[attr-defined]
    one = stage.meter()
    one.ended("m", ended())
    one.ended("m2", ended())
    assert stage.told == [f"metrics cannot be written in {stage.folder / 'metrics'}: No space left on device"]


def test_counting_began_when_it_began(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as long as nothing was counted, and when the counts cannot be used."""
    now_s = 1000.0
    monkeypatch.setattr(store.time, "time", lambda: now_s)  # type: ignore[attr-defined]

    def since_s() -> float:
        return view.view(COMMAND, stage.meter().store, stage.book.folder).counts.since_s

    assert since_s() == 1000.0
    now_s = 2000.0
    assert since_s() == 1000.0
    stage.meter().publish()
    stage.meter().ended("m", ended())
    assert since_s() == value(stage.read(), "pcmig_counting_since_timestamp_seconds") == 1000.0
    path = stage.folder / "metrics" / "counts.json"
    path.write_text("{")
    os.utime(path, (1500, 1500))
    assert since_s() == 1500.0, "from then on nothing was counted"
    now_s = 3000.0
    assert since_s() == 1500.0


def test_who_may_only_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store.pathlib.Path, "mkdir", read_only)  # type: ignore[attr-defined]
    assert view.view(COMMAND, stage.meter().store, stage.book.folder).counts.counters == {}


def test_counts_that_cannot_be_used_do_not_keep_the_rest_from_the_file(stage: Stage) -> None:
    one = stage.meter()
    one.publish()
    (stage.folder / "metrics" / "counts.json").write_text("{")
    one.publish(rows())
    assert value(stage.read(), "pcmig_migrations_running", phase="precopy") == 1
    one.ended("m", ended())
    assert "counting begins anew" in stage.told[0]


def test_another_version_follows_a_migration(stage: Stage) -> None:
    """Its rows have not all that this one's have, or something else; its figures are there, and ours."""
    folder = stage.folder / "metrics"
    folder.mkdir()
    owner = Owner.of(os.getpid())
    assert owner is not None
    others = [{"instance_uuid": OTHER, "passes": 3, "total_bytes": "many"}, {"domain": "g3"}, 7]
    text = json.dumps({"owner": dataclasses.asdict(owner), "rows": others})
    (folder / "live-0.json").write_text(text)
    stage.meter().publish(rows())
    found = stage.read()
    assert value(found, "pcmig_migration_info", instance_uuid=UUID) == 1
    assert value(found, "pcmig_migration_info", instance_uuid=OTHER) == 1
    assert value(found, "pcmig_migration_passes", instance_uuid=OTHER) == 3
    assert value(found, "pcmig_migration_data_total_bytes") == 256 << 20, "of ours alone"


def test_a_defect_is_told_once_and_ends_no_migration(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("phase")

    monkeypatch.setattr(meter, "view", broken)
    monkeypatch.setattr(store.Store, "add", broken)
    one = stage.meter()
    one.look(rows)
    one.look(broken, "another phase")  # type: ignore[arg-type]
    one.ended("m", ended())
    one.close()
    assert stage.told == ["metrics are not written: KeyError: 'phase'"]


def test_who_only_counts_does_not_wait_for_a_file_system_that_hangs(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[bool] = []
    real = meter.files.replace  # type: ignore[attr-defined]

    def replace(*arguments: Any) -> None:
        """While it lasts, which may be for ever."""
        counted.append(Store(stage.folder / "metrics").add("m", ended(), wait_s=0))
        real(*arguments)

    monkeypatch.setattr(meter.files, "replace", replace)  # type: ignore[attr-defined]
    stage.meter().publish(rows())
    assert counted == [True] and stage.file.exists()


@pytest.mark.parametrize("name", [".lock", meter.TEXT_LOCK])
def test_a_round_is_left_out_while_another_process_is_at_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It may be stopped, and never end."""
    one = stage.meter()
    with Store(stage.folder / "metrics").locked(name=name):
        one.look(rows)
        assert stage.told == [] and not stage.file.exists()
        one.ended("m", ended(), wait_s=0.1)
        one.close(wait_s=0.1)
    (said,) = stage.told
    assert f"{stage.folder / 'metrics'}: another process is at it" in said
    stage.told.clear()
    one.look(rows, "another phase")
    assert value(stage.read(), "pcmig_migrations_running", phase="precopy") == 1


def test_who_comes_to_an_end_is_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Store(stage.folder / "metrics").locked()
    other.__enter__()
    waits = 0

    def wait(_: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            other.__exit__(None, None, None)

    monkeypatch.setattr(store.time, "sleep", wait)  # type: ignore[attr-defined]
    one = stage.meter()
    one.ended("m", ended(), wait_s=PATIENCE_S)
    assert waits == 3 and stage.told == []
    assert one.store.counts().ended == ["m"]


def test_without_the_library(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    one = stage.meter()
    one.ended("m", ended())
    one.publish()
    one.publish()
    (said,) = stage.told
    assert "python3-prometheus-client" in said and not stage.file.exists()
    monkeypatch.undo()
    one.publish()
    assert "pcmig_migrations_total" in names(read(stage.file.read_text())), "what was counted is there"
