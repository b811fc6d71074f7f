# SPDX-License-Identifier: Apache-2.0
"""For the unit tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from pcmig import _core
from pcmig.check import gather, novadriver
from pcmig.ports import asking, vswitchd
from pcmig.tunnel import client
from tests.unit.patience import PATIENCE_MS, PATIENCE_S

# How long an example takes depends on the machine, and on what else it does: no test is judged by it.
settings.register_profile("pcmig", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pcmig")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked answers as soon as a busy machine lets it. A test of a time-out sets its own."""
    _core.set_connect_timeout(PATIENCE_MS)
    for module, name in (
        (client, "TIMEOUT_S"),
        (client, "DIAL_TIMEOUT_S"),
        (gather, "ROUTE_TIMEOUT_S"),
        (novadriver, "TIMEOUT_S"),
        (asking, "FIRST_S"),
        (asking, "SILENT_S"),
        (vswitchd, "TIMEOUT_S"),
    ):
        monkeypatch.setattr(module, name, PATIENCE_S)
