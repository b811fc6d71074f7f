# SPDX-License-Identifier: Apache-2.0
"""Hosts that lose power and get it back, and what a person types then (doc/operate/lost.rst)."""

from __future__ import annotations

import re
import signal
import subprocess

from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.compute import Compute
from tests.cloud.server import Server


def power_off(compute: Compute) -> None:
    """All of a host that matters ends at once."""
    compute.nova.kill()
    compute.host.kill_libvirtd()
    for pid in compute.host.qemu_pids():
        compute.host.signal_process(pid, signal.SIGKILL)
    wait_until(lambda: not compute.host.qemu_pids(), 60, f"QEMUs of {compute.name} are gone")


def power_on(cloud: Cloud, compute: Compute, wait: bool = True) -> None:
    """WAIT: until it is up, which one that is forced down never is."""
    compute.host.start_libvirtd()
    cloud.restart_compute(compute.host.name, wait=wait)


def force_down(cloud: Cloud, compute: Compute, down: bool) -> None:
    """Nova's word for a host that is known to be off, and its end."""
    services = cloud.api.get("compute", f"/os-services?host={compute.name}")["services"]
    [service] = [each for each in services if each["binary"] == "nova-compute"]
    cloud.api.request("PUT", "compute", f"/os-services/{service['id']}", {"forced_down": down})


def force_up_after_evacuation(cloud: Cloud, compute: Compute, server: Server) -> None:
    """Nova refuses it until COMPUTE has cleared away what it had of SERVER and has written that down. An
    evacuation that was refused before counts for nothing."""

    def over() -> bool:
        evacuations = [
            record["status"]
            for record in cloud.migrations(server)
            if record["migration_type"] == "evacuation"
        ]
        return {"completed"} <= set(evacuations) <= {"completed", "error", "failed"}

    wait_until(over, 90, f"{compute.name} has written down that {server.name} is cleared away")
    force_down(cloud, compute, False)
    wait_until(cloud.computes_up, 60, "both computes are up")


def waits(compute: Compute, server: Server) -> bool:
    """Whether it has half a guest whose other half is missing."""
    return str(compute.host.domain_state(server.domain)).endswith("(post-copy failed)")


def type_(host: Compute, line: str, code: int = 0) -> str:
    """What a shell on HOST prints for LINE, as root."""
    env = {**host.env, "COLUMNS": "200"}
    argv = host.host.inside(["sh", "-c", line])
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90)
    said = f"{done.stdout}{done.stderr}"
    print(f"{host.name}# {line}\n{said}[{done.returncode}]")
    assert done.returncode == code and "Traceback" not in said, said
    return said


def commands(said: str) -> list[str]:
    """The lines to be typed."""
    return re.findall(r"^  ((?:pcmig|virsh|ls) .*)$", said, re.M)
