# SPDX-License-Identifier: Apache-2.0
"""Types of the C core. Times are milliseconds or microseconds as named, sizes bytes, rates per second."""

import os
from collections.abc import Iterable
from typing import Any, Literal, TypedDict, final, type_check_only

VERSION: str  # of pcmig

class Error(Exception):
    """Base of all errors of pcmig."""

class FlagsError(Error):
    """A name is no migration flag; raised by parse_flags()."""

    position: int  # characters before the name
    item: int  # 1 is the first name
    token: str  # the name as given
    suggestion: str | None  # the nearest known name, with prefix

class PolicyError(Error):
    """A policy or a parameter is not valid."""

class TraceError(Error):
    """A trace cannot be read; `line` is the number of the line, 0 = the trace as a whole."""

    line: int

class LibvirtError(Error):
    """libvirt reported an error; `code` and `domain` are its virErrorNumber and virErrorDomain, `hint` is
    what helps, with which the text ends, or None."""

    code: int
    domain: int
    hint: str | None

class ConnectError(LibvirtError):
    """A connection to libvirt could not be made, or broke."""

class NoDomainError(LibvirtError):
    """The guest is not known on that host."""

class UnsupportedError(LibvirtError):
    """This libvirt, QEMU or guest cannot do what was asked."""

class InvalidOperationError(LibvirtError):
    """Not possible in the guest's present state."""

class DeniedError(LibvirtError):
    """Authentication or access was refused."""

@type_check_only
class FlagRow(TypedDict):
    name: str  # with prefix
    bit: int
    since: str  # libvirt version, "1.3.3"
    doc: str

@type_check_only
class OldFlagName(TypedDict):
    name: str  # with prefix
    bit: int  # of the flag that it means today
    policy: str | None  # the switchover policy that it stands for
    doc: str

@type_check_only
class FlagConflict(TypedDict):
    """Holds when all of `all`, at least one of `any` (if there are any) and none of `none` are set."""

    name: str
    severity: Literal["error", "warning"]
    user: Literal["anyone", "nova", "not-nova"]
    all: tuple[str, ...]
    any: tuple[str, ...]
    none: tuple[str, ...]
    problem: str
    remedy: str

@type_check_only
class Param(TypedDict):
    name: str
    unit: str
    default: int
    min: int
    max: int
    doc: str

@type_check_only
class Decision(TypedDict):
    t_us: int
    action: str
    reason: str
    a: int
    b: int
    c: int
    pace_mib: int
    next_us: int | None  # when the policy wants to hear next; None = only events
    text: str

@type_check_only
class Recovery(TypedDict):
    """An interrupted post-copy that is being healed."""

    state: str  # "waiting", "resuming", "held" (until something else changes; the text says what)
    attempts: int  # so far
    permille: int  # of the guest's memory had crossed; 0 also when that is not known
    since_ms: int  # of the interruption, since the start
    next_ms: int | None  # of the next attempt, since the start
    text: str  # "post-copy interrupted at 43 %, resuming, attempt 3"

@type_check_only
class Eta(TypedDict):
    """How long a migration still takes, as far as that is known; see core/forecast.h."""

    # "range"; "least": only that is known; "too-early"; "not-converging": pre-copy without an end;
    # "interrupted"; "over"
    outlook: Literal["range", "least", "too-early", "not-converging", "interrupted", "waits", "over"]
    least_ms: int | None
    most_ms: int | None

@type_check_only
class Downtime(TypedDict):
    """How long the guest stood still at the switch."""

    ms: int
    source: Literal[
        "events", "libvirt", "expected"
    ]  # both hosts' events, libvirt's final figure, QEMU's guess

@type_check_only
class LatencyNow(TypedDict):
    """Of page requests; None as a whole where nothing is known."""

    source: Literal["estimated", "qemu"]
    mean_us: int  # so far
    now_us: int | None  # of a page that is asked for now, as estimated

@type_check_only
class Judged(TypedDict):
    """Where a migration is that somebody else drives."""

    phase: str  # as the ledger has it, without "drain"
    passes: int
    pass_permille: int
    progress_permille: int
    eta: Eta
    downtime: Downtime | None
    send_bps: int
    link_bps: int | None
    requests_ps: int
    latency: LatencyNow | None
    due_us: int | None  # when the policy wants to hear next; None = only events

@type_check_only
class Status(TypedDict):
    """One moment of a migration. Figures that are not known are None."""

    state: str  # what the engine is doing, doc/develop/engine.rst
    phase: str  # "setup", "precopy", "drain", "switchover", "postcopy", "paused", "finished"
    outcome: str | None  # None while running; "completed", "failed", "needs-operator", "detached"
    error: str | None  # the text behind "failed" and "needs-operator"
    operator_command: str | None  # with "needs-operator": what to type
    elapsed_ms: int
    passes: int  # completed passes over the guest's memory, measured in pages
    pass_permille: int  # share of the running pass
    memory_total_bytes: int
    memory_processed_bytes: int
    memory_remaining_bytes: int
    disk_total_bytes: int
    disk_processed_bytes: int
    disk_remaining_bytes: int
    downtime_ms: int  # as libvirt tells it: expected while running, measured at the end; 0 = not told
    setup_time_ms: int
    send_bps: int
    link_bps: int | None
    latency: LatencyNow | None
    dirty_pages_ps: int
    postcopy_requests: int
    requests_ps: int
    queue_bytes: int | None
    pace_mib: int | None  # post-copy bandwidth in force; 0 = unlimited
    progress_permille: int  # of the whole migration; never falls, and is 1000 once it is completed
    eta: Eta
    eta_ms: int | None  # the most of it
    downtime: Downtime | None  # None: it has not moved yet, and QEMU expects nothing
    decision: Decision | None  # the latest that was not "keep"
    switch_late_us: int | None  # from the decision to switch (of drained and gate open, the later one) to the
    #                             start-postcopy call that was accepted
    gate: str  # "none", "closed", "wanted" (answer it), "open", "refused"
    recovery: Recovery | None  # None: post-copy is not interrupted
    unrun: bool  # it is certain that no instruction of the guest ran at the destination, nor will one
    dest_ended: bool  # after the switch the destination's libvirt saw the process with the half end
    left: bool  # it runs at the source no more: stopped there for the switch, or seen beyond it
    crossed: bool  # the switch was issued, or the guest seen beyond it: the source's memory may be the older
    dest_host: str | None  # UUID of the destination's host; None: not asked yet, not reached, or adopted
    turn: str  # what the host's other migrations leave to it: "free", "crowded", "held", "bounded", "waiting"
    waits_for: str | None  # and for which of them it waits: "g2 (draining)"
    note: str | None  # what people should hear of while it runs, the latest; a command stands on its own line
    cpu_us: int  # CPU time of the control thread
    stream_peer: str | None  # address that the stream goes to; None before post-copy, or not seen
    quickack: str  # acknowledgements at once, on the route: "off", "set", "present", "denied", "unfit"
    stats_failed: int  # statistics calls that failed: no verdict on the migration, only a figure
    inputs_lost: int  # events and requests that memory was too short for; 0 but in dire straits

@type_check_only
class UffdTry(TypedDict):
    """One attempt to get a userfaultfd and to register memory with it, as QEMU's destination does."""

    ok: bool
    step: str  # the one that failed: "open", "api", "register"; "done"
    errno: int  # of that step; 0 = it worked
    features: list[str]  # UFFD_FEATURE_* in lower case, e.g. "missing-shmem"
    ioctls: list[str]  # "register", "unregister", and on anonymous memory "wake", "copy", "zeropage"

@type_check_only
class UffdReport(TypedDict):
    syscall: UffdTry  # userfaultfd(2), faults of the kernel included
    syscall_user_mode_only: UffdTry  # with UFFD_USER_MODE_ONLY (Linux >= 5.11), which is no use to QEMU
    node: UffdTry  # /dev/userfaultfd (Linux >= 6.1)

@type_check_only
class DeviceNode(TypedDict):
    device: bool  # a character device
    mode: int
    uid: int
    gid: int
    major: int
    minor: int

@type_check_only
class ProbeUser(TypedDict):
    name: str
    uid: int
    gid: int
    groups: list[int]
    capabilities: bool  # whether the attempt kept them; libvirt starts QEMU without
    errno: int  # why nothing could be tried as this user; 0 = `uffd` tells
    uffd: UffdReport | None

_Sysctl = TypedDict(
    "_Sysctl",
    {
        "vm.unprivileged_userfaultfd": int | None,
        "vm.max_map_count": int | None,
        "net.ipv4.tcp_retries2": int | None,
        "net.ipv4.tcp_wmem": list[int] | None,  # bytes: min, default, max
        "net.ipv4.tcp_rmem": list[int] | None,
    },
)

@type_check_only
class TurnsFile(TypedDict):
    """The file through which migrations that leave this host at the same time know of each other."""

    state: str  # "shared", "missing", "denied", "foreign", "failed"
    path: str
    errno: int  # 0 = none
    folder_mode: int  # permission bits; 0 = not known
    migrations: int  # of other processes, now

@type_check_only
class HostProbe(TypedDict):
    """Facts of this host's kernel. None: cannot be read, or not there."""

    kernel: str | None  # release
    lockdown: str | None  # "none", "integrity", "confidentiality"
    seccomp: int | None  # of this process: 0 none, 1 strict, 2 filter
    page_size_bytes: int
    sysctl: _Sysctl
    node: DeviceNode | None  # /dev/userfaultfd
    uffd: UffdReport  # as this process
    user: ProbeUser | None
    turns: TurnsFile

@type_check_only
class GuestFacts(TypedDict):
    name: str
    uuid: str
    state: str  # "running", "paused", ...: see pcmig_half_name in core/halves.c
    xml: str

@type_check_only
class HostFacts(TypedDict):
    """What a host's libvirt tells. Versions are major * 1000000 + minor * 1000 + micro, 0 = not reported."""

    client_version: int  # of the library in this process
    libvirt_version: int
    qemu_version: int
    driver: str | None  # "QEMU"
    hostname: str | None
    uri: str | None
    capabilities: str | None  # XML
    host_uuid: str | None
    encrypted: bool | None
    secure: bool | None  # encrypted, or local
    guest: GuestFacts | None

def probe_host(
    user: str | None = None, *, group: str | None = None, keep_capabilities: bool = False, root: str = "/"
) -> HostProbe:
    """Facts of this host that post-copy depends on, files read below ROOT. With USER (a name, a number, or
    "+number", as in qemu.conf), userfaultfd is also tried as that user, in a child process. Raises Error for
    an unknown user."""

def host_facts(uri: str, *, domain: str | None = None, timeout_ms: int = ...) -> HostFacts:
    """What the libvirt at URI says of its host, and of DOMAIN (name, UUID or id) there. TIMEOUT_MS bounds the
    connecting. Raises ConnectError, NoDomainError or another LibvirtError."""

@final
class Flags:
    """Migration flags; immutable. str() is the line for nova.conf. Equal when bits and policy are.

    Versions are numbers as libvirt gives them, major * 1000000 + minor * 1000 + micro, of the older one of
    the two hosts; None = not known.
    """

    @property
    def bits(self) -> int:
        """VIR_MIGRATE_* bits for libvirt."""
    @property
    def policy(self) -> str | None:
        """The switchover policy that an old name stands for, as parse_policy() takes it."""
    @property
    def names(self) -> tuple[str, ...]:
        """With prefix, by ascending bit; bits of no flag come last as one hexadecimal number."""
    @property
    def items(self) -> tuple[tuple[str, str, int, str | None, int], ...]:
        """(given, name today, bit, policy, position) for each name in the text; empty without a text."""
    def check(
        self, qemu_version: int | None = None, libvirt_version: int | None = None, nova: bool = False
    ) -> list[tuple[Literal["error", "warning"], str, tuple[str, ...]]]:
        """(severity, what is wrong and what to do, flags that it is about), errors first. `nova`: the flags
        are Nova's live_migration_flag. Raises ValueError or OverflowError for what is no version."""
    def resolved(
        self, qemu_version: int | None = None, libvirt_version: int | None = None, nova: bool = False
    ) -> Flags:
        """These flags with the remedy of each finding of check() applied: no error is left."""
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

def parse_flags(text: str, /) -> Flags:
    """Flags from nova.conf's live_migration_flag: names with or without VIR_MIGRATE_, in any case, between
    commas and white space. Old names are understood. Raises FlagsError for the first unknown name."""

def flags_from_bits(bits: int, /) -> Flags:
    """Flags from VIR_MIGRATE_* bits. Raises ValueError or OverflowError for what is not 32 bits."""

def flags_table() -> list[FlagRow]:
    """Every migration flag of libvirt from 8.0 to 12.8, by ascending bit."""

def flags_old_names() -> list[OldFlagName]:
    """Names of old that parse_flags() understands."""

def flags_conflicts() -> list[FlagConflict]:
    """The rules of Flags.check(), errors first."""

@type_check_only
class Answer(TypedDict):
    """What a policy answered to one input, recorded and replayed; None = nothing (keep going)."""

    line: int  # of the trace: the recorded decision, or the input that should have had one
    recorded: Decision | None
    replayed: Decision | None

@type_check_only
class LeftOut(TypedDict):
    lines: int
    first: int  # line of the first of them,
    what: str  # and what is not known there

@type_check_only
class Replay(TypedDict):
    inputs: int
    recorded: int  # decisions in the trace
    replayed: int  # decisions of the replay
    different: int  # answers that differ in anything
    identical: bool
    first_difference: Answer | None
    decisions: list[Answer]
    policy: str  # of the replay, and
    gate: bool  # as recorded, and
    params: dict[str, int]  # its parameters
    cut: int | None  # the line within which the file ends, which is left out; None: it is whole
    written_by: str | None  # the pcmig that recorded it; None: it does not say
    left_out: LeftOut | None  # what that one knew, and this one does not

@type_check_only
class LedgerRow(TypedDict):
    """One stay in a phase, one pass over memory, or their sum. See doc/refer/ledger.rst."""

    phase: str
    number: int
    merged: int  # further stays or passes in this row
    complete: bool
    start_us: int
    end_us: int
    duration_us: int
    wire_bytes: int
    normal_pages: int
    zero_pages: int
    requests: int
    disk_bytes: int
    remaining_start_bytes: int
    remaining_end_bytes: int
    dirtied_pages: int
    dirty_pages_ps: int
    reported_dirty_pages_ps: int
    send_bps: int
    retransmitted_pages: int
    retransmitted_permille: int
    requests_peak_ps: int
    bytes_per_guest_page: int
    queue_peak_bytes: int | None

@type_check_only
class LedgerTotals(LedgerRow):
    phase_us: dict[str, int]
    gate_us: int
    waited_us: int
    total_us: int
    guest_pages: int
    page_size_bytes: int
    passes: int
    downtime_reported_ms: int | None
    downtime_events_us: int | None
    late_samples: int
    counters_backwards: int

@type_check_only
class LedgerEvent(TypedDict):
    t_us: int
    kind: str  # "phase", "event", "request", "action"
    name: str

@type_check_only
class LedgerQuantity(TypedDict):
    phases: int
    reported: int
    difference: int  # phases - reported
    last_interval: int  # part of `phases` that came after the last sample

@type_check_only
class LedgerBalance(TypedDict):
    final: bool
    balanced: bool
    text: str
    quantities: dict[str, LedgerQuantity]  # empty without final statistics

@type_check_only
class LedgerLatency(TypedDict):
    """How long page requests took, see doc/refer/ledger.rst."""

    source: Literal["estimated", "qemu"]
    requests: int
    mean_us: int
    vcpu_us: int | None
    other_us: int | None
    buckets: list[int]

@type_check_only
class Ledger(TypedDict):
    phase: str
    phases: list[LedgerRow]
    passes: list[LedgerRow]
    events: list[LedgerEvent]
    events_lost: int
    totals: LedgerTotals
    latency: LedgerLatency | None
    balance: LedgerBalance

def gone_param(name: str) -> str | None:
    """What takes the place of a parameter of an older version, which is there no more; otherwise None."""

def params() -> list[Param]:
    """Every threshold of the policy and the pacing, with unit, default, bounds and a sentence on it."""

def parse_policy(text: str) -> dict[str, Any]:
    """{"kind": "passes", "params": {"passes": 3}}. Raises PolicyError with what would be right."""

_HalfName = Literal[
    "unknown", "absent", "running", "paused", "migrating", "postcopy", "postcopy-failed", "dead"
]
_Side = Literal["source", "destination"]
_Act = Literal[
    "start",
    "resume",
    "reboot",
    "shutdown",
    "destroy",
    "undefine",
    "delete-files",
    "rollback",
    "post-migration",
    "migrate-resume",
    "forget",
    "turn-back",
]
_Memory = Literal["unknown", "source", "destination", "both", "nowhere"]

@type_check_only
class Half(TypedDict):
    half: _HalfName
    job_active: bool | None  # whether the host says that a migration runs there; None = it could not tell
    shut_down: bool  # "absent", and the host says that the guest was shut down there, maybe long ago
    defined: bool  # the host has a definition of it, whatever becomes of the half
    runs: bool  # "postcopy-failed", and its processors run: at a source, a guest that turned back
    running: bool  # its processors run there, as far as libvirt knows
    id: int | None  # that libvirt gave it when it was started; None = it is off, or not known there

def half(uri: str, uuid: str, connect_timeout_ms: int = ...) -> Half:
    """The half of the guest with this UUID at URI.

    Blocks without the GIL: CONNECT_TIMEOUT_MS to connect, then as long as libvirt takes (about 30 s when the
    connection breaks meanwhile; a QEMU that does not answer is waited for no longer than 3 s).
    Raises ConnectError or another LibvirtError when the host does not tell: for guard() that is "unknown".
    Ask the source before the destination: the other order may see a half vanish that did not."""

@type_check_only
class Permission(TypedDict):
    allowed: bool
    reason: str  # a sentence without its capital and full stop
    advice: str | None  # commands that help
    rest: (
        str | None
    )  # commands that end what is left of the guest once its migration is forgotten; for people
    situation: str  # see situations()
    memory: _Memory

def guard(
    *,
    side: _Side,
    act: _Act,
    source: _HalfName = "unknown",
    destination: _HalfName = "unknown",
    in_flight: bool = False,
    call_succeeded: bool = False,
    source_handed_off: bool = False,
    job_active: bool | None = None,
    insist: bool = False,
    guest: str | None = None,
    source_uri: str | None = None,
    dest_uri: str | None = None,
    source_shut_down: bool = False,
    destination_shut_down: bool = False,
    disks_copied: bool = False,
    crossed: bool = False,
    turned_back: bool = False,
) -> Permission:
    """Whether ACT may be done to the half on SIDE; see doc/refer/safety.rst.

    `in_flight`: a migration between these two hosts is on record, and how it ended is not. `job_active`: as
    half() of the source says. `crossed`: the switch to post-copy was issued. `source_handed_off`: the source
    said STOPPED/MIGRATED. `turned_back`: the source's half was let go on after the switch (half() of the
    source says `runs`, or a record's mark says so). `insist`: the owner deletes the guest; it allows
    "destroy", "undefine" and "delete-files" always, and nothing else; with "turn-back" it is somebody's word
    that a destination which does not answer is dead, and stays so until it is started anew. `guest` and the
    two URIs go into the advice. Raises ValueError for an unknown name."""

@type_check_only
class TurnBackLook(TypedDict):
    run_state: str  # of the guest, in QEMU's words: "finish-migrate"
    migration: str  # of its migration: "postcopy-paused"
    half: Literal["other", "waits", "sends", "runs", "stopped"]  # both in one: see core/turn_back.h
    remaining_bytes: int | None  # of its memory, still to be sent; 0: the guest may have been whole there
    sent_bytes: int | None
    requests: int | None  # of pages, by the destination
    qemu: int  # version, major * 1000000 + minor * 1000 + micro
    sets_active: bool  # it can take disks back (QEMU >= 10.0)
    discards_memory: bool  # it gave back what it sent

def turn_back_look(uri: str, uuid: str, connect_timeout_ms: int = ...) -> TurnBackLook:
    """What QEMU at the source says of the half there. Changes nothing, but libvirt marks a guest whose
    monitor was used. Blocks without the GIL; raises LibvirtError."""

@type_check_only
class TurnBackRule(TypedDict):
    answer: Literal["go", "done", "no-half", "no-memory", "maybe-whole", "old-qemu", "newer-disks"]
    nothing_lost: bool  # of "go": the guest did nothing since the switch
    text: str  # most of a sentence
    word: str | None  # of a refusal: the option of `pcmig turn-back` with which somebody can take the risk
    by_itself: bool  # MODE lets it happen without anybody's asking

def turn_back_rule(
    *,
    half: Literal["other", "waits", "sends", "runs", "stopped"],
    disks: Literal["none", "own", "shared"],
    begun: bool = False,
    unrun: bool = False,
    everything_sent: bool = False,
    sets_active: bool = False,
    discards_memory: bool = False,
    nowhere_else: bool = False,
    accept_newer_disks: bool = False,
    mode: Literal["never", "unrun", "ask"] = "never",
) -> TurnBackRule:
    """Whether that half can go on, and what it undoes; pure. Besides, guard(side="source", act="turn-back")
    has to allow it, asked twice. `disks`: of those that the guest may write to, "own" when the migration
    copied all of them. `begun`: the journal's mark is of this very QEMU. `everything_sent`: `remaining_bytes`
    is 0. Raises ValueError for an unknown name."""

def turn_back(uri: str, uuid: str, connect_timeout_ms: int = ...) -> list[str]:
    """Lets the guest go on at the source, from the moment of the switch; returns what was done, in words.
    Nobody may call it who has not asked guard() and turn_back_rule(): pcmig/turn_back.py does. Of a guest
    that runs already it closes what a call that was killed left open. Over a descriptor that libvirt hands to
    QEMU (>= 8.2, a local connection); else it needs to reach the guest's own folder of libvirt (root, or the
    user that QEMU runs as). Blocks without the GIL, 20 s at the most beside what libvirt takes; raises
    LibvirtError, with which nobody knows whether it runs: look again."""

def memory_where(
    *,
    source: _HalfName = "unknown",
    destination: _HalfName = "unknown",
    in_flight: bool = False,
    call_succeeded: bool = False,
    source_handed_off: bool = False,
    job_active: bool | None = None,
) -> _Memory:
    """Who holds the newer memory of the guest; "both": each half has pages that the other lacks. Raises
    ValueError for an unknown name."""

@type_check_only
class Situation(TypedDict):
    name: str
    memory: _Memory
    text: str
    advice: str  # for who was refused, with GUEST, SOURCEURI and DESTURI
    source: list[_Act]  # what the guard permits there,
    destination: list[_Act]  # and there; besides, what is absent may be destroyed anywhere

def situations() -> list[Situation]:
    """Every situation that the guard knows."""

@type_check_only
class EngineState(TypedDict):
    name: str
    text: str  # most of a sentence
    asks: bool  # both hosts are asked for their halves, whether a call runs or not
    ways: list[tuple[str, str]]  # what leads out of it, and where to

def engine_states() -> list[EngineState]:
    """Every state of the engine, in the order in which a migration goes through them when all is well."""

def domain_autostart(uri: str, domain: str, /) -> bool:
    """Whether the guest starts with that host. Raises LibvirtError."""

def guest_word(name: str, uuid: str, /) -> str:
    """How to name the guest in a command: its UUID where the name may mean another guest, an option or
    nothing that can be typed."""

@type_check_only
class Job(TypedDict):
    """A guest's migration as one host sees it."""

    name: str  # as libvirt has it, whatever was asked for
    uuid: str
    # "precopy", "postcopy", "paused", "none" (also when the statistics failed), "unknown" (they waited for
    # QEMU in vain)
    state: str
    half: str  # "running", "absent", "migrating", ... see core/halves.h
    other_job: str | None  # what libvirt runs for the guest that is no migration: "backup", "save", ...
    sample: dict[str, Any] | None  # struct pcmig_sample; None where there are no statistics

def job_status(uri: str, domain: str, /) -> Job:
    """Looks once. Raises LibvirtError."""

def quickack(address: str, /) -> tuple[str, object]:
    """Has this host acknowledge at once what comes from ADDRESS (IPv4, IPv6): the route's option quickack.

    Returns ("set", handle), and the change lasts as long as the handle; or ("present" | "denied" |
    "unfit", None), see route.h. Raises ValueError for what is no address.
    """

@type_check_only
class Arrival(TypedDict):
    connections: int
    silent_ms: int | None  # for how long none of them has brought anything; None = there are none

@final
class PortsGate:
    """What to answer the gate before the switch as far as the guest's ports at the destination go; pure, see
    core/ports_gate.h. THEN: when they were waited for WAIT_MS from when the switch was first wanted."""

    def __init__(self, wait_ms: int, then: str) -> None:
        """THEN: "stay", "switch", "abort". Raises ValueError."""
    def feed(
        self,
        now_ms: int,
        *,
        ports: str,  # "untold", "unknown", "blocked", "ready"
        gate: str,  # status()["gate"]
        before_switch: bool,
    ) -> Literal["none", "open", "close", "again", "abort"]: ...
    def force(self) -> None:
        """The operator asked for the switch: it waits for no port."""
    def waited_ms(self, now_ms: int, /) -> int:
        """Since the switch was first wanted; 0 when it was not."""

@final
class Announce:
    """When a guest that has just begun to run on this host is announced at one of its ports; pure, see
    core/announce.h. FOR_MS: no longer than that, from when the port forwards."""

    def __init__(self, for_ms: int) -> None:
        """Raises ValueError."""
    def feed(self, now_ms: int, *, forwards: bool, heard: bool) -> bool:
        """The guest runs here; whether to announce it at this port now. HEARD: it has sent a frame there
        since the last call."""
    def wait_ms(self, now_ms: int, /) -> int | None:
        """Until the next feed() is due; None when it is over."""

@final
class GuestEvents:
    """Follows a guest on a host that it moves to, where it need not be known yet."""

    def __init__(self, uri: str, uuid: str) -> None:
        """Raises LibvirtError."""
    def fileno(self) -> int:
        """Readable when there is something to take(). Raises ValueError once it was closed, as take()."""
    def take(self) -> list[Literal["runs", "stopped", "closed"]]:
        """What has happened since the last call, in no order; "closed": the connection broke."""
    def close(self) -> None: ...

def arrival(uuid: str, /) -> Arrival:
    """The stream that comes in for the guest with this UUID, whose QEMU runs on this host. Raises
    ProcessLookupError when none does, PermissionError when its sockets may not be seen."""

def arrival_reset(uuid: str, /) -> int:
    """Has the kernel reset these connections, so that QEMU notices that nobody is there; returns how many.
    Raises as arrival() does, and PermissionError without CAP_NET_ADMIN."""

def share_event_loop() -> None:
    """This process runs libvirt's default event loop by itself: no thread is started for it. To be called
    before anything that connects; raises Error when pcmig's own thread was started before."""

def set_connect_timeout(timeout_ms: int, /) -> None:
    """So long a host has from now on to take a connection, wherever a call does not say otherwise: 10 s until
    this is called. Raises ValueError for 0 and less."""

def job_abort(uri: str, domain: str, /) -> None:
    """Cancels the guest's migration in pre-copy; libvirt refuses in post-copy, and a job that is no migration
    is left alone. Raises LibvirtError."""

def job_switch(uri: str, domain: str, /) -> None:
    """Switches the guest's migration to post-copy now. Raises LibvirtError."""

def job_pause(uri: str, domain: str, /) -> None:
    """Interrupts the guest's post-copy: both halves keep what they have, and wait to be resumed. Raises
    LibvirtError."""

@final
class Judge:
    """Policy, ledger and forecast of a migration that somebody else drives; pure. Nothing is acted on."""

    def __init__(
        self, policy: str = "auto", *, params: dict[str, int] | None = None, switches: bool = False
    ) -> None:
        """SWITCHES: somebody switches to post-copy when pre-copy does not end. Raises PolicyError."""
    def feed(self, line: str, /) -> Decision | None:
        """Takes a line of a trace, without its newline; what is no input counts for nothing. Returns what the
        policy decides, None for going on as it is. Raises TraceError."""
    def look(self) -> Judged: ...
    def ledger(self) -> Ledger: ...

@final
class JobWatch:
    """Follows the migration of a guest on a host, whoever drives it. It asks, and steers nothing."""

    def __init__(self, uri: str, domain: str, *, source: bool = True) -> None:
        """Connects with the first look(). Where URI is the destination (SOURCE is false), DOMAIN is a UUID,
        and the guest need not be known there yet."""
    def look(self) -> Job:
        """Asks once, as job_status() does, over a connection that stays open, or another one if that broke.
        Blocks without the GIL. Raises LibvirtError."""
    def take(self) -> list[str]:
        """What looks and events have told since the last call, as lines of a trace. Raises ValueError once it
        was closed, or while another thread looks, as the others do."""
    def fileno(self) -> int:
        """Readable when there is something to take()."""
    def now_us(self) -> int:
        """The time on which those lines go: since the migration began, as far as that is known."""
    def close(self) -> None: ...

@type_check_only
class Turn(TypedDict):
    """A migration that pcmig steers on this host, as it tells the others."""

    name: str
    phase: str  # for people: "draining"
    turn: str  # what the others leave to it, as Status has it
    waits_for: str | None  # name of the guest that goes first
    queue_bytes: int | None
    pace_mib: int | None  # post-copy bandwidth in force; 0 = unlimited
    gate: str  # as Status has it

def turns() -> list[Turn]:
    """All of them, of whatever process. Where they cannot be read there are none."""

@type_check_only
class Migrating(TypedDict):
    uuid: str
    name: str
    half: str
    job_active: bool | None  # asked only where `half` alone does not tell; None = not told within 3 s

def migrations(uri: str, /) -> list[Migrating]:
    """Every guest at URI that migrates from or to it, or was interrupted at it; also every one whose QEMU
    does not answer, so that libvirt cannot tell. Raises LibvirtError."""

def remove_empty_half(source_uri: str, dest_uri: str, uuid: str, /) -> None:
    """Removes what a cancelled migration was filling at the destination, if the guest never left the source:
    only after libvirt took the cancellation. Raises LibvirtError when it cannot, or may not."""

def resume_hold(destination_libvirt: int, source_libvirt: int, /) -> str | None:
    """Why a post-copy that is interrupted between these versions of libvirt cannot be resumed, as a sentence;
    None: it can. Versions are major * 1000000 + minor * 1000 + micro, 0 = not known."""

def domain_xml(uri: str, domain: str, /) -> str:
    """The guest's live XML. Raises LibvirtError."""

def domain_persistent(uri: str, domain: str, /) -> bool:
    """Whether the guest has a definition there. Raises LibvirtError."""

def replay(
    trace: str | bytes | os.PathLike[str] | Iterable[str | bytes],
    *,
    policy: str | None = None,
    params: dict[str, int] | None = None,
) -> Replay:
    """Feeds the inputs of a trace (a path, or an iterable of lines) to a fresh policy and compares decisions;
    with `policy` or `params` under other ones than those recorded. Raises TraceError, PolicyError, OSError.
    """

def ledger_from_trace(trace: str | bytes | os.PathLike[str] | Iterable[str | bytes], /) -> Ledger:
    """The accounting of a recorded migration, as Migration.ledger() gives it. Raises TraceError, OSError."""

@final
class Migration:
    """One migration. Starts nothing until start(); every method returns at once (no call to libvirt is made
    on the caller's thread). fileno() is readable whenever status() has news, until clear()."""

    def __new__(
        cls,
        domain: str,  # name, UUID or id, as virsh takes them
        dest_uri: str,
        *,
        source_uri: str = "qemu:///system",
        flags: int = 0,  # VIR_MIGRATE_* bits; LIVE | PEER2PEER | POSTCOPY are added as the policy needs them
        migrate_uri: str | None = None,
        policy: str = "auto",
        params: dict[str, int] | None = None,
        bandwidth_mib: int = 0,  # pre-copy, 0 = unlimited
        postcopy_bandwidth_mib: int = 0,  # upper bound of the pace, 0 = the link decides
        dest_name: str | None = None,
        disks: list[str] | None = None,  # with NON_SHARED_DISK or NON_SHARED_INC: targets to copy, None = all
        listen_address: str | None = None,
        disks_uri: str | None = None,
        connect_timeout_ms: int = ...,  # as set_connect_timeout() says
        trace_path: str | None = None,
        gate: bool = False,  # no switch before open_gate()
        dest_xml: str | None = None,  # the guest's live XML at the destination
        persist_xml: str | None = None,  # its definition there, with PERSIST_DEST
        parallel_connections: int = 0,  # with PARALLEL; 0 = libvirt's default
        tls_destination: str | None = None,  # with TLS: the name in the destination's certificate
        destination_optional: bool = False,  # go on when it cannot be reached from here, only from the source
        recover: bool = False,  # resume an interrupted post-copy, however long it takes, instead of ending
        # Migrate URIs of other networks, tried in turn after the first.
        resume_uris: list[str] | None = None,
        tunnel_control: str
        | None = None,  # of pcmig's tunnel, if migrate_uri is one of its: to see its queue
        autostart: bool = False,  # the definition that moves has it: it is to be on at the destination alone
        crossed: bool = False,  # with adopt: the switch was issued before, as somebody noted (status)
        count_faults: bool = False,  # QEMU at the destination counts how long page requests take (>= 10.1)
        adopt: bool = False,  # DOMAIN, a UUID, migrates already, or did: look after what is there
    ) -> Migration: ...
    def start(self) -> None:
        """Checks what can be checked, then migrates, on threads of the core. Raises Error if started."""
    def fileno(self) -> int: ...
    def left_fileno(self) -> int:
        """Another one, readable for good once the guest has left the source, or the migration is over."""
    def clear(self) -> None: ...
    def status(self) -> Status: ...
    def decisions(self, first: int = 0) -> list[Decision]:
        """The decisions so far that were not "keep", without the FIRST ones. Raises ValueError for a negative
        number."""
    def ledger(self) -> Ledger:
        """Page-transfer accounting so far, see ledger.h."""
    def switch(self) -> None:
        """Asks for post-copy now (the queue is drained first)."""
    def abort(self) -> None:
        """Cancels while the guest still runs at the source; refused in post-copy (see the decision)."""
    def open_gate(self) -> None:
        """Answers status()["gate"] == "wanted": the switch is issued as soon as the link is drained too.
        Called early or late, it counts for the next time. Raises Error without a gate, or when not running.
        """
    def refuse_gate(self) -> None:
        """Undrains and stays in pre-copy; the gate is asked for again when switch() is called, not before.
        Takes back an open gate as long as the switch was not issued. Raises Error as open_gate() does."""
    def pause(self) -> None:
        """Interrupts post-copy deliberately; with recover=True it then waits for resume()."""
    def resume(self) -> None:
        """An attempt to resume now. Only with recover=True."""
    def set_bandwidth(self, mib_per_s: int) -> None:
        """Bounds the bandwidth of the running phase; 0 = unlimited."""
    def downtime_limit(self, ms: int) -> None:
        """QEMU has this downtime limit from now on: somebody else sets it (parameter downtime_control=0), and
        the policy reckons with it. Raises ValueError, or Error when not running."""
    def detach(self) -> None:
        """Stops steering; libvirt goes on with the migration by itself (peer-to-peer), with a pace that needs
        no steering. outcome becomes "detached"."""
    def join(self, timeout_ms: int = -1) -> bool:
        """Waits for an outcome without holding the GIL; False on timeout. Raises Error before start()."""
