# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced as a whole."""

from __future__ import annotations

import contextlib
import os
import tempfile


def replace(path: str, data: str | bytes, mode: int) -> None:
    """The file as a whole: who reads meanwhile sees the old one. Raises OSError."""
    handle, temporary = tempfile.mkstemp(prefix=".pcmig-", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
