# SPDX-License-Identifier: Apache-2.0
"""What a report says of a migration in words and figures. Each figure is one of the document's, and says
which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pcmig import accounting, huge_pages, latency
from pcmig.ledgers.opening import LACKS, MADE_OF
from pcmig_common import units

Document = Mapping[str, Any]

OUTCOMES = {
    "completed": "completed",
    "failed": "failed: the guest stayed",
    "needs-operator": "needs an operator",
    "detached": "left to itself",
    "unknown": "end not known",
}
NONE = "\N{EN DASH}"  # where nothing is known
MODES = {"postcopy": "post-copy", "precopy": "pre-copy", "none": "nothing was sent"}


class Fact(NamedTuple):
    label: str
    text: str
    of: str | None = None  # where in the document the figure is, as "ledger.totals.requests"
    note: str = ""


def at(document: Document, path: str) -> Any:
    """What DOCUMENT has at PATH."""
    found: Any = document
    for name in path.split("."):
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def outcome(document: Document) -> str:
    return OUTCOMES.get(str(document["outcome"]), str(document["outcome"]))


def mode(document: Document) -> str:
    return MODES.get(str(document["mode"]), str(document["mode"]))


def name(document: Document) -> str:
    return str(document["guest"]["name"])


def ends(document: Document) -> tuple[str, str]:
    """Source and destination, by the best name that there is."""
    source, destination = (
        str(host["hostname"] or host["uri"] or "")
        for host in (sides(document)["source"], sides(document)["destination"])
    )
    return source, destination


def sides(document: Document) -> Mapping[str, Mapping[str, Any]]:
    hosts: Mapping[str, Mapping[str, Any]] = document["hosts"]
    return hosts


def figures(document: Document) -> list[Fact]:
    """The ones that are looked for first."""
    totals = document["ledger"]["totals"]
    before_us = document["elapsed_ms"] * 1000 - totals["total_us"]
    found = [
        Fact(
            "took",
            duration(document["elapsed_ms"] * 1000),
            "elapsed_ms",
            f"of it {duration(before_us)} before the migrate call, and after the end"
            if before_us >= 100_000
            else "",
        )
    ]
    if totals["downtime_events_us"] is not None:
        found.append(
            Fact(
                "stood still for the switch",
                duration(totals["downtime_events_us"]),
                "ledger.totals.downtime_events_us",
                "by events: from the source's stop to the destination's run",
            )
        )
    if totals["downtime_reported_ms"] is not None:
        found.append(
            Fact(
                "downtime, by libvirt",
                f"{totals['downtime_reported_ms']} ms",
                "ledger.totals.downtime_reported_ms",
                "QEMU's figure, which ends before the guest runs",
            )
        )
    if totals["phase_us"]["paused"]:
        found.append(
            Fact("interrupted", duration(totals["phase_us"]["paused"]), "ledger.totals.phase_us.paused")
        )
    guest_bytes = totals["guest_pages"] * totals["page_size_bytes"]
    times = f"{totals['wire_bytes'] / guest_bytes:.2f} times the guest's memory" if guest_bytes else ""
    found.append(Fact("sent", units.size(totals["wire_bytes"]), "ledger.totals.wire_bytes", times))
    found.append(Fact("passes", str(totals["passes"]), "ledger.totals.passes"))
    if document["mode"] == "postcopy":
        found.append(
            Fact(
                "page requests",
                str(totals["requests"]),
                "ledger.totals.requests",
                f"at most {totals['requests_peak_ps']} a second" if totals["requests"] else "",
            )
        )
    if (waited := _latency(document)) is not None:
        found.append(
            Fact(
                "a requested page took",
                latency.milliseconds(waited["mean_us"]),
                "ledger.latency.mean_us",
                f"on average, {latency.source_words(waited['source'])}",
            )
        )
    if (had := _huge_pages(document)) is not None and had["readings"][0]["bytes"] is not None:
        before = had["before_bytes"]
        found.append(
            Fact(
                f"in huge pages {huge_pages.when(0, had['readings'][0]['t_ms'])}",
                units.size(had["readings"][0]["bytes"]),
                "huge_pages.readings.0.bytes",
                "" if before is None else f"{units.size(before)} before, at the source",
            )
        )
    if document["link"]["rate_bps"] is not None:
        found.append(Fact("link", units.rate(document["link"]["rate_bps"]), "link.rate_bps", "as measured"))
    return found


def _latency(document: Document) -> Mapping[str, Any] | None:
    """None where no request was counted, as QEMU may have, and in older ledgers."""
    waited: Mapping[str, Any] | None = document["ledger"].get("latency")
    return waited if waited is not None and waited["requests"] else None


def _huge_pages(document: Document) -> Mapping[str, Any] | None:
    """None where none are known, or they are of another kind, and in older ledgers."""
    found: Mapping[str, Any] | None = document.get("huge_pages")
    if found is None or found["what"] == "hugetlbfs":
        return None
    return found if found["what"] == "read" or found["before_bytes"] is not None else None


def huge(document: Document) -> list[Fact]:
    """When, and how much of the guest's memory was in huge pages then; empty where no figure is known."""
    found = _huge_pages(document)
    if found is None:
        return []
    rows = [("before, at the source", "huge_pages.before_bytes", found["before_bytes"], found["before_why"])]
    rows += [
        (
            huge_pages.when(each["at_s"], each["t_ms"]),
            f"huge_pages.readings.{i}.bytes",
            each["bytes"],
            each["why"],
        )
        for i, each in enumerate(found["readings"])
    ]
    return [
        Fact(label, huge_pages.size(value, why), None if value is None else path)
        for label, path, value, why in rows
    ]


# Rows of a comparison: where the figure is, what it is, how it is written.
COMPARED = (
    ("elapsed_ms", "took", lambda value: duration(value * 1000)),
    ("ledger.totals.downtime_events_us", "stood still for the switch", lambda value: duration(value)),
    ("ledger.totals.downtime_reported_ms", "downtime, by libvirt", lambda value: f"{value} ms"),
    ("ledger.totals.phase_us.precopy", "in pre-copy", lambda value: duration(value)),
    ("ledger.totals.phase_us.drain", "in the drain", lambda value: duration(value)),
    ("ledger.totals.phase_us.postcopy", "in post-copy", lambda value: duration(value)),
    ("ledger.totals.phase_us.paused", "interrupted", lambda value: duration(value)),
    ("ledger.totals.wire_bytes", "sent", lambda value: units.size(value)),
    ("ledger.totals.passes", "passes", str),
    ("ledger.totals.retransmitted_permille", "sent again", lambda value: f"{value / 10:.1f} %"),
    ("ledger.totals.requests", "page requests", str),
    ("ledger.totals.requests_peak_ps", "at most a second", str),
    ("ledger.latency.mean_us", "a requested page took", latency.milliseconds),
    ("huge_pages.before_bytes", "in huge pages before", units.size),
    ("huge_pages.readings.0.bytes", f"in huge pages {huge_pages.when(0)}", units.size),
    ("huge_pages.readings.2.bytes", "30 s later", units.size),
    ("link.rate_bps", "link", units.rate),
)


# Ledgers of older versions have none; with what tells whether this one has it.
NEWER: dict[str, Callable[[Document], object]] = {
    "ledger.latency.mean_us": _latency,
    "huge_pages.before_bytes": _huge_pages,
    "huge_pages.readings.0.bytes": _huge_pages,
    "huge_pages.readings.2.bytes": _huge_pages,
}


def _late(document: Document, path: str) -> str:
    """When a look at huge pages was made, where that is not when its row says."""
    if not path.startswith("huge_pages.readings."):
        return ""
    read = at(document, path.removesuffix(".bytes"))
    said = huge_pages.when(read["at_s"], read["t_ms"])
    return "" if said == huge_pages.when(read["at_s"]) else f", {said}"


def compared(document: Document) -> list[Fact]:
    """One column of a comparison; as many as in every other one."""
    found = []
    for path, label, write in COMPARED:
        has = NEWER.get(path)
        value = at(document, path) if has is None or has(document) is not None else None
        # Without post-copy there is nothing to know of what it does.
        unknown = NONE if path in NEWER and document["mode"] != "postcopy" else "not known"
        text = unknown if value is None else f"{write(value)}{_late(document, path)}"
        found.append(Fact(label, text, None if value is None else path))
    return found


def reason(document: Document) -> str | None:
    """Why it switched; None where it did not, or had done so before it was taken over. What pcmig would have
    done, where somebody else drives, is no reason."""
    switches = [row["text"] for row in document["decisions"] if row["action"] == "switch"]
    drains = [row["text"] for row in document["decisions"] if row["action"] == "drain"]
    known = next(iter([*drains[-1:], *switches[-1:]]), None)
    if known is not None and document["steered"]:
        return str(known)
    names = {row["phase"] for row in document["ledger"]["phases"]}
    if document["mode"] != "postcopy" or not names & {"precopy", "drain"}:
        return None
    return "somebody else switched it: pcmig switch, virsh migrate-postcopy, or Nova"


def hosts(document: Document) -> list[tuple[str, str, str]]:
    """What, source, destination."""
    rows = (
        ("host", "hostname"),
        ("libvirt at", "uri"),
        ("UUID", "uuid"),
        ("libvirt", "libvirt"),
        ("QEMU", "qemu"),
        ("pcmig", "pcmig"),
    )
    source, destination = sides(document)["source"], sides(document)["destination"]
    found = [(label, str(source[key] or NONE), str(destination[key] or NONE)) for label, key in rows]
    return [row for row in found if row[1:] != (NONE, NONE)]


def settings(document: Document) -> list[tuple[str, str]]:
    """What was asked for, and over what it went."""
    link = document["link"]
    rows = [
        ("asked for by", by(document)),
        ("policy", document["policy"]),
        ("parameters", ", ".join(f"{key}={value}" for key, value in document["params"].items())),
        ("flags", ", ".join(document["flags"])),
        ("limit in pre-copy", f"{link['bandwidth_mib']} MiB/s" if link["bandwidth_mib"] else ""),
        (
            "limit in post-copy",
            f"{link['postcopy_bandwidth_mib']} MiB/s" if link["postcopy_bandwidth_mib"] else "",
        ),
        ("stream to", link.get("stream_peer") or ""),
        ("encrypted", "through pcmig's tunnel" if link["tunnel"] else ""),
        ("guest", document["guest"]["uuid"]),
        ("began", document["begun"]),
        ("taken over", document["started"] if document["adopted"] else ""),
        ("ended", document["ended"]),
    ]
    way_back = (document.get("more") or {}).get("way_back")
    if isinstance(way_back, dict) and way_back.get("text"):
        rows.append(("way back", str(way_back["text"])))
    return [(label, text) for label, text in rows if text]


def by(document: Document) -> str:
    by = document["by"]
    program = str(by["program"])
    if "user" in by:
        return f"{by['user']}, with {program}"
    if "request_id" in by:
        return f"{program}, request {by['request_id']}, migration {by.get('migration')}"
    return "" if program == "unknown" else program


def remarks(document: Document) -> list[str]:
    """What a reader has to know to read the rest right."""
    found = []
    if made_of := (document.get("more") or {}).get(MADE_OF):
        lacks = (
            "which has no figures over time"
            if not document["samples"]["t_ms"]
            else "which does not say whose it is, between which hosts, and how it ended"
        )
        found.append(f"This was made of {made_of}, {lacks}.")
        found += [f"{sentence}." for sentence in document["more"].get(LACKS, ())]
    if not document["steered"]:
        found.append("Somebody else drove this migration; the decisions are what pcmig would have done.")
    if document["adopted"]:
        found.append(
            f"It was taken over on the way: times count from {document['started']}, and what was before is "
            "not in these figures."
        )
    if document["outcome"] == "detached":
        found.append("It was left before its end: these figures are of the part before.")
    if document.get("decisions_lost"):
        found.append(f"{document['decisions_lost']} decisions are left out, changes of the pace first.")
    if document["operator_command"]:
        found.append(f"What was said to type: {document['operator_command']}")
    return found


def decisions(document: Document) -> list[tuple[str, str, str, str]]:
    """Number, time, action, reason; changes of the pace apart, see paces()."""
    rows = [row for row in document["decisions"] if row["action"] != "set-pace"]
    return [(str(number), *_decision(row)) for number, row in enumerate(rows, 1)]


def paces(document: Document) -> list[tuple[str, str, str]]:
    return [_decision(row) for row in document["decisions"] if row["action"] == "set-pace"]


def _decision(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{row['t_us'] / 1e6:.3f}", str(row["action"]), str(row["text"])


def silences(document: Document) -> list[tuple[Fact, str, str]]:
    """Each with by whom it was measured, and since when."""
    what = {"switch": "for the switch", "interrupted": "post-copy interrupted"}
    return [
        (
            Fact(
                what.get(row["what"], row["what"]), duration(row["duration_us"]), f"silences.{i}.duration_us"
            ),
            str(row["by"]),
            NONE if row["start_us"] is None else f"{row['start_us'] / 1e6:.3f}",
        )
        for i, row in enumerate(document["silences"])
    ]


def sentences(document: Document) -> list[str]:
    """Below the tables of the ledger."""
    ledger: Any = document["ledger"]
    lines = [*accounting.summary(ledger), *accounting.tunnel_lines(document.get("tunnel"))]
    if not huge(document) and (said := huge_pages.words(document.get("huge_pages"))):
        lines.append(said)
    return lines


def moment(text: str) -> str:
    """ "2026-11-30T00:41:45.950Z" -> "2026-11-30 00:41:45"."""
    return str(text)[:19].replace("T", " ")


def duration(value_us: int) -> str:
    """950 -> "0.95 ms", 4000 -> "4 ms", 38446000 -> "38.4 s", 600000000 -> "10:00 min"."""
    if value_us < 10_000:
        return f"{value_us / 1000:g} ms"
    if value_us < 1_000_000:
        return f"{value_us / 1000:.0f} ms"
    if value_us < 120_000_000:
        return f"{value_us / 1e6:.1f} s"
    return (
        f"{units.clock(round(value_us / 1000))} min"
        if value_us < 3_600_000_000
        else f"{units.clock(value_us // 1000)} h"
    )
