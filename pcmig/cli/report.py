# SPDX-License-Identifier: Apache-2.0
"""The result of `pcmig migrate` for programs: one JSON object, described in doc/operate/command.rst."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any

from pcmig import files
from pcmig.cli.base import UsageError

SCHEMA = 1  # grows when a field changes its meaning or goes away; fields may be added without


def check_writable(path: str, option: str = "--json") -> None:
    """Raises UsageError when PATH, given with OPTION, could not be written: better now than when the guest
    has moved."""
    if path == "-":
        return
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise UsageError(f"{option} {path!r} is a folder")
    if not os.path.isdir(folder):
        raise UsageError(f"{option} {path!r}: the folder {folder!r} does not exist")
    target = path if os.path.exists(path) and not _replaceable(path) else folder
    if not os.access(target, os.W_OK):
        raise UsageError(f"{option} {path!r} cannot be written: permission denied")


def write(path: str, report: dict[str, Any]) -> None:
    """Writes REPORT to PATH ('-': stdout), see put(). Raises OSError."""
    text = json.dumps(report, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    put(path, text.encode())


def put(path: str, data: bytes) -> None:
    """Writes DATA to PATH. A regular file is replaced as a whole: readers never see half of it. Raises
    OSError."""
    if not _replaceable(path):  # a pipe, a terminal, a link
        with open(path, "wb") as file:
            file.write(data)
        return
    umask = os.umask(0)
    os.umask(umask)
    files.replace(path, data, 0o666 & ~umask)


def _replaceable(path: str) -> bool:
    """Whether PATH is a regular file or nothing yet."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True
