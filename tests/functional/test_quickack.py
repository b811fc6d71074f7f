# SPDX-License-Identifier: Apache-2.0
"""Acknowledgements at once: the route option is there in post-copy and gone afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bed import Host
from tests.functional.scene import ROOT, Scene


def route_options(host: Host) -> str:
    """The routes of the host's network namespace, as ip(8) prints them."""
    return subprocess.run(
        host.command(["ip", "route", "show"]), capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(autouse=True)
def plain_routes(scene: Scene) -> None:
    """A pcmig that another test killed in post-copy has left the option, which harms nothing."""
    for host in scene.bed.hosts:
        for line in route_options(host).splitlines():
            words = line.split()
            if "quickack" in words:
                at = words.index("quickack")
                change = ["ip", "route", "change", *words[:at], *words[at + 2 :]]
                subprocess.run(host.command(change), check=True)


def foretold(host: Host, address: str) -> str:
    """What pcmig check finds on the route from HOST to ADDRESS."""
    code = f"from pcmig.check import gather; print(gather.quickack({address!r}))"
    command = host.command(["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", code])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("wanted", [True, False], ids=["set", "left-alone"])
def test_the_route_has_quickack_during_post_copy_only(scene: Scene, wanted: bool) -> None:
    source = scene.source
    before = route_options(source)
    assert "quickack" not in before
    words = ["--policy", "immediate", *([] if wanted else ["--set", "quickack=0"])]
    command = scene.start(
        "migrate",
        scene.name,
        scene.bed.other(source).remote_uri,
        "-c",
        source.uri,
        "--migrateuri",
        scene.bed.other(source).migrate_uri,
        *words,
        host=source,
        report=True,
    )
    scene.wait_for(lambda: "post-copy" in command.said(), "post-copy has begun")
    during = route_options(source)
    run = command.wait().expect(0, "done: ")
    assert ("quickack 1" in during) is wanted, during
    assert run.report is not None
    assert run.report["status"]["quickack"] == ("set" if wanted else "off")
    assert route_options(source) == before
    scene.expect_at(scene.bed.other(source), run)


def test_an_administrators_quickack_stays(scene: Scene) -> None:
    source = scene.source
    before = route_options(source).strip()
    assert foretold(source, scene.bed.other(source).address) == "False"
    change = ["ip", "route", "change", *before.split()]
    subprocess.run(source.command([*change, "quickack", "1"]), check=True)
    try:
        with_option = route_options(source)
        assert foretold(source, scene.bed.other(source).address) == "True"
        run = scene.migrate("--policy", "immediate").expect(0, "done: ")
        assert run.report is not None
        assert run.report["status"]["quickack"] == "present"
        assert route_options(source) == with_option
        scene.expect_at(scene.bed.other(source), run)
    finally:
        subprocess.run(source.command(change), check=True)
