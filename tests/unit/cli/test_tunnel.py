# SPDX-License-Identifier: Apache-2.0
"""`pcmig tunnel` and what stands beside it; `migrate` and `resume` through the tunnel, on a scripted core."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509

from pcmig.cli import follow, job, main, migrate, options, resume, run
from pcmig.journal import Entry, Journal
from pcmig.tunnel import keygen
from pcmig.tunnel.client import ENVIRONMENT
from tests.unit.cli import fake_core as fake
from tests.unit.cli.conftest import pcmig
from tests.unit.patience import PATIENCE_S
from tests.unit.tunnel.fake_daemon import FakeDaemon, fake_daemon

URI = "qemu:///system"
NAME = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (follow, job, migrate, options, resume, run):
        monkeypatch.setattr(module, "_core", fake)
    monkeypatch.setitem(main.sys.modules, "pcmig._core", fake)  # type: ignore[attr-defined]
    monkeypatch.setattr(fake.Migration, "script", [(0.0, fake.POSTCOPY), (0.05, fake.COMPLETED)])
    monkeypatch.setattr(fake.Migration, "arguments", {})
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    fake.jobs[:], fake.dest_jobs[:] = [fake.job("none")], [fake.NoDomainError("Domain not found")]


@pytest.fixture
def daemon(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    folder = tmp_path / "run"
    folder.mkdir()
    with fake_daemon(folder) as found:
        monkeypatch.setenv(ENVIRONMENT, found.control)
        yield found


def arguments() -> dict[str, Any]:
    return fake.Migration.arguments


# migrate


def test_through_the_tunnel(
    daemon: FakeDaemon, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    code, text = pcmig(capsys, "migrate", "--tunnel", "g1", fake.DEST, "--json", str(report))
    assert code == 0, text
    opened, *_, closed = daemon.asked
    word, name, host, port = opened.split()
    assert (word, host, port) == ("open", "b", "16516")
    assert closed == f"close {name}" and not daemon.names
    assert arguments()["migrate_uri"] == f"unix://{daemon.folder}/{name}"
    assert arguments()["disks_uri"] is None and arguments()["resume_uris"] == []
    assert json.loads(report.read_text())["tunnel"]["memory"]["bytes_out"] == 3145728
    assert not list(Journal().folder.glob("*.json"))


def test_disks_go_through_it_too(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pcmig import _core

    for name in ("parse_flags", "flags_from_bits"):  # the scripted core's bits say nothing of disks
        monkeypatch.setattr(fake, name, getattr(_core, name))
    words = ["--tunnel=10.1.0.2:16600", "--tunnel-streams", "4", "--copy-storage-all"]
    assert pcmig(capsys, "migrate", "g1", fake.DEST, *words)[0] == 0
    opened = [line.split() for line in daemon.asked if line.startswith("open")]
    assert [line[2:] for line in opened] == [["10.1.0.2", "16600", "streams=4"]] * 2
    assert arguments()["disks_uri"] == f"unix://{daemon.folder}/{opened[1][1]}"
    assert opened[0][1] != opened[1][1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--tunnel", "--migrateuri", "tcp://b"), "--migrateuri contradicts --tunnel"),
        (("--tunnel", "--disks-uri", "tcp://b", "--copy-storage-all"), "--disks-uri contradicts --tunnel"),
        (("--tunnel", "--resume-uri", "tcp://b"), "--resume-uri contradicts --tunnel"),
        (("--tunnel", "--listen-address", "::"), "--listen-address contradicts --tunnel"),
        (("--tunnel", "--tls"), "--tls contradicts --tunnel"),
        (("--tunnel", "--flags", "TLS"), "VIR_MIGRATE_TLS contradicts --tunnel: the tunnel encrypts already"),
        (("--tunnel", "--flags", "ZEROCOPY"), "through a unix socket"),
        (("--tunnel", "-c", "qemu+ssh://c/system"), "is another machine: type this command there"),
        (("--tunnel=b:x",), "'x' is no port"),
        (("--tunnel-streams", "2"), "--tunnel-streams needs --tunnel"),
        (("--tunnel", "--tunnel-streams", "9"), "not a whole number from 1 to 8"),
    ],
)
def test_contradictions(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    code, said = pcmig(capsys, "migrate", "g1", fake.DEST, *words)
    assert (code, text in said) == (2, True), said
    assert not daemon.asked and not arguments()


def test_a_destination_without_a_host(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = pcmig(capsys, "migrate", "g1", "qemu:///session", "--tunnel")
    assert code == 2 and "names no host: write --tunnel=PEER[:PORT]" in said


def test_nothing_begins_without_a_way(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.refusal = "10.0.0.2:16516: the certificate is for c"
    code, said = pcmig(capsys, "migrate", "g1", fake.DEST, "--tunnel")
    assert code == 1 and "no way through the tunnel to b: " in said and "is for c" in said
    assert not arguments() and not list(Journal().folder.glob("*.json"))


def test_no_daemon(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nothing"))
    code, said = pcmig(capsys, "migrate", "g1", fake.DEST, "--tunnel")
    assert code == 1 and "systemctl start pcmig-tunnel" in said and not arguments()


def test_libvirts_tunnel_means_this_one(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pcmig import _core

    for module in (migrate, options):
        for name in ("parse_flags", "flags_from_bits", "FlagsError"):
            monkeypatch.setattr(module._core, name, getattr(_core, name))
    code, said = pcmig(capsys, "migrate", "g1", fake.DEST, "--tunnel", "--flags", "TUNNELLED")
    assert code == 0, said
    assert "note: VIR_MIGRATE_TUNNELLED: pcmig's tunnel takes the place of libvirt's" in said
    assert "VIR_MIGRATE_TUNNELLED" not in _core.flags_from_bits(arguments()["flags"]).names
    code, said = pcmig(capsys, "migrate", "g1", fake.DEST, "--flags", "TUNNELLED")
    assert code == 2 and "--tunnel" in said


def test_a_failed_one_is_closed(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.Migration.script[:] = [(0.0, fake.FAILED)]
    assert pcmig(capsys, "migrate", "g1", fake.DEST, "--tunnel")[0] == 1
    assert not daemon.names


def test_one_that_goes_on_stays_open(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.Migration.script[:] = [(0.0, fake.NEEDS_OPERATOR)]
    assert pcmig(capsys, "migrate", "g1", fake.DEST, "--tunnel")[0] == 3
    (name,) = daemon.names
    entry = Journal().read(fake.UUID)
    assert entry is not None and entry.tunnel is not None
    assert (entry.tunnel["memory"], entry.tunnel["host"]) == (name, "b")
    assert entry.engine["migrate_uri"] == f"unix://{daemon.folder}/{name}"
    # And is found again.
    daemon.names.clear()
    fake.Migration.script[:] = [(0.0, fake.POSTCOPY), (0.05, fake.COMPLETED)]
    assert pcmig(capsys, "resume", "g1")[0] == 0
    assert f"open {name} b 16516" in daemon.asked[-3:] and not daemon.names


def test_a_daemon_that_was_restarted(
    daemon: FakeDaemon,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An interrupted migration has its way opened again."""
    fake.Migration.script[:] = [(0.1, fake.POSTCOPY), (0.1, fake.BROKEN), (fake.GO, fake.COMPLETED)]
    go = tmp_path / "go"
    monkeypatch.setenv(fake.GO_ENVIRONMENT, str(go))
    real = daemon._reply

    def forgets(words: list[str]) -> str:
        opened = sum(line.startswith("open") for line in daemon.asked)
        if words[0] == "show" and opened == 1:
            daemon.names.clear()
        if opened == 2:
            go.touch()
        return real(words)

    daemon._reply = forgets  # type: ignore[method-assign]
    assert pcmig(capsys, "migrate", "g1", fake.DEST, "--tunnel")[0] == 0
    assert len([line for line in daemon.asked if line.startswith("open")]) == 2


# resume

TUNNEL = {"host": "b", "port": 16516, "memory": NAME, "disks": None, "streams": 1, "control": None}
ENTRY = Entry(
    uuid=fake.UUID,
    name="g1",
    source_uri=URI,
    dest_uri=fake.DEST,
    engine={"flags": 3, "migrate_uri": f"unix:///run/pcmig/tunnel/{NAME}"},
    started="2026-11-21T10:00:00Z",
    caller={"program": "pcmig"},
    tunnel=TUNNEL,
)


def test_what_was_encrypted_stays_so(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    Journal().write(ENTRY)
    code, said = pcmig(capsys, "resume", "g1", "--migrateuri", "tcp://b")
    assert code == 2 and "goes through the tunnel (to b): leave --migrateuri out, or give --no-tunnel" in said
    assert pcmig(capsys, "resume", "g1", "--tunnel", "--no-tunnel")[0] == 2
    assert not daemon.asked
    assert pcmig(capsys, "resume", "g1", "--migrateuri", "tcp://b", "--no-tunnel")[0] == 0
    assert arguments()["migrate_uri"] == "tcp://b" and not daemon.asked


def test_a_peer_that_is_away_is_waited_for(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    Journal().write(ENTRY)
    daemon.refusal = "no route to host"
    code, said = pcmig(capsys, "resume", "g1")
    assert code == 0 and "no route to host; this is tried again" in said
    assert arguments()["migrate_uri"] == f"unix:///run/pcmig/tunnel/{NAME}"


def test_a_new_way(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    """To another address; and for a migration that the journal does not have in the tunnel."""
    for entry in (ENTRY, dataclasses.replace(ENTRY, tunnel=None, engine={"flags": 3})):
        Journal().write(entry)
        daemon.asked.clear()
        assert pcmig(capsys, "resume", "g1", "--tunnel=10.1.0.2")[0] == 0
        name = daemon.asked[0].split()[1]
        assert daemon.asked[0].endswith(" 10.1.0.2 16516") and name != NAME
        assert arguments()["migrate_uri"] == f"unix://{daemon.folder}/{name}"


def test_a_word_that_is_not_understood(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    Journal().write(dataclasses.replace(ENTRY, tunnel={"x": 1}))
    code, said = pcmig(capsys, "resume", "g1")
    assert code == 1 and "--tunnel makes a new way" in said


# tunnel show, probe, keygen; the daemon's settings


def test_show(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert pcmig(capsys, "tunnel", "show") == (0, "nothing goes through the tunnel\n")
    daemon.names[NAME] = ""
    code, text = pcmig(capsys, "tunnel", "show")
    titles, row = text.splitlines()
    assert code == 0 and titles.split()[:2] == ["name", "peer"]
    assert row.split() == [NAME, "b", "3.0", "0.0", "1", "1", "1", "0.3", "4.0", "0.3"]
    code, text = pcmig(capsys, "tunnel", "show", NAME)
    assert code == 0 and "queue_max_bytes    65536" in text
    code, text = pcmig(capsys, "tunnel", "show", "--json")
    assert json.loads(text)["streams"][NAME]["rtt_us"] == 340
    assert pcmig(capsys, "tunnel", "show", NAME.replace("0", "1"))[0] == 1
    assert pcmig(capsys, "tunnel", "show", "x")[0] == 2


def test_probe(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = pcmig(capsys, "tunnel", "probe", "b")
    assert code == 0 and "b answers: CN=b, O=acme" in text
    assert "good until 2028-10-24" in text and "90 s behind this host's" in text
    assert json.loads(pcmig(capsys, "tunnel", "probe", "--json", "b")[1])["clock_skew_ms"] == -90000
    daemon.refusal = "connection refused"
    code, text = pcmig(capsys, "tunnel", "probe", "b:16600")
    assert code == 1 and "the tunnel refuses: connection refused" in text


def test_close(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.names[NAME] = ""
    assert pcmig(capsys, "tunnel", "close", NAME) == (0, f"{NAME} closed\n")
    code, text = pcmig(capsys, "tunnel", "close", NAME)
    assert code == 1 and f"unknown name {NAME}" in text
    assert pcmig(capsys, "tunnel", "close", "x")[0] == 2


def test_peers(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answer = lambda _: b"ok\n"
    assert pcmig(capsys, "tunnel", "peers") == (0, "no host with a certificate was connected yet\n")
    daemon.answer = lambda _: (
        b"ok fingerprint=12 serial=0456 subject=CN=b,O=a%20corp not_after=1 address=10.0.0.2:1 "
        b"accepted=2 dialled=0 ever=7 seen_ms=5 fingerprint=cd serial=AF subject= not_after=1 "
        b"address=[::1]:2 accepted=0 dialled=1 ever=1 seen_ms=1\n"
    )
    code, text = pcmig(capsys, "tunnel", "peers")
    titles, one, other = text.splitlines()
    assert code == 0 and titles.split()[0] == "subject"
    assert one.split() == ["CN=b,O=a", "corp", "10.0.0.2:1", "2", "0", "7", "0456", "12"]
    assert other.split() == ["[::1]:2", "0", "1", "1", "AF", "cd"]
    peers = json.loads(pcmig(capsys, "tunnel", "peers", "--json")[1])["peers"]
    assert [peer["ever"] for peer in peers] == [7, 1] and peers[0]["serial"] == "0456"


def test_reload(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    for answer, code, said in (
        (b"ok\n", 0, "reloaded\n"),
        (b"ok user,workers\n", 0, "when the daemon is started again: user, workers"),
        (
            b"error crl.pem: CRL has expired\n",
            1,
            "everything stays as it was: the tunnel refuses: crl.pem: CRL",
        ),
    ):
        daemon.answer = lambda _, answer=answer: answer
        got, text = pcmig(capsys, "tunnel", "reload")
        assert got == code and said in text
    assert set(daemon.asked) == {"reload"}


def test_keygen(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "pki")
    words = ["tunnel", "keygen", "--out", out]
    code, text = pcmig(capsys, *words, "a,10.0.0.1", "b")
    assert code == 0 and f"{out}/a/, good until" in text and "systemctl enable --now" in text
    code, text = pcmig(capsys, *words, "a")
    assert code == 1 and "--force replaces it" in text
    code, text = pcmig(capsys, *words, "--force", "a", "c")
    assert code == 0 and "ca.pem (was there)" in text
    for bad in (["a", "a,x"], ["--days", "0", "d"], ["d:1"], ["../d"], [","]):
        assert pcmig(capsys, *words, *bad)[0] == 2
    assert sorted(path.name for path in pathlib.Path(out).iterdir()) == [
        ".lock",
        "a",
        "b",
        "c",
        "ca-key.pem",
        "ca.pem",
        "issued.pem",
    ]


def test_keygen_after_the_first_day(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, host = str(tmp_path / "pki"), str(tmp_path / "host")
    words = ["tunnel", "keygen", "--out", out]
    assert pcmig(capsys, *words, "a", "b")[0] == 0
    code, text = pcmig(capsys, "tunnel", "keygen", "--request", "--out", host, "c,10.0.0.3")
    assert code == 0 and "keygen --sign host.csr" in text
    code, text = pcmig(capsys, *words, "--sign", f"{host}/host.csr")
    assert code == 0 and ": c, 10.0.0.3" in text and "put ca.pem, host.pem beside the host's key" in text
    code, text = pcmig(capsys, *words, "--revoke", "b", "--crl-days", "9")
    assert code == 0 and "crl.pem, good until" in text and ", for a, c\n" in text
    code, text = pcmig(capsys, *words, "--drop-old-ca")
    assert code == 1 and "no change of the CA is under way" in text
    code, text = pcmig(capsys, *words, "--sign", f"{host}/host.csr")
    assert code == 0 and "put ca.pem, host.pem, crl.pem beside" in text, "or it would let b in"
    before = (tmp_path / "pki/b/host.pem").read_bytes()
    code, text = pcmig(capsys, *words, "--renew")
    assert code == 0 and [line.split()[0] for line in text.splitlines()[:3]] == ["a", "c", "b"]
    assert "left out: its certificate is revoked; to let it in again: pcmig tunnel keygen --renew b" in text
    assert (tmp_path / "pki/b/host.pem").read_bytes() == before
    code, text = pcmig(capsys, *words, "--renew", "a")
    assert code == 0 and text.startswith("a ") and "pcmig tunnel reload" in text
    code, text = pcmig(capsys, *words, "--renew", "d")
    assert code == 1 and "has no host d: there are a, b, c" in text
    code, text = pcmig(capsys, *words, "--new-ca")
    assert code == 0 and "ca.pem has both CAs now, for a, c" in text
    code, text = pcmig(capsys, *words, "--renew")
    assert code == 0 and "left out" in text
    code, text = pcmig(capsys, *words, "--drop-old-ca", "--crl-days", "5")
    assert code == 0 and "the new CA alone for a, c" in text
    crl = x509.load_pem_x509_crl((tmp_path / "pki/a/crl.pem").read_bytes())
    assert crl.next_update_utc is not None
    assert (crl.next_update_utc - datetime.datetime.now(datetime.UTC)).days in (4, 5)
    code, text = pcmig(capsys, *words, "--renew", "b")
    assert code == 0 and "of a CA that nobody trusts any more: this one lets it in again" in text
    for bad in (["--renew", "--revoke"], ["--new-ca", "a"], ["--request"], [], ["--request", "a", "b"]):
        assert pcmig(capsys, *words, *bad)[0] == 2


def test_two_keygens_at_once(tmp_path: pathlib.Path) -> None:
    """Each notes what it has made: what is not noted cannot be revoked."""
    out = tmp_path / "pki"
    words = [sys.executable, "-m", "pcmig.cli", "tunnel", "keygen", "--out", str(out)]
    subprocess.run([*words, "a"], check=True, capture_output=True)
    with keygen.alone(out):
        both = [subprocess.Popen([*words, name], stdout=subprocess.DEVNULL) for name in "bc"]
        time.sleep(1.5)
        assert [one.poll() for one in both] == [None, None] and not (out / "b").exists()
    assert [one.wait(PATIENCE_S) for one in both] == [0, 0]
    names = [one.subject.rfc4514_string() for one in keygen.issued(out)]
    assert sorted(names) == ["CN=a", "CN=b", "CN=c"]


def test_metrics(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    daemon.answer = lambda _: (
        b"ok handshakes_accepted=3 refused_name=2 bytes_out=5 ends_crl=0 ends_ca=2000000000\n"
    )
    path = tmp_path / "pcmig.prom"
    code, text = pcmig(capsys, "tunnel", "metrics")
    assert code == 0 and 'pcmig_tunnel_refused_total{reason="name"} 2' in text and '"crl"' not in text
    assert pcmig(capsys, "tunnel", "metrics", "--textfile", str(path))[0] == 0
    assert path.read_text() == text
    code, text = pcmig(capsys, "tunnel", "metrics", "--control", str(tmp_path / "none"))
    assert code == 1 and "is not running" in text
    code, text = pcmig(
        capsys, "tunnel", "metrics", "--control", str(tmp_path / "none"), "--textfile", str(path)
    )
    assert code == 1 and path.read_text().endswith("pcmig_tunnel_up 0.0\n")
    code, text = pcmig(capsys, "tunnel", "metrics", "--textfile", str(tmp_path / "no/x.prom"))
    assert code == 1 and "cannot be written: No such file" in text


def test_metrics_without_the_library(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(main.sys.modules, "prometheus_client", None)  # type: ignore[attr-defined]
    code, said = pcmig(capsys, "tunnel", "metrics")
    assert code == 1 and "pip install prometheus-client" in said and "python3-prometheus-client" in said
    assert "Traceback" not in said


def test_settings_of_the_daemon(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "tunnel.conf"
    conf.write_text("[tunnel]\nlistne = x\n")
    code, text = pcmig(capsys, "tunnel", "--config", str(conf))
    assert code == 2 and "did you mean listen" in text
    code, text = pcmig(capsys, "tunnel", "--config", str(tmp_path / "none"))
    assert code == 2 and "No such file" in text
    code, text = pcmig(capsys, "tunnel", "--listen", "b:x")
    assert code == 2 and "'x' is no port" in text
    code, text = pcmig(capsys, "tunnel", "--plaintext")
    assert code == 2 and "says both" in text


def test_commands_of_two_words(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = pcmig(capsys, "tunnel", "kegen")
    assert code == 2 and "did you mean 'tunnel keygen'" in text
    code, text = pcmig(capsys, "help", "tunnel", "kegen")
    assert code == 2 and "did you mean 'tunnel keygen'" in text
