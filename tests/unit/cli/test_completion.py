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
    code = """source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pcmig "$1"
        printf '%s\\n' "${COMPREPLY[@]}" """
    done = subprocess.run(
        ["bash", "-c", code, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def pcmig(tmp_path: pathlib.Path) -> str:
    """A `pcmig` of this source tree."""
    program = tmp_path / "pcmig"
    program.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{ROOT}" "{sys.executable}" -m pcmig.cli.main "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def virsh(tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment whose virsh knows other guests on other hosts."""
    program = tmp_path / "bin" / "virsh"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncase "$*" in *qemu+ssh://b*) echo far ;; *) printf "g1\\ng2\\n" ;; esac\n')
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


def test_commands() -> None:
    assert complete("pcmig", "mi") == ["migrate"]
    offered = complete("pcmig", "")
    assert {name for name, _ in COMMANDS if " " not in name} <= set(offered)
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


def test_libvirt_that_does_not_answer_offers_nothing(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "virsh"
    program.write_text("#!/bin/sh\necho error >&2\nexit 1\n")
    program.chmod(0o755)
    assert complete("pcmig", "abort", "", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) == []


def test_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "run.trace").touch()
    assert complete("pcmig", "replay", "ru", cwd=tmp_path) == ["run.trace"]
    assert complete("pcmig", "migrate", "--json", "ru", cwd=tmp_path) == ["run.trace"]


def test_nothing_for_values_that_only_the_operator_knows() -> None:
    assert complete("pcmig", "migrate", "--deadline", "") == []
