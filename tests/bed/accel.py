# SPDX-License-Identifier: Apache-2.0
"""Whether guests run under KVM or QEMU's emulation: as asked for, or KVM where this machine has it."""

from __future__ import annotations

import dataclasses
import enum
import fcntl
import os
import pathlib
import re

from tests.bed.errors import BedError

VARIABLE = "PCMIG_ACCEL"
# <linux/kvm.h>
KVM_GET_API_VERSION, KVM_CREATE_VM = 0xAE00, 0xAE01
API_VERSION = 12


class Accel(enum.Enum):
    """The type of libvirt's domain, and the model of its CPU: the least there is, so that both hosts have it.
    qemu64 has features of AMD's, which KVM on a CPU of Intel's cannot give."""

    KVM = ("kvm", "kvm64", "KVM")
    TCG = ("qemu", "qemu64", "QEMU's emulation (TCG)")

    def __init__(self, domain_type: str, cpu: str, meaning: str) -> None:
        self.domain_type = domain_type
        self.cpu = cpu
        self.meaning = meaning


WORDS = ("auto", "kvm", "tcg")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where it is seen whether there is KVM."""

    node: pathlib.Path = pathlib.Path("/dev/kvm")
    cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")

    def why_no_kvm(self) -> str | None:
        """None where it works. That there is a node, and that it makes an empty virtual machine, says little:
        kernels that are guests themselves may have a KVM that runs guests of their own kind alone."""
        try:
            descriptor = os.open(self.node, os.O_RDWR | os.O_CLOEXEC)
            try:
                if (version := fcntl.ioctl(descriptor, KVM_GET_API_VERSION, 0)) != API_VERSION:
                    return f"{self.node} has version {version} of KVM's interface, and not {API_VERSION}"
                os.close(fcntl.ioctl(descriptor, KVM_CREATE_VM, 0))
            finally:
                os.close(descriptor)
        except OSError as error:
            return f"{self.node}: {error.strerror}"
        if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", self.cpuinfo.read_text(), re.M):
            return f"the processor has no virtualization (neither vmx nor svm in {self.cpuinfo})"
        return None


def choose(word: str | None = None, machine: Machine = Machine()) -> Accel:
    """What WORD asks for, or the environment's PCMIG_ACCEL where there is none. Raises BedError, also where
    KVM is asked for and this machine has none."""
    source = "--accel" if word is not None else VARIABLE
    word = word if word is not None else os.environ.get(VARIABLE) or "auto"
    if word not in WORDS:
        raise BedError(f"{source} {word}: use {', '.join(WORDS)}")
    if word == "tcg":
        return Accel.TCG
    missing = machine.why_no_kvm()
    if missing and word == "kvm":
        raise BedError(f"{source} kvm: {missing}; auto and tcg use QEMU's emulation")
    return Accel.TCG if missing else Accel.KVM
