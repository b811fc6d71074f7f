# SPDX-License-Identifier: Apache-2.0
"""Names, labels and meanings of all figures: tables, and nothing else.

Each figure has the label `program` beside those here: the command and nova-compute count apart, and
node_exporter does not take the same figure from two files.
"""

from __future__ import annotations

from typing import NamedTuple

from pcmig_common import phases

PROGRAM = "program"
COMMAND, NOVA = "pcmig", "nova-compute"
PROGRAMS = (COMMAND, NOVA)

OUTCOMES = ("completed", "failed", "needs-operator")
MODES = ("precopy", "postcopy", "none")
PHASES = tuple(name for name in phases.PHASES if name != "finished")
GUEST = ("domain", "instance_uuid")


class Family(NamedTuple):
    """`known` are the values of `labels` that are there from the start, with 0: Prometheus sees no increase
    from nothing to 1."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds of a histogram, without the infinite one


# Counters: added up once for each ended migration.
COUNTERS = (
    Family(
        "pcmig_migrations_total",
        "Migrations that have ended",
        ("outcome", "mode"),
        tuple((outcome, mode) for outcome in OUTCOMES for mode in MODES),
    ),
    Family("pcmig_switches_total", "Switches to post-copy, by what decided them", ("policy", "reason")),
    Family("pcmig_page_requests_total", "Pages that guests asked for in post-copy", (), ((),)),
    Family(
        "pcmig_sent_bytes_total",
        "What went over the wire for memory, as the ledgers have it",
        ("phase",),
        tuple((phase,) for phase in PHASES),
    ),
    Family(
        "pcmig_phase_seconds_total",
        "Time that migrations were in each phase",
        ("phase",),
        tuple((phase,) for phase in PHASES),
    ),
    Family("pcmig_interruptions_total", "How often post-copy was interrupted", (), ((),)),
    Family(
        "pcmig_resumes_total",
        "What became of interruptions",
        ("result",),
        (("resumed",), ("not-resumed",)),
    ),
)

HISTOGRAMS = (
    Family(
        "pcmig_guest_silence_seconds",
        "How long the guest ran nowhere at its switch, as both hosts' events told",
        ("mode",),
        (("precopy",), ("postcopy",)),
        (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
    ),
    Family(
        "pcmig_page_request_latency_seconds",
        "How long pages took that the guest asked for in post-copy",
        ("source",),
        (("estimated",), ("qemu",)),
        tuple(2.0**n / 1e6 for n in range(1, 24)),  # as QEMU counts them: element n is below 2^(n+1) us
    ),
    Family(
        "pcmig_migration_duration_seconds",
        "From the migrate call to the end",
        ("outcome", "mode"),
        (("completed", "precopy"), ("completed", "postcopy")),
        (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0),
    ),
    Family(
        "pcmig_gate_wait_seconds",
        "How long a switch that was decided waited for its gate: the guest's ports at the destination",
        (),
        ((),),
        (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0),
    ),
    Family(
        "pcmig_port_activation_seconds",
        "From the guest's stop at the source until Neutron had all its ports bound to the destination",
        (),
        ((),),
        (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
    ),
)


class Live(NamedTuple):
    """A gauge of one migration that runs: `key` of its row (live.py)."""

    key: str
    name: str
    meaning: str


LIVE = (
    Live("total_bytes", "pcmig_migration_data_total_bytes", "Memory and copied disks of the guest"),
    Live("processed_bytes", "pcmig_migration_data_processed_bytes", "What of them was transferred"),
    Live("remaining_bytes", "pcmig_migration_data_remaining_bytes", "What of them is yet to be transferred"),
    Live("dirty_bytes_ps", "pcmig_migration_dirty_bytes_per_second", "What the guest writes at the source"),
    Live("sent_bytes_ps", "pcmig_migration_sent_bytes_per_second", "What goes over the wire for memory"),
    Live("passes", "pcmig_migration_passes", "Completed passes over the guest's memory"),
    Live("requests", "pcmig_migration_page_requests", "Pages that the guest asked for so far"),
    Live("requests_ps", "pcmig_migration_page_requests_per_second", "Pages that the guest asks for"),
    Live(
        "latency_s",
        "pcmig_migration_page_request_latency_seconds",
        "What a page that the guest asks for now takes, as estimated",
    ),
    Live("pace_bytes_ps", "pcmig_migration_pace_bytes_per_second", "Bound of the pages nobody asked for"),
    Live("queue_bytes", "pcmig_migration_queue_bytes", "Sent, and not yet acknowledged by the destination"),
    Live("elapsed_s", "pcmig_migration_elapsed_seconds", "Since its start"),
    Live("eta_s", "pcmig_migration_eta_seconds", "Until its end, the most of it, as far as that can be told"),
)
