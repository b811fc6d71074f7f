# SPDX-License-Identifier: Apache-2.0
"""For the unit tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes depends on the machine, and on what else it does: no test is judged by it.
settings.register_profile("pcmig", deadline=None)
settings.load_profile("pcmig")
