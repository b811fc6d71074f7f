# SPDX-License-Identifier: Apache-2.0
"""pcmig flags, through the command line's own entry and the real core."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

import pytest

from pcmig import _core
from pcmig.cli import base, flags, main

OLD_LINE = (
    "VIR_MIGRATE_UNDEFINE_SOURCE, VIR_MIGRATE_PEER2PEER, VIR_MIGRATE_LIVE, VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY"
)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(["flags", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, err = run(capsys, "--json", *arguments)
    assert err == ""
    return code, json.loads(out)


def test_old_line_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--nova", OLD_LINE)
    assert (code, err) == (base.ExitCode.DONE, "")
    lines = out.splitlines()
    assert lines[0].split() == ["given", "today", "bit", "since", "meaning"]
    old = next(line for line in lines if line.startswith("VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY"))
    assert old.split()[1:4] == ["VIR_MIGRATE_POSTCOPY", "0x8000", "1.3.3"]
    assert "Policy first-pass" in old
    assert "bits:      0x8013 (32787)" in lines
    assert "--policy first-pass" in out
    assert "TLS" not in out
    # What Nova adds by itself, such as VIR_MIGRATE_PERSIST_DEST, is shown and needs no suggestion.
    with_nova = next(line for line in lines if line.startswith("with Nova:"))
    assert _core.parse_flags(with_nova.removeprefix("with Nova:")).bits == 0x801B
    assert "warning" not in out and "suggested" not in out


def test_old_line_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run_json(capsys, OLD_LINE)
    assert code == base.ExitCode.DONE
    assert report["ok"] is True
    assert (report["bits"], report["hex"], report["policy"]) == (0x8013, "0x8013", "first-pass")
    assert report["flags"][-1] == {
        "given": "VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY",
        "position": OLD_LINE.index("VIR_MIGRATE_POSTCOPY"),
        "name": "VIR_MIGRATE_POSTCOPY",
        "bit": 0x8000,
        "since": "1.3.3",
        "policy": "first-pass",
        "meaning": report["flags"][-1]["meaning"],
    }
    assert [finding["severity"] for finding in report["findings"]] == ["warning"]
    assert "VIR_MIGRATE_PERSIST_DEST" in report["suggested"]


def test_nothing_to_suggest(capsys: pytest.CaptureFixture[str]) -> None:
    line = "live,peer2peer,undefine_source,persist_dest,postcopy"
    code, report = run_json(capsys, line, "--nova")
    assert (code, report["findings"], report["suggested"]) == (0, [], None)
    code, out, _ = run(capsys, line, "--nova")
    assert code == 0
    assert "suggested" not in out


def test_conflict(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "live,peer2peer,tunnelled,postcopy")
    assert (code, err) == (base.ExitCode.USAGE, "")
    assert "error:     libvirt refuses post-copy through its own tunnel; remove VIR_MIGRATE_TUNNELLED" in out
    assert "pcmig tunnel" in out
    code, report = run_json(capsys, "live,peer2peer,tunnelled,postcopy")
    assert (code, report["ok"]) == (base.ExitCode.USAGE, False)


def test_with_nova_it_is_pcmigs_tunnel(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "live,peer2peer,undefine_source,persist_dest,tunnelled,postcopy", "--nova")
    assert code == 0
    assert "warning:   VIR_MIGRATE_TUNNELLED together with post-copy means pcmig's tunnel" in out
    assert "VIR_MIGRATE_POSTCOPY, through pcmig's tunnel" in out
    assert "suggested" not in out  # without the flag it would not be encrypted


def test_what_nova_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run_json(capsys, "--nova", "LIVE, NON_SHARED_INC")
    assert (code, report["suggested"]) == (0, "VIR_MIGRATE_LIVE")
    assert "every live migration would copy disks" in report["findings"][0]["message"]
    # ... which is what a block migration is for.
    code, report = run_json(capsys, "--block", "LIVE, NON_SHARED_INC")
    assert (code, report["findings"], report["suggested"]) == (0, [], None)
    code, report = run_json(capsys, "--nova", "LIVE, PAUSED, UNSAFE")
    assert (code, report["suggested"]) == (2, "LIVE, UNSAFE")


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("live_migration_flag=LIVE", "live_migration_flag"),
        ("  live_migration_flag = 'LIVE'", "live_migration_flag"),
        ("block_migration_flag: LIVE,\n   TLS", "block_migration_flag"),
    ],
)
def test_a_whole_line(capsys: pytest.CaptureFixture[str], line: str, option: str) -> None:
    code, report = run_json(capsys, line)
    assert (code, report["nova"]["option"]) == (0, option)
    assert report["flags"][0]["position"] == line.index("LIVE")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("libvirt_live_migration_flag = LIVE",), "nova-compute does not read libvirt_live_migration_flag"),
        (("live-migration-flag=LIVE",), "nova-compute does not read live-migration-flag: the options are"),
        (("--block", "live_migration_flag=LIVE"), "--block contradicts live_migration_flag"),
        (("live_migration_flag = live_migration_flag = LIVE",), "begins with the name of the option"),
    ],
)
def test_whole_lines_that_are_wrong(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (base.ExitCode.USAGE, "")
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "severities"),
    [
        (("live,postcopy,parallel",), ["warning"]),
        (("live,postcopy,parallel", "--qemu-version", "10.0.2"), ["error"]),
        (("live,postcopy,parallel", "--qemu-version", "10.1"), []),
        (("live,parallel,zerocopy", "--libvirt-version", "8.4.0"), ["error"]),
        (("live,parallel,zerocopy", "--libvirt-version", "8.5"), []),
        (("paused,live",), []),
        (("paused,live,peer2peer,undefine_source,persist_dest", "--nova"), ["error"]),
    ],
)
def test_versions_and_nova(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], severities: list[str]
) -> None:
    code, report = run_json(capsys, *arguments)
    assert [finding["severity"] for finding in report["findings"]] == severities
    assert code == (base.ExitCode.USAGE if "error" in severities else base.ExitCode.DONE)


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "LIVE, VIR_MIGRATE_TUNNELED")
    assert (code, out) == (base.ExitCode.USAGE, "")
    assert 'flag 2, "VIR_MIGRATE_TUNNELED" at character 7' in err
    assert "did you mean VIR_MIGRATE_TUNNELLED?" in err
    assert "Traceback" not in err
    code, report = run_json(capsys, "LIVE, VIR_MIGRATE_TUNNELED")
    assert code == base.ExitCode.USAGE
    assert report["ok"] is False
    error = report["error"]
    assert (error["position"], error["item"]) == (6, 2)
    assert (error["token"], error["suggestion"]) == ("VIR_MIGRATE_TUNNELED", "VIR_MIGRATE_TUNNELLED")


def test_line_that_is_not_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    """As sys.argv has it: every byte that is not UTF-8 is a surrogate."""
    code, out, err = run(capsys, "live,\udcff")
    assert (code, out) == (base.ExitCode.USAGE, "")
    assert "at character 6" in err
    code, report = run_json(capsys, "live,\udcff")
    assert report["error"]["token"] == "\\udcff"


def test_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, " , ")
    assert code == base.ExitCode.DONE
    assert "line:      (no flags)" in out


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == base.ExitCode.DONE
    for row in [*_core.flags_table(), *_core.flags_old_names()]:
        assert row["name"] in out
        assert row["doc"] in out
    code, report = run_json(capsys)
    assert (code, len(report["flags"]), len(report["old_names"])) == (0, 21, 2)


@pytest.mark.parametrize(
    "text", ["", "x", "10.", "10.1.2.3", "-1", "0", "10.1000", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_bad_versions(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        flags.version(text)
    with pytest.raises(SystemExit) as caught:
        main.main(["flags", "live", f"--qemu-version={text}"])
    assert caught.value.code == base.ExitCode.USAGE
    assert "--qemu-version" in capsys.readouterr().err


def test_versions() -> None:
    assert flags.version("10") == 10_000_000
    assert flags.version("10.1") == 10_001_000
    assert flags.version("12.8.3") == 12_008_003


def test_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that wraps to the width of the terminal, with all that the plain text has."""
    monkeypatch.setattr(flags, "is_terminal", lambda stream: True)
    monkeypatch.setattr(base, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setenv("NO_COLOR", "1")
    code, out, _ = run(capsys, "live,tunnelled,postcopy")
    assert code == base.ExitCode.USAGE
    assert "0x8005 (32773)" in out
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert max(map(len, plain.splitlines())) <= 72
    assert not re.search(r"\x1b\[[\d;]*3\d", out)  # bold, and no colour
