/* SPDX-License-Identifier: Apache-2.0 */
/* The other migrations that leave the host: what they are told of this one, and what they leave to it (core/turns.h).
 * See control.h. */
#include "engine/control.h"

#include "core/flags.h"
#include "core/uri.h"
#include "edge/clock.h"
#include "edge/this_host.h"
#include "edge/turns_file.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

/* How late the others' news may be. */
#define LOOK_US        100000
/* The same in a drain, in which a guest is kept waiting for them. */
#define LOOK_URGENT_US 20000

/* --- the link ----------------------------------------------------------------------------------------------------- */

/* The interface that the stream will leave by, as far as the address is told: a name is not looked up, as that may take
 * long. 0 = not known. */
static uint32_t link_of(const struct pcmig_migration_args *args)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    const char *uri = args->migrate_uri != NULL ? args->migrate_uri : args->dest_uri;
    struct sockaddr_storage peer = {0};
    struct addrinfo *found = NULL;
    char host[256];

    /* Of another host's routes nothing is known; a tunnel's stream goes to a socket of this one. */
    if (!pcmig_this_host(args->source_uri) || pcmig_this_host(uri) || !pcmig_uri_host(uri, host, sizeof(host)) ||
        getaddrinfo(host, NULL, &hints, &found) != 0)
        return 0;
    if (found->ai_addrlen <= sizeof(peer))
        memcpy(&peer, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return pcmig_route_interface(&peer);
}

/* --- what they are told ------------------------------------------------------------------------------------------- */

void pcmig_others_begin(struct control *c)
{
    const struct pcmig_migration_args *args = &c->m->args;
    struct pcmig_ask ask = {0};

    c->others.waiting = !args->adopt;
    c->others.seat = pcmig_turns_join();
    if (c->others.seat == NULL)
        return;
    pcmig_turns_meter_init(&c->others.meter, pcmig_clock_us(), c->m->name, pcmig_turns_network(args->source_uri),
                           link_of(args), pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_MEMORY, &ask) == 0 ? ask.bytes : 0);
    pcmig_others_look(c);
}

void pcmig_others_end(struct control *c)
{
    pcmig_turns_leave(c->others.seat);
    c->others.seat = NULL;
}

void pcmig_others_sample(struct control *c, const struct pcmig_sample *sample)
{
    if (c->others.seat != NULL)
        pcmig_turns_meter_sample(&c->others.meter, pcmig_clock_us(), sample, pcmig_policy_link_bps(c->m->policy),
                                 pcmig_policy_requests_ps(c->m->policy));
}

void pcmig_others_queue(struct control *c, int64_t queue_bytes)
{
    c->others.meter.row.queue_bytes = queue_bytes;
}

/* --- what they leave ---------------------------------------------------------------------------------------------- */

/* "g2 (draining)"; "" = for nobody. */
static void tell(struct control *c, const struct pcmig_turns_row *other, enum pcmig_turn turn)
{
    struct pcmig_migration_status *status = &c->m->status;
    char text[sizeof(status->waits_for)] = "";

    if (other != NULL)
        snprintf(text, sizeof(text), "%.63s (%s)", other->name, pcmig_turns_phase_name(other->phase));
    if (status->turn == turn && strcmp(status->waits_for, text) == 0)
        return;
    pthread_mutex_lock(&c->m->lock);
    status->turn = turn;
    memcpy(status->waits_for, text, sizeof(text));
    pthread_mutex_unlock(&c->m->lock);
    c->publish = true;
}

static void heed(struct control *c, const struct pcmig_turns_answer *answer)
{
    struct pcmig_input input;

    if (c->others.bound_mib != answer->bound_mib) {
        c->others.bound_mib = answer->bound_mib;
        /* The call brings a bandwidth of its own. */
        if (!c->others.waiting)
            pcmig_bandwidth_heed(c);
    }
    /* What they have measured of the link, until this one has: a guest that is switched before that has no pace to go
     * by, and does not end in time. */
    if (answer->link_bps > 0 && answer->link_bps <= INT64_MAX && pcmig_policy_link_bps(c->m->policy) == 0) {
        input = (struct pcmig_input){
            .t_us = pcmig_migration_now_us(c->m), .kind = PCMIG_INPUT_LINK_RATE, .code = (int64_t)answer->link_bps};
        pcmig_control_feed(c, &input);
    }
    if (c->others.behind != answer->behind) {
        c->others.behind = answer->behind;
        input = (struct pcmig_input){
            .t_us = pcmig_migration_now_us(c->m), .kind = PCMIG_INPUT_BEHIND, .code = (int64_t)answer->behind};
        pcmig_control_feed(c, &input);
    }
    if (c->others.turn == answer->turn)
        return;
    c->others.turn = answer->turn;
    input = (struct pcmig_input){.kind = PCMIG_INPUT_TURN, .code = answer->turn};
    input.t_us = pcmig_migration_now_us(c->m);
    pcmig_control_feed(c, &input);
}

void pcmig_others_look(struct control *c)
{
    struct pcmig_turns_row rows[PCMIG_TURNS_ROWS];
    struct pcmig_turns_answer answer;
    int64_t now = pcmig_clock_us();
    size_t me, count;

    if (c->others.seat == NULL)
        return;
    if (!c->others.waiting)
        pcmig_turns_meter_phase(&c->others.meter, now, pcmig_ledger_phase_now(c->m->ledger));
    c->others.meter.row.pace_mib = c->m->status.pace_mib;
    c->others.meter.row.gate = c->m->status.gate;
    pcmig_turns_write(c->others.seat, &c->others.meter.row);
    count = pcmig_turns_read(c->others.seat, rows, &me);
    if (count == 0)
        return; /* a child of the process that it began in */
    pcmig_turns_decide(rows, count, me, now, &answer);
    /* libvirt copies disks with the bandwidth of the call for good: such a call is not made early. */
    if (c->others.waiting && answer.turn == PCMIG_TURN_BOUNDED &&
        (c->m->args.flags & (PCMIG_FLAG_NON_SHARED_DISK | PCMIG_FLAG_NON_SHARED_INC)) != 0) {
        answer.turn = PCMIG_TURN_WAITING;
        answer.bound_mib = 0;
    }
    pcmig_turns_meter_answer(&c->others.meter, now, &answer);
    c->others.look_us =
        pcmig_migration_now_us(c->m) + (c->others.meter.row.phase == PCMIG_TURNS_DRAIN ? LOOK_URGENT_US : LOOK_US);
    heed(c, &answer);
    /* What it does from now on. */
    pcmig_turns_write(c->others.seat, &c->others.meter.row);
    tell(c, answer.waits_for >= 0 ? &rows[answer.waits_for] : NULL, answer.turn);
}

int64_t pcmig_others_due_us(const struct control *c)
{
    return c->others.seat != NULL ? c->others.look_us : PCMIG_NEVER_US;
}
