# SPDX-License-Identifier: Apache-2.0
"""The file of all rounds played so far, by whatever bed and driver; complete after each, and one a line, so
that two of them can be merged."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from tests.bed import BedError
from tests.faults.stage import PCMIG

SCHEMA = 1
Row = dict[str, Any]
# What tells a round from every other.
ROUND = ("bed", "driver", "stack", "cell", "seed", "when")
# What only a round that went wrong is kept with.
LONG = ("said", "record", "beats", "logs")


class Record:
    """rows: one for each round
    mended: by bed and cell, {"since": the time from which its rounds count, "why": what was wrong before}
    stacks: versions by stack
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self.path = path
        self.stacks: dict[str, Any] = {}
        self.mended: dict[str, Any] = {}
        self.rows: list[Row] = []
        if path is None or not path.exists():
            return
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise BedError(f"--json {path}: {error}") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise BedError(f"--json {path}: not of this program, or of another version of it")
        self.stacks, self.rows = content["stacks"], content["cells"]
        self.mended = content.get("mended", {})

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.save()

    def merge(self, other: Record) -> int:
        """Takes over what OTHER has and this one has not, without the many words of rounds that went well;
        returns how many rounds that were."""
        known = {identity(row) for row in self.rows}
        new = [short(row) for row in other.rows if identity(row) not in known]
        self.rows.extend(new)
        self.stacks |= other.stacks
        self.mended |= other.mended
        return len(new)

    def counted(self) -> list[Row]:
        return counted(self.rows, self.mended)

    def save(self) -> None:
        if self.path is None:
            return
        temporary = self.path.with_name(f".{self.path.name}.new")
        try:
            temporary.write_text(self._text())
            temporary.replace(self.path)
        except OSError as error:
            raise BedError(f"--json {self.path}: {error.strerror}") from error

    def _text(self) -> str:
        parts = [
            f'"schema": {SCHEMA}',
            f'"stacks": {json.dumps(self.stacks, indent=1)}',
            f'"mended": {json.dumps(self.mended, indent=1)}',
            '"cells": [\n' + ",\n".join(json.dumps(row) for row in self.rows) + "\n]",
        ]
        return "{\n" + ",\n".join(parts) + "\n}\n"


def identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ROUND)


def short(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in LONG} if row["good"] else row


def counted(rows: Iterable[Row], mended: Mapping[str, Mapping[str, str]]) -> list[Row]:
    """Every round counts, good or bad, with whatever code it was played; only what was found wrong and mended
    since counts no more. The control is not ours to mend."""
    return [
        row
        for row in rows
        if row["driver"] != PCMIG
        or row["when"] >= mended.get(f"{row['bed']} {row['cell']}", {}).get("since", "")
    ]
