# SPDX-License-Identifier: Apache-2.0
"""What nova-api asks nova-compute of a migration under way, and one nova-compute another: both ends of these
messages, on a topic of their own.

Nova's own topic has its own versions and endpoints, to which a driver can add none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import oslo_messaging
from nova import rpc
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

TOPIC = "pcmig"
VERSION = "1.2"  # 1.1: arrivals; 1.2: address

# A compute host answers from memory, within milliseconds. One without pcmig's driver never does, so it is not
# asked again for a while: every question to it occupies one of nova-api's threads for so long.
TIMEOUT_S = 3
SILENCE_S = 15

# (progress as pcmig.nova.progress has it, or why there is none) of the instance with this UUID
Answer = tuple[dict[str, Any] | None, str | None]


class Endpoint:
    """nova-compute's end; answers at once, whatever thread asks."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(
        self, look: Callable[[str], Answer], arrivals: Callable[[], str | None], address: str | None = None
    ) -> None:
        self._look = look
        self._arrivals = arrivals
        self._address = address

    def progress(self, context: Any, instance: str) -> dict[str, Any]:
        found, missing = self._look(instance)
        return {"progress": found, "missing": missing}

    def arrivals(self, context: Any) -> str | None:
        """Why no guest can arrive here by post-copy, as the check before the migration has found."""
        return self._arrivals()

    def address(self, context: Any) -> str | None:
        """At which this host is reached by others for migrations; None: by its name."""
        return self._address


def serve(
    host: str,
    look: Callable[[str], Answer],
    arrivals: Callable[[], str | None],
    address: str | None = None,
) -> Any:
    """Answers for HOST from now on, until stop(); returns what that wants, None if nobody can be answered.

    That nobody can ask how far a migration is keeps none from running.
    """
    try:
        target = oslo_messaging.Target(topic=TOPIC, server=host)
        server = rpc.get_server(target, [Endpoint(look, arrivals, address)])
        server.start()
    except Exception as err:  # the bus in whatever form
        LOG.warning("pcmig: progress of live migrations cannot be asked for: %(err)s", {"err": err})
        return None
    return server


def stop(server: Any) -> None:
    """Ends what serve() began. The service is about to end, so that nothing of it matters any more."""
    if server is not None:
        with contextlib.suppress(Exception):
            server.stop()


def address(context: Any, host: str) -> str | None:
    """At which HOST is reached for migrations, as its nova-compute says; None when it has none to tell, or
    does not answer. Raises nothing."""
    try:
        client = rpc.get_client(oslo_messaging.Target(topic=TOPIC, version=VERSION))
        answer = client.prepare(server=host, timeout=TIMEOUT_S, retry=0).call(context, "address")
    except Exception as err:  # the bus in whatever form, and a driver of before
        LOG.info(
            "nova-compute on %(host)s does not say at which address its libvirt is reached: %(err)s",
            {"host": host, "err": type(err).__name__},
        )
        return None
    return answer if isinstance(answer, str) and answer else None


class _SilentError(Exception):
    """Nobody answers on that host."""


class Client:
    """The other end: nova-api, and nova-compute of a host that a guest leaves."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._router = rpc.ClientRouter(rpc.get_client(oslo_messaging.Target(topic=TOPIC, version="1.0")))
        self._clock = clock
        self._silent: dict[str, float] = {}  # host to when it was silent

    def _call(self, context: Any, host: str, method: str, version: str = "1.0", **arguments: Any) -> Any:
        """Raises _SilentError, and whatever else the bus and the other end do."""
        silent_s = self._silent.get(host)
        if silent_s is not None and self._clock() - silent_s < SILENCE_S:
            raise _SilentError
        client = self._router.client(context).prepare(
            server=host, timeout=TIMEOUT_S, retry=0, version=version
        )
        try:
            answer = client.call(context, method, **arguments)
        except oslo_messaging.MessagingTimeout as err:
            self._silent[host] = self._clock()
            raise _SilentError from err
        self._silent.pop(host, None)
        return answer

    def progress(self, context: Any, host: str, instance: str) -> Answer:
        """Of the instance with this UUID on HOST; CONTEXT is targeted at its cell. Raises nothing."""
        try:
            answer = self._call(context, host, "progress", instance=instance)
        except _SilentError:
            return None, _nobody(host)
        except Exception as err:  # the bus in whatever form, and what a newer driver may raise
            LOG.warning(
                "pcmig: no progress from nova-compute on %(host)s: %(err)s", {"host": host, "err": err}
            )
            return None, f"nova-compute on {host} cannot be asked: {type(err).__name__}"
        return answer["progress"], answer["missing"]

    def answers(self, context: Any, host: str, instance: str) -> bool:
        """Whether nova-compute on HOST has pcmig's driver; True too where the bus fails: nobody can tell."""
        try:
            self._call(context, host, "progress", instance=instance)
        except _SilentError:
            return False
        except Exception as err:  # see progress()
            LOG.warning(
                "pcmig: nova-compute on %(host)s cannot be asked: %(err)s", {"host": host, "err": err}
            )
        return True

    def arrivals(self, context: Any, host: str) -> str | None:
        """Why no guest can arrive at HOST by post-copy; None also where nobody knows, as on a host without
        pcmig's driver: libvirt's preparation has the last word. Raises nothing."""
        try:
            found: str | None = self._call(context, host, "arrivals", version="1.1")
        except _SilentError:
            return None
        except Exception as err:  # see progress(); a driver that does not know the question
            LOG.info("pcmig: nova-compute on %(host)s cannot be asked: %(err)s", {"host": host, "err": err})
            return None
        return found


def _nobody(host: str) -> str:
    return (
        f"nova-compute on {host} did not answer within {TIMEOUT_S} s: it is down, "
        "or runs without pcmig's driver"
    )
