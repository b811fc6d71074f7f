# SPDX-License-Identifier: Apache-2.0
"""Flags of old and options of today, merged: what comes out, what is refused and in which words."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oslo_config import cfg

from pcmig import _core
from pcmig.nova import conf as pcmig_conf
from pcmig.nova import flags
from pcmig.nova.settings import ConfigError
from tests.unit.nova.nova_conf import LIBVIRT, bits, make, nova_bits

BASE = "VIR_MIGRATE_UNDEFINE_SOURCE, VIR_MIGRATE_PEER2PEER, VIR_MIGRATE_LIVE"
JUNO = f"{BASE}, VIR_MIGRATE_TUNNELLED, VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY, VIR_MIGRATE_ENABLE_POSTCOPY"
NOVA_LIVE = bits("live", "peer2peer", "undefine_source", "persist_dest")
NOVA_BLOCK = NOVA_LIVE | bits("non_shared_inc")
POSTCOPY = bits("postcopy")
NO_BLOCK = (
    "live migrations with block migration stay without post-copy: add VIR_MIGRATE_POSTCOPY to [libvirt] "
    "block_migration_flag, or set [libvirt] live_migration_permit_post_copy = true"
)


def merged(
    folder: pathlib.Path, text: str, *, qemu: int | None = 11_001_002, libvirt: int | None = 12_008_000
) -> flags.MigrationFlags:
    conf = make(folder, text)
    return flags.merge(conf, *nova_bits(conf), qemu_version=qemu, libvirt_version=libvirt)


def refused(folder: pathlib.Path, text: str, **versions: int | None) -> str:
    """The one line for TEXT, with FILE for the file."""
    with pytest.raises(ConfigError) as caught:
        merged(folder, text, **versions)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/nova.conf", "FILE")


def test_nothing_set_is_novas_own(tmp_path: pathlib.Path) -> None:
    result = merged(tmp_path, "")
    assert (result.live.bits, result.block.bits) == (NOVA_LIVE, NOVA_BLOCK)
    assert not result.post_copy
    assert result.warnings == ()
    assert set(result.block.origins.values()) == {"Nova"}


@pytest.mark.parametrize(
    "options",
    [
        "live_migration_tunnelled = true",  # with disks libvirt refuses it, but that is Nova's own affair
        "live_migration_with_native_tls = true",
        "live_migration_permit_auto_converge = true",
        "live_migration_parallel_connections = 4",
        "virt_type = lxc",
        "live_migration_uri = xenmigr://%s/system",
        "live_migration_flag =",
        "live_migration_flag = ,",
    ],
)
def test_without_post_copy_and_flags_of_old_nothing_changes(tmp_path: pathlib.Path, options: str) -> None:
    text = f"[libvirt]\n{options}\n"
    conf = make(tmp_path, text)
    result = merged(tmp_path, text)
    assert (result.live.bits, result.block.bits) == nova_bits(conf)
    assert result.warnings == ()


def test_todays_option_alone(tmp_path: pathlib.Path) -> None:
    result = merged(tmp_path, "[libvirt]\nlive_migration_permit_post_copy = true\n")
    assert (result.live.bits, result.block.bits) == (NOVA_LIVE | POSTCOPY, NOVA_BLOCK | POSTCOPY)
    assert (result.live.policy, result.live.policy_from) == ("auto", "[pcmig] policy")
    assert result.of(True).post_copy
    assert result.of(False).post_copy
    assert result.warnings == ()
    assert result.live.origins["VIR_MIGRATE_POSTCOPY"] == "[libvirt] live_migration_permit_post_copy = true"


def test_strings_of_the_first_patches(tmp_path: pathlib.Path) -> None:
    """The flags that only enable, and the one that also says when, with today's names and those of old."""
    for name, policy in (
        ("VIR_MIGRATE_ENABLE_POSTCOPY", "auto"),
        ("VIR_MIGRATE_POSTCOPY", "auto"),
        ("VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY", "first-pass"),
        ("VIR_MIGRATE_ENABLE_POSTCOPY, VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY", "first-pass"),
    ):
        result = merged(tmp_path, f"[libvirt]\nlive_migration_flag = {BASE}, {name}\n")
        assert result.live.bits == NOVA_LIVE | POSTCOPY
        assert result.live.policy == policy
        assert result.live.post_copy
        assert (result.block.bits, result.block.post_copy) == (NOVA_BLOCK, False)
        assert result.warnings == (NO_BLOCK,)
        assert result.live.origins["VIR_MIGRATE_POSTCOPY"] == "[libvirt] live_migration_flag"


def test_both_strings(tmp_path: pathlib.Path) -> None:
    result = merged(
        tmp_path,
        f"[libvirt]\nlive_migration_flag = {BASE}, VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY\n"
        f"block_migration_flag = {BASE}, VIR_MIGRATE_NON_SHARED_INC, VIR_MIGRATE_POSTCOPY\n",
    )
    assert (result.live.bits, result.block.bits) == (NOVA_LIVE | POSTCOPY, NOVA_BLOCK | POSTCOPY)
    assert (result.live.policy, result.live.policy_from) == ("first-pass", "[libvirt] live_migration_flag")
    assert (result.block.policy, result.block.policy_from) == ("auto", "[pcmig] policy")
    assert result.warnings == ()


def test_block_string_alone(tmp_path: pathlib.Path) -> None:
    result = merged(tmp_path, f"[libvirt]\nblock_migration_flag = {BASE}, postcopy\n")
    assert (result.live.post_copy, result.block.post_copy) == (False, True)
    assert result.warnings == (
        NO_BLOCK.replace(" with ", " without ").replace("block_migration_flag", "live_migration_flag"),
    )


def test_flags_of_old_are_added_to_todays(tmp_path: pathlib.Path) -> None:
    result = merged(
        tmp_path,
        "[libvirt]\nlive_migration_flag = POSTCOPY, TLS\nlive_migration_parallel_connections = 2\n",
    )
    assert result.live.bits == NOVA_LIVE | POSTCOPY | bits("tls", "parallel")
    assert result.live.origins["VIR_MIGRATE_PARALLEL"] == "[libvirt] live_migration_parallel_connections = 2"


def test_what_has_no_use_is_left_out_with_a_warning(tmp_path: pathlib.Path) -> None:
    result = merged(
        tmp_path,
        "[libvirt]\nlive_migration_permit_auto_converge = true\n"
        "live_migration_flag = POSTCOPY, AUTO_CONVERGE, NON_SHARED_INC\nblock_migration_flag = POSTCOPY\n",
    )
    assert (result.live.bits, result.block.bits) == (NOVA_LIVE | POSTCOPY, NOVA_BLOCK | POSTCOPY)
    assert len(result.warnings) == 3
    converge, storage, block_converge = result.warnings
    assert converge.startswith("[libvirt] live_migration_flag: auto-converge slows the guest down")
    assert "every live migration would copy disks" in storage
    assert block_converge.startswith("[libvirt] block_migration_flag: auto-converge")
    assert all(warning.endswith(" (it is left out)") for warning in result.warnings)


def test_parallel_needs_a_number(tmp_path: pathlib.Path) -> None:
    (warning,) = merged(tmp_path, "[libvirt]\nlive_migration_flag = LIVE, PARALLEL\n").warnings
    assert "without [libvirt] live_migration_parallel_connections: QEMU opens its own default" in warning


MEANS = (
    "VIR_MIGRATE_TUNNELLED together with post-copy means pcmig's tunnel, as libvirt's own refuses post-copy: "
    "'pcmig tunnel' has to run on all hosts (set [pcmig] tunnel = pcmig, or none)"
)


def test_libvirts_tunnel_with_post_copy_means_pcmigs(tmp_path: pathlib.Path) -> None:
    result = merged(tmp_path, f"[libvirt]\nlive_migration_flag = {JUNO}\n")
    assert result.live.tunnel and not result.block.tunnel
    assert result.live.bits == NOVA_LIVE | POSTCOPY and result.live.policy == "first-pass"
    assert result.warnings[0] == f"[libvirt] live_migration_flag: {MEANS}"
    result = merged(
        tmp_path, "[libvirt]\nlive_migration_permit_post_copy = true\nlive_migration_tunnelled = true\n"
    )
    assert result.live.tunnel and result.block.tunnel
    assert not (result.live.bits | result.block.bits) & bits("tunnelled")
    assert result.warnings == (f"[libvirt] live_migration_tunnelled: {MEANS}",)
    # Without post-copy it is libvirt's.
    result = merged(tmp_path, "[libvirt]\nlive_migration_flag = LIVE, TUNNELLED\n")
    assert not result.live.tunnel and result.live.bits & bits("tunnelled")


def test_tunnel_asked_for(tmp_path: pathlib.Path) -> None:
    result = merged(tmp_path, "[libvirt]\nlive_migration_permit_post_copy = true\n[pcmig]\ntunnel = pcmig\n")
    assert result.live.tunnel and result.block.tunnel and result.warnings == ()
    (warning,) = merged(tmp_path, "[pcmig]\ntunnel = pcmig\n").warnings
    assert warning.startswith("[pcmig] tunnel = pcmig has no effect")
    several = "[libvirt]\nlive_migration_permit_post_copy = true\nlive_migration_parallel_connections = 4\n"
    result = merged(tmp_path, f"{several}[pcmig]\ntunnel = pcmig\n")
    assert result.live.tunnel and result.live.bits & bits("parallel")
    assert merged(tmp_path, f"{several[:-2]}62\n[pcmig]\ntunnel = pcmig\n").live.tunnel
    with pytest.raises(ConfigError, match="parallel_connections = 63: pcmig's tunnel carries 62 at the most"):
        merged(tmp_path, f"{several[:-2]}63\n[pcmig]\ntunnel = pcmig\n")
    assert not merged(tmp_path, f"{several[:-2]}63\n[pcmig]\ntunnel = none\n").live.tunnel
    door = (pathlib.Path(__file__).parents[3] / "csrc/tunnel/local/door.c").read_text()
    assert "STREAMS_MAX = 64 }" in door, "the 62, the main one and that of requests"
    permitted = "[libvirt]\nlive_migration_permit_post_copy = true\n"
    assert not merged(tmp_path, f"{permitted}[pcmig]\ntunnel = none\n").live.tunnel
    assert not merged(tmp_path, permitted).live.tunnel


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "live_migration_with_native_tls = true\n[pcmig]",
            "FILE: [pcmig] tunnel = pcmig: pcmig's tunnel, which encrypts by itself, contradicts "
            "VIR_MIGRATE_TLS of [libvirt] live_migration_with_native_tls = true (FILE); remove one of "
            "the two",
        ),
        (
            "live_migration_flag = TLS\n[pcmig]",
            "FILE: [pcmig] tunnel = pcmig: pcmig's tunnel, which encrypts by itself, contradicts "
            "VIR_MIGRATE_TLS of [libvirt] live_migration_flag; remove one of the two",
        ),
        (
            "[pcmig]\nresume_networks = %s-mgmt",
            "FILE: [pcmig] resume_networks = tcp://%s-mgmt: an interrupted migration would be resumed around "
            "pcmig's tunnel, in clear; remove it",
        ),
    ],
)
def test_what_goes_around_the_tunnel(tmp_path: pathlib.Path, text: str, message: str) -> None:
    config = f"[libvirt]\nlive_migration_permit_post_copy = true\n{text}\ntunnel = pcmig\n"
    assert refused(tmp_path, config) == message.replace("tcp://%s-mgmt", "%s-mgmt")


TUNNEL = (
    "libvirt refuses post-copy through its own tunnel; remove VIR_MIGRATE_TUNNELLED and encrypt with the "
    "pcmig tunnel, which carries post-copy (pcmig migrate --tunnel; [pcmig] tunnel = pcmig in nova.conf), or "
    "with VIR_MIGRATE_TLS"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"[libvirt]\nlive_migration_flag = {JUNO}\n[pcmig]\ntunnel = none",
            f"FILE: [libvirt] live_migration_flag = {JUNO}: {TUNNEL}; this line would do: {BASE}, "
            "VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY, VIR_MIGRATE_ENABLE_POSTCOPY",
        ),
        (
            f"[libvirt]\nblock_migration_flag = {BASE}, TUNNELLED, NON_SHARED_INC, POSTCOPY\n"
            "[pcmig]\ntunnel = none",
            f"FILE: [libvirt] block_migration_flag = {BASE}, TUNNELLED, NON_SHARED_INC, POSTCOPY: "
            f"{TUNNEL}; this "
            f"line would do: {BASE}, NON_SHARED_INC, POSTCOPY",
        ),
        (
            "[libvirt]\nlive_migration_flag = LIVE, POSTCOPI",
            'FILE: [libvirt] live_migration_flag = LIVE, POSTCOPI: flag 2, "POSTCOPI" at character 7, is no '
            "migration flag of libvirt: did you mean VIR_MIGRATE_POSTCOPY? ('pcmig flags' lists them all)",
        ),
        (
            "[libvirt]\nlive_migration_flag = LIVE, postcopy\nlive_migration_permit_post_copy = no",
            "FILE: [libvirt] live_migration_flag = LIVE, postcopy: postcopy contradicts [libvirt] "
            "live_migration_permit_post_copy = false (FILE); remove the flag, or set [libvirt] "
            "live_migration_permit_post_copy = true",
        ),
        (
            "[libvirt]\nlive_migration_flag = PARALLEL\nlive_migration_parallel_connections = 1",
            "FILE: [libvirt] live_migration_flag = PARALLEL: PARALLEL contradicts [libvirt] "
            "live_migration_parallel_connections = 1 (FILE); remove the flag, or set [libvirt] "
            "live_migration_parallel_connections = 2 or more",
        ),
        (
            "[libvirt]\nlive_migration_flag = TLS\nlive_migration_with_native_tls = false",
            "FILE: [libvirt] live_migration_flag = TLS: TLS contradicts [libvirt] "
            "live_migration_with_native_tls = false (FILE); remove the flag, or set [libvirt] "
            "live_migration_with_native_tls = true",
        ),
        (
            "[libvirt]\nlive_migration_flag = TLS\nlive_migration_tunnelled = true",
            "FILE: [libvirt] live_migration_flag = TLS: Nova refuses libvirt's tunnel together with "
            "QEMU's TLS; "
            "remove VIR_MIGRATE_TUNNELLED; [libvirt] live_migration_tunnelled = true (FILE) asks for "
            "VIR_MIGRATE_TUNNELLED",
        ),
        (
            "[libvirt]\nlive_migration_permit_post_copy = true\nlive_migration_tunnelled = true\n"
            "[pcmig]\ntunnel = none",
            f"FILE: [libvirt] live_migration_tunnelled = true: {TUNNEL}; [libvirt] "
            "live_migration_tunnelled = "
            "true (FILE) asks for VIR_MIGRATE_TUNNELLED; [libvirt] live_migration_permit_post_copy = "
            "true (FILE) "
            "asks for VIR_MIGRATE_POSTCOPY",
        ),
        (
            "[libvirt]\nlive_migration_flag = LIVE, PAUSED",
            "FILE: [libvirt] live_migration_flag = LIVE, PAUSED: the guest would arrive paused, and "
            "Nova does not "
            "resume it; remove VIR_MIGRATE_PAUSED; this line would do: LIVE",
        ),
        (
            "[libvirt]\nblock_migration_flag = NON_SHARED_DISK",
            "FILE: [libvirt] block_migration_flag = NON_SHARED_DISK: Nova prepares the images on the "
            "destination "
            "and copies what is above them (VIR_MIGRATE_NON_SHARED_INC); remove VIR_MIGRATE_NON_SHARED_DISK",
        ),
        (
            "[libvirt]\nlive_migration_flag = POSTCOPY_AFTER_PRECOPY\n[pcmig]\npolicy = auto",
            "FILE: [libvirt] live_migration_flag = POSTCOPY_AFTER_PRECOPY: POSTCOPY_AFTER_PRECOPY stands for "
            "[pcmig] policy = first-pass, which contradicts [pcmig] policy = auto (FILE); set "
            "[pcmig] policy = "
            "first-pass, or write VIR_MIGRATE_POSTCOPY instead of POSTCOPY_AFTER_PRECOPY",
        ),
        (
            "[libvirt]\nlive_migration_permit_post_copy = true\n[pcmig]\npolicy = never",
            "FILE: [pcmig] policy = never: contradicts [libvirt] live_migration_permit_post_copy = "
            "true, which "
            "permits post-copy; remove one of the two",
        ),
        (
            "[pcmig]\ndefault_choice = required",
            "FILE: [pcmig] default_choice = required: every live migration would be refused, because "
            "post-copy "
            "is not permitted; set [libvirt] live_migration_permit_post_copy = true",
        ),
        (
            "[libvirt]\nvirt_type = lxc\nlive_migration_flag = POSTCOPY",
            "FILE: [libvirt] virt_type = lxc: post-copy, permitted by [libvirt] live_migration_flag, "
            "exists only "
            "with kvm and qemu; remove one of the two",
        ),
        (
            "[libvirt]\nlive_migration_permit_post_copy = true\nlive_migration_uri = qemu+tcp://b/system",
            "FILE: [libvirt] live_migration_uri = qemu+tcp://b/system: post-copy, permitted by [libvirt] "
            "live_migration_permit_post_copy = true, needs a URI of QEMU with one %s for the "
            "destination, such as "
            "qemu+tcp://%s/system; or set live_migration_scheme instead",
        ),
        (
            "[libvirt]\nlive_migration_with_native_tls = perhaps",
            "FILE: [libvirt] live_migration_with_native_tls = perhaps: Unexpected boolean value 'perhaps'",
        ),
    ],
)
def test_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    if "perhaps" not in text:
        assert refused(tmp_path, text + "\n") == message
        return
    with pytest.raises(ConfigError) as caught:  # Nova could compute nothing from this one
        flags.merge(make(tmp_path, text + "\n"), NOVA_LIVE, NOVA_BLOCK)
    assert str(caught.value).replace(f"{tmp_path}/nova.conf", "FILE") == message


def test_uri_with_a_place_for_the_destination(tmp_path: pathlib.Path) -> None:
    text = "[libvirt]\nlive_migration_permit_post_copy = true\nlive_migration_uri = qemu+tls://%s/system\n"
    assert merged(tmp_path, text).post_copy


def test_parallel_and_post_copy_by_version(tmp_path: pathlib.Path) -> None:
    text = "[libvirt]\nlive_migration_flag = postcopy\nlive_migration_parallel_connections = 4\n"
    assert merged(tmp_path, text).live.bits & bits("parallel")
    message = refused(tmp_path, text, qemu=10_000_002)
    assert "QEMU before 10.1 cannot send over several connections" in message
    assert "[libvirt] live_migration_parallel_connections = 4 (FILE) asks for VIR_MIGRATE_PARALLEL" in message
    unknown = merged(tmp_path, text, qemu=None, libvirt=None)
    assert unknown.live.bits & bits("parallel")  # not taken away on a guess
    assert any("(the version of QEMU is not known here)" in warning for warning in unknown.warnings)


def test_policy_without_post_copy_is_a_warning(tmp_path: pathlib.Path) -> None:
    result = merged(tmp_path, "[pcmig]\npolicy = deadline=20\n")
    assert result.warnings == (
        "[pcmig] policy = deadline=20 has no effect: set [libvirt] live_migration_permit_post_copy = true",
    )
    assert merged(tmp_path, "[pcmig]\npolicy = never\n").warnings == ()


def test_policy_of_pcmig_is_that_of_both_kinds(tmp_path: pathlib.Path) -> None:
    result = merged(
        tmp_path, "[libvirt]\nlive_migration_permit_post_copy = true\n[pcmig]\npolicy = deadline=20\n"
    )
    assert (result.live.policy, result.block.policy) == ("deadline=20", "deadline=20")


NAMES = [row["name"] for row in _core.flags_table()] + [row["name"] for row in _core.flags_old_names()]
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "live_migration_flag": st.lists(st.sampled_from(NAMES), max_size=6).map(", ".join),
        "block_migration_flag": st.lists(st.sampled_from(NAMES), max_size=6).map(", ".join),
        "live_migration_permit_post_copy": st.booleans(),
        "live_migration_permit_auto_converge": st.booleans(),
        "live_migration_tunnelled": st.booleans(),
        "live_migration_with_native_tls": st.booleans(),
        "live_migration_parallel_connections": st.integers(1, 3),
        "virt_type": st.sampled_from(["kvm", "qemu", "lxc"]),
    },
)


@settings(max_examples=300)
@given(SETTINGS, st.sampled_from([None, 10_000_002, 11_001_002]))
def test_whatever_is_set_either_works_or_is_one_line(values: dict[str, object], qemu: int | None) -> None:
    conf = cfg.ConfigOpts()
    conf.register_opts(LIBVIRT, group="libvirt")
    pcmig_conf.register_opts(conf)
    conf([])
    for name, value in values.items():
        conf.set_override(name, value, group="libvirt")
    live, block = nova_bits(conf)
    try:
        result = flags.merge(conf, live, block, qemu_version=qemu)
    except ConfigError as err:
        assert "\n" not in str(err)
        assert any(f"[libvirt] {name}" in str(err) for name in values)
        return
    # Nova's fixed flags are never taken away, and nothing is left that libvirt, QEMU or Nova refuses.
    assert result.live.bits & NOVA_LIVE == NOVA_LIVE
    assert result.block.bits & NOVA_BLOCK == NOVA_BLOCK
    asked = values.get("live_migration_flag") or result.live.bits & POSTCOPY
    if asked:
        found = _core.flags_from_bits(result.live.bits).check(qemu, None, True)
        assert not [text for severity, text, _ in found if severity == "error"]
    else:
        assert result.live.bits == live
    assert set(result.live.origins) == set(_core.flags_from_bits(result.live.bits).names)
