# SPDX-License-Identifier: Apache-2.0
"""The tables of what is needed of Nova have everything that the code uses of it."""

from __future__ import annotations

import ast
import logging
import pathlib
from collections.abc import Iterator

import pytest

import pcmig_api.needs
from pcmig.nova import needs
from pcmig_common.needs import Need, NotThisNova

ROOT = pathlib.Path(__file__).parents[3]
COMPUTE = [*(ROOT / "pcmig/nova").glob("*.py"), ROOT / "common/pcmig_common/messages.py"]
API = [*(ROOT / "api/pcmig_api").glob("*.py"), ROOT / "common/pcmig_common/messages.py"]
# Nova's packages say where their classes are; the tables name the module.
OBJECTS = "nova.objects."


def used(path: pathlib.Path) -> Iterator[str]:
    """Dotted names of Nova's that the code of PATH uses through its imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nova"
        for alias in node.names
    }
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        names: list[str] = []
        outer: ast.expr = node if isinstance(node, ast.Attribute) and node not in inner else ast.Constant(0)
        while isinstance(outer, ast.Attribute):
            names.insert(0, outer.attr)
            outer = outer.value
        if isinstance(outer, ast.Name) and outer.id in known:
            yield ".".join([known[outer.id], *names])


def covered(name: str, table: tuple[Need, ...]) -> bool:
    """Whether a row is about NAME, or what it is in."""
    rows = {need.where.replace(":", ".") for need in table}
    if name.startswith(OBJECTS):
        ends = [row for row in rows if row.startswith(OBJECTS)]
        wanted = name.removeprefix(OBJECTS)
        return any(f"{row}.".find(f".{wanted}.") > 0 for row in ends)
    return any(f"{row}.".startswith(f"{name}.") or f"{name}.".startswith(f"{row}.") for row in rows)


@pytest.mark.parametrize(
    ("paths", "table", "where"),
    [
        (COMPUTE, needs.TABLE, "pcmig/nova/needs.py"),
        (API, pcmig_api.needs.TABLE, "api/pcmig_api/needs.py"),
    ],
)
def test_every_name_has_a_row(paths: list[pathlib.Path], table: tuple[Need, ...], where: str) -> None:
    names = {name for path in paths for name in used(path)}
    assert len(names) > 20
    # What pcmig has below nova is its own.
    missing = sorted(
        name for name in names if not covered(name, table) and not name.startswith("nova.virt.pcmig.")
    )
    assert not missing, f"give each of these a row in {where}"


def test_what_the_service_s_manager_is_asked_for_has_a_row() -> None:
    """It comes with the driver's virtapi, not with an import."""
    asked = set()
    for path in COMPUTE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("manager"):
                asked.add(node.attr)
    rows = {need.where.rpartition(".")[2] for need in needs.TABLE if "ComputeManager" in need.where}
    assert asked and asked <= rows | {"network_api", "compute_rpcapi", "reportclient", "volume_api"}


def test_nova_compute_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lacks(table: object, what: str) -> str:
        raise NotThisNova(f"{what}: X is not there")

    monkeypatch.setattr(needs, "check", lacks)
    with pytest.raises(SystemExit) as ended:
        needs.start()
    assert ended.value.code == "nova-compute: compute driver: X is not there"
    assert caplog.messages == ["compute driver: X is not there"]


@pytest.mark.parametrize(("version", "lines"), [("34.1.0", 0), ("31.0.0", 0), ("35.0.0", 1)])
def test_a_newer_nova_that_has_it_all_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str, lines: int
) -> None:
    monkeypatch.setattr(needs, "check", lambda table, what: version)
    with caplog.at_level(logging.WARNING):
        needs.start()
    assert len(caplog.messages) == lines
    assert all("has not been tried with Nova 35.0.0" in line for line in caplog.messages)
