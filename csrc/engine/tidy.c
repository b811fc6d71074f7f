/* A guest that has moved leaves nothing behind that somebody could boot a second copy from. libvirt sees to it, but not when the
 * destination's daemon was stopped or ended while post-copy went on and its last answer was lost. Then the source keeps the guest, shut
 * off: with its definition, or without one as what a transient guest never is, inactive. virsh undefine refuses the latter, and virsh
 * start boots it; defined first, it can be undefined. Facts: libvirt 12.8, qemuMigrationSrcPostcopyFailed, qemuDomainUndefineFlags, and
 * tried. */
#include "core/guard.h"
#include "engine/control.h"

/* libvirt's own clearing up comes first. */
#define TIDY_AFTER_US 1000000

/* Never removes what is needed: the guest runs at the destination with all of its memory, and has its definition there when the only
 * other one is to go. */
static bool may_remove(const struct control *c, const struct pcmig_evidence *evidence, bool defined)
{
    return pcmig_guard_may(evidence, PCMIG_SIDE_SOURCE, PCMIG_ACT_UNDEFINE, false).allowed &&
           (!defined || (c->m->destination != NULL && pcmig_virt_is_defined(c->m->destination, c->m->uuid)));
}

enum tidy pcmig_tidy(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_virt_error error = {0};
    bool defined;

    if (evidence->source != PCMIG_HALF_ABSENT || m->source == NULL || !pcmig_virt_left_over(m->source, m->uuid))
        return TIDY_CLEAN;
    defined = pcmig_virt_is_defined(m->source, m->uuid);
    if (defined && (m->args.flags & pcmig_virt_flag_undefine_source()) == 0)
        return TIDY_CLEAN; /* as ordered */
    if (waited_us < TIDY_AFTER_US)
        return TIDY_LATER;
    if (may_remove(c, evidence, defined))
        (void)pcmig_virt_undefine(m->source, m->uuid, &error);
    return pcmig_virt_left_over(m->source, m->uuid) ? TIDY_LEFT : TIDY_CLEAN;
}
