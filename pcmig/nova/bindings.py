# SPDX-License-Identifier: Apache-2.0
"""Bindings of a server's ports that a live migration left behind.

While it is under way each port is bound twice: ACTIVE where the guest runs, INACTIVE on the other host. Nova
removes the second one at the end of a migration. Where its source is dead nobody does, and Neutron then
refuses to bind the port to that host (409): for an evacuation as for any later live migration.
"""

from __future__ import annotations

import copy
import types
from typing import Any

from nova.network import model as network_model
from nova.network import neutron
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

INACTIVE = "INACTIVE"
HYBRID_PORT = "qvo"  # with which the name of an Open vSwitch port begins that has a bridge before it


def remove_inactive(context: Any, instance: Any, *, but: str | None = None) -> bool:
    """For when no live migration of INSTANCE can go on: whether one has left bindings on another host than
    that where Nova has it. What cannot be removed is told. A binding at the host BUT stays: the guest is to
    go on there."""
    left = False
    try:
        client = neutron.get_client(context, admin=True)
        for vif in instance.get_network_info():
            for binding in client.list_port_bindings(vif["id"])["bindings"]:
                left = left or binding["host"] != instance.host
                if binding["status"] != INACTIVE or binding["host"] == but:
                    continue
                client.delete_port_binding(vif["id"], binding["host"])
                LOG.warning(
                    "Port %(port)s is not bound to %(host)s any more: what it was bound for, a live "
                    "migration, is over",
                    {"port": vif["id"], "host": binding["host"]},
                    instance=instance,
                )
    except Exception as err:  # Neutron: Nova's next call says what it misses
        LOG.warning("Cannot look after the bindings of ports: %s", err, instance=instance)
    return left


def come_back(adopted: Any, manager: Any) -> None:
    """The ports of ADOPTED (adoption.Adopted) are bound here again. At the switch they were activated at the
    destination, for which Neutron unbinds them here: it is not enough to activate them here again. Neutron's
    agents wire no port that has a binding on another host, and do not hear of one that goes, but of each
    change of a port: so that goes first."""
    context, instance, network_api = adopted.context, adopted.instance, manager.network_api
    source = str(adopted.migration.source_compute)
    back = types.SimpleNamespace(source_compute=adopted.dest, dest_compute=source)
    network_api.migrate_instance_start(context, instance, back)
    # Should the source's not have become active (Nova goes on after most errors), it is not to go.
    remove_inactive(context, instance, but=source)
    network_api.setup_networks_on_host(context, instance, host=adopted.dest, teardown=True)
    network_api.setup_instance_network_on_host(context, instance, source, migration=adopted.migration)


def vifs_at_source(instance: Any, migrate_data: Any) -> Any:
    """The guest's interfaces as Nova knows them at the source: ports that have changed their kind at the
    destination were other ones here."""
    if migrate_data is not None and "vifs" in migrate_data:
        return network_model.NetworkInfo([vif.source_vif for vif in migrate_data.vifs])
    return instance.get_network_info()


def plug_again(driver: Any, instance: Any, vifs: Any) -> None:
    """Gives the interfaces VIFS of a guest that runs their ports of Open vSwitch back, which Neutron's agent
    takes out of the bridge at the switch (process_deactivated_bindings) and nobody puts back. What is there
    already stays as it is."""
    for vif in vifs:
        if vif["type"] != network_model.VIF_TYPE_OVS or vif["vnic_type"] != network_model.VNIC_TYPE_NORMAL:
            continue
        port = copy.deepcopy(vif)
        port["delegate_create"] = True  # by Nova, as libvirt makes it with the guest's device only
        if vif.is_hybrid_plug_enabled():
            port["details"][network_model.VIF_DETAILS_OVS_HYBRID_PLUG] = False
            port["devname"] = f"{HYBRID_PORT}{vif['id']}"[: network_model.NIC_NAME_LEN]
        driver.plug_vifs(instance, network_model.NetworkInfo([port]))


def tell_agents(context: Any, instance: Any) -> None:
    """Has Neutron's agents hear the whole of each port, of a guest that runs: they do not hear of a binding
    that goes, and wire no port that may be on its way to another host. Any change does; this one is taken
    back."""
    try:
        client = neutron.get_client(context, admin=True)
        for vif in instance.get_network_info():
            text = client.show_port(vif["id"])["port"].get("description") or ""
            for said in (f"{text} (bound again)".strip()[:255], text):
                client.update_port(vif["id"], {"port": {"description": said}})
    except Exception as err:  # the guest runs, and a hard reboot plugs its ports anew
        LOG.warning("Neutron's agents may not hear that the ports are here again: %s", err, instance=instance)
