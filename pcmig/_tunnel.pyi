# SPDX-License-Identifier: Apache-2.0
"""Types of the tunnel daemon (csrc/tunnel). Times are milliseconds."""

from typing import Self, final

class TunnelError(OSError):
    """The tunnel cannot be set up, started or reloaded as asked; the text says what would be right."""

@final
class Tunnel:
    """The tunnel daemon of this host. Binds all its sockets at once and runs nothing until start()."""

    def __new__(
        cls,
        *,
        run_dir: str,  # folder of the local sockets; made with mode 0770 when it is not there
        control: str,  # path of the control socket
        listen: list[str] = ...,  # "ADDRESS:PORT", "[ADDRESS]:PORT", "*:PORT"; port 0 = any, see ports()
        ca: str | None = None,  # files in PEM; these three may be None with plaintext only
        certificate: str | None = None,
        key: str | None = None,
        crl: str | None = None,  # every CA of a chain needs a list in there
        allow: list[str] = ...,  # patterns on the names of dialling peers; none = any certificate of the CA
        client_certificate: str | None = None,  # shown when dialling; None = the same pair
        client_key: str | None = None,
        owner_gid: int | None = None,  # QEMU's group: of the folder and the sockets in it
        socket_uid: int | None = None,  # whom a destination's sockets have to belong to; None = anybody
        control_gid: int | None = None,  # who may use the control socket, beside root and the daemon's user
        workers: int = 0,  # threads; 0 = as many as CPUs, at most 8
        plaintext: bool = False,  # no TLS at all: guests' memory is sent in clear, and everybody is let in
        dead_after_ms: int = 5000,  # silence after which a peer is lost
        handshake_ms: int = 10000,
        socket_wait_ms: int = 5000,  # how long a destination's socket may take to appear
        dial_ms: int = 5000,  # how long a new stream tries to reach its peer
        idle_name_ms: int = 86400000,  # a name without streams for so long is dropped
        max_half_open: int = 256,  # connections that are not verified yet
        max_half_open_of_one: int = 32,  # of these, from one address
        max_connections: int = 1024,
        congestion: str | None = None,  # TCP congestion control; "host" = the host's; None = cubic
    ) -> Self: ...
    def start(self) -> None: ...
    def stop(self, grace_ms: int = 0) -> None: ...
    def reload(self) -> None: ...
    def fileno(self) -> int: ...
    def messages(self) -> list[tuple[int, str]]: ...
    def ports(self) -> list[int]: ...
