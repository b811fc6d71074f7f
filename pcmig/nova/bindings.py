# SPDX-License-Identifier: Apache-2.0
"""Bindings of a server's ports: where the guest is, there they are active, and nowhere else is one left.

While a live migration is under way each port is bound twice: ACTIVE where the guest runs, INACTIVE on the
other host. Nova removes the second one at the end of a migration. It does not where a host is dead, nor where
the ports were activated at the destination and the guest stays at the source: it looks for ports that are
bound to the source then, and finds none. Neutron refuses (409) to bind a port to a host that has a binding of
it left: for an evacuation as for any later live migration.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from http import HTTPStatus
from typing import Any

from nova import context as nova_context
from nova import exception
from nova.network import model as network_model
from oslo_log import log as logging

from pcmig.nova import neutron_client, neutron_ports

LOG = logging.getLogger(__name__)

PLUG_LATE_S = (2.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # one pause after the other
HYBRID_PORT = "qvo"  # with which the name of an Open vSwitch port begins that has a bridge before it
AGAIN = " (bound again)"  # at the end of one of a port's texts for a moment:
TEXTS = ("description", "name")  # the first that has room for it
TEXT_CHARS = 255  # Neutron takes
CHANGES = 10  # tried, of a port that others change at the same time

_late: dict[str, object] = {}  # guest to the call whose thread looks after its ports: the last one's


def remove_inactive(context: Any, instance: Any) -> bool:
    """For when no live migration of INSTANCE can go on: whether one has left bindings on another host than
    that where Nova has it. What cannot be removed is told."""
    try:
        client = neutron_client.client(context)
        found = neutron_ports.each(
            neutron_ports.ids(instance), lambda port: neutron_ports.bindings(client, port)
        )
        failed = list(neutron_ports.errors(found).values())
        known = {port: hosts for port, hosts in found.items() if isinstance(hosts, dict)}
        failed += _remove(client, instance, known, None)
    except Exception as err:  # Neutron: Nova's next call says what it misses
        LOG.warning("Cannot look after the bindings of ports: %s", err, instance=instance)
        return False
    for error in failed:
        LOG.warning("Cannot look after the bindings of ports: %s", error, instance=instance)
    return any(host != instance.host for hosts in known.values() for host in hosts)


def _remove(client: Any, instance: Any, known: dict[str, dict[str, str]], but: str | None) -> list[Exception]:
    """Removes the inactive ones of KNOWN (port to host to status), but those at the host BUT; what went
    wrong."""

    def of_port(port: str) -> None:
        for host, status in known[port].items():
            if status != neutron_ports.INACTIVE or host == but:
                continue
            if neutron_ports.remove(client, port, host):
                LOG.warning(
                    "Port %(port)s is not bound to %(host)s any more: what it was bound for, a live "
                    "migration, is over",
                    {"port": port, "host": host},
                    instance=instance,
                )

    return list(neutron_ports.errors(neutron_ports.each(known, of_port)).values())


def stay(driver: Any, manager: Any, instance: Any, migration: Any, migrate_data: Any, *, moved: bool) -> None:
    """The guest has stayed at the source, or runs there again: so its ports are bound there, and not to the
    destination any more. MOVED: they may have been activated at the destination, whatever is bound now; this
    may be called a second time, and the agent here may have taken them out of the bridge. Where nothing was
    activated there that costs a question for each port. Raises ServiceUnavailable where Neutron does not
    answer: to be called again."""
    # Nova's code below would use the request's token, which may have expired during the migration.
    context = nova_context.get_admin_context()
    source = str(migration.source_compute)
    if not moved:
        client = _client(context)
        known = _answered(
            neutron_ports.each(neutron_ports.ids(instance), lambda port: neutron_ports.bindings(client, port))
        )
        if all(not hosts or hosts.get(source) == neutron_ports.ACTIVE for hosts in known.values()):
            failed = _remove(client, instance, known, source)
            if failed:
                raise _failure(failed[0])
            return
    LOG.warning(
        "The ports are or were bound to %(dest)s, and the guest is here: they come back",
        {"dest": migration.dest_compute},
        instance=instance,
    )
    return_with_guest(driver, manager, context, instance, migration, migrate_data)


def return_with_guest(
    driver: Any, manager: Any, context: Any, instance: Any, migration: Any, migrate_data: Any
) -> None:
    """For a guest that runs at the source, whose ports were activated at the destination. To be called again
    after an error, and then does all of it again."""
    try:
        come_back(context, instance, migration, manager)
    finally:  # whatever Neutron has refused: who called may leave it at that, and the guest runs here
        _wire(driver, context, instance, migrate_data)


def _wire(driver: Any, context: Any, instance: Any, migrate_data: Any) -> None:
    """The ports are in the bridge here, and Neutron's agents hear of it: now, and for a while. Raises
    nothing."""
    try:
        vifs, ports = vifs_at_source(instance, migrate_data), neutron_ports.ids(instance)
    except Exception as err:  # the conductor, from which they may come, or what another release has noted
        LOG.warning(
            "Which ports the server has is not known, so none is plugged again; openstack server reboot "
            "--hard %(uuid)s does it: %(err)s",
            {"uuid": instance.uuid, "err": err},
            instance=instance,
        )
        return
    try:
        plug_again(driver, instance, vifs)
    except Exception as err:  # _plug_late() tries it again
        LOG.warning("Cannot plug the ports here again: %s", err, instance=instance)
    untold = tell_agents(context, instance, ports)
    this = _late[str(instance.uuid)] = object()
    try:
        threading.Thread(
            target=_plug_late,
            args=(driver, instance, vifs, context, untold, this),
            name="pcmig-plug",
            daemon=True,
        ).start()
    except RuntimeError as err:  # no thread is to be had
        LOG.warning("Nobody looks after the ports here any longer: %s", err, instance=instance)


def _plug_late(driver: Any, instance: Any, vifs: Any, context: Any, untold: list[str], this: object) -> None:
    """Neutron's agent takes the ports out of the bridge for the switch whenever it gets to it, also when they
    are bound here again by then. The guest may have been stopped meanwhile, or an interface been detached.
    UNTOLD: ports of which its agents were not told yet. THIS: what it is done for; nobody else began after
    that."""
    uuid = str(instance.uuid)
    plan = driver._plans.get(uuid)
    try:
        for pause_s in PLUG_LATE_S:
            time.sleep(pause_s)
            if driver._plans.get(uuid) not in (None, plan) or _late.get(uuid) is not this:
                return  # another migration, or the same one's ports once more
            if not _plug_once_more(driver, instance, vifs):
                return
            untold = tell_agents(context, instance, untold)
    finally:
        if _late.get(uuid) is this:
            del _late[uuid]


def _plug_once_more(driver: Any, instance: Any, vifs: Any) -> bool:
    """Whether the guest still runs here."""
    try:
        guest = driver._host.get_guest(instance)
        if not guest.is_active():
            return False
        xml = str(guest.get_xml_desc()).lower()
        plug_again(driver, instance, [vif for vif in vifs if str(vif["address"]).lower() in xml])
    except exception.InstanceNotFound:
        return False
    except Exception as err:  # the next time
        LOG.warning("Cannot plug the ports here again: %s", err, instance=instance)
    return True


def come_back(context: Any, instance: Any, migration: Any, manager: Any) -> None:
    """The ports are bound here again. At the switch they were activated at the destination, for which Neutron
    unbinds them here: it is not enough to activate them here again. Neutron's agents wire no port that has a
    binding on another host, and do not hear of one that goes, but of each change of a port: so that goes
    first. Raises ServiceUnavailable where it is to be called again, and what Neutron refuses."""
    source, dest, network_api = (
        str(migration.source_compute),
        str(migration.dest_compute),
        manager.network_api,
    )
    client = _client(context)
    ports = neutron_ports.ids(instance)
    # What has no binding here any more gets one below.
    _answered(neutron_ports.each(ports, lambda port: neutron_ports.activate(client, port, source)))
    known = _answered(neutron_ports.each(ports, lambda port: neutron_ports.bindings(client, port)))
    if any(hosts.get(source) == neutron_ports.INACTIVE for hosts in known.values()):
        # Neutron may have carried out late what it was asked at the switch.
        raise exception.ServiceUnavailable("a port was bound to the destination again meanwhile")
    failed = _remove(client, instance, known, source)
    # Nova's own removal of the same bindings, which it tells of; what is left of them is raised below.
    with contextlib.suppress(exception.PortBindingDeletionFailed):
        network_api.setup_networks_on_host(context, instance, host=dest, teardown=True)
    network_api.setup_instance_network_on_host(context, instance, source, migration=migration)
    if failed:
        raise _failure(failed[0])


def _client(context: Any) -> Any:
    """Raises what _failure() makes of an error: Keystone may be away, too."""
    try:
        return neutron_client.client(context)
    except Exception as err:
        raise _failure(err) from err


def _answered(found: dict[str, Any]) -> dict[str, Any]:
    """FOUND of all ports. Raises what _failure() makes of the first error among them."""
    failed = neutron_ports.errors(found)
    if failed:
        raise _failure(next(iter(failed.values())))
    return found


def _failure(err: Exception) -> Exception:
    """ERR where Neutron refuses, ServiceUnavailable where it may do better later."""
    if neutron_ports.is_final(err):
        return err
    text = f"Neutron does not bind the ports: {type(err).__name__}: {err}"
    failure: Exception = exception.ServiceUnavailable(text)
    failure.__cause__ = err
    return failure


def vifs_at_source(instance: Any, migrate_data: Any) -> Any:
    """The guest's interfaces as Nova knows them at the source: ports that have changed their kind at the
    destination were other ones here."""
    if migrate_data is not None and "vifs" in migrate_data:
        return network_model.NetworkInfo([vif.source_vif for vif in migrate_data.vifs])
    return instance.get_network_info()


def plug_again(driver: Any, instance: Any, vifs: Any) -> None:
    """Gives the interfaces VIFS of a guest that runs their ports of Open vSwitch back, which Neutron's agent
    takes out of the bridge at the switch (process_deactivated_bindings) and nobody puts back. What is there
    already stays as it is. Raises the first error, when all were tried."""
    failed: list[Exception] = []
    for vif in vifs:
        if vif["type"] != network_model.VIF_TYPE_OVS or vif["vnic_type"] != network_model.VNIC_TYPE_NORMAL:
            continue
        port = copy.deepcopy(vif)
        port["delegate_create"] = True  # by Nova, as libvirt makes it with the guest's device only
        if vif.is_hybrid_plug_enabled():
            port["details"][network_model.VIF_DETAILS_OVS_HYBRID_PLUG] = False
            port["devname"] = f"{HYBRID_PORT}{vif['id']}"[: network_model.NIC_NAME_LEN]
        try:
            driver.plug_vifs(instance, network_model.NetworkInfo([port]))
        except Exception as err:
            failed.append(err)
    if failed:
        raise failed[0]


def tell_agents(context: Any, instance: Any, ports: list[str]) -> list[str]:
    """Has Neutron's agents hear the whole of each port, of a guest that runs: they do not hear of a binding
    that goes, and wire no port that may be on its way to another host. Any change does; this one is taken
    back. Returns those of PORTS with which it failed, and may not another time."""
    if not ports:
        return []
    try:
        client = neutron_client.client(context)

        failed = neutron_ports.errors(neutron_ports.each(ports, lambda port: _tell_agents(client, port)))
    except Exception as err:
        failed = dict.fromkeys(ports, err)
    for port, error in failed.items():  # the guest runs, and a hard reboot plugs its ports anew
        LOG.warning(
            "Neutron's agents may not hear that port %(port)s is here again, and '%(again)s' may be left at "
            "the end of its description or name: %(err)s",
            {"port": port, "again": AGAIN, "err": error},
            instance=instance,
        )
    return [port for port, error in failed.items() if not neutron_ports.is_final(error)]


def _tell_agents(client: Any, port: str) -> None:
    """One of its texts is changed and changed back, and nothing else is written. Each change is of the port
    as it was read (If-Match), so that what its owner writes meanwhile stays; a Neutron without revisions
    takes it as it comes."""
    marked = False
    for _ in range(CHANGES):
        found = client.show_port(port)["port"]
        texts = {name: str(found.get(name) or "") for name in TEXTS}
        # The mark goes, also one that is left by a call that came no further: either change is heard.
        change = {name: text.removesuffix(AGAIN) for name, text in texts.items() if text.endswith(AGAIN)}
        over = bool(change)
        if marked and not over:  # somebody gave it another text meanwhile, or another call took it back
            return
        if not over:
            name = next((name for name in TEXTS if len(texts[name]) <= TEXT_CHARS - len(AGAIN)), None)
            if name is None:  # what is cut off would be lost where the second change fails
                raise _NoRoomError(f"its {' and its '.join(TEXTS)} leave no room for it")
            change = {name: texts[name] + AGAIN}
        revision = {name: found[name] for name in ("revision_number",) if name in found}
        try:
            client.update_port(port, {"port": change}, **revision)
        except Exception as err:
            if neutron_ports.status_of(err) != HTTPStatus.PRECONDITION_FAILED:
                raise
            continue  # somebody changed it since it was read, its agents when they wire it for one
        if over:
            return
        marked = True
    raise _BusyError(f"it was changed by others {CHANGES} times, each time just before")


class _NoRoomError(Exception):
    """Nothing of a port can be changed for a moment. Neutron would say so, too."""

    status_code = HTTPStatus.BAD_REQUEST


class _BusyError(Exception):
    """It may be better later."""
