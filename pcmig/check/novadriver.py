# SPDX-License-Identifier: Apache-2.0
"""Whether nova-compute finds pcmig's driver, and whether it reads the flags it is given: the rows, and how
the facts are gathered.

Nova loads `nova.virt.` + compute_driver (nova/virt/driver.py, load_compute_driver), so what counts is the
Python that runs nova-compute, not the one that runs `pcmig check`. It is asked in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace

import pcmig
from pcmig.check.model import HERE, Facts, Row
from pcmig.nova import unread

TIMEOUT_S = 20

# find_spec() imports the packages above: nova and nova.virt, whose __init__.py are empty.
_ASK = """
import importlib.util, json, site, sys
nova = importlib.util.find_spec("nova")
shim = importlib.util.find_spec("nova.virt.pcmig") if nova else None
pcmig = importlib.util.find_spec("pcmig")
print(json.dumps({
    "nova": nova and nova.origin, "shim": shim and shim.origin, "pcmig": pcmig and pcmig.origin,
    "python": list(sys.version_info[:2]), "site": (site.getsitepackages() or [""])[0],
}))
"""


@dataclass(frozen=True)
class NovaDriver:
    """What the Python of nova-compute says."""

    python: str  # its command
    nova: str | None = None  # nova/__init__.py; None: it has no Nova
    shim: str | None = None  # what `pcmig.PostCopyLibvirtDriver` is found in; None: it is not found
    pcmig: str | None = None  # pcmig/__init__.py, as that Python imports it
    version: tuple[int, int] | None = None
    site: str = ""  # a folder whose .pth files that Python reads
    error: str | None = None  # why it could not be asked
    unread: tuple[str, ...] = ()  # migration flags in its files that have no effect, a line each


def gather() -> NovaDriver | None:
    """Asks the Python of nova-compute, or this one if it has Nova. None: there is no Nova."""
    command = shutil.which("nova-compute")
    python = interpreter_of(command) if command is not None else None
    if python is None:
        if importlib.util.find_spec("nova") is None:
            return None
        python = [sys.executable]
    found = ask(python)
    return None if found is None else replace(found, unread=tuple(unread.unread(unread.files())))


def interpreter_of(command: str) -> list[str] | None:
    """What the first line of the script COMMAND names, or None."""
    try:
        with open(command, "rb") as file:
            line = file.readline(512).decode("utf-8", "replace")
        words = shlex.split(line.removeprefix("#!")) if line.startswith("#!") else []
    except (OSError, ValueError):
        return None
    return words if any(os.path.basename(word).startswith("python") for word in words) else None


def ask(python: list[str]) -> NovaDriver | None:
    """What PYTHON says. None: it has no Nova."""
    name = shlex.join(python)
    try:
        answer = subprocess.run(
            [*python, "-c", _ASK], capture_output=True, text=True, timeout=TIMEOUT_S, cwd="/", check=False
        )
        said = json.loads(answer.stdout) if answer.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as err:
        return NovaDriver(name, error=str(err))
    if said is None:
        lines = answer.stderr.strip().splitlines()
        return NovaDriver(name, error=lines[-1] if lines else f"exit code {answer.returncode}")
    if said["nova"] is None:
        return None
    major, minor = said["python"]
    return NovaDriver(name, said["nova"], said["shim"], said["pcmig"], (major, minor), said["site"])


def nova_driver(f: Facts) -> Row | None:
    nova = f.nova
    if nova is None:
        return None
    name, wanted = "nova driver", "nova.virt.pcmig, in the Python that runs nova-compute"
    why = "nova-compute with compute_driver = pcmig.PostCopyLibvirtDriver does not start without"
    if nova.error is not None:
        return Row(HERE, name, "unknown", f"{nova.python}: {nova.error}", wanted, why)
    if nova.shim is not None:
        return Row(HERE, name, "ok", nova.shim)
    found = f"{nova.python} has {nova.nova} and no nova.virt.pcmig"
    return Row(HERE, name, "warn", found, wanted, why, way_out(nova))


def nova_flags(f: Facts) -> Row | None:
    """Only where there is something to say."""
    if f.nova is None or not f.nova.unread:
        return None
    return Row(
        HERE,
        "nova flags",
        "warn",
        "; ".join(f.nova.unread),
        "live_migration_flag and block_migration_flag, once, in the section [libvirt]",
        "nova-compute says nothing of an option that it does not know, and migrates without these flags",
        "put the flags where they are read, or remove the line",
    )


def way_out(nova: NovaDriver) -> str:
    """How that Python gets to see the driver."""
    here = pathlib.Path(pcmig.__file__).parents[1]
    if nova.version is not None and nova.version != sys.version_info[:2] and nova.pcmig is None:
        version = ".".join(map(str, nova.version))
        return (
            f"pcmig here is not compiled for its Python {version}: install it there too, from a wheel that "
            "was built with that version"
        )
    append = f'sys.path.append("{here}"); ' if nova.pcmig is None else ""
    return (
        f"put this one line into {nova.site or 'SITE-PACKAGES'}/pcmig.pth: "
        f"import sys; {append}import pcmig.nova.finder"
    )
