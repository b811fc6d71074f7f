# SPDX-License-Identifier: Apache-2.0
"""Whether migrations that leave this host at the same time know of each other: csrc/edge/turns_file.h."""

from __future__ import annotations

import os

from pcmig.check.model import HERE, Facts, Row

NAME = "other migrations"
FIX = "install etc/tmpfiles.d/pcmig.conf, then: systemd-tmpfiles --create pcmig.conf"
GROUP_WRITES = 0o030  # and enters

# What keeps this process from the file, by its state.
_FOUND = {
    "missing": "{folder} is not there, and this user cannot make it",
    "denied": "{path} is not open to this user: {error}",
    "foreign": "{path} is not a file of this version of pcmig",
    "failed": "{path} cannot be used: {error}",
}
_FIXES = {
    "foreign": "when no migration runs, remove it; one version of pcmig at a time can use it",
}


def other_migrations(f: Facts) -> Row | None:
    if f.probe is None:
        return None
    turns = f.probe["turns"]
    folder = turns["path"].rpartition("/")[0]
    why = (
        "guests that leave at the same time share a link: pcmig moves one after the other, and has the "
        "others make room while one is switched. Processes that do not know of each other cannot"
    )
    if turns["state"] != "shared":
        found = _FOUND[turns["state"]].format(
            folder=folder, path=turns["path"], error=os.strerror(turns["errno"])
        )
        fix = _FIXES.get(turns["state"], FIX)
        return Row(HERE, NAME, "warn", found, "a file that all migrations of this host share", why, fix)
    if turns["folder_mode"] & GROUP_WRITES != GROUP_WRITES:
        found = f"{folder} is open to its owner alone: mode {turns['folder_mode']:04o}"
        wanted = "mode 2770, of a group that nova-compute's user is in"
        return Row(HERE, NAME, "warn", found, wanted, why, FIX)
    now = f", {turns['migrations']} now" if turns["migrations"] else ""
    return Row(HERE, NAME, "ok", f"known through {turns['path']}{now}")
