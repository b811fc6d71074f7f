# SPDX-License-Identifier: Apache-2.0
"""The body of a server's action, and the key in it that is not Nova's: pure, bytes in, bytes out.

What is no live migration with the key, or no JSON at all, is Nova's business: it goes on as it came.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

ACTION = "os-migrateLive"
KEY = "post_copy"
TURN_BACK = "os-pcmigTurnBack"  # an action of pcmig's own

# Nova's schema lets no live migration be deeper than two. Python's JSON reader gives up, not with ValueError,
# at a depth that differs between its releases and with what has called it, so nothing near it goes on.
MAX_DEPTH = 64
_STRINGS_AND_BRACKETS = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[\[\]{}]', re.DOTALL)

# The spellings of Nova's own booleans (nova/api/validation/parameter_types.py, boolean).
TRUE = ("True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes")
FALSE = ("False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no")


class Malformed(ValueError):
    """The body can be read by nobody."""


@dataclasses.dataclass(frozen=True)
class Taken:
    """A live migration that says something about post-copy."""

    value: Any  # of the key, as it came
    rest: bytes  # the body without the key


def take(body: bytes) -> Taken | None:
    """The key of BODY and the rest of it, or None if it has none: then BODY is to be passed on as it is.

    Reads as Nova does (UTF-8 alone, of several equal keys the last one, NaN). Raises Malformed for what is
    nested so deep that Nova could not read it either.
    """
    # A name can be written with escapes; without any, most bodies need no second reading.
    if ACTION.encode() not in body and b"\\" not in body:
        return None
    if _deeper_than(body, MAX_DEPTH):
        raise Malformed
    document = read(body)
    if document is None or len(document) != 1:
        return None
    action = document.get(ACTION)
    if not isinstance(action, dict) or KEY not in action:
        return None
    value = action.pop(KEY)
    return Taken(value, json.dumps(document).encode())


def read(body: bytes) -> dict[str, Any] | None:
    """The object that BODY is, as Nova reads it; None for what is none, or is nested too deep."""
    if _deeper_than(body, MAX_DEPTH):
        return None
    try:
        document = json.loads(body.decode())
    except ValueError:  # also UnicodeDecodeError, and whole numbers of more digits than Python converts
        return None
    return document if isinstance(document, dict) else None


def action(body: bytes, names: Iterable[str]) -> tuple[str, Any] | None:
    """The action of BODY with what it says, if it is one of NAMES and nothing else is in there."""
    # A name can be written with escapes; Nova reads those, and so does read().
    if b"\\" not in body and not any(name.encode() in body for name in names):
        return None
    document = read(body)
    if document is None or len(document) != 1:
        return None
    [(name, value)] = document.items()
    return (name, value) if name in names else None


def truth(value: Any) -> bool | None:
    """What VALUE says in one of Nova's spellings of a boolean; None if it is none of them."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return True if value in TRUE else False if value in FALSE else None
    return None


def _deeper_than(body: bytes, depth: int) -> bool:
    """Counted on the text, because a reader that is given the body gives up at a depth of its own."""
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    level = 0
    for token in _STRINGS_AND_BRACKETS.finditer(body):
        if token[0] in (b"[", b"{"):
            level += 1
            if level > depth:
                return True
        elif token[0] in (b"]", b"}"):
            level -= 1
    return False
