# SPDX-License-Identifier: Apache-2.0
"""The evaluation: which cells there are, what is made of their rows, what the page says."""

from __future__ import annotations

import argparse
import io
import os
import pathlib
import re
import stat
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.bed import BedError, GuestSpec, Heartbeat, accel
from tests.bed.accel import Accel
from tests.bench.calm import unsteady
from tests.bench.evaluation import __main__ as evaluation
from tests.bench.evaluation import database, rst
from tests.bench.evaluation.cells import DEFAULT_WAYS, LOADS, WAYS, cells, parse_list, parse_rates
from tests.bench.evaluation.database import DatabaseSpec, Transaction
from tests.bench.evaluation.figures import (
    Outcome,
    derived,
    known,
    limited_by,
    merge,
    outcome,
    places,
    statements,
)
from tests.bench.evaluation.page import page
from tests.bench.evaluation.remote import _EMULATOR, _SERIAL, Jobs, Pair, RemoteHost, check_uri, usual_mbit
from tests.bench.switchover import poll_client

FROM_A, TO_B = ["--source", "qemu+ssh://a/system"], ["--destination", "qemu+ssh://b/system"]
HEAVY_PPS = LOADS["heavy"].write_pps + LOADS["heavy"].verify_pps


def row(way: str, ended: bool = True, load: str = "heavy", rate: float = 100, **more: Any) -> dict[str, Any]:
    return {
        "way": way,
        "round": 1,
        "load": load,
        "rate_mbit": rate,
        "transport": "plain",
        "error": None,
        "ended": ended,
        "complete_s": 20.0 if ended else None,
        "command_s": 60.0,
        "guest_switch_silence_ms": 80.0 if ended else None,
        "guest_later_silence_ms": 50.0 if ended else None,
        "bytes": 250_000_000,
        "busy_percent": 50.0,
        "baseline_pps": HEAVY_PPS if load == "heavy" else 0,
        "work_pages": 100_000,
        "work_elapsed_s": 20.0,
        "huge_mib": {"before": 40.0, "0": 2.0},
        "after": [{"from_s": 0, "to_s": 10, "pps": HEAVY_PPS // 2}] if ended else [],
        **more,
    }


def test_cells() -> None:
    ways = [WAYS[name] for name in ("virsh", "pcmig")]
    found = list(cells(["idle", "heavy"], [100, 1000], ["plain", "tunnel"], ways))
    assert len(found) == 2 * 2 * 3, "virsh does not know the tunnel"
    assert [cell.load for cell in found] == ["idle"] * 6 + ["heavy"] * 6, "each load needs a guest of its own"
    assert found[2].name == "idle, 100 Mb/s, tunnel"
    assert parse_list("--ways", DEFAULT_WAYS, WAYS)


def test_what_is_asked_for_wrongly() -> None:
    with pytest.raises(BedError, match="--loads idle,busy: 'busy' is none of idle, medium, heavy, database"):
        parse_list("--loads", "idle,busy", LOADS)
    with pytest.raises(BedError, match="names none"):
        parse_list("--loads", " ,", LOADS)
    assert parse_rates("100, 1e3,100") == [100, 1000]
    for wrong in ("", "fast", "0.5", "200000", "nan", "100,,1000"):
        with pytest.raises(BedError, match="is no rate in Mb/s: use 1 to 100000"):
            parse_rates(wrong)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--give-up", "2"], "bench: --give-up 2: use 5 s or more\n"),
        (["--after", "-1"], "bench: --after -1: use 0 s or more\n"),
        (["--ways", "postcopy"], "bench: --ways postcopy: 'postcopy' is none of "),
        (["--html", "/nowhere/page.html"], "bench: --html /nowhere/page.html: cannot be written\n"),
    ],
)
def test_refused_before_anything_starts(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluation.main(words) == 2
    assert capsys.readouterr().err.startswith(said)


def test_iterations_as_guestperf_counts_them() -> None:
    at_once, fifth = poll_client.when("0"), poll_client.when("5")
    stats = dict.fromkeys(poll_client.FIELDS, 0)
    assert not at_once(stats), "the job has no memory yet"
    assert at_once(stats | {"memory_total": 1}) and not fifth(
        stats | {"memory_total": 1, "memory_iteration": 4}
    )
    assert fifth(stats | {"memory_total": 1, "memory_iteration": 5})
    with pytest.raises(argparse.ArgumentTypeError, match="'later': use iteration, pass or a number"):
        poll_client.when("later")


@pytest.mark.parametrize(
    ("sent", "busy", "word"),
    [
        (250_000_000, 99, "link"),  # 100 Mb/s for 20 s
        (180_000_000, 99, "processor"),
        (180_000_000, 60, "QEMU and libvirt"),
    ],
)
def test_what_limited_it(sent: int, busy: float, word: str) -> None:
    assert limited_by(row("virsh", bytes=sent, busy_percent=busy)) == word


def test_figures() -> None:
    found = derived(row("pcmig"))
    assert found["kept_during"] == 100_000 / 20 / HEAVY_PPS
    assert found["kept_0_10"] == 0.5
    assert (found["huge_before"], found["huge_0"]) == (40.0, 2.0)
    assert derived(row("pcmig", load="idle"))["kept_0_10"] is None, "who does nothing keeps nothing"


def test_outcome() -> None:
    rows = [
        row("virsh"),
        row("virsh", complete_s=30.0),
        row("virsh", ended=False),
        row("virsh", error="gone"),
    ]
    found = outcome(rows, ("heavy", 100, "plain"), "virsh")
    assert found is not None and (found.ended, len(found.rows), found.median("complete_s")) == (2, 3, 25.0)
    assert outcome(rows, ("idle", 100, "plain"), "virsh") is None
    assert places(rows) == [("heavy", 100, "plain")]


def words_of(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {each.text.partition(",")[0]: each.word for each in statements(rows)}


def test_statements() -> None:
    rows = [row("post-copy-0"), row("pre-copy", ended=False), row("pre-copy", rate=1000)]
    found = words_of(rows)
    assert found["post-copy ends"] == "holds"
    assert found["pre-copy does not end when the guest writes more than the link carries"] == "holds"
    assert found["pre-copy ends when the guest writes less than the link carries"] == "holds"
    assert found["10 Gb/s against 1 Gb/s"] == "not measured"
    assert words_of([row("pre-copy")])[
        "pre-copy does not end when the guest writes more than the link carries"
    ] == ("does not hold")
    pair = [row("pcmig", rate=1000), row("pcmig", rate=10_000, complete_s=5.0, busy_percent=99.0)]
    told = statements(pair)[-1]
    assert told.evidence == "heavy: 20.0 s to 5.0 s (4.0 times; limited by processor)"


def test_page() -> None:
    pytest.importorskip("matplotlib")
    content = {
        "started": "2026-01-01T00:00:00+00:00",
        "give_up_s": 60.0,
        "accelerator": "TCG",
        "machine": {
            "cores": 2,
            "cpu": "a <processor>",
            "memory_mib": 1,
            "kernel": "6.1",
            "stacks": {"backports": {"qemu": "10.0.2", "libvirt": "11.3.0"}},
        },
        "ways": {"pre-copy": "", "pcmig": ""},
        "rounds": [row("pre-copy", ended=False), row("pcmig")],
    }
    text = page(content)
    assert "a &lt;processor&gt;" in text and "<processor>" not in text
    assert "not within 60 s" in text and text.count("<svg") == 1
    assert "<td>20.0</td>" in text and "<td>80</td>" in text and "<td>50</td>" in text
    # Names of XML are addresses too, and are not fetched.
    assert not re.search(r"(src|href)=.?(https?:)?//", text) and "url(http" not in text
    assert page(content) == text


def test_tables() -> None:
    content = {
        "give_up_s": 60.0,
        "accelerator": "QEMU's emulation (TCG)",
        "ways": {"pre-copy": "", "pcmig": ""},
        "rounds": [row("pre-copy", ended=False), row("pcmig", rate=1000)],
    }
    text = rst.tables(content)
    assert "   * - 100 Mb/s, ``pre-copy``\n     - **not within 60 s**\n     - -\n" in text
    assert "   * - 1 Gb/s, ``pcmig``\n     - 20.0\n     - 80\n     - 50\n     - 250\n" in text
    assert "10-30 s after" not in text, "nobody looked"
    assert "     - QEMU and libvirt\n" in text
    content["rounds"] = [row("pcmig", bytes=1, busy_percent=99.0)]
    assert "     - processor (emulation)\n" in rst.tables(content)
    assert "     - processor\n" in rst.tables(content | {"accelerator": "KVM"})


def test_what_is_said_has_a_file_of_its_own(tmp_path: pathlib.Path) -> None:
    content = {
        "give_up_s": 60.0,
        "accelerator": "KVM",
        "ways": {"pre-copy": "", "pcmig": ""},
        "rounds": [row("pre-copy", ended=False)],
    }
    rst.write(content, tmp_path / "evaluation-table.inc")
    assert "What is said" not in (tmp_path / "evaluation-table.inc").read_text()
    told = (tmp_path / "evaluation-said.inc").read_text()
    assert (
        "   * - pre-copy does not end when the guest writes more than the link carries\n     - holds\n"
        in told
    )
    with pytest.raises(BedError, match=r"--rst /nowhere/table\.inc: No such file"):
        rst.write(content, pathlib.Path("/nowhere/table.inc"))


def test_runs_that_belong_together_become_one() -> None:
    one: dict[str, Any] = {
        "accelerator": "KVM",
        "give_up_s": 60.0,
        "machine": {"cores": 2},
        "ways": {"virsh": ""},
        "rounds": [1],
    }
    merge(one, one | {"ways": {"pcmig": ""}, "rounds": [2, 3]})
    assert (list(one["ways"]), one["rounds"]) == (["virsh", "pcmig"], [1, 2, 3])
    with pytest.raises(BedError, match=r"give_up_s is 60\.0 in one, and 40 in the other"):
        merge(one, one | {"give_up_s": 40})


def test_readme_names_every_way() -> None:
    readme = (pathlib.Path(evaluation.__file__).parents[1] / "README.rst").read_text()
    text = readme.partition("\nevaluation\n")[2].partition("\nmany\n")[0]
    for name in WAYS:
        assert f"``{re.sub(r'=.*', '=N', name)}``" in text, name


# A database as load


def test_a_heartbeat_carries_the_slowest_transaction() -> None:
    assert database.parse_line("12.5000 a TX 4000 25000") == Transaction(4000, 25_000)
    for other in ("12.5000 a HB 1 4000 7 0 0 0", "12.5000 a TX 4000", "a TX 4000 25000", "12.5 a TX 1 2 3"):
        assert database.parse_line(other) is None


def beat(time_s: float, guest_ms: int, host: str = "a") -> Heartbeat:
    return Heartbeat(time_s, host, 0, guest_ms, 0, 0, 0, 0)


def test_a_transaction_in_which_the_guest_stood_still_took_as_long_as_a_client_waited() -> None:
    # The guest's clock shows 40 ms from 1.02 to 3.06: it stood still for 2 s, within a transaction of 30 ms.
    beats = [beat(1.0, 5000), beat(1.02, 5020), beat(3.06, 5060, "b"), beat(3.08, 5080, "b")]
    (found,) = [database.slowest_ms([Transaction(5070, 55_000)], beats, 1.0, 4.0)]
    assert found == pytest.approx(3070 - 1015, abs=1)
    assert database.slowest_ms([Transaction(5070, 8_000)], beats, 1.0, 4.0) == pytest.approx(8, abs=1)


def test_only_transactions_that_ended_in_the_window() -> None:
    beats = [beat(10 + i / 50, 1000 + 20 * i) for i in range(100)]
    seen = [Transaction(1100, 10_000), Transaction(2000, 30_000), Transaction(2900, 90_000)]
    assert database.slowest_ms(seen, beats, 10.5, 11.5) == pytest.approx(30)
    assert database.slowest_ms(seen, beats, 10.0, 12.0) == pytest.approx(90)
    assert database.slowest_ms(seen, beats, 11.2, 11.5) is None
    assert database.slowest_ms([Transaction(999, 10)], beats, 0.0, 20.0) is None, "before any heartbeat"


def test_figures_of_the_database() -> None:
    raw = row("pcmig", load="database", baseline_pps=200, after=[{"from_s": 0, "to_s": 10, "pps": 150}])
    found = derived(raw | {"dirty_mb_s": 14.0, "slowest_ms": {"before": 60.0, "during": 900.0, "0_10": 80.0}})
    assert (found["tps_before"], found["tps_during"], found["tps_0_10"]) == (200, 5000, 150)
    assert "kept_0_10" not in found, "a share of what is never even says nothing"
    assert (found["slowest_before"], found["slowest_during"], found["slowest_0_10"]) == (60.0, 900.0, 80.0)
    shown = [figure.title for figure in known([Outcome((found,))])]
    assert "transactions before" in shown and "slowest during" in shown
    assert "transactions before" not in [
        figure.title for figure in known([Outcome((derived(row("pcmig")),))])
    ]


@pytest.mark.parametrize(("dirty", "word"), [(14.0, "holds"), (12.0, "not measured"), (None, "not measured")])
def test_what_a_database_writes_is_sampled(dirty: float | None, word: str) -> None:
    found = words_of([row("pre-copy", ended=False, load="database", dirty_mb_s=dirty)])
    if dirty is None:
        assert found["pre-copy ends when the guest writes less than the link carries"] == "not measured"
    assert found["pre-copy does not end when the guest writes more than the link carries"] == word


def test_the_database_guest() -> None:
    spec = DatabaseSpec()
    spec.check()
    assert " -- clients=4 heartbeat_ms=20<" in spec.xml()
    with pytest.raises(BedError, match="a guest of 256 MiB does not hold its database: use 448 or more"):
        DatabaseSpec(memory_mib=256).check()


def test_an_image_is_what_its_folder_is(tmp_path: pathlib.Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("data/file")
    found = list(database.tree(tmp_path))
    assert [entry.name for entry in found] == ["data", "data/file", "link"], "a folder before what is in it"
    assert [stat.S_IFMT(entry.mode) for entry in found] == [stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK]
    assert found[0].mode & 0o777 == 0o700 and found[1].content == b"abc" and found[2].content == b"data/file"
    assert {entry.owner for entry in found} == {os.getuid()}


def test_calm_is_looser_for_what_is_never_even() -> None:
    beats = [Heartbeat(i / 50, "a", i, 20 * i, i * (1 if i < 75 else 2), 0, 0, 0) for i in range(151)]
    assert "pages/s of work in a second" in (unsteady(beats, 3.0, "a", 20) or "")
    assert unsteady(beats, 3.0, "a", 20, work_ratio=0.3) is None


# Hosts of one's own


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--source", "qemu+ssh://a/system"], "--source and --destination: hosts of your own are two"),
        (["--source", "qemu:///system", *TO_B], "so it has to name this host: qemu+ssh://root@HOST/system"),
        (
            ["--source", "xen+ssh://a/system", *TO_B],
            "--source xen+ssh://a/system: use a URI of QEMU's system",
        ),
        (["--source", "qemu+ssh://a/session", *TO_B], "use a URI of QEMU's system driver"),
        (["--source", "qemu+unix://a/system?socket=/x", *TO_B], "so it has to name this host"),
        ([*FROM_A, *TO_B, "--rates", "100"], "--rates 100: the link of hosts of your own is measured"),
        ([*FROM_A, *TO_B, "--transports", "tunnel"], "--transports tunnel: the link of hosts of your own"),
        (["--accel", "kvm"], "--accel kvm: "),
        (["--add", "other.json"], "--add: adds a recorded run to another one, which --from names"),
    ],
)
def test_hosts_that_cannot_be(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel.Machine, "why_no_kvm", lambda _: "there is none")
    assert evaluation.main(words) == 2
    assert said in capsys.readouterr().err


def test_where_memory_goes_to() -> None:
    assert check_uri("--source", "qemu+ssh://root@a.example:22/system") == "a.example"
    six = RemoteHost("a", pathlib.Path("/tmp/a"), "qemu+tcp://[fd00::1]/system", "fd00::1")
    assert six.migrate_uri == "tcp://[fd00::1]" and six.inner_uri == six.remote_uri == six.uri


def test_the_rate_of_a_link_that_is_not_ours() -> None:
    samples = [(i / 50, i * 250_000) for i in range(50)]  # 12.5 MB/s
    assert usual_mbit(samples) == pytest.approx(100)
    filled = [(0.0, 0), *((0.02 + at_s, 10_000_000 + sent) for at_s, sent in samples)]
    assert usual_mbit(filled) == pytest.approx(100), "nor of the buffers that are full at once"
    burst = [(0.0, 0), (0.02, 50_000_000), (0.04, 50_000_000), (0.3, 50_000_000)]
    assert usual_mbit(burst) == pytest.approx(50_000_000 * 8e-6 / 0.3, rel=0.01), "of more than one look"
    assert usual_mbit(samples[:5]) is None and usual_mbit([]) is None


def test_what_libvirt_says_of_an_ended_job() -> None:
    jobs = Jobs(())
    said = "event 'job-completed' for domain 'g':\n\tmemory_processed: 700\n\tdisk_processed: 50\n"
    jobs._read("a", io.StringIO(said))
    assert jobs.sent("a", 0.0) == 750


def test_the_guest_of_real_hosts_is_of_their_own_qemu(tmp_path: pathlib.Path) -> None:
    text = _SERIAL.sub("<serial type='pty'/>", _EMULATOR.sub("", GuestSpec().xml()))
    domain = ElementTree.fromstring(text)
    assert domain.find("devices/emulator") is None
    assert [each.get("type") for each in domain.findall("devices/serial")] == ["pty"]


class Talk:
    """What virsh says on each host, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.says: dict[tuple[str, str], str | BedError] = {
            (host, "capabilities"): f"<host><uuid>{host}</uuid></host>" for host in "ab"
        }
        monkeypatch.setattr(RemoteHost, "virsh", lambda host, *words, **_: self.answer(host.name, *words))

    def answer(self, host: str, *words: str) -> str:
        self.asked.append((host, *words))
        said = self.says.get((host, words[0]), "")
        if isinstance(said, BedError):
            raise said
        return said


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    return Talk(monkeypatch)


def a_pair(said: list[str], wanted: str | None = None) -> Pair:
    return Pair(
        "backports",
        ("qemu+ssh://a/system", "qemu+ssh://b/system"),
        ("a", "b"),
        accelerator=wanted,
        images=lambda _: pathlib.Path(),
        reporter=said.append,
    )


def test_one_host_is_not_two(talk: Talk) -> None:
    talk.says["b", "capabilities"] = str(talk.says["a", "capabilities"])
    pair = a_pair([])
    with pytest.raises(BedError, match=r"are the same host \(a\): name two"):
        pair._look()
    pair.down()
    assert not any(words[1] == "destroy" for words in talk.asked), "nothing of ours is there yet"
    assert not pair.state.exists()


def test_a_guest_of_that_name_is_somebody_elses(talk: Talk) -> None:
    talk.says["b", "list"] = "web\npcmig-evaluation\n"
    pair = a_pair([])
    with pytest.raises(BedError, match=r"qemu\+ssh://b/system has a guest pcmig-evaluation, of a run"):
        pair._look()
    pair.down()
    assert not any(words[1] == "destroy" for words in talk.asked)


@pytest.mark.parametrize(("wanted", "found"), [(None, Accel.TCG), ("auto", Accel.TCG), ("tcg", Accel.TCG)])
def test_kvm_only_where_both_hosts_have_it(talk: Talk, wanted: str | None, found: Accel) -> None:
    talk.says["b", "domcapabilities"] = BedError("the accel 'kvm' is not supported")
    assert a_pair([], wanted)._accel() is found
    with pytest.raises(BedError, match="--accel kvm: the accel 'kvm' is not supported"):
        a_pair([], "kvm")._accel()
    del talk.says["b", "domcapabilities"]
    assert a_pair([], "auto")._accel() is Accel.KVM


def test_of_two_runs_that_begin_together_one_is_refused(talk: Talk, tmp_path: pathlib.Path) -> None:
    """By libvirt itself, which defines a name once; and nothing of the other run's is taken away."""
    for name in ("vmlinuz", "initramfs"):
        (tmp_path / name).write_bytes(b"12345")
    first, second = a_pair([]), a_pair([])
    assert first.pool == second.pool
    for host in first.remote:
        first._furnish(host, tmp_path)
    talk.says["b", "pool-define-as"] = BedError("storage pool 'pcmig-evaluation' already exists with uuid x")
    talk.says["b", "pool-list"] = f"default\n{second.pool}\n"
    second._furnish(second.a, tmp_path)
    with pytest.raises(BedError, match=r"qemu\+ssh://b/system has a pool pcmig-evaluation, of a run that"):
        second._furnish(second.b, tmp_path)
    talk.asked.clear()
    second.down()
    assert {words[0] for words in talk.asked} == {"a"}, "its own are taken away"
    del talk.says["b", "pool-list"]
    with pytest.raises(BedError, match="already exists"):  # another thing that is wrong is told as it is
        second._furnish(second.b, tmp_path)


def test_what_is_left_at_a_host_is_told(talk: Talk, tmp_path: pathlib.Path) -> None:
    for name in ("vmlinuz", "initramfs"):
        (tmp_path / name).write_bytes(b"12345")
    told: list[str] = []
    pair = a_pair(told)
    for host in pair.remote:
        pair._furnish(host, tmp_path)
    assert ("a", "vol-create-as", pair.pool, "vmlinuz", "5", "--format", "raw") in talk.asked
    told.clear()
    talk.says["b", "pool-list"] = f"default\n{pair.pool}\n"
    talk.says["a", "pool-destroy"] = BedError("no such pool")
    pair.down()
    assert told == [
        f"left at qemu+ssh://b/system: guest pcmig-evaluation or pool {pair.pool}; virsh removes them"
    ]
    asked = [words[1] for words in talk.asked if words[0] == "a"]
    assert asked[-7:-1] == [
        "vol-delete",
        "vol-delete",
        "pool-destroy",
        "pool-delete",
        "pool-undefine",
        "pool-list",
    ]
    talk.asked.clear()
    pair.down()
    assert talk.asked == [], "once is enough"
