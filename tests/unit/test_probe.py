# SPDX-License-Identifier: Apache-2.0
"""The probe on the real host, on made-up trees, and as other users. Runs as root, as migrations do."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from pcmig import _core
from tests.unit.patience import NEVER_MS

NOBODY = 65534


def sysctl(name: str) -> int | None:
    path = pathlib.Path("/proc/sys", *name.split("."))
    return int(path.read_text()) if path.exists() else None


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """An empty root folder that every user may look into."""
    folder = tmp_path
    while (
        folder != folder.parent and folder.stat().st_mode & 0o005 != 0o005 and folder != pathlib.Path("/tmp")
    ):
        folder.chmod(folder.stat().st_mode | 0o055)
        folder = folder.parent
    (tmp_path / "dev").mkdir(mode=0o755)
    return tmp_path


def write(root: pathlib.Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def make_node(root: pathlib.Path, mode: int) -> pathlib.Path:
    """A second node of the host's userfaultfd device."""
    path = root / "dev/userfaultfd"
    os.mknod(path, stat.S_IFCHR | mode, os.stat("/dev/userfaultfd").st_rdev)
    path.chmod(mode)
    return path


def test_real_host_facts_agree_with_the_kernel() -> None:
    facts = _core.probe_host()
    assert facts["kernel"] == os.uname().release
    assert facts["page_size_bytes"] == os.sysconf("SC_PAGESIZE")
    assert facts["sysctl"]["vm.unprivileged_userfaultfd"] == sysctl("vm.unprivileged_userfaultfd")
    assert facts["sysctl"]["net.ipv4.tcp_retries2"] == sysctl("net.ipv4.tcp_retries2")
    wmem = pathlib.Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()
    assert facts["sysctl"]["net.ipv4.tcp_wmem"] == [int(word) for word in wmem]
    node = os.stat("/dev/userfaultfd")
    assert facts["node"] == {
        "device": True,
        "mode": stat.S_IMODE(node.st_mode),
        "uid": node.st_uid,
        "gid": node.st_gid,
        "major": os.major(node.st_rdev),
        "minor": os.minor(node.st_rdev),
    }
    assert facts["user"] is None


def test_root_gets_what_qemu_needs() -> None:
    report = _core.probe_host()["uffd"]
    for attempt in (report["syscall"], report["node"]):
        assert attempt["ok"]
        assert (attempt["step"], attempt["errno"]) == ("done", 0)
        assert {"register", "unregister", "wake", "copy", "zeropage"} <= set(attempt["ioctls"])
        assert {"missing-hugetlbfs", "missing-shmem"} <= set(attempt["features"])


def test_unprivileged_user_is_denied() -> None:
    user = _core.probe_host("nobody")["user"]
    assert user is not None and user["uffd"] is not None
    assert (user["uid"], user["errno"]) == (NOBODY, 0)
    allowed = sysctl("vm.unprivileged_userfaultfd") != 0
    assert user["uffd"]["syscall"]["ok"] is allowed
    if not allowed:
        assert user["uffd"]["syscall"]["errno"] == errno.EPERM
    others = stat.S_IMODE(os.stat("/dev/userfaultfd").st_mode) & 0o006 == 0o006
    assert user["uffd"]["node"]["ok"] is others


def test_node_open_to_all_lets_an_unprivileged_user_in(tree: pathlib.Path) -> None:
    make_node(tree, 0o666)
    facts = _core.probe_host("nobody", root=str(tree))
    assert facts["node"] is not None and facts["node"]["mode"] == 0o666
    user = facts["user"]
    assert user is not None and user["uffd"] is not None
    assert user["uffd"]["node"]["ok"]
    assert "copy" in user["uffd"]["node"]["ioctls"]


def test_node_of_a_group_needs_the_group(tree: pathlib.Path) -> None:
    path = make_node(tree, 0o660)
    os.chown(path, 0, 4242)
    outside = _core.probe_host("nobody", root=str(tree))["user"]
    inside = _core.probe_host("nobody", group="4242", root=str(tree))["user"]
    assert outside is not None and outside["uffd"] is not None
    assert inside is not None and inside["uffd"] is not None
    assert outside["uffd"]["node"]["errno"] == errno.EACCES
    assert inside["gid"] == 4242
    assert inside["uffd"]["node"]["ok"]


def test_root_without_capabilities_is_what_libvirt_starts() -> None:
    bare = _core.probe_host("root")["user"]
    full = _core.probe_host("root", keep_capabilities=True)["user"]
    assert bare is not None and bare["uffd"] is not None
    assert full is not None and full["uffd"] is not None
    assert full["uffd"]["syscall"]["ok"]
    assert bare["uffd"]["syscall"]["ok"] is (sysctl("vm.unprivileged_userfaultfd") != 0)
    assert bare["uffd"]["node"]["ok"]  # the node is root's


def test_the_caller_stays_who_it_is() -> None:
    before = (os.getresuid(), os.getresgid(), os.getgroups(), pathlib.Path("/proc/self/status").read_text())
    _core.probe_host("nobody")
    after = (os.getresuid(), os.getresgid(), os.getgroups(), pathlib.Path("/proc/self/status").read_text())
    assert before[:3] == after[:3]
    caps = [line for text in (before[3], after[3]) for line in text.splitlines() if line.startswith("CapEff")]
    assert caps[0] == caps[1]


def test_made_up_tree(tree: pathlib.Path) -> None:
    write(tree, "proc/sys/vm/unprivileged_userfaultfd", "1\n")
    write(tree, "proc/sys/vm/max_map_count", "not a number\n")
    write(tree, "proc/sys/net/ipv4/tcp_retries2", "5\n")
    write(tree, "proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n")
    write(tree, "proc/sys/net/ipv4/tcp_rmem", "1 2 3 4\n")
    write(tree, "proc/sys/kernel/osrelease", "4.9.0-test\n")
    write(tree, "proc/self/status", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n")
    write(tree, "sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    write(tree, "dev/userfaultfd", "")
    facts = _core.probe_host(root=str(tree))
    assert facts["sysctl"] == {
        "vm.unprivileged_userfaultfd": 1,
        "vm.max_map_count": None,
        "net.ipv4.tcp_retries2": 5,
        "net.ipv4.tcp_wmem": [4096, 16384, 4194304],
        "net.ipv4.tcp_rmem": None,
    }
    assert (facts["kernel"], facts["seccomp"], facts["lockdown"]) == ("4.9.0-test", 2, "integrity")
    assert facts["node"] is not None and facts["node"]["device"] is False
    assert facts["uffd"]["node"] == {
        "ok": False,
        "step": "open",
        "errno": errno.ENOTTY,
        "features": [],
        "ioctls": [],
    }


def test_empty_tree(tree: pathlib.Path) -> None:
    facts = _core.probe_host(root=str(tree))
    assert set(facts["sysctl"].values()) == {None}
    assert (facts["kernel"], facts["seccomp"], facts["lockdown"], facts["node"]) == (None, None, None, None)
    assert facts["uffd"]["node"]["errno"] == errno.ENOENT


@pytest.mark.parametrize(
    ("user", "uid"),
    [("nobody", NOBODY), ("65534", NOBODY), ("+65534", NOBODY), ("+0", 0), ("123456", 123456)],
)
def test_users_as_qemu_conf_names_them(user: str, uid: int) -> None:
    found = _core.probe_host(user)["user"]
    assert found is not None
    assert (found["name"], found["uid"], found["errno"]) == (user, uid, 0)


@pytest.mark.parametrize(
    "user", ["", "no such user", "+nobody", "-1", "4294967295", "99999999999", "+", "1x"]
)
def test_unknown_user_is_named(user: str) -> None:
    with pytest.raises(_core.Error, match=f"there is no user '{user}'".replace("+", r"\+")):
        _core.probe_host(user)


def test_unknown_group_is_named() -> None:
    with pytest.raises(_core.Error, match="there is no group 'no such group'"):
        _core.probe_host("nobody", group="no such group")


def test_long_root_is_refused() -> None:
    with pytest.raises(ValueError, match="too long for a path"):
        _core.probe_host(root="/" * 5000)


def as_nobody(code: str) -> str:
    """What CODE prints when an ordinary user runs it."""
    script = f"""
import os
from pcmig import _core  # before the user changes: it need not be able to read the module
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
{code}"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_ordinary_user_may_try_as_itself() -> None:
    said = as_nobody("u = _core.probe_host('nobody')['user']; print(u['errno'], u['uffd']['node']['ok'])")
    assert said.split()[0] == "0"


def test_ordinary_user_may_not_try_as_another() -> None:
    said = as_nobody("u = _core.probe_host('root')['user']; print(u['errno'], u['uffd'])")
    assert said == f"{errno.EPERM} None"


def children() -> set[str]:
    """Processes that this one has started, zombies too. Other tests may have left some that live."""
    tasks = pathlib.Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def test_child_is_reaped_and_nothing_stays_open() -> None:
    before, children_before = sorted(os.listdir("/proc/self/fd")), children()
    for _ in range(20):
        _core.probe_host("nobody")
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert children() <= children_before


def test_many_threads_at_once() -> None:
    results: list[bool] = []

    def one() -> None:
        for _ in range(10):
            user = _core.probe_host("nobody")["user"]
            results.append(user is not None and user["errno"] == 0)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80


def test_facts_of_a_libvirt() -> None:
    facts = _core.host_facts("test:///default", domain="test")
    assert facts["driver"] == "TEST"
    assert facts["libvirt_version"] == facts["client_version"] >= 8_000_000
    assert facts["capabilities"] is not None and facts["capabilities"].startswith("<capabilities>")
    assert facts["secure"] is True
    guest = facts["guest"]
    assert guest is not None
    assert (guest["name"], guest["state"]) == ("test", "running")
    assert guest["xml"].startswith("<domain")


def test_unknown_guest() -> None:
    with pytest.raises(_core.NoDomainError) as caught:
        _core.host_facts("test:///default", domain="nobody")
    assert caught.value.code == 42  # VIR_ERR_NO_DOMAIN


def test_refused_connection() -> None:
    with pytest.raises(_core.ConnectError, match="Connection refused"):
        _core.host_facts("qemu+tcp://127.0.0.1:1/system")


def test_host_that_does_not_answer_costs_the_timeout_only() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        _core.set_connect_timeout(NEVER_MS)
        start_s = time.monotonic()
        with pytest.raises(_core.ConnectError, match=r"within 0\.3 s"):
            _core.host_facts(f"qemu+tcp://127.0.0.1:{silent.getsockname()[1]}/system", timeout_ms=300)
        assert time.monotonic() - start_s > 0.25


def test_timeout_must_be_positive() -> None:
    with pytest.raises(ValueError, match="timeout_ms: 0, expected more than 0"):
        _core.host_facts("test:///default", timeout_ms=0)
