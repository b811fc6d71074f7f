# SPDX-License-Identifier: Apache-2.0
"""Nova's client of Neutron, as the switch of a guest needs it: Nova's own waits for an answer for ever."""

from __future__ import annotations

import threading
from typing import Any

from keystoneauth1 import loading
from keystoneauth1 import session as keystone_session
from nova.conf import CONF
from nova.network import neutron

from pcmig.nova.neutron_ports import AT_ONCE

REQUEST_S = 10.0  # for a connection, and for each part of an answer

_lock = threading.Lock()
_sessions: list[Any] = []  # ours, as soon as there is one: it keeps connections, for the next request


def client(context: Any) -> Any:
    """With the rights of the service; gives up a request after a while. What it is used for is tried again by
    whoever asks, so it does not do so itself."""
    found = neutron.get_client(context, admin=True)
    http = getattr(getattr(found, "base_client", None), "httpclient", None)
    if http is not None:
        http.session = _session()
        http.connect_retries = 0
    return found


def _session() -> Any:
    with _lock:
        if not _sessions:
            session = loading.load_session_from_conf_options(CONF, "neutron", timeout=REQUEST_S)
            # As keystoneauth makes its own, as far as its release knows them.
            names = ("tls_ciphers", "tls_min_version")
            tls = {name: getattr(session, name) for name in names if hasattr(session, name)}
            for scheme in ("http://", "https://"):
                adapter = keystone_session.TCPKeepAliveAdapter(pool_maxsize=AT_ONCE, **tls)
                session.session.mount(scheme, adapter)
            _sessions.append(session)
        return _sessions[0]
