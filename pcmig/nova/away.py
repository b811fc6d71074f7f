# SPDX-License-Identifier: Apache-2.0
"""Who could not be reached, and who said no: the first is waited for, the second is believed."""

from __future__ import annotations

from typing import Any

import oslo_messaging
from nova import exception

from pcmig.nova import guard

# Parts of an error's name or text that say that somebody could not be reached: nova-compute at the
# destination, the bus, the database, Neutron, Cinder, placement, Keystone, or a proxy before them. Nova puts
# what a service has answered into the text of errors of its own.
_AWAY = (
    "DBConnectionError",
    "MessagingTimeout",
    "MessageDeliveryFailure",
    "ServiceUnavailable",
    "Service Unavailable",
    "BadGateway",
    "Bad Gateway",
    "GatewayTimeout",
    "Gateway Timeout",
    "Gateway Time-out",
    "ConnectionFailed",
    "ConnectionError",
    "ConnectFailure",
    "ConnectTimeout",
    "ReadTimeout",
    "PortBindingActivationFailed",
)
_AWAY_STATUSES = (408, 429, 502, 503, 504)


def patient(err: Exception) -> bool:
    """Whether ERR only says that somebody could not be reached. The guard refuses when a host does not say
    how the guest is there."""
    if isinstance(err, guard.Refused):
        return True
    if isinstance(err, oslo_messaging.MessagingException) and not isinstance(err, oslo_messaging.RemoteError):
        return True
    if _status_of(err) in _AWAY_STATUSES:
        return True
    text = f"{type(err).__name__} {err}"
    return any(word in text for word in _AWAY)


def refused(err: Exception) -> bool:
    """Whether ERR is a no, which would be the same another time."""
    status = _status_of(err) or getattr(err, "code", None)
    return isinstance(status, int) and 400 <= status < 500 and not patient(err)


def _status_of(err: Exception) -> Any:
    """What a service has answered, as its client has it. Nova's own errors all have a code."""
    names = ("status_code", "http_status", *(() if isinstance(err, exception.NovaException) else ("code",)))
    return next((found for name in names if (found := getattr(err, name, None))), None)
