/* SPDX-License-Identifier: Apache-2.0 */
/* The accounting of one migration: what was transferred in which phase and in which pass over memory.
 *
 * Fed with the inputs the policy is fed with (input.h), so that a recorded trace gives the same accounting again.
 * Pure: integers, one allocation, a fixed number of rows whatever happens.
 *
 * What lies between two samples is divided among the phases in between in proportion to their time, because job
 * statistics cannot be had at the moment of a change (libvirt 12.8 refuses them around the switch with QEMU 11). Only
 * phases in which the thing can happen get a share: no pages in set-up or while paused, no page requests before the
 * switch. A counter that falls a little, or a sample older than the one before it, counts as nothing new. A counter
 * that falls to less than half has begun anew and is counted from zero; the balance then tells that it does not add
 * up.
 */
#ifndef PCMIG_CORE_LEDGER_H
#define PCMIG_CORE_LEDGER_H

#include "core/input.h"
#include "core/latency.h"
#include "core/params.h"
#include "core/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pcmig_phase {
    PCMIG_PHASE_SETUP = 0,  /* from the start to the first page or the first dirty bitmap */
    PCMIG_PHASE_PRECOPY,    /* the guest runs at the source, pages flow */
    PCMIG_PHASE_DRAIN,      /* pre-copy slowed down, so that the link's queue runs empty */
    PCMIG_PHASE_SWITCHOVER, /* switch issued or source vCPUs stopped, until the guest runs at the destination */
    PCMIG_PHASE_POSTCOPY,   /* the guest runs at the destination, pages still missing */
    PCMIG_PHASE_PAUSED,     /* post-copy interrupted */
    PCMIG_PHASE_FINISHED,   /* over, whatever the outcome */
    PCMIG_PHASE_COUNT
};

/* What is counted and has to balance. */
enum pcmig_quantity {
    PCMIG_QUANTITY_WIRE_BYTES = 0, /* memory_processed_bytes */
    PCMIG_QUANTITY_NORMAL_PAGES,   /* normal_pages */
    PCMIG_QUANTITY_ZERO_PAGES,     /* zero_pages */
    PCMIG_QUANTITY_REQUESTS,       /* postcopy_requests */
    PCMIG_QUANTITY_DISK_BYTES,     /* disk_processed_bytes */
    PCMIG_QUANTITY_COUNT
};

/* One stay in a phase, one pass over memory, or the sum of all phases. */
struct pcmig_ledger_row {
    enum pcmig_phase phase; /* of a pass: PCMIG_PHASE_PRECOPY */
    unsigned number;        /* of a pass: 1 = the first; of a phase: its place in the order of time, from 1 */
    unsigned merged;        /* further passes or stays in this row, because the table was full */
    bool complete;          /* a phase or pass that is over; false for a pass that the switch cut short */
    int64_t start_us;
    int64_t end_us;
    int64_t duration_us; /* without the gaps between merged stays */
    uint64_t quantity[PCMIG_QUANTITY_COUNT];
    uint64_t remaining_start_bytes;
    uint64_t remaining_end_bytes;
    uint64_t dirtied_pages;           /* made dirty by the guest at the source */
    uint64_t dirty_pages_ps;          /* dirtied_pages per second */
    uint64_t reported_dirty_pages_ps; /* QEMU's own figure, the last one reported here; 0 = none */
    uint64_t send_bps;                /* bytes on the wire per second, on average */
    uint64_t retransmitted_pages;     /* pages sent here after as many were sent as the guest has */
    unsigned retransmitted_permille;  /* of the pages sent here */
    uint64_t requests_peak_ps;        /* highest rate of page requests over 100 ms or more */
    uint64_t bytes_per_guest_page;    /* bytes on the wire here / pages of the guest's memory */
    int64_t queue_peak_bytes;         /* -1 = not known */
};

struct pcmig_ledger_totals {
    struct pcmig_ledger_row sum;         /* over all phases, up to the end of the migration */
    int64_t phase_us[PCMIG_PHASE_COUNT]; /* time in each phase; finished: 0 */
    int64_t gate_us;                     /* part of pre-copy: the switch was wanted, and waited for the gate */
    int64_t waited_us;                   /* part of setup: others of the host went first, before the migrate call */
    int64_t total_us;                    /* from the first input to the end, or to the latest input */
    uint64_t guest_pages;                /* pages of the guest's memory, video RAM included; 0 = not known */
    uint64_t page_size_bytes;
    unsigned passes;              /* completed */
    int64_t downtime_reported_ms; /* libvirt's final figure; -1 = not known */
    int64_t downtime_events_us;   /* source suspended until destination resumed; -1 = not seen */
    unsigned late_samples;        /* older than the one before, ignored */
    unsigned counters_backwards;  /* times a counter fell */
};

struct pcmig_ledger_balance {
    bool final;                                   /* whether final statistics came; the rest is 0 otherwise */
    bool balanced;                                /* no difference in any quantity */
    uint64_t phases[PCMIG_QUANTITY_COUNT];        /* what the phases add up to */
    uint64_t reported[PCMIG_QUANTITY_COUNT];      /* libvirt's final statistics */
    int64_t difference[PCMIG_QUANTITY_COUNT];     /* phases - reported */
    uint64_t last_interval[PCMIG_QUANTITY_COUNT]; /* part of `phases` learned from the final statistics alone: it came
                                                     after the last sample */
};

enum pcmig_ledger_entry_kind {
    PCMIG_LEDGER_ENTRY_PHASE = 0, /* `code` is the enum pcmig_phase that began */
    PCMIG_LEDGER_ENTRY_EVENT,     /* `code` is an enum pcmig_event */
    PCMIG_LEDGER_ENTRY_REQUEST,   /* `code` is an enum pcmig_request */
    PCMIG_LEDGER_ENTRY_ACTION,    /* `code` is an enum pcmig_action other than keep and set-pace */
    PCMIG_LEDGER_ENTRY_KIND_COUNT
};

struct pcmig_ledger_entry {
    int64_t t_us;
    enum pcmig_ledger_entry_kind kind;
    int code;
};

struct pcmig_ledger; /* opaque; pcmig_ledger_new allocates the one block it lives in */

/* An empty ledger, or NULL when memory is short. */
struct pcmig_ledger *pcmig_ledger_new(void);
void pcmig_ledger_free(struct pcmig_ledger *ledger);

/* A copy to read at leisure, or NULL when memory is short. */
struct pcmig_ledger *pcmig_ledger_copy(const struct pcmig_ledger *ledger);

/* Takes one input. An input older than the one before it is taken as of that one's time. */
void pcmig_ledger_feed(struct pcmig_ledger *ledger, const struct pcmig_input *input);

/* Takes a decision that was acted on; without it there is no phase "drain". */
void pcmig_ledger_note_action(struct pcmig_ledger *ledger, const struct pcmig_decision *decision);

/* The phase the migration is in. */
enum pcmig_phase pcmig_ledger_phase_now(const struct pcmig_ledger *ledger);

/* Bytes a second that are sent by now: QEMU goes on telling its last rate where post-copy is interrupted. */
uint64_t pcmig_ledger_send_bps(const struct pcmig_ledger *ledger, const struct pcmig_sample *latest);

/* Stays in phases in the order of time, and passes over memory (the running one, or the one cut short, is the last).
 * A row INDEX that does not exist gives false, and OUT is unchanged. */
size_t pcmig_ledger_phase_count(const struct pcmig_ledger *ledger);
bool pcmig_ledger_phase(const struct pcmig_ledger *ledger, size_t index, struct pcmig_ledger_row *out);
size_t pcmig_ledger_pass_count(const struct pcmig_ledger *ledger);
bool pcmig_ledger_pass(const struct pcmig_ledger *ledger, size_t index, struct pcmig_ledger_row *out);

/* Every state change with its time. Returns their number; the entries live as long as the ledger. LOST gets the
 * number of those that no longer fitted (the first ones are kept); it may be NULL. */
size_t pcmig_ledger_events(const struct pcmig_ledger *ledger, const struct pcmig_ledger_entry **entries,
                           unsigned *lost);

void pcmig_ledger_totals(const struct pcmig_ledger *ledger, struct pcmig_ledger_totals *out);
/* The two downtimes of the totals alone, which add up no rows. */
void pcmig_ledger_downtimes(const struct pcmig_ledger *ledger, int64_t *events_us, int64_t *reported_ms);
/* How long requested pages took. */
const struct pcmig_latency *pcmig_ledger_latency(const struct pcmig_ledger *ledger);
void pcmig_ledger_balance(const struct pcmig_ledger *ledger, struct pcmig_ledger_balance *out);

/* One line: "balanced", "no final statistics", "not balanced: normal-pages +12, requests -3" (+ = the phases have
 * more). Returns its length as snprintf does. */
int pcmig_ledger_balance_describe(const struct pcmig_ledger_balance *balance, char *buf, size_t size);

const char *pcmig_phase_name(enum pcmig_phase phase);          /* "switchover"; never NULL */
const char *pcmig_quantity_name(enum pcmig_quantity quantity); /* "wire_bytes"; never NULL */

#endif
