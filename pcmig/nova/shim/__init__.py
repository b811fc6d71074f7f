# SPDX-License-Identifier: Apache-2.0
"""compute_driver = pcmig.PostCopyLibvirtDriver

Nova looks for its drivers below nova.virt only (nova/virt/driver.py, load_compute_driver). This package is
installed there as nova.virt.pcmig, so that the line above works; everything is in pcmig.nova.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcmig.nova.driver import PostCopyLibvirtDriver

__all__ = ["PostCopyLibvirtDriver"]


def __getattr__(name: str) -> Any:
    # Not before it is asked for: Nova's privileged daemon imports `privileged` below and needs no driver.
    if name != "PostCopyLibvirtDriver":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pcmig.nova import needs

    needs.start()  # first: what follows imports what may not be there
    from pcmig.nova.driver import PostCopyLibvirtDriver

    return PostCopyLibvirtDriver
