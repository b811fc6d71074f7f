# SPDX-License-Identifier: Apache-2.0
"""The form Live Migrate: what it offers, what it sends, what it says when the API refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.template.loader import render_to_string
from horizon import exceptions
from openstack_dashboard.dashboards.admin.instances import views

from tests.dashboard.conftest import SERVER, Compute

ACTION = f"/v2.1/servers/{SERVER}/action"
INITIAL = {"instance_id": SERVER, "current_host": "a", "hosts": ["a", "b"]}
WISH = {"host": "b", "instance_id": SERVER, "current_host": "a"}


def form(request: Any, data: Any = None) -> Any:
    return views.LiveMigrateView.form_class(request, data=data, initial=dict(INITIAL))


def page(request: Any) -> str:
    """The form as a browser gets it."""
    context = {"form": form(request), "instance_id": SERVER, "hide": True}
    return str(render_to_string("pcmig_dashboard/_live_migrate.html", context))


def tag(html: str, name: str, **attributes: str) -> str:
    """The tag with these attributes."""
    for found in re.findall(rf"<{name}\b[^>]*>", html):
        if all(f'{key}="{value}"' in found for key, value in attributes.items()):
            return str(found)
    raise AssertionError(f"no <{name}> with {attributes} in {html}")


def asked(compute: Compute) -> list[Any]:
    return [(path, body, version) for method, path, body, version in compute.asked if method == "POST"]


def test_the_box_is_labelled_and_described(compute: Compute, request_of: Any) -> None:
    compute.show()
    html = page(request_of())
    box = tag(html, "input", id="id_post_copy")
    assert 'type="checkbox"' in box and "disabled" not in box and "checked" not in box
    assert 'aria-describedby="id_post_copy_note"' in box
    tag(html, "label", **{"for": "id_post_copy"})
    tag(html, "p", id="id_post_copy_note")
    assert "even a busy guest arrives" in html
    # Horizon's own fields are all there.
    for field in ("id_current_host", "id_disk_over_commit", "id_block_migration"):
        tag(html, "input", id=field)
    tag(html, "select", id="id_host")


@pytest.mark.parametrize(
    ("post_copy", "said", "ticked"),
    [
        (
            {"may_ask": True, "forbidden": "the flavor's extra spec says so"},
            "Not possible: the flavor",
            False,
        ),
        ({"may_ask": True, "required": "the image's property says so"}, "Always used here: the image", True),
        ({"may_ask": False}, "your roles do not let you", False),
        ({}, "your roles do not let you", False),
    ],
    ids=["forbidden", "required", "no right", "empty"],
)
def test_the_box_is_closed_with_the_reason(
    compute: Compute, request_of: Any, post_copy: Any, said: str, ticked: bool
) -> None:
    compute.show(post_copy=post_copy)
    html = page(request_of()).replace("&#x27;", "'")
    box = tag(html, "input", id="id_post_copy")
    assert "disabled" in box
    assert ("checked" in box) is ticked
    assert said in html


def test_without_the_filter_the_box_says_so(compute: Compute, request_of: Any) -> None:
    html = page(request_of())
    assert "disabled" in tag(html, "input", id="id_post_copy")
    assert "no filter of pcmig" in html


@pytest.mark.parametrize(
    ("status", "name", "message"),
    [
        (403, "forbidden", "Policy does not allow it"),
        (500, "computeFault", "something broke"),
        (503, "computeFault", "come back later"),
    ],
)
def test_what_hinders_closes_the_box_and_not_the_form(
    compute: Compute, request_of: Any, status: int, name: str, message: str
) -> None:
    compute.fault(f"/v2.1/servers/{SERVER}/os-pcmig", status, name, message)
    html = page(request_of())
    assert "disabled" in tag(html, "input", id="id_post_copy")
    assert message in html


def test_an_answer_of_somebody_else(compute: Compute, request_of: Any) -> None:
    answers: list[Any] = [["pcmig"], {"pcmig": None}, {"server": {}}]
    for answer in answers:
        compute.answers[f"/v2.1/servers/{SERVER}/os-pcmig"] = (200, answer)
        assert "no filter of pcmig" in page(request_of())


def test_an_ended_session_is_not_hidden(compute: Compute, request_of: Any) -> None:
    compute.fault(f"/v2.1/servers/{SERVER}/os-pcmig", 401, "unauthorized", "who are you")
    with pytest.raises(exceptions.UNAUTHORIZED):
        form(request_of())


@pytest.mark.parametrize(
    ("wish", "host", "block"),
    [({}, "b", False), ({"host": "AUTO_SCHEDULE"}, None, False), ({"block_migration": "on"}, "b", True)],
    ids=["host", "any host", "block"],
)
def test_a_tick_is_sent(
    compute: Compute, request_of: Any, wish: dict[str, str], host: str | None, block: bool
) -> None:
    compute.show()
    compute.answers[ACTION] = (202, None)
    request = request_of("post")
    sent = form(request, {**WISH, "post_copy": "on", **wish})
    assert sent.is_valid(), sent.errors
    assert sent.handle(request, sent.cleaned_data) is True
    action = {"host": host, "block_migration": block, "post_copy": True}
    assert asked(compute) == [(ACTION, {"os-migrateLive": action}, "compute 2.30")]
    ((level, message, _),) = request.horizon["async_messages"]
    assert level == "info" and "with post-copy" in message


def test_a_tick_counts_even_if_the_api_was_silent_before(compute: Compute, request_of: Any) -> None:
    compute.answers[ACTION] = (202, None)
    request = request_of("post")
    sent = form(request, {**WISH, "post_copy": "on"})
    assert sent.is_valid() and sent.handle(request, sent.cleaned_data) is True
    assert asked(compute)[0][1]["os-migrateLive"]["post_copy"] is True


@pytest.mark.parametrize("post_copy", [{"may_ask": True}, {"may_ask": True, "required": "the flavor"}])
def test_without_a_tick_horizon_does_what_it_always_does(
    compute: Compute, request_of: Any, monkeypatch: pytest.MonkeyPatch, post_copy: Any
) -> None:
    """Also where post-copy is required: that needs no asking, and not the right to ask."""
    compute.show(post_copy=post_copy)
    calls: list[Any] = []
    monkeypatch.setattr(
        "openstack_dashboard.api.nova.server_live_migrate", lambda *args, **more: calls.append((args, more))
    )
    request = request_of("post")
    sent = form(request, WISH)
    assert sent.is_valid()
    assert sent.handle(request, sent.cleaned_data) is True
    assert calls == [((request, SERVER, "b"), {"block_migration": False, "disk_over_commit": False})]
    assert asked(compute) == []


@pytest.mark.parametrize(
    ("status", "name"),
    [(409, "conflictingRequest"), (403, "forbidden"), (400, "badRequest"), (404, "itemNotFound")],
)
def test_the_apis_reason_is_the_message(compute: Compute, request_of: Any, status: int, name: str) -> None:
    compute.show()
    compute.fault(ACTION, status, name, "the flavor says <never>")
    request = request_of("post")
    sent = form(request, {**WISH, "post_copy": "on"})
    assert sent.is_valid()
    with pytest.raises(exceptions.Http302):  # back to the list of instances
        sent.handle(request, sent.cleaned_data)
    ((level, message, tags),) = request.horizon["async_messages"]
    assert level == "error"
    assert message == 'Failed to live migrate instance to host "b" with post-copy: the flavor says <never>'
    assert "safe" not in tags  # Horizon escapes it
