# SPDX-License-Identifier: Apache-2.0
"""What libvirt's qemu.conf says on whether QEMU may use userfaultfd. Pure (text in, settings out) but for
default_user(), which looks which users this host has."""

from __future__ import annotations

import pwd
import re
from dataclasses import dataclass

DEFAULT_PATH = "/etc/libvirt/qemu.conf"
NODE = "/dev/userfaultfd"
# What distributions build libvirt with: Debian and its family, Fedora and SUSE and theirs. Else it is root.
DEFAULT_USERS = ("libvirt-qemu", "qemu")

Value = int | str | list[str]

# libvirt's format (src/util/virconf.c): NAME = 1 | "text" | 'text' | [ "text", ... ], # to the line's end.
_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
      | (?P<long>\"\"\".*?\"\"\") | (?P<text>"[^"\n]*"|'[^'\n]*')
      | (?P<number>-?[0-9]+(?![\w.-])) | (?P<name>[A-Za-z_][\w.-]*) | (?P<mark>[=\[\],])
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)


@dataclass(frozen=True)
class QemuSettings:
    """The settings that matter here, with libvirt's defaults."""

    user: str | None = None  # None: whatever this libvirt was built with
    group: str | None = None
    mount_namespace: bool = True  # QEMU sees a /dev of its own, with the nodes of the device ACL only
    device_acl: tuple[str, ...] | None = None  # None: libvirt's built-in list
    keep_capabilities: bool = False  # clear_emulator_capabilities = 0
    # Somebody has set QEMU's own TLS up for migrations; it works with libvirt's defaults as well.
    migrates_with_tls: bool = False


def default_user() -> str:
    """Whom libvirt runs QEMU as when qemu.conf does not say: as this host's distribution builds it."""
    for name in DEFAULT_USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return "root"


def parse(text: str) -> dict[str, Value]:
    """All settings of TEXT. What is none is skipped: libvirtd itself refuses to start on such a file."""
    tokens = [
        (match.lastgroup, match.group()) for match in _TOKEN.finditer(text) if match.lastgroup is not None
    ]
    settings: dict[str, Value] = {}
    at = 0
    while at + 2 < len(tokens):
        (kind, name), equals = tokens[at], tokens[at + 1]
        if kind != "name" or equals != ("mark", "="):
            at += 1
            continue
        value, at = _value(tokens, at + 2)
        if value is not None:
            settings[name] = value
    return settings


def _value(tokens: list[tuple[str, str]], at: int) -> tuple[Value | None, int]:
    """The value that starts at token AT, and the place behind it. None: there is none."""
    kind, text = tokens[at]
    if kind == "number":
        # libvirt's numbers are 64 bits wide; Python refuses to read thousands of digits.
        return (int(text), at + 1) if len(text) <= 20 else (None, at + 1)
    if kind in ("text", "long"):
        return _unquote(kind, text), at + 1
    if (kind, text) != ("mark", "["):
        return None, at
    items: list[str] = []
    for place in range(at + 1, len(tokens)):
        kind, text = tokens[place]
        if (kind, text) == ("mark", "]"):
            return items, place + 1
        if kind in ("text", "long"):
            items.append(_unquote(kind, text))
        elif (kind, text) != ("mark", ","):
            return None, place
    return None, len(tokens)


def _unquote(kind: str, text: str) -> str:
    return text[3:-3] if kind == "long" else text[1:-1]


def settings(text: str) -> QemuSettings:
    """The settings of qemu.conf's TEXT; a value of the wrong type counts as not set."""
    found = parse(text)
    user, group = found.get("user"), found.get("group")
    namespaces, acl = found.get("namespaces"), found.get("cgroup_device_acl")
    return QemuSettings(
        user=user if isinstance(user, str) and user else None,
        group=group if isinstance(group, str) and group else None,
        mount_namespace="mount" in namespaces if isinstance(namespaces, list) else True,
        device_acl=tuple(acl) if isinstance(acl, list) else None,
        keep_capabilities=found.get("clear_emulator_capabilities") == 0,
        migrates_with_tls=found.get("migrate_tls_force") == 1
        or any(found.get(name) for name in ("migrate_tls_x509_cert_dir", "default_tls_x509_cert_dir")),
    )
