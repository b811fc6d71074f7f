# SPDX-License-Identifier: Apache-2.0
"""A PKI after its first day: requests, renewal, another CA while a stream runs, revocation."""

from __future__ import annotations

import datetime
import pathlib
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography import x509

from pcmig.tunnel import identity, keygen, renewal
from pcmig.tunnel.keygen import KeygenError
from tests.unit.tunnels import Daemon, folder, new_name

__all__ = ["folder"]  # a fixture

TODAY = datetime.date(2036, 1, 1)


@pytest.fixture
def made(folder: pathlib.Path) -> pathlib.Path:
    pki = folder / "pki"
    keygen.make_ca(pki, 60)
    for name in "ab":
        keygen.make_host(pki, [name, "localhost", "127.0.0.1"], 10)
    return pki


def settings(host: pathlib.Path) -> dict[str, str | None]:
    """As the daemon finds them in the host's folder."""
    files = identity.own(str(host))
    return {"ca": files.ca, "certificate": files.certificate, "key": files.key, "crl": files.crl}


def ends(a: Daemon, b: Daemon) -> tuple[socket.socket, socket.socket]:
    """A stream of A's to B."""
    name = new_name()
    with b.listen(name) as listening:
        assert a.ask(f"open {name} localhost {b.port}").startswith("ok ")
        here = a.connect(name)
        here.sendall(b"first")
        there, _ = listening.accept()
    assert there.recv(5, socket.MSG_WAITALL) == b"first"
    return here, there


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, path: pathlib.Path) -> Iterator[None]:
    """PATH cannot be written."""
    write = keygen.write

    def refuse(where: pathlib.Path, content: bytes, mode: int, *, force: bool) -> None:
        if where == path:
            raise KeygenError(f"{where} cannot be written: No space left on device")
        write(where, content, mode, force=force)

    with monkeypatch.context() as patched:
        patched.setattr(keygen, "write", refuse)
        with pytest.raises(KeygenError, match="No space left"):
            yield


def test_another_ca_while_a_stream_runs(made: pathlib.Path, folder: pathlib.Path) -> None:
    """As the page says it: both CAs everywhere, then certificates of the new one, then the new one alone.
    After each step of each host a stream goes on that began with a certificate of a CA that is trusted
    yet, and others can begin."""
    with (
        Daemon(folder / "a", None, None, plaintext=False, **settings(made / "a")) as a,
        Daemon(folder / "b", None, None, plaintext=False, **settings(made / "b")) as b,
    ):
        first = ends(a, b)
        renewal.revoke(made, [], 30)

        def step(running: tuple[socket.socket, socket.socket]) -> None:
            for host, daemon in (("a", a), ("b", b)):
                daemon.reload(**settings(made / host))
                for pair in (ends(a, b), ends(b, a)):
                    for end in pair:
                        end.close()
                running[0].sendall(b"goes on")
                assert running[1].recv(7, socket.MSG_WAITALL) == b"goes on"

        step(first)
        assert round((a.tunnel.ends()["ca"] - time.time()) / 86400) == 60
        _, hosts = renewal.new_ca(made, 90, TODAY, 30)
        assert hosts == ["a", "b"]
        with pytest.raises(KeygenError, match=r"a, b: certificates of the old CA: .* --renew a b"):
            renewal.drop_old_ca(made, 30)
        step(first)
        assert round((a.tunnel.ends()["ca"] - time.time()) / 86400) == 60, "its certificate is of the old CA"
        for name in hosts:
            renewal.renew(made, name, 10)
        step(first)
        assert round((a.tunnel.ends()["ca"] - time.time()) / 86400) == 90, "the old one is nothing to it"
        second = ends(a, b)
        assert renewal.drop_old_ca(made, 30) == ["a", "b"]
        step(second)
        assert first[1].recv(1) == b"", "its certificate is of a CA that nobody trusts now"
        assert (made / "a/ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 1
        renewal.revoke(made, ["a"], 30)
        b.reload(**settings(made / "b"))
        assert second[1].recv(1) == b"", "revoked: its streams end"
        assert a.ask(f"open {new_name()} localhost {b.port}").startswith("error ")
        for end in (*first, *second):
            end.close()


def test_the_ca_that_ends_first_may_be_that_of_the_pair_that_dials(
    made: pathlib.Path, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """As with libvirt's certificates, which may be of two CAs."""
    other = tmp_path / "other"
    keygen.make_ca(other, 20, "another CA")
    keygen.make_host(other, ["a"], 10)
    both = tmp_path / "both.pem"
    both.write_bytes((made / "ca.pem").read_bytes() + (other / "ca.pem").read_bytes())
    more = settings(made / "a") | {
        "ca": str(both),
        "client_certificate": str(other / "a/host.pem"),
        "client_key": str(other / "a/host-key.pem"),
    }
    with Daemon(folder / "a", None, None, plaintext=False, **more) as a:
        assert round((a.tunnel.ends()["ca"] - time.time()) / 86400) == 20


def test_a_request_and_its_certificate(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    on_host = tmp_path / "on-host"
    key, request = renewal.request(on_host, ["c", "c.example.org", "10.0.0.3"])
    assert b"PRIVATE" in key.read_bytes() and key.stat().st_mode & 0o777 == 0o600
    names, found = renewal.sign(made, request, 10)
    assert names == ["c", "c.example.org", "10.0.0.3"]
    assert found.files == (made / "c/ca.pem", made / "c/host.pem") and not (made / "c/host-key.pem").exists()
    for path in found.files:
        shutil.copy(path, on_host)
    before = identity.verify(identity.own(str(on_host)))
    assert before.names == ("c", "c.example.org", "10.0.0.3")
    # Renewed for the key that only the host has; and asked for anew with the same key.
    shutil.copy(renewal.renew(made, "c", 20).files[1], on_host)
    assert identity.verify(identity.own(str(on_host))).not_after > before.not_after + 9 * 86400
    with pytest.raises(KeygenError, match=r"host\.csr is there already"):
        renewal.request(on_host, ["c"])
    content = key.read_bytes()
    renewal.request(on_host, ["c"], force=True)
    assert key.read_bytes() == content


def test_requests_that_are_refused(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "host.csr"
    with pytest.raises(KeygenError, match=r"No such file or directory; give the host\.csr that"):
        renewal.sign(made, path, 10)
    path.write_text("rubbish")
    with pytest.raises(KeygenError, match=r"no signing request in PEM; give the host\.csr that"):
        renewal.sign(made, path, 10)
    for bad in ("..", ".hidden", "*.example.org"):
        _, request = renewal.request(tmp_path / "x", [bad], force=True)
        with pytest.raises(KeygenError, match="has to name hosts alone"):
            renewal.sign(made, request, 10)
    assert renewal.hosts(made) == ["a", "b"]


def test_a_list_keeps_what_is_on_it(made: pathlib.Path) -> None:
    keygen.make_host(made, ["c"], 10)
    for name in "ab":
        renewal.revoke(made, [name], 30)
    renewal.new_ca(made, 60, TODAY, 30)
    renewal.renew(made, "c", 10)
    renewal.revoke(made, ["c"], 30)
    for name in "abc":
        assert (made / name / "crl.pem").read_bytes() == (made / "crl.pem").read_bytes()
        with pytest.raises(identity.IdentityError, match="revoked"):
            identity.verify(identity.own(str(made / name)))
    renewal.renew(made, "c", 10)
    identity.verify(identity.own(str(made / "c")))
    for refused in (lambda: renewal.revoke(made, ["d"], 30), lambda: renewal.renew(made, "d", 10)):
        with pytest.raises(KeygenError, match=r"has no host d: there are a, b, c \("):
            refused()


def test_a_host_that_comes_after_a_revocation_has_the_list(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Without one it would let everybody in that the CA ever made a certificate for."""
    renewal.revoke(made, ["b"], 30)
    keygen.make_host(made, ["c"], 10)
    _, request = renewal.request(tmp_path / "d", ["d"])
    _, signed = renewal.sign(made, request, 10)
    assert made / "d/crl.pem" in signed.files
    for name in "cd":
        assert (made / name / "crl.pem").read_bytes() == (made / "crl.pem").read_bytes()
    (made / "a/crl.pem").unlink()
    assert made / "a/crl.pem" in renewal.renew(made, "a", 10).files
    identity.verify(identity.own(str(made / "a")))


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("name", ["old-ca.pem", "ca-key.pem", "ca.pem", "b/ca.pem", "a/crl.pem"])
def test_a_full_disk_while_the_ca_changes(
    made: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, listed: bool
) -> None:
    """There is a CA with its key at each moment, and who types the same again gets on."""
    if name == "a/crl.pem" and not listed:
        return
    if listed:
        keygen.make_host(made, ["gone"], 10)
        renewal.revoke(made, ["gone"], 30)
    with full_disk(monkeypatch, made / name):
        renewal.new_ca(made, 60, TODAY, 30)
    with pytest.raises(KeygenError):
        renewal.drop_old_ca(made, 30)
    if name in ("b/ca.pem", "a/crl.pem"):  # the new CA was there
        with pytest.raises(KeygenError, match="under way"):
            renewal.new_ca(made, 60, TODAY, 30)
    else:
        renewal.new_ca(made, 60, TODAY, 30)
    for host in "ab":
        assert (made / host / "ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2
        identity.verify(identity.own(str(made / host)))
        renewal.renew(made, host, 10)
    assert renewal.drop_old_ca(made, 30) == ["a", "b"]
    keygen.read_ca(made)
    for host in "ab":
        identity.verify(identity.own(str(made / host)))
    assert not list(made.glob("old-*"))


def test_a_change_that_was_interrupted_is_named(made: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk(monkeypatch, made / "ca.pem"):
        renewal.new_ca(made, 60, TODAY, 30)
    for attempt in (lambda: renewal.renew(made, "a", 10), lambda: renewal.drop_old_ca(made, 30)):
        with pytest.raises(KeygenError, match=r"--new-ca was interrupted: type it again"):
            attempt()
    with full_disk(monkeypatch, made / "ca-key.pem"):
        renewal.new_ca(made, 60, TODAY, 30)
    renewal.new_ca(made, 60, TODAY, 30)
    keygen.read_ca(made)
    keygen.read_ca(made, keygen.OLD_CA, keygen.OLD_CA_KEY)


def test_the_old_ca_stays_while_the_new_one_has_no_key(made: pathlib.Path) -> None:
    renewal.new_ca(made, 60, TODAY, 30)
    for name in "ab":
        renewal.renew(made, name, 10)
    (made / "ca-key.pem").unlink()
    with pytest.raises(KeygenError, match=r"ca-key\.pem: No such file"):
        renewal.drop_old_ca(made, 30)
    keygen.read_ca(made, keygen.OLD_CA, keygen.OLD_CA_KEY)
    assert (made / "ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2


def test_a_host_whose_key_cannot_be_noted_keeps_the_old_one(
    made: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (made / "a/host-key.pem").read_bytes()
    for name in ("issued.pem", "a/ca.pem", "a/host-key.pem"):
        with full_disk(monkeypatch, made / name):
            renewal.renew(made, "a", 10)
        assert (made / "a/host-key.pem").read_bytes() == before
        identity.verify(identity.own(str(made / "a")))


def test_changes_of_a_ca_that_are_refused(made: pathlib.Path) -> None:
    with pytest.raises(KeygenError, match="no change of the CA is under way"):
        renewal.drop_old_ca(made, 30)
    renewal.new_ca(made, 60, TODAY, 30)
    with pytest.raises(KeygenError, match="--drop-old-ca ends it"):
        renewal.new_ca(made, 60, TODAY, 30)
    for name in "ab":
        renewal.renew(made, name, 10)
    renewal.drop_old_ca(made, 30)
    with pytest.raises(KeygenError, match="was made today"):
        renewal.new_ca(made, 60, TODAY, 30)
    assert not list(made.glob("old-*"))


def test_a_ca_that_has_expired_is_changed_as_well(made: pathlib.Path) -> None:
    renewal.revoke(made, ["b"], 30)
    old, key = keygen.read_ca(made)
    (made / "ca.pem").write_bytes(keygen.pem(keygen.ca_certificate(key, old.subject, 0)))
    with pytest.raises(KeygenError, match=r"has expired: .* --new-ca"):
        renewal.renew(made, "a", 10)
    renewal.new_ca(made, 60, TODAY, 30)
    renewal.renew(made, "a", 10)
    assert renewal.drop_old_ca(made, 30) == ["a"]
    identity.verify(identity.own(str(made / "a")))


def test_a_host_that_is_revoked_is_nobody_who_is_not_named(made: pathlib.Path) -> None:
    keygen.make_host(made, ["c"], 10)
    assert renewal.revoke(made, ["c"], 30)[1] == ["a", "b"] and list(renewal.left_out(made)) == ["c"]
    assert renewal.new_ca(made, 60, TODAY, 30)[1] == ["a", "b"]
    for name in "ab":
        renewal.renew(made, name, 10)
    assert list(renewal.left_out(made)) == ["c"]
    assert renewal.drop_old_ca(made, 30) == ["a", "b"], "nobody has to renew the host that is gone"
    # The list is that of the new CA alone by now, which knows nothing of it.
    assert "a CA that nobody trusts" in renewal.left_out(made)["c"]
    renewal.renew(made, "c", 10)
    assert not renewal.left_out(made)
    identity.verify(identity.own(str(made / "c")))


def test_a_certificate_that_was_replaced_is_revoked_with_the_new_one(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The new one may lie in the folder yet, and the host, or the thief, have the old one."""
    stolen = tmp_path / "stolen"
    shutil.copytree(made / "b", stolen)
    renewal.renew(made, "b", 10)
    keygen.make_host(made, ["b", "localhost"], 10, force=True)
    renewal.revoke(made, ["b"], 30)
    shutil.copy(made / "crl.pem", stolen)
    for host in (stolen, made / "b"):
        with pytest.raises(identity.IdentityError, match="revoked"):
            identity.verify(identity.own(str(host)))
    shutil.copy(made / "crl.pem", made / "a")
    identity.verify(identity.own(str(made / "a")))


def test_a_host_whose_folder_is_gone_is_revoked(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    stolen = tmp_path / "stolen"
    shutil.move(made / "b", stolen)
    assert renewal.revoke(made, ["b"], 30)[1] == ["a"]
    shutil.copy(made / "crl.pem", stolen)
    with pytest.raises(identity.IdentityError, match="revoked"):
        identity.verify(identity.own(str(stolen)))
    for name in ("c", "b\N{LATIN SMALL LETTER U WITH DIAERESIS}"):
        with pytest.raises(KeygenError, match=f"has no host {name}: there are a"):
            renewal.revoke(made, [name], 30)


def test_a_host_whose_folder_was_renamed_is_revoked_with_what_was_replaced(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    stolen = tmp_path / "stolen"
    shutil.copytree(made / "b", stolen)
    renewal.renew(made, "b", 10)
    (made / "b").rename(made / "rack2-b")
    assert renewal.revoke(made, ["rack2-b"], 30)[1] == ["a"]
    shutil.copy(made / "crl.pem", stolen)
    for host in (stolen, made / "rack2-b"):
        with pytest.raises(identity.IdentityError, match="revoked"):
            identity.verify(identity.own(str(host)))


def test_an_address_in_another_spelling_is_revoked(made: pathlib.Path) -> None:
    keygen.make_host(made, ["fd00::5"], 10)
    shutil.rmtree(made / "fd00::5")
    renewal.revoke(made, ["FD00:0:0::5"], 30)
    assert len(list(x509.load_pem_x509_crl((made / "crl.pem").read_bytes()))) == 1


def test_a_key_stays_revoked_with_another_ca(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """It was revoked under the old one, and the new one's list knows nothing of it."""
    _, request = renewal.request(tmp_path / "c", ["c"])
    renewal.sign(made, request, 10)
    renewal.revoke(made, ["c"], 30)
    for today in (TODAY, TODAY + datetime.timedelta(days=1)):
        renewal.new_ca(made, 60, today, 30)
        for name in "ab":
            renewal.renew(made, name, 10)
        assert renewal.drop_old_ca(made, 30) == ["a", "b"]
        for attempt in (lambda: renewal.renew(made, "c", 10), lambda: renewal.sign(made, request, 10)):
            with pytest.raises(KeygenError, match=r"revoked.* rm host-key\.pem"):
                attempt()
    renewal.sign(made, request, 10, force=True)


def test_a_key_that_was_revoked_gets_no_certificate(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """It is on the host, or with who took it, and would be good again."""
    key, request = renewal.request(tmp_path / "c", ["c"])
    renewal.sign(made, request, 10)
    renewal.renew(made, "c", 10)
    renewal.revoke(made, ["c"], 30)
    for attempt in (lambda: renewal.renew(made, "c", 10), lambda: renewal.sign(made, request, 10)):
        with pytest.raises(KeygenError, match=r"revoked.* rm host-key\.pem"):
            attempt()
    renewal.renew(made, "c", 10, force=True)
    key.unlink()
    renewal.revoke(made, ["c"], 30)
    renewal.sign(made, renewal.request(tmp_path / "c", ["c"], force=True)[1], 10)
    assert not renewal.left_out(made)


def test_a_certificate_is_revoked_since_the_first_time(
    made: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewal.revoke(made, ["b"], 30)
    since = x509.load_pem_x509_crl((made / "crl.pem").read_bytes())[0].revocation_date_utc
    with monkeypatch.context() as later:
        later.setattr(renewal, "_now", lambda: since + datetime.timedelta(days=2))
        renewal.revoke(made, ["b"], 30)
    crl = x509.load_pem_x509_crl((made / "crl.pem").read_bytes())
    assert [row.revocation_date_utc for row in crl] == [since]
    assert crl.next_update_utc == since + datetime.timedelta(days=32)
