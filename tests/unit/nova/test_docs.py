# SPDX-License-Identifier: Apache-2.0
"""doc/operate/nova.rst says what the code does."""

from __future__ import annotations

import pathlib
import re
import textwrap

import pytest

from pcmig.nova import conf as pcmig_conf
from pcmig.nova import flags
from pcmig.nova.settings import ConfigError
from tests.unit.nova.nova_conf import make, nova_bits

PAGE = (pathlib.Path(__file__).parents[3] / "doc" / "operate" / "nova.rst").read_text(encoding="utf-8")
FILE = "/etc/nova/nova.conf"


def examples() -> list[tuple[str, str]]:
    """(configuration, what nova-compute says to it) from the chapter on bad configuration."""
    chapter = PAGE.partition("Bad configuration\n^")[2].partition("\nWhen the driver is not found\n^")[0]
    blocks = re.findall(r"::\n\n((?:   .*\n|\n)+)", chapter)
    pairs = []
    for block in blocks:
        config, _, message = textwrap.dedent(block).strip().rpartition(f"\n\n{FILE}: ")
        pairs.append((f"{config}\n", f"{FILE}: {' '.join(message.split())}"))
    return pairs


def test_there_are_examples() -> None:
    assert len(examples()) == 6


@pytest.mark.parametrize(("config", "message"), examples())
def test_bad_configuration(tmp_path: pathlib.Path, config: str, message: str) -> None:
    conf = make(tmp_path, config)
    with pytest.raises(ConfigError) as caught:
        pcmig_conf.load(conf)
        flags.merge(conf, *nova_bits(conf))
    assert str(caught.value).replace(f"{tmp_path}/nova.conf", FILE) == message


def test_every_option_is_in_the_table() -> None:
    for option in pcmig_conf.PCMIG_OPTS:
        default = option.default[0] if isinstance(option.default, list) and option.default else option.default
        row = re.search(rf"   \* - ``{option.name}``\n     -(.*)\n     - (.*)", PAGE)
        assert row is not None, option.name
        assert row[1].strip().strip("`") == ("" if default in (None, []) else str(default)), option.name
