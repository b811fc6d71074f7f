# SPDX-License-Identifier: Apache-2.0
"""Migration flags that stand in nova.conf and that nobody reads: another name, another section, or hidden.

oslo.config says nothing of an option that it does not know, so a wrong name is a migration that is not what
was asked for. Needs neither Nova nor oslo.config; the form is that of oslo.config's own parser.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator

READ = ("live_migration_flag", "block_migration_flag")
SECTIONS = ("libvirt", "DEFAULT")  # in this order, within one file
MAX_BYTES = 4 * 1024 * 1024
# Where nova-compute looks when it is not told (oslo.config, find_config_files and find_config_dirs).
PLACES = ("nova.conf", "nova-compute.conf", "nova.conf.d/*.conf", "nova-compute.conf.d/*.conf")

_SECTION = re.compile(r"\[(?P<name>[^]]+)]")
_OPTION = re.compile(r"(?P<name>[^\s=:#;\[][^=:]*?)\s*[=:]")
# live_migration_flag, libvirt_live_migration_flag, live-migration-flags ...
_MEANT = re.compile(r"(?P<kind>live|block)[_-]?migration[_-]?flags?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Found:
    """One option of a file."""

    path: str
    line: int  # 1 is the first
    section: str
    name: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: [{self.section}] {self.name}"


def unread(paths: Iterable[str]) -> list[str]:
    """One line for each option in the files PATHS, in the order in which nova-compute reads them, that looks
    like one of READ and has no effect. A file that cannot be read is passed over: Nova has read it, or says
    so itself."""
    read: dict[str, Found] = {}
    lines = []
    for path in paths:
        here: dict[str, list[Found]] = {}
        for option in options(path):
            if option.name in READ and option.section in SECTIONS:
                here.setdefault(option.name, []).append(option)
            elif match := _MEANT.search(option.name):
                right = f"{match['kind'].lower()}_migration_flag"
                lines.append(f"{option} is not read: the option is {right}, in the section [libvirt]")
        for name, found in here.items():
            # Of one file, the section counts first and then the last line; of several, the last file.
            *_, counts = sorted(found, key=lambda one: (one.section == SECTIONS[0], one.line))
            hidden = [one for one in found if one.section != counts.section]
            hidden += [read[name]] if name in read else []
            lines += [f"{one} is not read: {counts} takes its place" for one in hidden]
            read[name] = counts
    return lines


def options(path: str) -> Iterator[Found]:
    """The options of the file PATH."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return
    section = "DEFAULT"
    for number, line in enumerate(text.splitlines(), 1):
        if match := _SECTION.match(line):
            section = match["name"] if match["name"] == "DEFAULT" else match["name"].lower()
        elif match := _OPTION.match(line):
            yield Found(path, number, section, match["name"])


def files(folder: str = "/etc/nova") -> list[str]:
    """The files of FOLDER that nova-compute reads when it is not told, as far as they are there."""
    return [str(path) for place in PLACES for path in sorted(pathlib.Path(folder).glob(place))]


def files_of(conf: object) -> list[str]:
    """Those that CONF, an oslo.config ConfigOpts, was made of."""
    paths = list(getattr(conf, "config_file", None) or [])
    for folder in getattr(conf, "config_dir", None) or []:
        paths += map(str, sorted(pathlib.Path(folder).glob("*.conf")))
    return paths
