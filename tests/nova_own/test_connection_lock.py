# SPDX-License-Identifier: Apache-2.0
"""nova-compute's connection breaks at the moment at which it is looked for.

Run by tools/test nova-own.
"""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import host

from pcmig.nova import connection_lock


def test_a_connection_that_breaks_while_it_is_looked_for() -> None:
    """libvirt calls back in the thread that asked, and Nova goes on with a new connection."""
    found: list[Any] = []
    with mock.patch.object(host, "libvirt", fakelibvirt, create=True):
        made = host.Host("qemu:///system")
        connection_lock.reenter(made)

        class Broken:
            def getLibVersion(self) -> int:
                made._connection_closed(self, False, "the connection is lost")
                raise fakelibvirt.make_libvirtError(
                    fakelibvirt.libvirtError,
                    "client socket is closed",
                    error_code=fakelibvirt.VIR_ERR_INTERNAL_ERROR,
                    error_domain=fakelibvirt.VIR_FROM_RPC,
                )

        made._wrapped_conn = Broken()
        with mock.patch.object(made, "_get_new_connection", lambda: "another"):
            thread = threading.Thread(target=lambda: found.append(made.get_connection()), daemon=True)
            thread.start()
            thread.join(60)
    assert found == ["another"]
