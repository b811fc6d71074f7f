# SPDX-License-Identifier: Apache-2.0
"""Gathers what the checks judge: from this host's kernel and files, and from libvirt."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
from concurrent import futures
from urllib.parse import urlsplit

from pcmig import _core
from pcmig.check import many, model, network_facts, novadriver, novarights, process, qemuconf, tunnel
from pcmig.tunnel.peer import Peer

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ROUTE_TIMEOUT_S = 5  # of ip(8)


def gather(
    connect: str,
    *,
    peer: str | None = None,
    domain: str | None = None,
    qemu_user: str | None = None,
    qemu_conf: str = qemuconf.DEFAULT_PATH,
    root: str = "/",
    timeout_ms: int | None = None,
    with_tunnel: bool = False,
    with_nova: bool = True,
    tunnel_peer: Peer | None = None,
) -> model.Facts:
    """All facts. What cannot be had becomes a text in them, never an exception. WITH_NOVA starts a Python, to
    see whether nova-compute finds its driver. TIMEOUT_MS is for each connection, None the core's own."""
    # At once: a host may take seconds to answer (libvirt probes its QEMU) or the whole timeout not to.
    with futures.ThreadPoolExecutor(max_workers=1) as pool:
        peer_answer = pool.submit(ask, peer, timeout_ms) if peer is not None else None
        here, domain_error = ask_about_guest(connect, domain, timeout_ms)
        other = peer_answer.result() if peer_answer is not None else None
    settings = read_settings(qemu_conf, connect)
    probe, probe_error = None, None
    if is_local(connect):
        try:
            probe = _core.probe_host(
                qemu_user or settings.user or default_user(connect),
                group=settings.group if qemu_user is None else None,
                keep_capabilities=settings.keep_capabilities,
                root=root,
            )
        except _core.Error as err:
            probe_error = str(err)
    nova = novadriver.gather() if with_nova and is_local(connect) else None
    rights = novarights.gather(root) if with_nova and is_local(connect) else None
    has_nova = nova is not None or rights is not None
    addresses = resolve(other.facts["hostname"]) if other is not None and other.facts else None
    return model.Facts(
        here=here,
        probe=probe,
        probe_error=probe_error,
        settings=settings,
        peer=other,
        peer_addresses=addresses,
        net_admin=net_admin(root),
        quickack=quickack(addresses[0]) if addresses else None,
        nova=nova,
        nova_rights=rights,
        many=many.gather(root, rights) if has_nova else None,
        network=network_facts.gather(root, with_nova=has_nova) if is_local(connect) else None,
        tunnel=tunnel.gather(tunnel_peer, qemu_conf=qemu_conf) if with_tunnel else None,
        domain=domain,
        domain_error=domain_error,
    )


def ask(uri: str, timeout_ms: int | None, domain: str | None = None) -> model.Side:
    """What the libvirt at URI tells."""
    try:
        if timeout_ms is None:
            return model.Side(uri, _core.host_facts(uri, domain=domain))
        return model.Side(uri, _core.host_facts(uri, domain=domain, timeout_ms=timeout_ms))
    except _core.NoDomainError:
        raise
    except _core.Error as err:
        fix: str | None = getattr(err, "hint", None)  # errors of libvirt's have one
        return model.Side(uri, error=str(err).removesuffix(f"; {fix}"), fix=fix)
    except ValueError as err:  # a NUL in the URI
        return model.Side(uri, error=f"{uri!r}: {err}")


def ask_about_guest(uri: str, domain: str | None, timeout_ms: int | None) -> tuple[model.Side, str | None]:
    """What the libvirt at URI tells of its host and of DOMAIN, and why not of the latter."""
    try:
        return ask(uri, timeout_ms, domain), None
    except _core.NoDomainError as err:
        return ask(uri, timeout_ms), str(err)


def is_local(uri: str) -> bool:
    """Whether URI names this machine: no server part, or the loopback's address."""
    try:
        found = urlsplit(uri)
        return not found.netloc or found.hostname in LOOPBACK
    except ValueError:
        return False


def is_session(uri: str) -> bool:
    """Whether QEMU runs as the caller, without a daemon's privileges."""
    try:
        return urlsplit(uri).path == "/session"
    except ValueError:
        return False


def read_settings(path: str, connect: str) -> qemuconf.QemuSettings:
    """qemu.conf's settings; libvirt's defaults where it cannot be read (it may be root's)."""
    if is_session(connect):
        return qemuconf.QemuSettings(mount_namespace=False)
    try:
        return qemuconf.settings(pathlib.Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return qemuconf.QemuSettings()


def default_user(connect: str) -> str:
    """Whom libvirt runs QEMU as when qemu.conf does not say."""
    if is_session(connect):
        return f"+{os.getuid()}"
    return qemuconf.default_user()


def net_admin(root: str = "/") -> bool | None:
    """Whether this process has CAP_NET_ADMIN (proc(5), CapEff); None when that cannot be read."""
    try:
        status = (pathlib.Path(root) / "proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return process.has_capability(status, process.CAP_NET_ADMIN)


def quickack(address: str) -> bool | None:
    """Whether the route to ADDRESS has the option quickack (ip-route(8)); None when ip(8) does not tell."""
    command = ["ip", "-j", "route", "get", "fibmatch", address.partition("%")[0]]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ROUTE_TIMEOUT_S, check=False)
        routes = json.loads(answer.stdout) if answer.returncode == 0 else []
        metrics = [metric for route in routes for metric in route.get("metrics", [])]
        return any(metric.get("quickack") == 1 for metric in metrics) if routes else None
    except (OSError, subprocess.TimeoutExpired, ValueError, AttributeError, TypeError):
        return None


def resolve(name: str | None) -> tuple[str, ...]:
    """The addresses that NAME has on this host; none when it is not known here."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM) if name else []
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
