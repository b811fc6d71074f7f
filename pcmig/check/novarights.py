# SPDX-License-Identifier: Apache-2.0
"""What the running nova-compute may do on this host: the row, and how the facts are gathered.

doc/operate/privileges.rst has the whole list.
"""

from __future__ import annotations

import contextlib
import pathlib
import pwd
import re
from dataclasses import dataclass

from pcmig.check import process
from pcmig.check.model import HERE, Facts, Row


@dataclass(frozen=True)
class NovaRights:
    """Of the first nova-compute that runs here."""

    pid: int
    user: str
    reads_others: bool  # it sees which sockets another user's process has


def gather(root: str = "/") -> NovaRights | None:
    """None: no nova-compute runs, or none that can be seen from here."""
    for folder in sorted(
        (path for path in (pathlib.Path(root) / "proc").glob("[0-9]*")), key=lambda path: int(path.name)
    ):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")[:3]
            if any(word.rpartition(b"/")[2] == b"nova-compute" for word in words):
                return _of(int(folder.name), (folder / "status").read_text(errors="replace"))
    return None


def _of(pid: int, status: str) -> NovaRights | None:
    uid = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)
    reads_others = process.has_capability(status, process.CAP_SYS_PTRACE)
    if uid is None or reads_others is None:
        return None
    try:
        name = pwd.getpwuid(int(uid[1])).pw_name
    except KeyError:
        name = f"+{uid[1]}"
    return NovaRights(pid, name, reads_others)


def nova_rights(f: Facts) -> Row | None:
    rights = f.nova_rights
    if rights is None:
        return None
    who = f"nova-compute (process {rights.pid}) runs as {rights.user}"
    if rights.reads_others:
        return Row(HERE, "nova's rights", "ok", f"{who}: it sees which connections are a migration's")
    return Row(
        HERE,
        "nova's rights",
        "warn",
        f"{who}, which does not see QEMU's sockets",
        "CAP_SYS_PTRACE, which distributions do not give it",
        "which connections are the migration's is told by the guest's cgroup then, or by when they came: not "
        "of guests that leave in the same second through libvirtd's connections, nor at other ports than "
        "libvirt's (49152 to 49215). Their switch waits longer than needed; TCP alone notices a dead link",
        "leave migration_port_min and migration_port_max of qemu.conf as they are, and cgroups on (those of "
        "systemd, v2); nothing else is needed",
    )
