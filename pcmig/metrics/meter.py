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
from pcmig.metrics.store import BusyError, Store, StoreError
from pcmig.metrics.view import view

# Where Debian's node_exporter looks for text files.
TEXTFILE_FOLDER = "/var/lib/prometheus/node-exporter"
# A file for each program: what each writes is all that it has.
FILES = {COMMAND: "pcmig.prom", NOVA: "pcmig-nova-compute.prom"}
MODE = 0o644  # node_exporter has a user of its own

EVERY_S = 5.0

TEXT_LOCK = ".text-lock"  # whoever has it writes the file for node_exporter


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
        self.store = Store(folder, self.tell)
        self.book = book
        self.textfiles = textfiles
        self._path = None if textfiles is None else os.path.join(textfiles, FILES[program])
        self._say = tell
        self._told: set[str] = set()
        self._looked_s = float("-inf")
        self._news: object = None
        self._live = False  # there is a file of what this process follows

    def look(self, rows: Callable[[], list[dict[str, Any]]], news: object = None) -> None:
        """ROWS are of the migrations that run in this process. To be called often; it does something each
        EVERY_S, and when NEWS are others than before."""
        if not self.due(news):
            return
        try:
            self.publish(rows(), wait_s=0)
        except Exception as err:  # a defect of ours, in what makes rows
            self._tell_defect(err)

    def due(self, news: object = None) -> bool:
        """Whether look() is to do something, which begins the time until the next one."""
        if news == self._news and time.monotonic() - self._looked_s < EVERY_S:
            return False
        self._looked_s, self._news = time.monotonic(), news
        return True

    def publish(
        self,
        rows: list[dict[str, Any]] | None = None,
        situations: Mapping[str, str] | None = None,
        wait_s: float | None = None,
    ) -> None:
        """Writes all figures. ROWS are of the migrations that run in this process, SITUATIONS of what nobody
        follows; None: as they were. WAIT_S: for another process that writes, which may be stopped, no longer
        than that; 0: nothing is told then, as there is a next time. Never raises."""
        try:
            if rows is not None and (rows or self._live):
                self.store.write_live(rows, wait_s)
                self._live = bool(rows)
            if situations is not None and situations != self.store.situations():
                self.store.write_situations(situations, wait_s)
            self.write(self._path, wait_s)
        except BusyError as err:
            if wait_s:
                self.tell(str(err))
        except StoreError as err:
            self.tell(str(err))
        except ImportError as err:
            self.tell(exposition.MISSING.format(err))
        except Exception as err:  # such as a file that another version of pcmig wrote
            self._tell_defect(err)

    def write(self, path: str | None, wait_s: float | None = None) -> None:
        """Raises StoreError, ImportError without prometheus-client."""
        if path is None:
            return
        # Of two that write, the one that comes last knows more. The lock is its own: PATH may be on a file
        # system that hangs, and who only counts is not to wait for that.
        with self.store.locked(wait_s, name=TEXT_LOCK):
            found = self.view()
            text = exposition.text(lambda: exposition.families([found]))
            try:
                files.replace(path, text, MODE)
            except OSError as err:
                raise StoreError(f"{path} cannot be written: {err.strerror}") from err

    def view(self) -> exposition.View:
        """Raises StoreError."""
        return view(self.program, self.store, self.book)

    def ended(self, migration: str, more: Increments, wait_s: float | None = None) -> None:
        """MIGRATION, named so for ever, has ended: MORE is added, once, however often this is called. WAIT_S
        as for publish(). Never raises."""
        try:
            self.store.add(migration, more, wait_s)
        except StoreError as err:
            self.tell(str(err))
        except Exception as err:
            self._tell_defect(err)

    def close(self, wait_s: float | None = None) -> None:
        """This process follows nothing any more."""
        self.publish([], wait_s=wait_s)

    def _tell_defect(self, err: Exception) -> None:
        self.tell(f"metrics are not written: {type(err).__name__}: {err}")

    def tell(self, text: str) -> None:
        """Once."""
        if text not in self._told:
            self._told.add(text)
            self._say(text)
