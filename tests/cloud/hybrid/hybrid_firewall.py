# SPDX-License-Identifier: Apache-2.0
"""For neutron's Open vSwitch agent: as its iptables_hybrid driver has each port plugged, with a Linux bridge
between the guest's device and Open vSwitch, but without iptables, which not every kernel has."""

from neutron.agent import firewall


class Hybrid(firewall.NoopFirewallDriver):  # type: ignore[misc]  # neutron has no types
    OVS_HYBRID_PLUG_REQUIRED = True
