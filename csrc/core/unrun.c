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
    unrun->known = false;
}

void pcmig_unrun_event(struct pcmig_unrun *unrun, const struct pcmig_input *input)
{
    switch ((enum pcmig_event)input->code) {
    case PCMIG_EVENT_DST_RESUMED_POSTCOPY:
    case PCMIG_EVENT_DST_RESUMED_MIGRATED:
    case PCMIG_EVENT_DST_RESUMED_OTHER:
        unrun->ran = true;
        break;
    case PCMIG_EVENT_DST_POSTCOPY_FAILED:
        unrun->ran = unrun->ran || !input->paused;
        break;
    case PCMIG_EVENT_DST_STARTED: /* another one, of which nothing was heard yet */
        unrun->ended = false;
        unrun->seen_end = false;
        unrun->known = true;
        break;
    case PCMIG_EVENT_DST_STOPPED: /* libvirt says so of a process that it looks after, and of no other */
        unrun->ended = unrun->listening;
        unrun->seen_end = true;
        unrun->known = false;
        break;
    default: /* says nothing about it */
        break;
    }
}

void pcmig_unrun_half(struct pcmig_unrun *unrun, enum pcmig_half half, bool runs)
{
    if (half == PCMIG_HALF_RUNNING || half == PCMIG_HALF_PAUSED || half == PCMIG_HALF_POSTCOPY ||
        (half == PCMIG_HALF_POSTCOPY_FAILED && runs))
        unrun->ran = true;
    if (half == PCMIG_HALF_ABSENT) {
        unrun->seen_end = unrun->seen_end || unrun->known;
        unrun->known = false;
    } else if (half != PCMIG_HALF_UNKNOWN) {
        unrun->ended = false;
        unrun->seen_end = false;
        unrun->known = true;
    }
}

bool pcmig_unrun_seen_end(const struct pcmig_unrun *unrun)
{
    return unrun->seen_end;
}

bool pcmig_unrun_certain(const struct pcmig_unrun *unrun)
{
    return unrun->listening && unrun->ended && !unrun->ran;
}

bool pcmig_unrun_untold(const struct pcmig_unrun *unrun)
{
    return unrun->listening && unrun->seen_end && !unrun->ended && !unrun->ran;
}
