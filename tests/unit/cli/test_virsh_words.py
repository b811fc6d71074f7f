# SPDX-License-Identifier: Apache-2.0
"""Command lines of virsh, typed with pcmig's name: a hint for each word, exit code 2, nothing begun."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from pcmig import _core
from pcmig.cli import main, options, virsh
from pcmig.cli.base import ExitCode

# Every option of `virsh help migrate`, libvirt 12.8.
OPTIONS = """
--domain --desturi --live --offline --p2p --direct --tunnelled --persistent --undefinesource --suspend
--copy-storage-all --copy-storage-inc --copy-storage-synchronous-writes --change-protection --unsafe --verbose
--rdma-pin-all --abort-on-error --postcopy --postcopy-after-precopy --postcopy-resume --migrateuri
--graphicsuri --listen-address --dname --timeout --timeout-suspend --timeout-postcopy --xml --migrate-disks
--migrate-disks-detect-zeroes --disks-port --disks-uri --compressed --comp-methods --comp-mt-level
--comp-mt-threads --comp-mt-dthreads --comp-xbzrle-cache --comp-zlib-level --comp-zstd-level --auto-converge
--auto-converge-initial --auto-converge-increment --persistent-xml --tls --tls-destination --zerocopy
--postcopy-bandwidth --parallel --parallel-connections --bandwidth
"""
ALL = OPTIONS.split()


def run(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """What is said of the usage error LINE."""
    try:
        code = main.main(shlex.split(line))
    except SystemExit as err:
        assert isinstance(err.code, int)
        code = err.code
    out, said = capsys.readouterr()
    assert (code, out) == (ExitCode.USAGE, "")
    return said


def ours() -> set[str]:
    parser = argparse.ArgumentParser()
    options.add_options(parser)
    return {name for action in parser._actions for name in action.option_strings}


def test_each_option_of_virsh_is_taken_or_has_a_hint() -> None:
    assert set(ALL) <= ours() | set(virsh.OPTIONS)
    assert not ours() & set(virsh.OPTIONS)
    assert set(virsh.OPTIONS) <= set(ALL)


def test_hints_name_what_there_is() -> None:
    for name, hint in virsh.OPTIONS.items():
        named = set(re.findall(r"--[a-z-]+", hint.replace("(virsh migrate --offline)", "")))
        assert named <= ours(), name
        for names in re.findall(r"--flags ('[^']*'|[A-Z_]+)", hint):
            flags = _core.parse_flags(names.strip("'"))
            assert flags.bits
    assert set(virsh.OTHER_COMMANDS.values()) <= {name for name, _ in main.COMMANDS}


@pytest.mark.parametrize(
    ("line", "hints"),
    [
        (  # openQA
            "migrate --verbose --live --p2p --persistent --change-protection --unsafe --compressed "
            "--abort-on-error --postcopy --postcopy-after-precopy --undefinesource guest qemu+tcp://b/system",
            [
                "--verbose: leave it out",
                "--change-protection: leave it out",
                "--compressed: --flags COMPRESSED",
                "--abort-on-error: --flags ABORT_ON_ERROR",
                "--postcopy-after-precopy: --policy first-pass",
            ],
        ),
        (
            "migrate --live --persistent --undefinesource --verbose g qemu+tcp://b/system",
            ["--verbose: leave it"],
        ),
        ("migrate --live --unsafe --suspend G qemu+ssh://b/system", ["--suspend: --flags PAUSED"]),
        (
            "migrate --domain g --desturi qemu+tcp://b/system",
            ["--domain: write the guest without", "--desturi: "],
        ),
        (
            "migrate g qemu:///b --auto-converge --timeout 1800",
            ["--auto-converge: ", "--timeout: --deadline"],
        ),
        ("migrate --tunnelled --migrateuri=tcp://b g qemu+tcp://b/system", ["--tunnelled: --tunnel"]),
        (
            "migrate --parallel --postcopy-resume g qemu+tcp://b/system",
            ["--flags PARALLEL", "pcmig resume DOMAIN"],
        ),
        ("migrate g qemu+tcp://b/system tcp://10.0.0.2/", ["--migrateuri tcp://10.0.0.2/"]),
        ("migrate --live g qemu+tcp://b/system --p2p tcp://10.0.0.2/ ''", ["--migrateuri tcp://10.0.0.2/"]),
        ("migrate g qemu+tcp://b/system more", ["unrecognized arguments: more"]),
        ("migrate --bogus g qemu+tcp://b/system", ["unrecognized arguments: --bogus"]),
        ("-c qemu:///system migrate g qemu+tcp://b/system", ["-c stands behind the command"]),
        ("--connect=qemu:///system migrate g qemu+tcp://b/system", ["-c stands behind the command"]),
        ("migrate-postcopy g", ["virsh's migrate-postcopy is here 'pcmig switch'"]),
        ("domjobabort g", ["'pcmig abort'"]),
    ],
)
def test_lines(capsys: pytest.CaptureFixture[str], line: str, hints: list[str]) -> None:
    said = run(capsys, line)
    for hint in hints:
        assert hint in said
    assert "Traceback" not in said and said.count("pcmig: ") <= 1


def test_behind_two_dashes_a_word_is_the_guests_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--verbose: " not in run(capsys, "migrate -- --verbose")
