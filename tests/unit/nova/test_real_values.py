# SPDX-License-Identifier: Apache-2.0
"""Lines as they stand in public files: guides, deployment tools, Nova's own tests. Each gets the same answer
from nova-compute and from `pcmig flags`."""

from __future__ import annotations

import json
import pathlib

import pytest

from pcmig.cli import main
from pcmig.nova import flags
from pcmig.nova.settings import ConfigError
from tests.unit.nova.nova_conf import bits, make, nova_bits

U, P, L, T = (f"VIR_MIGRATE_{name}" for name in ("UNDEFINE_SOURCE", "PEER2PEER", "LIVE", "TUNNELLED"))
D, INC, UNSAFE = (f"VIR_MIGRATE_{name}" for name in ("PERSIST_DEST", "NON_SHARED_INC", "UNSAFE"))
QUOTE, COMMA = ("\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}"), "\N{FULLWIDTH COMMA}"
LEFT_OUT = "libvirt's tunnel cannot carry disks"  # a warning; the host starts
BACKSLASH = "flag 1 has a backslash (\\) at character 1: leave it out"

# Live migrations: the value, and what becomes of it without and with live_migration_permit_post_copy: "ok",
# "tunnel" (pcmig's), or what the refusal says.
LIVE = [
    (f"{U}, {P}", "ok", "ok"),  # Nova's default until Juno
    (f"{U},{P},{L}", "ok", "ok"),
    (f"{U}, {P},{L}", "ok", "ok"),
    (f"{U}, {P}, {L}, {T}", "ok", "tunnel"),  # Nova's default until it removed the option
    (f"{U},{P},{L},{T}", "ok", "tunnel"),
    (f'"{U},{P},{L},{D},{T}"', "ok", "tunnel"),  # Ceph's page on OpenStack
    (f'\\"{U},{P},{L},{D},{T}\\"', BACKSLASH, BACKSLASH),  # out of a shell's double quotes
    (
        f"{QUOTE[0]}{COMMA.join((U, P, L, D, T))}{QUOTE[1]}",
        "a typographic quotation mark (U+201C) at character 1: leave it out; it has a full-width comma "
        "(U+FF0C) at character 29: write a plain comma",
        "a typographic quotation mark (U+201C)",
    ),
    (f"{U},{P},{L},{D}", "ok", "ok"),
    (f"{U}, {P}, {L}, {D}, {T}", "ok", "tunnel"),
    (f"{U}, {P},{L},{UNSAFE}", "ok", "ok"),
    (f"'{U}, {P}, {L}, {T},{UNSAFE}'", "ok", "tunnel"),
    (f"%{{def_option}}, {UNSAFE}", "nothing was put in for a template's variable", "a sign of templates (%)"),
    (f"\\\n  {U}, \\\n  {P}, \\\n  {L}, \\\n  {UNSAFE}", BACKSLASH, BACKSLASH),
    (f"{U}, {L}", "ok", "ok"),  # for Xen: no PEER2PEER
    (
        f"{U}, {P}, {L}, {T}{INC}",  # Nova's own unit test
        f"at character {len(f'{U}, {P}, {L}, ') + 1}, is several flags in one: write a comma between them",
        "is several flags in one",
    ),
    (
        f"{U},{P},{L},{D},{T} \\",
        "flag 6 has a backslash (\\) at character 115: leave",
        "flag 6 has a backslash",
    ),
]
BLOCK = [
    (f"{U}, {P}, {INC}, {L}", "ok", "ok"),
    (f"{U},{P},{INC}", "ok", "ok"),
    (f"{U}, {P}, {INC}", "ok", "ok"),
    (f"{U},{P},{INC},{L}", "ok", "ok"),
    (f"{U}, {P}, {L}, {INC}", "ok", "ok"),
    (f"{U}, {P}, {L}, {T}, {INC}", "ok", "tunnel"),  # Nova's default until it removed the option
    (f"{U},{P}, {L},{T},{INC}", "ok", "tunnel"),
]
# Not verbatim: what else is seen around such lines.
VARIANTS = [
    (f'"{U}, {P}, {L}', "a quotation mark", "a quotation mark"),
    (f'["{U}", "{P}"]', "a bracket ([) at character 1", "a bracket"),
    (f"{U},\N{NO-BREAK SPACE}{P}", "a no-break space (U+00A0)", "a no-break space"),
    (f"{U}, {P} # from the guide", "a comment has to stand on a line of its own", "a number sign (#)"),
    (f"{U},\n  {P},\n  {L}", "ok", "ok"),
    (f"'\"{U}, {P}\"'", "a quotation mark", "a quotation mark"),
    ("", "ok", "ok"),
]
CASES = [
    (option, value, permit, answer)
    for option, values in (("live", LIVE), ("block", BLOCK), ("live", VARIANTS), ("block", VARIANTS))
    for value, without, with_it in values
    for permit, answer in ((False, without), (True, with_it))
]


def by_driver(folder: pathlib.Path, option: str, value: str, permit: bool) -> tuple[str, int]:
    """What nova-compute says at its start, and the flags it then has; 0 where it does not start."""
    permitted = f"live_migration_permit_post_copy = {str(permit).lower()}"
    conf = make(folder, f"[libvirt]\n{option}_migration_flag = {value}\n{permitted}\n")
    try:
        merged = flags.merge(conf, *nova_bits(conf))
    except ConfigError as err:
        return str(err), 0
    kind = merged.of(option == "block")
    return ("tunnel" if kind.tunnel else "ok"), kind.bits


def by_command(
    capsys: pytest.CaptureFixture[str], option: str, value: str, permit: bool, whole: bool
) -> tuple[str, int]:
    """The same of `pcmig flags`; WHOLE: with the option's name before the value."""
    line = f"  {option}_migration_flag = {value}" if whole else value
    arguments = ["--block"] if option == "block" else ["--nova"]
    arguments += ["--permit-post-copy"] if permit else []
    code = main.main(["flags", "--json", *arguments, "--", line])
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert code == (0 if report["ok"] else 2)
    if not report["ok"]:
        return report["error"]["message"] if "error" in report else report["findings"][0]["message"], 0
    nova = report["nova"]
    assert nova["option"] == f"{option}_migration_flag"
    return ("tunnel" if nova["tunnel"] else "ok"), bits(
        *(n.removeprefix("VIR_MIGRATE_") for n in nova["flags"])
    )


@pytest.mark.parametrize(("option", "value", "permit", "answer"), CASES)
def test_both_give_the_right_answer(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    permit: bool,
    answer: str,
) -> None:
    said, driver_bits = by_driver(tmp_path, option, value, permit)
    assert said == answer if answer in ("ok", "tunnel") else answer in said
    assert "\n" not in said
    told, command_bits = by_command(capsys, option, value, permit, False)
    assert told == answer if answer in ("ok", "tunnel") else told.split(" (")[0] in said
    assert command_bits == driver_bits
    whole, whole_bits = by_command(capsys, option, value, permit, True)
    assert (
        whole == answer
        if answer in ("ok", "tunnel")
        else whole.partition(" has ")[2].split(" at ")[0] in said
    )
    assert whole_bits == driver_bits


def test_there_are_24() -> None:
    assert (len(LIVE), len(BLOCK)) == (17, 7)


def test_novas_old_default_for_disks_does_not_keep_a_host_down(tmp_path: pathlib.Path) -> None:
    """libvirt could not do what it asks for; the flag goes, and a warning says what that means."""
    conf = make(tmp_path, f"[libvirt]\nblock_migration_flag = {BLOCK[5][0]}\n")
    result = flags.merge(conf, *nova_bits(conf))
    assert result.block.bits == nova_bits(conf)[1]
    (warning,) = result.warnings
    assert warning.startswith(
        f"[libvirt] block_migration_flag: {LEFT_OUT}, so VIR_MIGRATE_TUNNELLED is left out"
    )
    # An option of today that asks for the same is set by somebody who runs today's Nova: refused as before.
    conf = make(
        tmp_path, f"[libvirt]\nblock_migration_flag = {BLOCK[5][0]}\nlive_migration_tunnelled = true\n"
    )
    with pytest.raises(ConfigError, match=LEFT_OUT):
        flags.merge(conf, *nova_bits(conf))


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (  # Ceph's line and today's option
            f'live_migration_flag = "{U},{P},{L},{D},{T}"\nlive_migration_permit_post_copy = true',
            "live migrations with block migration are not encrypted, those without are: add "
            "VIR_MIGRATE_TUNNELLED to [libvirt] block_migration_flag, or set [pcmig] tunnel = pcmig",
        ),
        (
            f"live_migration_flag = {U},{P},{L},{T}",
            "live migrations with block migration are not encrypted, those without are: permit "
            "post-copy for them too and set [pcmig] tunnel = pcmig, or set [libvirt] "
            "live_migration_with_native_tls = true",
        ),
        (
            "block_migration_flag = TLS",
            "live migrations without block migration are not encrypted, those with are: add "
            "VIR_MIGRATE_TUNNELLED to [libvirt] live_migration_flag",
        ),
        ("live_migration_flag = TUNNELLED, POSTCOPY\nblock_migration_flag = TUNNELLED, POSTCOPY", None),
        ("live_migration_with_native_tls = true", None),
    ],
)
def test_only_one_kind_is_encrypted(tmp_path: pathlib.Path, text: str, warning: str | None) -> None:
    conf = make(tmp_path, f"[libvirt]\n{text}\n")
    found = [w for w in flags.merge(conf, *nova_bits(conf)).warnings if "encrypted" in w]
    assert found == ([] if warning is None else [warning])


@pytest.mark.parametrize("value", ["$def_option, VIR_MIGRATE_UNSAFE", "${none.such}", "${libvirt.none}"])
def test_a_variable_that_is_none_is_one_line(tmp_path: pathlib.Path, value: str) -> None:
    """oslo.config puts other options in for $names: not a traceback at nova-compute's start."""
    conf = make(tmp_path, f"[libvirt]\nlive_migration_flag = {value}\n")
    with pytest.raises(ConfigError) as caught:
        flags.merge(conf, *nova_bits(conf))
    message = str(caught.value)
    assert message.startswith("[libvirt] live_migration_flag: ")
    assert "write the value itself, or $$ for a dollar sign" in message
    assert "\n" not in message
