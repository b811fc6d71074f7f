# SPDX-License-Identifier: Apache-2.0
"""Horizon with pcmig's plugin, on the control node, and a Chromium there that looks at it.

Only where a test asks for it (Cloud.start_dashboard): installed as an operator would, into a view of
Horizon's environment that the control node alone has.
"""

from __future__ import annotations

import contextlib
import http.client
import pathlib
import secrets
from collections.abc import Iterator

from selenium import webdriver
from selenium.common.exceptions import WebDriverException

from tests.bed.errors import BedError
from tests.bed.layer import Reporter
from tests.bed.procs import run
from tests.cloud import install
from tests.cloud.api import url as api_url
from tests.cloud.control import ControlNode
from tests.cloud.controlplane import SERVE, environment
from tests.cloud.network import CONTROL, network_of, socket_in
from tests.cloud.service import RUN, Service, outside

PORT = 8080
URL = f"http://{CONTROL}:{PORT}"
PATIENCE_S = 120.0
DRIVER_PORT = 9515
CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
SITE = "dashboard_site:application"
THREADS = 6


def local_settings() -> str:
    """What an operator writes into Horizon's local_settings.py."""
    settings: dict[str, object] = {
        "ALLOWED_HOSTS": [CONTROL],
        "SECRET_KEY": secrets.token_hex(16),
        "OPENSTACK_KEYSTONE_URL": api_url("identity"),
        "CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        "STATIC_ROOT": f"{RUN}/horizon",
        "COMPRESS_OFFLINE": True,
        "TIME_ZONE": "UTC",
        "PCMIG_REFRESH_S": 1,
    }
    return "".join(f"{name} = {value!r}\n" for name, value in settings.items())


class Dashboard:
    """Horizon at URL; `with dashboard.browser() as browser:` has a Chromium in the control node's network."""

    def __init__(self, node: ControlNode, reporter: Reporter) -> None:
        self.node = node
        self.reporter = reporter
        self._services: list[Service] = []

    def start(self) -> Dashboard:
        for program in (CHROMIUM, CHROMEDRIVER):
            if not pathlib.Path(program).exists():
                raise BedError(f"{program} is not installed (run: tools/bootstrap cloud)")
        folder = install.ensure_horizon(self.reporter)
        wheels = install.ensure_wheels(install.ON_HORIZON, folder, self.reporter)
        venv = folder / "venv"
        install.install_wheels(self.node, venv, wheels, "horizon-venv")
        python = f"{venv}/bin/python"
        self._inside(["sh", "-ec", f"$({python} -m pcmig_dashboard)"], "enabling pcmig's plugin")
        settings = outside(self.node) / "local_settings.py"
        settings.write_text(local_settings())
        local = next(venv.glob("lib/*/site-packages/openstack_dashboard/local"))
        self._inside(["cp", f"{RUN}/{settings.name}", str(local)], "Horizon's settings")
        env = {**environment(venv), "DJANGO_SETTINGS_MODULE": "openstack_dashboard.settings"}
        compress = Service("horizon-compress", self.node, [python, "-m", "django", "compress"], env).start()
        assert compress.process is not None
        if compress.process.wait(PATIENCE_S):
            raise compress.failure(f"ended with {compress.process.returncode}")
        argv = [python, str(SERVE), SITE, CONTROL, str(PORT), "horizon", str(THREADS)]
        horizon = Service("horizon", self.node, argv, env).start()
        driver = Service(
            "chromedriver",
            self.node,
            [CHROMEDRIVER, f"--port={DRIVER_PORT}"],
            {"PATH": "/usr/bin:/bin", "HOME": f"{RUN}/home", "LC_ALL": "C.UTF-8"},
        ).start()
        self._services += [horizon, driver]
        horizon.wait_ready(lambda: self._answers("/auth/login/", PORT, CONTROL), PATIENCE_S)
        driver.wait_ready(lambda: self._answers("/status", DRIVER_PORT, "127.0.0.1"), PATIENCE_S)
        self.reporter(f"Horizon is up at {URL} in the control node")
        return self

    def stop(self) -> None:
        while self._services:
            self._services.pop().stop()

    @contextlib.contextmanager
    def browser(self, width: int = 1240, height: int = 1000) -> Iterator[webdriver.Remote]:
        """A new Chromium; until the block ends, this thread is in the control node's network."""
        assert self.node.holder is not None
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in (
            "--headless=new",
            "--no-sandbox",  # it runs as root, in namespaces of its own
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--force-prefers-reduced-motion",
            f"--window-size={width},{height}",
        ):
            options.add_argument(argument)
        with network_of(self.node.holder.pid):
            try:
                browser = webdriver.Remote(f"http://127.0.0.1:{DRIVER_PORT}", options=options)
            except WebDriverException as error:
                raise BedError(f"Chromium did not start: {error.msg}") from error
            try:
                yield browser
            finally:
                with contextlib.suppress(WebDriverException):
                    browser.quit()

    def _answers(self, path: str, port: int, address: str) -> bool:
        assert self.node.holder is not None
        connection = http.client.HTTPConnection(address, port)
        try:
            connection.sock = socket_in(self.node.holder.pid, (address, port), 30)
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _inside(self, argv: list[str], what: str) -> None:
        run(self.node.inside(argv), f"control node: {what}", PATIENCE_S)
