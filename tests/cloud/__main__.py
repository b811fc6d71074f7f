# SPDX-License-Identifier: Apache-2.0
"""python -m tests.cloud prepare|up|status|cli|run|down: keep a cloud around while developing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from tests.bed import layer, program
from tests.bed.bed import KeptBed, kept_beds
from tests.bed.errors import BedError
from tests.bed.guest import GuestSpec, read_log
from tests.cloud import image, install
from tests.cloud.cloud import STOCK_DRIVER, STORAGES, Cloud, KeptCloud
from tests.cloud.controlplane import in_parallel
from tests.cloud.service import outside
from tests.cloud.storage import storage


def main(argv: list[str] | None = None) -> int:
    return program.run("cloud", _parser(), argv)


def _up(arguments: argparse.Namespace) -> int:
    extra = "".join(f"[{section}]\n{line}\n" for section, line in map(_option, arguments.nova_conf))
    with Cloud(
        arguments.stack,
        arguments.rate or None,
        driver=arguments.driver,
        nova_conf=extra,
        eventlet=arguments.eventlet,
        storage=arguments.storage,
        ovn=arguments.ovn,
        api_filter=False if arguments.no_api_filter else None,
        keep=True,
        reporter=program.reporter("cloud"),
    ) as cloud:
        try:
            if not arguments.no_guest:
                spec = GuestSpec(
                    memory_mib=arguments.memory, worker_mib=arguments.worker, write_pps=arguments.write_pps
                )
                cloud.boot(spec)
        except BaseException:
            cloud.keep = False  # a cloud that did not come up is of no use to anybody
            raise
        _describe(KeptCloud(cloud.state))
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    say = program.reporter("cloud")
    environments: list[Callable[[], object]] = [lambda: install.ensure_venv(say)]
    if not arguments.storage:
        environments.append(lambda: install.ensure_horizon(say))
    in_parallel(environments)
    image.ensure_images(say)
    if arguments.storage:
        storage.ensure("forky", say)
    else:
        layer.ensure("forky", say)
    return 0


def _option(text: str) -> tuple[str, str]:
    """("libvirt", "name = value") of "libvirt.name=value"."""
    place, equals, value = text.partition("=")
    section, dot, name = place.partition(".")
    if not (equals and dot and section and name):
        raise BedError(f"--nova-conf {text}: write it as SECTION.OPTION=VALUE")
    return section, f"{name} = {value}"


def _status(_: argparse.Namespace) -> int:
    clouds = _clouds()
    for cloud in clouds:
        _describe(cloud)
    if not clouds:
        print("no clouds")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    cloud = _chosen(arguments.cloud)
    if cloud.in_use:
        raise BedError(f"cloud {cloud.id} is in use by process {cloud.owner.pid if cloud.owner else '?'}")
    cloud.down()
    print(f"cloud {cloud.id} is down")
    return 0


def _cli(arguments: argparse.Namespace) -> int:
    cloud = _chosen(arguments.cloud)
    if not arguments.words:
        raise BedError("which command? e.g. python -m tests.cloud cli nova list")
    os.execvpe("nsenter", cloud.control.inside(arguments.words), cloud.client_env())


def _run(arguments: argparse.Namespace) -> int:
    cloud = _chosen(arguments.cloud)
    if not arguments.words:
        raise BedError("which program? e.g. python -m tests.cloud run a virsh list")
    node = cloud.control if arguments.node == "control" else cloud.host(arguments.node)
    os.execvp("nsenter", node.inside(arguments.words))


def _clouds() -> list[KeptCloud]:
    return [KeptCloud(bed.state) for bed in kept_beds() if _is_cloud(bed)]


def _is_cloud(bed: KeptBed) -> bool:
    return isinstance(bed.content.get("cloud"), dict)


def _chosen(cloud_id: str | None) -> KeptCloud:
    return program.chosen("cloud", _clouds(), cloud_id)


def _describe(cloud: KeptCloud) -> None:
    assert cloud.cloud is not None
    condition = "up" if cloud.running else "crashed (python -m tests.bed clean)"
    rate = cloud.content.get("rate_mbit")
    limit = f"{rate:g} Mb/s" if rate else "no rate limit"
    print(
        f"cloud {cloud.id}: {condition}, stack {cloud.content.get('stack')}, {limit}, {cloud.cloud['driver']}"
    )
    print(f"  commands: python -m tests.cloud cli --cloud {cloud.id} nova list")
    for name in ("control", "a", "b"):
        node = cloud.control if name == "control" else cloud.host(name)
        print(f"  logs of {name}: {outside(node) / 'log'}")
    for name, (id_, address) in cloud.cloud["servers"].items():
        beats = read_log(outside(cloud.control) / "heartbeats" / f"{address}.log")
        last = f"last heartbeat from host {beats[-1].host}, {beats[-1].bad} bad pages" if beats else "silent"
        print(f"  server {name} {id_}, {address}: {last}")


def _add_storage(command: argparse.ArgumentParser, words: str) -> None:
    command.add_argument("--storage", default="", choices=STORAGES, help=words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cloud", description="An OpenStack to develop with."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    prepare = commands.add_parser("prepare", help="install what clouds need, and do no more")
    _add_storage(prepare, "what a cloud with storage needs, instead of Horizon")
    prepare.set_defaults(action=_prepare)

    up = commands.add_parser("up", help="bring a cloud up and leave it up")
    program.add_bed(up)
    up.add_argument("--driver", default=STOCK_DRIVER, help=f"compute_driver (default: {STOCK_DRIVER})")
    up.add_argument(
        "--nova-conf",
        action="append",
        default=[],
        metavar="SECTION.OPTION=VALUE",
        help="for both computes' nova.conf",
    )
    up.add_argument("--eventlet", action="store_true", help="Nova with eventlet instead of native threads")
    up.add_argument(
        "--no-api-filter", action="store_true", help="nova-api without pcmig's filter, whatever the driver"
    )
    _add_storage(up, "servers' disks in a Ceph, and Cinder")
    up.add_argument("--ovn", action="store_true", help="neutron with OVN in place of Open vSwitch agents")
    program.add_guest(up)
    up.set_defaults(action=_up)

    status = commands.add_parser("status", help="list clouds, their servers and logs")
    status.set_defaults(action=_status)

    cli = commands.add_parser("cli", help="run a client as the admin: cli nova list")
    program.add_id(cli, "cloud")
    cli.add_argument("words", nargs=argparse.REMAINDER)
    cli.set_defaults(action=_cli)

    run = commands.add_parser("run", help="run a program as a node sees it: run a virsh list")
    program.add_id(run, "cloud")
    run.add_argument("node", choices=("control", "a", "b"))
    run.add_argument("words", nargs=argparse.REMAINDER)
    run.set_defaults(action=_run)

    down = commands.add_parser("down", help="take a kept cloud down")
    program.add_id(down, "cloud")
    down.set_defaults(action=_down)
    return parser


if __name__ == "__main__":
    sys.exit(main())
