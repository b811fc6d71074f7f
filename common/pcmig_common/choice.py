# SPDX-License-Identifier: Apache-2.0
"""Whether one guest's live migration may use post-copy: pure, what everybody said in, one decision out.

Who has a say, the strongest first:

1. the host: post-copy is possible at all (flags, see pcmig.nova.flags);
2. the flavor's extra spec, forbidden | allowed | required: the administrator's rule for its guests;
3. the request for this one migration, from sources that the operator trusts;
4. the image's property, with the same three values: its owner's wish. By default it is a hint, which keeps no
   migration from starting ([pcmig] image_property);
5. the operator's default for guests and requests that say nothing.

What the guest is (paused, VFIO, ...) comes last: it can only take post-copy away.

A refusal is shown to the server's owner: it is short, whole, and names neither hosts nor devices of theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from pcmig_common.i18n import _

Rule = Literal["forbidden", "allowed", "required"]
ImageMode = Literal["honour", "hint", "ignore"]

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
_SHOWN = 40  # characters of a value that is wrong


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
    reason: str  # for the log and for operators: one sentence without a full stop
    refused: str | None = None  # why the migration must not start at all; None: it may
    demanded: bool = False  # it must not start without post-copy
    warnings: tuple[str, ...] = ()  # what the image says and is not heeded, for the log


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


@dataclasses.dataclass(frozen=True)
class _Said:
    """A rule, and who gave it."""

    rule: Rule
    source: str
    text: str  # "SOURCE is RULE", or what a request asks
    demands: bool = True  # "required" is more than a hint


class _NoRule(ValueError):
    """A value is none of RULES."""


def decide(
    request: bool | None,
    flavor_extra_specs: Mapping[str, str],
    image_properties: Mapping[str, str],
    operator_default: Rule,
    guest_capability: Sequence[Obstacle] = (),
    *,
    image_mode: ImageMode = "hint",
    permitted: bool = True,
    paused: bool = False,
) -> Choice:
    """The decision for one migration.

    REQUEST: asked for (True), asked against (False) or nothing said, see wish(). GUEST_CAPABILITY: what
    pcmig.guest.obstacles() found. PERMITTED: this host's flags for this kind of migration include post-copy.
    Raises nothing: what cannot be understood is a refusal that says where it stands and what would be right.
    """
    try:
        flavor = _in_flavor(flavor_extra_specs)
    except _NoRule as err:
        return _refuse(str(err))
    warnings: list[str] = []
    image = None
    # The image is not even looked at where a request was made: whatever it has, the request wins.
    if request is None and image_mode != "ignore":
        try:
            image = _in_image(image_properties)
        except _NoRule as err:
            if image_mode == "honour":
                return _refuse(str(err))
            warnings.append(f"{err}: it counts as allowed")
            image = _said("allowed", _image())
        conflict = _conflict(flavor, image)
        if conflict is not None:
            if image_mode == "honour":
                return _refuse(conflict)
            warnings.append(f"{conflict}: the flavor counts")
            image = None
        if image is not None and image_mode == "hint":
            image = dataclasses.replace(image, demands=False)
    refused = _against(request, flavor)
    if refused is not None:
        return _refuse(refused)
    said = _first(request, flavor, image, _said(operator_default, "[pcmig] default_choice"))
    chosen = _as_the_guest_can(said, guest_capability, permitted=permitted, paused=paused)
    return dataclasses.replace(chosen, warnings=tuple(warnings))


def _first(request: bool | None, flavor: _Said | None, image: _Said | None, default: _Said) -> _Said:
    """Whose word counts, of those that do not exclude each other."""
    if flavor is not None and flavor.rule != "allowed":
        return flavor
    if request is not None:
        if request:
            return _Said("required", _("the request"), _("the request asks for post-copy"))
        return _Said("forbidden", _("the request"), _("the request asks against it"))
    if image is not None and image.rule != "allowed":
        # A hint takes nothing from what the operator demands.
        return default if image.rule == default.rule else image
    return flavor or image or default


def _as_the_guest_can(
    said: _Said, guest_capability: Sequence[Obstacle], *, permitted: bool, paused: bool
) -> Choice:
    if said.rule == "forbidden":
        return Choice(False, f"no post-copy: {said.text}")
    demanded = said.rule == "required" and said.demands
    if not permitted:
        if demanded:
            return _refuse(
                _(
                    "%(demand)s, but this host does not permit post-copy: set "
                    "[libvirt] live_migration_permit_post_copy = true there"
                )
                % {"demand": said.text}
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
        if demanded:
            return _refuse(
                _("%(demand)s, but the server has devices that do not go with it") % {"demand": said.text},
                f"{said.text}, but this guest cannot: {found}",
            )
        return Choice(False, f"no post-copy: {found}")
    doubts = "".join(f"; {obstacle.element}: {obstacle.reason}" for obstacle in guest_capability)
    return Choice(True, f"post-copy: {said.text}{doubts}", demanded=demanded)


def refusal(request: bool, flavor_extra_specs: Mapping[str, str]) -> str | None:
    """Why the flavor does not let REQUEST be, whatever the hosts say; None if it does."""
    try:
        return _against(request, _in_flavor(flavor_extra_specs))
    except _NoRule as err:
        return str(err)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What the flavor leaves to a request; the reason where it does not."""

    forbidden: str | None = None  # why post-copy cannot be asked for
    required: str | None = None  # why it cannot be asked against


def bounds(flavor_extra_specs: Mapping[str, str]) -> Bounds:
    """For who wants to know before the request."""
    try:
        said = _in_flavor(flavor_extra_specs)
    except _NoRule as err:
        return Bounds(str(err), str(err))
    if said is None or said.rule == "allowed":
        return Bounds()
    return Bounds(forbidden=said.text) if said.rule == "forbidden" else Bounds(required=said.text)


def mistake(flavor_extra_specs: Mapping[str, str], image_properties: Mapping[str, str]) -> str | None:
    """What is wrong with a flavor and an image that a server is to be made of; None if nothing is.

    As with Nova's own pairs of an extra spec and an image property, two values that exclude each other are an
    error that names both (nova/virt/hardware.py, FlavorImageConflict); "allowed" excludes nothing.
    """
    try:
        return _conflict(_in_flavor(flavor_extra_specs), _in_image(image_properties))
    except _NoRule as err:
        return str(err)


def _refuse(text: str, reason: str | None = None) -> Choice:
    return Choice(False, f"refused: {reason or text}", text)


def _said(rule: Rule, source: str) -> _Said:
    return _Said(rule, source, _("%(source)s is %(rule)s") % {"source": source, "rule": rule})


def _flavor() -> str:
    return _("the flavor's extra spec %s") % EXTRA_SPEC


def _image() -> str:
    return _("the image's property %s") % IMAGE_PROPERTY


def _in_flavor(extra_specs: Mapping[str, str]) -> _Said | None:
    return _rule_in(extra_specs, EXTRA_SPEC, _flavor())


def _in_image(properties: Mapping[str, str]) -> _Said | None:
    return _rule_in(properties, IMAGE_PROPERTY, _image())


def _rule_in(values: Mapping[str, str], key: str, source: str) -> _Said | None:
    """Raises _NoRule."""
    value = values.get(key)
    if value is None:
        return None
    rule = next((known for known in RULES if known == value), None)
    if rule is None:
        shown = str(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}..."
        raise _NoRule(
            _("%(source)s = %(value)r is none of %(rules)s")
            % {"source": source, "value": shown, "rules": ", ".join(RULES)}
        )
    return _said(rule, source)


def _conflict(flavor: _Said | None, image: _Said | None) -> str | None:
    if flavor is None or image is None or {flavor.rule, image.rule} != {"forbidden", "required"}:
        return None
    found: str = _("%(flavor)s and %(image)s: they contradict each other, so change one") % {
        "flavor": flavor.text,
        "image": image.text,
    }
    return found


def _against(request: bool | None, flavor: _Said | None) -> str | None:
    """Why FLAVOR does not let REQUEST be."""
    if request is None or flavor is None or flavor.rule != ("forbidden" if request else "required"):
        return None
    text = (
        _("the request is for post-copy, but %(rule)s")
        if request
        else _("the request is against post-copy, but %(rule)s")
    )
    found: str = text % {"rule": flavor.text}
    return found
