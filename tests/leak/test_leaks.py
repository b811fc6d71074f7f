# SPDX-License-Identifier: Apache-2.0
"""No export of pcmig._core leaves memory, descriptors or threads behind when called in a loop."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from pcmig import _core
from tests.leak.meter import BLOCKS_PER_LOAD, grows, load_anew
from tests.leak.rows import ROWS


def exports() -> Iterator[str]:
    """Functions and types, and the public methods of types that are no exceptions, as "Type.method"."""
    for name, value in vars(_core).items():
        if name.startswith("_") or not callable(value):
            continue
        yield name
        if isinstance(value, type) and not issubclass(value, BaseException):
            yield from (f"{name}.{method}" for method in vars(value) if not method.startswith("_"))


def test_every_export_has_a_row() -> None:
    names = set(exports())
    assert names - ROWS.keys() == set(), "tests/leak/rows.py has no row for these"
    assert ROWS.keys() - names == set(), "tests/leak/rows.py has rows for names that are gone"


@pytest.mark.parametrize("name", sorted(ROWS))
def test_calls_leave_nothing_behind(name: str) -> None:
    row = ROWS[name]
    for index, call in enumerate(row.calls):
        growth = grows(call, calls=row.repeat)
        assert growth is None, f"{name}, call {index}: {growth}"


def test_loading_again_and_again_leaves_nothing_behind() -> None:
    def load() -> None:
        module = load_anew(_core)
        assert module is not _core
        assert module.Error is not _core.Error, "two instances of the module share state"

    assert grows(load, calls=20, blocks_allowed=BLOCKS_PER_LOAD) is None


@pytest.mark.parametrize("isolated", [False, True])
def test_a_subinterpreter_is_refused(isolated: bool) -> None:
    """libvirt's event loop is one per process, so one interpreter owns it; another gets an ImportError."""
    program = textwrap.dedent(
        f"""
        import sys, pcmig._core
        attempt = '''
        import sys
        try:
            import pcmig._core
        except ImportError as error:
            print("refused:", error, flush=True)
        '''.replace("\\n        ", "\\n")
        attempt = "import sys; sys.path[:] = " + repr(sys.path) + "\\n" + attempt
        if sys.version_info >= (3, 13):
            import _interpreters
            one = _interpreters.create("isolated" if {isolated} else "legacy")
            problem = _interpreters.exec(one, attempt)
            _interpreters.destroy(one)
        else:
            import _xxsubinterpreters
            one = _xxsubinterpreters.create(isolated={isolated})
            problem = _xxsubinterpreters.run_string(one, attempt)
            _xxsubinterpreters.destroy(one)
        assert not problem, problem
        print("main goes on:", pcmig._core.Error.__name__)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "refused:" in done.stdout
    assert "main goes on: Error" in done.stdout
