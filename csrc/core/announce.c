/* SPDX-License-Identifier: Apache-2.0 */
/* See announce.h. */
#include "core/announce.h"

#define EARLY    4 /* so many are sent whatever the guest says */
#define EVERY_MS 1000

static const int64_t early_ms[EARLY] = {0, 100, 300, 700};

/* When a step is due, from when the port forwards. */
static int64_t due_ms(unsigned step)
{
    return step < EARLY ? early_ms[step] : early_ms[EARLY - 1] + (int64_t)(step - EARLY + 1) * EVERY_MS;
}

void pcmig_announce_init(struct pcmig_announce *announce, int64_t for_ms)
{
    *announce = (struct pcmig_announce){.for_ms = for_ms, .since_ms = -1, .begun_ms = -1};
}

/* Until when, as it looks now. */
static int64_t end_ms(const struct pcmig_announce *announce)
{
    return announce->begun_ms >= 0 ? announce->begun_ms + announce->for_ms
                                   : announce->since_ms + PCMIG_ANNOUNCE_FORWARDS_WITHIN_MS;
}

bool pcmig_announce_feed(struct pcmig_announce *announce, int64_t now_ms, bool forwards, bool heard)
{
    bool due;

    if (announce->over)
        return false;
    if (announce->since_ms < 0)
        announce->since_ms = now_ms;
    if (forwards && announce->begun_ms < 0) {
        announce->begun_ms = now_ms;
        announce->step = 0;
    }
    if (!forwards)
        announce->begun_ms = -1; /* all that was said may be forgotten by the time it forwards again */
    announce->heard = forwards && (announce->heard || heard);
    due = forwards && now_ms >= announce->begun_ms + due_ms(announce->step);
    while (forwards && now_ms >= announce->begun_ms + due_ms(announce->step))
        announce->step++;
    announce->over = (announce->heard && announce->step >= EARLY) || now_ms >= end_ms(announce);
    return due;
}

int64_t pcmig_announce_wait_ms(const struct pcmig_announce *announce, int64_t now_ms)
{
    int64_t until_ms;

    if (announce->over)
        return -1;
    if (announce->since_ms < 0)
        return 0;
    until_ms = end_ms(announce);
    if (announce->begun_ms >= 0 && announce->begun_ms + due_ms(announce->step) < until_ms)
        until_ms = announce->begun_ms + due_ms(announce->step);
    return until_ms > now_ms ? until_ms - now_ms : 0;
}
