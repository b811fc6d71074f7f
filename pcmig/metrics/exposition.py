# SPDX-License-Identifier: Apache-2.0
"""Figures as Prometheus reads them. Needs the library `prometheus-client`, wherever it makes something."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pcmig.metrics.families import COUNTERS, GUEST, HISTOGRAMS, LIVE, PHASES, PROGRAM, Family
from pcmig.metrics.store import Counts, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

MISSING = (
    "metrics need the Python library prometheus-client ({}): pip install prometheus-client, or apt-get "
    "install python3-prometheus-client"
)

INFINITE = "+Inf"
# Words on a migration that runs, labels of pcmig_migration_info.
INFO = ("phase", "outlook", "policy", "destination")


@dataclasses.dataclass
class View:
    """What there is to tell of one program's migrations at one moment."""

    program: str
    counts: Counts
    rows: list[Mapping[str, Any]]  # of those that somebody follows (live.py), maybe with another version
    unattended: int  # on record, and nobody follows them
    interrupted: int  # of those
    half_lost: int
    resume_impossible: int
    written_s: float  # when this was so, since 1970


def registry(families: Callable[[], Iterable[Metric]]) -> CollectorRegistry:
    """One with FAMILIES, which are asked for each time. Raises ImportError without the library."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    class Figures(Collector):
        def collect(self) -> Iterable[Metric]:
            return families()

    found = CollectorRegistry(auto_describe=False)
    found.register(Figures())
    return found


def text(families: Callable[[], Iterable[Metric]]) -> str:
    """FAMILIES in the text format of Prometheus, the only one that node_exporter's textfile collector reads.
    Raises ImportError without the library."""
    from prometheus_client import generate_latest

    return generate_latest(registry(families)).decode()


def families(views: list[View]) -> Iterator[Metric]:
    """Each family once, with what all VIEWS have of it."""
    yield from _build_info(views)
    for family in COUNTERS:
        yield _counter(family, views)
    for family in HISTOGRAMS:
        yield _histogram(family, views)
    yield from _gauges(views)
    yield from _live(views)


def _build_info(views: list[View]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    try:
        version = metadata.version("pcmig")
    except metadata.PackageNotFoundError:
        version = "unknown"
    found = GaugeMetricFamily("pcmig_build_info", "Always 1", labels=[PROGRAM, "version"])
    for view in views:
        found.add_metric([view.program, version], 1)
    yield found


def _keys(family: Family, there: Iterable[tuple[str, tuple[str, ...]]]) -> list[tuple[str, ...]]:
    return sorted({*family.known, *(labels for name, labels in there if name == family.name)})


def _counter(family: Family, views: list[View]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    found = CounterMetricFamily(family.name, family.meaning, labels=[PROGRAM, *family.labels])
    for view in views:
        for labels in _keys(family, view.counts.counters):
            found.add_metric([view.program, *labels], view.counts.counters.get((family.name, labels), 0))
    return found


def _histogram(family: Family, views: list[View]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    found = HistogramMetricFamily(family.name, family.meaning, labels=[PROGRAM, *family.labels])
    bounds = [*map(str, family.buckets), INFINITE]
    for view in views:
        for labels in _keys(family, view.counts.histograms):
            histogram = view.counts.histograms.get((family.name, labels)) or Histogram([0] * len(bounds))
            below, buckets = 0, []
            for bound, count in zip(bounds, histogram.buckets, strict=True):
                below += count
                buckets.append((bound, below))
            found.add_metric([view.program, *labels], buckets, histogram.sum)
    return found


def _gauges(views: list[View]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    running = GaugeMetricFamily(
        "pcmig_migrations_running", "Migrations that run, by phase", labels=[PROGRAM, "phase"]
    )
    for view in views:
        phases = collections.Counter(str(row.get("phase")) for row in view.rows)
        for phase in PHASES:
            running.add_metric([view.program, phase], phases[phase])
    yield running

    def gauge(name: str, meaning: str, value: Callable[[View], float]) -> Metric:
        found = GaugeMetricFamily(name, meaning, labels=[PROGRAM])
        for view in views:
            found.add_metric([view.program], value(view))
        return found

    yield gauge(
        "pcmig_interrupted",
        "Migrations whose post-copy is interrupted: the guest waits",
        lambda view: sum(bool(row.get("interrupted")) for row in view.rows) + view.interrupted,
    )
    yield gauge(
        "pcmig_half_lost",
        "Migrations of whose guest a half is gone, and memory with it",
        lambda view: view.half_lost,
    )
    yield gauge(
        "pcmig_resume_impossible",
        "Interrupted migrations that this libvirt cannot resume",
        lambda view: sum(bool(row.get("resume_impossible")) for row in view.rows) + view.resume_impossible,
    )
    yield gauge(
        "pcmig_unattended",
        "Migrations on record that nobody looks after: pcmig status says what to type",
        lambda view: view.unattended,
    )
    yield gauge(
        "pcmig_counting_since_timestamp_seconds",
        "When counters and histograms began",
        lambda view: view.counts.since_s,
    )
    yield gauge(
        "pcmig_metrics_written_timestamp_seconds",
        "When these figures were taken",
        lambda view: view.written_s,
    )


def _live(views: list[View]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    info = GaugeMetricFamily(
        "pcmig_migration_info",
        "1 for each migration that runs",
        labels=[PROGRAM, *GUEST, *INFO],
    )
    rows = [(view.program, row) for view in views for row in view.rows]
    for program, row in rows:
        words = [str(row.get(name, "")) for name in (*GUEST, *INFO)]
        info.add_metric([program, *words], 1)
    yield info
    for live in LIVE:
        found = GaugeMetricFamily(live.name, live.meaning, labels=[PROGRAM, *GUEST])
        for program, row in rows:
            if isinstance(value := row.get(live.key), (int, float)):
                found.add_metric([program, *(str(row.get(name, "")) for name in GUEST)], value)
        yield found
