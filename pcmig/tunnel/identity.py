# SPDX-License-Identifier: Apache-2.0
"""The certificates of this host: which files the tunnel uses, and whether they would do.

Whether they do is tried and not guessed: a handshake of this host with itself, in memory, with the same rules
as the tunnel's (TLS 1.3, both sides verified).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import ssl
from collections.abc import Mapping
from typing import Any

FOLDER = "/etc/pki/pcmig"


@dataclasses.dataclass(frozen=True)
class Files:
    """Paths. A host may need two pairs, as libvirt's certificates are for servers or for clients."""

    ca: str
    certificate: str
    key: str
    client_certificate: str | None = None
    client_key: str | None = None
    crl: str | None = None

    def paths(self) -> dict[str, str | None]:
        """By what the engine calls that which ends one day."""
        return {
            "certificate": self.certificate,
            "client_certificate": self.client_certificate,
            "ca": self.ca,
            "crl": self.crl,
        }

    @property
    def client(self) -> tuple[str, str]:
        """The pair that dials."""
        return self.client_certificate or self.certificate, self.client_key or self.key


def own(folder: str) -> Files:
    """The names that `pcmig tunnel keygen` gives them."""
    crl = os.path.join(folder, "crl.pem")
    return Files(
        ca=os.path.join(folder, "ca.pem"),
        certificate=os.path.join(folder, "host.pem"),
        key=os.path.join(folder, "host-key.pem"),
        crl=crl if os.path.exists(crl) else None,
    )


def libvirts(root: str = "/") -> Files:
    """Where libvirt has its own (libvirt.org/tlscerts.html)."""
    pki = pathlib.Path(root) / "etc/pki"
    client, key = pki / "libvirt/clientcert.pem", pki / "libvirt/private/clientkey.pem"
    both = client.exists() and key.exists()
    crl = pki / "CA/cacrl.pem"
    return Files(
        ca=str(pki / "CA/cacert.pem"),
        certificate=str(pki / "libvirt/servercert.pem"),
        key=str(pki / "libvirt/private/serverkey.pem"),
        client_certificate=str(client) if both else None,
        client_key=str(key) if both else None,
        crl=str(crl) if crl.exists() else None,
    )


def find(folder: str = FOLDER, root: str = "/") -> tuple[Files, str]:
    """The files in FOLDER, or libvirt's own where there are none; and in words which."""
    mine = own(folder)
    if os.path.exists(mine.certificate) or os.path.exists(mine.key):
        return mine, f"certificates in {folder}"
    theirs = libvirts(root)
    if os.path.exists(theirs.certificate):
        return theirs, "libvirt's own certificates"
    return mine, f"certificates in {folder}"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a peer learns of this host. Times are seconds since 1970."""

    subject: str
    names: tuple[str, ...]  # DNS names and addresses
    not_before: float
    not_after: float


class IdentityError(Exception):
    """The files do not do; the text names the file or says what the handshake said."""


def verify(files: Files) -> Identity:
    """Shakes hands with itself: does the key fit the certificate, the certificate the CA, may it serve and
    may it dial? Raises IdentityError."""
    server = _context(ssl.PROTOCOL_TLS_SERVER, files, files.certificate, files.key)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, files, *files.client)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = [("the server's pair", ends[0]), ("the dialling side's pair", ends[1])]
    for _ in range(8):  # flights of a handshake
        for what, end in tuple(waiting):
            try:
                end.do_handshake()
                waiting.remove((what, end))
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as err:
                raise IdentityError(f"{what} is refused: {err.verify_message}") from err
            except ssl.SSLError as err:
                raise IdentityError(f"{what} is refused: {err.reason or err}") from err
    if waiting:
        raise IdentityError("the two sides do not come to an end of the handshake")
    return _identity(ends[0].getpeercert() or {})


def _context(protocol: int, files: Files, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    for path in (files.ca, certificate, key, *([files.crl] if files.crl else [])):
        try:
            with open(path, "rb"):
                pass
        except OSError as err:
            raise IdentityError(f"{path}: {err.strerror}") from err
    try:
        context.load_verify_locations(files.ca)
    except ssl.SSLError as err:
        raise IdentityError(f"{files.ca} is no CA certificate in PEM ({err.reason or err})") from err
    try:
        # Without a password nobody is asked for one: a daemon has no terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError) as err:
        reason = getattr(err, "reason", None) or err
        raise IdentityError(f"{certificate} and {key} are no pair in PEM ({reason})") from err
    if files.crl:
        try:
            context.load_verify_locations(files.crl)
        except ssl.SSLError as err:
            raise IdentityError(f"{files.crl} is no revocation list in PEM ({err.reason or err})") from err
        context.verify_flags |= (
            ssl.VERIFY_CRL_CHECK_CHAIN
        )  # every CA of a chain needs a list, as in the tunnel
    return context


def _identity(peer: Mapping[str, Any]) -> Identity:
    """From what ssl.SSLObject.getpeercert() gives."""
    subject = ", ".join(
        f"{_SHORT.get(key, key)}={value}" for group in peer.get("subject", ()) for key, value in group
    )
    return Identity(
        subject=subject,
        names=tuple(str(value) for _, value in peer.get("subjectAltName", ())),
        not_before=ssl.cert_time_to_seconds(str(peer["notBefore"])),
        not_after=ssl.cert_time_to_seconds(str(peer["notAfter"])),
    )


_SHORT = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}
