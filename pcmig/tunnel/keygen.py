# SPDX-License-Identifier: Apache-2.0
"""A first CA and certificates of hosts, for who has no PKI of their own. Needs the library `cryptography`
(pip install cryptography)."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import os
import pathlib
import tempfile
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA, CA_KEY = "ca.pem", "ca-key.pem"
HOST, HOST_KEY = "host.pem", "host-key.pem"
# So that a host whose clock is a little behind takes a fresh certificate.
BACKDATE = datetime.timedelta(hours=1)

PrivateKey = ec.EllipticCurvePrivateKey


class KeygenError(Exception):
    """A file is in the way, or cannot be read or written; the text names it."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What was done: files written, and until when they are good."""

    files: tuple[pathlib.Path, ...]
    not_after: datetime.datetime


def make_ca(folder: pathlib.Path, days: int, name: str = "pcmig tunnel CA") -> Made | None:
    """A CA in FOLDER, which is made; None when there is one already, which is never replaced: every host
    would have to get new certificates at once. Raises KeygenError."""
    there = [path for path in (folder / CA, folder / CA_KEY) if path.exists()]
    if len(there) == 2:
        return None
    if there:
        missing = CA_KEY if there[0].name == CA else CA
        raise KeygenError(f"{there[0]} is there, and {missing} is not: bring it, or use another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    _make_folder(folder)
    _write(folder / CA_KEY, _pem_key(key), 0o600, force=False)
    _write(folder / CA, _pem(certificate), 0o644, force=False)
    return Made((folder / CA, folder / CA_KEY), certificate.not_valid_after_utc)


def make_host(folder: pathlib.Path, names: list[str], days: int, *, force: bool = False) -> Made:
    """A certificate for the host with NAMES (DNS names and addresses, of which the first also names it), by
    the CA in FOLDER, with its key and the CA's certificate in FOLDER/FIRST-NAME. Raises KeygenError."""
    ca, ca_key = _read_ca(folder)
    target = folder / names[0]
    files = (target / CA, target / HOST, target / HOST_KEY)
    if not force:
        for path in files:
            if path.exists():
                raise KeygenError(f"{path} is there already: --force replaces it")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    builder = _builder(ca.subject, subject, ca_key.public_key(), key.public_key(), days, until=ca)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    # Each host dials and is dialled.
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(both, critical=False)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
    )
    certificate = builder.sign(ca_key, hashes.SHA256())
    _make_folder(target)
    _write(target / HOST_KEY, _pem_key(key), 0o600, force=force)
    _write(target / HOST, _pem(certificate), 0o644, force=force)
    _write(target / CA, _pem(ca), 0o644, force=force)
    return Made(files, certificate.not_valid_after_utc)


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    issuer_key: ec.EllipticCurvePublicKey,
    subject_key: ec.EllipticCurvePublicKey,
    days: int,
    until: x509.Certificate | None = None,
) -> x509.CertificateBuilder:
    """What both kinds of certificates have. None outlives UNTIL."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    end = now + datetime.timedelta(days=days)
    if until is not None:
        end = min(end, until.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(subject_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read_ca(folder: pathlib.Path) -> tuple[x509.Certificate, PrivateKey]:
    paths = (folder / CA, folder / CA_KEY)
    try:
        certificate, key = (path.read_bytes() for path in paths)
    except OSError as err:
        raise KeygenError(f"{err.filename}: {err.strerror}") from err
    try:
        with warnings.catch_warnings():  # on what older CAs have in them
            warnings.simplefilter("ignore")
            ca = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as err:
        raise KeygenError(f"{paths[0]} and {paths[1]} are no CA of 'pcmig tunnel keygen': {err}") from err
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != ca.public_key():
        raise KeygenError(f"{paths[1]} is not the key of {paths[0]}")
    if ca.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        raise KeygenError(f"{paths[0]} has expired: make a new CA in another folder, and new certificates")
    return ca, private


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _make_folder(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as err:
        raise KeygenError(f"{folder} cannot be made: {err.strerror}") from err


def _write(path: pathlib.Path, content: bytes, mode: int, *, force: bool) -> None:
    """As a whole, and never with more rights than MODE; over what is there only with FORCE."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # 0600
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(temporary, path)
            temporary = None
        else:
            os.link(temporary, path)  # fails where there is something
    except FileExistsError as err:
        raise KeygenError(f"{path} is there already: --force replaces it") from err
    except OSError as err:
        raise KeygenError(f"{path} cannot be written: {err.strerror}") from err
    finally:
        if temporary is not None:
            os.unlink(temporary)
