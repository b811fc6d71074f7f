# SPDX-License-Identifier: Apache-2.0
"""What keeps guests from arriving here, as nova-compute asks it."""

from __future__ import annotations

import pytest

from pcmig.check import novadriver, novarights
from pcmig.nova import capability


def test_nothing_is_asked_about_nova_within_nova(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would start a Python for each check of a migration, and look through all processes of the host."""

    def never(*_: object) -> None:
        raise AssertionError("nova-compute knows itself")

    monkeypatch.setattr(novadriver, "gather", never)
    monkeypatch.setattr(novarights, "gather", never)
    reason = capability.destination_reason("test:///default", 3000)
    assert reason is None or reason.startswith("no guest can arrive here by post-copy: ")
