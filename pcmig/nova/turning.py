# SPDX-License-Identifier: Apache-2.0
"""Has a guest go on at its source from the moment of the switch, whose destination was lost in post-copy.

What is asked and decided is pcmig.turn_back's, as for the command; here is whose word counts, what the
destination's nova-compute says, and who does it. What becomes of Nova's books is
turned_back.py.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable
from typing import Any, cast

from oslo_log import log as logging

from pcmig import _core, guest, journal, turn_back
from pcmig.nova import fence, guard, records, releases
from pcmig.nova import words as sentences
from pcmig_common import messages
from pcmig_common.turned_back import Words

LOG = logging.getLogger(__name__)


class NotNow(Exception):
    """It does not turn back: why, for operators."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Somebody's, with what he vouches for; or nobody's, and then it happens only where nothing is lost."""

    words: Words = turn_back.NO_WORDS
    by_somebody: bool = True


BY_ITSELF = Request(by_somebody=False)


class Turning:
    """MODE is [pcmig] turn_back, PEERS gives the other hosts' nova-computes."""

    def __init__(
        self,
        known: records.Records,
        guard_: guard.Guard,
        mode: str,
        peers: Callable[[], messages.Client],
    ) -> None:
        self._records = known
        self._guard = guard_
        self.mode = mode
        self._peers = peers

    def by_itself(self, record: records.Record) -> bool:
        """Whether it could happen without anybody's asking, as far as that is known here."""
        return self.mode == "unrun" and record.entry.unrun and not record.turned

    def may(self, context: Any, record: records.Record, request: Request) -> Words:
        """One look, which changes nothing: the words that count, of whoever asks and of whoever fenced the
        destination. Raises NotNow."""
        if self.mode == "never" and not record.turned:
            raise NotNow("[pcmig] turn_back = never on this host; as root there: pcmig turn-back")
        dead = "it is said so" if request.words.destination_is_dead else fence.word(record)
        words = dataclasses.replace(request.words, destination_is_dead=dead is not None)
        with _Explained(self._records, record.entry.uuid, request.words):
            source, destination = self._guard.halves(record)
            releases.off_hub(turn_back.ask_guard, record.entry, (source, destination), dead is not None, True)
            self._ask_destination(context, record, destination["half"], dead is not None)
            facts, rule = releases.off_hub(
                turn_back.decide,
                record.entry,
                words,
                False,
                self._mode(request),
                records.now(),
                turn_back.marked(record.entry, source) is not None,
            )
        LOG.info(
            "Guest %(name)s may turn back: %(text)s (source %(source)s, destination %(destination)s, dead: "
            "%(dead)s; never ran there: %(unrun)s; disks: %(disks)s)",
            {
                "name": record.entry.name,
                "text": rule["text"],
                "source": source["half"],
                "destination": destination["half"],
                "dead": dead or "nobody says so",
                "unrun": facts.unrun,
                "disks": facts.disks_why,
            },
        )
        return words

    def _mode(self, request: Request) -> turn_back.Mode | None:
        return None if request.by_somebody else cast(turn_back.Mode, self.mode)

    def turn(self, context: Any, record: records.Record, request: Request) -> str:
        """Does it; what it undid. Raises NotNow, and then nothing was done, or nobody knows whether it
        was."""
        self.may(context, record, request)
        time.sleep(turn_back.AGAIN_S)  # a QEMU whose libvirtd starts is seen at the second look
        words = self.may(context, record, request)

        def turn(book: journal.Journal) -> turn_back.TurnedBack:
            return turn_back.turn_back(
                book,
                record.entry,
                ask=lambda: self._guard.halves(record),
                now=records.now,
                words=words,
                no_process=True,  # may() asked, each time
                mode=self._mode(request),
                tell=lambda text: LOG.info("Guest %s: %s", record.entry.name, text),
                do=_do,
            )

        with _Explained(self._records, record.entry.uuid, request.words):
            done = self._records.turns_back(record, turn)
        LOG.warning(
            "Guest %(name)s (%(uuid)s) turned back: it goes on here from the moment of the switch; %(text)s "
            "(%(steps)s)",
            {
                "name": record.entry.name,
                "uuid": record.entry.uuid,
                "text": done.facts.text,
                "steps": "; ".join(done.steps),
            },
        )
        return str(done.facts.text)

    def note_turned(self, record: records.Record) -> str:
        """Of a guest that runs here again by libvirt's word: nothing is decided and nothing is done, whatever
        is configured and whoever answers; the journal hears of it. What was undone. Raises NotNow."""

        def turn(book: journal.Journal) -> turn_back.TurnedBack:
            return turn_back.turn_back(
                book,
                record.entry,
                ask=lambda: self._guard.halves(record),
                now=records.now,
                mode="never",
                do=_never,
            )

        with _Explained(self._records, record.entry.uuid):
            return str(self._records.turns_back(record, turn).facts.text)

    def _ask_destination(self, context: Any, record: records.Record, half: str, dead: bool) -> None:
        """libvirt there may have lost a QEMU that lives. Raises RefusedError."""
        if dead and half == "unknown":
            return
        lives = self._peers().process(context, record.dest, record.entry.uuid)
        if lives:
            raise turn_back.RefusedError(
                f"on {record.dest} libvirt does not know the guest, but its QEMU runs: end that process first"
            )
        if lives is None and not dead:
            raise turn_back.RefusedError(
                f"nova-compute on {record.dest} does not say whether a QEMU of the guest runs there; if that "
                "host is dead: openstack compute service set --down, or --destination-is-dead"
            )


# What somebody has to see to first, who gives a word that no fence stands for.
_NEEDS = {
    "--guest-is-nowhere-else": ", and that the host is dead or fenced does not tell where the guest is: see "
    "first that no other host has it"
}


class _Explained:
    """Makes NotNow of what pcmig.turn_back raises of the guest with this UUID, with the command that helps,
    which has the WORDS that were given."""

    def __init__(self, known: records.Records, uuid: str, words: Words = turn_back.NO_WORDS) -> None:
        self._records = known
        self._uuid = uuid
        self._words = words

    def __enter__(self) -> None: ...

    def _with(self, word: str) -> str:
        return shlex.join(["openstack", "pcmig", "turn-back", *self._words.options(), word, self._uuid])

    def __exit__(self, _kind: Any, err: BaseException | None, _trace: Any) -> None:
        if isinstance(err, turn_back.RefusedError) and err.word:
            raise NotNow(
                f"{err}{_NEEDS.get(err.word, '')}; to take that risk: {self._with(err.word)}"
            ) from err
        if isinstance(err, turn_back.RefusedError):
            raise NotNow(self._records.naming(sentences.for_operators(str(err), err.advice))) from err
        if isinstance(err, _core.Error | guest.GuestXmlError | journal.JournalError):
            raise NotNow(f"{err}") from err


def _never(_uri: str, _uuid: str) -> list[str]:
    raise turn_back.RefusedError("it does not run at the source any more")


def _do(uri: str, uuid: str) -> list[str]:
    """Over a descriptor that libvirt hands to QEMU, for which nova-compute has the right; where that is not
    to be had, through the guest's own folder of libvirt, which is closed to it."""
    try:
        return _core.turn_back(uri, uuid)
    except _core.Error as err:
        # What was asked of QEMU may have taken effect all the same: another connection to its stub would stop
        # a guest that runs.
        half = _core.turn_back_look(uri, uuid)["half"]
        if half == "runs":
            return [
                f"it runs, though libvirt said: {err}",
                *_core.turn_back(uri, uuid),
            ]  # which closes the stub
        if half not in ("waits", "sends"):
            raise
        LOG.info(
            "Nova's privileged daemon is to let guest %(uuid)s go on: %(err)s", {"uuid": uuid, "err": err}
        )
    from nova.virt.pcmig import privileged

    try:
        steps: list[str] = privileged.turn_back(uri, uuid)
    except _core.Error:
        raise
    except Exception as err:  # the daemon does not start, or what it raises cannot be sent
        raise turn_back.RefusedError(
            f"Nova's privileged daemon did not do it ({type(err).__name__}: {err}); as root: pcmig turn-back"
        ) from err
    return steps
