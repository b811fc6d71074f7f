# SPDX-License-Identifier: Apache-2.0
"""What QEMU 11 does by itself under emulation, told from everything that pcmig could have done."""

from __future__ import annotations

import pytest

from tests.bed.guest import crash, lost_writes


@pytest.mark.parametrize(
    ("log", "known"),
    [
        ("1.0 a BAD 17 4 0 512 1\n", True),
        ("1.0 a BAD 17 4 0 512 1\n1.1 a HB 3 60 1 1 1 0\n1.2 a BAD 99 2 0 512 1\n", True),
        ("1.0 a HB 3 60 1 1 0 0\n", False),
        ("", False),
        ("1.0 a BAD 17 4 0 512 2\n", False),  # older than the write before the last
        ("1.0 a BAD 17 4 0 512 0\n", False),  # what was never written there
        ("1.0 a BAD 17 4 8 511 1\n", False),  # torn
        ("1.0 a BAD 17 4 0 256 1\n", False),
        ("1.0 a BAD 17 4 0 512 1\n1.2 a BAD 99 2 0 512 3\n", False),  # one of them is another thing
    ],
)
def test_its_shape(log: str, known: bool) -> None:
    assert lost_writes(log) is known


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "2.0 b [   36.51] kernel tried to execute NX-protected page - exploit attempt? (uid: 0)\n"
            "2.1 b [   36.56] BUG: unable to handle page fault for address: ffff8d3a87a20140\n",
            "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",
        ),
        ("2.0 b [   17.4] Kernel panic - not syncing: stack\n", "Kernel panic - not syncing: stack"),
        ("1.0 a BAD 17 4 0 512 1\n1.1 a HB 3 60 1 1 1 0\n", None),
        ("", None),
    ],
)
def test_a_crash_is_told_apart_from_silence(log: str, words: str | None) -> None:
    assert crash(log) == words
