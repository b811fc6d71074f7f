# SPDX-License-Identifier: Apache-2.0
"""Kept ledgers for tests: all figures are those of the core, from a trace."""

from __future__ import annotations

import pathlib
from typing import Any

from pcmig.ledgers import opening
from pcmig.ledgers.document import host
from tests.unit import traces

UUID = "aaaaaaaa-0000-4000-8000-000000000001"


def document(folder: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """Of a migration to post-copy, as `pcmig migrate` would have kept it; FOLDER takes its trace."""
    path = folder / "made.trace"
    path.write_text("\n".join(traces.recorded()) + "\n")
    found = opening.open_file(str(path)).document
    facts = {
        "hostname": "a",
        "host_uuid": "11111111-0000-4000-8000-000000000001",
        "libvirt_version": 12_008_000,
        "qemu_version": 11_001_000,
    }
    return {
        **found,
        "guest": {"name": "g1", "uuid": UUID},
        "by": {"program": "pcmig migrate", "user": "root"},
        "hosts": {
            "source": {**host("qemu:///system", facts), "pcmig": "0.1.0"},
            "destination": host("qemu+tcp://b/system", {**facts, "hostname": "b"}),
        },
        "words": "done: g1 runs at qemu+tcp://b/system after 38.4 s",
        "begun": "2026-11-29T20:00:00.000Z",
        "started": "2026-11-29T20:00:00.000Z",
        "ended": "2026-11-29T20:00:38.446Z",
        "more": {},
        **changes,
    }
