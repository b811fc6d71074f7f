# SPDX-License-Identifier: Apache-2.0
"""`pcmig migrate`: moves a running guest, and tells how it went."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from typing import Any

from pcmig import _core, guest, turn_back, turn_back_cost
from pcmig.cli import options, virsh
from pcmig.cli.base import CommandError, UsageError, say
from pcmig.cli.ports_wait import Leaving, PortsWait
from pcmig.cli.record import PROGRAM, Record, resume_command, utc_now, word
from pcmig.cli.run import Run
from pcmig.cli.turn_back import refuse_bound
from pcmig.journal import Entry, Journal, engine_arguments
from pcmig.ports.asking import Asker
from pcmig.tunnel import peer
from pcmig.tunnel.passage import Names


class Migrate(Run):
    """move a running guest to another host

    Runs a live migration that starts as pre-copy and switches to post-copy when the policy says so. Ctrl-C
    cancels while the guest runs at the source; once it runs at the destination, Ctrl-C leaves the migration
    to libvirt.
    """

    epilog = (
        "exit codes: 0 the guest has moved; 1 it failed, and the guest runs on at the source; 2 usage; "
        "3 the guest needs an operator; 4 detached, the migration goes on"
    )

    word = "migrate"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.usage = f"{prog_name} [OPTION]... DOMAIN DESTURI"
        options.add_options(parser)
        return parser

    def parse(self, parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
        """As ever, with hints for who comes from virsh."""
        if refusal := virsh.refusal(argv[: argv.index("--")] if "--" in argv else argv):
            raise UsageError(refusal)
        args, rest = parser.parse_known_args(self.arrange(argv))
        if rest:
            if hint := virsh.surplus(rest):
                raise UsageError(hint)
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return args

    def prepare(self, args: argparse.Namespace, plan: options.Plan) -> tuple[_core.Migration, Record]:
        uuid, name = self._check_guest(args, plan)
        self.named(plan, name, uuid)
        if plan.move_definition and _core.domain_persistent(plan.source_uri, uuid):
            plan.flag_names += ["PERSIST_DEST", "UNDEFINE_SOURCE"]
        flags = self._check_flags(args, plan)
        book = Journal()
        refuse_bound(plan.source_uri, uuid, name, book.read(uuid))
        refuse_what_is_under_way(book, uuid, plan)
        if plan.tunnel is not None:
            copies = turn_back.copies_disks(flags.bits)
            names = Names.new(options.tunnel_peer(plan), disks=copies, streams=plan.tunnel_streams or 1)
            self.open_tunnel(plan, names)
        engine = {"flags": flags.bits, "policy": plan.policy, "params": plan.params, **plan.engine}
        engine |= self._autostart(args, plan, flags)
        self.ports = self._wait_for_ports(plan)
        # Not in the journal: whoever takes over asks nobody, and must not wait for an answer.
        gate: dict[str, Any] = {"gate": True} if self.ports is not None else {}
        try:
            migration = _core.Migration(uuid, plan.dest_uri, source_uri=plan.source_uri, **engine, **gate)
        except ValueError as err:
            raise UsageError(str(err)) from err
        entry = Entry(
            uuid=uuid,
            name=name,
            source_uri=plan.source_uri,
            dest_uri=plan.dest_uri,
            engine=engine_arguments(engine),
            started=utc_now(),
            caller={"program": PROGRAM},
            tunnel=self.passage.names.as_entry() if self.passage else None,
        )
        return migration, Record.claim(book, entry)

    def _wait_for_ports(self, plan: options.Plan) -> PortsWait | None:
        """Whoever asks the destination about the guest's ports; None where nothing waits for them."""
        if plan.ports is None:
            return None
        asker = Asker(plan.ports.target, plan.uuid, plan.ports.port)
        local = peer.of_uri(plan.source_uri) is None
        leaving = Leaving(_core.domain_xml(plan.source_uri, plan.uuid)) if local else None
        return PortsWait(asker, plan.ports.wait_ms, plan.ports.then, leaving)

    def _check_guest(self, args: argparse.Namespace, plan: options.Plan) -> tuple[str, str]:
        """Refuses a guest that cannot do post-copy, before anything is started on either host. Returns its
        UUID and name."""
        xml = _core.domain_xml(plan.source_uri, plan.domain)
        if why := guest.not_copied(xml, plan.engine.get("disks") or []):
            raise CommandError(f"--migrate-disks: {why}")
        for obstacle in guest.obstacles(xml) if plan.postcopy else []:
            message = (
                f"{obstacle.element}: {obstacle.reason}. {obstacle.remedy[0].upper()}{obstacle.remedy[1:]}."
            )
            if obstacle.blocks:
                raise CommandError(f"{plan.domain} cannot be moved with post-copy: {message}")
            if not args.quiet:
                say(f"pcmig: note: {message}", sys.stderr)
        flags = _core.parse_flags(plan.flags_line())
        parallel = "VIR_MIGRATE_PARALLEL" in flags.names
        if plan.postcopy and parallel and (machine := guest.early_page_channel(xml)):
            raise CommandError(
                f"{plan.domain} has the machine type {machine}, with which QEMU mixes up the connections "
                "of VIR_MIGRATE_PARALLEL and of post-copy, and stops: leave PARALLEL out of --flags, or "
                "give it a machine type of 8.0 or newer"
            )
        self._tell_way_back(args, plan, xml, turn_back.copies_disks(flags.bits))
        return guest.identity(xml)

    def _tell_way_back(self, args: argparse.Namespace, plan: options.Plan, xml: str, copies: bool) -> None:
        """What it would cost the guest if the destination were lost in post-copy. COPIES: its disks are
        copied, by what the flags say."""
        found = turn_back_cost.cost(
            xml,
            copied=plan.engine.get("disks") or copies,
            qemu_version=_core.host_facts(plan.source_uri)["qemu_version"],
            post_copy=plan.postcopy,
        )
        self.result["way_back"] = found.as_dict()
        if not args.quiet:
            say(f"pcmig: way back: {found.short}", sys.stderr)

    def _autostart(self, args: argparse.Namespace, plan: options.Plan, flags: _core.Flags) -> dict[str, bool]:
        """A guest that starts with its host does so where its definition goes, and only there."""
        starts = False
        with contextlib.suppress(_core.LibvirtError):  # a driver that does not know of such a thing
            starts = _core.domain_autostart(plan.source_uri, plan.uuid)
        if not starts:
            return {}
        if any(name.endswith("PERSIST_DEST") for name in flags.names):
            return {"autostart": True}
        if not args.quiet:
            off = shlex.join(["virsh", "-c", plan.source_uri, "autostart", "--disable", plan.word])
            say(
                f"pcmig: note: {plan.domain} starts with the source host, where its definition stays; "
                f"booted there while it runs elsewhere, it is a second copy; to prevent that:\n  {off}",
                sys.stderr,
            )
        return {}

    def _check_flags(self, args: argparse.Namespace, plan: options.Plan) -> _core.Flags:
        """The flags for libvirt, checked."""
        flags = _core.parse_flags(plan.flags_line())
        if plan.tunnel is not None and not args.quiet and "VIR_MIGRATE_TUNNELLED" in flags.names:
            say("pcmig: note: VIR_MIGRATE_TUNNELLED: pcmig's tunnel takes the place of libvirt's", sys.stderr)
        flags = options.through_tunnel(plan, flags)
        options.refuse_conflicts(flags)
        for _, message, names in flags.check():
            if not args.quiet:
                say(f"pcmig: note: {', '.join(names)}: {message}", sys.stderr)
        self.result["flags"] = list(flags.names)
        return flags


def refuse_what_is_under_way(book: Journal, uuid: str, plan: options.Plan) -> None:
    """Raises CommandError when the journal has a migration of this guest that is not settled, and nobody
    looks after it: what it knows is needed to go on. One that ended unseen is no obstacle."""
    entry = book.read(uuid)
    if entry is None or entry.keeper is not None:
        return
    there = _core.job_status(plan.source_uri, uuid)
    if there["state"] == "none" and there["half"] == "running":
        return
    resume = resume_command(entry.source_uri, word(entry), entry.dest_uri)
    raise CommandError(
        f"a migration of {entry.name} to {entry.dest_uri} that began at {entry.started} is not over, and "
        f"nobody looks after it; type:\n  {resume}"
    )
