# SPDX-License-Identifier: Apache-2.0
"""python -m tests.sim: pcmig's steering and its rivals in a simulated world."""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import time

from tests.sim import bed, compare, figure, program, scenarios, several, thresholds

# Scenarios between two lines that tell how far it is.
CHUNK = 20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim",
        description="Puts drawn guests on drawn links, has pcmig and its rivals migrate them, and compares.",
        epilog="A scenario is a line of name=value words; tests/sim/scenario.c has the names, their "
        "defaults and bounds, and 'set.NAME=VALUE' sets a parameter of pcmig.",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first scenario (default: 1)")
    parser.add_argument("--scenarios", type=int, default=500, metavar="N", help="how many (default: 500)")
    parser.add_argument(
        "--only",
        metavar="NAME=VALUE,...",
        default="",
        help="only scenarios with these values: qemu=10,nova_steps=1",
    )
    parser.add_argument(
        "--with", dest="told", default="", metavar="WORDS", help="told to pcmig: 'policy=first-pass'"
    )
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="show N scenarios of each fault, to be tried again"
    )
    parser.add_argument(
        "--try", dest="attempt", metavar="SCENARIO", help="one scenario, with every decision of pcmig"
    )
    parser.add_argument("--rivals", action="store_true", help="with --try: the rivals as well")
    parser.add_argument("--traces", metavar="FOLDER", help="with --try: pcmig's traces, for 'pcmig replay'")
    parser.add_argument("--bed", action="store_true", help="the simulator against what the bed measured")
    parser.add_argument("--several", action="store_true", help="guests that leave a host at once")
    parser.add_argument("--thresholds", action="store_true", help="what each threshold of pcmig costs")
    parser.add_argument("--figure", metavar="FILE.svg", help="draw the picture of the manual")
    return parser.parse_args()


def words(text: str) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for word in text.replace(",", " ").split():
        name, equals, value = word.partition("=")
        if not equals:
            raise program.SimError(f"{word!r} is no name=value")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = value
    return found


def attempt(options: argparse.Namespace) -> None:
    scenario = words(options.attempt)
    extra = ["-v", *(["-t", options.traces] if options.traces else [])]
    done = subprocess.run(
        [str(program.build()), *extra], input=program.line(scenario) + "\n", text=True, stdout=subprocess.PIPE
    )
    shown = {"as told": program.parse(done.stdout)}
    if options.rivals:
        ways = [{**scenario, "way": way} for way in (*compare.RIVALS, "precopy")]
        shown |= dict(zip((*compare.RIVALS, "precopy"), program.run(ways), strict=True))
    for way, result in shown.items():
        print(
            way
            + ": "
            + " ".join(
                f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                for name, value in result.items()
            )
        )


def told(result: program.Result) -> str:
    return f"{compare.total(result) / 1000:.1f} s, {compare.silence(result):.0f} ms"


def show(cases: list[compare.Case], fault: str, count: int) -> None:
    found = [case for case in cases if getattr(case, fault)]
    if not found:
        return
    print(f"\n{fault}, {min(count, len(found))} of {len(found)}:")
    for case in found[:count]:
        best = case.theirs[case.best]
        print(
            f"  {told(case.ours)}, {case.ours['outcome']} ({case.ours['reason']}); {case.best} {told(best)}; "
            f"pre-copy alone {told(case.precopy)}"
        )
        print(f"    python -m tests.sim --rivals --try '{program.line(case.scenario)}'")


def main() -> int:
    options = arguments()
    try:
        if options.attempt:
            attempt(options)
            return 0
        if options.bed:
            print("\n".join(bed.table()))
            return 0
        if options.several:
            for line in several.table():
                print(line, flush=True)
            return 0
        if options.figure:
            figure.draw(pathlib.Path(options.figure))
            return 0
        only = words(options.only)
        drawn: list[program.Scenario] = []
        seed = options.seed
        while len(drawn) < options.scenarios:
            scenario = scenarios.draw(seed)
            if all(scenario.get(name) == value for name, value in only.items()):
                drawn.append(scenario)
            seed += 1
            if seed > options.seed + 1000 * options.scenarios:
                raise program.SimError(f"no scenario has {options.only}")
        if options.thresholds:
            for line in thresholds.table(drawn):
                print(line, flush=True)
            return 0
        started = time.monotonic()
        cases: list[compare.Case] = []
        for at in range(0, len(drawn), CHUNK):
            cases += compare.run(drawn[at : at + CHUNK], words(options.told))
            if sys.stderr.isatty() or at % (5 * CHUNK) == 0:
                passed = time.monotonic() - started
                print(
                    f"{len(cases)} of {len(drawn)} scenarios after {passed:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
        print(f"{len(drawn)} scenarios from seed {options.seed}, {time.monotonic() - started:.1f} s\n")
        print("\n".join(compare.table(cases)))
        for fault in ("never", "slower", "more_silent", "needless"):
            if options.worst:
                show(cases, fault, options.worst)
    except program.SimError as err:
        print(f"tests.sim: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
