/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that has moved leaves nothing behind that somebody could boot a second copy from. libvirt sees to it, but not when the
 * destination's daemon was stopped or ended while post-copy went on and its last answer was lost. Then the source keeps the guest, shut
 * off: with its definition, or without one as what a transient guest never is, inactive. virsh undefine refuses the latter, and virsh
 * start boots it; defined first, it can be undefined. Facts: libvirt 12.8, qemuMigrationSrcPostcopyFailed, qemuDomainUndefineFlags, and
 * tried. */
#include "core/guard.h"
#include "core/shell.h"
#include "engine/control.h"

#include <stdio.h>

/* libvirt's own clearing up comes first. */
#define TIDY_AFTER_US        1000000
/* A job of libvirt's own may still hold the guest. */
#define AUTOSTART_GIVE_UP_US 5000000
/* A daemon that was restarted says that the guest runs before it has written its definition. */
#define TIDY_DEFINED_US      4000000

/* Never removes what is needed: the guest runs at the destination with all of its memory. */
static bool may_forget(const struct pcmig_evidence *seen)
{
    struct pcmig_evidence evidence = *seen;

    evidence.in_flight = true;
    return seen->destination == PCMIG_HALF_RUNNING &&
           pcmig_guard_may(&evidence, PCMIG_SIDE_SOURCE, PCMIG_ACT_UNDEFINE, false).allowed;
}

/* The source's definition is removed only by order, and when the destination has one; of a migration that was adopted and
 * needed no call of ours it is told. */
static enum tidy tidy_definition(const struct control *c, bool allowed, int64_t waited_us)
{
    const struct pcmig_migration *m = c->m;

    if ((m->args.flags & pcmig_virt_flag_undefine_source()) == 0)
        return TIDY_CLEAN;
    if (!c->called_once)
        return TIDY_LEFT;
    if (!allowed || m->destination == NULL)
        return TIDY_UNCLEAR;
    if (pcmig_virt_defined(m->destination, m->uuid) != 1)
        return waited_us < TIDY_DEFINED_US ? TIDY_LATER : TIDY_UNCLEAR;
    return pcmig_virt_forget(m->source, m->uuid, true) ? TIDY_CLEAN : TIDY_LEFT;
}

/* The source's definition was to go, and its half was ended by other means (by hand, where it was the rest of an interrupted post-copy): it
 * is told, as nothing says that a migration left it. */
static bool ordered_and_left(const struct pcmig_migration *m)
{
    return (m->args.flags & pcmig_virt_flag_undefine_source()) != 0 && pcmig_virt_defined(m->source, m->uuid) == 1 &&
           m->destination != NULL && pcmig_virt_defined(m->destination, m->uuid) == 1;
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

bool pcmig_tidy_autostart(struct control *c, int64_t waited_us)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_virt_error error = {0};

    if (!m->args.autostart || c->autostart_moved)
        return true;
    if (m->destination == NULL)
        pcmig_virt_error_set(&error, PCMIG_VIRT_FAILURE_CONNECT, "it cannot be reached from here");
    else if (pcmig_virt_set_autostart(m->destination, m->uuid, true, &error) == 0)
        /* A definition that stays would boot a second copy. */
        c->autostart_moved = m->source == NULL || pcmig_virt_defined(m->source, m->uuid) != 1 ||
                             pcmig_virt_set_autostart(m->source, m->uuid, false, &error) == 0;
    if (c->autostart_moved)
        return true;
    if (waited_us < AUTOSTART_GIVE_UP_US)
        return false;
    c->autostart_moved = true;
    tell_autostart(c, error.message);
    return true;
}

enum tidy pcmig_tidy(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us)
{
    struct pcmig_migration *m = c->m;
    int defined;

    if (evidence->source != PCMIG_HALF_ABSENT || m->source == NULL)
        return TIDY_CLEAN;
    if (!pcmig_virt_left_over(m->source, m->uuid))
        return ordered_and_left(m) ? TIDY_LEFT : TIDY_CLEAN;
    if (waited_us < TIDY_AFTER_US)
        return TIDY_LATER;
    defined = pcmig_virt_defined(m->source, m->uuid);
    if (defined == 1)
        return tidy_definition(c, may_forget(evidence), waited_us);
    if (defined == 0 && may_forget(evidence) && pcmig_virt_forget(m->source, m->uuid, false))
        return TIDY_CLEAN;
    return pcmig_virt_left_over(m->source, m->uuid) ? TIDY_UNCLEAR : TIDY_CLEAN;
}
