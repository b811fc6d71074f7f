# SPDX-License-Identifier: Apache-2.0
"""Whether the ports of guests that come here forward: what nova-compute tells the source's (messages.Ports).

libvirt is not asked: while a guest comes in, some of its releases keep whoever asks for its XML waiting. Nova
knows the devices.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

from nova.conf import CONF
from nova.network import model as network_model
from nova.objects import base as objects_base
from oslo_log import log as logging

from pcmig.nova import records
from pcmig.ports.host import Host, HostError
from pcmig.ports.looking import HYBRID_BRIDGE
from pcmig.ports.model import Nic, held_up
from pcmig_common import messages

LOG = logging.getLogger(__name__)

LOOK_S = 0.1  # as `pcmig ports --follow`, while a switch waits for the answer: it is asked for
HURRY_S = 0.5  # more often than that then
CALM_S = 0.9  # between looks otherwise
KEPT_S = 10.0  # after the last question
FRESH_S = 1.0
PATIENCE_S = 1.5  # of who asks, for the first look
OVSDB = "tcp:127.0.0.1:6640"  # os-vif's default

# What of Nova's kinds of ports forwards by other means, in libvirt's words (judgement.NOT_SEEN).
_BY_VNIC = {
    **dict.fromkeys(network_model.VNIC_TYPES_DIRECT_PASSTHROUGH, "hostdev"),
    network_model.VNIC_TYPE_VDPA: "vdpa",
    network_model.VNIC_TYPE_MACVTAP: "direct",
}


def nic(vif: Any) -> Nic:
    """One of Nova's, as it is at the destination."""
    kind = _BY_VNIC.get(vif["vnic_type"]) or (
        "vhostuser" if vif["type"] == network_model.VIF_TYPE_VHOSTUSER else "bridge"
    )
    hybrid = vif.is_hybrid_plug_enabled()
    bridge = f"{HYBRID_BRIDGE}{vif['id']}"[: network_model.NIC_NAME_LEN] if hybrid else None
    openvswitch = vif["type"] == network_model.VIF_TYPE_OVS and not hybrid
    return Nic(str(vif["address"]), kind, vif.get("devname"), bridge, openvswitch)


def nics(noted: Any) -> list[Nic] | None:
    """Those of a guest that comes here, by Nova's migrate_data as it is NOTED; None when it does not tell."""
    data = objects_base.NovaObject.obj_from_primitive(noted)
    if "vifs" not in data:
        return None
    return [nic(vif.get_dest_vif()) for vif in data.vifs]


def noted_of(record: records.Record | None) -> Any:
    """None where no guest comes here by this record."""
    return None if record is None or record.side != "destination" else record.nova.get("migrate_data")


def ovsdb() -> str:
    """Where os-vif reaches Open vSwitch's database, which this process may as well."""
    group = getattr(CONF, "os_vif_ovs", None)
    return str(getattr(group, "ovsdb_connection", None) or OVSDB)


class PortAnswers:
    """Looks at this host as long as somebody asks, on one thread, which alone has what that takes."""

    def __init__(self, record: Callable[[str], records.Record | None]) -> None:
        self._record = record
        self._cond = threading.Condition()
        self._asked_s: dict[str, float] = {}
        self._answers: dict[str, tuple[float, dict[str, Any]]] = {}  # and when they were found
        self._hurried_s = float("-inf")  # when somebody asked soon after the last time
        self._looks = False

    def answer(self, uuid: str) -> dict[str, Any]:
        """On a thread of the message server."""
        with self._cond:
            now_s = time.monotonic()
            if now_s - self._asked_s.get(uuid, float("-inf")) < HURRY_S:
                self._hurried_s = now_s
            self._asked_s[uuid] = now_s
            self._cond.notify_all()
            if not self._looks:
                threading.Thread(target=self._work, name="pcmig-port-answers", daemon=True).start()
                self._looks = True
            self._cond.wait_for(lambda: self._fresh(uuid) is not None, PATIENCE_S)
            return self._fresh(uuid) or messages.ports_untold("what it looks at does not answer")

    def _fresh(self, uuid: str) -> dict[str, Any] | None:
        found_s, answer = self._answers.get(uuid, (float("-inf"), None))
        return answer if time.monotonic() - found_s < FRESH_S else None

    def _is_urgent(self) -> bool:
        return time.monotonic() - self._hurried_s < HURRY_S or any(
            uuid not in self._answers for uuid in self._asked_s
        )

    def _pause(self) -> None:
        with self._cond:
            self._cond.wait_for(self._is_urgent, CALM_S - LOOK_S)
        time.sleep(LOOK_S)

    def _wanted(self) -> list[str]:
        """Whom somebody asks about; empty: nobody, and this thread is to end."""
        with self._cond:
            now_s = time.monotonic()
            for uuid in [each for each, asked_s in self._asked_s.items() if now_s - asked_s > KEPT_S]:
                del self._asked_s[uuid]
                self._answers.pop(uuid, None)
            self._looks = bool(self._asked_s)
            return list(self._asked_s)

    def _tell(self, answers: dict[str, dict[str, Any]]) -> None:
        with self._cond:
            now_s = time.monotonic()
            self._answers.update({uuid: (now_s, answer) for uuid, answer in answers.items()})
            self._cond.notify_all()

    def _work(self) -> None:
        while wanted := self._wanted():
            try:
                with Host(ovsdb()) as host:
                    known: dict[str, tuple[Any, list[Nic] | None]] = {}
                    while wanted:
                        known = {uuid: self._nics(uuid, known.get(uuid)) for uuid in wanted}
                        self._tell({uuid: _look(host, found) for uuid, (_, found) in known.items()})
                        self._pause()
                        wanted = self._wanted()
                return
            except HostError as err:
                self._fail(wanted, str(err))
            except Exception as err:  # libraries of the environment; nobody waits for what nobody sees
                LOG.exception("Cannot look at the ports of guests that come here")
                self._fail(wanted, f"{type(err).__name__}: {err}")

    def _fail(self, wanted: list[str], why: str) -> None:
        self._tell({uuid: messages.ports_untold(why) for uuid in wanted})
        time.sleep(1.0)

    def _nics(self, uuid: str, before: Any) -> tuple[Any, list[Nic] | None]:
        noted = noted_of(self._record(uuid))
        if before is not None and before[0] is noted:
            return before[0], before[1]
        try:
            return noted, None if noted is None else nics(noted)
        except Exception as err:  # of another release, or broken; the other guests' are told all the same
            LOG.warning(
                "Cannot read which ports guest %(uuid)s is to have: %(err)s", {"uuid": uuid, "err": err}
            )
            return noted, None


def _look(host: Host, known: list[Nic] | None) -> dict[str, Any]:
    if known is None:
        return messages.ports_untold("which ports it has is not on record there")
    ports = host.look(known)
    return {
        "ready": not held_up(ports),
        "absent": False,
        "error": None,
        "ports": [dataclasses.asdict(port) for port in ports],
    }
