# SPDX-License-Identifier: Apache-2.0
"""For the unit tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes depends on the machine, and on what else it does: no test is judged by it.
settings.register_profile("pcmig", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pcmig")
