/* SPDX-License-Identifier: Apache-2.0 */
/* The connections to both hosts, and what each says of its half. The migrate call has a connection of its own, and goes
 * on when one of these breaks; a new one is opened in the background. A host that does not answer keeps nobody from
 * steering (ask.h). */
#include "engine/control.h"

#include <stdlib.h>
#include <string.h>

#define RECONNECT_US 1000000
/* An attempt that has not succeeded by then gets another one beside it: TCP tries again at growing distances, and would
 * notice late that the host is back. The older ones may yet succeed, where the host is merely slow. libvirt cannot
 * cancel one: given up, its thread stays for up to about two minutes. */
#define ANOTHER_US   10000000
/* A new connection over which no answer comes within this time is given up. */
#define GIVE_UP_US   30000000
/* So long "unknown" is not taken for the host's answer. */
#define PATIENT_US   3000000

/* --- connecting --------------------------------------------------------------------------------------------------- */

void pcmig_end_close(struct control *c, enum pcmig_side side)
{
    /* Whether it came will be seen; the policy may order it again. */
    if (side == PCMIG_SIDE_SOURCE && pcmig_ask_out(c, side, PCMIG_TELL_SWITCH))
        pcmig_migration_post(c->m,
                             &(struct pcmig_input){.kind = PCMIG_INPUT_EVENT, .code = PCMIG_EVENT_SWITCH_REFUSED});
    pcmig_ask_end(c, side);
    if (side == PCMIG_SIDE_DESTINATION)
        pcmig_unrun_gap(&c->unrun);
    c->end[side].attaching = false;
    c->end[side].libvirt = 0;
    c->end[side].direction = DIRECTION_UNKNOWN;
}

void pcmig_ends_begin(struct control *c)
{
    struct pcmig_migration *m = c->m;

    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        const struct pcmig_asker_has has = {m->conn[side], side == PCMIG_SIDE_SOURCE ? m->domain : NULL,
                                            m->watch[side]};

        /* Short of a thread they are left to preflight's own, and another one is tried to be had. */
        if (has.conn == NULL)
            continue;
        if (!pcmig_ask_begin(c, (enum pcmig_side)side, &has)) {
            c->end[side].reconnect = true;
            continue;
        }
        m->conn[side] = NULL;
        m->watch[side] = NULL;
        if (side == PCMIG_SIDE_SOURCE)
            m->domain = NULL;
    }
}

static void on_opened(void *migration)
{
    pcmig_migration_answered(migration);
    pcmig_migration_unref(migration);
}

/* Another attempt. The oldest is given up where there are many. */
static void begin(struct control *c, enum pcmig_side side, int64_t now)
{
    struct end *end = &c->end[side];
    const char *uri = side == PCMIG_SIDE_SOURCE ? c->m->args.source_uri : c->m->args.dest_uri;
    struct pcmig_virt_error error = {0};

    pcmig_end_close(c, side);
    pcmig_virt_open_abandon(end->opening[PCMIG_ATTEMPTS - 1]);
    memmove(&end->opening[1], &end->opening[0], (PCMIG_ATTEMPTS - 1) * sizeof(end->opening[0]));
    pcmig_migration_ref(c->m); /* on_opened gives it back */
    end->opening[0] = pcmig_virt_open_begin(uri, on_opened, c->m, &error);
    end->opening_us = now;
    end->reconnect_us = now + RECONNECT_US;
    if (end->opening[0] == NULL)
        pcmig_migration_unref(c->m);
}

static bool is_opening(const struct end *end)
{
    for (int i = 0; i < PCMIG_ATTEMPTS; i++) {
        if (end->opening[i] != NULL)
            return true;
    }
    return false;
}

static void abandon(struct end *end)
{
    for (int i = 0; i < PCMIG_ATTEMPTS; i++) {
        pcmig_virt_open_abandon(end->opening[i]);
        end->opening[i] = NULL;
    }
}

/* The first of the attempts that has succeeded; NULL = none yet. */
static struct pcmig_virt_conn *opened(struct end *end)
{
    for (int i = 0; i < PCMIG_ATTEMPTS; i++) {
        struct pcmig_virt_error error = {0};
        struct pcmig_virt_conn *conn = NULL;

        if (end->opening[i] == NULL || !pcmig_virt_open_poll(end->opening[i], &conn, &error))
            continue;
        end->opening[i] = NULL;
        if (conn != NULL)
            return conn;
    }
    return NULL;
}

/* Takes what the attempts came to. */
static void take(struct control *c, enum pcmig_side side, int64_t now)
{
    struct end *end = &c->end[side];
    struct pcmig_migration *m = c->m;
    struct pcmig_virt_conn *conn = opened(end);

    if (conn == NULL && !is_opening(end))
        end->reconnect_us = now + RECONNECT_US; /* refused */
    if (conn == NULL)
        return;
    abandon(end);
    pthread_mutex_lock(&m->lock);
    m->mailbox.closed[side] = false;
    pthread_mutex_unlock(&m->lock);
    end->opening_us = now;
    end->attaching = pcmig_ask_begin(c, side, &(struct pcmig_asker_has){.conn = conn});
    end->reconnect = !end->attaching;
    if (end->attaching)
        return;
    end->reconnect_us = now + RECONNECT_US;
    pcmig_virt_close(conn); /* nothing was asked over it */
}

/* Follows the guest over the new connection, before anything else is asked. */
static void attach(struct control *c, enum pcmig_side side, int64_t now)
{
    struct end *end = &c->end[side];
    struct pcmig_ask ask = {0};

    if (pcmig_ask(c, side, PCMIG_ASK_ATTACH, &ask) < 0) {
        if (pcmig_ask_pending(c, side, PCMIG_ASK_ATTACH) && now - end->opening_us < GIVE_UP_US)
            return;
        end->attaching = false;
        end->reconnect = true;
        end->reconnect_us = now + RECONNECT_US;
        return;
    }
    end->attaching = false;
    end->missed = true;
    c->look_us = 0; /* where both are being asked, that comes at once */
}

/* Events were missed; where both are being asked, that is found out anyway. */
static void catch_up(struct control *c, enum pcmig_side side)
{
    struct end *end = &c->end[side];

    if (!end->missed || end->attaching)
        return;
    end->missed = !pcmig_ending_wanted(c) && !pcmig_end_ask(c, side);
    if (!end->missed && !pcmig_ending_wanted(c))
        pcmig_end_catch_up(c, side);
}

void pcmig_ends_connect(struct control *c)
{
    int64_t now = pcmig_migration_now_us(c->m);

    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        struct end *end = &c->end[side];

        if (is_opening(end))
            take(c, (enum pcmig_side)side, now);
        if (end->reconnect && now >= (is_opening(end) ? end->opening_us + ANOTHER_US : end->reconnect_us))
            begin(c, (enum pcmig_side)side, now);
        if (end->attaching)
            attach(c, (enum pcmig_side)side, now);
        catch_up(c, (enum pcmig_side)side);
    }
}

int64_t pcmig_ends_due_us(const struct control *c)
{
    int64_t due = PCMIG_NEVER_US;

    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        const struct end *end = &c->end[side];
        int64_t at = end->attaching    ? end->opening_us + GIVE_UP_US
                     : is_opening(end) ? end->opening_us + ANOTHER_US
                     : end->reconnect  ? end->reconnect_us
                     : end->missed     ? pcmig_end_patient_us(c, (enum pcmig_side)side)
                                       : PCMIG_NEVER_US;

        due = due < at ? due : at;
    }
    return due;
}

void pcmig_ends_leave(struct control *c)
{
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        abandon(&c->end[side]);
        pcmig_ask_end(c, (enum pcmig_side)side);
    }
}

bool pcmig_end_being_asked(const struct control *c, enum pcmig_side side)
{
    const struct end *end = &c->end[side];

    return end->guest.half == PCMIG_HALF_UNKNOWN && end->silent_us != 0 &&
           pcmig_migration_now_us(c->m) < pcmig_end_patient_us(c, side) && (is_opening(end) || end->reconnect);
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

int64_t pcmig_end_patient_us(const struct control *c, enum pcmig_side side)
{
    return c->end[side].silent_us + PATIENT_US;
}

/* It has not answered, or not yet. Returns whether "unknown" is its word. */
static bool is_silent(struct control *c, enum pcmig_side side)
{
    const int64_t now = pcmig_migration_now_us(c->m);
    struct end *end = &c->end[side];
    const bool pending = end->attaching || pcmig_ask_pending(c, side, PCMIG_ASK_GUEST);

    if (end->silent_us == 0)
        end->silent_us = now > 0 ? now : 1;
    if (pending && now < pcmig_end_patient_us(c, side))
        return false;
    end->guest = (struct pcmig_virt_guest){.half = PCMIG_HALF_UNKNOWN};
    /* What is merely late may yet come; keepalive breaks what is dead. */
    end->reconnect = end->reconnect || !pending;
    return true;
}

bool pcmig_end_ask(struct control *c, enum pcmig_side side)
{
    struct end *end = &c->end[side];
    /* A late answer of the destination's counts only while the source says what it said before (ask.h). */
    struct pcmig_ask ask = {.number = side == PCMIG_SIDE_DESTINATION ? c->end[PCMIG_SIDE_SOURCE].guest.half : 0};

    if (end->attaching || pcmig_ask(c, side, PCMIG_ASK_GUEST, &ask) < 0)
        return is_silent(c, side);
    end->silent_us = 0;
    end->guest = ask.guest;
    if (ask.guest.half != PCMIG_HALF_POSTCOPY_FAILED)
        end->direction = DIRECTION_UNKNOWN;
    if (side == PCMIG_SIDE_DESTINATION)
        pcmig_unrun_half(&c->unrun, ask.guest.half, ask.guest.runs_on);
    return true;
}

int pcmig_end_turned_back(struct control *c)
{
    struct end *end = &c->end[PCMIG_SIDE_SOURCE];
    struct pcmig_ask ask = {0};
    int out;

    if (end->guest.half != PCMIG_HALF_POSTCOPY_FAILED || !end->guest.runs_on)
        return 0;
    if (!c->m->args.adopt) /* it began from there */
        return 1;
    /* What is adopted may be of a record of an older migration, which went the other way. */
    if (end->direction == DIRECTION_UNKNOWN) {
        out = pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_DIRECTION, &ask);
        end->direction = out < 0 ? DIRECTION_UNKNOWN : out > 0 ? DIRECTION_OUT : DIRECTION_IN;
    }
    return end->direction == DIRECTION_OUT ? 1 : end->direction == DIRECTION_IN ? 0 : -1;
}

/* What was missed goes through the mailbox like an event. It is news only where the core has not been told of as much.
 */
void pcmig_end_catch_up(struct control *c, enum pcmig_side side)
{
    static const struct {
        enum pcmig_side side;
        enum pcmig_half half;
        enum pcmig_engine_state before;
        enum pcmig_event event;
    } rows[] = {
        {PCMIG_SIDE_SOURCE, PCMIG_HALF_POSTCOPY, PCMIG_ENGINE_POSTCOPY, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY},
        {PCMIG_SIDE_SOURCE, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_ENGINE_INTERRUPTED, PCMIG_EVENT_SRC_POSTCOPY_FAILED},
        {PCMIG_SIDE_DESTINATION, PCMIG_HALF_POSTCOPY, PCMIG_ENGINE_POSTCOPY, PCMIG_EVENT_DST_RESUMED_POSTCOPY},
        {PCMIG_SIDE_DESTINATION, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_ENGINE_INTERRUPTED, PCMIG_EVENT_DST_POSTCOPY_FAILED},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT, .code = rows[i].event};

        if (rows[i].side == side && rows[i].half == c->end[side].guest.half && c->reached < rows[i].before)
            pcmig_migration_post(c->m, &input);
    }
}
