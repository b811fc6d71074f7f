# SPDX-License-Identifier: Apache-2.0
"""Ports of a guest that runs again where they were taken out of the bridge."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterator
from typing import Any

import os_vif.objects
import pytest
from neutronclient.v2_0 import client as neutron_v2
from nova import exception
from nova.network import model, os_vif_util
from oslo_db import exception as db_exceptions

from pcmig.nova import bindings, neutron_client

os_vif.objects.register_all()

PORT = "46c5e305-0db3-4e69-8917-7f416e9fff8a"


class Driver:
    """Plugs as Nova's does: by what os-vif is told."""

    def __init__(self) -> None:
        self.plugged: list[Any] = []
        self._plans: dict[str, Any] = {}
        self._host: Any = None

    def plug_vifs(self, instance: Any, network_info: Any) -> None:
        self.plugged += [os_vif_util.nova_to_osvif_vif(vif) for vif in network_info]


def vif(**more: Any) -> Any:
    bridge = model.Network(id="16b33a30-79ee-4c15-afed-9995c9ab946a", bridge="br-int", subnets=[])
    return model.VIF(
        id=PORT, address="fa:16:3e:70:00:10", network=bridge, type="ovs", devname="tap46c5e305-0d", **more
    )


@pytest.mark.parametrize(("hybrid", "name"), [(False, "tap46c5e305-0d"), (True, "qvo46c5e305-0d")])
def test_the_port_is_made_again(hybrid: bool, name: str) -> None:
    driver, known = Driver(), vif(details={"ovs_hybrid_plug": hybrid})
    bindings.plug_again(driver, None, [known])
    [plugged] = driver.plugged
    assert (plugged.id, plugged.vif_name, plugged.address) == (PORT, name, "fa:16:3e:70:00:10")
    assert plugged.port_profile.create_port is True and plugged.port_profile.interface_id == PORT
    assert plugged.network.bridge == "br-int"
    assert not known["delegate_create"] and known.is_hybrid_plug_enabled() is hybrid, "Nova's stays as it is"


@pytest.mark.parametrize("kind", [{"type": "bridge"}, {"type": "unbound"}, {"vnic_type": "direct"}])
def test_other_ports_are_nobodys_to_make(kind: dict[str, str]) -> None:
    driver, known = Driver(), vif()
    known.update(kind)
    bindings.plug_again(driver, None, [known])
    assert driver.plugged == []


SOURCE, DEST = "compute-a", "compute-b"
OTHER_PORT = "9a7f1c1e-52d0-4b7f-9a43-0a1f3d9b7c11"


class NeutronError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"Neutron says {status_code}")
        self.status_code = status_code


class Neutron:
    """Keeps the bindings of one port, and fails as it is told to."""

    def __init__(self, bound: dict[str, str]) -> None:
        self.bound = bound
        self.texts = {"description": "a port", "name": ""}
        self.revision: int | None = 7  # None: it has no such thing
        self.said: list[str] = []  # by which it was changed
        self.written: list[set[str]] = []  # which of a port's fields, each time
        self.meanwhile: list[Callable[[], None]] = []  # what others do just after it was read, each time one
        self.fails: dict[str, Exception] = {}  # by what is asked
        self.refused: str | None = None  # a port that it does not know
        self.late = False  # what was asked at the switch is carried out after what is asked now

    def _asked(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    def list_port_bindings(self, port: str) -> dict[str, Any]:
        self._asked("list")
        return {"bindings": [{"host": host, "status": status} for host, status in self.bound.items()]}

    def activate_port_binding(self, port: str, host: str) -> None:
        self._asked("activate")
        if self.bound.get(host) == "ACTIVE":
            if self.late:
                self.bound, self.late = {SOURCE: "INACTIVE", DEST: "ACTIVE"}, False
            raise NeutronError(409)
        self.bound = dict.fromkeys(self.bound, "INACTIVE") | {host: "ACTIVE"}

    def delete_port_binding(self, port: str, host: str) -> None:
        self._asked("delete")
        del self.bound[host]

    def show_port(self, port: str) -> dict[str, Any]:
        if port == self.refused:
            raise NeutronError(404)
        self._asked("show")
        read = self.texts | ({} if self.revision is None else {"revision_number": self.revision})
        if self.meanwhile:
            self.meanwhile.pop(0)()
        return {"port": read}

    def change(self, **texts: str) -> None:
        """By somebody else; without TEXTS it is something that does not matter here."""
        self.texts |= texts
        if self.revision is not None:
            self.revision += 1

    def update_port(self, port: str, body: dict[str, Any], revision_number: int | None = None) -> None:
        self._asked("back" if self.marked else "update")
        if revision_number != self.revision:
            raise NeutronError(412)
        assert all(len(text) <= 255 for text in body["port"].values())
        self.written.append(set(body["port"]))
        self.change()
        self.said += [text for name, text in body["port"].items() if self.texts[name] != text]
        self.texts |= body["port"]

    @property
    def marked(self) -> bool:
        return any(text.endswith(bindings.AGAIN) for text in self.texts.values())


class Manager:
    """Nova's: what its network API is asked for, with whose rights."""

    def __init__(self) -> None:
        self.network_api = self
        self.calls: list[str] = []
        self.tokens: list[Any] = []
        self.fails: dict[str, Exception] = {}

    def _called(self, name: str, context: Any) -> None:
        self.calls.append(name)
        self.tokens.append(context.auth_token)
        if name in self.fails:
            raise self.fails[name]

    def setup_networks_on_host(self, context: Any, instance: Any, *, host: str, teardown: bool) -> None:
        assert host == DEST and teardown
        self._called("teardown", context)

    def setup_instance_network_on_host(self, context: Any, *arguments: Any, migration: Any) -> None:
        self._called("bind", context)


class Guest:
    """A server with one port, and its domain in libvirt."""

    uuid = "a0a0a0a0-0000-4000-8000-000000000000"
    name = "instance-00000001"

    def __init__(self) -> None:
        self.active = True
        self.xml = "<mac address='FA:16:3e:70:00:10'/>"

    def get_network_info(self) -> Any:
        return model.NetworkInfo([vif()])

    def is_active(self) -> bool:
        return self.active

    def get_xml_desc(self) -> str:
        return self.xml


class Scene:
    def __init__(self, neutron: Neutron) -> None:
        self.neutron = neutron
        self.driver = Driver()
        self.guest = Guest()
        self.driver._host = types.SimpleNamespace(get_guest=lambda _: self.guest)
        self.manager = Manager()
        self.migration = types.SimpleNamespace(source_compute=SOURCE, dest_compute=DEST)

    def stay(self, moved: bool) -> None:
        bindings.stay(self.driver, self.manager, self.guest, self.migration, None, moved=moved)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The ports are bound here, and a binding at the destination is left."""
    found = Scene(Neutron({SOURCE: "ACTIVE", DEST: "INACTIVE"}))
    monkeypatch.setattr(neutron_client, "client", lambda _: found.neutron)
    monkeypatch.setattr(bindings, "PLUG_LATE_S", ())
    yield found


def test_ports_that_moved_are_plugged_whatever_is_bound_now(scene: Scene) -> None:
    """An attempt before this one may have bound them here, and not have come to the bridge."""
    scene.stay(moved=True)
    assert len(scene.driver.plugged) == 1 and scene.manager.calls == ["teardown", "bind"]
    assert scene.neutron.said == ["a port (bound again)", "a port"]
    assert scene.neutron.bound == {SOURCE: "ACTIVE"}
    assert scene.manager.tokens == [None, None], "the request's may have expired"


def test_ports_that_never_moved_stay_as_they_are(scene: Scene) -> None:
    scene.stay(moved=False)
    assert scene.driver.plugged == [] and scene.manager.calls == [] and scene.neutron.said == []
    assert scene.neutron.bound == {SOURCE: "ACTIVE"}


def test_ports_that_are_bound_elsewhere_come_back(scene: Scene) -> None:
    scene.neutron.bound = {SOURCE: "INACTIVE", DEST: "ACTIVE"}
    scene.stay(moved=False)
    assert len(scene.driver.plugged) == 1 and scene.neutron.bound == {SOURCE: "ACTIVE"}


@pytest.mark.parametrize("asked", ["list", "activate", "delete"])
def test_a_neutron_that_fails_is_asked_again_and_the_ports_are_plugged(scene: Scene, asked: str) -> None:
    scene.neutron.fails[asked] = NeutronError(503)
    with pytest.raises(exception.ServiceUnavailable):
        scene.stay(moved=True)
    assert len(scene.driver.plugged) == 1
    del scene.neutron.fails[asked]
    scene.stay(moved=True)
    assert scene.neutron.bound == {SOURCE: "ACTIVE"} and scene.manager.calls[-2:] == ["teardown", "bind"]
    assert len(scene.driver.plugged) == 2


def test_what_novas_code_raises_comes_after_the_plugging(scene: Scene) -> None:
    scene.manager.fails["bind"] = exception.PortUpdateFailed(port_id=PORT, reason="500")
    with pytest.raises(exception.PortUpdateFailed):
        scene.stay(moved=True)
    assert len(scene.driver.plugged) == 1 and scene.neutron.said[-1:] == ["a port"]


def test_a_removal_that_novas_code_misses_is_ours_to_repeat(scene: Scene) -> None:
    scene.neutron.fails["delete"] = NeutronError(503)
    scene.manager.fails["teardown"] = exception.PortBindingDeletionFailed(port_id=PORT, host=DEST)
    with pytest.raises(exception.ServiceUnavailable):
        scene.stay(moved=True)
    assert scene.manager.calls == ["teardown", "bind"]


def test_a_port_that_is_bound_away_late_is_fetched_again(scene: Scene) -> None:
    """Neutron carries out what it was asked at the switch when it has answered what was asked after."""
    scene.neutron.late = True
    with pytest.raises(exception.ServiceUnavailable, match="meanwhile"):
        scene.stay(moved=True)
    assert scene.neutron.bound == {SOURCE: "INACTIVE", DEST: "ACTIVE"}, "nothing is removed"
    scene.stay(moved=True)
    assert scene.neutron.bound == {SOURCE: "ACTIVE"}


def test_what_is_plugged_late_is_what_the_guest_has(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "PLUG_LATE_S", (0.0,))
    here, detached = vif(), vif()
    detached.update(id=OTHER_PORT, address="fa:16:3e:70:00:11")
    late(scene, [here, detached])
    assert [plugged.id for plugged in scene.driver.plugged] == [PORT]
    scene.guest.active = False
    late(scene, [here, detached])
    assert len(scene.driver.plugged) == 1


def late(scene: Scene, vifs: list[Any], untold: list[str] | None = None, this: object = "this") -> None:
    bindings._late[scene.guest.uuid] = "this"
    bindings._plug_late(scene.driver, scene.guest, vifs, None, untold or [], this)


def test_agents_hear_of_a_port_when_neutron_answers_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was away when the guest came back, and a port of which no agent hears is not wired."""
    monkeypatch.setattr(bindings, "PLUG_LATE_S", (0.0, 0.0, 0.0))
    scene.neutron.fails["update"] = NeutronError(503)
    untold = bindings.tell_agents(None, scene.guest, [PORT])
    assert untold == [PORT]

    def plugged(*_: Any) -> None:  # it comes back meanwhile
        if len(scene.driver.plugged) == 1:
            scene.neutron.fails.clear()

    monkeypatch.setattr("pcmig.nova.bindings.time.sleep", plugged)
    late(scene, [vif()], untold)
    assert scene.neutron.said == ["a port (bound again)", "a port"], "once"
    assert scene.guest.uuid not in bindings._late


def test_one_port_of_which_neutron_refuses_to_tell_keeps_no_other_from_it(scene: Scene) -> None:
    scene.neutron.refused = OTHER_PORT
    assert bindings.tell_agents(None, scene.guest, [OTHER_PORT, PORT]) == [], "it is not asked again"
    assert scene.neutron.said == ["a port (bound again)", "a port"]


def test_only_the_last_call_looks_after_the_ports(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be done yet is called again every few seconds: no thread is left of each time."""
    monkeypatch.setattr(bindings, "PLUG_LATE_S", (0.0,))
    late(scene, [vif()], this="an earlier one")
    assert scene.driver.plugged == [] and bindings._late.pop(scene.guest.uuid) == "this"


LONG = "x" * bindings.TEXT_CHARS
TEXTS = [("a port", ""), ("", "web"), (LONG, ""), (LONG, "web"), (LONG[:241], LONG), (LONG[:242], "")]


@pytest.mark.parametrize(("description", "name"), TEXTS)
@pytest.mark.parametrize("fails", [None, "update", "back", "show"])
def test_a_ports_texts_are_what_they_were(
    scene: Scene, description: str, name: str, fails: str | None
) -> None:
    """Also where Neutron goes away between the two changes: nothing is lost, and the next time it goes."""
    neutron = scene.neutron
    before = {"description": description, "name": name}
    neutron.texts = dict(before)
    if fails is not None:
        neutron.fails[fails] = NeutronError(503)
        assert bindings.tell_agents(None, scene.guest, [PORT]) == [PORT]
        assert {key: text.removesuffix(bindings.AGAIN) for key, text in neutron.texts.items()} == before
        assert neutron.marked is (fails == "back")
        neutron.fails.clear()
    assert bindings.tell_agents(None, scene.guest, [PORT]) == []
    assert neutron.texts == before and len(neutron.said) >= 1, "its agents have heard of it"


def nothing() -> None: ...


@pytest.mark.parametrize("revision", [7, None])
def test_nothing_is_written_but_the_mark(scene: Scene, revision: int | None) -> None:
    neutron = scene.neutron
    neutron.texts, neutron.revision = {"description": "", "name": "web"}, revision
    assert bindings.tell_agents(None, scene.guest, [PORT]) == []
    assert neutron.written == [{"description"}] * 2 and neutron.said == [bindings.AGAIN, ""]


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize("field", ["name", "description", None])
def test_what_others_write_between_two_changes_stays(scene: Scene, read: int, field: str | None) -> None:
    """Its owner gives it another name, say, or an agent another status, when it was read for the mark, or to
    take that back."""
    neutron = scene.neutron
    neutron.texts = before = {"description": "a port", "name": "web"}
    new = {} if field is None else {field: "theirs"}
    neutron.meanwhile = [nothing] * read + [lambda: neutron.change(**new)]
    assert bindings.tell_agents(None, scene.guest, [PORT]) == []
    assert neutron.texts == before | new and neutron.said, "its agents have heard of it"


def test_a_port_that_changes_all_the_time_is_told_of_later(scene: Scene) -> None:
    neutron = scene.neutron
    neutron.meanwhile = [neutron.change] * 1000
    assert bindings.tell_agents(None, scene.guest, [PORT]) == [PORT]
    assert neutron.said == [] and len(neutron.meanwhile) == 1000 - bindings.CHANGES
    neutron.meanwhile.clear()
    assert bindings.tell_agents(None, scene.guest, [PORT]) == [] and not neutron.marked


class Http:
    """Neutron's API behind its own client, which another change comes before at first."""

    def __init__(self) -> None:
        self.port: dict[str, Any] = {"description": "", "name": "web", "revision_number": 7}
        self.answers: list[tuple[str | None, int]] = []  # to If-Match

    def do_request(self, _url: str, method: str, body: Any = None, headers: Any = None) -> tuple[Any, Any]:
        status = 200
        if method == "PUT":
            if not self.answers:
                self.port |= {"name": "theirs", "revision_number": 8}
            wanted = (headers or {}).get("If-Match")
            status = 200 if wanted == f"revision_number={self.port['revision_number']}" else 412
            self.answers.append((wanted, status))
            if status == 200:
                self.port |= json.loads(body)["port"]
                self.port["revision_number"] += 1
        text = json.dumps({"port": self.port} if status == 200 else {"NeutronError": {"type": "Revision"}})
        return types.SimpleNamespace(status_code=status, headers={}, reason="", request_ids=[]), text


def test_neutrons_own_client_sends_the_revision_that_was_read() -> None:
    client, http = neutron_v2.Client(session=object()), Http()
    client.httpclient = http
    bindings._tell_agents(client, PORT)
    assert http.answers == [
        ("revision_number=7", 412),
        ("revision_number=8", 200),
        ("revision_number=9", 200),
    ]
    assert http.port == {"description": "", "name": "theirs", "revision_number": 10}


def test_a_port_whose_texts_leave_no_room_stays_as_it_is(scene: Scene) -> None:
    before = {"description": LONG, "name": LONG}
    scene.neutron.texts = dict(before)
    assert bindings.tell_agents(None, scene.guest, [PORT]) == [], "it is not asked again"
    assert scene.neutron.texts == before and scene.neutron.said == []


def test_one_interface_that_cannot_be_plugged_keeps_no_other_from_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = vif(), vif()
    first["id"] = OTHER_PORT
    plug = scene.driver.plug_vifs

    def fails(instance: Any, network_info: Any) -> None:
        if network_info[0]["id"] == OTHER_PORT:
            raise exception.InternalError("no such bridge")
        plug(instance, network_info)

    monkeypatch.setattr(scene.driver, "plug_vifs", fails)
    with pytest.raises(exception.InternalError):
        bindings.plug_again(scene.driver, None, [first, second])
    assert [plugged.id for plugged in scene.driver.plugged] == [PORT]


def test_a_guest_whose_ports_nobody_knows_is_bound_here_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conductor may be away at that very question."""
    monkeypatch.setattr(bindings, "vifs_at_source", Away())
    scene.stay(moved=True)
    assert scene.manager.calls == ["teardown", "bind"] and scene.neutron.bound == {SOURCE: "ACTIVE"}


class Away:
    """Whoever is called does not answer."""

    def __call__(self, *_: Any) -> Any:
        raise db_exceptions.DBConnectionError


def test_a_keystone_that_is_away_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neutron_client, "client", Away())
    for moved in (False, True):
        with pytest.raises(exception.ServiceUnavailable):
            scene.stay(moved=moved)
    assert len(scene.driver.plugged) == 1, "the guest runs, whoever is away"
