# SPDX-License-Identifier: Apache-2.0
"""What runs on the control node: message queue, databases, APIs; the databases' first filling is cached."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import pathlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from tests.bed.errors import BedError
from tests.bed.host import Host
from tests.bed.layer import Reporter
from tests.cloud import config, install
from tests.cloud.api import PASSWORD, SERVICES, USUAL, Api, fill_catalog, url
from tests.cloud.config import DATABASES, ETC, database_url
from tests.cloud.control import ControlNode
from tests.cloud.network import CONTROL, socket_in
from tests.cloud.service import RUN, Service, outside

if TYPE_CHECKING:
    from tests.cloud.ovn import Ovn
    from tests.cloud.storage.cinder import Cinder

SERVE = pathlib.Path(__file__).with_name("serve.py")
STAND_IN = pathlib.Path(__file__).with_name("stand_in.py")
Away = Literal["refused", "503", "hangs"]
START_PATIENCE_S = 120.0
SYNC_PATIENCE_S = 600.0

# API: application, threads, where it finds its files.
APIS: dict[str, tuple[str, int, dict[str, str]]] = {
    "identity": ("keystone.wsgi.api:application", 4, {"OS_KEYSTONE_CONFIG_DIR": f"{ETC}/keystone"}),
    "placement": ("placement.wsgi.api:application", 4, {"OS_PLACEMENT_CONFIG_DIR": f"{ETC}/placement"}),
    "image": ("glance.wsgi.api:application", 4, {"OS_GLANCE_CONFIG_DIR": f"{ETC}/glance"}),
    "network": (
        "neutron.wsgi.api:application",
        6,
        {
            "OS_NEUTRON_CONFIG_DIR": f"{ETC}/neutron",
            "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
            # Its OVN driver has them share OVN's events, and handles none before it knows how many there are.
            "ASGI_WORKERS": "1",
        },
    ),
    "compute": ("nova.wsgi.osapi_compute:application", 6, {"OS_NOVA_CONFIG_DIR": f"{ETC}/nova"}),
}


def environment(venv: pathlib.Path) -> dict[str, str]:
    """Of every service: nothing of the caller's but what is said here."""
    return {
        "PATH": f"{venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": f"{RUN}/home",
        "LC_ALL": "C.UTF-8",
        "PYTHONWARNINGS": "ignore",
        "PYTHONDONTWRITEBYTECODE": "1",
        "no_proxy": "*",
    }


class ControlPlane:
    """Starts everything on the control node; knows its services by name."""

    def __init__(
        self,
        node: ControlNode,
        folder: pathlib.Path,
        nova_env: dict[str, str],
        reporter: Reporter,
        *,
        wheels: Sequence[pathlib.Path] = (),
        api_filter: bool = False,
        cinder: Cinder | None = None,
        ovn: Ovn | None = None,
    ) -> None:
        self.node = node
        self.wheels = wheels
        self.cinder = cinder
        self.ovn = ovn
        self.api_filter = api_filter
        self.folder = folder
        self.venv = folder / "venv"
        self.env = environment(self.venv)
        self.nova_env = nova_env
        self.reporter = reporter
        self.services: dict[str, Service] = {}

    @property
    def api(self) -> Api:
        assert self.node.holder is not None
        return Api(self.node.holder.pid)

    def start(self) -> Api:
        """Everything up and the catalog filled, when it returns; the computes are not its business."""
        run = outside(self.node)
        for name in (
            "home",
            "images",
            "glance-staging",
            "glance-tasks",
            "neutron/lock",
            "nova/lock",
            "log",
            "rabbit",
        ):
            (run / name).mkdir(parents=True, exist_ok=True)
        config.write(run / "etc", config.control_files(self.venv, self.api_filter, ovn=self.ovn is not None))
        if self.cinder is not None:
            config.write(run / "etc", self.cinder.files())
        if self.wheels:
            install.install_wheels(self.node, self.venv, self.wheels)
        _make_keys(run / "etc/keystone")
        self._start_rabbitmq()
        self._prepare_database()
        self._start_mariadb()
        if self.ovn is not None:
            self.ovn.start_central(self)
        for name in USUAL:
            self._start_api(name)
        nova = ["--config-file", f"{ETC}/nova/nova.conf"]
        rabbitmq = self.services["rabbitmq"]
        rabbitmq.wait_ready(self._rabbitmq_listens, START_PATIENCE_S)
        self.start_service("nova-conductor", [f"{self.venv}/bin/nova-conductor", *nova], self.nova_env)
        neutron = ["--config-file", f"{ETC}/neutron/neutron.conf"]
        if self.ovn is None:  # for agents
            self.start_service("neutron-rpc-server", [f"{self.venv}/bin/neutron-rpc-server", *neutron])
        api = self.api
        self.wait_api("identity")
        fill_catalog(api, [*USUAL, *([self.cinder.KIND] if self.cinder else [])])
        # It reads the catalog once, as it starts, and what it misses then is "disabled" for good.
        self.start_service("nova-scheduler", [f"{self.venv}/bin/nova-scheduler", *nova], self.nova_env)
        self.reporter("keystone is up, the catalog filled")
        return api

    def restart_nova_api(self, api_filter: bool, policy: str) -> None:
        """With pcmig's filter or without, and with these rules in its policy file (YAML)."""
        self.api_filter = api_filter
        self.services["nova"].stop()
        pipelines = config.api_paste(self.venv, api_filter)
        config.write(
            outside(self.node) / "etc", {"nova/api-paste.ini": pipelines, "nova/policy.yaml": policy}
        )
        self._start_api("compute")
        self.wait_api("compute")

    @contextlib.contextmanager
    def api_away(self, name: str, how: Away = "refused") -> Iterator[None]:
        """An API is away until the block ends: nobody listens there, or somebody does who answers 503, or who
        hangs."""
        service, port, _, _ = SERVICES[name]
        self.services[service].kill()
        instead = None
        try:
            if how != "refused":
                argv = [f"{self.venv}/bin/python", str(STAND_IN), CONTROL, str(port), how]
                instead = Service(f"{service}-away", self.node, argv, self.env).start()
                instead.wait_ready(lambda: self._listens(port), START_PATIENCE_S)
            yield
        finally:
            if instead is not None:
                instead.kill()
            self._start_api(name)
            self.wait_api(name)

    def wait_api(self, name: str) -> None:
        api = self.api
        self.services[SERVICES[name][0]].wait_ready(lambda: api.answers(name), START_PATIENCE_S)

    def sql(self, database: str, statement: str) -> list[dict[str, str | None]]:
        """Rows of a statement, every value as text."""
        argv = ["mariadb", "-S", config.DATABASE_SOCKET, "-uroot", "--batch", database, "-e", statement]
        done = subprocess.run(self.node.inside(argv), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise BedError(f"database {database}: {done.stderr.strip()}")
        lines = done.stdout.splitlines()
        if not lines:
            return []
        names = lines[0].split("\t")
        rows = (line.split("\t") for line in lines[1:])
        return [
            {name: None if value == "NULL" else value for name, value in zip(names, row, strict=True)}
            for row in rows
        ]

    def start_service(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None, node: Host | None = None
    ) -> Service:
        """A service on the control node, or on one that shares its files."""
        service = Service(name, node or self.node, argv, {**self.env, **(env or {})})
        self.services[name] = service
        return service.start()

    def start_api(
        self,
        name: str,
        venv: pathlib.Path,
        application: str,
        threads: int,
        env: Mapping[str, str],
        options: Sequence[str] = (),
    ) -> None:
        service, port, _, _ = SERVICES[name]
        where = [CONTROL, str(port), f"{service}-api", str(threads)]
        self.start_service(service, [f"{venv}/bin/python", str(SERVE), application, *where, *options], env)

    # Parts

    def _start_api(self, name: str) -> None:
        application, threads, env = APIS[name]
        self.start_api(name, self.venv, application, threads, env)

    def _start_rabbitmq(self) -> None:
        try:
            library = next(pathlib.Path("/usr/lib/rabbitmq/lib").iterdir())
        except (OSError, StopIteration):
            raise BedError("RabbitMQ is not installed (run: tools/bootstrap cloud)") from None
        names = {
            "NODENAME": "pcmig@localhost",
            "MNESIA_BASE": f"{RUN}/rabbit",
            "LOG_BASE": f"{RUN}/log",
            "CONFIG_FILE": f"{ETC}/rabbitmq/rabbitmq.conf",
            "ENABLED_PLUGINS_FILE": f"{ETC}/rabbitmq/enabled_plugins",
            "PID_FILE": f"{RUN}/rabbit.pid",
            "CONF_ENV_FILE": "/dev/null",
            "DIST_PORT": "25672",
            "HOME": str(library),
            # One scheduler that does not spin: the machine is small and shared.
            "SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        env = {f"RABBITMQ_{name}": value for name, value in names.items()}
        self.start_service("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], env)

    def _rabbitmq_listens(self) -> bool:
        return self._listens(5672)

    def _listens(self, port: int) -> bool:
        assert self.node.holder is not None
        try:
            socket_in(self.node.holder.pid, (CONTROL, port), 5).close()
        except OSError:
            return False
        return True

    def _start_mariadb(self) -> None:
        path = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        if not pathlib.Path(path).exists():
            raise BedError("MariaDB is not installed (run: tools/bootstrap cloud)")
        service = self.start_service("mariadb", [path, f"--defaults-file={ETC}/my.cnf"])
        service.wait_ready(self._mariadb_listens, START_PATIENCE_S)

    def _mariadb_listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(outside(self.node) / pathlib.Path(config.DATABASE_SOCKET).name))
            except OSError:
                return False
        return True

    def _prepare_database(self) -> None:
        """The data folder as the services' own tools filled it; the first time they do, about 1 minute."""
        kept = self.folder / "databases" / self._database_key()
        data = outside(self.node) / "db"
        if not kept.is_dir():
            self.reporter("making the databases (once, about 1 minute)")
            data.mkdir()
            self._fill_database()
            work = kept.with_name(f".{kept.name}.{os.getpid()}")
            kept.parent.mkdir(exist_ok=True)
            try:
                _copy(data, work)
                if not kept.is_dir():
                    work.rename(kept)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        else:
            _copy(kept, data)

    @property
    def _databases(self) -> Sequence[str]:
        return (*DATABASES, *([self.cinder.DATABASE] if self.cinder else []))

    def _database_key(self) -> str:
        """Changes with MariaDB, with the schemas, and with what is put into them."""
        version = subprocess.run(
            ["mariadbd", "--version"], capture_output=True, text=True, env=self.env
        ).stdout
        parts = [
            version,
            config.MARIADB,
            config.TRANSPORT,
            database_url(""),
            url("identity"),
            PASSWORD,
            *self._databases,
        ]
        packages = sorted(path.name for path in self.venv.glob("lib/*/site-packages/*.dist-info"))
        packages += self.cinder.packages if self.cinder else []
        return hashlib.sha256("\0".join([*parts, *packages]).encode()).hexdigest()[:12]

    def _fill_database(self) -> None:
        install = [
            "mariadb-install-db",
            f"--defaults-file={ETC}/my.cnf",
            "--auth-root-authentication-method=normal",
        ]
        self._once("mariadb-install-db", [*install, "--skip-test-db"])
        self._start_mariadb()
        self.sql("mysql", "".join(f"create database {name};" for name in self._databases))
        bin_ = f"{self.venv}/bin"
        keystone = [f"{bin_}/keystone-manage", "--config-file", f"{ETC}/keystone/keystone.conf"]
        nova = [f"{bin_}/nova-manage", "--config-file", f"{ETC}/nova/nova.conf"]
        bootstrap = ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "RegionOne"]
        for interface in ("admin", "internal", "public"):
            bootstrap += [f"--bootstrap-{interface}-url", url("identity")]
        neutron = [
            f"{bin_}/neutron-db-manage",
            "--config-file",
            f"{ETC}/neutron/neutron.conf",
            "upgrade",
            "heads",
        ]
        cell0 = ["--database_connection", database_url("nova_cell0")]
        chains: dict[str, list[list[str]]] = {
            "keystone": [[*keystone, "db_sync"], [*keystone, *bootstrap]],
            "nova": [
                [*nova, "api_db", "sync"],
                [*nova, "cell_v2", "map_cell0", *cell0],
                [*nova, "db", "sync"],
                [*nova, "cell_v2", "create_cell", "--name", "cell1"],
            ],
            "glance": [
                [f"{bin_}/glance-manage", "--config-file", f"{ETC}/glance/glance-api.conf", "db_sync"]
            ],
            "placement": [
                [f"{bin_}/placement-manage", "--config-file", f"{ETC}/placement/placement.conf", "db", "sync"]
            ],
            "neutron": [neutron],
        }
        if self.cinder is not None:
            chains["cinder"] = self.cinder.database_commands
        in_parallel([functools.partial(self._chain, name, chain) for name, chain in chains.items()])
        self.services["mariadb"].stop(60)

    def _chain(self, name: str, chain: list[list[str]]) -> None:
        for argv in chain:
            self._once(f"database-{name}", argv)

    def _once(self, name: str, argv: list[str]) -> None:
        service = Service(name, self.node, argv, self.env).start()
        assert service.process is not None
        try:
            code = service.process.wait(SYNC_PATIENCE_S)
        except subprocess.TimeoutExpired:
            service.kill()
            raise service.failure(f"had no end after {SYNC_PATIENCE_S:.0f} s") from None
        if code:
            raise service.failure(f"({' '.join(argv[:4])} ...) ended with {code}")


def _make_keys(folder: pathlib.Path) -> None:
    """As `keystone-manage fernet_setup` does it: one key to be used next (0), one to sign with (1)."""
    for repository in ("fernet", "credential"):
        (folder / repository).mkdir(parents=True, mode=0o700)
        for name in "01":
            (folder / repository / name).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise BedError(f"copying the databases to {target}: {error}") from error


def in_parallel(jobs: Sequence[Callable[[], object]]) -> None:
    """Run jobs at the same time; the first error comes out once all have ended."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
