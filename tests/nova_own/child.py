# SPDX-License-Identifier: Apache-2.0
"""Runs tests of Nova in this process and writes one line of JSON per result. Started by __main__."""

from __future__ import annotations

import collections
import importlib
import json
import sys
import unittest
import zlib
from collections.abc import Iterator
from typing import Any, TextIO


class Writer(unittest.TestResult):
    """Writes each result as soon as it is there, so that nothing is lost when the process dies."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self.out = out

    def put(self, test: unittest.TestCase, outcome: str, reason: str = "") -> None:
        print(
            json.dumps({"test": test.id(), "outcome": outcome, "reason": reason}), file=self.out, flush=True
        )

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        print(json.dumps({"started": test.id()}), file=self.out, flush=True)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.put(test, "ok")

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.put(test, "error", last_line(err))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.put(test, "failed", last_line(err))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.put(test, "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.put(test, "expected failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.put(test, "unexpected success")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.put(test, "failed", f"{subtest}: {last_line(err)}")


def last_line(err: Any) -> str:
    """What a failure says at its end. testtools hands over text as an exception of its own."""
    lines = [line.strip() for line in str(err[1]).splitlines() if line.strip()]
    kind = "" if err[0].__name__ == "_StringException" else f"{err[0].__name__}: "
    return f"{kind}{lines[-1] if lines else ''}"[:300]


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        elif isinstance(item, unittest.TestCase):
            yield item


def put_in_place(driver: str) -> type:
    """Makes DRIVER ("module:Class") what Nova and its tests know as LibvirtDriver; "" leaves Nova's own."""
    # Nova's test package chooses the concurrency mode on import, so it has to come first.
    importlib.import_module("nova.tests.unit")
    package = importlib.import_module("nova.virt.libvirt")
    module = importlib.import_module("nova.virt.libvirt.driver")
    stock: type = module.LibvirtDriver
    if not driver:
        return stock
    name, _, attribute = driver.partition(":")
    chosen: type = getattr(importlib.import_module(name), attribute)
    if chosen is stock or not issubclass(chosen, stock):
        sys.exit(f"{driver} is no subclass of Nova's LibvirtDriver")
    # Nova's tests replace attributes of the class by fixtures.MonkeyPatch, which puts back what getattr()
    # gave. A static method that the class only inherits would come back as a plain one: the next test fails.
    for attribute, value in vars(stock).items():
        if isinstance(value, (staticmethod, classmethod)) and attribute not in vars(chosen):
            setattr(chosen, attribute, value)
    # Up to 32, __init__() names its class in super(), and would find itself there again, for ever.
    code = stock.__init__.__code__  # type: ignore[misc]
    if stock.__name__ in code.co_names:
        module.StockDriver = stock  # type: ignore[attr-defined]
        names = tuple("StockDriver" if name == stock.__name__ else name for name in code.co_names)
        stock.__init__.__code__ = code.replace(co_names=names)  # type: ignore[misc]
    for place in (package, module):
        place.LibvirtDriver = chosen  # type: ignore[attr-defined]
    return chosen


def count_instances() -> collections.Counter[str]:
    """Counts drivers by class from now on, to show which one the tests really used."""
    base: Any = importlib.import_module("nova.virt.driver").ComputeDriver
    counts: collections.Counter[str] = collections.Counter()
    init = base.__init__

    def counting(self: Any, *args: Any, **kwargs: Any) -> None:
        counts[type(self).__name__] += 1
        init(self, *args, **kwargs)

    base.__init__ = counting
    return counts


def main() -> int:
    """Reads its order from stdin: {"driver", "modules": {module: part of a name}, "tests": names, or null for
    all, "share": [n, of]}."""
    order = json.load(sys.stdin)
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever tests print is not for whom reads the results
    chosen = put_in_place(order["driver"])
    counts = count_instances()
    loader = unittest.TestLoader()
    wanted = None if order["tests"] is None else set(order["tests"])
    number, of = order["share"]
    suite = unittest.TestSuite()
    for name, part in order["modules"].items():
        for test in tests_of(loader.loadTestsFromName(name)):
            test_id = test.id()
            loaded = test_id.startswith(name)
            if wanted is not None and test_id not in wanted:
                continue
            if loaded and part not in test_id.removeprefix(name):
                continue
            if zlib.crc32(test_id.encode()) % of == number:
                suite.addTest(test)
    suite.run(Writer(out))
    known_as = importlib.import_module("nova.virt.libvirt.driver").LibvirtDriver
    json.dump({"finished": True, "in_place": known_as is chosen, "instances": counts}, out)
    print(file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
