/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations of pcmig's that leave one host over one link: what each says of itself and what the others leave to it, by
 * the real core/turns.h, as csrc/engine/others.c does. The file that they share is the array itself. */
#include "migration.h"

#define LOOK_US        100000
#define LOOK_URGENT_US 20000

void turns_begin(struct migration *m, int64_t now_us)
{
    char name[16];

    snprintf(name, sizeof(name), "g%u", m->number);
    pcmig_turns_meter_init(&m->meter, now_us, name, 1, 1, (uint64_t)m->qemu.guest.pages * 4096);
    m->meter.row.number = m->number;
    m->waits = true;
    m->look_us = now_us;
}

void turns_sample(struct migration *m, int64_t now_us, const struct pcmig_sample *sample)
{
    if (m->look_us != NEVER_US)
        pcmig_turns_meter_sample(&m->meter, now_us, sample, pcmig_policy_link_bps(m->policy),
                                 pcmig_policy_requests_ps(m->policy));
}

bool turns_look(struct migration *m, const struct migration *all, unsigned count, int64_t now_us)
{
    struct pcmig_turns_row rows[64];
    struct pcmig_turns_answer answer;
    size_t me = 0, found = 0;

    if (!m->waits)
        pcmig_turns_meter_phase(&m->meter, now_us, pcmig_ledger_phase_now(m->ledger));
    if (m->qemu.state == QEMU_SWITCHING || m->qemu.state == QEMU_POSTCOPY)
        m->meter.row.pace_mib = (int64_t)(m->qemu.postcopy_bps / 1048576);
    for (unsigned i = 0; i < count; i++) {
        if (all[i].look_us == NEVER_US || all[i].meter.row.phase == PCMIG_TURNS_NONE)
            continue;
        if (&all[i] == m)
            me = found;
        rows[found++] = all[i].meter.row;
    }
    if (found == 0 || m->meter.row.phase == PCMIG_TURNS_NONE)
        return false;
    pcmig_turns_decide(rows, found, me, now_us, &answer);
    pcmig_turns_meter_answer(&m->meter, now_us, &answer);
    m->look_us = now_us + (m->meter.row.phase == PCMIG_TURNS_DRAIN ? LOOK_URGENT_US : LOOK_US);
    m->bound_mib = answer.bound_mib;
    steer_bandwidth(m);
    if (answer.link_bps > 0 && pcmig_policy_link_bps(m->policy) == 0)
        steer_tell(m, now_us, PCMIG_INPUT_LINK_RATE, (int64_t)answer.link_bps);
    if (answer.behind != m->behind) {
        m->behind = answer.behind;
        steer_tell(m, now_us, PCMIG_INPUT_BEHIND, (int64_t)answer.behind);
    }
    if (answer.turn != m->turn) {
        m->turn = answer.turn;
        steer_turn(m, now_us, answer.turn);
    }
    return m->waits && answer.turn != PCMIG_TURN_WAITING;
}
