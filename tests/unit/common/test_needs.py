# SPDX-License-Identifier: Apache-2.0
"""What is missing of a Nova, told by name; here a few classes play Nova."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from pcmig_common import needs
from pcmig_common.needs import NotThisNova, called, guarded, mentions, overridden, replaced, there

WHERE = "nova_of_a_test.virt:Driver"


class Base:
    def destroy(self, context: Any, instance: Any, network_info: Any) -> None:
        self._undefine_domain(instance)

    def _undefine_domain(self, instance: Any) -> None: ...

    def _migrate(self, context: Any, instance: Any, future: Any) -> None: ...

    @staticmethod
    def status(migration: Any, status: str) -> None: ...


class Renamed:
    """A Nova in which one method has another name, and is called by it."""

    def destroy(self, context: Any, instance: Any, network_info: Any) -> None:
        self._remove_domain(instance)

    def _remove_domain(self, instance: Any) -> None: ...

    _migrate = Base._migrate
    status = staticmethod(Base.status)


@pytest.fixture
def nova() -> Iterator[types.ModuleType]:
    module = types.ModuleType("nova_of_a_test.virt")
    sys.modules["nova_of_a_test"] = types.ModuleType("nova_of_a_test")
    sys.modules["nova_of_a_test.virt"] = module
    module.Driver = Base  # type: ignore[attr-defined]
    yield module
    del sys.modules["nova_of_a_test.virt"], sys.modules["nova_of_a_test"]


TABLE = (
    guarded(f"{WHERE}.destroy"),
    guarded(f"{WHERE}._undefine_domain"),
    mentions(f"{WHERE}.destroy", "_undefine_domain"),
    overridden(f"{WHERE}._migrate", "context instance _"),
    called(f"{WHERE}.status", "migration status"),
    called(f"{WHERE}.status", "migration status="),
    replaced(f"{WHERE}._migrate", "context instance future more"),
    there("nova_of_a_test.virt"),
)


def test_nothing_is_missing(nova: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs.missing(TABLE, 34) == []
    monkeypatch.setattr(needs, "nova_version", lambda: "34.0.0")
    assert needs.check(TABLE, "compute driver") == "34.0.0"


def test_a_renamed_method_is_no_silent_loss(nova: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    nova.Driver = Renamed  # type: ignore[attr-defined]
    assert needs.missing(TABLE, 35) == [
        f"{WHERE.replace(':', '.')}._undefine_domain is not there (is guarded)",
        f"{WHERE.replace(':', '.')}.destroy does not use _undefine_domain (has to use _undefine_domain)",
    ]
    monkeypatch.setattr(needs, "nova_version", lambda: "35.0.0")
    with pytest.raises(NotThisNova) as caught:
        needs.check(TABLE, "compute driver")
    assert str(caught.value) == (
        "pcmig's compute driver does not start with Nova 35.0.0: nova_of_a_test.virt.Driver._undefine_domain "
        "is not there (is guarded); nova_of_a_test.virt.Driver.destroy does not use _undefine_domain (has to "
        "use _undefine_domain). It is made for Nova 31 to 34: use one of these, or a pcmig that is made for "
        "this one"
    )


@pytest.mark.parametrize(
    ("need", "wrong"),
    [
        (
            overridden(f"{WHERE}._migrate", "context instance"),
            "has parameters (context, instance, future) instead of (context, instance)",
        ),
        (
            overridden(f"{WHERE}._migrate", "instance context _"),
            "has parameters (context, instance, future) instead of (instance, context, _)",
        ),
        (guarded(f"{WHERE}._migrate", "server"), "has no parameter server"),
        (guarded(f"{WHERE}.__name__"), "is no method"),
        (called(f"{WHERE}.status", "self migration status"), "too many positional arguments"),
        (called(f"{WHERE}.status", "migration"), "missing a required argument: 'status'"),
        (called(f"{WHERE}.status", "migration state="), "missing a required argument: 'status'"),
        (replaced(f"{WHERE}._migrate", "context instance"), "has parameters that are not known: future"),
        (mentions(f"{WHERE}.destroy", "_host"), "does not use _host"),
        (there(f"{WHERE}.gone.further"), "is not there"),
        (there("nova_of_a_test.gone:X"), "cannot be imported (No module named 'nova_of_a_test.gone'"),
    ],
)
def test_what_is_wrong(nova: types.ModuleType, need: needs.Need, wrong: str) -> None:
    (found,) = needs.missing([need], 34)
    assert wrong in found and found.startswith(need.where.partition(":")[0])


def test_what_came_later_is_wanted_since_then(nova: types.ModuleType) -> None:
    table = (there(f"{WHERE}.later", since=34),)
    assert needs.missing(table, 33) == []
    assert needs.missing(table, 34) and needs.missing(table, 35)


def test_many_are_counted(nova: types.ModuleType) -> None:
    table = [there(f"{WHERE}.gone_{number}") for number in range(9)]
    with pytest.raises(NotThisNova, match=r"gone_2 is not there \(is used\); and 6 more\. It is made for"):
        needs.check(table, "filter")


@pytest.mark.parametrize(
    ("version", "release"), [("34.0.0", 34), ("35.0.0.0rc1", 35), ("of unknown version", needs.NEWEST)]
)
def test_release(version: str, release: int) -> None:
    assert needs.release_of(version) == release
