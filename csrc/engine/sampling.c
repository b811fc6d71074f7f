/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU samples of the guest's writing: started just before the migrate call, as libvirt refuses it (a modifying
 * job) once the migration runs, and read while that runs, which is a query. Whatever goes wrong, it is simply not
 * known. See control.h. */
#include "engine/control.h"

/* A second is the least that libvirt takes, and the best: the pages written to within one bound what any later pass
 * can leave from below. */
#define SAMPLED_S  1
#define RESULT_US  1100000
/* QEMU may be slow to hash the pages of a large guest. */
#define GIVE_UP_US 30000000

void pcmig_sampling_start(struct pcmig_migration *m, struct pcmig_virt_domain *domain)
{
    struct pcmig_virt_error ignored = {0};

    if (m->args.policy != PCMIG_POLICY_AUTO && m->args.policy != PCMIG_POLICY_DEADLINE)
        return; /* nobody asks */
    if (pcmig_virt_sample_writes(domain, SAMPLED_S, &ignored) == 0)
        atomic_store(&m->sampled_us, pcmig_migration_now_us(m));
}

void pcmig_sampling_look(struct control *c)
{
    struct pcmig_input input = {.t_us = pcmig_migration_now_us(c->m), .kind = PCMIG_INPUT_DIRTY_RATE};
    struct pcmig_ask ask = {0};
    int64_t since_us = atomic_load(&c->m->sampled_us);
    int result;

    if (since_us < 0 || input.t_us - since_us < RESULT_US)
        return;
    result = pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_WRITES, &ask);
    if (pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_WRITES))
        result = 0;
    input.code = ask.bytes_ps;
    if (result == 0 && input.t_us - since_us < GIVE_UP_US)
        return; /* not yet */
    atomic_store(&c->m->sampled_us, -1);
    if (result > 0)
        pcmig_control_feed(c, &input);
}
