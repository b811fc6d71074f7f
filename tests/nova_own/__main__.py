# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.nova_own`: Nova's own tests with pcmig's driver in place of Nova's LibvirtDriver.

Needs Nova and what its tests do (`pip install nova -r tests/nova_own/requirements.txt`); no libvirt, no root,
since Nova's tests bring a fake one. A failure is run again alone, with the driver and with Nova's own class:
what fails with both is listed and allowed, what fails only with the driver is an error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from tests.nova_own import plan

ROOT = pathlib.Path(__file__).parents[2]
TEST_TIMEOUT_S = 240  # of one test, kept by a fixture of Nova
STUCK_S = TEST_TIMEOUT_S + 60  # without a result; the fixture does not reach a test whose threads hang


STOPPED = threading.Event()  # set when this process is told to end; the tests' processes end with it


class RunError(Exception):
    """The tests could not be run."""


def main() -> int:
    args = parse_args()
    try:
        version = importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        print("tests.nova_own: Nova is not installed: pip install nova -r tests/nova_own/requirements.txt")
        return 2
    modules = dict.fromkeys(args.module, "") if args.module else plan.SETS[args.set]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    start = time.monotonic()
    if args.threads:
        os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    mode = "native threads" if args.threads else "eventlet"
    print(f"nova {version}, {mode}, driver {args.driver or 'of Nova'}", flush=True)
    try:
        ours, instances = run(args.driver, modules, None, args.jobs)
        failed = list(plan.failures(ours))
        again: dict[str, plan.Result] = {}
        stock: dict[str, plan.Result] = {}
        if failed and args.driver:
            again, _ = run(args.driver, modules, failed, 1)
            stock, _ = run("", modules, failed, 1)
    except RunError as err:
        print(f"tests.nova_own: {err}")
        return 1
    missing = show_counts(ours, modules)
    print(f"drivers made: {', '.join(f'{count} {name}' for name, count in sorted(instances.items()))}")
    verdict = plan.judge(ours, again, stock)
    for title, results in (
        ("fail with Nova's own class too", verdict.shared),
        ("look at what must differ", verdict.different),
        ("failed once, and passed when run alone", verdict.unsteady),
        ("FAIL WITH THIS DRIVER", verdict.new),
    ):
        if results:
            print(f"\n{len(results)} {title}:")
        for result in results:
            print(f"  {result.test}: {result.outcome}: {result.reason}")
    # A set that makes no driver at all proves nothing; a single module may well be one that needs none.
    name = args.driver.rpartition(":")[2]
    wrong_class = bool(name) and ("LibvirtDriver" in instances or (name not in instances and not args.module))
    if wrong_class:
        print(f"the tests did not use {name} alone")
    bad = bool(verdict.new or missing or wrong_class)
    print(
        f"\n{len(ours)} tests in {time.monotonic() - start:.0f} s: {len(verdict.new)} fail with this driver, "
        f"{len(verdict.shared)} with Nova's own too, {len(verdict.different)} look at what must differ, "
        f"{len(verdict.unsteady)} unsteady"
    )
    return 1 if bad else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nova_own", description=__doc__)
    parser.add_argument("--driver", default=plan.DRIVER, metavar="MODULE:CLASS", help='"" for Nova\'s own')
    parser.add_argument("--set", choices=sorted(plan.SETS), default="unit", help="default: %(default)s")
    parser.add_argument("--module", action="append", help="a module of tests instead of a set")
    parser.add_argument("--threads", action="store_true", help="with native threads, without eventlet")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    return parser.parse_args()


def run(
    driver: str, modules: dict[str, str], tests: list[str] | None, jobs: int
) -> tuple[dict[str, plan.Result], dict[str, int]]:
    """Results by test, and how many drivers of which class were made. Raises RunError."""
    orders = [
        {"driver": driver, "modules": modules, "tests": tests, "share": [number, jobs]}
        for number in range(jobs)
    ]
    outputs: list[tuple[list[dict[str, Any]], str]] = [([], "") for _ in orders]

    def work(number: int) -> None:
        outputs[number] = child(orders[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        STOPPED.set()
        for thread in threads:
            thread.join()
    STOPPED.clear()
    lines: list[dict[str, Any]] = []
    instances: dict[str, int] = {}
    for part, errors in outputs:
        end = part[-1] if part else {}
        if not end.get("finished"):
            begun = [line["started"] for line in part if "started" in line]
            where = f"in {begun[-1]}" if begun else "before the first test"
            raise RunError(f"the process of the tests ended {where}:\n{errors}")
        if not end["in_place"]:
            raise RunError(f"a test put another class in the place of {driver}")
        for name, count in end["instances"].items():
            instances[name] = instances.get(name, 0) + count
        lines += [line for line in part if "outcome" in line]
    return plan.by_test(lines), instances


def child(order: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """What one process of tests wrote, and the end of its errors."""
    with tempfile.TemporaryDirectory(prefix="pcmig-nova-own-") as folder:
        # Functional tests look for api-paste.ini in Nova's checkout; its wheel has it in etc/ of the prefix.
        pathlib.Path(folder, "etc").symlink_to(pathlib.Path(sys.prefix, "etc"))
        env = os.environ | {
            "OS_TEST_TIMEOUT": str(TEST_TIMEOUT_S),
            "OS_STDOUT_CAPTURE": "1",
            "OS_STDERR_CAPTURE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "HOME": folder,
            "OS_DEFAULT__PYBASEDIR": folder,
        }
        out, err, orders = (pathlib.Path(folder, name) for name in ("out", "err", "order"))
        orders.write_text(json.dumps(order), encoding="utf-8")
        with orders.open("rb") as stdin, out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.nova_own.child"],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=env,
                cwd=folder,
            )
            stuck = not goes_on(process, out)
        lines = []
        for line in out.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue  # printed past sys.stdout by a C library
        said = err.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    return lines, "\n".join([*said, f"killed after {STUCK_S} s without a result"] if stuck else said)


def goes_on(process: subprocess.Popen[bytes], out: pathlib.Path) -> bool:
    """Waits for the tests to end. Kills them, and returns False, when OUT has not grown for STUCK_S."""
    size, since = 0, time.monotonic()
    try:
        while process.poll() is None:
            if out.stat().st_size != size:
                size, since = out.stat().st_size, time.monotonic()
            elif time.monotonic() - since > STUCK_S or STOPPED.is_set():
                return False
            time.sleep(0.5)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return True


def show_counts(results: dict[str, plan.Result], modules: dict[str, str]) -> list[str]:
    """Prints a line per module; returns the modules of which no test was run."""
    missing = []
    for name, part in modules.items():
        outcomes = [result.outcome for test, result in results.items() if test.startswith(f"{name}.")]
        good, bad = outcomes.count("ok"), sum(outcome in plan.BAD for outcome in outcomes)
        only = f" (names with {part!r})" if part else ""
        print(
            f"  {name}{only}: {len(outcomes)} run, {good} ok, {len(outcomes) - good - bad} skipped, {bad} bad"
        )
        if not outcomes:
            missing.append(name)
    if missing:
        print(f"no test was run of: {', '.join(missing)}")
    return missing


if __name__ == "__main__":
    sys.exit(main())
