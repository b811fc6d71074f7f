# SPDX-License-Identifier: Apache-2.0
"""What differs between the releases of Nova that the driver works with: 31 to 34.

Signatures of what the driver overrides are the same in all of them (nova/virt/libvirt/driver.py); only the
handle of the operation's thread is not, and how a thread waits depends on whether eventlet is in use.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from typing import Any

# The method of the handle that _live_migration_monitor gets which tells whether the operation has ended:
# 33 and 34 a future, 32 a threading.Event, 31 an eventlet.event.Event.
_DONE = ("done", "is_set", "ready")


def operation_done(handle: Any) -> bool:
    """Whether _live_migration_operation has returned or raised."""
    for name in _DONE:
        method = getattr(handle, name, None)
        if method is not None:
            return bool(method())
    raise TypeError(
        f"the live migration's thread is a {type(handle).__name__}, which has none of {', '.join(_DONE)}: "
        "this release of Nova is not known to pcmig"
    )


def wait_readable(fd: int, timeout_s: float) -> None:
    """Waits until FD is readable or TIMEOUT_S is over, without blocking eventlet's hub.

    eventlet's monkey patching takes select.poll away and makes select.select green. poll is preferred where
    it is there, because select cannot watch descriptors above 1023.
    """
    poll = getattr(select, "poll", None)
    if poll is None:
        select.select([fd], [], [], timeout_s)
        return
    poller = poll()
    poller.register(fd, select.POLLIN)
    poller.poll(timeout_s * 1000)


def threading_mode() -> bool:
    """Whether this service runs on native threads: whatever Nova says of itself, eventlet has not put its own
    in their place. A Nova that does without eventlet never loads it."""
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is None or not patcher.is_monkey_patched("thread")


def off_hub(call: Callable[..., Any], *arguments: Any) -> Any:
    """Calls what blocks outside of Python, without blocking eventlet's hub."""
    if threading_mode():
        return call(*arguments)
    from eventlet import tpool

    return tpool.execute(call, *arguments)
