# SPDX-License-Identifier: Apache-2.0
"""The entry of the console script: quiet about Ctrl-C from its first line to its last.

The commands take most of the time of a short call to be imported; a KeyboardInterrupt there would be a
traceback. What comes before this file is Python's own start, in which it knows of no handler of ours.
"""

# Nothing is imported here that Python has not at its start: not even `typing` or `__future__`.
import _signal as signal  # type: ignore[import-not-found]  # in C, there at once: `signal` imports enum first
import os
import sys

INTERRUPTED = 130  # ExitCode.INTERRUPTED, which is not imported yet


def _end(*_: object) -> None:
    """Nothing is under way yet: ends the process as main() ends it for a KeyboardInterrupt."""
    os.write(2, b"pcmig: interrupted\n")
    os._exit(INTERRUPTED)


def _swap(old: object, new: object) -> None:
    """NEW takes the place of OLD. A SIGINT that is ignored, as in a shell's background job, stays so."""
    if signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)


_swap(signal.default_int_handler, _end)


def main() -> int:
    """Runs the command line and returns its exit code."""
    from pcmig.cli.main import main as run

    try:
        _swap(_end, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:  # outside of run()'s own try: as a rule while it tells what libvirt said last
        os.write(2, b"pcmig: interrupted\n")
        return INTERRUPTED
    finally:  # the command has ended: its exit code stands, however Python's own end is disturbed
        _swap(signal.default_int_handler, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
