# SPDX-License-Identifier: Apache-2.0
"""This Nova has all that is needed, and one that has not gets no driver. Run by tools/test nova-own."""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any

import nova.api.openstack  # first: Nova 32 wants it so  # noqa: F401
import pytest
from nova.virt.libvirt import driver as libvirt_driver

import pcmig_api.needs
from pcmig.nova import driver, guard, needs, planning, recorded, releases
from pcmig_common.needs import NotThisNova, check, missing, nova_version, release_of

OURS = (driver.PostCopyLibvirtDriver, planning.PlanningLibvirtDriver, recorded.RecordedLibvirtDriver)


@pytest.mark.parametrize("table", [needs.TABLE, pcmig_api.needs.TABLE])
def test_nothing_is_missing(table: Any) -> None:
    assert check(table, "test") == nova_version()


def test_what_a_release_lacks_is_told() -> None:
    found = missing(needs.TABLE, 34)
    assert bool(found) is (release_of(nova_version()) < 34)


def test_the_table_has_every_method_that_is_overridden() -> None:
    stock = libvirt_driver.LibvirtDriver
    found = {
        name
        for cls in OURS
        for name, method in vars(cls).items()
        if inspect.isfunction(method) and name in vars(stock) and not hasattr(method, "__wrapped__")
    }
    assert found - set(needs.OVERRIDDEN) == set()
    assert set(needs.OVERRIDDEN) - found <= {"process_instances_at_startup"}


def test_parameters_are_those_of_the_driver() -> None:
    for name, parameters in needs.OVERRIDDEN.items():
        method = getattr(driver.PostCopyLibvirtDriver, name, None)
        if method is None:
            assert name in needs.SINCE
            continue
        ours = list(inspect.signature(method).parameters)[1:]
        assert len(ours) == len(parameters.split()), name
        assert all(a in ("_", b) for a, b in zip(parameters.split(), ours, strict=True)), name


def _base(**more: Any) -> type:
    methods = {name: lambda self, context, instance: None for name in guard.ACTS}
    return type("Base", (), {**methods, **more})


def test_no_driver_without_all_of_its_guards() -> None:
    base = _base()
    assert len(vars(guard.guarded(base)(type("Driver", (base,), {})))) > len(guard.ACTS)
    for name in guard.ACTS:
        base = _base()
        delattr(base, name)
        with pytest.raises(NotThisNova, match=f"Base has no {name}"):
            guard.guarded(base)(type("Driver", (base,), {}))


def test_no_driver_where_a_guarded_call_does_not_say_which_guest() -> None:
    base = _base(destroy=lambda self, context, server: None)
    with pytest.raises(NotThisNova, match="destroy"):
        guard.guarded(base)(type("Driver", (base,), {}))


@pytest.mark.parametrize(
    ("patcher", "threads"),
    [
        (None, True),
        (types.SimpleNamespace(is_monkey_patched=lambda what: False), True),
        (types.SimpleNamespace(is_monkey_patched=lambda what: what == "thread"), False),
    ],
)
def test_threads_are_what_eventlet_has_left_alone(
    monkeypatch: pytest.MonkeyPatch, patcher: Any, threads: bool
) -> None:
    if patcher is None:
        for name in [name for name in sys.modules if name.split(".")[0] == "eventlet"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [_NoEventlet(), *sys.meta_path])
    else:
        monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
    assert releases.threading_mode() is threads
    if threads:
        assert releases.off_hub(lambda: 1) == 1  # in a Nova without eventlet, too


class _NoEventlet:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == "eventlet":
            raise ImportError("No module named eventlet")
