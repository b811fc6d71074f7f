# SPDX-License-Identifier: Apache-2.0
"""The daemon's figures in the text format of Prometheus, for whatever reads that: the textfile collector of
node_exporter, which reads no other format, or an agent that runs a command. Values in, values out. Text needs
the library `prometheus-client`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pcmig.metrics import exposition

if TYPE_CHECKING:
    from prometheus_client import Metric

PREFIX = "pcmig_tunnel_"
REFUSED, ENDS = "refused_", "ends_"

# Key of the control socket: name (of a counter it ends in _total), help, divisor.
ROWS: dict[str, tuple[str, str, float]] = {
    "handshakes_accepted": ("handshakes_accepted_total", "TLS handshakes, dialled by others", 1),
    "handshakes_dialled": ("handshakes_dialled_total", "TLS handshakes, dialled by this host", 1),
    "locked_out": ("locked_out_total", "Connections that a reload has ended", 1),
    "bytes_out": ("sent_bytes_total", "Of QEMU's streams, from this host", 1),
    "bytes_in": ("received_bytes_total", "Of QEMU's streams, to this host", 1),
    "records_out": ("sent_records_total", "TLS records", 1),
    "records_in": ("received_records_total", "TLS records", 1),
    "crypto_out_us": ("encrypting_seconds_total", "CPU time", 1e6),
    "crypto_in_us": ("decrypting_seconds_total", "CPU time", 1e6),
    "streams": ("streams", "Connections of QEMU now", 1),
    "streams_ever": ("streams_total", "Connections of QEMU", 1),
    "lost": ("streams_lost_total", "Streams whose peer was lost", 1),
    "reconnects": ("streams_again_total", "Streams that began after one was lost", 1),
    "connections_ever": ("connections_total", "TCP connections of streams", 1),
    "connections_accepted": ("connections_accepted", "TCP connections now, dialled by others", 1),
    "connections_dialled": ("connections_dialled", "TCP connections now, dialled by this host", 1),
    "names": ("names", "Names that are known", 1),
    "queue_bytes": ("queue_bytes", "What waits in the daemon and in its sockets", 1),
}


def ends(figures: Mapping[str, object]) -> dict[str, int]:
    """Of what the daemon goes by, when it ends; seconds since 1970, 0: there is none."""
    return {
        key.removeprefix(ENDS): value
        for key, value in figures.items()
        if key.startswith(ENDS) and isinstance(value, int)
    }


def text(figures: Mapping[str, object] | None) -> str:
    """FIGURES, as the control socket's `metrics` has them; None: the daemon does not answer. Raises
    ImportError without the library."""
    return exposition.text(lambda: _families(figures))


def _families(figures: Mapping[str, object] | None) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    up = float(figures is not None)
    yield GaugeMetricFamily(f"{PREFIX}up", "Whether the daemon answers", value=up)
    if figures is None:
        return
    for key, (name, meaning, divisor) in ROWS.items():
        if isinstance(value := figures.get(key), int):
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield kind(f"{PREFIX}{name}", meaning, value=value / divisor)
    refused = CounterMetricFamily(
        f"{PREFIX}refused_total", "Connections and streams of others that were refused", labels=["reason"]
    )
    for key, value in figures.items():
        if key.startswith(REFUSED) and isinstance(value, int):
            refused.add_metric([key.removeprefix(REFUSED)], value)
    yield refused
    expiring = GaugeMetricFamily(
        f"{PREFIX}end_timestamp_seconds", "When it expires: a certificate, the CA, the CRL", labels=["what"]
    )
    for what, end_s in ends(figures).items():
        if end_s:
            expiring.add_metric([what], end_s)
    yield expiring
