# SPDX-License-Identifier: Apache-2.0
"""The cloud bed's parts that need no cloud: addresses, configuration, heartbeats' frames."""

from __future__ import annotations

import base64
import configparser
import pathlib
import socket
import struct

from tests.bed.guest import GuestSpec
from tests.cloud import collector, config, network
from tests.cloud.cloud import block_devices
from tests.cloud.server import command_line
from tests.cloud.storage import ceph, guest
from tests.cloud.storage.guest import DiskWork, StorageSpec


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


def test_disk_workers_options_follow_the_workers() -> None:
    line = command_line(StorageSpec(disks=(DiskWork("vda"), DiskWork("vdb", 16, 4, 5))))
    assert line.endswith(" heartbeat_ms=20 disk=vda:1:8:20 disk=vdb:16:4:5")


def test_what_disk_workers_say() -> None:
    said = [
        "1.5 a FOUND vda 12 0",
        "1.6 a HB 1 2 3 4 5 6",
        "1.7 a DISK vda 13 1 0 0",
        "1.8 b DISK vda 14 2 1 3",
    ]
    assert guest.parse("\n".join([*said, "1.9 b DISK v"])) == [
        guest.Found(1.5, "a", "vda", 12, 0),
        guest.DiskBeat(1.7, "a", "vda", 13, 1, 0, 0),
        guest.DiskBeat(1.8, "b", "vda", 14, 2, 1, 3),
    ]


def test_a_root_volume_goes_with_its_server_and_others_stay() -> None:
    root, more = block_devices("image", ["v1"], True, 0)
    assert (root["destination_type"], root["volume_size"], root["delete_on_termination"]) == (
        "volume",
        1,
        True,
    )
    assert (more["uuid"], more["boot_index"], "delete_on_termination" in more) == ("v1", -1, False)
    assert block_devices("image", [], False, 1)[0]["destination_type"] == "local"


def test_a_cephx_key_has_the_form_that_ceph_reads() -> None:
    kind, _, _, length = struct.unpack_from("<hIIh", base64.b64decode(ceph.new_key()))
    assert (kind, length) == (1, 16)
    assert len(base64.b64decode(ceph.new_key())) == 28
