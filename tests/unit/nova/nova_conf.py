# SPDX-License-Identifier: Apache-2.0
"""Configurations as nova-compute reads them, without Nova."""

from __future__ import annotations

import pathlib

from oslo_config import cfg

from pcmig.nova import conf as pcmig_conf
from pcmig.nova.flags import BITS

# Those of Nova 34 (nova/conf/libvirt.py) that flags depend on, with their defaults.
LIBVIRT = [
    cfg.StrOpt("virt_type", default="kvm", choices=("kvm", "lxc", "qemu", "parallels")),
    cfg.StrOpt("live_migration_uri"),
    cfg.BoolOpt("live_migration_tunnelled", default=False),
    cfg.BoolOpt("live_migration_with_native_tls", default=False),
    cfg.IntOpt("live_migration_parallel_connections", default=1),
    cfg.BoolOpt("live_migration_permit_post_copy", default=False),
    cfg.BoolOpt("live_migration_permit_auto_converge", default=False),
]


def make(folder: pathlib.Path, text: str) -> cfg.ConfigOpts:
    """A configuration whose one file, FOLDER/nova.conf, has TEXT."""
    path = folder / "nova.conf"
    path.write_text(text, encoding="utf-8")
    conf = cfg.ConfigOpts()
    conf.register_opts(LIBVIRT, group="libvirt")
    pcmig_conf.register_opts(conf)
    conf(["--config-file", str(path)], project="nova")
    return conf


def bits(*names: str) -> int:
    return sum(BITS[f"VIR_MIGRATE_{name.upper()}"] for name in names)


def nova_bits(conf: cfg.ConfigOpts) -> tuple[int, int]:
    """What Nova 34's LibvirtDriver._parse_migration_flags makes of CONF. tests/nova_own compares with it."""
    live = bits("live", "peer2peer", "undefine_source", "persist_dest")
    libvirt = conf.libvirt
    if libvirt.live_migration_tunnelled:
        live |= bits("tunnelled")
    if libvirt.live_migration_with_native_tls:
        live |= bits("tls")
    if libvirt.live_migration_permit_post_copy:
        live |= bits("postcopy")
    elif libvirt.live_migration_permit_auto_converge:
        live |= bits("auto_converge")
    if getattr(libvirt, "live_migration_parallel_connections", 1) > 1:  # since 33
        live |= bits("parallel")
    return live, live | bits("non_shared_inc")
