# SPDX-License-Identifier: Apache-2.0
"""One guest, one migration: who has a say, and what comes out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig.guest import Obstacle
from pcmig_common.choice import (
    RULES,
    Choice,
    ImageMode,
    RequestError,
    Rule,
    bounds,
    decide,
    image_properties,
    mistake,
    wish,
)

VFIO = Obstacle(
    "<hostdev type='pci'> 0000:b1:00.2", "QEMU does not combine post-copy with VFIO", "detach it", True
)
DOUBT = Obstacle(
    "<interface type='vhostuser'>", "the switch must be able to fetch missing pages", "set it", False
)
IMAGE_MODES: tuple[ImageMode, ...] = ("honour", "hint", "ignore")
FLAVOR = "the flavor's extra spec pcmig:post_copy"
IMAGE = "the image's property pcmig_post_copy"
NOT_PERMITTED = "set [libvirt] live_migration_permit_post_copy = true there"


def asked(
    request: bool | None = None,
    flavor: str | None = None,
    image: str | None = None,
    default: Rule = "allowed",
    *obstacles: Obstacle,
    mode: ImageMode = "hint",
    permitted: bool = True,
    paused: bool = False,
) -> Choice:
    return decide(
        request,
        {"hw:cpu_policy": "shared"} | ({} if flavor is None else {"pcmig:post_copy": flavor}),
        {"os_distro": "debian"} | ({} if image is None else {"pcmig_post_copy": image}),
        default,
        obstacles,
        image_mode=mode,
        permitted=permitted,
        paused=paused,
    )


def post_copy(said: str) -> Choice:
    """One that has to be post-copy."""
    return Choice(True, f"post-copy: {said}", demanded=True)


def refusal(reason: str) -> Choice:
    return Choice(False, f"refused: {reason}", reason)


def test_nobody_says_anything() -> None:
    assert asked() == Choice(True, "post-copy: [pcmig] default_choice is allowed")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (asked(default="forbidden"), Choice(False, "no post-copy: [pcmig] default_choice is forbidden")),
        (asked(default="required"), post_copy("[pcmig] default_choice is required")),
        # A guest's rule is stronger than the default, in both directions.
        (asked(None, "allowed", default="forbidden"), Choice(True, f"post-copy: {FLAVOR} is allowed")),
        (asked(None, None, "allowed", "forbidden"), Choice(True, f"post-copy: {IMAGE} is allowed")),
        (asked(None, "forbidden", default="required"), Choice(False, f"no post-copy: {FLAVOR} is forbidden")),
        # Between flavor and image, allowed gives way.
        (asked(None, "allowed", "forbidden"), Choice(False, f"no post-copy: {IMAGE} is forbidden")),
        (asked(None, "forbidden", "allowed"), Choice(False, f"no post-copy: {FLAVOR} is forbidden")),
        (asked(None, "required", "allowed"), post_copy(f"{FLAVOR} is required")),
        (asked(None, "allowed", "required"), Choice(True, f"post-copy: {IMAGE} is required")),
        (asked(None, "required", "required"), post_copy(f"{FLAVOR} is required")),
        (asked(None, "allowed", "required", mode="honour"), post_copy(f"{IMAGE} is required")),
        (asked(None, None, "forbidden", "required"), Choice(False, f"no post-copy: {IMAGE} is forbidden")),
        # What the operator demands is no less a demand for a hint that says the same.
        (asked(None, None, "required", "required"), post_copy("[pcmig] default_choice is required")),
        (asked(None, None, "required", "forbidden"), Choice(True, f"post-copy: {IMAGE} is required")),
        # A request is stronger than the default, the image and "allowed", and weaker than the flavor's rule.
        (asked(True, default="forbidden"), post_copy("the request asks for post-copy")),
        (asked(False, default="required"), Choice(False, "no post-copy: the request asks against it")),
        (asked(False, "allowed"), Choice(False, "no post-copy: the request asks against it")),
        (asked(True, "required"), post_copy(f"{FLAVOR} is required")),
        (asked(False, "forbidden"), Choice(False, f"no post-copy: {FLAVOR} is forbidden")),
        (asked(True, "forbidden"), refusal(f"the request is for post-copy, but {FLAVOR} is forbidden")),
        (
            asked(False, "required"),
            refusal(f"the request is against post-copy, but {FLAVOR} is required"),
        ),
        (asked(True, None, "forbidden"), post_copy("the request asks for post-copy")),
        (asked(False, None, "required"), Choice(False, "no post-copy: the request asks against it")),
        (
            asked(False, None, "required", mode="honour"),
            Choice(False, "no post-copy: the request asks against it"),
        ),
        (asked(True, "required", "forbidden", mode="honour"), post_copy(f"{FLAVOR} is required")),
    ],
)
def test_who_has_a_say(choice: Choice, expected: Choice) -> None:
    assert choice == expected


CONFLICTS = [
    (
        ("forbidden", "required"),
        f"{FLAVOR} is forbidden and {IMAGE} is required: they contradict each other, so change one",
    ),
    (
        ("required", "forbidden"),
        f"{FLAVOR} is required and {IMAGE} is forbidden: they contradict each other, so change one",
    ),
]


@pytest.mark.parametrize(("values", "text"), CONFLICTS)
def test_flavor_and_image_contradict_each_other(values: tuple[str, str], text: str) -> None:
    flavor, image = values
    assert mistake({"pcmig:post_copy": flavor}, {"pcmig_post_copy": image}) == text
    assert asked(None, flavor, image, mode="honour") == refusal(text)
    hint = asked(None, flavor, image)
    assert hint.warnings == (f"{text}: the flavor counts",)
    assert hint.refused is None and hint.post_copy is (flavor == "required")
    assert asked(None, flavor, image, mode="ignore") == asked(None, flavor)


WRONG = ["yes", "", "Required", " allowed", "forbidden,allowed", "x" * 255]


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_rule_of_a_flavor_is_refused_with_its_place(value: str) -> None:
    shown = value if len(value) < 100 else "x" * 40 + "..."
    text = f"{FLAVOR} = {shown!r} is none of forbidden, allowed, required"
    assert asked(None, value).refused == asked(True, value).refused == text
    assert mistake({"pcmig:post_copy": value}, {}) == text
    assert bounds({"pcmig:post_copy": value}).forbidden == text


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_rule_of_an_image(value: str) -> None:
    shown = value if len(value) < 100 else "x" * 40 + "..."
    text = f"{IMAGE} = {shown!r} is none of forbidden, allowed, required"
    assert mistake({}, {"pcmig_post_copy": value}) == text
    assert asked(None, None, value, mode="honour").refused == text
    assert asked(None, None, value, mode="ignore") == asked()
    hint = asked(None, None, value)
    assert (hint.post_copy, hint.refused, hint.warnings) == (True, None, (f"{text}: it counts as allowed",))
    assert hint.reason == f"post-copy: {IMAGE} is allowed"


@pytest.mark.parametrize("obstacles", [(), (VFIO,)])
@pytest.mark.parametrize("permitted", [True, False])
@pytest.mark.parametrize("image", [None, *RULES, *WRONG])
@pytest.mark.parametrize("flavor", [None, *RULES])
@pytest.mark.parametrize("request_", [None, True, False])
def test_an_image_never_makes_a_migration_fail(
    request_: bool | None,
    flavor: str | None,
    image: str | None,
    permitted: bool,
    obstacles: tuple[Obstacle, ...],
) -> None:
    """Whatever its owner has set: with a hint the same is refused as without the image."""

    def found(image: str | None, mode: ImageMode) -> Choice:
        return asked(request_, flavor, image, "allowed", *obstacles, mode=mode, permitted=permitted)

    assert found(image, "hint").refused == found(None, "hint").refused
    for mode in IMAGE_MODES:
        if request_ is not None or mode == "ignore":
            assert found(image, mode) == found(None, mode)


def test_a_host_without_post_copy() -> None:
    assert asked(permitted=False) == Choice(
        False, "no post-copy: [libvirt] live_migration_permit_post_copy is not set on this host"
    )
    assert asked(None, "required", permitted=False).refused == (
        f"{FLAVOR} is required, but this host does not permit post-copy: {NOT_PERMITTED}"
    )
    assert asked(True, permitted=False).refused == (
        f"the request asks for post-copy, but this host does not permit post-copy: {NOT_PERMITTED}"
    )
    assert asked(None, "forbidden", permitted=False).refused is None


def test_a_guest_that_cannot() -> None:
    found = f"{VFIO.element}: {VFIO.reason}"
    assert asked(None, None, None, "allowed", VFIO) == Choice(False, f"no post-copy: {found}")
    # The devices are the host's: the server's owner is not told which.
    assert asked(None, "required", None, "allowed", DOUBT, VFIO) == Choice(
        False,
        f"refused: {FLAVOR} is required, but this guest cannot: {found}",
        f"{FLAVOR} is required, but the server has devices that do not go with it",
    )
    assert asked(True, None, None, "allowed", VFIO).refused == (
        "the request asks for post-copy, but the server has devices that do not go with it"
    )
    assert asked(None, None, "required", "allowed", VFIO) == Choice(False, f"no post-copy: {found}")
    assert asked(None, "forbidden", None, "allowed", VFIO).reason == f"no post-copy: {FLAVOR} is forbidden"


def test_a_doubt_is_told_and_does_not_decide() -> None:
    assert asked(None, None, None, "allowed", DOUBT) == Choice(
        True, f"post-copy: [pcmig] default_choice is allowed; {DOUBT.element}: {DOUBT.reason}"
    )


def test_a_paused_guest_moves_without() -> None:
    expected = Choice(False, "no post-copy: the guest is paused, its memory does not change")
    for request, flavor in itertools.product((None, True), (None, "allowed", "required")):
        assert asked(request, flavor, paused=True) == expected
    assert asked(True, "forbidden", paused=True).refused is not None


VALUES = st.one_of(st.none(), st.sampled_from([*RULES, "yes", ""]))


@given(
    st.sampled_from([None, True, False]),
    VALUES,
    VALUES,
    st.sampled_from(RULES),
    st.lists(st.sampled_from([VFIO, DOUBT]), max_size=2),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["honour", "hint", "ignore"]),
)
def test_what_always_holds(
    request: bool | None,
    flavor: str | None,
    image: str | None,
    default: Rule,
    obstacles: list[Obstacle],
    permitted: bool,
    paused: bool,
    mode: ImageMode,
) -> None:
    choice = asked(request, flavor, image, default, *obstacles, mode=mode, permitted=permitted, paused=paused)
    if choice.post_copy:
        assert choice.refused is None
        assert permitted
        assert not paused
        assert VFIO not in obstacles
        assert request is not False
        assert flavor != "forbidden"
        assert image != "forbidden" or request or flavor == "required" or mode == "ignore"
    if choice.refused is not None:
        # Only a demand, or what cannot be understood, refuses a migration; with a hint never the image's.
        demands = {flavor, image if mode == "honour" and request is None else None}
        assert demands - {None, "allowed", "forbidden"} or request is True or default == "required"
        assert len(choice.refused) <= 220  # a server's fault holds 255, Nova's own words before it included
    elif flavor == "required" and not paused:
        assert choice.post_copy and choice.demanded
    assert "\n" not in choice.reason
    assert choice.reason.startswith(
        "refused: " if choice.refused else "post-copy: " if choice.post_copy else "no post-copy: "
    )


def test_properties_of_the_image() -> None:
    assert image_properties(
        {
            "image_pcmig_post_copy": "forbidden",
            "image_min_ram": 0,
            "image_hw_machine_type": None,
            "boot_roles": "admin",
        }
    ) == {"pcmig_post_copy": "forbidden", "min_ram": "0"}


def test_whose_wish_counts() -> None:
    metadata = {"pcmig:post_copy": "False", "other": "x"}
    assert wish((), api=True, metadata=metadata) is None
    assert wish(("api",), api=True, metadata=metadata) is True
    assert wish(("api",), metadata=metadata) is None
    assert wish(("api", "metadata"), metadata=metadata) is False
    assert wish(("metadata", "api"), api=True, metadata=metadata) is False
    assert wish(("metadata", "api"), api=True, metadata={}) is True
    assert wish(("metadata",)) is None


def test_metadata_that_is_no_wish() -> None:
    bad = {"pcmig:post_copy": "perhaps"}
    with pytest.raises(
        RequestError, match="server metadata pcmig:post_copy = 'perhaps' is neither true nor false"
    ):
        wish(("metadata",), metadata=bad)
    assert wish(("api",), metadata=bad) is None
