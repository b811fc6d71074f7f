# SPDX-License-Identifier: Apache-2.0
"""Options of [pcmig]: what is read, what is refused and in which words."""

from __future__ import annotations

import difflib
import importlib.metadata
import io
import pathlib
import re

import pytest
from oslo_config import cfg, generator

from pcmig import _core
from pcmig.nova import conf as pcmig_conf
from pcmig.nova.settings import ConfigError, Setting, read
from tests.unit.nova.nova_conf import make

SAMPLE = pathlib.Path(__file__).parents[3] / "etc" / "nova" / "pcmig.conf.sample"
GENERATOR = ["--namespace", "pcmig", "--wrap-width", "90"]
REGENERATE = f"oslo-config-generator {' '.join(GENERATOR)} --output-file {'/'.join(SAMPLE.parts[-3:])}"


def loaded(folder: pathlib.Path, text: str) -> pcmig_conf.Options:
    return pcmig_conf.load(make(folder, f"[pcmig]\n{text}\n"))


def refused(folder: pathlib.Path, text: str) -> str:
    """The error for TEXT in [pcmig], without the file's name, which it must begin with."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder}/nova.conf: [pcmig] ")
    return message.removeprefix(f"{folder}/nova.conf: ")


def test_defaults(tmp_path: pathlib.Path) -> None:
    options = loaded(tmp_path, "")
    assert (options.policy, options.params, options.postcopy_bandwidth_mib) == ("auto", {}, 0)
    assert (options.default_choice, options.request_sources) == ("allowed", ("api",))
    assert options.image_property == "hint"
    assert (options.connect_timeout_ms, options.trace_dir) == (10_000, None)
    assert options.policy_setting == Setting("pcmig", "policy", "auto")
    assert not options.count_faults


@pytest.mark.parametrize(
    "policy", ["auto", "first-pass", "passes=3", "deadline=0.5", "immediate", "manual", "never"]
)
def test_policies(tmp_path: pathlib.Path, policy: str) -> None:
    options = loaded(tmp_path, f"policy = {policy}")
    assert options.policy == policy
    assert options.policy_setting is not None
    assert options.policy_setting.explicit
    assert options.policy_setting.where == str(tmp_path / "nova.conf")


def test_everything_set(tmp_path: pathlib.Path) -> None:
    options = loaded(
        tmp_path,
        "params = still_ms=5, request_wait_ms = 3,\nparams = quickack=0\npostcopy_bandwidth = 40\n"
        "default_choice = forbidden\nimage_property = honour\nfault_latency = monitor\n"
        "request_sources = metadata, api\nconnect_timeout = 3\n"
        f"trace_dir = {tmp_path}",
    )
    assert options.params == {"still_ms": 5, "request_wait_ms": 3, "quickack": 0}
    assert options.postcopy_bandwidth_mib == 40
    assert options.default_choice == "forbidden"
    assert options.count_faults
    assert options.image_property == "honour"
    assert options.request_sources == ("metadata", "api")
    assert options.connect_timeout_ms == 3000
    assert options.trace_dir == str(tmp_path)


def test_networks_to_resume_over(tmp_path: pathlib.Path) -> None:
    options = loaded(tmp_path, "resume_networks = %s-mgmt, tcp://[fd00::%s]:49152, %s-mgmt, 192.0.2.7")
    assert options.resume_networks == ("tcp://%s-mgmt", "tcp://[fd00::%s]:49152", "tcp://192.0.2.7")
    assert options.resume_uris("b1")[0] == "tcp://b1-mgmt"
    assert loaded(tmp_path, "").resume_uris("b1") == ()


@pytest.mark.parametrize("item", ["ssh://%s", "two words", "%d-mgmt", "tcp://", "fd00::1", "tcp://%s/path"])
def test_what_is_no_network(tmp_path: pathlib.Path, item: str) -> None:
    assert f"{item!r} is neither a name or an address nor a URI" in refused(
        tmp_path, f"resume_networks = {item}"
    )


def test_nobody_may_ask(tmp_path: pathlib.Path) -> None:
    assert loaded(tmp_path, "request_sources = nobody").request_sources == ()


def test_every_parameter_and_its_bounds(tmp_path: pathlib.Path) -> None:
    for row in _core.params():
        for bound in (row["min"], row["max"]):
            assert loaded(tmp_path, f"params = {row['name']}={bound}").params == {row["name"]: bound}
        for beyond in (row["min"] - 1, row["max"] + 1):
            assert refused(tmp_path, f"params = {row['name']}={beyond}") == (
                f"[pcmig] params = {row['name']}={beyond}: {row['name']} takes a whole number from "
                f"{row['min']} "
                f"to {row['max']} ({row['unit']}), not {beyond}"
            )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "policy = postcopy",
            '[pcmig] policy = postcopy: unknown policy "postcopy": it is one of auto, first-pass, passes=N, '
            "deadline=SECONDS, immediate, manual, never",
        ),
        ("policy =", '[pcmig] policy = : unknown policy "": it is one of auto, first-pass, passes=N, '),
        ("policy = passes", "[pcmig] policy = passes: policy passes needs a value: passes=N"),
        ("policy = deadline=soon", '[pcmig] policy = deadline=soon: policy deadline: "soon" is not a number'),
        ("params = passes", "[pcmig] params = passes: 'passes' is not NAME=VALUE"),
        ("params = pases=2", "[pcmig] params = pases=2: unknown parameter 'pases'; did you mean passes?"),
        (
            "params = xyz=2",
            "[pcmig] params = xyz=2: unknown parameter 'xyz'; 'pcmig migrate --help-params' lists",
        ),
        ("params = passes=two", "[pcmig] params = passes=two: passes takes a whole number from 1 to 1000000"),
        ("params = passes=²", "[pcmig] params = passes=²: passes takes a whole number from 1 to 1000000"),
        ("params = passes=1, passes=2", "[pcmig] params = passes=1, passes=2: passes is given twice"),
        (
            "postcopy_bandwidth = -1",
            "[pcmig] postcopy_bandwidth = -1: Should be greater than or equal to 0",
        ),
        ("connect_timeout = soon", "[pcmig] connect_timeout = soon: must be a whole number"),
        ("connect_timeout = 0", "[pcmig] connect_timeout = 0: Should be greater than or equal to 1"),
        (
            "image_property = sometimes",
            "[pcmig] image_property = sometimes: Valid values are [honour, hint, ignore], but "
            "found 'sometimes'",
        ),
        (
            "default_choice = maybe",
            "[pcmig] default_choice = maybe: Valid values are [forbidden, allowed, required], but "
            "found 'maybe'",
        ),
        (
            "request_sources = apis",
            "[pcmig] request_sources = apis: Valid values are [api, metadata, nobody], but found 'apis'",
        ),
        ("request_sources = api, nobody", "[pcmig] request_sources = api, nobody: nobody must stand alone"),
        ("trace_dir = traces", "[pcmig] trace_dir = traces: not an absolute path"),
        ("trace_dir = /dev/null", "[pcmig] trace_dir = /dev/null: there is no such folder: create it"),
    ],
)
def test_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    assert refused(tmp_path, text).startswith(message.rstrip())


def test_options_of_old_are_there_again(tmp_path: pathlib.Path) -> None:
    conf = make(
        tmp_path, "[libvirt]\nlive_migration_flag = LIVE\n[DEFAULT]\nblock_migration_flag = PEER2PEER\n"
    )
    pcmig_conf.register_opts(conf)  # once more, as a second import of the driver would
    assert conf.libvirt.live_migration_flag == "LIVE"
    assert conf.libvirt.block_migration_flag == "PEER2PEER"  # where it was before Icehouse


def test_where_a_setting_comes_from(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = make(tmp_path, "[libvirt]\nlive_migration_permit_post_copy = yes\n")
    setting = read(conf, "libvirt", "live_migration_permit_post_copy")
    assert str(setting) == "[libvirt] live_migration_permit_post_copy = true"
    assert str(read(conf, "libvirt", "virt_type")) == "[libvirt] virt_type = kvm (the default)"
    assert str(read(conf, "libvirt", "live_migration_flag")) == (
        "[libvirt] live_migration_flag = (not set) (the default)"
    )
    assert read(conf, "libvirt", "no_such_option") is None
    assert read(conf, "no_such_group", "option") is None
    conf.set_override("virt_type", "qemu", group="libvirt")
    overridden = read(conf, "libvirt", "virt_type")
    assert overridden is not None
    assert (overridden.explicit, overridden.where) == (True, "an override")
    monkeypatch.setenv("OS_PCMIG__POLICY", "manual")
    policy = read(make(tmp_path, ""), "pcmig", "policy")
    assert policy is not None
    assert (policy.value, policy.where) == ("manual", "the environment (OS_PCMIG__POLICY)")


def test_an_error_is_one_line() -> None:
    error = Setting("pcmig", "policy", "a\nb", True, "/etc/nova/nova.conf").error("is\nbad")
    assert str(error) == "/etc/nova/nova.conf: [pcmig] policy = a b: is bad"


def test_unregistered_options_are_a_mistake_of_the_program() -> None:
    with pytest.raises(LookupError, match="call register_opts"):
        pcmig_conf.load(cfg.ConfigOpts())


def test_help_is_written_as_nova_writes_it() -> None:
    for _, options in pcmig_conf.list_opts():
        for option in options:
            text = option.help or ""
            assert text.strip()[0].isupper(), option.name
            assert all(len(line) <= 88 for line in text.splitlines()), option.name
            bounded = isinstance(option, cfg.IntOpt) or getattr(option.type, "choices", None)
            assert "Possible values:" in text or bounded, option.name
            for name in re.findall(r"``\[pcmig\] (\w+)``", text):
                assert name in {opt.name for opt in pcmig_conf.PCMIG_OPTS}, (option.name, name)


def test_entry_point() -> None:
    (point,) = importlib.metadata.entry_points(group="oslo.config.opts", name="pcmig")
    assert point.load() is pcmig_conf.list_opts


def test_sample_is_up_to_date() -> None:
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(GENERATOR)
    made = io.StringIO()
    generator.generate(conf, made)
    committed = SAMPLE.read_text(encoding="utf-8")
    difference = "".join(
        difflib.unified_diff(
            committed.splitlines(keepends=True), made.getvalue().splitlines(keepends=True), "committed", "now"
        )
    )
    assert committed == made.getvalue(), f"regenerate it: {REGENERATE}\n{difference}"
