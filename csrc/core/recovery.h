/* SPDX-License-Identifier: Apache-2.0 */
/* What heals an interrupted post-copy, and when: views of both halves in, an order out.
 *
 * Pure: no libvirt, no clock, no allocation. Nothing here throws memory away: the orders are to look again, to pause a
 * stream that is dead already, to have its other end notice, and to resume.
 */
#ifndef PCMIG_CORE_RECOVERY_H
#define PCMIG_CORE_RECOVERY_H

#include "halves.h"

#include <stdbool.h>
#include <stdint.h>

/* So many times the silence that counts as dead, nothing may move without any: a source that is busy with something
 * else sends nothing either. */
#define PCMIG_RECOVERY_STILL_TIMES 2
/* So many times, and the destination should have noticed long ago. */
#define PCMIG_RECOVERY_HANGS_TIMES 6

enum pcmig_recovery_step {
    PCMIG_RECOVERY_NONE = 0,   /* nothing is broken, or nothing can be healed: the halves decide (outcome.h) */
    PCMIG_RECOVERY_WAIT,       /* until next_us, or news */
    PCMIG_RECOVERY_HELD,       /* a libvirt cannot resume (pcmig_recovery_hold); looked at again at next_us */
    PCMIG_RECOVERY_PAUSE,      /* the stream is dead and the source does not know: pause it */
    PCMIG_RECOVERY_PAUSE_QEMU, /* likewise, and libvirt calls it paused already: QEMU itself is told */
    PCMIG_RECOVERY_WAKE, /* the destination has not noticed: have its end of the stream reset, look again at next_us */
    PCMIG_RECOVERY_RESUME, /* over network `network` */
};

/* What came of the latest order to WAKE since the interruption. */
enum pcmig_recovery_wakes {
    PCMIG_RECOVERY_WAKES_NONE = 0, /* nothing could be tried */
    PCMIG_RECOVERY_WAKES_UNHEARD, /* the destination's host has not answered: that network is broken, as far as is known
                                   */
    PCMIG_RECOVERY_WAKES_HEARD,   /* QEMU there has been told that its stream is gone */
};

/* Why a destination does not get on. */
enum pcmig_recovery_stuck {
    PCMIG_RECOVERY_NOT_STUCK = 0,
    PCMIG_RECOVERY_UNNOTICED, /* as far as anybody here can tell, nothing has told its QEMU that the stream is gone */
    PCMIG_RECOVERY_HANGS,     /* it was told, or libvirt there does not get on with a resume */
};

/* What is seen at one moment. */
struct pcmig_recovery_view {
    int64_t t_us;
    enum pcmig_half source;
    enum pcmig_half destination;
    bool destination_asked; /* we have a connection there, or try to; otherwise only the source's host reaches it */
    bool source_runs;       /* it was interrupted, and its processors run: the guest turned back */
    bool source_unclear;    /* its processors run, and whether it is a source, or a destination, is not known */
    bool call_running;      /* the migrate call, or a resume, has not returned */
    bool refused;           /* the latest attempt that has returned: pcmig_recovery_refused */
    enum pcmig_recovery_wakes wakes;
    bool pausing;      /* a PAUSE_QEMU is out, and nobody knows whether it was heard */
    bool source_asked; /* QEMU at the source was asked about its migration, and has not answered, or not with a word on
                          its stream */
    /* And what it has said of itself since the latest attempt, or since the interruption; neither: nothing yet. */
    bool source_waits;  /* to be resumed */
    bool source_sends;  /* it takes its stream for one that flows */
    bool source_done;   /* it has sent all, and has the destination's word that it came */
    int64_t sent_bytes; /* what it has sent then; -1 = it does not say */
    int64_t said_us;    /* when it said so, */
    int64_t silence_ms; /* the destination has acknowledged nothing for so long, and should have; -1 = not known */
    uint64_t requests;  /* pages that the destination has asked for, in all */
    int64_t still_ms;   /* nothing was sent for so long although pages are left; -1 = not known, or nothing is left */
    unsigned long source_libvirt; /* versions, major * 1000000 + minor * 1000 + micro; 0 = not known */
    unsigned long destination_libvirt;
};

struct pcmig_recovery_order {
    enum pcmig_recovery_step step;
    unsigned network; /* of RESUME: from 0 */
    int64_t next_us;  /* when to look again at the latest; INT64_MAX = no need */
};

struct pcmig_recovery {
    int64_t stall_us;       /* silence that counts as dead; 0 = never */
    unsigned networks;      /* ways to resume over, at least 1 */
    unsigned attempts;      /* resumes that were ordered since the interruption */
    int64_t silent_us;      /* first of the looks that found it silent for too long; -1 = the last one did not */
    int64_t silent_last_us; /* and the last of them */
    int64_t broken_us;      /* since when; -1 = not broken */
    int64_t retry_us;       /* no attempt before this */
    uint64_t requests;      /* that there were before the latest attempt */
    unsigned reached;       /* the latest attempt in which the destination asked for more, */
    unsigned reached_count; /* and how many there were */
    bool was_reachable;     /* the destination could be asked at the last look */
    enum pcmig_recovery_stuck stuck; /* as seen at the last look, */
    int64_t stuck_us;                /* and since when in this way */
    int64_t wake_us;                 /* not before, again */
    bool woken;                      /* since the last attempt */
    bool paused;                     /* likewise, QEMU at the source */
    int64_t pause_us;                /* not before, again */
    unsigned judged;                 /* attempts of which it is known how they ended, */
    unsigned refusals;               /* and how many of the latest of them were refused, in a row */
    /* Of a source that says that it sends, since the latest attempt: */
    int64_t sent_bytes; /* what it has sent; -1 = not said */
    int64_t sent_us;    /* when it first said so of that number */
    bool flows;         /* it has said other numbers before */
};

/* A stream whose other end has been silent for STALL_MS, or on which nothing has moved for twice as long, and that
 * still is so at a second look, is paused (0 = never); resumes go over NETWORKS ways in turn. */
void pcmig_recovery_init(struct pcmig_recovery *recovery, int64_t stall_ms, unsigned networks);

/* The next step. An order of RESUME counts as an attempt. */
struct pcmig_recovery_order pcmig_recovery_next(struct pcmig_recovery *recovery,
                                                const struct pcmig_recovery_view *view);

/* Why the destination has not got on for so long that waiting alone will not help: the source has long known that the
 * stream is gone, libvirt there answers, and has either not heard it of its QEMU yet, or does not get on with a resume,
 * or refuses each. A QEMU that HANGS waits for a page with its own lock held, and answers nobody; or a connection that
 * brought nothing has ended its wait for good; or the network between the two is still broken. One that has not noticed
 * can be woken on its own host. */
enum pcmig_recovery_stuck pcmig_recovery_stuck(const struct pcmig_recovery *recovery,
                                               const struct pcmig_recovery_view *view);

/* Whether only libvirt's own connection broke, as far as QEMU at the source tells: its stream has moved of late. */
bool pcmig_recovery_flows(const struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view);

/* QEMU at the source was not to be paused: the order counts as not given. It is given again, but not at once. */
void pcmig_recovery_pause_failed(struct pcmig_recovery *recovery);

/* An attempt is due at once: somebody asked, or a network is known to be back. */
void pcmig_recovery_hurry(struct pcmig_recovery *recovery);

/* Whether MESSAGE of libvirt says that one of the two QEMUs does not wait to be resumed. It does not say which. */
bool pcmig_recovery_refused(const char *message);

/* Why a resume is held, as a sentence for people, or NULL when it is not. */
const char *pcmig_recovery_hold(const struct pcmig_recovery_view *view);

#endif
