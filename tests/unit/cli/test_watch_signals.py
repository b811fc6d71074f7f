# SPDX-License-Identifier: Apache-2.0
"""Leaving `pcmig watch`."""

from __future__ import annotations

import signal

import pytest

from tests.unit.cli.conftest import Start


@pytest.mark.parametrize("terminal", [False, True])
def test_interrupt_leaves_the_migration_alone(start: Start, terminal: bool) -> None:
    running = start("watched", "watch", "g1", terminal=terminal)
    running.read_until("pre-copy")
    running.send(signal.SIGINT)
    code, text = running.finish()
    assert code == 4
    assert "left: the migration of g1 goes on" in text and "Traceback" not in text
