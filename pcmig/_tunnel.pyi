# SPDX-License-Identifier: Apache-2.0
"""Types of the tunnel daemon (csrc/tunnel). Times are milliseconds."""

from typing import Any, Self, final

class TunnelError(OSError):
    """The tunnel cannot be set up, started or reloaded as asked; the text says what would be right."""

@final
class Tunnel:
    """The tunnel daemon of this host. Binds all its sockets at once and runs nothing until start()."""

    def __new__(
        cls,
        *,
        run_dir: str,  # folder of the local sockets; made when it is not there
        control: str,  # path of the control socket
        listen: list[str] = ...,  # "ADDRESS:PORT", "[ADDRESS]:PORT", "*:PORT"; port 0 = any, see ports()
        ca: str | None = None,  # files in PEM; these three may be None with plaintext only
        certificate: str | None = None,
        key: str | None = None,
        crl: str | None = None,  # every CA of a chain needs a list in there
        allow: list[str] = ...,  # patterns on the names of dialling peers; none = any certificate of the CA
        client_certificate: str | None = None,  # shown when dialling; None = the same pair
        client_key: str | None = None,
        owner_gid: int | None = None,  # QEMU's group: of the sockets for the source's QEMU
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
        max_connections: int = 4096,  # of which accepting and dialling leave each other a quarter
        # From one address that a certificate of the CA has come from; a fifth from another.
        max_handshakes_per_s: int = 50,
        max_of_one_peer: int = 256,  # connections that are accepted with one certificate
        congestion: str | None = None,  # TCP congestion control; "host" = the host's; None = cubic
    ) -> Self: ...
    def start(self) -> None: ...
    def stop(self, grace_ms: int = 0) -> None: ...
    # With all that the constructor takes. run_dir, control, the ids, workers and limits stay as they were.
    def reload(self, **settings: Any) -> None: ...
    # The number of the latest `reload` of the control socket that waits for its answer, or 0.
    def reload_asked(self) -> int: ...
    # For all up to that number: a line that begins with "ok" or "error".
    def answer_reload(self, number: int, answer: str, /) -> None: ...
    # How long one of the threads has not been seen to run; more than a few seconds is a defect.
    def silent_ms(self) -> int: ...
    # When what was read expires, seconds since 1970; 0: there is none. Of several CAs or lists the first.
    def ends(self) -> dict[str, int]: ...
    def fileno(self) -> int: ...
    def messages(self) -> list[tuple[int, str]]: ...
    def ports(self) -> list[int]: ...
