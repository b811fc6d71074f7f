/* SPDX-License-Identifier: Apache-2.0 */
/* What may be done to which half: every combination of what the two hosts can say, of what else is known, of side and
 * act. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "core/outcome.h"

#define IN(value, set) (((set)&1u << (value)) != 0)
#define HALF(name)     (1u << PCMIG_HALF_##name)
#define ACT(name)      (1u << PCMIG_ACT_##name)
#define ANY_HALF       ((1u << PCMIG_HALF_COUNT) - 1)

#define RUNS    (ACT(START) | ACT(RESUME) | ACT(REBOOT))
#define REMOVES (ACT(DESTROY) | ACT(UNDEFINE) | ACT(DELETE_FILES))

/* A half that is the guest, or a part of it. */
#define HAS_PAGES (HALF(RUNNING) | HALF(PAUSED) | HALF(POSTCOPY) | HALF(POSTCOPY_FAILED))
/* In such a half, or beside it, a migration is known to be on. */
#define SPEAKS    (HALF(MIGRATING) | HALF(POSTCOPY) | HALF(POSTCOPY_FAILED))

struct question {
    struct pcmig_evidence e;
    enum pcmig_side side;
    enum pcmig_act act;
    bool insist;
};

static enum pcmig_half own(const struct question *q)
{
    return q->side == PCMIG_SIDE_SOURCE ? q->e.source : q->e.destination;
}

static enum pcmig_half other(const struct question *q)
{
    return q->side == PCMIG_SIDE_SOURCE ? q->e.destination : q->e.source;
}

static bool moved(const struct pcmig_evidence *e)
{
    return e->call_succeeded || e->source_handed_off;
}

static struct pcmig_permission ask(const struct question *q)
{
    return pcmig_guard_may(&q->e, q->side, q->act, q->insist);
}

static bool on_record(const struct pcmig_evidence *e)
{
    return e->in_flight || e->job_active || e->crossed || IN(e->source, SPEAKS) || IN(e->destination, SPEAKS);
}

/* A host says that the guest was shut down there, and that is known to be of this migration. */
static bool ended(const struct pcmig_evidence *e)
{
    return pcmig_situation_of(e) == PCMIG_SITUATION_ENDED;
}

/* It goes on at the source after the switch: what is elsewhere is of the past. */
static bool turned(const struct question *q)
{
    return pcmig_situation_of(&q->e) == PCMIG_SITUATION_TURNED_BACK;
}

/* Destroying what is not there is allowed to anybody. */
static bool destroys_nothing(const struct question *q)
{
    return q->act == PCMIG_ACT_DESTROY && own(q) == PCMIG_HALF_ABSENT;
}

static void explain(const struct question *q, const char *rule)
{
    print_message("%s: source %s, destination %s, moved %d, job %d/%d, record %d, shut down %d/%d, copied %d, crossed "
                  "%d, turned back %d: %s at the %s, "
                  "insist %d\n",
                  rule, pcmig_half_name(q->e.source), pcmig_half_name(q->e.destination), moved(&q->e), q->e.job_active,
                  q->e.job_absent, q->e.in_flight, q->e.source_shut_down, q->e.destination_shut_down, q->e.disks_copied,
                  q->e.crossed, q->e.turned_back, pcmig_act_name(q->act), pcmig_side_name(q->side), q->insist);
}

#define REQUIRE(q, rule, condition)                                                                                    \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            explain(q, rule);                                                                                          \
            fail();                                                                                                    \
        }                                                                                                              \
    } while (0)

typedef void (*check_fn)(const struct question *q, const struct pcmig_permission *p);

static unsigned for_all(check_fn check)
{
    unsigned count = 0;

    for (unsigned n = 0; n < PCMIG_HALF_COUNT * PCMIG_HALF_COUNT * 2048; n++) {
        struct question q = {.e = {.source = (enum pcmig_half)(n / 2048 % PCMIG_HALF_COUNT),
                                   .destination = (enum pcmig_half)(n / 2048 / PCMIG_HALF_COUNT),
                                   .call_succeeded = (n & 1) != 0,
                                   .source_handed_off = (n & 2) != 0,
                                   .job_active = (n & 4) != 0,
                                   .job_absent = (n & 8) != 0,
                                   .in_flight = (n & 16) != 0,
                                   .source_shut_down = (n & 64) != 0,
                                   .destination_shut_down = (n & 128) != 0,
                                   .disks_copied = (n & 256) != 0,
                                   .crossed = (n & 512) != 0,
                                   .turned_back = (n & 1024) != 0},
                             .insist = (n & 32) != 0};

        if (q.e.job_active && q.e.job_absent)
            continue;
        /* Only of a guest that is off. */
        if ((q.e.source_shut_down && q.e.source != PCMIG_HALF_ABSENT) ||
            (q.e.destination_shut_down && q.e.destination != PCMIG_HALF_ABSENT))
            continue;
        for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
            for (int act = 0; act < PCMIG_ACT_COUNT; act++) {
                struct pcmig_permission p;

                q.side = (enum pcmig_side)side;
                q.act = (enum pcmig_act)act;
                p = ask(&q);
                check(&q, &p);
                count++;
            }
        }
    }
    return count;
}

/* Nobody can make the guest run twice, owners that insist no more than others. */
static void runs_once(const struct question *q, const struct pcmig_permission *p)
{
    if (!p->allowed || !IN(q->act, RUNS) || turned(q))
        return; /* below */
    REQUIRE(q, "runs once", !IN(other(q), HAS_PAGES | HALF(MIGRATING)));
    /* An old source is not revived, wherever the guest is by now; one that runs again after all is no old one. */
    if (q->side == PCMIG_SIDE_SOURCE && moved(&q->e))
        REQUIRE(q, "stays handed over", q->e.source == PCMIG_HALF_RUNNING);
    /* What stands still at the source is old as soon as the guest may have run at the destination. */
    if (q->side == PCMIG_SIDE_SOURCE && q->e.crossed)
        REQUIRE(q, "stays old", q->e.source == PCMIG_HALF_RUNNING);
    /* Silence is no permission while a migration is on. */
    if (on_record(&q->e) && other(q) == PCMIG_HALF_UNKNOWN)
        REQUIRE(q, "nobody saw the other side", false);
}

/* Nothing is thrown away that may be the only one of its kind. */
static void keeps_memory(const struct question *q, const struct pcmig_permission *p)
{
    enum pcmig_memory where = pcmig_memory_where(&q->e);
    enum pcmig_memory elsewhere = q->side == PCMIG_SIDE_SOURCE ? PCMIG_MEMORY_DESTINATION : PCMIG_MEMORY_SOURCE;

    if (!p->allowed || q->insist || destroys_nothing(q) || turned(q))
        return;
    if (IN(q->act, REMOVES) && on_record(&q->e))
        REQUIRE(q, "keeps the newer memory",
                where == elsewhere || (q->act == PCMIG_ACT_DESTROY && ended(&q->e) && !IN(other(q), HAS_PAGES)));
    /* A reboot and a power-off end a half as well: only where the guest is whole, alone and their owner's. */
    if (IN(q->act, ACT(REBOOT) | ACT(SHUTDOWN)) && on_record(&q->e)) {
        REQUIRE(q, "keeps the partner", IN(other(q), HALF(ABSENT) | HALF(DEAD) | HALF(UNKNOWN)));
        REQUIRE(q, "keeps what is being sent", !IN(own(q), SPEAKS));
    }
}

/* The two ends of a migration each need the guest on the right side, and none of it on the wrong one. */
static void ends_right(const struct question *q, const struct pcmig_permission *p)
{
    if (!p->allowed || turned(q))
        return;
    if (q->act == PCMIG_ACT_ROLLBACK) {
        REQUIRE(q, "rollback", !IN(q->e.destination, HAS_PAGES));
        REQUIRE(q, "rollback",
                q->e.source == PCMIG_HALF_RUNNING || q->e.source == PCMIG_HALF_PAUSED ||
                    (!on_record(&q->e) && q->e.destination != PCMIG_HALF_UNKNOWN));
        REQUIRE(q, "rollback", on_record(&q->e) || q->e.source != PCMIG_HALF_UNKNOWN);
    }
    if (q->act == PCMIG_ACT_POST_MIGRATION) {
        REQUIRE(q, "post-migration", !IN(q->e.source, HAS_PAGES | HALF(MIGRATING)));
        REQUIRE(q, "post-migration",
                q->e.destination == PCMIG_HALF_RUNNING || q->e.destination == PCMIG_HALF_PAUSED || moved(&q->e));
        if (q->e.in_flight)
            REQUIRE(q, "post-migration", q->e.source == PCMIG_HALF_ABSENT);
    }
}

/* Halves of a post-copy: nothing may be done to them but to bring them together. */
static void postcopy_is_left_alone(const struct question *q, const struct pcmig_permission *p)
{
    unsigned postcopy = HALF(POSTCOPY) | HALF(POSTCOPY_FAILED);
    bool both = IN(q->e.source, postcopy | HALF(MIGRATING) | HALF(PAUSED)) &&
                IN(q->e.destination, postcopy | HALF(MIGRATING) | HALF(PAUSED));

    if (p->allowed && q->act == PCMIG_ACT_MIGRATE_RESUME) {
        REQUIRE(q, "resume", both);
        REQUIRE(q, "resume",
                q->e.source == PCMIG_HALF_POSTCOPY_FAILED || q->e.destination == PCMIG_HALF_POSTCOPY_FAILED);
    }
    if (IN(q->e.source, postcopy) || IN(q->e.destination, postcopy))
        REQUIRE(q, "left alone",
                !p->allowed || q->insist || destroys_nothing(q) || q->act == PCMIG_ACT_MIGRATE_RESUME || ended(&q->e) ||
                    q->act == PCMIG_ACT_TURN_BACK || turned(q));
}

/* Where the evidence is thin or contradicts itself, nothing follows from it. */
static void no_conclusions(const struct question *q, const struct pcmig_permission *p)
{
    const struct pcmig_evidence *e = &q->e;
    bool at_destination = e->destination == PCMIG_HALF_RUNNING || e->destination == PCMIG_HALF_PAUSED;

    if (!p->allowed || q->insist || destroys_nothing(q) || q->act == PCMIG_ACT_FORGET || turned(q))
        return;
    if (e->job_active)
        REQUIRE(q, "a job is at work", IN(q->act, ACT(MIGRATE_RESUME) | ACT(TURN_BACK)));
    if (moved(e) && !at_destination)
        REQUIRE(q, "handed over, and yet there",
                IN(e->source, HALF(ABSENT) | HALF(RUNNING) | HALF(MIGRATING)) || q->act == PCMIG_ACT_MIGRATE_RESUME ||
                    ended(e));
    if (on_record(e) && q->act != PCMIG_ACT_MIGRATE_RESUME) {
        REQUIRE(q, "the source's half is ending", e->source != PCMIG_HALF_DEAD);
        if (e->source == PCMIG_HALF_ABSENT && e->destination == PCMIG_HALF_PAUSED && !moved(e))
            REQUIRE(q, "unconfirmed", q->act == PCMIG_ACT_RESUME && q->side == PCMIG_SIDE_DESTINATION);
    }
    /* A rest at the destination is one only when the source says that it sends nothing. */
    if (q->act == PCMIG_ACT_ROLLBACK ||
        (IN(q->act, REMOVES) && q->side == PCMIG_SIDE_DESTINATION && !at_destination && on_record(e) && !ended(e))) {
        if (on_record(e))
            REQUIRE(q, "a rest", e->job_absent && (e->source == PCMIG_HALF_RUNNING || e->source == PCMIG_HALF_PAUSED));
        if (e->source == PCMIG_HALF_PAUSED && on_record(e))
            REQUIRE(q, "a rest", e->destination == PCMIG_HALF_ABSENT && !moved(e));
        if (e->source == PCMIG_HALF_RUNNING && on_record(e))
            REQUIRE(q, "a rest", IN(e->destination, HALF(ABSENT) | HALF(DEAD) | HALF(MIGRATING)));
    }
    if (q->act == PCMIG_ACT_RESUME && on_record(e))
        REQUIRE(q, "nothing to resume",
                IN(own(q), HALF(RUNNING) | HALF(PAUSED)) ||
                    (moved(e) && IN(own(q), HALF(ABSENT) | HALF(DEAD) | HALF(UNKNOWN))));
    /* Without a record, what a host silent or empty leaves open is its owner's. */
    if (moved(e) && e->source == PCMIG_HALF_ABSENT && !at_destination && IN(q->act, REMOVES))
        REQUIRE(q, "handed over", q->side == PCMIG_SIDE_SOURCE);
}

/* What insisting does: it lets the owner remove, and nothing else. */
static void insisting(const struct question *q, const struct pcmig_permission *p)
{
    struct question calm = *q;
    struct pcmig_permission without;

    calm.insist = false;
    without = ask(&calm);
    if (!q->insist)
        return;
    if (IN(q->act, REMOVES))
        REQUIRE(q, "the owner may", p->allowed);
    else if (!IN(q->act, ACT(FORGET) | ACT(TURN_BACK)))
        REQUIRE(q, "insisting changes no other act", p->allowed == without.allowed);
    /* Whoever removes one half is told of the other. */
    if (IN(q->act, REMOVES) && p->allowed && !without.allowed && other(q) != PCMIG_HALF_ABSENT) {
        REQUIRE(q, "the other half", p->advice != NULL && strstr(p->advice, "destroy '%g'") != NULL);
        REQUIRE(q, "the other half", strstr(p->advice, q->side == PCMIG_SIDE_SOURCE ? "%d" : "%s") != NULL);
    }
}

/* Without a sign of a migration, and with the other side empty or silent, a host is as it would be without us. */
static void stock(const struct question *q, const struct pcmig_permission *p)
{
    if (on_record(&q->e) || moved(&q->e) || turned(q) ||
        IN(q->act, ACT(ROLLBACK) | ACT(POST_MIGRATION) | ACT(MIGRATE_RESUME) | ACT(TURN_BACK)))
        return;
    if (!IN(other(q), HAS_PAGES))
        REQUIRE(q, "stock", p->allowed);
    if (q->act == PCMIG_ACT_SHUTDOWN && own(q) == PCMIG_HALF_RUNNING && other(q) != PCMIG_HALF_RUNNING &&
        other(q) != PCMIG_HALF_PAUSED)
        REQUIRE(q, "stock", p->allowed);
}

/* Whoever cannot ask a host is allowed nothing that any answer of it would forbid. Once the source has handed over, the
 * destination has had all of the guest: what it then cannot be is left out. */
static void silence_allows_no_more(const struct question *q, const struct pcmig_permission *p)
{
    unsigned possible = moved(&q->e) && q->e.source == PCMIG_HALF_ABSENT
                            ? HALF(ABSENT) | HALF(RUNNING) | HALF(PAUSED) | HALF(DEAD)
                            : ANY_HALF;

    if (!q->e.in_flight || !p->allowed || (IN(q->act, ACT(FORGET) | ACT(TURN_BACK)) && q->insist) || turned(q))
        return;
    for (int half = 0; half < PCMIG_HALF_COUNT; half++) {
        struct question answered = *q;

        if (q->e.source == PCMIG_HALF_UNKNOWN) {
            answered.e.source = (enum pcmig_half)half;
            REQUIRE(&answered, "source known", ask(&answered).allowed);
        }
        answered = *q;
        if (q->e.destination == PCMIG_HALF_UNKNOWN && IN(half, possible)) {
            answered.e.destination = (enum pcmig_half)half;
            REQUIRE(&answered, "destination known", ask(&answered).allowed);
        }
    }
}

/* A record, and a job that may be running, only take away; but for a rollback of what only a record explains. */
static void a_record_allows_no_more(const struct question *q, const struct pcmig_permission *p)
{
    struct question without = *q;

    if (!q->e.in_flight || !p->allowed || q->act == PCMIG_ACT_MIGRATE_RESUME || q->act == PCMIG_ACT_FORGET)
        return;
    without.e.in_flight = false;
    REQUIRE(q, "without a record", ask(&without).allowed);
    without = *q;
    if (q->e.job_active) {
        without.e.job_active = false;
        without.e.job_absent = true;
        REQUIRE(q, "without a job", ask(&without).allowed);
    }
}

/* A guest goes on at the source from the moment of the switch only where its half is there and nothing else of it can
 * run, as the destination's host says, or somebody in its place. */
static void turning_back(const struct question *q, const struct pcmig_permission *p)
{
    const struct pcmig_evidence *e = &q->e;

    if (q->act != PCMIG_ACT_TURN_BACK || !p->allowed)
        return;
    REQUIRE(q, "at the source", q->side == PCMIG_SIDE_SOURCE);
    if (turned(q))
        return;
    REQUIRE(q, "on record", on_record(e) && !moved(e) && !ended(e));
    REQUIRE(q, "a half", IN(e->source, HALF(POSTCOPY) | HALF(POSTCOPY_FAILED) | HALF(PAUSED) | HALF(MIGRATING)));
    if (IN(e->source, HALF(PAUSED) | HALF(MIGRATING)))
        REQUIRE(q, "a half", e->crossed);
    REQUIRE(q, "nothing else can run",
            e->destination == PCMIG_HALF_ABSENT || (q->insist && e->destination == PCMIG_HALF_UNKNOWN));
}

/* Then it is the source's, and what the destination has of it is of the past; but never a guest that is whole there. */
static void turned_back(const struct question *q, const struct pcmig_permission *p)
{
    const struct pcmig_evidence *e = &q->e;
    const unsigned acts = q->side == PCMIG_SIDE_SOURCE ? ACT(REBOOT) | ACT(SHUTDOWN) | ACT(TURN_BACK) | ACT(ROLLBACK)
                                                       : REMOVES | ACT(FORGET) | ACT(ROLLBACK);

    if (!e->turned_back)
        return;
    if (IN(e->source, HAS_PAGES | HALF(MIGRATING)))
        REQUIRE(q, "it did", turned(q) != IN(e->destination, HALF(RUNNING) | HALF(PAUSED)));
    else
        REQUIRE(q, "it is gone", !turned(q));
    if (turned(q) && !q->insist && !destroys_nothing(q))
        REQUIRE(q, "the source's", p->allowed == IN(q->act, acts));
    if (IN(e->source, HAS_PAGES) && IN(e->destination, HALF(RUNNING) | HALF(PAUSED)) && !q->insist)
        REQUIRE(q, "two copies", !p->allowed);
}

/* A record is thrown away without a word only where it protects nothing any more, and never while the migration moves.
 */
static void forgetting(const struct question *q, const struct pcmig_permission *p)
{
    const struct pcmig_evidence *e = &q->e;

    if (q->act != PCMIG_ACT_FORGET || turned(q))
        return;
    if (e->job_active)
        REQUIRE(q, "a job is at work",
                !p->allowed || q->insist); /* which contradicts the halves, where an operator may say so */
    if (IN(e->source, HALF(RUNNING) | HALF(PAUSED)) && e->job_active && !IN(e->destination, HAS_PAGES))
        REQUIRE(q, "it moves", !p->allowed);
    if (IN(e->source, HALF(POSTCOPY)) && IN(e->destination, HALF(POSTCOPY)))
        REQUIRE(q, "it moves", !p->allowed);
    if (q->insist && !p->allowed)
        REQUIRE(q, "the operator may, but where it moves", IN(e->source, HAS_PAGES | SPEAKS));
    if (!p->allowed || q->insist || !on_record(e))
        return;
    REQUIRE(q, "nobody saw the other side", e->source != PCMIG_HALF_UNKNOWN && e->destination != PCMIG_HALF_UNKNOWN);
    if (!ended(e)) {
        REQUIRE(q, "parts of a guest", !IN(e->source, HALF(POSTCOPY) | HALF(POSTCOPY_FAILED)));
        REQUIRE(q, "parts of a guest", !IN(e->destination, HALF(POSTCOPY) | HALF(POSTCOPY_FAILED)));
    }
    REQUIRE(q, "one copy at the most", !IN(e->source, HAS_PAGES) || !IN(e->destination, HAS_PAGES));
    if (q->side == PCMIG_SIDE_SOURCE)
        REQUIRE(q, "what keeps the source from a second copy", !IN(e->destination, HAS_PAGES));
    if (e->disks_copied && !IN(e->source, HALF(RUNNING) | HALF(PAUSED)))
        REQUIRE(q, "newer disks", q->side == PCMIG_SIDE_DESTINATION && IN(e->destination, HAS_PAGES));
}

/* The outcome and the guard see the guest on the same side; where nobody knows, neither says that it is over. */
static void agrees_with_the_outcome(const struct question *q, const struct pcmig_permission *p)
{
    (void)p;
    for (int patience_over = 0; patience_over < 2; patience_over++) {
        struct pcmig_verdict verdict = pcmig_outcome_judge(&q->e, patience_over != 0);
        struct question on_record = *q;
        enum pcmig_memory where;

        on_record.e.in_flight = true;
        where = pcmig_memory_where(&on_record.e);
        REQUIRE(q, "situation", verdict.situation == pcmig_situation_of(&on_record.e));
        /* Off for good: no memory is needed, and what counts is where it was last. */
        if (ended(&on_record.e)) {
            if (verdict.outcome == PCMIG_OUTCOME_COMPLETED)
                REQUIRE(q, "completed", q->e.destination_shut_down && q->e.source == PCMIG_HALF_ABSENT);
            if (verdict.outcome == PCMIG_OUTCOME_FAILED)
                REQUIRE(q, "failed", q->e.source_shut_down && !q->e.destination_shut_down && !q->e.crossed);
            continue;
        }
        if (verdict.outcome == PCMIG_OUTCOME_COMPLETED)
            REQUIRE(q, "completed", where == PCMIG_MEMORY_DESTINATION);
        if (verdict.outcome == PCMIG_OUTCOME_FAILED)
            REQUIRE(q, "failed",
                    where == PCMIG_MEMORY_SOURCE &&
                        (!q->e.crossed || q->e.source == PCMIG_HALF_RUNNING || turned(&on_record)));
    }
}

/* An answer names what stands in the way and what it would do; a refusal comes with a command. */
static void texts(const struct question *q, const struct pcmig_permission *p)
{
    static const struct pcmig_guard_names names = {"g1", "qemu+tcp://a/system", "qemu+tcp://b/system"};
    const char *text = pcmig_situation_text(p->situation);
    char advice[256];

    REQUIRE(q, "situation", p->situation == pcmig_situation_of(&q->e));
    REQUIRE(q, "reason", strncmp(p->reason, text, strlen(text)) == 0 && strstr(p->reason, "guest") != NULL);
    REQUIRE(q, "reason", strlen(p->reason) > strlen(text) + 10 && strlen(p->reason) < sizeof(p->reason) - 1);
    REQUIRE(q, "reason", strchr(p->reason, '%') == NULL);
    if (!p->allowed)
        REQUIRE(q, "advice", p->advice != NULL);
    if (!p->allowed && q->act < PCMIG_ACT_ROLLBACK)
        REQUIRE(q, "side", strstr(p->reason, pcmig_side_name(q->side)) != NULL);
    if (p->advice == NULL)
        return;
    REQUIRE(q, "advice", pcmig_guard_advice(p->advice, &names, advice, sizeof(advice)));
    REQUIRE(q, "command", strncmp(advice, "pcmig ", 6) == 0 || strncmp(advice, "virsh ", 6) == 0);
    /* Where nobody has seen the guest, the hosts are what to look at. */
    REQUIRE(q, "guest", strstr(advice, "'g1'") != NULL || p->situation == PCMIG_SITUATION_UNSEEN);
    REQUIRE(q, "host", strstr(advice, "'qemu+tcp://") != NULL);
    REQUIRE(q, "advice", strchr(advice, '%') == NULL);
}

static void all_combinations(void **state)
{
    static const check_fn checks[] = {
        runs_once,
        keeps_memory,
        ends_right,
        postcopy_is_left_alone,
        insisting,
        forgetting,
        turning_back,
        turned_back,
        stock,
        texts,
        silence_allows_no_more,
        a_record_allows_no_more,
        agrees_with_the_outcome,
        no_conclusions,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        assert_int_equal(for_all(checks[i]), 9 * 9 * 96 * 2 * 2 * 2 * 12); /* each half, and one that was shut down */
}

/* What was seen to go wrong in clouds, and what must go on working. */
static void seen_in_practice(void **state)
{
    static const struct {
        struct pcmig_evidence e;
        enum pcmig_side side;
        enum pcmig_act act;
        bool insist;
        bool allowed;
        const char *says; /* in reason or advice */
    } rows[] = {
#define BOTH(s, d) .source = PCMIG_HALF_##s, .destination = PCMIG_HALF_##d
        /* Hard reboot on the source after a migration that nobody recorded; also without any record. */
        {{BOTH(ABSENT, RUNNING), .in_flight = true}, PCMIG_SIDE_SOURCE, PCMIG_ACT_REBOOT, false, false, "second copy"},
        {{BOTH(ABSENT, RUNNING)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_START, false, false, "the destination has it"},
        {{BOTH(ABSENT, UNKNOWN), .in_flight = true}, PCMIG_SIDE_SOURCE, PCMIG_ACT_START, false, false, "not answer"},
        {{BOTH(ABSENT, UNKNOWN), .source_handed_off = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_START,
         false,
         false,
         "handed the guest over"},
        /* The source's paused half after the switch, also when its daemon has forgotten why it is paused. */
        {{BOTH(POSTCOPY, RUNNING)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_RESUME, false, false, "old memory"},
        {{BOTH(PAUSED, RUNNING)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_RESUME, false, false, "runs at the destination"},
        {{BOTH(PAUSED, POSTCOPY)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_RESUME, false, false, "in post-copy"},
        /* A rollback that asks the destination to destroy what runs there. */
        {{BOTH(POSTCOPY_FAILED, POSTCOPY), .in_flight = true},
         PCMIG_SIDE_DESTINATION,
         PCMIG_ACT_ROLLBACK,
         false,
         false,
         "pcmig resume"},
        {{BOTH(PAUSED, RUNNING), .in_flight = true}, PCMIG_SIDE_DESTINATION, PCMIG_ACT_ROLLBACK, false, false, "runs"},
        {{BOTH(RUNNING, MIGRATING), .in_flight = true, .job_absent = true},
         PCMIG_SIDE_DESTINATION,
         PCMIG_ACT_ROLLBACK,
         false,
         true,
         "holds nothing"},
        /* A source half that vanished is no success. */
        {{BOTH(ABSENT, POSTCOPY_FAILED), .in_flight = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_POST_MIGRATION,
         false,
         false,
         "one half of it is gone"},
        {{BOTH(ABSENT, POSTCOPY), .in_flight = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_DELETE_FILES,
         false,
         false,
         "only good ones"},
        {{BOTH(POSTCOPY_FAILED, ABSENT), .in_flight = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_RESUME,
         false,
         false,
         "one half of it is gone"},
        /* Source's daemon restarted, destination's host lost power: what stands still is the past. */
        {{BOTH(PAUSED, ABSENT), .in_flight = true, .job_absent = true, .crossed = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_RESUME,
         false,
         false,
         "one half of it is gone"},
        {{BOTH(PAUSED, PAUSED), .in_flight = true, .job_absent = true, .crossed = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_DESTROY,
         false,
         false,
         "in post-copy"},
        /* The usual ends. */
        {{BOTH(ABSENT, RUNNING), .in_flight = true}, PCMIG_SIDE_SOURCE, PCMIG_ACT_POST_MIGRATION, false, true, "whole"},
        {{BOTH(ABSENT, UNKNOWN), .in_flight = true, .source_handed_off = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_POST_MIGRATION,
         false,
         true,
         "handed"},
        {{BOTH(RUNNING, ABSENT), .in_flight = true, .job_absent = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_ROLLBACK,
         false,
         true,
         "alone"},
        {{BOTH(POSTCOPY_FAILED, POSTCOPY_FAILED), .in_flight = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_MIGRATE_RESUME,
         false,
         true,
         "both halves wait"},
        {{BOTH(POSTCOPY_FAILED, UNKNOWN), .in_flight = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_MIGRATE_RESUME,
         false,
         false,
         "does not answer"},
        /* A guest in post-copy is not powered off half; its owner can wait, or insist on deleting it. */
        {{BOTH(POSTCOPY, POSTCOPY)}, PCMIG_SIDE_DESTINATION, PCMIG_ACT_REBOOT, false, false, "pcmig watch"},
        {{BOTH(POSTCOPY, POSTCOPY)}, PCMIG_SIDE_DESTINATION, PCMIG_ACT_SHUTDOWN, false, false, "still needed"},
        {{BOTH(POSTCOPY, POSTCOPY)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_DESTROY, false, false, "memory that nobody else has"},
        {{BOTH(POSTCOPY, POSTCOPY)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_DESTROY, true, true, "owner insists"},
        {{BOTH(RUNNING, MIGRATING), .job_active = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_REBOOT,
         false,
         false,
         "pcmig abort"},
        /* No migration: nobody notices that there is a guard. */
        {{BOTH(RUNNING, UNKNOWN)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_REBOOT, false, true, "no migration"},
        {{BOTH(UNKNOWN, ABSENT)}, PCMIG_SIDE_DESTINATION, PCMIG_ACT_START, false, true, "no migration"},
        {{BOTH(RUNNING, UNKNOWN)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_DELETE_FILES, false, true, "no migration"},
        /* What only people can decide, and what nobody needs to be asked for. */
        {{BOTH(ABSENT, POSTCOPY_FAILED), .in_flight = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_FORGET,
         false,
         false,
         "forget"},
        {{BOTH(ABSENT, POSTCOPY_FAILED), .in_flight = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_FORGET,
         true,
         true,
         "the loss"},
        {{BOTH(POSTCOPY, POSTCOPY), .in_flight = true}, PCMIG_SIDE_SOURCE, PCMIG_ACT_FORGET, true, false, "watch"},
        {{BOTH(RUNNING, MIGRATING), .in_flight = true, .job_active = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_FORGET,
         true,
         false,
         "abort"},
        {{BOTH(ABSENT, ABSENT), .in_flight = true}, PCMIG_SIDE_SOURCE, PCMIG_ACT_FORGET, false, true, "nothing of it"},
        /* A guest that powered itself off in post-copy, and one whose definition there says so of years ago. */
        {{BOTH(POSTCOPY_FAILED, ABSENT), .in_flight = true, .destination_shut_down = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_DESTROY,
         false,
         true,
         "shut down"},
        {{BOTH(MIGRATING, ABSENT), .in_flight = true, .destination_shut_down = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_DESTROY,
         false,
         false,
         "agree"},
        {{BOTH(PAUSED, ABSENT), .in_flight = true, .destination_shut_down = true},
         PCMIG_SIDE_SOURCE,
         PCMIG_ACT_DESTROY,
         false,
         false,
         "running"},
        /* Two copies: a person chooses. */
        {{BOTH(RUNNING, RUNNING)}, PCMIG_SIDE_SOURCE, PCMIG_ACT_DESTROY, false, false, "the copy that is not wanted"},
#undef BOTH
    };
    static const struct pcmig_guard_names names = {NULL, NULL, NULL};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct question q = {rows[i].e, rows[i].side, rows[i].act, rows[i].insist};
        struct pcmig_permission p = ask(&q);
        char advice[256] = "";

        if (p.advice != NULL)
            assert_true(pcmig_guard_advice(p.advice, &names, advice, sizeof(advice)));
        REQUIRE(&q, p.reason, p.allowed == rows[i].allowed);
        REQUIRE(&q, p.reason, strstr(p.reason, rows[i].says) != NULL || strstr(advice, rows[i].says) != NULL);
    }
}

/* Each situation is some evidence's. */
static void every_situation_happens(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (unsigned n = 0; n < 128 * 32 * 2; n++) {
        struct pcmig_evidence e = {.source = (enum pcmig_half)(n / 128 % 8),
                                   .destination = (enum pcmig_half)(n / 128 / 8),
                                   .call_succeeded = (n & 1) != 0,
                                   .source_handed_off = (n & 2) != 0,
                                   .job_active = (n & 4) != 0,
                                   .job_absent = (n & 8) != 0,
                                   .in_flight = (n & 16) != 0,
                                   .destination_shut_down = (n & 32) != 0,
                                   .turned_back = (n & 64) != 0};

        seen |= 1u << pcmig_situation_of(&e);
    }
    for (int i = 0; i < PCMIG_SITUATION_COUNT; i++) {
        if (!IN(i, seen))
            print_message("nothing leads to %s\n", pcmig_situation_name((enum pcmig_situation)i));
        assert_true(IN(i, seen));
    }
}

#define DIFFERENT(count, name)                                                                                         \
    do {                                                                                                               \
        for (int i = 0; i < (count); i++) {                                                                            \
            for (int k = 0; k < i; k++)                                                                                \
                assert_string_not_equal(name(i), name(k));                                                             \
            assert_string_not_equal(name(i), "");                                                                      \
        }                                                                                                              \
        assert_string_equal(name(count), "unknown");                                                                   \
    } while (0)

static void names(void **state)
{
    (void)state;
    DIFFERENT(PCMIG_SITUATION_COUNT, pcmig_situation_name);
    DIFFERENT(PCMIG_SITUATION_COUNT, pcmig_situation_text);
    DIFFERENT(PCMIG_MEMORY_COUNT, pcmig_memory_name);
    DIFFERENT(PCMIG_SIDE_COUNT, pcmig_side_name);
    DIFFERENT(PCMIG_ACT_COUNT, pcmig_act_name);
    DIFFERENT(PCMIG_HALF_COUNT, pcmig_half_name);
    for (int i = 0; i < PCMIG_HALF_COUNT; i++)
        assert_int_equal(pcmig_half_find(pcmig_half_name(i), strlen(pcmig_half_name(i))), i);
    assert_int_equal(pcmig_half_find("postcopy-failed", 8), PCMIG_HALF_POSTCOPY);
    assert_int_equal(pcmig_half_find("", 0), -1);
}

/* Values that no caller should have are in doubt, and nothing follows from them. */
static void nonsense(void **state)
{
    struct pcmig_evidence e = {.source = (enum pcmig_half)99, .destination = PCMIG_HALF_RUNNING};

    (void)state;
    assert_int_equal(pcmig_situation_of(&e), PCMIG_SITUATION_IN_DOUBT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_combinations),
        cmocka_unit_test(seen_in_practice),
        cmocka_unit_test(every_situation_happens),
        cmocka_unit_test(names),
        cmocka_unit_test(nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
