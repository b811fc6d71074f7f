# SPDX-License-Identifier: Apache-2.0
"""Ports of a guest that runs again where they were taken out of the bridge."""

from __future__ import annotations

from typing import Any

import os_vif.objects
import pytest
from nova.network import model, os_vif_util

from pcmig.nova import bindings

os_vif.objects.register_all()

PORT = "46c5e305-0db3-4e69-8917-7f416e9fff8a"


class Driver:
    """Plugs as Nova's does: by what os-vif is told."""

    def __init__(self) -> None:
        self.plugged: list[Any] = []

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
