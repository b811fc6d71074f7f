# SPDX-License-Identifier: Apache-2.0
"""The binding of Migration. Nothing is migrated: libvirt's test driver is the source, destinations refuse."""

from __future__ import annotations

import asyncio
import errno
import gc
import pathlib
import select
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pcmig import _core
from tests.unit.patience import NEVER_MS, PATIENCE_MS, PATIENCE_S, wait_for

TEST = "test:///default"  # has a running guest "test"
JOIN_MS = PATIENCE_MS


@pytest.fixture
def refused() -> Iterator[str]:
    """A URI whose port is bound, so that nobody else listens there, and refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"qemu+tcp://127.0.0.1:{bound.getsockname()[1]}/system"


class Silent:
    """A host that accepts connections and never answers, until close() ends them."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.uri = f"qemu+tcp://127.0.0.1:{self._server.getsockname()[1]}/system"

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    host = Silent()
    yield host
    host.close()


@pytest.fixture
def empty_host(tmp_path: pathlib.Path) -> str:
    """A host without guests, which cannot take any."""
    node = tmp_path / "node.xml"
    node.write_text("<node></node>")
    return f"test://{node}"


def finish(domain: str, destination: str, **options: Any) -> _core.Status:
    migration = _core.Migration(domain, destination, **options)
    migration.start()
    assert migration.join(JOIN_MS)
    return migration.status()


def readable(migration: _core.Migration) -> bool:
    return bool(select.select([migration.fileno()], [], [], 0)[0])


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"flags": -1}, ValueError, "flags: -1"),
        ({"flags": 1 << 32}, ValueError, "4294967296"),
        ({"flags": 1 << 80}, OverflowError, ""),
        ({"flags": "live"}, TypeError, ""),
        ({"flags": 16}, None, ""),
        ({"flags": 4}, _core.FlagsError, "VIR_MIGRATE_TUNNELLED"),
        ({"flags": 4, "policy": "never"}, None, ""),
        ({"bandwidth_mib": -1}, ValueError, "bandwidth_mib: -1 is negative"),
        ({"bandwidth_mib": 1 << 31}, OverflowError, ""),
        ({"bandwidth_mib": 1.5}, TypeError, "float"),
        ({"postcopy_bandwidth_mib": -5}, ValueError, "postcopy_bandwidth_mib: -5"),
        ({"connect_timeout_ms": -1}, ValueError, "connect_timeout_ms: -1"),
        ({"policy": "sometimes"}, _core.PolicyError, '"sometimes": it is one of auto, first-pass'),
        ({"policy": "passes"}, _core.PolicyError, "passes=N"),
        ({"policy": "deadline=0"}, _core.PolicyError, '"0" is not a number of seconds from 0.001'),
        ({"policy": None}, TypeError, ""),
        ({"policy": "auto\0"}, ValueError, "null"),
        ({"params": {"downtime": 1}}, _core.PolicyError, "unknown parameter 'downtime'"),
        ({"params": {"passes": 0}}, _core.PolicyError, "passes: 0 is not from 1 to 1000000 passes"),
        (
            {"params": {"request_wait_ms": 91}},
            _core.PolicyError,
            "request_wait_ms: 91 is not from 1 to 90 ms",
        ),
        (
            {"params": {"drain_max_ms": 5}},
            _core.PolicyError,
            "'drain_max_ms' is gone: it follows from the link",
        ),
        ({"params": {"passes": 1 << 80}}, _core.PolicyError, "is not from 1"),
        ({"params": {"passes": "3"}}, TypeError, ""),
        ({"params": {1: 3}}, TypeError, "strings, not 1"),
        ({"params": [("passes", 3)]}, TypeError, "dict"),
        ({"disks": "vda"}, TypeError, "'vda'"),
        ({"disks": [1]}, TypeError, ""),
        ({"disks": 1}, TypeError, "sequence"),
        ({"disks": ["vda", "vdb"]}, None, ""),
        ({"source_uri": None}, TypeError, "str, not None"),
        ({"trace_path": b"x"}, TypeError, ""),
        ({"gate": True}, None, ""),
        ({"dest_xml": "<domain/>", "persist_xml": "<domain/>", "tls_destination": "b"}, None, ""),
        ({"dest_xml": b"<domain/>"}, TypeError, ""),
        ({"parallel_connections": 4, "flags": 1 << 17}, None, ""),
        ({"parallel_connections": 4}, ValueError, "parallel_connections: 4 needs VIR_MIGRATE_PARALLEL"),
        ({"parallel_connections": -1}, ValueError, "parallel_connections: -1 is negative"),
        ({"params": {"gate_wait_ms": 99}}, _core.PolicyError, "gate_wait_ms: 99 is not from 100"),
        ({"params": {"downtime_control": 0}}, None, ""),
        ({"speed": 1}, TypeError, "speed"),
    ],
)
def test_arguments(options: dict[str, Any], error: type[Exception] | None, text: str) -> None:
    if error is None:
        assert _core.Migration("test", TEST, **options).status()["outcome"] is None
        return
    with pytest.raises(error) as caught:
        _core.Migration("test", TEST, **options)
    assert text in str(caught.value)


def test_positional_arguments_are_two() -> None:
    make: Callable[..., object] = _core.Migration
    for arguments in ((), ("test",), ("test", TEST, TEST), (None, TEST), ("test", 1)):
        with pytest.raises(TypeError):
            make(*arguments)


def test_a_long_name_is_cut_between_characters() -> None:
    for shift in range(3):
        with pytest.raises(_core.PolicyError, match="unknown policy"):
            _core.parse_policy("a" * shift + "\u20ac" * 100)
        with pytest.raises(_core.NoDomainError):
            _core.domain_xml(TEST, "a" * shift + "\u20ac" * 400)


def test_before_the_start() -> None:
    migration = _core.Migration("test", TEST)
    status = migration.status()
    assert status["phase"] == "setup"
    assert status["elapsed_ms"] == 0
    assert [status[name] for name in ("outcome", "error", "link_bps", "queue_bytes", "pace_mib")] == [
        None
    ] * 5
    assert migration.decisions() == migration.decisions(first=7) == []
    with pytest.raises(ValueError, match="first: -1"):
        migration.decisions(first=-1)
    assert migration.ledger()["totals"]["total_us"] == 0
    for timeout_ms in (0, -1):
        with pytest.raises(_core.Error, match="not started"):
            migration.join(timeout_ms)
    assert not readable(migration)
    migration.clear()
    for call in (
        migration.switch,
        migration.abort,
        migration.detach,
        lambda: migration.set_bandwidth(1),
        lambda: migration.downtime_limit(1),
    ):
        with pytest.raises(_core.Error, match="not running"):
            call()


def test_start_once(refused: str) -> None:
    migration = _core.Migration("test", refused, source_uri=TEST)
    migration.start()
    with pytest.raises(_core.Error, match="started before"):
        migration.start()
    assert migration.join(JOIN_MS)
    with pytest.raises(_core.Error, match="started before"):
        migration.start()
    for call in (
        migration.switch,
        migration.abort,
        migration.detach,
        lambda: migration.set_bandwidth(1),
        lambda: migration.downtime_limit(1),
    ):
        with pytest.raises(_core.Error, match="not running"):
            call()


def test_gate(silent: Silent, refused: str) -> None:
    """Answered while it runs, not before or after, and only where there is one."""
    without = _core.Migration("test", silent.uri, source_uri=TEST, connect_timeout_ms=JOIN_MS)
    migration = _core.Migration("test", silent.uri, source_uri=TEST, connect_timeout_ms=JOIN_MS, gate=True)
    assert (without.status()["gate"], migration.status()["gate"]) == ("none", "closed")
    with pytest.raises(_core.Error, match="not running"):
        migration.open_gate()
    for each in (without, migration):
        each.start()
    for call in (without.open_gate, without.refuse_gate):
        with pytest.raises(_core.Error, match="gate=True"):
            call()
    migration.refuse_gate()
    migration.open_gate()
    silent.close()
    for each in (without, migration):
        assert each.join(JOIN_MS)
    for call in (migration.open_gate, migration.refuse_gate):
        with pytest.raises(_core.Error, match="not running"):
            call()
    assert finish("test", refused, source_uri=TEST, gate=True)["gate"] == "closed"


def test_set_bandwidth_checks_its_number() -> None:
    migration = _core.Migration("test", TEST)
    for number in (-1, 1 << 31):
        with pytest.raises(ValueError, match=str(number)):
            migration.set_bandwidth(number)
    with pytest.raises(OverflowError):
        migration.set_bandwidth(1 << 70)
    with pytest.raises(TypeError):
        migration.set_bandwidth("1")  # type: ignore[arg-type]


def test_downtime_limit_checks_its_number() -> None:
    migration = _core.Migration("test", TEST)
    for number in (-1, 0, 1 << 31):
        with pytest.raises(ValueError, match=str(number)):
            migration.downtime_limit(number)
    with pytest.raises(TypeError):
        migration.downtime_limit("1")  # type: ignore[arg-type]


def test_refused_destination(refused: str) -> None:
    status = finish("test", refused, source_uri=TEST)
    assert (status["outcome"], status["phase"]) == ("failed", "finished")
    assert status["error"] is not None and refused in status["error"]
    assert status["operator_command"] is None


def test_refused_source(refused: str) -> None:
    status = finish("test", TEST, source_uri=refused)
    assert status["outcome"] == "failed"
    assert status["error"] is not None and refused in status["error"]


def test_unknown_guest() -> None:
    status = finish("nobody", TEST, source_uri=TEST)
    assert status["outcome"] == "failed"
    assert status["error"] is not None and '"nobody"' in status["error"]


def test_same_host() -> None:
    status = finish("test", TEST, source_uri=TEST)
    assert status["outcome"] == "failed"
    assert status["error"] is not None and "same host" in status["error"]


def test_a_call_that_fails_leaves_the_guest(empty_host: str) -> None:
    status = finish("test", empty_host, source_uri=TEST)
    assert status["outcome"] == "failed"
    assert status["error"] is not None and status["error"].startswith("the guest runs on at the source")
    assert _core.host_facts(TEST, domain="test")["guest"] is not None


def test_no_answer_within_the_timeout(silent: Silent) -> None:
    for timeout_ms in (200, 1000, 5000, 30_000):
        status = finish("test", silent.uri, source_uri=TEST, connect_timeout_ms=timeout_ms)
        assert status["outcome"] == "failed" and status["error"] is not None
        assert f"within {timeout_ms / 1000} s" in status["error"]
        if TEST not in status["error"]:  # on a busy machine the source is not there in time either
            break
    assert silent.uri in str(status["error"])


def test_join_releases_the_gil(silent: Silent) -> None:
    """Another thread runs Python code while this one waits; the wait ends in time."""
    migration = _core.Migration("test", silent.uri, source_uri=TEST, connect_timeout_ms=NEVER_MS)
    migration.start()
    turns = 0
    over = threading.Event()

    def work() -> None:
        nonlocal turns
        while not over.wait(0.01):
            turns += 1

    worker = threading.Thread(target=work)

    def wait() -> int:
        before, start_s = turns, time.monotonic()
        assert not migration.join(timeout_ms=500)
        assert time.monotonic() - start_s >= 0.45
        return turns - before

    worker.start()
    wait_for(lambda: wait() >= 5, "another thread's turn")
    over.set()
    worker.join()
    silent.close()
    assert migration.join((1 << 63) - 1)  # longer than any clock: for ever
    with pytest.raises(TypeError):
        migration.join("soon")  # type: ignore[arg-type]


def test_fileno_is_readable_at_the_end(refused: str) -> None:
    migration = _core.Migration("test", refused, source_uri=TEST)
    with selectors.DefaultSelector() as selector:
        selector.register(migration, selectors.EVENT_READ)
        migration.start()
        while migration.status()["outcome"] is None:
            assert selector.select(timeout=JOIN_MS / 1000), "no news of the end"
            migration.clear()
    assert migration.join(0)


def test_clear_takes_the_news(refused: str) -> None:
    migration = _core.Migration("test", refused, source_uri=TEST)
    migration.start()
    assert migration.join(JOIN_MS)
    assert select.select([migration], [], [], JOIN_MS / 1000)[0]
    # The news of the end is written right after whoever waits is woken.
    until = time.monotonic() + PATIENCE_S
    while readable(migration) and time.monotonic() < until:
        migration.clear()
        time.sleep(0.05)
    assert not readable(migration)
    migration.clear()


def test_asyncio(refused: str, empty_host: str) -> None:
    async def follow(migration: _core.Migration) -> _core.Status:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def news() -> None:
            migration.clear()
            if migration.status()["outcome"] is not None and not done.done():
                done.set_result(migration.status())

        loop.add_reader(migration.fileno(), news)
        try:
            migration.start()
            status: _core.Status = await asyncio.wait_for(done, JOIN_MS / 1000)
            return status
        finally:
            loop.remove_reader(migration.fileno())

    async def both() -> list[_core.Status]:
        migrations = [_core.Migration("test", uri, source_uri=TEST) for uri in (refused, empty_host)]
        return await asyncio.gather(*map(follow, migrations))

    assert [status["outcome"] for status in asyncio.run(both())] == ["failed", "failed"]


def test_requests_while_it_runs(silent: Silent) -> None:
    migration = _core.Migration("test", silent.uri, source_uri=TEST, connect_timeout_ms=JOIN_MS)
    migration.start()
    migration.switch()
    migration.set_bandwidth(0)
    migration.abort()
    silent.close()
    assert migration.join(JOIN_MS)
    assert migration.status()["outcome"] == "failed"


def test_dropped_while_it_runs(refused: str) -> None:
    for _ in range(20):
        _core.Migration("test", refused, source_uri=TEST).start()
    gc.collect()
    assert finish("test", refused, source_uri=TEST)["outcome"] == "failed"


def test_trace_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    migration = _core.Migration("test", TEST, trace_path=str(tmp_path / "missing" / "trace"))
    for _ in range(2):  # it was not started, so it may be tried again
        with pytest.raises(FileNotFoundError) as missing:
            migration.start()
        assert missing.value.filename == str(tmp_path / "missing" / "trace")
    with pytest.raises(OSError) as caught:
        _core.Migration("test", TEST, trace_path="/dev/full").start()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")
    assert migration.status()["outcome"] is None


def test_trace_is_complete_when_join_returns(tmp_path: pathlib.Path, empty_host: str) -> None:
    path = tmp_path / "trace"
    finish("test", empty_host, source_uri=TEST, policy="passes=2", trace_path=str(path))
    lines = path.read_text().splitlines()
    assert lines[:2] == ["pcmig-trace 1", f"# pcmig {_core.VERSION}"]
    assert any("migrate-called" in line for line in lines)
    assert any("call-failed" in line for line in lines)
    assert _core.replay(path)["written_by"] == _core.VERSION


def test_types_are_closed() -> None:
    with pytest.raises(TypeError):
        type("Mine", (_core.Migration,), {})
    with pytest.raises(TypeError):
        _core.Migration.start = None  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize(("optional", "told"), [(False, "cannot connect to the destination"), (True, "p2p")])
def test_a_destination_that_only_the_source_reaches(optional: bool, told: str) -> None:
    """libvirt's test driver has no migration, so that the call itself is the next thing to fail."""
    migration = _core.Migration(
        "test",
        "qemu+tcp://127.0.0.1:1/system",
        source_uri="test:///default",
        destination_optional=optional,
    )
    migration.start()
    assert migration.join(JOIN_MS)
    status = migration.status()
    assert status["outcome"] == "failed"
    assert status["error"] is not None and told in status["error"]


def test_a_job_watch_that_several_threads_close() -> None:
    """Closing gives the GIL up: what the first thread is about to free is not there for the next one."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            watch = _core.JobWatch(TEST, "test")
            watch.look()
            together = threading.Barrier(4)

            def close(watch: _core.JobWatch = watch, together: threading.Barrier = together) -> None:
                together.wait()
                watch.close()

            threads = [threading.Thread(target=close) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with pytest.raises(ValueError, match="closed"):
                watch.look()
    finally:
        sys.setswitchinterval(before_s)
