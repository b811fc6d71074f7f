# SPDX-License-Identifier: Apache-2.0
"""The filter before Nova's Compute API: who migrates may ask for post-copy, or against it.

In nova-api's api-paste.ini (doc/operate/asking.rst):

    [filter:pcmig]
    paste.filter_factory = pcmig_api:factory

Importing this package, `body` and `views` needs nothing of Nova.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def factory(global_conf: dict[str, str], **local_conf: str) -> Callable[[Any], Any]:
    """For paste: what makes a filter of the application behind it. It has no options.

    Raises NotThisNova where this Nova lacks what the filter uses: nova-api does not start then.
    """
    from pcmig_api import needs
    from pcmig_common.needs import check

    check(needs.TABLE, "filter")  # first: what follows imports what may not be there
    from pcmig_api.wsgi import Filter

    if local_conf:
        raise ValueError(f"[filter:pcmig] has no option {', '.join(sorted(local_conf))}: remove it")
    return Filter
