# SPDX-License-Identifier: Apache-2.0
"""The rows of pcmig check: each one ok, and each way in which it is not."""

from __future__ import annotations

import copy
import errno
import inspect
import json
import pathlib
import re
import stat
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig import check
from pcmig.check import (
    capabilities,
    gather,
    hosts,
    local,
    many,
    network,
    network_facts,
    novadriver,
    pair,
    qemuconf,
    tunnel,
    userfaultfd,
    versions,
)
from pcmig.check.novadriver import NovaDriver
from pcmig.check.novarights import NovaRights
from pcmig.check.qemuconf import QemuSettings
from pcmig.check.qemuconf import settings as read_conf
from pcmig.ports.model import LinuxBridge, SwitchBridge
from pcmig.tunnel import keygen
from pcmig.tunnel.identity import Identity
from pcmig.tunnel.peer import Peer
from tests.unit.tunnel.fake_daemon import fake_daemon

if TYPE_CHECKING:
    from pcmig._core import HostFacts, HostProbe

REPOSITORY = pathlib.Path(__file__).parents[2]
UUIDS = ("aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002")

WORKS = {
    "ok": True,
    "step": "done",
    "errno": 0,
    "features": ["missing-hugetlbfs", "missing-shmem", "thread-id"],
    "ioctls": ["register", "unregister", "wake", "copy", "zeropage"],
}


def denied(number: int) -> dict[str, Any]:
    return {"ok": False, "step": "open", "errno": number, "features": [], "ioctls": []}


def a_probe(**changes: Any) -> HostProbe:
    """A host on which root may do everything, and QEMU's user nothing by itself."""
    probe: dict[str, Any] = {
        "kernel": "6.18.44-amd64",
        "lockdown": None,
        "seccomp": 0,
        "page_size_bytes": 4096,
        "sysctl": {
            "vm.unprivileged_userfaultfd": 0,
            "vm.max_map_count": 65530,
            "net.ipv4.tcp_retries2": 8,
            "net.ipv4.tcp_wmem": [4096, 16384, 4194304],
            "net.ipv4.tcp_rmem": [4096, 131072, 6291456],
        },
        "node": {"device": True, "mode": 0o600, "uid": 0, "gid": 0, "major": 10, "minor": 257},
        "uffd": {"syscall": WORKS, "syscall_user_mode_only": WORKS, "node": WORKS},
        "turns": {
            "state": "shared",
            "path": "/run/pcmig/migrations/turns-2",
            "errno": 0,
            "folder_mode": 0o2770,
            "migrations": 0,
        },
        "user": {
            "name": "libvirt-qemu",
            "uid": 64055,
            "gid": 994,
            "groups": [994],
            "capabilities": False,
            "errno": 0,
            "uffd": {
                "syscall": denied(errno.EPERM),
                "syscall_user_mode_only": WORKS,
                "node": denied(errno.EACCES),
            },
        },
    }
    probe = copy.deepcopy(probe)
    for path, value in changes.items():
        at = probe
        *way, last = path.split("__")
        for step in way:
            at = at[step]
        at[last] = value
    return cast("HostProbe", probe)


def capabilities_xml(
    uuid: str = UUIDS[0], arch: str = "x86_64", kinds: str = "kvm qemu", uris: str = "tcp rdma"
) -> str:
    transports = "".join(f"<uri_transport>{uri}</uri_transport>" for uri in uris.split())
    domains = "".join(f"<domain type='{kind}'/>" for kind in kinds.split())
    return (
        f"<capabilities><host><uuid>{uuid}</uuid><cpu><arch>{arch}</arch></cpu><migration_features><live/>"
        f"<uri_transports>{transports}</uri_transports></migration_features></host>"
        f"<guest><os_type>hvm</os_type><arch name='{arch}'>{domains}</arch></guest></capabilities>"
    )


def a_host(name: str = "a", libvirt: int = 12_009_000, qemu: int = 10_000_002, **changes: Any) -> HostFacts:
    facts = {
        "client_version": 12_009_000,
        "libvirt_version": libvirt,
        "qemu_version": qemu,
        "driver": "QEMU",
        "hostname": name,
        "uri": "qemu:///system",
        "capabilities": capabilities_xml(UUIDS[0] if name == "a" else UUIDS[1]),
        "encrypted": True,
        "secure": True,
        "guest": None,
    }
    facts |= changes
    uuid = re.search("<uuid>(.*?)</uuid>", str(facts["capabilities"]))
    return cast("HostFacts", {"host_uuid": uuid and uuid[1], **facts})


def a_guest(kind: str = "kvm", state: str = "running", devices: str = "", cpu: str = "") -> dict[str, str]:
    xml = f"<domain type='{kind}'><name>g1</name><cpu>{cpu}</cpu><devices>{devices}</devices></domain>"
    return {"name": "g1", "uuid": UUIDS[0], "state": state, "xml": xml}


def facts(
    here: HostFacts | None = None,
    peer: HostFacts | None = None,
    probe: HostProbe | None = None,
    **changes: Any,
) -> check.Facts:
    return check.Facts(
        here=check.Side("qemu:///system", here or a_host()),
        peer=check.Side("qemu+tls://b/system", peer) if peer is not None else None,
        probe=probe or a_probe(),
        **{"net_admin": True, **changes},
    )


def row(found: check.Facts, name: str, subject: str = "this host") -> check.Row:
    rows = [row for row in check.run(found) if (row.subject, row.name) == (subject, name)]
    assert len(rows) == 1, f"{len(rows)} rows {subject}: {name}"
    return rows[0]


def names(found: check.Facts, subject: str) -> list[str]:
    return [row.name for row in check.run(found) if row.subject == subject]


def two_hosts(**changes: Any) -> check.Facts:
    return facts(peer=a_host("b"), peer_addresses=("192.0.2.7",), **changes)


# --- all rows -----------------------------------------------------------------------------------------------


def test_a_good_host_passes_every_row() -> None:
    rows = check.run(facts(here=a_host(guest=a_guest()), domain="g1"))
    assert {row.status for row in rows} == {"ok"}
    assert not check.failed(rows)
    assert len({(row.subject, row.name) for row in rows}) == len(rows)


def test_a_good_pair_leaves_only_what_libvirt_does_not_tell() -> None:
    assert [(r.subject, r.name) for r in check.run(two_hosts()) if r.status != "ok"] == [
        ("peer", "userfaultfd")
    ]


def test_what_is_not_ok_says_why_or_how_to_fix_it() -> None:
    bad = check.Facts(
        here=check.Side(
            "qemu:///system", a_host(libvirt=7_000_000, qemu=2_005_000, guest=a_guest("qemu", "paused"))
        ),
        probe=a_probe(kernel="4.2.0", node=None, seccomp=2, **{"sysctl__net.ipv4.tcp_retries2": 15}),
        peer=check.Side("qemu+tcp://b/system", a_host(libvirt=11_003_000, qemu=11_000_000, secure=False)),
        peer_addresses=(),
        domain="g1",
    )
    rows = [row for row in check.run(bad) if row.status != "ok"]
    assert len(rows) >= 15
    for found in rows:
        assert found.found and found.wanted and found.fix, found


def test_every_row_function_is_in_a_table() -> None:
    tables = {
        function.__name__
        for table in (local.LOCAL, network.NETWORK, hosts.HOST, pair.PAIR, pair.GUEST, tunnel.TUNNEL)
        for function in table
    }
    made = {
        name
        for module in (local, hosts, many, network, novadriver, pair, tunnel, userfaultfd)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if inspect.signature(function).return_annotation in ("Row | None", "Row")
    }
    assert made == tables


def test_every_row_is_documented() -> None:
    text = (REPOSITORY / "doc/operate/check.rst").read_text()
    headings = set(re.findall(r"^(.+)\n\^+$", text, re.MULTILINE))
    shown = {name for found in every_kind() for name in (row.name for row in check.run(found))}
    assert shown == headings


def every_kind() -> list[check.Facts]:
    """Facts that together make every row appear."""
    return [
        two_hosts(domain="g1"),
        facts(here=a_host(guest=a_guest()), domain="g1"),
        facts(here=a_host(driver="TEST")),
        facts(here=a_host(libvirt=11_003_000, qemu=11_000_000)),
        facts(here=a_host(libvirt=9_000_000), settings=QemuSettings(migrates_with_tls=True)),
        facts(here=a_host(capabilities=capabilities_xml(kinds="qemu"))),
        facts(probe=a_probe(seccomp=2)),
        facts(nova=NovaDriver("/usr/bin/python3", "/usr/lib/python3/dist-packages/nova/__init__.py")),
        check.Facts(here=check.Side("qemu:///system"), probe_error="there is no user 'x' on this host"),
        check.Facts(here=check.Side("qemu+ssh://a/system")),
        facts(tunnel=a_tunnel()),
        facts(tunnel=a_tunnel(paths=LIBVIRTS)),
        facts(nova=NovaDriver("/usr/bin/python3", unread=("live-migration-flag is not read",))),
        facts(nova_rights=NovaRights(7, "nova", False)),
        facts(many=many.Many(slots=30, daemon="libvirtd", workers=20, files=64)),
        facts(network=a_network(events=False)),
        facts(here=a_host(guest=a_guest(devices="<interface type='user'/>")), domain="g1"),
    ]


def a_network(**nova: Any) -> network_facts.Network:
    """A host of neutron's with OVN, on which nothing is slow, but for what NOVA changes."""
    options = {"announces": True, "waits": True, "timeout_s": 300, "fatal": True, "events": True}
    return network_facts.Network(
        nova=network_facts.NovaNetwork(**(options | nova)),
        bridges=(LinuxBridge("br0", False, 15_000, 300_000, True),),
        switches=(SwitchBridge("br-int", False, False, 15, 15, 300),),
        controller=network_facts.Controller("23.03.1", "connected", 0.4, 12.0),
        polling_s=2,
    )


NOW_S = 1_800_000_000.0


LIBVIRTS = {"client_certificate": "/etc/pki/libvirt/clientcert.pem", "ca": "/etc/pki/CA/cacert.pem"}


def a_tunnel(**changes: Any) -> tunnel.TunnelFacts:
    """One that runs, and a peer that answers."""
    good: dict[str, Any] = {
        "now_s": NOW_S,
        "control": "/run/pcmig/tunnel.control",
        "files_from": "certificates in /etc/pki/pcmig",
        "identity": Identity("CN=a", ("a", "10.0.0.1"), NOW_S - 86400, NOW_S + 90 * 86400),
        "ends": {
            what: int(NOW_S) + 60 * 86400 for what in ("certificate", "client_certificate", "ca", "crl")
        },
        "paths": {"client_certificate": None, "ca": "/etc/pki/pcmig/ca.pem", "crl": "/etc/pki/pcmig/crl.pem"},
        "folder": "/run/pcmig/tunnel",
        "folder_mode": 0o043733,
        "peer": "b",
        "probe": {"subject": "CN=b", "not_after": int(NOW_S) + 60 * 86400, "clock_skew_ms": -120},
    }
    return tunnel.TunnelFacts(**(good | changes))


# --- this host ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("6.18.44-amd64", "ok"),
        ("4.11.0", "ok"),
        ("4.10.17", "fail"),
        ("3.10.0-1160.el7", "fail"),
        ("x", "unknown"),
    ],
)
def test_kernel(release: str, status: str) -> None:
    assert row(facts(probe=a_probe(kernel=release)), "kernel").status == status


@pytest.mark.parametrize(
    ("state", "number", "mode", "said"),
    [
        ("missing", errno.ENOENT, 0, "/run/pcmig/migrations is not there"),
        ("denied", errno.EACCES, 0, "not open to this user: Permission denied"),
        ("foreign", errno.EBADMSG, 0, "not a file of this version"),
        ("failed", errno.ENOSPC, 0, "No space left on device"),
        ("shared", 0, 0o700, "open to its owner alone: mode 0700"),
    ],
)
def test_other_migrations_are_not_known(state: str, number: int, mode: int, said: str) -> None:
    turns = {"turns__state": state, "turns__errno": number, "turns__folder_mode": mode}
    found = row(facts(probe=a_probe(**turns)), "other migrations")
    assert found.status == "warn" and said in found.found and found.fix


def test_other_migrations_are_known() -> None:
    found = row(facts(probe=a_probe(turns__migrations=3)), "other migrations")
    assert (found.status, found.found) == ("ok", "known through /run/pcmig/migrations/turns-2, 3 now")
    assert row(facts(), "other migrations").found == "known through /run/pcmig/migrations/turns-2"


def test_kernel_without_userfaultfd() -> None:
    none = denied(errno.ENOSYS)
    probe = a_probe(
        node=None, uffd={"syscall": none, "syscall_user_mode_only": none, "node": denied(errno.ENOENT)}
    )
    found = facts(probe=probe)
    assert row(found, "userfaultfd in the kernel").status == "fail"
    assert "CONFIG_USERFAULTFD" in row(found, "userfaultfd in the kernel").fix
    assert "userfaultfd for QEMU" not in names(found, "this host")


def test_userfaultfd_node() -> None:
    assert row(facts(), "userfaultfd node").found == "mode 0600, owner 0:0"
    assert row(facts(probe=a_probe(node=None)), "userfaultfd node").status == "warn"
    assert row(facts(probe=a_probe(node__device=False)), "userfaultfd node").status == "fail"


NO_NAMESPACE = QemuSettings(mount_namespace=False)
OWN_ACL = QemuSettings(device_acl=("/dev/null", "/dev/kvm"))
OWN_ACL_WITH_NODE = QemuSettings(device_acl=("/dev/null", "/dev/userfaultfd"))
NODE_OPEN = {"user__uffd__node": WORKS}
SYSCALL_OPEN = {"user__uffd__syscall": WORKS}


@pytest.mark.parametrize(
    ("libvirt", "qemu", "settings", "changes", "status", "says"),
    [
        # by the system call, whatever the versions
        (8_000_000, 6_002_000, QemuSettings(), SYSCALL_OPEN, "ok", "by the system call"),
        # libvirt 10.1 grants the node to a QEMU that opens it
        (10_001_000, 8_000_000, QemuSettings(), {}, "ok", "which libvirt 10.1.0 grants"),
        (10_001_000, 8_000_000, OWN_ACL_WITH_NODE, {}, "ok", "which libvirt 10.1.0 grants"),
        (10_001_000, 8_000_000, OWN_ACL, {}, "fail", 'add "/dev/userfaultfd" to cgroup_device_acl'),
        (10_001_000, 8_000_000, QemuSettings(), {"node": None}, "fail", "vm.unprivileged_userfaultfd = 1"),
        (10_001_000, 7_002_000, QemuSettings(), {}, "fail", "QEMU 7.2.0 does not open"),
        (10_001_000, 7_002_000, QemuSettings(), NODE_OPEN, "fail", "vm.unprivileged_userfaultfd = 1"),
        # an older one leaves the node out of QEMU's own /dev
        (9_000_000, 8_000_000, QemuSettings(), NODE_OPEN, "fail", "not in QEMU's own /dev"),
        (9_000_000, 8_000_000, OWN_ACL_WITH_NODE, NODE_OPEN, "ok", "by /dev/userfaultfd"),
        (9_000_000, 8_000_000, OWN_ACL_WITH_NODE, {}, "fail", "EACCES"),
        # without a /dev of its own, the host's node decides
        (12_008_000, 10_000_002, NO_NAMESPACE, NODE_OPEN, "ok", "by /dev/userfaultfd"),
        (12_008_000, 10_000_002, NO_NAMESPACE, {}, "fail", 'KERNEL=="userfaultfd", OWNER="libvirt-qemu"'),
        # the sysctl says yes and the kernel no
        (9_000_000, 7_002_000, QemuSettings(), {"sysctl__vm.unprivileged_userfaultfd": 1}, "fail", "seccomp"),
        # libvirt has no QEMU
        (12_008_000, 0, QemuSettings(), {}, "unknown", "depends on the versions"),
    ],
)
def test_userfaultfd_for_qemu(
    libvirt: int, qemu: int, settings: QemuSettings, changes: dict[str, Any], status: str, says: str
) -> None:
    found = row(
        facts(a_host(libvirt=libvirt, qemu=qemu), probe=a_probe(**changes), settings=settings),
        "userfaultfd for QEMU",
    )
    assert found.status == status, found
    assert says in found.found + found.fix


def test_userfaultfd_for_qemu_only_warns_on_the_side_that_guests_leave() -> None:
    found = two_hosts(settings=NO_NAMESPACE)
    assert row(found, "userfaultfd for QEMU").status == "warn"


def test_userfaultfd_for_qemu_without_libvirt() -> None:
    alone = check.Facts(here=check.Side("qemu:///system", error="refused"), probe=a_probe())
    assert row(alone, "userfaultfd for QEMU").status == "unknown"


def test_userfaultfd_for_qemu_needs_root() -> None:
    found = row(facts(probe=a_probe(user__uffd=None, user__errno=errno.EPERM)), "userfaultfd for QEMU")
    assert (found.status, found.fix) == ("unknown", "run 'pcmig check' as root")
    assert row(facts(probe=a_probe(user=None)), "userfaultfd for QEMU").status == "unknown"


def test_userfaultfd_features() -> None:
    def with_root(attempt: dict[str, Any]) -> check.Row:
        ways = {"syscall": attempt, "syscall_user_mode_only": attempt, "node": attempt}
        return row(facts(probe=a_probe(uffd=ways, user=None)), "userfaultfd features")

    assert with_root(WORKS).status == "ok"
    assert with_root({**WORKS, "features": ["missing-hugetlbfs"]}).status == "warn"
    assert "shared memory" in with_root({**WORKS, "features": ["missing-hugetlbfs"]}).found
    assert (
        with_root({**WORKS, "ioctls": ["register", "unregister", "wake", "copy"]}).found == "without zeropage"
    )
    assert with_root(denied(errno.EPERM)).status == "unknown"


@pytest.mark.parametrize(
    ("retries", "status", "says"),
    [
        (5, "ok", "13 s"),
        (8, "ok", "102 s"),
        (9, "ok", "3 min"),
        (15, "warn", "15 min"),
        (None, "unknown", ""),
    ],
)
def test_tcp_retries(retries: int | None, status: str, says: str) -> None:
    found = row(facts(probe=a_probe(**{"sysctl__net.ipv4.tcp_retries2": retries})), "TCP retries")
    assert found.status == status
    assert says in found.found


@pytest.mark.parametrize(
    ("net_admin", "quickack", "status", "says"),
    [
        (True, None, "ok", "CAP_NET_ADMIN"),
        (True, True, "ok", "the route to the peer has it"),
        (False, True, "ok", "the route to the peer has it"),
        (False, False, "warn", "no CAP_NET_ADMIN"),
        (False, None, "warn", "no CAP_NET_ADMIN"),
        (None, None, "unknown", "cannot be read"),
    ],
)
def test_quickack(net_admin: bool | None, quickack: bool | None, status: str, says: str) -> None:
    found = row(facts(net_admin=net_admin, quickack=quickack), "quickack")
    assert (found.status, says in found.found) == (status, True)
    assert ("ip route change" in found.fix) is (status != "ok")


def test_capability_of_a_process(tmp_path: pathlib.Path) -> None:
    status = tmp_path / "proc/self/status"
    assert gather.net_admin(str(tmp_path)) is None
    status.parent.mkdir(parents=True)
    for text, has in (("0000000000001000", True), ("000001ffffffffff", True), ("000001ffffffefff", False)):
        status.write_text(f"Name:\tx\nCapInh:\t000001ffffffffff\nCapEff:\t{text}\n")
        assert gather.net_admin(str(tmp_path)) is has
    status.write_text("Name:\tx\n")
    assert gather.net_admin(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("answer", "code", "has"),
    [
        ('[{"dst":"10.0.0.0/24","dev":"e","metrics":[{"mtu":1400},{"quickack":1}]}]', 0, True),
        ('[{"dst":"10.0.0.0/24","dev":"e","metrics":[{"mtu":1400}]}]', 0, False),
        ('[{"dst":"default","dev":"e"}]', 0, False),
        ("[]", 0, None),
        ("[1]", 0, None),
        ("no json", 0, None),
        ("", 2, None),
    ],
)
def test_route_as_ip_tells(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, has: bool | None
) -> None:
    program = tmp_path / "ip"
    program.write_text(
        f"#!/bin/sh\n[ \"$*\" = '-j route get fibmatch fe80::1' ] || exit 9\necho '{answer}'; exit {code}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert gather.quickack("fe80::1%eth0") is has
    program.unlink()
    assert gather.quickack("fe80::1") is None


def test_seccomp_is_mentioned_only_where_there_is_a_filter() -> None:
    assert row(facts(probe=a_probe(seccomp=2)), "seccomp").status == "warn"
    assert "seccomp" not in names(facts(), "this host")
    assert "seccomp" not in names(facts(probe=a_probe(seccomp=None)), "this host")


def test_unknown_qemu_user() -> None:
    found = check.Facts(
        here=check.Side("qemu:///system", a_host()), probe_error="there is no user 'x' on this host"
    )
    assert row(found, "probe").status == "fail"
    assert "--qemu-user" in row(found, "probe").fix


def test_source_on_another_machine() -> None:
    found = check.Facts(here=check.Side("qemu+ssh://a/system", a_host()))
    assert row(found, "userfaultfd", "source").status == "unknown"
    assert names(found, "this host") == []


# --- one host through libvirt -------------------------------------------------------------------------------


def test_libvirt_that_does_not_answer() -> None:
    found = check.Facts(here=check.Side("qemu:///system", error="Connection refused"), probe=a_probe())
    assert row(found, "libvirt").status == "fail"
    assert row(found, "libvirt").found == "Connection refused"
    assert check.failed(check.run(found))


@pytest.mark.parametrize(
    ("host", "name", "status"),
    [
        (a_host(libvirt=8_000_000), "libvirt version", "ok"),
        (a_host(libvirt=7_010_000), "libvirt version", "fail"),
        (a_host(driver="TEST"), "hypervisor", "fail"),
        (a_host(qemu=5_002_000), "QEMU version", "ok"),
        (a_host(qemu=5_001_000), "QEMU version", "fail"),
        (a_host(qemu=0), "QEMU version", "fail"),
        (a_host(qemu=11_001_002, capabilities=capabilities_xml(kinds="qemu")), "emulation", "warn"),
        (a_host(qemu=10_000_002, capabilities=capabilities_xml(kinds="qemu")), "emulation", "ok"),
        (a_host(qemu=9_000_000, capabilities=capabilities_xml(kinds="qemu")), "emulation", "ok"),
        (a_host(qemu=8_002_000, capabilities=capabilities_xml(kinds="qemu")), "emulation", "fail"),
        (a_host(libvirt=11_003_000), "post-copy recovery", "warn"),
        (a_host(libvirt=11_002_000), "post-copy recovery", "warn"),
        (a_host(libvirt=8_000_000), "post-copy recovery", "warn"),
        (a_host(libvirt=8_004_000), "post-copy recovery", "warn"),
        (a_host(libvirt=12_008_000, qemu=11_001_002), "statistics", "warn"),
        (a_host(libvirt=12_008_000, qemu=10_002_000), "statistics", "warn"),
        (a_host(libvirt=9_010_000), "page requests", "warn"),
        (a_host(qemu=7_000_000), "page requests", "warn"),
        (a_host(libvirt=11_000_000), "incoming guests", "warn"),
        (a_host(libvirt=11_004_099), "incoming guests", "warn"),
        (a_host(capabilities=capabilities_xml()), "migration features", "ok"),
        (a_host(capabilities=capabilities_xml(uris="")), "migration features", "fail"),
        (a_host(capabilities="<capabilities/>"), "migration features", "fail"),
        (a_host(capabilities=None), "migration features", "fail"),
    ],
)
def test_host_rows(host: HostFacts, name: str, status: str) -> None:
    assert row(facts(host), name).status == status


@pytest.mark.parametrize("version", [7_010_000, 8_005_000, 9_000_000, 11_001_099, 11_004_000, 12_008_000])
def test_recovery_is_mentioned_only_where_it_cannot_be_relied_on(version: int) -> None:
    assert "post-copy recovery" not in names(facts(a_host(libvirt=version)), "this host")


@pytest.mark.parametrize(("qemu", "libvirt"), [(10_001_099, 12_008_000), (11_001_002, 12_009_000)])
def test_statistics_are_mentioned_only_where_they_fail(qemu: int, libvirt: int) -> None:
    assert "statistics" not in names(facts(a_host(qemu=qemu, libvirt=libvirt)), "this host")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (a_host(libvirt=10_000_000, qemu=7_001_000), "page requests"),
        (a_host(qemu=0), "page requests"),
        (a_host(libvirt=10_010_000), "incoming guests"),
        (a_host(libvirt=11_005_000), "incoming guests"),
    ],
)
def test_what_newer_versions_do_is_no_row(host: HostFacts, name: str) -> None:
    assert name not in names(facts(host), "this host")


@pytest.mark.parametrize(
    ("text", "libvirt", "why"),
    [
        ("migrate_tls_force = 1", 11_005_000, "crash the source's QEMU"),
        ('migrate_tls_x509_cert_dir = "/etc/pki/m"', 10_002_000, "does not match the hostname"),
        ('default_tls_x509_cert_dir = "/etc/pki/qemu"', 10_003_000, "crash the source's QEMU"),
        ("migrate_tls_force = 1", 11_006_000, None),
        ("migrate_tls_force = 0", 10_000_000, None),
        ('#migrate_tls_x509_cert_dir = "/etc/pki/m"', 10_000_000, None),
    ],
)
def test_tls_of_qemu(text: str, libvirt: int, why: str | None) -> None:
    found = facts(a_host(libvirt=libvirt), settings=read_conf(text))
    if why is None:
        assert "QEMU's TLS" not in names(found, "this host")
        return
    assert why in row(found, "QEMU's TLS").why and row(found, "QEMU's TLS").status == "warn"
    assert ("hostname" in row(found, "QEMU's TLS").why) is (libvirt < 10_003_000)


def test_emulation_is_no_matter_with_kvm() -> None:
    assert "emulation" not in names(facts(a_host(qemu=7_002_000)), "this host")


def test_old_emulation_at_the_destination_only_warns() -> None:
    peer = a_host("b", qemu=7_002_000, capabilities=capabilities_xml(UUIDS[1], kinds="qemu"))
    assert row(facts(peer=peer), "emulation", "peer").status == "warn"


# --- two hosts ----------------------------------------------------------------------------------------------


def test_peer_rows() -> None:
    assert row(two_hosts(), "connection", "peer").status == "ok"
    assert row(facts(peer=a_host("b", secure=False)), "connection", "peer").status == "warn"
    assert "connection" not in names(facts(peer=a_host("b", secure=None)), "peer")
    assert "run 'pcmig check' there" in row(two_hosts(), "userfaultfd", "peer").fix


def test_peer_that_does_not_answer() -> None:
    found = check.Facts(
        here=check.Side("qemu:///system", a_host()),
        peer=check.Side("qemu+tls://b/system", error="No route to host"),
        probe=a_probe(),
    )
    assert row(found, "libvirt", "peer").status == "fail"
    assert names(found, "both") == ["client library"]


@pytest.mark.parametrize(
    ("peer", "name", "status"),
    [
        (a_host("b"), "different hosts", "ok"),
        (a_host("b", capabilities=capabilities_xml(UUIDS[0])), "different hosts", "fail"),
        (a_host("a", capabilities=capabilities_xml(UUIDS[1])), "different hosts", "fail"),
        (a_host("b"), "architecture", "ok"),
        (a_host("b", capabilities=capabilities_xml(UUIDS[1], arch="aarch64")), "architecture", "fail"),
        (a_host("b", capabilities=None), "architecture", "unknown"),
        (a_host("b"), "versions", "ok"),
        (a_host("b", qemu=11_000_000), "versions", "ok"),
        (a_host("b", qemu=10_000_001), "versions", "ok"),
        (a_host("b", qemu=9_002_000), "versions", "warn"),
        (a_host("b", libvirt=12_008_000), "versions", "warn"),
        (a_host("b", libvirt=13_000_000), "client library", "ok"),
    ],
)
def test_pair_rows(peer: HostFacts, name: str, status: str) -> None:
    assert row(facts(peer=peer), name, "both").status == status


@pytest.mark.parametrize(
    ("addresses", "status"),
    [
        (("192.0.2.7", "2001:db8::7"), "ok"),
        ((), "warn"),
        (("127.0.1.1",), "warn"),
        (("::1",), "warn"),
        (("fe80::1%eth0",), "ok"),
    ],
)
def test_name_that_the_peer_calls_itself_by(addresses: tuple[str, ...], status: str) -> None:
    found = row(facts(peer=a_host("b"), peer_addresses=addresses), "peer's name", "both")
    assert found.status == status
    assert ("--migrateuri" in found.fix) is (status == "warn")


# --- the guest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "qemu", "name", "status"),
    [
        (a_guest(), 10_000_002, "guest", "ok"),
        (a_guest(state="paused"), 10_000_002, "guest", "fail"),
        (None, 10_000_002, "guest", "fail"),
        (a_guest("kvm"), 7_002_000, "emulation", "ok"),
        (a_guest("qemu"), 11_001_002, "emulation", "warn"),
        (a_guest("qemu"), 9_000_000, "emulation", "ok"),
        (a_guest("qemu"), 8_002_000, "emulation", "fail"),
        (a_guest("qemu", devices="<memory model='dimm'/>"), 10_000_002, "emulation", "warn"),
        (a_guest("qemu", cpu="<numa><cell id='0'/></numa>"), 10_000_002, "emulation", "ok"),
        (a_guest("qemu", cpu="<numa><cell id='0'/><cell id='1'/></numa>"), 10_000_002, "emulation", "warn"),
        (a_guest("kvm", cpu="<numa><cell id='0'/><cell id='1'/></numa>"), 10_000_002, "emulation", "ok"),
        ({**a_guest(), "xml": "<"}, 10_000_002, "emulation", "unknown"),
        (a_guest(), 2_006_000, "QEMU capability", "ok"),
        (a_guest(), 2_005_000, "QEMU capability", "fail"),
        (a_guest(), 2_004_000, "QEMU capability", "fail"),
        (a_guest(), 0, "QEMU capability", "unknown"),
        (a_guest(), 10_000_002, "devices and memory", "ok"),
        (a_guest(devices="<hostdev type='pci'/>"), 10_000_002, "devices and memory", "fail"),
        (a_guest(devices="<disk type='vhostuser'/>"), 10_000_002, "devices and memory", "warn"),
        ({**a_guest(), "xml": "<"}, 10_000_002, "devices and memory", "unknown"),
    ],
)
def test_guest_rows(guest: dict[str, str] | None, qemu: int, name: str, status: str) -> None:
    assert row(facts(a_host(qemu=qemu, guest=guest), domain="g1"), name, "guest").status == status


def test_both_names_of_the_capability_are_known() -> None:
    def capability(qemu: int) -> str:
        return row(facts(a_host(qemu=qemu, guest=a_guest()), domain="g1"), "QEMU capability", "guest").found

    assert capability(2_006_000).startswith("postcopy-ram,")
    assert capability(2_005_000).startswith("x-postcopy-ram (experimental),")
    assert capability(2_004_000).startswith("none,")


# --- reading ------------------------------------------------------------------------------------------------


def test_versions_are_shown_as_their_projects_write_them() -> None:
    assert [versions.show(number) for number in (8_002_001, 12_008_000, 0)] == ["8.2.1", "12.8.0", "unknown"]


def test_qemu_conf_as_debian_ships_it_sets_nothing() -> None:
    text = '# comment\n#user = "root"\n#cgroup_device_acl = [\n#    "/dev/null"\n#]\n'
    assert qemuconf.settings(text) == QemuSettings()


def test_qemu_conf() -> None:
    text = """
    user = "+107"   # a comment
    group = 'kvm'
    namespaces = []
    clear_emulator_capabilities = 0
    cgroup_device_acl = [
        "/dev/null", "/dev/full",   # another
        "/dev/userfaultfd",
    ]
    """
    assert qemuconf.settings(text) == QemuSettings(
        user="+107",
        group="kvm",
        mount_namespace=False,
        device_acl=("/dev/null", "/dev/full", "/dev/userfaultfd"),
        keep_capabilities=True,
    )


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ('user = "a"\nuser = "b"', QemuSettings(user="b")),
        ("user = 5", QemuSettings()),
        ('user = ""', QemuSettings()),
        ('user = """long"""', QemuSettings(user="long")),
        ('user "a"\ngroup = "g"', QemuSettings(group="g")),
        ('namespaces = [ "mount" ]', QemuSettings()),
        ('namespaces = [ "mount"', QemuSettings()),
        ('cgroup_device_acl = [ 1 ]\nuser = "u"', QemuSettings(user="u")),
        ("clear_emulator_capabilities = 1", QemuSettings()),
        ("user =", QemuSettings()),
    ],
)
def test_odd_qemu_conf(text: str, settings: QemuSettings) -> None:
    assert qemuconf.settings(text) == settings


@given(st.text(alphabet="ab_=[],\"'# \n01-\\é") | st.text())
def test_qemu_conf_of_any_text_is_read(text: str) -> None:
    settings = qemuconf.settings(text)
    assert settings.user is None or settings.user in text


VALUES = (
    st.integers(-(2**63), 2**63 - 1)
    | st.text("abc/ #=[]", max_size=9)
    | st.lists(st.text("abc/ #,]", max_size=9))
)


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), VALUES))
def test_qemu_conf_is_read_back(conf: dict[str, int | str | list[str]]) -> None:
    text = "".join(f"{name} = {json.dumps(value)}  # end\n" for name, value in conf.items())
    assert qemuconf.parse(text) == conf


@given(st.text(alphabet="<>/capbilteshoumrgn='\" ") | st.text())
def test_capabilities_of_any_text_are_read(text: str) -> None:
    capabilities.parse_capabilities(text)
    capabilities.domain_type(text)


@given(st.text(alphabet="0123456789.-x٣") | st.text())
def test_kernel_release_of_any_text_is_read(text: str) -> None:
    found = versions.version_of(text)
    assert found is None or text.startswith(str(found[0]).zfill(0)) or text.startswith("0")


@given(st.integers(0, 255))
def test_tcp_timeout_grows(retries: int) -> None:
    assert local.tcp_timeout_s(retries) < local.tcp_timeout_s(retries + 1) or retries == 255


# --- the tunnel ---------------------------------------------------------------------------------------------


def test_a_tunnel_that_is_as_it_should_be() -> None:
    found = [one for one in check.run(facts(tunnel=a_tunnel())) if one.name.startswith(("tunnel", "clocks"))]
    assert [(one.name, one.status) for one in found] == [
        ("tunnel", "ok"),
        ("tunnel certificate", "ok"),
        ("tunnel CA", "ok"),
        ("tunnel revocation list", "ok"),
        ("tunnel folder", "ok"),
        ("tunnel to the peer", "ok"),
        ("clocks", "ok"),
    ]
    assert not {one.name for one in check.run(facts()) if one.name.startswith("tunnel")}
    names = {one.name for one in check.run(facts(tunnel=a_tunnel(ends={"ca": int(NOW_S) * 2, "crl": 0})))}
    assert "tunnel CA" in names and "tunnel revocation list" not in names


@pytest.mark.parametrize(
    ("left_s", "status", "text"),
    [
        (31 * 86400, "ok", "good until"),
        (30 * 86400 - 1, "warn", "less than 30 days are left"),
        (7 * 86400 - 1, "warn", "less than 7 days are left"),
        (86400 - 1, "warn", "less than a day is left"),
        (0, "fail", "it has expired"),
    ],
)
@pytest.mark.parametrize(
    ("what", "name", "command"),
    [
        ("ca", "tunnel CA", "pcmig tunnel keygen --new-ca"),
        ("crl", "tunnel revocation list", "pcmig tunnel keygen --revoke"),
        ("client_certificate", "tunnel certificate to dial with", "pcmig tunnel reload"),
    ],
)
def test_what_the_daemon_goes_by_ends(
    left_s: int, status: str, text: str, what: str, name: str, command: str
) -> None:
    """The peer's daemon refuses all of a list that has expired, and no row said so."""
    found = row(facts(tunnel=a_tunnel(ends={what: int(NOW_S) + left_s}, paths=LIBVIRTS)), name, "this host")
    assert (found.status, text in found.found) == (status, True), found
    assert (status == "ok") == (not found.fix) and (status == "ok" or command in found.fix)


@pytest.mark.parametrize(
    ("changes", "name", "status", "text"),
    [
        ({"settings_error": "x: [tunnel] y is not known"}, "tunnel", "fail", "is not known"),
        ({"control_error": "the tunnel of this host is not running"}, "tunnel", "fail", "not running"),
        ({"identity": None, "identity_error": "expired"}, "tunnel certificate", "fail", "expired"),
        (
            {"identity": None, "identity_error": "/k: Permission denied"},
            "tunnel certificate",
            "unknown",
            "denied",
        ),
        (
            {"identity": Identity("CN=a", (), 0, NOW_S + 86400)},
            "tunnel certificate",
            "warn",
            "no further names",
        ),
        ({"identity": Identity("CN=a", (), 0, NOW_S - 1)}, "tunnel certificate", "fail", "CN=a"),
        ({"folder_mode": 0o040777}, "tunnel folder", "fail", "mode 0777"),
        ({"folder_mode": 0o123733}, "tunnel folder", "fail", "mode 3733"),
        ({"folder_mode": 0o040770, "folder_uid": 64055}, "tunnel folder", "fail", "mode 0770, owner 64055"),
        ({"probe": None, "probe_error": "refused: no certificate"}, "tunnel to the peer", "fail", "refused"),
        (
            {"probe": {"subject": "CN=b", "not_after": int(NOW_S) + 86400}},
            "tunnel to the peer",
            "warn",
            "CN=b",
        ),
        ({"probe": {"clock_skew_ms": 90_000}}, "clocks", "warn", "90.0 s ahead"),
        ({"probe": {"clock_skew_ms": -2_000_000}}, "clocks", "fail", "2000.0 s behind"),
    ],
)
def test_a_tunnel_that_is_not(changes: dict[str, Any], name: str, status: str, text: str) -> None:
    subject = {"tunnel to the peer": "peer", "clocks": "both"}.get(name, "this host")
    found = row(facts(tunnel=a_tunnel(**changes)), name, subject)
    assert (found.status, text in found.found) == (status, True), found
    assert found.wanted and found.why and found.fix


def test_what_is_found_of_a_tunnel(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keygen.make_ca(tmp_path, 90)
    keygen.make_host(tmp_path, ["a"], 60)
    conf, sockets = tmp_path / "tunnel.conf", tmp_path / "sockets"
    sockets.mkdir()
    sockets.chmod(0o770)
    lines = ["[tunnel]", f"certificates = {tmp_path}/a", f"run_dir = {sockets}", "user = root", "group = 0"]
    conf.write_text("\n".join(lines))
    with fake_daemon(tmp_path) as daemon:
        monkeypatch.setenv("PCMIG_TUNNEL_CONTROL", daemon.control)
        found = tunnel.gather(Peer("b"), str(conf))
        assert found.identity is not None and found.identity.names == ("a",)
        assert found.probe is not None and found.probe["clock_skew_ms"] == -90000
        assert (found.control_error, found.identity_error, found.probe_error) == (None, None, None)
        assert found.folder_mode is not None and stat.S_IMODE(found.folder_mode) == 0o770
        assert found.ends == {"ca": 2_000_000_000, "crl": 0} and found.paths["ca"] == f"{tmp_path}/a/ca.pem"
        daemon.refusal = "refused"
        assert "refused" in str(tunnel.gather(Peer("b"), str(conf)).probe_error)
    assert "is not running" in str(tunnel.gather(None, str(conf)).control_error)
    conf.write_text("[tunnel]\nx = y\n")
    assert "is not known" in str(tunnel.gather(None, str(conf)).settings_error)
