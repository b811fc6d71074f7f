# SPDX-License-Identifier: Apache-2.0
"""Nova's lock on its libvirt connection: whoever holds it gets it again.

Nova in native threads works on libvirt's events in libvirt's own event thread. There it may look for a
connection, find under the lock that libvirtd is being restarted, and have libvirt call Nova's close callback
then and there, in the same thread; the callback wants the lock. From then on nova-compute cannot use libvirt
any more, and says nothing: a server that has just arrived stays MIGRATING until nova-compute is restarted.
Source: nova/virt/libvirt/host.py of Nova 34.0.0, Host._get_connection, _test_connection, _connection_closed;
seen when libvirtd was restarted some 45 ms after a switch to post-copy.
"""

from __future__ import annotations

import threading
from typing import Any


def reenter(host: Any) -> None:
    """HOST: Nova's, of its driver."""
    if isinstance(host._wrapped_conn_lock, type(threading.Lock())):
        host._wrapped_conn_lock = threading.RLock()
