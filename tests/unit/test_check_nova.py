# SPDX-License-Identifier: Apache-2.0
"""The row on nova-compute's Python, asked for real, with a Nova that is only folders."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from pcmig.check import Facts, Side, novadriver
from pcmig.check.novadriver import NovaDriver, nova_driver

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def python(tmp_path: pathlib.Path) -> pathlib.Path:
    """A Python of its own, with a Nova."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    virt = packages(tmp_path) / "nova" / "virt"
    virt.mkdir(parents=True)
    (virt / "__init__.py").touch()
    (virt.parent / "__init__.py").touch()
    return tmp_path / "venv" / "bin" / "python"


def packages(folder: pathlib.Path) -> pathlib.Path:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return folder / "venv" / "lib" / version / "site-packages"


def script(folder: pathlib.Path, first_line: str) -> str:
    """A nova-compute with that FIRST_LINE."""
    path = folder / "nova-compute"
    path.write_text(f"{first_line}\nimport nova\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def row_of(found: NovaDriver | None) -> tuple[str, str, str]:
    row = nova_driver(Facts(here=Side("qemu:///system"), nova=found))
    assert row is not None
    return row.status, row.found, row.fix


def test_without_nova_there_is_no_row(tmp_path: pathlib.Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    assert novadriver.ask([str(tmp_path / "venv" / "bin" / "python")]) is None
    assert nova_driver(Facts(here=Side("qemu:///system"))) is None


def test_the_driver_is_found(tmp_path: pathlib.Path, python: pathlib.Path) -> None:
    shim = packages(tmp_path) / "nova" / "virt" / "pcmig" / "__init__.py"
    shim.parent.mkdir()
    shim.touch()
    assert row_of(novadriver.ask([str(python)])) == ("ok", str(shim), "")


def test_the_driver_is_not_found(tmp_path: pathlib.Path, python: pathlib.Path) -> None:
    status, found, fix = row_of(novadriver.ask([str(python)]))
    assert status == "warn"
    assert found == f"{python} has {packages(tmp_path)}/nova/__init__.py and no nova.virt.pcmig"
    assert fix == (
        f'put this one line into {packages(tmp_path)}/pcmig.pth: import sys; sys.path.append("{ROOT}"); '
        "import pcmig.nova.finder"
    )


def test_the_way_out_works(tmp_path: pathlib.Path, python: pathlib.Path) -> None:
    """The line that the row gives makes that Python find the driver's module, where pcmig has it."""
    _, _, fix = row_of(novadriver.ask([str(python)]))
    place, line = fix.removeprefix("put this one line into ").split(": ", 1)
    pathlib.Path(place).write_text(f"{line}\n", encoding="utf-8")
    assert row_of(novadriver.ask([str(python)])) == ("ok", f"{ROOT}/pcmig/nova/shim/__init__.py", "")


def test_where_pcmig_is_importable_the_line_is_shorter() -> None:
    _, _, fix = row_of(
        NovaDriver("python3", "/n/nova/__init__.py", None, "/n/pcmig/__init__.py", (3, 11), "/n")
    )
    assert fix == "put this one line into /n/pcmig.pth: import sys; import pcmig.nova.finder"


def test_another_version_of_python() -> None:
    _, _, fix = row_of(NovaDriver("/usr/bin/python3", "/n/nova/__init__.py", version=(3, 9), site="/n"))
    assert fix == (
        "pcmig here is not compiled for its Python 3.9: install it there too, from a wheel that "
        "was built with that version"
    )


def test_a_python_that_does_not_answer(tmp_path: pathlib.Path) -> None:
    status, found, _ = row_of(novadriver.ask([str(tmp_path / "none")]))
    assert (status, "No such file" in found) == ("unknown", True)
    status, found, _ = row_of(novadriver.ask(["/bin/false"]))
    assert (status, found) == ("unknown", "/bin/false: exit code 1")


def test_the_python_of_nova_compute_is_asked(
    tmp_path: pathlib.Path, python: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, f"#!{python}")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = novadriver.gather()
    assert found is not None
    assert (found.python, found.nova) == (str(python), f"{packages(tmp_path)}/nova/__init__.py")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("#!/usr/bin/python3", ["/usr/bin/python3"]),
        ("#!/usr/bin/env python3.11", ["/usr/bin/env", "python3.11"]),
        ("#!/usr/bin/python3 -sE", ["/usr/bin/python3", "-sE"]),
        ("#!/bin/sh", None),
        ("import nova", None),
        ("#!'unclosed python", None),
    ],
)
def test_first_lines(tmp_path: pathlib.Path, line: str, words: list[str] | None) -> None:
    assert novadriver.interpreter_of(script(tmp_path, line)) == words


def test_a_nova_compute_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    assert novadriver.interpreter_of(str(tmp_path / "none")) is None
