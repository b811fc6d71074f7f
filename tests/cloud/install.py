# SPDX-License-Identifier: Apache-2.0
"""The cloud's Python: OpenStack from PyPI in a virtual environment of its own, kept in the cache folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.bed.errors import BedError
from tests.bed.host import Host
from tests.bed.layer import Reporter, cache_dir, cache_lock
from tests.bed.procs import run
from tests.cloud.service import RUN, outside

HERE = pathlib.Path(__file__).parent
ROOT = pathlib.Path(__file__).parents[2]
PIP_PATIENCE_S = 1800
SHOWN_LINES = 25
KEPT_WHEELS = 24


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment in the cache."""

    name: str
    requirements: pathlib.Path
    prefix: str  # of its folder's name
    needed_mib: int


OPENSTACK = Environment("OpenStack", HERE / "requirements.txt", "", 1500)
HORIZON = Environment("Horizon", HERE / "requirements-dashboard.txt", "horizon-", 800)


@dataclasses.dataclass(frozen=True)
class Project:
    """What a wheel is made of."""

    root: pathlib.Path
    wheel: str
    patterns: tuple[str, ...]


def _pure(folder: str) -> Project:
    """One of the packages that are Python alone."""
    patterns = ("pyproject.toml", "VERSION", "README.rst", "LICENSE", f"pcmig_{folder}/**/*")
    return Project(ROOT / folder, f"pcmig_{folder}-*.whl", patterns)


COMMON, API, CLIENT, DASHBOARD = map(_pure, ("common", "api", "client", "dashboard"))
COMPUTE = Project(
    ROOT,
    "pcmig-*.whl",
    (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "VERSION",
        "README.rst",
        "LICENSE",
        "csrc/**/*.[ch]",
        "pcmig/**/*.py*",
    ),
)

# What goes where, as doc/operate/install.rst says.
ON_COMPUTE_HOSTS = (COMMON, COMPUTE)
ON_CONTROL_NODE = (COMMON, API, CLIENT)  # nova-api, and the clients of whoever tests
ON_HORIZON = (DASHBOARD,)


def ensure_venv(reporter: Reporter = lambda _: None) -> pathlib.Path:
    """The folder with OpenStack's environment in `venv`; about 1 minute and 700 MiB the first time."""
    return ensure(OPENSTACK, reporter)


def ensure_horizon(reporter: Reporter = lambda _: None) -> pathlib.Path:
    """The same with Horizon, about 1 minute and 400 MiB; apart, as Horizon's host has no part of Nova."""
    return ensure(HORIZON, reporter)


def ensure(wanted: Environment, reporter: Reporter) -> pathlib.Path:
    """The folder with an environment in `venv`."""
    # The interpreter under its full name: a host's layer may have another python3.
    python = pathlib.Path(sys.executable).resolve()
    lines = [line.partition("#")[0].strip() for line in wanted.requirements.read_text().splitlines()]
    recipe = "\n".join([*filter(None, lines), str(python)])
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    folder = cache_dir() / "cloud" / f"{wanted.prefix}{digest}"
    if (folder / "ready").exists():
        return folder
    # A lock of its own: beds without OpenStack do not wait for it.
    with cache_lock(reporter, "cloud", f"{wanted.prefix}lock") as cache:
        if (folder / "ready").exists():
            return folder
        free_mib = shutil.disk_usage(cache).free >> 20
        if free_mib < wanted.needed_mib:
            raise BedError(
                f"{cache} has {free_mib} MiB free, {wanted.name}'s packages need {wanted.needed_mib}"
            )
        shutil.rmtree(folder, ignore_errors=True)  # scripts in it name their interpreter: built in its place
        folder.mkdir(parents=True)
        started_s = time.monotonic()
        reporter(f"installing {wanted.name} (PyPI) in {folder}: 1 to 3 minutes, log in install.log there")
        log = folder / "install.log"
        logged([str(python), "-m", "venv", str(folder / "venv")], log, f"making {wanted.name}'s environment")
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check", "install"]
        logged([*pip, "-r", str(wanted.requirements)], log, f"installing {wanted.name} from PyPI")
        (folder / "ready").touch()
        reporter(f"{wanted.name} is installed ({time.monotonic() - started_s:.0f} s)")
    return folder


def ensure_wheels(
    projects: Sequence[Project], folder: pathlib.Path, reporter: Reporter = lambda _: None
) -> list[pathlib.Path]:
    """Wheels built from this checkout, unless its files have theirs already; for hosts to install."""
    return [_ensure_wheel(project, folder, reporter) for project in projects]


def _ensure_wheel(project: Project, folder: pathlib.Path, reporter: Reporter) -> pathlib.Path:
    name = project.wheel.partition("-")[0]
    digest = _digest_of_sources(project)
    kept = folder / "wheels" / digest
    with contextlib.suppress(StopIteration):
        return next(kept.glob(project.wheel))
    reporter(f"building {name}'s wheel")
    work = folder / "wheels" / f".{digest}.{os.getpid()}"
    try:
        work.mkdir(parents=True)
        _copy_sources(project, work / "tree")
        log = work / "build.log"
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check"]
        wheel = [*pip, "wheel", "--no-deps", "--wheel-dir", str(work), str(work / "tree")]
        logged(wheel, log, f"building {name}'s wheel")
        shutil.rmtree(work / "tree")
        with contextlib.suppress(OSError):  # another process was faster
            work.rename(kept)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in sorted((folder / "wheels").iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT_WHEELS]:
        if not old.name.startswith("."):
            shutil.rmtree(old, ignore_errors=True)
    return next(kept.glob(project.wheel))


def install_wheels(
    node: Host, venv: pathlib.Path, wheels: Sequence[pathlib.Path], view: str = "cloud-venv"
) -> None:
    """Wheels into an environment as this node alone sees it: others have their own.

    view: name of the node's view of that environment
    """

    def inside(argv: Sequence[str], what: str) -> None:
        run(node.inside(argv), f"host {node.name}: {what}", PIP_PATIENCE_S)

    (node.state / "run" / view).mkdir(exist_ok=True)
    # A tmpfs, because upper folders cannot be on an overlay, which /run's own disk may be.
    inside(["mount", "-t", "tmpfs", "pcmig", f"/run/{view}"], "making room for pcmig")
    inside(["mkdir", f"/run/{view}/upper", f"/run/{view}/work"], "making room for pcmig")
    parts = f"lowerdir={venv},upperdir=/run/{view}/upper,workdir=/run/{view}/work"
    inside(["mount", "-t", "overlay", "pcmig", str(venv), "-o", parts], "a view of its environment")
    for wheel in wheels:
        shutil.copy(wheel, outside(node) / wheel.name)
    pip = [f"{venv}/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    options = ["--no-deps", "--no-index", "--root-user-action=ignore"]
    files = [f"{RUN}/{wheel.name}" for wheel in wheels]
    inside([*pip, *options, *files], f"installing {', '.join(wheel.name for wheel in wheels)}")


def packaged_files(project: Project) -> list[pathlib.Path]:
    """Files of this checkout that a wheel is made of."""
    found = {path for pattern in project.patterns for path in project.root.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.suffix != ".pyc" and "__pycache__" not in path.parts)


def _digest_of_sources(project: Project) -> str:
    digest = hashlib.sha256()
    for path in packaged_files(project):
        digest.update(f"{path.relative_to(project.root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _copy_sources(project: Project, target: pathlib.Path) -> None:
    for path in packaged_files(project):
        copy = target / path.relative_to(project.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def logged(argv: Sequence[str], log: pathlib.Path, what: str) -> None:
    """Run a command with its output in a log; BedError shows the end of it."""
    with log.open("a") as output:
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PIP_PATIENCE_S
            )
        except subprocess.TimeoutExpired as error:
            raise BedError(f"{what}: no end after {PIP_PATIENCE_S} s, log: {log}") from error
    if done.returncode:
        lines = [
            line for line in log.read_text(errors="replace").splitlines() if not re.match("WARNING", line)
        ]
        raise BedError(f"{what} failed:\n  " + "\n  ".join(lines[-SHOWN_LINES:]))
