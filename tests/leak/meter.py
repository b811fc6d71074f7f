# SPDX-License-Identifier: Apache-2.0
"""What a call leaves behind: malloc's bytes, blocks of Python's allocator, descriptors and threads."""

from __future__ import annotations

import ctypes
import gc
import importlib.machinery
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of glibc >= 2.33, see mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


_libc = ctypes.CDLL(None)
_libc.mallinfo2.restype = _Mallinfo2


class Held(NamedTuple):
    malloc_bytes: int  # in use, all arenas, large blocks included
    python_blocks: int  # sys.getallocatedblocks()
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        info = _libc.mallinfo2()
        return cls(
            info.uordblks + info.hblkhd,
            sys.getallocatedblocks(),
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
        )


THREADS_GO_S = 20.0

# What a round adds by itself: the marks that are kept here.
NOISE = {"malloc_bytes": 64, "python_blocks": 10, "descriptors": 1, "threads": 1}


# The interpreter itself keeps about one block per load of any extension with types (_json, _sqlite3); one
# object that a module's clear function forgot would be a type of dozens.
BLOCKS_PER_LOAD = 4


def load_anew(module: Any) -> Any:
    """Another instance of an extension module that is loaded already."""
    loader = importlib.machinery.ExtensionFileLoader(module.__name__, module.__spec__.origin)
    spec = importlib.util.spec_from_file_location(module.__name__, module.__spec__.origin, loader=loader)
    assert spec is not None
    fresh = importlib.util.module_from_spec(spec)
    loader.exec_module(fresh)
    return fresh


def grows(call: Callable[[], object], *, calls: int, blocks_allowed: float = 0.1) -> str | None:
    """Calls CALL in rounds of CALLS; says what grew in every round, or None.

    A cache fills once and an allocator's noise comes and goes, but a leak grows with every round, however
    often one looks: here by a block or eight bytes for every tenth call. So no threshold depends on the
    machine.
    Threads that a call has ended may still be about to go: they are waited for, and what looks like a leak is
    measured again.
    BLOCKS_ALLOWED is per call, for one that makes the interpreter itself keep something.
    """
    found = None
    for _ in range(4):
        found = _grows_once(call, calls, blocks_allowed)
        if found is None:
            return None
        time.sleep(0.1)
    return found


def _wait_for_threads(count: int) -> None:
    """Until no more than COUNT are left, or are leaked. Each holds memory until it has gone."""
    end_s = time.monotonic() + THREADS_GO_S
    while len(os.listdir("/proc/self/task")) > count and time.monotonic() < end_s:
        time.sleep(0.01)


def _grows_once(call: Callable[[], object], calls: int, blocks_allowed: float, rounds: int = 5) -> str | None:
    for _ in range(max(2, calls // 4)):
        call()
    marks = [Held.now()]
    for _ in range(rounds):
        for _ in range(calls):
            call()
        _wait_for_threads(marks[0].threads + NOISE["threads"])
        marks.append(Held.now())
    per_call = {
        "malloc_bytes": 0.8,
        "python_blocks": blocks_allowed,
        "descriptors": 0.1,
        "threads": 0.1,
    }
    for field, least in per_call.items():
        growth = [getattr(b, field) - getattr(a, field) for a, b in itertools.pairwise(marks)]
        if min(growth) >= max(NOISE[field], least * calls):
            return f"{field} grew in every round of {calls} calls: {growth}"
    return None
