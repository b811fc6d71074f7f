# SPDX-License-Identifier: Apache-2.0
"""A real guest, its port one of OVN's, migrated by pcmig."""

from __future__ import annotations

from tests.ovn.guest import GuestScene
from tests.ovn.scene import Result, Way
from tests.ovn.test_station import MORE_MS, TIMES


def bounded(result: Result) -> None:
    """What the guest says by itself arrives as soon as it says it. (Its answers may wait for pages.)"""
    limit_ms = TIMES * result.own_ms + MORE_MS + result.client.own_ms
    assert result.from_guest_ms <= limit_ms, result
    assert result.client.lost < result.client.sent and result.neighbour.lost < result.neighbour.sent, result


def test_it_is_reached_at_once(guests: GuestScene) -> None:
    result, report = guests.measure("pcmig --ports", Way("rarp"))
    assert [each["answer"] for each in report["ports"]["answers"]] == ["open"], report["ports"]
    assert result.activated_ms is not None
    bounded(result)
