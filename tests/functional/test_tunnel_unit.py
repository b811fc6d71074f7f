# SPDX-License-Identifier: Apache-2.0
"""The tunnel's unit under a systemd of its own, in a container on a copy of this machine's files that is
thrown away: it runs as its own user without rights, reads a key that root has put there, and sees no socket
of the host's."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pcmig.tunnel import keygen
from tests.functional.scene import ROOT

pytestmark = pytest.mark.timeout(240)

ETC = ROOT / "etc"
FILES = (
    "systemd/pcmig-tunnel.service:systemd/system",
    "sysusers.d/pcmig-tunnel.conf:sysusers.d",
    "tmpfiles.d/pcmig-tunnel.conf:tmpfiles.d",
    "tmpfiles.d/pcmig.conf:tmpfiles.d",
)

# Each line of its output is "KEY: TEXT".
SCRIPT = r"""#!/bin/bash
exec > /root/said 2> /root/errors
say() { echo "$1: $(echo $2)"; }
state() { systemctl show --value -p "$1" pcmig-tunnel; }
until_active() { for i in $(seq 100); do [ "$(state ActiveState)" = active ] && return; sleep 0.2; done; }
systemctl start pcmig-tunnel
say started "$(state ActiveState)"
pid=$(state MainPID)
say user "$(ps -o user= -p $pid)"
say capabilities "$(grep -h ^Cap /proc/$pid/status | cut -f 2 | sort -u)"
say run "$(nsenter -t $pid -m find /run ! -type d | sort)"
say folder "$(stat -c '%a %U' /run/pcmig/tunnel)"
pcmig tunnel probe localhost > /dev/null && say probe ok
install -m 600 -o root -g root /root/pki/*.pem /etc/pki/pcmig/
systemctl reload pcmig-tunnel && say reload ok
rm /etc/pki/pcmig/ca.pem
systemctl reload pcmig-tunnel || say reload-without-ca refused
install -m 600 /root/pki/*.pem /etc/pki/pcmig/
kill -9 $pid
sleep 0.5
until_active
say restarts "$(state NRestarts)"
pcmig tunnel probe localhost > /dev/null && say probe-again ok
systemd-analyze security --threshold=15 --no-pager pcmig-tunnel > /dev/null && say exposure ok
journalctl --no-pager -u pcmig-tunnel >&2
systemctl poweroff
"""


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """This machine's files, with nothing started but the script."""
    top, merged = tmp_path / "top", tmp_path / "root"
    for folder in (top, merged):
        folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", top], check=True)
    try:
        (top / "upper").mkdir()
        (top / "work").mkdir()
        options = f"lowerdir=/,upperdir={top}/upper,workdir={top}/work"
        subprocess.run(["mount", "-t", "overlay", "none", "-o", options, merged], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", merged], check=True)
    finally:
        subprocess.run(["umount", top], check=True)


def test_the_unit(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    keygen.make_ca(tmp_path / "pki", 10)
    keygen.make_host(tmp_path / "pki", ["localhost"], 10)
    for folder in ("root/pki", "etc/pki/pcmig"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for file in (tmp_path / "pki/localhost").iterdir():
            shutil.copy(file, root / folder)
    for pair in FILES:
        sample, place = pair.split(":")
        (root / "etc" / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(ETC / sample, root / "etc" / place)
    units = root / "etc/systemd/system"
    for wants in units.glob("*.wants"):
        shutil.rmtree(wants)
    (root / "usr/bin/pcmig").unlink(missing_ok=True)
    command = root / "usr/local/bin/pcmig"  # where pip puts it
    command.unlink(missing_ok=True)
    # The unit sees neither /home nor /tmp, where a checkout may be.
    command.write_text(
        '#!/bin/sh\nPYTHONPATH=/opt/tree:/opt/tree/common exec /opt/venv/bin/python -m pcmig.cli.main "$@"\n'
    )
    command.chmod(0o755)
    script = root / "root/script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    (units / "script.service").write_text("[Service]\nType=oneshot\nExecStart=/root/script\n")
    (units / "script.target").write_text(
        "[Unit]\nRequires=basic.target dbus.service script.service\nAfter=basic.target\nAllowIsolate=yes\n"
    )
    words = ["systemd-nspawn", "-q", "-D", str(root), "--register=no", "--keep-unit", "--link-journal=no"]
    words += [
        "--console=pipe",
        f"--bind-ro={ROOT}:/opt/tree",
        f"--bind-ro={sys.prefix}:/opt/venv",
        "--private-network",
    ]
    words += ["-b", "systemd.unit=script.target"]
    with (tmp_path / "console").open("wb") as console:
        subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=200, check=False
        )
    said = root / "root/said"
    assert said.exists(), (tmp_path / "console").read_text(errors="replace")
    print((root / "root/errors").read_text())
    assert dict(line.split(": ", 1) for line in said.read_text().splitlines()) == {
        "started": "active",
        "user": "pcmig",
        "capabilities": "0" * 16,
        "run": "/run/pcmig/tunnel.control /run/systemd/notify",
        "folder": "3733 pcmig",
        "probe": "ok",
        "reload": "ok",
        "reload-without-ca": "refused",
        "restarts": "1",
        "probe-again": "ok",
        "exposure": "ok",
    }
