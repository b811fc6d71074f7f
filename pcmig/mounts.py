# SPDX-License-Identifier: Apache-2.0
"""Whether a file of this host is on storage that other hosts have, too."""

from __future__ import annotations

import contextlib
import pathlib
import re

# Kinds of file systems (proc_pid_mountinfo(5)) that several hosts can have at once. What FUSE brings is taken
# for one of them: mostly it is.
SHARED = ("nfs", "ceph", "cifs", "smb", "gfs2", "ocfs2", "lustre", "gpfs", "beegfs", "fuse", "9p", "virtiofs")


def shared(path: str, mountinfo: str | None = None) -> bool:
    """Of a path that may not be there (yet). MOUNTINFO: of another process than this one."""
    if mountinfo is None:
        mountinfo = ""
        with contextlib.suppress(OSError):
            mountinfo = pathlib.Path("/proc/self/mountinfo").read_text()
    real = pathlib.Path(path).resolve()
    found = (-1, "")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()
        if len(words) < 5 or not kind:
            continue
        point = pathlib.Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4]))
        # Of two on one point the later hides the other.
        if real.is_relative_to(point) and len(point.parts) >= found[0]:
            found = (len(point.parts), kind[0])
    return found[1].startswith(SHARED)
