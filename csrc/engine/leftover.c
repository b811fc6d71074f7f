/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that has moved leaves nothing behind that somebody could boot a second copy from. libvirt sees to it, but not
 * when the destination's daemon was stopped or ended while post-copy went on and its last answer was lost. Then the
 * source keeps the guest, shut off: with its definition, or without one as what a transient guest never is, inactive.
 * virsh undefine refuses the latter, and virsh start boots it; defined first, it can be undefined. Facts: libvirt 12.8,
 * qemuMigrationSrcPostcopyFailed, qemuDomainUndefineFlags, and tried. */
#include "core/flags.h"
#include "core/guard.h"
#include "core/shell.h"
#include "engine/control.h"

#include <stdio.h>

/* libvirt's own clearing up comes first. */
#define REMOVE_AFTER_US      1000000
/* A job of libvirt's own may still hold the guest. */
#define AUTOSTART_GIVE_UP_US 5000000
/* A daemon that was restarted takes a while until it answers, says that the guest runs, and has defined it. */
#define SETTLED_WITHIN_US    6000000

/* Never removes what is needed: the guest runs at the destination with all of its memory. */
static bool may_forget(const struct pcmig_evidence *seen)
{
    struct pcmig_evidence evidence = *seen;

    evidence.in_flight = true;
    return seen->destination == PCMIG_HALF_RUNNING &&
           pcmig_guard_may(&evidence, PCMIG_SIDE_SOURCE, PCMIG_ACT_UNDEFINE, false).allowed;
}

/* What a host was asked, and has not answered yet. */
#define UNTOLD (-2)

/* Whether the guest has a definition there: 1, 0, -1 where it cannot be told, or UNTOLD. */
static int defined(struct control *c, enum pcmig_side side)
{
    struct pcmig_ask ask = {0};
    int result = pcmig_ask(c, side, PCMIG_ASK_DEFINED, &ask);

    return result < 0 && pcmig_ask_pending(c, side, PCMIG_ASK_DEFINED) ? UNTOLD : result;
}

/* Whether it is at the source still, as far as that one says. */
static bool left_over(struct control *c)
{
    struct pcmig_ask ask = {0};

    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_GUEST, &ask) < 0)
        return true;
    return ask.guest.left_over;
}

/* Has the source forget it. Returns 1 or 0, or UNTOLD. */
static int forget(struct control *c, bool is_defined)
{
    struct pcmig_ask ask = {.number = is_defined ? 1 : 0};

    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_FORGET, &ask) == 0)
        return 1;
    return pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_FORGET) ? UNTOLD : 0;
}

/* The source's definition is removed only by order, and when the destination has one; of a migration that was adopted
 * and needed no call of ours it is told. */
static enum leftover_state remove_definition(struct control *c, bool allowed, int64_t waited_us)
{
    const struct pcmig_migration *m = c->m;
    int forgotten;

    if ((m->args.flags & PCMIG_FLAG_UNDEFINE_SOURCE) == 0)
        return LEFTOVER_NONE;
    if (c->call == CALL_NONE)
        return LEFTOVER_UNDEFINE;
    if (!allowed || defined(c, PCMIG_SIDE_DESTINATION) != 1)
        return waited_us < SETTLED_WITHIN_US ? LEFTOVER_LATER : LEFTOVER_LOOK;
    forgotten = forget(c, true);
    if (forgotten == UNTOLD && waited_us < SETTLED_WITHIN_US)
        return LEFTOVER_LATER;
    return forgotten > 0 ? LEFTOVER_NONE : LEFTOVER_UNDEFINE;
}

/* The source's definition was to go, and its half was ended by other means (by hand, where it was the rest of an
 * interrupted post-copy): it is told, as nothing says that a migration left it. */
static enum leftover_state ordered_and_left(struct control *c, int64_t waited_us)
{
    int source, destination;

    if ((c->m->args.flags & PCMIG_FLAG_UNDEFINE_SOURCE) == 0)
        return LEFTOVER_NONE;
    source = defined(c, PCMIG_SIDE_SOURCE);
    destination = source == 1 ? defined(c, PCMIG_SIDE_DESTINATION) : 0;
    if ((source == UNTOLD || destination == UNTOLD) && waited_us < SETTLED_WITHIN_US)
        return LEFTOVER_LATER;
    return source == 1 && destination == 1 ? LEFTOVER_UNDEFINE : LEFTOVER_NONE;
}

static void tell_autostart(struct control *c, const char *why)
{
    const struct pcmig_migration *m = c->m;
    const char *name = m->args.dest_name != NULL ? m->args.dest_name : m->name;
    const char *const words[] = {"virsh", "-c", m->args.dest_uri, "autostart", pcmig_shell_guest(name, m->uuid)};
    char command[512], text[640];

    snprintf(text, sizeof(text),
             "the guest started with its host at the source, and that was not set at the destination: %s", why);
    (void)pcmig_shell_command(words, sizeof(words) / sizeof(words[0]), command, sizeof(command));
    pcmig_control_note(c, text, command);
}

void pcmig_leftover_autostart(struct control *c, int64_t waited_us)
{
    struct pcmig_ask on = {.number = 1}, off = {.number = 0};
    bool there = pcmig_ask(c, PCMIG_SIDE_DESTINATION, PCMIG_TELL_AUTOSTART, &on) == 0;
    /* A definition that stays would boot a second copy. */
    int source = there ? defined(c, PCMIG_SIDE_SOURCE) : UNTOLD;

    c->autostart_done =
        there && source != UNTOLD && (source != 1 || pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_AUTOSTART, &off) == 0);
    if (c->autostart_done || waited_us < AUTOSTART_GIVE_UP_US)
        return;
    c->autostart_done = true;
    tell_autostart(c, !there             ? on.error.message
                      : source == UNTOLD ? "the source has not answered yet"
                                         : off.error.message);
}

enum leftover_state pcmig_leftover_remove(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us)
{
    int is_defined, forgotten = 0;

    if (evidence->source != PCMIG_HALF_ABSENT || !pcmig_ask_connected(c, PCMIG_SIDE_SOURCE))
        return LEFTOVER_NONE;
    if (!c->end[PCMIG_SIDE_SOURCE].guest.left_over)
        return ordered_and_left(c, waited_us);
    if (waited_us < REMOVE_AFTER_US)
        return LEFTOVER_LATER;
    is_defined = defined(c, PCMIG_SIDE_SOURCE);
    if (is_defined == 1)
        return remove_definition(c, may_forget(evidence), waited_us);
    if (is_defined == 0 && may_forget(evidence))
        forgotten = forget(c, false);
    if (forgotten > 0)
        return LEFTOVER_NONE;
    if ((evidence->destination != PCMIG_HALF_RUNNING || is_defined == UNTOLD || forgotten == UNTOLD) &&
        waited_us < SETTLED_WITHIN_US)
        return LEFTOVER_LATER;
    return left_over(c) ? LEFTOVER_LOOK : LEFTOVER_NONE;
}
