# SPDX-License-Identifier: Apache-2.0
"""The interfaces in a guest's XML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig.guest import GuestXmlError
from pcmig.ports.model import Nic
from pcmig.ports.nics import nics

XML = """<domain type='kvm'><name>g1</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid><devices>
<interface type='bridge'>
  <mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet0'/>
</interface>
<interface type='bridge'>
  <mac address='52:54:00:00:00:02'/><source bridge='br-int'/><target dev='tap7a1b'/>
  <virtualport type='openvswitch'><parameters interfaceid='7a1b'/></virtualport>
</interface>
<interface type='network'>
  <source network='default' bridge='virbr0'/><target dev=' '/><link state='down'/>
</interface>
<interface type='ethernet'>
  <ip address='10.0.0.9' prefix='24'/><ip address='FD00::9'/><ip address='x'/><target dev='tap1'/>
  <filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.9'/>
    <parameter name='IPV6' value='fd00::a'/><parameter name='MTU' value='10.0.0.1'/></filterref>
</interface>
<interface type='direct'><source dev='eth0' mode='bridge'/><target dev='macvtap0'/></interface>
</devices></domain>"""


def test_what_is_read() -> None:
    assert nics(XML) == [
        Nic("52:54:00:00:00:01", "bridge", "vnet0", "br0", False),
        Nic("52:54:00:00:00:02", "bridge", "tap7a1b", "br-int", True),
        Nic("", "network", None, "virbr0", False, pulled=True),
        Nic("", "ethernet", "tap1", None, False, addresses=("10.0.0.9", "fd00::9", "fd00::a")),
        Nic("", "direct", "macvtap0", None, False),
    ]


@pytest.mark.parametrize("xml", ["", "<network/>", "<!DOCTYPE x><domain/>"])
def test_no_guest(xml: str) -> None:
    with pytest.raises(GuestXmlError):
        nics(xml)


@given(st.text())
def test_any_text(text: str) -> None:
    for xml in (text, f"<domain><devices><interface>{text}</interface></devices></domain>"):
        try:
            found = nics(xml)
        except GuestXmlError:
            continue
        assert all(isinstance(nic, Nic) for nic in found)
