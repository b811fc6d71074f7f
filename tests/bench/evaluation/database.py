# SPDX-License-Identifier: Apache-2.0
"""A guest with a database under load: PostgreSQL, its files in the guest's memory, and pgbench beside it."""

from __future__ import annotations

import bisect
import dataclasses
import gzip
import pathlib
import re
import shutil
import stat
from collections.abc import Iterator, Sequence

from tests.bed import BedError, GuestSpec, Heartbeat, layer
from tests.bed.guest import CONSOLE_NODE, Entry, build_program, images, newc
from tests.bed.layer import Reporter
from tests.bed.procs import run

INIT_SOURCE = pathlib.Path(__file__).parent / "guest" / "database.c"
USER = 65534  # nobody; PostgreSQL is not run as root
SCALE = 4  # 400,000 accounts, 60 MB; at least as many branches as clients, or these wait for each other
BIN = "/usr/lib/postgresql/15/bin"
PROGRAMS = (f"{BIN}/postgres", f"{BIN}/pgbench")
SHARED = ("/usr/share/postgresql/15/timezonesets",)
# Its files are in the guest's memory, so its log is bounded; the rest is the default, fsync included.
SETTINGS = """
unix_socket_directories = '/run'
listen_addresses = ''
shared_buffers = 64MB
max_connections = 20
min_wal_size = 8MB
max_wal_size = 32MB
timezone = 'GMT'
log_timezone = 'GMT'
log_min_messages = fatal
"""
# In one statement, so that all of it is of one moment; by division by zero pgbench learns that it is wrong.
CHECK = """\
SELECT 1 / (CASE WHEN a = t AND t = b AND b = h THEN 1 ELSE 0 END) FROM (SELECT
 (SELECT sum(abalance) FROM pgbench_accounts) a, (SELECT sum(tbalance) FROM pgbench_tellers) t,
 (SELECT sum(bbalance) FROM pgbench_branches) b,
 (SELECT coalesce(sum(delta), 0) FROM pgbench_history) h) sums;
"""
# $1: the layer, $2: where the database goes, $3: settings. The machine's own libraries are below the layer's.
MAKE = f"""
set -e
mount -t overlay pcmig -o "ro,lowerdir=$1/usr:/usr" /usr
as() {{ setpriv --reuid={USER} --regid={USER} --clear-groups env -i PATH=/usr/bin:/bin LC_ALL=C "$@"; }}
as {BIN}/initdb --no-locale -E UTF8 -k -A trust -U postgres --wal-segsize=4 -D "$2" > "$2.log"
printf '%s\\n' "$3" >> "$2/postgresql.conf"
as {BIN}/pg_ctl -w -D "$2" -o "-k $2" -l "$2/log" start >> "$2.log"
as {BIN}/pgbench -h "$2" -U postgres -q -i -s {SCALE} postgres 2>> "$2.log"
as {BIN}/pg_ctl -w -D "$2" -m fast stop >> "$2.log"
rm "$2/log"
"""

# $1: the layer, $2: where to; then programs, which ldd looks into, and folders, which it does not.
FILL = """
mount -t overlay pcmig -o "ro,lowerdir=$1/usr:/usr" /usr
root=$2
shift 2
cd /
{ ldd "$1" "$2" | grep -o '/[^ :]* (0x' | cut -d' ' -f1; printf '%s\\n' "$@"; } |
    sort -u | xargs cp -rL --parents -t "$root"
"""


@dataclasses.dataclass(frozen=True)
class DatabaseSpec(GuestSpec):
    """What its "pages written" are, are transactions."""

    memory_mib: int = 512
    worker_mib: int = 1  # there is none
    write_pps: int = 0
    verify_pps: int = 0
    clients: int = 4

    def check(self) -> None:
        if self.memory_mib < 448:
            raise BedError(f"a guest of {self.memory_mib} MiB does not hold its database: use 448 or more")

    def options(self) -> str:
        return f"clients={self.clients} heartbeat_ms={self.heartbeat_ms}"


# The image


def ensure_images(reporter: Reporter = lambda _: None) -> pathlib.Path:
    """The folder with vmlinuz and initramfs (45 MB); downloads PostgreSQL (60 MB) and makes the database the
    first time."""
    folder = layer.ensure(layer.DATABASE.name, reporter)
    version = layer.versions(folder)["postgresql"]
    key = b"\0".join([INIT_SOURCE.read_bytes(), pathlib.Path(__file__).read_bytes(), version.encode()])
    return images(key, lambda path, work: _make(folder, path, work), reporter)


def _make(layer_folder: pathlib.Path, path: pathlib.Path, work: pathlib.Path) -> None:
    root = work / "root"
    root.mkdir()
    # PostgreSQL insists on its folder of modules, and needs none of them here.
    for folder in ("dev", "etc", "proc", "run", "tmp", "usr/lib/postgresql/15/lib"):
        (root / folder).mkdir(parents=True)
    build_program(INIT_SOURCE, root / "init")
    (root / "etc" / "passwd").write_text(f"postgres:x:{USER}:{USER}::/tmp:/bin/false\n")
    (root / "check.sql").write_text(CHECK)
    _fill(layer_folder, root)
    work.chmod(0o755)  # the database is made by another user
    made = work / "data"
    made.mkdir()
    shutil.chown(made, USER, USER)
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MAKE, "sh", str(layer_folder)]
    run([*words, str(made), SETTINGS], "making the guest's database", timeout_s=300)
    made.rename(root / "data")
    path.write_bytes(gzip.compress(newc([*tree(root), CONSOLE_NODE]), 6))


def _fill(layer_folder: pathlib.Path, root: pathlib.Path) -> None:
    """The programs, and the libraries that they name."""
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", FILL, "sh", str(layer_folder)]
    run([*words, str(root), *PROGRAMS, *SHARED], "copying the database's programs")


def tree(root: pathlib.Path) -> Iterator[Entry]:
    """All that is below ROOT, as it is, whoever owns it."""
    for path in sorted(root.rglob("*")):
        found = path.lstat()
        if path.is_symlink():
            content = str(path.readlink()).encode()
        else:
            content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
        yield Entry(str(path.relative_to(root)), found.st_mode, content, found.st_uid)


# What it says


_TX = re.compile(r"\d+\.\d+ \w+ TX (\d+) (\d+)$")


@dataclasses.dataclass(frozen=True)
class Transaction:
    """The slowest of those that ended between two heartbeats, by the guest's clock."""

    end_ms: int
    took_us: int


def parse_line(line: str) -> Transaction | None:
    match = _TX.match(line)
    return Transaction(int(match[1]), int(match[2])) if match else None


def slowest_ms(
    transactions: Sequence[Transaction], beats: Sequence[Heartbeat], start_s: float, end_s: float
) -> float | None:
    """How long the slowest transaction took that ended between two moments of this machine's clock; None when
    none did. The guest's clock stands still while the guest does, and may have jumped when it goes on: both
    ends of a transaction are told by the heartbeats around them, which carry both clocks."""
    clock = _Clock(beats)
    found: list[float] = []
    for transaction in transactions:
        if (ended_s := clock.here(transaction.end_ms)) is None or not start_s <= ended_s <= end_s:
            continue
        begun_s = clock.here(transaction.end_ms - transaction.took_us / 1000)
        if begun_s is not None:
            found.append((ended_s - begun_s) * 1000)
    return round(max(found), 1) if found else None


class _Clock:
    """From the guest's clock to this machine's."""

    def __init__(self, beats: Sequence[Heartbeat]) -> None:
        self._guest_ms = [beat.guest_ms for beat in beats]
        self._here_s = [beat.time_s for beat in beats]

    def here(self, guest_ms: float) -> float | None:
        """By the heartbeat before it; None when there was none yet. A transaction ends right before its own
        heartbeat, so that what is between two of them does not matter."""
        i = bisect.bisect_right(self._guest_ms, guest_ms) - 1
        if i < 0:
            return None
        here_s = self._here_s[i] + (guest_ms - self._guest_ms[i]) / 1000
        return min(here_s, self._here_s[i + 1]) if i + 1 < len(self._here_s) else here_s
