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
    guest_model_init(&m, kind, &params);
    m.continuous = continuous;
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

/* --- each policy against each QEMU -------------------------------------------------------------------------------- */

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
        assert_true(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_NOT_CONVERGING)->t_us >= (int64_t)(pass_s * 0.95e6));
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

/* Each pass leaves half: auto lets it, says so once, and it ends by itself. */
static void auto_converging(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, false);
    m.writes_ps = m.link_pages_ps * 0.45;
    params.value[PCMIG_PARAM_CONVERGE_PASSES] = 30;
    run(300 * SECOND);
    assert_true(m.finished && !m.postcopy);
    assert_false(ever(PCMIG_ACTION_DRAIN));
}

/* Converges, but after a third pass nobody waits any longer. */
static void auto_too_slow(void **state)
{
    (void)state;
    params.value[PCMIG_PARAM_CONVERGE_PASSES] = 3;
    params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS] = 1;
    begin(PCMIG_POLICY_AUTO, false);
    m.writes_ps = m.link_pages_ps * 0.55;
    run(600 * SECOND);
    assert_true(m.postcopy);
    assert_int_equal(said(PCMIG_ACTION_FINISH_PRECOPY, PCMIG_REASON_CONVERGING)->action, PCMIG_ACTION_FINISH_PRECOPY);
    assert_int_equal(guest_model_count(&m, PCMIG_ACTION_FINISH_PRECOPY), 1);
    assert_int_equal(said(PCMIG_ACTION_DRAIN, PCMIG_REASON_TOO_SLOW)->b, 3);
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
    (void)said(PCMIG_ACTION_DRAIN, PCMIG_REASON_NOT_CONVERGING);
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

/* --- drain and switch --------------------------------------------------------------------------------------------- */

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
    assert_in_range(drained_after_us(PCMIG_REASON_DRAIN_BLIND), 400000, 420000);
}

static void drain_timeout(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_FIRST_PASS, false);
    m.queue_stuck = true;
    run(300 * SECOND);
    assert_in_range(drained_after_us(PCMIG_REASON_DRAIN_TIMEOUT), SECOND, SECOND + 20000);
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

/* --- requests ----------------------------------------------------------------------------------------------------- */

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

/* --- what is strange ---------------------------------------------------------------------------------------------- */

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

        params.value[PCMIG_PARAM_ABORT_AFTER_MS] = stream % 4 == 0 ? 20000 : 0;
        begin((enum pcmig_policy_kind)(stream % PCMIG_POLICY_KIND_COUNT), false);
        twin = pcmig_policy_new(m.rules.kind, &params);
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
        TEST(abort_requests),
        TEST(detach),
        TEST(failing_statistics),
        TEST(time_goes_backwards),
        TEST(random_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
