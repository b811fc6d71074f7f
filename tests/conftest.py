# SPDX-License-Identifier: Apache-2.0
"""For all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

import pytest

# A shell starts what runs in its background with SIGINT ignored, and so would be every pcmig that a test
# starts (it respects that, as programs should). With a handler here, children begin with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests know how long a guest takes under emulation, and have it everywhere; PCMIG_ACCEL=kvm is to try KVM.
os.environ.setdefault("PCMIG_ACCEL", "tcg")

# Migrations of the machine that the tests run on, other tests' among them, are none of their business: what
# a session starts knows of each other, and of nobody else.
_run_dir = tempfile.mkdtemp(prefix="pcmig-run.")
os.chmod(_run_dir, 0o755)
os.environ["PCMIG_RUN_DIR"] = _run_dir
atexit.register(shutil.rmtree, _run_dir, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """QEMU 11 under emulation loses a page write now and then, pcmig or not, in a way that nothing else does
    (tests.bed.guest.lost_writes). Such a test is run once more, and the summary counts it as "rerun"."""
    for item in items:
        if item.nodeid.startswith(
            ("tests/functional/", "tests/cloud", "tests/faults/", "tests/storage/", "tests/cases/")
        ):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=["LostWrite"]))
