/* SPDX-License-Identifier: Apache-2.0 */
/* What does not come to its end before the switch is told to people, with what is known of it and no more. Nothing is done to the guest. */
#include "core/guard.h"
#include "core/shell.h"
#include "engine/control.h"

#include <inttypes.h>
#include <stdio.h>

/* Longer than any cancellation that ends takes. */
#define ABORT_TELL_US   8000000
/* libvirt at the source needs a connection of its own to the destination, where ours may hold the last place (max_clients). */
#define YIELD_US        5000000
#define OPEN_TIMEOUT_MS 3000

static int64_t limit_us(const struct control *c)
{
    return c->m->args.params.value[PCMIG_PARAM_STILL_MS] * 1000;
}

static bool before_the_guest_moved(const struct control *c)
{
    return pcmig_ledger_phase_now(c->m->ledger) <= PCMIG_PHASE_SWITCHOVER && !c->crossed;
}

static bool setting_up(const struct control *c)
{
    return pcmig_ledger_phase_now(c->m->ledger) == PCMIG_PHASE_SETUP && c->last.memory_total_bytes == 0;
}

static void tell_still(struct control *c)
{
    const enum pcmig_phase phase = pcmig_ledger_phase_now(c->m->ledger);
    char text[256];

    snprintf(text, sizeof(text), "%s for %" PRId64 " s; the guest is at the source%s",
             setting_up(c)                     ? "libvirt has been setting the migration up, and nothing was sent"
             : phase == PCMIG_PHASE_SWITCHOVER ? "the switch was asked for and does not come, and nothing was sent"
                                               : "nothing was sent",
             limit_us(c) / 1000000, phase == PCMIG_PHASE_SWITCHOVER ? "" : ", and the migration can be cancelled");
    pcmig_control_note(c, text, "");
}

/* Whether what is at the destination is the empty half of a guest that never left. */
static bool empty_half(struct control *c)
{
    struct pcmig_evidence evidence = {.job_active = true, .in_flight = true};
    struct pcmig_virt_error error = {0};

    if (c->m->destination == NULL)
        (void)pcmig_preflight_open(c->m, false, OPEN_TIMEOUT_MS, &error);
    return c->m->source != NULL && c->m->destination != NULL && before_the_guest_moved(c) && !c->handed_off &&
           pcmig_virt_half(c->m->source, c->m->uuid, &evidence.source, &error) == 0 &&
           pcmig_virt_half(c->m->destination, c->m->uuid, &evidence.destination, &error) == 0 &&
           evidence.source == PCMIG_HALF_RUNNING && evidence.destination == PCMIG_HALF_MIGRATING &&
           pcmig_memory_where(&evidence) == PCMIG_MEMORY_SOURCE;
}

/* Seen with QEMU 11.1: told to cancel in the moment at which it begins, it waits for its own other end, and the guest with it. */
static void tell_abort(struct control *c)
{
    const char *const destroy[] = {"virsh", "-c", c->m->args.dest_uri, "destroy", c->m->uuid};
    char command[512] = "", text[400];
    const bool empty =
        empty_half(c) && pcmig_shell_command(destroy, sizeof(destroy) / sizeof(destroy[0]), command, sizeof(command));

    c->abort_told = true;
    snprintf(
        text, sizeof(text),
        "libvirt took the cancellation %d s ago and it has not ended; whether the guest runs meanwhile is not known%s",
        ABORT_TELL_US / 1000000,
        empty ? "; the half at the destination is empty, and removing it lets the source go on" : "");
    pcmig_control_note(c, text, command);
    if (c->yielded)
        pcmig_preflight_close_destination(c->m);
}

static uint64_t sent(const struct control *c)
{
    const struct pcmig_sample *s = &c->last;

    return s->memory_processed_bytes + s->disk_processed_bytes + s->normal_pages + s->zero_pages + s->iteration;
}

/* Makes room for libvirt's connection, and takes ours up again once it needs none any more. */
static void yield(struct control *c, int64_t now)
{
    if (!c->yielded && c->called && setting_up(c) && now >= YIELD_US && c->m->destination != NULL) {
        pcmig_preflight_close_destination(c->m);
        c->yielded = true;
    } else if (c->yielded && !setting_up(c)) {
        c->yielded = false;
        c->broken[0] = true; /* to be reopened */
    }
}

void pcmig_waits_look(struct control *c)
{
    const int64_t now = pcmig_migration_now_us(c->m);

    yield(c, now);
    if (before_the_guest_moved(c) && pcmig_still_feed(&c->still, now, sent(c), limit_us(c)) && c->abort_taken_us == 0)
        tell_still(c);
    if (c->abort_taken_us > 0 && !c->abort_told && now - c->abort_taken_us >= ABORT_TELL_US)
        tell_abort(c);
}

int64_t pcmig_waits_due_us(const struct control *c)
{
    int64_t due = before_the_guest_moved(c) ? pcmig_still_due_us(&c->still, limit_us(c)) : PCMIG_NEVER_US;

    if (c->abort_taken_us > 0 && !c->abort_told && due > c->abort_taken_us + ABORT_TELL_US)
        due = c->abort_taken_us + ABORT_TELL_US;
    if (!c->yielded && c->called && setting_up(c) && c->m->destination != NULL && due > YIELD_US)
        due = YIELD_US;
    return due;
}
