# SPDX-License-Identifier: Apache-2.0
"""A real ledger, and what Prometheus reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pcmig import _core
from pcmig.metrics import account
from tests.unit import traces
from tests.unit.cli import fake_core as fake

UUID = fake.UUID


def ledger() -> Mapping[str, Any]:
    """Of a migration that switched in its second pass, and ended in post-copy."""
    return _core.ledger_from_trace(traces.recorded())


def decisions() -> list[dict[str, Any]]:
    return [dict(fake.DECISION), {"action": "set-pace", "reason": "requests"}]


def ended(outcome: str = "completed", **more: Any) -> account.Increments:
    return account.increments(
        **{"policy": "passes=3", "ledger": ledger(), "decisions": decisions(), **more}, outcome=outcome
    )


def status(**changes: Any) -> dict[str, Any]:
    return {**fake.STATUS, **fake.PRECOPY, **changes}


Sample = tuple[str, tuple[tuple[str, str], ...]]


def read(text: str) -> dict[Sample, float]:
    """The samples of TEXT by name and labels. None is there twice."""
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found: dict[Sample, float], name: str, **labels: str) -> float:
    """Of the one sample with NAME that has LABELS, and maybe others."""
    values = [
        number
        for (each, its), number in found.items()
        if each == name and labels.items() <= dict(its).items()
    ]
    assert len(values) == 1, (name, labels, values)
    return values[0]


def names(found: dict[Sample, float]) -> set[str]:
    return {name for name, _ in found}
