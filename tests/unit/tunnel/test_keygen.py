# SPDX-License-Identifier: Apache-2.0
"""Certificates, and what the tunnel's rules make of them."""

from __future__ import annotations

import datetime
import os
import pathlib
import shutil
import stat
import subprocess

import pytest

from pcmig.tunnel import identity, keygen
from pcmig.tunnel.identity import IdentityError
from tests.unit.certificates import Authority


def test_a_host_may_serve_and_dial(pki: pathlib.Path) -> None:
    found = identity.verify(identity.own(str(pki / "b")))
    assert found.subject == "CN=b"
    assert found.names == ("b", "b.example.org", "FE80:0:0:0:0:0:0:1")
    days = (found.not_after - datetime.datetime.now().timestamp()) / 86400
    assert 9.9 < days <= 10
    assert found.not_before < datetime.datetime.now().timestamp() - 3000


def test_openssl_agrees(pki: pathlib.Path) -> None:
    for purpose in ("sslserver", "sslclient"):
        done = subprocess.run(
            [
                "openssl",
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                pki / "ca.pem",
                pki / "a/host.pem",
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_keys_are_for_their_owner_alone(pki: pathlib.Path) -> None:
    for path in pki.rglob("*-key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"PRIVATE KEY" in path.read_bytes()
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700
    assert not [path for path in pki.rglob("*") if path.name.startswith(".new")]


def test_nothing_is_replaced_unasked(pki: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "pki"
    shutil.copytree(pki, folder)
    ca, host = (folder / "ca.pem").read_bytes(), (folder / "a/host.pem").read_bytes()
    assert keygen.make_ca(folder, 30) is None
    with pytest.raises(keygen.KeygenError, match="--force"):
        keygen.make_host(folder, ["a"], 10)
    assert (folder / "a/host.pem").read_bytes() == host
    keygen.make_host(folder, ["a"], 10, force=True)
    assert (folder / "a/host.pem").read_bytes() != host and (folder / "ca.pem").read_bytes() == ca
    assert identity.verify(identity.own(str(folder / "a"))).names == ("a",)


def test_a_ca_in_pieces(pki: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copy(pki / "ca.pem", tmp_path)
    with pytest.raises(keygen.KeygenError, match=r"ca-key\.pem is not"):
        keygen.make_ca(tmp_path, 30)
    with pytest.raises(keygen.KeygenError, match="No such file"):
        keygen.make_host(tmp_path, ["c"], 10)
    (tmp_path / "ca-key.pem").write_text("rubbish")
    with pytest.raises(keygen.KeygenError, match="is no key of"):
        keygen.make_host(tmp_path, ["c"], 10)
    shutil.copy(pki / "a/host-key.pem", tmp_path / "ca-key.pem")
    with pytest.raises(keygen.KeygenError, match="is not the key of"):
        keygen.make_host(tmp_path, ["c"], 10)


def test_a_folder_of_nobody_and_one_that_cannot_be_locked(tmp_path: pathlib.Path) -> None:
    with keygen.alone(tmp_path / "none"):
        assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with (
        pytest.raises(keygen.KeygenError, match=r"file/\.lock: Not a directory"),
        keygen.alone(tmp_path / "file"),
    ):
        pass


def test_no_host_outlives_its_ca(tmp_path: pathlib.Path) -> None:
    made = keygen.make_ca(tmp_path, 5)
    assert made is not None
    assert keygen.make_host(tmp_path, ["c"], 100).not_after == made.not_after


def test_a_folder_that_cannot_be_made(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(keygen.KeygenError, match="cannot be made"):
        keygen.make_ca(tmp_path / "file" / "x", 5)
    with pytest.raises(keygen.KeygenError, match="file is a file, and no folder: --out names another"):
        keygen.make_ca(tmp_path / "file", 5)


def test_a_folder_without_a_ca(tmp_path: pathlib.Path) -> None:
    with pytest.raises(keygen.KeygenError, match=r"nowhere/ca\.pem: No such file.*: --out names the folder"):
        keygen.make_host(tmp_path / "nowhere", ["c"], 10)


def test_pairs_that_would_be_refused(pki: pathlib.Path, tmp_path: pathlib.Path) -> None:
    mine = identity.own(str(pki / "a"))
    with pytest.raises(IdentityError, match="no pair in PEM"):
        identity.verify(identity.Files(mine.ca, mine.certificate, str(pki / "b/host-key.pem")))
    with pytest.raises(IdentityError, match="No such file"):
        identity.verify(identity.own(str(tmp_path)))
    keygen.make_ca(tmp_path, 5)
    with pytest.raises(IdentityError, match=r"is refused: unable to get local issuer|self.signed|signature"):
        identity.verify(identity.Files(str(tmp_path / "ca.pem"), mine.certificate, mine.key))
    (tmp_path / "bad.pem").write_text("rubbish")
    with pytest.raises(IdentityError, match="no CA certificate"):
        identity.verify(identity.Files(str(tmp_path / "bad.pem"), mine.certificate, mine.key))


def test_an_expired_one(tmp_path: pathlib.Path) -> None:
    """keygen makes none."""
    authority = Authority(tmp_path)
    pair = authority.issue("old", "old", days=-0.5)
    folder = tmp_path / "old"
    folder.mkdir()
    for source, target in (
        (authority.certificate, "ca.pem"),
        (pair.certificate, "host.pem"),
        (pair.key, "host-key.pem"),
    ):
        shutil.copy(source, folder / target)
    (folder / "host-key.pem").chmod(0o600)
    with pytest.raises(IdentityError, match="certificate has expired"):
        identity.verify(identity.own(str(folder)))


def test_libvirts_certificates(pki: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A server's pair and a client's, as libvirt's documentation has hosts set up."""
    pki_folder = tmp_path / "etc/pki"
    for source, target in (
        ("ca.pem", "CA/cacert.pem"),
        ("a/host.pem", "libvirt/servercert.pem"),
        ("a/host-key.pem", "libvirt/private/serverkey.pem"),
        ("b/host.pem", "libvirt/clientcert.pem"),
        ("b/host-key.pem", "libvirt/private/clientkey.pem"),
    ):
        (pki_folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pki / source, pki_folder / target)
    files, where = identity.find(str(tmp_path / "none"), str(tmp_path))
    assert where == "libvirt's own certificates"
    assert files.client == (
        f"{pki_folder}/libvirt/clientcert.pem",
        f"{pki_folder}/libvirt/private/clientkey.pem",
    )
    assert identity.verify(files).subject == "CN=a"
    os.unlink(pki_folder / "libvirt/private/clientkey.pem")
    files, _ = identity.find(str(tmp_path / "none"), str(tmp_path))
    assert files.client == (files.certificate, files.key)
    files, where = identity.find(str(pki / "a"), str(tmp_path))
    assert where == f"certificates in {pki}/a"
