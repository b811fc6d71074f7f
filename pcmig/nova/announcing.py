# SPDX-License-Identifier: Apache-2.0
"""A guest that arrives here is announced from its first instruction on, until the network has learned where
it is (pcmig.ports.announcing). Nova knows its ports and addresses, libvirt says when it runs; what
nova-compute's user may not do, Nova's privileged daemon does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nova.objects import base as objects_base
from nova.virt import event as virtevent
from oslo_log import log as logging

from pcmig.nova import port_answers, records
from pcmig.ports import vswitchd
from pcmig.ports.announcing import announce_until_learned, in_words
from pcmig.ports.host import Host, HostError

LOG = logging.getLogger(__name__)


class Announcer:
    """RECORD: what is on record of the guest with a UUID."""

    def __init__(self, record: Callable[[str], records.Record | None]) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._begun: dict[str, str] = {}  # guest to when the migration began that it has arrived by
        self._gone: dict[str, threading.Event] = {}  # of those that are being announced

    def look(self, event: Any) -> None:
        """At one of libvirt's, in Nova's words. Waits for nobody."""
        if not isinstance(event, virtevent.LifecycleEvent):
            return
        uuid, transition = str(event.get_instance_uuid()), event.get_transition()
        # It is started when it begins to come in, and resumed when it runs.
        work = {
            virtevent.EVENT_LIFECYCLE_STARTED: self._comes,
            virtevent.EVENT_LIFECYCLE_RESUMED: self._runs,
        }.get(transition)
        if work is not None:
            try:
                threading.Thread(target=work, args=(uuid,), name="pcmig-announce", daemon=True).start()
            except RuntimeError as err:  # no thread is to be had: QEMU has announced it
                LOG.warning("Guest %(uuid)s is not announced: %(err)s", {"uuid": uuid, "err": err})
        else:
            with self._lock:
                gone = self._gone.get(uuid)
                # Before it was heard: once more, when it runs again, which may be before the thread notices.
                # One that has ended: or every guest that ever came here would be remembered.
                if gone is not None or transition == virtevent.EVENT_LIFECYCLE_STOPPED:
                    self._begun.pop(uuid, None)
            if gone is not None:
                gone.set()

    def stop(self) -> None:
        with self._lock:
            for gone in self._gone.values():
                gone.set()

    def _comes(self, uuid: str) -> None:
        """The daemon may have to start, and libraries to be loaded: not when the guest runs."""
        try:
            noted = port_answers.noted_of(self._record(uuid))
            if noted is None:
                return
            nics = port_answers.nics(noted) or []
            if nics:
                in_bridges = any(nic.kind == "bridge" and not nic.openvswitch for nic in nics)
                _by_the_daemon("prepare", (in_bridges,), HostError, "any switch")
        except Exception as err:  # it is told when the guest cannot be announced
            LOG.debug("Not prepared to announce guest %(uuid)s: %(err)s", {"uuid": uuid, "err": err})

    def _runs(self, uuid: str) -> None:
        """It does here, perhaps because somebody has resumed a guest that was here all the time."""
        try:
            record = self._record(uuid)
            noted = port_answers.noted_of(record)
        except Exception as err:  # the journal; QEMU has announced it
            LOG.warning("Guest %(uuid)s is not announced: %(err)s", {"uuid": uuid, "err": err})
            return
        if record is None or noted is None:
            return
        with self._lock:
            # libvirt says so once more at the end of post-copy.
            if self._begun.get(uuid) == record.entry.started:
                return
            self._begun[uuid] = record.entry.started
            gone = self._gone[uuid] = threading.Event()
        try:
            nics = port_answers.nics(noted)
            if nics:
                with Host(port_answers.ovsdb(), packet_out=_packet_out, beside=_beside) as host:
                    rows = announce_until_learned(nics, host, addresses=addresses(noted), stop=gone.is_set)
                LOG.info("Guest %(uuid)s has arrived: %(how)s", {"uuid": uuid, "how": in_words(rows)})
        except Exception as err:  # libraries of the environment; QEMU has announced it
            LOG.warning("Guest %(uuid)s is not announced: %(err)s", {"uuid": uuid, "err": err})
            with self._lock:  # once more when libvirt says so again
                if self._gone.get(uuid) is gone:
                    self._begun.pop(uuid, None)
        finally:
            with self._lock:
                if self._gone.get(uuid) is gone:
                    del self._gone[uuid]


def addresses(noted: Any) -> Mapping[str, Sequence[str]]:
    """IP addresses of a guest that comes here, by MAC, from Nova's migrate_data as it is NOTED."""
    data = objects_base.NovaObject.obj_from_primitive(noted)
    return {
        str(vif["address"]).lower(): [str(each["address"]) for each in vif.fixed_ips()]
        for vif in (each.get_dest_vif() for each in data.vifs)
    }


def _packet_out(folder: str, bridge: str, ofport: int, frames: list[bytes]) -> None:
    """As vswitchd.send, whose sockets are root's."""
    _by_the_daemon("packet_out", (folder, bridge, ofport, frames), vswitchd.VswitchdError, "Open vSwitch")


def _beside(device: str, mac: str, frames: list[bytes]) -> None:
    """As beside.send, for which it takes CAP_NET_ADMIN and CAP_NET_RAW."""
    _by_the_daemon("beside", (device, mac, frames), HostError, "a Linux bridge")


def _by_the_daemon(name: str, words: tuple[Any, ...], error: type[Exception], switch: str) -> None:
    """Raises ERROR."""
    try:
        from nova.virt.pcmig import privileged

        getattr(privileged, name)(*words)
    except error:
        raise
    except Exception as err:  # the daemon does not start, or is of another installation
        raise error(
            f"Nova's privileged daemon hands no frame to {switch}: {type(err).__name__}: {err}"
        ) from err
