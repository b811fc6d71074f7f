# SPDX-License-Identifier: Apache-2.0
"""The rules of the filter, for Nova's policy files and for samples (entry point oslo.policy.policies).

Needs oslo.policy, and nothing of Nova.
"""

from __future__ import annotations

from collections.abc import Iterable

from oslo_policy import policy

ASK = "os_compute_api:os-migrate-server:migrate_live:post_copy"
SHOW = "os_compute_api:pcmig:show"
TURN_BACK = "os_compute_api:pcmig:turn-back"

# Nova's names for who may (nova/policies/base.py).
ADMIN = "rule:context_is_admin"
MANAGER = "project_manager_or_admin"  # since Nova 32, whose rules of live migration are for managers

RULES = [
    policy.DocumentedRuleDefault(
        name=ASK,
        check_str=f"rule:{MANAGER}",
        description="Live migrate a server and say whether it is to use post-copy. The rules of live "
        "migrations themselves hold as well. With Nova 31 the default is rule:context_is_admin.",
        operations=[{"method": "POST", "path": "/servers/{server_id}/action (os-migrateLive, post_copy)"}],
        scope_types=["project"],
    ),
    policy.DocumentedRuleDefault(
        name=SHOW,
        check_str=ADMIN,
        description="Show whether post-copy may be asked for, and the newest live migration of a server with "
        "its progress and hosts",
        operations=[{"method": "GET", "path": "/servers/{server_id}/os-pcmig"}],
        scope_types=["project"],
    ),
    policy.DocumentedRuleDefault(
        name=TURN_BACK,
        check_str=ADMIN,
        description="Have a server go on at its source that was in post-copy when the destination was lost, "
        "and say that the destination is dead, that its disks may be newer, or that no other host has it",
        operations=[{"method": "POST", "path": "/servers/{server_id}/action (os-pcmigTurnBack)"}],
        scope_types=["project"],
    ),
]


def rules_beside(known: Iterable[str]) -> list[policy.RuleDefault]:
    """The rules for a Nova that has the rules KNOWN: who may migrate there may ask."""
    if MANAGER in known:
        return list(RULES)
    return [policy.RuleDefault(rule.name, ADMIN, scope_types=["project"]) for rule in RULES]


def list_rules() -> list[policy.DocumentedRuleDefault]:
    """For the entry point."""
    return list(RULES)
