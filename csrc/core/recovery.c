/* SPDX-License-Identifier: Apache-2.0 */
/* See recovery.h. */
#include "core/recovery.h"

#include <stddef.h>
#include <string.h>

/* Both ends agree that it is broken: the first attempt is made at once, and the n-th waits for as long as the network
 * may need to come back without anybody's waiting minutes once it has. */
#define BACK_OFF_FIRST_US 1000000
#define BACK_OFF_MAX_US   30000000
/* So many attempts that reached the destination's QEMU count as no failure of the network. */
#define REACHED_MAX       8
/* The destination says that the stream is broken and the source does not: it may be about to notice. */
#define ONE_SIDED_US      2000000
/* After the destination's socket was reset, QEMU and libvirt need a moment to say so. */
#define WAKE_US           1500000
#define WAKE_AGAIN_US     5000000
#define LOOK_US           1000000
/* Nobody tells of looks at a healthy stream: what was seen longer ago is another silence. */
#define SAME_SILENCE_US   3000000
#define HELD_LOOK_US      5000000
#define FLOWS_US          5000000 /* for so long after its last byte; and no older word of the source counts */
/* All has crossed: so long for libvirt at the destination to say so. */
#define DONE_US           60000000
/* Where no silence counts as dead. */
#define HANGS_STALL_US    10000000

/* Versions that cannot resume. What nobody has tried is not held.
 *
 * Before 8.5.0 there is no resume: VIR_MIGRATE_POSTCOPY_RESUME is of that version (libvirt-domain.h), and the source
 * refuses a flag that it does not know. 11.2 and 11.3 have it, and their daemon crashes at the destination (NEWS
 * of 11.4.0, "introduced in 11.2.0"; measured with 11.3.0, 4 of 4 times: segfault in the incoming path), which ends
 * nothing but the daemon; the guest's QEMU lives on. 9.0.0 and 12.8.0 resume. */
static const struct {
    unsigned long from;
    unsigned long to;
    bool at_source; /* the source's version counts too, and not only as a guess of the destination's */
    const char *text;
} cannot_resume[] = {
    {1, 8004999, true,
     "libvirt before 8.5 cannot resume post-copy: upgrade libvirt at both ends; both halves are kept, and the "
     "resume is tried once neither is that old"},
    {11002000, 11003999, false,
     "libvirt 11.2 and 11.3 at the destination crash when post-copy is resumed: upgrade libvirt there (the guest's "
     "QEMU goes on through a restart of libvirtd), the resume follows by itself"},
};

static bool is_of(unsigned long version, size_t row)
{
    return version >= cannot_resume[row].from && version <= cannot_resume[row].to;
}

void pcmig_recovery_init(struct pcmig_recovery *recovery, int64_t stall_ms, unsigned networks)
{
    *recovery = (struct pcmig_recovery){.stall_us = stall_ms * 1000,
                                        .networks = networks > 0 ? networks : 1,
                                        .silent_us = -1,
                                        .broken_us = -1,
                                        .sent_bytes = -1};
}

void pcmig_recovery_pause_failed(struct pcmig_recovery *recovery)
{
    recovery->paused = false;
}

void pcmig_recovery_hurry(struct pcmig_recovery *recovery)
{
    recovery->retry_us = 0;
}

enum pcmig_recovery_stuck pcmig_recovery_stuck(const struct pcmig_recovery *recovery,
                                               const struct pcmig_recovery_view *view)
{
    const int64_t stall_us = recovery->stall_us > 0 ? recovery->stall_us : HANGS_STALL_US;

    return view->t_us - recovery->stuck_us >= stall_us * PCMIG_RECOVERY_HANGS_TIMES ? recovery->stuck
                                                                                    : PCMIG_RECOVERY_NOT_STUCK;
}

static enum pcmig_recovery_stuck look_whether_stuck(const struct pcmig_recovery *recovery,
                                                    const struct pcmig_recovery_view *view)
{
    /* Whose QEMU libvirt refuses to resume, the source's says after each attempt; until then what was known holds. */
    const bool unsaid = !view->source_waits && !view->source_sends && recovery->stuck != PCMIG_RECOVERY_NOT_STUCK;
    const bool heard = view->wakes == PCMIG_RECOVERY_WAKES_HEARD;

    if (view->source != PCMIG_HALF_POSTCOPY_FAILED || view->source_runs || view->source_unclear)
        return PCMIG_RECOVERY_NOT_STUCK;
    if (view->destination == PCMIG_HALF_POSTCOPY)
        return heard ? PCMIG_RECOVERY_HANGS : PCMIG_RECOVERY_UNNOTICED;
    if (view->destination != PCMIG_HALF_POSTCOPY_FAILED)
        return PCMIG_RECOVERY_NOT_STUCK;
    /* Where a knock was not answered, the network is broken over which the resume goes, too. The migrate call itself
     * does not return before QEMU there has noticed, and nobody is knocked at meanwhile. */
    if (view->call_running && recovery->stuck == PCMIG_RECOVERY_NOT_STUCK)
        return view->wakes == PCMIG_RECOVERY_WAKES_UNHEARD || (recovery->attempts == 0 && !heard)
                   ? PCMIG_RECOVERY_UNNOTICED
                   : PCMIG_RECOVERY_HANGS;
    if (view->call_running)
        return recovery->stuck;
    if (!view->refused || !(view->source_waits || unsaid))
        return PCMIG_RECOVERY_NOT_STUCK;
    return heard ? PCMIG_RECOVERY_HANGS : PCMIG_RECOVERY_UNNOTICED;
}

static void note_stuck(struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    const enum pcmig_recovery_stuck now = look_whether_stuck(recovery, view);

    if (now != recovery->stuck)
        recovery->stuck_us = view->t_us;
    recovery->stuck = now;
}

/* libvirt 8.5 to 12.8: of the source's QEMU in the first phase of a resume, of the destination's in the second. */
bool pcmig_recovery_refused(const char *message)
{
    return strstr(message, "QEMU reports migration is still running") != NULL;
}

const char *pcmig_recovery_hold(const struct pcmig_recovery_view *view)
{
    /* Where the destination cannot be asked, the source's version is the best guess: hosts are upgraded together. */
    unsigned long version = view->destination_libvirt != 0 ? view->destination_libvirt : view->source_libvirt;

    for (size_t i = 0; i < sizeof(cannot_resume) / sizeof(cannot_resume[0]); i++) {
        if (is_of(version, i) || (cannot_resume[i].at_source && is_of(view->source_libvirt, i)))
            return cannot_resume[i].text;
    }
    return NULL;
}

static int64_t back_off_us(unsigned attempts)
{
    int64_t wait = BACK_OFF_FIRST_US;

    while (attempts-- > 1 && wait < BACK_OFF_MAX_US)
        wait *= 2;
    return wait < BACK_OFF_MAX_US ? wait : BACK_OFF_MAX_US;
}

static struct pcmig_recovery_order order(enum pcmig_recovery_step step, int64_t next_us)
{
    return (struct pcmig_recovery_order){.step = step, .next_us = next_us};
}

static bool is_silent(const struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    /* Nothing that is under way, so nothing that TCP could miss: a source that waits for a word of the destination
     * which was lost waits for ever. In the handshake of a resume QEMU 11.1 does. */
    return recovery->stall_us > 0 && (view->silence_ms * 1000 >= recovery->stall_us ||
                                      view->still_ms * 1000 >= recovery->stall_us * PCMIG_RECOVERY_STILL_TIMES);
}

/* A pause cannot be taken back, so one look is not enough: the next one, for which the kernel is asked again, must
 * agree. */
static bool has_been_silent(struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    if (!is_silent(recovery, view)) {
        recovery->silent_us = -1;
        return false;
    }
    if (recovery->silent_us < 0 || view->t_us - recovery->silent_last_us > SAME_SILENCE_US)
        recovery->silent_us = view->t_us;
    recovery->silent_last_us = view->t_us;
    return view->t_us - recovery->silent_us >= LOOK_US;
}

static struct pcmig_recovery_order while_healthy(struct pcmig_recovery *recovery,
                                                 const struct pcmig_recovery_view *view)
{
    if (has_been_silent(recovery, view))
        return order(PCMIG_RECOVERY_PAUSE, view->t_us + LOOK_US);
    return order(PCMIG_RECOVERY_NONE, recovery->silent_us < 0 ? INT64_MAX : recovery->silent_us + LOOK_US);
}

/* The source serves pages as far as it knows. */
static struct pcmig_recovery_order while_serving(struct pcmig_recovery *recovery,
                                                 const struct pcmig_recovery_view *view)
{
    if (view->destination != PCMIG_HALF_POSTCOPY_FAILED) {
        recovery->broken_us = -1;
        recovery->attempts = 0;
        recovery->retry_us = recovery->wake_us = recovery->pause_us = 0;
        recovery->woken = recovery->paused = false;
        return while_healthy(recovery, view);
    }
    if (recovery->broken_us < 0)
        recovery->broken_us = view->t_us;
    if (view->t_us - recovery->broken_us < ONE_SIDED_US)
        return order(PCMIG_RECOVERY_WAIT, recovery->broken_us + ONE_SIDED_US);
    return order(PCMIG_RECOVERY_PAUSE, view->t_us + LOOK_US);
}

/* The destination's QEMU may believe in its stream for ever, having nothing to send: libvirt there then says that it
 * runs, or, when its own connection broke too, that it failed, and refuses each resume. libvirt's call at the source
 * does not return before QEMU there has noticed. So: at once where it is said to run, otherwise once before each
 * further attempt. */
static bool wake_due(const struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    if (view->destination == PCMIG_HALF_POSTCOPY)
        return view->t_us >= recovery->wake_us;
    return recovery->attempts > 0 && !view->call_running && !recovery->woken && view->t_us >= recovery->retry_us;
}

/* The destination's QEMU asked for pages over the stream of the latest attempt, and the handshake failed all the same,
 * within milliseconds: so does QEMU 11.1 at the source now and then ("resume_prepare() failure detected"), up to three
 * times in a row. The network is there, so it is not waited for; the guest stands still meanwhile. */
static void note_reached(struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    const int64_t soon_us = view->t_us + BACK_OFF_FIRST_US;

    if (recovery->attempts == 0)
        recovery->reached = recovery->reached_count = 0;
    if (recovery->attempts == recovery->reached || view->call_running || view->requests <= recovery->requests ||
        recovery->reached_count >= REACHED_MAX)
        return;
    recovery->reached = recovery->attempts;
    recovery->reached_count++;
    if (recovery->retry_us > soon_us)
        recovery->retry_us = soon_us;
}

static void count_refusals(struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    if (recovery->attempts == 0) {
        recovery->judged = recovery->refusals = 0;
    } else if (!view->call_running && recovery->judged != recovery->attempts) {
        recovery->judged = recovery->attempts;
        recovery->refusals = view->refused ? recovery->refusals + 1 : 0;
        recovery->sent_bytes = -1; /* what it sends now is another stream, if it came to that */
        recovery->flows = false;
    }
}

static void note_sent(struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    const int64_t sent_bytes = view->source_sends ? view->sent_bytes : -1;

    if (sent_bytes == recovery->sent_bytes)
        return;
    recovery->flows = sent_bytes >= 0 && recovery->sent_bytes >= 0;
    recovery->sent_bytes = sent_bytes;
    recovery->sent_us = view->said_us;
}

/* Nothing moved between two looks. */
static bool sends_nothing(const struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    return recovery->sent_bytes >= 0 && view->said_us - recovery->sent_us >= LOOK_US;
}

/* libvirt's resume failed, and QEMU at the source went on with it, or waits in its handshake for a word that was lost:
 * libvirt calls the half broken, does not look at it again, and refuses each resume. Once may be the moment in which
 * QEMU notices by itself. */
static bool may_pause(const struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    return view->source == PCMIG_HALF_POSTCOPY_FAILED && view->destination != PCMIG_HALF_POSTCOPY && view->refused &&
           view->source_sends && !view->call_running && recovery->refusals > 1 && !recovery->paused;
}

/* The stream of a QEMU that went on with a resume may live: only one on which nothing moves, at two looks, is paused,
 * or one that is silent. */
static bool pause_due(struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    bool silent;

    if (!may_pause(recovery, view)) {
        recovery->silent_us = -1;
        return false;
    }
    silent = has_been_silent(recovery, view);
    return (silent || sends_nothing(recovery, view)) && view->t_us >= recovery->pause_us;
}

bool pcmig_recovery_flows(const struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    return recovery->flows && view->t_us - recovery->sent_us < FLOWS_US;
}

/* libvirt at the source calls the half broken as soon as its own connection is, and the stream may flow on. A resume is
 * refused then; and QEMU's word that all has crossed, on which libvirt ends the source's half, is for nobody while
 * libvirt is about a resume, as one that waits for a connection to the other host (12.8,
 * qemuProcessHandleMigrationStatus; seen). So it waits while the source says that it sends, and has sent more of late
 * or was asked only once; and for a while at first, until it has answered. */
static bool may_flow(const struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    if (pcmig_recovery_flows(recovery, view))
        return true;
    if (view->source_done)
        return view->t_us - recovery->broken_us < DONE_US;
    if (view->source_sends)
        return view->sent_bytes >= 0 && view->t_us - view->said_us < FLOWS_US && !sends_nothing(recovery, view);
    return recovery->attempts == 0 && view->source_asked && view->t_us - recovery->broken_us < ONE_SIDED_US;
}

static struct pcmig_recovery_order next_step(struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    bool reachable = view->destination != PCMIG_HALF_UNKNOWN, pause;
    struct pcmig_recovery_order resume;

    count_refusals(recovery, view);
    note_reached(recovery, view);
    note_stuck(recovery, view);
    note_sent(recovery, view);
    if (view->source_runs)
        return order(PCMIG_RECOVERY_NONE, INT64_MAX); /* it turned back: its memory is not the stream's any more */
    if (view->source_unclear)
        return order(PCMIG_RECOVERY_WAIT, view->t_us + LOOK_US);
    if (view->source == PCMIG_HALF_POSTCOPY)
        return while_serving(recovery, view);
    pause = pause_due(recovery, view);
    if (view->source != PCMIG_HALF_POSTCOPY_FAILED)
        return order(PCMIG_RECOVERY_NONE, INT64_MAX);
    if (view->destination != PCMIG_HALF_POSTCOPY_FAILED && view->destination != PCMIG_HALF_POSTCOPY && reachable)
        return order(PCMIG_RECOVERY_NONE, INT64_MAX); /* its half is gone, or complete */
    if (recovery->broken_us < 0)
        recovery->broken_us = view->t_us;
    /* It answers again: no need to sit out the back-off of the time when it did not. */
    if (reachable && !recovery->was_reachable)
        recovery->retry_us = 0;
    recovery->was_reachable = reachable;
    if (!reachable && view->destination_asked)
        return order(PCMIG_RECOVERY_WAIT, view->t_us + LOOK_US);
    if (pause) {
        recovery->paused = true;
        recovery->pause_us = view->t_us + WAKE_AGAIN_US;
        recovery->retry_us = view->t_us + WAKE_US;
        return order(PCMIG_RECOVERY_PAUSE_QEMU, view->t_us + WAKE_US);
    }
    if (may_flow(recovery, view))
        return order(PCMIG_RECOVERY_WAIT, view->t_us + LOOK_US);
    if (wake_due(recovery, view)) {
        recovery->wake_us = view->t_us + WAKE_AGAIN_US;
        recovery->woken = true;
        if (recovery->retry_us < view->t_us + WAKE_US)
            recovery->retry_us = view->t_us + WAKE_US;
        return order(PCMIG_RECOVERY_WAKE, view->t_us + WAKE_US);
    }
    if (view->call_running)
        return order(PCMIG_RECOVERY_WAIT, view->t_us + LOOK_US);
    if (pcmig_recovery_hold(view) != NULL)
        return order(PCMIG_RECOVERY_HELD, view->t_us + HELD_LOOK_US);
    if (view->t_us < recovery->retry_us)
        return order(PCMIG_RECOVERY_WAIT, recovery->retry_us);
    /* It may still be carried out, and the next stream must not be the one that it finds. */
    if (view->pausing)
        return order(PCMIG_RECOVERY_WAIT, view->t_us + LOOK_US);
    recovery->woken = recovery->paused = false;
    recovery->pause_us = 0;
    resume = order(PCMIG_RECOVERY_RESUME, view->t_us + LOOK_US);
    resume.network = recovery->attempts % recovery->networks;
    recovery->attempts++;
    recovery->requests = view->requests;
    recovery->retry_us = view->t_us + back_off_us(recovery->attempts - recovery->reached);
    return resume;
}

struct pcmig_recovery_order pcmig_recovery_next(struct pcmig_recovery *recovery, const struct pcmig_recovery_view *view)
{
    struct pcmig_recovery_order next = next_step(recovery, view);
    const int64_t asked_us = view->said_us > view->t_us ? view->said_us : view->t_us;

    /* The source is asked again, whether its stream stands still. */
    if (next.step == PCMIG_RECOVERY_WAIT && may_pause(recovery, view) && next.next_us > asked_us + LOOK_US)
        next.next_us = asked_us + LOOK_US;
    return next;
}
