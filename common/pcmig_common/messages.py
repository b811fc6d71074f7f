# SPDX-License-Identifier: Apache-2.0
"""What nova-api asks nova-compute of a migration under way, and one nova-compute another: both ends of these
messages, on a topic of their own.

Nova's own topic has its own versions and endpoints, to which a driver can add none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import oslo_messaging
from nova import rpc
from oslo_log import log as logging

from pcmig_common.turned_back import Words

LOG = logging.getLogger(__name__)

TOPIC = "pcmig"
# 1.1: arrivals; 1.2: address; 1.3: process, turn_back; 1.4: ports; 1.5: wake; 1.6: huge_pages
VERSION = "1.6"
FIRST_VERSION = "1.0"  # a question names the version in which it came: an older host answers what it knows

# A compute host answers from memory, within milliseconds. One without pcmig's driver never does, so it is not
# asked again for a while: every question to it occupies one of nova-api's threads for so long.
TIMEOUT_S = 3
SILENCE_S = 15
# One that is too old for a question writes a traceback into its log for it.
OLD_S = 600
# Before a guest may turn back both hosts are asked about it, and one of them may be dead.
TURN_BACK_TIMEOUT_S = 30

# A guest's page tables are walked for it, by another process where nova-compute may not.
HUGE_PAGES_TIMEOUT_S = 25

# Of libvirt, which start QEMUs.
_DAEMONS = (b"libvirtd", b"virtqemud")

# (progress as pcmig.nova.progress has it, or why there is none) of the instance with this UUID
Answer = tuple[dict[str, Any] | None, str | None]

# Called with context, UUID of the instance, and the words of who asks. Begins to turn it back and returns
# None, or returns why not.
TurnBack = Callable[[Any, str, Words], str | None]

# Called with the UUID of an instance: whether its ports forward on this host, as `pcmig ports --json` says.
Ports = Callable[[str], dict[str, Any]]

# Called with the UUID of an instance that arrives here: what brings it nothing any more is reset.
Wake = Callable[[str], None]

# Called with the UUID of an instance that has arrived here: how much of its memory is in huge pages, None for
# not known; why not; and whether it has pages of hugetlbfs.
HugePages = Callable[[str], Sequence[Any]]


def ports_untold(why: str) -> dict[str, Any]:
    """Nobody can say whether ports forward: what Ports returns then."""
    return {"ready": None, "absent": False, "error": why, "ports": []}


class Endpoint:
    """nova-compute's end; answers at once, whatever thread asks; huge_pages() alone may take seconds."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(
        self,
        look: Callable[[str], Answer],
        arrivals: Callable[[], str | None],
        turn_back: TurnBack,
        address: str | None = None,
        ports: Ports | None = None,
        wake: Wake | None = None,
        huge_pages: HugePages | None = None,
    ) -> None:
        self._ports = ports
        self._wake = wake
        self._huge_pages = huge_pages
        self._look = look
        self._arrivals = arrivals
        self._turn_back = turn_back
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

    def process(self, context: Any, instance: str) -> bool | None:
        """Whether a QEMU of the guest runs on this host, whatever libvirt knows; None: it cannot be seen."""
        return qemu_runs(instance)

    def ports(self, context: Any, instance: str) -> dict[str, Any]:
        """Whether the ports of a guest that comes here forward."""
        return ports_untold("its ports are not looked at") if self._ports is None else self._ports(instance)

    def wake(self, context: Any, instance: str) -> None:
        """Has QEMU of a guest that comes here notice that its stream is dead. Nobody waits for it."""
        if self._wake is not None:
            self._wake(instance)

    def huge_pages(self, context: Any, instance: str) -> list[Any]:
        """How much of a guest's memory is in huge pages here, as HugePages says it."""
        if self._huge_pages is None:
            return [None, "its huge pages are not looked at", False]
        return list(self._huge_pages(instance))

    def turn_back(self, context: Any, instance: str, **words: bool) -> str | None:
        """Has a guest go on here whose destination was lost; why not, if that cannot be."""
        return self._turn_back(context, instance, Words(**words))


def qemu_runs(uuid: str, proc: str = "/proc") -> bool | None:
    """Whether a QEMU of the guest with UUID runs on this host; None where it could not be seen.

    Processes of others may be hidden (hidepid), or be in another container's namespace. That libvirt's daemon
    is seen shows that QEMUs, which it starts, are too.
    """
    sees_daemon = False
    for pid in filter(str.isdigit, os.listdir(proc)):
        try:
            with open(f"{proc}/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if b"-uuid" in words and uuid.encode() in words:
            return True
        sees_daemon |= os.path.basename(words[0]) in _DAEMONS
    return False if sees_daemon else None


def serve(
    host: str,
    look: Callable[[str], Answer],
    arrivals: Callable[[], str | None],
    turn_back: TurnBack,
    address: str | None = None,
    ports: Ports | None = None,
    wake: Wake | None = None,
    huge_pages: HugePages | None = None,
) -> Any:
    """Answers for HOST from now on, until stop(); returns what that wants, None if nobody can be answered.

    That nobody can ask how far a migration is keeps none from running.
    """
    try:
        target = oslo_messaging.Target(topic=TOPIC, server=host)
        endpoint = Endpoint(look, arrivals, turn_back, address, ports, wake, huge_pages)
        server = rpc.get_server(target, [endpoint])
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
        client = rpc.get_client(oslo_messaging.Target(topic=TOPIC, version=FIRST_VERSION))
        asked = client.prepare(server=host, timeout=TIMEOUT_S, retry=0, version="1.2")
        answer = asked.call(context, "address")
    except Exception as err:  # the bus in whatever form, and a driver of before
        LOG.info(
            "nova-compute on %(host)s does not say at which address its libvirt is reached: %(err)s",
            {"host": host, "err": type(err).__name__},
        )
        return None
    return answer if isinstance(answer, str) and answer else None


class _SilentError(Exception):
    """Nobody answers on that host."""


class _NotAskedError(_SilentError):
    """Nobody has answered another question there a moment ago."""


class Client:
    """The other end: nova-api, and nova-compute of a host that a guest leaves."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        target = oslo_messaging.Target(topic=TOPIC, version=FIRST_VERSION)
        self._router = rpc.ClientRouter(rpc.get_client(target))
        self._clock = clock
        self._silent: dict[str, float] = {}  # host to when it was silent
        self._old: dict[str, float] = {}  # host to when it did not know what ports() asks

    def _call(
        self,
        context: Any,
        host: str,
        method: str,
        version: str = FIRST_VERSION,
        timeout_s: int = TIMEOUT_S,
        at_once: bool = True,
        **arguments: Any,
    ) -> Any:
        """Raises _SilentError, and whatever else the bus and the other end do. Not AT_ONCE: an answer to that
        takes its time, so that its absence says nothing of the host, and other questions are asked on."""
        silent_s = self._silent.get(host)
        if silent_s is not None and self._clock() - silent_s < SILENCE_S:
            raise _NotAskedError
        client = self._router.client(context).prepare(
            server=host, timeout=timeout_s, retry=0, version=version
        )
        try:
            answer = client.call(context, method, **arguments)
        except oslo_messaging.MessagingTimeout as err:
            if at_once:
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

    def process(self, context: Any, host: str, instance: str) -> bool | None:
        """Whether a QEMU of the guest runs on HOST; None: nobody says. Raises nothing."""
        try:
            found = self._call(context, host, "process", version="1.3", instance=instance)
        except _SilentError:
            return None
        except Exception as err:  # see progress()
            LOG.info("pcmig: nova-compute on %(host)s cannot be asked: %(err)s", {"host": host, "err": err})
            return None
        return found if isinstance(found, bool) else None

    def ports(self, context: Any, host: str, instance: str) -> dict[str, Any]:
        """Whether the ports of a guest that goes to HOST forward there. Raises nothing."""
        too_old = f"nova-compute on {host} has a pcmig that is too old to tell"
        old_s = self._old.get(host)
        if old_s is not None and self._clock() - old_s < OLD_S:
            return ports_untold(too_old)
        try:
            found = self._call(context, host, "ports", version="1.4", instance=instance)
        except _SilentError:
            return ports_untold(_nobody(host))
        except Exception as err:  # see progress()
            if _is_unknown(err):
                self._old[host] = self._clock()
                return ports_untold(too_old)
            return ports_untold(f"nova-compute on {host} cannot be asked: {type(err).__name__}")
        return found if isinstance(found, dict) else ports_untold(f"{host} has no answer")

    def huge_pages(self, context: Any, host: str, instance: str) -> Any:
        """How much of a guest's memory is in huge pages on HOST, as HugePages says it. Raises nothing."""
        try:
            return self._call(
                context,
                host,
                "huge_pages",
                version="1.6",
                timeout_s=HUGE_PAGES_TIMEOUT_S,
                at_once=False,
                instance=instance,
            )
        except _NotAskedError:
            why = f"nova-compute on {host} was not asked: it had not answered another question just before"
            return None, why, False
        except _SilentError:
            return None, _nobody(host, HUGE_PAGES_TIMEOUT_S), False
        except Exception as err:  # see progress()
            if _is_unknown(err):
                return None, f"nova-compute on {host} has a pcmig that is too old to tell", False
            return None, f"nova-compute on {host} cannot be asked: {type(err).__name__}", False

    def wake(self, context: Any, host: str, instance: str) -> None:
        """Has HOST reset what brings nothing to the guest any more. Waits for nothing, raises nothing."""
        try:
            client = self._router.client(context).prepare(server=host, retry=0, version="1.5")
            client.cast(context, "wake", instance=instance)
        except Exception as err:  # see progress()
            LOG.info("pcmig: nova-compute on %(host)s cannot be told: %(err)s", {"host": host, "err": err})

    def turn_back(self, context: Any, host: str, instance: str, words: Words) -> str | None:
        """Has HOST turn the instance with this UUID back; why it does not, or None: it has begun to."""
        try:
            found: str | None = self._call(
                context,
                host,
                "turn_back",
                version="1.3",
                timeout_s=TURN_BACK_TIMEOUT_S,
                instance=instance,
                **dataclasses.asdict(words),
            )
        except _SilentError:
            return _nobody(host, TURN_BACK_TIMEOUT_S)
        except Exception as err:  # see progress(); a driver that does not know the word
            LOG.warning(
                "pcmig: nova-compute on %(host)s cannot be asked: %(err)s", {"host": host, "err": err}
            )
            return (
                f"nova-compute on {host} cannot be asked: {type(err).__name__}; on that host: pcmig turn-back"
            )
        return found


def _is_unknown(err: Exception) -> bool:
    """Whether the other end is too old for what it was asked; the bus may have wrapped its error."""
    return str(getattr(err, "exc_type", None) or type(err).__name__).startswith("UnsupportedVersion")


def _nobody(host: str, timeout_s: int = TIMEOUT_S) -> str:
    return (
        f"nova-compute on {host} did not answer within {timeout_s} s: it is down, "
        "or runs without pcmig's driver"
    )
