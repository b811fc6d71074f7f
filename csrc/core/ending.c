/* SPDX-License-Identifier: Apache-2.0 */
/* See ending.h. */
#include "core/ending.h"

#include <stddef.h>

#define LENGTH(table) (sizeof(table) / sizeof((table)[0]))

/* The first row whose fact is there. */
static const struct {
    unsigned fact;
    enum pcmig_ending_step step;
} rows[] = {
    {PCMIG_FACT_FLOWS, PCMIG_ENDING_STEER},
    {PCMIG_FACT_RECOVERING, PCMIG_ENDING_WAIT},
    {PCMIG_FACT_BEING_ASKED, PCMIG_ENDING_WAIT},
    {PCMIG_FACT_JOB_UNTOLD, PCMIG_ENDING_WAIT},
    /* Before the verdict: it would be that the guest is at the source, paused. */
    {PCMIG_FACT_STOPPED, PCMIG_ENDING_RESTART},
    /* Likewise: it would be that somebody has to end it. */
    {PCMIG_FACT_HALF_KEPT, PCMIG_ENDING_END_HALF},
    {PCMIG_FACT_OPEN, PCMIG_ENDING_WAIT},
    {PCMIG_FACT_CALL_RUNS, PCMIG_ENDING_WAIT},
    {PCMIG_FACT_NO_FIGURES, PCMIG_ENDING_WAIT},
    {PCMIG_FACT_SLOWED, PCMIG_ENDING_RESTORE},
    {PCMIG_FACT_LEFTOVER, PCMIG_ENDING_CLEAR},
    {PCMIG_FACT_AUTOSTART, PCMIG_ENDING_AUTOSTART},
    {PCMIG_FACT_UNCOUNTED, PCMIG_ENDING_WAIT},
};

enum pcmig_ending_step pcmig_ending_next(unsigned facts)
{
    for (size_t i = 0; i < LENGTH(rows); i++) {
        if ((rows[i].fact & facts) != 0)
            return rows[i].step;
    }
    return PCMIG_ENDING_FINISH;
}

/* libvirt's own clean-up takes seconds, a daemon that is restarted takes a few, and keepalive needs up to 30 s to
 * notice a dead connection. */
#define USUAL_US    40000000
/* What both hosts say when they know nothing of the guest does not change by itself. */
#define GONE_US     5000000
/* Post-copy that the source takes for interrupted, or that seems to have lost a half; a guest that is paused where it
 * arrived, or has crashed or shuts down there; a source that cannot tell of its job, or what it has left of a guest
 * that has arrived: so long for a libvirtd that may be restarting, and for its events. */
#define DAEMON_US   15000000
/* Between the question to the source and the one to the destination a guest may have moved. */
#define BOTH_US     1000000
/* An interrupted network may come back; QEMU notices by itself within TCP's retries. */
#define POSTCOPY_US 180000000

#define H(half)   (1u << PCMIG_HALF_##half)
#define ANY       ((1u << PCMIG_HALF_COUNT) - 1)
/* The source has the guest, running or stopped on its way. */
#define AT_SOURCE (H(RUNNING) | H(PAUSED) | H(MIGRATING))

/* The first row that fits. With recovery, what is broken is healed however long it takes: a half that cannot be asked,
 * or that may yet move, is waited for. */
static const struct {
    unsigned source;
    unsigned destination;
    bool recover_only;
    int64_t patience_us;
} patience[] = {
    {H(RUNNING), H(RUNNING), false, BOTH_US},
    {H(POSTCOPY), H(POSTCOPY), false, INT64_MAX},
    {H(UNKNOWN), H(RUNNING), false, DAEMON_US},
    {H(UNKNOWN) | H(POSTCOPY), ANY, true, INT64_MAX},
    {ANY, H(UNKNOWN), true, INT64_MAX},
    {H(POSTCOPY), ANY, false, POSTCOPY_US},
    {H(POSTCOPY_FAILED), H(POSTCOPY), false, POSTCOPY_US},
    {H(POSTCOPY_FAILED), H(UNKNOWN), false, DAEMON_US},
    {H(ABSENT), H(PAUSED) | H(DEAD), false, DAEMON_US},
    {H(ABSENT), H(ABSENT), false, GONE_US},
};

int64_t pcmig_ending_patience_us(const struct pcmig_evidence *evidence, bool recover)
{
    bool job_untold = !evidence->job_active && !evidence->job_absent;

    if (pcmig_outcome_half_lost(evidence) ||
        (job_untold && evidence->destination == PCMIG_HALF_ABSENT && (AT_SOURCE & 1u << evidence->source) != 0))
        return DAEMON_US;
    for (size_t i = 0; i < LENGTH(patience); i++) {
        if ((patience[i].source & 1u << evidence->source) != 0 &&
            (patience[i].destination & 1u << evidence->destination) != 0 && (recover || !patience[i].recover_only))
            return patience[i].patience_us;
    }
    return recover && evidence->job_active ? INT64_MAX : USUAL_US;
}

static const char *const names[] = {
    [PCMIG_ENDING_WAIT] = "wait",       [PCMIG_ENDING_STEER] = "steer",       [PCMIG_ENDING_RESTART] = "restart",
    [PCMIG_ENDING_RESTORE] = "restore", [PCMIG_ENDING_CLEAR] = "clear",       [PCMIG_ENDING_AUTOSTART] = "autostart",
    [PCMIG_ENDING_FINISH] = "finish",   [PCMIG_ENDING_END_HALF] = "end half",
};
_Static_assert(LENGTH(names) == PCMIG_ENDING_STEP_COUNT, "every step has a name");

const char *pcmig_ending_step_name(enum pcmig_ending_step step)
{
    return (unsigned)step < PCMIG_ENDING_STEP_COUNT ? names[step] : "unknown";
}
