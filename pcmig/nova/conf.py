# SPDX-License-Identifier: Apache-2.0
"""Options of nova-compute's configuration: the group [pcmig], and two of [libvirt] that Nova no longer has.

Needs oslo.config, and nothing of Nova.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
from typing import Any, cast

from oslo_config import cfg, types

from pcmig import _core
from pcmig.metrics.meter import Where, usable_folder
from pcmig.nova.settings import ConfigError, Setting, read
from pcmig.nova.way import Way
from pcmig.tunnel.peer import parse
from pcmig_common.choice import RULES, ImageMode, Rule
from pcmig_common.image_option import IMAGE_PROPERTY_OPT

SOURCES = ("api", "metadata")
NOBODY = "nobody"

GROUP = cfg.OptGroup(
    "pcmig",
    title="pcmig options",
    help="""
Options under this group tell nova-compute when and how a live migration switches
to post-copy. They are read on hosts with
``compute_driver = pcmig.PostCopyLibvirtDriver``, and matter only where post-copy is
permitted: with ``live_migration_permit_post_copy``, ``live_migration_flag`` or
``block_migration_flag`` of the group ``[libvirt]``.
""",
)

PCMIG_OPTS = [
    cfg.StrOpt(
        "policy",
        default="auto",
        help="""
When a live migration switches to post-copy.

The switch is made by the compute service itself, within milliseconds, and does not
wait for ``live_migration_completion_timeout``. Forcing a live migration to complete
switches at once under every policy.

Possible values:

* ``auto``: when pre-copy turns out not to converge. A guest that converges is
  moved by pre-copy alone. This is the default.
* ``first-pass``: after one pass over the guest's memory. It is what
  ``VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY`` in ``live_migration_flag`` stands for.
* ``passes=N``: after that many passes over the guest's memory.
* ``deadline=SECONDS``: when needed, and at the latest that long after the start.
* ``immediate``: as soon as the migration is running.
* ``manual``: only when the live migration is forced to complete.
* ``never``: not at all. It contradicts flags that permit post-copy.

Related options:

* ``[pcmig] params``: the thresholds of these policies.
* ``[libvirt] live_migration_permit_post_copy``: must be True, or the flag in
  ``[libvirt] live_migration_flag``, for any policy to have an effect.
* ``[libvirt] live_migration_timeout_action``: keeps its meaning. With
  ``force_complete`` a migration that reaches its timeout switches then, if it has not
  done so before.
""",
    ),
    cfg.MultiStrOpt(
        "params",
        default=[],
        help="""
Thresholds of the policy and of the pacing.

Each of them has a default that was found by measurement, see the chapter on
parameters in pcmig's documentation. The option may be given several times.

Possible values:

* ``NAME=VALUE``, or several of them between commas, with a name from the list that
  ``pcmig migrate --help-params`` prints and a whole number in its bounds.

Related options:

* ``[pcmig] policy``
""",
    ),
    cfg.BoolOpt(
        "shadow",
        default=False,
        help="""
Nova drives every live migration as it does without pcmig, and what pcmig would have
decided, and when, is logged and kept in the ledger.

No flag, no option of libvirt and no request is heeded then but by Nova itself, and no
live migration goes through the tunnel. It is for trying the policy at no risk.

Possible values:

* False: pcmig drives the live migrations that may use post-copy. This is the default.
* True: it looks on.

Related options:

* ``[pcmig] policy`` and ``params``: what it would decide by.
* ``[pcmig] ledger_dir``: where its ledgers are.
""",
    ),
    cfg.StrOpt(
        "fault_latency",
        default="estimate",
        choices=[
            ("estimate", "pcmig, from what stands in the link's queue"),
            ("monitor", "QEMU at the destination, if it is 10.1 or newer"),
        ],
        help="""
Who says how long pages took that a guest asked for in post-copy.

With ``monitor`` the domain at the destination gets an argument for QEMU,
``-global migration.postcopy-blocktime=on``, and keeps it until its next start; a host
with an older QEMU cannot take it then. libvirt marks it as one whose command line and
monitor were used. QEMU is asked when the migration has ended, so the figure while it
runs is an estimate in any case.

Related options:

* ``[pcmig] metrics_dir`` and ``ledger_dir``: where the figure is found.
""",
    ),
    cfg.IntOpt(
        "postcopy_bandwidth",
        default=0,
        min=0,
        max=1000000,
        help="""
Upper bound (in MiB/s) of the bandwidth that a migration uses in post-copy for pages
the guest has not asked for.

Below this bound the pace follows the link and the guest's page requests: the fewer
requests, the faster.

Possible values:

* 0: the link decides. This is the default.
* A positive number of MiB/s.

Related options:

* ``[libvirt] live_migration_bandwidth``: bounds the bandwidth of pre-copy.
""",
    ),
    cfg.StrOpt(
        "default_choice",
        default="allowed",
        choices=[
            ("forbidden", "No post-copy, unless the request asks for it."),
            ("allowed", "Post-copy where the guest can, and pre-copy for the others."),
            ("required", "A migration that cannot use post-copy is refused."),
        ],
        help="""
What holds for a guest whose flavor and image say nothing about post-copy.

A flavor says it with the extra spec ``pcmig:post_copy``, an image with the property
``pcmig_post_copy``, both with one of the values below. ``forbidden`` or ``required``
wins over ``allowed``.

Related options:

* ``[pcmig] image_property``: how much the image's word counts.
* ``[pcmig] request_sources``: whose request for one migration counts.
""",
    ),
    IMAGE_PROPERTY_OPT,
    cfg.ListOpt(
        "request_sources",
        default=["api"],
        item_type=types.String(choices=[*SOURCES, NOBODY]),
        help="""
Whose request for or against post-copy counts for one live migration.

A request never wins over a flavor that forbids or requires post-copy; the migration is
refused then. It wins over the image and over ``default_choice``. Where several sources
say something, the one that stands first here counts.

Possible values:

* ``api``: what came with the request for the live migration. The policy of the
  Compute API says who may make one. This is the default.
* ``metadata``: the server's own metadata, key ``pcmig:post_copy``, with ``true`` or
  ``false``. Whoever may change the server can set it. It counts for one live migration,
  which takes it out.
* ``nobody``: requests are ignored. Must stand alone.

Related options:

* ``[pcmig] default_choice``
""",
    ),
    cfg.IntOpt(
        "connect_timeout",
        default=10,
        min=1,
        max=3600,
        help="""
Time (in seconds) to wait for a connection to libvirt, on this host and on the
destination, before a live migration with post-copy is given up as impossible.

The guest is untouched then.
""",
    ),
    cfg.StrOpt(
        "source_uri",
        help="""
How a destination reaches libvirt of the source of a live migration.

It asks there how the guest stands before it starts or removes anything of it, while the
live migration is not settled. It should go over the network that live migrations use,
if libvirt listens there only.

Possible values:

* Empty: ``[libvirt] live_migration_uri``, or what Nova has in its place, with the
  ``live_migration_inbound_addr`` of the source, which its compute service tells; and
  with the source's host name where it has none or that address does not answer. This
  is the default.
* A libvirt URI with ``%s`` for the source's host name, as in
  ``qemu+tcp://%s.migration.example.org/system``.

Related options:

* ``[libvirt] live_migration_inbound_addr``
""",
    ),
    cfg.ListOpt(
        "resume_networks",
        default=[],
        help="""
Other ways to the destination, to resume an interrupted post-copy over.

The way of the migration itself always comes first. Each attempt takes the next one,
around and around, until the migration goes on.

Possible values:

* Empty: only the way of the migration itself. This is the default.
* Names, addresses or URIs (``tcp://...``) between commas, with ``%s`` for the
  destination's host name, as in ``%s.storage.example.org, %s-mgmt``. What has no
  ``://`` gets ``tcp://``.

Related options:

* ``[libvirt] live_migration_inbound_addr``: the way of the migration itself.
""",
    ),
    cfg.StrOpt(
        "turn_back",
        default="unrun",
        choices=[
            ("never", "Not at all, and nobody may ask for it through the Compute API."),
            ("unrun", "By itself where nothing is lost, otherwise when somebody asks for it."),
            ("ask", "Only when somebody asks for it."),
        ],
        help="""
When a guest goes on at its source that was in post-copy when the destination was lost.

The source still has the guest as it was at the switch. Where it is certain that no
instruction of it ran at the destination, nothing is lost. Otherwise what it did since
the switch is undone, and what it told others meanwhile stays told: so somebody has to
ask for it, with ``openstack pcmig turn-back``.

That the destination does not answer is never enough. Its host has to say that it has
nothing of the guest, or its service has to be forced down, or servers be evacuated from
there.
""",
    ),
    cfg.IntOpt(
        "ports_wait",
        default=10,
        min=0,
        max=86400,
        help="""
Time (in seconds) that the switch waits for the guest's ports at the destination.

The compute service at the destination is asked whether they forward: whether Open
vSwitch has taken them and Neutron's agent or ovn-controller has wired them, or in which
state of its spanning tree a bridge has them. Until all of them do, and for so long at
the most from when the switch is first wanted, pre-copy goes on at full speed. Forcing a
live migration to complete switches at once.

A destination that does not say, as one without pcmig's driver, is not waited for.

Possible values:

* 0: nobody is asked, and the switch waits for no port.
* A positive number of seconds. The default is 10.

Related options:

* ``[pcmig] ports_then``: what comes after that time.
""",
    ),
    cfg.StrOpt(
        "ports_then",
        default="switch",
        choices=[
            ("switch", "The switch comes, and the guest may be unreachable for a while."),
            ("stay", "The guest stays in pre-copy until its ports forward."),
            ("abort", "The live migration is cancelled."),
        ],
        help="""
What is done when a guest's ports at the destination do not forward in time.

Related options:

* ``[pcmig] ports_wait``
""",
    ),
    cfg.StrOpt(
        "tunnel",
        choices=[
            ("none", "As the flags say: in clear, or with QEMU's TLS."),
            ("pcmig", "Encrypted, through pcmig's tunnel."),
        ],
        help="""
What carries live migrations that may use post-copy.

The tunnel encrypts the guest's memory, and disks that are copied, with certificates
that both hosts verify. ``pcmig tunnel`` has to run on every compute host, and the
compute service has to be in its ``control_group``. A live migration ends in its
pre-check when the tunnel of this host does not run, and before it begins when the
destination's does not answer.

A guest that cannot use post-copy is migrated by Nova, and not through the tunnel.

Not set, which is the default: ``pcmig`` where ``VIR_MIGRATE_TUNNELLED`` stands beside
post-copy, which libvirt's own tunnel refuses, and ``none`` elsewhere.

Related options:

* ``[libvirt] live_migration_with_native_tls``: QEMU's TLS; one of the two is enough.
* ``[pcmig] resume_networks``: must be empty, as those networks would go around it.
""",
    ),
    cfg.StrOpt(
        "tunnel_peer",
        help="""
Name or address at which the destination's tunnel is reached.

The destination's certificate has to name it.

Possible values:

* Empty: that of the migration itself, see ``[libvirt] live_migration_inbound_addr``, or
  the destination's host name. This is the default.
* A name or an address, with ``%s`` for the destination's host name, as in
  ``%s.migration.example.org``.
""",
    ),
    cfg.PortOpt(
        "tunnel_port",
        default=16516,
        min=1,
        help="""
TCP port of the destination's tunnel.

Possible values:

* A port number from 1 to 65535; the tunnel's own default is 16516.
""",
    ),
    cfg.IntOpt(
        "tunnel_streams",
        default=1,
        min=1,
        max=8,
        help="""
Number of TCP connections that the tunnel spreads each stream over.

More than one helps where one core or one TCP window is the limit.
""",
    ),
    cfg.StrOpt(
        "tunnel_control",
        default="/run/pcmig/tunnel.control",
        help="""
Control socket of this host's tunnel.

Possible values:

* An absolute path, as ``control`` in the tunnel's own configuration has it.
""",
    ),
    cfg.StrOpt(
        "journal_dir",
        help="""
Folder of the journal: one file for each live migration with post-copy in flight.

With it the compute service goes on with migrations after it was restarted, and knows
which guests must not be touched meanwhile. It must outlive a restart of the host.
Files are made for the compute service alone; they hold the guests' configuration and
the connections of their volumes.

Possible values:

* Empty: ``pcmig/migrations`` in the folder of ``[DEFAULT] state_path``. This is the
  default.
* An absolute path of a folder that exists and that the compute service may write to.
""",
    ),
    cfg.StrOpt(
        "metrics_dir",
        help="""
Folder for figures of live migrations with post-copy, as Prometheus reads them.

The file in it, ``pcmig-nova-compute.prom``, is for node_exporter's textfile collector,
and is written every few seconds. What was counted outlives a restart of the compute
service: it is kept beside the journal. Needs the Python library ``prometheus-client``.

Possible values:

* Empty: ``/var/lib/prometheus/node-exporter``, if that folder exists and the compute
  service may write to it, and no file otherwise. This is the default.
* ``none``: no file is written.
* An absolute path of a folder that exists and that the compute service may write to:
  that of node_exporter's ``--collector.textfile.directory``.

Related options:

* ``[pcmig] metrics_port``: the same figures, without node_exporter.
""",
    ),
    cfg.IntOpt(
        "metrics_port",
        default=0,
        min=0,
        max=65535,
        help="""
TCP port on which the compute service answers Prometheus.

Whoever reaches it can read the names of servers that are being migrated.

Possible values:

* 0: none. This is the default.
* A port number from 1 to 65535.

Related options:

* ``[pcmig] metrics_address``: where it listens.
* ``[pcmig] metrics_dir``: set it to ``none`` where Prometheus asks here, or it has each
  figure twice.
""",
    ),
    cfg.StrOpt(
        "metrics_address",
        default="127.0.0.1",
        help="""
Address at which the compute service answers Prometheus, if ``metrics_port`` is set.

Possible values:

* An IP address of this host, or ``0.0.0.0`` or ``::`` for all. The default lets nobody
  but this host itself ask.
""",
    ),
    cfg.StrOpt(
        "trace_dir",
        help="""
Folder for traces of live migrations with post-copy.

A trace holds everything that the policy was told and what it decided, so that
``pcmig replay`` can repeat it, under other policies too. Traces are never removed by
the compute service.

Possible values:

* Empty: no traces are written. This is the default.
* An absolute path of a folder that exists and that the compute service may write to.
""",
    ),
    cfg.StrOpt(
        "ledger_dir",
        help="""
Folder in which the ledgers of live migrations with post-copy are kept.

There is one file for each migration that ended: what was decided and why, what was
transferred when, how long the guest stood still. ``pcmig report`` makes a page of it.

Possible values:

* Empty: ``pcmig/ledgers`` in the folder of ``[DEFAULT] state_path``, or ``ledgers`` in
  the folder of ``[pcmig] journal_dir`` if that is set. This is the default.
* An absolute path of a folder that exists and that the compute service may write to.

Related options:

* ``[pcmig] ledgers_kept`` and ``ledgers_days``: how many, and for how long.
""",
    ),
    cfg.IntOpt(
        "ledgers_kept",
        default=1000,
        min=0,
        max=1000000,
        help="""
How many ledgers of live migrations are kept; the oldest make room.

One takes 20 to 150 kB.

Possible values:

* 0: none is written.
* A positive number.
""",
    ),
    cfg.IntOpt(
        "ledgers_days",
        default=365,
        min=1,
        max=36500,
        help="""
How long (in days) ledgers of live migrations are kept.

Older ones are removed when the next one is written.
""",
    ),
]

_REMOVED = """
It was removed in Nova 14.0.0 and works again with
``compute_driver = pcmig.PostCopyLibvirtDriver``. Flags given here are added to those
that Nova sets today and to those that today's options ask for; what contradicts an
option that is set keeps the compute service from starting.

Possible values:

* Names of libvirt's migration flags between commas, with or without
  ``VIR_MIGRATE_``. Names of old are understood: ``VIR_MIGRATE_ENABLE_POSTCOPY``,
  and ``VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY``, which stands for
  ``policy = first-pass`` in the group ``[pcmig]``.
* Empty: nothing is added. This is the default.

``pcmig flags --nova LINE`` explains a line, ``pcmig flags --block LINE`` one of
``block_migration_flag``.

Related options:

"""

LIBVIRT_OPTS = [
    cfg.StrOpt(
        "live_migration_flag",
        deprecated_group="DEFAULT",
        help=f"""
Migration flags of live migrations without block migration.
{_REMOVED}* ``[libvirt] block_migration_flag``
* ``[libvirt] live_migration_permit_post_copy``
* ``[pcmig] policy``
""",
    ),
    cfg.StrOpt(
        "block_migration_flag",
        deprecated_group="DEFAULT",
        help=f"""
Migration flags of live migrations with block migration.
{_REMOVED}* ``[libvirt] live_migration_flag``
* ``[libvirt] live_migration_permit_post_copy``
* ``[pcmig] policy``
""",
    ),
]


def list_opts() -> list[tuple[cfg.OptGroup | str, list[cfg.Opt]]]:
    """For the entry point oslo.config.opts."""
    return [(GROUP, list(PCMIG_OPTS)), ("libvirt", list(LIBVIRT_OPTS))]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Registers all options in CONF, nova.conf.CONF in nova-compute. Doing so twice does no harm."""
    conf.register_group(GROUP)
    conf.register_opts(PCMIG_OPTS, group=GROUP)
    conf.register_opts(LIBVIRT_OPTS, group="libvirt")


@dataclasses.dataclass(frozen=True)
class Options:
    """The group [pcmig], checked."""

    policy: str = "auto"  # as _core.parse_policy() takes it
    policy_setting: Setting | None = None
    params: dict[str, int] = dataclasses.field(default_factory=dict)  # only those that are set
    shadow: bool = False  # Nova drives, pcmig looks on
    postcopy_bandwidth_mib: int = 0
    count_faults: bool = False  # QEMU at the destination counts how long page requests take
    default_choice: Rule = "allowed"
    default_choice_setting: Setting | None = None
    image_property: ImageMode = "hint"
    request_sources: tuple[str, ...] = ("api",)  # empty: nobody
    connect_timeout_ms: int = 10_000
    trace_dir: str | None = None
    ledger_dir: str | None = None  # None: beside the journal
    ledgers_kept: int = 1000  # 0: none is written
    ledgers_days: int = 365
    resume_networks: tuple[str, ...] = ()  # URIs, with %s for the destination's host name
    journal_dir: str | None = None  # None: below Nova's state_path
    turn_back: str = "unrun"
    ports_wait_ms: int = 10_000  # 0: nobody is asked
    ports_then: str = "switch"
    source_uri: str | None = None  # with %s for the source's host name; None: it tells its address
    metrics: Where = dataclasses.field(default_factory=Where)  # where figures for Prometheus go
    # How migrations reach the other end's tunnel; whether they take it, the flags tell (flags.Kind.tunnel).
    tunnel: Way = dataclasses.field(default_factory=Way)

    def resume_uris(self, dest: str) -> tuple[str, ...]:
        """Migrate URIs of the other networks to the host DEST."""
        return tuple(network.replace("%s", dest) for network in self.resume_networks)


def load(conf: cfg.ConfigOpts) -> Options:
    """Reads and checks the group [pcmig]. Raises ConfigError for the first option that is not right."""
    policy = _read(conf, "policy")
    default_choice = _read(conf, "default_choice")
    text = str(policy.value).strip()
    try:
        _core.parse_policy(text)
    except _core.PolicyError as err:
        raise policy.error(str(err)) from err
    return Options(
        policy=text,
        policy_setting=policy,
        params=_params(_read(conf, "params")),
        shadow=bool(_read(conf, "shadow").value),
        postcopy_bandwidth_mib=_read(conf, "postcopy_bandwidth").value,
        count_faults=_read(conf, "fault_latency").value == "monitor",
        default_choice=cast(Rule, default_choice.value),
        default_choice_setting=default_choice,
        image_property=cast(ImageMode, _read(conf, "image_property").value),
        request_sources=_sources(_read(conf, "request_sources")),
        connect_timeout_ms=_read(conf, "connect_timeout").value * 1000,
        trace_dir=_folder(_read(conf, "trace_dir")),
        ledger_dir=_folder(_read(conf, "ledger_dir")),
        ledgers_kept=int(_read(conf, "ledgers_kept").value),
        ledgers_days=int(_read(conf, "ledgers_days").value),
        resume_networks=_networks(_read(conf, "resume_networks")),
        journal_dir=_folder(_read(conf, "journal_dir")),
        turn_back=str(_read(conf, "turn_back").value),
        ports_wait_ms=_read(conf, "ports_wait").value * 1000,
        ports_then=str(_read(conf, "ports_then").value),
        source_uri=_source_uri(_read(conf, "source_uri")),
        metrics=_metrics(conf),
        tunnel=_way(conf),
    )


def _read(conf: Any, name: str) -> Setting:
    setting = read(conf, GROUP.name, name)
    if setting is None:
        raise LookupError(f"[{GROUP.name}] {name} is not registered: call register_opts() first")
    return setting


def _params(setting: Setting) -> dict[str, int]:
    """NAME=VALUE items as a dict. The bounds are the core's (csrc/core/params.c)."""
    rows = {row["name"]: row for row in _core.params()}
    params: dict[str, int] = {}
    for item in (part.strip() for line in setting.value for part in line.split(",")):
        if not item:
            continue
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals:
            raise setting.error(f"{item!r} is not NAME=VALUE")
        if name not in rows:
            if (gone := _core.gone_param(name)) is not None:
                raise setting.error(f"parameter {name!r} is gone: {gone}")
            near = difflib.get_close_matches(name, rows, n=1)
            hint = f"did you mean {near[0]}?" if near else "'pcmig migrate --help-params' lists them"
            raise setting.error(f"unknown parameter {name!r}; {hint}")
        if name in params:
            raise setting.error(f"{name} is given twice")
        row = rows[name]
        bounds = f"a whole number from {row['min']} to {row['max']} ({row['unit']})"
        if not text.lstrip("-").isdecimal() or not text.isascii() or len(text) > 20:
            raise setting.error(f"{name} takes {bounds}, not {text[:40]!r}")
        if not row["min"] <= int(text) <= row["max"]:
            raise setting.error(f"{name} takes {bounds}, not {text}")
        params[name] = int(text)
    return params


def _sources(setting: Setting) -> tuple[str, ...]:
    sources = tuple(setting.value)
    if NOBODY not in sources:
        return sources
    if len(sources) > 1:
        raise setting.error(f"{NOBODY} must stand alone, since it means that no request counts")
    return ()


_NETWORK = re.compile(r"(tcp|rdma)://(\[[0-9A-Fa-f:.%s]+\]|[A-Za-z0-9_.%s-]+)(:[0-9]{1,5})?")


def _networks(setting: Setting) -> tuple[str, ...]:
    networks: list[str] = []
    for item in (str(part).strip() for part in setting.value):
        network = item if "://" in item else f"tcp://{item}"
        if not _NETWORK.fullmatch(network) or network.replace("%s", "").count("%"):
            raise setting.error(
                f"{item!r} is neither a name or an address nor a URI like tcp://HOST or rdma://HOST:PORT "
                "(%s stands for the destination's host name, an IPv6 address needs brackets)"
            )
        if network not in networks:
            networks.append(network)
    return tuple(networks)


def _source_uri(setting: Setting) -> str | None:
    uri: str | None = setting.value
    if not uri:
        return None
    if "://" not in uri or "%s" not in uri or uri.replace("%s", "").count("%"):
        raise setting.error("not a libvirt URI with %s for the source's host name, as qemu+tcp://%s/system")
    return uri


def _way(conf: Any) -> Way:
    peer, control = _read(conf, "tunnel_peer"), _read(conf, "tunnel_control")
    if peer.value:
        try:
            parse(peer.value.replace("%s", "host"))
        except ValueError as err:
            raise peer.error(f"{err} (%s stands for the destination's host name)") from err
        if peer.value.count(":") == 1:
            raise peer.error("the port is a matter of [pcmig] tunnel_port")
    if not os.path.isabs(control.value):
        raise control.error("not an absolute path")
    return Way(
        peer=peer.value or None,
        port=_read(conf, "tunnel_port").value,
        streams=_read(conf, "tunnel_streams").value,
        control=control.value,
    )


def _metrics(conf: Any) -> Where:
    folder, address = _read(conf, "metrics_dir"), _read(conf, "metrics_address")
    try:
        ipaddress.ip_address(address.value)
    except ValueError as err:
        raise address.error("not an IP address") from err
    return Where(
        textfiles=None if folder.value == "none" else _folder(folder) or usable_folder(),
        port=_read(conf, "metrics_port").value,
        address=address.value,
    )


def _folder(setting: Setting) -> str | None:
    path: str | None = setting.value
    if not path:
        return None
    if not os.path.isabs(path):
        raise setting.error("not an absolute path")
    if not os.path.isdir(path):
        raise setting.error("there is no such folder: create it, and let the compute service write to it")
    if not os.access(path, os.W_OK | os.X_OK):
        raise setting.error("the compute service may not write to this folder: change its owner or its mode")
    return path


__all__ = [
    "GROUP",
    "LIBVIRT_OPTS",
    "PCMIG_OPTS",
    "RULES",
    "ConfigError",
    "Options",
    "list_opts",
    "load",
    "register_opts",
]
