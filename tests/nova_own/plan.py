# SPDX-License-Identifier: Apache-2.0
"""Which of Nova's tests are run, and what their results mean. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

DRIVER = "pcmig.nova.driver:PostCopyLibvirtDriver"

# Module -> what a test's name must contain ("" = all of it).
UNIT = {
    "nova.tests.unit.virt.libvirt.test_driver": "",
    "nova.tests.unit.virt.libvirt.test_migration": "",
    "nova.tests.unit.virt.libvirt.test_guest": "",
    "nova.tests.unit.virt.libvirt.test_host": "",
    "nova.tests.unit.virt.libvirt.test_config": "",
    "nova.tests.unit.virt.test_virt_drivers": "",
    "nova.tests.unit.compute.test_compute_mgr": "migrat",
    "nova.tests.unit.compute.test_compute": "live_migration",
    "nova.tests.unit.conductor.tasks.test_live_migrate": "",
}
FUNCTIONAL = {
    "nova.tests.functional.libvirt.test_live_migration": "",
    "nova.tests.functional.libvirt.test_migration_addr": "",
    "nova.tests.functional.libvirt.test_device_bus_migration": "",
}
SETS = {"unit": UNIT, "functional": FUNCTIONAL}

BAD = ("failed", "error", "unexpected success")

# Tests that must fail with another class, and why.
DIFFERENT = {
    "nova.tests.unit.virt.test_virt_drivers.VirtDriverLoaderTestCase.test_load_new_drivers": (
        "it compares the class's name with LibvirtDriver"
    ),
}


@dataclasses.dataclass(frozen=True)
class Result:
    test: str
    outcome: str  # "ok", "skipped", "expected failure", or one of BAD
    reason: str = ""  # the last line of a failure, or why it was skipped


@dataclasses.dataclass(frozen=True)
class Verdict:
    new: list[Result]  # fail with the driver and pass with Nova's own
    different: list[Result]  # likewise, for a reason in DIFFERENT
    shared: list[Result]  # fail with both
    unsteady: list[Result]  # failed at first, and passed with the same driver when run alone


def by_test(lines: Iterable[dict[str, Any]]) -> dict[str, Result]:
    """Results by test. Where one has several (subtests), the worst counts."""
    results: dict[str, Result] = {}
    for line in lines:
        result = Result(str(line["test"]), str(line["outcome"]), str(line.get("reason", "")))
        known = results.get(result.test)
        if known is None or known.outcome not in BAD:
            results[result.test] = result
    return results


def failures(results: dict[str, Result]) -> dict[str, Result]:
    return {test: result for test, result in results.items() if result.outcome in BAD}


def judge(ours: dict[str, Result], again: dict[str, Result], stock: dict[str, Result]) -> Verdict:
    """OURS: all results with the driver. AGAIN and STOCK: its failures once more, with the driver and with
    Nova's own class. A test that is missing there did not pass there."""
    new, different, shared, unsteady = [], [], [], []
    for test, result in failures(ours).items():
        if test in again and again[test].outcome not in BAD:
            unsteady.append(result)
        elif test in stock and stock[test].outcome in BAD:
            shared.append(result)
        elif test in DIFFERENT:
            different.append(dataclasses.replace(result, reason=DIFFERENT[test]))
        else:
            new.append(result)
    return Verdict(new, different, shared, unsteady)
