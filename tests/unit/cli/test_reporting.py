# SPDX-License-Identifier: Apache-2.0
"""`pcmig report`: what it takes, what it writes, and what it says of files that are not right."""

from __future__ import annotations

import builtins
import json
import os
import pathlib
import sys
from typing import Any

import pytest

from pcmig import _core
from pcmig.cli import reporting
from pcmig.journal import Journal
from pcmig.ledgers.store import Store
from tests.unit.cli.conftest import pcmig
from tests.unit.ledgers import made

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"


@pytest.fixture
def kept(book: Journal, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[pathlib.Path]:
    """Three of g1 and one of g2; the test works in a folder of its own."""
    document = made.document(tmp_path)
    store = Store(book.folder / "ledgers")
    paths = []
    for day, name, uuid in (
        (25, "g1", made.UUID),
        (26, "g2", OTHER),
        (27, "g1", made.UUID),
        (28, "g1", made.UUID),
    ):
        ended = f"2026-11-{day}T10:00:00.000Z"
        path = store.add({**document, "guest": {"name": name, "uuid": uuid}, "ended": ended})
        assert path is not None
        paths.append(path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return paths


def test_the_last_one_of_a_guest(kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, text = pcmig(capsys, "report", "g1")
    assert (code, text) == (0, "g1-20261128T100000Z.html\n")
    page = pathlib.Path("g1-20261128T100000Z.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and str(kept[3]) in page


@pytest.mark.parametrize(
    ("words", "which"),
    [
        (("g1", "--last", "2"), [2, 3]),
        (("--last", "2"), [2, 3]),
        (("--last", "9"), [0, 1, 2, 3]),
        ((OTHER,), [1]),
        (("g2", "g1"), [1, 3]),
    ],
)
def test_which(
    kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], which: list[int]
) -> None:
    code, text = pcmig(capsys, "report", *words, "--json")
    assert code == 0
    assert json.loads(text) == [json.loads(kept[i].read_text()) for i in which]


def test_files(kept: list[pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "made.trace"
    code, text = pcmig(
        capsys, "report", str(kept[0]), str(trace), "--compare", "--html", "c.html", "--pdf", "c.pdf"
    )
    assert (code, text) == (0, "c.html\nc.pdf\n")
    page = pathlib.Path("c.html").read_text()
    assert "2 migrations side by side" in page and "A g1" in page and "B made.trace" in page
    assert pathlib.Path("c.pdf").read_bytes().startswith(b"%PDF-")


def test_a_trace_that_is_cut_is_named_and_the_rest_is_shown(
    kept: list[pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "made.trace"
    text = trace.read_text()
    number = text.rindex("queue_bytes=0\n")  # of the last sample: an end that no number would betray
    trace.write_text(text[: number + len("queue_bytes=0")])
    line = text[:number].count("\n") + 1
    code, said = pcmig(capsys, "report", str(trace), "--html", "c.html")
    assert code == 1 and f"note: {trace} ends within line {line}" in said and "c.html" in said
    page = pathlib.Path("c.html").read_text()
    assert f"ends within line {line}" in page and "made.trace" in page
    code, said = pcmig(capsys, "report", str(trace), "--json")
    document = json.JSONDecoder().raw_decode(said, said.index("["))[0][0]
    assert len(document["more"]["lacks"]) == 1 and document["outcome"] == "unknown"


def test_a_trace_of_another_version_is_shown_without_what_is_not_known(
    kept: list[pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "made.trace"
    head, _, rest = trace.read_text().partition("\n")
    trace.write_text(f"{head}\n# pcmig 9.8.7\n" + rest.replace(" sample ", " sample heat=x "))
    code, said = pcmig(capsys, "report", str(trace), "--html", "c.html")
    assert code == 1 and f"note: {trace} was written by pcmig 9.8.7, and this one is {_core.VERSION}" in said
    assert "unknown key 'heat' in a sample" in said
    assert "was written by pcmig 9.8.7" in pathlib.Path("c.html").read_text()


def test_only_a_pdf(kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert pcmig(capsys, "report", "g1", "--pdf", "g1.pdf") == (0, "g1.pdf\n")
    assert os.listdir() == ["g1.pdf"]


def test_what_json_wrote(
    kept: list[pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(kept[0].read_text())
    result = {
        "schema": 1,
        "command": "migrate",
        "domain": "g1",
        "name": "g1",
        "uuid": made.UUID,
        "source_uri": "qemu:///system",
        "dest_uri": "qemu+tcp://b/system",
        "policy": "auto",
        "params": {},
        "flags": [],
        "outcome": "completed",
        "started": "2026-11-29T20:00:00.000Z",
        "ended": "2026-11-29T20:00:38.446Z",
        "status": {
            "elapsed_ms": 38446,
            "outcome": "completed",
            "error": None,
            "operator_command": None,
            "link_bps": 12_000_000,
            "quickack": "set",
        },
        "ledger": document["ledger"],
        "decisions": document["decisions"],
        "tunnel": None,
    }
    (tmp_path / "r.json").write_text(json.dumps(result))
    assert pcmig(capsys, "report", str(tmp_path / "r.json"), "--html", "r.html") == (0, "r.html\n")
    assert "This was made of what --json wrote" in pathlib.Path("r.html").read_text()
    (tmp_path / "r.json").write_text(json.dumps({**result, "ledger": None, "error": "no such guest"}))
    code, text = pcmig(capsys, "report", str(tmp_path / "r.json"))
    assert code == 1 and "is of a migration that never began (no such guest)" in text
    (tmp_path / "r.json").write_text(json.dumps({**result, "schema": 2}))
    code, text = pcmig(capsys, "report", str(tmp_path / "r.json"))
    assert code == 1 and "was written by another pcmig" in text
    del result["status"]
    (tmp_path / "r.json").write_text(json.dumps(result))
    code, text = pcmig(capsys, "report", str(tmp_path / "r.json"))
    assert code == 1 and "has no valid 'status'" in text


def test_the_list(kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, text = pcmig(capsys, "report")
    lines = text.splitlines()
    assert code == 0
    assert lines[0].split("  ")[0] == "ended" and "stood still" in lines[0]
    assert [line.split()[2] for line in lines[1:]] == ["g1", "g2", "g1", "g1"]
    assert "completed" in lines[1] and "post-copy" in lines[1] and "38.4 s" in lines[1]
    code, text = pcmig(capsys, "report", "--list", "g2")
    assert len(text.splitlines()) == 2
    assert os.listdir() == []


def test_nothing_is_kept_yet(book: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    assert pcmig(capsys, "report") == (0, "no ledger is kept here yet\n")
    code, text = pcmig(capsys, "report", "--last", "1")
    assert code == 1 and f"no ledger is kept in {book.folder / 'ledgers'}" in text
    code, text = pcmig(capsys, "report", "g9")
    assert code == 1 and "no ledger of a guest 'g9' is kept in" in text and "'pcmig report' lists" in text


def test_damaged_ones_are_named_and_the_others_shown(
    kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    kept[2].write_text(kept[2].read_text()[:1000])
    kept[1].write_text(kept[1].read_text().replace('"version":1', '"version":9', 1))
    code, text = pcmig(capsys, "report")
    assert code == 1
    assert f"note: {kept[2]} is no JSON, or only the beginning of it" in text
    assert f"note: {kept[1]} was written by a newer pcmig, {_core.VERSION} (version 9" in text
    assert len([line for line in text.splitlines() if line.startswith("2026-")]) == 2
    code, text = pcmig(capsys, "report", "--last", "2", "--html", "r.html")
    assert code == 1 and str(kept[2]) in text
    page = pathlib.Path("r.html").read_text()
    assert str(kept[0]) in page and str(kept[3]) in page


def test_one_that_is_damaged_within(kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = json.loads(kept[2].read_text())
    del document["ledger"]["phases"][0]["start_us"]
    kept[2].write_text(json.dumps(document))
    code, text = pcmig(capsys, "report", "g1", "--last", "2", "--html", "r.html")
    assert code == 1
    assert f"{kept[2]} cannot be shown, it is damaged: KeyError: 'start_us'" in text
    page = pathlib.Path("r.html").read_text()
    assert str(kept[3]) in page and str(kept[2]) not in page


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("ledger", "latency", "mean_us"), 10**400, "OverflowError"),
        (("ledger", "latency"), "x", "TypeError"),
        (("ledger", "latency", "buckets"), ["a"] * 24, "TypeError"),
        (("tunnel",), "x", "AttributeError"),
    ],
    ids=["huge", "text", "texts", "tunnel"],
)
@pytest.mark.parametrize("more", [(), ("--compare",)])
def test_whatever_a_figure_is_there_is_no_traceback(
    kept: list[pathlib.Path],
    capsys: pytest.CaptureFixture[str],
    path: tuple[str, ...],
    value: Any,
    why: str,
    more: tuple[str, ...],
) -> None:
    document: dict[str, Any] = json.loads(kept[2].read_text())
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    kept[2].write_text(json.dumps(document))
    code, text = pcmig(capsys, "report", "g1", "--last", "2", "--html", "r.html", *more)
    assert code == 1, text
    assert "internal error" not in text and "Traceback" not in text
    assert f"{kept[2]} cannot be shown, it is damaged: {why}" in text


@pytest.mark.parametrize("harm", ["cut", "damaged"])
def test_one_that_is_alone_is_named_once(
    kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    if harm == "cut":
        kept[2].write_text(kept[2].read_text()[:1000])
    else:
        document = json.loads(kept[2].read_text())
        del document["ledger"]["totals"]["requests"]
        kept[2].write_text(json.dumps(document))
    code, text = pcmig(capsys, "report", str(kept[2]), "--html", "r.html")
    assert code == 1 and not pathlib.Path("r.html").exists()
    assert text.count(str(kept[2])) == 1, text
    code, text = pcmig(capsys, "report", str(kept[2]), "absent", "--html", "r.html")
    assert code == 1 and "no ledger of a guest 'absent' is kept" in text
    assert text.count(f"{kept[2]} {'is no JSON' if harm == 'cut' else 'cannot be shown'}") == 1, text


def test_a_name_does_nothing_to_the_terminal(
    kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    document: dict[str, Any] = json.loads(kept[2].read_text())
    document["guest"]["name"] = "g\x1b[31m1"
    kept[2].write_text(json.dumps(document))
    code, text = pcmig(capsys, "report")
    assert code == 0 and "g?[31m1" in text and "\x1b" not in text


def test_the_list_without_one_that_is_damaged_within(
    kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    document: dict[str, Any] = json.loads(kept[2].read_text())
    del document["ledger"]["totals"]["downtime_events_us"]
    kept[2].write_text(json.dumps(document))
    code, text = pcmig(capsys, "report")
    assert code == 1
    assert f"note: {kept[2]} cannot be shown, it is damaged: KeyError: 'downtime_events_us'" in text
    lines = [line.split() for line in text.splitlines() if line.startswith("2026-")]
    assert [line[2] for line in lines] == ["g1", "g2", "g1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is neither a kept ledger, nor a trace, nor what 'pcmig migrate --json' writes"),
        (b"\0\1\2", "is neither a kept ledger"),
        (b"{", "is no JSON, or only the beginning of it"),
        (b"[]", "is no kept ledger"),
        (b'{"format": "pcmig-ledger"}', "has no valid 'version': None"),
        (b"pcmig-trace 1\nparams policy=auto\n5 nonsense\n", "line 3: "),
        (b"pcmig-trace 1\n", "the trace has no params line"),
        (b"pcmig-trace 9\n", "line 1: "),
    ],
)
def test_files_that_are_something_else(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    code, text = pcmig(capsys, "report", str(tmp_path / "file"))
    assert code == 1
    assert text.startswith("pcmig: ") and words in text and str(tmp_path / "file") in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--last", "0"), "--last 0 is no migration"),
        (("g1", "--json", "--html", "x"), "--json contradicts --html"),
        (("--list", "--json"), "--json contradicts --list"),
        (("--list", "--pdf", "x"), "--list contradicts --pdf"),
        (("g1", "--html", "x", "--pdf", "x"), "--html and --pdf name the same file, 'x'"),
        (("g1", "--html", "/nowhere/x"), "the folder '/nowhere' does not exist"),
        (("--ledgers", "/nowhere"), "--ledgers '/nowhere' is no folder"),
        (("--last", "x"), "'x' is not a whole number"),
    ],
)
def test_usage(
    kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    code, text = pcmig(capsys, "report", *words)
    assert code == 2 and message in text


def test_without_matplotlib(
    kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("matplotlib", "pcmig.reports"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, text = pcmig(capsys, "report", "g1")
    assert code == 1
    assert "a report is drawn with matplotlib, which is not installed: pip install 'pcmig[report]'" in text
    assert pcmig(capsys, "report", "--list")[0] == 0
    assert pcmig(capsys, "report", "g1", "--json")[0] == 0


def test_another_import_that_fails_is_a_defect(
    kept: list[pathlib.Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pcmig.reports.page", raising=False)
    real = builtins.__import__

    def broken(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "pcmig.reports" and "page" in (arguments[2] or ()):
            raise ModuleNotFoundError("No module named 'zlib'", name="zlib")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", broken)
    code, text = pcmig(capsys, "report", "g1")
    assert code == 70 and "pcmig is not installed properly" in text


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("g1", "g1-20261128T100000Z.html"),
        ("../../etc/x", "_.._etc_x-20261128T100000Z.html"),
        ("-rf *", "rf__-20261128T100000Z.html"),
        ("...", "guest-20261128T100000Z.html"),
    ],
)
def test_the_name_of_the_page(kept: list[pathlib.Path], name: str, file: str) -> None:
    (one,), _ = Store(kept[0].parent).newest(1)
    one.document["guest"]["name"] = name
    assert reporting.default_name([one]) == file


def test_to_standard_output(kept: list[pathlib.Path], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    from pcmig.cli import main

    assert main.main(["report", "g1", "--html", "-"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"<!DOCTYPE html>")
    assert main.main(["report", "g1", "--pdf", "-"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"%PDF-")
