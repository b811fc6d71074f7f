# SPDX-License-Identifier: Apache-2.0
"""What the server's owner reads of a migration, beside what operators are told.

Faults, names of events and statuses are shown to every user of the server's project, and Nova cuts them off
at 255 characters. So they come from the tables here: short, whole, without hosts, URIs or libvirt's words.
What operators are told begins with the command that helps; it goes into the log, into the details of faults
and events, which Nova shows to administrators alone, and into the API's os-pcmig.
"""

from __future__ import annotations

import collections
import threading
from typing import Any

from pcmig_common.i18n import _

LENGTH = 255  # Nova's columns

INTERRUPTED = "post-copy interrupted"  # how the status begins; clients know it by that

_MIGRATES = _("The server is being live migrated. Try again when its migration has ended.")
_CONCLUDED = _("The server's live migration has yet to be concluded. Try again in a few minutes.")
_WAITS = _("The server's live migration is interrupted, and nothing is lost. Try again when it has ended.")
_LOST = _("Memory of the server was lost in a live migration. An operator has to decide what becomes of it.")
_UNCERTAIN = _("It is not certain where the server runs after its live migration. An operator has to look.")

# Why something is refused, by the situation of the guest (csrc/core/situation.h).
_REFUSALS = {
    "unseen": _UNCERTAIN,
    "nobody": _UNCERTAIN,
    "home-source": _CONCLUDED,
    "home-destination": _CONCLUDED,
    "precopy": _MIGRATES,
    "switching": _MIGRATES,
    "postcopy": _MIGRATES,
    "interrupted": _WAITS,
    "cut-off": _WAITS,
    "at-source": _CONCLUDED,
    "leftover": _CONCLUDED,
    "arrived": _CONCLUDED,
    "at-destination": _CONCLUDED,
    "unconfirmed": _UNCERTAIN,
    "handed-over": _CONCLUDED,
    "half-lost": _LOST,
    "ended": _CONCLUDED,
    "gone": _LOST,
    "double": _UNCERTAIN,
    "runs-at-source": _CONCLUDED,
    "runs-at-destination": _CONCLUDED,
    "silent": _UNCERTAIN,
    "in-doubt": _UNCERTAIN,
}


class Explained(Exception):
    """The cause of an error that says little: what operators are told. The details of a fault have it."""


def refusal(situation: str) -> str:
    """Why an act is refused in SITUATION."""
    return str(_REFUSALS.get(situation, _UNCERTAIN))


def interruption(status: Any) -> str:
    """The status of a migration whose post-copy is interrupted, by the engine's STATUS."""
    total, recovery = status["memory_total_bytes"], status["recovery"]
    if recovery is not None:
        crossed = recovery["permille"] // 10
    else:
        crossed = (total - status["memory_remaining_bytes"]) * 100 // total if total > 0 else 0
    where = f"{INTERRUPTED} at {crossed} %" if total > 0 else INTERRUPTED
    return f"{where}, {_what_is_done(recovery)}"


def _what_is_done(recovery: Any) -> str:
    if recovery is None:  # a while before both hosts have answered, when their network is down too
        return "finding out how it stands"
    attempts = int(recovery["attempts"])
    match recovery["state"]:
        case "resuming":
            return f"resuming, attempt {attempts}"
        case "held":
            return "waiting for an operator"
    return f"attempt {attempts} failed, trying again" if attempts else "waiting to be resumed"


def for_operators(why: str, command: str | None) -> str:
    """One line that a shell takes as it is: the COMMAND that helps, and WHY."""
    return f"{command}  # {why}" if command else why


class Told:
    """What operators were told last of each server, for who asks the API; of the latest few hundred."""

    MOST = 500

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: collections.OrderedDict[str, str] = collections.OrderedDict()

    def note(self, uuid: str, text: str) -> None:
        with self._lock:
            self._texts.pop(uuid, None)
            self._texts[uuid] = text
            while len(self._texts) > self.MOST:
                self._texts.popitem(last=False)

    def forget(self, uuid: str) -> None:
        with self._lock:
            self._texts.pop(uuid, None)

    def of(self, uuid: str) -> str | None:
        with self._lock:
            return self._texts.get(uuid)
