# SPDX-License-Identifier: Apache-2.0
"""The tab Live Migration, and what it asks while it is open."""

from __future__ import annotations

import json
import re
import types
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.test import override_settings
from django.urls import resolve
from django.utils import translation

from pcmig_dashboard import figures, tabs
from tests.dashboard.conftest import SERVER, Compute

MIB = 1 << 20
RUNNING: dict[str, Any] = {
    "id": 7,
    "status": "running (post-copy)",
    "in_progress": True,
    "source_compute": "pcmig-a",
    "dest_compute": "pcmig-b",
    "memory_total_bytes": 128 * MIB,
    "memory_processed_bytes": 64 * MIB,
    "memory_remaining_bytes": 32 * MIB,
    "progress": {
        "phase": "post-copy",
        "policy": "auto",
        "reason": "the guest writes faster than the link",
        "passes": 3,
        "percent": 47,
        "elapsed_ms": 12345,
        "remaining_bytes": 10.5 * MIB,
        "total_bytes": 128 * MIB,
        "transferred_bytes": 90 * MIB,
        "rate_bytes_per_s": 12 * MIB,
        "dirty_bytes_per_s": None,
        "requests": 1234,
        "eta_ms": None,
        "downtime_ms": 28,
    },
}


def without(progress: Any, **more: Any) -> dict[str, Any]:
    return {**RUNNING, "progress": progress, **more}


def test_figures_of_a_running_migration() -> None:
    panel = figures.panel(RUNNING)
    assert panel["running"] and panel["percent"] == 47 and panel["note"] == ""
    assert panel["headline"] == "Moving from pcmig-a to pcmig-b. Post-copy, 47 %."
    assert panel["spoken"] == "Moving from pcmig-a to pcmig-b. Post-copy, 40 %."
    values = panel["values"]
    assert values["remaining"] == "10.5 MiB"
    assert values["requests"] == "1,234"
    assert values["passes"] == "3"
    assert values["elapsed"] == "12.3 s"
    assert values["downtime"] == "28 ms"
    assert values["eta"] == values["dirty"] == ""
    assert values["status"] == "running (post-copy)"


def test_what_is_read_aloud_changes_seldom() -> None:
    panels = [figures.panel(without({**RUNNING["progress"], "percent": n})) for n in range(101)]
    assert len({panel["spoken"] for panel in panels}) == 11


def test_sentence_and_bar_say_the_same() -> None:
    for n in range(101):
        panel = figures.panel(without({**RUNNING["progress"], "percent": n}))
        assert panel["percent"] == n and panel["headline"].endswith(f", {n} %.")


ASKED: list[Any] = []


def nobody(rules: Any, _request: Any, _target: Any = None) -> bool:
    """Like a function of Horizon's setting POLICY_CHECK_FUNCTION."""
    ASKED.append(rules)
    return False


def everybody(_rules: Any, _request: Any, _target: Any = None) -> bool:
    return True


def test_who_may_not_see_migrations_has_no_tab(request_of: Any) -> None:
    group = types.SimpleNamespace(slug="g", kwargs={"instance": types.SimpleNamespace(id=SERVER)})
    with override_settings(POLICY_CHECK_FUNCTION=f"{__name__}.nobody"):
        tab = tabs.MigrationTab(group, request_of())
        assert not tab._allowed
    assert ASKED[-1:] == [(("compute", "os_compute_api:servers:migrations:show"),)]


def test_without_the_hosts_figures_those_of_the_record() -> None:
    panel = figures.panel(without(None, progress_missing="pcmig-a does not answer"))
    assert panel["running"] and panel["percent"] == 75
    assert "pcmig-a does not answer" in panel["note"]
    assert panel["values"]["remaining"] == "32.0 MiB"
    assert panel["values"]["requests"] == ""


@pytest.mark.parametrize(
    ("migration", "percent", "said"),
    [
        (None, None, "has not been live migrated yet"),
        (without(None, status="completed", in_progress=False), 100, "is completed"),
        (without(None, status="error", in_progress=False), None, "ended: error"),
    ],
)
def test_no_migration_under_way(migration: Any, percent: int | None, said: str) -> None:
    panel = figures.panel(migration)
    assert not panel["running"] and panel["percent"] == percent and said in panel["headline"]


@pytest.mark.parametrize(
    "migration",
    [
        {},
        {"in_progress": True},
        without({}),
        without({"phase": "a new one", "percent": "much", "requests": "many", "remaining_bytes": []}),
        without({**RUNNING["progress"], "percent": 1000}),
        without(None, memory_total_bytes=0, memory_remaining_bytes=0),
    ],
)
def test_whatever_the_api_says_there_is_a_panel(migration: Any) -> None:
    panel = figures.panel(migration)
    assert set(panel["values"]) == {row[0] for row in figures.ROWS}
    assert panel["percent"] is None or 0 <= panel["percent"] <= 100
    json.dumps(panel)


def test_numbers_are_written_as_the_reader_does() -> None:
    with translation.override("de"):
        assert figures.panel(RUNNING)["values"]["requests"] == "1.234"
        assert figures.panel(RUNNING)["values"]["remaining"] == "10,5 MiB"


def shown(request: Any) -> str:
    """The tab as a browser gets it."""
    group = types.SimpleNamespace(slug="g", kwargs={"instance": types.SimpleNamespace(id=SERVER)})
    with override_settings(POLICY_CHECK_FUNCTION=f"{__name__}.everybody"):
        tab = tabs.MigrationTab(group, request)
    return str(render_to_string(tab.template_name, tab.get_context_data(request)))


def test_the_tab_is_accessible_and_complete(compute: Compute, request_of: Any) -> None:
    compute.show(migration=RUNNING)
    html = shown(request_of())
    assert re.search(
        r'role="progressbar"[^>]*aria-labelledby="pcmig_title"[^>]*aria-valuenow="47"', html, re.S
    )
    assert re.search(r'role="status" aria-live="polite" aria-atomic="true" data-pcmig="spoken"', html)
    assert 'id="pcmig_title"' in html
    for key in figures.panel(RUNNING)["values"]:
        assert f'data-pcmig="{key}"' in html
    assert f'data-url="/api/pcmig/servers/{SERVER}/"' in html
    assert '<dd data-pcmig="requests">1,234</dd>' in html


@pytest.mark.parametrize("status", [404, 403, 500])
def test_the_tab_says_what_it_cannot_find_out(compute: Compute, request_of: Any, status: int) -> None:
    compute.fault(f"/v2.1/servers/{SERVER}/os-pcmig", status, "fault", "because <of> this")
    html = shown(request_of())
    assert ("no filter of pcmig" if status == 404 else "because &lt;of&gt; this") in html
    assert re.search(r'data-pcmig="bar" hidden', html)


def test_a_server_that_is_gone_is_no_missing_filter(compute: Compute, request_of: Any) -> None:
    said = f"Instance {SERVER} could not be found."
    compute.fault(f"/v2.1/servers/{SERVER}/os-pcmig", 404, "itemNotFound", said)
    assert said in shown(request_of())


def ask(request: Any) -> Any:
    found = resolve(f"/api/pcmig/servers/{SERVER}/")
    return found.func(request, *found.args, **found.kwargs)


def test_what_the_tab_asks_is_what_it_shows(compute: Compute, request_of: Any) -> None:
    compute.show(migration=RUNNING)
    answer = ask(request_of())
    assert answer.status_code == 200
    assert json.loads(answer.content) == json.loads(json.dumps(figures.panel(RUNNING)))


@pytest.mark.parametrize(
    ("status", "way_back", "offered"),
    [
        ("error", {"may_ask": True, "turned_back": None}, True),
        ("post-copy interrupted at 43 %, waiting for an operator", {"may_ask": True}, True),
        ("error", {"may_ask": False}, False),
        ("error", {"may_ask": True, "turned_back": "2026-11-29"}, False),
        ("running (post-copy)", {"may_ask": True}, False),
        ("error", None, False),
    ],
)
def test_who_is_offered_a_way_back(status: str, way_back: Any, offered: bool) -> None:
    panel = figures.panel({**RUNNING, "status": status}, way_back)
    assert panel["turn_back"] is offered


def test_turning_back_from_the_tab(compute: Compute, request_of: Any) -> None:
    action = f"/v2.1/servers/{SERVER}/action"
    compute.answers[action] = (202, None)

    def post(**said: bool) -> Any:
        request = request_of()
        request.method = "POST"
        request._body = json.dumps(said).encode()
        return ask(request)

    assert post(destination_is_dead=True).status_code == 204
    said = {"destination_is_dead": True, "guest_is_nowhere_else": False}
    assert compute.asked[-1][:3] == ("POST", action, {"os-pcmigTurnBack": said})
    compute.fault(action, 409, "conflictingRequest", "the destination lives")
    refused = post(destination_is_dead=False)
    assert refused.status_code == 409 and b"the destination lives" in refused.content


def test_an_ended_session_is_told(compute: Compute, request_of: Any) -> None:
    compute.fault(f"/v2.1/servers/{SERVER}/os-pcmig", 401, "unauthorized", "who are you")
    assert ask(request_of()).status_code == 401
    request = request_of()
    request.user.is_authenticated = False
    assert ask(request).status_code == 401


def test_other_sites_cannot_ask(compute: Compute, request_of: Any) -> None:
    assert ask(request_of(ajax=False)).status_code == 400
    assert compute.asked == []
