# SPDX-License-Identifier: Apache-2.0
"""One live migration that the C engine drives inside nova-compute.

Nova runs a live migration on two threads: the operation, which sits in the migrate call, and the monitor,
which looks after it. Here the operation hands the call to the engine and waits, and the monitor follows the
engine: saves the record's status before the switch, saves statistics as Nova does, carries out timeouts,
and tells Nova the outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from nova import exception
from nova.conf import CONF
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import migration as libvirt_migrate
from oslo_log import log as logging

from pcmig import _core, accounting
from pcmig.metrics import live
from pcmig.nova import acknowledgements, interruption, notifications, progress, releases, waking
from pcmig.nova.flags import BITS
from pcmig.nova.keeping import Keeping
from pcmig.nova.ports import Ports
from pcmig.nova.way import Way
from pcmig.tunnel.client import TunnelError
from pcmig.tunnel.passage import Passage
from pcmig_common import phases
from pcmig_common.i18n import _

LOG = logging.getLogger(__name__)

RUNNING = "running"
# Nova's name for it; its event handler activates the port bindings of a record with this status
# (nova/compute/manager.py, handle_lifecycle_event).
POST_COPY = "running (post-copy)"

# How often Nova looks after a migration, and the least it waits between two saves before 34.0.0, which has an
# option for it.
LOOK_S = 0.5
SAVE_S = 5
LOG_INFO_S = 30
# After a switch whose status could not be saved, before it is asked for again.
SWITCH_AGAIN_S = 10.0


class PostCopyInterrupted(exception.MigrationError):  # type: ignore[misc]  # Nova has no types
    """Neither host has the whole guest, or nobody can tell: only an operator can decide. Its cause is what
    they are told."""

    msg_fmt = _("The live migration of the server cannot be completed without an operator.")


@dataclasses.dataclass(frozen=True)
class Orders:
    """What the engine is told about one migration besides Nova's own migrate call."""

    source_uri: str
    policy: str
    params: dict[str, int]
    postcopy_bandwidth_mib: int
    connect_timeout_ms: int
    trace_path: str | None
    resume_uris: tuple[str, ...] = ()
    count_faults: bool = False
    # Called with the guest's UUID, the destination's URI, the engine's arguments and the way through the
    # tunnel before anything begins.
    note: Callable[[str, str, dict[str, Any], Passage | None], None] = lambda *_: None
    way: Way | None = None  # through the tunnel
    # Called with the UUID of the destination's host, which the engine asks for before it begins.
    dest_host: Callable[[str], None] = lambda _: None
    # Called once the switch to post-copy was issued: from then on the source's memory may be the older.
    crossed: Callable[[], None] = lambda: None
    keeping: Keeping | None = None  # keeps its ledger
    # Has the destination's nova-compute look whether QEMU there has missed that its stream is dead.
    wake: Callable[[], None] = lambda: None
    # Called once with what names the migration for ever, this side of it and the engine's last status.
    ended: Callable[[str, Steered, Any], None] = lambda *_: None
    # Called with what names it and how many seconds it took to bind the guest's ports to the destination.
    activated: Callable[[str, float], None] = lambda *_: None


class Steered:
    """The engine's side of one live migration, shared by Nova's threads."""

    def __init__(self, orders: Orders, instance: Any, ports: Ports | None = None) -> None:
        self.ports = ports  # the guest's, at the destination
        self._orders = orders
        self._instance = instance
        self._lock = threading.Lock()
        self._ended = threading.Event()  # the monitor has seen the outcome, or given up
        self._wanted: list[Callable[[_core.Migration], None]] = []  # asked for before the engine was there
        self.engine: _core.Migration | None = None
        self.abort_asked = False
        self.detached = False
        self.passage: Passage | None = None  # through the tunnel
        self.gives_way: Any = None  # turning.Request: the guest is to turn back, and the engine to let it be

    def stand_in(self, guest: Any) -> StandIn:
        """GUEST, but for migrate()."""
        return StandIn(guest, self)

    def migrate(
        self,
        destination: str,
        *,
        domain: str,
        migrate_uri: str | None = None,
        migrate_disks: list[str] | None = None,
        destination_xml: str | None = None,
        flags: int = 0,
        bandwidth: int = 0,
        parallel: int = 0,
    ) -> None:
        """What nova.virt.libvirt.guest.Guest.migrate does, by the engine; returns when the monitor is done.

        Does not raise for a migration that failed: the monitor tells Nova.
        """
        if not migrate_disks:
            # Without a list libvirt would copy every writable disk, volumes included (Guest.migrate).
            flags &= ~BITS["VIR_MIGRATE_NON_SHARED_INC"]
        arguments: dict[str, Any] = {
            "flags": flags,
            "migrate_uri": migrate_uri,
            "policy": self._orders.policy,
            "params": self._orders.params,
            "bandwidth_mib": bandwidth,
            "postcopy_bandwidth_mib": self._orders.postcopy_bandwidth_mib,
            "disks": migrate_disks or None,
            "dest_xml": destination_xml,
            "persist_xml": destination_xml,
            "parallel_connections": parallel if flags & BITS["VIR_MIGRATE_PARALLEL"] else 0,
            "connect_timeout_ms": self._orders.connect_timeout_ms,
            # libvirtd reaches it with keys of its own (qemu+ssh), which nova-compute need not have.
            "destination_optional": True,
            "recover": True,
            "resume_uris": list(self._orders.resume_uris),
            # In no journal where it was not asked for: an older pcmig knows nothing of it.
            **({"count_faults": True} if self._orders.count_faults else {}),
        }
        if self._orders.way is not None:
            copies = bool(flags & (BITS["VIR_MIGRATE_NON_SHARED_INC"] | BITS["VIR_MIGRATE_NON_SHARED_DISK"]))
            self.passage = self._open(self._orders.way, destination, migrate_uri, disks=copies)
            arguments |= self.passage.arguments() | {"resume_uris": []}
        try:
            self._orders.note(domain, destination, arguments, self.passage)
            self._begins(domain, destination, arguments)
            self._start(
                _core.Migration(
                    domain,
                    destination,
                    source_uri=self._orders.source_uri,
                    trace_path=self._orders.trace_path,
                    gate=True,
                    **arguments,
                )
            )
        except BaseException:
            if self.passage is not None:
                self.passage.close()
            raise
        self._ended.wait()

    def _open(self, way: Way, destination: str, migrate_uri: str | None, *, disks: bool) -> Passage:
        try:
            passage = way.open(destination, migrate_uri, disks=disks)
        except TunnelError as err:
            raise exception.MigrationError(reason=str(err)) from err
        LOG.info(
            "Live migration goes through pcmig's tunnel to %(peer)s",
            {"peer": passage.names.peer},
            instance=self._instance,
        )
        return passage

    def leave_tunnel(self) -> None:
        """The guest's fate is settled: nothing goes through the tunnel any more."""
        if self.passage is None:
            return
        try:
            for line in accounting.tunnel_lines(self._carried):
                LOG.info("Live migration: %(what)s", {"what": line}, instance=self._instance)
        except Exception as err:  # of a daemon of another release
            LOG.warning("What went through the tunnel is not told: %s", err, instance=self._instance)
        try:
            self.passage.close()
        except Exception as err:  # the daemon drops in time what nobody uses
            LOG.warning("The way through the tunnel stays open: %s", err, instance=self._instance)

    @functools.cached_property
    def _carried(self) -> dict[str, Any] | None:
        """What went through the tunnel until the end, which the daemon is asked for once."""
        try:
            return None if self.passage is None else self.passage.accounting()
        except Exception as err:  # figures are not worth the migration
            LOG.warning("What went through the tunnel is not known: %s", err, instance=self._instance)
            return None

    def adopt(
        self,
        uuid: str,
        destination: str,
        arguments: dict[str, Any],
        tunnel: dict[str, Any] | None = None,
        crossed: bool = False,
    ) -> _core.Migration:
        """Looks after a migration that is there, or was, with the ARGUMENTS and the way through the tunnel
        that were noted for it, and whether the switch had been issued."""
        # What is not known there is known now: networks may have been added.
        arguments = arguments | {"resume_uris": list(self._orders.resume_uris), "recover": True}
        # What an older version has noted may name parameters that are there no more.
        noted = arguments.get("params") or {}
        arguments["params"] = {name: noted[name] for name in noted if _core.gone_param(name) is None}
        if tunnel is not None:
            arguments["resume_uris"] = []  # they go around it
            self.passage = Passage.of_entry(tunnel)
            self.passage.keep()
        engine = _core.Migration(
            uuid,
            destination,
            source_uri=self._orders.source_uri,
            gate=True,
            adopt=True,
            crossed=crossed,
            **arguments,
        )
        self._begins(uuid, destination, arguments)
        self._start(engine)
        return engine

    def _begins(self, uuid: str, destination: str, arguments: dict[str, Any]) -> None:
        """Its ledger will be kept."""
        if self._orders.keeping is not None:
            self._orders.keeping.begin(uuid, self._orders.source_uri, destination, arguments)

    def look(self, status: Any) -> None:
        """Another STATUS of the engine's."""
        if self._orders.keeping is not None:
            self._orders.keeping.look(status)

    def keep(self, engine: _core.Migration, status: Any) -> None:
        """It has ended: its ledger is kept."""
        if self._orders.keeping is not None:
            # One that is left to libvirt hands on nothing that could wait, and the process may end before
            # another thread has written it.
            self._orders.keeping.end(engine, status, self._carried, at_once=self.detached)

    def note_dest_host(self, uuid: str) -> None:
        """The destination's host has this UUID."""
        self._orders.dest_host(uuid)

    def wake(self) -> None:
        """Post-copy is interrupted, and the destination may not have noticed."""
        self._orders.wake()

    def note_crossed(self) -> None:
        """The switch was issued."""
        self._orders.crossed()

    def detach(self) -> None:
        """Leaves the migration to libvirt, and to the next who adopts it."""
        self.detached = True
        self._ask(lambda engine: engine.detach())

    def give_way(self, said: Any) -> bool:
        """Leaves an interrupted migration to whoever turns the guest back; whether there is one to leave."""
        engine = self.engine
        if engine is None or self.gives_way is not None or engine.status()["phase"] not in phases.POSTCOPY:
            return False
        self.gives_way = said
        engine.detach()
        return True

    def _start(self, engine: _core.Migration) -> None:
        engine.start()
        with self._lock:
            self.engine = engine
            wanted, self._wanted = self._wanted, []
        for ask in wanted:
            ask(engine)

    def end(self) -> None:
        """Lets migrate() return."""
        self._ended.set()

    def switch(self) -> None:
        """Post-copy now, or as soon as the engine is there."""
        self._ask(lambda engine: engine.switch())

    def force(self) -> None:
        """The same, by somebody's word: it waits for no port."""
        if self.ports is not None:
            self.ports.force()
        self.switch()

    def abort(self) -> None:
        """Cancels as long as the guest runs at the source."""
        self.abort_asked = True
        self._ask(lambda engine: engine.abort())

    def progress(self) -> dict[str, Any] | None:
        """How far it is, from any thread; None before the engine is there."""
        engine = self.engine
        if engine is None:
            return None
        page_bytes = engine.ledger()["totals"]["page_size_bytes"]
        return progress.progress(engine.status(), engine.decisions(), self._orders.policy, page_bytes)

    def figures(self, dest_uri: str) -> live.Row | None:
        """The same for Prometheus, of a guest that goes to DEST_URI."""
        engine = self.engine
        if engine is None:
            return None
        return live.row(
            name=str(self._instance.name),
            uuid=str(self._instance.uuid),
            dest_uri=dest_uri,
            policy=self.policy,
            status=engine.status(),
            page_bytes=engine.ledger()["totals"]["page_size_bytes"],
        )

    @property
    def policy(self) -> str:
        """When it switches."""
        return self._orders.policy

    def note_ended(self, migration: str, status: Any) -> None:
        """STATUS is the engine's last."""
        self._orders.ended(migration, self, status)

    def note_activated(self, migration: str, seconds: float) -> None:
        """The guest's ports are bound to the destination."""
        self._orders.activated(migration, seconds)

    def _ask(self, ask: Callable[[_core.Migration], None]) -> None:
        with self._lock:
            if self.engine is None:
                self._wanted.append(ask)
                return
            engine = self.engine
        ask(engine)


class Plan:
    """One live migration: the flags it gets, and the engine's side of it where the engine drives it."""

    def __init__(self, bits: int, steered: Steered | None, reason: str) -> None:
        self.flags = bits
        self.steered = steered
        self.reason = reason  # as pcmig_common.choice gives it
        self.way_back: dict[str, str] | None = None  # what it would cost (pcmig.turn_back_cost)


class StandIn:
    """A nova.virt.libvirt.guest.Guest whose migrate() is done by the engine."""

    def __init__(self, guest: Any, steered: Steered) -> None:
        self._guest = guest
        self._steered = steered

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def migrate(self, destination: str, **kwargs: Any) -> None:
        self._steered.migrate(destination, domain=self._guest.uuid, **kwargs)


class Monitor:
    """Follows the engine on Nova's monitor thread."""

    def __init__(
        self,
        steered: Steered,
        context: Any,
        instance: Any,
        guest: Any,
        record: Any,
        data_gb: int,
        *,
        crossed: bool = False,  # before it was adopted
    ) -> None:
        self._steered = steered
        self._instance = instance
        self._guest = guest
        self._record = record  # nova.objects.Migration
        self._data_gb = data_gb
        self._steps = list(libvirt_migrate.downtime_steps(data_gb))
        self._downtime: int | None = None
        self._start_s = time.monotonic()
        self._looked_s = self._saved_s = float("-inf")
        self._told_s = 0.0
        self._decisions = 0
        self._dest_host = False  # is noted
        self._crossed = False
        self._switch_told = False
        self._opened = False  # the gate, as far as the engine has not said so itself
        self._waits_for: str | None = None
        self._timeout_done = False
        self._switch_again_s = float("inf")  # when one that was put off is asked for again
        self._save_failed = False
        self._interruption = interruption.Interruption(
            context, instance, record, self._save_status, POST_COPY
        )
        self._notifications = notifications.Notifications(
            context, instance, str(record.source_compute), crossed=crossed
        )
        self._acknowledgements = acknowledgements.Acknowledgements(instance)
        self._waking = waking.Waking(steered.wake)

    def wait_for_engine(self, operation: Any) -> _core.Migration | None:
        """The engine once the operation has made it, or None when the operation ended without."""
        while True:
            ended = releases.operation_done(operation)
            engine = self._steered.engine  # after `ended`: an engine made in between is seen
            if engine is not None or ended:
                return engine
            time.sleep(0.02)

    def follow(self, engine: _core.Migration) -> dict[str, Any]:
        """Looks after the migration until its outcome; the last status."""
        if self._steered.ports is not None:
            self._steered.ports.activated = functools.partial(
                self._steered.note_activated, str(self._record.uuid)
            )
            self._steered.ports.start(engine)
        try:
            return self._follow(engine)
        finally:
            if self._steered.ports is not None:
                self._steered.ports.end()
            self._acknowledgements.end()

    def _follow(self, engine: _core.Migration) -> dict[str, Any]:
        while True:
            engine.clear()
            status = engine.status()
            self._steered.look(status)
            if status["dest_host"] and not self._dest_host:
                self._dest_host = True
                self._steered.note_dest_host(status["dest_host"])
            if status["crossed"] and not self._crossed:
                self._crossed = True
                self._steered.note_crossed()
            self._tell_decisions(engine)
            self._tell_switch(status)
            self._tell_turn(status)
            self._keep_record(engine, status)
            self._interruption.look(status)
            self._notifications.look(status)
            self._acknowledgements.look(status)
            self._waking.look(status)
            # The way is needed again, or not yet: the tunnel's daemon may have been restarted meanwhile.
            idle = status["recovery"] or status["turn"] == "waiting"
            if self._steered.passage is not None and idle and status["outcome"] is None:
                self._steered.passage.keep()
            if status["outcome"] is not None:
                self._interruption.end()
                self._steered.keep(engine, status)
                if status["outcome"] in ("completed", "failed"):
                    self._steered.leave_tunnel()
                self._save(status)
                self._steered.note_ended(str(self._record.uuid), status)
                return dict(status)
            now_s = time.monotonic()
            if now_s - self._looked_s >= LOOK_S:
                self._looked_s = now_s
                self._look(engine, status, now_s)
            patience_s = max(0.0, self._looked_s + LOOK_S - time.monotonic())
            if self._steered.ports is not None:
                patience_s = min(patience_s, self._steered.ports.patience_s(status, patience_s))
            releases.wait_readable(engine.fileno(), patience_s)

    def _tell_decisions(self, engine: _core.Migration) -> None:
        decisions = engine.decisions(first=self._decisions)
        for decision in decisions:
            level = LOG.debug if decision["action"] == "set-pace" else LOG.info
            level(
                "Live migration: %(action)s: %(why)s",
                {"action": decision["action"], "why": decision["text"]},
                instance=self._instance,
            )
        self._decisions += len(decisions)

    def _tell_switch(self, status: Any) -> None:
        if self._switch_told or status["switch_late_us"] is None:
            return
        self._switch_told = True
        LOG.info(
            "Live migration: switched to post-copy, %(late)d us after the decision",
            {"late": status["switch_late_us"]},
            instance=self._instance,
        )

    def _tell_turn(self, status: Any) -> None:
        """Which other migration of the host goes first; while the call waits nothing else is to be seen."""
        if status["turn"] == "waiting":
            self._start_s = time.monotonic()  # Nova's timeouts are for a migration that has begun
        if status["waits_for"] == self._waits_for:
            return
        self._waits_for = status["waits_for"]
        if self._waits_for is None:
            LOG.info("Live migration waits for no other any more", instance=self._instance)
        else:
            LOG.info(
                "Live migration waits for %(other)s", {"other": self._waits_for}, instance=self._instance
            )

    def _answer(self, status: Any) -> str:
        """What to answer the gate, as far as the guest's ports go (pcmig.ports.waiting)."""
        if self._steered.ports is not None:
            return self._steered.ports.answer(status)
        return "open" if status["gate"] == "wanted" else "none"

    def _open_gate(self, engine: _core.Migration) -> None:
        saved = self._save_status(POST_COPY)
        answer = engine.open_gate if saved else engine.refuse_gate
        # The engine does not want one again by itself that was refused, whoever it was that wanted it.
        self._switch_again_s = float("inf") if saved else time.monotonic() + SWITCH_AGAIN_S
        self._opened = saved
        self._interruption.switched()
        with contextlib.suppress(_core.Error):  # it ended meanwhile
            answer()

    def _keep_record(self, engine: _core.Migration, status: Any) -> None:
        """Saves the status before the switch, and puts it back when there was none."""
        # The engine has closed the gate again, or left it closed, for another guest's turn. It wants it again
        # when its own comes; until then an early answer would say for all that time that it switches.
        put_off = status["gate"] == "closed" and status["turn"] in ("held", "bounded", "waiting")
        if put_off or status["gate"] in ("open", "refused"):
            self._opened = False
        answer = self._answer(status | {"gate": "none"} if put_off else status)
        if answer == "open":
            self._open_gate(engine)
        elif answer != "none":
            self._opened = False
            # "again": it was refused for a port that forwards by now.
            ask = {"close": engine.refuse_gate, "again": engine.switch, "abort": self._steered.abort}
            with contextlib.suppress(_core.Error):  # it ended meanwhile
                ask[answer]()
        elif (
            self._record.status == POST_COPY
            and status["phase"] == "precopy"
            and status["gate"] != "open"
            and not self._opened
            and status["outcome"] is None
        ):
            self._save_status(RUNNING)
        elif (
            status["phase"] in phases.POSTCOPY
            and self._record.status == RUNNING
            and status["recovery"] is None
            and status["outcome"] is None
            and time.monotonic() - self._looked_s >= LOOK_S
        ):
            # Adopted after the switch, which nobody could write down.
            self._save_status(POST_COPY)

    def _save_status(self, status: str) -> bool:
        before = self._record.status
        self._record.status = status
        try:
            self._record.save()
        except (
            Exception
        ):  # the conductor, its database or the bus between: all of them, and no migration ends by it
            LOG.exception(
                "Cannot save status '%(status)s' of live migration %(uuid)s",
                {"status": status, "uuid": self._record.uuid},
                instance=self._instance,
            )
            self._record.status = before
            return False
        return True

    def _look(self, engine: _core.Migration, status: Any, now_s: float) -> None:
        """What Nova's monitor does each half second."""
        if status["memory_total_bytes"] == 0:
            return
        elapsed_s = now_s - self._start_s
        if status["recovery"] is None and status["phase"] not in phases.POSTCOPY:
            self._check_timeout(elapsed_s)
        if now_s >= self._switch_again_s and status["phase"] == "precopy":
            self._switch_again_s = float("inf")
            if not self._steered.abort_asked:
                with contextlib.suppress(_core.Error):  # it ended meanwhile
                    self._steered.switch()
        if status["phase"] == "precopy":
            self._step_downtime(engine, elapsed_s)
        if now_s - self._saved_s >= _save_interval_s():
            self._saved_s = now_s
            self._save(status)
            self._tell_progress(status, elapsed_s)

    def _step_downtime(self, engine: _core.Migration, elapsed_s: float) -> None:
        """Nova's next downtime step, if its time has come; the engine judges by the limit in force."""
        if self._guest is None:
            return
        before = self._downtime
        self._downtime = libvirt_migrate.update_downtime(
            self._guest, self._instance, before, self._steps, elapsed_s
        )
        if self._downtime is not None and self._downtime != before:
            with contextlib.suppress(_core.Error):  # it ended meanwhile
                engine.downtime_limit(self._downtime)

    def _check_timeout(self, elapsed_s: float) -> None:
        if self._timeout_done:
            return
        timeout_s = int(CONF.libvirt.live_migration_completion_timeout * self._data_gb)
        if not libvirt_migrate.should_trigger_timeout_action(
            self._instance, elapsed_s, timeout_s, self._record.status
        ):
            return
        self._timeout_done = True
        with contextlib.suppress(_core.Error):  # it ended meanwhile
            if CONF.libvirt.live_migration_timeout_action == "force_complete":
                self._steered.switch()
            else:
                self._steered.abort()

    def _save(self, status: Any) -> None:
        """Statistics into the record, and progress into the instance. A failure is told once."""
        if status["memory_total_bytes"] == 0:
            return
        remaining = round(status["memory_remaining_bytes"] * 100 / status["memory_total_bytes"])
        try:
            libvirt_migrate.save_stats(self._instance, self._record, _job_info(status), remaining)
        except Exception as err:  # see _save_status
            if not self._save_failed:
                LOG.warning(
                    "Cannot save statistics of live migration %(uuid)s: %(err)s",
                    {"uuid": self._record.uuid, "err": err},
                    instance=self._instance,
                )
            self._save_failed = True
        else:
            self._save_failed = False

    def _tell_progress(self, status: Any, elapsed_s: float) -> None:
        log = LOG.debug
        if elapsed_s - self._told_s >= LOG_INFO_S:
            log = LOG.info
            self._told_s = elapsed_s
        info = _job_info(status)
        log(
            "Migration running for %(secs)d secs, %(phase)s, pass %(passes)d, "
            "memory %(remaining)d of %(total)d bytes remaining (%(processed)d processed); "
            "disk %(disk_remaining)d of %(disk_total)d bytes remaining; "
            "%(requests)d page requests, %(requests_ps)d a second",
            {
                "secs": elapsed_s,
                "phase": status["phase"],
                "passes": status["passes"] + 1,
                "remaining": info.memory_remaining,
                "total": info.memory_total,
                "processed": info.memory_processed,
                "disk_remaining": info.disk_remaining,
                "disk_total": info.disk_total,
                "requests": status["postcopy_requests"],
                "requests_ps": status["requests_ps"],
            },
            instance=self._instance,
        )


def _save_interval_s() -> float:
    return float(getattr(CONF.libvirt, "live_migration_monitor_interval", SAVE_S))


def _job_info(status: Any) -> Any:
    return libvirt_guest.JobInfo(
        memory_total=status["memory_total_bytes"],
        memory_processed=status["memory_processed_bytes"],
        memory_remaining=status["memory_remaining_bytes"],
        disk_total=status["disk_total_bytes"],
        disk_processed=status["disk_processed_bytes"],
        disk_remaining=status["disk_remaining_bytes"],
    )
