# SPDX-License-Identifier: Apache-2.0
"""What becomes of signals when nobody reads them any more."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

LATE = """
import os, signal, sys
from pcmig.cli.signals import SignalPipe
for _ in range(2):
    with SignalPipe((signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.take() == [signal.SIGUSR1]
os.kill(os.getpid(), int(sys.argv[1]))
print("told")
"""


@pytest.mark.parametrize(
    ("number", "ends"), [(signal.SIGUSR1, False), (signal.SIGUSR2, False), (signal.SIGTERM, True)]
)
def test_a_request_that_comes_too_late_is_not_the_end(number: signal.Signals, ends: bool) -> None:
    done = subprocess.run([sys.executable, "-c", LATE, str(int(number))], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == ((-number, "") if ends else (0, "told\n")), done.stderr
