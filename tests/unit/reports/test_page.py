# SPDX-License-Identifier: Apache-2.0
"""What a report shows is what the ledger has, and it needs nothing else to be seen."""

from __future__ import annotations

import html
import html.parser
import pathlib
import re
import zlib
from typing import Any
from unittest import mock

import pytest

from pcmig import accounting, huge_pages, latency
from pcmig.reports import facts, figures, page, paper
from tests.unit.ledgers import made, test_document

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Read(html.parser.HTMLParser):
    """The page's texts and figures, and that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.data: list[tuple[str, str, str]] = []  # path, value, text
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self.identifiers: list[str] = []
        self._open: list[str] = []
        self._text = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.addresses += [str(found[name]) for name in ("src", "href", "xlink:href") if name in found]
        if "id" in found:
            self.identifiers.append(str(found["id"]))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "data":
            self.data.append((str(found["data-of"]), str(found["value"]), ""))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th", "data"):
            self._text = ""

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "data":
            of, value, _ = self.data[-1]
            self.data[-1] = (of, value, self._text)
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self._text)

    def handle_data(self, text: str) -> None:
        self._text += text


@pytest.fixture
def document(tmp_path: pathlib.Path) -> dict[str, Any]:
    return made.document(tmp_path)


def test_its_figures_are_the_ledgers(document: dict[str, Any]) -> None:
    read = Read(page.page([document], ["f"]))
    shown = {of: (value, text) for of, value, text in read.data}
    assert {of: value for of, (value, _) in shown.items()} == {
        of: str(facts.at(document, of)) for of in shown
    }
    totals = document["ledger"]["totals"]
    assert shown["ledger.totals.wire_bytes"] == (str(totals["wire_bytes"]), "452 MiB")
    assert shown["elapsed_ms"] == (str(document["elapsed_ms"]), facts.duration(document["elapsed_ms"] * 1000))
    waited = document["ledger"]["latency"]
    assert shown["ledger.latency.mean_us"] == (
        str(waited["mean_us"]),
        latency.milliseconds(waited["mean_us"]),
    )
    assert shown["ledger.totals.downtime_events_us"] == ("1000", "1 ms")
    assert shown["ledger.totals.downtime_reported_ms"] == ("4", "4 ms")
    assert shown["ledger.totals.requests"] == (str(totals["requests"]), str(totals["requests"]))
    assert shown["silences.0.duration_us"] == ("4000", "4 ms")


def test_its_ledger_is_what_the_command_prints(document: dict[str, Any]) -> None:
    read = Read(page.page([document], ["f"]))
    sections = accounting.sections(document["ledger"])
    wanted = [
        [[section.first, *accounting.COLUMNS], *(list(row) for row in section.rows)] for section in sections
    ]
    assert [table for table in read.tables if table in wanted] == wanted
    text = page.page([document], ["f"])
    assert all(line in text for line in accounting.summary(document["ledger"]))


def test_it_shows_each_decision_with_its_reason(document: dict[str, Any]) -> None:
    read = Read(page.page([document], ["f"]))
    rows = [row[-3:] for table in read.tables for row in table]
    assert len(document["decisions"]) > 2
    for decision in document["decisions"]:
        assert [f"{decision['t_us'] / 1e6:.3f}", decision["action"], decision["text"]] in rows


def test_a_switch_of_somebody_elses_is_one(document: dict[str, Any]) -> None:
    """By `pcmig switch` or virsh: there is no decision then, and the guest has been switched all the same."""
    document["decisions"] = [row for row in document["decisions"] if row["action"] == "set-pace"]
    assert "somebody else switched it" in str(facts.reason(document))
    assert "somebody else switched it" in page.comparison([document, document], ["f", "g"])
    document["mode"] = "precopy"
    assert facts.reason(document) is None
    assert "no switch" in page.comparison([document, document], ["f", "g"])


def test_what_pcmig_would_have_done_is_no_reason(document: dict[str, Any]) -> None:
    """Of a migration that Nova or virsh drove, on which it looked: another one switched it, or nobody did."""
    assert any(row["action"] == "switch" for row in document["decisions"])
    document["steered"] = False
    assert "somebody else switched it" in str(facts.reason(document))
    document["mode"] = "precopy"
    assert facts.reason(document) is None


def test_a_latency_of_no_request_is_none(document: dict[str, Any]) -> None:
    """As QEMU may have counted."""
    document["ledger"]["latency"] |= {"source": "qemu", "requests": 0, "mean_us": 0, "buckets": [0] * 24}
    assert "a requested page took" not in page.page([document], ["f"])
    (row,) = [fact for fact in facts.compared(document) if fact.label == "a requested page took"]
    assert row.text == "not known" and row.of is None


def test_buckets_beyond_what_is_counted_have_no_bound(document: dict[str, Any]) -> None:
    document["ledger"]["latency"] |= {"requests": 3, "buckets": [*[0] * 22, 1, 2]}
    axes = mock.Mock()
    figures.latencies(axes, document)
    assert axes.set_xticks.call_args.args[1] == ["8389 ms", "longer"]


def test_nothing_is_sent_while_it_is_interrupted(document: dict[str, Any]) -> None:
    """QEMU goes on telling its last rate."""
    axes = mock.Mock()
    samples = document["samples"]
    samples["phase"] = ["paused"] * len(samples["phase"])
    assert any(samples["send_bps"])
    figures.rates(axes, document)
    assert axes.plot.call_args_list[0].kwargs["label"] == "sent"
    assert not any(axes.plot.call_args_list[0].args[1])
    figures.together(axes, [document], ["A"], "send_bps", 1.0, "sent")
    assert not any(axes.plot.call_args.args[1])


MIB = 1 << 20
HUGE: dict[str, Any] = {
    "what": "read",
    "why": None,
    "before_bytes": 180 * MIB,
    "before_why": None,
    "readings": [
        {"at_s": 0, "t_ms": 12, "bytes": 2 * MIB, "why": None},
        {"at_s": 10, "t_ms": 10_003, "bytes": 24 * MIB, "why": None},
        {"at_s": 30, "t_ms": None, "bytes": None, "why": "it has ended <before>"},
    ],
}


def test_huge_pages_are_those_of_the_ledger(document: dict[str, Any]) -> None:
    document["huge_pages"] = HUGE
    test_document.validate(document)
    text = page.page([document], ["f"])
    read = Read(text)
    shown = {path: said for path, value, said in read.data if path.startswith("huge_pages.")}
    assert shown == {
        "huge_pages.before_bytes": "180 MiB",
        "huge_pages.readings.0.bytes": "2.0 MiB",
        "huge_pages.readings.1.bytes": "24.0 MiB",
    }
    for path, value, _ in read.data:
        assert value == str(facts.at(document, path))
    assert ["30 s after the end", "not known: it has ended <before>"] in [r for t in read.tables for r in t]
    older = {**document, "huge_pages": None}
    rows = dict(zip((f.label for f in facts.compared(document)), facts.compared(older), strict=True))
    assert rows["in huge pages before"].text == "not known" and rows["in huge pages before"].of is None
    before = [fact for fact in facts.compared({**older, "mode": "precopy"}) if fact.label == "30 s later"]
    assert before == [facts.Fact("30 s later", facts.NONE, None)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"what": "hugetlbfs", "why": huge_pages.HUGETLBFS}, f"huge pages: {huge_pages.HUGETLBFS}"),
        (
            {"what": "unknown", "why": "denied", "before_bytes": None},
            "huge pages at the destination: not known: denied",
        ),
    ],
)
def test_huge_pages_of_which_there_is_no_figure(
    document: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    document["huge_pages"] = {**HUGE, **changes}
    text = page.page([document], ["f"])
    assert (
        html.escape(words) in text
        and 'data-of="huge_pages' not in text
        and "Huge pages of the guest" not in text
    )
    assert words in facts.sentences(document)


def test_huge_pages_of_before_are_shown_where_nothing_is_known_of_after(document: dict[str, Any]) -> None:
    none = [{**reading, "bytes": None, "why": "denied"} for reading in HUGE["readings"]]
    document["huge_pages"] = {**HUGE, "what": "unknown", "why": "denied", "readings": none}
    test_document.validate(document)
    shown = {path: said for path, _, said in Read(page.page([document], ["f"])).data if "huge_pages" in path}
    assert shown == {"huge_pages.before_bytes": "180 MiB"}
    rows = {fact.label: fact.text for fact in facts.compared(document)}
    assert rows["in huge pages before"] == "180 MiB" and rows["30 s later"] == "not known"
    assert huge_pages.words(document["huge_pages"]) == (
        "in huge pages: 180 MiB before, at the source; at the destination: not known: denied"
    )


def test_a_late_look_at_huge_pages_says_when_it_was_made(document: dict[str, Any]) -> None:
    times = (24_000, 34_500, 30_900)
    late = [
        {"at_s": at_s, "t_ms": t_ms, "bytes": MIB, "why": None}
        for at_s, t_ms in zip(huge_pages.AT_S, times, strict=True)
    ]
    document["huge_pages"] = {**HUGE, "readings": late}
    labels = [fact.label for fact in facts.huge(document)]
    assert labels[1:] == ["24.0 s after the end", "34.5 s after the end", "30 s after the end"]
    assert "1.0 MiB 24.0 s after the end, 1.0 MiB 34.5 s" in str(huge_pages.words(document["huge_pages"]))
    rows = {fact.label: fact.text for fact in facts.compared(document)}
    assert rows["in huge pages at the end"] == "1.0 MiB, 24.0 s after the end"
    assert rows["30 s later"] == "1.0 MiB"


def test_a_ledger_of_an_older_version_is_shown(document: dict[str, Any]) -> None:
    del document["ledger"]["latency"]
    document.pop("huge_pages")
    assert "a requested page took" not in page.page([document], ["f"])
    assert "not known" in page.comparison([document, document], ["f", "g"])


def test_it_shows_both_hosts(document: dict[str, Any]) -> None:
    read = Read(page.page([document], ["f"]))
    rows = [row for table in read.tables for row in table]
    assert ["host", "a", "b"] in rows
    assert ["QEMU", "11.1.0", "11.1.0"] in rows
    assert ["pcmig", "0.1.0", facts.NONE] in rows


def test_nothing_comes_from_elsewhere(document: dict[str, Any]) -> None:
    """Neither files nor scripts; and the drawings' identifiers are each one's own."""
    text = page.page([document, document], ["f", "f"])
    read = Read(text)
    assert all(address.startswith("#") for address in read.addresses)
    assert {address[1:] for address in read.addresses} <= set(read.identifiers)
    assert len(read.identifiers) == len(set(read.identifiers))
    assert "<script" not in text and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "<svg" in text and figures.INK not in text


def test_what_others_named_is_no_markup(document: dict[str, Any]) -> None:
    name = '<script>alert("&amp;")</script>'
    document["guest"]["name"] = name
    document["words"] = f"done: {name}"
    document["by"]["user"] = name
    text = page.page([document], [f"{name}.json"])
    Read(text)
    assert "<script" not in text
    text = page.comparison([document, document], ["f", "g"])
    Read(text)
    assert "<script" not in text


def test_what_stands_for_a_number_or_a_mode_is_no_markup(document: dict[str, Any]) -> None:
    """A ledger may come from another host, and from anybody."""
    foreign = '"><script>alert(1)</script>'
    document["ledger"]["totals"]["passes"] = foreign
    document["mode"] = foreign
    for text in (page.page([document], ["f"]), page.comparison([document, document], ["f", "g"])):
        assert "<script" not in text
        assert foreign in [value for of, value, _ in Read(text).data if of == "ledger.totals.passes"]


def test_a_name_is_no_formula(document: dict[str, Any]) -> None:
    """matplotlib would set what stands between dollars, or fail."""
    document["guest"]["name"] = r"$\frac{$ g"
    assert r"\frac" in page.comparison([document, document], ["f", "g"])
    paper.write("/dev/null", [document], ["f"], compare=False)
    paper.write("/dev/null", [document, document], ["f", "g"], compare=True)


def test_side_by_side(document: dict[str, Any]) -> None:
    other = {
        **document,
        "guest": {**document["guest"], "name": "g2"},
        "elapsed_ms": 12_300,
        "policy": "passes=2",
    }
    read = Read(page.comparison([document, other], ["f", "g"]))
    table = read.tables[0]
    assert table[0] == ["", "A g1", "B g2"]
    assert ["took", "38.4 s", "12.3 s"] in table
    assert ["policy", "auto", "passes=2"] in table
    elapsed = [value for of, value, _ in read.data if of == "elapsed_ms"]
    assert elapsed == [str(document["elapsed_ms"]), "12300"]
    for of, value, _ in read.data:
        assert value in (str(facts.at(document, of)), str(facts.at(other, of)))


def test_many_side_by_side_have_letters() -> None:
    names = page.labels([{"guest": {"name": "g"}}] * 28)
    assert [names[0], names[25], names[26], names[27]] == ["A g", "Z g", "AA g", "AB g"]


def test_without_figures_over_time(document: dict[str, Any]) -> None:
    document["samples"] = {name: [] for name in document["samples"]}
    titles = [title for title, *_ in figures.drawings(document)]
    assert titles == ["Phases", "Pass by pass", "How long requested pages took"]
    Read(page.page([document], ["f"]))
    Read(page.comparison([document, document], ["f", "g"]))


def test_one_that_never_began(document: dict[str, Any]) -> None:
    from pcmig import _core

    document["ledger"] = dict(_core.Migration("g1", "qemu+tcp://b/system").ledger())
    document |= {"decisions": [], "silences": [], "mode": "none", "outcome": "failed", "error": "refused"}
    document["samples"] = {name: [] for name in document["samples"]}
    text = page.page([document], ["f"])
    Read(text)
    assert "failed: the guest stayed" in text
    paper.write("/dev/null", [document], ["f"], compare=False)


def test_remarks(document: dict[str, Any]) -> None:
    assert facts.remarks(document) == []
    document |= {"adopted": True, "steered": False, "outcome": "detached", "decisions_lost": 3}
    document["operator_command"] = "pcmig resume g1"
    text = " ".join(facts.remarks(document))
    for words in (
        "taken over",
        "Somebody else drove",
        "left before its end",
        "3 decisions",
        "pcmig resume g1",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("value_us", "text"),
    [
        (0, "0 ms"),
        (950, "0.95 ms"),
        (4000, "4 ms"),
        (312_400, "312 ms"),
        (38_446_000, "38.4 s"),
        (600_000_000, "10:00 min"),
        (7_325_000_000, "2:02:05 h"),
    ],
)
def test_durations(value_us: int, text: str) -> None:
    assert facts.duration(value_us) == text


def test_paper_has_the_same_figures(document: dict[str, Any], tmp_path: pathlib.Path) -> None:
    target = tmp_path / "r.pdf"
    paper.write(str(target), [document], ["f"], compare=False)
    data = target.read_bytes()
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    count = int(re.search(rb"/Count (\d+)", data)[1])  # type: ignore[index]
    assert 2 <= count <= 4
    # The text of a sheet is drawn letter by letter, by the font's own numbers: that there is as much of it as
    # the ledger has, not what, can be told.
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
    shown = sum(_inflated(stream).count(b"Tj") + _inflated(stream).count(b"TJ") for stream in streams)
    rows = sum(len(section.rows) for section in accounting.sections(document["ledger"]))
    assert shown > rows + len(facts.decisions(document)) + 10


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_long_tables_take_more_sheets(document: dict[str, Any], tmp_path: pathlib.Path) -> None:
    decision = {**document["decisions"][0], "action": "drain", "text": "a reason that is long " * 12}
    document["decisions"] = [decision] * 300
    target = tmp_path / "r.pdf"
    paper.write(str(target), [document], ["f"], compare=False)
    counts = re.search(rb"/Count (\d+)", target.read_bytes())
    assert counts is not None and int(counts[1]) > 8
