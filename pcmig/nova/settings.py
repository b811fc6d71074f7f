# SPDX-License-Identifier: Apache-2.0
"""One option as it stands in nova.conf: its value, where it was set, and the error that names it all."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any


class ConfigError(Exception):
    """nova.conf asks for what does not work. One line: file, group, option, value, what would be right."""

    def __init__(self, message: str, problem: str | None = None, line: str | None = None) -> None:
        super().__init__(message)
        self.problem = problem or message  # without file, option and value
        self.line = line  # the value that would do, where there is one


@dataclasses.dataclass(frozen=True)
class Setting:
    """An option's value and where it comes from."""

    group: str
    name: str
    value: Any
    explicit: bool = False  # set by somebody: in a file, on the command line, in the environment, by a test
    where: str = ""  # the file, or "the command line" and the like; "" for a default

    @property
    def option(self) -> str:
        return f"[{self.group}] {self.name}"

    def __str__(self) -> str:
        """ "[libvirt] live_migration_permit_post_copy = true"; says so where it is the default."""
        text = f"{self.option} = {_as_written(self.value)}"
        return text if self.explicit else f"{text} (the default)"

    def error(self, problem: str, line: str | None = None) -> ConfigError:
        """What is wrong with this option, in one line, and the LINE that would do instead. Line breaks of the
        value are no part of it."""
        place = f"{self.where}: " if self.where else ""
        better = f"; this line would do: {line}" if line else ""
        return ConfigError(" ".join(f"{place}{self}: {problem}{better}".split()), problem, line)


def read(conf: Any, group: str, name: str) -> Setting | None:
    """The option NAME of GROUP in CONF, an oslo.config ConfigOpts; None if this Nova does not have it.

    Raises ConfigError for a value that the option's type refuses, or that names a variable which is none.
    """
    if group not in conf or name not in conf[group]:
        return None
    try:
        value = conf[group][name]
        location = conf.get_location(name, group)
    except _errors_of_variables() as err:  # "$def_option" of a template that never ran, "${group.no}"
        raise ConfigError(
            f"[{group}] {name}: {' '.join(str(err).split())}; a dollar sign in nova.conf stands before the "
            "name of an option: write the value itself, or $$ for a dollar sign"
        ) from err
    except ValueError as err:  # oslo.config's errors of values; their text says what would be right
        text = " ".join(str(err).split())
        where, _, reason = text.partition("is not valid:")
        file = _file_in(where)
        place = f"{file}: [{group}] {name}{_raw(file, group, name)}" if file else f"[{group}] {name}"
        if "invalid literal for int()" in reason:
            reason = "must be a whole number"
        raise ConfigError(f"{place}: {reason.strip() or text}") from err
    if location is None:
        return Setting(group, name, value)
    kind = location.location.name
    explicit = kind not in ("opt_default", "set_default")
    return Setting(group, name, value, explicit, _where(kind, location.detail) if explicit else "")


def _errors_of_variables() -> tuple[type[Exception], ...]:
    """What oslo.config raises for them; nothing where nobody has imported it."""
    cfg = sys.modules.get("oslo_config.cfg")
    return (cfg.TemplateSubstitutionError, cfg.NoSuchOptError, cfg.NoSuchGroupError) if cfg else ()


def _where(kind: str, detail: str) -> str:
    """ "/etc/nova/nova.conf"; KIND and DETAIL are those of an oslo.config location."""
    match kind:
        case "command_line":
            return "the command line"
        case "environment":
            return f"the environment ({detail})" if detail else "the environment"
        case "set_override":
            return "an override"
    return detail


def _file_in(text: str) -> str:
    """The file's name from "Value for option x from LocationInfo(location=..., detail='FILE')", or ""."""
    _, _, rest = text.partition("detail='")
    return rest.partition("'")[0]


def _raw(file: str, group: str, name: str) -> str:
    """ " = VALUE" as FILE has it, which oslo.config's own error often leaves out; "" if it cannot be read."""
    from oslo_config import cfg  # here, because who has such an error has it

    sections: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(file, sections).parse()
    except (OSError, cfg.ParseError):
        return ""
    values = sections.get(group, {}).get(name, [])
    return f" = {' '.join(values[-1].split())}" if values else ""


def _as_written(value: Any) -> str:
    """VALUE as nova.conf has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "(not set)" if value is None else str(value)
