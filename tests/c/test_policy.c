/* SPDX-License-Identifier: Apache-2.0 */
/* When each policy switches, against guests of a model (guest_model.h) and against input of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "guest_model.h"

#define SECOND INT64_C(1000000)
#define ANY    PCMIG_REASON_COUNT

/* One at a time; too large for a thread's habits. */
static struct guest_model m;
static struct pcmig_params params;

static int defaults(void **state)
{
    (void)state;
    pcmig_params_defaults(&params);
    return 0;
}

static int drop(void **state)
{
    (void)state;
    guest_model_free(&m);
    return 0;
}

static void begin(enum pcmig_policy_kind kind, bool continuous)
{
    guest_model_free(&m);
    guest_model_init(&m, kind, &params, false);
    m.continuous = continuous;
}

static void begin_gated(enum pcmig_policy_kind kind)
{
    guest_model_free(&m);
    guest_model_init(&m, kind, &params, true);
}

static void run(int64_t for_us)
{
    guest_model_run(&m, for_us);
    if (m.broken != NULL)
        fail_msg("broken rule: %s", m.broken);
}

static const struct pcmig_decision *said(enum pcmig_action action, enum pcmig_reason reason)
{
    const struct pcmig_decision *decision = guest_model_said(&m, action, reason);

    if (decision == NULL)
        fail_msg("never said %s, %s", pcmig_action_name(action), pcmig_reason_name(reason));
    return decision;
}

static bool ever(enum pcmig_action action)
{
    return guest_model_said(&m, action, ANY) != NULL;
}

/* --- each policy against each QEMU ------------------------------------------------------------------------------- */

/* The guest writes more than the link carries: auto says so early in the second pass, and not in the first. */
static void auto_busy(void **state)
{
    (void)state;
    for (int continuous = 0; continuous < 2; continuous++) {
        double pass_s;

        begin(PCMIG_POLICY_AUTO, continuous == 1);
        pass_s = m.guest_pages / m.link_pages_ps;
        run(300 * SECOND);
        assert_true(m.postcopy && m.finished);
        assert_true(said(PCMIG_ACTION_DRAIN, ANY)->t_us >= (int64_t)(pass_s * 0.95e6));
        assert_true(said(PCMIG_ACTION_DRAIN, ANY)->t_us <= (int64_t)(pass_s * 2.2e6));
        assert_true(said(PCMIG_ACTION_SWITCH, PCMIG_REASON_DRAINED)->t_us > said(PCMIG_ACTION_DRAIN, ANY)->t_us);
        assert_int_equal(guest_model_count(&m, PCMIG_ACTION_SWITCH), 1);
        assert_int_equal(guest_model_count(&m, PCMIG_ACTION_UNDRAIN), 0);
    }
}

static void auto_idle_never_switches(void **state)
{
    (void)state;
    for (int continuous = 0; continuous < 2; continuous++) {
        begin(PCMIG_POLICY_AUTO, continuous == 1);
        m.writes_ps = 50;
        run(300 * SECOND);
        assert_true(m.finished && !m.postcopy);
        assert_false(ever(PCMIG_ACTION_DRAIN));
        assert_false(ever(PCMIG_ACTION_SWITCH));
    }
}

/* Each pass leaves half: auto lets it, and it ends by itself. */
static void auto_converging(void **state)
{
    (void)state;
    params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1500;
    begin(PCMIG_POLICY_AUTO, false);
    m.writes_ps = m.link_pages_ps * 0.45;
    run(300 * SECOND);
    assert_true(m.finished && !m.postcopy);
    assert_false(ever(PCMIG_ACTION_DRAIN));
}

/* Converges, but would take far longer than post-copy. */
static void auto_too_slow(void **state)
{
    (void)state;
    params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1000;
    begin(PCMIG_POLICY_AUTO, false);
    m.writes_ps = m.link_pages_ps * 0.55;
    run(600 * SECOND);
    assert_true(m.postcopy);
    assert_in_range(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_TOO_SLOW)->c, 300, 666);
}

/* Statistics are asked for sparingly, also where events come every 55 ms. */
static void looks_sparingly(void **state)
{
    (void)state;
    for (int continuous = 0; continuous < 2; continuous++) {
        begin(PCMIG_POLICY_MANUAL, continuous == 1);
        run(20 * SECOND);
        assert_in_range(m.samples, 20, 20 * 20); /* sample_min_ms is 50 */
    }
}

static void passes(void **state)
{
    (void)state;
    for (int continuous = 0; continuous < 2; continuous++) {
        double pass_s;

        begin(PCMIG_POLICY_FIRST_PASS, continuous == 1);
        pass_s = m.guest_pages / m.link_pages_ps;
        run(300 * SECOND);
        assert_int_equal(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_PASSES_DONE)->a, 1);
        assert_in_range(said(PCMIG_ACTION_DRAIN, ANY)->t_us, pass_s * 0.95e6, pass_s * 1.1e6);
        assert_true(m.postcopy && m.finished);
        params.value[PCMIG_PARAM_PASSES] = 3;
        begin(PCMIG_POLICY_PASSES, continuous == 1);
        run(300 * SECOND);
        assert_int_equal(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_PASSES_DONE)->a, 3);
        /* The later passes are over the working set only, half of the memory. */
        assert_in_range(said(PCMIG_ACTION_DRAIN, ANY)->t_us, pass_s * 1.5e6, pass_s * 2.3e6);
    }
}

static void deadline(void **state)
{
    (void)state;
    params.value[PCMIG_PARAM_DEADLINE_MS] = 3000;
    begin(PCMIG_POLICY_DEADLINE, false);
    run(300 * SECOND);
    assert_in_range(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_DEADLINE)->t_us, 3 * SECOND, 3 * SECOND + 10000);
    assert_true(m.postcopy && m.finished);
    /* Like auto before that. */
    params.value[PCMIG_PARAM_DEADLINE_MS] = 250000;
    begin(PCMIG_POLICY_DEADLINE, true);
    run(300 * SECOND);
    assert_int_not_equal(said(PCMIG_ACTION_DRAIN, ANY)->reason, PCMIG_REASON_DEADLINE);
}

static void immediate(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_IMMEDIATE, true);
    run(300 * SECOND);
    assert_in_range(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_IMMEDIATE)->t_us, 1, 1500000);
    assert_true(m.postcopy && m.finished);
}

static void manual(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_MANUAL, false);
    run(100 * SECOND);
    assert_false(ever(PCMIG_ACTION_DRAIN));
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    run(100 * SECOND);
    (void)said(PCMIG_ACTION_DRAIN, PCMIG_REASON_REQUESTED);
    assert_true(m.postcopy && m.finished);
}

static void never_and_abort_after(void **state)
{
    (void)state;
    params.value[PCMIG_PARAM_ABORT_AFTER_MS] = 30000;
    begin(PCMIG_POLICY_NEVER, true);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    run(300 * SECOND);
    assert_in_range(said(PCMIG_ACTION_ABORT, PCMIG_REASON_ABORT_AFTER)->t_us, 30 * SECOND, 30 * SECOND + 10000);
    assert_int_equal(m.said_count, 1);
}

/* --- drain and switch -------------------------------------------------------------------------------------------- */

static int64_t drained_after_us(enum pcmig_reason reason)
{
    return said(PCMIG_ACTION_SWITCH, reason)->t_us - said(PCMIG_ACTION_DRAIN, ANY)->t_us;
}

static void drain_blind(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_FIRST_PASS, false);
    m.queue_seen = false;
    run(300 * SECOND);
    /* As long as a full socket needs at 100 Mb/s. */
    assert_in_range(drained_after_us(PCMIG_REASON_DRAIN_BLIND), 300000, 420000);
}

static void drain_timeout(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_FIRST_PASS, false);
    m.queue_stuck = true;
    run(300 * SECOND);
    /* Twice what the queue needs, and a fifth of a second. */
    assert_in_range(drained_after_us(PCMIG_REASON_DRAIN_TIMEOUT), 500000, 700000);
}

/* The post-copy pace is in force before the switch, not after the first burst. */
static void paced_before_the_switch(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_FIRST_PASS, false);
    run(300 * SECOND);
    assert_true(said(PCMIG_ACTION_SET_PACE, ANY) < said(PCMIG_ACTION_SWITCH, ANY));
}

static void refused(void **state)
{
    int64_t pause_us = 0, last_us = 0;

    (void)state;
    begin(PCMIG_POLICY_FIRST_PASS, false);
    m.refusals = 12;
    run(300 * SECOND);
    assert_int_equal(guest_model_count(&m, PCMIG_ACTION_SWITCH), 13);
    assert_int_equal(guest_model_count(&m, PCMIG_ACTION_UNDRAIN), 1);
    assert_true(m.postcopy && m.finished);
    for (unsigned i = 0; i < m.said_count; i++) {
        if (m.said[i].action != PCMIG_ACTION_SWITCH)
            continue;
        if (last_us != 0) {
            int64_t now_us = m.said[i].t_us - last_us;

            assert_true(now_us <= SECOND + 10000);
            assert_true(now_us >= pause_us - 10000);                                 /* never shorter */
            assert_true(now_us >= 2 * pause_us - 10000 || now_us >= SECOND - 10000); /* doubles up to a second */
            pause_us = now_us;
        }
        last_us = m.said[i].t_us;
    }
    assert_true(pause_us >= SECOND - 10000);
}

/* A switch that is refused for ever does not outlive abort_after. */
static void refused_until_abort_after(void **state)
{
    (void)state;
    params.value[PCMIG_PARAM_ABORT_AFTER_MS] = 60000;
    begin(PCMIG_POLICY_FIRST_PASS, false);
    m.refusals = 100000;
    run(300 * SECOND);
    assert_in_range(said(PCMIG_ACTION_ABORT, PCMIG_REASON_ABORT_AFTER)->t_us, 60 * SECOND, 60 * SECOND + 10000);
}

/* virsh migrate-postcopy, by somebody else. */
static void switched_by_another(void **state)
{
    (void)state;
    for (int continuous = 0; continuous < 2; continuous++) {
        begin(PCMIG_POLICY_MANUAL, continuous == 1);
        run(5 * SECOND);
        m.answer_us = m.now_us;
        run(300 * SECOND);
        assert_true(m.postcopy && m.finished);
        assert_false(ever(PCMIG_ACTION_SWITCH));
        assert_int_equal(m.said[0].action, PCMIG_ACTION_SET_PACE);
    }
}

/* --- other migrations of the host --------------------------------------------------------------------------------- */

static void held_until_another_is_switched(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_FIRST_PASS, false);
    run(SECOND);
    guest_model_turn(&m, PCMIG_TURN_HELD);
    run(60 * SECOND);
    assert_false(ever(PCMIG_ACTION_DRAIN));
    guest_model_turn(&m, PCMIG_TURN_FREE);
    assert_int_equal(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_PASSES_DONE)->t_us, m.now_us);
    run(60 * SECOND);
    assert_true(ever(PCMIG_ACTION_SWITCH));
}

/* Whoever asks for a switch, or has set a deadline, does not wait for the whole of another guest's post-copy, which may
 * be hours: only for one that is being switched, and in the drain, so that it is next. */
static void asked_for_while_another_has_the_link(void **state)
{
    (void)state;
    for (int deadline = 0; deadline < 2; deadline++) {
        params.value[PCMIG_PARAM_DEADLINE_MS] = 10000;
        begin(deadline ? PCMIG_POLICY_DEADLINE : PCMIG_POLICY_MANUAL, false);
        m.writes_ps = 100000;
        run(SECOND);
        guest_model_turn(&m, PCMIG_TURN_BOUNDED);
        if (!deadline)
            guest_model_request(&m, PCMIG_REQUEST_SWITCH);
        run(12 * SECOND);
        assert_non_null(said(PCMIG_ACTION_DRAIN, deadline ? PCMIG_REASON_DEADLINE : PCMIG_REASON_REQUESTED));
        guest_model_turn(&m, PCMIG_TURN_HELD); /* it is asked for its drain, and another is just switched */
        run(2 * SECOND);
        assert_false(ever(PCMIG_ACTION_SWITCH));
        guest_model_turn(&m, PCMIG_TURN_FREE);
        run(SECOND);
        assert_true(ever(PCMIG_ACTION_SWITCH));
    }
    /* Before the migrate call there is nothing to switch. */
    begin(PCMIG_POLICY_MANUAL, false);
    guest_model_turn(&m, PCMIG_TURN_WAITING);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    m.now_us += 100 * SECOND;
    assert_false(ever(PCMIG_ACTION_DRAIN));
    guest_model_turn(&m, PCMIG_TURN_FREE);
    assert_int_equal(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_REQUESTED)->t_us, m.now_us);
}

/* The drain begins, and the switch comes once the others have made room. */
static void switched_once_there_is_room(void **state)
{
    int64_t drain_us;

    (void)state;
    begin(PCMIG_POLICY_MANUAL, false);
    run(5 * SECOND);
    guest_model_turn(&m, PCMIG_TURN_CROWDED);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    drain_us = said(PCMIG_ACTION_DRAIN, PCMIG_REASON_REQUESTED)->t_us;
    run(2 * SECOND);
    assert_false(ever(PCMIG_ACTION_SWITCH));
    assert_true(m.due_us <= m.now_us + 5000);
    guest_model_turn(&m, PCMIG_TURN_FREE);
    run(SECOND);
    assert_true(said(PCMIG_ACTION_SWITCH, ANY)->t_us >= drain_us + 2 * SECOND);
}

/* An idle guest that is held back has more to send again and again: that says nothing about the guest. */
static void bounded_is_no_evidence(void **state)
{
    uint64_t link_bps;

    (void)state;
    begin(PCMIG_POLICY_AUTO, false);
    m.working_pages = 2000;
    m.writes_ps = 400; /* 1.6 MB/s: converges on 12.5, not on 1 */
    m.downtime_s = 0.05;
    run(5 * SECOND);
    link_bps = pcmig_policy_link_bps(m.policy);
    assert_true(link_bps > 0);
    m.bandwidth = 256;
    guest_model_turn(&m, PCMIG_TURN_BOUNDED);
    run(300 * SECOND);
    assert_int_equal(pcmig_policy_link_bps(m.policy), link_bps);
    m.bandwidth = 0;
    guest_model_turn(&m, PCMIG_TURN_FREE);
    run(100 * SECOND);
    assert_false(ever(PCMIG_ACTION_DRAIN));
    assert_true(m.finished);
}

/* Deadlines are of the migration, which has not begun. */
static void waiting_is_not_counted(void **state)
{
    (void)state;
    params.value[PCMIG_PARAM_ABORT_AFTER_MS] = 60000;
    begin(PCMIG_POLICY_MANUAL, false);
    guest_model_turn(&m, PCMIG_TURN_WAITING);
    m.now_us += 100 * SECOND;
    guest_model_turn(&m, PCMIG_TURN_FREE);
    m.writes_ps = 100000;
    run(200 * SECOND);
    assert_in_range(said(PCMIG_ACTION_ABORT, PCMIG_REASON_ABORT_AFTER)->t_us, 160 * SECOND, 160 * SECOND + 10000);
}

/* Another guest's switch comes between the drain and the gate's answer: it is waited for, and the gate's answer is
 * not lost. */
static void held_at_the_gate(void **state)
{
    (void)state;
    begin_gated(PCMIG_POLICY_FIRST_PASS);
    while (pcmig_policy_gate(m.policy) != PCMIG_GATE_WANTED)
        run(SECOND / 10);
    run(SECOND);
    guest_model_turn(&m, PCMIG_TURN_HELD);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    run(3 * SECOND);
    assert_false(ever(PCMIG_ACTION_SWITCH));
    /* Nobody is to believe meanwhile that the guest is being switched. */
    assert_int_equal(pcmig_policy_gate(m.policy), PCMIG_GATE_CLOSED);
    guest_model_turn(&m, PCMIG_TURN_FREE);
    run(SECOND);
    assert_int_equal(pcmig_policy_gate(m.policy), PCMIG_GATE_WANTED);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    run(SECOND);
    assert_true(ever(PCMIG_ACTION_SWITCH));
}

/* --- requests ---------------------------------------------------------------------------------------------------- */

static void abort_requests(void **state)
{
    struct pcmig_input abort_input = {.kind = PCMIG_INPUT_REQUEST, .code = PCMIG_REQUEST_ABORT};
    struct pcmig_decision d;

    (void)state;
    begin(PCMIG_POLICY_AUTO, false); /* in pre-copy, refused by libvirt: the guest is not switched all the same */
    m.ignores_abort = true;
    run(2 * SECOND);
    guest_model_request(&m, PCMIG_REQUEST_ABORT);
    run(200 * SECOND);
    assert_int_equal(m.said_count, 1);
    (void)said(PCMIG_ACTION_ABORT, PCMIG_REASON_REQUESTED);

    begin(PCMIG_POLICY_MANUAL, false); /* in a drain */
    run(2 * SECOND);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    assert_true(m.draining);
    guest_model_request(&m, PCMIG_REQUEST_ABORT);
    run(20 * SECOND);
    (void)said(PCMIG_ACTION_ABORT, PCMIG_REASON_REQUESTED);
    assert_false(ever(PCMIG_ACTION_SWITCH));

    begin(PCMIG_POLICY_IMMEDIATE, false); /* in post-copy */
    run(5 * SECOND);
    assert_true(m.postcopy && !m.finished);
    abort_input.t_us = m.now_us;
    pcmig_policy_feed(m.policy, &abort_input, &d);
    assert_int_equal(d.action, PCMIG_ACTION_KEEP);
    assert_int_equal(d.reason, PCMIG_REASON_TOO_LATE);
}

static void detach(void **state)
{
    const struct pcmig_decision *last;

    (void)state;
    begin(PCMIG_POLICY_IMMEDIATE, false); /* in post-copy: an open pace is left behind */
    run(5 * SECOND);
    assert_true(m.postcopy && !m.finished);
    guest_model_request(&m, PCMIG_REQUEST_DETACH);
    last = said(PCMIG_ACTION_SET_PACE, PCMIG_REASON_DETACHED);
    assert_true(last->pace_mib >= guest_model_said(&m, PCMIG_ACTION_SET_PACE, ANY)->pace_mib);
    run(300 * SECOND);
    assert_ptr_equal(last, &m.said[m.said_count - 1]);

    begin(PCMIG_POLICY_MANUAL, false); /* in a drain: pre-copy is not left behind slow */
    run(2 * SECOND);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    guest_model_request(&m, PCMIG_REQUEST_DETACH);
    (void)said(PCMIG_ACTION_UNDRAIN, PCMIG_REASON_DETACHED);

    begin(PCMIG_POLICY_AUTO, false); /* in pre-copy: nothing more is decided */
    run(2 * SECOND);
    guest_model_request(&m, PCMIG_REQUEST_DETACH);
    run(60 * SECOND);
    assert_int_equal(m.said_count, 0);
}

/* --- the gate ---------------------------------------------------------------------------------------------------- */

/* Runs until the policy has said ACTION once more. */
static const struct pcmig_decision *run_until(enum pcmig_action action)
{
    unsigned before = guest_model_count(&m, action);

    for (int64_t end_us = m.now_us + 300 * SECOND; guest_model_count(&m, action) == before; run(5000)) {
        if (m.now_us > end_us || m.finished)
            fail_msg("never said %s again", pcmig_action_name(action));
    }
    for (unsigned i = m.said_count; i > 0; i--) {
        if (m.said[i - 1].action == action)
            return &m.said[i - 1];
    }
    return NULL;
}

static enum pcmig_gate_state gate(void)
{
    return pcmig_policy_gate(m.policy);
}

/* Pre-copy goes on at full speed while the gate is asked for; once it is open, the link is drained, and then comes
 * the switch. */
static void gate_before_drain(void **state)
{
    const struct pcmig_decision *drain;
    double sent;

    (void)state;
    begin_gated(PCMIG_POLICY_FIRST_PASS);
    assert_int_equal(gate(), PCMIG_GATE_CLOSED);
    (void)run_until(PCMIG_ACTION_ASK);
    assert_int_equal(gate(), PCMIG_GATE_WANTED);
    sent = m.sent;
    run(3 * SECOND);
    assert_true(m.sent - sent > 2.9 * m.link_pages_ps);
    assert_false(ever(PCMIG_ACTION_DRAIN));
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    drain = said(PCMIG_ACTION_DRAIN, PCMIG_REASON_GATE_OPEN);
    assert_int_equal(drain->t_us, m.now_us);
    assert_in_range(drain->a, 3000, 3010);
    (void)run_until(PCMIG_ACTION_SWITCH);
    (void)said(PCMIG_ACTION_SWITCH, PCMIG_REASON_DRAINED);
    run(300 * SECOND);
    assert_true(m.postcopy && m.finished);
    assert_int_equal(guest_model_count(&m, PCMIG_ACTION_DRAIN), 1);
    assert_int_equal(guest_model_count(&m, PCMIG_ACTION_UNDRAIN), 0);
    assert_int_equal(gate(), PCMIG_GATE_OPEN);
}

/* Opened before it was asked for: as if there were none. */
static void gate_opened_early(void **state)
{
    (void)state;
    begin_gated(PCMIG_POLICY_FIRST_PASS);
    run(SECOND);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    assert_int_equal(m.said_count, 0);
    run(300 * SECOND);
    (void)said(PCMIG_ACTION_SWITCH, PCMIG_REASON_DRAINED);
    assert_true(m.postcopy && m.finished);
}

static void gate_is_refused(void **state)
{
    (void)state;
    begin_gated(PCMIG_POLICY_FIRST_PASS);
    (void)run_until(PCMIG_ACTION_ASK);
    run(SECOND);
    guest_model_request(&m, PCMIG_REQUEST_REFUSE_GATE);
    assert_int_equal(said(PCMIG_ACTION_UNDRAIN, PCMIG_REASON_GATE_REFUSED)->t_us, m.now_us);
    assert_int_equal(gate(), PCMIG_GATE_REFUSED);
    run(60 * SECOND); /* full speed again, and nothing is asked */
    assert_int_equal(guest_model_count(&m, PCMIG_ACTION_ASK), 1);
    assert_false(m.draining);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH); /* the operator insists */
    assert_int_equal(guest_model_count(&m, PCMIG_ACTION_ASK), 2);
    assert_int_equal(gate(), PCMIG_GATE_WANTED);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    run(300 * SECOND);
    assert_true(m.postcopy && m.finished);

    begin_gated(PCMIG_POLICY_FIRST_PASS); /* before it was asked for */
    guest_model_request(&m, PCMIG_REQUEST_REFUSE_GATE);
    run(60 * SECOND);
    assert_int_equal(m.said_count, 0);
    assert_int_equal(gate(), PCMIG_GATE_REFUSED);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE); /* changed its mind */
    run(300 * SECOND);
    assert_true(m.postcopy && m.finished);

    begin_gated(PCMIG_POLICY_FIRST_PASS); /* opened, taken back in the drain, and after a switch that libvirt refused */
    m.refusals = 100000;
    (void)run_until(PCMIG_ACTION_ASK);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    guest_model_request(&m, PCMIG_REQUEST_REFUSE_GATE);
    (void)said(PCMIG_ACTION_UNDRAIN, PCMIG_REASON_GATE_REFUSED);
    run(10 * SECOND);
    assert_false(ever(PCMIG_ACTION_SWITCH));
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    run(5 * SECOND);
    assert_true(guest_model_count(&m, PCMIG_ACTION_SWITCH) > 1);
    guest_model_request(&m, PCMIG_REQUEST_REFUSE_GATE);
    m.said_count = 0;
    run(10 * SECOND);
    assert_int_equal(m.said_count, 0);
}

/* Not answered: pre-copy goes on, and it is asked for again. */
static void gate_times_out(void **state)
{
    const struct pcmig_decision *undrain;
    int64_t asked_us;

    (void)state;
    begin_gated(PCMIG_POLICY_FIRST_PASS);
    asked_us = run_until(PCMIG_ACTION_ASK)->t_us;
    undrain = run_until(PCMIG_ACTION_UNDRAIN);
    assert_int_equal(undrain->reason, PCMIG_REASON_GATE_TIMEOUT);
    assert_in_range(undrain->t_us - asked_us, 5 * SECOND, 5 * SECOND + 10000);
    assert_in_range(undrain->a, 5000, 5010);
    assert_int_equal(gate(), PCMIG_GATE_CLOSED);
    asked_us = run_until(PCMIG_ACTION_ASK)->t_us;
    assert_in_range(asked_us - undrain->t_us, 5 * SECOND, 5 * SECOND + 600000);
    assert_int_equal(gate(), PCMIG_GATE_WANTED);
    (void)run_until(PCMIG_ACTION_UNDRAIN);
    run(SECOND);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE); /* late: counts for the next time, which comes at once */
    assert_int_equal(run_until(PCMIG_ACTION_SWITCH)->reason, PCMIG_REASON_DRAINED);
    assert_in_range(m.now_us - undrain->t_us, 10 * SECOND, 13 * SECOND);
    run(300 * SECOND);
    assert_true(m.postcopy && m.finished);

    begin_gated(PCMIG_POLICY_MANUAL); /* what the operator asked for is not forgotten */
    run(5 * SECOND);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH);
    (void)run_until(PCMIG_ACTION_UNDRAIN);
    asked_us = m.now_us;
    assert_int_equal(run_until(PCMIG_ACTION_ASK)->reason, PCMIG_REASON_REQUESTED);
    assert_in_range(m.now_us - asked_us, 4900000, 5 * SECOND + 10000);
    (void)run_until(PCMIG_ACTION_UNDRAIN);
    guest_model_request(&m, PCMIG_REQUEST_SWITCH); /* nor does it wait */
    assert_int_equal(gate(), PCMIG_GATE_WANTED);
}

/* Other policies, and what ends a drain that waits. */
static void gate_and_the_rest(void **state)
{
    (void)state;
    begin_gated(PCMIG_POLICY_IMMEDIATE);
    (void)run_until(PCMIG_ACTION_ASK);
    run(SECOND);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    (void)said(PCMIG_ACTION_DRAIN, PCMIG_REASON_GATE_OPEN);

    begin_gated(PCMIG_POLICY_AUTO); /* the operator cancels */
    (void)run_until(PCMIG_ACTION_ASK);
    run(SECOND);
    guest_model_request(&m, PCMIG_REQUEST_ABORT);
    (void)said(PCMIG_ACTION_ABORT, PCMIG_REASON_REQUESTED);
    assert_int_equal(gate(), PCMIG_GATE_CLOSED);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    run(20 * SECOND);
    assert_false(ever(PCMIG_ACTION_SWITCH));
    assert_null(m.broken);

    params.value[PCMIG_PARAM_ABORT_AFTER_MS] = 30000; /* time is up in a drain that waits */
    params.value[PCMIG_PARAM_DEADLINE_MS] = 28000;
    begin_gated(PCMIG_POLICY_DEADLINE);
    run(300 * SECOND);
    assert_true(said(PCMIG_ACTION_ASK, ANY)->t_us < 30 * SECOND);
    assert_in_range(said(PCMIG_ACTION_ABORT, PCMIG_REASON_ABORT_AFTER)->t_us, 30 * SECOND, 30 * SECOND + 10000);
    assert_int_equal(gate(), PCMIG_GATE_CLOSED);
    (void)defaults(NULL);

    begin_gated(PCMIG_POLICY_FIRST_PASS); /* somebody else switches */
    (void)run_until(PCMIG_ACTION_ASK);
    m.answer_us = m.now_us + SECOND;
    run(300 * SECOND);
    assert_true(m.postcopy && m.finished);
    assert_int_equal(gate(), PCMIG_GATE_CLOSED);

    begin_gated(PCMIG_POLICY_FIRST_PASS); /* we let go */
    (void)run_until(PCMIG_ACTION_ASK);
    guest_model_request(&m, PCMIG_REQUEST_DETACH);
    (void)said(PCMIG_ACTION_UNDRAIN, PCMIG_REASON_DETACHED);

    begin(PCMIG_POLICY_FIRST_PASS, false); /* no gate: answers mean nothing */
    assert_int_equal(gate(), PCMIG_GATE_NONE);
    guest_model_request(&m, PCMIG_REQUEST_REFUSE_GATE);
    (void)run_until(PCMIG_ACTION_DRAIN);
    guest_model_request(&m, PCMIG_REQUEST_REFUSE_GATE);
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    run(300 * SECOND);
    assert_true(m.postcopy && m.finished);
    assert_int_equal(guest_model_count(&m, PCMIG_ACTION_UNDRAIN), 0);
    assert_int_equal(gate(), PCMIG_GATE_NONE);
}

/* A drain in vain leaves the link's rate as it was: the drain's own is not measured. */
static void drain_leaves_the_rate(void **state)
{
    uint64_t before;

    (void)state;
    begin_gated(PCMIG_POLICY_FIRST_PASS);
    (void)run_until(PCMIG_ACTION_ASK);
    before = pcmig_policy_link_bps(m.policy);
    m.refusals = 100000;
    guest_model_request(&m, PCMIG_REQUEST_OPEN_GATE);
    run(SECOND / 2);
    guest_model_request(&m, PCMIG_REQUEST_REFUSE_GATE);
    (void)said(PCMIG_ACTION_UNDRAIN, PCMIG_REASON_GATE_REFUSED);
    run(3 * SECOND);
    assert_in_range(pcmig_policy_link_bps(m.policy), before * 95 / 100, before * 105 / 100);
}

/* --- what is strange --------------------------------------------------------------------------------------------- */

/* Failing statistics are no evidence, and asking for them over and over helps nobody. */
static void failing_statistics(void **state)
{
    static const enum pcmig_policy_kind kinds[] = {PCMIG_POLICY_AUTO, PCMIG_POLICY_FIRST_PASS, PCMIG_POLICY_IMMEDIATE,
                                                   PCMIG_POLICY_DEADLINE};

    (void)state;
    params.value[PCMIG_PARAM_DEADLINE_MS] = 2000;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        begin(kinds[i], true);
        m.stats_fail = true;
        run(20 * SECOND);
        assert_int_equal(m.said_count, 0);
        assert_true(m.looks <= 20 * 20 + 1);
    }
}

static void time_goes_backwards(void **state)
{
    struct pcmig_decision first, second;
    struct pcmig_input input = {.t_us = 5 * SECOND, .kind = PCMIG_INPUT_TICK};

    (void)state;
    begin(PCMIG_POLICY_AUTO, false);
    pcmig_policy_feed(m.policy, &input, &first);
    input.t_us = SECOND;
    pcmig_policy_feed(m.policy, &input, &second);
    assert_int_equal(second.t_us, first.t_us);
    assert_true(second.next_us > first.t_us);
    input.t_us = INT64_MIN;
    pcmig_policy_feed(m.policy, &input, &second);
    assert_int_equal(second.t_us, first.t_us);
}

/* xorshift64*: the same streams on every machine. */
static uint64_t draw(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

static void next_input(uint64_t *seed, struct pcmig_input *input)
{
    struct pcmig_sample *s = &input->sample;
    uint64_t kind = draw(seed) % 100;

    input->t_us += (int64_t)(draw(seed) % 400000) - 20000;
    input->code = 0;
    if (kind < 66) {
        uint64_t pages = draw(seed) % 6000;

        input->kind = PCMIG_INPUT_SAMPLE;
        s->normal_pages += pages;
        s->memory_processed_bytes += pages * 4096;
        s->iteration += draw(seed) % 3;
        s->memory_remaining_bytes = draw(seed) % (draw(seed) % 2 == 0 ? 65536 : 8000) * 4096;
        s->postcopy_requests += draw(seed) % 2000;
    } else if (kind < 76) {
        input->kind = PCMIG_INPUT_QUEUE;
    } else if (kind < 84) {
        input->kind = PCMIG_INPUT_ITERATION;
    } else if (kind < 94) {
        input->kind = PCMIG_INPUT_TICK;
    } else if (kind < 96) {
        input->kind = PCMIG_INPUT_TURN;
        input->code = (int64_t)(draw(seed) % (PCMIG_TURN_COUNT + 1));
    } else if (kind < 98) {
        input->kind = PCMIG_INPUT_EVENT;
        input->code = (int64_t)(draw(seed) % (PCMIG_EVENT_COUNT + 1));
    } else {
        input->kind = PCMIG_INPUT_REQUEST;
        input->code = (int64_t)(draw(seed) % (PCMIG_REQUEST_COUNT + 1));
    }
    s->queue_bytes = (int64_t)(draw(seed) % 3 == 0 ? draw(seed) % 4000000 : 0) - (draw(seed) % 5 == 0);
}

static void random_streams(void **state)
{
    unsigned actions[PCMIG_ACTION_COUNT] = {0};

    (void)state;
    params.value[PCMIG_PARAM_DEADLINE_MS] = 5000;
    params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS] = 20;
    for (unsigned stream = 0; stream < 4000; stream++) {
        uint64_t seed = UINT64_C(0x9E3779B97F4A7C15) * (stream + 1);
        struct pcmig_input input = {.sample = {.memory_total_bytes = 65536 * 4096, .page_size_bytes = 4096}};
        struct pcmig_policy *twin;
        bool gated = stream / PCMIG_POLICY_KIND_COUNT % 2 == 1;

        params.value[PCMIG_PARAM_ABORT_AFTER_MS] = stream % 4 == 0 ? 20000 : 0;
        guest_model_free(&m);
        guest_model_init(&m, (enum pcmig_policy_kind)(stream % PCMIG_POLICY_KIND_COUNT), &params, gated);
        twin = pcmig_policy_new(m.rules.kind, &params, gated);
        assert_non_null(twin);
        for (int i = 0; i < 150; i++) {
            struct pcmig_decision d, other;
            const char *broken;

            next_input(&seed, &input);
            pcmig_policy_feed(m.policy, &input, &d);
            pcmig_policy_feed(twin, &input, &other);
            assert_memory_equal(&d, &other, sizeof(d));
            broken = policy_rules_check(&m.rules, m.policy, &input, &d);
            if (broken != NULL)
                fail_msg("stream %u, input %d, %s: %s", stream, i, pcmig_action_name(d.action), broken);
            actions[d.action]++;
        }
        pcmig_policy_free(twin);
    }
    for (int action = 0; action < PCMIG_ACTION_COUNT; action++) {
        if (actions[action] == 0) /* the streams are to reach everything */
            fail_msg("never said %s", pcmig_action_name((enum pcmig_action)action));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, defaults, drop)
    const struct CMUnitTest tests[] = {
        TEST(auto_busy),
        TEST(auto_idle_never_switches),
        TEST(auto_converging),
        TEST(auto_too_slow),
        TEST(looks_sparingly),
        TEST(passes),
        TEST(deadline),
        TEST(immediate),
        TEST(manual),
        TEST(never_and_abort_after),
        TEST(drain_blind),
        TEST(drain_timeout),
        TEST(paced_before_the_switch),
        TEST(refused),
        TEST(refused_until_abort_after),
        TEST(switched_by_another),
        TEST(held_until_another_is_switched),
        TEST(asked_for_while_another_has_the_link),
        TEST(switched_once_there_is_room),
        TEST(bounded_is_no_evidence),
        TEST(waiting_is_not_counted),
        TEST(held_at_the_gate),
        TEST(abort_requests),
        TEST(detach),
        TEST(gate_before_drain),
        TEST(gate_opened_early),
        TEST(gate_is_refused),
        TEST(gate_times_out),
        TEST(gate_and_the_rest),
        TEST(drain_leaves_the_rate),
        TEST(failing_statistics),
        TEST(time_goes_backwards),
        TEST(random_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
