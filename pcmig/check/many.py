# SPDX-License-Identifier: Apache-2.0
"""Whether this host can take as many live migrations at once as Nova lets leave: the rows, and how the facts
are gathered.

libvirt answers each call with a thread of its pool. The migrate call holds one for as long as the migration
lasts (virDomainMigrateToURI3 at the source, its last step at the destination); the switch, the statistics and
the pace are calls of the same kind. So a pool full of migrations is one in which nobody can be switched, and
none ends.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
from dataclasses import dataclass

from pcmig.check import qemuconf
from pcmig.check.model import HERE, Facts, Row
from pcmig.check.novarights import NovaRights
from pcmig.nova import unread

SLOTS = 1  # max_concurrent_live_migrations, nova/conf/compute.py
WORKERS = 20  # max_workers, libvirtd.conf and virtqemud.conf
# What else asks meanwhile: each migration's statistics and switch, nova-compute's own calls, monitoring.
WORKERS_LEFT = 5
DAEMONS = ("virtqemud", "libvirtd")
# Of one migration in nova-compute's process, with room: three connections to libvirt of two each, its news, a
# trace, the tunnel (counted by tests/bench/many/fifty.py).
FILES_EACH = 10
FILES_OF_NOVA = 256  # what a nova-compute has open besides, with room


@dataclass(frozen=True)
class Many:
    """What decides how many may leave at once. None: not known."""

    slots: int | None = None  # 0: Nova sets no limit
    daemon: str | None = None  # which answers for QEMU here
    workers: int | None = None
    files: int | None = None  # that nova-compute may have open


def gather(root: str = "/", rights: NovaRights | None = None) -> Many:
    """RIGHTS: of the nova-compute that runs here."""
    base = pathlib.Path(root)
    daemon = _running_daemon(base)
    return Many(
        slots=_slots(base / "etc/nova"),
        daemon=daemon,
        workers=_workers(base / "etc/libvirt" / f"{daemon}.conf") if daemon is not None else None,
        files=_open_files(base, rights.pid) if rights is not None else None,
    )


def _running_daemon(base: pathlib.Path) -> str | None:
    names = set()
    for path in base.glob("proc/[0-9]*/comm"):
        with contextlib.suppress(OSError):
            names.add(path.read_text(errors="replace").strip())
    return next((daemon for daemon in DAEMONS if daemon in names), None)


def _slots(folder: pathlib.Path) -> int | None:
    """As nova-compute reads it, where it is not told otherwise: the last file and the last line count."""
    found = SLOTS
    for path in unread.files(str(folder)):
        try:
            text = pathlib.Path(path).read_text(errors="replace")
        except OSError:
            return None
        for option in unread.options(path):
            if (option.section, option.name) == ("DEFAULT", "max_concurrent_live_migrations"):
                value = re.split("[=:]", text.splitlines()[option.line - 1], maxsplit=1)[1].strip()
                found = int(value) if re.fullmatch("[0-9]{1,9}", value, re.ASCII) else -1
    return found if found >= 0 else None


def _workers(path: pathlib.Path) -> int | None:
    try:
        value = qemuconf.parse(path.read_text(errors="replace")).get("max_workers", WORKERS)
    except FileNotFoundError:
        return WORKERS
    except OSError:
        return None
    return value if isinstance(value, int) and value > 0 else None


def _open_files(base: pathlib.Path, pid: int) -> int | None:
    with contextlib.suppress(OSError):
        text = (base / "proc" / str(pid) / "limits").read_text(errors="replace")
        if match := re.search(r"^Max open files\s+([0-9]{1,18})\s", text, re.MULTILINE):
            return int(match[1])
    return None


def _slots_say(slots: int) -> str:
    """What Nova allows, as a sentence."""
    number = str(slots) if slots > 0 else "any number of"
    return f"Nova lets {number} guest{'' if slots == 1 else 's'} leave at once"


def workers(f: Facts) -> Row | None:
    """Only where Nova decides how many leave."""
    many = f.many
    if many is None:
        return None
    name, wanted = (
        "libvirt's workers",
        f"{WORKERS_LEFT} more of max_workers than guests leave or arrive at once",
    )
    why = (
        "each migration holds one for as long as it lasts, at both ends; the switch and the statistics need "
        "another, so that with none left nobody can be switched and no migration ends"
    )
    if many.slots is None or many.workers is None or many.daemon is None:
        what = "max_workers" if many.slots is not None else "max_concurrent_live_migrations"
        return Row(HERE, name, "unknown", f"{what} cannot be read", wanted, why)
    found = f"max_workers = {many.workers} in {many.daemon}.conf; {_slots_say(many.slots)}"
    if 0 < many.slots <= many.workers - WORKERS_LEFT:
        return Row(HERE, name, "ok", found)
    need = f"at least {many.slots + WORKERS_LEFT}" if many.slots > 0 else "a number that fits"
    return Row(
        HERE,
        name,
        "warn" if many.slots == 0 or many.slots < many.workers else "fail",
        found,
        wanted,
        why,
        f"set max_workers in /etc/libvirt/{many.daemon}.conf to {need} and restart {many.daemon} (guests "
        "run on), here and where guests arrive; or set max_concurrent_live_migrations lower",
    )


def open_files(f: Facts) -> Row | None:
    """Only where a nova-compute runs."""
    many = f.many
    if many is None or many.files is None or many.slots is None:
        return None
    name = "open files"
    needed = FILES_OF_NOVA + FILES_EACH * many.slots
    found = f"nova-compute may have {many.files}; {_slots_say(many.slots)}"
    if many.slots > 0 and needed <= many.files:
        return Row(HERE, name, "ok", found)
    return Row(
        HERE,
        name,
        "warn",
        found,
        f"{needed}: {FILES_EACH} for each migration, {FILES_OF_NOVA} for the rest"
        if many.slots > 0
        else "a limit to both",
        "a migration that cannot open its connections is refused before the guest is touched; what else "
        "nova-compute needs a file for fails",
        "set LimitNOFILE in nova-compute's unit higher, or max_concurrent_live_migrations lower",
    )
