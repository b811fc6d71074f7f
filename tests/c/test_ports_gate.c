/* SPDX-License-Identifier: Apache-2.0 */
/* What is answered to the gate as the guest's ports come and go: each case is a story, a line a moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/ports_gate.h"

#define WAIT_MS 5000

struct moment {
    int64_t at_ms;
    enum pcmig_ports ports;
    enum pcmig_gate_state state;
    enum pcmig_ports_answer answer;
};

#define UNTOLD  PCMIG_PORTS_UNTOLD
#define UNKNOWN PCMIG_PORTS_UNKNOWN
#define BLOCKED PCMIG_PORTS_BLOCKED
#define READY   PCMIG_PORTS_READY
#define CLOSED  PCMIG_GATE_CLOSED
#define WANTED  PCMIG_GATE_WANTED
#define OPENED  PCMIG_GATE_OPEN
#define REFUSED PCMIG_GATE_REFUSED
#define NONE    PCMIG_PORTS_ANSWER_NONE
#define OPEN    PCMIG_PORTS_ANSWER_OPEN
#define CLOSE   PCMIG_PORTS_ANSWER_CLOSE
#define AGAIN   PCMIG_PORTS_ANSWER_AGAIN
#define ABORT   PCMIG_PORTS_ANSWER_ABORT

static void play(struct pcmig_ports_gate *gate, const struct moment *moments, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const enum pcmig_ports_answer answer =
            pcmig_ports_gate_feed(gate, moments[i].at_ms, moments[i].ports, moments[i].state, true);

        if (answer != moments[i].answer)
            fail_msg("moment %zu: %s instead of %s", i, pcmig_ports_answer_name(answer),
                     pcmig_ports_answer_name(moments[i].answer));
    }
}
#define PLAY(gate, moments) play(gate, moments, sizeof(moments) / sizeof((moments)[0]))

static struct pcmig_ports_gate made(enum pcmig_ports_then then)
{
    struct pcmig_ports_gate gate;

    pcmig_ports_gate_init(&gate, WAIT_MS, then);
    return gate;
}

static void ready_ports_hold_nothing(void **state)
{
    const struct moment moments[] = {
        {0, READY, CLOSED, NONE}, /* nobody asks yet */
        {9000, READY, WANTED, OPEN},
        {9100, READY, OPENED, NONE},
    };
    struct pcmig_ports_gate gate = made(PCMIG_PORTS_THEN_STAY);

    (void)state;
    PLAY(&gate, moments);
    assert_int_equal(pcmig_ports_gate_waited_ms(&gate, 9100), 100);
}

static void what_nobody_can_tell_holds_nothing(void **state)
{
    const struct moment moments[] = {{0, UNTOLD, WANTED, NONE}, {500, UNKNOWN, WANTED, OPEN}};
    struct pcmig_ports_gate gate = made(PCMIG_PORTS_THEN_ABORT);

    (void)state;
    PLAY(&gate, moments);
}

static void it_waits_for_a_port(void **state)
{
    const struct moment moments[] = {
        {1000, BLOCKED, WANTED, NONE},
        {5999, BLOCKED, WANTED, NONE},
        {5999, READY, WANTED, OPEN},
    };

    (void)state;
    for (int then = 0; then < PCMIG_PORTS_THEN_COUNT; then++) {
        struct pcmig_ports_gate gate = made((enum pcmig_ports_then)then);

        assert_int_equal(pcmig_ports_gate_waited_ms(&gate, 1000), 0);
        PLAY(&gate, moments);
    }
}

static void waited_for_too_long(void **state)
{
    const struct moment stays[] = {
        {1000, BLOCKED, WANTED, NONE}, {6000, BLOCKED, WANTED, NONE},  {6001, BLOCKED, CLOSED, NONE},
        {9000, BLOCKED, WANTED, NONE}, {90000, BLOCKED, CLOSED, NONE}, {90001, READY, CLOSED, OPEN},
    };
    const struct moment switches[] = {
        {1000, UNTOLD, WANTED, NONE},
        {6000, UNTOLD, WANTED, OPEN},
        {6001, BLOCKED, OPENED, NONE}, /* not taken back for what it was opened in spite of */
        {6002, BLOCKED, WANTED, OPEN}, /* asked once more, after another guest's turn */
    };
    const struct moment aborts[] = {
        {1000, BLOCKED, WANTED, NONE},
        {6000, BLOCKED, WANTED, ABORT},
        {6001, READY, WANTED, NONE}, /* it is being cancelled */
    };
    struct pcmig_ports_gate gate = made(PCMIG_PORTS_THEN_STAY);

    (void)state;
    PLAY(&gate, stays);
    gate = made(PCMIG_PORTS_THEN_SWITCH);
    PLAY(&gate, switches);
    gate = made(PCMIG_PORTS_THEN_ABORT);
    PLAY(&gate, aborts);
}

static void a_port_that_stops_closes_it_again(void **state)
{
    const struct moment comes_back[] = {
        {1000, READY, WANTED, OPEN},     {1010, BLOCKED, OPENED, CLOSE}, {1020, BLOCKED, REFUSED, NONE},
        {3000, READY, REFUSED, AGAIN},   {3010, READY, WANTED, OPEN},    {3020, UNTOLD, OPENED, CLOSE},
        {3030, UNKNOWN, REFUSED, AGAIN},
    };
    const struct moment stays_away[] = {
        {1000, READY, WANTED, OPEN},
        {1010, BLOCKED, OPENED, CLOSE},
        {5999, BLOCKED, REFUSED, NONE},
    };
    const enum pcmig_ports_answer at_last[] = {
        [PCMIG_PORTS_THEN_STAY] = NONE,
        [PCMIG_PORTS_THEN_SWITCH] = AGAIN,
        [PCMIG_PORTS_THEN_ABORT] = ABORT,
    };
    struct pcmig_ports_gate gate = made(PCMIG_PORTS_THEN_STAY);

    (void)state;
    PLAY(&gate, comes_back);
    for (int then = 0; then < PCMIG_PORTS_THEN_COUNT; then++) {
        const struct moment moments[] = {{6000, BLOCKED, REFUSED, at_last[then]}};

        gate = made((enum pcmig_ports_then)then);
        PLAY(&gate, stays_away);
        PLAY(&gate, moments);
    }
}

static void somebody_elses_refusal_stays(void **state)
{
    const struct moment moments[] = {{0, READY, REFUSED, NONE}, {9000, BLOCKED, REFUSED, NONE}};
    struct pcmig_ports_gate gate = made(PCMIG_PORTS_THEN_ABORT);

    (void)state;
    PLAY(&gate, moments);
}

static void the_operator_waits_for_nobody(void **state)
{
    const struct moment moments[] = {{10, BLOCKED, WANTED, OPEN}, {20, BLOCKED, OPENED, NONE}};
    struct pcmig_ports_gate gate = made(PCMIG_PORTS_THEN_ABORT);

    (void)state;
    gate.forced = true;
    PLAY(&gate, moments);
}

static void nothing_after_the_switch_and_without_a_gate(void **state)
{
    struct pcmig_ports_gate gate = made(PCMIG_PORTS_THEN_ABORT);

    (void)state;
    for (int each = 0; each < PCMIG_GATE_STATE_COUNT; each++) {
        assert_int_equal(pcmig_ports_gate_feed(&gate, 0, BLOCKED, (enum pcmig_gate_state)each, false), NONE);
        assert_int_equal(pcmig_ports_gate_feed(&gate, 99999, BLOCKED, (enum pcmig_gate_state)each, false), NONE);
    }
    assert_int_equal(pcmig_ports_gate_feed(&gate, 0, BLOCKED, PCMIG_GATE_NONE, true), NONE);
}

static void names(void **state)
{
    (void)state;
    for (int i = 0; i < PCMIG_PORTS_COUNT; i++) {
        const char *name = pcmig_ports_name((enum pcmig_ports)i);

        assert_int_equal(pcmig_ports_find(name, strlen(name)), i);
    }
    for (int i = 0; i < PCMIG_PORTS_THEN_COUNT; i++) {
        const char *name = pcmig_ports_then_name((enum pcmig_ports_then)i);

        assert_int_equal(pcmig_ports_then_find(name, strlen(name)), i);
    }
    assert_int_equal(pcmig_ports_find("", 0), -1);
    assert_int_equal(pcmig_ports_then_find("stays", 5), -1);
    assert_string_equal(pcmig_ports_name(PCMIG_PORTS_COUNT), "unknown");
    assert_string_equal(pcmig_ports_then_name(PCMIG_PORTS_THEN_COUNT), "stay");
    assert_string_equal(pcmig_ports_answer_name(PCMIG_PORTS_ANSWER_COUNT), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ready_ports_hold_nothing),
        cmocka_unit_test(what_nobody_can_tell_holds_nothing),
        cmocka_unit_test(it_waits_for_a_port),
        cmocka_unit_test(waited_for_too_long),
        cmocka_unit_test(a_port_that_stops_closes_it_again),
        cmocka_unit_test(somebody_elses_refusal_stays),
        cmocka_unit_test(the_operator_waits_for_nobody),
        cmocka_unit_test(nothing_after_the_switch_and_without_a_gate),
        cmocka_unit_test(names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
