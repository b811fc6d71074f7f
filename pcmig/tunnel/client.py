# SPDX-License-Identifier: Apache-2.0
"""The daemon's control socket, as its clients use it: one line asks, one line answers.

Every call opens a connection of its own and blocks for up to its timeout.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from typing import Any
from urllib.parse import unquote

from pcmig.tunnel.peer import Peer

ENVIRONMENT = "PCMIG_TUNNEL_CONTROL"
CONTROL = "/run/pcmig/tunnel.control"

# The daemon looks for the peer, shakes hands and verifies certificates within 10 s.
DIAL_TIMEOUT_S = 30.0
TIMEOUT_S = 10.0
LINE_MAX = 64 * 1024

_NAME = re.compile(r"[0-9a-f]{32}")
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_TEXTS = ("fingerprint", "serial", "peer_serial", "peer_fingerprint")  # though they may look like numbers

Figures = dict[str, Any]  # integers, and a few texts


class TunnelError(Exception):
    """The tunnel cannot do it. The text says what, and what would help."""


class UnknownNameError(TunnelError):
    """The daemon knows no such name (any more)."""


def control_path() -> str:
    """$PCMIG_TUNNEL_CONTROL, or where the daemon has it by default."""
    return os.environ.get(ENVIRONMENT) or CONTROL


def new_name() -> str:
    """A name that nobody can guess, for one migration's stream: 32 hexadecimal digits, 128 bits."""
    return secrets.token_hex(16)


class Client:
    """The daemon that listens at CONTROL (default: control_path())."""

    def __init__(self, control: str | None = None) -> None:
        self.control = control or control_path()

    def open(self, name: str, peer: Peer, streams: int = 1) -> str:
        """Makes NAME a way to PEER and returns the socket's path. Both ends have verified each other then.
        Asking again for the same does no harm."""
        words = ["open", _checked(name), peer.host, str(peer.port)]
        return self._ask(
            " ".join([*words, *([f"streams={streams}"] if streams != 1 else [])]), DIAL_TIMEOUT_S
        )

    def close(self, name: str) -> None:
        """Ends NAME and what runs through it. Raises UnknownNameError when there is no such name."""
        self._ask(f"close {_checked(name)}")

    def show(self, name: str) -> Figures:
        """The accounting of NAME. Raises UnknownNameError."""
        return _figures(self._ask(f"show {_checked(name)}"))

    def names(self) -> list[str]:
        """Every name that is open, here or by a peer."""
        return self._ask("list").split()

    def probe(self, peer: Peer) -> Figures:
        """Who PEER's daemon is: subject, not_after (of its certificate, seconds since 1970), clock_skew_ms
        (its clock less ours)."""
        return _figures(self._ask(f"probe {peer.host} {peer.port}", DIAL_TIMEOUT_S))

    def peers(self) -> list[Figures]:
        """Whose certificates connections came with, or were dialled: those with one now, then the latest.
        Times are seconds since 1970 (not_after) and milliseconds ago (seen_ms)."""
        words = self._ask("peers").split(" fingerprint=")
        return [_figures(f"fingerprint={part.removeprefix('fingerprint=')}") for part in words if part]

    def metrics(self) -> Figures:
        """What the daemon has counted of all its connections, and when its certificates end."""
        return _figures(self._ask("metrics"))

    def reload(self) -> list[str]:
        """Settings and certificates are read again; streams of peers that are no longer welcome end. Returns
        the settings that take a restart. Raises TunnelError when it is refused: all is as it was then."""
        return [word for word in self._ask("reload", DIAL_TIMEOUT_S).split(",") if word]

    def _ask(self, line: str, timeout_s: float | None = None) -> str:
        """What follows "ok" in the answer, within TIMEOUT_S or what is given. Raises TunnelError."""
        answer = self._exchange(line, TIMEOUT_S if timeout_s is None else timeout_s)
        word, _, rest = answer.partition(" ")
        if word == "ok":
            return rest.strip()
        text = rest.strip() if word == "error" else ""
        if text.startswith("unknown name"):
            raise UnknownNameError(f"the tunnel ({self.control}) says: {text}")
        raise TunnelError(
            f"the tunnel refuses: {text}"
            if text
            else f"{self.control} answers {answer[:80]!r}: is that pcmig's?"
        )

    def _exchange(self, line: str, timeout_s: float) -> str:
        received = b""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(timeout_s)
                connection.connect(self.control)
                connection.sendall(line.encode() + b"\n")
                while b"\n" not in received and len(received) < LINE_MAX:
                    part = connection.recv(4096)
                    if not part:
                        break
                    received += part
        except TimeoutError:
            raise TunnelError(
                f"the tunnel ({self.control}) did not answer within {timeout_s:.0f} s: look at its log "
                "(journalctl -u pcmig-tunnel)"
            ) from None
        except OSError as err:
            raise TunnelError(_unreachable(self.control, err)) from err
        if b"\n" not in received:
            raise TunnelError(
                f"the tunnel ({self.control}) ended in the middle of an answer: look at its log"
            )
        return received.partition(b"\n")[0].decode(errors="replace")


def _unreachable(control: str, err: OSError) -> str:
    """Why nobody answers at CONTROL, and what to do about it."""
    match err.errno:
        case errno.ENOENT | errno.ECONNREFUSED | errno.ENOTDIR:
            why, advice = "is not running", "start it: systemctl start pcmig-tunnel"
        case errno.EACCES | errno.EPERM:
            why = "is another's"
            advice = "run this as root, or let the tunnel's control_group be a group of this user's"
        case _:
            why, advice = f"cannot be asked ({err.strerror or err})", "look at its log"
    return f"the tunnel of this host {why} ({control}): {advice}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a stream: 32 hexadecimal digits")
    return name


def _figures(text: str) -> Figures:
    """key=value words, values in the form that URLs have them; whole numbers as int."""
    found: Figures = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if equals:
            found[key] = unquote(value) if key in _TEXTS or not _INTEGER.fullmatch(value) else int(value)
    return found
