# SPDX-License-Identifier: Apache-2.0
"""One row for each name that pcmig._core exports, and for each method of its types: what to call in a loop.

A name without a row fails test_leaks.py, so a new export needs a line here: good use and bad use, both must
leave nothing behind. Calls take no arguments, may return anything; `fails(call)` is for one that must raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from pcmig import _core
from tests.unit import traces
from tests.unit.patience import PATIENCE_MS

Call = Callable[[], object]

_core.set_connect_timeout(PATIENCE_MS)  # on a machine that may be very busy


class Row(NamedTuple):
    calls: tuple[Call, ...]
    repeat: int = 200  # calls in one round; less for what is slow


def fails(call: Call, *errors: type[BaseException]) -> Call:
    """CALL has to raise one of ERRORS (default: pcmig's, TypeError, ValueError, OverflowError)."""
    expected = errors or (_core.Error, TypeError, ValueError, OverflowError)

    def checked() -> None:
        try:
            call()
        except expected:
            return
        raise AssertionError("the call was expected to fail and did not")

    return checked


def either(call: Call) -> Call:
    """CALL may fail with one of pcmig's errors."""

    def tried() -> None:
        with contextlib.suppress(_core.Error):
            call()

    return tried


def raised(error: type[Exception]) -> Row:
    """Row of an exception type: it is made, raised, chained and dropped."""

    def chain() -> None:
        with contextlib.suppress(error):
            try:
                raise error("first")
            except error as first:
                raise error("second") from first

    return Row((lambda: error("text"), chain))


ROWS: dict[str, Row] = {
    name: raised(error)
    for name, error in vars(_core).items()
    if isinstance(error, type) and issubclass(error, Exception)
}

_FLAGS = _core.parse_flags("VIR_MIGRATE_LIVE, tunnelled, POSTCOPY_AFTER_PRECOPY")
ROWS |= {
    "Flags": Row(
        (
            fails(_core.Flags),
            lambda: str(_FLAGS),
            lambda: repr(_FLAGS),
            lambda: hash(_FLAGS),
            lambda: (_core.flags_from_bits(1) == _FLAGS, _FLAGS != "other"),
        )
    ),
    "Flags.bits": Row((lambda: _FLAGS.bits,)),
    "Flags.policy": Row((lambda: _FLAGS.policy,)),
    "Flags.names": Row((lambda: _FLAGS.names,)),
    "Flags.items": Row((lambda: _FLAGS.items,)),
    "Flags.check": Row(
        (
            lambda: _FLAGS.check(qemu_version=10_000_000, libvirt_version=1, nova=True),
            fails(lambda: _FLAGS.check(qemu_version=-1)),
            fails(lambda: _FLAGS.check(qemu_version="10.1")),  # type: ignore[arg-type]
        )
    ),
    "Flags.resolved": Row(
        (
            lambda: _FLAGS.resolved(nova=True),
            fails(lambda: _FLAGS.resolved(libvirt_version=1 << 70)),
        )
    ),
    "parse_flags": Row(
        (
            lambda: _core.parse_flags("live,\npostcopy_after_precopy"),
            lambda: _core.parse_flags(""),
            fails(lambda: _core.parse_flags("live, \u00e9life")),
            fails(lambda: _core.parse_flags("\udc80" * 100)),
            fails(lambda: _core.parse_flags(None)),  # type: ignore[arg-type]
        )
    ),
    "flags_from_bits": Row(
        (
            lambda: _core.flags_from_bits(0xFFFFFFFF),
            fails(lambda: _core.flags_from_bits(1 << 40)),
            fails(lambda: _core.flags_from_bits(-1)),
        )
    ),
    "flags_table": Row((_core.flags_table,), repeat=50),
    "flags_old_names": Row((_core.flags_old_names,)),
    "flags_conflicts": Row((_core.flags_conflicts,), repeat=50),
}

ROWS["probe_host"] = Row(
    (
        _core.probe_host,
        lambda: _core.probe_host("nobody", group="nogroup"),
        lambda: _core.probe_host("+65534", root="/nonexistent"),
        fails(lambda: _core.probe_host("no such user")),
        fails(lambda: _core.probe_host("nobody", group="no such group")),
        fails(lambda: _core.probe_host(root="/" * 5000)),
        fails(lambda: _core.probe_host(1)),  # type: ignore[arg-type]
    ),
    repeat=50,
)
ROWS["quickack"] = Row(
    (
        lambda: _core.quickack("127.0.0.1"),  # a local route takes no options
        lambda: _core.quickack("::1"),
        fails(lambda: _core.quickack("localhost")),
        fails(lambda: _core.quickack("")),
    ),
)
ROWS["host_facts"] = Row(
    (
        lambda: _core.host_facts("test:///default"),
        lambda: _core.host_facts("test:///default", domain="test"),
        fails(lambda: _core.host_facts("test:///default", domain="nobody")),
        fails(lambda: _core.host_facts("test:///nonexistent.xml")),
        fails(lambda: _core.host_facts("no scheme")),
        fails(lambda: _core.host_facts("test:///default", timeout_ms=0)),
    ),
    repeat=50,
)

_TEST = "test:///default"  # libvirt's own test driver: a real connection, a guest named "test", no migration
_NOWHERE = "test:///nonexistent.xml"

for _name in ("domain_xml", "domain_autostart", "domain_persistent", "job_status"):
    _function: Callable[[str, str], object] = getattr(_core, _name)
    ROWS[_name] = Row(
        (
            partial(_function, _TEST, "test"),
            fails(partial(_function, _TEST, "nobody")),
            fails(partial(_function, _NOWHERE, "test")),
            fails(partial(_function, _TEST, "\udc80")),
            fails(partial(_function, 1, 2)),  # type: ignore[arg-type]
        ),
        repeat=40,
    )
ROWS["guest_word"] = Row(
    (
        lambda: _core.guest_word("web's", "17"),
        lambda: _core.guest_word("17", "x" * 5000),
        fails(lambda: _core.guest_word("17")),  # type: ignore[call-arg]
    )
)
for _name in ("job_abort", "job_pause", "job_switch"):  # the test driver has none of them
    _function = getattr(_core, _name)
    ROWS[_name] = Row(
        (
            fails(partial(_function, _TEST, "test")),
            fails(partial(_function, _TEST, "nobody")),
            fails(partial(_function, 1, 2)),  # type: ignore[arg-type]
        ),
        repeat=40,
    )

_UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"  # of the test driver's guest
ROWS["migrations"] = Row(
    (
        lambda: _core.migrations(_TEST),
        fails(lambda: _core.migrations(_NOWHERE)),
        fails(lambda: _core.migrations(1)),  # type: ignore[arg-type]
    ),
    repeat=40,
)
ROWS["remove_empty_half"] = Row(
    (
        fails(lambda: _core.remove_empty_half(_TEST, _TEST, _UUID)),  # no half of a migration
        fails(lambda: _core.remove_empty_half(_TEST, _NOWHERE, _UUID)),
        fails(lambda: _core.remove_empty_half(_TEST, _TEST, 1)),  # type: ignore[arg-type]
    ),
    repeat=40,
)
for _name in ("arrival", "arrival_reset"):  # no QEMU of this guest is here
    _function = getattr(_core, _name)
    ROWS[_name] = Row(
        (fails(partial(_function, _UUID), OSError), fails(partial(_function, 1))),  # type: ignore[arg-type]
        repeat=40,
    )
ROWS["resume_hold"] = Row(
    (
        lambda: _core.resume_hold(11003000, 0),
        lambda: _core.resume_hold(0, 12008000),
        fails(lambda: _core.resume_hold(-1, "x")),  # type: ignore[arg-type]
    )
)
ROWS["half"] = Row(
    (
        lambda: _core.half(_TEST, _UUID),
        lambda: _core.half(_TEST, _UUID.replace("6", "7"), connect_timeout_ms=PATIENCE_MS),
        fails(lambda: _core.half(_TEST, "no UUID")),
        fails(lambda: _core.half(_NOWHERE, _UUID)),
        fails(lambda: _core.half(_TEST, _UUID, connect_timeout_ms=0)),
        fails(lambda: _core.half(_TEST, 1)),  # type: ignore[arg-type]
    ),
    repeat=40,
)
_PAUSED: dict[str, Any] = {"source": "postcopy-failed", "destination": "postcopy-failed", "in_flight": True}
ROWS["guard"] = Row(
    (
        lambda: _core.guard(side="source", act="start"),
        lambda: _core.guard(
            side="source", act="destroy", guest="g", source_uri="a:", dest_uri="b:", **_PAUSED
        ),
        lambda: _core.guard(side="source", act="forget", insist=True, disks_copied=True, **_PAUSED),
        lambda: _core.guard(side="destination", act="destroy", insist=True, job_active=False, **_PAUSED),
        fails(lambda: _core.guard(side="left", act="start")),  # type: ignore[arg-type]
        fails(lambda: _core.guard(side="source", act="stare")),  # type: ignore[arg-type]
        fails(lambda: _core.guard(side="source", act="start", source="dying")),  # type: ignore[arg-type]
        fails(lambda: _core.guard(side="source")),  # type: ignore[call-arg]
        fails(lambda: _core.guard(side="source", act="start", guest="\udc80")),
    )
)
ROWS["turn_back_look"] = Row(
    (
        fails(lambda: _core.turn_back_look(_TEST, _UUID)),  # the test driver has no monitor
        fails(lambda: _core.turn_back_look(_NOWHERE, _UUID)),
        fails(lambda: _core.turn_back_look(_TEST, _UUID, connect_timeout_ms=0)),
    ),
    repeat=40,
)
ROWS["turn_back"] = Row(
    (
        fails(lambda: _core.turn_back(_TEST, _UUID)),
        fails(lambda: _core.turn_back(_TEST, "no UUID")),
        fails(lambda: _core.turn_back(_NOWHERE, _UUID, connect_timeout_ms=PATIENCE_MS)),
    ),
    repeat=40,
)
ROWS["turn_back_rule"] = Row(
    (
        lambda: _core.turn_back_rule(half="waits", disks="own", unrun=True, sets_active=True, mode="unrun"),
        lambda: _core.turn_back_rule(half="waits", disks="shared", sets_active=True),
        fails(lambda: _core.turn_back_rule(half="waits", disks="none", mode="ever")),  # type: ignore[arg-type]
        fails(lambda: _core.turn_back_rule(half="whole", disks="none")),  # type: ignore[arg-type]
        fails(lambda: _core.turn_back_rule(half="waits")),  # type: ignore[call-arg]
    )
)
ROWS["memory_where"] = Row(
    (
        lambda: _core.memory_where(**_PAUSED),
        fails(lambda: _core.memory_where(destination="dying")),  # type: ignore[arg-type]
    )
)
ROWS["situations"] = Row((_core.situations,), repeat=50)
ROWS["engine_states"] = Row((_core.engine_states,), repeat=50)

ROWS["share_event_loop"] = Row((fails(_core.share_event_loop),), repeat=50)  # pcmig's own runs by now

ROWS["set_connect_timeout"] = Row(
    (
        lambda: _core.set_connect_timeout(PATIENCE_MS),
        fails(lambda: _core.set_connect_timeout(0)),
        fails(lambda: _core.set_connect_timeout("10")),  # type: ignore[arg-type]
    ),
    repeat=50,
)

_PORTS = _core.PortsGate(5000, "stay")
ROWS["PortsGate"] = Row(
    (
        lambda: _core.PortsGate(5000, "abort"),
        fails(lambda: _core.PortsGate(-1, "stay")),
        fails(lambda: _core.PortsGate(5000, "leave")),
    )
)
ROWS["PortsGate.feed"] = Row(
    (
        lambda: _PORTS.feed(1, ports="ready", gate="wanted", before_switch=True),
        fails(lambda: _PORTS.feed(1, ports="fine", gate="wanted", before_switch=True)),
        fails(lambda: _PORTS.feed(1, ports="ready", gate="ajar", before_switch=True)),
    )
)
ROWS["PortsGate.force"] = Row((_PORTS.force,))
ROWS["PortsGate.waited_ms"] = Row((lambda: _PORTS.waited_ms(7), fails(lambda: _PORTS.waited_ms("7"))))  # type: ignore[arg-type]
_ANNOUNCE = _core.Announce(30_000)
ROWS["Announce"] = Row((lambda: _core.Announce(30_000), fails(lambda: _core.Announce(-1))))
ROWS["Announce.feed"] = Row(
    (
        lambda: _ANNOUNCE.feed(1, forwards=True, heard=False),
        fails(lambda: _ANNOUNCE.feed("1", forwards=True, heard=False)),  # type: ignore[arg-type]
    )
)
ROWS["Announce.wait_ms"] = Row((lambda: _ANNOUNCE.wait_ms(7), fails(lambda: _ANNOUNCE.wait_ms("7"))))  # type: ignore[arg-type]


def _events() -> None:
    events = _core.GuestEvents(_TEST, _UUID)
    events.fileno()
    events.take()
    events.close()


def _judge() -> None:
    judge = _core.Judge(policy="passes=2", params={"downtime_limit_ms": 50}, switches=True)
    for line in traces.inputs()[:40]:
        judge.feed(line)
    judge.look()
    judge.ledger()


ROWS["Judge"] = Row(
    (
        _judge,
        fails(lambda: _core.Judge(policy="no such")),
        fails(lambda: _core.Judge(params={"no such": 1})),
        fails(lambda: _core.Judge(params=[])),  # type: ignore[arg-type]
    ),
    repeat=20,
)
ROWS["Judge.feed"] = Row((_judge, fails(lambda: _core.Judge().feed("1 sample colour=1"))), repeat=20)
for _name in ("Judge.look", "Judge.ledger"):
    ROWS[_name] = Row((_judge,), repeat=20)


def _job_watch() -> None:
    watch = _core.JobWatch(_TEST, "test")
    watch.fileno()
    watch.now_us()
    watch.look()
    watch.take()
    watch.look()
    watch.close()
    fails(watch.look)()


ROWS["JobWatch"] = Row(
    (
        _job_watch,
        lambda: _core.JobWatch(_TEST, "test"),
        lambda: _core.JobWatch(_TEST, "test").look(),
        fails(lambda: _core.JobWatch(_NOWHERE, "test").look()),
        fails(lambda: _core.JobWatch(_TEST, "nobody").look()),
        fails(lambda: _core.JobWatch(1, 2)),  # type: ignore[arg-type]
    ),
    repeat=20,
)
for _name in ("JobWatch.look", "JobWatch.take", "JobWatch.fileno", "JobWatch.now_us", "JobWatch.close"):
    ROWS[_name] = Row((_job_watch,), repeat=20)
ROWS["turns"] = Row((_core.turns,), repeat=50)


ROWS["GuestEvents"] = Row(
    (
        _events,
        lambda: _core.GuestEvents(_TEST, _UUID),
        fails(lambda: _core.GuestEvents("nowhere:///", _UUID)),
    ),
    repeat=20,
)
for _name in ("GuestEvents.fileno", "GuestEvents.take", "GuestEvents.close"):
    ROWS[_name] = Row((_events,), repeat=20)
ROWS["params"] = Row((_core.params,), repeat=50)
ROWS["gone_param"] = Row(
    (
        *(partial(_core.gone_param, name) for name in ("drain_max_ms", "passes")),
        fails(partial(_core.gone_param, 1)),  # type: ignore[arg-type]
    )
)
ROWS["parse_policy"] = Row(
    (
        *(partial(_core.parse_policy, text) for text in ("auto", "passes=3", "deadline=2.5")),
        *(
            fails(partial(_core.parse_policy, text))
            for text in ("", "passes=", "passes=x", "no such", "\udc80")
        ),
    )
)


def _migration(**options: Any) -> _core.Migration:
    """To a port that nobody listens on: it fails at once, on the control thread."""
    return _core.Migration("test", "qemu+tcp://127.0.0.1:1/system", source_uri=_TEST, **options)


def _finished() -> _core.Migration:
    """A migration whose threads have come to an end."""
    migration = _migration(
        policy="deadline=2", params={"downtime_limit_ms": 20}, disks=["vda"], dest_name="b"
    )
    migration.start()
    if not migration.join(PATIENCE_MS):
        raise AssertionError("a migration to a closed port did not fail in time")
    return migration


_NEW = _migration()
_DONE = _finished()
ROWS["Migration"] = Row(
    (
        _migration,
        fails(partial(_migration, policy="no such")),
        fails(partial(_migration, params={"no_such": 1})),
        fails(partial(_migration, params={"downtime_limit_ms": -1})),
        fails(partial(_migration, params=3)),
        fails(partial(_migration, disks=[1])),
        fails(partial(_migration, flags="LIVE")),
        fails(lambda: _core.Migration("test")),  # type: ignore[call-arg]
    )
)
ROWS["Migration.start"] = Row((_finished, fails(_DONE.start)), repeat=20)
for _name in ("fileno", "left_fileno", "clear", "status", "decisions", "ledger"):
    ROWS[f"Migration.{_name}"] = Row((getattr(_NEW, _name), getattr(_DONE, _name)))
ROWS["Migration.join"] = Row((partial(_DONE.join, 0), fails(partial(_DONE.join, "soon"))))  # type: ignore[arg-type]
for _name in ("switch", "abort", "detach", "open_gate", "refuse_gate", "pause", "resume"):
    ROWS[f"Migration.{_name}"] = Row((either(getattr(_NEW, _name)), either(getattr(_DONE, _name))))
ROWS["Migration.set_bandwidth"] = Row(
    (either(partial(_DONE.set_bandwidth, 5)), fails(partial(_DONE.set_bandwidth, "x")))  # type: ignore[arg-type]
)
ROWS["Migration.downtime_limit"] = Row(
    (either(partial(_DONE.downtime_limit, 5)), fails(partial(_DONE.downtime_limit, "x")))  # type: ignore[arg-type]
)

# Its decision is not the policy's, so that the answer has one side and the other is None.
_TRACE = [
    *traces.inputs()[:40],
    "9000000 decision drain requested a=1 b=2 c=3 pace_mib=4 next_us=5",
    *traces.inputs()[-4:],
]

ROWS |= {
    "replay": Row(
        (
            lambda: _core.replay(_TRACE),
            lambda: _core.replay(_TRACE, policy="passes=2", params={"request_wait_ms": 5}),
            fails(lambda: _core.replay([*_TRACE, "5 sample speed=1"])),
            fails(lambda: _core.replay("/none"), OSError),
            fails(lambda: _core.replay(_TRACE, policy="fast")),
            fails(lambda: _core.replay(_TRACE, params={"speed": 1})),
            fails(lambda: _core.replay([5])),  # type: ignore[list-item]
        ),
    ),
    "ledger_from_trace": Row(
        (
            lambda: _core.ledger_from_trace(_TRACE),
            fails(lambda: _core.ledger_from_trace([*_TRACE, "5 sample speed=1"])),
            fails(lambda: _core.ledger_from_trace([])),
            fails(lambda: _core.ledger_from_trace("/none"), OSError),
        ),
    ),
}
