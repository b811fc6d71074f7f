# SPDX-License-Identifier: Apache-2.0
"""A real guest on the two-host bed, its port one of OVN's: migrated by pcmig or by virsh."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.bed import Bed, BedError, GuestSpec
from tests.cloud.image import ensure_images
from tests.ovn.cloud import Ovn
from tests.ovn.pinger import Listener
from tests.ovn.place import INTEGRATION, until
from tests.ovn.scene import CONTROLLER, GUEST, GUEST_PORT, SETTLED_S, TAIL_S, Result, Scene, Way

ROOT = pathlib.Path(__file__).parents[2]
DEVICE = "tapguest"
RATE_MBIT = 200
PATIENCE_S = 90.0
BOOT_PATIENCE_S = 120.0
IMAGE_FOLDER = "/run/pcmig/ovn"  # as the hosts see it


@dataclasses.dataclass(frozen=True)
class OvnGuest(GuestSpec):
    """Boots the cloud's image, whose heartbeats leave as datagrams, and has its port in OVN."""

    memory_mib: int = 112
    worker_mib: int = 32
    heartbeat_ms: int = 10

    def xml(self) -> str:
        # It fills checksums in itself: Open vSwitch in user space passes on what is left to hardware.
        off = "csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'"
        interface = f"""
    <interface type='bridge'>
      <mac address='{GUEST.mac}'/>
      <source bridge='{INTEGRATION}'/>
      <virtualport type='openvswitch'><parameters interfaceid='{GUEST_PORT}'/></virtualport>
      <target dev='{DEVICE}'/>
      <model type='virtio'/>
      <driver name='qemu'><host {off}/><guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/></driver>
      <rom enabled='no'/>
    </interface>"""
        text = super().xml().replace("/run/pcmig/guest/", f"{IMAGE_FOLDER}/")
        return text.replace("    <serial type='unix'>", f"{interface.lstrip()}\n    <serial type='unix'>", 1)


class GuestScene(Scene):
    """The bed's two libvirt hosts are a and b of OVN's."""

    def __init__(self, bed: Bed, ovn: Ovn, folder: pathlib.Path) -> None:
        super().__init__(ovn)
        self.bed = bed
        self.folder = folder
        self.spec = OvnGuest()

    def furnish(self) -> None:
        super().furnish()
        image = ensure_images(self.bed.reporter)
        for host in self.bed.hosts:
            target = host.state / "run/pcmig/ovn"
            target.mkdir(parents=True, exist_ok=True)
            for name in ("vmlinuz", "initramfs"):
                shutil.copy(image / name, target)

    def boot(self) -> None:
        """The guest, new, at a; nothing of an earlier one is left."""
        for host in self.bed.hosts:
            for words in (("destroy", self.spec.name), ("undefine", self.spec.name)):
                with contextlib.suppress(BedError):
                    host.virsh(*words)
        self.ovn.bind(GUEST_PORT, "a")
        until(lambda: self.ovn.binding(GUEST_PORT)["additional_chassis"] == "[]", "the port is at a alone")
        a = self.bed.a
        (a.state / "run/pcmig/g1.xml").write_text(self.spec.xml())
        a.virsh("create", "/run/pcmig/g1.xml")
        self.wait_installed(self.ovn.a, DEVICE)
        with self.pingers()[0] as client:
            until(lambda: len(client.heard) > 20 and client.answered, "the guest answers", BOOT_PATIENCE_S)

    def ssh(self) -> str:
        """A program in ssh's place, that goes to b and nowhere else."""
        paths = f"PATH={pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        there = ["env", f"PYTHONPATH={ROOT}", paths, "sh", "-c"]
        program = self.folder / "ssh"
        program.write_text(
            '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n[ "$2" = root@b ] || exit 255\n'
            f'exec {shlex.join(self.bed.b.inside(there))} "$3"\n'
        )
        program.chmod(0o755)
        return str(program)

    def command(self, tool: str, policy: str, report: pathlib.Path) -> list[str]:
        a, b = self.bed.hosts
        if tool == "virsh":
            words = ["--live", "--p2p", "--postcopy", "--postcopy-after-precopy", self.spec.name]
            return a.inside(["virsh", "migrate", *words, b.remote_uri, "--migrateuri", b.migrate_uri])
        program = str(pathlib.Path(sys.executable).with_name("pcmig"))
        words = ["--connect", a.uri, "--migrateuri", b.migrate_uri, "--policy", policy, "--json", str(report)]
        gate = ["--ports=root@b"] if tool == "pcmig --ports" else []
        return a.command([program, "migrate", self.spec.name, b.remote_uri, *words, *gate])

    def measure(
        self, tool: str, way: Way, policy: str = "first-pass", late_s: float = 0.0
    ) -> tuple[Result, Any]:
        """One migration from a to b by TOOL: "pcmig", "pcmig --ports" or "virsh"; and pcmig's report. LATE_S:
        so long after the tap was made ovn-controller stands still at b, and the port has no flows there."""
        self.boot()
        if way.strategy is not None:
            self.ovn.bind(GUEST_PORT, "a,b", way.strategy)
        client, neighbour = self.pingers()
        with Listener(GUEST.mac) as taps, client, neighbour:
            taps.add(self.ovn.a.namespace, DEVICE)
            time.sleep(SETTLED_S)
            began_s = time.monotonic()
            activated_ms, report = self._migrate(tool, way, policy, late_s, taps)
            time.sleep(TAIL_S)
            end_s = time.monotonic() - 0.2
        if any(b"BAD" in text for text in client.said):
            raise BedError("the guest found bad pages")
        return Result(
            own_ms=taps.silence("udp", began_s, end_s),
            client=client.silence(began_s, end_s),
            neighbour=neighbour.silence(began_s, end_s),
            from_guest_ms=client.silence_of("udp", began_s, end_s),
            tempest_lost=client.tempest(began_s, end_s),
            activated_ms=activated_ms,
        ), report

    def _migrate(
        self, tool: str, way: Way, policy: str, late_s: float, taps: Listener
    ) -> tuple[float | None, Any]:
        path, log = self.folder / "report.json", self.folder / "migrate.log"
        path.unlink(missing_ok=True)
        b = self.ovn.b
        if late_s:
            b.pause(CONTROLLER)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PCMIG_SSH": self.ssh(),
            "PCMIG_JOURNAL_DIR": str(self.folder / "journal"),
        }
        with log.open("w") as out:
            process = subprocess.Popen(
                self.command(tool, policy, path),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
            )
        try:
            until(
                lambda: self._has_tap() or process.poll() is not None,
                f"{DEVICE} is made at b",
                PATIENCE_S,
            )
            if process.poll() is not None:
                raise BedError(f"{tool} ended with {process.returncode}: {log.read_text()[-800:]}")
            taps.add(b.namespace, DEVICE)
            if late_s:
                time.sleep(late_s)
                b.go_on(CONTROLLER)
            elif way.stopped:
                self.wait_installed(b, DEVICE)
                for host in way.stopped:
                    self.ovn.places[host].pause(CONTROLLER)
            activated_ms = self._follow(process, taps, way)
        finally:
            process.kill()
            process.wait()
            for place in (self.ovn.a, b):
                place.go_on(CONTROLLER)
        if process.returncode:
            raise BedError(f"{tool} ended with {process.returncode}: {log.read_text()[-800:]}")
        return activated_ms, json.loads(path.read_text()) if tool != "virsh" else None

    def _has_tap(self) -> bool:
        return f" {DEVICE}:" in self.ovn.b.run("ip", "-o", "link")

    def _follow(self, process: subprocess.Popen[bytes], taps: Listener, way: Way) -> float | None:
        """Until the command has ended and the port is bound to b; times are from QEMU's announcement on."""
        activated_ms = None
        bound = going = False
        deadline_s = time.monotonic() + PATIENCE_S
        while process.poll() is None or not bound:
            if time.monotonic() > deadline_s:
                raise BedError("the migration does not end")
            if switched := taps.times.get("rarp"):
                since_s = time.monotonic() - switched[0]
                if not going and since_s > way.stopped_s:
                    going = True
                    for host in way.stopped:
                        self.ovn.places[host].go_on(CONTROLLER)
                if way.strategy and activated_ms is None and self.ovn.activated(GUEST_PORT):
                    activated_ms = (time.monotonic() - switched[0]) * 1000
                if not bound and since_s > way.bound_after_s:
                    bound = True
                    self.ovn.bind(GUEST_PORT, "b")
            elif process.poll() is not None:
                break  # it failed, which its exit code says
            time.sleep(0.02)
        return activated_ms


@contextlib.contextmanager
def guest_scene(folder: pathlib.Path, network: str) -> Iterator[GuestScene]:
    with Bed("forky", RATE_MBIT) as bed:
        ovn = Ovn(
            bed.state / "ovn",
            network,
            {host.name: f"/run/netns/{host.namespace}" for host in bed.hosts},
            {host.name: host.state / "run/openvswitch" for host in bed.hosts},
        )
        try:
            ovn.up()
            scene = GuestScene(bed, ovn, folder)
            scene.furnish()
            yield scene
        finally:
            ovn.down()
