# SPDX-License-Identifier: Apache-2.0
"""Test bed: two libvirt hosts in network namespaces of one machine. Start with bed.Bed."""

from tests.bed.bed import Bed
from tests.bed.errors import BedError
from tests.bed.guest import Guest, GuestSpec
from tests.bed.host import Host
from tests.bed.verdict import Heartbeat, Verdict

__all__ = ["Bed", "BedError", "Guest", "GuestSpec", "Heartbeat", "Host", "Verdict"]
