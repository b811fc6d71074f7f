# SPDX-License-Identifier: Apache-2.0
"""`pcmig watch` without DOMAIN: all migrations of a host, whoever drives them. Each is looked at on a thread
of its own, so that a guest that hangs delays no other; the main thread shows what they found."""

from __future__ import annotations

import contextlib
import datetime
import json
import queue
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from pcmig import _core
from pcmig.cli import screen
from pcmig.cli.base import ExitCode, is_terminal
from pcmig.cli.books import books
from pcmig.cli.job import HALVES, Job
from pcmig.cli.progress import plain_line
from pcmig.cli.record import PROGRAM
from pcmig.cli.terminal import Keys, Screen
from pcmig.cli.watched import Beside, Rates, Watched, merged, recovery_of, told
from pcmig.journal import Entry, JournalError
from pcmig.shadow import Shadow

if TYPE_CHECKING:
    from pcmig.cli.signals import SignalPipe

# New migrations are looked for that often.
SCAN_S = 1.0

# Those that have ended stay for so long.
KEEP_S = 120.0

# The screen is drawn, and what came is printed, that often.
DRAW_S = 0.25

# Of a guest, a line for logs and pipes no more often than that.
LINE_S = 2.0

# libvirt that does not answer for so long is not looked at any more: the next scan finds the guest again.
SILENT_S = 30.0

THREADS = "pcmig-watch"

Shadows = Callable[[], Shadow]
# As watch.ending() has it; NOTES of the journal may be asked what to type.
Ending = Callable[[Job, float, Entry | None], tuple[ExitCode, str] | None]


class Moment(NamedTuple):
    """A migration as it was found."""

    job: Job
    status: _core.Status
    beside: Beside
    end: tuple[ExitCode, str] | None = None
    arriving: bool = False
    rates: tuple[Rates, ...] = ()
    waiting: bool = False  # for others: its migrate call is not made yet, or never was


def entry_of(uuid: str) -> Entry | None:
    """What the journals of this host have on record of a guest."""
    for book in books(None):
        with contextlib.suppress(JournalError):
            entry = book.read(uuid)
            if entry is not None:
                return entry
    return None


def beside(name: str, uuid: str) -> Beside:
    turn = next((turn for turn in _core.turns() if turn["name"] == name), None)
    return Beside(turn, entry_of(uuid))


class Followed:
    """One migration. Its thread ends with it."""

    def __init__(
        self, uri: str, found: _core.Migrating, shadow: Shadow, closely: bool, ending: Ending
    ) -> None:
        self.uuid = found["uuid"]
        self.moment: Moment | None = None  # None: nothing was seen yet
        self.gone = False  # it turned out that none is under way
        self.ended_s: float | None = None
        self.job = Watched(uri, self.uuid, shadow)
        self._closely = closely
        self._ending = ending
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=THREADS, daemon=True)

    def start(self, news: queue.SimpleQueue[Moment] | None) -> None:
        self._news = news
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def half(self, half: str) -> None:
        """As the scan found it; only of guests that arrive."""

    def _follow(self) -> None:
        try:
            self._look_on()
        finally:
            self.ended_s = time.monotonic()
            self.gone = self.gone or self.moment is None or self.moment.end is None
            self.job.close()

    def _look_on(self) -> None:
        heard_s = changed_s = time.monotonic()
        before = None
        while not self._stop.is_set():
            try:
                self.job.look()
                if not self.job.silent:
                    heard_s = time.monotonic()
            except _core.LibvirtError:
                if time.monotonic() - heard_s > SILENT_S or self.job.half == "unknown":
                    return
                self._stop.wait(SCAN_S)
                continue
            if self.job.state == "none" and before is None:
                return  # it was over by then
            if self.job.state != before:
                before, changed_s = self.job.state, time.monotonic()
            if self._told(time.monotonic() - changed_s):
                return
            self._stop.wait(self.job.patience_s(self._closely))

    def _told(self, since_s: float) -> bool:
        """Whether it has ended."""
        job = self.job
        found = beside(job.domain, job.uuid)
        attended = job.state == "paused" and found.entry is not None and found.entry.keeper is not None
        end = None if attended else self._ending(job, since_s, found.entry)
        self.moment = Moment(job, merged(job, found), found, end, rates=tuple(job.rates))
        if self._news is not None:
            self._news.put(self.moment)
        return end is not None


class Arriving:
    """A guest that comes in. Statistics are its source's, and to ask for them here may block: only the scan
    tells of it."""

    def __init__(self, uri: str, found: _core.Migrating) -> None:
        self.uuid = found["uuid"]
        self.gone = False
        self.ended_s: float | None = None
        self._uri = uri
        self._job = Job(uri, found["name"])
        self._job.uuid = self.uuid
        self._since_s = time.monotonic()
        self.moment: Moment | None = None
        self._tell(found["half"])

    def stop(self) -> None: ...

    def _tell(self, half: str, end: tuple[ExitCode, str] | None = None) -> None:
        self._job.half = half
        self._job.state = {"postcopy": "postcopy", "postcopy-failed": "paused"}.get(half, "precopy")
        if end is not None:
            self._job.state = "none"
        status = self._job.status()
        self.moment = Moment(self._job, status, Beside(None, entry_of(self.uuid)), end, arriving=True)

    def half(self, half: str) -> None:
        if half != self._job.half:
            self._tell(half)

    def settle(self) -> None:
        """The scan does not find it any more."""
        name, uri = self._job.domain, self._uri
        half = settled_half(uri, self.uuid)
        if half is None:
            return  # asked again with the next scan
        if half in ("running", "paused"):
            end = (ExitCode.DONE, f"arrived: {name} is {HALVES[half]} at {uri} with all of its memory")
        else:
            end = (ExitCode.FAILED, f"{name} did not arrive at {uri}: it is {HALVES[half]}")
        self._tell(half, end)
        self.ended_s = time.monotonic()


def settled_half(uri: str, uuid: str) -> str | None:
    """What has become of a guest whose migration is not seen any more; None: nobody can tell yet."""
    try:
        half = _core.half(uri, uuid)["half"]
    except _core.LibvirtError:
        return None
    return None if half in ("migrating", "postcopy", "postcopy-failed", "unknown") else half


class Waiting:
    """A migration of pcmig's that leaves the link to others. Its migrate call is not made yet: libvirt does
    not know of it, and its guest runs untouched."""

    def __init__(self, uri: str, turn: _core.Turn, entry: Entry) -> None:
        self.uuid = entry.uuid
        self.gone = False
        self.ended_s: float | None = None
        self._job = Job(uri, entry.name)
        self._job.uuid, self._job.source = entry.uuid, True
        self.moment = self._moment(turn, entry)

    def stop(self) -> None: ...

    def _moment(self, turn: _core.Turn, entry: Entry) -> Moment:
        found = Beside(turn, entry)
        status = self._job.status()
        status["phase"] = "setup"  # as its own process says
        with contextlib.suppress(ValueError, TypeError):  # a journal may say anything; a time has a zone
            since = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(entry.started)
            status["elapsed_ms"] = max(0, round(since.total_seconds() * 1000))
        return Moment(self._job, merged(self._job, found, status), found, waiting=True)

    def again(self, turn: _core.Turn, entry: Entry) -> None:
        """The scan found it once more."""
        self.moment = self._moment(turn, entry)

    def settle(self) -> None:
        """It does not wait any more, and libvirt knows of no migration: it is about to begin as long as a
        process looks after it."""
        before, now = self.moment.beside.entry, entry_of(self.uuid)
        assert before is not None
        if now is not None and now.keeper is not None and now.started == before.started:
            return
        name, uri = self._job.domain, self._job.uri
        half = settled_half(uri, self.uuid)
        if half is None:
            return  # asked again with the next scan
        if half in ("running", "paused"):
            words = f"given up before it began: {name} is {HALVES[half]} at {uri}"
        else:  # it ended between two scans, or was shut down
            words = f"its migration was not seen: {name} is {HALVES[half]} at {uri}"
        status = self._job.status()
        status["elapsed_ms"] = self.moment.status["elapsed_ms"]
        status["eta"] = {"outlook": "over", "least_ms": None, "most_ms": None}
        self.moment = Moment(self._job, status, Beside(None, now), (ExitCode.FAILED, words), waiting=True)
        self.ended_s = time.monotonic()


def waiting(uri: str) -> dict[str, tuple[_core.Turn, Entry]]:
    """Those from URI whose migrate call is not made yet, by UUID: only the journal has that of a guest."""
    turns = {turn["name"]: turn for turn in _core.turns() if turn["turn"] == "waiting"}
    if not turns:
        return {}
    found: dict[str, tuple[_core.Turn, Entry]] = {}
    for book in books(None):
        with contextlib.suppress(JournalError):
            for entry in book.all()[0]:
                if entry.name in turns and entry.source_uri == uri and entry.keeper is not None:
                    found[entry.uuid] = (turns[entry.name], entry)
    return found


Row = Followed | Arriving | Waiting


class Host:
    """All migrations at URI. NEWS gets each moment; None where nobody takes them: a queue would grow as long
    as the screen is looked at."""

    def __init__(
        self,
        uri: str,
        shadows: Shadows,
        closely: bool,
        ending: Ending,
        news: queue.SimpleQueue[Moment] | None = None,
    ) -> None:
        self.uri = uri
        self.news = news
        self.trouble: str | None = None  # why the host does not answer
        self._shadows = shadows
        self._closely = closely
        self._ending = ending
        self._rows: dict[str, Row] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(self) -> None:
        """Raises LibvirtError when the host cannot be asked at all."""
        self._scan()
        threading.Thread(target=self._look_for_more, name=THREADS, daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        for row in self.rows():
            row.stop()

    def rows(self) -> list[Row]:
        """Those that run, and those that ended lately, as they came."""
        with self._lock:
            return list(self._rows.values())

    def _look_for_more(self) -> None:
        while not self._stop.wait(SCAN_S):
            try:
                self._scan()
                self.trouble = None
            except _core.LibvirtError as err:
                self.trouble = f"{self.uri} does not answer ({err})"
            except Exception as err:  # or this thread would end without a word, and the screen grow old
                self.trouble = f"{self.uri} cannot be looked at ({type(err).__name__}: {err})"

    def _scan(self) -> None:
        found = {each["uuid"]: each for each in _core.migrations(self.uri) if each["job_active"] is not None}
        waits = {uuid: each for uuid, each in waiting(self.uri).items() if uuid not in found}
        now_s = time.monotonic()
        new: list[Row] = []
        still: list[Waiting] = []
        with self._lock:
            if self._stop.is_set():
                return  # nobody would stop what is begun now
            for uuid, row in list(self._rows.items()):
                old = row.ended_s is not None and now_s - row.ended_s > KEEP_S
                again = uuid in found or uuid in waits
                if isinstance(row, Waiting):
                    row.gone = uuid in found  # it has begun
                if row.gone or old or (row.ended_s is not None and again):
                    del self._rows[uuid]
            for uuid, each in found.items():
                if uuid not in self._rows:
                    new.append(self._made(each))
                    self._rows[uuid] = new[-1]
            for uuid, (turn, entry) in waits.items():
                there = self._rows.get(uuid)
                if there is None:
                    new.append(Waiting(self.uri, turn, entry))
                    self._rows[uuid] = new[-1]
                elif isinstance(there, Waiting):
                    there.again(turn, entry)
                    still.append(there)
            over = [
                row
                for uuid, row in self._rows.items()
                if isinstance(row, Waiting) and row.ended_s is None and uuid not in waits
            ]
            arriving = [row for row in self._rows.values() if isinstance(row, Arriving)]
        for waits_on in still:
            self._tell(waits_on.moment)
        for gone in over:
            gone.settle()
            if gone.ended_s is not None:
                self._tell(gone.moment)
        for row in new:
            if isinstance(row, Followed):
                row.start(self.news)
            elif row.moment is not None:
                self._tell(row.moment)
        for one in arriving:
            self._heed(one, found.get(one.uuid))

    def _made(self, found: _core.Migrating) -> Row:
        if found["half"] == "migrating":
            return Arriving(self.uri, found)
        return Followed(self.uri, found, self._shadows(), self._closely, self._ending)

    def _heed(self, row: Arriving, found: _core.Migrating | None) -> None:
        if row.ended_s is not None:
            return
        before = row.moment
        if found is not None:
            row.half(found["half"])
        else:
            row.settle()
        if row.moment is not None and row.moment is not before:
            self._tell(row.moment)

    def _tell(self, moment: Moment) -> None:
        if self.news is not None:
            self.news.put(moment)


def driver_of(entry: Entry | None, turn: _core.Turn | None) -> str | None:
    """Who drives a migration, as far as pcmig knows: who else does leaves no mark."""
    keeper = entry.keeper if entry is not None else None
    if entry is not None and keeper is not None:
        program = str(entry.caller.get("program") or PROGRAM)
        return f"{program} ({keeper.pid})"
    return "pcmig" if turn is not None else None


def row_of(moment: Moment, shadow: bool) -> screen.Row:
    job, found = moment.job, moment.beside
    entry = found.entry
    kept = entry is not None and entry.keeper is not None
    return screen.Row(
        name=job.domain,
        status=moment.status,
        rates=moment.rates,
        driver=driver_of(entry, found.turn),
        tunnel=entry is not None and entry.tunnel is not None,
        arriving=moment.arriving,
        waiting=moment.waiting and moment.end is None,
        recovery=recovery_of(entry) if kept else None,
        shadow=job.seen.words() if shadow and not (moment.arriving or moment.waiting) else None,
        outcome=None if moment.end is None else moment.end[1].splitlines()[0],
        good=moment.end is None or moment.end[0] in (ExitCode.DONE, ExitCode.FAILED),
    )


class Lines:
    """What comes, as lines for logs and pipes."""

    def __init__(self, shadow: bool) -> None:
        self._shadow = shadow
        # By UUID: when, and in which phase, and whom it waited for.
        self._shown: dict[str, tuple[float, tuple[str, str | None]]] = {}
        self._verdicts: set[str] = set()

    def show(self, moment: Moment) -> None:
        job, now_s = moment.job, time.monotonic()
        name = job.domain
        if self._shadow and job.seen.verdict is not None and job.uuid not in self._verdicts:
            self._verdicts.add(job.uuid)
            _print(f"{name}: {job.seen.words()}")
        if moment.end is not None:
            self._verdicts.discard(job.uuid)
            self._shown.pop(job.uuid, None)
            if self._shadow and not (moment.arriving or moment.waiting) and job.seen.verdict is None:
                _print(f"{name}: {job.seen.words()}")
            _print(f"{name}: {moment.end[1]}")
            return
        shown_s, before = self._shown.get(job.uuid, (float("-inf"), ("", None)))
        now = ("arriving" if moment.arriving else moment.status["phase"], moment.status["waits_for"])
        if now != before or now_s - shown_s >= LINE_S:
            self._shown[job.uuid] = (now_s, now)
            words = f"arriving ({HALVES[job.half]})" if moment.arriving else plain_line(moment.status)
            _print(f"{name}: {words}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def watch_all(
    uri: str,
    shadows: Shadows,
    ending: Ending,
    signals: SignalPipe,
    *,
    shadow: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Until it is left. Raises LibvirtError when the host cannot be asked at all, BrokenPipeError when nobody
    reads any more."""
    on_screen = not as_json and not quiet and is_terminal(sys.stdout)
    news: queue.SimpleQueue[Moment] = queue.SimpleQueue()
    host = Host(uri, shadows, shadow, ending, None if on_screen else news)
    host.start()
    try:
        if on_screen:
            _on_screen(host, signals, shadow)
        elif as_json:
            _stream(host, news, signals, lambda moment: _print(_json(uri, moment, shadow)))
        else:
            _stream(host, news, signals, Lines(shadow).show if not quiet else _only_ends)
    finally:
        host.stop()
    return ExitCode.DONE


def _only_ends(moment: Moment) -> None:
    if moment.end is not None:
        _print(f"{moment.job.domain}: {moment.end[1]}")


def _json(uri: str, moment: Moment, shadow: bool) -> str:
    found: dict[str, Any] = told(
        uri,
        moment.job,
        moment.status,
        moment.beside,
        shadow=shadow,
        end=moment.end,
        figures=not (moment.arriving or moment.waiting),
    )
    if moment.arriving:
        found["role"] = "destination"
    return json.dumps(found)


def _stream(
    host: Host, news: queue.SimpleQueue[Moment], signals: SignalPipe, show: Callable[[Moment], None]
) -> None:
    trouble: str | None = None
    while not signals.take():
        with contextlib.suppress(queue.Empty):
            show(news.get(timeout=DRAW_S))
        if host.trouble != trouble:
            trouble = host.trouble
            if trouble is not None:
                print(f"pcmig: {trouble}", file=sys.stderr)


def _on_screen(host: Host, signals: SignalPipe, shadow: bool) -> None:
    poller = select.poll()
    poller.register(signals.fileno(), select.POLLIN)
    with Keys() as keys, Screen() as terminal:
        keys.watch(poller)
        while not signals.take() and not keys.leave():
            moments = [row.moment for row in host.rows() if row.moment is not None and not row.gone]
            width, height = terminal.size
            terminal.draw(
                screen.everything(
                    host.uri,
                    [row_of(moment, shadow) for moment in moments],
                    time.monotonic(),
                    time.strftime("%H:%M:%S"),
                    width,
                    height,
                    host.trouble,
                )
            )
            poller.poll(DRAW_S * 1000)
