# SPDX-License-Identifier: Apache-2.0
"""The daemon's life: starts the tunnel, logs what it says, reloads and ends on signals."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
from typing import TextIO

from pcmig import _tunnel
from pcmig.cli.signals import SignalPipe
from pcmig.tunnel import identity
from pcmig.tunnel.settings import Settings

LOG = logging.getLogger("pcmig.tunnel")
SIGNALS = (signal.SIGTERM, signal.SIGINT)

# syslog(3): what journald reads at the beginning of a line on stderr (sd-daemon(3)).
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


class StartError(Exception):
    """The tunnel cannot be started; the text says why."""


def make(settings: Settings) -> _tunnel.Tunnel:
    """The tunnel, with its sockets bound. Raises StartError."""
    if not settings.values["plaintext"]:
        _check_readable(settings.files)
    for path in (settings.values["run_dir"], settings.values["control"]):
        folder = os.path.dirname(path)
        try:
            # systemd makes it (RuntimeDirectory); by hand, or elsewhere, nobody has.
            os.makedirs(folder, mode=0o755, exist_ok=True)
        except OSError as err:
            raise StartError(f"{folder} cannot be made: {err.strerror}") from err
    try:
        return _tunnel.Tunnel(**settings.arguments())
    except (ValueError, OSError) as err:  # TunnelError is an OSError
        raise StartError(str(err)) from err


def _check_readable(files: identity.Files) -> None:
    """OpenSSL names neither the file nor the reason as well."""
    for path in (files.ca, files.certificate, files.key, *files.client, *([files.crl] if files.crl else [])):
        try:
            with open(path, "rb"):
                pass
        except OSError as err:
            raise StartError(
                f"{path}: {err.strerror}; 'pcmig tunnel keygen' makes what belongs there, and settings name "
                "other files"
            ) from err


class Formatter(logging.Formatter):
    """Lines for a terminal or a file with a time, for the journal with a priority."""

    def __init__(self, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(levelname)s %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", " ")
        if not self._journal:
            return text
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return f"<{priority}>{text}"


def to_journal(stream: TextIO) -> bool:
    """Whether STREAM is a connection to systemd's journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def log_to(stream: TextIO, *, debug: bool) -> None:
    """Everything from INFO, or DEBUG, to STREAM."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter(to_journal(stream)))
    LOG.handlers[:] = [handler]
    LOG.propagate = False
    LOG.setLevel(logging.DEBUG if debug else logging.INFO)


def notify(**words: str) -> None:
    """Tells systemd (sd_notify(3)); nothing where it did not ask."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    text = "\n".join(f"{key}={value}" for key, value in words.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.connect("\0" + address[1:] if address.startswith("@") else address)
        connection.send(text.encode())


def run(settings: Settings, *, debug: bool = False, stream: TextIO | None = None) -> None:
    """Until a signal ends it. Raises StartError."""
    log_to(stream or sys.stderr, debug=debug)
    with SignalPipe(SIGNALS, orders=(signal.SIGHUP,)) as signals:
        engine = make(settings)
        try:
            try:
                engine.start()
            except OSError as err:  # no thread is to be had
                raise StartError(str(err)) from err
            _tell_start(settings, engine)
            _serve(settings, engine, signals)
        finally:
            notify(STOPPING="1")
            engine.stop()
            _log(engine)
    LOG.info("ended")


def _tell_start(settings: Settings, engine: _tunnel.Tunnel) -> None:
    ports = ", ".join(map(str, engine.ports()))
    if settings.values["plaintext"]:
        LOG.warning(
            "NOT ENCRYPTED: guests' memory can be read and changed on the wire, as was asked for twice"
        )
    else:
        LOG.info("certificates: %s", _own(settings.files, settings.files_from))
    LOG.info(
        "listening at port %s; sockets of guests in %s, orders at %s",
        ports,
        settings.values["run_dir"],
        settings.values["control"],
    )
    notify(READY="1", STATUS=f"listening at port {ports}")


def _own(files: identity.Files, files_from: str) -> str:
    try:
        found = identity.verify(files)
    except identity.IdentityError as err:
        return f"{files_from}, but a peer would refuse them: {err}"
    return f"{files_from}: {found.subject} ({', '.join(found.names) or 'no further names'})"


def _serve(settings: Settings, engine: _tunnel.Tunnel, signals: SignalPipe) -> None:
    poller = select.poll()
    poller.register(engine.fileno(), select.POLLIN)
    poller.register(signals.fileno(), select.POLLIN)
    while True:
        _log(engine)
        for number in signals.take():
            if number != signal.SIGHUP:
                LOG.info("ending (%s)", signal.Signals(number).name)
                return
            _reload(settings, engine)
        poller.poll()


def _reload(settings: Settings, engine: _tunnel.Tunnel) -> None:
    try:
        engine.reload()
    except _tunnel.TunnelError as err:
        LOG.error("the certificates stay as they were: %s", err)
        notify(STATUS=f"reload failed: {err}")
        return
    LOG.info("reloaded: %s", _own(settings.files, settings.files_from))


def _log(engine: _tunnel.Tunnel) -> None:
    for level, text in engine.messages():
        LOG.log(level, "%s", text)
