# SPDX-License-Identifier: Apache-2.0
"""The daemon's settings: one table, which the configuration file and the command line share."""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import difflib
import fnmatch
import grp
import os
import pathlib
import pwd
import re
from collections.abc import Callable
from typing import Any

from pcmig.check import qemuconf
from pcmig.tunnel import identity, kernel_tls
from pcmig.tunnel.client import CONTROL
from pcmig.tunnel.peer import DEFAULT_PORT, parse

FILE = "/etc/pcmig/tunnel.conf"
SECTION = "tunnel"
RUN_DIR = "/run/pcmig/tunnel"

LISTENERS_MAX, WORKERS_MAX = 8, 8  # csrc/tunnel/internal.h
DEAD_AFTER_MIN_S = 0.5  # csrc/tunnel/rules.c
IDLE_DROP_MIN_S = 60


class SettingsError(Exception):
    """A setting cannot be used. The text names the file or option, the value, and what would be right."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting: `name` in the file, `--name` with dashes on the command line."""

    name: str
    kind: str  # of KINDS
    default: Any
    metavar: str
    help: str


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text.strip()


def _path(text: str) -> str:
    if not os.path.isabs(_text(text)):
        raise ValueError("is no absolute path")
    return os.path.normpath(text.strip())


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text) if word]


def _listen(text: str) -> list[str]:
    """ADDRESS[:PORT] words, as the daemon takes them: "[::]:16516"."""
    found = []
    for word in _words(text):
        peer = parse(word)
        host = f"[{peer.host}]" if ":" in peer.host else peer.host
        found.append(f"{host}:{peer.port}")
    if not found:
        raise ValueError("names no address")
    if twice := [word for word in found if found.count(word) > 1]:
        raise ValueError(f"names {twice[0]} twice")
    if len(found) > LISTENERS_MAX:
        raise ValueError(
            f"names {len(found)} addresses; {LISTENERS_MAX} is the most, and [::] stands for all"
        )
    return found


def _allow(text: str) -> list[str]:
    globs = _words(text)
    for glob in globs:
        if not re.fullmatch(r"[A-Za-z0-9._:*?\[\]-]{1,253}", glob) or not fnmatch.translate(glob):
            raise ValueError(f"has {glob!r}, which is no name or address, with * and ? as in file names")
    return globs


def _natural(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise ValueError("is no whole number")
    return int(text)


def _workers(text: str) -> int:
    if (found := _natural(text)) > WORKERS_MAX:
        raise ValueError(f"is more than {WORKERS_MAX}; 0 is one for each core")
    return found


def _dead_after(text: str) -> float:
    if (found := _seconds(text)) < DEAD_AFTER_MIN_S:
        raise ValueError(
            f"is less than {DEAD_AFTER_MIN_S} seconds, in which a peer that is well may say nothing"
        )
    return found


def _idle_drop(text: str) -> int:
    if (found := _natural(text)) < IDLE_DROP_MIN_S:
        raise ValueError(
            f"is less than {IDLE_DROP_MIN_S} seconds, which a migration may take until its stream begins"
        )
    return found


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text.strip()) or float(text) <= 0:
        raise ValueError("is no number of seconds above 0")
    return float(text)


def _switch(text: str) -> bool:
    words = configparser.ConfigParser.BOOLEAN_STATES
    if text.strip().lower() not in words:
        raise ValueError("is neither yes nor no")
    return words[text.strip().lower()]


KINDS: dict[str, Callable[[str], Any]] = {
    "text": _text,
    "path": _path,
    "listen": _listen,
    "allow": _allow,
    "workers": _workers,
    "seconds": _seconds,
    "dead_after": _dead_after,
    "idle_drop": _idle_drop,
    "switch": _switch,
}

ROWS = (
    Row(
        "listen",
        "listen",
        [f"[::]:{DEFAULT_PORT}"],
        "LIST",
        "addresses to listen at, ADDRESS or ADDRESS:PORT",
    ),
    Row("certificates", "path", identity.FOLDER, "FOLDER", "ca.pem, host.pem, host-key.pem and crl.pem"),
    Row("ca", "path", None, "FILE", "CA that peers' certificates come from, instead of the folder's"),
    Row("certificate", "path", None, "FILE", "this host's certificate, instead of the folder's"),
    Row("key", "path", None, "FILE", "its key, instead of the folder's"),
    Row("client_certificate", "path", None, "FILE", "to dial with, where the other is for servers only"),
    Row("client_key", "path", None, "FILE", "its key"),
    Row("crl", "path", None, "FILE", "revoked certificates, instead of the folder's"),
    Row("allow", "allow", [], "LIST", "peers that may dial: names of their certificates, with * and ?"),
    Row("user", "text", None, "USER", "whom QEMU runs as, for every guest (default: any user)"),
    Row("group", "text", None, "GROUP", "QEMU's group, which the sockets for QEMU are given to"),
    Row("control_group", "text", None, "GROUP", "who may give orders besides root"),
    Row("run_dir", "path", RUN_DIR, "FOLDER", "the folder with the sockets"),
    Row("control", "path", CONTROL, "SOCKET", "the control socket"),
    Row("workers", "workers", 0, "N", "threads that encrypt; 0: one for each core, 8 at the most"),
    Row(
        "congestion",
        "text",
        None,
        "NAME",
        "TCP congestion control; 'host': that of the host (default: cubic)",
    ),
    Row("kernel_tls", "switch", False, "", "the kernel encrypts; refused where it cannot renew keys"),
    Row("dead_after", "dead_after", 5.0, "SECONDS", "a peer that says nothing for so long is gone"),
    Row("connect_wait", "seconds", 5.0, "SECONDS", "how long a guest's socket may take to appear here"),
    Row("idle_drop", "idle_drop", 24 * 3600, "SECONDS", "a name that nobody uses for so long is dropped"),
    Row("plaintext", "switch", False, "", "do not encrypt; needs the next one too, on both ends"),
    Row("memory_in_clear", "switch", False, "", "yes, guests' memory may be read and changed on the wire"),
)
_BY_NAME = {row.name: row for row in ROWS}
# What a running daemon cannot change; all else takes effect on reload.
FIXED = (
    "user",
    "group",
    "control_group",
    "run_dir",
    "control",
    "workers",
    "plaintext",
    "memory_in_clear",
)


def parse_value(row: Row, text: str) -> Any:
    """TEXT as the value of ROW. Raises ValueError, whose text says what is wrong with it."""
    try:
        return KINDS[row.kind](text)
    except ValueError as err:
        raise ValueError(f"{text.strip()!r} {err}" if not str(err).startswith("'") else str(err)) from err


def read_file(path: str, *, required: bool) -> dict[str, Any]:
    """The settings in the file at PATH; none where there is no file, unless REQUIRED. Raises
    SettingsError."""
    parser = configparser.ConfigParser(interpolation=None, default_section="", strict=True)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file, source=path)
    except FileNotFoundError as err:
        if required:
            raise SettingsError(f"{path}: {err.strerror}") from err
        return {}
    except OSError as err:
        raise SettingsError(f"{path}: {err.strerror}") from err
    except configparser.MissingSectionHeaderError as err:
        raise SettingsError(
            f"{path}: line {err.lineno} stands in no section; all settings stand in [{SECTION}]"
        ) from err
    except (configparser.Error, UnicodeDecodeError) as err:
        raise SettingsError(f"{path}: {' '.join(str(err).split())}") from err
    found: dict[str, Any] = {}
    for section in parser.sections():
        if section != SECTION:
            raise SettingsError(
                f"{path}: the section [{section}] is not known; all settings stand in [{SECTION}]"
            )
        for name, text in parser.items(section):
            row = _BY_NAME.get(name)
            if row is None:
                near = difflib.get_close_matches(name, _BY_NAME, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_BY_NAME)}"
                raise SettingsError(f"{path}: [{SECTION}] {name} is not known; {hint}")
            try:
                found[name] = parse_value(row, text)
            except ValueError as err:
                raise SettingsError(f"{path}: [{SECTION}] {name} = {err}") from err
    return found


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything the daemon needs, looked up."""

    values: dict[str, Any]
    files: identity.Files
    files_from: str  # in words
    owner_gid: int
    socket_uid: int | None
    control_gid: int | None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of pcmig._tunnel.Tunnel."""
        values, files = self.values, self.files
        return {
            "run_dir": values["run_dir"],
            "control": values["control"],
            "listen": values["listen"],
            "ca": files.ca,
            "certificate": files.certificate,
            "key": files.key,
            "client_certificate": files.client_certificate,
            "client_key": files.client_key,
            "crl": files.crl,
            "allow": values["allow"],
            "owner_gid": self.owner_gid,
            "socket_uid": self.socket_uid,
            "control_gid": self.control_gid,
            "workers": values["workers"],
            "congestion": values["congestion"],
            "dead_after_ms": round(values["dead_after"] * 1000),
            "socket_wait_ms": round(values["connect_wait"] * 1000),
            "idle_name_ms": values["idle_drop"] * 1000,
            "plaintext": values["plaintext"],
        }

    def changes_for_a_restart(self, after: Settings) -> list[str]:
        """Names of settings that differ in AFTER, and take effect only when the daemon is started again."""
        return [name for name in FIXED if self.values[name] != after.values[name]]

    def reloaded(self, after: Settings) -> Settings:
        """AFTER, as far as a running daemon can have it."""
        return dataclasses.replace(
            after,
            values=after.values | {name: self.values[name] for name in FIXED},
            owner_gid=self.owner_gid,
            socket_uid=self.socket_uid,
            control_gid=self.control_gid,
        )


def settle(given: dict[str, Any], qemu_conf: str = qemuconf.DEFAULT_PATH) -> Settings:
    """What was GIVEN, by file and command line, with defaults and looked up on this host. Raises
    SettingsError."""
    values = {row.name: row.default for row in ROWS} | given
    if values["plaintext"] != values["memory_in_clear"]:
        said = "plaintext" if values["plaintext"] else "memory_in_clear"
        missing = "memory_in_clear" if values["plaintext"] else "plaintext"
        raise SettingsError(
            f"{said} without {missing}: whoever really wants guests' memory in clear on the wire says both; "
            "everybody else neither"
        )
    if values["kernel_tls"] and (why_not := kernel_tls.here()) is not None:
        raise SettingsError(
            f"kernel_tls: a migration can outlast a key, and {why_not}: leave kernel_tls at no, and OpenSSL "
            "encrypts"
        )
    socket_uid = _uid(values["user"]) if values["user"] is not None else None
    files, files_from = files_of(values)
    control = values["control_group"]
    return Settings(
        values=values,
        files=files,
        files_from=files_from,
        owner_gid=_owner_gid(values["user"], values["group"], qemu_conf),
        socket_uid=socket_uid,
        control_gid=_gid("control_group", control) if control is not None else None,
    )


def files_of(values: dict[str, Any]) -> tuple[identity.Files, str]:
    """The certificates that VALUES name, and in words where they are from. Raises SettingsError."""
    for one, other in (("certificate", "key"), ("client_certificate", "client_key")):
        if (values[one] is None) != (values[other] is None):
            raise SettingsError(f"{one} and {other} belong together: give both, or neither")
    files, files_from = identity.find(values["certificates"])
    if values["certificates"] != identity.FOLDER:
        files, files_from = identity.own(values["certificates"]), f"certificates in {values['certificates']}"
    named = {
        name: values[name]
        for name in ("ca", "certificate", "key", "client_certificate", "client_key", "crl")
        if values[name] is not None
    }
    if "certificate" in named and "client_certificate" not in named:
        # Of the same host, but not of the same PKI.
        named |= {"client_certificate": None, "client_key": None}
    if named:
        files_from = f"certificate {named['certificate']}" if "certificate" in named else files_from
    return dataclasses.replace(files, **named), files_from


def qemus(user: str | None, group: str | None, qemu_conf: str = qemuconf.DEFAULT_PATH) -> tuple[str, str]:
    """Whom QEMU runs as: as it was given, as qemu.conf has it, as distributions build libvirt."""
    found = qemuconf.QemuSettings()
    with contextlib.suppress(OSError):  # libvirt's defaults
        found = qemuconf.settings(pathlib.Path(qemu_conf).read_text(encoding="utf-8", errors="replace"))
    user = user or found.user or qemuconf.default_user()
    return user, group or found.group or default_group(user)


def default_group(user: str) -> str:
    """The group that has the name of USER, or its first one."""
    name = user.removeprefix("+")
    try:
        return grp.getgrnam(name).gr_name
    except KeyError:
        pass
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        return name
    return f"+{entry.pw_gid}"


def _uid(name: str) -> int:
    """A name, a number, or "+number", as qemu.conf has them."""
    if name.removeprefix("+").isdigit():
        return int(name.removeprefix("+"))
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as err:
        raise SettingsError(f"user: there is no user {name!r}; name the one that QEMU runs as") from err


def _owner_gid(user: str | None, group: str | None, qemu_conf: str) -> int:
    """QEMU's group. Where nobody has named it, whoever reads the error is told where it is from."""
    _, found = qemus(user, group, qemu_conf)
    try:
        return _gid("group", found)
    except SettingsError as err:
        if group is not None:
            raise
        raise SettingsError(
            f"group: there is no group {found!r}, which would be QEMU's by {qemu_conf}, or as distributions "
            "have it: give 'group'"
        ) from err


def _gid(setting: str, name: str) -> int:
    if name.removeprefix("+").isdigit():
        return int(name.removeprefix("+"))
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as err:
        whose = "that QEMU runs with" if setting == "group" else "of who may give orders, as nova-compute"
        raise SettingsError(f"{setting}: there is no group {name!r}; name the one {whose}") from err
