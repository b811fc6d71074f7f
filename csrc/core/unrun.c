/* SPDX-License-Identifier: Apache-2.0 */
/* See unrun.h. */
#include "core/unrun.h"

void pcmig_unrun_listens(struct pcmig_unrun *unrun)
{
    *unrun = (struct pcmig_unrun){.listening = true};
}

void pcmig_unrun_gap(struct pcmig_unrun *unrun)
{
    unrun->listening = false;
    unrun->ended = false;
}

void pcmig_unrun_event(struct pcmig_unrun *unrun, enum pcmig_event event)
{
    switch (event) {
    case PCMIG_EVENT_DST_RESUMED_POSTCOPY:
    case PCMIG_EVENT_DST_RESUMED_MIGRATED:
    case PCMIG_EVENT_DST_RESUMED_OTHER:
    case PCMIG_EVENT_DST_POSTCOPY_FAILED:
        unrun->ran = true;
        break;
    case PCMIG_EVENT_DST_STARTED: /* another one, of which nothing was heard yet */
        unrun->ended = false;
        break;
    case PCMIG_EVENT_DST_STOPPED:
        unrun->ended = unrun->listening;
        break;
    default: /* says nothing about it */
        break;
    }
}

void pcmig_unrun_half(struct pcmig_unrun *unrun, enum pcmig_half half)
{
    if (half == PCMIG_HALF_RUNNING || half == PCMIG_HALF_PAUSED || half == PCMIG_HALF_POSTCOPY ||
        half == PCMIG_HALF_POSTCOPY_FAILED)
        unrun->ran = true;
    if (half != PCMIG_HALF_ABSENT && half != PCMIG_HALF_UNKNOWN)
        unrun->ended = false;
}

bool pcmig_unrun_certain(const struct pcmig_unrun *unrun)
{
    return unrun->listening && unrun->ended && !unrun->ran;
}
