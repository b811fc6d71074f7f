# SPDX-License-Identifier: Apache-2.0
"""The flavor's extra spec for Nova's API (entry point nova.api.extra_spec_validators, Nova 22 and newer).

Where pcmig is installed beside nova-api, a value that is none of the three is refused when the flavor is
made, from microversion 2.86 on. Without it the API takes every value, and the migration is refused.
"""

from __future__ import annotations

from typing import Any

from nova.api.validation.extra_specs import base

from pcmig_common.choice import EXTRA_SPEC, RULES


def register() -> list[Any]:
    """Nova calls it when nova-api starts."""
    return [
        base.ExtraSpecValidator(
            name=EXTRA_SPEC,
            description=(
                "Whether live migrations of servers with this flavor may use post-copy. ``required`` refuses "
                "those that cannot."
            ),
            value={"type": str, "enum": list(RULES)},
        )
    ]
