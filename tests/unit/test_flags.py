# SPDX-License-Identifier: Apache-2.0
"""Migration flags as Python sees them; the C tests go through the tables."""

import copy
import pathlib
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig import _core

TABLE = _core.flags_table()
NAMES = [row["name"] for row in TABLE]
OLD_NAMES = [row["name"] for row in _core.flags_old_names()]
BITS = {row["name"]: row["bit"] for row in TABLE}
LIVE, PEER2PEER, POSTCOPY, TLS = (BITS[f"VIR_MIGRATE_{n}"] for n in ("LIVE", "PEER2PEER", "POSTCOPY", "TLS"))
NOVA_13_DEFAULT = (
    "VIR_MIGRATE_UNDEFINE_SOURCE, VIR_MIGRATE_PEER2PEER, VIR_MIGRATE_LIVE, VIR_MIGRATE_TUNNELLED"
)
SEPARATORS = st.text(" \t\n\r\v\f,", min_size=1, max_size=5)


def raised(text: str) -> _core.FlagsError:
    with pytest.raises(_core.FlagsError) as caught:
        _core.parse_flags(text)
    return caught.value


def test_table_is_that_of_libvirts_header() -> None:
    """No flag of the libvirt that pcmig is built against is missing. Newer ones may be in the table."""
    include = subprocess.run(
        ["pkg-config", "--variable=includedir", "libvirt"], capture_output=True, text=True, check=True
    ).stdout.strip()
    header = pathlib.Path(include, "libvirt", "libvirt-domain.h").read_text(encoding="utf-8")
    constants = re.findall(r"^ +(VIR_MIGRATE_\w+) = \(1 << (\d+)\)", header, re.MULTILINE)
    assert len(constants) >= 19
    assert {name: 1 << int(shift) for name, shift in constants}.items() <= BITS.items()


def test_old_values_of_nova_conf() -> None:
    flags = _core.parse_flags(NOVA_13_DEFAULT + ",VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY")
    assert flags.bits == 0x8017
    assert flags.policy == "first-pass"
    assert not flags.bits & TLS
    assert flags.items[-1] == (
        "VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY",
        "VIR_MIGRATE_POSTCOPY",
        POSTCOPY,
        "first-pass",
        len(NOVA_13_DEFAULT) + 1,
    )
    assert _core.parse_flags("VIR_MIGRATE_ENABLE_POSTCOPY") == _core.flags_from_bits(POSTCOPY)


def test_text_and_names() -> None:
    flags = _core.parse_flags("postcopy,\n\tlive,")
    assert str(flags) == "VIR_MIGRATE_LIVE, VIR_MIGRATE_POSTCOPY"
    assert flags.names == ("VIR_MIGRATE_LIVE", "VIR_MIGRATE_POSTCOPY")
    assert repr(flags) == "<Flags 'VIR_MIGRATE_LIVE, VIR_MIGRATE_POSTCOPY'>"
    with_policy = _core.parse_flags("postcopy_after_precopy")
    assert repr(with_policy) == "<Flags 'VIR_MIGRATE_POSTCOPY' policy='first-pass'>"
    assert _core.flags_from_bits(LIVE | 1 << 31 | 1 << 30).names == ("VIR_MIGRATE_LIVE", "0xc0000000")
    assert _core.parse_flags("").names == ()


def test_equality_and_hash() -> None:
    one, same = _core.parse_flags("live, postcopy"), _core.parse_flags("POSTCOPY VIR_MIGRATE_LIVE")
    policy = _core.parse_flags("live, postcopy_after_precopy")
    assert one == same
    assert hash(one) == hash(same)
    assert one != policy
    assert policy.bits == one.bits
    assert policy == _core.parse_flags("postcopy_after_precopy live")
    assert one != one.bits
    assert len({one, same, policy}) == 2
    with pytest.raises(TypeError):
        one < same  # type: ignore[operator]  # noqa: B015


def test_immutable() -> None:
    flags = _core.parse_flags("live")
    with pytest.raises(AttributeError):
        flags.bits = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        flags.other = 2  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        _core.Flags()
    with pytest.raises(TypeError):
        _core.Flags.bits = 1  # type: ignore[method-assign,assignment]
    with pytest.raises(TypeError):
        type("Sub", (_core.Flags,), {})
    with pytest.raises(TypeError):
        copy.copy(flags)


def test_unknown_name() -> None:
    err = raised("LIVE, VIR_MIGRATE_TUNNELED, POSTCOPY")
    assert (err.position, err.item, err.token) == (6, 2, "VIR_MIGRATE_TUNNELED")
    assert err.suggestion == "VIR_MIGRATE_TUNNELLED"
    assert "did you mean VIR_MIGRATE_TUNNELLED?" in str(err)
    assert "at character 7" in str(err)
    assert raised("nonsense").suggestion is None


@pytest.mark.parametrize(
    ("text", "token", "position"),
    [
        ("live,\xe9\U0001f600x y", "\xe9\U0001f600x", 5),
        ("live,\udc80x", "\udc80x", 5),
        ("live,a\0b", "a\0b", 5),
        ("live \N{NO-BREAK SPACE}postcopy", "\N{NO-BREAK SPACE}postcopy", 5),
        ("\N{LATIN SMALL LETTER SHARP S}" * 70, "\N{LATIN SMALL LETTER SHARP S}" * 70, 0),
    ],
)
def test_odd_characters(text: str, token: str, position: int) -> None:
    err = raised(text)
    assert (err.token, err.position) == (token, position)
    assert f"at character {position + 1}" in str(err)
    assert str(err).isascii()
    assert str(err).isprintable()


def test_wrong_types() -> None:
    for wrong in (None, b"live", 1):
        with pytest.raises(TypeError, match="flags are text"):
            _core.parse_flags(wrong)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        _core.flags_from_bits(-1)
    with pytest.raises((ValueError, OverflowError)):
        _core.flags_from_bits(1 << 32)
    with pytest.raises((ValueError, OverflowError)):
        _core.flags_from_bits(1 << 70)
    flags = _core.parse_flags("live")
    with pytest.raises(OverflowError):
        flags.check(qemu_version=-1)
    with pytest.raises((ValueError, OverflowError)):
        flags.check(libvirt_version=1 << 40)
    with pytest.raises(TypeError):
        flags.check(qemu_version="10.1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        flags.resolved(colour="red")  # type: ignore[call-arg]


def test_check() -> None:
    findings = _core.parse_flags("live,peer2peer,tunnelled,postcopy").check()
    assert [(severity, names) for severity, _, names in findings] == [
        ("error", ("VIR_MIGRATE_TUNNELLED", "VIR_MIGRATE_POSTCOPY"))
    ]
    assert "pcmig tunnel" in findings[0][1]
    parallel = _core.parse_flags("live,postcopy,parallel")
    assert [f[0] for f in parallel.check(qemu_version=10_000_002)] == ["error"]
    assert [f[0] for f in parallel.check()] == ["warning"]
    assert parallel.check(qemu_version=10_001_000) == []
    new = _core.parse_flags("live,postcopy,postcopy_resume")
    assert [f[2] for f in new.check(libvirt_version=8_000_000)] == [("VIR_MIGRATE_POSTCOPY_RESUME",)]
    assert new.check(libvirt_version=8_005_000) == []
    assert "0x80000000" in _core.flags_from_bits(LIVE | 1 << 31).check()[0][1]


def test_nova_gets_what_it_needs() -> None:
    old = _core.parse_flags(NOVA_13_DEFAULT + ",VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY")
    resolved = old.resolved(nova=True)
    assert resolved.names == (
        "VIR_MIGRATE_LIVE",
        "VIR_MIGRATE_PEER2PEER",
        "VIR_MIGRATE_UNDEFINE_SOURCE",
        "VIR_MIGRATE_POSTCOPY",
    )
    assert resolved.policy == "first-pass"
    assert resolved.items == ()
    assert resolved.check(nova=True) == []


def test_conflicts_are_listed() -> None:
    rows = {row["name"]: row for row in _core.flags_conflicts()}
    assert rows["postcopy-tunnelled"]["all"] == ("VIR_MIGRATE_TUNNELLED", "VIR_MIGRATE_POSTCOPY")
    assert rows["nova-storage"]["user"] == "nova"
    assert {row["severity"] for row in rows.values()} == {"error", "warning"}
    for row in rows.values():  # messages name flags as they are
        assert set(re.findall(r"VIR_MIGRATE_\w+", row["problem"] + row["remedy"])) <= set(NAMES)


@given(st.lists(st.sampled_from(NAMES + OLD_NAMES)), st.data())
def test_any_spelling_of_known_names(names: list[str], data: st.DataObject) -> None:
    text = data.draw(st.text(" \n,", max_size=3))
    for name in names:
        given_name = name.removeprefix("VIR_MIGRATE_") if data.draw(st.booleans()) else name
        swapped = "".join(c.lower() if data.draw(st.booleans()) else c for c in given_name)
        text += swapped + data.draw(SEPARATORS)
    flags = _core.parse_flags(text)
    assert len(flags.items) == len(names)
    for given_item, name, bit, _, position in flags.items:
        assert text[position : position + len(given_item)] == given_item
        assert BITS[name] == bit
        assert bit & flags.bits
    assert (flags.policy == "first-pass") == ("VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY" in names)
    assert bool(flags.bits & TLS) == ("VIR_MIGRATE_TLS" in names)


@given(st.integers(0, (1 << len(TABLE)) - 1))
def test_round_trip(bits: int) -> None:
    flags = _core.flags_from_bits(bits)
    assert _core.parse_flags(str(flags)) == flags
    assert _core.parse_flags(",".join(flags.names)).bits == bits
    for nova in (False, True):
        left = flags.resolved(nova=nova).check(nova=nova)
        assert [finding for finding in left if finding[0] == "error"] == []


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        flags = _core.parse_flags(text)
    except _core.FlagsError as err:
        assert text[err.position :].startswith(err.token)
        assert err.item >= 1
        assert err.suggestion is None or err.suggestion in NAMES + OLD_NAMES
    else:
        assert flags.bits in range(1 << len(TABLE))
