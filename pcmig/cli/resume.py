# SPDX-License-Identifier: Apache-2.0
"""`pcmig resume`: picks up a migration whose `pcmig` is gone, or that was interrupted or paused."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from pcmig import _core, guest, turn_back
from pcmig.cli import options, status
from pcmig.cli.base import CommandError, ExitCode, UsageError, default_connect, say
from pcmig.cli.job import HALVES
from pcmig.cli.record import PROGRAM, Record, find, held_by, tell, utc_now, watch_command, word
from pcmig.cli.run import Run, wait_for_hosts
from pcmig.cli.turn_back import refuse_bound
from pcmig.journal import Entry, Journal, engine_arguments
from pcmig.tunnel.client import TunnelError
from pcmig.tunnel.passage import Names, Passage

# Halves that speak of a migration by themselves.
UNDER_WAY = ("migrating", "postcopy", "postcopy-failed")


class Resume(Run):
    """go on with a migration that was left, paused or interrupted

    Whatever there is of it is looked after until one host has the guest: pre-copy is steered, post-copy
    followed, an interrupted post-copy resumed. Source, destination and options come from the journal that
    'pcmig migrate' keeps; what is typed here counts more. Where the journal knows nothing, DESTURI is needed,
    and the options that the migration was started with. Ctrl-C does what it does in 'pcmig migrate'.
    """

    word = "resume"
    adopts = True
    epilog = (
        "exit codes: 0 the guest has moved; 1 there is nothing to resume, or it ended and the guest runs on "
        "at the source; 2 usage; 3 the guest needs an operator; 4 another process looks after it and was "
        "asked to go on, or left with Ctrl-C"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.usage = f"{prog_name} [OPTION]... DOMAIN [DESTURI]"
        options.add_resume_options(parser)
        return parser

    def prepare(self, args: argparse.Namespace, plan: options.Plan) -> tuple[_core.Migration, Record]:
        book = Journal()
        entry = locate(book, args)
        if entry.keeper is not None:
            raise told(book, entry)
        entry = dataclasses.replace(entry, held=False, recovery=None, **typed_ends(args))
        wait_for_hosts({**entry.engine, **plan.engine})
        if args.desturi and entry.dest_host not in (None, found := turn_back.host_of(args.desturi)) and found:
            raise UsageError(
                f"{args.desturi} is another host ({found}) than the one to which {entry.name} went "
                f"({entry.dest_host}): leave it out, or name that one"
            )
        refuse_bound(entry.source_uri, entry.uuid, entry.name, entry)
        names = self._tunnel(args, plan, entry)
        self._merge(args, plan, entry)
        if names is not None:
            self._through(plan, names)
        engine = {"flags": entry.engine["flags"], "policy": plan.policy, "params": plan.params, **plan.engine}
        try:
            migration = _core.Migration(
                entry.uuid,
                entry.dest_uri,
                source_uri=entry.source_uri,
                adopt=True,
                crossed=entry.crossed,
                **engine,
            )
        except ValueError as err:
            raise UsageError(str(err)) from err
        entry = dataclasses.replace(
            entry, engine=engine_arguments(engine), tunnel=names.as_entry() if names is not None else None
        )
        return migration, Record.claim(book, entry)

    def _merge(self, args: argparse.Namespace, plan: options.Plan, entry: Entry) -> None:
        """PLAN and ENTRY's arguments become what both say together; what was typed counts more."""
        kept: dict[str, Any] = entry.engine
        plan.source_uri, plan.dest_uri = entry.source_uri, entry.dest_uri
        self.named(plan, entry.name, entry.uuid)
        if not plan.policy_given:
            plan.policy = kept.get("policy", plan.policy)
        plan.params = options.without_gone(kept.get("params", {})) | plan.params
        typed = {name: value for name, value in plan.engine.items() if value not in (None, 0, [])}
        rest = {name: kept[name] for name in kept.keys() - {"flags", "policy", "params"}}
        plan.engine = {**rest, **typed, "recover": True}
        if "flags" not in kept or args.flags or plan.flag_names or args.keep_definition:
            kept["flags"] = self._flags(plan, entry)
        self.result |= {
            "domain": plan.domain,
            "source_uri": plan.source_uri,
            "dest_uri": plan.dest_uri,
            "policy": plan.policy,
            "params": plan.params,
            "flags": list(_core.flags_from_bits(kept["flags"]).names),
        }

    def _tunnel(self, args: argparse.Namespace, plan: options.Plan, entry: Entry) -> Names | None:
        """The way through the tunnel: the journal's, or a fresh one. What was encrypted stays so unless
        somebody says otherwise."""
        try:
            known = Names.of_entry(entry.tunnel)
        except TunnelError as err:
            raise CommandError(f"{err}; --tunnel makes a new way") from err
        if args.no_tunnel:
            if args.tunnel is not None:
                raise UsageError("--no-tunnel contradicts --tunnel")
            entry.engine.pop("migrate_uri", None)
            entry.engine.pop("disks_uri", None)
            entry.engine.pop("tunnel_control", None)
            return None
        if known is not None and args.tunnel is None:
            typed = [option for name, option in options.TUNNEL_DECIDES if getattr(args, name)]
            if typed:
                raise UsageError(
                    f"this migration goes through the tunnel (to {known.peer}): leave {typed[0]} out, or "
                    "give --no-tunnel too to go on in clear"
                )
            return known
        if args.tunnel is None:
            return None
        plan.dest_uri = entry.dest_uri
        peer = options.tunnel_peer(plan)
        if known is not None and (not args.tunnel or known.peer == peer):
            return known
        return Names.new(peer, disks=False, streams=plan.tunnel_streams or 1)

    def _through(self, plan: options.Plan, names: Names) -> None:
        """Opens it. Where the peer is away just now, that is tried again for as long as it takes."""
        try:
            self.open_tunnel(plan, names)
        except UsageError:
            raise
        except CommandError as err:
            if not str(plan.engine.get("migrate_uri")).endswith(f"/{names.memory}"):
                raise
            say(f"pcmig: note: {err}; this is tried again", sys.stderr)
        assert isinstance(self.passage, Passage)

    def _flags(self, plan: options.Plan, entry: Entry) -> int:
        """From what was typed, as `pcmig migrate` does it. libvirt takes what becomes of the definitions from
        the call that ends the migration."""
        if plan.move_definition and persistent(entry):
            plan.flag_names += ["PERSIST_DEST", "UNDEFINE_SOURCE"]
        flags = options.through_tunnel(plan, _core.parse_flags(plan.flags_line()))
        options.refuse_conflicts(flags)
        return flags.bits


def persistent(entry: Entry) -> bool:
    """Whether the source has a definition of the guest; False when it cannot be asked, or has none of it."""
    try:
        return _core.domain_persistent(entry.source_uri, entry.uuid)
    except _core.LibvirtError:
        return False


def typed_ends(args: argparse.Namespace) -> dict[str, Any]:
    """The two ends, as far as they were typed. A source alone only says where to look for the guest: the
    journal may have a migration that came from the other side."""
    if not args.desturi:
        return {}
    return {"dest_uri": args.desturi, **({"source_uri": args.connect} if args.connect else {})}


def locate(book: Journal, args: argparse.Namespace) -> Entry:
    """The migration that is meant: from the journal, or as libvirt and the command line have it. Raises
    CommandError when there is nothing to resume."""
    entry = find(book, args.domain, args.connect)
    if entry is not None:
        return entry
    source_uri = args.connect or default_connect()
    uuid, name = identify(book, source_uri, args)
    entry = book.read(uuid)
    if entry is not None:
        return entry
    refuse_nothing(source_uri, args.desturi, uuid, name)
    if not args.desturi:
        raise UsageError(
            f"name DESTURI: the journal ({book.folder}) does not know where {name} goes; give the options "
            "too that its migration was started with"
        )
    return Entry(
        uuid=uuid,
        name=name,
        source_uri=source_uri,
        dest_uri=args.desturi,
        engine={},
        started=utc_now(),
        caller={"program": PROGRAM},
    )


def identify(book: Journal, source_uri: str, args: argparse.Namespace) -> tuple[str, str]:
    """UUID and name of the guest, as the source knows it, or the destination if the source does not."""
    for uri in (source_uri, args.desturi):
        try:
            if uri:
                return guest.identity(_core.domain_xml(uri, args.domain))
        except _core.NoDomainError:
            continue
    where = source_uri + (f" and {args.desturi}" if args.desturi else "")
    raise CommandError(
        f"nothing to resume: no guest {args.domain!r} at {where}, and the journal ({book.folder}) does not "
        "know it"
    )


def refuse_nothing(source_uri: str, dest_uri: str | None, uuid: str, name: str) -> None:
    """Raises CommandError when neither half speaks of a migration."""
    source = _core.half(source_uri, uuid)
    if source["half"] in UNDER_WAY or source["job_active"]:
        return
    seen = [f"it is {HALVES[source['half']]} at {source_uri}"]
    if dest_uri:
        there = _core.half(dest_uri, uuid)["half"]
        if there in UNDER_WAY:
            return
        seen.append(f"{HALVES[there]} at {dest_uri}")
    raise CommandError(f"nothing to resume: no migration of {name} is under way: {', '.join(seen)}")


def told(book: Journal, entry: Entry) -> CommandError:
    """Lets the process that looks after ENTRY go on at once; what to say about it."""
    keeper = entry.keeper
    assert keeper is not None
    row = status.of_entry(book, entry)
    if row["phase"] == "half-lost":  # nothing goes on, whoever is asked
        return CommandError(f"{entry.name}: {row['text']}; type:\n  {row['type']}", ExitCode.NEEDS_OPERATOR)
    book.update(entry.uuid, held=False)
    if not tell(entry):
        return CommandError(held_by(keeper, entry))
    say("", sys.stdout)
    return CommandError(
        f"process {keeper.pid} looks after the migration of {entry.name} to {entry.dest_uri}, and was asked "
        f"to go on at once; to see it:\n  {watch_command(entry.source_uri, word(entry))}",
        ExitCode.DETACHED,
    )
