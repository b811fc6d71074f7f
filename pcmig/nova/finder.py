# SPDX-License-Identifier: Apache-2.0
"""Makes nova.virt.pcmig importable where it is not installed beside Nova.

Nova in another prefix (a distribution's package), or one of the two installed in editable mode: then a .pth
file in a site directory of Nova's Python holds

    import sys; sys.path.append("/PREFIX/lib/python3.X/site-packages"); import pcmig.nova.finder

and nova-compute finds the driver as everywhere else (site, "Path configuration files"). It costs one
comparison per import and imports nothing of Nova.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import pathlib
import sys
from collections.abc import Sequence
from types import ModuleType

NAME = "nova.virt.pcmig"
SHIM = pathlib.Path(__file__).parent / "shim" / "__init__.py"


class ShimFinder(importlib.abc.MetaPathFinder):
    """Finds nova.virt.pcmig after everybody else has failed to."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != NAME:
            return None
        return importlib.util.spec_from_file_location(
            NAME, SHIM, submodule_search_locations=[str(SHIM.parent)]
        )


def install() -> None:
    """Adds the finder once, at the end: an installed shim comes first."""
    if not any(isinstance(finder, ShimFinder) for finder in sys.meta_path):
        sys.meta_path.append(ShimFinder())


install()
