# SPDX-License-Identifier: Apache-2.0
"""A guest's ports are bound to the destination the moment it stops at the source, all of them at once.

Nova does it one port after the other, when its handler of libvirt's events has found the migration's record.
It stays as it is, and finds nothing to do here. Not before that moment: Neutron unbinds a port at the source
for it, and its agent there takes the port out of the bridge.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from pcmig.nova import neutron_ports, releases

LOG = logging.getLogger(__name__)

# Between attempts for a port: Neutron may be restarted at this moment, or its database be busy.
AGAIN_S = (0.2, 0.5, 1.0, 1.0, 2.0)
SETTLE_S = 20.0  # a request is given up by then (neutron_client.REQUEST_S)
LOOK_S = 5.0  # without news
BACK_S = 0.2
FRESH_S = 20.0  # a token and connections that were used so lately need no look
FETCH_AGAIN_S = 2.0  # after a look that failed, or goes on


class Activation:
    """Of one guest's ports, on a thread of its own. CONNECT makes a client of Neutron's (neutron_client)."""

    def __init__(self, connect: Callable[[], Any], instance: Any, dest: str) -> None:
        self._connect = connect
        self._instance = instance
        self._dest = dest
        self._client: Any = None
        self._bound: dict[str, dict[str, str]] = {}  # port to host to status, as far as it was looked at
        self._fetched_s = self._tried_s = float("-inf")
        self._fetching = threading.Lock()
        self._connecting = threading.Lock()
        self._first = threading.Event()  # every port was tried once, or none is to be
        self._over = threading.Event()
        self._settled = threading.Event()  # nothing more reaches Neutron
        self._thread: threading.Thread | None = None
        self.took_s: float | None = None  # until all ports were active; None: they are not, or not yet
        self.begun = False  # what was asked of Neutron may bind a port to the destination, now or later

    def start(self, engine: Any, then: Callable[[], None] = lambda: None) -> None:
        """Activates as soon as ENGINE says that the guest has left; THEN is called when that is done."""
        self._thread = threading.Thread(
            target=self._run, args=(engine, then), name="pcmig-activation", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as err:  # no thread is to be had: Nova's own way is left
            LOG.warning("The ports are left for Nova to bind: %s", err, instance=self._instance)
            self._first.set()
            self._settled.set()

    def fetch(self) -> None:
        """The switch is near: has token, connections and bindings be there for it, in the background."""
        now_s = time.monotonic()
        if self.begun or now_s - self._fetched_s < FRESH_S or now_s - self._tried_s < FETCH_AGAIN_S:
            return
        self._tried_s = now_s
        try:
            threading.Thread(target=self._fetch, name="pcmig-bindings", daemon=True).start()
        except RuntimeError as err:  # no thread is to be had; it is done without at the switch
            LOG.info("Bindings of the ports are not known yet: %s", err, instance=self._instance)

    def under_way(self) -> bool:
        """Whether wait() may wait for something."""
        return self._thread is not None and not self._first.is_set()

    def wait(self, timeout_s: float) -> None:
        """Until all ports were tried once, or the migration is over."""
        self._first.wait(timeout_s)

    def end(self) -> None:
        """The migration is over: what is not active yet, Nova sees to, or it is not to be."""
        self._over.set()

    def is_settled(self, patience_s: float = SETTLE_S) -> bool:
        """Whether nothing more of it reaches Neutron; to be asked after end()."""
        return self._thread is None or self._settled.wait(patience_s)

    def _fetch(self) -> None:
        if not self._fetching.acquire(blocking=False):
            return  # another thread is at it
        try:
            client = self._connect()
            found = neutron_ports.each(
                neutron_ports.ids(self._instance), lambda port: neutron_ports.bindings(client, port)
            )
            self._client = client
            for port, hosts in found.items():
                # A Neutron that goes away, or was just started and says 404, takes back nothing that it said.
                if isinstance(hosts, dict) and (hosts or port not in self._bound):
                    self._bound[port] = hosts
            for err in neutron_ports.errors(found).values():
                raise err
            self._fetched_s = time.monotonic()
        except Exception as err:  # it is tried without at the switch
            LOG.info("Bindings of the ports are not known yet: %s", err, instance=self._instance)
        finally:
            self._fetching.release()

    def _run(self, engine: Any, then: Callable[[], None]) -> None:
        left = False
        try:
            self.fetch()
            left = self._wait_until_left(engine)
            if left:
                self.begun = True
                self._activate()
        except Exception:  # Nova's own way is left
            LOG.exception("The ports are not bound to the destination", instance=self._instance)
        finally:
            self._first.set()
            self._settled.set()
        if left:
            then()

    def _wait_until_left(self, engine: Any) -> bool:
        """Whether the guest has left the source; False when it is not going to."""
        while not self._over.is_set():
            releases.wait_readable(engine.left_fileno(), LOOK_S)
            status = engine.status()
            if status["left"] or status["outcome"] is not None:
                return status["outcome"] == "completed" or (status["left"] and status["outcome"] is None)
            if self._over.wait(BACK_S):  # it had left, and runs here again
                break
        return False

    def _activate(self) -> None:
        begun_s = time.monotonic()
        ports = [port for port in neutron_ports.ids(self._instance) if self._is_bound_there(port)]
        if not ports:
            return
        tried = _Count(len(ports), self._first.set)
        found = neutron_ports.each(ports, lambda port: self._one(port, tried))
        left = neutron_ports.errors(found)
        active = sum(value is True for value in found.values())
        took_s = time.monotonic() - begun_s
        self.took_s = took_s if active == len(ports) else None
        LOG.info(
            "%(active)d of %(all)d ports are bound to %(dest)s, %(ms)d ms after the guest stopped here",
            {
                "active": active,
                "all": len(ports),
                "dest": self._dest,
                "ms": took_s * 1000,
            },
            instance=self._instance,
        )
        for port, err in left.items():
            LOG.warning(
                "Port %(port)s is left for Nova to bind to %(dest)s: %(err)s",
                {"port": port, "dest": self._dest, "err": err},
                instance=self._instance,
            )

    def _is_bound_there(self, port: str) -> bool:
        """As far as anybody knows."""
        hosts = self._bound.get(port)
        return hosts is None or self._dest in hosts

    def _was_seen_there(self, port: str) -> bool:
        return self._dest in self._bound.get(port, {})

    def _connected(self) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _one(self, port: str, tried: _Count) -> bool:
        """Until it is active; whether it is. Raises the last error when the migration is over before."""
        attempts = 0
        while True:
            try:
                active = neutron_ports.activate(self._connected(), port, self._dest)
            except Exception as err:
                tried.one(port)
                if neutron_ports.is_final(err):
                    raise
                if attempts == 0:
                    LOG.warning(
                        "Port %(port)s cannot be bound to %(dest)s yet: %(err)s",
                        {"port": port, "dest": self._dest, "err": err},
                        instance=self._instance,
                    )
                if self._over.wait(AGAIN_S[min(attempts, len(AGAIN_S) - 1)]):
                    raise
                attempts += 1
            else:
                tried.one(port)
                # A Neutron that has just been started answers 404 before it knows of bindings at all.
                if active or not self._was_seen_there(port):
                    return active
                if self._over.wait(AGAIN_S[min(attempts, len(AGAIN_S) - 1)]):
                    return False
                attempts += 1


class _Count:
    """Calls DONE once as many as ALL have been told of."""

    def __init__(self, all_: int, done: Callable[[], None]) -> None:
        self._all = all_
        self._done = done
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def one(self, name: str) -> None:
        with self._lock:
            self._told.add(name)
            complete = len(self._told) == self._all
        if complete:
            self._done()
