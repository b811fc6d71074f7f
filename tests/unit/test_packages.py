# SPDX-License-Identifier: Apache-2.0
"""The packages that this repository is: one version, and what each is allowed to bring."""

from __future__ import annotations

import pathlib
import re
import tomllib
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PURE = ("common", "api", "client", "dashboard")


def project(folder: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", (".", *PURE))
def test_one_version(folder: str) -> None:
    found = project(folder)
    assert found["project"]["dynamic"] == ["version"]
    assert found["tool"]["setuptools"]["dynamic"] == {"version": {"file": "VERSION"}}
    assert (ROOT / folder / "VERSION").resolve() == ROOT / "VERSION"
    assert (ROOT / folder / "LICENSE").resolve() == ROOT / "LICENSE"


@pytest.mark.parametrize("folder", (".", "api", "client"))
def test_what_is_shared_is_of_the_same_minor_version(folder: str) -> None:
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert f"pcmig-common=={version.rpartition('.')[0]}.*" in project(folder)["project"]["dependencies"]


@pytest.mark.parametrize("folder", PURE)
def test_packages_without_a_compiler(folder: str) -> None:
    """Neither extension modules, nor anything that lies in Nova's own package."""
    found = project(folder)
    assert not (ROOT / folder / "setup.py").exists()
    packages = found["tool"]["setuptools"]["packages"]
    assert all(name.split(".")[0] == f"pcmig_{folder}" for name in packages)
    listed = {name.replace(".", "/") for name in packages}
    have = {str(path.parent.relative_to(ROOT / folder)) for path in (ROOT / folder).glob("pcmig_*/**/*.py")}
    assert have == listed


def test_bootstrap_installs_each_that_pcmig_and_its_tests_need() -> None:
    lines = (ROOT / "tools/packages.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [f"-e ./{name}" for name in PURE[:3]]
