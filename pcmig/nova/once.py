# SPDX-License-Identifier: Apache-2.0
"""What Nova's post step does at the source once the guest has moved: each act once in a migration's life.

After an error Nova's code is called again, by another process as well, until Nova has written down where
the guest is. Most of it may be repeated. What is in here may not: after the first time the database has the
server at the destination, with the cores it has there, so that a second time would take a disk away from a
neighbour that shares it, switch off a neighbour's cores, or disconnect whatever got the volume's number
meanwhile.

A mark is on the disk before an act begins, and another when it has ended. What a process left between the two
is not done again: the log says what may be left, and what to look at.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from nova.virt import block_device
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from pcmig import journal
from pcmig.nova import records

LOG = logging.getLogger(__name__)

# The acts, and what a volume's begins with.
SECRETS = "secrets"
VOLUME = "volume "
PORTS_AND_CORES = "ports and cores"
ATTACHMENTS = "attachments"
FILES = "files"

BEGUN, DONE = "begun", "done"


class Acts:
    """Those of one migration, by the marks in its RECORD."""

    def __init__(self, known: records.Records, record: records.Record, instance: Any) -> None:
        self._records = known
        self._noted = record
        self._instance = instance

    @property
    def _record(self) -> records.Record:
        """As it is now, or was when somebody removed it."""
        return self._records.get(self._noted.entry.uuid) or self._noted

    def state(self, act: str) -> str | None:
        return self._record.marks.get(act)

    def left(self) -> None:
        """Nova has the server at the destination."""
        if not self._record.left:
            self.mark(records.LEFT, DONE)

    def are_done(self, *acts: str) -> bool:
        return all(self.state(act) == DONE for act in acts)

    def once(self, act: str, call: Callable[[], Any], left: str, *, only_here: bool = True) -> None:
        """Does ACT by CALL, unless it was begun before. LEFT says what is there otherwise, and what helps.
        ONLY_HERE: not either as soon as Nova has the server at the destination."""
        state = self.state(act)
        if state == DONE:
            return
        if state == BEGUN:
            self._tell(act, "nova-compute ended while it did that", left)
            self.mark(act, DONE)
            return
        if only_here and self._record.left:
            self._tell(act, "Nova has the server at the destination already", left)
            self.mark(act, DONE)
            return
        if not self.mark(act, BEGUN):
            # A crash now would have it done a second time.
            self._tell(act, "it cannot be put on record", left)
            self.mark(act, DONE)
            return
        try:
            call()
        except Exception:
            LOG.exception(
                "What is to be done at the source (%(act)s) failed. It is not tried again; %(left)s",
                {"act": act, "left": left},
                instance=self._instance,
            )
        self.mark(act, DONE)

    def mark(self, act: str, state: str) -> bool:
        """Whether it is on the disk."""
        try:
            self._records.mark(self._record, act, state)
        except journal.JournalError as err:
            LOG.error("%s", err, instance=self._instance)
            return False
        return True

    def _tell(self, act: str, why: str, left: str) -> None:
        LOG.error(
            "What is to be done at the source (%(act)s) may not be done, and is not done now, as %(why)s: "
            "%(left)s",
            {"act": act, "why": why, "left": left},
            instance=self._instance,
        )


def says_at(instance: Any, host: str) -> None:
    """INSTANCE, this object alone, says that Nova has the server on HOST; its record stays as it is."""
    if str(instance.host) != host:
        instance.host = host
        instance.obj_reset_changes(["host"])


def secrets_left(instance: Any, migrate_data: Any) -> str:
    """What is left when libvirt's secret of the guest's vTPM was not removed."""
    if not getattr(migrate_data, "has_vtpm", False):
        return "nothing is left by it"
    return f"virsh secret-list says whether the vTPM of {instance.uuid} has a secret here still"


def volume_act(volume: Any) -> str:
    """VOLUME is one of Nova's block device mapping."""
    name = block_device.get_volume_id(volume["connection_info"]) or volume.get("mount_device")
    return f"{VOLUME}{name}"


def volume_left(connection_info: Any) -> str:
    """What a volume that was not disconnected leaves at the source."""
    volume = block_device.get_volume_id(connection_info)
    data = (connection_info or {}).get("data") or {}
    path = data.get("device_path")
    if not path:
        kind = (connection_info or {}).get("driver_volume_type")
        return f"volume {volume} ({kind}) may still be connected here"
    path = shlex.quote(str(path))
    device = f"/sys/block/$(basename $(readlink -f {path}))/device/delete"
    return (
        f"grep -l {volume} /run/libvirt/qemu/*.xml says which guests here use volume {volume}; when none "
        f"does, lsblk {path} says whether it is still connected, and multipath -f {path} (or, without "
        f"multipath, echo 1 > {device}) removes it"
    )


def ports_and_cores_left(instance: Any, vifs: Any) -> str:
    """What is left when VIFs were not unplugged and the guest's own cores not switched off."""
    devices = sorted(str(vif["devname"]) for vif in vifs or [] if vif.get("devname"))
    topology = instance.numa_topology
    cores = sorted(topology.cpu_pinning | topology.cpuset_reserved) if topology is not None else []
    words = []
    if devices:
        words.append(
            "; ".join(f"ip link show {shlex.quote(name)}" for name in devices)
            + " says what is left of its ports"
        )
    if cores:
        words.append(
            f"its cores ({', '.join(map(str, cores))}) may still be on, which costs power and nothing else: "
            "a restart of nova-compute switches off those that no server here uses"
        )
    return "; ".join(words) or "nothing is left by it"


def files_left(instance: Any, uri: str, *, shared: bool) -> str:
    """What is left when the definition and the files of a guest were not removed. SHARED: the destination
    uses the same folder."""
    undefine = f"virsh -c {shlex.quote(uri)} undefine --keep-nvram {shlex.quote(str(instance.name))}"
    folder = shlex.quote(str(libvirt_utils.get_instance_path(instance)))
    if shared:
        return (
            f"{undefine} removes its definition; {folder} is the destination's as well, and not to be touched"
        )
    return f"{undefine} removes its definition, and rm -r {folder} its files, unless Nova has the server here"


def folder_is_shared(migrate_data: Any) -> bool:
    return bool(getattr(migrate_data, "is_shared_instance_path", True))
