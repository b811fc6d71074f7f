# SPDX-License-Identifier: Apache-2.0
"""Migration flags as nova.conf asks for them, today's options and `live_migration_flag` of old together.

Pure but for reading the configuration it is given. The order of precedence:

1. What Nova itself sets, from its fixed flags and from today's options, stays as it is.
2. `[libvirt] live_migration_flag` (live migrations) and `block_migration_flag` (block migrations) add to it.
   A flag that an option of today says no to, set and not only left at its default, is an error.
3. The switchover policy is that of a name of old (POSTCOPY_AFTER_PRECOPY: first-pass), else `[pcmig] policy`.
   The two are an error where both are set and differ.
4. Flags of old that ask for libvirt's tunnel together with post-copy mean pcmig's, unless `[pcmig] tunnel`
   says otherwise.
5. What then does not go together is an error where libvirt, QEMU or Nova refuses it (csrc/core/conflicts.c);
   otherwise the flag that has no use is left out, with a warning.

Where neither option of old is set and post-copy is not permitted, the flags are Nova's own, unchecked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pcmig import _core
from pcmig.nova.settings import ConfigError, Setting, read

PREFIX = "VIR_MIGRATE_"
BITS = {row["name"]: row["bit"] for row in _core.flags_table()}
POSTCOPY = BITS["VIR_MIGRATE_POSTCOPY"]
_DISK, _INC, _SYNC = (
    BITS[PREFIX + name] for name in ("NON_SHARED_DISK", "NON_SHARED_INC", "NON_SHARED_SYNCHRONOUS_WRITES")
)
_TUNNELLED = BITS["VIR_MIGRATE_TUNNELLED"]
_TLS = BITS["VIR_MIGRATE_TLS"]
# What does not work through pcmig's tunnel, or would encrypt twice: name, what the tunnel is.
_NOT_TUNNEL = {
    "VIR_MIGRATE_TLS": "which encrypts by itself",
    "VIR_MIGRATE_ZEROCOPY": "which encrypts by itself",
}
# Of one migration's memory, through pcmig's tunnel (csrc/tunnel/local/door.c), and how many of them are not
# those of VIR_MIGRATE_PARALLEL: the main one and that of pages that are asked for.
_TUNNEL_STREAMS, _OTHER_STREAMS = 64, 2
_STORAGE = _DISK | _INC | _SYNC
# What Nova 34 sets whatever its options say (virt/libvirt/driver.py, _prepare_migration_flags).
_NOVA_LIVE = sum(BITS[PREFIX + name] for name in ("LIVE", "PEER2PEER", "PERSIST_DEST", "UNDEFINE_SOURCE"))
_NOVA_BLOCK = _NOVA_LIVE | _INC
_POLICY_DEFAULT = "auto"
# As long as QEMU's version is not known, rules about old versions are warnings, and no remedy is applied.
_NEWEST_QEMU = 999_000_000


@dataclasses.dataclass(frozen=True)
class _Today:
    """An option of today that stands for a flag."""

    name: str
    asks: Callable[[Any], bool]
    yes: str  # what would ask for the flag


# Nova, virt/libvirt/driver.py, _parse_migration_flags; live_migration_tunnelled is deprecated since 23.0.0.
_TODAY = {
    "VIR_MIGRATE_POSTCOPY": _Today("live_migration_permit_post_copy", bool, "true"),
    "VIR_MIGRATE_AUTO_CONVERGE": _Today("live_migration_permit_auto_converge", bool, "true"),
    "VIR_MIGRATE_TUNNELLED": _Today("live_migration_tunnelled", bool, "true"),
    "VIR_MIGRATE_TLS": _Today("live_migration_with_native_tls", bool, "true"),
    "VIR_MIGRATE_PARALLEL": _Today("live_migration_parallel_connections", lambda n: n > 1, "2 or more"),
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """One of the two kinds of live migration."""

    bits: int  # VIR_MIGRATE_* for libvirt
    policy: str  # as _core.parse_policy() takes it; of no effect without post-copy
    policy_from: str  # the option that said so, "[pcmig] policy" also for the default
    origins: dict[str, str]  # name of each flag in `bits` -> "Nova", or the option and its value
    tunnel: bool = False  # migrations of this kind go through pcmig's tunnel, where the engine drives them

    @property
    def post_copy(self) -> bool:
        """Whether migrations of this kind may use post-copy at all."""
        return bool(self.bits & POSTCOPY) and self.policy != "never"


@dataclasses.dataclass(frozen=True)
class MigrationFlags:
    """Flags and policy of this host."""

    live: Kind
    block: Kind
    warnings: tuple[str, ...]  # for the log, each one line

    def of(self, block_migration: bool) -> Kind:
        return self.block if block_migration else self.live

    @property
    def post_copy(self) -> bool:
        """Whether any live migration from this host may use post-copy."""
        return self.live.post_copy or self.block.post_copy


def merge(
    conf: Any,
    live: int,
    block: int,
    *,
    qemu_version: int | None = None,
    libvirt_version: int | None = None,
) -> MigrationFlags:
    """The flags for CONF (an oslo.config ConfigOpts with pcmig.nova.conf's options registered).

    LIVE and BLOCK are the bits that Nova computed (LibvirtDriver._parse_migration_flags). Versions are as
    libvirt gives them, major * 1000000 + minor * 1000 + micro, None = not known. Raises ConfigError.
    """
    host = _Host(conf, qemu_version, libvirt_version)
    result = MigrationFlags(
        host.kind("live_migration_flag", live), host.kind("block_migration_flag", block), ()
    )
    host.check_all(result)
    return dataclasses.replace(result, warnings=tuple(dict.fromkeys(host.warnings)))


def of_line(
    option: str,
    line: str,
    permit_post_copy: bool = False,
    qemu_version: int | None = None,
    libvirt_version: int | None = None,
) -> tuple[Kind, list[str]]:
    """What merge() makes of OPTION = LINE alone, and its warnings: for who has no nova-compute at hand. What
    concerns the other kind of migration is left out. Raises ConfigError."""
    conf = _OneLine(libvirt={option: line, _TODAY["VIR_MIGRATE_POSTCOPY"].name: permit_post_copy})
    host = _Host(conf, qemu_version, libvirt_version)
    bits = _NOVA_BLOCK if option == "block_migration_flag" else _NOVA_LIVE
    kind = host.kind(option, bits | (POSTCOPY if permit_post_copy else 0))
    return kind, host.warnings


class _OneLine(dict[str, dict[str, Any]]):
    """A configuration as read() takes it: groups, options, and all of them defaults."""

    def get_location(self, name: str, group: str) -> None:
        return None


class _Host:
    """The configuration of one host, and what is to be said about it."""

    def __init__(self, conf: Any, qemu_version: int | None, libvirt_version: int | None) -> None:
        self.conf = conf
        self.versions = (qemu_version, libvirt_version)
        self.warnings: list[str] = []
        self.left_in_clear = False  # and a warning says so
        self.policy = read(conf, "pcmig", "policy") or Setting("pcmig", "policy", _POLICY_DEFAULT)
        self.tunnel = read(conf, "pcmig", "tunnel") or Setting("pcmig", "tunnel", None)
        self.today = {
            flag: setting
            for flag, option in _TODAY.items()
            if (setting := read(conf, "libvirt", option.name)) is not None
        }

    def kind(self, option: str, nova_bits: int) -> Kind:
        """Merges OPTION into what Nova computed, and checks the sum."""
        setting = read(self.conf, "libvirt", option)
        given = None
        if setting is not None and setting.value and setting.value.strip():
            try:
                given = _core.parse_flags(setting.value)
            except _core.FlagsError as err:
                raise setting.error(f"{err} ('pcmig flags' lists them all)") from err
        bits = nova_bits | (given.bits if given else 0)
        policy, policy_from = str(self.policy.value).strip(), self.policy.option
        if setting is not None and given is not None:
            self._check_given(setting, given, nova_bits)
            if given.policy is not None:
                policy, policy_from = given.policy, setting.option
        else:
            setting = None
        tunnel = self._tunnel(bits, setting)
        if tunnel:
            bits &= ~_TUNNELLED
        elif given is not None and setting is not None:
            bits = self._without_useless_tunnel(bits, nova_bits, setting)
        if given is not None or bits & POSTCOPY:
            bits = self._checked(bits, setting, given, block=option == "block_migration_flag")
        return Kind(bits, policy, policy_from, self._origins(bits, nova_bits, setting, given), tunnel)

    def _tunnel(self, bits: int, setting: Setting | None) -> bool:
        """Whether migrations with BITS go through pcmig's tunnel: only those that the engine drives can."""
        if not bits & POSTCOPY or self.tunnel.value == "none":
            return False
        if self.tunnel.value is None:
            if not bits & _TUNNELLED or any(bits & BITS[flag] for flag in _NOT_TUNNEL):
                return False
            asking = setting.option if setting is not None else "[libvirt] live_migration_tunnelled"
            self.warnings.append(
                f"{asking}: VIR_MIGRATE_TUNNELLED together with post-copy means pcmig's tunnel, as libvirt's "
                "own refuses post-copy: 'pcmig tunnel' has to run on all hosts (set [pcmig] tunnel = pcmig, "
                "or none)"
            )
        for flag, tunnel in _NOT_TUNNEL.items():
            if bits & BITS[flag]:
                today = self.today.get(flag)
                asked = today is not None and _TODAY[flag].asks(today.value)
                brought = (
                    _placed(today) if asked and today is not None else setting.option if setting else flag
                )
                raise self.tunnel.error(
                    f"pcmig's tunnel, {tunnel}, contradicts {flag} of {brought}; remove one of the two"
                )
        parallel, most = self.today.get("VIR_MIGRATE_PARALLEL"), _TUNNEL_STREAMS - _OTHER_STREAMS
        if parallel is not None and parallel.value > most:
            raise parallel.error(
                f"pcmig's tunnel carries {most} at the most for a migration; set {most} or fewer"
            )
        return True

    def _without_useless_tunnel(self, bits: int, nova_bits: int, setting: Setting) -> int:
        """BITS without libvirt's tunnel where SETTING asks for it beside disks: that was Nova's own default
        of block_migration_flag, from a time when QEMU sent disks within its stream. It may still stand in the
        file of a host that must come up; what it asks for, today's libvirt cannot do."""
        if not bits & _TUNNELLED or nova_bits & (_TUNNELLED | POSTCOPY) or bits & POSTCOPY:
            return bits
        if not nova_bits & _STORAGE:
            return bits
        self.left_in_clear = True
        self.warnings.append(
            f"{setting.option}: libvirt's tunnel cannot carry disks, so VIR_MIGRATE_TUNNELLED is left out, "
            "and block migrations are not encrypted: permit post-copy and they go through pcmig's tunnel, or "
            "set [libvirt] live_migration_with_native_tls = true"
        )
        return bits & ~_TUNNELLED

    def _check_given(self, setting: Setting, given: _core.Flags, nova_bits: int) -> None:
        """What the flags of GIVEN contradict by themselves."""
        for flag, today in self.today.items():
            option = _TODAY[flag]
            if given.bits & BITS[flag] and today.explicit and not option.asks(today.value):
                raise setting.error(
                    f"{_as_given(given, BITS[flag])} contradicts {_placed(today)}; remove the flag, or set "
                    f"{today.option} = {option.yes}"
                )
        if given.bits & _DISK and nova_bits & _INC:
            raise setting.error(
                "Nova prepares the images on the destination and copies what is above them "
                "(VIR_MIGRATE_NON_SHARED_INC); remove VIR_MIGRATE_NON_SHARED_DISK"
            )
        policy = str(self.policy.value).strip()
        if given.policy is not None and self.policy.explicit and policy != given.policy:
            name = next(name for name, _, _, policy, _ in given.items if policy == given.policy)
            raise setting.error(
                f"{name} stands for [pcmig] policy = {given.policy}, which contradicts "
                f"{_placed(self.policy)}; set {self.policy.option} = {given.policy}, or write "
                f"VIR_MIGRATE_POSTCOPY instead of {name}"
            )
        parallel = self.today.get("VIR_MIGRATE_PARALLEL")
        if given.bits & BITS["VIR_MIGRATE_PARALLEL"] and parallel is not None and not parallel.explicit:
            self.warnings.append(
                f"{setting.option}: VIR_MIGRATE_PARALLEL without {parallel.option}: QEMU opens its own "
                "default number of connections"
            )

    def _checked(self, bits: int, setting: Setting | None, given: _core.Flags | None, *, block: bool) -> int:
        """BITS without what has no use. Raises ConfigError for what does not go together.

        That a block migration copies disks is Nova's own wish, so the rules for Nova's flags judge the rest.
        What libvirt refuses is an error whoever asks for it.
        """
        qemu_version, libvirt_version = self.versions
        storage = bits & _STORAGE if block else 0
        flags_with_storage = _core.flags_from_bits(bits)
        flags = _core.flags_from_bits(bits & ~storage)
        findings = flags.check(qemu_version, libvirt_version, True)
        by_libvirt = flags_with_storage.check(qemu_version, libvirt_version, False)
        findings += [found for found in by_libvirt if found[0] == "error" and found not in findings]
        resolved = flags.resolved(qemu_version or _NEWEST_QEMU, libvirt_version, True).bits | storage
        for severity, text, names in findings:
            if severity == "error":
                works = resolved & flags_with_storage.resolved(_NEWEST_QEMU, libvirt_version, False).bits
                raise self._conflict(text, names, works, setting, given)
            if setting is not None:
                left_out = any(bits & ~resolved & BITS[name] for name in names if name in BITS)
                self.warnings.append(f"{setting.option}: {text}{' (it is left out)' if left_out else ''}")
        return resolved if given is not None else bits

    def _conflict(
        self,
        text: str,
        names: tuple[str, ...],
        works: int,
        setting: Setting | None,
        given: _core.Flags | None,
    ) -> ConfigError:
        """The error for a finding TEXT about flags NAMES: names every option that brought one of them, and
        the line of flags that is left without the bits that are not in WORKS."""
        others = [
            self.today[name]
            for name in names
            if name in self.today and _TODAY[name].asks(self.today[name].value)
        ]
        if setting is not None and given is not None and any(given.bits & BITS.get(n, 0) for n in names):
            brought = "".join(f"; {_placed(other)} asks for {_flag_of(other)}" for other in others)
            rest = ", ".join(name for name, _, bit, _, _ in given.items if bit & works)
            return setting.error(f"{text}{brought}", rest if rest and not others else None)
        if others:
            brought = "; ".join(f"{_placed(other)} asks for {_flag_of(other)}" for other in others)
            return others[0].error(f"{text}; {brought}")
        return ConfigError(f"[libvirt] {text}")

    def _origins(
        self, bits: int, nova_bits: int, setting: Setting | None, given: _core.Flags | None
    ) -> dict[str, str]:
        origins = {}
        for name in _core.flags_from_bits(bits).names:
            bit = BITS.get(name, 0)
            today = self.today.get(name)
            if nova_bits & bit:
                asked = today is not None and _TODAY[name].asks(today.value)
                origins[name] = str(today) if asked else "Nova"
            elif setting is not None and given is not None:
                origins[name] = setting.option
        return origins

    def check_all(self, flags: MigrationFlags) -> None:
        """What concerns both kinds of migration, or options beyond the flags."""
        self._check_encryption(flags)
        live, block = (bool(kind.bits & POSTCOPY) for kind in (flags.live, flags.block))
        default_choice = read(self.conf, "pcmig", "default_choice")
        if not (live or block):
            if default_choice is not None and default_choice.value == "required":
                raise default_choice.error(
                    "every live migration would be refused, because post-copy is not permitted; set "
                    "[libvirt] live_migration_permit_post_copy = true"
                )
            if self.tunnel.value == "pcmig":
                self.warnings.append(
                    f"{self.tunnel} has no effect, as only migrations with post-copy go through it: set "
                    "[libvirt] live_migration_permit_post_copy = true"
                )
            if self.policy.explicit and self.policy.value != "never":
                self.warnings.append(
                    f"{self.policy} has no effect: set [libvirt] live_migration_permit_post_copy = true"
                )
            return
        self._check_host(flags)
        networks = read(self.conf, "pcmig", "resume_networks")
        if networks is not None and networks.value and (flags.live.tunnel or flags.block.tunnel):
            raise networks.error(
                "an interrupted migration would be resumed around pcmig's tunnel, in clear; remove it"
            )
        for with_it, without, option in (
            (live, block, "block_migration_flag"),
            (block, live, "live_migration_flag"),
        ):
            if with_it and not without:
                kind = "with" if option == "block_migration_flag" else "without"
                self.warnings.append(
                    f"live migrations {kind} block migration stay without post-copy: add "
                    f"VIR_MIGRATE_POSTCOPY to [libvirt] {option}, or set [libvirt] "
                    "live_migration_permit_post_copy = true"
                )
        for kind_flags in (flags.live, flags.block):
            if kind_flags.bits & POSTCOPY and kind_flags.policy == "never":
                source = kind_flags.origins["VIR_MIGRATE_POSTCOPY"]
                raise self.policy.error(
                    f"contradicts {source}, which permits post-copy; remove one of the two"
                )

    def _check_encryption(self, flags: MigrationFlags) -> None:
        """Who asks for encryption is told which migrations go without."""
        live, block = (kind.tunnel or kind.bits & (_TUNNELLED | _TLS) for kind in (flags.live, flags.block))
        if bool(live) == bool(block) or self.left_in_clear:
            return
        clear, option = (flags.block, "block_migration_flag") if live else (flags.live, "live_migration_flag")
        with_disks, others = ("with", "without") if live else ("without", "with")
        if clear.bits & POSTCOPY:
            remedy = f"add VIR_MIGRATE_TUNNELLED to [libvirt] {option}, or set [pcmig] tunnel = pcmig"
        elif live:
            remedy = (
                "permit post-copy for them too and set [pcmig] tunnel = pcmig, or set [libvirt] "
                "live_migration_with_native_tls = true"
            )
        else:
            remedy = f"add VIR_MIGRATE_TUNNELLED to [libvirt] {option}"
        self.warnings.append(
            f"live migrations {with_disks} block migration are not encrypted, those {others} are: {remedy}"
        )

    def _check_host(self, flags: MigrationFlags) -> None:
        """Options that post-copy does not work with, whatever the flags."""
        virt_type = read(self.conf, "libvirt", "virt_type")
        if virt_type is not None and virt_type.value not in ("kvm", "qemu"):
            raise virt_type.error(
                f"post-copy, permitted by {_source(flags)}, exists only with kvm and qemu; remove one of "
                "the two"
            )
        uri = read(self.conf, "libvirt", "live_migration_uri")
        if uri is not None and uri.value:
            try:
                filled = uri.value % "host"
            except (TypeError, ValueError):
                filled = ""
            if not filled.startswith("qemu"):
                raise uri.error(
                    f"post-copy, permitted by {_source(flags)}, needs a URI of QEMU with one %s for the "
                    "destination, such as qemu+tcp://%s/system; or set live_migration_scheme instead"
                )


def _source(flags: MigrationFlags) -> str:
    """The option that permits post-copy."""
    kind = flags.live if flags.live.bits & POSTCOPY else flags.block
    return kind.origins["VIR_MIGRATE_POSTCOPY"]


def _flag_of(today: Setting) -> str:
    return next(flag for flag, option in _TODAY.items() if option.name == today.name)


def _as_given(given: _core.Flags, bit: int) -> str:
    """The flag as it was typed."""
    return next(name for name, _, item_bit, _, _ in given.items if item_bit == bit)


def _placed(setting: Setting) -> str:
    """The setting, with its file."""
    return f"{setting} ({setting.where})" if setting.where else str(setting)


__all__ = ["ConfigError", "Kind", "MigrationFlags", "merge", "of_line"]
