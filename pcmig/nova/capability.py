# SPDX-License-Identifier: Apache-2.0
"""What on this host, and in a guest beyond its XML, does not go with post-copy."""

from __future__ import annotations

from pcmig import check
from pcmig.check import gather
from pcmig.guest import Obstacle

# libvirt's XML of it is <memory model='nvdimm'>, which pcmig.guest cannot tell from others that work.
VPMEM = Obstacle(
    "a virtual persistent memory (hw:pmem)",
    "Nova does not combine post-copy with it",
    "migrate it in pre-copy",
    True,
)


def destination_reason(connect: str, timeout_ms: int) -> str | None:
    """Why no guest can arrive on this host by post-copy, or None: the rows of `pcmig check` that fail.

    A row that cannot be judged as this user (nova-compute seldom runs as root) is no reason: libvirt's own
    preparation of the migration, before any memory is sent, has the last word.
    """
    rows = check.run(gather.gather(connect, timeout_ms=timeout_ms, with_nova=False))
    failed = [row for row in rows if row.status == "fail"]
    if not failed:
        return None
    return "no guest can arrive here by post-copy: " + "; ".join(
        f"{row.name}: {row.found}" + (f" ({row.fix})" if row.fix else "") for row in failed
    )
