# SPDX-License-Identifier: Apache-2.0
"""The options of `pcmig migrate`: their definition, and the way from what was typed to arguments of
Migration."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pcmig import _core, turn_back
from pcmig.cli.base import UsageError, add_connect, default_connect, given, given_path, given_uri, natural
from pcmig.ledgers.store import DAYS, KEPT
from pcmig.metrics.meter import TEXTFILE_FOLDER
from pcmig.ports import waiting
from pcmig.tunnel import peer

if TYPE_CHECKING:
    from pcmig._core import Param

DEFAULT_POLICY = "auto"

# A bridge with spanning tree, as it comes, forwards 30 s after its port was made.
PORTS_WAIT_S = 60
LEAST_DOWNTIME_MS = 1  # of QEMU's own switch, which is not for --ports to hold
DAY_S = 24 * 3600
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

# Options of ours that stand for a flag of libvirt.
FLAG_OPTIONS = (
    ("copy_storage_all", "NON_SHARED_DISK"),
    ("copy_storage_inc", "NON_SHARED_INC"),
    ("persistent", "PERSIST_DEST"),
    ("undefinesource", "UNDEFINE_SOURCE"),
    ("unsafe", "UNSAFE"),
    ("tls", "TLS"),
)

# What --tunnel decides by itself: attribute, option.
TUNNEL_DECIDES = (
    ("migrateuri", "--migrateuri"),
    ("disks_uri", "--disks-uri"),
    ("listen_address", "--listen-address"),
    ("resume_uri", "--resume-uri"),
    ("tls", "--tls"),
)

# Flags that mean nothing, or do not work, through it: name, why.
TUNNEL_REFUSES = (
    ("TLS", "the tunnel encrypts already"),
    (
        "ZEROCOPY",
        "QEMU saves copies over TCP only, and to the tunnel it speaks through a unix socket",
    ),
    ("RDMA_PIN_ALL", "the tunnel does not use RDMA"),
)

# Options of ours that stand for a parameter: attribute, option, parameter, factor to the parameter's unit.
PARAM_OPTIONS = (
    ("max_downtime", "--max-downtime", "downtime_limit_ms", 1),
    ("abort_after", "--abort-after", "abort_after_ms", 1000),
)


# Who says how long requested pages took.
FAULT_LATENCY = ("estimate", "monitor")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds everything `pcmig migrate` takes."""
    parser.add_argument("domain", type=given, metavar="DOMAIN", help="guest to move: name, UUID or id")
    parser.add_argument(
        "desturi",
        type=given_uri,
        metavar="DESTURI",
        help="libvirt of the destination, e.g. qemu+ssh://b/system",
    )
    add_connect(parser)
    when = add_policy(parser, "when to switch")
    when.add_argument(
        "--abort-after",
        type=positive_seconds,
        metavar="SECONDS",
        help="cancel if the guest is still at the source",
    )
    when.add_argument(
        "--max-downtime",
        type=natural,
        metavar="MS",
        help="pause that pre-copy may take at its end, milliseconds",
    )
    add_bandwidth(parser)
    place = add_place(parser)
    place.add_argument(
        "--listen-address", type=given, metavar="ADDRESS", help="where the destination's QEMU listens"
    )

    parser.add_argument(
        "--fault-latency",
        choices=FAULT_LATENCY,
        default=FAULT_LATENCY[0],
        help="who says how long requested pages took: 'estimate', pcmig, from the link's queue; 'monitor', "
        "QEMU 10.1 or newer at the destination (its command line gets an argument; its monitor is asked in "
        "the end)",
    )
    broken = parser.add_argument_group(
        "a post-copy that is interrupted (default: it is resumed, however long it takes)"
    )
    add_resume_uri(broken)
    broken.add_argument(
        "--no-resume", action="store_true", help="leave both halves to an operator, and say what to type"
    )
    broken.add_argument(
        "--turn-back",
        choices=turn_back.MODES,
        default="unrun",
        help="when the destination dies in post-copy, go on at the source: 'unrun', by itself where nothing "
        "is lost (default); 'ask', only with 'pcmig turn-back'; 'never'",
    )

    disks = parser.add_argument_group("disks (default: they are on shared storage)")
    copy = disks.add_mutually_exclusive_group()
    copy.add_argument("--copy-storage-all", action="store_true", help="copy whole disks")
    copy.add_argument("--copy-storage-inc", action="store_true", help="copy disks over a common backing file")
    disks.add_argument(
        "--migrate-disks", type=target_list, metavar="LIST", help="copy these only: targets such as vda,vdb"
    )
    disks.add_argument(
        "--disks-uri", type=given_uri, metavar="URI", help="address for the disks, e.g. tcp://10.0.0.2"
    )
    add_ports(parser)
    add_tunnel(parser)
    add_definition(parser)
    more = add_more(parser)
    more.add_argument("--unsafe", action="store_true", help="even where libvirt fears for the disks")
    # Whoever comes from virsh types these; here they are always so.
    for name in ("--live", "--p2p", "--postcopy"):
        more.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    add_output(parser)


def add_resume_options(parser: argparse.ArgumentParser) -> None:
    """Adds everything `pcmig resume` takes: what the journal may not know, or not know any more."""
    parser.add_argument("domain", type=given, metavar="DOMAIN", help="guest: name, UUID or id")
    parser.add_argument(
        "desturi",
        type=given_uri,
        nargs="?",
        metavar="DESTURI",
        help="libvirt of the destination (default: as the journal says)",
    )
    add_connect(parser, journal=True)
    add_policy(parser, "when to switch, if the guest is still at the source")
    add_bandwidth(parser)
    add_resume_uri(add_place(parser))
    add_tunnel(parser).add_argument(
        "--no-tunnel", action="store_true", help="go on without it, in clear, where the journal has one"
    )
    add_definition(parser)
    add_more(parser)
    add_output(parser)
    # Not asked for here: what make_plan() takes for not given.
    parser.set_defaults(
        abort_after=None,
        max_downtime=None,
        listen_address=None,
        no_resume=False,
        turn_back="unrun",
        copy_storage_all=False,
        copy_storage_inc=False,
        migrate_disks=None,
        disks_uri=None,
        unsafe=False,
    )


def add_policy(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """A group TITLE with `--policy` and `--deadline`."""
    when = parser.add_argument_group(title)
    policy = when.add_mutually_exclusive_group()
    policy.add_argument(
        "--policy",
        metavar="POLICY",
        help="auto (default): post-copy when pre-copy does not converge; first-pass, passes=N, "
        "deadline=SECONDS, immediate, manual (SIGUSR1 or 'pcmig switch'), never",
    )
    policy.add_argument(
        "--deadline", type=positive_seconds, metavar="SECONDS", help="the same as --policy deadline=SECONDS"
    )
    return when


def add_bandwidth(parser: argparse.ArgumentParser) -> None:
    """The two bandwidths."""
    speed = parser.add_argument_group("bandwidth, in MiB/s as virsh has it")
    speed.add_argument(
        "--bandwidth", type=natural, default=0, metavar="MIB", help="of pre-copy (default: unlimited)"
    )
    speed.add_argument(
        "--postcopy-bandwidth",
        type=natural,
        default=0,
        metavar="MIB",
        help="upper bound of the pace in post-copy (default: the link decides)",
    )


def add_place(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Where the guest goes."""
    place = parser.add_argument_group("the destination")
    place.add_argument(
        "--migrateuri",
        type=given_uri,
        metavar="URI",
        help="address for the guest's memory, e.g. tcp://10.0.0.2",
    )
    place.add_argument("--dname", type=given, metavar="NAME", help="name of the guest at the destination")
    return place


def add_resume_uri(group: argparse._ArgumentGroup) -> None:
    """`--resume-uri`."""
    group.add_argument(
        "--resume-uri",
        action="append",
        default=[],
        type=given_uri,
        metavar="URI",
        help="like --migrateuri, over another network, for resuming; several are tried in turn",
    )


def add_tunnel(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """`--tunnel` and what goes with it."""
    tunnel = parser.add_argument_group("encryption")
    tunnel.add_argument(
        "--tunnel",
        nargs="?",
        const="",
        type=peer_or_default,
        metavar="PEER[:PORT]",
        help="send memory and disks through pcmig's tunnel; --tunnel=PEER[:PORT] names its other end "
        "(default: the host of DESTURI, port 16516)",
    )
    tunnel.add_argument(
        "--tunnel-streams",
        type=stream_count,
        metavar="N",
        help="TCP connections that each stream is spread over, 1 to 8 (default: 1)",
    )
    return tunnel


def add_ports(parser: argparse.ArgumentParser) -> None:
    """`--ports` and what goes with it."""
    ports = parser.add_argument_group("the network")
    ports.add_argument(
        "--ports",
        nargs="?",
        const="",
        type=ssh_target,
        metavar="[USER@]HOST",
        help="no switch before the guest's ports forward at the destination, which is asked over ssh; "
        "--ports=[USER@]HOST names it (default: the host of DESTURI)",
    )
    ports.add_argument(
        "--ports-wait",
        type=positive_seconds,
        metavar="SECONDS",
        help=f"how long the switch waits for them (default: {PORTS_WAIT_S})",
    )
    ports.add_argument(
        "--ports-then",
        choices=("stay", "switch", "abort"),
        help="after that: stay in pre-copy until they forward (default), switch anyway, or cancel",
    )


def ssh_target(text: str) -> str:
    """An argparse type: [USER@]HOST, or nothing."""
    user, at, host = text.rpartition("@")
    try:
        if text and (peer.parse(host).port != peer.DEFAULT_PORT or (at and not _USER.fullmatch(user))):
            raise ValueError(f"{text!r}: write [USER@]HOST; a port belongs into ssh's own settings")
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err
    return text


def peer_or_default(text: str) -> str:
    """An argparse type: HOST[:PORT], or nothing."""
    try:
        return str(peer.parse(text)) if text else text
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


def stream_count(text: str) -> int:
    """An argparse type: 1 to 8."""
    if not re.fullmatch("[0-9]{1,2}", text) or not 1 <= int(text) <= 8:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 8")
    return int(text)


def arrange(argv: list[str]) -> list[str]:
    """ARGV with "--tunnel=" for a bare "--tunnel", and likewise --ports: they never take the next word, which
    is the guest."""
    end = argv.index("--") if "--" in argv else len(argv)
    return [f"{word}=" if word in ("--tunnel", "--ports") else word for word in argv[:end]] + argv[end:]


def add_definition(parser: argparse.ArgumentParser) -> None:
    """What becomes of the guest's definitions."""
    definition = parser.add_argument_group(
        "the definition (default: that of a persistent guest moves with it, so that nobody can start a "
        "second copy at the source)"
    )
    definition.add_argument("--persistent", action="store_true", help="define the guest at the destination")
    definition.add_argument("--undefinesource", action="store_true", help="undefine it at the source")
    definition.add_argument(
        "--keep-definition", action="store_true", help="leave both hosts' definitions alone"
    )


def add_more(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Flags, parameters and the like."""
    more = parser.add_argument_group("more")
    more.add_argument("--flags", default="", metavar="LIST", help="libvirt flags as nova.conf holds them")
    more.add_argument("--tls", action="store_true", help="encrypt with QEMU's own TLS")
    more.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="a parameter of policy or pacing; --help-params lists them",
    )
    more.add_argument("--help-params", action=ParamsAction, help="list the parameters and exit")
    more.add_argument("--connect-timeout", type=positive_seconds, metavar="SECONDS", help="default: 10")
    return more


def add_output(parser: argparse.ArgumentParser) -> None:
    """What is shown and written."""
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", type=given_path, metavar="FILE", help="write the result as JSON; '-' is stdout"
    )
    output.add_argument("--trace", type=given_path, metavar="FILE", help="record what 'pcmig replay' reads")
    output.add_argument(
        "--huge-pages",
        action="store_true",
        help="after post-copy, stay for 30 seconds and look how many huge pages the guest has at the "
        "destination then, if that is this machine (Ctrl-C leaves)",
    )
    output.add_argument(
        "--keep-ledgers",
        type=natural,
        default=KEPT,
        metavar="N",
        help=f"how many ledgers of ended migrations stay on this host for 'pcmig report' (default: {KEPT}; "
        "0: none is written)",
    )
    output.add_argument(
        "--keep-days",
        type=positive_days,
        default=DAYS,
        metavar="DAYS",
        help=f"and for how long (default: {DAYS})",
    )
    output.add_argument(
        "--metrics-dir",
        metavar="FOLDER",
        help="write pcmig.prom there, for node_exporter's textfile collector (default: $PCMIG_METRICS_DIR, "
        f"or {TEXTFILE_FOLDER}, where that is); '' writes none",
    )
    output.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    output.add_argument("--no-progress", action="store_true", help="print decisions and the result only")


def positive_days(text: str) -> int:
    """An argparse type: whole days, up to a hundred years."""
    value = natural(text)
    if not 1 <= value <= 36500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 36500")
    return value


def positive_seconds(text: str) -> float:
    """An argparse type: seconds, with fractions down to the millisecond."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0.001 <= value <= 999_999_999:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.001 to 999999999")
    return value


def target_list(text: str) -> list[str]:
    """An argparse type: "vda, vdb" as ["vda", "vdb"]."""
    targets = given(text).replace(",", " ").split()
    if not targets:
        raise argparse.ArgumentTypeError(f"{text!r} names no disk; write targets such as vda,vdb")
    return targets


class ParamsAction(argparse.Action):
    """`--help-params`: the table of parameters, from the core."""

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from rich.table import Table

        from pcmig.cli.base import make_console

        table = Table("name", "default", "bounds", "unit", "what it is", box=None, pad_edge=False)
        for row in _core.params():
            bounds = f"{row['min']}..{row['max']}"
            table.add_row(row["name"], str(row["default"]), bounds, row["unit"], row["doc"])
        make_console().print(table)
        parser.exit()


@dataclasses.dataclass(frozen=True)
class Ports:
    """--ports: whom to ask, and how long the switch waits."""

    target: str  # [USER@]HOST, as ssh takes it
    port: int | None
    wait_ms: int
    then: str


@dataclasses.dataclass
class Plan:
    """What was asked for, checked as far as the command line alone allows."""

    domain: str
    source_uri: str
    dest_uri: str  # "": as the journal says
    policy: str
    policy_given: bool  # an old flag name in --flags that stands for a policy does not override it
    params: dict[str, int]
    flag_names: list[str]  # those the options stand for
    flags_text: str  # --flags as typed
    move_definition: bool  # add PERSIST_DEST and UNDEFINE_SOURCE for a persistent guest
    engine: dict[str, Any]  # the other keyword arguments of Migration
    tunnel: str | None = None  # --tunnel: "" = the destination's host; None = not asked for
    tunnel_streams: int | None = None
    ports: Ports | None = None  # which the switch waits for
    uuid: str = ""  # of the guest, once libvirt has told; `domain` is its name then, whatever was typed

    @property
    def word(self) -> str:
        """How to name the guest in a command."""
        return _core.guest_word(self.domain, self.uuid) if self.uuid else self.domain

    @property
    def postcopy(self) -> bool:
        """Whether the policy may switch to post-copy."""
        return self.policy.strip().lower() != "never"

    def flags_line(self) -> str:
        """All flags in nova.conf's form, with those that the engine adds by itself."""
        names = ["LIVE", "PEER2PEER", *(["POSTCOPY"] if self.postcopy else []), *self.flag_names]
        return ", ".join([*names, *([self.flags_text] if self.flags_text.strip() else [])])


def make_plan(args: argparse.Namespace, rows: list[Param]) -> Plan:
    """From ARGS of the parser and the core's table of parameters. Raises UsageError."""
    if args.keep_definition and (args.persistent or args.undefinesource):
        raise UsageError("--keep-definition contradicts --persistent and --undefinesource")
    if args.no_resume and args.resume_uri:
        raise UsageError("--no-resume contradicts --resume-uri")
    if args.undefinesource and not args.persistent:
        raise UsageError(
            "--undefinesource without --persistent would leave the guest without a definition anywhere"
        )

    check_tunnel(args)
    params = parse_settings(args.settings, rows)
    for attribute, option, name, factor in PARAM_OPTIONS:
        value = getattr(args, attribute)
        if value is not None:
            if name in params:
                raise UsageError(f"{option} and --set {name} set the same parameter: give one of them")
            params[name] = in_bounds(option, name, round(value * factor), rows)
    return Plan(
        domain=args.domain,
        source_uri=args.connect or default_connect(),
        dest_uri=args.desturi or "",
        policy=policy_text(args),
        policy_given=args.deadline is not None or args.policy is not None,
        params=params,
        flag_names=[flag for attribute, flag in FLAG_OPTIONS if getattr(args, attribute)],
        flags_text=args.flags,
        move_definition=not (args.keep_definition or args.persistent),
        engine={
            "migrate_uri": args.migrateuri,
            "listen_address": args.listen_address,
            "dest_name": args.dname,
            "disks": args.migrate_disks,
            "disks_uri": args.disks_uri,
            "bandwidth_mib": args.bandwidth,
            "postcopy_bandwidth_mib": args.postcopy_bandwidth,
            "trace_path": args.trace,
            "recover": not args.no_resume,
            "resume_uris": args.resume_uri,
            # In no journal where it was not asked for: an older pcmig knows nothing of it.
            **({"count_faults": True} if getattr(args, "fault_latency", "") == FAULT_LATENCY[1] else {}),
            **(
                {}
                if args.connect_timeout is None
                else {"connect_timeout_ms": round(args.connect_timeout * 1000)}
            ),
        },
        tunnel=args.tunnel,
        tunnel_streams=args.tunnel_streams,
        ports=ports_of(args, params),
    )


def check_tunnel(args: argparse.Namespace) -> None:
    """Raises UsageError for what contradicts --tunnel, or needs it."""
    if args.tunnel is None:
        if args.tunnel_streams is not None:
            raise UsageError("--tunnel-streams needs --tunnel")
        return
    for attribute, option in TUNNEL_DECIDES:
        if getattr(args, attribute):
            raise UsageError(
                f"{option} contradicts --tunnel, which finds its own way and encrypts: leave it out; "
                "--tunnel=PEER[:PORT] names another address of the destination"
            )


def tunnel_peer(plan: Plan) -> peer.Peer:
    """Where the tunnel leads: as it was typed, or the destination's host. Raises UsageError."""
    if plan.tunnel:
        return peer.parse(plan.tunnel)
    found = peer.of_uri(plan.dest_uri)
    if found is None:
        raise UsageError(f"--tunnel: {plan.dest_uri} names no host: write --tunnel=PEER[:PORT]")
    return found


def ports_of(args: argparse.Namespace, params: dict[str, int]) -> Ports | None:
    """What --ports comes to; the gate's own wait, one of PARAMS, is as long if it is not set. Raises
    UsageError."""
    if getattr(args, "ports", None) is None:
        for attribute, option in (("ports_wait", "--ports-wait"), ("ports_then", "--ports-then")):
            if getattr(args, attribute, None) is not None:
                raise UsageError(f"{option} needs --ports")
        return None
    if policy_text(args).strip().lower() == "never":
        raise UsageError("--ports contradicts --policy never: there is no switch that could wait")
    target, port = args.ports, None
    if not target:
        found = peer.of_uri(args.desturi)
        if found is None:
            raise UsageError(f"--ports: {args.desturi} names no host: write --ports=[USER@]HOST")
        parts = urlsplit(args.desturi)
        target = f"{parts.username}@{found.host}" if parts.username else found.host
        port = parts.port if parts.scheme.endswith("+ssh") else None
    wait_s = PORTS_WAIT_S if args.ports_wait is None else args.ports_wait
    if wait_s > DAY_S:
        raise UsageError(f"--ports-wait: {wait_s:g} is more than a day ({DAY_S} seconds)")
    wait_ms = round(wait_s * 1000)
    params.setdefault("gate_wait_ms", waiting.gate_wait_ms(wait_ms))
    # A pre-copy that ends by itself waits for nobody: it must not, but where next to nothing is left.
    params.setdefault("downtime_limit_ms", LEAST_DOWNTIME_MS)
    return Ports(target, port, wait_ms, args.ports_then or "stay")


def policy_text(args: argparse.Namespace) -> str:
    """The policy as the core reads it."""
    if args.deadline is not None:
        return f"deadline={args.deadline:.3f}".rstrip("0").rstrip(".")
    return DEFAULT_POLICY if args.policy is None else str(args.policy)


def check_policy(option: str, policy: str, params: dict[str, int]) -> None:
    """Raises UsageError when the core does not know POLICY, or when PARAMS set what it has set itself."""
    try:
        own = _core.parse_policy(policy)["params"]
    except (_core.PolicyError, UnicodeError) as err:
        raise UsageError(f"{option}: {err}") from err
    for name in own.keys() & params.keys():
        raise UsageError(f"{option} and --set {name} set the same parameter: give one of them")


def parse_settings(settings: list[str], rows: list[Param]) -> dict[str, int]:
    """`--set` options as parameters, by ROWS of the core. Raises UsageError that names what would be
    right."""
    names = [row["name"] for row in rows]
    params: dict[str, int] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise UsageError(f"--set {setting!r}: write NAME=VALUE, e.g. request_wait_ms=50")
        if name not in names:
            if (gone := _core.gone_param(name)) is not None:
                raise UsageError(f"--set: parameter {name!r} is gone: {gone}")
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "'pcmig migrate --help-params' lists them"
            raise UsageError(f"--set: unknown parameter {name!r}; {hint}")
        if name in params:
            raise UsageError(f"--set {name} was given twice")
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            row = rows[names.index(name)]
            bounds = f"{row['min']} to {row['max']} {row['unit']}"
            raise UsageError(f"--set {name}: {text!r} is not a whole number ({bounds})")
        params[name] = in_bounds(f"--set {name}", name, int(text), rows)
    return params


def without_gone(params: dict[str, int]) -> dict[str, int]:
    """PARAMS as an older version has noted them for a migration, without those that are there no more."""
    return {name: value for name, value in params.items() if _core.gone_param(name) is None}


def in_bounds(option: str, name: str, value: int, rows: list[Param]) -> int:
    """VALUE, if the parameter NAME allows it; otherwise a UsageError that names OPTION and the bounds."""
    for row in rows:
        if row["name"] == name and not row["min"] <= value <= row["max"]:
            raise UsageError(
                f"{option}: {value} {row['unit']} is out of bounds ({row['min']} to {row['max']})"
            )
    return value


def take_flags(plan: Plan) -> None:
    """Checks all flags as far as that goes before a host is asked, and takes over the policy that an old name
    stands for. Raises UsageError."""
    try:
        flags = _core.parse_flags(plan.flags_text)
    except _core.FlagsError as err:
        raise UsageError(f"--flags: {err} ('pcmig flags' lists them all)") from err
    if flags.policy and not plan.policy_given:
        plan.policy = flags.policy
    flags = _core.parse_flags(plan.flags_line())
    names = {name.removeprefix("VIR_MIGRATE_") for name in flags.names}
    for option, name in (("--migrate-disks", "disks"), ("--disks-uri", "disks_uri")):
        if plan.engine[name] and not names & {"NON_SHARED_DISK", "NON_SHARED_INC"}:
            raise UsageError(f"{option} needs --copy-storage-all or --copy-storage-inc")
    if plan.tunnel is not None:
        for name, why in TUNNEL_REFUSES:
            if name in names:
                raise UsageError(f"VIR_MIGRATE_{name} contradicts --tunnel: {why}")
    refuse_conflicts(through_tunnel(plan, flags))


def through_tunnel(plan: Plan, flags: _core.Flags) -> _core.Flags:
    """FLAGS, without libvirt's own tunnel where pcmig's takes its place."""
    if plan.tunnel is None or "VIR_MIGRATE_TUNNELLED" not in flags.names:
        return flags
    return _core.flags_from_bits(flags.bits & ~_core.parse_flags("TUNNELLED").bits)


def refuse_conflicts(flags: _core.Flags) -> None:
    """Raises UsageError for the first error among FLAGS."""
    for severity, message, names in flags.check():
        if severity == "error":
            raise UsageError(f"{', '.join(names)}: {message}")
