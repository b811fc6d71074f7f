# SPDX-License-Identifier: Apache-2.0
"""Horizon as its users have it: a browser asks for post-copy in the form, and watches the guest move.

PCMIG_SCREENSHOTS=FOLDER saves what the browser shows, as doc/operate/dashboard.rst has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.bed.guest import GuestSpec
from tests.cloud.api import PASSWORD
from tests.cloud.cloud import Cloud
from tests.cloud.conftest import RATE_MBIT
from tests.cloud.dashboard import URL, Dashboard
from tests.cloud.server import Server
from tests.cloud.test_api import Events
from tests.cloud.test_driver import POST_COPY, Move, other

pytestmark = pytest.mark.timeout(420)

PATIENCE_S = 40
READ = """
    const panel = document.querySelector('.pcmig-migration');
    const text = key => panel.querySelector(`[data-pcmig="${key}"]`).textContent;
    const bar = panel.querySelector('[role="progressbar"]');
    return [text('phase'), text('remaining'), text('requests'), bar.getAttribute('aria-valuenow')];
"""
SLOW_MBIT = 40  # while the panel is watched: some 20 seconds of pre-copy, and some of post-copy
# At full speed pre-copy moves it in a few passes; slowed down, it writes faster than the link.
GUEST = GuestSpec(name="web", memory_mib=112, worker_mib=32, write_pps=3000, verify_pps=5000)
FORBIDDEN = GuestSpec(name="realtime", memory_mib=112, worker_mib=32, write_pps=20)


@pytest.fixture(scope="module")
def cloud(asking_cloud: Cloud) -> Cloud:
    return asking_cloud


@pytest.fixture(scope="module")
def dashboard(cloud: Cloud) -> Dashboard:
    return cloud.start_dashboard()


@pytest.fixture(scope="module")
def guest(cloud: Cloud) -> Server:
    return cloud.boot(GUEST)


@pytest.fixture(scope="module")
def browser(dashboard: Dashboard) -> Iterator[webdriver.Remote]:
    """Logged in as the admin."""
    with dashboard.browser() as browser:
        browser.get(f"{URL}/auth/login/")
        find(browser, "#id_username").send_keys("admin")
        find(browser, "#id_password").send_keys(PASSWORD)
        find(browser, "#loginBtn").click()
        find(browser, ".user-menu .user-name")
        yield browser


def find(browser: webdriver.Remote, css: str, patience_s: float = PATIENCE_S) -> WebElement:
    """The first element of that kind that is to be seen."""

    def seen(browser: webdriver.Remote) -> WebElement | None:
        return next((e for e in browser.find_elements(By.CSS_SELECTOR, css) if e.is_displayed()), None)

    patience = WebDriverWait(browser, patience_s, ignored_exceptions=(StaleElementReferenceException,))
    found = patience.until(seen, f"{css} is not shown")
    assert isinstance(found, WebElement)
    return found


def screenshot(browser: webdriver.Remote, css: str, name: str) -> None:
    folder = os.environ.get("PCMIG_SCREENSHOTS")
    if folder:
        time.sleep(0.5)  # Horizon fades its forms in
        find(browser, css).screenshot(str(pathlib.Path(folder) / f"{name}.png"))


def open_form(browser: webdriver.Remote, server: Server) -> WebElement:
    """The form as the list of instances opens it; returns the box."""
    browser.get(f"{URL}/admin/instances/")
    row = find(browser, f"tr[data-object-id='{server.id}']")
    row.find_element(By.CSS_SELECTOR, "[data-toggle='dropdown']").click()
    link = row.find_element(By.CSS_SELECTOR, f"a[href*='{server.id}/live_migrate']")
    link.click()
    find(browser, "#live_migrate_form")
    return browser.find_element(By.ID, "id_post_copy")


def choose_host(browser: webdriver.Remote, name: str) -> None:
    """In Horizon's own kind of a select."""
    find(browser, "#live_migrate_form .themable-select button").click()
    find(browser, f"#live_migrate_form [data-select-value='{name}']").click()
    # Instances have folders of their own here, and Horizon does not leave it to Nova to find that out.
    browser.find_element(By.CSS_SELECTOR, "label[for='id_block_migration']").click()


def note(browser: webdriver.Remote, box: WebElement) -> str:
    """What the page gives as the description of the box."""
    return browser.find_element(By.ID, str(box.get_attribute("aria-describedby"))).text


def panel(browser: webdriver.Remote, key: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, f".pcmig-migration [data-pcmig='{key}']").text


def number(text: str) -> float | None:
    match = re.match(r"[0-9.,]+", text)
    return float(match[0].replace(",", "")) if match else None


def test_a_flavor_that_forbids_disables_the_box(cloud: Cloud, browser: webdriver.Remote) -> None:
    server = cloud.boot(FORBIDDEN, flavor_specs={"pcmig:post_copy": "forbidden"}, wait=False)
    try:
        server.wait_status("ACTIVE")
        box = open_form(browser, server)
        assert not box.is_enabled() and not box.is_selected()
        assert "pcmig:post_copy is forbidden" in note(browser, box)
        screenshot(browser, ".modal-content", "dashboard-forbidden")
    finally:
        cloud.delete(server)


def test_asked_for_in_the_form_and_watched(cloud: Cloud, browser: webdriver.Remote, guest: Server) -> None:
    source = str(guest.nova_host)
    target = other(source)
    box = open_form(browser, guest)
    label = browser.find_element(By.CSS_SELECTOR, "label[for='id_post_copy']")
    assert label.text.strip() == "Post-copy"
    assert box.is_enabled() and not box.is_selected()
    assert "fetches its memory" in note(browser, box)
    label.click()
    assert box.is_selected()
    choose_host(browser, f"pcmig-{target}")
    screenshot(browser, ".modal-content", "dashboard-form")
    with slow(cloud), Events(cloud, source) as events:
        move = Move(cloud, guest)
        find(browser, "#live_migrate_form [type='submit']").click()
        assert "with post-copy" in find(browser, ".messages .alert").text
        browser.get(f"{URL}/admin/instances/{guest.id}/detail?tab=instance_details__pcmig")
        find(browser, ".pcmig-migration")
        seen = watch(browser, move)
        move.end()
    move.check_moved(target)
    assert POST_COPY in move.statuses
    assert "Suspended Post-copy" in events.of(guest.domain)
    phases = [look.phase for look in seen]
    assert "Pre-copy" in phases and "Post-copy" in phases, seen
    for phase in ("Pre-copy", "Post-copy"):
        looks = [look for look in seen if look.phase == phase]
        assert max(look.percent for look in looks) > looks[0].percent, looks
        assert min(look.remaining for look in looks) < looks[0].remaining, looks
    requests = [look.requests for look in seen]
    assert requests == sorted(requests) and requests[0] == 0, seen
    assert len(set(requests)) > 2, seen  # none, then some, then more
    WebDriverWait(browser, PATIENCE_S).until(lambda _: "is completed" in panel(browser, "headline"))


def test_not_asked_for(cloud: Cloud, browser: webdriver.Remote, guest: Server) -> None:
    """The same form without the tick is Horizon's own: here nobody else asks for post-copy."""
    source = str(guest.nova_host)
    box = open_form(browser, guest)
    assert box.is_enabled() and not box.is_selected()
    choose_host(browser, f"pcmig-{other(source)}")
    with Events(cloud, source) as events:
        move = Move(cloud, guest)
        find(browser, "#live_migrate_form [type='submit']").click()
        assert "with post-copy" not in find(browser, ".messages .alert").text
        move.end()
    move.check_moved(other(source))
    assert POST_COPY not in move.statuses
    assert "Suspended Post-copy" not in events.of(guest.domain)


@contextlib.contextmanager
def slow(cloud: Cloud) -> Iterator[None]:
    cloud.network.limit(SLOW_MBIT)
    try:
        yield
    finally:
        cloud.network.limit(RATE_MBIT)


@dataclasses.dataclass(frozen=True)
class Look:
    """One look at the panel."""

    phase: str
    remaining: float  # MiB
    requests: float
    percent: float


def watch(browser: webdriver.Remote, move: Move) -> list[Look]:
    """What the panel showed, without ever being loaded again, until the migration had ended."""
    seen: list[Look] = []
    pictured = False
    deadline_s = time.monotonic() + 120
    while move.look() not in ("completed", "error", "failed", "cancelled") and time.monotonic() < deadline_s:
        # In one go, or the page may change between two of its figures.
        phase, remaining, requests, percent = browser.execute_script(READ)
        if number(remaining) is not None and number(requests) is not None:
            look = Look(phase, number(remaining) or 0, number(requests) or 0, float(percent))
            if seen[-1:] != [look]:
                seen.append(look)
            if not pictured and phase == "Post-copy" and look.requests and look.percent > 50:
                screenshot(browser, "#content_body", "dashboard-panel")
                pictured = True
        time.sleep(0.2)
    return seen
