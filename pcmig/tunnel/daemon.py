# SPDX-License-Identifier: Apache-2.0
"""The daemon's life: starts the tunnel, logs what it says, reloads and ends on signals."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from pcmig import _tunnel
from pcmig.cli.signals import SignalPipe
from pcmig.tunnel import expiry, identity
from pcmig.tunnel.settings import Settings, SettingsError

LOG = logging.getLogger("pcmig.tunnel")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
SILENT_MS = 5000  # of a thread of the engine; they are looked at once a second
EXPIRY_LOOK_S = 3600.0
LOOK_MS = 1000  # that orders wait at most, should the message that tells of one be lost among many

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
            # systemd-tmpfiles makes it for the unit; by hand, or elsewhere, nobody has.
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
        except PermissionError as err:
            raise StartError(
                f"{path}: {err.strerror} for this user: chgrp {_own_group()} {path} && chmod 640 {path}, and "
                "let it enter the folder (in /etc/pki/pcmig, systemd-tmpfiles --create pcmig-tunnel.conf "
                "does both)"
            ) from err
        except OSError as err:
            raise StartError(
                f"{path}: {err.strerror}; 'pcmig tunnel keygen' makes what belongs there, and settings name "
                "other files"
            ) from err


def _own_group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


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


class Watchdog:
    """systemd's (sd_watchdog_enabled(3)): fed only while every thread of the engine runs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        limit = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._limit_ms = int(limit) // 1000 if limit.isdigit() and mine else 0
        self.look_ms = min(LOOK_MS, self._limit_ms // 4) or LOOK_MS

    def feed(self, silent_ms: int) -> None:
        """SILENT_MS: see _tunnel.Tunnel.silent_ms."""
        if self._limit_ms and silent_ms < max(self._limit_ms, SILENT_MS):
            notify(WATCHDOG="1")


class Daemon:
    """What runs, and what it runs with. READ finds the settings of now, and raises SettingsError."""

    def __init__(self, read: Callable[[], Settings]) -> None:
        self._read = read
        self.settings = read()
        self._sound = True  # a peer with the same CA would take this host's certificates
        self.engine = make(self.settings)
        self._expiry = expiry.Watch()
        self._expiry_look_s = 0.0

    def run(self, signals: SignalPipe) -> None:
        """Until a signal ends it. Raises StartError."""
        try:
            try:
                self.engine.start()
            except OSError as err:  # no thread is to be had
                raise StartError(str(err)) from err
            self._tell_start()
            self._serve(signals)
        finally:
            notify(STOPPING="1")
            self.engine.stop()
            self._log()

    def _tell_start(self) -> None:
        values = self.settings.values
        if values["plaintext"]:
            LOG.warning(
                "NOT ENCRYPTED: guests' memory can be read and changed on the wire, as was asked for twice"
            )
        else:
            self._sound = self._tell_certificates("certificates")
        LOG.info(
            "listening at port %s; sockets of guests in %s, orders at %s",
            self._ports(),
            values["run_dir"],
            values["control"],
        )
        notify(READY="1", STATUS=f"listening at port {self._ports()}")

    def _ports(self) -> str:
        return ", ".join(map(str, self.engine.ports()))

    def _tell_certificates(self, what: str) -> bool:
        """Logs which there are; whether a peer with the same CA would take them."""
        settings = self.settings
        try:
            found = identity.verify(settings.files)
        except identity.IdentityError as err:
            LOG.warning("%s: %s, but a peer would refuse them: %s", what, settings.files_from, err)
            return False
        names = ", ".join(found.names) or "no further names"
        LOG.info("%s: %s: %s (%s)", what, settings.files_from, found.subject, names)
        return True

    def _serve(self, signals: SignalPipe) -> None:
        poller = select.poll()
        poller.register(self.engine.fileno(), select.POLLIN)
        poller.register(signals.fileno(), select.POLLIN)
        watchdog = Watchdog(os.environ)
        while True:
            self._log()
            for number in signals.take():
                if number != signal.SIGHUP:
                    LOG.info("ending (%s)", signal.Signals(number).name)
                    return
                self._reload()
            if asked := self.engine.reload_asked():
                self.engine.answer_reload(asked, self._reload())
            watchdog.feed(self.engine.silent_ms())
            if time.monotonic() >= self._expiry_look_s:
                self._tell_expiry()
            poller.poll(watchdog.look_ms)

    def _tell_expiry(self) -> None:
        """In time: one can be replaced while streams run, and none that has expired can be used."""
        paths = self.settings.files.paths()
        ends = self.engine.ends()
        if paths["client_certificate"] is None:
            ends.pop("client_certificate", None)
        for line in self._expiry.due(ends, paths, time.time()):
            LOG.warning("%s", line)
        self._expiry_look_s = time.monotonic() + EXPIRY_LOOK_S

    def _reload(self) -> str:
        """What the control socket answers. When it is refused, all is as it was."""
        try:
            changed = self._take_over()
        except (SettingsError, identity.IdentityError, StartError, ValueError, OSError) as err:
            LOG.error("the reload is refused, everything stays as it was: %s", err)
            notify(STATUS=f"listening at port {self._ports()}; a reload was refused: {err}")
            return f"error {err}"
        if self.settings.values["plaintext"]:
            LOG.info("reloaded")
        else:
            self._sound = self._tell_certificates("reloaded")
            self._tell_expiry()
        notify(STATUS=f"listening at port {self._ports()}")
        if changed:
            LOG.warning("these settings take effect when the daemon is started again: %s", ", ".join(changed))
        return f"ok {','.join(changed)}".strip()

    def _take_over(self) -> list[str]:
        """Names of settings that a reload does not change."""
        found = self._read()
        changed, after = self.settings.changes_for_a_restart(found), self.settings.reloaded(found)
        if not after.values["plaintext"]:
            _check_readable(after.files)
            if self._sound:  # else they cannot become worse, and another CA than the peers' may be meant
                identity.verify(after.files)
        self.engine.reload(**after.arguments())
        self.settings = after
        return changed

    def _log(self) -> None:
        for level, text in self.engine.messages():
            LOG.log(level, "%s", text)


def _allow_descriptors() -> None:
    """As many as may be had: a connection takes up to three, and a shell's limit is 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run(read: Callable[[], Settings], *, debug: bool = False, stream: TextIO | None = None) -> None:
    """Until a signal ends it. READ finds the settings, at the start and at each reload. Raises StartError,
    SettingsError."""
    log_to(stream or sys.stderr, debug=debug)
    _allow_descriptors()
    with SignalPipe(SIGNALS, orders=(signal.SIGHUP,)) as signals:
        Daemon(read).run(signals)
    LOG.info("ended")
