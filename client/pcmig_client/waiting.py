# SPDX-License-Identifier: Apache-2.0
"""`openstack server migrate --wait` for a migration with pcmig: what it shows, and when it ends."""

from __future__ import annotations

import time
from typing import Any, TextIO

from pcmig_client import state
from pcmig_client.asking import Api, NotAnswered
from pcmig_common import units

POLL_S = 1.0
LINE_INTERVAL_S = 5.0
LOST_AFTER = 20  # answers in a row that were errors


class Failed(Exception):
    """The migration ended, and not well; or nobody answers any more."""


class Progress:
    """On a terminal one line that is written over, as the client's own; elsewhere a line at each change of
    phase and every LINE_INTERVAL_S."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._start_s = time.monotonic()
        self._width = 0
        self._shown: tuple[str, float] | None = None

    def elapsed(self) -> str:
        return units.seconds(int((time.monotonic() - self._start_s) * 1000))

    def show(self, migration: dict[str, Any]) -> None:
        text = state.line(migration)
        if self._terminal:
            text = f"Progress: {text}"
            self._out.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            phase, now_s = state.phase(migration), time.monotonic()
            if self._shown and self._shown[0] == phase and now_s - self._shown[1] < LINE_INTERVAL_S:
                return
            self._shown = (phase, now_s)
            self._out.write(f"{self.elapsed()} {text}\n")
        self._out.flush()

    def close(self) -> None:
        if self._width:
            self._out.write("\n")
            self._width = 0


def migration_id(api: Api, server_id: str) -> Any:
    """The newest migration's, None before the first. Raises state.NoState where there is no filter to ask."""
    migration = state.fetch(api, server_id).get("migration")
    return migration["id"] if migration else None


def wait(api: Api, server_id: str, before: Any, out: TextIO) -> str:
    """Follow the live migration that comes after BEFORE (migration_id()) to its end; a sentence on it.

    Raises Failed for one that did not move the server.
    """
    progress = Progress(out)
    try:
        return _follow(api, server_id, before, progress)
    finally:
        progress.close()


def _follow(api: Api, server_id: str, before: Any, progress: Progress) -> str:
    errors = 0
    post_copy = False
    while True:
        try:
            migration = state.fetch(api, server_id).get("migration")
            server = api.ask("GET", f"/servers/{server_id}")["server"]
            errors = 0
        except (state.NoState, NotAnswered) as err:
            errors += 1
            if err.status < 500 or errors >= LOST_AFTER:
                raise Failed(
                    f"cannot follow the migration of {server_id}, which may go on: {err.status}: {err}"
                ) from err
        else:
            new = migration if migration and migration["id"] != before else None
            if new:
                progress.show(new)
                post_copy = post_copy or state.switched(new)
            if server["status"] != "MIGRATING" and not (new and new["in_progress"]):
                return _outcome(server, new, post_copy, progress.elapsed())
        time.sleep(POLL_S)


def _outcome(server: dict[str, Any], migration: dict[str, Any] | None, post_copy: bool, elapsed: str) -> str:
    if migration and migration["status"] == "completed" and server["status"] != "ERROR":
        seen = ", with post-copy" if post_copy else ""
        return f"Complete: {server['id']} runs at {migration['dest_compute']} ({elapsed}{seen})"
    what = (
        f"the live migration's status is {migration['status']}" if migration else "no live migration started"
    )
    raise Failed(
        f"{what} and the server's is {server['status']}: see openstack server event list {server['id']}"
    )
