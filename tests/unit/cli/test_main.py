# SPDX-License-Identifier: Apache-2.0
"""The frame around the commands: version, help, errors, start-up."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from pcmig.cli.main import COMMANDS, Pcmig, unknown_command
from tests.unit.cli.conftest import ROOT

# Until every command is there.
PRESENT = [name for name, target in COMMANDS if importlib.util.find_spec(target.partition(":")[0])]
PCMIG = [sys.executable, "-m", "pcmig.cli.main"]


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PCMIG, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "pcmig")


def test_start_up_imports_no_heavy_module() -> None:
    code = (
        "import sys, pcmig.cli.main as m; m.Pcmig(); "
        "print([x for x in ('rich', 'cmd2', 'asyncio', 'pcmig._core') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a command: abort, check"),
        (("migarte",), "unknown command 'migarte'; did you mean 'migrate'?"),
        (("zzz",), "the commands are abort"),
        (("--bogus",), "unrecognized arguments: --bogus"),
        (("--bogus", "migrate"), "unrecognized arguments: --bogus"),
        (("--vers",), "unrecognized arguments: --vers"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in PRESENT:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", PRESENT)
def test_help_of_each_command(name: str) -> None:
    for arguments in ((*name.split(), "--help"), ("help", *name.split())):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert f"usage: pcmig {name}" in done.stdout
    description = " ".join(done.stdout.split("\n\n")[1].split())
    assert description[0].isupper() and description.endswith("."), description


@pytest.mark.parametrize("name", PRESENT)
def test_man_page_has_every_option(name: str) -> None:
    """In the section on all commands, or in the command's own."""
    module, _, attribute = dict(COMMANDS)[name].partition(":")
    parser = getattr(importlib.import_module(module), attribute)(Pcmig(), None, name).get_parser(name)
    page = (ROOT / "doc/refer/pcmig.rst").read_text()
    sections = re.split(r"^Options of (.+)\n-+\n", page.partition("\nExit status\n")[0], flags=re.MULTILINE)
    text = dict(zip(sections[1::2], sections[2::2], strict=True))
    told = text["all commands"] + text.get(name, "")
    missing = [
        option
        for action in parser._actions
        for option in action.option_strings
        if f"**{option}**" not in told
    ]
    assert missing == []


def test_debug_shows_a_traceback() -> None:
    for arguments in (("--debug", "zzz"), ("watch", "--debug", "-c", "nosuch:///", "g")):
        assert "Traceback" in run(*arguments).stderr


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("migrate", "--help")])
def test_closed_stdout_is_no_traceback(arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PCMIG, *arguments], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_a_defect_has_its_own_exit_code() -> None:
    code = (
        "import sys, pcmig.cli.main as m\n"
        "def broken(self, argv): raise ZeroDivisionError('x')\n"
        "m.Pcmig.run = broken\n"
        "sys.exit(m.main(['watch']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 70
    assert "internal error: ZeroDivisionError: x" in done.stderr and "Traceback" not in done.stderr


def test_unknown_command_knows_help() -> None:
    assert "did you mean 'help'" in unknown_command("hepl")
