# SPDX-License-Identifier: Apache-2.0
"""What the runner of Nova's own tests makes of their results."""

from __future__ import annotations

import pytest

from tests.nova_own import plan
from tests.nova_own.plan import Result, Verdict

SKIPPED = Result("m.T.skipped", "skipped", "no reason")
GOOD = Result("m.T.good", "ok")
BAD = Result("m.T.bad", "failed", "1 != 2")
(DIFFERS,) = plan.DIFFERENT


def results(*items: Result) -> dict[str, Result]:
    return {item.test: item for item in items}


def test_all_is_well() -> None:
    assert plan.judge(results(GOOD, SKIPPED), {}, {}) == Verdict([], [], [], [])


def test_a_failure_is_new_unless_it_is_known_to_be_novas() -> None:
    ours = results(GOOD, BAD)
    assert plan.judge(ours, results(BAD), results(Result(BAD.test, "ok"))).new == [BAD]
    assert plan.judge(ours, results(BAD), results(Result(BAD.test, "error"))).shared == [BAD]
    assert plan.judge(ours, {}, {}).new == [BAD]  # not run again: nothing excuses it
    assert plan.judge(ours, results(BAD), results(Result(BAD.test, "skipped"))).new == [BAD]


def test_what_passes_alone_is_unsteady() -> None:
    verdict = plan.judge(results(BAD), results(Result(BAD.test, "ok")), results(Result(BAD.test, "ok")))
    assert verdict == Verdict([], [], [], [BAD])


def test_what_must_differ_says_why() -> None:
    failed = Result(DIFFERS, "failed", "'X' != 'LibvirtDriver'")
    verdict = plan.judge(results(failed), results(failed), results(Result(DIFFERS, "ok")))
    assert verdict.new == []
    assert [result.reason for result in verdict.different] == [plan.DIFFERENT[DIFFERS]]


def test_of_several_results_the_worst_counts() -> None:
    lines = [
        {"test": "a", "outcome": "ok"},
        {"test": "a", "outcome": "failed", "reason": "subtest"},
        {"test": "a", "outcome": "ok"},
    ]
    assert plan.by_test(lines) == {"a": Result("a", "failed", "subtest")}


@pytest.mark.parametrize("name", sorted(plan.SETS))
def test_sets_name_tests_of_nova(name: str) -> None:
    assert plan.SETS[name]
    assert all(module.startswith("nova.tests.") for module in plan.SETS[name])
