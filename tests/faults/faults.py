# SPDX-License-Identifier: Apache-2.0
"""The faults, one row each: how it strikes, how it is mended, and which ends are good enough after it."""

from __future__ import annotations

import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from tests.bed import Host
from tests.bed.procs import ProcessId
from tests.faults import wire
from tests.faults.judge import WHOLE, End
from tests.faults.moments import POSTCOPY, PRECOPY, SWITCH
from tests.faults.stage import PCMIG, CloudStage, HostsStage, Stage

STOP_PATIENCE_S = 15.0
HANDSHAKE_BYTES = 700  # a few packets: the connection stands, and the two QEMUs are talking
SECOND_CUT_S = 15.0
OBEYS_S = 3.0  # longer than a page may take on a busy machine
TELLINGS = 5
FIRST_CUT_S = 12.0
# A fault this much after the switch cannot have come before it.
SURE_S = 0.005


@dataclasses.dataclass(frozen=True)
class Act:
    """One fault, ready: everything that takes time is done, so that strike() is a matter of milliseconds."""

    strike: Callable[[], None]
    mend: Callable[[], None] = lambda: None


Arm = Callable[[Stage], Act]
Allowed = Mapping[str, frozenset[End]]


@dataclasses.dataclass(frozen=True)
class Fault:
    """lasts_s: how long until it is mended; None: never, before the verdict
    allowed: by moment, the ends that physics permits and that nobody would complain about; at the switch also
        those of before and after it
    sysctls: of both hosts' networks, to have in seconds what takes minutes
    tunnel: the migration goes through pcmig's tunnel, which nothing else has
    disk: the guest has one, and each host its own file of it
    boots: the guest starts anew by it, and counts its heartbeats from the beginning
    ours: it needs a command that the control does not have
    """

    name: str
    title: str
    arm: Arm
    lasts_s: float | None = 0.0
    allowed: Allowed = dataclasses.field(default_factory=lambda: HEALS)
    sysctls: Mapping[str, int] = dataclasses.field(default_factory=dict)
    beds: Collection[str] = ("hosts", "cloud")
    tunnel: bool = False
    disk: bool = False
    boots: bool = False
    ours: bool = False

    def allowed_at(self, moment: str, offset_s: float | None) -> frozenset[End]:
        """OFFSET_S: from the switch to the fault, if it is known.

        Around the switch both sides' ends are fine, but a guest that had left before the fault cannot be gone
        with its source.
        """
        if moment != SWITCH:
            return self.allowed[moment]
        both = self.allowed[PRECOPY] | self.allowed[POSTCOPY] | self.allowed.get(SWITCH, frozenset())
        return both - {End.GONE} if offset_s is not None and offset_s > SURE_S else both


HEALS: Allowed = {PRECOPY: WHOLE, POSTCOPY: frozenset({End.MOVED})}
# A daemon that is missed at the switch, because it ended or because nothing comes from it any more, may have
# the destination's daemon destroy its copy before it has run, when the QEMU of the source is in post-copy
# already and refuses to run again in any other way. Only before: of a guest that was heard there, what it did
# would be undone although both hosts live.
HEALS_OR_TURNS_BACK: Allowed = {**HEALS, SWITCH: frozenset({End.UNHEARD})}
FOR_EVER: Allowed = {PRECOPY: WHOLE, POSTCOPY: frozenset({End.MOVED, End.SPLIT})}
SOURCE_DIES: Allowed = {
    PRECOPY: frozenset({End.GONE}),
    POSTCOPY: frozenset({End.MOVED, End.DESTINATION_HALF}),
}
# The source has all memory as it was at the switch: its half is kept, or the guest went on from there.
DESTINATION_DIES: Allowed = {
    PRECOPY: frozenset({End.STAYED}),
    POSTCOPY: frozenset({End.MOVED, End.SOURCE_HALF, End.TURNED_BACK}),
}
# Its own will. In post-copy the source does not hear of it, and its half is left for somebody to end.
GUEST_ENDS: Allowed = {PRECOPY: frozenset({End.GONE}), POSTCOPY: frozenset({End.GONE, End.SOURCE_HALF})}
# libvirt takes note of a crash when the migration is over. One in pre-copy it sends on, and lets run where it
# arrives; after an abort it would let it run at the source.
GUEST_CRASHES: Allowed = {PRECOPY: frozenset({End.CRASHED, End.MOVED}), POSTCOPY: frozenset({End.CRASHED})}

# TCP gives up after 3 s, and a silent peer is noticed within 6 s, instead of 15 minutes and 2 hours.
SHORT = {
    "net.ipv4.tcp_retries2": 3,
    "net.ipv4.tcp_keepalive_time": 3,
    "net.ipv4.tcp_keepalive_intvl": 1,
    "net.ipv4.tcp_keepalive_probes": 3,
}


def cut(*rules: str, management: bool = False) -> Arm:
    """Both hosts hear nothing any more of what RULES name; with `management`, on the cloud bed the source's
    nova-compute is cut off from everybody as well."""

    def arm(stage: Stage) -> Act:
        cut_off = stage.management(stage.source) if management else {}
        return Act(stage.wire.breaker(rules, cut_off), stage.wire.mend)

    return arm


def libvirtd(ends: Sequence[str], number: signal.Signals) -> Arm:
    def arm(stage: Stage) -> Act:
        hosts = [getattr(stage, end) for end in ends]
        daemons = [daemon for host in hosts if (daemon := host.libvirtd()) is not None]

        def strike() -> None:
            for daemon in daemons:
                daemon.signal(number)

        def mend() -> None:
            for host, daemon in zip(hosts, daemons, strict=True):
                _bring_back(host, daemon, number)

        return Act(strike, mend)

    return arm


def _bring_back(host: Host, daemon: ProcessId, number: signal.Signals) -> None:
    if number == signal.SIGSTOP:
        daemon.signal(signal.SIGCONT)
        return
    deadline_s = time.monotonic() + STOP_PATIENCE_S
    while daemon.alive() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    daemon.end()  # one that does not end by itself, as systemd does it
    host.start_libvirtd()


def qemu(end: str) -> Arm:
    def arm(stage: Stage) -> Act:
        host: Host = getattr(stage, end)
        processes = [process for pid in host.qemu_pids() if (process := ProcessId.of(pid)) is not None]

        def strike() -> None:
            for process in processes:
                process.signal(signal.SIGKILL)

        return Act(strike)

    return arm


def cut_again(stage: Stage) -> Act:
    """The stream is cut until TCP has given up, and then again after a few packets of the next one: in the
    handshake of a resume."""
    first = stage.wire.breaker(wire.STREAM)
    second = stage.wire.breaker(wire.stream_after(HANDSHAKE_BYTES), name="again")

    def mend() -> None:
        stage.wire.mend()
        second()
        time.sleep(SECOND_CUT_S)
        stage.wire.mend()

    return Act(first, mend)


def typed(end: str, *words: str) -> Arm:
    """Somebody types `virsh WORDS GUEST` on a host, whoever looks after the migration."""

    def arm(stage: Stage) -> Act:
        host: Host = getattr(stage, end)
        return Act(lambda: stage.type_at(host, ["virsh", *words, stage.domain]))

    return arm


def migrated_again(stage: Stage) -> Act:
    return Act(stage.start_again)


def guest_does(word: str) -> Arm:
    """The guest is told on its console. Both QEMUs listen there, so that the half that stands may swallow the
    word: it is said again to a guest that goes on as if it had heard nothing."""

    def arm(stage: Stage) -> Act:
        def strike() -> None:
            stage.guest.tell(word)

        def mend() -> None:
            for _ in range(TELLINGS):
                before = next((beat.sequence for beat in reversed(stage.guest.heartbeats())), 0)
                told_s = time.monotonic()
                time.sleep(OBEYS_S)
                if not any(beat.sequence > before for beat in stage.guest.heartbeats(told_s + OBEYS_S / 2)):
                    return
                stage.guest.tell(word)

        return Act(strike, mend)

    return arm


def power_lost(then: str | None = None) -> Arm:
    """All processes of the destination are gone at once, and its link is down. THEN: it boots again, or
    somebody gives his word that it is dead."""

    def arm(stage: Stage) -> Act:
        assert isinstance(stage, HostsStage)
        host = stage.destination
        processes = stage.all_processes(host)

        def strike() -> None:
            for process in processes:
                process.signal(signal.SIGKILL)
            stage.bed.network.link_down()

        mends: dict[str | None, Callable[[], None]] = {
            None: lambda: None,
            "back": functools.partial(stage.boot, host),
            "dead": stage.destination_is_dead,
        }
        return Act(strike, mends[then])

    return arm


def power_lost_after_a_cut(stage: Stage) -> Act:
    """The destination dies while its post-copy is interrupted, or just being resumed."""
    cut_off = stage.wire.breaker(wire.STREAM)

    def strike() -> None:
        cut_off()
        time.sleep(FIRST_CUT_S)
        lost = power_lost()(stage)  # whoever lives by then
        stage.wire.mend()
        lost.strike()

    return Act(strike)


def write_fails(stage: Stage) -> Act:
    """The guest writes to a disk whose file system is full at the destination; somebody makes room, and lets
    it go on as soon as libvirt takes that."""
    assert isinstance(stage, HostsStage)

    def strike() -> None:
        stage.fill(stage.destination)
        stage.guest.tell("write")

    def mend() -> None:
        stage.unfill(stage.destination)
        stage.resume_paused(stage.destination)

    return Act(strike, mend)


def disk_full(stage: Stage) -> Act:
    return Act(lambda: stage.fill(stage.destination), lambda: stage.unfill(stage.destination))


def compute_killed(end: str) -> Arm:
    def arm(stage: Stage) -> Act:
        assert isinstance(stage, CloudStage)
        name = getattr(stage, end).name
        nova = stage.cloud.computes[name].nova
        processes = [process for pid in nova.pids() if (process := ProcessId.of(pid)) is not None]

        def strike() -> None:
            for process in processes:
                process.signal(signal.SIGKILL)

        return Act(strike, lambda: stage.bring_back_compute(name))

    return arm


def command_killed(stage: Stage) -> Act:
    assert isinstance(stage, HostsStage)
    processes = stage.command_processes()

    def strike() -> None:
        for process in processes:
            process.signal(signal.SIGKILL)

    return Act(strike, stage.bring_back_command)


def tunnel_killed(ends: Sequence[str]) -> Arm:
    def arm(stage: Stage) -> Act:
        assert isinstance(stage, HostsStage)
        daemons = [stage.scene.daemon(getattr(stage, end)) for end in ends]

        def strike() -> None:
            for daemon in daemons:
                daemon.send(signal.SIGKILL)

        def mend() -> None:
            for daemon in daemons:
                daemon.kill()  # until it is gone
                daemon.start()

        return Act(strike, mend)

    return arm


def service_down(name: str, number: signal.Signals) -> Arm:
    """NUMBER goes to all of its processes."""

    def arm(stage: Stage) -> Act:
        assert isinstance(stage, CloudStage)
        pids = stage.control_service(name).pids()
        processes = [process for pid in pids if (process := ProcessId.of(pid)) is not None]

        def strike() -> None:
            for process in processes:
                process.signal(number)

        return Act(strike, functools.partial(stage.bring_back_service, name))

    return arm


SOURCE, DESTINATION = "source", "destination"
ENDS = ((SOURCE, (SOURCE,)), (DESTINATION, (DESTINATION,)), ("both", (SOURCE, DESTINATION)))
HOSTS, CLOUD = ("hosts",), ("cloud",)

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("stream-5s", "stream cut for 5 s", cut(*wire.STREAM), 5),
        # TCP outlives it, as it outlives 60 s with the kernel's defaults.
        Fault(
            "stream-60s",
            "stream cut for 60 s (20 s, retries to match)",
            cut(*wire.STREAM),
            20,
            sysctls={"net.ipv4.tcp_retries2": 7},
        ),
        Fault(
            "stream-10min",
            "stream cut for 10 min (30 s, TCP gives up in 3 s)",
            cut(*wire.STREAM),
            30,
            sysctls=SHORT,
        ),
        Fault(
            "stream-forever", "stream cut for ever", cut(*wire.STREAM), None, allowed=FOR_EVER, sysctls=SHORT
        ),
        Fault("control", "control network cut for 20 s", cut(*wire.CONTROL, management=True), 20),
        Fault(
            "both",
            "both networks cut for 20 s (TCP gives up in 3 s)",
            cut(*wire.ALL, management=True),
            20,
            allowed=HEALS_OR_TURNS_BACK,
            sysctls=SHORT,
        ),
        Fault(
            "stream-twice",
            "stream cut for 15 s, and again in the resume's handshake (TCP gives up in 3 s)",
            cut_again,
            15,
            sysctls=SHORT,
        ),
        Fault("loss", "2 % of packets lost for 20 s", cut(*wire.loss(20)), 20),
        *(
            Fault(
                f"libvirtd-{who}-{what}",
                f"libvirtd of {who}: {title}",
                libvirtd(ends, number),
                lasts_s,
                allowed=HEALS_OR_TURNS_BACK,
            )
            for who, ends in ENDS
            for what, title, number, lasts_s in (
                ("kill", "SIGKILL, back after 3 s", signal.SIGKILL, 3.0),
                ("stop", "SIGSTOP for 30 s", signal.SIGSTOP, 30.0),
                ("restart", "restart", signal.SIGTERM, 0.0),
            )
        ),
        *(
            Fault(
                f"tunnel-{who}",
                f"tunnel of {who}: SIGKILL, back after 3 s",
                tunnel_killed(ends),
                3,
                beds=HOSTS,
                tunnel=True,
            )
            for who, ends in ENDS
        ),
        Fault("disk-full", "destination's disk full for 20 s", disk_full, 20),
        Fault(
            "io-error",
            "the guest's disk full at the destination for 5 s",
            write_fails,
            5,
            beds=HOSTS,
            disk=True,
        ),
        Fault("qemu-source", "source QEMU killed", qemu(SOURCE), None, allowed=SOURCE_DIES),
        Fault(
            "qemu-destination", "destination QEMU killed", qemu(DESTINATION), None, allowed=DESTINATION_DIES
        ),
        Fault(
            "host-destination",
            "destination loses power",
            power_lost(),
            None,
            allowed=DESTINATION_DIES,
            sysctls=SHORT,
            beds=HOSTS,
        ),
        Fault(
            "host-destination-back",
            "destination loses power, and is back after 20 s",
            power_lost("back"),
            20,
            allowed=DESTINATION_DIES,
            sysctls=SHORT,
            beds=HOSTS,
        ),
        Fault(
            "host-destination-dead",
            "destination loses power, and somebody types pcmig turn-back after 20 s",
            power_lost("dead"),
            20,
            allowed=DESTINATION_DIES,
            sysctls=SHORT,
            beds=HOSTS,
            ours=True,
        ),
        Fault(
            "host-destination-later",
            "stream cut for 12 s (TCP gives up in 3 s), then the destination loses power",
            power_lost_after_a_cut,
            None,
            allowed=DESTINATION_DIES,
            sysctls=SHORT,
            beds=HOSTS,
        ),
        *(
            Fault(
                f"{what}-{who}",
                f"somebody types virsh {what} at the {who}",
                typed(who, what),
                0,
                allowed=allowed,
            )
            for what, who, allowed in (
                ("destroy", SOURCE, SOURCE_DIES),
                ("destroy", DESTINATION, DESTINATION_DIES),
                ("resume", SOURCE, HEALS),
                ("resume", DESTINATION, HEALS),
            )
        ),
        Fault("migrate-twice", "a second migrate call for the guest", migrated_again),
        Fault("guest-off", "the guest powers off", guest_does("poweroff"), 0, allowed=GUEST_ENDS, beds=HOSTS),
        Fault("guest-reboot", "the guest reboots", guest_does("reboot"), beds=HOSTS, boots=True),
        Fault("guest-crash", "the guest crashes", guest_does("crash"), 0, allowed=GUEST_CRASHES, beds=HOSTS),
        Fault("command", "the command: SIGKILL, pcmig resume after 2 s", command_killed, 2, beds=HOSTS),
        Fault("compute-source", "nova-compute of source: SIGKILL", compute_killed(SOURCE), 2, beds=CLOUD),
        Fault(
            "compute-destination",
            "nova-compute of destination: SIGKILL",
            compute_killed(DESTINATION),
            2,
            beds=CLOUD,
        ),
        Fault(
            "rabbitmq", "RabbitMQ down for a minute", service_down("rabbitmq", signal.SIGKILL), 60, beds=CLOUD
        ),
        # Its configuration trades the last second before a SIGKILL for speed.
        Fault(
            "mariadb", "MariaDB down for a minute", service_down("mariadb", signal.SIGTERM), 60, beds=CLOUD
        ),
    )
}


def faults_of(bed: str, driver: str = PCMIG) -> list[str]:
    return [
        fault.name
        for fault in FAULTS.values()
        if bed in fault.beds and (driver == PCMIG or not (fault.tunnel or fault.ours))
    ]
