# SPDX-License-Identifier: Apache-2.0
"""What the API says about a live migration, as words and numbers for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext, gettext_lazy

MIB = 1 << 20
UNNAMED = "?"

# The API's names of phases (pcmig/phases.py).
PHASES = {
    "setting up": gettext_lazy("Setting up"),
    "pre-copy": gettext_lazy("Pre-copy"),
    "draining": gettext_lazy("Emptying the link before the switch"),
    "switching": gettext_lazy("Switching to post-copy"),
    "post-copy": gettext_lazy("Post-copy"),
    "paused": gettext_lazy("Paused: the link between the hosts is down"),
    "finished": gettext_lazy("Finished"),
}

Figures = Mapping[str, Any]


def _(text: str) -> str:
    return str(gettext(text))


def number(value: Any, decimals: int) -> str:
    return str(number_format(value, decimals, force_grouping=True))


def mebibytes(value: Any) -> str:
    return _("%s MiB") % number(value / MIB, 1)


def rate(value: Any) -> str:
    return _("%s MiB/s") % number(value / MIB, 1)


def seconds(value: Any) -> str:
    return _("%s s") % number(value / 1000, 1)


def milliseconds(value: Any) -> str:
    return _("%s ms") % number(value, 0)


def count(value: Any) -> str:
    return number(value, 0)


def phase(value: Any) -> str:
    return str(PHASES.get(value, value))


# Key in the page, label, key in the API's "progress" (of the migration itself, with a dot before it), how to
# write it.
ROWS: tuple[tuple[str, Any, str, Callable[[Any], str]], ...] = (
    ("phase", gettext_lazy("Phase"), "phase", phase),
    ("passes", gettext_lazy("Passes"), "passes", count),
    ("remaining", gettext_lazy("Memory remaining"), "remaining_bytes", mebibytes),
    ("transferred", gettext_lazy("Memory sent"), "transferred_bytes", mebibytes),
    ("total", gettext_lazy("Memory in all"), "total_bytes", mebibytes),
    ("requests", gettext_lazy("Page requests"), "requests", count),
    ("rate", gettext_lazy("Transfer rate"), "rate_bytes_per_s", rate),
    ("dirty", gettext_lazy("Guest writes"), "dirty_bytes_per_s", rate),
    ("elapsed", gettext_lazy("Time so far"), "elapsed_ms", seconds),
    ("eta", gettext_lazy("Time to go"), "eta_ms", seconds),
    ("downtime", gettext_lazy("Downtime"), "downtime_ms", milliseconds),
    ("reason", gettext_lazy("Decision"), "reason", str),
    ("status", gettext_lazy("Status in Nova"), ".status", str),
    ("source", gettext_lazy("From host"), ".source_compute", str),
    ("dest", gettext_lazy("To host"), ".dest_compute", str),
)


# Nova's statuses of a migration whose guest may have to turn back; the first is the beginning of a sentence.
INTERRUPTED, ERROR = "post-copy interrupted", "error"


def panel(migration: Figures | None, way_back: Figures | None = None) -> dict[str, Any]:
    """All that the panel shows of a migration, and of the API's "way_back"; the same keys, whatever they are.

    running:  to be asked again soon
    headline: one sentence, with the percentage of the bar
    spoken:   the same for screen readers; changes seldom enough to be read aloud each time
    percent:  0 to 100, or None without a bar
    note:     what is missing, or ""
    values:   text for each of ROWS, "" where nothing is known
    turn_back: this user may have the instance turn back, and it may have to
    """
    back: Figures = way_back or {}
    if migration is None:
        return _nothing(_("This instance has not been live migrated yet."))
    progress: Figures = migration.get("progress") or {}
    running = bool(migration.get("in_progress"))
    values = {}
    for key, _label, place, write in ROWS:
        value = migration.get(place[1:]) if place.startswith(".") else progress.get(place)
        values[key] = "" if value is None else _written(write, value)
    if running and not progress:
        _from_record(migration, values)
    percent = _percent(migration, progress, running)
    note = ""
    if running and not progress:
        note = _("There are no figures from the source host: %s") % (
            migration.get("progress_missing") or _("it did not say why")
        )
    if back.get("turned_back"):
        note = _(
            "The destination was lost, and the instance goes on from before this migration. Until it is "
            "powered off once it cannot be migrated, suspended or given volumes: reboot it hard."
        )
    status = str(migration.get("status"))
    broken = status == ERROR or status.startswith(INTERRUPTED)
    return {
        "running": running,
        "headline": _headline(migration, progress, running, percent),
        # In steps of ten.
        "spoken": _headline(migration, progress, running, None if percent is None else percent // 10 * 10),
        "percent": percent,
        "note": note,
        "values": values,
        "turn_back": bool(back.get("may_ask")) and not back.get("turned_back") and broken,
    }


def unknown(why: str) -> dict[str, Any]:
    """The panel when nothing could be found out."""
    return _nothing(_("Nothing is known about live migrations of this instance."), why)


def labels() -> list[tuple[str, str]]:
    return [(key, str(label)) for key, label, _place, _write in ROWS]


def _nothing(headline: str, note: str = "") -> dict[str, Any]:
    values = dict.fromkeys((row[0] for row in ROWS), "")
    said = {"headline": headline, "spoken": headline}
    return {"running": False, **said, "percent": None, "note": note, "values": values, "turn_back": False}


def _written(write: Callable[[Any], str], value: Any) -> str:
    try:
        return write(value)
    except (TypeError, ValueError):
        return str(value)


def _from_record(migration: Figures, values: dict[str, str]) -> None:
    """Nova's record, which is written every few seconds, where the host's own figures are not to be had."""
    for key, place in (
        ("remaining", "memory_remaining_bytes"),
        ("transferred", "memory_processed_bytes"),
        ("total", "memory_total_bytes"),
    ):
        if migration.get(place) is not None:
            values[key] = _written(mebibytes, migration[place])


def _percent(migration: Figures, progress: Figures, running: bool) -> int | None:
    if not running:
        return 100 if migration.get("status") == "completed" else None
    if isinstance(progress.get("percent"), (int, float)):
        return max(0, min(100, int(progress["percent"])))
    total, remaining = migration.get("memory_total_bytes"), migration.get("memory_remaining_bytes")
    if total and remaining is not None:
        return max(0, min(100, int(100 * (total - remaining) / total)))
    return 0


def _headline(migration: Figures, progress: Figures, running: bool, percent: int | None) -> str:
    names = {
        "source": migration.get("source_compute") or UNNAMED,
        "dest": migration.get("dest_compute") or UNNAMED,
        "status": migration.get("status") or UNNAMED,
    }
    if not running:
        if migration.get("status") == "completed":
            return _("The newest live migration, from %(source)s to %(dest)s, is completed.") % names
        return _("The newest live migration, from %(source)s to %(dest)s, ended: %(status)s.") % names
    names["phase"] = phase(progress["phase"]) if progress.get("phase") else str(names["status"])
    names["percent"] = str(percent or 0)
    return _("Moving from %(source)s to %(dest)s. %(phase)s, %(percent)s %%.") % names
