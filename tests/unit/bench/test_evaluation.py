# SPDX-License-Identifier: Apache-2.0
"""The evaluation: which cells there are, what is made of their rows, what the page says."""

from __future__ import annotations

import argparse
import pathlib
import re
from typing import Any

import pytest

from tests.bed import BedError
from tests.bench.evaluation import __main__ as evaluation
from tests.bench.evaluation import rst
from tests.bench.evaluation.cells import DEFAULT_WAYS, LOADS, WAYS, cells, parse_list, parse_rates
from tests.bench.evaluation.figures import derived, limited_by, outcome, places, statements
from tests.bench.evaluation.page import page
from tests.bench.switchover import poll_client

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
    with pytest.raises(BedError, match="--loads idle,busy: 'busy' is none of idle, medium, heavy"):
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
        "ways": {"pre-copy": "", "pcmig": ""},
        "rounds": [row("pre-copy", ended=False), row("pcmig", rate=1000)],
    }
    text = rst.tables(content)
    assert "   * - 100 Mb/s, ``pre-copy``\n     - **not within 60 s**\n     - -\n" in text
    assert "   * - 1 Gb/s, ``pcmig``\n     - 20.0\n     - 80\n     - 50\n     - 250\n" in text
    assert "10-30 s after" not in text, "nobody looked"


def test_readme_names_every_way() -> None:
    readme = (pathlib.Path(evaluation.__file__).parents[1] / "README.rst").read_text()
    text = readme.partition("\nevaluation\n")[2].partition("\nmany\n")[0]
    for name in WAYS:
        assert f"``{re.sub(r'=.*', '=N', name)}``" in text, name
