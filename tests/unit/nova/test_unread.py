# SPDX-License-Identifier: Apache-2.0
"""Options that only look like live_migration_flag, or that another line hides: compared with what oslo.config
makes of the same files."""

from __future__ import annotations

import pathlib

import pytest
from oslo_config import cfg

from pcmig.check import Facts, Side
from pcmig.check.novadriver import NovaDriver, nova_flags
from pcmig.nova import conf as pcmig_conf
from pcmig.nova.unread import files, files_of, unread

LIVE, BLOCK = (
    f"is not read: the option is {kind}_migration_flag, in the section [libvirt]"
    for kind in ("live", "block")
)


def written(folder: pathlib.Path, *texts: str) -> list[str]:
    paths = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.conf"
        path.write_text(text, encoding="utf-8")
        paths.append(str(path))
    return paths


@pytest.mark.parametrize(
    ("texts", "value", "said"),
    [
        (["[libvirt]\nlive_migration_flag = LIVE\n"], "LIVE", []),
        (["[DEFAULT]\nlive_migration_flag = LIVE\n"], "LIVE", []),
        (
            ["[LIBVIRT]\n# live-migration-flag = X\n live_migration_flag = no\nlive_migration_flag: LIVE\n"],
            "LIVE",
            [],
        ),
        (
            ["[libvirt]\nlibvirt_live_migration_flag = LIVE\n"],
            None,
            [f"0.conf, line 2: [libvirt] libvirt_live_migration_flag {LIVE}"],
        ),
        (
            ["[DEFAULT]\nlive-migration-flag=A\n[pcmig]\nblock_migration_flags: B\n"],
            None,
            [
                f"0.conf, line 2: [DEFAULT] live-migration-flag {LIVE}",
                f"0.conf, line 4: [pcmig] block_migration_flags {BLOCK}",
            ],
        ),
        (
            ["[default]\nlive_migration_flag = A\n"],
            None,
            [f"0.conf, line 2: [default] live_migration_flag {LIVE}"],
        ),
        (
            ["[DEFAULT]\nlive_migration_flag = A\n[libvirt]\nlive_migration_flag = LIVE\n"],
            "LIVE",
            [
                "0.conf, line 2: [DEFAULT] live_migration_flag is not read: 0.conf, line 4: [libvirt] "
                "live_migration_flag takes its place"
            ],
        ),
        (
            ["[libvirt]\nlive_migration_flag = A\n", "[DEFAULT]\nlive_migration_flag = LIVE\n"],
            "LIVE",
            [
                "0.conf, line 2: [libvirt] live_migration_flag is not read: 1.conf, line 2: [DEFAULT] "
                "live_migration_flag takes its place"
            ],
        ),
        (
            ["[libvirt]\nlive_migration_flag = A\nlive_migration_flag = LIVE\n"],
            "LIVE",
            [],
        ),  # as people know it
        (["[libvirt]\nlive_migration_permit_post_copy = true\nlive_migration_uri = x\n"], None, []),
    ],
)
def test_unread(tmp_path: pathlib.Path, texts: list[str], value: str | None, said: list[str]) -> None:
    paths = written(tmp_path, *texts)
    conf = cfg.ConfigOpts()
    pcmig_conf.register_opts(conf)
    texts_are_whole = not any(line.startswith(" ") for text in texts for line in text.splitlines())
    conf(
        [word for path in paths for word in ("--config-file", path)] if texts_are_whole else [],
        project="nova",
    )
    if texts_are_whole:
        assert conf.libvirt.live_migration_flag == value
        assert files_of(conf) == paths
    assert [line.replace(f"{tmp_path}/", "") for line in unread(paths)] == said


def test_files(tmp_path: pathlib.Path) -> None:
    for name in (
        "nova.conf.d/9.conf",
        "nova.conf.d/1.conf",
        "nova.conf",
        "nova-compute.conf",
        "api-paste.ini",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    names = [str(pathlib.Path(path).relative_to(tmp_path)) for path in files(str(tmp_path))]
    assert names == ["nova.conf", "nova-compute.conf", "nova.conf.d/1.conf", "nova.conf.d/9.conf"]
    assert unread([str(tmp_path), str(tmp_path / "none")]) == []
    assert files_of(object()) == []


def test_row_of_check() -> None:
    here = Side("qemu:///system")
    assert nova_flags(Facts(here=here)) is None
    assert nova_flags(Facts(here=here, nova=NovaDriver("python3"))) is None
    row = nova_flags(Facts(here=here, nova=NovaDriver("python3", unread=("a is not read", "b is not read"))))
    assert row is not None
    assert (row.name, row.status, row.found) == ("nova flags", "warn", "a is not read; b is not read")
