# SPDX-License-Identifier: Apache-2.0
"""What a host is reached for, over ssh and over TLS, as it is typed."""

from __future__ import annotations

import pytest

from tests.remote.scene import RemoteScene, uri

TRANSPORTS = pytest.mark.parametrize("transport", ["ssh", "tls"])


@TRANSPORTS
@pytest.mark.parametrize("policy", ["auto", "immediate"])
def test_migrate(scene: RemoteScene, transport: str, policy: str) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    run = scene.run("migrate", "--policy", policy, scene.name, uri(transport, destination))
    run.expect(0, "done: ")
    scene.expect_at(destination, run)
