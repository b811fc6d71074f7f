# SPDX-License-Identifier: Apache-2.0
"""A fake daemon, and certificates made once."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from pcmig.tunnel import keygen
from tests.unit.tunnel.fake_daemon import FakeDaemon, fake_daemon


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as found:
        yield found


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A CA and the hosts a and b. To be read only."""
    folder = tmp_path_factory.mktemp("pki") / "made"
    keygen.make_ca(folder, 30)
    keygen.make_host(folder, ["a", "10.77.0.1"], 10)
    keygen.make_host(folder, ["b", "b.example.org", "fe80::1"], 10)
    return folder
