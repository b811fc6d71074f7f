"""Whether one guest's live migration may use post-copy: pure, what everybody said in, one decision out.

Who has a say, the strongest first:

1. the host: post-copy is possible at all (flags, see pcmig.nova.flags);
2. the guest's rule: flavor extra spec and image property, forbidden | allowed | required;
3. the request for this one migration, from sources that the operator trusts;
4. the operator's default for guests and requests that say nothing.

What the guest is (paused, VFIO, ...) comes last: it can only take post-copy away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

Rule = Literal["forbidden", "allowed", "required"]

RULES: tuple[Rule, ...] = ("forbidden", "allowed", "required")

# From microversion 2.86 on, Nova's API refuses extra specs of its own namespaces (hw:, os:, ...) that it does
# not know, and takes those of other ones (nova/api/validation/extra_specs/validators.py, validate).
EXTRA_SPEC = "pcmig:post_copy"
# ImageMetaProps drops properties it does not know, whatever their prefix; all of them are kept in the
# server's system metadata, as image_NAME (nova/utils.py, get_system_metadata_from_image).
IMAGE_PROPERTY = "pcmig_post_copy"
# In a server's own metadata, with true or false.
METADATA_KEY = "pcmig:post_copy"

# A role that the filter before the Compute API (pcmig_api) adds to the request's context, true or false; it
# travels with the request to the compute services and is gone with it.
REQUEST_ROLE = "os-migrateLive:post_copy="

_SM_IMAGE_PREFIX = "image_"


class Obstacle(Protocol):
    """One thing in a guest that does not go with post-copy, as pcmig.guest finds it on a compute host."""

    @property
    def element(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def blocks(self) -> bool: ...


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is to be done with one migration."""

    post_copy: bool  # it gets the flag, and the policy decides when to switch
    reason: str  # for the log: one sentence without a full stop
    refused: str | None = None  # why the migration must not start at all; None: it may


class RequestError(ValueError):
    """A request that counts cannot be understood."""


def image_properties(system_metadata: Mapping[str, object]) -> dict[str, str]:
    """The properties of the guest's image as Nova keeps them in an instance's SYSTEM_METADATA."""
    return {
        key.removeprefix(_SM_IMAGE_PREFIX): str(value)
        for key, value in system_metadata.items()
        if key.startswith(_SM_IMAGE_PREFIX) and value is not None
    }


def request_role(wish: bool) -> str:
    """The role that carries WISH."""
    return f"{REQUEST_ROLE}{'true' if wish else 'false'}"


def requested(roles: Iterable[str] | None) -> bool | None:
    """The wish that one of ROLES carries."""
    for role in roles or ():
        if role.startswith(REQUEST_ROLE):
            return {"true": True, "false": False}.get(role.removeprefix(REQUEST_ROLE))
    return None


def without_request(roles: Iterable[str] | None) -> list[str]:
    """ROLES but for those that look like a wish."""
    return [role for role in roles or () if not role.startswith(REQUEST_ROLE)]


def wish(
    sources: Sequence[str], *, api: bool | None = None, metadata: Mapping[str, object] | None = None
) -> bool | None:
    """The request that counts: that of the first of SOURCES ([pcmig] request_sources) that says something.

    API is what came with the request itself, METADATA the server's own. Raises RequestError for a value in
    METADATA that is neither true nor false, if that source counts.
    """
    for source in sources:
        found: bool | None = None
        if source == "api":
            found = api
        elif source == "metadata":
            found = _metadata_wish(metadata or {})
        if found is not None:
            return found
    return None


def _metadata_wish(metadata: Mapping[str, object]) -> bool | None:
    value = metadata.get(METADATA_KEY)
    if value is None:
        return None
    known = {"true": True, "false": False}.get(str(value).strip().lower())
    if known is None:
        raise RequestError(f"server metadata {METADATA_KEY} = {value!r} is neither true nor false")
    return known


def decide(
    request: bool | None,
    flavor_extra_specs: Mapping[str, str],
    image_properties: Mapping[str, str],
    operator_default: Rule,
    guest_capability: Sequence[Obstacle] = (),
    *,
    permitted: bool = True,
    paused: bool = False,
) -> Choice:
    """The decision for one migration.

    REQUEST: asked for (True), asked against (False) or nothing said, see wish(). GUEST_CAPABILITY: what
    pcmig.guest.obstacles() found. PERMITTED: this host's flags for this kind of migration include post-copy.
    Raises nothing: what cannot be understood is a refusal that says where it stands and what would be right.
    """
    guest_rule = guest_rule_of(flavor_extra_specs, image_properties)
    if isinstance(guest_rule, Choice):
        return guest_rule
    rule, said_by = guest_rule if guest_rule is not None else (operator_default, "[pcmig] default_choice")
    asked = "the request"
    if request is not None:
        if guest_rule is not None and rule != "allowed":
            if request is (rule == "forbidden"):
                return _refuse(
                    f"the request is {'for' if request else 'against'} post-copy, but {said_by} is {rule}"
                )
        else:
            rule, said_by = ("required", asked) if request else ("forbidden", asked)
    if rule == "forbidden":
        text = "asks against it" if said_by == asked else "is forbidden"
        return Choice(False, f"no post-copy: {said_by} {text}")

    demand = "asks for post-copy" if said_by == asked else f"is {rule}"
    if not permitted:
        if rule == "required":
            return _refuse(
                f"{said_by} {demand}, but this host does not permit post-copy: set "
                "[libvirt] live_migration_permit_post_copy = true there"
            )
        return Choice(
            False, "no post-copy: [libvirt] live_migration_permit_post_copy is not set on this host"
        )
    if paused:
        # Nova drops the flag too (_live_migration_operation): libvirt refuses post-copy of a paused guest.
        # One whose memory does not change needs none, so nothing that was required is missing.
        return Choice(False, "no post-copy: the guest is paused, its memory does not change")
    blocking = [obstacle for obstacle in guest_capability if obstacle.blocks]
    if blocking:
        found = "; ".join(f"{obstacle.element}: {obstacle.reason}" for obstacle in blocking)
        if rule == "required":
            return _refuse(f"{said_by} {demand}, but this guest cannot: {found}")
        return Choice(False, f"no post-copy: {found}")
    doubts = "".join(f"; {obstacle.element}: {obstacle.reason}" for obstacle in guest_capability)
    return Choice(True, f"post-copy: {said_by} {demand}{doubts}")


def refusal(
    request: bool, flavor_extra_specs: Mapping[str, str], image_properties: Mapping[str, str]
) -> str | None:
    """Why flavor and image do not let REQUEST be, whatever the hosts say; None if they do."""
    return decide(request, flavor_extra_specs, image_properties, "allowed").refused


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What flavor and image leave to a request; the reason where they do not."""

    forbidden: str | None = None  # why post-copy cannot be asked for
    required: str | None = None  # why it cannot be asked against


def bounds(flavor_extra_specs: Mapping[str, str], image_properties: Mapping[str, str]) -> Bounds:
    """For who wants to know before the request."""
    rule = guest_rule_of(flavor_extra_specs, image_properties)
    if isinstance(rule, Choice):  # they contradict each other, or cannot be understood
        return Bounds(rule.refused, rule.refused)
    if rule is None or rule[0] == "allowed":
        return Bounds()
    text = f"{rule[1]} is {rule[0]}"
    return Bounds(forbidden=text) if rule[0] == "forbidden" else Bounds(required=text)


def _refuse(reason: str) -> Choice:
    return Choice(False, f"refused: {reason}", reason)


def guest_rule_of(
    flavor_extra_specs: Mapping[str, str], image_properties: Mapping[str, str]
) -> tuple[Rule, str] | Choice | None:
    """(rule, who said it), None if neither flavor nor image says anything, or a refusal.

    As with Nova's own pairs of an extra spec and an image property, two values that exclude each other are an
    error that names both (nova/virt/hardware.py, FlavorImageConflict); "allowed" excludes nothing.
    """
    said: list[tuple[Rule, str]] = []
    for values, key, source in (
        (flavor_extra_specs, EXTRA_SPEC, f"the flavor's extra spec {EXTRA_SPEC}"),
        (image_properties, IMAGE_PROPERTY, f"the image's property {IMAGE_PROPERTY}"),
    ):
        value = values.get(key)
        if value is None:
            continue
        rule = next((known for known in RULES if known == value), None)
        if rule is None:
            return _refuse(f"{source} = {str(value)!r} is none of {', '.join(RULES)}")
        said.append((rule, source))
    rules = {rule for rule, _ in said}
    if {"forbidden", "required"} <= rules:
        (first, first_source), (second, second_source) = said
        return _refuse(
            f"{first_source} is {first} and {second_source} is {second}: "
            "they contradict each other, so change one"
        )
    return next((pair for pair in said if pair[0] != "allowed"), said[0] if said else None)
