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

/* The source's definition is removed only by order, and when the destination has one; of a migration that was adopted
 * and needed no call of ours it is told. */
static enum leftover_state remove_definition(const struct control *c, bool allowed, int64_t waited_us)
{
    const struct pcmig_migration *m = c->m;

    if ((m->args.flags & PCMIG_FLAG_UNDEFINE_SOURCE) == 0)
        return LEFTOVER_NONE;
    if (c->call == CALL_NONE)
        return LEFTOVER_UNDEFINE;
    if (!allowed || m->conn[PCMIG_SIDE_DESTINATION] == NULL ||
        pcmig_virt_defined(m->conn[PCMIG_SIDE_DESTINATION], m->uuid) != 1)
        return waited_us < SETTLED_WITHIN_US ? LEFTOVER_LATER : LEFTOVER_LOOK;
    return pcmig_virt_forget(m->conn[PCMIG_SIDE_SOURCE], m->uuid, true) ? LEFTOVER_NONE : LEFTOVER_UNDEFINE;
}

/* The source's definition was to go, and its half was ended by other means (by hand, where it was the rest of an
 * interrupted post-copy): it is told, as nothing says that a migration left it. */
static bool ordered_and_left(const struct pcmig_migration *m)
{
    return (m->args.flags & PCMIG_FLAG_UNDEFINE_SOURCE) != 0 &&
           pcmig_virt_defined(m->conn[PCMIG_SIDE_SOURCE], m->uuid) == 1 && m->conn[PCMIG_SIDE_DESTINATION] != NULL &&
           pcmig_virt_defined(m->conn[PCMIG_SIDE_DESTINATION], m->uuid) == 1;
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
    struct pcmig_virt_conn *const *conn = c->m->conn;
    struct pcmig_virt_error error = {0};
    const char *uuid = c->m->uuid;

    if (conn[PCMIG_SIDE_DESTINATION] == NULL)
        pcmig_virt_error_set(&error, PCMIG_VIRT_FAILURE_CONNECT, "it cannot be reached from here");
    else if (pcmig_virt_set_autostart(conn[PCMIG_SIDE_DESTINATION], uuid, true, &error) == 0)
        /* A definition that stays would boot a second copy. */
        c->autostart_done = conn[PCMIG_SIDE_SOURCE] == NULL || pcmig_virt_defined(conn[PCMIG_SIDE_SOURCE], uuid) != 1 ||
                            pcmig_virt_set_autostart(conn[PCMIG_SIDE_SOURCE], uuid, false, &error) == 0;
    if (c->autostart_done || waited_us < AUTOSTART_GIVE_UP_US)
        return;
    c->autostart_done = true;
    tell_autostart(c, error.message);
}

enum leftover_state pcmig_leftover_remove(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us)
{
    struct pcmig_migration *m = c->m;
    int defined;

    if (evidence->source != PCMIG_HALF_ABSENT || m->conn[PCMIG_SIDE_SOURCE] == NULL)
        return LEFTOVER_NONE;
    if (!pcmig_virt_left_over(m->conn[PCMIG_SIDE_SOURCE], m->uuid))
        return ordered_and_left(m) ? LEFTOVER_UNDEFINE : LEFTOVER_NONE;
    if (waited_us < REMOVE_AFTER_US)
        return LEFTOVER_LATER;
    defined = pcmig_virt_defined(m->conn[PCMIG_SIDE_SOURCE], m->uuid);
    if (defined == 1)
        return remove_definition(c, may_forget(evidence), waited_us);
    if (defined == 0 && may_forget(evidence) && pcmig_virt_forget(m->conn[PCMIG_SIDE_SOURCE], m->uuid, false))
        return LEFTOVER_NONE;
    if (evidence->destination != PCMIG_HALF_RUNNING && waited_us < SETTLED_WITHIN_US)
        return LEFTOVER_LATER;
    return pcmig_virt_left_over(m->conn[PCMIG_SIDE_SOURCE], m->uuid) ? LEFTOVER_LOOK : LEFTOVER_NONE;
}
