# SPDX-License-Identifier: Apache-2.0
"""The storage of a cloud as a whole: what Cloud does more with it, in the order of its start."""

from __future__ import annotations

import pathlib
import sys

from tests.bed import layer
from tests.bed.errors import BedError
from tests.bed.layer import Reporter
from tests.cloud import install
from tests.cloud.api import Api
from tests.cloud.compute import Compute
from tests.cloud.config import Sections
from tests.cloud.control import ControlNode
from tests.cloud.controlplane import ControlPlane
from tests.cloud.storage import cinder
from tests.cloud.storage.ceph import Ceph, StorageNode, ensure_layer
from tests.cloud.storage.cinder import Cinder

KINDS = ("ceph",)
CINDER = install.Environment(
    "Cinder", pathlib.Path(__file__).with_name("requirements.txt"), "cinder-", needed_mib=800
)
PYTHON = (3, 11)  # Ceph's modules in Debian 12 are built for


def ensure(stack: str, reporter: Reporter) -> tuple[pathlib.Path, pathlib.Path]:
    """Folders of Ceph's layer and Cinder's environment, and the stack; about 2 minutes the first time."""
    if sys.version_info[:2] != PYTHON:
        raise BedError(
            f"the bed's Ceph is Debian 12's, whose modules are for Python {PYTHON[0]}.{PYTHON[1]}; this is "
            f"{sys.version_info[0]}.{sys.version_info[1]} (PYTHON=FILE tools/bootstrap storage)"
        )
    if stack + layer.RBD_SUFFIX not in layer.RBD_STACKS:
        known = ", ".join(name.removesuffix(layer.RBD_SUFFIX) for name in layer.RBD_STACKS)
        raise BedError(f"stack {stack} has no QEMU with RBD here: use one of {known}")
    layer.ensure(stack + layer.RBD_SUFFIX, reporter)
    return ensure_layer(reporter), install.ensure(CINDER, reporter)


class Storage:
    """Ceph and Cinder of one cloud."""

    def __init__(self, control: ControlNode, stack: str, reporter: Reporter) -> None:
        ceph_layer, cinder_folder = ensure(stack, reporter)
        self.node = StorageNode(control)
        self.ceph = Ceph(self.node, ceph_layer)
        self.cinder = Cinder(cinder_folder, self.ceph.fsid)

    @property
    def nova_sections(self) -> Sections:
        return cinder.nova_sections(self.ceph.fsid)

    def up(self, guest_folder: pathlib.Path, stay: bool) -> None:
        """The node; the control node is up."""
        self.node.hold(self.ceph.layer, guest_folder, stay)

    def start_ceph(self) -> None:
        self.ceph.write_server_files()
        self.ceph.start()
        self.ceph.wait_statistics()

    def prepare_host(self, compute: Compute) -> None:
        compute.nova_env = {**compute.nova_env, **cinder.host_env(compute.env["PATH"])}
        cinder.prepare_host(compute.host, self.ceph)

    def start_cinder(self, plane: ControlPlane) -> None:
        self.cinder.start(plane, self.node)

    def wait(self, plane: ControlPlane, api: Api) -> None:
        self.cinder.wait(plane, api)

    def down(self) -> None:
        self.node.down()
