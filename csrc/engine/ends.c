/* SPDX-License-Identifier: Apache-2.0 */
/* The connections to both hosts, and what each says of its half. The migrate call has a connection of its own, and goes
 * on when one of these breaks; a new one is opened in the background, so that a host which does not answer keeps nobody
 * from steering. Questions to a host whose connection stands are asked and waited for. */
#include "edge/virt_qemu.h"
#include "engine/control.h"

#include <stdlib.h>

#define RECONNECT_US   1000000
/* An attempt that has not succeeded by then is given up for a new one: TCP tries again at growing distances, and would
 * notice late that the host is back. libvirt cannot cancel it, so its thread stays for about two minutes. */
#define GIVE_UP_US     10000000
/* So long "unknown" is not taken for the host's answer. */
#define BEING_ASKED_US 3000000
#define STACK_BYTES    (512 * 1024)

/* --- connecting --------------------------------------------------------------------------------------------------- */

/* What a connection leaves behind. Closing it asks the daemon to take events back, which lasts when it does not answer.
 */
struct closing {
    struct pcmig_virt_conn *conn;
    struct pcmig_virt_watch *watch;
    struct pcmig_virt_domain *domain;
};

static void *closing_main(void *arg)
{
    struct closing *closing = arg;

    pcmig_virt_unwatch(closing->watch);
    pcmig_virt_domain_free(closing->domain);
    pcmig_virt_close(closing->conn);
    free(closing);
    return NULL;
}

void pcmig_end_close(struct control *c, enum pcmig_side side)
{
    struct pcmig_migration *m = c->m;
    struct closing *closing = calloc(1, sizeof(*closing));
    struct closing here = {m->conn[side], m->watch[side], side == PCMIG_SIDE_SOURCE ? m->domain : NULL};
    pthread_attr_t attr;
    pthread_t thread;
    int failure = -1;

    m->conn[side] = NULL;
    m->watch[side] = NULL;
    if (side == PCMIG_SIDE_DESTINATION)
        pcmig_unrun_gap(&c->unrun);
    if (side == PCMIG_SIDE_SOURCE)
        m->domain = NULL;
    c->end[side].libvirt = 0;
    c->end[side].direction = DIRECTION_UNKNOWN;
    if (closing != NULL && here.conn != NULL) {
        *closing = here;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, STACK_BYTES);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        failure = pthread_create(&thread, &attr, closing_main, closing);
        pthread_attr_destroy(&attr);
    }
    if (failure == 0)
        return;
    /* Short of a thread or memory it is waited for. */
    free(closing);
    pcmig_virt_unwatch(here.watch);
    pcmig_virt_domain_free(here.domain);
    pcmig_virt_close(here.conn);
}

static void on_opened(void *migration)
{
    struct pcmig_migration *m = migration;

    pthread_mutex_lock(&m->lock);
    m->mailbox.opened = true;
    pthread_cond_broadcast(&m->cond);
    pthread_mutex_unlock(&m->lock);
    pcmig_migration_unref(m);
}

static void begin(struct control *c, enum pcmig_side side, int64_t now)
{
    struct end *end = &c->end[side];
    const char *uri = side == PCMIG_SIDE_SOURCE ? c->m->args.source_uri : c->m->args.dest_uri;
    struct pcmig_virt_error error = {0};

    pcmig_end_close(c, side);
    end->reconnect_us = now + RECONNECT_US;
    pcmig_migration_ref(c->m); /* on_opened gives it back */
    end->opening = pcmig_virt_open_begin(uri, on_opened, c->m, &error);
    end->opening_us = now;
    if (end->opening == NULL)
        pcmig_migration_unref(c->m);
}

/* Takes what the attempt came to, if it is over. */
static void take(struct control *c, enum pcmig_side side, int64_t now)
{
    struct end *end = &c->end[side];
    struct pcmig_virt_error error = {0};
    struct pcmig_virt_conn *conn = NULL;

    if (!pcmig_virt_open_poll(end->opening, &conn, &error)) {
        if (now - end->opening_us < GIVE_UP_US)
            return;
        pcmig_virt_open_abandon(end->opening);
    }
    end->opening = NULL;
    end->reconnect_us = now + RECONNECT_US;
    if (conn == NULL)
        return;
    end->reconnect = pcmig_preflight_attach(c->m, side, conn, &error) < 0;
    c->look_us = 0; /* where both are being asked, that comes at once */
    if (pcmig_ending_wanted(c))
        return;
    pcmig_end_ask(c, side);
    pcmig_end_catch_up(c, side);
}

void pcmig_ends_connect(struct control *c)
{
    int64_t now = pcmig_migration_now_us(c->m);

    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        if (c->end[side].opening != NULL)
            take(c, (enum pcmig_side)side, now);
        else if (c->end[side].reconnect && now >= c->end[side].reconnect_us)
            begin(c, (enum pcmig_side)side, now);
    }
}

int64_t pcmig_ends_due_us(const struct control *c)
{
    int64_t due = PCMIG_NEVER_US;

    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        const struct end *end = &c->end[side];
        int64_t at = end->opening != NULL ? end->opening_us + GIVE_UP_US
                     : end->reconnect     ? end->reconnect_us
                                          : PCMIG_NEVER_US;

        due = due < at ? due : at;
    }
    return due;
}

bool pcmig_end_being_asked(const struct control *c, enum pcmig_side side)
{
    const struct end *end = &c->end[side];

    return end->half == PCMIG_HALF_UNKNOWN && pcmig_migration_now_us(c->m) - end->asked_us < BEING_ASKED_US &&
           (end->opening != NULL || end->reconnect);
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

void pcmig_end_ask(struct control *c, enum pcmig_side side)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_virt_error error = {0};
    struct end *end = &c->end[side];
    enum pcmig_half half;

    if (m->conn[side] != NULL && pcmig_virt_half(m->conn[side], m->uuid, &half, &error) == 0) {
        end->half = half;
        if (half != PCMIG_HALF_POSTCOPY_FAILED)
            end->direction = DIRECTION_UNKNOWN;
        if (side == PCMIG_SIDE_DESTINATION)
            pcmig_unrun_half(&c->unrun, half);
        /* A daemon that had just been started may not have known the guest when the connection was opened. */
        if (side == PCMIG_SIDE_SOURCE && m->domain == NULL && end->half != PCMIG_HALF_ABSENT)
            m->domain = pcmig_virt_lookup(m->conn[side], m->uuid, &error);
        return;
    }
    /* From now on, or the whole time: a connection that was taken up again and broke at once has answered. */
    if (end->half != PCMIG_HALF_UNKNOWN || end->asked_us == 0)
        end->asked_us = pcmig_migration_now_us(m);
    end->half = PCMIG_HALF_UNKNOWN;
    end->reconnect = true;
}

int pcmig_end_turned_back(struct control *c)
{
    struct pcmig_migration *m = c->m;
    struct end *end = &c->end[PCMIG_SIDE_SOURCE];
    struct pcmig_virt_conn *conn = m->conn[PCMIG_SIDE_SOURCE];
    struct pcmig_virt_error error = {0};
    struct pcmig_virt_turn_back seen;

    if (end->half != PCMIG_HALF_POSTCOPY_FAILED || conn == NULL || !pcmig_virt_runs_on(conn, m->uuid))
        return 0;
    if (!m->args.adopt) /* it began from there */
        return 1;
    /* What is adopted may be of a record of an older migration, which went the other way. */
    if (end->direction == DIRECTION_UNKNOWN && m->domain != NULL &&
        pcmig_virt_turn_back_look(m->domain, &seen, &error) == 0)
        end->direction = pcmig_virt_turn_back_half(&seen) == PCMIG_TURN_BACK_OTHER ? DIRECTION_IN : DIRECTION_OUT;
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

        if (rows[i].side == side && rows[i].half == c->end[side].half && c->reached < rows[i].before)
            pcmig_migration_post(c->m, &input);
    }
}
