# SPDX-License-Identifier: Apache-2.0
"""What a bed's programs find in their environment: nothing of the caller's shell but what is named here.

A PYTHONPATH makes pip take a checkout for an installed package, LIBVIRT_DEFAULT_URI sends virsh to another
host, a language changes the words that are read, LD_PRELOAD gets into every daemon. So a bed's process drops
all of it before it starts the first program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = re.compile(
    # How this machine reaches mirrors and indexes, and where it keeps what is temporary.
    r"(?i:(https?|ftp|all|no)_proxy)|(PIP|UV)_\w+|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|TMPDIR"
    # The terminal of who looks on.
    r"|TERM|COLORTERM|NO_COLOR|FORCE_COLOR|COLUMNS|LINES"
    # Options of the beds and their tests.
    r"|PCMIG_(ACCEL|CACHE|MIRROR|VENV|SCREENSHOTS|NOVA|RUN_DIR|TEST_SET_UP|WERROR)"
    # What counts tests and their lines.
    r"|(PYTEST|COVERAGE|COV)_\w+"
)


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """What of ENVIRONMENT a bed keeps, with what it sets itself."""
    kept = {name: value for name, value in environment.items() if KEPT.fullmatch(name)}
    return {
        **kept,
        "PATH": PATH,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def drop_the_callers() -> None:
    """This process, and with it all that it starts, has a clean environment from now on."""
    wanted = clean(os.environ)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)
