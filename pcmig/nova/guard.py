# SPDX-License-Identifier: Apache-2.0
"""Nothing of the driver destroys, starts or deletes a half of a guest before the core's guard was asked.

Only guests with a migration on record are asked for: for all others every call is Nova's own, at no cost.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

from nova import exception
from nova.compute import task_states, vm_states
from nova.conf import CONF
from oslo_log import log as logging

from pcmig import _core, turn_back
from pcmig.nova import evacuation, needs, records, releases, words
from pcmig_common.needs import NotThisNova

LOG = logging.getLogger(__name__)

ACTS = needs.ACTS

PEER_TIMEOUT_MS = 3000  # to connect to the other side; what does not answer counts as unknown


# What the halves are, once the engine has said it: it asked both hosts, and its verdict stands.
_VERDICTS: dict[str, dict[str, Any]] = {
    "completed": {
        "source": "absent",
        "destination": "running",
        "call_succeeded": True,
        "job_active": False,
    },
    "failed": {"source": "running", "destination": "absent", "job_active": False},
}

# What a rollback removes never ran, for which the source's word stands: its nova-compute orders one only
# after it knows that the guest is there. So it is done even where the source's libvirt cannot be asked.
_EMPTY = ("absent", "dead")

# The guest is where Nova's record will say, and nothing of it is anywhere else.
SETTLED = ("at-source", "at-destination", "home-source", "home-destination", "nobody")


# What removes a half and what belongs to it.
_LEAVES = ("destroy", "undefine", "delete-files")


class Refused(exception.NovaException):  # type: ignore[misc]  # Nova has no types
    """What was asked for could lose the guest, or run it twice.

    The server's owner reads it; what operators are told is its cause. It has no `code`: with any
    but 500 Nova keeps no details of a fault.
    """

    msg_fmt = "%(reason)s"


class Guard:
    """Asks both hosts, then the core's table."""

    def __init__(self, known: records.Records, timeout_ms: int, virtapi: Any = None) -> None:
        self._records = known
        self._virtapi = virtapi
        self._timeout_ms = min(timeout_ms, PEER_TIMEOUT_MS)
        self._this_thread = threading.local()
        self.told = words.Told()

    @contextlib.contextmanager
    def asked(self, instance: Any, act: str) -> Iterator[None]:
        """ACT on this host's half of INSTANCE, and whatever it consists of. Raises Refused."""
        if not self._records or instance.uuid in self._allowed():
            yield
            return
        record = self._records.get(instance.uuid)
        if record is not None and record.turned and self.cycled(record):
            if record.books_written:  # it has served; otherwise Nova's books are written first (turner.py)
                self._records.remove(str(instance.uuid), record.side)
            record = None
        if record is None:
            self._check_unreadable(instance)
            yield
            return
        settles = self.check(record, instance, act)
        self._allowed().add(instance.uuid)
        try:
            yield
        finally:
            self._allowed().discard(instance.uuid)
        if settles:
            self._records.remove(str(instance.uuid), record.side)

    def ask_ahead(self, instance: Any, act: str) -> None:
        """Raises Refused where ACT on this host's half would be, for when Nova is about to throw away
        something for its sake."""
        record = self._records.get(str(instance.uuid)) if self._records else None
        if record is None:
            self._check_unreadable(instance)
        elif not record.turned:
            self.check(record, instance, act)

    def _check_unreadable(self, instance: Any) -> None:
        """Raises Refused where a record of INSTANCE is there, and nobody here knows what it says: its newer
        memory may be on the other host."""
        why = self._records.unreadable(str(instance.uuid))
        if why is not None:
            LOG.error("Refused: %s", why, instance=instance)
            self.told.note(str(instance.uuid), why)
            raise Refused(reason=words.refusal("unseen")) from words.Explained(why)

    def _allowed(self) -> set[str]:
        """Guests that this thread may work on: it has asked for what it is doing."""
        allowed: set[str] | None = getattr(self._this_thread, "allowed", None)
        if allowed is None:
            allowed = self._this_thread.allowed = set()
        return allowed

    def check(self, record: records.Record, instance: Any, act: str) -> bool:
        """Raises Refused, with what helps and the reason. Returns whether the record has served with ACT.
        (The source's of an evacuated guest has not: the keeper puts Nova's own right by it.)"""
        evidence = self.evidence(record)
        gone = evidence["source"] in ("unknown", "absent")
        if record.side == "destination" and evidence["destination"] in _EMPTY and gone:
            # Its nova-compute orders one only when the guest is there, or off for good; of one that was shut
            # down there, the disks there are the newest as well.
            if act == "rollback" and (evidence.get("source_shut_down") or not record.disks_copied):
                return False
            if act == "start" and not record.disks_copied:
                evacuated = evacuation.comes_to(self.host, record)
                if evacuated is not None:
                    LOG.warning(
                        "Allowed: the server is evacuated to this host, so whoever asked for it vouches that "
                        "%(source)s is dead, which a live migration of the guest began on",
                        {"source": evacuated.source_compute},
                        instance=instance,
                    )
                    return True
        insist = insists(instance) or (
            record.side == "source" and act in _LEAVES and self._is_evacuated(record, instance)
        )
        # What ends a guest removes its definition and its files as well, even if there is nothing to end.
        for one in (act, "undefine") if act == "destroy" else (act,):
            self._check(record, instance, one, evidence, insist)
        return False

    def _check(
        self, record: records.Record, instance: Any, act: str, evidence: dict[str, Any], insist: bool
    ) -> None:
        answer = _core.guard(
            side=record.side,
            act=act,  # type: ignore[arg-type]  # one of ACTS
            insist=insist,
            guest=record.entry.name,
            source_uri=record.entry.source_uri,
            dest_uri=record.entry.dest_uri,
            in_flight=True,
            **evidence,
        )
        text = self._records.naming(words.for_operators(answer["reason"], answer["advice"]))
        if not answer["allowed"]:
            LOG.error("Refused: %s", text, instance=instance)
            self.told.note(str(instance.uuid), text)
            raise Refused(reason=words.refusal(answer["situation"])) from words.Explained(text)
        level = LOG.warning if insist else LOG.info
        level("Allowed: %s", text, instance=instance)

    @property
    def host(self) -> str:
        """Nova's name of this one."""
        return str(getattr(getattr(self._virtapi, "_compute", None), "host", CONF.host))

    def _is_evacuated(self, record: records.Record, instance: Any) -> bool:
        """Whether the server runs on another host since its owner's word that this one is dead: what this
        host still has of it is the rest of a guest that must not run again, whatever memory is in it."""
        return str(instance.host) != self.host and evacuation.left(self.host, record) is not None

    def evidence(self, record: records.Record) -> dict[str, Any]:
        """What both hosts say, as keywords of _core.guard()."""
        if record.verdict is not None:
            return dict(_VERDICTS[record.verdict])
        # The source first: in the other order a half may seem to vanish that did not.
        source, destination = self.halves(record)
        return {
            "source": source["half"],
            "destination": destination["half"],
            "job_active": source["job_active"],
            "source_shut_down": source.get("shut_down", False),
            "destination_shut_down": destination.get("shut_down", False),
            "disks_copied": record.disks_copied,
            "crossed": record.entry.crossed,
            "turned_back": self._turned_back(record, source),
        }

    def cycled(self, record: records.Record) -> bool:
        """Whether the QEMU in which the guest turned back has ended: another one runs it, or none."""
        half = self._half(record.source_uris, record.entry.uuid)
        return half["half"] != "unknown" and not self._turned_back(record, half)

    def _turned_back(self, record: records.Record, source: Any) -> bool:
        entry = record.entry if record.side == "source" else None
        return any(
            turn_back.has_turned_back(entry, source, uri, record.entry.uuid) for uri in record.source_uris
        )

    def halves(self, record: records.Record) -> tuple[Any, Any]:
        """What both hosts say, the source first."""
        source = self._half(record.source_uris, record.entry.uuid)
        return source, self._half([record.entry.dest_uri], record.entry.uuid)

    def situation(self, record: records.Record) -> str:
        """As the core names it (csrc/core/situation.h)."""
        evidence = self.evidence(record)
        return _core.guard(side=record.side, act="start", in_flight=True, **evidence)["situation"]

    def _half(self, uris: list[str], uuid: str) -> Any:
        """What the host under the first of URIS that answers says."""
        for uri in uris:
            try:
                return releases.off_hub(_core.half, uri, uuid, self._timeout_ms)
            except _core.Error as err:
                LOG.info(
                    "%(uri)s does not say how guest %(uuid)s is: %(err)s",
                    {"uri": uri, "uuid": uuid, "err": err},
                )
        return {"half": "unknown", "job_active": None, "shut_down": False, "runs": False, "id": None}


def insists(instance: Any) -> bool:
    """Whether the owner wants the guest to be gone."""
    return bool(
        getattr(instance, "deleted", False) is True
        or getattr(instance, "task_state", None) in (task_states.DELETING, task_states.SOFT_DELETING)
        or getattr(instance, "vm_state", None) in (vm_states.DELETED, vm_states.SOFT_DELETED)
    )


def guarded(base: type) -> Callable[[type], type]:
    """Class decorator: the methods of ACTS, inherited from BASE, ask `_guarded(instance, act)` first.

    Raises NotThisNova for one that BASE does not have: it would go unguarded under another name.
    """

    def decorate(cls: type) -> type:
        for name, act in ACTS.items():
            method = getattr(base, name, None)
            if method is None or "instance" not in inspect.signature(method).parameters:
                raise NotThisNova(f"{base.__name__} has no {name}(instance), which pcmig guards")
            if name not in vars(cls):
                setattr(cls, name, _guarded(cls, name, act, method))
        return cls

    return decorate


def _guarded(cls: type, name: str, act: str, method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)
    place = list(signature.parameters).index("instance") - 1

    @functools.wraps(method)
    def ask_first(self: Any, *args: Any, **kwargs: Any) -> Any:
        stock = getattr(super(cls, self), name)
        instance = kwargs["instance"] if "instance" in kwargs else args[place]
        if not self._records and not self._is_marked(instance):
            return stock(*args, **kwargs)
        with self._guarded(instance, act) as go_on:
            return stock(*args, **kwargs) if go_on else None

    # For whom does not look behind wrappers (inspect.getfullargspec).
    ask_first.__signature__ = signature  # type: ignore[attr-defined]
    return ask_first
