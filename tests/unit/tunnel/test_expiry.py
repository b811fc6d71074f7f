# SPDX-License-Identifier: Apache-2.0
"""What ends one day is told in time, and not over and over."""

from __future__ import annotations

import pytest

from pcmig.tunnel.expiry import DAY_S, Watch

END = 2_000_000_000
PATHS = {"certificate": "/etc/pki/pcmig/host.pem", "crl": None}


@pytest.mark.parametrize("what", ["certificate", "client_certificate", "ca", "crl"])
def test_thirty_seven_and_one_day_before(what: str) -> None:
    watch = Watch()
    told = [
        hours
        for hours in range(40 * 24, -48, -1)
        if watch.due({what: END}, PATHS, END - hours * 3600)  # an hour passes at each
    ]
    assert told == [30 * 24, 7 * 24, 24, 0]


def test_what_a_line_says() -> None:
    (line,) = Watch().due({"certificate": END}, PATHS, END - 6.2 * DAY_S)
    assert "/etc/pki/pcmig/host.pem" in line and "in 6 days (2033-05-18" in line and "keygen --renew" in line
    (line,) = Watch().due({"crl": END}, PATHS, END + 5)
    assert "has expired" in line and "every host is refused" in line
    (line,) = Watch().due({"ca": END}, PATHS, END - 5)
    assert "within a day" in line


def test_a_new_one_is_told_anew_and_nothing_of_what_is_not_there() -> None:
    watch = Watch()
    assert watch.due({"crl": END, "ca": 0}, PATHS, END - DAY_S / 2)
    assert not watch.due({"crl": END, "ca": 0}, PATHS, END - DAY_S / 3)
    assert not watch.due({"crl": END + 60 * DAY_S}, PATHS, END)
    assert watch.due({"crl": END + 60 * DAY_S}, PATHS, END + 40 * DAY_S)
