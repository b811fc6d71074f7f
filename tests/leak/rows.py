"""One row for each name that pcmig._core exports, and for each method of its types: what to call in a loop.

A name without a row fails test_leaks.py, so a new export needs a line here: good use and bad use, both must
leave nothing behind. Calls take no arguments, may return anything; `fails(call)` is for one that must raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from pcmig import _core

Call = Callable[[], object]


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
