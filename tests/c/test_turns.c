/* SPDX-License-Identifier: Apache-2.0 */
/* Who goes first, of the migrations that leave one host: each rule, the row in the file, and many migrations on one
 * link. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/turns.h"
#include "core/turns_meter.h"

#define SECOND INT64_C(1000000)
#define NOW    (1000 * SECOND)
#define MIB    UINT64_C(1048576)
#define LINK   UINT64_C(12500000) /* 100 Mb/s */

/* --- the rules ---------------------------------------------------------------------------------------------------- */

/* A row with what the rules look at; AGE_S: of its phase, and of its turn unless it has none. */
#define ROW(phase_, turn_, age_s_, left_mib)                                                                           \
    {                                                                                                                  \
        .link = 2, .phase = (phase_), .fill = PCMIG_TURNS_FILLS, .since_us = NOW - 500 * SECOND,                       \
        .phase_us = NOW - (age_s_)*SECOND, .turn_us = (turn_) ? NOW - (age_s_)*SECOND : 0, .stamp_us = NOW,            \
        .setup_us = SECOND, .moved_us = NOW, .total_bytes = 1024 * MIB, .remaining_bytes = (left_mib)*MIB,             \
        .send_bps = LINK, .link_bps = LINK, .queue_bytes = 0, .pace_mib = -1                                           \
    }

#define WAITING(left)  ROW(PCMIG_TURNS_WAITING, false, 5, left)
#define PRECOPY(left)  ROW(PCMIG_TURNS_PRECOPY, true, 5, left)
#define FOLLOWER(left) ROW(PCMIG_TURNS_PRECOPY, false, 5, left)
#define DRAIN(age)     ROW(PCMIG_TURNS_DRAIN, true, age, 500)
#define RUSH(age)      ROW(PCMIG_TURNS_RUSH, true, age, 500)
#define POSTCOPY(left) ROW(PCMIG_TURNS_POSTCOPY, true, 5, left)
#define PAUSED         ROW(PCMIG_TURNS_PAUSED, true, 5, 500)
#define NOBODY         ROW(PCMIG_TURNS_NONE, false, 0, 0)

enum change {
    AS_IT_IS,
    STALE,      /* its process is stopped */
    STILL,      /* it moves nothing */
    ELSEWHERE,  /* it leaves over another link */
    OTHER_HOST, /* from another host: this process steers both */
    ANYWHERE,   /* over which is not known */
    SLACK,      /* it leaves room on the link */
    NEW_TURN,   /* it took its turn this moment */
    OLD_TURN,   /* it has had its turn for long */
    BOUND,      /* it has made room */
    BOUND_FULL, /* likewise, and its queue is not empty yet */
    PACED,      /* it takes four fifths of the link */
    SLOW,       /* it takes half of the link */
    SLOWED,     /* it takes half of the link, and would take nine tenths of it */
    UNPACED,    /* it takes half of the link, and would take all of it */
    SET_UP,     /* its set-up is under way, longer than anything else may stand still */
    SET_UP_LONG,
    SLOWLY_SET_UP, /* its set-up took long */
};

static const struct rule {
    const char *name;
    struct pcmig_turns_row mine, other;
    enum change change; /* of the other */
    enum pcmig_turn turn;
    int64_t bound_mib;
    bool waits;
} rules[] = {
    {"alone", WAITING(500), NOBODY, AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"alone in pre-copy", PRECOPY(500), NOBODY, AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"alone in a drain", DRAIN(0), NOBODY, AS_IT_IS, PCMIG_TURN_FREE, 0, false},

    {"pre-copy has its turn", WAITING(500), PRECOPY(500), AS_IT_IS, PCMIG_TURN_WAITING, 0, true},
    {"its turn ends: the next one is set up", WAITING(500), PRECOPY(40), AS_IT_IS, PCMIG_TURN_BOUNDED, 1, true},
    {"who has the turn goes on", PRECOPY(500), WAITING(1), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"a small one may go beside", WAITING(50), PRECOPY(500), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"the shorter one first", WAITING(500), WAITING(400), AS_IT_IS, PCMIG_TURN_WAITING, 0, true},
    {"the longer one later", WAITING(400), WAITING(500), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"set up already goes before waiting", WAITING(100), FOLLOWER(900), AS_IT_IS, PCMIG_TURN_WAITING, 0, true},
    {"set up, and now it is its turn", FOLLOWER(900), WAITING(100), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"another link", WAITING(500), PRECOPY(500), ELSEWHERE, PCMIG_TURN_FREE, 0, false},
    {"another host", WAITING(500), PRECOPY(500), OTHER_HOST, PCMIG_TURN_FREE, 0, false},
    {"a link that is not known may be this one", WAITING(500), PRECOPY(500), ANYWHERE, PCMIG_TURN_WAITING, 0, true},
    {"it leaves room", WAITING(500), PRECOPY(500), SLACK, PCMIG_TURN_FREE, 0, false},
    {"whether it leaves room is not known yet", WAITING(500), PRECOPY(500), NEW_TURN, PCMIG_TURN_WAITING, 0, true},
    {"it has had its turn", WAITING(500), PRECOPY(500), OLD_TURN, PCMIG_TURN_FREE, 0, false},
    {"it stands still", WAITING(500), PRECOPY(500), STILL, PCMIG_TURN_FREE, 0, false},
    {"its process is stopped", WAITING(500), PRECOPY(500), STALE, PCMIG_TURN_FREE, 0, false},
    {"it is being set up, and keeps its turn", WAITING(500), PRECOPY(1024), SET_UP, PCMIG_TURN_WAITING, 0, true},
    {"its set-up hangs", WAITING(500), PRECOPY(1024), SET_UP_LONG, PCMIG_TURN_FREE, 0, false},
    {"the set-up of the next one will take as long", WAITING(500), PRECOPY(80), SLOWLY_SET_UP, PCMIG_TURN_BOUNDED, 1,
     true},
    {"both have their turn: neither gives it up", PRECOPY(500), PRECOPY(900), AS_IT_IS, PCMIG_TURN_FREE, 0, false},

    {"one drains: waiting waits", WAITING(500), DRAIN(0), AS_IT_IS, PCMIG_TURN_WAITING, 0, true},
    {"one drains: pre-copy makes room", PRECOPY(500), DRAIN(0), AS_IT_IS, PCMIG_TURN_BOUNDED, 1, true},
    {"one has been switched", PRECOPY(500), RUSH(1), AS_IT_IS, PCMIG_TURN_BOUNDED, 1, true},
    {"one drains: post-copy makes room", POSTCOPY(500), DRAIN(0), AS_IT_IS, PCMIG_TURN_BOUNDED, 1, true},
    {"one drains elsewhere", PRECOPY(500), DRAIN(0), ELSEWHERE, PCMIG_TURN_FREE, 0, false},
    {"one drains for ever", PRECOPY(500), DRAIN(11), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"one drained, and its process is stopped", PRECOPY(500), DRAIN(0), STALE, PCMIG_TURN_FREE, 0, false},
    {"one was switched, and stands still", PRECOPY(500), RUSH(6), STILL, PCMIG_TURN_FREE, 0, false},
    {"two drain: the first", DRAIN(2), DRAIN(1), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"two drain: the second", DRAIN(1), DRAIN(2), AS_IT_IS, PCMIG_TURN_HELD, 0, true},
    {"a guest that has moved goes first", DRAIN(2), RUSH(1), AS_IT_IS, PCMIG_TURN_HELD, 0, true},
    {"the rush is left alone", RUSH(1), DRAIN(2), AS_IT_IS, PCMIG_TURN_FREE, 0, false},

    {"the other has not made room yet", DRAIN(0), PRECOPY(500), AS_IT_IS, PCMIG_TURN_CROWDED, 0, true},
    {"it never does", DRAIN(1), PRECOPY(500), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"it has", DRAIN(0), PRECOPY(500), BOUND, PCMIG_TURN_FREE, 0, false},
    {"it has, and its queue is full", DRAIN(0), PRECOPY(500), BOUND_FULL, PCMIG_TURN_CROWDED, 0, true},
    {"post-copy makes room as well", DRAIN(0), POSTCOPY(500), AS_IT_IS, PCMIG_TURN_CROWDED, 0, true},
    {"who waits is not in the way", DRAIN(0), WAITING(500), AS_IT_IS, PCMIG_TURN_FREE, 0, false},

    {"post-copy before pre-copy", PRECOPY(500), POSTCOPY(500), AS_IT_IS, PCMIG_TURN_BOUNDED, 1, true},
    {"what its pace leaves", PRECOPY(500), POSTCOPY(500), PACED, PCMIG_TURN_BOUNDED, 2, true},
    {"and a quarter at the most", PRECOPY(500), POSTCOPY(500), SLOW, PCMIG_TURN_BOUNDED, 3, true},
    {"what it does not get is no more to spare", PRECOPY(500), POSTCOPY(500), SLOWED, PCMIG_TURN_BOUNDED, 1, true},
    {"nor without a pace", PRECOPY(500), POSTCOPY(500), UNPACED, PCMIG_TURN_BOUNDED, 1, true},
    {"post-copy before what waits", WAITING(500), POSTCOPY(500), PACED, PCMIG_TURN_WAITING, 0, true},
    {"post-copy leaves the link idle: the next one is set up", WAITING(500), POSTCOPY(500), SLOW, PCMIG_TURN_BOUNDED, 3,
     true},
    {"post-copy ends: the next one is set up", WAITING(500), POSTCOPY(40), AS_IT_IS, PCMIG_TURN_BOUNDED, 1, true},
    {"post-copy has hardly anything left", PRECOPY(500), POSTCOPY(2), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"post-copy has nothing left", PRECOPY(500), POSTCOPY(0), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"post-copy leaves room", PRECOPY(500), POSTCOPY(500), SLACK, PCMIG_TURN_FREE, 0, false},
    {"post-copy stands still", PRECOPY(500), POSTCOPY(500), STILL, PCMIG_TURN_FREE, 0, false},
    {"post-copy is interrupted", PRECOPY(500), PAUSED, AS_IT_IS, PCMIG_TURN_FREE, 0, false},
    {"interrupted, it waits for nobody", PAUSED, DRAIN(0), AS_IT_IS, PCMIG_TURN_FREE, 0, false},
};

static struct pcmig_turns_row changed(struct pcmig_turns_row row, enum change change)
{
    switch (change) {
    case AS_IT_IS:
        break;
    case STALE:
        row.stamp_us = NOW - 4 * SECOND;
        break;
    case STILL:
        row.moved_us = NOW - 6 * SECOND;
        break;
    case ELSEWHERE:
        row.link = 3;
        break;
    case OTHER_HOST:
        row.network = 1;
        row.link = 0;
        break;
    case ANYWHERE:
        row.link = 0;
        break;
    case SLACK:
        row.fill = PCMIG_TURNS_FILL_SLACK;
        break;
    case NEW_TURN:
        row.fill = PCMIG_TURNS_FILL_SLACK;
        row.turn_us = NOW;
        break;
    case OLD_TURN:
        row.turn_us = NOW - 400 * SECOND;
        break;
    case BOUND:
        row.bound_mib = 1;
        break;
    case BOUND_FULL:
        row.bound_mib = 1;
        row.queue_bytes = (int64_t)MIB;
        break;
    case PACED:
        row.send_bps = LINK / 5 * 4;
        break;
    case SLOW:
        row.send_bps = LINK / 2;
        break;
    case SLOWED:
        row.send_bps = LINK / 2;
        row.pace_mib = 11;
        break;
    case UNPACED:
        row.send_bps = LINK / 2;
        row.pace_mib = 0;
        break;
    case SET_UP:
    case SET_UP_LONG:
        row.setup_us = 0;
        row.phase_us = row.turn_us = row.moved_us = NOW - (change == SET_UP ? 7 : 11) * SECOND;
        break;
    case SLOWLY_SET_UP:
        row.setup_us = 8 * SECOND;
        break;
    }
    return row;
}

/* Who loses the time that one takes. */
static void behind_one(void **state)
{
    struct pcmig_turns_row rows[] = {PRECOPY(500), FOLLOWER(500), WAITING(500), WAITING(500), PAUSED, WAITING(500)};
    static const unsigned expected[] = {3, 0, 0, 0, 3, 0}; /* the last row is of another link */
    struct pcmig_turns_answer answer;

    (void)state;
    rows[5].link = 3;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        rows[i].number = (uint32_t)i;
    for (size_t me = 0; me < sizeof(rows) / sizeof(rows[0]); me++) {
        pcmig_turns_decide(rows, sizeof(rows) / sizeof(rows[0]), me, NOW, &answer);
        assert_int_equal(answer.behind, expected[me]);
    }
}

/* Whichever of the two rows comes first. */
static void each_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const struct rule *rule = &rules[i];

        for (size_t me = 0; me < 2; me++) {
            struct pcmig_turns_row rows[2];
            struct pcmig_turns_answer answer;

            rows[me] = rule->mine;
            rows[1 - me] = changed(rule->other, rule->change);
            rows[0].number = 0;
            rows[1].number = 1;
            pcmig_turns_decide(rows, 2, me, NOW, &answer);
            if (answer.turn != rule->turn || answer.bound_mib != rule->bound_mib ||
                answer.waits_for != (rule->waits ? (int)(1 - me) : -1))
                fail_msg("%s (row %zu): turn %d, bound %d, waits for %d", rule->name, me, (int)answer.turn,
                         (int)answer.bound_mib, answer.waits_for);
        }
    }
}

/* Of two that took their turn in the same moment, one steps back. */
static void taken_twice(void **state)
{
    struct pcmig_turns_row rows[2] = {PRECOPY(500), PRECOPY(900)};
    struct pcmig_turns_answer first, second;

    (void)state;
    rows[0].turn_us = rows[1].turn_us = NOW - SECOND / 10;
    rows[1].number = 1;
    pcmig_turns_decide(rows, 2, 0, NOW, &first);
    pcmig_turns_decide(rows, 2, 1, NOW, &second);
    assert_int_equal(first.turn, PCMIG_TURN_FREE);
    assert_int_equal(second.turn, PCMIG_TURN_BOUNDED);
}

/* One whose set-up took so long that another one got the turn is the next after it, unless it sends first. */
static void overtaken_in_the_setup(void **state)
{
    struct pcmig_turns_answer free_turn = {.turn = PCMIG_TURN_FREE, .waits_for = -1}, answer;
    struct pcmig_turns_meter late;
    struct pcmig_turns_row rows[2] = {PRECOPY(1024), PRECOPY(500)};

    (void)state;
    rows[1].number = 1;
    pcmig_turns_meter_init(&late, NOW - 12 * SECOND, "late", 0, 2, 1024 * MIB);
    pcmig_turns_meter_answer(&late, NOW - 12 * SECOND, &free_turn);
    pcmig_turns_meter_phase(&late, NOW - 12 * SECOND, PCMIG_PHASE_SETUP);
    rows[0] = late.row;
    pcmig_turns_decide(rows, 2, 0, NOW, &answer);
    assert_int_equal(answer.turn, PCMIG_TURN_BOUNDED);
    assert_int_equal(answer.waits_for, 1);
    pcmig_turns_decide(rows, 2, 1, NOW, &answer);
    assert_int_equal(answer.turn, PCMIG_TURN_FREE);
    pcmig_turns_decide(rows, 2, 0, NOW, &answer);
    pcmig_turns_meter_answer(&late, NOW, &answer);
    assert_int_equal(late.row.turn_us, 0);

    /* The other one is being set up as well: whose turn was first. */
    rows[0].stamp_us = NOW;
    rows[1].setup_us = 0;
    rows[1].phase_us = rows[1].turn_us = rows[1].moved_us = NOW - 2 * SECOND;
    rows[0].setup_us = 12 * SECOND;
    rows[0].moved_us = NOW;
    pcmig_turns_decide(rows, 2, 0, NOW, &answer);
    assert_int_equal(answer.turn, PCMIG_TURN_FREE);
    pcmig_turns_decide(rows, 2, 1, NOW, &answer);
    assert_int_equal(answer.turn, PCMIG_TURN_BOUNDED);
}

/* Small ones that keep coming do not hold a large one back for ever. */
static void not_overtaken_for_ever(void **state)
{
    struct pcmig_turns_row rows[2] = {WAITING(1000), WAITING(10)};
    struct pcmig_turns_answer large;

    (void)state;
    rows[1].number = 1;
    rows[1].since_us = rows[0].since_us + 60 * SECOND;
    pcmig_turns_decide(rows, 2, 0, NOW, &large);
    assert_int_equal(large.turn, PCMIG_TURN_WAITING);
    rows[1].since_us = rows[0].since_us + 400 * SECOND;
    pcmig_turns_decide(rows, 2, 0, NOW, &large);
    assert_int_equal(large.turn, PCMIG_TURN_FREE);
}

/* --- the row in the file ------------------------------------------------------------------------------------------ */

static void there_and_back(void **state)
{
    struct pcmig_turns_row row = POSTCOPY(77), back;
    unsigned char bytes[PCMIG_TURNS_ROW_BYTES];

    (void)state;
    row.network = UINT32_MAX;
    row.queue_bytes = -1;
    row.bound_mib = 3;
    row.setup_us = 4;
    strcpy(row.name, "gäst\n1");
    pcmig_turns_pack(&row, bytes);
    memset(&back, 0, sizeof(back));
    assert_true(pcmig_turns_unpack(bytes, &back));
    assert_string_equal(back.name, "gäst?1");
    strcpy(back.name, row.name);
    assert_int_equal(back.link, row.link);
    assert_int_equal(back.network, row.network);
    assert_int_equal(back.phase, row.phase);
    assert_int_equal(back.fill, row.fill);
    assert_int_equal(back.since_us, row.since_us);
    assert_int_equal(back.phase_us, row.phase_us);
    assert_int_equal(back.turn_us, row.turn_us);
    assert_int_equal(back.stamp_us, row.stamp_us);
    assert_int_equal(back.moved_us, row.moved_us);
    assert_int_equal(back.total_bytes, row.total_bytes);
    assert_int_equal(back.remaining_bytes, row.remaining_bytes);
    assert_int_equal(back.send_bps, row.send_bps);
    assert_int_equal(back.link_bps, row.link_bps);
    assert_int_equal(back.queue_bytes, -1);
    assert_int_equal(back.bound_mib, 3);
    assert_int_equal(back.setup_us, 4);
}

static void empty_and_torn(void **state)
{
    struct pcmig_turns_row row = PRECOPY(77), back;
    unsigned char bytes[PCMIG_TURNS_ROW_BYTES], other[PCMIG_TURNS_ROW_BYTES];

    (void)state;
    memset(bytes, 0, sizeof(bytes));
    assert_false(pcmig_turns_unpack(bytes, &back));
    pcmig_turns_pack(&row, bytes);
    row.stamp_us++;
    pcmig_turns_pack(&row, other);
    memcpy(bytes, other, sizeof(bytes) / 2);
    assert_false(pcmig_turns_unpack(bytes, &back));
    for (size_t i = 0; i < sizeof(other); i++) {
        other[i] ^= 1;
        assert_false(pcmig_turns_unpack(other, &back));
        other[i] ^= 1;
    }
    row.phase = PCMIG_TURNS_NONE;
    pcmig_turns_pack(&row, bytes);
    assert_false(pcmig_turns_unpack(bytes, &back));
}

/* --- what a migration says of itself ------------------------------------------------------------------------------ */

static struct pcmig_sample figures(uint64_t sent, int64_t queue)
{
    return (struct pcmig_sample){.memory_total_bytes = 1024 * MIB,
                                 .memory_processed_bytes = sent,
                                 .memory_remaining_bytes = 1024 * MIB - sent,
                                 .queue_bytes = queue};
}

static void meter_of_a_life(void **state)
{
    struct pcmig_turns_answer free_turn = {.turn = PCMIG_TURN_FREE, .waits_for = -1};
    struct pcmig_turns_meter meter;
    struct pcmig_sample sample;
    int64_t t = NOW;

    (void)state;
    pcmig_turns_meter_init(&meter, t, "g1", 7, 2, 1024 * MIB);
    assert_int_equal(meter.row.phase, PCMIG_TURNS_WAITING);
    assert_int_equal(meter.row.remaining_bytes, 1024 * MIB);
    pcmig_turns_meter_answer(&meter, t, &free_turn);
    assert_int_equal(meter.row.turn_us, t);
    pcmig_turns_meter_phase(&meter, t += SECOND, PCMIG_PHASE_SETUP);
    assert_int_equal(meter.row.phase, PCMIG_TURNS_PRECOPY);
    for (int i = 0; i < 30; i++) {
        pcmig_turns_meter_answer(&meter, t += SECOND / 10, &free_turn);
        sample = figures((uint64_t)i * LINK / 10, 65536);
        pcmig_turns_meter_sample(&meter, t, &sample, LINK, 0);
    }
    assert_int_equal(meter.row.fill, PCMIG_TURNS_FILLS);
    assert_in_range(meter.row.send_bps, LINK * 9 / 10, LINK * 11 / 10);
    for (int i = 30; i < 60; i++) {
        pcmig_turns_meter_answer(&meter, t += SECOND / 10, &free_turn);
        sample = figures((uint64_t)i * LINK / 10, 4096);
        pcmig_turns_meter_sample(&meter, t, &sample, LINK, 0);
    }
    assert_int_equal(meter.row.fill, PCMIG_TURNS_FILL_SLACK);
    pcmig_turns_meter_phase(&meter, t, PCMIG_PHASE_DRAIN);
    assert_int_equal(meter.row.phase, PCMIG_TURNS_DRAIN);
    pcmig_turns_meter_phase(&meter, t, PCMIG_PHASE_POSTCOPY);
    for (int i = 60; i < 66; i++) {
        sample = figures((uint64_t)i * LINK / 10, 0);
        pcmig_turns_meter_phase(&meter, t, PCMIG_PHASE_POSTCOPY);
        pcmig_turns_meter_sample(&meter, t += SECOND / 10, &sample, LINK, 1200);
    }
    assert_int_equal(meter.row.phase, PCMIG_TURNS_RUSH);
    pcmig_turns_meter_sample(&meter, t += SECOND / 10, &sample, LINK, 100);
    pcmig_turns_meter_phase(&meter, t, PCMIG_PHASE_POSTCOPY);
    assert_int_equal(meter.row.phase, PCMIG_TURNS_POSTCOPY);
    pcmig_turns_meter_phase(&meter, t, PCMIG_PHASE_PAUSED);
    assert_int_equal(meter.row.phase, PCMIG_TURNS_PAUSED);
    pcmig_turns_meter_phase(&meter, t, PCMIG_PHASE_FINISHED);
    assert_int_equal(meter.row.phase, PCMIG_TURNS_NONE);
}

/* --- many at once ------------------------------------------------------------------------------------------------- */

#define STEP_US (SECOND / 10)
#define MANY    40

/* One migration, roughly: a set-up, a pass over its memory, a drain, and what was written meanwhile in post-copy. */
struct guest {
    struct pcmig_turns_row row;
    uint64_t hot_bytes;
    int64_t start_us, ended_us; /* the call was made; -1 = not yet */
    int64_t bound_mib;
    bool killed;
};

struct world {
    struct guest guests[MANY];
    size_t count;
    int64_t now_us;
    uint64_t link_bps;
    int64_t setup_us;
    uint64_t idle_bytes; /* that the link could have carried while some guest had not ended */
    unsigned switching_most;
};

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void look_around(struct world *w, size_t me)
{
    struct pcmig_turns_row rows[MANY];
    struct pcmig_turns_answer answer;
    struct guest *g = &w->guests[me];
    size_t count = 0, at = 0;

    g->row.stamp_us = w->now_us;
    for (size_t i = 0; i < w->count; i++) {
        if (w->guests[i].killed || w->guests[i].row.phase == PCMIG_TURNS_NONE)
            continue; /* its lock is gone */
        if (i == me)
            at = count;
        rows[count++] = w->guests[i].row;
    }
    pcmig_turns_decide(rows, count, at, w->now_us, &answer);
    g->bound_mib = g->row.bound_mib = answer.bound_mib;
    if (answer.turn == PCMIG_TURN_FREE && g->row.turn_us == 0)
        g->row.turn_us = w->now_us;
    if (g->row.phase == PCMIG_TURNS_PRECOPY && answer.bound_mib != 0 && g->row.setup_us == 0)
        g->row.turn_us = 0; /* as turns_meter.c does */
    if (g->row.phase == PCMIG_TURNS_WAITING && answer.turn != PCMIG_TURN_WAITING) {
        g->row.phase = PCMIG_TURNS_PRECOPY;
        g->row.phase_us = g->row.moved_us = g->start_us = w->now_us;
    }
    if (g->row.phase == PCMIG_TURNS_PRECOPY && g->row.remaining_bytes == 0 && answer.turn <= PCMIG_TURN_CROWDED) {
        g->row.phase = PCMIG_TURNS_DRAIN;
        g->row.phase_us = w->now_us;
        g->row.remaining_bytes = g->hot_bytes;
    } else if (g->row.phase == PCMIG_TURNS_DRAIN && answer.turn == PCMIG_TURN_FREE) {
        g->row.phase = PCMIG_TURNS_RUSH;
        g->row.phase_us = w->now_us;
    } else if (g->row.phase == PCMIG_TURNS_RUSH && w->now_us - g->row.phase_us > SECOND) {
        g->row.phase = PCMIG_TURNS_POSTCOPY;
        g->row.phase_us = w->now_us;
    } else if (g->row.phase == PCMIG_TURNS_POSTCOPY && g->row.remaining_bytes == 0) {
        g->row.phase = PCMIG_TURNS_NONE;
        g->ended_us = w->now_us;
    }
}

static bool sends(const struct world *w, const struct guest *g)
{
    return g->row.phase > PCMIG_TURNS_WAITING && g->row.remaining_bytes > 0 && w->now_us - g->start_us >= w->setup_us;
}

static void pass_time(struct world *w)
{
    uint64_t room = w->link_bps / 10, wanting = 0;

    for (size_t i = 0; i < w->count; i++)
        wanting += sends(w, &w->guests[i]) && w->guests[i].bound_mib == 0;
    for (int full = 0; full < 2; full++) { /* first those with a bound, then the others share */
        for (size_t i = 0; i < w->count; i++) {
            struct guest *g = &w->guests[i];
            uint64_t share;

            if (!sends(w, g) || (g->bound_mib == 0) != (full != 0))
                continue;
            share = full ? room / wanting : (uint64_t)g->bound_mib * MIB / 10;
            if (full)
                wanting--;
            share = share < room ? share : room;
            share = share < g->row.remaining_bytes ? share : g->row.remaining_bytes;
            g->row.remaining_bytes -= share;
            g->row.send_bps = share * 10;
            g->row.link_bps = w->link_bps;
            g->row.moved_us = w->now_us;
            if (g->row.setup_us == 0)
                g->row.setup_us = w->now_us - g->start_us;
            room -= share;
        }
    }
    w->idle_bytes += room;
    w->now_us += STEP_US;
}

static bool goes_on(struct world *w)
{
    unsigned switching = 0;
    bool on = false;

    for (size_t i = 0; i < w->count; i++) {
        const struct guest *g = &w->guests[i];

        if (g->killed || g->row.phase == PCMIG_TURNS_NONE)
            continue;
        on = true;
        switching += g->row.phase == PCMIG_TURNS_RUSH;
    }
    if (switching > w->switching_most)
        w->switching_most = switching;
    return on;
}

static struct world make_world(uint64_t *seed, size_t count, bool same)
{
    struct world w = {.count = count, .now_us = NOW, .link_bps = LINK, .setup_us = 3 * SECOND / 2};

    for (size_t i = 0; i < count; i++) {
        struct guest *g = &w.guests[i];
        uint64_t size = same ? 96 * MIB : (16 + next_random(seed) % 512) * MIB;

        g->ended_us = g->start_us = -1;
        g->hot_bytes = same ? 32 * MIB : size / (1 + next_random(seed) % 8);
        g->row = (struct pcmig_turns_row){.link = 2,
                                          .number = (uint32_t)i,
                                          .phase = PCMIG_TURNS_WAITING,
                                          .fill = PCMIG_TURNS_FILLS,
                                          .since_us = NOW + (int64_t)(next_random(seed) % 1000),
                                          .moved_us = NOW,
                                          .total_bytes = size,
                                          .remaining_bytes = size,
                                          .queue_bytes = 0};
    }
    return w;
}

static void run(struct world *w, int64_t patience_us, void (*each)(struct world *w))
{
    int64_t until_us = w->now_us + patience_us;

    while (goes_on(w)) {
        if (w->now_us > until_us)
            fail_msg("after %d s a guest has not arrived", (int)(patience_us / SECOND));
        for (size_t i = 0; i < w->count; i++) {
            if (!w->guests[i].killed && w->guests[i].row.phase != PCMIG_TURNS_NONE)
                look_around(w, i);
        }
        if (each != NULL)
            each(w);
        pass_time(w);
    }
}

/* Equal guests, as a drain of a host has them: one after the other, the first arrives after its share of the time, and
 * the last not later than all would have side by side. */
static void equal_guests(void **state)
{
    static const size_t counts[] = {1, 2, 3, 4, 8, 40};

    (void)state;
    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
        uint64_t seed = 1;
        struct world w = make_world(&seed, counts[c], true);
        int64_t ideal_us = (int64_t)(128 * MIB * counts[c] * 1000 / (LINK / 1000)), sum_us = 0;

        run(&w, 100 * ideal_us, NULL);
        for (size_t i = 0; i < w.count; i++)
            sum_us += w.guests[i].ended_us - NOW;
        assert_true(w.switching_most == 1);
        /* A set-up of 1.5 s, and a few looks of 0.1 s for each. */
        assert_true(w.now_us - NOW <= ideal_us + 2 * SECOND + (int64_t)counts[c] * SECOND / 2);
        if (counts[c] > 2)
            assert_true(sum_us / (int64_t)counts[c] <= (w.now_us - NOW) * 3 / 4);
    }
}

/* On a busy host a set-up takes longer than anything else may stand still. Each is done while the one before sends, and
 * nobody sends beside another one. */
static void slow_setups(void **state)
{
    (void)state;
    for (int setup_s = 4; setup_s <= 14; setup_s += 2) {
        uint64_t seed = 1;
        struct world w = make_world(&seed, 6, true);
        int64_t ideal_us = (int64_t)(128 * MIB * w.count * 1000 / (LINK / 1000)), sum_us = 0;

        w.setup_us = setup_s * SECOND;
        run(&w, 100 * ideal_us, NULL);
        for (size_t i = 0; i < w.count; i++)
            sum_us += w.guests[i].ended_us - NOW;
        assert_true(w.switching_most == 1);
        assert_true(w.now_us - NOW <= ideal_us + w.setup_us + 6 * SECOND);
        assert_true(sum_us / (int64_t)w.count <= (w.now_us - NOW) * 3 / 4);
    }
}

/* Whatever their sizes, and whoever is killed: everybody else arrives, one is switched at a time, and the link does not
 * idle. */
static void kill_one_now_and_then(struct world *w)
{
    static uint64_t seed = 99;
    struct guest *g = &w->guests[next_random(&seed) % w->count];

    if (next_random(&seed) % 200 == 0 && g->row.phase != PCMIG_TURNS_NONE) {
        g->killed = true;
        g->row.remaining_bytes = 0;
    }
}

static void everybody_arrives(void **state)
{
    uint64_t seed = 20261128;

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct world w = make_world(&seed, 1 + next_random(&seed) % MANY, false);
        uint64_t all = 0;

        for (size_t i = 0; i < w.count; i++)
            all += w.guests[i].row.total_bytes + w.guests[i].hot_bytes;
        run(&w, (int64_t)(all * 2 / (LINK / 1000) * 1000) + 100 * SECOND, round % 2 ? kill_one_now_and_then : NULL);
        assert_true(w.switching_most <= 1);
        if (round % 2 == 0)
            assert_true(w.idle_bytes <= LINK * (3 + w.count));
        for (size_t i = 0; i < w.count; i++)
            assert_true(w.guests[i].killed || w.guests[i].ended_us > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule),
        cmocka_unit_test(behind_one),
        cmocka_unit_test(taken_twice),
        cmocka_unit_test(not_overtaken_for_ever),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(empty_and_torn),
        cmocka_unit_test(meter_of_a_life),
        cmocka_unit_test(equal_guests),
        cmocka_unit_test(everybody_arrives),
        cmocka_unit_test(slow_setups),
        cmocka_unit_test(overtaken_in_the_setup),
    };

    return cmocka_run_group_tests_name("turns", tests, NULL, NULL);
}
