/* SPDX-License-Identifier: Apache-2.0 */
/* One migration of a run: a QEMU, and who steers it. */
#ifndef TESTS_SIM_MIGRATION_H
#define TESTS_SIM_MIGRATION_H

#include "qemu.h"

#include "core/ledger.h"
#include "core/policy.h"
#include "core/turns_meter.h"

#include <stdio.h>

#define NEVER_US INT64_MAX

/* What KubeVirt's detector remembers: see rivals.c. */
struct stall {
    double recent[60]; /* least remainder of each of the last 60 seconds; 0 = none */
    int64_t second;    /* of the latest */
    double old;        /* least remainder before those; 0 = none */
    double best;       /* to switch at; 0 = not stalled */
    double since;      /* least since the patience began */
    int64_t patience_us, patient_until_us;
};

struct migration {
    const struct scenario *scenario;
    struct qemu qemu;
    unsigned number;      /* from 1 */
    int64_t start_us;     /* when it began; NEVER_US = it waits for its turn */
    enum qemu_state seen; /* by whom steers it */
    int64_t due_us;       /* when he wants to look next, since the start of the run */
    int64_t issue_us;     /* start-postcopy has been called and takes effect then; NEVER_US = it was not */
    double switched_limit_ms;

    /* pcmig: steer.c. */
    struct pcmig_policy *policy;
    struct pcmig_ledger *ledger;
    FILE *trace;
    bool draining;
    int64_t downtime_set_ms; /* the limit that pcmig gave to QEMU; 0 = none yet */
    enum pcmig_reason why;   /* of the drain that led to the switch */
    unsigned decisions, samples;
    bool rate_told, trip_told;
    int64_t drain_us;
    double precopy_bps, postcopy_bps; /* as pcmig wants them, without the bound for the sake of others */

    /* pcmig beside others of its own: turns.c. */
    bool waits;      /* its migrate call was not made yet */
    int64_t look_us; /* when it looks at the others next; NEVER_US = it has none */
    struct pcmig_turns_meter meter;
    enum pcmig_turn turn;
    unsigned behind;
    int64_t bound_mib;

    /* Rivals: rivals.c. */
    struct stall stall;
    int64_t raise_us;     /* KubeVirt's ramp */
    unsigned steps_taken; /* of a script */
};

/* Calls start-postcopy now; it takes effect in a moment. */
void migration_switch(struct migration *m, int64_t now_us);

/* steer.c. Each returns 0, or -1 when memory is short. */
int steer_begin(struct migration *m, const char *trace_path);
void steer_end(struct migration *m);
void steer_event(struct migration *m, int64_t now_us, enum pcmig_event event);
void steer_iteration(struct migration *m, int64_t now_us);
void steer_look(struct migration *m, int64_t now_us);
void steer_limit(struct migration *m, int64_t now_us, double limit_ms);
void steer_final(struct migration *m, int64_t now_us);
void steer_tell(struct migration *m, int64_t now_us, enum pcmig_input_kind kind, int64_t figure);
void steer_turn(struct migration *m, int64_t now_us, enum pcmig_turn turn);
/* Gives QEMU the bandwidths that are wanted, within the bound. */
void steer_bandwidth(struct migration *m);

/* turns.c. Several of pcmig's leave the host: each keeps a row, and heeds those of ALL. */
void turns_begin(struct migration *m, int64_t now_us);
void turns_sample(struct migration *m, int64_t now_us, const struct pcmig_sample *sample);
/* Returns whether the migrate call is to be made now. */
bool turns_look(struct migration *m, const struct migration *all, unsigned count, int64_t now_us);

/* rivals.c. */
void rival_begin(struct migration *m);
void rival_iteration(struct migration *m, int64_t now_us);
void rival_look(struct migration *m, int64_t now_us);
/* When the rules of the way do something next, be it that nothing changes before. */
int64_t rival_next_us(const struct migration *m);
/* Nova's downtime limit so long after the start. */
double nova_limit_ms(const struct scenario *s, int64_t elapsed_us);

extern bool sim_verbose;

#endif
