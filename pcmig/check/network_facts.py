# SPDX-License-Identifier: Apache-2.0
"""What of this host's network decides how soon a guest that arrives can be reached: from nova.conf and
neutron's agent's files (oslo.config), the kernel, Open vSwitch's database, and ovn-controller itself."""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from dataclasses import dataclass

from pcmig.nova import unread
from pcmig.ports import ovn_controller
from pcmig.ports.host import OVSDB
from pcmig.ports.model import LinuxBridge, SwitchBridge

# Where neutron's Open vSwitch agent looks, in its order (packages, and kolla's images).
AGENT_FILES = (
    "etc/neutron/neutron.conf",
    "etc/neutron/plugins/ml2/ml2_conf.ini",
    "etc/neutron/plugins/ml2/openvswitch_agent.ini",
)
CONTROLLER_PATIENCE_S = 2.0


@dataclass(frozen=True)
class NovaNetwork:
    """Options of nova-compute."""

    announces: bool  # [workarounds] enable_qemu_monitor_announce_self
    waits: bool  # [compute] live_migration_wait_for_vif_plug
    timeout_s: int  # [DEFAULT] vif_plugging_timeout
    fatal: bool  # [DEFAULT] vif_plugging_is_fatal
    events: bool  # [workarounds] handle_virt_lifecycle_events
    drives: bool = False  # pcmig's driver is the compute_driver


@dataclass(frozen=True)
class Controller:
    """The ovn-controller of this host. A text in `error` when it could not be asked."""

    version: str | None = None
    connection: str | None = None  # to the southbound database, in its own word
    answer_ms: float | None = None
    slow_ms: float | None = None  # 95 of 100 of its rounds are shorter
    error: str | None = None


@dataclass(frozen=True)
class Network:
    """What was found. A text in place of what could not be read."""

    nova: NovaNetwork | None = None  # None: no Nova here
    nova_error: str | None = None
    bridges: tuple[LinuxBridge, ...] = ()
    bridges_error: str | None = None
    switches: tuple[SwitchBridge, ...] | None = None  # None: Open vSwitch does not run here
    switches_error: str | None = None
    controller: Controller | None = None  # None: this host is none of OVN's
    polling_s: int | None = None  # of neutron's Open vSwitch agent; None: it is not set up here
    polling_error: str | None = None


def gather(root: str = "/", *, with_nova: bool, ovsdb: str = OVSDB) -> Network:
    """WITH_NOVA: nova-compute is installed, or runs, here. ROOT: for the files alone."""
    base = pathlib.Path(root)
    nova, nova_error = _nova(base) if with_nova else (None, None)
    bridges, bridges_error = _bridges()
    switches, has_ovn, switches_error = _switches(ovsdb)
    polling_s, polling_error = _polling(base)
    return Network(
        nova,
        nova_error,
        bridges,
        bridges_error,
        switches,
        switches_error,
        _controller(base) if has_ovn else None,
        polling_s,
        polling_error,
    )


def _nova(base: pathlib.Path) -> tuple[NovaNetwork | None, str | None]:
    """As nova-compute reads it, where it is not told otherwise."""
    try:
        from oslo_config import cfg
    except ImportError:
        return None, "nova.conf cannot be read: this Python has no oslo.config"
    files = unread.files(str(base / "etc/nova"))
    if not files:  # a container's, for instance
        return None, f"no nova.conf is to be seen in {base / 'etc/nova'}"
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("compute_driver", default=""))
    conf.register_opt(cfg.IntOpt("vif_plugging_timeout", default=300, min=0))
    conf.register_opt(cfg.BoolOpt("vif_plugging_is_fatal", default=True))
    conf.register_opt(cfg.BoolOpt("live_migration_wait_for_vif_plug", default=True), "compute")
    conf.register_opt(cfg.BoolOpt("handle_virt_lifecycle_events", default=True), "workarounds")
    conf.register_opt(cfg.BoolOpt("enable_qemu_monitor_announce_self", default=False), "workarounds")
    try:
        conf([], project="nova", default_config_files=files, use_env=False)
        return NovaNetwork(
            announces=conf.workarounds.enable_qemu_monitor_announce_self,
            waits=conf.compute.live_migration_wait_for_vif_plug,
            timeout_s=conf.vif_plugging_timeout,
            fatal=conf.vif_plugging_is_fatal,
            events=conf.workarounds.handle_virt_lifecycle_events,
            drives=conf.compute_driver.startswith("pcmig."),
        ), None
    except (cfg.Error, ValueError, OSError) as err:
        return None, f"nova.conf: {err}"


def _polling(base: pathlib.Path) -> tuple[int | None, str | None]:
    files = [str(base / file) for file in AGENT_FILES if (base / file).exists()]
    if not (base / AGENT_FILES[-1]).exists():
        return None, None
    try:
        from oslo_config import cfg
    except ImportError:
        return None, "the agent's files cannot be read: this Python has no oslo.config"
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.IntOpt("polling_interval", default=2, min=1), "agent")
    try:
        conf([], project="neutron", default_config_files=files, use_env=False)
        return int(conf.agent.polling_interval), None
    except (cfg.Error, ValueError, OSError) as err:
        return None, f"{AGENT_FILES[-1].rpartition('/')[2]}: {err}"


def _bridges() -> tuple[tuple[LinuxBridge, ...], str | None]:
    try:
        from pcmig.ports import bridge
    except ImportError as err:
        return (), f"{err}: install pyroute2, which pip has as 'pcmig[ports]'"
    try:
        with contextlib.closing(bridge.Kernel()) as kernel:
            return tuple(kernel.bridges()), None
    except bridge.BridgeError as err:
        return (), str(err)


def _switches(where: str) -> tuple[tuple[SwitchBridge, ...] | None, bool, str | None]:
    """The bridges of Open vSwitch, and whether OVN looks after this host."""
    kind, _, path = where.partition(":")
    if kind == "unix" and not pathlib.Path(path).exists():
        return None, False, None
    try:
        from pcmig.ports import openvswitch
        from pcmig.ports.looking import SwitchError
    except ImportError as err:
        return None, False, f"{err}: install ovsdbapp, which pip has as 'pcmig[ports]'"
    try:
        with contextlib.closing(openvswitch.Database(where)) as database:
            return tuple(database.bridges()), database.has_ovn(), None
    except SwitchError as err:
        return None, False, str(err)


def _controller(base: pathlib.Path) -> Controller:
    folders = [str(base / folder.lstrip("/")) for folder in ovn_controller.FOLDERS]
    sockets = ovn_controller.sockets(folders)
    if not sockets:
        return Controller(error=f"it does not run: no ovn-controller.PID.ctl in {' or '.join(folders)}")
    # What a dead one left refuses the connection: the one that answers, else what the last one said.
    found = Controller()
    for path in sockets:
        found = ask_controller(path)
        if found.error is None:
            break
    return found


def ask_controller(path: str) -> Controller:
    """What the ovn-controller whose control socket is at PATH says of itself."""

    def ask(*words: str) -> str:
        return ovn_controller.command(path, *words, patience_s=CONTROLLER_PATIENCE_S)

    try:
        started_s = time.monotonic()
        version = ask("version")
        answer_ms = round((time.monotonic() - started_s) * 1000, 1)
        connection = ask("connection-status").strip()
        rounds = ""
        with contextlib.suppress(ovn_controller.Refused):  # not every release has it
            rounds = ask("stopwatch/show", "flow-generation")
    except (OSError, ovn_controller.Refused) as err:
        return Controller(error=f"{path}: {err}")
    match = re.search(r"([0-9]+\.[0-9]+(?:\.[0-9]+)?)", version)
    slow = re.search(r"95th percentile:\s*([0-9.]+)", rounds)
    return Controller(match[1] if match else None, connection, answer_ms, float(slow[1]) if slow else None)
