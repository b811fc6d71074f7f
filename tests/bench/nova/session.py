# SPDX-License-Identifier: Apache-2.0
"""One cloud and one guest that goes to and fro between its hosts, each time by another way."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import time
import types
from typing import Any

from tests.bed import BedError, GuestSpec
from tests.bed.layer import Reporter
from tests.bench.calm import SETTLE_S, Calm, Work, recent_beats
from tests.bench.figures import since
from tests.bench.nova import logs
from tests.bench.nova.figures import pcmig_delays, stock_delays
from tests.bench.nova.ways import TRACES, Way
from tests.bench.switchover import events, machine
from tests.bench.switchover.events import Listeners
from tests.cloud.cloud import MIGRATION_ENDED, PCMIG_DRIVER, Cloud
from tests.cloud.controlplane import in_parallel
from tests.cloud.server import Server
from tests.cloud.service import RUN, outside

SETTLE_PATIENCE_S = 30.0
MIGRATION_PATIENCE_S = 240.0
LOOK_S = 0.2
TAIL_S = 2.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Session:
    """`with Session(...) as session: session.measure(way, 1)`, as often as wanted."""

    def __init__(self, stack: str, rate_mbit: float, spec: GuestSpec, reporter: Reporter) -> None:
        self.spec = spec
        self.reporter = reporter
        self.cloud = Cloud(
            stack, rate_mbit, driver=PCMIG_DRIVER, reporter=reporter
        )  # its wheel is in both hosts
        self._exits = contextlib.ExitStack()
        self._in_force: Way | None = None
        self._guests = 0
        self._calm = Calm(spec.heartbeat_ms, SETTLE_PATIENCE_S)
        self.server: Server
        self.listeners: Listeners

    def __enter__(self) -> Session:
        with contextlib.ExitStack() as exits:
            exits.enter_context(self.cloud)
            for compute in self.cloud.computes.values():
                (outside(compute.host) / pathlib.PurePath(TRACES).relative_to(RUN)).mkdir(exist_ok=True)
            self._guest_exits = exits.enter_context(contextlib.ExitStack())
            self._boot()
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    def measure(self, way: Way, number: int) -> dict[str, Any]:
        """Migrate the guest to the other host; returns raw figures as they go into the JSON. After a
        migration that went wrong there is a new guest."""
        self._use(way)
        settle = self._calm.wait(self.server.log, str(self.server.nova_host))
        cloud, server = self.cloud, self.server
        source = str(server.nova_host)
        target = "b" if source == "a" else "a"
        host, nova = cloud.computes[source].host, cloud.computes[source].nova.pids()[0]
        before = len(cloud.migrations(server))
        errors_before = max((beat.bad for beat in recent_beats(server.log)), default=0)
        log_start = len(cloud.compute_log(source))
        sent, load, cpu = machine.bytes_sent(host), machine.CpuTimes.now(), _cpu_s(nova)
        start_s = time.monotonic()
        clock_s = time.time() - start_s  # what the log's time is ahead of the monotonic clock
        cloud.live_migrate(server, target)
        record = self._wait(target, before, start_s)
        end_s = time.monotonic()
        cpu, shares = _cpu_s(nova) - cpu, machine.CpuTimes.now().shares_since(load)
        sent = machine.bytes_sent(host) - sent
        wait = self.listeners.wait
        complete_s = wait(target, events.COMPLETE, start_s, 5.0)
        stopped_s = wait(source, events.SWITCHED, start_s, 0.0)
        time.sleep(TAIL_S)
        verdict = server.verdict(start_s, complete_s or end_s, TAIL_S)
        beats = server.heartbeats(start_s - SETTLE_S)
        calm = Work.between(beats, start_s - SETTLE_S, start_s)
        during = Work.between(beats, start_s, (complete_s or end_s) + TAIL_S)
        log = cloud.compute_log(source)[log_start:]
        row: dict[str, Any] = {
            "way": way.name,
            "round": number,
            "direction": f"{source}->{target}",
            "status": record.get("status"),
            "complete_s": since(start_s, complete_s),
            "record_s": round(end_s - start_s, 3),
            "stopped_s": since(start_s, stopped_s),
            **self._delays(way, log, clock_s, stopped_s, source, str(record.get("uuid"))),
            "bytes": sent,
            **self._database(record),
            **{f"guest_{key}": value for key, value in dataclasses.asdict(verdict).items()},
            "baseline_pps": round(calm.pps),
            "work_pages": during.pages,
            "work_elapsed_s": round(during.elapsed_s, 3),
            "cpu_s": round(cpu, 3),
            "cpu_percent": round(100 * cpu / (end_s - start_s), 2),
            "settle": settle,
            **shares,
            "events": [[since(start_s, e.time_s), e.host, e.text] for e in self.listeners.since(start_s)],
            "log": [line for line in log.splitlines() if "igration" in line or "post-copy" in line],
        }
        row["error"] = self._error(row, target, errors_before)
        if row["error"]:
            self._replace_guest()
        return row

    def _use(self, way: Way) -> None:
        """Both hosts: a host of another driver at the other end would be a third way."""
        if self._in_force == way:
            return
        in_parallel([functools.partial(self._restart, name, way) for name in self.cloud.computes])
        self._in_force = way

    def _restart(self, name: str, way: Way) -> None:
        self.cloud.restart_compute(name, way.driver, way.nova_conf)

    def _wait(self, target: str, before: int, start_s: float) -> dict[str, Any]:
        """The record once it has ended. Until the guest has arrived it is seldom asked for: the API's CPU
        time is the guest's, too."""
        while time.monotonic() < start_s + MIGRATION_PATIENCE_S:
            moved = self.listeners.wait(target, events.COMPLETE, start_s, 3.0) is not None
            records = self.cloud.migrations(self.server)
            if len(records) > before and records[0]["status"] in MIGRATION_ENDED:
                return records[0]
            if moved:
                time.sleep(LOOK_S)
        return records[0] if len(records) > before else {}

    def _delays(
        self, way: Way, log: str, clock_s: float, stopped_s: float | None, source: str, uuid: str
    ) -> dict[str, Any]:
        stopped_at = None if stopped_s is None else stopped_s + clock_s
        timeout_at = logs.moment(log, logs.TIMEOUT) if way.by_timeout else None
        if way.driver != PCMIG_DRIVER:
            return stock_delays(timeout_at, logs.moment(log, logs.STOCK_SWITCHED), stopped_at)
        trace = self.cloud.computes[source].host.state / TRACES.removeprefix("/") / f"{uuid}.trace"
        switch = logs.switch_of(trace.read_text()) if trace.exists() else None
        found = None if switch is None else dataclasses.asdict(switch)
        return {**pcmig_delays(switch, logs.late_us(log), timeout_at, stopped_at), "trace": found}

    def _database(self, record: dict[str, Any]) -> dict[str, Any]:
        """What the API does not tell; the record's times are of whole seconds."""
        if not record:
            return {}
        rows = self.cloud.nova_db(
            "select memory_processed, timestampdiff(second, created_at, updated_at) as record_whole_s "
            f"from migrations where uuid = '{record['uuid']}'"
        )
        return {key: int(value) if value else None for key, value in rows[0].items()}

    def _error(self, row: dict[str, Any], target: str, errors_before: int) -> str | None:
        """What makes a round worthless."""
        if row["status"] != "completed":
            return f"the migration is {row['status']}: " + next(
                (line[:300] for line in row["log"] if " ERROR " in line), "no error in the log"
            )
        if row["guest_page_errors"] > errors_before:
            return f"{row['guest_page_errors'] - errors_before} pages do not hold what the guest wrote"
        if not row["guest_alive"] or row["guest_host"] != target:
            return f"the guest does not run on host {target}"
        if row["complete_s"] is None:
            return f"host {target} never said {events.COMPLETE!r}"
        if row["switch_ms"] is None:
            return "no switch to post-copy was seen"
        if self.server.nova_host != target or self.server.status != "ACTIVE":
            return f"Nova has the server as {self.server.status} on {self.server.nova_host}"
        return None

    def _boot(self) -> None:
        self._guests += 1
        self.server = self.cloud.boot(dataclasses.replace(self.spec, name=f"{self.spec.name}-{self._guests}"))
        hosts = [compute.host for compute in self.cloud.computes.values()]
        self.listeners = self._guest_exits.enter_context(Listeners(hosts, self.server.domain))

    def _replace_guest(self) -> None:
        self.reporter("a new guest, as nothing can be said of this one")
        self._guest_exits.close()
        with contextlib.suppress(BedError):
            self.cloud.delete(self.server)
        self._boot()


def _cpu_s(pid: int) -> float:
    return logs.cpu_ticks(pathlib.Path(f"/proc/{pid}/stat").read_text()) / TICKS_PER_S
