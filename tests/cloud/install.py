"""The cloud's Python: OpenStack from PyPI in a virtual environment of its own, kept in the cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from tests.bed.errors import BedError
from tests.bed.host import Host
from tests.bed.layer import Reporter, cache_dir
from tests.bed.procs import run
from tests.cloud.service import RUN, outside

REQUIREMENTS = pathlib.Path(__file__).with_name("requirements.txt")
ROOT = pathlib.Path(__file__).parents[2]
NEEDED_MIB = 1500
PIP_PATIENCE_S = 1800
SHOWN_LINES = 25


def ensure_venv(reporter: Reporter = lambda _: None) -> pathlib.Path:
    """The folder with OpenStack's environment in `venv`; about 1 minute and 700 MiB the first time."""
    # The interpreter under its full name: a host's layer may have another python3.
    python = pathlib.Path(sys.executable).resolve()
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    recipe = "\n".join([*filter(None, lines), str(python)])
    folder = cache_dir() / "cloud" / hashlib.sha256(recipe.encode()).hexdigest()[:12]
    if (folder / "ready").exists():
        return folder
    with _lock(reporter) as cache:
        if (folder / "ready").exists():
            return folder
        free_mib = shutil.disk_usage(cache).free >> 20
        if free_mib < NEEDED_MIB:
            raise BedError(f"{cache} has {free_mib} MiB free, OpenStack's packages need {NEEDED_MIB}")
        shutil.rmtree(folder, ignore_errors=True)  # scripts in it name their interpreter: built in its place
        folder.mkdir(parents=True)
        started_s = time.monotonic()
        reporter(f"installing OpenStack (PyPI) in {folder}: 1 to 3 minutes, log in install.log there")
        log = folder / "install.log"
        logged([str(python), "-m", "venv", str(folder / "venv")], log, "making the cloud's environment")
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check", "install"]
        logged([*pip, "-r", str(REQUIREMENTS)], log, "installing OpenStack from PyPI")
        (folder / "ready").touch()
        reporter(f"OpenStack is installed ({time.monotonic() - started_s:.0f} s)")
    return folder


@contextlib.contextmanager
def _lock(reporter: Reporter) -> Iterator[pathlib.Path]:
    """Against a second process that installs at the same time; beds without OpenStack do not wait for it."""
    cache = cache_dir() / "cloud"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "lock").open("w")
    except OSError as error:
        raise BedError(
            f"cache folder {cache}: {error.strerror} (set PCMIG_CACHE to a writable one)"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter(f"waiting for another process that fills {cache}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def ensure_wheel(folder: pathlib.Path, reporter: Reporter = lambda _: None) -> pathlib.Path:
    """pcmig's wheel, built from this checkout unless its files have one already; for the hosts to install."""
    digest = _digest_of_sources()
    kept = folder / "wheels" / digest
    with contextlib.suppress(StopIteration):
        return next(kept.glob("pcmig-*.whl"))
    reporter("building pcmig's wheel")
    work = folder / "wheels" / f".{digest}.{os.getpid()}"
    try:
        work.mkdir(parents=True)
        _copy_sources(work / "tree")
        log = work / "build.log"
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check"]
        wheel = [*pip, "wheel", "--no-deps", "--wheel-dir", str(work), str(work / "tree")]
        logged(wheel, log, "building pcmig's wheel")
        shutil.rmtree(work / "tree")
        with contextlib.suppress(OSError):  # another process was faster
            work.rename(kept)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in sorted((folder / "wheels").iterdir(), key=lambda path: path.stat().st_mtime)[:-8]:
        if not old.name.startswith("."):
            shutil.rmtree(old, ignore_errors=True)
    return next(kept.glob("pcmig-*.whl"))


def install_wheel(node: Host, venv: pathlib.Path, wheel: pathlib.Path) -> None:
    """pcmig's wheel into OpenStack's environment, as this node alone sees it: others have their own."""

    def inside(argv: Sequence[str], what: str) -> None:
        run(node.inside(argv), f"host {node.name}: {what}", PIP_PATIENCE_S)

    (node.state / "run/cloud-venv").mkdir(exist_ok=True)
    # A tmpfs, because upper folders cannot be on an overlay, which /run's own disk may be.
    inside(["mount", "-t", "tmpfs", "pcmig", "/run/cloud-venv"], "making room for pcmig")
    inside(["mkdir", "/run/cloud-venv/upper", "/run/cloud-venv/work"], "making room for pcmig")
    parts = f"lowerdir={venv},upperdir=/run/cloud-venv/upper,workdir=/run/cloud-venv/work"
    inside(["mount", "-t", "overlay", "pcmig", str(venv), "-o", parts], "a view of its environment")
    shutil.copy(wheel, outside(node) / wheel.name)
    pip = [f"{venv}/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    options = ["--no-deps", "--no-index", "--root-user-action=ignore"]
    inside([*pip, *options, f"{RUN}/{wheel.name}"], "installing pcmig's wheel")


def packaged_files() -> list[pathlib.Path]:
    """Files of this checkout that a wheel is made of."""
    patterns = (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.rst",
        "LICENSE",
        "csrc/**/*.[ch]",
        "pcmig/**/*.py*",
    )
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.suffix != ".pyc" and "__pycache__" not in path.parts)


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in packaged_files():
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _copy_sources(target: pathlib.Path) -> None:
    for path in packaged_files():
        copy = target / path.relative_to(ROOT)
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
