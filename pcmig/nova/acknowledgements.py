# SPDX-License-Identifier: Apache-2.0
"""Acknowledgements at once towards the destination (csrc/edge/route.h).

nova-compute may seldom change a route itself: its privileged daemon does it then, for the time of post-copy.
"""

from __future__ import annotations

from typing import Any

from oslo_log import log as logging

LOG = logging.getLogger(__name__)


class Acknowledgements:
    """Of one migration."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._asked = False
        self._number = 0

    def look(self, status: Any) -> None:
        """STATUS is the engine's: it has tried by itself as post-copy began."""
        if self._asked or status["quickack"] != "denied" or status["stream_peer"] is None:
            return
        self._asked = True
        try:
            from nova.virt.pcmig import privileged

            result, self._number = privileged.quickack(status["stream_peer"])
        except Exception as err:  # the daemon does not start, or is of another installation
            LOG.warning(
                "Acknowledgements to %(peer)s stay delayed, page requests may wait up to 40 ms longer: "
                "Nova's privileged daemon cannot set the route's option quickack: %(err)s",
                {"peer": status["stream_peer"], "err": err},
                instance=self._instance,
            )
            return
        LOG.debug("The route's option quickack: %s", result, instance=self._instance)

    def end(self) -> None:
        number, self._number = self._number, 0
        if number == 0:
            return
        try:
            from nova.virt.pcmig import privileged

            privileged.end_quickack(number)
        except Exception as err:
            LOG.info("The route keeps its option quickack: %s", err, instance=self._instance)
