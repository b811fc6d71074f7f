# SPDX-License-Identifier: Apache-2.0
"""Rows on pcmig's tunnel: its daemon, certificates, lists and folder here, and the way to the peer's."""

from __future__ import annotations

import contextlib
import datetime
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pcmig.check.model import HERE, Facts, Row, Status
from pcmig.tunnel import expiry, identity, metrics, settings
from pcmig.tunnel.client import Client, TunnelError
from pcmig.tunnel.peer import Peer

DAY_S = expiry.DAY_S
EXPIRES_SOON_S = expiry.WARN_DAYS[0] * DAY_S
# A certificate is good from an hour before it was made (tunnel/keygen.py); half of that is close.
SKEW_WARN_S, SKEW_FAIL_S = 60, 1800
# Everybody may make a socket there (with the daemon's group), list nothing, and remove only what is theirs.
FOLDER_MODE = 0o3733


@dataclass(frozen=True)
class TunnelFacts:
    """What was found. A text in place of each thing that was not."""

    now_s: float  # since 1970
    settings_error: str | None = None
    control: str = ""
    control_error: str | None = None
    files_from: str = ""
    identity: identity.Identity | None = None
    identity_error: str | None = None
    ends: Mapping[str, int] = field(default_factory=dict)  # as the daemon has them in force; 0: there is none
    paths: Mapping[str, str | None] = field(default_factory=dict)  # of the same
    folder: str = ""
    folder_mode: int | None = None  # None: there is none
    folder_uid: int = 0
    peer: str | None = None  # None: not asked for
    probe: dict[str, Any] | None = None
    probe_error: str | None = None


def gather(peer: Peer | None, conf: str | None = None, qemu_conf: str | None = None) -> TunnelFacts:
    """Looks, and asks the daemon; what cannot be had becomes a text."""
    now_s = time.time()
    try:
        found = settings.read_file(conf or settings.FILE, required=conf is not None)
        settled = settings.settle(found, *([qemu_conf] if qemu_conf else []))
    except settings.SettingsError as err:
        return TunnelFacts(now_s, settings_error=str(err))
    client = Client(os.environ.get("PCMIG_TUNNEL_CONTROL") or settled.values["control"])
    parts: dict[str, Any] = {
        "control": client.control,
        "files_from": settled.files_from,
        "folder": settled.values["run_dir"],
        "peer": None if peer is None else str(peer),
    }
    try:
        client.names()
    except TunnelError as err:
        parts["control_error"] = str(err)
    else:
        with contextlib.suppress(TunnelError):  # one from before it could tell
            parts |= {"ends": metrics.ends(client.metrics()), "paths": settled.files.paths()}
    try:
        parts["identity"] = identity.verify(settled.files)
    except identity.IdentityError as err:
        parts["identity_error"] = str(err)
    with contextlib.suppress(OSError):  # made by the daemon
        status = os.lstat(settled.values["run_dir"])
        parts |= {"folder_mode": status.st_mode, "folder_uid": status.st_uid}
    if peer is not None and "control_error" not in parts:
        try:
            parts["probe"] = client.probe(peer)
        except TunnelError as err:
            parts["probe_error"] = str(err)
    return TunnelFacts(now_s, **parts)


def daemon(f: Facts) -> Row | None:
    if f.tunnel is None:
        return None
    name = "tunnel"
    if f.tunnel.settings_error is not None:
        return Row(
            HERE,
            name,
            "fail",
            f.tunnel.settings_error,
            "settings that can be used",
            "the daemon does not start with these",
            f"correct {settings.FILE} (etc/pcmig/tunnel.conf.sample has them all)",
        )
    if f.tunnel.control_error is not None:
        return Row(
            HERE,
            name,
            "fail",
            f.tunnel.control_error,
            f"an answer at {f.tunnel.control}",
            "the daemon of each host carries the migrations",
            "systemctl start pcmig-tunnel, and run 'pcmig check' as root",
        )
    return Row(HERE, name, "ok", f"its daemon answers at {f.tunnel.control}")


def certificate(f: Facts) -> Row | None:
    if f.tunnel is None or f.tunnel.settings_error is not None:
        return None
    name, wanted = "tunnel certificate", "a pair that may serve and dial, of the CA beside it"
    if f.tunnel.identity is None:
        denied = "Permission denied" in (f.tunnel.identity_error or "")
        return Row(
            HERE,
            name,
            "unknown" if denied else "fail",
            f"{f.tunnel.files_from}: {f.tunnel.identity_error}",
            wanted,
            "peers refuse it",
            "run 'pcmig check' as root" if denied else "'pcmig tunnel keygen' makes such a pair",
        )
    mine = f.tunnel.identity
    found = f"{mine.subject} ({', '.join(mine.names) or 'no further names'}), {until(mine.not_after)}"
    status, *rest = ending(mine.not_after, f.tunnel.now_s)
    if status != "ok":
        found += f": {left(mine.not_after, f.tunnel.now_s)}"
    return Row(HERE, name, status, found, *rest)


def dialling_certificate(f: Facts) -> Row | None:
    """Where there is another one for it, as libvirt has."""
    if f.tunnel is None or f.tunnel.paths.get("client_certificate") is None:
        return None
    fix = "put a new one in its place, with the tools that made it, then: pcmig tunnel reload"
    judged = in_force(f.tunnel, "client_certificate", fix)
    return judged and Row(HERE, "tunnel certificate to dial with", *judged)


def authority(f: Facts) -> Row | None:
    fix = "'pcmig tunnel keygen --new-ca' where the CA is; its further steps: operate/tunnel-year"
    judged = in_force(f.tunnel, "ca", fix)
    return judged and Row(HERE, "tunnel CA", *judged)


def revocations(f: Facts) -> Row | None:
    fix = (
        "'pcmig tunnel keygen --revoke' where the CA is makes it anew; crl.pem to each host, and there: "
        "pcmig tunnel reload"
    )
    judged = in_force(f.tunnel, "crl", fix)
    return judged and Row(HERE, "tunnel revocation list", *judged)


def in_force(tunnel: TunnelFacts | None, what: str, fix: str) -> tuple[Status, str, str, str, str] | None:
    """What a row says of WHAT the daemon has read and goes by, from its status on."""
    end_s = tunnel.ends.get(what, 0) if tunnel is not None else 0
    if tunnel is None or not end_s:
        return None
    found = f"{tunnel.paths.get(what) or expiry.NAMES[what]}, {until(end_s)}"
    status, wanted, why, _ = ending(end_s, tunnel.now_s)
    if status == "ok":
        return status, found, "", "", ""
    if what == "crl":
        why = "once it has expired every host is refused"
    return status, f"{found}: {left(end_s, tunnel.now_s)}", wanted, why, fix


def folder(f: Facts) -> Row | None:
    if f.tunnel is None or f.tunnel.folder_mode is None:
        return None
    mode = f.tunnel.folder_mode
    found = f"{f.tunnel.folder}: mode {stat.S_IMODE(mode):04o}, owner {f.tunnel.folder_uid}"
    if stat.S_ISDIR(mode) and stat.S_IMODE(mode) == FOLDER_MODE:
        return Row(HERE, "tunnel folder", "ok", found)
    return Row(
        HERE,
        "tunnel folder",
        "fail",
        found,
        f"a folder with mode {FOLDER_MODE:04o}",
        "every QEMU has to make its sockets there, and none may list the folder or touch another's",
        "stop pcmig-tunnel, remove the folder, and start it: it makes the folder as it should be",
    )


def peer_tunnel(f: Facts) -> Row | None:
    if f.tunnel is None or f.tunnel.peer is None or (f.tunnel.probe is None and f.tunnel.probe_error is None):
        return None
    name = "tunnel to the peer"
    if f.tunnel.probe is None:
        return Row(
            "peer",
            name,
            "fail",
            f"{f.tunnel.peer}: {f.tunnel.probe_error}",
            "two daemons that accept each other",
            "no migration could go there",
            "see whether pcmig-tunnel runs there, its port is open, and its certificate names it; both logs "
            "have the reason",
        )
    subject, last_s = f.tunnel.probe.get("subject", "?"), f.tunnel.probe.get("not_after")
    found = f"{f.tunnel.peer} is {subject}"
    if not isinstance(last_s, int):
        return Row("peer", name, "ok", found)
    status, *rest = ending(last_s, f.tunnel.now_s)
    return Row("peer", name, status, f"{found}, {until(last_s)}", *rest)


def clocks(f: Facts) -> Row | None:
    skew_ms = f.tunnel.probe.get("clock_skew_ms") if f.tunnel is not None and f.tunnel.probe else None
    if not isinstance(skew_ms, int):
        return None
    skew_s = abs(skew_ms) / 1000
    found = f"the peer's is {skew_s:.1f} s {'ahead' if skew_ms > 0 else 'behind'}"
    if skew_s < SKEW_WARN_S:
        return Row("both", "clocks", "ok", found)
    return Row(
        "both",
        "clocks",
        "fail" if skew_s >= SKEW_FAIL_S else "warn",
        found,
        "less than a minute apart",
        "a certificate is refused where the clock says that it is not good yet, or not any more",
        "let NTP set both (chrony, systemd-timesyncd)",
    )


def ending(last_s: float, now_s: float) -> tuple[Status, str, str, str]:
    """Status, what is wanted, why, and what to do about a certificate that is good until LAST_S."""
    if last_s - now_s > EXPIRES_SOON_S:
        return "ok", "", "", ""
    over = last_s <= now_s
    return (
        "fail" if over else "warn",
        "good for a month or more",
        "no migration goes through the tunnel without" if over else "it has to be replaced before",
        "put a new one in its place ('pcmig tunnel keygen --renew'), and: systemctl reload pcmig-tunnel",
    )


def until(last_s: float) -> str:
    return f"good until {datetime.datetime.fromtimestamp(last_s, datetime.UTC).date().isoformat()}"


def left(last_s: float, now_s: float) -> str:
    """How long yet, at the steps at which the daemon's log warns too."""
    left_s = last_s - now_s
    if left_s <= 0:
        return "it has expired"
    step = min(days for days in expiry.WARN_DAYS if left_s <= days * DAY_S)
    return f"less than {step} days are left" if step > 1 else "less than a day is left"


TUNNEL: tuple[Callable[[Facts], Row | None], ...] = (
    daemon,
    certificate,
    dialling_certificate,
    authority,
    revocations,
    folder,
    peer_tunnel,
    clocks,
)
