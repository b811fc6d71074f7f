# SPDX-License-Identifier: Apache-2.0
"""KVM or emulation: what the machine says is played, as few have both."""

from __future__ import annotations

import errno
import os
import pathlib
from xml.etree import ElementTree

import pytest

from tests.bed import Bed, BedError, GuestSpec, accel
from tests.bed.accel import Accel, Machine, choose


@pytest.fixture
def with_kvm(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Its node answers as KVM's does."""
    machine = Machine(tmp_path / "kvm", tmp_path / "cpuinfo")
    machine.node.touch()
    machine.cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu vme vmx sse\n")

    def ioctl(_descriptor: int, request: int, _argument: int) -> int:
        assert request in (accel.KVM_GET_API_VERSION, accel.KVM_CREATE_VM)
        if request == accel.KVM_GET_API_VERSION:
            return accel.API_VERSION
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr("tests.bed.accel.fcntl.ioctl", ioctl)
    monkeypatch.delenv(accel.VARIABLE, raising=False)
    return machine


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_kvm_where_the_machine_has_it(with_kvm: Machine) -> None:
    before = open_files()
    assert choose(None, with_kvm) is choose("auto", with_kvm) is choose("kvm", with_kvm) is Accel.KVM
    assert choose("tcg", with_kvm) is Accel.TCG
    assert open_files() == before


def test_a_node_that_makes_no_guest(with_kvm: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr("tests.bed.accel.fcntl.ioctl", refuse)
    before = open_files()
    assert choose("auto", with_kvm) is Accel.TCG
    with pytest.raises(BedError, match=f"--accel kvm: {with_kvm.node}: No such device; auto and tcg use"):
        choose("kvm", with_kvm)
    assert open_files() == before


def test_an_interface_of_another_version(with_kvm: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bed.accel.fcntl.ioctl", lambda *_: 11)
    assert with_kvm.why_no_kvm() == f"{with_kvm.node} has version 11 of KVM's interface, and not 12"


def test_a_node_without_a_processor_for_it(with_kvm: Machine) -> None:
    with_kvm.cpuinfo.write_text("flags\t\t: fpu vmx_like nosvm\n")
    assert choose("auto", with_kvm) is Accel.TCG
    with pytest.raises(BedError, match="no virtualization"):
        choose("kvm", with_kvm)


def test_no_node(tmp_path: pathlib.Path) -> None:
    machine = Machine(tmp_path / "kvm")
    assert choose("auto", machine) is Accel.TCG
    assert machine.why_no_kvm() == f"{tmp_path}/kvm: No such file or directory"


def test_the_environment_says_what_no_option_does(with_kvm: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(accel.VARIABLE, "tcg")
    assert choose(None, with_kvm) is Accel.TCG and choose("kvm", with_kvm) is Accel.KVM
    monkeypatch.setenv(accel.VARIABLE, "xen")
    with pytest.raises(BedError, match="PCMIG_ACCEL xen: use auto, kvm, tcg"):
        choose(None, with_kvm)


@pytest.mark.parametrize(("one", "kind", "cpu"), [(Accel.KVM, "kvm", "kvm64"), (Accel.TCG, "qemu", "qemu64")])
def test_what_libvirt_is_told(one: Accel, kind: str, cpu: str) -> None:
    domain = ElementTree.fromstring(GuestSpec(accel=one).xml())
    assert (domain.get("type"), domain.findtext("cpu/model")) == (kind, cpu)


def test_a_bed_takes_the_word() -> None:
    assert Bed(accel="tcg").accel is Accel.TCG
    with pytest.raises(BedError, match="--accel whpx: use auto, kvm, tcg"):
        Bed(accel="whpx")
