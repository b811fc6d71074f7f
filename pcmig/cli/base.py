# SPDX-License-Identifier: Apache-2.0
"""What all commands share: exit codes, the base class, and the errors that end a command."""

from __future__ import annotations

import argparse
import datetime
import enum
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from cliff import command

from pcmig.cli.background import within

if TYPE_CHECKING:
    from cliff.app import App
    from rich.console import Console

DEFAULT_CONNECT = "qemu:///system"

# What a standard output says that is full, or was closed. Files that commands write are theirs to tell of.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class ExitCode(enum.IntEnum):
    """Exit codes of every command, as the man page lists them."""

    DONE = 0
    FAILED = 1  # nothing has moved: the guest, if there is one, runs on at the source
    USAGE = 2
    NEEDS_OPERATOR = 3
    DETACHED = 4  # the migration goes on without pcmig
    INTERNAL = 70  # a defect of pcmig itself (EX_SOFTWARE of sysexits.h)
    BROKEN_PIPE = 141  # 128 + SIGPIPE: the reader of the output went away
    INTERRUPTED = 130  # 128 + SIGINT, where nothing was under way


class CommandError(Exception):
    """Ends a command with a message and an exit code, without a traceback."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


class UsageError(CommandError):
    """What was typed makes no sense."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)


class Command(command.Command):
    """Base of the commands: a docstring's first line is the summary, `take_action` returns an exit code."""

    epilog = ""  # printed below the options; lists the exit codes

    def __init__(self, app: App, app_args: argparse.Namespace | None, cmd_name: str | None = None) -> None:
        # Without a name, cliff does not look for hooks in the metadata of every installed package.
        super().__init__(app, app_args, None)
        self.cmd_name = cmd_name

    def get_epilog(self) -> str:
        """The class's `epilog`. cliff would scan every installed package for the name of the plugin."""
        return self.epilog

    def arrange(self, argv: list[str]) -> list[str]:
        """The command's words ARGV, as its parser takes them."""
        return argv

    def parse(self, parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
        """What PARSER makes of the command's words ARGV."""
        return parser.parse_args(self.arrange(argv))

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        # A script that abbreviates an option would break with the next option that starts alike.
        parser.allow_abbrev = False
        # argparse runs the lines together: the first one becomes a sentence.
        summary, _, rest = self.get_description().partition("\n")
        parser.description = f"{summary[:1].upper()}{summary[1:]}. {rest.strip()}".strip()
        add_debug(parser)
        return parser


class Leavable(Command):
    """A command that Ctrl-C leaves at once, also where a host is waited for that does not answer: it works on
    a thread of its own, which is left behind then and ends with the process. For a command of which nothing
    is half done, wherever it ends."""

    left = "interrupted"  # what is said then

    def run(self, parsed_args: argparse.Namespace) -> int:
        code = 0

        def work() -> None:
            nonlocal code
            code = super(Leavable, self).run(parsed_args)

        try:
            within(None, work)
        except KeyboardInterrupt:
            raise CommandError(self.left, ExitCode.INTERRUPTED) from None
        return code


def add_debug(parser: argparse.ArgumentParser) -> None:
    """`--debug`, before the command and behind it."""
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")


def given(text: str) -> str:
    """An argparse type: text that libvirt can take, which is UTF-8 and not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the value is empty")
    try:
        text.encode()
    except UnicodeEncodeError as err:  # bytes that are not UTF-8 arrive as surrogates
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from err
    return text


def given_uri(text: str) -> str:
    """An argparse type: a URI of libvirt or for memory and disks, as far as its host goes."""
    from pcmig.tunnel import peer

    if right := peer.in_brackets(given(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: an IPv6 address stands in brackets: {right}")
    return text


def given_path(text: str) -> str:
    """An argparse type: a path, in whatever encoding."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty")
    return text


def natural(text: str) -> int:
    """An argparse type: an integer from 0 to 2^31 - 1."""
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > 0x7FFFFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {0x7FFFFFFF}")
    return int(text)


def add_guest(parser: argparse.ArgumentParser, *, journal: bool = False) -> None:
    """`-c/--connect` and DOMAIN: a guest, and the host to ask about it."""
    add_connect(parser, journal=journal)
    parser.add_argument("domain", type=given, metavar="DOMAIN", help="guest: name, UUID or id")


def add_connect(parser: argparse.ArgumentParser, *, journal: bool = False) -> None:
    """`-c/--connect`, as virsh has it. With JOURNAL: None when not given, as the journal may know it."""
    first = "as the journal says, or " if journal else ""
    parser.add_argument(
        "-c",
        "--connect",
        metavar="URI",
        type=given_uri,
        default=None if journal else default_connect(),
        help=f"libvirt of the source host (default: {first}$LIBVIRT_DEFAULT_URI, or qemu:///system)",
    )


def default_connect() -> str:
    """libvirt of the source host when none is named."""
    return os.environ.get("LIBVIRT_DEFAULT_URI") or DEFAULT_CONNECT


def make_console(stream: TextIO | None = None) -> Console:
    """A rich console for STREAM (default: stdout): colours only on a terminal, never with NO_COLOR."""
    from rich.console import Console

    stream = stream or sys.stdout
    terminal = is_terminal(stream)
    return Console(
        file=stream,
        force_terminal=terminal,
        no_color=bool(os.environ.get("NO_COLOR")) or not terminal,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not terminal,
    )


def is_terminal(stream: TextIO) -> bool:
    """Whether STREAM is a terminal that can move its cursor."""
    try:
        return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:  # closed
        return False


class Output(io.FileIO):
    """Standard output's descriptor, whose errors can be told from those of sockets and other files."""

    def __init__(self) -> None:
        super().__init__(1, "w", closefd=False)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as err:
            err.is_stdouts = True  # type: ignore[attr-defined]
            raise


def own_stdout() -> None:
    """Has standard output tell which errors are its own, unless it is not this process's any more."""
    old = sys.stdout
    if type(old) is not io.TextIOWrapper or old.fileno() != 1 or _is_own(old):
        return
    old.flush()
    output = Output()
    sys.stdout = io.TextIOWrapper(
        output if old.write_through else io.BufferedWriter(output),
        encoding=old.encoding,
        errors=old.errors,
        newline="\n",
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )


def _is_own(stream: Any) -> bool:
    buffer = getattr(stream, "buffer", None)
    return isinstance(getattr(buffer, "raw", buffer), Output)


def is_stdouts(err: OSError) -> bool:
    """Whether ERR came of writing to standard output."""
    own = getattr(err, "is_stdouts", False) or not _is_own(sys.stdout)
    return own and err.filename is None


def silence(stream: TextIO) -> None:
    """Points STREAM's descriptor at /dev/null after a broken pipe, so that flushing it at exit fails no
    more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def say(text: str, stream: TextIO) -> None:
    """Prints TEXT, if not empty, and flushes; a STREAM that nobody reads any more, or that is full, is no
    error."""
    try:
        if text:
            stream.write(text + "\n")
        stream.flush()
    except ValueError:  # the pager of --help closes a stream that broke
        return
    except OSError:
        silence(stream)


def day(when: datetime.datetime) -> str:
    """2026-11-29."""
    return when.date().isoformat()
