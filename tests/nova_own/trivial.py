# SPDX-License-Identifier: Apache-2.0
"""A driver that is Nova's own under another name: with it, the runner itself can be tried."""

from __future__ import annotations

from nova.virt.libvirt.driver import LibvirtDriver


class TrivialDriver(LibvirtDriver):  # type: ignore[misc]
    """Changes nothing."""


class BrokenDriver(LibvirtDriver):  # type: ignore[misc]
    """Changes something that tests of Nova look at."""

    def _is_post_copy_enabled(self, migration_flags: int) -> bool:
        return not super()._is_post_copy_enabled(migration_flags)
