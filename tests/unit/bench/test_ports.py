# SPDX-License-Identifier: Apache-2.0
"""Silences out of pings, and what is asked for wrongly."""

from __future__ import annotations

import pytest

from tests.bed import BedError
from tests.bench.ports import figures, ways
from tests.bench.ports.__main__ import _announced, main
from tests.bench.ports.wired import Wired


def pings(*times_s: float) -> list[tuple[int, float]]:
    return [(round(time_s * 100), time_s) for time_s in times_s]


def test_silence() -> None:
    came = pings(1.0, 1.01, 1.02, 1.42, 1.43)
    assert figures.silence_ms(came, 1.0, 1.44) == pytest.approx(400)
    assert figures.silence_ms(came, 0.2, 1.44) == pytest.approx(800)  # nobody answered at first
    assert figures.silence_ms(came, 1.0, 3.43) == pytest.approx(2000)  # nor in the end
    assert figures.silence_ms([], 1.0, 3.0) == pytest.approx(2000)


def test_what_a_slower_meter_loses() -> None:
    """However it falls: the guest is silent for a second, which is five of its pings."""
    sent = [(number, number / 100) for number in range(1000)]
    came = [(number, time_s + 0.001) for number, time_s in sent if not 2.0 <= time_s < 3.0]
    assert figures.meter_lost(sent, came, 0, 10) == 5
    late = [(number, 3.2) for number, time_s in sent if 2.0 <= time_s < 3.0]
    assert figures.meter_lost(sent, came + late, 0, 10) == 1  # the first ones waited for too long
    assert figures.meter_lost(sent, [(n, s + 0.001) for n, s in sent], 0, 10) == 0
    assert figures.meter_lost(sent, [(n, s - 0.0005) for n, s in sent], 0, 10) == 0  # two clocks
    assert figures.meter_lost([], [], 0, 10) == 0


def test_the_bar() -> None:
    row = {"bar_ms": figures.bar_ms(100), "client_ms": 200.0, "neighbour_ms": 150.0}
    assert not figures.over_the_bar(row)
    assert figures.over_the_bar(row | {"neighbour_ms": 201.0})


@pytest.mark.parametrize(
    ("over", "lost", "said"),
    [(False, 1, None), (False, 2, "2 pings of five a second were lost"), (True, 0, "over the bar")],
)
def test_what_is_complained_of(over: bool, lost: int, said: str | None) -> None:
    assert figures.complaint({"over_the_bar": over, "meter_lost": lost}) == said


def test_how_often() -> None:
    def told(text: str | None) -> int | None:
        return _announced({"ports": {"announced": text}})

    assert told("vnet0: announced 4 times from 3 ms on, heard after 20 ms") == 4
    assert told("vnet0: announced once from 3 ms on, not heard") == 1
    assert told(None) is told("vnet0: not announced: br0 is gone") is _announced({"ports": None}) is None


def test_the_guest() -> None:
    spec = Wired(nics=2, openvswitch=True)
    spec.check()
    xml = spec.xml()
    assert xml.count("<interface") == xml.count("<virtualport type='openvswitch'/>") == 2
    assert "<kernel>/run/pcmig/wired/vmlinuz<" in xml and "<initrd>/run/pcmig/wired/initramfs<" in xml
    assert "net=eth1,10.88.1.100,fd00:88:2::100" in xml


def test_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert [each.name for each in ways.chosen("openvswitch,bridge")] == ["openvswitch", "bridge"]
    with pytest.raises(BedError):
        ways.chosen("bridge,token-ring")
    for words in (["--setups", "x"], ["--ways", "rsync"], ["--rounds", "0"]):
        assert main(words) == 2
    assert "use some of bridge," in capsys.readouterr().err
