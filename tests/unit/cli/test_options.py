# SPDX-License-Identifier: Apache-2.0
"""What is typed, as the engine gets it."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig.cli import base, options
from pcmig.cli.base import UsageError
from pcmig.journal import engine_arguments
from tests.unit.cli.fake_core import params


def plan(*words: str) -> options.Plan:
    parser = argparse.ArgumentParser()
    options.add_options(parser)
    return options.make_plan(parser.parse_args(["g1", "qemu+tcp://b/system", *words]), params())  # type: ignore[arg-type]


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    made = plan()
    assert (made.source_uri, made.policy, made.params) == ("qemu:///system", "auto", {})
    assert made.move_definition and made.flags_line() == "LIVE, PEER2PEER, POSTCOPY"
    assert made.engine["disks"] is None and made.engine["bandwidth_mib"] == 0
    assert "connect_timeout_ms" not in made.engine


def test_source_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu+ssh://c/system")
    assert plan().source_uri == "qemu+ssh://c/system"
    assert plan("-c", "x:///").source_uri == "x:///"


def test_seconds_become_milliseconds() -> None:
    made = plan("--deadline", "2.5", "--abort-after", "0.25", "--connect-timeout", "3")
    assert made.policy == "deadline=2.5"
    assert made.params == {"abort_after_ms": 250}
    assert made.engine["connect_timeout_ms"] == 3000
    # No digit is lost, and no exponent appears, which the core would not read.
    assert plan("--deadline", "1234567").policy == "deadline=1234567"
    assert plan("--deadline", "12345.678").policy == "deadline=12345.678"
    assert plan("--deadline", "300").policy == "deadline=300"


def test_who_says_how_long_requested_pages_took() -> None:
    """In no journal unless it was asked for: an older pcmig does not take it."""
    assert "count_faults" not in plan().engine
    assert "count_faults" not in plan("--fault-latency", "estimate").engine
    assert plan("--fault-latency", "monitor").engine["count_faults"] is True
    assert engine_arguments(plan("--fault-latency", "monitor").engine)["count_faults"] is True


def test_flags_of_options_and_of_nova() -> None:
    made = plan("--copy-storage-inc", "--unsafe", "--tls", "--flags", "VIR_MIGRATE_COMPRESSED, AUTO_CONVERGE")
    assert (
        made.flags_line()
        == "LIVE, PEER2PEER, POSTCOPY, NON_SHARED_INC, UNSAFE, TLS, VIR_MIGRATE_COMPRESSED, AUTO_CONVERGE"
    )


def test_disks() -> None:
    made = plan("--copy-storage-all", "--migrate-disks", "vda, vdb", "--disks-uri", "tcp://b")
    assert made.engine["disks"] == ["vda", "vdb"] and made.engine["disks_uri"] == "tcp://b"


def test_what_virsh_needs_is_taken() -> None:
    assert plan("--live", "--p2p", "--postcopy", "--policy", "never").flags_line() == "LIVE, PEER2PEER"


def test_definition() -> None:
    assert not plan("--keep-definition").move_definition
    made = plan("--persistent", "--undefinesource")
    assert not made.move_definition and made.flag_names == ["PERSIST_DEST", "UNDEFINE_SOURCE"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--keep-definition", "--persistent"), "contradicts"),
        (("--undefinesource",), "without a definition anywhere"),
        (("--set", "request_wait_ms"), "NAME=VALUE"),
        (("--set", "request_wait_ms=fast"), "not a whole number"),
        (("--set", "nothing_like_it=1"), "--help-params"),
        (("--set", "drain_max_ms=5"), "parameter 'drain_max_ms' is gone: it follows from"),
        (("--max-downtime", "0"), "--max-downtime: 0 ms is out of bounds (1 to 2000000)"),
        (("--abort-after", "100000000"), "--abort-after: 100000000000 ms is out of bounds"),
    ],
)
def test_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(*words)
    assert message in str(caught.value)


@given(st.text(max_size=20))
def test_numbers_parse_or_are_refused(text: str) -> None:
    for kind in (base.natural, options.positive_seconds):
        try:
            assert kind(text) >= 0
        except argparse.ArgumentTypeError as err:
            assert repr(text) in str(err)


@given(st.lists(st.text(max_size=30), max_size=3))
def test_settings_parse_or_are_refused(settings: list[str]) -> None:
    try:
        made = options.parse_settings(settings, params())  # type: ignore[arg-type]
    except UsageError as err:
        assert str(err).startswith("--set")
    else:
        assert set(made) <= {row["name"] for row in params()}
