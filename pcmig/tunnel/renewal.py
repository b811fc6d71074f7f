# SPDX-License-Identifier: Apache-2.0
"""What a PKI needs after its first day: requests of hosts that keep their key to themselves, renewed
certificates, a new CA while streams run, lists of revoked certificates. Needs the library `cryptography`."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import pathlib
import re

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from pcmig.tunnel import keygen
from pcmig.tunnel.keygen import (
    CA,
    CA_KEY,
    CRL,
    HOST,
    HOST_KEY,
    OLD_CA,
    OLD_CA_KEY,
    KeygenError,
    Made,
    PrivateKey,
    PublicKey,
)

REQUEST = "host.csr"
WANTED_REQUEST = f"give the {REQUEST} that 'pcmig tunnel keygen --request' makes on the host"
DROPPED_CRL = "dropped-crl.pem"  # lists of CAs that nobody trusts any more: their keys stay revoked
RSA_BITS = 2048  # at least


def request(folder: pathlib.Path, names: list[str], *, force: bool = False) -> tuple[pathlib.Path, ...]:
    """A key and a request for a certificate with NAMES, in FOLDER, on the host itself: its key never leaves
    it. A key that is there is used again. Raises KeygenError."""
    files = (folder / HOST_KEY, folder / REQUEST)
    keygen.make_folder(folder)
    if files[0].exists():
        key = keygen.read_key(files[0])
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        keygen.write(files[0], keygen.pem_key(key), 0o600, force=False)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = made.add_extension(keygen.san_of(names), critical=False).sign(key, hashes.SHA256())
    keygen.write(files[1], keygen.pem(signed), 0o644, force=force)
    return files


def sign(
    folder: pathlib.Path, path: pathlib.Path, days: int, *, force: bool = False
) -> tuple[list[str], Made]:
    """The certificate that the request at PATH asks for, by the CA in FOLDER, in FOLDER/FIRST-NAME. Of the
    request only key and names count. Returns the names. Raises KeygenError."""
    try:
        found = x509.load_pem_x509_csr(path.read_bytes())
    except OSError as err:
        raise KeygenError(f"{path}: {err.strerror}; {WANTED_REQUEST}") from err
    except ValueError as err:
        raise KeygenError(f"{path} is no signing request in PEM; {WANTED_REQUEST}") from err
    key = found.public_key()
    if not found.is_signature_valid:
        raise KeygenError(f"{path} is not signed with its own key")
    if not isinstance(key, PublicKey) or (isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS):
        raise KeygenError(f"{path}: use a key of EC, Ed25519, or RSA with {RSA_BITS} bits or more")
    san = _san(found, path)
    names = _names(san)
    if not names or not all(_is_plain(name) for name in names):
        raise KeygenError(
            f"{path}: its subjectAltName has to name hosts alone: {', '.join(names) or 'it is empty'}"
        )
    ca, ca_key = keygen.read_ca(folder)
    target = folder / names[0]
    if not force and _has_revoked_key(folder, key):
        raise KeygenError(
            f"{path}: a certificate with this key was revoked, and whoever has the key could use this one "
            f"too: on the host rm {HOST_KEY}, then --request anew; --force signs it all the same"
        )
    certificate = keygen.host_certificate(ca, ca_key, names[0], san, key, days)
    keygen.make_folder(target)
    return names, keygen.give(folder, target, certificate, force=True)


def hosts(folder: pathlib.Path) -> list[str]:
    """First names of all hosts that FOLDER has a certificate of."""
    return sorted(path.parent.name for path in folder.glob(f"*/{HOST}"))


def left_out(folder: pathlib.Path) -> dict[str, str]:
    """Hosts in FOLDER that nobody means who means all of them, and why: what lets them in is for who names
    them. Raises KeygenError."""
    trusted = {_certificate(folder / name).subject for name in (CA, OLD_CA) if (folder / name).exists()}
    found = {}
    for name in hosts(folder):
        certificate = _certificate(folder / name / HOST)
        if _is_revoked(folder, certificate):
            found[name] = "its certificate is revoked"
        elif certificate.issuer not in trusted:
            found[name] = "its certificate is of a CA that nobody trusts any more"
    return found


def renew(folder: pathlib.Path, name: str, days: int, *, force: bool = False) -> Made:
    """A new certificate for the host that FOLDER/NAME is of, with the same names, by the CA of now. With a
    new key where its key is there as well; else for the key that it has, if that was not revoked. Raises
    KeygenError."""
    target = folder / name
    before = _certificate(_of_host(folder, name))
    if not force and not (target / HOST_KEY).exists() and _has_revoked_key(folder, before.public_key()):
        raise KeygenError(
            f"{name}: its certificate is revoked, and its key is on the host alone: who has the key could "
            f"use a new one too. On the host: rm {HOST_KEY}, pcmig tunnel keygen --request; then --sign "
            "here; --force renews it all the same"
        )
    ca, ca_key = keygen.read_ca(folder)
    san = _san(before, target / HOST)
    key = before.public_key()
    private: PrivateKey | None = None
    if (target / HOST_KEY).exists():
        private = ec.generate_private_key(ec.SECP256R1())
        key = private.public_key()
    assert isinstance(key, PublicKey)
    certificate = keygen.host_certificate(ca, ca_key, name, san, key, days)
    return keygen.give(folder, target, certificate, private, force=True)


def new_ca(folder: pathlib.Path, days: int, today: datetime.date, crl_days: int) -> tuple[Made, list[str]]:
    """A second CA: all hosts' ca.pem has both from now on, and their certificates are still the old one's.
    Returns also which hosts need it. Raises KeygenError."""
    _undo(folder)
    if (folder / OLD_CA).exists():
        _spread(folder, crl_days)  # that may have been interrupted
        raise KeygenError(
            f"{folder / OLD_CA} is there: a change of the CA is under way, and hosts' {CA} has both; "
            "when all certificates are of the new one, --drop-old-ca ends it"
        )
    old = _certificate(folder / CA)
    old_key = _read(folder / CA_KEY)
    key = ec.generate_private_key(ec.SECP256R1())
    # Two CAs of one name would be taken for each other.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pcmig tunnel CA {today.isoformat()}")])
    if subject == old.subject:
        raise KeygenError(f"{folder / CA} was made today: there is no need for another one")
    certificate = keygen.ca_certificate(key, subject, days)
    keygen.write(folder / OLD_CA_KEY, old_key, 0o600, force=False)
    keygen.write(folder / OLD_CA, keygen.pem(old), 0o644, force=False)
    keygen.write(folder / CA_KEY, keygen.pem_key(key), 0o600, force=True)
    keygen.write(folder / CA, keygen.pem(certificate) + keygen.pem(old), 0o644, force=True)
    _spread(folder, crl_days)
    there = _welcome(folder)
    return Made((folder / CA, folder / CA_KEY), certificate.not_valid_after_utc), there


def _undo(folder: pathlib.Path) -> None:
    """Takes back a change of the CA that was interrupted before the new one was anywhere: until then the old
    one is the only one, and its key may be in OLD_CA_KEY alone. Raises KeygenError."""
    if (folder / OLD_CA).exists():
        if _certificate(folder / CA) != _certificate(folder / OLD_CA):
            return
        keygen.read_ca(folder, OLD_CA, OLD_CA_KEY, expired_too=True)
        keygen.write(folder / CA_KEY, _read(folder / OLD_CA_KEY), 0o600, force=True)
    elif (folder / OLD_CA_KEY).exists():
        keygen.read_ca(folder, expired_too=True)  # it has its key where that belongs
    for name in (OLD_CA, OLD_CA_KEY):
        _remove(folder / name)


def _spread(folder: pathlib.Path, crl_days: int) -> None:
    """What the CAs of now are, to all hosts' folders, with a list of each of them."""
    _give(folder, CA)
    if (folder / CRL).exists():
        revoke(folder, [], crl_days)


def drop_old_ca(folder: pathlib.Path, crl_days: int) -> list[str]:
    """The old CA is no longer trusted: hosts' ca.pem has the new one alone. Returns which hosts need it.
    Raises KeygenError where a host's certificate is still of the old one, and not revoked."""
    if not (folder / OLD_CA).exists():
        raise KeygenError(f"{folder / OLD_CA} is not there: no change of the CA is under way")
    ca = _certificate(folder / CA)
    if ca == _certificate(folder / OLD_CA):
        raise KeygenError(f"{folder / CA} is the old CA yet: --new-ca was interrupted: type it again")
    keygen.read_ca(folder, expired_too=True)  # nothing goes before the new one has its key
    there = _welcome(folder)
    left = [name for name in there if _certificate(folder / name / HOST).issuer != ca.subject]
    if left:
        raise KeygenError(
            f"{', '.join(left)}: certificates of the old CA: pcmig tunnel keygen --renew {' '.join(left)}, "
            "or remove their folders where the hosts are gone"
        )
    keygen.write(folder / CA, keygen.pem(ca), 0o644, force=True)
    _give(folder, CA)
    _keep_list(folder)
    for name in (OLD_CA, OLD_CA_KEY):
        _remove(folder / name)
    if (folder / CRL).exists():
        revoke(folder, [], crl_days)
    return there


def _keep_list(folder: pathlib.Path) -> None:
    """The list of the CA that goes: the one to come is the new CA's alone."""
    if not (folder / CRL).exists():
        return
    before = _read(folder / DROPPED_CRL) if (folder / DROPPED_CRL).exists() else b""
    content = _read(folder / CRL)
    if content not in before:
        keygen.write(folder / DROPPED_CRL, before + content, 0o644, force=True)


def revoke(folder: pathlib.Path, names: list[str], days: int) -> tuple[datetime.datetime, list[str]]:
    """All certificates that the hosts with NAMES have from FOLDER go on the list, with those that are on it;
    nobody: it is only made anew. Returns until when it is good, and which hosts need it. Raises
    KeygenError."""
    now = _now()
    end = now + datetime.timedelta(days=days)
    fresh = _certificates_of(folder, names)
    content = b""
    for ca_file, key_file in ((CA, CA_KEY), (OLD_CA, OLD_CA_KEY)):
        if ca_file == OLD_CA and not (folder / OLD_CA).exists():
            continue
        ca, key = keygen.read_ca(folder, ca_file, key_file, expired_too=ca_file == OLD_CA)
        made = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
        made = made.last_update(now - keygen.BACKDATE).next_update(end)
        known = {one.serial_number: now for one in fresh if one.issuer == ca.subject}
        known |= _revoked(folder / CRL, ca.subject)  # since when is as it was
        for serial, when in sorted(known.items()):
            row = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
            made = made.add_revoked_certificate(row.build())
        content += keygen.pem(made.sign(key, hashes.SHA256()))
    keygen.write(folder / CRL, content, 0o644, force=True)
    _give(folder, CRL)  # to those that are on it as well: they have the list of now if they are let in again
    return end, _welcome(folder)


def _certificates_of(folder: pathlib.Path, names: list[str]) -> list[x509.Certificate]:
    """All that the hosts with NAMES have from FOLDER. One that was replaced is good until it expires, and may
    be the one that the host has; a folder may be gone with its host, or have been renamed."""
    issued = [(_names(_san(one, folder / keygen.ISSUED))[0], one) for one in keygen.issued(folder)]
    firsts = {_as_in_certificates(name) for name in names}
    found = []
    for name in names:
        if (folder / name / HOST).exists() or _as_in_certificates(name) not in dict(issued):
            path = _of_host(folder, name)
            found.append(_certificate(path))
            firsts.add(_names(_san(found[-1], path))[0])
    return found + [one for first, one in issued if first in firsts]


def _of_host(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The certificate of the host that is named by its folder. Raises KeygenError where there is none."""
    path = folder / name / HOST
    if not path.exists():
        there = ", ".join(hosts(folder)) or "none"
        raise KeygenError(f"{folder} has no host {name}: there are {there} (the first name of each)")
    return path


def _as_in_certificates(name: str) -> str:
    """An address can be written in more than one way."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(name))
    return name


def _revoked(path: pathlib.Path, issuer: x509.Name) -> dict[int, datetime.datetime]:
    """What the list of ISSUER at PATH has, with the times."""
    if not path.exists():
        return {}
    end = b"-----END X509 CRL-----"
    found: dict[int, datetime.datetime] = {}
    for part in _read(path).split(end)[:-1]:
        try:
            crl = x509.load_pem_x509_crl(part + end + b"\n")
        except ValueError as err:
            raise KeygenError(f"{path} is no revocation list in PEM: {err}") from err
        if crl.issuer == issuer:
            found |= {row.serial_number: row.revocation_date_utc for row in crl}
    return found


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _is_revoked(folder: pathlib.Path, certificate: x509.Certificate) -> bool:
    return certificate.serial_number in _revoked(folder / CRL, certificate.issuer)


def _has_revoked_key(folder: pathlib.Path, key: object) -> bool:
    """Of the certificates on the lists those are known whose host's folder is there, or that have not
    expired: they have but their numbers."""
    known = [*keygen.issued(folder), *(_certificate(folder / name / HOST) for name in hosts(folder))]
    return any(
        one.serial_number in _revoked(folder / name, one.issuer)
        for one in known
        if one.public_key() == key
        for name in (CRL, DROPPED_CRL)
    )


def _welcome(folder: pathlib.Path) -> list[str]:
    out = left_out(folder)
    return [name for name in hosts(folder) if name not in out]


def _give(folder: pathlib.Path, name: str) -> None:
    """The file in FOLDER to all hosts' folders."""
    content = _read(folder / name)
    for host in hosts(folder):
        keygen.write(folder / host / name, content, 0o644, force=True)


def _remove(path: pathlib.Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as err:
        raise KeygenError(f"{path} cannot be removed: {err.strerror}") from err


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise KeygenError(f"{path}: {err.strerror}") from err


def _certificate(path: pathlib.Path) -> x509.Certificate:
    """The first one in the file."""
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as err:
        raise KeygenError(f"{path} is no certificate in PEM: {err}") from err


def _san(
    of: x509.Certificate | x509.CertificateSigningRequest, path: pathlib.Path
) -> x509.SubjectAlternativeName:
    try:
        return of.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError) as err:
        raise KeygenError(f"{path} names no host (subjectAltName)") from err


def _names(san: x509.SubjectAlternativeName) -> list[str]:
    return [str(name.value) for name in san]


def _is_plain(name: str) -> bool:
    """Of a host, and good for a folder's name."""
    return re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9_:.-]{0,252}", name) is not None
