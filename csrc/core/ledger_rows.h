/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a ledger, shared by ledger.c (what happened) and ledger_report.c (what is told about it). */
#ifndef PCMIG_CORE_LEDGER_ROWS_H
#define PCMIG_CORE_LEDGER_ROWS_H

#include "core/latency.h"
#include "core/ledger.h"
#include "core/passes.h"

#define PCMIG_LEDGER_PASSES_MAX  256
#define PCMIG_LEDGER_ENTRIES_MAX 256
/* Stays kept before further ones are merged; every phase can always have a row of its own. */
#define PCMIG_LEDGER_STAYS_MAX   64
#define PCMIG_LEDGER_ROWS_MAX    (PCMIG_LEDGER_STAYS_MAX + PCMIG_PHASE_COUNT)

/* Sets of phases. */
#define PCMIG_LEDGER_BIT(phase) (1u << PCMIG_PHASE_##phase)
/* Before the switch; those in which the guest dirties pages at the source; those in which pages flow. */
#define PCMIG_LEDGER_AT_SOURCE  (PCMIG_LEDGER_BIT(SETUP) | PCMIG_LEDGER_BIT(PRECOPY) | PCMIG_LEDGER_BIT(DRAIN))
#define PCMIG_LEDGER_DIRTIES    (PCMIG_LEDGER_BIT(PRECOPY) | PCMIG_LEDGER_BIT(DRAIN))
#define PCMIG_LEDGER_AFTER      (PCMIG_LEDGER_BIT(SWITCHOVER) | PCMIG_LEDGER_BIT(POSTCOPY))
#define PCMIG_LEDGER_PAGES_FLOW (PCMIG_LEDGER_DIRTIES | PCMIG_LEDGER_AFTER)

struct pcmig_ledger_stay {
    struct pcmig_ledger_row row; /* without what ledger_report.c derives */
    int64_t unsampled_us;        /* time spent here since the last sample */
    bool has_remaining;          /* row.remaining_start_bytes is set */
};

struct pcmig_ledger {
    bool started;
    int64_t start_us;
    int64_t now_us;

    struct pcmig_ledger_stay stays[PCMIG_LEDGER_ROWS_MAX];
    size_t stay_count;
    size_t current;
    bool finish_is_weak; /* finished by a sign that need not be the end */
    enum pcmig_phase before_finish;

    struct pcmig_passes passes;
    struct pcmig_ledger_row pass_rows[PCMIG_LEDGER_PASSES_MAX];
    size_t pass_count;
    uint64_t pass_dirtied_before; /* of the passes that were merged into the last row */

    struct pcmig_ledger_entry entries[PCMIG_LEDGER_ENTRIES_MAX];
    size_t entry_count;
    unsigned entries_lost;

    uint64_t seen[PCMIG_QUANTITY_COUNT];    /* highest counter, since it last began anew */
    uint64_t counted[PCMIG_QUANTITY_COUNT]; /* given to phases so far */
    uint64_t last_elapsed_ms;
    bool has_remaining;
    uint64_t remaining_bytes;
    uint64_t guest_pages;
    uint64_t page_size_bytes;
    int64_t requests_since_us; /* the window of the highest request rate */
    uint64_t requests_before;

    struct pcmig_latency latency; /* of page requests */

    bool dst_seen; /* events of the destination reach us */
    int64_t suspended_us;
    int64_t resumed_us;

    bool asked; /* the gate, and there is no answer yet */
    int64_t gate_us;

    bool waits; /* for others of the host, before the migrate call */
    int64_t waited_us;

    bool final;
    struct pcmig_sample final_sample;
    uint64_t last_interval[PCMIG_QUANTITY_COUNT];
    unsigned late_samples;
    unsigned counters_backwards;
};

/* The counter behind QUANTITY. */
uint64_t pcmig_ledger_counter(const struct pcmig_sample *sample, enum pcmig_quantity quantity);

/* The latest stay in one of the phases of MASK (bits 1 << phase), or FALLBACK. */
size_t pcmig_ledger_latest(const struct pcmig_ledger *ledger, unsigned mask, size_t fallback);

/* The row of the running pass, or of the one that the switch cut short; NULL when there is none. */
struct pcmig_ledger_row *pcmig_ledger_running_pass(struct pcmig_ledger *ledger);

/* Gives what is new in SAMPLE to the stays since the last one, and to the running pass. FINAL: these are the final
 * statistics. */
void pcmig_ledger_spread(struct pcmig_ledger *ledger, const struct pcmig_sample *sample, bool final);

/* VALUE * NUMERATOR / DENOMINATOR rounded down, UINT64_MAX where that does not fit, 0 for a DENOMINATOR of 0. Numerator
 * and denominator lose low bits above 2^32. */
uint64_t pcmig_ledger_scale(uint64_t value, uint64_t numerator, uint64_t denominator);

/* Sum, UINT64_MAX where it does not fit. */
uint64_t pcmig_ledger_add(uint64_t a, uint64_t b);

#endif
