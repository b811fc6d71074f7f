# SPDX-License-Identifier: Apache-2.0
"""What the driver has Nova's privileged daemon do: nova-compute itself is an ordinary user.

Nova's own context of oslo.privsep is used, so that sudoers and rootwrap filters stay as they are; its entry
points must be below nova (oslo_privsep/priv_context.py), which is why this file is here.
"""

from __future__ import annotations

import itertools
import subprocess
import sys

import nova.privsep

from pcmig import _core
from pcmig.ports import vswitchd

# In the daemon: the changes in force. They are taken back one by one, or left with the daemon's end, which
# harms nothing (csrc/edge/route.h).
_in_force: dict[int, object] = {}
_numbers = itertools.count(1)
WAKE_S = 60
LOOK_S = 20


@nova.privsep.sys_admin_pctxt.entrypoint  # type: ignore[untyped-decorator]  # Nova has no types
def quickack(address: str) -> tuple[str, int]:
    """Acknowledgements to ADDRESS go out at once.

    What _core.quickack says, and the number to take it back by; 0: there is nothing to take back."""
    result, handle = _core.quickack(address)
    if handle is None:
        return result, 0
    number = next(_numbers)
    _in_force[number] = handle
    return result, number


@nova.privsep.sys_admin_pctxt.entrypoint  # type: ignore[untyped-decorator]
def turn_back(uri: str, uuid: str) -> list[str]:
    """Lets the guest go on from the moment of the switch; what was done. Whoever calls it has asked the guard
    and the rule. The way goes through a socket in the guest's own folder, which is QEMU's user's."""
    done: list[str] = _core.turn_back(uri, uuid)
    return done


@nova.privsep.sys_admin_pctxt.entrypoint  # type: ignore[untyped-decorator]
def wake(uri: str, uuid: str) -> str:
    """What `pcmig wake` says of a guest here. As a process of its own: which sockets are QEMU's only root
    with CAP_SYS_PTRACE may see, and Nova's context leaves that out."""
    words = [sys.executable, "-m", "pcmig.cli.main", "wake", "-c", uri, uuid]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAKE_S,
        check=False,
        umask=0o022,  # the daemon's own is 0, and what root leaves is not to be anybody's to write
    )
    return (done.stdout + done.stderr).strip()[-500:]


@nova.privsep.sys_admin_pctxt.entrypoint  # type: ignore[untyped-decorator]
def huge_pages(side: str, uuid: str) -> str:
    """What `python -m pcmig.huge_pages` says of a guest here. As a process of its own, as wake()."""
    done = subprocess.run(
        [sys.executable, "-m", "pcmig.huge_pages", side, uuid],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LOOK_S,
        check=True,
        umask=0o022,
    )
    return done.stdout


@nova.privsep.sys_admin_pctxt.entrypoint  # type: ignore[untyped-decorator]
def packet_out(folder: str, bridge: str, ofport: int, frames: list[bytes]) -> None:
    """As vswitchd.send, whose sockets are root's."""
    vswitchd.send(folder, bridge, ofport, list(frames))


@nova.privsep.sys_admin_pctxt.entrypoint  # type: ignore[untyped-decorator]
def prepare(for_bridges: bool) -> None:
    """For what is below, of which the first time would be late."""
    if for_bridges:
        from pcmig.ports import beside as ports_beside

        ports_beside.packet_socket_of_root()


@nova.privsep.sys_admin_pctxt.entrypoint  # type: ignore[untyped-decorator]
def beside(device: str, mac: str, frames: list[bytes]) -> None:
    """As beside.send. Nova's context has CAP_NET_ADMIN for the bridge's table, and no CAP_NET_RAW."""
    from pcmig.ports import beside as ports_beside  # only hosts that announce need pyroute2

    ports_beside.send_as_root(device, mac, list(frames))


@nova.privsep.sys_admin_pctxt.entrypoint  # type: ignore[untyped-decorator]
def end_quickack(number: int) -> None:
    """Takes one back. An unknown number is one of a daemon before this one."""
    _in_force.pop(number, None)
