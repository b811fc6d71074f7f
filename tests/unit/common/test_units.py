# SPDX-License-Identifier: Apache-2.0
"""Figures as they are printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig_common import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (-5, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (65536, "64 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (64 * units.MIB, "64.0 MiB"),
        (120 * units.MIB, "120 MiB"),
        (1610612736, "1.5 GiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_size(value: int, text: str) -> None:
    assert units.size(value) == text


@given(st.integers(0, 1 << 48))
def test_size_is_never_wide(value: int) -> None:
    assert len(units.size(value)) <= 9


def test_rate_is_in_mib_as_virsh_has_it() -> None:
    assert units.rate(11.8 * units.MIB) == "11.8 MiB/s"
    assert units.rate(-1) == "0.0 MiB/s"


def test_times() -> None:
    assert units.seconds(12_345) == "12.3s"
    assert units.clock(12_345) == "0:12"
    assert units.clock(3_725_000) == "1:02:05"
