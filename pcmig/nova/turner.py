# SPDX-License-Identifier: Apache-2.0
"""When servers turn back (turning.py), and what follows: the keeper's part for them.

By themselves, where nothing is lost, at the end of an engine or at a later look; on request; and as long as
that QEMU runs they are kept on record, with Nova's books to be written and a mark for nova-api.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nova import context as nova_context
from nova import exception, objects
from oslo_log import log as logging

from pcmig import journal
from pcmig.nova import adoption, bindings, guard, records, turned_back, turning
from pcmig_common import turned_back as words

if TYPE_CHECKING:
    from pcmig.nova.keeper import Keeper

LOG = logging.getLogger(__name__)

TURNED_BACK = "turned-back"
# In which a half at the source may yet turn back.
_LOST = ("half-lost", "cut-off")
UNDER_WAY = (
    "its migration is looked after at this moment, perhaps it turns back already: ask again in a while"
)


class Turner:
    """DRIVER is the compute driver, KEEPER the one that this belongs to."""

    def __init__(
        self,
        keeper: Keeper,
        driver: Any,
        known: records.Records,
        guard_: guard.Guard,
        turning_: turning.Turning,
    ) -> None:
        self._keeper = keeper
        self._driver = driver
        self._records = known
        self._guard = guard_
        self._turning = turning_
        self._acting: set[str] = set()  # guests that a thread of this process has turn back
        self._looked_late: set[str] = set()  # at whose ports this process has looked once more
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def _alone(self, uuid: str) -> Iterator[None]:
        """One thread at a time: QEMU has one stub, and whoever connects to it stops the guest. Raises
        NotNow."""
        with self._lock:
            if uuid in self._acting:
                raise turning.NotNow(UNDER_WAY)
            self._acting.add(uuid)
        try:
            yield
        finally:
            with self._lock:
                self._acting.discard(uuid)

    def takes(self, record: records.Record, situation: str, manager: Any) -> bool:
        """Whether a guest of which nobody knew what to do has turned back, or does so now."""
        if situation == TURNED_BACK:
            self._write_down(record, manager, "")
            return True
        return situation in _LOST and self._later(record, manager)

    def engine_gives_way(self, record: records.Record) -> None:
        """The engine still waits for the destination, and knows that the guest never ran there: is that
        fenced?"""
        if self._turning.mode != "unrun":
            return
        self._records.never_ran(record)
        try:
            self._turning.may(nova_context.get_admin_context(), record, turning.BY_ITSELF)
        except turning.NotNow as err:
            LOG.info("Guest %(name)s does not turn back: %(why)s", {"name": record.entry.name, "why": err})
            return
        steered = self._driver._steered_by(record.entry.uuid)
        if steered is not None:
            steered.give_way(turning.BY_ITSELF)

    def at_end(self, record: records.Record | None, status: dict[str, Any]) -> bool:
        """Whether the guest has turned back, or does so now by itself, at the end of an engine that says
        STATUS. Its books are written on a thread then."""
        manager = getattr(self._driver.virtapi, "_compute", None)
        if record is None or manager is None or not record.entry.crossed:
            return False
        if status.get("unrun"):
            self._records.never_ran(record)
        text = ""
        if self._guard.situation(record) != TURNED_BACK:
            if not self._turning.by_itself(record):
                return False
            try:
                with self._alone(record.entry.uuid):
                    text = self._turning.turn(nova_context.get_admin_context(), record, turning.BY_ITSELF)
            except turning.NotNow as err:
                LOG.warning(
                    "Guest %(name)s does not turn back: %(why)s", {"name": record.entry.name, "why": err}
                )
                return False
            except Exception:  # Nova is told of the engine's verdict all the same
                LOG.exception("Guest %s does not turn back", record.entry.name)
                return False
        self._keeper.on_thread(record.entry.uuid, self._write_down, record, manager, text)
        return True

    def begin(
        self, record: records.Record | None, request: turning.Request, status: dict[str, Any] | None
    ) -> str | None:
        """Begins to: somebody asked for it, or the engine with STATUS has given way (and the thread that
        followed it is about to end). Why not, if it does not."""
        if record is None:  # somebody removed it meanwhile
            return "its record was removed"
        uuid = record.entry.uuid
        if uuid in self._acting or (status is None and self._keeper.is_busy(uuid)):
            return UNDER_WAY
        if status is not None and status.get("unrun"):
            self._records.never_ran(record)
        manager = self._driver.virtapi._compute
        self._keeper.on_thread(uuid, self._turn_back, record, request, manager)
        return None

    def _turn_back(self, record: records.Record, request: turning.Request, manager: Any) -> None:
        try:
            with self._alone(record.entry.uuid):
                text = self._act(record, request)
        except turning.NotNow as err:  # the other thread goes on, and the record stays its own
            LOG.info("Guest %(name)s: %(why)s", {"name": record.entry.name, "why": err})
            return
        if text is not None:
            self._write_down(record, manager, text)

    def _act(self, record: records.Record, request: turning.Request) -> str | None:
        """What it undid; None: it did not turn back."""
        uuid = record.entry.uuid
        while self._driver._follows(uuid):  # Nova's thread is about to leave it
            if self._keeper.wait(0.1):
                return None
        try:
            self._records.claim(record)
            return self._turning.turn(nova_context.get_admin_context(), record, request)
        except (turning.NotNow, journal.HeldError) as err:
            LOG.error("Guest %(name)s did not turn back: %(why)s", {"name": record.entry.name, "why": err})
            self._guard.told.note(uuid, str(err))
            self._keeper.looks_anew(uuid)  # looked after as before
            self._records.release(uuid)
            return None

    def _write_down(self, record: records.Record, manager: Any, text: str) -> None:
        """Nova's books of a guest that turned back."""
        if not record.turned:  # `pcmig turn-back` ended in it, or a nova-compute that is gone
            with self._alone(record.entry.uuid):
                text = self._turning.note_turned(record)
        adopted = self._keeper.recalled(record, manager)
        if adopted is None:
            return
        uuid, peers = record.entry.uuid, self._driver._peers
        self._guard.told.note(uuid, f"{words.SENTENCE} {text}".rstrip())
        end = turned_back.TurnedBack(
            manager,
            adopted.context,
            adopted.instance,
            adopted.migration,
            self._records,
            record,
            adopted.source_bdms,
            migrate_data=adopted.migrate_data,
            ports_come_back=lambda: self._ports_come_back(adopted, manager),
            dest_answers=lambda: peers.answers(adopted.context, adopted.dest, uuid),
            text=text or str(words.SENTENCE),
        )
        self._keeper.carry_out_here(end)

    def _ports_come_back(self, adopted: Any, manager: Any) -> None:
        bindings.return_with_guest(
            self._driver,
            manager,
            adopted.context,
            adopted.instance,
            adopted.migration,
            adopted.migrate_data,
        )

    def after(self, record: records.Record, manager: Any) -> None:
        """Until that QEMU has ended: whatever was not written down, and whether it has."""
        if record.books_written:
            if record.turned and self._guard.cycled(record):
                self._drop_mark(record)
            elif record.entry.uuid not in self._looked_late:
                self._looked_late.add(record.entry.uuid)
                self._look_late(record)
        elif record.turned or self._guard.situation(record) == TURNED_BACK:
            self._write_down(record, manager, "")
        else:  # it did not come to it
            self._keeper.again(record, manager)

    def _look_late(self, record: records.Record) -> None:
        """A guest that turned back at once may have been quicker than Neutron's agent, which takes its ports
        out of the bridge for the switch."""
        adopted = adoption.recall(record)
        if adopted is not None:
            self._plug_again(adopted)

    def _plug_again(self, adopted: Any) -> None:
        vifs = bindings.vifs_at_source(adopted.instance, adopted.migrate_data)
        bindings.plug_again(self._driver, adopted.instance, vifs)

    def _drop_mark(self, record: records.Record) -> None:
        uuid = record.entry.uuid
        context = nova_context.get_admin_context()
        with contextlib.suppress(exception.InstanceNotFound):
            turned_back.clear(objects.Instance.get_by_uuid(context, uuid, expected_attrs=["system_metadata"]))
        self._forget(uuid)

    def _forget(self, uuid: str) -> None:
        self._looked_late.discard(uuid)
        self._records.remove(uuid, "source")
        self._keeper.looks_anew(uuid)

    def powered_off(self, instance: Any) -> None:
        """Nova has ended the guest's QEMU, or started another one."""
        uuid = str(instance.uuid)
        record = self._records.get(uuid) if self._records else None
        if record is not None and record.side == "source":
            if not record.turned or not record.books_written or not self._guard.cycled(record):
                return  # the books come first, then the mark goes: after()
            self._forget(uuid)
        try:
            turned_back.clear(instance)
        except Exception as err:  # the next time
            LOG.warning("The server still counts as one that turned back: %s", err, instance=instance)

    def _later(self, record: records.Record, manager: Any) -> bool:
        """Since the last look its destination may have been fenced, or have come back without the guest."""
        if not self._turning.by_itself(record):
            return False
        try:
            self._turning.may(nova_context.get_admin_context(), record, turning.BY_ITSELF)
        except turning.NotNow as err:
            LOG.info("Guest %(name)s does not turn back: %(why)s", {"name": record.entry.name, "why": err})
            return False
        self._turn_back(record, turning.BY_ITSELF, manager)
        return True
