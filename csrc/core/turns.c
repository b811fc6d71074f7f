/* SPDX-License-Identifier: Apache-2.0 */
/* See turns.h. */
#include "core/turns.h"

#include <string.h>

#define MIB            (1024 * 1024)
/* A row is written once a second; one that is older belongs to a process that is stopped, or to a copy of one that
 * died. */
#define STALE_US       3000000
/* What moves nothing for so long leaves the link to others: a network that is gone. */
#define STILL_US       5000000
/* A set-up moves nothing either, and takes its time on a busy host. One that hangs gives its turn to the next one. */
#define SETUP_LONG_US  10000000
/* A guest is not switched without its pages flowing: longer than that, something is wrong, and the others go on. */
#define DRAIN_MAX_US   10000000
#define RUSH_MAX_US    15000000
/* Two that took their turn in the same moment see each other soon: the later one steps back. After that it stays. */
#define TURN_CLAIM_US  2000000
/* Full speed for so long tells whether it fills the link. */
#define FILL_PROOF_US  1000000
/* To make room, the others need a look at the rows and a call to libvirt. Later than that is too late to be waited for.
 */
#define ROOM_MAX_US    1000000
/* What the others have queued is little when the link is through with it in so long. */
#define ROOM_QUEUE_MS  20
/* Set-up at both hosts takes one to three seconds, and longer on busy ones, as those before have seen; the next guest's
 * is done while the one before it ends. */
#define NEXT_US        4000000
#define NEXT_MORE_US   1000000
#define NEXT_MAX_US    30000000
/* A turn lasts that many times what the guest's memory takes on the link, and at least so long: pre-copy that never
 * ends (it is not to be switched, or not yet) shares from then on. */
#define TURN_FACTOR    4
#define TURN_MIN_US    60000000
/* As much smaller a guest has to be to go beside one that has its turn. */
#define BESIDE_DIVISOR 8
/* The time that a guest of its size takes counts that often against the time of its arrival. */
#define RANK_FACTOR    4
/* ... at this rate: low, so that the order is by size rather than by arrival on any link. */
#define RANK_BPS       (UINT64_C(64) << 20)
/* The part of the link that is left to the others of a guest that has just been switched. QEMU sends it in a burst each
 * 100 ms, behind which a page request may wait for an eighth of that; without it the link would idle, as post-copy
 * itself is paced. */
#define RUSH_SHARE     8
/* The rush is over: they get what post-copy does not take, as it was seen, and a quarter at the most. A fixed share
 * would stand in the queue once post-copy has opened up, and its requests behind it. Less than half of the least is
 * not worth the rounding. */
#define POSTCOPY_SHARE 4
/* What is over so soon holds nobody up: the next one needs as long to begin. */
#define LAST_MS        250

struct view {
    const struct pcmig_turns_row *rows;
    size_t count;
    size_t me;
    int64_t now_us;
    uint64_t link_bps; /* the best that is known of the link; 0 = nothing */
    int64_t next_us;   /* the next one begins so long before one ends */
};

static int64_t age_us(const struct view *v, int64_t since_us)
{
    return since_us < v->now_us ? v->now_us - since_us : 0;
}

static bool same_link(const struct pcmig_turns_row *a, const struct pcmig_turns_row *b)
{
    return a->network == b->network && (a->link == b->link || a->link == 0 || b->link == 0);
}

/* Rows that ME has to reckon with, itself among them. */
static bool counts(const struct view *v, size_t i)
{
    const struct pcmig_turns_row *row = &v->rows[i];

    if (i == v->me)
        return true;
    return row->phase != PCMIG_TURNS_NONE && row->phase != PCMIG_TURNS_PAUSED && same_link(row, &v->rows[v->me]) &&
           age_us(v, row->stamp_us) < STALE_US;
}

/* Its call was made, and nothing was sent yet. */
static bool in_setup(const struct pcmig_turns_row *row)
{
    return row->phase == PCMIG_TURNS_PRECOPY && row->setup_us == 0;
}

static bool still(const struct view *v, const struct pcmig_turns_row *row)
{
    return row->phase != PCMIG_TURNS_WAITING && age_us(v, row->moved_us) >= (in_setup(row) ? SETUP_LONG_US : STILL_US);
}

/* The same for everybody who looks: by time, and by the rows' places where two times are the same. */
static bool earlier(const struct pcmig_turns_row *a, int64_t a_us, const struct pcmig_turns_row *b, int64_t b_us)
{
    return a_us != b_us ? a_us < b_us : a->number < b->number;
}

/* --- the switch --------------------------------------------------------------------------------------------------- */

static bool is_switching(const struct view *v, const struct pcmig_turns_row *row)
{
    switch (row->phase) {
    case PCMIG_TURNS_DRAIN:
        return age_us(v, row->phase_us) < DRAIN_MAX_US;
    case PCMIG_TURNS_RUSH:
        return age_us(v, row->phase_us) < RUSH_MAX_US && !still(v, row);
    default:
        return false;
    }
}

/* Who has the switch: a guest that runs at its destination already before one that drains, and then the first. -1 =
 * nobody. */
static int switching(const struct view *v)
{
    int found = -1;

    for (size_t i = 0; i < v->count; i++) {
        const struct pcmig_turns_row *row = &v->rows[i], *best = found < 0 ? NULL : &v->rows[found];

        if (!counts(v, i) || !is_switching(v, row))
            continue;
        if (best == NULL || (row->phase != best->phase ? row->phase == PCMIG_TURNS_RUSH
                                                       : earlier(row, row->phase_us, best, best->phase_us)))
            found = (int)i;
    }
    return found;
}

static bool has_made_room(const struct view *v, const struct pcmig_turns_row *row)
{
    if (row->phase == PCMIG_TURNS_WAITING || still(v, row))
        return true;
    if (row->bound_mib == 0 && row->phase != PCMIG_TURNS_DRAIN)
        return false;
    return row->queue_bytes <= 0 || v->link_bps == 0 ||
           (uint64_t)row->queue_bytes <= v->link_bps / 1000 * ROOM_QUEUE_MS;
}

static int not_yet_made_room(const struct view *v)
{
    for (size_t i = 0; i < v->count; i++) {
        if (i != v->me && counts(v, i) && !has_made_room(v, &v->rows[i]))
            return (int)i;
    }
    return -1;
}

static int64_t share_mib(const struct view *v, uint64_t divisor)
{
    int64_t mib = (int64_t)(v->link_bps / divisor / MIB);

    return mib > PCMIG_TURNS_TRICKLE_MIB ? mib : PCMIG_TURNS_TRICKLE_MIB;
}

/* What post-copy does not take of the link. Its pace counts where it sends less: who sends beside it takes away from
 * what it sends, which is no reason to leave him more. */
static int64_t spare_mib(const struct view *v, const struct pcmig_turns_row *postcopy)
{
    uint64_t most = v->link_bps / POSTCOPY_SHARE, taken = postcopy->send_bps, spare;
    int64_t mib;

    if (postcopy->pace_mib == 0)
        return PCMIG_TURNS_TRICKLE_MIB;
    if (postcopy->pace_mib > 0 && (uint64_t)postcopy->pace_mib > taken / MIB)
        taken = (uint64_t)postcopy->pace_mib * MIB;
    spare = v->link_bps > taken ? v->link_bps - taken : 0;
    mib = (int64_t)(((spare < most ? spare : most) + MIB / 2) / MIB);
    return mib > PCMIG_TURNS_TRICKLE_MIB ? mib : PCMIG_TURNS_TRICKLE_MIB;
}

/* What the others may send while OTHER has the link. */
static int64_t left_by_mib(const struct view *v, const struct pcmig_turns_row *other)
{
    switch (other->phase) {
    case PCMIG_TURNS_RUSH:
        return share_mib(v, RUSH_SHARE);
    case PCMIG_TURNS_POSTCOPY:
        return spare_mib(v, other);
    default:
        return PCMIG_TURNS_TRICKLE_MIB;
    }
}

/* --- pre-copy ----------------------------------------------------------------------------------------------------- */

static bool is_contender(const struct pcmig_turns_row *row)
{
    return row->phase == PCMIG_TURNS_WAITING || row->phase == PCMIG_TURNS_PRECOPY;
}

/* What BYTES take of the link. */
static int64_t link_us(const struct view *v, uint64_t bytes)
{
    return (int64_t)(bytes / (v->link_bps / 1000 + 1) * 1000);
}

/* The arrival, later by what a guest of this size takes: small ones go first, and none is overtaken for ever. The same
 * for everybody who looks, whatever he knows of the link: two might wait for each other otherwise. */
static int64_t rank_us(const struct pcmig_turns_row *row)
{
    return row->since_us + (int64_t)(row->remaining_bytes / (RANK_BPS / 1000) * 1000) * RANK_FACTOR;
}

/* It has its turn, and has begun to send. */
static bool has_begun(const struct pcmig_turns_row *row)
{
    return row->turn_us != 0 && row->setup_us != 0;
}

/* Whether A goes before B: first those who have their turn and send, then those who have it and are being set up, then
 * those whose call is made, then by rank. */
static bool before(const struct pcmig_turns_row *a, const struct pcmig_turns_row *b)
{
    if (has_begun(a) != has_begun(b))
        return has_begun(a);
    if ((a->turn_us != 0) != (b->turn_us != 0))
        return a->turn_us != 0;
    if (a->turn_us != 0)
        return earlier(a, a->turn_us, b, b->turn_us);
    if (a->phase != b->phase)
        return a->phase == PCMIG_TURNS_PRECOPY;
    return earlier(a, rank_us(a), b, rank_us(b));
}

static bool turn_is_over(const struct view *v, const struct pcmig_turns_row *row)
{
    int64_t lasts_us = v->link_bps == 0 ? TURN_MIN_US : link_us(v, row->total_bytes) * TURN_FACTOR;

    return age_us(v, row->turn_us) >= (lasts_us > TURN_MIN_US ? lasts_us : TURN_MIN_US);
}

/* Whether there is room for one more beside ROW, which sends at full speed. */
static bool leaves_room(const struct view *v, const struct pcmig_turns_row *row)
{
    switch (row->phase) {
    case PCMIG_TURNS_WAITING:
        return false;
    case PCMIG_TURNS_PRECOPY:
        if (row->turn_us == 0)
            return still(v, row);
        if (still(v, row) || turn_is_over(v, row))
            return true;
        return age_us(v, row->turn_us) >= FILL_PROOF_US && row->fill == PCMIG_TURNS_FILL_SLACK;
    case PCMIG_TURNS_DRAIN:
        return !is_switching(v, row);
    default:
        /* All of it is there, or will be by the time that another one has begun. */
        if (row->phase == PCMIG_TURNS_POSTCOPY && row->total_bytes != 0 &&
            row->remaining_bytes <= row->send_bps / 1000 * LAST_MS)
            return true;
        return still(v, row) || row->fill == PCMIG_TURNS_FILL_SLACK;
    }
}

/* So slow that one that begins behind a rush sends nothing before it is over. */
static bool slow_setups(const struct view *v)
{
    return v->next_us > NEXT_US;
}

static bool is_ending(const struct view *v, const struct pcmig_turns_row *row)
{
    if (row->phase == PCMIG_TURNS_DRAIN || row->phase == PCMIG_TURNS_WAITING ||
        (row->phase == PCMIG_TURNS_RUSH && !slow_setups(v)))
        return false;
    return row->send_bps != 0 && row->remaining_bytes / (row->send_bps / 1000 + 1) < (uint64_t)v->next_us / 1000;
}

/* What stands in the way of ME in pre-copy. */
struct way {
    int postcopy;    /* row in post-copy that fills the link; -1 = none */
    int precopy;     /* row before it in pre-copy, that fills the link or is to */
    bool ending;     /* all that have the link will be through soon */
    bool first_next; /* of those who wait, nobody is before it */
};

static struct way look_ahead(const struct view *v)
{
    const struct pcmig_turns_row *mine = &v->rows[v->me];
    struct way way = {.postcopy = -1, .precopy = -1, .ending = true, .first_next = true};
    bool beside = true;
    unsigned ahead = 0;

    for (size_t i = 0; i < v->count; i++) {
        const struct pcmig_turns_row *row = &v->rows[i];
        bool contends = is_contender(row);
        int *found = contends ? &way.precopy : &way.postcopy;

        if (i == v->me || !counts(v, i) || (contends && !before(row, mine)) || leaves_room(v, row))
            continue;
        if (contends && row->turn_us == 0)
            way.first_next = false;
        else if (!is_ending(v, row))
            way.ending = false;
        ahead++;
        beside =
            beside && contends && row->turn_us != 0 && mine->remaining_bytes < row->remaining_bytes / BESIDE_DIVISOR;
        /* Who has the link rather than who waits for it as well. */
        if (*found < 0 || before(row, &v->rows[*found]))
            *found = (int)i;
    }
    if ((ahead == 1 && beside) || (has_begun(mine) && age_us(v, mine->turn_us) >= TURN_CLAIM_US))
        way.precopy = -1;
    return way;
}

/* Whether a post-copy leaves much of the link idle, by its pace or by its destination. */
static bool leaves_idle(const struct view *v, int postcopy)
{
    const struct pcmig_turns_row *row = postcopy >= 0 ? &v->rows[postcopy] : NULL;

    return row != NULL && row->phase == PCMIG_TURNS_POSTCOPY && v->link_bps != 0 &&
           row->send_bps < v->link_bps - v->link_bps / POSTCOPY_SHARE;
}

/* The set-up of the next one is done in time; anybody else's would only have its guest written to for longer. The next
 * one begins as well behind a post-copy that leaves much of the link idle. */
static bool set_up_now(const struct view *v, int token, const struct way *way)
{
    if (!way->first_next || (token >= 0 && (v->rows[token].phase != PCMIG_TURNS_RUSH || !slow_setups(v))))
        return false;
    return way->ending || (way->precopy < 0 && leaves_idle(v, way->postcopy));
}

static void precopy(const struct view *v, int token, struct pcmig_turns_answer *out)
{
    struct way way = look_ahead(v);

    out->waits_for = token >= 0 ? token : way.postcopy >= 0 ? way.postcopy : way.precopy;
    if (out->waits_for < 0)
        return;
    if (v->rows[v->me].phase == PCMIG_TURNS_WAITING && !set_up_now(v, token, &way)) {
        out->turn = PCMIG_TURN_WAITING;
        return;
    }
    out->turn = PCMIG_TURN_BOUNDED;
    out->bound_mib = left_by_mib(v, &v->rows[out->waits_for]);
}

/* Who loses the time that ME takes: nobody while ME waits itself. */
static unsigned behind(const struct view *v)
{
    const struct pcmig_turns_row *mine = &v->rows[v->me];
    unsigned found = 0;

    if (mine->turn_us == 0)
        return 0;
    for (size_t i = 0; i < v->count; i++)
        found += i != v->me && counts(v, i) && is_contender(&v->rows[i]) && v->rows[i].turn_us == 0;
    return found;
}

/* ------------------------------------------------------------------------------------------------------------------ */

void pcmig_turns_decide(const struct pcmig_turns_row *rows, size_t count, size_t me, int64_t now_us,
                        struct pcmig_turns_answer *out)
{
    struct view v = {.rows = rows, .count = count, .me = me, .now_us = now_us, .next_us = NEXT_US};
    int token;

    *out = (struct pcmig_turns_answer){.turn = PCMIG_TURN_FREE, .waits_for = -1};
    for (size_t i = 0; i < count; i++) {
        if (counts(&v, i) && rows[i].link_bps > v.link_bps)
            v.link_bps = rows[i].link_bps;
        if (counts(&v, i) && rows[i].setup_us + NEXT_MORE_US > v.next_us)
            v.next_us = rows[i].setup_us + NEXT_MORE_US;
    }
    if (v.next_us > NEXT_MAX_US)
        v.next_us = NEXT_MAX_US;
    out->link_bps = v.link_bps;
    out->behind = behind(&v);
    token = switching(&v);
    switch (rows[me].phase) {
    case PCMIG_TURNS_WAITING:
    case PCMIG_TURNS_PRECOPY:
        precopy(&v, token, out);
        return;
    case PCMIG_TURNS_DRAIN:
        if (token >= 0 && token != (int)me) {
            out->turn = PCMIG_TURN_HELD;
            out->waits_for = token;
        } else if (age_us(&v, rows[me].phase_us) < ROOM_MAX_US && (out->waits_for = not_yet_made_room(&v)) >= 0) {
            out->turn = PCMIG_TURN_CROWDED;
        }
        return;
    case PCMIG_TURNS_POSTCOPY:
        if (token >= 0) {
            out->turn = PCMIG_TURN_BOUNDED;
            out->bound_mib = left_by_mib(&v, &rows[token]);
            out->waits_for = token;
        }
        return;
    case PCMIG_TURNS_NONE:
    case PCMIG_TURNS_RUSH:
    case PCMIG_TURNS_PAUSED:
    case PCMIG_TURNS_PHASE_COUNT:
        return;
    }
}

const char *pcmig_turns_phase_name(enum pcmig_turns_phase phase)
{
    static const char *const names[] = {[PCMIG_TURNS_NONE] = "gone",           [PCMIG_TURNS_WAITING] = "waiting",
                                        [PCMIG_TURNS_PRECOPY] = "in pre-copy", [PCMIG_TURNS_DRAIN] = "draining",
                                        [PCMIG_TURNS_RUSH] = "just switched",  [PCMIG_TURNS_POSTCOPY] = "in post-copy",
                                        [PCMIG_TURNS_PAUSED] = "interrupted"};

    _Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_TURNS_PHASE_COUNT, "every phase has a name");
    return (unsigned)phase < PCMIG_TURNS_PHASE_COUNT ? names[phase] : "unknown";
}
