# SPDX-License-Identifier: Apache-2.0
"""What `pcmig migrate` and `pcmig resume` share: a migration is followed to its end, and told how it went."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import pwd
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from pcmig import _core, guest, turn_back
from pcmig.cli import evidence, huge_pages, options, report
from pcmig.cli.base import UNWRITABLE, Command, CommandError, ExitCode, UsageError, make_console, say
from pcmig.cli.follow import INTERRUPTS, SIGNALS, Follower
from pcmig.cli.metering import Metering, make_meter, textfiles
from pcmig.cli.ports_wait import PortsWait
from pcmig.cli.progress import make_display
from pcmig.cli.record import Record, resume_command, utc_now, watch_command
from pcmig.cli.signals import SignalPipe
from pcmig.cli.turn_back import BOUND, lost, power_off
from pcmig.huge_pages import HugePages, words
from pcmig.journal import JournalError
from pcmig.ledgers.document import arrived_by_postcopy
from pcmig.ledgers.keeping import Keeping
from pcmig.ledgers.store import LedgerError, Store
from pcmig.metrics.meter import Meter
from pcmig.tunnel import peer
from pcmig.tunnel.client import TunnelError
from pcmig.tunnel.passage import Names, Passage

EXIT_CODES = {
    "completed": ExitCode.DONE,
    "failed": ExitCode.FAILED,
    "needs-operator": ExitCode.NEEDS_OPERATOR,
    "detached": ExitCode.DETACHED,
}


# Outcomes with which one host has the guest: the journal's entry has served.
SETTLED = ("completed", "failed")

# So long the engine may take to put the pace in force that it leaves behind.
DETACH_MS = 10_000

# How the engine begins its text when the guest never left (core/outcome.c); the verdict names the host too.
SAFE_AT_SOURCE = "the guest runs on at the source: "
# Parts of its texts on a guest that runs neither before nor after (engine/preflight.c, core/outcome.c).
NOT_RUNNING = (
    " is not running: ",
    "the guest is at the source, paused",
    "the guest was shut down at the source",
)
# ... and on one that does not run at the destination any more.
OFF_THERE = "was shut down at the destination"
SILENT_SOURCE = "the source could not be asked"
CRASHED_THERE = "has crashed at the destination, or is shutting down there"


# Why page requests could not be acknowledged at once (doc/refer/switchover.rst), and what to do about it.
SLOW_ACKS = {
    "denied": "the guest may have stood still for 40 ms at a time in post-copy: setting the route option "
    "quickack needs CAP_NET_ADMIN; an administrator can set it for good: ip route change ... quickack 1",
    "unfit": "the guest may have stood still for 40 ms at a time in post-copy: the route to the destination "
    "does not take the option quickack",
}


class Run(Command):
    """A command that follows one migration to its end."""

    word = ""  # its name in the report
    adopts = False  # the migration is under way already, whatever becomes of this process
    passage: Passage | None = None  # its way through the tunnel
    ports: PortsWait | None = None  # what the switch waits for
    meter: Meter  # of the command's migrations, for Prometheus

    def arrange(self, argv: list[str]) -> list[str]:
        return options.arrange(argv)

    def make_plan(self, args: argparse.Namespace) -> options.Plan:
        """What is to be done, as far as that goes before anything is started. Raises UsageError."""
        plan = options.make_plan(args, _core.params())
        options.check_policy("--policy" if args.deadline is None else "--deadline", plan.policy, plan.params)
        options.take_flags(plan)
        wait_for_hosts(plan.engine)
        return plan

    def named(self, plan: options.Plan, name: str, uuid: str) -> None:
        """What was typed turned out to be this guest: from here on it is called by its name."""
        plan.domain, plan.uuid = name, uuid
        self.result |= {"name": name, "uuid": uuid}

    def prepare(self, args: argparse.Namespace, plan: options.Plan) -> tuple[_core.Migration, Record]:
        """The migration, which is not started yet, and its entry in the journal, which is written."""
        raise NotImplementedError

    def take_action(self, args: argparse.Namespace) -> int:
        plan = self.make_plan(args)
        for option, path in (("--json", args.json), ("--trace", args.trace)):
            if path:
                report.check_writable(path, option)
        if args.trace and args.trace == args.json:
            raise UsageError(f"--trace and --json name the same file, {args.json!r}")
        self.meter = make_meter(textfiles(args.metrics_dir), quiet=args.quiet)
        self.out: TextIO = sys.stderr if args.json == "-" else sys.stdout
        self.result = new_result(self.word, plan)
        started_s = time.monotonic()
        try:
            code = self._follow(args, plan)
        except (CommandError, JournalError, _core.Error) as err:
            code = usage_or_failure(err)
            if code == ExitCode.USAGE:
                raise UsageError(str(err)) from err
            self.result["error"] = str(err)
            self._write(args, code, started_s)
            raise
        except Exception as err:  # a defect: main() says so, a report is written nevertheless
            self.result["error"] = f"internal error: {type(err).__name__}: {err}"
            self._write(args, ExitCode.INTERNAL, started_s)
            if isinstance(err, OSError) and err.errno in UNWRITABLE:
                # Not for main() to take for a full standard output: its exit code says where the guest is.
                raise RuntimeError(f"{type(err).__name__}: {err}") from err
            raise
        self._write(args, code, started_s)
        say("", sys.stdout)  # a reader that went away shows here, and no later
        return code

    def _follow(self, args: argparse.Namespace, plan: options.Plan) -> ExitCode:
        with SignalPipe(SIGNALS) as signals:
            try:
                migration, record = self.prepare(args, plan)
            except BaseException:
                if self.passage is not None and not self.adopts:
                    self.passage.close()
                raise
            settled = not self.adopts  # as long as nothing was started
            stays = False
            figures = self._figures(migration, plan, record)
            try:
                title = f"{plan.domain} to {plan.dest_uri}"
                display = make_display(self.out, title, quiet=args.quiet, progress=not args.no_progress)
                keeping = self._keeping(args, plan, record)
                pages = huge_pages.begin(plan.uuid, plan.source_uri, adopted=self.adopts)
                follower = Follower(
                    migration,
                    display,
                    signals,
                    record,
                    self.passage,
                    self.ports,
                    figures=figures,
                    adopts=self.adopts,
                    look=keeping.look,
                )
                if set(signals.take()) & INTERRUPTS:
                    raise CommandError(f"interrupted before anything was started; {plan.domain} is as it was")
                try:
                    try:
                        migration.start()
                    except OSError as err:
                        raise CommandError(f"--trace {args.trace!r}: {err.strerror}") from err
                    settled = False
                    status = follower.run()
                    if arrived_by_postcopy(status["outcome"], migration.ledger()):
                        stays = huge_pages.look(pages, asked=args.huge_pages)
                        self.result["huge_pages"] = pages.document()
                    status = self._turn_back(args, plan, record, status)
                except BaseException:
                    self._let_go(migration, plan)
                    raise
                finally:
                    with contextlib.suppress(Exception):  # what matters is where the guest is
                        display.close()
                # The record of a guest that turned back stays until it was powered off.
                settled = status["outcome"] in SETTLED and self.result["turned_back"] is None
                if figures is not None:  # before the record goes: whoever takes that over counts it, too
                    figures.ended(status, gated=self.ports is not None)
            finally:
                record.close(settled=settled)
                if figures is not None:
                    with contextlib.suppress(Exception):  # figures keep nothing below from being put away
                        figures.close()
                if self.ports is not None:
                    if (text := self.ports.end()) and not args.quiet:
                        say(f"pcmig: {text}", self.out)
                    self.result["ports"] = self.ports.account()
                if self.passage is not None:
                    self.result["tunnel"] = self.passage.accounting()
                    if settled:
                        self.passage.close()
            self.result |= {
                "outcome": status["outcome"],
                "error": status["error"],
                "operator_command": status["operator_command"],
                "interrupted": follower.interrupts > 0,
                "status": status,
                "decisions": migration.decisions(),
                "ledger": migration.ledger(),
            }
        code = EXIT_CODES[status["outcome"] or "failed"]
        if status["outcome"] == "detached" and (status["recovery"] or follower.left_unseen):
            code = ExitCode.NEEDS_OPERATOR
        self._conclude(args, plan, status, unseen=follower.left_unseen)
        path = self._keep(plan, keeping, migration, status, pages)
        self._stay(args, keeping.store, path, pages if stays else None)
        return code

    def _keeping(self, args: argparse.Namespace, plan: options.Plan, record: Record) -> Keeping:
        """Whoever keeps the ledger of this migration."""
        entry = record.entry
        keeping = Keeping(
            Store(kept=args.keep_ledgers, days=args.keep_days),
            {"program": f"pcmig {self.word}", "user": user()},
        )
        keeping.begin(
            name=plan.domain,
            uuid=plan.uuid,
            source_uri=plan.source_uri,
            dest_uri=plan.dest_uri,
            begun=entry.started if entry is not None else None,
            adopted=self.adopts,
            flags=self.result["flags"],
            arguments={**plan.engine, "policy": plan.policy, "params": plan.params},
        )
        return keeping

    def _keep(
        self,
        plan: options.Plan,
        keeping: Keeping,
        migration: _core.Migration,
        status: _core.Status,
        pages: HugePages,
    ) -> pathlib.Path | None:
        """The ledger, for `pcmig report`. One that cannot be kept is a note: what matters is where the guest
        is."""
        names = ("way_back", "ports", "turned_back", "interrupted")
        try:
            path = keeping.end(
                migration,
                status,
                words=verdict(plan, status, self.result["interrupted"]).removeprefix("pcmig: "),
                tunnel=self.result["tunnel"],
                more={name: self.result[name] for name in names if self.result.get(name)},
                huge_pages=pages,
            )
        except LedgerError as err:
            say(f"pcmig: note: {err}", sys.stderr)
            return None
        if path is not None:
            self.result["kept"] = str(path)
        return path

    def _stay(
        self, args: argparse.Namespace, store: Store, path: pathlib.Path | None, pages: HugePages | None
    ) -> None:
        """Looks at PAGES of the guest until 30 s after its arrival, if there are any to look at; what
        is known of them is told, and goes into its ledger at PATH. Nothing of that changes the exit code."""
        found = self.result["huge_pages"]
        if found is None or not (args.huge_pages or found["what"] == "read"):
            return

        def begun() -> None:
            if not args.quiet:
                say("looking at huge pages for 30 s (Ctrl-C leaves)", self.out)

        def changed(news: Mapping[str, Any]) -> None:
            self.result["huge_pages"] = news
            if path is not None:
                store.amend(path, {"huge_pages": news})

        try:
            if pages is not None:
                huge_pages.stay(pages, begun, changed)
        except LedgerError as err:
            say(f"pcmig: note: {err}", sys.stderr)
        if not args.quiet and (text := words(self.result["huge_pages"])):
            say(text, self.out)

    def _figures(self, migration: _core.Migration, plan: options.Plan, record: Record) -> Metering | None:
        """For Prometheus; None where not even the journal can be written."""
        if record.entry is None:
            return None
        return Metering(self.meter, migration, record.entry, plan.policy)

    def _turn_back(
        self, args: argparse.Namespace, plan: options.Plan, record: Record, status: _core.Status
    ) -> _core.Status:
        """A guest whose destination died before it ran there goes on at the source, by itself: nothing is
        lost. What stands in the way is told, and the status stays as it is."""
        command = status["operator_command"] or ""
        if status["outcome"] != "needs-operator" or not command.startswith(f"{turn_back.COMMAND} "):
            return status
        if args.turn_back == "never":
            forget = shlex.join(["pcmig", "forget", "-c", plan.source_uri])
            return {**status, "operator_command": f"{forget} {plan.word}"}
        entry = record.entry
        if entry is None:
            return status
        if not (status["unrun"] or entry.unrun):
            # What would be asked for anyway is in the command that is printed.
            return {
                **status,
                "operator_command": turn_back.with_words(command, entry, evidence.ask_both(entry))[0],
            }
        try:
            done = turn_back.turn_back(
                record.book,
                entry,
                ask=evidence.Looks(entry),
                now=utc_now,
                unrun=True,
                mode=args.turn_back,
                tell=lambda text: None if args.quiet else say(text, self.out),
            )
        except (turn_back.RefusedError, _core.LibvirtError, JournalError, guest.GuestXmlError) as err:
            say(f"pcmig: note: {plan.domain} does not turn back by itself: {err}", sys.stderr)
            return status
        self.result["turned_back"] = {"facts": dataclasses.asdict(done.facts), "steps": done.steps}
        text = f"the destination died before the guest ran there; {lost(done)}"
        note = f"{BOUND}; to power it off:\n  {power_off(plan.source_uri, plan.word)}"
        say(f"pcmig: note: {plan.domain}: {note}", sys.stderr)
        return {**status, "outcome": "failed", "error": text, "operator_command": None}

    def open_tunnel(self, plan: options.Plan, names: Names) -> None:
        """Leads the migration of PLAN through the tunnel. Raises CommandError: nothing has begun then."""
        if peer.of_uri(plan.source_uri) is not None:
            raise UsageError(
                f"--tunnel works on the source host, where its daemon runs, and {plan.source_uri} is another "
                "machine: type this command there"
            )
        self.passage = Passage(names)
        try:
            self.passage.open()
        except TunnelError as err:
            raise CommandError(str(err)) from err
        plan.engine |= self.passage.arguments()

    def _let_go(self, migration: _core.Migration, plan: options.Plan) -> None:
        """A defect of ours ends the steering, not the migration: leaves a pace behind that needs no steering,
        and says how to look on. Nothing is done to a migration that has not begun or is over."""
        with contextlib.suppress(_core.Error):
            if migration.status()["outcome"] is not None:
                return
            migration.detach()
            migration.join(DETACH_MS)
            self.result["outcome"] = migration.status()["outcome"] or "detached"
            if self.result["outcome"] == "detached":
                text = f"the migration of {plan.domain} goes on without pcmig; to see the rest of it:"
                say(f"pcmig: {text}\n  {watch_command(plan.source_uri, plan.word)}", sys.stderr)

    def _conclude(
        self, args: argparse.Namespace, plan: options.Plan, status: _core.Status, *, unseen: bool
    ) -> None:
        """Accounting and verdict. Nothing that goes wrong here may change the exit code: it tells where the
        guest is."""
        good = status["outcome"] in ("completed", "detached") and not status["recovery"]
        if not args.quiet and status["memory_processed_bytes"]:
            try:
                from pcmig import accounting

                accounting.render(self.result["ledger"], make_console(self.out))
                for line in accounting.tunnel_lines(self.result["tunnel"]):
                    say(line, self.out)
            except (OSError, SystemExit):  # the latter is what rich makes of a broken pipe
                pass  # the reader went away; say() deals with it
            except Exception as err:
                say(f"pcmig: the accounting cannot be shown: {type(err).__name__}: {err}", sys.stderr)
        if not args.quiet and status["quickack"] in SLOW_ACKS:
            say(f"pcmig: note: {SLOW_ACKS[status['quickack']]}", sys.stderr)
        if unseen and good:
            say(
                f"pcmig: how the migration of {plan.domain} stands is not known, and nothing was done to it\n"
                f"type:\n  pcmig status {plan.word}",
                sys.stderr,
            )
        elif not (args.quiet and good):
            say(verdict(plan, status, self.result["interrupted"]), self.out if good else sys.stderr)

    def _write(self, args: argparse.Namespace, code: ExitCode, started_s: float) -> None:
        """The JSON report, whatever the outcome."""
        if not args.json:
            return
        self.result["exit_code"] = int(code)
        self.result["ended"] = utc_now()
        self.result["wall_ms"] = round((time.monotonic() - started_s) * 1000)
        try:
            report.write(args.json, self.result)
        except OSError as err:
            # The guest's fate is what the exit code tells; a lost report does not change it.
            say(f"pcmig: --json {args.json!r} was not written: {err.strerror}", sys.stderr)


def user() -> str:
    """Who typed the command; behind sudo, who did so."""
    if sudo := os.environ.get("SUDO_USER"):
        return sudo
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def wait_for_hosts(engine: dict[str, Any]) -> None:
    """No connection of this process, the engine's or another one, is waited for longer than ENGINE says."""
    if (timeout_ms := engine.get("connect_timeout_ms")) is not None:
        _core.set_connect_timeout(timeout_ms)


def new_result(word: str, plan: options.Plan) -> dict[str, Any]:
    """The report before anything has happened."""
    return {
        "schema": report.SCHEMA,
        "command": word,
        "domain": plan.domain,
        "name": None,
        "uuid": None,
        "source_uri": plan.source_uri,
        "dest_uri": plan.dest_uri,
        "policy": plan.policy,
        "params": plan.params,
        "flags": [],
        "outcome": "not-started",
        "exit_code": None,
        "error": None,
        "operator_command": None,
        "interrupted": False,
        "started": utc_now(),
        "ended": None,
        "wall_ms": None,
        "status": None,
        "decisions": [],
        "ledger": None,
        "tunnel": None,
        "ports": None,
        "turned_back": None,
        "huge_pages": None,
    }


def usage_or_failure(err: Exception) -> ExitCode:
    """A policy, parameter or flag that is not valid is usage; everything else stopped before the guest
    moved."""
    if isinstance(err, CommandError):
        return err.code
    return ExitCode.USAGE if isinstance(err, (_core.PolicyError, _core.FlagsError)) else ExitCode.FAILED


def verdict(plan: options.Plan, status: _core.Status, interrupted: bool) -> str:
    """The last words on a migration; INTERRUPTED: the operator asked for its end."""
    elapsed = f"{status['elapsed_ms'] / 1000:.1f} s"
    resume = resume_command(plan.source_uri, plan.word, plan.dest_uri)
    match status["outcome"]:
        case "completed":
            there = plan.engine.get("dest_name") or plan.domain
            renamed = f" as {there}" if there != plan.domain else ""
            does = "is paused, as it was," if "paused there" in (status["error"] or "") else "runs"
            done = f"done: {plan.domain} {does} at {plan.dest_uri}{renamed} after {elapsed}"
            if OFF_THERE in (status["error"] or ""):
                done = f"done: {plan.domain} moved to {plan.dest_uri}, and was shut down there: it is off"
            if CRASHED_THERE in (status["error"] or ""):
                done = f"done: {plan.domain} moved to {plan.dest_uri}, and has crashed, or is shutting down"
            if status["operator_command"]:
                left = (
                    "the source did not answer, and may still know it, shut off: do not start it there; "
                    "when it answers again, type"
                    if SILENT_SOURCE in (status["error"] or "")
                    else "the source still knows it, shut off: do not start it there; type"
                )
                done += f"\n{left}:\n  {status['operator_command']}"
            return done
        case "detached" if status["recovery"]:
            return (
                f"pcmig: {plan.domain} needs an operator: {status['recovery']['text']}; "
                f"nothing is lost, keep both halves\ntype:\n  {resume}"
            )
        case "detached":
            return (
                f"detached: the migration of {plan.domain} goes on without pcmig; to see the rest of it:\n"
                f"  {watch_command(plan.source_uri, plan.word)}"
            )
        case "needs-operator":
            if status["phase"] == "paused":  # the core's command is virsh's
                resume += f"\nor, without pcmig:\n  {status['operator_command']}"
                return f"pcmig: {plan.domain} needs an operator: {status['error']}\ntype:\n  {resume}"
            command = status["operator_command"] or watch_command(plan.source_uri, plan.word)
            return f"pcmig: {plan.domain} needs an operator: {status['error']}\ntype:\n  {command}"
        case _:
            where = f"{plan.domain} runs on at the source ({plan.source_uri})"
            if interrupted:
                return f"pcmig: cancelled after {elapsed}: {where}"
            why = (status["error"] or "no reason was given").removeprefix(SAFE_AT_SOURCE)
            if any(text in why for text in NOT_RUNNING):
                where = f"{plan.domain} stays as it is at the source ({plan.source_uri})"
            return f"pcmig: failed after {elapsed}: {why}\n{where}"
