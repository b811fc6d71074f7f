# SPDX-License-Identifier: Apache-2.0
"""The faults' and moments' tables, seeds, rules for the network, and what operators are told."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.faults import wire
from tests.faults.faults import FAULTS, HEALS, faults_of
from tests.faults.judge import WHOLE, Claim, End
from tests.faults.moments import MOMENTS, POSTCOPY, PRECOPY, SWITCH, cell_name, choose_cells, delay_s
from tests.faults.stage import PCMIG, STOCK, command_claim, record_claim


def test_the_control_has_no_tunnel_and_no_commands_of_ours() -> None:
    assert "tunnel-both" in faults_of("hosts")
    assert set(faults_of("hosts")) - set(faults_of("hosts", STOCK)) == {
        "tunnel-source",
        "tunnel-destination",
        "tunnel-both",
        "host-destination-dead",
    }
    assert not any(name.startswith("tunnel") for name in faults_of("cloud"))


def test_a_seed_is_a_moment() -> None:
    cell = cell_name("stream-5s", POSTCOPY)
    assert delay_s(cell, 1) == delay_s(cell, 1)
    assert delay_s(cell, 1) != delay_s(cell, 2)
    assert delay_s(cell, 1) != delay_s(cell_name("stream-60s", POSTCOPY), 1)


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=str)
def test_moments_stay_in_their_bounds(moment: Any) -> None:
    times = [delay_s(cell_name("both", moment.name), seed) for seed in range(200)]
    assert moment.low_s <= min(times) < max(times) <= moment.high_s
    assert max(times) - min(times) > 0.9 * (moment.high_s - moment.low_s)


def test_cells_by_glob() -> None:
    names = faults_of("hosts")
    assert len(choose_cells("*", names)) == len(names) * 3
    assert choose_cells("stream-5s/switch", names) == [("stream-5s", SWITCH)]
    assert choose_cells("qemu-source, loss/pre-copy", names) == [
        ("loss", PRECOPY),
        *(("qemu-source", moment) for moment in MOMENTS),
    ]
    assert choose_cells("compute-source", names) == []  # there is no such service
    assert choose_cells("compute-source/switch", faults_of("cloud")) == [("compute-source", SWITCH)]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_every_fault_knows_what_physics_allows(fault: Any) -> None:
    for moment in MOMENTS:
        allowed = fault.allowed_at(moment, None)
        assert allowed and not allowed & {End.DOUBLE, End.PAUSED}
        if fault.lasts_s is not None and fault.allowed is HEALS:
            assert allowed <= WHOLE


def test_a_guest_that_had_left_cannot_be_gone_with_its_source() -> None:
    fault = FAULTS["qemu-source"]
    assert End.GONE in fault.allowed_at(SWITCH, None)
    assert End.GONE in fault.allowed_at(SWITCH, -0.02)
    assert End.GONE not in fault.allowed_at(SWITCH, 0.02)


def test_only_at_the_switch_a_missing_daemon_may_cost_the_way_back() -> None:
    for fault in (FAULTS["libvirtd-source-kill"], FAULTS["both"]):
        assert End.UNHEARD in fault.allowed_at(SWITCH, 0.01)
        assert End.TURNED_BACK not in fault.allowed_at(SWITCH, 0.01), "what it did would be undone"
        assert not any(End.UNHEARD in fault.allowed_at(moment, None) for moment in (PRECOPY, POSTCOPY))
    assert End.UNHEARD not in FAULTS["control"].allowed_at(SWITCH, 0.01)


def test_rules_for_nft() -> None:
    text = wire.ruleset(wire.STREAM)
    assert text.startswith(f"table inet {wire.TABLE} {{")
    assert 'iifname "mig0" tcp dport 49152-49215 drop' in text
    assert "16509" not in text and "output" not in text
    text = wire.ruleset(wire.CONTROL, "mgmt0")
    assert 'iifname "mgmt0" drop' in text and 'oifname "mgmt0" drop' in text
    assert text.count("{") == text.count("}") == 3


@pytest.mark.parametrize(
    ("driver", "code", "said", "claim"),
    [
        (PCMIG, 0, "done: ", Claim.MOVED),
        (PCMIG, 1, "g1 did not move: the guest runs on at the source", Claim.STAYED),
        (PCMIG, 1, "the guest is at the source, paused: an error", Claim.PAUSED),
        (PCMIG, 1, "failed: shut down at the source; it is off there\ng1 stays at the source", Claim.OFF),
        (PCMIG, 0, "done: g1 moved to b, and was shut down there: it is off", Claim.OFF),
        (PCMIG, 1, "cannot connect", Claim.FAILED),
        (PCMIG, 3, "needs an operator", Claim.OPERATOR),
        (PCMIG, 70, "internal error", Claim.WRONG),
        (PCMIG, -signal.SIGSEGV, "", Claim.WRONG),
        (PCMIG, None, "post-copy interrupted at 43 %, resuming", Claim.RECOVERING),
        (PCMIG, None, "post-copy", Claim.SILENT),
        (PCMIG, 0, "done: g1 goes on at qemu:///system from the moment of the switch; n", Claim.TURNED_BACK),
        (PCMIG, 3, "g1 goes on at qemu:///system from the moment of the switch, if", Claim.OPERATOR),
        (STOCK, 0, "", Claim.MOVED),
        (STOCK, 1, "error: operation failed", Claim.FAILED),
        (STOCK, None, "", Claim.SILENT),
    ],
)
def test_what_a_command_tells(driver: str, code: int | None, said: str, claim: Claim) -> None:
    assert command_claim(driver, code, said) is claim


def record(**changes: Any) -> dict[str, Any]:
    return {
        "status": "ACTIVE",
        "task": None,
        "host": "b",
        "fault": "",
        "migration": "completed",
        "bindings": {"b": "ACTIVE"},
        "allocations": ["b"],
        "migration_allocations": [],
        **changes,
    }


def test_a_record_of_a_guest_that_moved() -> None:
    assert record_claim(record(), "a", "b") == (Claim.MOVED, ())


def test_a_record_of_a_guest_that_stayed() -> None:
    stayed = record(host="a", migration="error", bindings={"a": "ACTIVE"}, allocations=["a"])
    assert record_claim(stayed, "a", "b") == (Claim.STAYED, ())


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"status": "ERROR"}, Claim.OPERATOR),
        ({"status": "MIGRATING", "task": "migrating"}, Claim.SILENT),
        ({"status": "MIGRATING", "fault": "post-copy interrupted at 43 %"}, Claim.RECOVERING),
        ({"status": "SHUTOFF"}, Claim.WRONG),
    ],
)
def test_other_records(changes: dict[str, Any], claim: Claim) -> None:
    assert record_claim(record(**changes), "a", "b")[0] is claim


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"migration": "running"}, "migration running"),
        ({"migration": None}, "migration None"),
        ({"bindings": {"a": "ACTIVE", "b": "INACTIVE"}}, "port bindings"),
        ({"allocations": ["a", "b"]}, "resources held on a, b"),
        ({"migration_allocations": ["a"]}, "a by the migration"),
    ],
)
def test_records_that_contradict_themselves(changes: dict[str, Any], text: str) -> None:
    claim, contradictions = record_claim(record(**changes), "a", "b")
    assert claim is Claim.MOVED
    assert len(contradictions) == 1 and text in contradictions[0]
