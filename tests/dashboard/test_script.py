# SPDX-License-Identifier: Apache-2.0
"""The tab's script in a real browser, with a page around it that has what the script needs of Horizon."""

from __future__ import annotations

import http.server
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from pcmig_dashboard import figures, tabs
from tests.dashboard.test_migration import RUNNING

CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
INTERVAL_MS = 50
# Horizon calls its init functions when the page is there, and a tab's when it was loaded.
SHIM = """
    const inits = [], loads = [];
    window.horizon = {addInitFunction: f => inits.push(f), tabs: {addTabLoadFunction: f => loads.push(f)}};
    document.addEventListener('DOMContentLoaded', () => inits.forEach(f => f()));
    window.loadTab = html => { const tab = document.getElementById('tab');
        tab.innerHTML = html; loads.forEach(f => f([tab])); };
"""


class Site:
    """Answers "/" with a page, "/figures" with what a test says."""

    def __init__(self) -> None:
        self.page = ""
        self.answer: tuple[int, Any] = (200, figures.panel(RUNNING))
        self.asked = 0
        self.posted: list[Any] = []
        self.refusal: tuple[int, str] = (409, "the destination does not answer")
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, data = 404, "text/plain", b""
                if self.path == "/":
                    status, kind, data = 200, "text/html; charset=utf-8", site.page.encode()
                elif self.path == "/figures" and self.headers["X-Requested-With"] == "XMLHttpRequest":
                    site.asked += 1
                    status, kind, data = (
                        site.answer[0],
                        "application/json",
                        json.dumps(site.answer[1]).encode(),
                    )
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                site.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, said = site.refusal
                data = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options, Service(CHROMEDRIVER))
    yield browser
    browser.quit()


def tab(panel: dict[str, Any]) -> str:
    return str(
        render_to_string(
            "pcmig_dashboard/migration.html",
            {
                "panel": panel,
                "rows": [(key, label, panel["values"][key]) for key, label in figures.labels()],
                "url": "/figures",
                "interval_ms": INTERVAL_MS,
                "title": "Live Migration",
                "turn_back": "Turn Back",
                "turn_back_words": tabs.turn_back_words(),
                "turn_back_confirm": "Sure?",
                "lost": "no answer",
                "expired": "log in",
            },
        )
    )


def show(browser: webdriver.Chrome, site: Site, panel: dict[str, Any], loaded: bool = True) -> None:
    """The panel in the page from the start, or loaded into it later as tabs are."""
    path = finders.find("pcmig_dashboard/migration.js")
    script = pathlib.Path(str(path)).read_text()
    first = "" if loaded else tab(panel)
    site.page = f"<body><div id='tab'>{first}</div><script>{SHIM}</script><script>{script}</script></body>"
    browser.get(site.url)
    if loaded:
        browser.execute_script("loadTab(arguments[0])", tab(panel))


def text(browser: webdriver.Chrome, key: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, f"[data-pcmig='{key}']").text


def wait(browser: webdriver.Chrome, key: str, said: str) -> None:
    WebDriverWait(browser, 10, 0.05).until(lambda _: said in text(browser, key), f"{key}: {said}")


def at(requests: int, percent: int = 47) -> dict[str, Any]:
    return figures.panel(
        {**RUNNING, "progress": {**RUNNING["progress"], "requests": requests, "percent": percent}}
    )


@pytest.mark.parametrize("loaded", [True, False], ids=["tab", "page"])
def test_figures_follow(browser: webdriver.Chrome, site: Site, loaded: bool) -> None:
    site.answer = (200, at(1))
    show(browser, site, figures.panel(RUNNING), loaded)
    for requests, percent in ((5, 51), (2000, 98)):
        site.answer = (200, at(requests, percent))
        wait(browser, "requests", f"{requests:,}")
        bar = browser.find_element(By.CSS_SELECTOR, "[role='progressbar']")
        assert bar.get_attribute("aria-valuenow") == str(percent)
        assert bar.text == f"{percent} %"
    done = {**RUNNING, "status": "completed", "in_progress": False, "progress": None}
    site.answer = (200, figures.panel(done))
    wait(browser, "headline", "is completed")
    # What is not known any more is not shown any more.
    assert not browser.find_element(By.CSS_SELECTOR, "[data-pcmig='requests']").is_displayed()
    assert browser.find_element(By.CSS_SELECTOR, "[data-pcmig='source']").is_displayed()


def test_a_migration_that_begins_is_noticed(browser: webdriver.Chrome, site: Site) -> None:
    site.answer = (200, figures.panel(None))
    show(browser, site, figures.panel(None))
    assert not browser.find_element(By.CSS_SELECTOR, "[role='progressbar']").is_displayed()
    site.answer = (200, at(3))
    wait(browser, "requests", "3")
    assert browser.find_element(By.CSS_SELECTOR, "[role='progressbar']").is_displayed()


def test_a_live_region_is_written_only_when_it_changes(browser: webdriver.Chrome, site: Site) -> None:
    site.answer = (200, at(1))
    show(browser, site, at(1))
    browser.execute_script(
        "window.written = 0; new MutationObserver(() => { window.written += 1; }).observe("
        "document.querySelector('[aria-live]'), {childList: true, characterData: true, subtree: true});"
    )
    site.answer = (200, at(9))
    wait(browser, "requests", "9")
    assert browser.execute_script("return window.written") == 0
    site.answer = (200, at(10, 62))
    wait(browser, "headline", "62 %")
    assert browser.execute_script("return window.written") == 1


def test_horizon_is_away_for_a_while(browser: webdriver.Chrome, site: Site) -> None:
    site.answer = (500, "broken")
    show(browser, site, at(1))
    wait(browser, "note", "no answer")
    site.answer = (200, at(7))
    wait(browser, "requests", "7")
    assert text(browser, "note") == ""


def test_after_the_session_nobody_asks_any_more(browser: webdriver.Chrome, site: Site) -> None:
    site.answer = (401, "not logged in")
    show(browser, site, at(1))
    wait(browser, "note", "log in")
    asked = site.asked
    browser.execute_async_script(f"setTimeout(arguments[0], {10 * INTERVAL_MS})")
    assert site.asked == asked


def test_a_tab_that_is_not_to_be_seen_does_not_ask(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site, at(1))
    wait(browser, "requests", "1,234")
    browser.execute_script("document.getElementById('tab').style.display = 'none'")
    browser.execute_async_script(f"setTimeout(arguments[0], {3 * INTERVAL_MS})")
    asked = site.asked
    browser.execute_async_script(f"setTimeout(arguments[0], {10 * INTERVAL_MS})")
    assert site.asked == asked
    browser.execute_script("document.getElementById('tab').style.display = ''")
    WebDriverWait(browser, 10, 0.05).until(lambda _: site.asked > asked)


def test_the_button_asks_and_the_api_judges(browser: webdriver.Chrome, site: Site) -> None:
    broken = {**RUNNING, "status": "error", "in_progress": False}
    panel = figures.panel(broken, {"may_ask": True, "turned_back": None})
    site.answer = (200, panel)
    show(browser, site, panel)
    part = browser.find_element(By.CSS_SELECTOR, "[data-pcmig='turn-back']")
    part.find_element(By.TAG_NAME, "button").click()
    browser.switch_to.alert.dismiss()
    assert site.posted == []
    part.find_element(By.NAME, "destination_is_dead").click()
    part.find_element(By.TAG_NAME, "button").click()
    browser.switch_to.alert.accept()
    wait(browser, "note", "the destination does not answer")
    assert site.posted == [{"destination_is_dead": True, "guest_is_nowhere_else": False}]
    site.answer = (200, figures.panel(broken, {"may_ask": True, "turned_back": "2026-11-29"}))
    wait(browser, "note", "goes on from before")
    assert not part.is_displayed()
