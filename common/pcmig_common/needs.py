# SPDX-License-Identifier: Apache-2.0
"""Whether this Nova has what pcmig overrides, guards and uses of it: a table in, what is missing out.

A method that Nova renames would otherwise go unguarded in silence, and one with another argument would fail
in the middle of a migration. So nova-compute and nova-api compare their table with the Nova that they run
with, and do not start where something is missing.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any

# What the tables are for, and was tried with.
OLDEST, NEWEST = 31, 34


class NotThisNova(Exception):
    """Nova lacks what pcmig needs: one line that says what, which Nova this is, and what is right."""


@dataclasses.dataclass(frozen=True)
class Need:
    """One name of Nova's."""

    where: str  # "nova.virt.libvirt.driver:LibvirtDriver.spawn"
    why: str
    check: Callable[[Any], str | None]  # of what is there: what is wrong with it
    since: int = OLDEST  # the release that brought it; older ones do without


def there(where: str, why: str = "is used", *, since: int = OLDEST) -> Need:
    """WHERE exists."""
    return Need(where, why, lambda found: None, since)


def called(where: str, arguments: str, why: str = "is called", *, since: int = OLDEST) -> Need:
    """WHERE can be called with ARGUMENTS: "self instance host= teardown=", names for those by place."""
    return Need(where, why, functools.partial(_takes, arguments), since)


def overridden(where: str, parameters: str, *, since: int = OLDEST) -> Need:
    """WHERE has PARAMETERS after self, and no others: pcmig has a method in its place, which both sides call.

    "_" is one whose name does not matter, as it is passed by place.
    """
    return Need(where, "is overridden", functools.partial(_is_like, parameters), since)


def replaced(where: str, parameters: str, why: str = "is replaced", *, since: int = OLDEST) -> Need:
    """WHERE has no other parameters than PARAMETERS after self: all that pcmig's can be called with."""
    return Need(where, why, functools.partial(_has_no_more, parameters), since)


def guarded(where: str, parameter: str = "instance", *, since: int = OLDEST) -> Need:
    """WHERE has PARAMETER, and pcmig asks before it is done."""
    return Need(where, "is guarded", functools.partial(_has, parameter), since)


def mentions(where: str, names: str, *, since: int = OLDEST) -> Need:
    """The code of WHERE uses NAMES: attributes that only instances have, and hooks that it must call."""
    return Need(where, f"has to use {names.replace(' ', ', ')}", functools.partial(_uses, names), since)


def missing(table: Iterable[Need], release: int) -> list[str]:
    """What of TABLE this Nova lacks, each in a few words. RELEASE: 34 for 34.0.0."""
    found = []
    for need in table:
        if release < need.since:
            continue
        wrong = _wrong(need)
        if wrong is not None:
            found.append(f"{need.where.replace(':', '.')} {wrong} ({need.why})")
    return found


def check(table: Iterable[Need], what: str) -> str:
    """Raises NotThisNova unless all of TABLE is there; WHAT is for whom. Nova's version otherwise."""
    version = nova_version()
    lacks = missing(table, release_of(version))
    if lacks:
        shown = "; ".join(lacks[:3]) + (f"; and {len(lacks) - 3} more" if len(lacks) > 3 else "")
        raise NotThisNova(
            f"pcmig's {what} does not start with Nova {version}: {shown}. It is made for Nova {OLDEST} to "
            f"{NEWEST}: use one of these, or a pcmig that is made for this one"
        )
    return version


def nova_version() -> str:
    """ "34.0.0"; "of unknown version" where Nova is no installed package."""
    try:
        return importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def release_of(version: str) -> int:
    """34 for "34.0.0"; what is unknown is taken for the newest."""
    match = re.match(r"\d+", version)
    return int(match[0]) if match else NEWEST


def _wrong(need: Need) -> str | None:
    module_name, _, path = need.where.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as err:  # a module may raise anything as it is loaded
        return f"cannot be imported ({err})"
    for name in path.split(".") if path else ():
        try:
            found = getattr(found, name)
        except AttributeError:
            return "is not there"
        except ValueError:  # an option with a value that it refuses: that is told elsewhere
            return None
    return need.check(found)


def _signature(found: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(found)
    except (TypeError, ValueError):
        return None


def _names(signature: inspect.Signature) -> list[str]:
    return [name for name in signature.parameters if name != "self"]


def _is_like(parameters: str, found: Any) -> str | None:
    signature = _signature(found)
    if signature is None:
        return "is no method"
    wanted, names = parameters.split(), _names(signature)
    if len(wanted) == len(names) and all(a in ("_", b) for a, b in zip(wanted, names, strict=True)):
        return None
    return f"has parameters ({', '.join(_names(signature))}) instead of ({', '.join(parameters.split())})"


def _has_no_more(parameters: str, found: Any) -> str | None:
    signature = _signature(found)
    if signature is None:
        return "cannot be called"
    more = set(_names(signature)) - set(parameters.split())
    return f"has parameters that are not known: {', '.join(sorted(more))}" if more else None


def _has(parameter: str, found: Any) -> str | None:
    signature = _signature(found)
    if signature is None:
        return "is no method"
    return None if parameter in signature.parameters else f"has no parameter {parameter}"


def _takes(arguments: str, found: Any) -> str | None:
    signature = _signature(found)
    if signature is None:
        return "cannot be called"
    words = arguments.split()
    try:
        signature.bind(
            *(word for word in words if not word.endswith("=")),
            **{word[:-1]: None for word in words if word.endswith("=")},
        )
    except TypeError as err:
        return f"{signature} is not for ({', '.join(words)}): {err}"
    return None


def _uses(names: str, found: Any) -> str | None:
    code = getattr(inspect.unwrap(found), "__code__", None)
    known = set(_words(code)) if code is not None else set()
    lacks = [name for name in names.split() if name not in known]
    return f"does not use {', '.join(lacks)}" if lacks else None


def _words(code: CodeType) -> Iterator[str]:
    """Names in CODE, and in the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)


# What pcmig_common.messages needs, at either end.
MESSAGES = (
    called("nova.rpc:ClientRouter", "client"),
    called("nova.rpc:ClientRouter.client", "self context"),
    called("nova.rpc:get_client", "target"),
    called("nova.rpc:get_server", "target endpoints"),
)
