# SPDX-License-Identifier: Apache-2.0
"""Neutron's bindings of a server's ports, all of them at once. A client is one of neutron_client.py; nothing
here needs Nova."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

ACTIVE, INACTIVE = "ACTIVE", "INACTIVE"
AT_ONCE = 32  # requests


def ids(instance: Any) -> list[str]:
    """The server's ports, as Nova knows them."""
    return [str(vif["id"]) for vif in instance.get_network_info() or []]


def status_of(err: Exception) -> int | None:
    """Neutron's answer that ERR is; None: it has not answered."""
    found = getattr(err, "status_code", None)
    if found is None and getattr(err, "code", None) == HTTPStatus.FORBIDDEN:
        return HTTPStatus.FORBIDDEN  # Nova's client makes an error of Nova's of it
    return found if isinstance(found, int) and found > 0 else None


def is_final(err: Exception) -> bool:
    """Whether Neutron has said no, and would again."""
    status = status_of(err)
    return (
        status is not None
        and 400 <= status < 500
        and status not in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    )


def each(ports: Iterable[str], call: Callable[[str], Any]) -> dict[str, Any]:
    """CALL for all of PORTS at once: what it returns for each, or the exception that it raises."""
    todo = list(ports)
    found: dict[str, Any] = {}

    def work() -> None:
        while True:
            try:
                port = todo.pop(0)
            except IndexError:
                return
            try:
                found[port] = call(port)
            except Exception as err:  # whoever called looks at each
                found[port] = err

    threads: list[threading.Thread] = []
    for _ in range(min(len(todo), AT_ONCE)):
        thread = threading.Thread(target=work, name="pcmig-port", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more are to be had: those that are there do it
            break
        threads.append(thread)
    if not threads:
        work()
    for thread in threads:
        thread.join()
    return found


def errors(found: dict[str, Any]) -> dict[str, Exception]:
    return {port: value for port, value in found.items() if isinstance(value, Exception)}


def bindings(neutron_client: Any, port: str) -> dict[str, str]:
    """Host to the status of the port's binding there. A Neutron that has no such thing has none."""
    try:
        found = neutron_client.list_port_bindings(port)["bindings"]
    except Exception as err:
        if status_of(err) == HTTPStatus.NOT_FOUND:
            return {}
        raise
    return {str(binding["host"]): str(binding["status"]) for binding in found}


def activate(neutron_client: Any, port: str, host: str) -> bool:
    """Whether the port is bound to HOST from now on; False: it has no binding there to activate."""
    try:
        neutron_client.activate_port_binding(port, host)
    except Exception as err:
        match status_of(err):
            case HTTPStatus.CONFLICT:  # it was active already: somebody else was faster
                return True
            case HTTPStatus.NOT_FOUND:
                return False
        raise
    return True


def remove(neutron_client: Any, port: str, host: str) -> bool:
    """Whether there was a binding to remove."""
    try:
        neutron_client.delete_port_binding(port, host)
    except Exception as err:
        if status_of(err) == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True
