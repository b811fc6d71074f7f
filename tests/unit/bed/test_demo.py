# SPDX-License-Identifier: Apache-2.0
"""Options of tools/demo: what cannot be ends with status 2 and the option's name."""

from __future__ import annotations

import pathlib

import pytest

from tests.bed.demo import parse


def test_defaults() -> None:
    options = parse(["--tool", "virsh"])
    assert options.rate_mbit == 100
    assert (options.spec.memory_mib, options.spec.worker_mib) == (256, 128)
    assert options.policy == "auto"
    assert not options.keep


def test_worker_is_half_of_the_guest() -> None:
    assert parse(["--tool", "virsh", "--memory", "512"]).spec.worker_mib == 256


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rate", "0"], "link rate"),
        (["--rate", "fast"], "--rate"),
        (["--memory", "32"], "does not boot"),
        (["--worker", "250"], "does not fit"),
        (["--write-rate", "-5"], "negative"),
        (["--precopy-limit", "0"], "--precopy-limit"),
        (["--stack", "woody"], "--stack"),
        (["--accel", "xen"], "--accel"),
        (["--json", "/no/such/folder/file"], "--json /no/such/folder/file"),
        (["--pol", "auto"], "--pol"),
    ],
)
def test_what_cannot_be(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["--tool", "virsh", *words])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_folder_is_no_json_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--tool", "virsh", "--json", str(tmp_path)])
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["sometimes", "manual", "never", "passes=0"])
def test_policies_that_would_not_end(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pcmig._core")
    with pytest.raises(SystemExit):
        parse(["--policy", policy])
    assert f"--policy {policy}" in capsys.readouterr().err
