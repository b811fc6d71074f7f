# SPDX-License-Identifier: Apache-2.0
"""The rows on many migrations at once, from files as a host has them."""

from __future__ import annotations

import pathlib

import pytest

from pcmig.check import Facts, Row, Side, many
from pcmig.check.novarights import NovaRights

LIMITS = "Limit                     Soft Limit           Hard Limit           Units\n"


def host(
    root: pathlib.Path,
    *,
    nova: dict[str, str] | None = None,
    libvirt: dict[str, str] | None = None,
    daemons: tuple[str, ...] = ("libvirtd",),
    files: str = "1024",
) -> pathlib.Path:
    for folder, texts in (("etc/nova", nova or {}), ("etc/libvirt", libvirt or {})):
        (root / folder).mkdir(parents=True)
        for name, text in texts.items():
            (root / folder / name).write_text(text)
    for pid, daemon in enumerate(("nova-compute", *daemons), 7):
        (root / f"proc/{pid}").mkdir(parents=True)
        (root / f"proc/{pid}/comm").write_text(f"{daemon}\n")
    (root / "proc/7/limits").write_text(f"{LIMITS}Max open files            {files}  524288  files\n")
    return root


def rows(root: pathlib.Path) -> dict[str, Row]:
    gathered = many.gather(str(root), NovaRights(7, "nova", False))
    facts = Facts(here=Side("qemu:///system"), many=gathered)
    return {row.name: row for check in (many.workers, many.open_files) if (row := check(facts)) is not None}


def test_the_defaults_are_fine(tmp_path: pathlib.Path) -> None:
    found = rows(host(tmp_path))
    assert {row.status for row in found.values()} == {"ok"}
    assert found["libvirt's workers"].found == (
        "max_workers = 20 in libvirtd.conf; Nova lets 1 guest leave at once"
    )
    assert found["open files"].found == "nova-compute may have 1024; Nova lets 1 guest leave at once"


@pytest.mark.parametrize(
    ("slots", "workers", "status"),
    [(15, 20, "ok"), (16, 20, "warn"), (19, 20, "warn"), (20, 20, "fail"), (20, 25, "ok"), (0, 500, "warn")],
)
def test_workers(tmp_path: pathlib.Path, slots: int, workers: int, status: str) -> None:
    host(
        tmp_path,
        nova={"nova.conf": f"[DEFAULT]\nmax_concurrent_live_migrations = {slots}\n"},
        libvirt={"libvirtd.conf": f"max_workers = {workers}\n"},
    )
    found = rows(tmp_path)["libvirt's workers"]
    assert found.status == status
    if status == "fail":
        assert "max_workers in /etc/libvirt/libvirtd.conf to at least 25" in found.fix


def test_of_the_daemon_that_runs_and_of_the_line_that_counts(tmp_path: pathlib.Path) -> None:
    host(
        tmp_path,
        nova={
            "nova.conf": "[libvirt]\nmax_concurrent_live_migrations = 9\n"
            "[DEFAULT]\nmax_concurrent_live_migrations = 8\nmax_concurrent_live_migrations: 30\n"
        },
        libvirt={"libvirtd.conf": "max_workers = 99\n", "virtqemud.conf": "#max_workers = 99\n"},
        daemons=("virtlogd", "libvirtd", "virtqemud"),
    )
    found = rows(tmp_path)["libvirt's workers"]
    assert (found.status, found.found) == (
        "fail",
        "max_workers = 20 in virtqemud.conf; Nova lets 30 guests leave at once",
    )


@pytest.mark.parametrize(
    ("nova", "libvirt", "daemons", "missing"),
    [
        ("max_concurrent_live_migrations = many\n", "", ("libvirtd",), "max_concurrent_live_migrations"),
        ("", 'max_workers = "20"\n', ("libvirtd",), "max_workers"),
        ("", "", (), "max_workers"),
    ],
)
def test_what_cannot_be_read(
    tmp_path: pathlib.Path, nova: str, libvirt: str, daemons: tuple[str, ...], missing: str
) -> None:
    host(
        tmp_path,
        nova={"nova.conf": f"[DEFAULT]\n{nova}"},
        libvirt={"libvirtd.conf": libvirt},
        daemons=daemons,
    )
    found = rows(tmp_path)["libvirt's workers"]
    assert (found.status, found.found) == ("unknown", f"{missing} cannot be read")


@pytest.mark.parametrize(
    ("slots", "files", "status"), [(76, "1024", "ok"), (77, "1024", "warn"), (0, "524288", "warn")]
)
def test_open_files(tmp_path: pathlib.Path, slots: int, files: str, status: str) -> None:
    host(
        tmp_path,
        nova={"nova.conf": f"[DEFAULT]\nmax_concurrent_live_migrations = {slots}\n"},
        files=files,
    )
    assert rows(tmp_path)["open files"].status == status


def test_no_row_without_a_nova_compute_or_a_limit(tmp_path: pathlib.Path) -> None:
    host(tmp_path, files="unlimited")
    assert "open files" not in rows(tmp_path)
    assert many.open_files(Facts(here=Side("qemu:///system"), many=many.gather(str(tmp_path)))) is None
    assert many.workers(Facts(here=Side("qemu:///system"))) is None
