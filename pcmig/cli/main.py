# SPDX-License-Identifier: Apache-2.0
"""The `pcmig` command: the table of commands, and what happens around one of them."""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import os
import re
import sys
import traceback
from importlib import metadata
from typing import Any

from cliff import app, command, commandmanager, help

from pcmig.cli.base import (
    UNWRITABLE,
    CommandError,
    ExitCode,
    UsageError,
    add_debug,
    is_stdouts,
    own_stdout,
    say,
    silence,
)
from pcmig.cli.virsh import OTHER_COMMANDS

# name, "module:class". A module is imported when its command is run or described.
COMMANDS = (
    ("abort", "pcmig.cli.abort:Abort"),
    ("check", "pcmig.cli.check:Check"),
    ("flags", "pcmig.cli.flags:Flags"),
    ("forget", "pcmig.cli.forget:Forget"),
    ("turn-back", "pcmig.cli.turn_back:TurnBack"),
    ("metrics", "pcmig.cli.metrics:Metrics"),
    ("migrate", "pcmig.cli.migrate:Migrate"),
    ("pause", "pcmig.cli.pause:Pause"),
    ("ports", "pcmig.cli.ports:Ports"),
    ("replay", "pcmig.cli.replay:Replay"),
    ("report", "pcmig.cli.reporting:Report"),
    ("resume", "pcmig.cli.resume:Resume"),
    ("status", "pcmig.cli.status:Status"),
    ("switch", "pcmig.cli.switch:Switch"),
    ("tunnel", "pcmig.cli.tunnel:Tunnel"),
    ("tunnel close", "pcmig.cli.tunnel:Close"),
    ("tunnel keygen", "pcmig.cli.tunnel_keygen:Keygen"),
    ("tunnel metrics", "pcmig.cli.tunnel:Metrics"),
    ("tunnel peers", "pcmig.cli.tunnel:Peers"),
    ("tunnel probe", "pcmig.cli.tunnel:Probe"),
    ("tunnel reload", "pcmig.cli.tunnel:Reload"),
    ("tunnel show", "pcmig.cli.tunnel:Show"),
    ("wake", "pcmig.cli.wake:Wake"),
    ("watch", "pcmig.cli.watch:Watch"),
)

# Commands that others stand beside, as their second word.
GROUPS = {name.partition(" ")[0] for name, _ in COMMANDS if " " in name}

DESCRIPTION = "Post-copy live migration for OpenStack and libvirt hosts."


def package_version() -> str:
    """The version of the installed package; a source tree that was never installed has none."""
    try:
        return metadata.version("pcmig")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"


def make_manager() -> commandmanager.CommandManager:
    """A command manager with COMMANDS, imported lazily."""
    manager = commandmanager.CommandManager()
    for name, target in COMMANDS:
        manager.commands[name] = metadata.EntryPoint(name, target, "pcmig")
    return manager


class Help(help.HelpCommand):
    """print help for a command"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = command.Command.get_parser(self, prog_name)
        parser.add_argument("cmd", metavar="COMMAND", nargs="*", help="name of the command")
        return parser

    def parse(self, parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
        return parser.parse_args(argv)

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        word = " ".join(parsed_args.cmd)
        if word and word not in self.app.command_manager.commands:
            raise UsageError(unknown_command(word))
        parsed_args.cmd = [word] if word else []
        return super().take_action(parsed_args)


class Pcmig(app.App):
    """cliff's application, with errors as operators want them: one line, a fixed exit code."""

    NAME = "pcmig"

    def __init__(self) -> None:
        super().__init__(DESCRIPTION, package_version(), make_manager())
        self.command_manager.add_command("help", Help)
        # The completion in etc/bash_completion.d knows domains and values; cliff's knows names only.
        del self.command_manager.commands["complete"]

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        """The options that stand before a command."""
        parser = argparse.ArgumentParser(
            prog=self.NAME,
            usage="pcmig [--version] [-h] [--debug] COMMAND ...",
            description=description,
            add_help=False,
            allow_abbrev=False,
        )
        parser.add_argument("--version", action="version", version=f"{self.NAME} {version}")
        parser.add_argument(
            "-h", "--help", action=help.HelpAction, nargs=0, default=self, help="show help and exit"
        )
        add_debug(parser)
        return parser

    def run(self, argv: list[str]) -> int:
        """Runs the command line ARGV. cliff's own run() reads options behind the command as its own, and
        turns every error into exit code 1."""
        if argv and re.match("-c|--connect(=|$)", argv[0]):
            raise UsageError("-c stands behind the command here: pcmig COMMAND -c URI ...")
        words = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
        self.options = self.parser.parse_args(argv[:words])
        logging.basicConfig(
            stream=self.stderr,
            format=f"{self.NAME}: %(message)s",
            level=logging.DEBUG if "--debug" in argv else logging.WARNING,
        )
        if words == len(argv):
            raise UsageError(f"name a command: {', '.join(name for name, _ in COMMANDS)}; see 'pcmig --help'")
        return self.run_subcommand(argv[words:])

    def run_subcommand(self, argv: list[str]) -> int:
        """Runs the command that ARGV starts with: one word, or two."""
        words = 1
        if len(argv) > 1 and not argv[1].startswith("-") and argv[0] in GROUPS:
            words = 2
        word = " ".join(argv[:words])
        if word not in self.command_manager.commands:
            raise UsageError(unknown_command(word))
        factory: Any = self.command_manager.commands[word].load()
        chosen = factory(self, self.options, word)
        parser = chosen.get_parser(f"{self.NAME} {word}")
        code: int = chosen.run(chosen.parse(parser, argv[words:]))
        return code


def unknown_command(word: str) -> str:
    """The message for a WORD that is not a command."""
    names = [name for name, _ in COMMANDS] + ["help"]
    if other := OTHER_COMMANDS.get(word):
        return f"unknown command {word!r}; virsh's {word} is here 'pcmig {other}'"
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; the commands are {', '.join(names)}"
    return f"unknown command {word!r}{hint}"


def main(argv: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code. Nothing but argparse's SystemExit comes out of it."""
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    open_streams()
    try:
        code = Pcmig().run(argv)
        sys.stdout.flush()
        return code
    except SystemExit:  # argparse, after --help, --version and usage errors
        say("", sys.stdout)
        raise
    except CommandError as err:
        return complain(str(err), err.code, debug)
    except KeyboardInterrupt:
        return complain("interrupted", ExitCode.INTERRUPTED, debug)
    except ImportError as err:
        return complain(f"pcmig is not installed properly: {err}", ExitCode.INTERNAL, debug)
    except Exception as err:
        if isinstance(err, OSError) and err.errno in (*UNWRITABLE, errno.EPIPE) and is_stdouts(err):
            silence(sys.stdout)
            if err.errno == errno.EPIPE:
                return ExitCode.BROKEN_PIPE
            return complain(f"standard output cannot be written: {err.strerror}", ExitCode.FAILED, debug)
        core, journal = sys.modules.get("pcmig._core"), sys.modules.get("pcmig.journal")
        if (core and isinstance(err, core.Error)) or (journal and isinstance(err, journal.JournalError)):
            return complain(str(err), ExitCode.FAILED, debug)
        message = f"internal error: {type(err).__name__}: {err}; please report it, with the output of --debug"
        return complain(message, ExitCode.INTERNAL, debug)


def open_streams() -> None:
    """What was closed by whoever started this ('>&-') gets no other file of ours: it is /dev/null, to which
    standard output cannot be written, so that who wants to print something hears of it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115
    own_stdout()


def complain(message: str, code: ExitCode, debug: bool) -> int:
    """Prints MESSAGE on stderr, with the traceback of the exception being handled if DEBUG."""
    if debug:
        say(traceback.format_exc(), sys.stderr)
    say(f"pcmig: {message}", sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
