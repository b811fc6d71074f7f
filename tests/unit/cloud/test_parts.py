"""The cloud bed's parts that need no cloud: addresses, configuration, heartbeats' frames."""

from __future__ import annotations

import configparser
import pathlib
import socket
import struct

from tests.bed.guest import GuestSpec
from tests.cloud import collector, config, network
from tests.cloud.server import command_line


def _frame(port: int, text: bytes, ethertype: int = 0x0800, protocol: int = 17) -> bytes:
    udp = struct.pack("!HHHH", 40000, port, 8 + len(text), 0) + text
    addresses = socket.inet_aton("10.80.0.16") + socket.inet_aton(network.COLLECTOR)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, protocol, 0) + addresses
    return bytes(12) + struct.pack("!H", ethertype) + ip + udp


def test_heartbeat_of_a_padded_frame() -> None:
    frame = _frame(5514, b"HB 1 2 3\n") + bytes(20)
    assert collector.parse(frame, 5514) == ("10.80.0.16", b"HB 1 2 3\n")


def test_other_frames_are_no_heartbeats() -> None:
    for frame in (
        b"",
        _frame(5515, b"HB\n"),
        _frame(5514, b"HB\n", ethertype=0x0806),
        _frame(5514, b"HB\n", protocol=6),
        _frame(5514, b"HB\n")[:36],
    ):
        assert collector.parse(frame, 5514) is None


def test_address_and_mac_of_a_guest_agree() -> None:
    for number in (network.FIRST_GUEST, 255, 256, 4097):
        tail = [int(part, 16) for part in network.guest_mac(number).split(":")[4:]]
        assert network.guest_address(number) == f"10.80.{tail[0]}.{tail[1]}"


def test_rendered_options_are_read_back() -> None:
    text = config.render({"libvirt": {"permit": True, "limit": 5, "scheme": "tcp"}, "empty": {}})
    parser = configparser.ConfigParser()
    parser.read_string(text)
    assert dict(parser["libvirt"]) == {"permit": "true", "limit": "5", "scheme": "tcp"}
    assert "empty" in parser


def test_a_list_is_one_line_for_each_value() -> None:
    assert config.render({"a": {"b": ["1", "2"]}}) == "[a]\nb = 1\nb = 2\n"


def test_worker_options_follow_the_kernels_own() -> None:
    line = command_line(GuestSpec(worker_mib=64, write_pps=1, verify_pps=2, heartbeat_ms=10))
    assert line.endswith(" -- worker_mib=64 write_pps=1 verify_pps=2 heartbeat_ms=10")


def test_the_filter_is_in_both_pipelines_or_in_none(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "etc/nova/api-paste.ini"
    place.parent.mkdir(parents=True)
    novas = (
        "[composite:new]\nkeystone = cors keystonecontext osapi_compute_app_v21\n"
        "[composite:old]\nkeystone = cors keystonecontext legacy_v2_compatible osapi_compute_app_v21\n"
        "[app:osapi_compute_app_v21]\npaste.app_factory = nova\n"
    )
    place.write_text(novas)
    assert config.api_paste(tmp_path, False) == novas
    parser = configparser.ConfigParser()
    parser.read_string(config.api_paste(tmp_path, True))
    for name in ("new", "old"):
        assert parser[f"composite:{name}"]["keystone"].split()[-2:] == ["pcmig", "osapi_compute_app_v21"]
    assert parser["filter:pcmig"]["paste.filter_factory"] == "pcmig_api:factory"
    assert "app:osapi_compute_app_v21" in parser
