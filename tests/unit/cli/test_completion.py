# SPDX-License-Identifier: Apache-2.0
"""The bash completion, as bash runs it."""

from __future__ import annotations

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from pcmig.cli.main import COMMANDS, Pcmig
from tests.unit.cli.conftest import ROOT

SCRIPT = ROOT / "etc" / "bash_completion.d" / "pcmig"


def complete(*words: str, env: dict[str, str] | None = None, cwd: pathlib.Path = ROOT) -> list[str]:
    """What Tab offers behind WORDS, the last of which is the one under the cursor."""
    return [word for line in offered(*words, env=env, cwd=cwd) for word in line.split()]


def offered(*words: str, env: dict[str, str] | None = None, cwd: pathlib.Path = ROOT) -> list[str]:
    """The same, each offer as it is put on the command line."""
    code = """source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pcmig "$1"
        printf '%s\\n' "${COMPREPLY[@]}" """
    done = subprocess.run(
        ["bash", "-c", code, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.fixture
def pcmig(tmp_path: pathlib.Path) -> str:
    """A `pcmig` of this source tree."""
    program = tmp_path / "pcmig"
    program.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{ROOT}" "{sys.executable}" -m pcmig.cli.main "$@"\n')
    program.chmod(0o755)
    return str(program)


def with_virsh(folder: pathlib.Path, script: str) -> dict[str, str]:
    """An environment whose virsh, in FOLDER, is SCRIPT; on a machine so busy that it is never late."""
    for name, text in (("virsh", script), ("timeout", 'shift\nexec "$@"')):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def virsh(tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment whose virsh knows other guests on other hosts."""
    (tmp_path / "bin").mkdir()
    script = 'case "$*" in *qemu+ssh://b*) echo far ;; *) printf "g1\\ng2\\n" ;; esac'
    return with_virsh(tmp_path / "bin", script)


def test_commands() -> None:
    assert complete("pcmig", "mi") == ["migrate"]
    assert {name for name, _ in COMMANDS if " " not in name} <= set(complete("pcmig", ""))
    beside = {name.partition(" ")[2] for name, _ in COMMANDS if " " in name}
    assert set(complete("pcmig", "tunnel", "")) == beside


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_options_are_those_of_the_command(name: str, pcmig: str) -> None:
    module, _, attribute = dict(COMMANDS)[name].partition(":")
    factory = getattr(importlib.import_module(module), attribute)
    parser = factory(Pcmig(), None, name).get_parser(f"pcmig {name}")
    hidden = {"--live", "--p2p", "--postcopy"}  # understood for virsh's sake, not offered
    options = {option for action in parser._actions for option in action.option_strings} - hidden
    assert set(complete(pcmig, *name.split(), "-")) == options
    assert complete(pcmig, *name.split(), "--conn") == [o for o in sorted(options) if o.startswith("--conn")]


def test_policies() -> None:
    assert complete("pcmig", "migrate", "--policy", "f") == ["first-pass"]
    assert "passes=" in complete("pcmig", "migrate", "--policy", "")


def test_guests_of_the_host_that_was_named(virsh: dict[str, str]) -> None:
    assert complete("pcmig", "migrate", "", env=virsh) == ["g1", "g2"]
    assert complete("pcmig", "watch", "-c", "qemu+ssh://b/system", "f", env=virsh) == ["far"]


NAMES = ("Home Assistant", "a;b", "a&b<c>", "%s %n", "[bold]x[/]", "it's", "bücher-東京", "*", "x" * 200)


def test_a_name_is_offered_so_that_a_shell_takes_it(tmp_path: pathlib.Path) -> None:
    """Whatever it is made of: nothing of it is run, split or expanded."""
    ran = tmp_path / "ran"
    names = [*NAMES, f"$(touch {ran})", f"`touch {ran}`"]
    (tmp_path / "names").write_text("\n".join([*names, "-dash", ""]))
    env = {**with_virsh(tmp_path, f"cat {tmp_path}/names"), "LC_ALL": "C.UTF-8"}
    said = offered("pcmig", "migrate", "", env=env)
    typed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {' '.join(said)}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
    )
    assert typed.stdout.splitlines() == names
    assert not ran.exists()
    assert offered("pcmig", "watch", "Home\\ A", env=env) == ["Home\\ Assistant"]
    assert offered("pcmig", "watch", '"Home A', env=env) == ["Home Assistant"]
    assert offered("pcmig", "watch", '"$', env=env) == []
    assert offered("pcmig", "check", "--domain", "a", env=env) == [r"a\;b", r"a\&b\<c\>"]


def test_libvirt_that_does_not_answer_offers_nothing(tmp_path: pathlib.Path) -> None:
    assert complete("pcmig", "abort", "", env=with_virsh(tmp_path, "echo error >&2; exit 1")) == []


def test_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "run.trace").touch()
    assert complete("pcmig", "replay", "ru", cwd=tmp_path) == ["run.trace"]
    assert complete("pcmig", "migrate", "--json", "ru", cwd=tmp_path) == ["run.trace"]


def test_nothing_for_values_that_only_the_operator_knows() -> None:
    assert complete("pcmig", "migrate", "--deadline", "") == []
