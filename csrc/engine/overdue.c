/* SPDX-License-Identifier: Apache-2.0 */
/* What does not come to its end before the switch is told to people, with what is known of it and no more. The guest is
 * left alone, but for one case: a source that stands still in its cancellation is freed (empty_half.h). */
#include "core/shell.h"
#include "engine/control.h"
#include "engine/empty_half.h"

#include <inttypes.h>
#include <stdio.h>

/* Longer than any cancellation that ends takes. */
#define ABORT_TELL_US 8000000
/* libvirt at the source needs a connection of its own to the destination, where ours may hold the last place
 * (max_clients). */
#define MAKE_ROOM_US  5000000
/* To see what is at the destination, if the connection there has to be opened again for it. */
#define CONNECT_US    3000000
/* So often the source is tried to be freed that could not be. */
#define FREE_AGAIN_US 2000000

static int64_t limit_us(const struct control *c)
{
    return c->m->args.params.value[PCMIG_PARAM_STILL_MS] * 1000;
}

static bool before_the_guest_moved(const struct control *c)
{
    return c->reached <= PCMIG_ENGINE_SWITCHING && !c->crossed;
}

static bool setting_up(const struct control *c)
{
    return c->reached <= PCMIG_ENGINE_PRECOPY && c->sample.memory_total_bytes == 0;
}

static void tell_still(struct control *c)
{
    const bool switching = c->reached == PCMIG_ENGINE_SWITCHING;
    char text[256];

    snprintf(text, sizeof(text), "%s for %" PRId64 " s; the guest is at the source%s",
             setting_up(c) ? "libvirt has been setting the migration up, and nothing was sent"
             : switching   ? "the switch was asked for and does not come, and nothing was sent"
                           : "nothing was sent",
             limit_us(c) / 1000000, switching ? "" : ", and the migration can be cancelled");
    pcmig_control_note(c, text, "");
}

/* Whether the guest was never asked to leave, as far as anybody here knows. */
static bool never_left(const struct control *c)
{
    return before_the_guest_moved(c) && !c->issued && !c->handed_off;
}

/* Whether what is at the destination is the empty half of a guest that never left. Both are asked, the source first; an
 * answer that does not come at once is waited for by nobody here. */
static bool empty_half(struct control *c)
{
    struct pcmig_virt_error ignored = {0};
    struct pcmig_ask ask = {0};
    enum pcmig_half source;

    if (!never_left(c) || pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_GUEST, &ask) < 0)
        return false;
    source = ask.guest.half;
    ask.number = source;
    return pcmig_ask(c, PCMIG_SIDE_DESTINATION, PCMIG_ASK_GUEST, &ask) == 0 &&
           pcmig_empty_half_may(source, ask.guest.half, &ignored);
}

/* Takes away what the source waits for. Returns whether it was there and is gone. */
static bool free_source(struct control *c, int64_t now)
{
    struct pcmig_ask ask = {0};

    c->abort.free_us = now + FREE_AGAIN_US;
    if (!empty_half(c) || pcmig_ask(c, PCMIG_SIDE_DESTINATION, PCMIG_TELL_DESTROY, &ask) < 0)
        return false;
    c->abort.state = ABORT_FREED;
    pcmig_control_note(c,
                       "the cancellation did not end: QEMU at the source may have waited for its other end, and the "
                       "guest with it; the empty half at the destination was removed, which lets the source go on",
                       "");
    return true;
}

/* What is left when it cannot be removed from here. */
static void tell_abort(struct control *c)
{
    const char *const destroy[] = {"virsh", "-c", c->m->args.dest_uri, "destroy", c->m->uuid};
    char command[512] = "", text[400];
    const bool empty =
        empty_half(c) && pcmig_shell_command(destroy, sizeof(destroy) / sizeof(destroy[0]), command, sizeof(command));

    c->abort.state = ABORT_TOLD;
    snprintf(
        text, sizeof(text),
        "libvirt took the cancellation %d s ago and it has not ended; whether the guest runs meanwhile is not known%s",
        ABORT_TELL_US / 1000000,
        empty ? "; the half at the destination is empty, and removing it lets the source go on" : "");
    pcmig_control_note(c, text, command);
    if (c->made_room) {
        pcmig_end_close(c, PCMIG_SIDE_DESTINATION);
        c->end[PCMIG_SIDE_DESTINATION].reconnect = false;
    }
}

static uint64_t sent(const struct control *c)
{
    const struct pcmig_sample *s = &c->sample;

    return s->memory_processed_bytes + s->disk_processed_bytes + s->normal_pages + s->zero_pages + s->iteration;
}

/* Makes room for libvirt's connection, and takes ours up again once it needs none any more. */
static void make_room(struct control *c, int64_t now)
{
    if (!c->made_room && c->call == CALL_RUNS && setting_up(c) && now >= c->others.called_us + MAKE_ROOM_US &&
        pcmig_ask_connected(c, PCMIG_SIDE_DESTINATION)) {
        pcmig_end_close(c, PCMIG_SIDE_DESTINATION);
        c->made_room = true;
    } else if (c->made_room && !setting_up(c)) {
        c->made_room = false;
        c->end[PCMIG_SIDE_DESTINATION].reconnect = true;
    }
}

/* When people are told of a cancellation that does not end: a connection to the destination comes first, if one can be
 * had. */
static int64_t tell_abort_us(const struct control *c)
{
    return c->abort.taken_us + ABORT_TELL_US + (!pcmig_ask_connected(c, PCMIG_SIDE_DESTINATION) ? CONNECT_US : 0);
}

static void look_at_abort(struct control *c, int64_t now)
{
    if (c->abort.state == ABORT_TOLD && now >= c->abort.free_us)
        (void)free_source(c, now);
    if (c->abort.state != ABORT_TAKEN || now < c->abort.taken_us + ABORT_TELL_US)
        return;
    if (!pcmig_ask_connected(c, PCMIG_SIDE_DESTINATION))
        c->end[PCMIG_SIDE_DESTINATION].reconnect = true;
    if (now >= tell_abort_us(c) && !free_source(c, now))
        tell_abort(c);
}

void pcmig_overdue_look(struct control *c)
{
    const int64_t now = pcmig_migration_now_us(c->m);

    if (c->others.waiting)
        return; /* nothing is to be expected yet */
    make_room(c, now);
    if (before_the_guest_moved(c) && pcmig_still_feed(&c->still, now, sent(c), limit_us(c)) && c->abort.taken_us == 0)
        tell_still(c);
    look_at_abort(c, now);
}

int64_t pcmig_overdue_due_us(const struct control *c)
{
    int64_t due = before_the_guest_moved(c) ? pcmig_still_due_us(&c->still, limit_us(c)) : PCMIG_NEVER_US;
    int64_t abort_us = tell_abort_us(c);

    if (c->others.waiting)
        return PCMIG_NEVER_US;
    if (c->abort.state == ABORT_TAKEN && !c->end[PCMIG_SIDE_DESTINATION].reconnect)
        abort_us = c->abort.taken_us + ABORT_TELL_US;
    if (c->abort.state == ABORT_TAKEN && due > abort_us)
        due = abort_us;
    if (c->abort.state == ABORT_TOLD && due > c->abort.free_us)
        due = c->abort.free_us;
    if (!c->made_room && c->call == CALL_RUNS && setting_up(c) && pcmig_ask_connected(c, PCMIG_SIDE_DESTINATION) &&
        due > c->others.called_us + MAKE_ROOM_US)
        due = c->others.called_us + MAKE_ROOM_US;
    return due;
}
