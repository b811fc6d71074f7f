# SPDX-License-Identifier: Apache-2.0
"""Counts a program's migrations, and writes all its figures for node_exporter. Whatever goes wrong here is
told, once, and changes nothing for the migration."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from pcmig import files
from pcmig.metrics import exposition
from pcmig.metrics.account import Increments
from pcmig.metrics.families import COMMAND, NOVA
from pcmig.metrics.store import Store, StoreError
from pcmig.metrics.view import view

# Where Debian's node_exporter looks for text files.
TEXTFILE_FOLDER = "/var/lib/prometheus/node-exporter"
# A file for each program: what each writes is all that it has.
FILES = {COMMAND: "pcmig.prom", NOVA: "pcmig-nova-compute.prom"}
MODE = 0o644  # node_exporter has a user of its own

EVERY_S = 5.0


def usable_folder(folder: str = TEXTFILE_FOLDER) -> str | None:
    """FOLDER, if it is there and this process may write to it."""
    return folder if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK) else None


@dataclasses.dataclass(frozen=True)
class Where:
    """Where the figures of a service go."""

    textfiles: str | None = None  # folder of node_exporter's; None: no file
    port: int = 0  # 0: none
    address: str = "127.0.0.1"


class Meter:
    """Of PROGRAM, which counts in FOLDER and has its journal in BOOK. TEXTFILES is the folder of its file for
    node_exporter; None: it writes none."""

    def __init__(
        self,
        program: str,
        folder: pathlib.Path | str,
        book: pathlib.Path | str,
        textfiles: str | None,
        tell: Callable[[str], None],
    ) -> None:
        self.program = program
        self.store = Store(folder, self._tell)
        self.book = book
        self._path = None if textfiles is None else os.path.join(textfiles, FILES[program])
        self._say = tell
        self._told: set[str] = set()
        self._looked_s = float("-inf")
        self._news: object = None
        self._live = False  # there is a file of what this process follows

    def look(self, rows: Callable[[], list[dict[str, Any]]], news: object = None) -> None:
        """ROWS are of the migrations that run in this process. To be called often; it does something each
        EVERY_S, and when NEWS are others than before."""
        if news == self._news and time.monotonic() - self._looked_s < EVERY_S:
            return
        self._looked_s, self._news = time.monotonic(), news
        self.publish(rows())

    def publish(
        self, rows: list[dict[str, Any]] | None = None, situations: Mapping[str, str] | None = None
    ) -> None:
        """Writes all figures. ROWS are of the migrations that run in this process, SITUATIONS of what nobody
        follows; None: as they were."""
        try:
            if rows is not None and (rows or self._live):
                self.store.write_live(rows)
                self._live = bool(rows)
            if situations is not None and situations != self.store.situations():
                self.store.write_situations(situations)
            self.write(self._path)
        except StoreError as err:
            self._tell(str(err))
        except ImportError as err:
            self._tell(exposition.MISSING.format(err))

    def write(self, path: str | None) -> None:
        """Raises StoreError, ImportError without prometheus-client."""
        if path is None:
            return
        with self.store.locked():  # of two that write, the one that comes last knows more
            found = self.view()
            text = exposition.text(lambda: exposition.families([found]))
            try:
                files.replace(path, text, MODE)
            except OSError as err:
                raise StoreError(f"{path} cannot be written: {err.strerror}") from err

    def view(self) -> exposition.View:
        """Raises StoreError."""
        return view(self.program, self.store, self.book)

    def ended(self, migration: str, more: Increments) -> None:
        """MIGRATION, named so for ever, has ended: MORE is added, once, however often this is called."""
        try:
            self.store.add(migration, more)
        except StoreError as err:
            self._tell(str(err))

    def close(self) -> None:
        """This process follows nothing any more."""
        self.publish([])

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)
