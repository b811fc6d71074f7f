# SPDX-License-Identifier: Apache-2.0
"""The engine that Nova's own tests play says all that is asked of the real one. Those are run by name alone:
nobody would notice for long."""

from __future__ import annotations

import pathlib
import re

from pcmig.ledgers import document
from tests.nova_own.engine_status import PRECOPY

FOLDER = pathlib.Path(__file__).parents[3] / "pcmig" / "nova"


def test_it_says_all_that_is_asked() -> None:
    asked = {
        name
        for path in FOLDER.glob("*.py")
        for name in re.findall(r"\bstatus\[\"(\w+)\"\]", path.read_text())
    }
    asked |= {*document.COLUMNS.values(), "link_bps", "quickack", "operator_command"}
    assert "gate" in asked
    assert asked <= set(PRECOPY)
