# SPDX-License-Identifier: Apache-2.0
"""What migrations of the command leave for Prometheus, and `pcmig metrics`."""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator
from unittest import mock

import pytest

from pcmig.cli import metering, metrics, run
from pcmig.cli.base import CommandError
from pcmig.journal import Journal
from pcmig.metrics import meter
from pcmig.metrics.meter import TEXT_LOCK
from pcmig.metrics.store import Store, default_folder
from tests.unit.cli.conftest import MIGRATE, Start, pcmig
from tests.unit.cli.fake_core import GO_ENVIRONMENT, UUID
from tests.unit.metrics.figures import ledger, names, read, status, value
from tests.unit.patience import PATIENCE_S, wait_for


def test_a_migration_leaves_its_figures(start: Start, tmp_path: pathlib.Path) -> None:
    env = {metering.ENVIRONMENT: str(tmp_path)}
    assert start("quick", *MIGRATE, env=env).finish()[0] == 0
    assert start("failed", *MIGRATE, "--metrics-dir", str(tmp_path)).finish()[0] == 1
    found = read((tmp_path / "pcmig.prom").read_text())
    assert value(found, "pcmig_migrations_total", outcome="completed", mode="none") == 1
    assert value(found, "pcmig_migrations_total", outcome="failed", mode="none") == 1
    assert value(found, "pcmig_unattended") == 0
    assert "pcmig_migration_info" not in names(found)


def test_while_it_runs(start: Start, tmp_path: pathlib.Path) -> None:
    go = tmp_path / "go"
    env = {metering.ENVIRONMENT: str(tmp_path), GO_ENVIRONMENT: str(go)}
    command = start("long", *MIGRATE, env=env)
    command.read_until("pre-copy")
    file = tmp_path / "pcmig.prom"
    wait_for(lambda: file.exists() and UUID in file.read_text(), "it is written")
    assert value(read(file.read_text()), "pcmig_migration_info", instance_uuid=UUID) == 1
    go.touch()
    assert command.finish()[0] == 0
    assert UUID not in file.read_text()


def test_one_that_is_killed(
    start: Start, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gauges go with it; that nobody looks after its migration is told, and how both hosts see it."""
    command = start("interrupted", *MIGRATE, env={metering.ENVIRONMENT: str(tmp_path)})
    command.read_until("interrupted at 43 %")
    command.send(signal.SIGKILL)
    command.finish()
    monkeypatch.setattr(metrics, "asked", lambda _: {})
    code, text = pcmig(capsys, "metrics")
    assert code == 0
    found = read(text)
    assert "pcmig_migration_info" not in names(found)
    assert (value(found, "pcmig_unattended"), value(found, "pcmig_interrupted")) == (1, 1)
    monkeypatch.setattr(metrics, "asked", lambda _: {UUID: "half-lost"})
    file = tmp_path / "pcmig.prom"
    assert pcmig(capsys, "metrics", "--textfile", str(file)) == (0, "")
    found = read(file.read_text())
    assert (value(found, "pcmig_half_lost"), value(found, "pcmig_interrupted")) == (1, 0)


def test_a_folder_instead_of_a_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = pcmig(capsys, "metrics", "--textfile", str(tmp_path))
    assert code == 1 and f"{tmp_path} is a folder: name the file in it, {tmp_path}/pcmig.prom" in text


def test_the_hosts_are_asked(
    start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, book: Journal
) -> None:
    """About what nobody looks after, and that alone."""
    asked: list[str] = []

    def told(book: Journal, entry: object) -> dict[str, str]:
        asked.append(str(getattr(entry, "uuid", None)))
        return {"uuid": UUID, "phase": "cut-off"}

    monkeypatch.setattr(metrics.status, "of_entry", told)  # type: ignore[attr-defined]
    assert start("operator", *MIGRATE).finish()[0] == 3
    _, text = pcmig(capsys, "metrics")
    assert asked == [UUID] and value(read(text), "pcmig_interrupted") == 1
    book.remove(UUID)
    pcmig(capsys, "metrics")
    assert asked == [UUID]


def test_nova_computes_are_printed_too(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nova" / "metrics"
    folder.mkdir(parents=True)
    monkeypatch.setattr(metrics, "NOVA_FOLDER", folder)
    monkeypatch.setattr(metrics.os, "geteuid", lambda: 0)  # type: ignore[attr-defined]
    monkeypatch.setattr(metrics, "make_meter", lambda _: metering.make_meter(None))
    assert "nova-compute" not in pcmig(capsys, "metrics")[1], "not where a journal is named"
    monkeypatch.delenv("PCMIG_JOURNAL_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("pcmig.journal.SYSTEM_FOLDER", tmp_path / "pcmig" / "migrations")
    _, text = pcmig(capsys, "metrics")
    assert value(read(text), "pcmig_unattended", program="nova-compute") == 0
    assert value(read(text), "pcmig_unattended", program="pcmig") == 0


@pytest.mark.parametrize(
    ("folder", "why"), [("/nowhere/at/all", "there is no such folder"), ("/proc", "permission denied")]
)
def test_a_folder_that_cannot_be_used(
    folder: str, why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering.os, "access", lambda *_: False)  # type: ignore[attr-defined]
    monkeypatch.setattr("pcmig.metrics.meter.os.access", lambda *_: False)
    code, text = pcmig(capsys, *MIGRATE, "--metrics-dir", folder)
    assert code == 2 and f"--metrics-dir '{folder}' cannot be written to: {why}" in text
    monkeypatch.setenv(metering.ENVIRONMENT, folder)
    code, text = pcmig(capsys, *MIGRATE)
    assert code == 2 and f"$PCMIG_METRICS_DIR '{folder}'" in text


def test_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = pcmig(capsys, "metrics", "--textfile", "/nowhere/at/all/pcmig.prom")
    assert code == 1 and "/nowhere/at/all/pcmig.prom cannot be written: No such file" in text


def test_counts_that_cannot_be_used_are_named(start: Start, tmp_path: pathlib.Path) -> None:
    Store(default_folder()).write_live([])
    path = default_folder() / "counts.json"
    path.write_text("{")
    code, text = start("quick", *MIGRATE).finish()
    assert code == 0 and f"pcmig: note: {path} is no JSON" in text and "counting begins anew" in text
    assert start("quick", *MIGRATE, "-q").finish() == (0, "")


@pytest.mark.parametrize(("name", "counted"), [(".lock", 0), (TEXT_LOCK, 1)])
def test_another_process_that_is_stopped_ends_no_migration(
    start: Start, tmp_path: pathlib.Path, name: str, counted: int
) -> None:
    """It is told in one line, and those that follow are counted."""
    env = {metering.ENVIRONMENT: str(tmp_path)}
    with Store(default_folder()).locked(name=name):
        code, text = start("quick", *MIGRATE, env=env).finish()
    assert code == 0 and text.count("pcmig: note: metrics") == text.count("another process is at it") == 1
    assert len(Store(default_folder()).counts().ended) == counted
    assert start("quick", *MIGRATE, env=env).finish()[0] == 0
    assert len(Store(default_folder()).counts().ended) == counted + 1


def test_one_that_waits_for_a_stopped_process_is_no_pile(capsys: pytest.CaptureFixture[str]) -> None:
    """As cron begins one each minute."""
    with Store(default_folder()).locked(name=TEXT_LOCK):
        code, text = pcmig(capsys, "metrics", "--textfile", "/nowhere/at/all/pcmig.prom")
    assert code == 1 and "another process is at it" in text


def test_a_defect_ends_no_migration(capsys: pytest.CaptureFixture[str]) -> None:
    found = metering.Metering(
        metering.make_meter(None),
        mock.Mock(ledger=lambda: {}, decisions=list),
        mock.Mock(uuid=UUID, started="2026-11-29T10:00:00Z"),
        "auto",
    )
    found.ended({"outcome": "completed"}, gated=False)  # type: ignore[typeddict-item]
    assert "pcmig: note: this migration is not counted: KeyError: 'phases'" in capsys.readouterr().err
    found.look({"phase": "precopy"})  # type: ignore[typeddict-item]
    assert "pcmig: note: metrics are not written: KeyError: " in capsys.readouterr().err


def test_a_folder_that_hangs_is_waited_for_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The guest's verdict is told after that."""
    found = metering.Metering(metering.make_meter(None), mock.Mock(), mock.Mock(), "auto")
    found._writer = writer = mock.Mock(**{"wait.return_value": False})
    found.close()
    assert writer.mock_calls == [mock.call.wait(metering.HUNG_S)]
    assert "has not answered" in capsys.readouterr().err
    writer.wait.return_value = True
    found.close()
    assert writer.begin.call_count == 1 and capsys.readouterr().err == ""


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A folder that does not answer, until this is set; nobody waits for it for long."""
    answers = threading.Event()
    real = meter.files.replace  # type: ignore[attr-defined]

    def replace(*arguments: object) -> None:
        answers.wait(PATIENCE_S)
        real(*arguments)

    monkeypatch.setattr(meter.files, "replace", replace)  # type: ignore[attr-defined]
    yield answers
    answers.set()
    for thread in threading.enumerate():
        if thread.name.startswith("pcmig-"):
            thread.join(PATIENCE_S)


def test_a_folder_that_hangs_holds_no_migration(
    tmp_path: pathlib.Path,
    hung: threading.Event,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = metering.Metering(
        metering.make_meter(str(tmp_path)),
        mock.Mock(ledger=ledger, decisions=list),
        mock.Mock(uuid=UUID, started="2026-11-29T10:00:00Z", dest_uri="qemu+tcp://b/system"),
        "auto",
    )
    # It is the thread of this test that would stand still.
    found.look(status())  # type: ignore[arg-type]
    found.look(status(phase="postcopy"))  # type: ignore[arg-type]
    found.ended(status(outcome="completed"), gated=False)  # type: ignore[arg-type]
    assert not hung.is_set() and not (tmp_path / "pcmig.prom").exists()
    assert len(Store(default_folder()).counts().ended) == 1, "that is on another disk"
    monkeypatch.setattr(metering, "HUNG_S", 0.05)
    found.close()
    assert f"metrics are not written: {tmp_path} has not answered for 0.05 s" in capsys.readouterr().err
    hung.set()
    wait_for((tmp_path / "pcmig.prom").exists, "it is written late")


def test_a_folder_that_hangs_ends_the_command(
    tmp_path: pathlib.Path,
    hung: threading.Event,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metering, "HUNG_S", 0.05)
    file = tmp_path / "pcmig.prom"
    code, text = pcmig(capsys, "metrics", "--textfile", str(file))
    assert code == 1 and f"{file} is not written: it has not answered for 0.05 s" in text

    def stat(_: str) -> bool:
        hung.wait(PATIENCE_S)
        return True

    monkeypatch.setattr("pcmig.metrics.meter.os.path.isdir", stat)
    code, text = pcmig(capsys, *MIGRATE, "--metrics-dir", str(tmp_path))
    assert code == 2 and f"--metrics-dir '{tmp_path}' cannot be written to: it has not answered" in text


def test_figures_that_cannot_be_closed_keep_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports' watchers end, and the way through the tunnel is closed."""
    signals = mock.MagicMock()
    signals.__enter__.return_value.take.return_value = [signal.SIGINT]
    monkeypatch.setattr(run, "SignalPipe", lambda _: signals)
    command = mock.Mock(spec=run.Run, adopts=False, ports=mock.Mock(), passage=mock.Mock(), out=sys.stderr)
    command.result = {}
    command.prepare.return_value = (mock.Mock(), mock.Mock())
    command._figures.return_value.close.side_effect = RuntimeError("a defect")
    command.ports.end.return_value = None
    plan = mock.Mock(domain="g1", uuid="u", source_uri="qemu:///system", dest_uri="qemu+tcp://b/system")
    with pytest.raises(CommandError, match="interrupted before anything was started"):
        run.Run._follow(command, argparse.Namespace(quiet=True, no_progress=True), plan)
    command.ports.end.assert_called_once()
    command.passage.close.assert_called_once()


def test_without_the_library(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    code, text = pcmig(capsys, "metrics")
    assert code == 1 and "pip install prometheus-client" in text
