# SPDX-License-Identifier: Apache-2.0
"""A bed on which guests of any kind are made, moved and taken away again: what the reported cases need."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import re
import shutil
import uuid
from typing import Any
from xml.sax.saxutils import escape

from tests.bed import Bed, BedError, Host
from tests.bed.procs import run
from tests.functional.scene import BUSY, RATE_MBIT, Run, Scene

STACK = "forky-more"  # tests/bed/layer.py
QEMU_CONF = """swtpm_user = "root"
swtpm_group = "root"
"""
# swtpm's own settings, which a distribution's package has in /etc, where no layer has anything; with a CA of
# its own, made at the first guest's start.
SWTPM_FILES = {
    "swtpm_setup.conf": (
        "create_certs_tool = /usr/bin/swtpm_localca",
        "create_certs_tool_config = /etc/swtpm-localca.conf",
        "create_certs_tool_options = /etc/swtpm-localca.options",
        "active_pcr_banks = sha256",
    ),
    "swtpm-localca.conf": (
        "statedir = /var/lib/swtpm-localca",
        "signingkey = /var/lib/swtpm-localca/signkey.pem",
        "issuercert = /var/lib/swtpm-localca/issuercert.pem",
        "certserial = /var/lib/swtpm-localca/certserial",
    ),
    "swtpm-localca.options": (
        "--platform-manufacturer QEMU",
        "--platform-version 2.1",
        "--platform-model QEMU",
    ),
}


def firmware_guest(
    name: str = "other",
    *,
    devices: str = "",
    extra: str = "",
    maximum: str = "",
    cpu: str = "",
    memory_mib: int = 96,
) -> str:
    """A guest that needs neither kernel nor disk: it waits in its firmware, and hardly any page changes."""
    xml = dataclasses.replace(BUSY, name="NAME", memory_mib=memory_mib, worker_mib=1).xml()
    xml = xml.replace("<name>NAME<", f"<name>{escape(name)}<")
    xml = re.sub(r"<uuid>.*?<", f"<uuid>{uuid_of(name)}<", xml)
    xml = re.sub(r"<(kernel|initrd|cmdline)>.*?</\1>", "", xml, flags=re.S)
    xml = re.sub(r"<serial .*?</serial>", lambda _: devices, xml, flags=re.S)
    xml = xml.replace("</cpu>", f"{cpu}</cpu>")
    return xml.replace("<memory unit", f"{maximum}<memory unit").replace("<vcpu>", f"{extra}<vcpu>")


def uuid_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def inside(host: Host, *words: str) -> str:
    """Output of a program as HOST sees it."""
    return run(host.inside(list(words)), " ".join(words), 60)


class CaseScene(Scene):
    """Besides the busy guest of the functional tests, guests by their XML."""

    # Guests

    def define(self, host: Host, xml: str, *, start: bool = True) -> None:
        """A persistent guest."""
        self._file(host, xml)
        host.virsh("define", "/run/pcmig/case.xml")
        if start:
            host.virsh("start", re.findall(r"<uuid>(.*?)<", xml)[0])

    def create(self, host: Host, xml: str) -> None:
        """A transient one."""
        self._file(host, xml)
        host.virsh("create", "/run/pcmig/case.xml")

    def _file(self, host: Host, xml: str) -> None:
        (host.state / "run/pcmig/case.xml").write_text(xml)

    def forget_guests(self) -> None:
        """Ends and removes all guests but the busy one, with whatever belongs to them."""
        for command in self._commands:
            command.end()
        self._commands.clear()
        for host in self.bed.hosts:
            if host.libvirtd() is None:
                host.start_libvirtd()
            for guest in host.virsh("list", "--all", "--uuid").split():
                if self.guest is not None and guest == uuid_of(self.name):
                    continue
                for words in (
                    ["destroy", guest],
                    [
                        "undefine",
                        guest,
                        "--nvram",
                        "--tpm",
                        "--snapshots-metadata",
                        "--checkpoints-metadata",
                        "--managed-save",
                    ],
                ):
                    with contextlib.suppress(BedError):
                        host.virsh(*words, timeout_s=20)
        shutil.rmtree(self.journal, ignore_errors=True)

    # Migrations

    def move(
        self, guest: str, *options: str, source: Host | None = None, timeout_s: float = 90, uri: str = ""
    ) -> Run:
        """`pcmig migrate GUEST` from SOURCE (host a) to the other host, ended."""
        source = source or self.bed.a
        destination = self.bed.other(source)
        way = [] if "--migrateuri" in options else ["--migrateuri", destination.migrate_uri]
        words = ["migrate", "-c", source.uri, *way, "--no-progress", *options]
        return self.run(*words, "--", guest, uri or destination.remote_uri, host=source, timeout_s=timeout_s)

    def entries(self) -> list[pathlib.Path]:
        """Of the journal."""
        return sorted(self.journal.glob("*.json"))

    def definition(self, host: Host, guest: str) -> str | None:
        """What `virsh dumpxml --inactive` says; None without a definition."""
        with contextlib.suppress(BedError):
            if "yes" in re.findall(r"Persistent:\s+(\w+)", host.virsh("dominfo", guest)):
                return host.virsh("dumpxml", "--inactive", "--security-info", guest)
        return None

    def expect_untouched(self, guest: str, before: str | None, source: Host | None = None) -> None:
        """It runs on at SOURCE as it was defined there, and nothing of the attempt is left anywhere."""
        source = source or self.bed.a
        destination = self.bed.other(source)
        self.wait_for(lambda: destination.domain_state(guest) is None, "the destination forgets the guest")
        assert (source.domain_state(guest) or "").startswith("running"), source.domain_state(guest)
        assert "None" in source.virsh("domjobinfo", guest)
        assert self.definition(source, guest) == before
        assert self.entries() == []

    def expect_moved(self, guest: str, destination: Host, *, persistent: bool) -> None:
        """It runs at DESTINATION alone, and the source knows nothing of it."""
        source = self.bed.other(destination)
        assert (destination.domain_state(guest) or "").startswith("running"), destination.domain_state(guest)
        self.wait_for(lambda: source.domain_state(guest) is None, "the source forgets the guest")
        assert (self.definition(destination, guest) is not None) == persistent
        assert self.entries() == []

    def status(self, host: Host) -> dict[str, Any]:
        """`pcmig status --json` on HOST."""
        done = self.run("status", "-c", host.uri, "--json", host=host)
        assert done.out, done.err
        answer: dict[str, Any] = json.loads(done.out)
        return answer


def configure_swtpm(host: Host) -> None:
    for name, lines in SWTPM_FILES.items():
        words = " ".join(f"'{line}'" for line in lines)
        inside(host, "sh", "-c", f"printf '%s\\n' {words} > /etc/{name}")
    inside(host, "mkdir", "-p", "/var/lib/swtpm-localca")


def prepare_hosts(scene: CaseScene) -> None:
    """What these guests need of a host beyond libvirt."""
    for host in scene.bed.hosts:
        configure_swtpm(host)
        inside(host, "sh", "-c", "mkdir -p /run/pcmig/huge && mount -t hugetlbfs none /run/pcmig/huge")
        host.restart_libvirtd()  # it looks for such mounts at its start


def case_bed(folder: pathlib.Path) -> CaseScene:
    return CaseScene(Bed(STACK, RATE_MBIT, qemu_conf=QEMU_CONF), folder)
