# SPDX-License-Identifier: Apache-2.0
"""A first CA and certificates of hosts, for who has no PKI of their own. Needs the library `cryptography`
(pip install cryptography)."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import ipaddress
import os
import pathlib
import tempfile
import warnings
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA, CA_KEY = "ca.pem", "ca-key.pem"
ISSUED = "issued.pem"  # every certificate of a host that has not expired: what --revoke has to find
CRL = "crl.pem"  # there once a certificate was revoked: who has no list lets everybody in
HOST, HOST_KEY = "host.pem", "host-key.pem"
OLD_CA, OLD_CA_KEY = "old-ca.pem", "old-ca-key.pem"  # while the CA changes
LOCK = ".lock"
# So that a host whose clock is a little behind takes a fresh certificate.
BACKDATE = datetime.timedelta(hours=1)

PrivateKey = ec.EllipticCurvePrivateKey
# Of a host: that of a signing request may be of another kind than ours.
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class KeygenError(Exception):
    """A file is in the way, or cannot be read or written; the text names it."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What was done: files written, and until when they are good."""

    files: tuple[pathlib.Path, ...]
    not_after: datetime.datetime


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Nobody else changes FOLDER meanwhile: two at once would lose what one of them notes. A file of its own
    is locked, as a network's file system may not lock a folder. Where there is no folder there is nothing to
    lose. Raises KeygenError."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        yield
        return
    except OSError as err:
        raise KeygenError(f"{folder / LOCK}: {err.strerror}") from err
    with os.fdopen(handle, "rb"):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as err:
            raise KeygenError(f"{folder / LOCK} cannot be locked: {err.strerror}") from err
        yield


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
    certificate = ca_certificate(key, subject, days)
    make_folder(folder)
    write(folder / CA_KEY, pem_key(key), 0o600, force=False)
    write(folder / CA, pem(certificate), 0o644, force=False)
    return Made((folder / CA, folder / CA_KEY), certificate.not_valid_after_utc)


def ca_certificate(key: PrivateKey, subject: x509.Name, days: int) -> x509.Certificate:
    """Of a CA that makes certificates of hosts, and none of further CAs."""
    made = builder(subject, subject, key.public_key(), key.public_key(), days)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = made.add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
    return made.sign(key, hashes.SHA256())


def make_host(folder: pathlib.Path, names: list[str], days: int, *, force: bool = False) -> Made:
    """A certificate for the host with NAMES (DNS names and addresses, of which the first also names it), by
    the CA in FOLDER, with its key and the CA's certificate in FOLDER/FIRST-NAME. Raises KeygenError."""
    ca, ca_key = read_ca(folder)
    target = folder / names[0]
    if not force:
        for path in (target / CA, target / HOST, target / HOST_KEY):
            if path.exists():
                raise KeygenError(f"{path} is there already: --force replaces it")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = host_certificate(ca, ca_key, names[0], san_of(names), key.public_key(), days)
    make_folder(target)
    return give(folder, target, certificate, key, force=force)


def give(
    folder: pathlib.Path,
    target: pathlib.Path,
    certificate: x509.Certificate,
    key: PrivateKey | None = None,
    *,
    force: bool,
) -> Made:
    """A host's certificate into its folder TARGET, with its key where that is not on the host alone, and with
    what it trusts: the CA in FOLDER, the old one while there is one, and the list of who was revoked."""
    _note(folder, certificate)
    write(target / CA, (folder / CA).read_bytes(), 0o644, force=force)
    files = [target / CA, target / HOST]
    if (folder / CRL).exists():
        write(target / CRL, (folder / CRL).read_bytes(), 0o644, force=True)
        files.append(target / CRL)
    if key is not None:
        write(target / HOST_KEY, pem_key(key), 0o600, force=force)
        files.append(target / HOST_KEY)
    write(target / HOST, pem(certificate), 0o644, force=force)
    return Made(tuple(files), certificate.not_valid_after_utc)


def issued(folder: pathlib.Path) -> list[x509.Certificate]:
    """Certificates of hosts that were made in FOLDER and have not expired, the oldest first. Raises
    KeygenError."""
    path = folder / ISSUED
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as err:
        raise KeygenError(f"{path}: {err.strerror}") from err
    except ValueError as err:
        raise KeygenError(f"{path} has something else than certificates in PEM: {err}") from err
    now = datetime.datetime.now(datetime.UTC)
    return [one for one in found if one.not_valid_after_utc > now]


def _note(folder: pathlib.Path, certificate: x509.Certificate) -> None:
    """Before anybody has it: one that is replaced is good until it expires, wherever it is by then."""
    content = b"".join(pem(one) for one in (*issued(folder), certificate))
    write(folder / ISSUED, content, 0o644, force=True)


def san_of(names: list[str]) -> x509.SubjectAlternativeName:
    """NAMES as a certificate has them."""
    return x509.SubjectAlternativeName([_general_name(name) for name in names])


def host_certificate(
    ca: x509.Certificate,
    ca_key: PrivateKey,
    name: str,
    san: x509.SubjectAlternativeName,
    key: PublicKey,
    days: int,
) -> x509.Certificate:
    """For the host with NAME and the names in SAN, which has KEY. It may serve and dial, and nothing else."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    made = builder(ca.subject, subject, ca_key.public_key(), key, days, until=ca)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(usage(digital_signature=True), critical=True)
    # Each host dials and is dialled.
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        made.add_extension(both, critical=False)
        .add_extension(san, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def builder(
    issuer: x509.Name,
    subject: x509.Name,
    issuer_key: ec.EllipticCurvePublicKey,
    subject_key: PublicKey,
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


def usage(
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


def read_ca(
    folder: pathlib.Path, ca_file: str = CA, key_file: str = CA_KEY, *, expired_too: bool = False
) -> tuple[x509.Certificate, PrivateKey]:
    """The CA in FOLDER; of two, as there are while it changes, the first one in the file. Raises
    KeygenError."""
    paths = (folder / ca_file, folder / key_file)
    try:
        certificate = paths[0].read_bytes()
        with warnings.catch_warnings():  # on what older CAs have in them
            warnings.simplefilter("ignore")
            ca = x509.load_pem_x509_certificate(certificate)
    except FileNotFoundError as err:
        raise KeygenError(
            f"{err.filename}: {err.strerror}: --out names the folder of the CA, which 'pcmig tunnel keygen "
            "HOST' makes with the first host"
        ) from err
    except OSError as err:
        raise KeygenError(f"{err.filename}: {err.strerror}") from err
    except ValueError as err:
        raise KeygenError(f"{paths[0]} is no CA of 'pcmig tunnel keygen': {err}") from err
    private = read_key(paths[1])
    if private.public_key() != ca.public_key():
        interrupted = "; --new-ca was interrupted: type it again" if (folder / OLD_CA).exists() else ""
        raise KeygenError(f"{paths[1]} is not the key of {paths[0]}{interrupted}")
    if not expired_too and ca.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        raise KeygenError(f"{paths[0]} has expired: a new one: pcmig tunnel keygen --new-ca")
    return ca, private


def read_key(path: pathlib.Path) -> PrivateKey:
    """Raises KeygenError."""
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as err:
        raise KeygenError(f"{err.filename}: {err.strerror}") from err
    except (ValueError, TypeError) as err:
        raise KeygenError(f"{path} is no key of 'pcmig tunnel keygen': {err}") from err
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise KeygenError(f"{path} is no key of 'pcmig tunnel keygen': those are of elliptic curves")
    return private


Signed = x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList


def pem(signed: Signed) -> bytes:
    return signed.public_bytes(serialization.Encoding.PEM)


def pem_key(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_folder(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except FileExistsError as err:
        raise KeygenError(f"{folder} is a file, and no folder: --out names another one") from err
    except OSError as err:
        raise KeygenError(f"{folder} cannot be made: {err.strerror}") from err


def write(path: pathlib.Path, content: bytes, mode: int, *, force: bool) -> None:
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
