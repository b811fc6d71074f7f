# SPDX-License-Identifier: Apache-2.0
"""tools/demo: shows on one machine what pre-copy cannot do, what pcmig does, and what the guest says."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bed import environment, layer, program
from tests.bed.bed import Bed
from tests.bed.errors import BedError
from tests.bed.fallback import IN_TURN, on_a_stack
from tests.bed.guest import TAIL_S, Guest, GuestSpec
from tests.bed.tools import TOOLS, Outcome, Tool
from tests.bed.verdict import Verdict

PAGE_BYTES = 4096
STEPS = 5
SETTLE_S = 3.5  # the guest's undisturbed rate is measured in this time before a migration
EPILOG = """\
Exit status: 0 the guest runs on the destination with zero page errors, 1 it does not or something went wrong,
2 wrong usage, 130 interrupted. PCMIG_CACHE names the folder that keeps QEMU, libvirt and the guest's kernel
(default: /var/cache/pcmig), PCMIG_MIRROR a Debian mirror other than apt's,
PCMIG_ACCEL what --accel does not."""
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class Screen:
    """What the demo prints: numbered steps with the time since the start; colours only on a terminal."""

    def __init__(self) -> None:
        self.steps = STEPS
        self.console = Console(highlight=False, soft_wrap=True)
        self._started_s = time.monotonic()
        self._step = 0

    def show(self, demo: Callable[[], int]) -> int:
        """Runs DEMO; returns the exit status."""
        environment.drop_the_callers()
        try:
            return demo()
        except BedError as error:
            self.bad(f"demo: {error}")
            return EXIT_FAILED
        except KeyboardInterrupt:
            self.bad("demo: interrupted; everything is taken down")
            return EXIT_INTERRUPTED

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def step(self, title: str) -> None:
        self._step += 1
        self.console.print(
            f"\n[bold]{self._step}/{self.steps}  {title}[/bold]  [dim]({self.elapsed_s():.0f} s)[/dim]"
        )

    def say(self, text: str) -> None:
        self.console.print(f"     {text}")

    def good(self, text: str) -> None:
        self.console.print(f"     [green]{text}[/green]")

    def bad(self, text: str) -> None:
        self.console.print(f"     [bold red]{text}[/bold red]")

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A moving sign on a terminal, a line elsewhere."""
        if self.console.is_terminal:
            with self.console.status(text):
                yield
        else:
            self.say(f"{text} ...")
            yield


@dataclasses.dataclass(frozen=True)
class Options:
    spec: GuestSpec
    stack: str | None  # None: the first that works
    rate_mbit: float
    precopy_limit_s: int
    policy: str
    tool: Tool
    json_file: pathlib.Path | None
    keep: bool
    accel: str | None  # None: what the environment says


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    screen = Screen()
    return screen.show(Demo(options, screen).run)


class Demo:
    """One run, step by step."""

    def __init__(self, options: Options, screen: Screen) -> None:
        self.options = options
        self.screen = screen
        self.report: dict[str, Any] = {"options": _plain(options)}

    def run(self) -> int:
        self._announce()
        try:
            code = self._run()
        except BedError as error:
            self._write_report(error=str(error))
            raise
        self._write_report(exit=code)
        return code

    def _run(self) -> int:
        options, screen = self.options, self.screen
        screen.step("Two hosts, each with its own libvirtd")
        with on_a_stack(options.stack, self._bed, screen.say) as bed:
            versions = layer.versions(layer.ensure(bed.stack))
            self.report["versions"] = versions
            self.report["accelerator"] = bed.accel.meaning
            screen.say(
                f"up: QEMU {versions.get('qemu')}, libvirt {versions.get('libvirt')}; guests under "
                f"{bed.accel.meaning}"
            )
            guest = self._boot(bed)
            self._precopy(bed, guest)
            outcome, verdict = self._postcopy(bed, guest)
            ok = self._show_verdict(guest, outcome, verdict)
            if options.keep:
                screen.say(
                    f"kept: python -m tests.bed status; it goes with: python -m tests.bed down --bed {bed.id}"
                )
        if not options.keep:
            screen.say(f"everything is taken down; {screen.elapsed_s():.0f} s in all")
        return EXIT_OK if ok else EXIT_FAILED

    def _bed(self, stack: str) -> Bed:
        return Bed(
            stack,
            self.options.rate_mbit,
            keep=self.options.keep,
            accel=self.options.accel,
            reporter=self.screen.say,
        )

    def _announce(self) -> None:
        spec, screen = self.options.spec, self.screen
        write_mb = spec.write_pps * PAGE_BYTES / 1e6
        screen.console.print(
            "[bold]pcmig demo[/bold]: live migration of a guest that is too busy for pre-copy"
        )
        screen.say(
            f"Brings up two libvirt hosts in namespaces, with {self.options.rate_mbit:g} Mb/s between them,"
        )
        screen.say(
            f"boots a guest of {spec.memory_mib} MiB that writes {write_mb:.0f} MB/s and verifies every page,"
        )
        screen.say(
            f"lets pre-copy try for {self.options.precopy_limit_s} s, then migrates it with post-copy."
        )
        screen.say(
            "Takes 1 to 2 minutes, 30 s more the first time. Ctrl-C ends it and takes everything down."
        )

    def _boot(self, bed: Bed) -> Guest:
        spec, screen = self.options.spec, self.screen
        screen.step("A guest that writes memory faster than the link")
        with screen.waiting("booting (5 to 10 s under emulation)"):
            guest = bed.start_guest(spec)
            time.sleep(SETTLE_S)
        beats = guest.heartbeats()
        recent = [beat for beat in beats if beat.time_s > beats[-1].time_s - SETTLE_S / 2]
        span_s = recent[-1].time_s - recent[0].time_s
        written = (recent[-1].written - recent[0].written) / span_s
        checked = (recent[-1].work - recent[0].work) / span_s
        link_mb = self.options.rate_mbit / 8
        self.report["guest"] = {"written_pages_per_s": round(written), "checked_pages_per_s": round(checked)}
        screen.say(
            f"it runs on host a, writes {written:.0f} pages/s = {written * PAGE_BYTES / 1e6:.1f} MB/s "
            f"(the link carries {link_mb:.1f} MB/s) and verifies {checked:.0f} pages/s"
        )
        return guest

    def _precopy(self, bed: Bed, guest: Guest) -> None:
        options, screen = self.options, self.screen
        screen.step(f"Plain pre-copy, stopped after {options.precopy_limit_s} s")
        outcome = options.tool.precopy(bed.a, bed.b, guest.name, options.precopy_limit_s)
        verdict = guest.verdict(outcome.start_s, outcome.end_s, tail_s=0.5)
        self.report["precopy"] = {**_plain(outcome), "verdict": dataclasses.asdict(verdict)}
        if outcome.code == 0:
            screen.say(
                f"pre-copy converged after {outcome.elapsed_s:.0f} s: this guest does not need post-copy"
            )
            screen.say("(a higher --write-rate or a lower --rate makes one that does)")
        elif outcome.code == EXIT_FAILED and outcome.elapsed_s >= options.precopy_limit_s - 1:
            screen.good(
                f"no convergence in {options.precopy_limit_s} s: aborted, guest still on host {verdict.host}"
            )
        else:
            raise BedError(
                f"pre-copy was to be aborted after {options.precopy_limit_s} s with exit status 1, "
                f"and ended after {outcome.elapsed_s:.0f} s with {outcome.code}: see its output above"
            )
        time.sleep(SETTLE_S)  # for the baseline of the next step

    def _postcopy(self, bed: Bed, guest: Guest) -> tuple[Outcome, Verdict]:
        options, screen = self.options, self.screen
        source = bed.a if guest.host() == bed.a.name else bed.b
        destination = bed.other(source)
        screen.step(f"{options.tool.name} migrate")
        screen.say(f"[dim]{options.tool.shown(source, destination, guest.name, options.policy)}[/dim]")
        outcome = options.tool.postcopy(source, destination, guest.name, options.policy)
        with screen.waiting(f"letting the guest verify every page on host {destination.name}"):
            guest.wait_verified(outcome.end_s)
            verdict = guest.verdict(
                outcome.start_s, outcome.end_s, max(TAIL_S, time.monotonic() - outcome.end_s)
            )
        self.report["postcopy"] = {**_plain(outcome), "destination": destination.name}
        self.report["verdict"] = dataclasses.asdict(verdict)
        return outcome, verdict

    def _show_verdict(self, guest: Guest, outcome: Outcome, verdict: Verdict) -> bool:
        screen = self.screen
        destination = self.report["postcopy"]["destination"]
        screen.step("The guest's own verdict")
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 5))
        table.add_row("runs on", f"host {verdict.host}" if verdict.alive else "nowhere: it fell silent")
        table.add_row(
            "pages checked", f"{verdict.pages_checked}, every page {verdict.full_passes_after} times since"
        )
        table.add_row("page errors", str(verdict.page_errors))
        table.add_row("longest silence before", _ms(verdict.before_silence_ms))
        table.add_row("silence at switchover", _ms(verdict.switch_silence_ms))
        table.add_row("longest silence after", _ms(verdict.later_silence_ms))
        lost = verdict.guest_time_lost_s
        table.add_row("guest time lost", "not known" if lost is None else f"{max(0.0, lost):.1f} s")
        table.add_row("migration took", f"{outcome.elapsed_s:.1f} s")
        screen.console.print(table)
        problems = []
        if outcome.code != 0:
            problems.append(f"{self.options.tool.name} migrate ended with {outcome.code}")
        if verdict.host != destination or not verdict.alive:
            problems.append(f"the guest does not run on host {destination}")
        elif guest.spec.verify_pps and not verdict.full_passes_after:
            problems.append("not every page was verified since: the guest is slower than it was")
        if verdict.page_errors:
            problems.append(f"{verdict.page_errors} pages do not hold what the guest wrote")
        for problem in problems:
            screen.bad(problem)
        if not problems:
            screen.good(f"the guest runs on host {destination}, and every page holds what the guest wrote")
        self.report["ok"] = not problems
        return not problems

    def _write_report(self, **more: object) -> None:
        if self.options.json_file is not None:
            self.report.update(more, elapsed_s=round(self.screen.elapsed_s(), 1))
            try:
                self.options.json_file.write_text(json.dumps(self.report, indent=2) + "\n")
            except OSError as error:
                raise BedError(f"--json {self.options.json_file}: {error.strerror}") from error


def _ms(value: float | None) -> str:
    return "not known" if value is None else f"{value:.0f} ms"


def _plain(value: Any) -> Any:
    """A dataclass as what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Tool):
        return value.name
    return str(value) if isinstance(value, pathlib.Path) else value


# Options


def parse(argv: list[str] | None) -> Options:
    """The options; what cannot be is told by name, with exit status 2."""
    parser = _parser()
    given = parser.parse_args(argv)
    worker_mib = given.worker or given.memory // 2
    spec = GuestSpec(
        memory_mib=given.memory,
        worker_mib=worker_mib,
        write_pps=given.write_rate,
        verify_pps=given.verify_rate,
    )
    try:
        spec.check()
        Bed(given.stack or IN_TURN[0], given.rate, accel=given.accel)
        _check_policy(given.policy, given.tool)
    except BedError as error:
        parser.error(str(error))
    if given.precopy_limit < 1:
        parser.error("--precopy-limit: at least 1 second")
    if given.json is not None and not _writable(given.json):
        parser.error(f"--json {given.json}: cannot be written")
    return Options(
        spec=spec,
        stack=given.stack,
        rate_mbit=given.rate,
        precopy_limit_s=given.precopy_limit,
        policy=given.policy,
        tool=TOOLS[given.tool],
        json_file=given.json,
        keep=given.keep,
        accel=given.accel,
    )


def _parser() -> argparse.ArgumentParser:
    spec = GuestSpec()
    parser = argparse.ArgumentParser(
        prog="tools/demo",
        description="Migrates a busy guest between two libvirt hosts that it brings up on this machine. "
        "With --cloud as the first word, on an OpenStack and by Nova: tools/demo --cloud --help.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    guest = f"memory of the guest (default: {spec.memory_mib})"
    parser.add_argument(
        "--rate", type=float, default=100, metavar="MBIT", help="migration link (default: 100)"
    )
    parser.add_argument("--memory", type=int, default=spec.memory_mib, metavar="MIB", help=guest)
    parser.add_argument(
        "--worker", type=int, metavar="MIB", help="of it written and verified (default: half)"
    )
    parser.add_argument(
        "--write-rate",
        type=int,
        default=spec.write_pps,
        metavar="N",
        help=f"pages (4 KiB) the guest writes each second (default: {spec.write_pps})",
    )
    parser.add_argument(
        "--verify-rate",
        type=int,
        default=spec.verify_pps,
        metavar="N",
        help=f"pages it verifies in turn each second (default: {spec.verify_pps})",
    )
    parser.add_argument(
        "--policy", default="auto", help="pcmig's policy for the switch to post-copy (default: auto)"
    )
    parser.add_argument(
        "--precopy-limit",
        type=int,
        default=25,
        metavar="SECONDS",
        help="how long plain pre-copy may try (default: 25)",
    )
    add_stack(parser)
    program.add_accel(parser)
    parser.add_argument(
        "--tool",
        default="pcmig",
        choices=TOOLS,
        help="virsh: the same with plain virsh, to compare (default: pcmig)",
    )
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="write figures and verdict there as well"
    )
    parser.add_argument("--keep", action="store_true", help="leave hosts and guest up at the end")
    return parser


def add_stack(parser: argparse.ArgumentParser) -> None:
    first, second = IN_TURN
    parser.add_argument(
        "--stack",
        choices=layer.STACKS,
        help=f"QEMU and libvirt (default: {first}, or {second} where that cannot be had or does not run)",
    )


def _check_policy(policy: str, tool: str) -> None:
    if tool != "pcmig":
        return
    from pcmig import _core  # here, as tests of the bed do not need it

    try:
        kind = _core.parse_policy(policy)["kind"]
    except _core.PolicyError as error:
        raise BedError(f"--policy {policy}: {error}") from error
    if kind in ("manual", "never"):
        raise BedError(f"--policy {policy}: never switches by itself, so the demo would not end")


def _writable(path: pathlib.Path) -> bool:
    return os.access(path if path.exists() else path.parent, os.W_OK) and not path.is_dir()


if __name__ == "__main__":
    sys.exit(main())
