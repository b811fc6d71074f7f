# SPDX-License-Identifier: Apache-2.0
"""A daemon of Open vSwitch's kind, as far as its control socket goes."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def controller(path: pathlib.Path, answers: dict[str, str | bytes]) -> Iterator[None]:
    """A daemon that answers so at its control socket; "" is an error, bytes are sent as they are."""
    listener = socket.socket(socket.AF_UNIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                asked = json.loads(connection.recv(65536))
                said = answers.get(asked["method"], "")
                if isinstance(said, bytes):
                    connection.sendall(said)
                    continue
                answer = {"id": asked["id"], "result": said or None, "error": None if said else "unknown"}
                data = json.dumps(answer).encode()
                connection.sendall(data[:7])
                connection.sendall(data[7:])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
