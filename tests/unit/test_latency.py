# SPDX-License-Identifier: Apache-2.0
"""How long requested pages took, in words: the ledger's own figures."""

from __future__ import annotations

from pcmig import _core, accounting, latency
from pcmig.metrics import account
from pcmig.metrics.store import Counts
from tests.unit import traces

COUNTED = {
    "source": "qemu",
    "requests": 166,
    "mean_us": 20033,
    "vcpu_us": 20033,
    "other_us": 0,
    "buckets": [0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 13, 59, 62, 4, 3, 22, *[0] * 7],
}


def test_a_recorded_migration_has_an_estimate() -> None:
    ledger = _core.ledger_from_trace(traces.recorded())
    waited = ledger["latency"]
    assert waited is not None and waited["source"] == "estimated"
    assert waited["requests"] == ledger["totals"]["requests"] > 0
    assert sum(waited["buckets"]) == waited["requests"] and len(waited["buckets"]) == latency.BUCKETS
    (line,) = [line for line in accounting.summary(ledger) if line.startswith("requested pages: ")]
    assert line.endswith("(estimated)") and latency.milliseconds(waited["mean_us"]) in line


def test_words() -> None:
    assert latency.words(COUNTED) == (
        "requested pages: 20 ms on average, half within 16 ms, 99 % within 131 ms (counted by QEMU)"
    )
    assert latency.words(None) is None
    assert latency.words({**COUNTED, "requests": 0, "buckets": [0] * 24}) is None
    assert [latency.milliseconds(us) for us in (80, 1370, 20033)] == ["0.08 ms", "1.4 ms", "20 ms"]
    assert latency.within_us([0] * 24, 500) is None
    assert latency.now_words({"source": "estimated", "mean_us": 5000, "now_us": 7000}) == "~7.0 ms"
    assert latency.now_words({"source": "estimated", "mean_us": 5000, "now_us": None}) == "~5.0 ms"
    assert latency.now_words({"source": "qemu", "mean_us": 20033, "now_us": 7000}) == "20 ms"
    assert latency.now_words(None) is None


def test_nothing_is_said_of_what_took_longer_than_is_counted() -> None:
    """Post-copy was interrupted meanwhile, for example."""
    long = {**COUNTED, "requests": 8, "buckets": [*[0] * 12, 6, *[0] * 10, 2]}
    assert latency.spread(long) == "half within 8.2 ms, 99 % not within 8389 ms"
    longer = {**long, "buckets": [*[0] * 23, 2]}
    assert latency.spread(longer) == "half not within 8389 ms, 99 % not within 8389 ms"


def test_prometheus_has_the_same_buckets() -> None:
    ledger = {**_core.ledger_from_trace(traces.recorded()), "latency": COUNTED}
    counts = Counts.fresh()
    for _ in range(2):
        counts.add(account.increments(outcome="completed", policy="auto", ledger=ledger, decisions=[]))
    histogram = counts.histograms["pcmig_page_request_latency_seconds", ("qemu",)]
    assert histogram.buckets == [2 * count for count in COUNTED["buckets"]]  # type: ignore[attr-defined]
    assert histogram.sum == 2 * 0.020033 * 166
