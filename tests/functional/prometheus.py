# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus and the real node_exporter that it scrapes, both Debian's."""

from __future__ import annotations

import contextlib
import http
import json
import math
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

PATIENCE_S = 60.0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is missing: apt-get install {package} (tools/bootstrap test)"
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def node_exporter(folder: pathlib.Path) -> Iterator[int]:
    """Serves the text files of FOLDER, and nothing else of the machine; gives the port."""
    port = _free_port()
    with (folder.parent / "node_exporter.log").open("wb") as log:
        process = subprocess.Popen(
            [
                _program("prometheus-node-exporter", "prometheus-node-exporter"),
                "--collector.disable-defaults",
                "--collector.textfile",
                f"--collector.textfile.directory={folder}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield port
    finally:
        _end(process)


class Prometheus:
    """Scrapes the port SCRAPED of this machine each second, with pcmig's alerts."""

    def __init__(self, folder: pathlib.Path, scraped: int, rules: pathlib.Path) -> None:
        program = _program("prometheus", "prometheus")
        self._port = _free_port()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/tsdb",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.begun_s = time.time()

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str, **arguments: str) -> Any:
        """The API's answer."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return json.load(answer)["data"]

    def now(self, query: str) -> list[dict[str, Any]]:
        """What QUERY has now; nothing yet when Prometheus does not answer."""
        try:
            found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        except urllib.error.HTTPError as err:
            if err.code == http.HTTPStatus.SERVICE_UNAVAILABLE:  # it begins
                return []
            raise AssertionError(f"{query}: {err.read().decode(errors='replace')}") from err
        except OSError:
            assert self._process.poll() is None, f"Prometheus ended: {self.said()}"
            return []
        return found

    def value(self, query: str) -> float:
        """Of the one series that QUERY finds."""
        found = self.now(query)
        assert len(found) == 1, (query, found)
        return float(found[0]["value"][1])

    def since(self, query: str) -> list[dict[str, Any]]:
        """What QUERY has had at any time, now among them, as a panel shows it."""
        end_s = time.time()
        start_s = end_s - math.ceil(end_s - self.begun_s)  # whole steps
        try:
            found: list[dict[str, Any]] = self.get(
                "query_range", query=query, start=f"{start_s:.3f}", end=f"{end_s:.3f}", step="1"
            )["result"]
        except urllib.error.HTTPError as err:
            raise AssertionError(f"{query}: {err.read().decode(errors='replace')}") from err
        return found

    def wait_for(self, query: str, *, gone: bool = False) -> None:
        """Until QUERY has something; GONE: until it has nothing any more."""
        deadline_s = time.monotonic() + PATIENCE_S
        while bool(self.now(query)) == gone:
            assert time.monotonic() < deadline_s, f"waited {PATIENCE_S:.0f} s for {query}: {self.said()}"
            time.sleep(0.2)
