# SPDX-License-Identifier: Apache-2.0
"""Words of virsh on pcmig's command line: whoever comes from there learns the word of here."""

from __future__ import annotations

from collections.abc import Iterable

_NONE = "has no counterpart; leave it out"
_WATCH = "leave it out: progress is shown anyway (-q and --no-progress show less)"
_TIMEOUT = "--deadline SECONDS switches to post-copy then, --abort-after SECONDS cancels"
_COMPRESSION = "has no counterpart: compression works against post-copy; leave it out"
_CONVERGE = (
    "has no counterpart: post-copy is for guests that do not converge (--policy never --flags AUTO_CONVERGE)"
)

# Options of `virsh migrate` that `pcmig migrate` does not take: what to write instead. Those that it takes
# as virsh does are in pcmig/cli/options.py.
OPTIONS = {
    "--domain": "write the guest without it: pcmig migrate DOMAIN DESTURI",
    "--desturi": "write the destination without it: pcmig migrate DOMAIN DESTURI",
    "--verbose": _WATCH,
    "--direct": "has no counterpart: pcmig's migrations are peer-to-peer",
    "--tunnelled": "--tunnel: libvirt's own tunnel refuses post-copy, pcmig's carries it",
    "--suspend": "--flags PAUSED with --policy never: post-copy needs a guest that runs on",
    "--offline": "has no counterpart: the guest has to run (virsh migrate --offline)",
    "--change-protection": "leave it out: a peer-to-peer migration is always protected",
    "--abort-on-error": "--flags ABORT_ON_ERROR",
    "--rdma-pin-all": "--flags RDMA_PIN_ALL, with --migrateuri rdma://ADDRESS",
    "--zerocopy": "--flags 'PARALLEL, ZEROCOPY'",
    "--parallel": "--flags PARALLEL",
    "--parallel-connections": "has no counterpart: --flags PARALLEL opens QEMU's own default number",
    "--copy-storage-synchronous-writes": "--flags NON_SHARED_SYNCHRONOUS_WRITES",
    "--compressed": "--flags COMPRESSED with --policy never; it is of no use with post-copy",
    "--comp-methods": _COMPRESSION,
    "--comp-mt-level": _COMPRESSION,
    "--comp-mt-threads": _COMPRESSION,
    "--comp-mt-dthreads": _COMPRESSION,
    "--comp-xbzrle-cache": _COMPRESSION,
    "--comp-zlib-level": _COMPRESSION,
    "--comp-zstd-level": _COMPRESSION,
    "--auto-converge": "--flags AUTO_CONVERGE with --policy never; post-copy does without",
    "--auto-converge-initial": _CONVERGE,
    "--auto-converge-increment": _CONVERGE,
    "--timeout": _TIMEOUT,
    "--timeout-suspend": "has no counterpart: --deadline SECONDS switches to post-copy instead",
    "--timeout-postcopy": "--deadline SECONDS",
    "--postcopy-after-precopy": "--policy first-pass",
    "--postcopy-resume": "pcmig resume DOMAIN [DESTURI], a command of its own",
    "--graphicsuri": _NONE,
    "--disks-port": "--disks-uri tcp://ADDRESS:PORT",
    "--migrate-disks-detect-zeroes": _NONE,
    "--xml": "has no counterpart: change the definition before or afterwards",
    "--persistent-xml": "has no counterpart: change the definition before or afterwards",
    "--tls-destination": "has no counterpart: name the destination as its certificate does",
}

# Commands of virsh, for what pcmig has one of its own.
OTHER_COMMANDS = {
    "domjobabort": "abort",
    "domjobinfo": "watch",
    "migrate-postcopy": "switch",
}


def refusal(words: Iterable[str]) -> str | None:
    """A line for each of the WORDS that virsh knows and `pcmig migrate` does not, or None."""
    names = dict.fromkeys(word.partition("=")[0] for word in words)
    lines = [f"{name}: {OPTIONS[name]}" for name in names if name in OPTIONS]
    if not lines:
        return None
    return "; ".join(lines) if len(lines) == 1 else "options of virsh:\n  " + "\n  ".join(lines)


def surplus(words: list[str]) -> str | None:
    """What is said of WORDS that are too many, or None: virsh takes the address for the memory as a third
    one."""
    if not words or any(word.startswith("-") for word in words) or ":" not in words[0]:
        return None
    return f"{words[0]!r} is one word too many; virsh's third one is here --migrateuri {words[0]}"
