/* SPDX-License-Identifier: Apache-2.0 */
/* How long requested pages took: estimated of what stands in the queue, or counted by QEMU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/ledger.h"
#include "core/qemu_migration.h"
#include "core/trace.h"

#define PAGE   UINT64_C(4096)
#define SECOND INT64_C(1000000)
#define RATE   UINT64_C(10000000) /* bytes a second that the link carries */

/* Pre-copy at the link's rate for four seconds; then the switch. */
static struct pcmig_ledger *switched(int64_t round_trip_us)
{
    struct pcmig_ledger *ledger = pcmig_ledger_new();
    struct pcmig_input input = {.kind = PCMIG_INPUT_ROUND_TRIP, .code = round_trip_us};

    assert_non_null(ledger);
    pcmig_ledger_feed(ledger, &input);
    for (int64_t i = 0; i <= 40; i++) {
        input = (struct pcmig_input){.t_us = i * SECOND / 10,
                                     .kind = PCMIG_INPUT_SAMPLE,
                                     .sample = {.memory_total_bytes = 100000 * PAGE,
                                                .memory_processed_bytes = (uint64_t)i * RATE / 10,
                                                .memory_remaining_bytes = 100000 * PAGE - (uint64_t)i * RATE / 10,
                                                .normal_pages = (uint64_t)i * RATE / 10 / PAGE,
                                                .memory_bps = RATE,
                                                .iteration = 1,
                                                .page_size_bytes = PAGE,
                                                .elapsed_ms = (uint64_t)i * 100,
                                                .queue_bytes = 200000}};
        pcmig_ledger_feed(ledger, &input);
    }
    input =
        (struct pcmig_input){.t_us = 4 * SECOND, .kind = PCMIG_INPUT_EVENT, .code = PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY};
    pcmig_ledger_feed(ledger, &input);
    return ledger;
}

/* A look TENTHS of a second after the switch. */
static void look(struct pcmig_ledger *ledger, int64_t tenths, uint64_t requests, int64_t queue_bytes)
{
    struct pcmig_input input = {.t_us = 4 * SECOND + tenths * SECOND / 10,
                                .kind = PCMIG_INPUT_SAMPLE,
                                .sample = {.memory_total_bytes = 100000 * PAGE,
                                           .memory_processed_bytes = 4 * RATE + (uint64_t)tenths * RATE / 20,
                                           .memory_remaining_bytes = 50000 * PAGE,
                                           .postcopy_requests = requests,
                                           .page_size_bytes = PAGE,
                                           .elapsed_ms = 4000 + (uint64_t)tenths * 100,
                                           .queue_bytes = queue_bytes}};

    pcmig_ledger_feed(ledger, &input);
}

static void a_page_waits_behind_the_queue(void **state)
{
    struct pcmig_ledger *ledger = switched(300);
    const struct pcmig_latency *l = pcmig_ledger_latency(ledger);

    (void)state;
    assert_int_equal(l->source, PCMIG_LATENCY_NONE);
    /* 95904 bytes and its own 4096 at 10 MB/s are 10 ms, and the way is 0.3 ms. */
    look(ledger, 1, 30, 95904);
    assert_int_equal(l->source, PCMIG_LATENCY_ESTIMATED);
    assert_in_range(l->now_us, 10200, 10400);
    assert_int_equal(l->figures.bucket[13], 30); /* 8.2 to 16.4 ms */
    /* An empty one: the page alone. */
    look(ledger, 2, 40, 0);
    assert_in_range(l->now_us, 690, 730);
    assert_int_equal(l->figures.bucket[9], 10);
    assert_int_equal(pcmig_latency_requests(&l->figures), 40);
    assert_in_range(l->figures.mean_us, 7700, 8000);
    /* Nothing was asked for. */
    look(ledger, 3, 40, 95904);
    assert_int_equal(pcmig_latency_requests(&l->figures), 40);
    pcmig_ledger_free(ledger);
}

static void a_queue_that_is_not_seen_gives_no_estimate(void **state)
{
    struct pcmig_ledger *ledger = switched(300);
    const struct pcmig_latency *l = pcmig_ledger_latency(ledger);

    (void)state;
    look(ledger, 1, 30, -1);
    assert_int_equal(l->source, PCMIG_LATENCY_NONE);
    assert_int_equal(l->now_us, -1);
    pcmig_ledger_free(ledger);
}

/* What was seen of it before says nothing of the page that is asked for now. */
static void a_queue_that_is_no_longer_seen(void **state)
{
    struct pcmig_ledger *ledger = switched(300);
    const struct pcmig_latency *l = pcmig_ledger_latency(ledger);

    (void)state;
    look(ledger, 1, 30, 95904);
    look(ledger, 2, 60, -1);
    assert_int_equal(l->now_us, -1);
    assert_int_equal(pcmig_latency_requests(&l->figures), 30);
    pcmig_ledger_free(ledger);
}

static void a_huge_page_comes_whole(void **state)
{
    const struct pcmig_input host_page = {.t_us = 4 * SECOND, .kind = PCMIG_INPUT_HOST_PAGE, .code = 2 << 20};
    struct pcmig_ledger *ledger = switched(300);

    (void)state;
    pcmig_ledger_feed(ledger, &host_page);
    look(ledger, 1, 3, 0);
    assert_in_range(pcmig_ledger_latency(ledger)->now_us, 209000, 211000); /* 2 MiB at 10 MB/s */
    pcmig_ledger_free(ledger);
}

/* Of what was asked for before anybody looked it is not known how long it took. */
static void who_comes_later_counts_from_there(void **state)
{
    const struct pcmig_input vcpus = {.kind = PCMIG_INPUT_VCPUS, .code = 2};
    const struct pcmig_input event = {
        .t_us = 4 * SECOND, .kind = PCMIG_INPUT_EVENT, .code = PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY};
    struct pcmig_ledger *ledger = pcmig_ledger_new();
    const struct pcmig_latency *l = pcmig_ledger_latency(ledger);

    (void)state;
    assert_non_null(ledger);
    pcmig_ledger_feed(ledger, &vcpus);
    pcmig_ledger_feed(ledger, &event);
    look(ledger, 1, 50000, -1);
    assert_int_equal(l->source, PCMIG_LATENCY_NONE);
    look(ledger, 2, 50100, -1);
    assert_int_equal(pcmig_latency_requests(&l->figures), 100);
    assert_int_equal(l->figures.mean_us, 2000);
    pcmig_ledger_free(ledger);
}

static void a_late_look_counts_nothing_twice(void **state)
{
    struct pcmig_ledger *ledger = switched(300);
    const struct pcmig_latency *l = pcmig_ledger_latency(ledger);

    (void)state;
    look(ledger, 2, 40, 95904);
    look(ledger, 1, 10, 95904);
    look(ledger, 3, 50, 95904);
    assert_int_equal(pcmig_latency_requests(&l->figures), 50);
    pcmig_ledger_free(ledger);
}

/* Whoever waits asks for nothing else. */
static void many_requests_are_short_ones(void **state)
{
    const struct pcmig_input vcpus = {.t_us = 4 * SECOND, .kind = PCMIG_INPUT_VCPUS, .code = 2};
    struct pcmig_ledger *ledger = switched(300);
    const struct pcmig_latency *l = pcmig_ledger_latency(ledger);

    (void)state;
    pcmig_ledger_feed(ledger, &vcpus);
    /* Two processors, a tenth of a second, 200 pages: 1 ms each, though 10 ms stand in the queue. */
    look(ledger, 1, 200, 95904);
    assert_int_equal(l->now_us, 1000);
    assert_int_equal(l->figures.bucket[9], 200);
    /* One page: that may have taken as long as the queue. */
    look(ledger, 2, 201, 95904);
    assert_in_range(l->now_us, 10200, 10400);
    pcmig_ledger_free(ledger);
    /* Where the queue is not seen there is that alone. */
    ledger = switched(300);
    l = pcmig_ledger_latency(ledger);
    pcmig_ledger_feed(ledger, &vcpus);
    look(ledger, 1, 100, -1);
    assert_int_equal(l->now_us, 2000);
    assert_int_equal(l->source, PCMIG_LATENCY_ESTIMATED);
    look(ledger, 2, 100, -1);
    assert_int_equal(l->now_us, -1);
    pcmig_ledger_free(ledger);
}

static void what_qemu_has_counted_takes_its_place(void **state)
{
    static const char answer[] =
        "{\"return\":{\"postcopy-blocktime\":3423,\"postcopy-non-vcpu-latency\":7000,\"postcopy-vcpu-latency\":"
        "[20033470,31000000,0],\"status\":\"completed\",\"postcopy-latency-dist\":[0,0,0,0,1,0,0,1,0,0,1,13,59,62,4,3,"
        "22,0,0,0,0,0,0,0],\"postcopy-latency\":20033470,\"postcopy-vcpu-blocktime\":[3325]},\"id\":\"libvirt-20\"}";
    struct pcmig_ledger *ledger = switched(300), *again = switched(300);
    const struct pcmig_latency *l = pcmig_ledger_latency(ledger);
    struct pcmig_input input = {.t_us = 6 * SECOND, .kind = PCMIG_INPUT_LATENCY};
    char line[PCMIG_TRACE_LINE_MAX], error[PCMIG_TRACE_ERR_MAX];
    struct pcmig_trace_line read;
    int length;

    (void)state;
    look(ledger, 1, 166, 95904);
    assert_int_equal(pcmig_qemu_migration_latency(answer, strlen(answer), &input.latency), 1);
    pcmig_ledger_feed(ledger, &input);
    assert_int_equal(l->source, PCMIG_LATENCY_COUNTED);
    assert_int_equal(pcmig_latency_requests(&l->figures), 166);
    assert_int_equal(l->figures.mean_us, 20033);
    assert_int_equal(l->figures.vcpu_us, 31000);
    assert_int_equal(l->figures.other_us, 7);
    assert_int_equal(l->figures.bucket[13], 62);
    /* And stays there. */
    look(ledger, 2, 300, 95904);
    assert_int_equal(pcmig_latency_requests(&l->figures), 166);
    /* A trace has it, whole. */
    length = pcmig_trace_write_input(line, sizeof(line), &input);
    assert_in_range(length, 1, sizeof(line) - 1);
    assert_int_equal(pcmig_trace_parse_line(line, (size_t)length - 1, &read, error, sizeof(error)), 0);
    assert_memory_equal(&read.input.latency, &input.latency, sizeof(input.latency));
    pcmig_ledger_feed(again, &read.input);
    assert_memory_equal(&pcmig_ledger_latency(again)->figures, &l->figures, sizeof(l->figures));
    pcmig_ledger_free(again);
    pcmig_ledger_free(ledger);
}

static void what_is_no_latency_is_refused(void **state)
{
    static const struct {
        const char *line;
        int result; /* 1: another pcmig may know it (trace.h) */
        const char *says;
    } rows[] = {
        {"5 latency b24=1", 1, "unknown key 'b24'"},
        {"5 latency b=1", 1, "unknown key 'b'"},
        {"5 latency mean_us=-1", -1, "'-1' is not a whole number"},
        {"5 latency b3=1 b3=1", -1, "'b3' stands twice"},
        {"5 latency b3", -1, "expected key=value"},
    };
    char error[PCMIG_TRACE_ERR_MAX];
    struct pcmig_trace_line read;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(pcmig_trace_parse_line(rows[i].line, strlen(rows[i].line), &read, error, sizeof(error)),
                         rows[i].result);
        if (strstr(error, rows[i].says) == NULL)
            fail_msg("%s: %s", rows[i].line, error);
    }
    assert_int_equal(pcmig_trace_parse_line("5 latency", 9, &read, error, sizeof(error)), 0);
}

static void answers(void **state)
{
    static const struct {
        const char *answer;
        int result;
    } rows[] = {
        {"{\"return\":{\"status\":\"completed\"}}", 0},
        {"{\"return\":{}}", 0},
        {"{\"return\":{\"postcopy-latency-dist\":[]}}", 1},
        {"{\"return\":{\"postcopy-latency-dist\":[1],\"postcopy-latency\":-5}}", -1},
        {"{\"return\":{\"postcopy-latency-dist\":[1,-1]}}", -1},
        {"{\"return\":{\"postcopy-latency-dist\":[1", -1},
        {"{\"return\":{\"postcopy-latency-dist\":7}}", -1},
        {"{\"return\":{\"postcopy-latency-dist\":[1],\"postcopy-vcpu-latency\":[{}]}}", -1},
        {"{\"error\":{\"class\":\"GenericError\"}}", -1},
        {"", -1},
    };
    /* A QEMU with more buckets than today's. */
    static const char longer[] = "{\"return\":{\"postcopy-latency-dist\":"
                                 "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,2,18446744073709551615]}}";
    static const char wide[] = "{\"return\":{\"postcopy-latency-dist\":"
                               "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,2,9223372036854775000]}}";
    struct pcmig_latency_figures out;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        memset(&out, 0x55, sizeof(out));
        if (pcmig_qemu_migration_latency(rows[i].answer, strlen(rows[i].answer), &out) != rows[i].result)
            fail_msg("%s", rows[i].answer);
        if (rows[i].result != 1)
            assert_int_equal(out.mean_us, UINT64_C(0x5555555555555555));
    }
    assert_int_equal(pcmig_qemu_migration_latency(longer, strlen(longer), &out), -1);
    assert_int_equal(pcmig_qemu_migration_latency(wide, strlen(wide), &out), 1);
    assert_int_equal(out.bucket[23], UINT64_C(9223372036854775003));
}

static void a_definition_is_made_to_count(void **state)
{
    static const char own[] = "<domain type='kvm'>\n  <description>&lt;/domain></description>\n</domain>\n";
    char *xml = pcmig_latency_counting(own), *again;

    (void)state;
    assert_non_null(xml);
    assert_string_equal(xml, "<domain type='kvm'>\n  <description>&lt;/domain></description>\n"
                             "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                             "<qemu:arg value='-global'/><qemu:arg value='migration.postcopy-blocktime=on'/>"
                             "</qemu:commandline></domain>\n");
    again = pcmig_latency_counting(xml);
    assert_string_equal(again, xml);
    free(again);
    free(xml);
    assert_null(pcmig_latency_counting("<domain"));
}

static void every_source_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < PCMIG_LATENCY_SOURCE_COUNT; i++)
        assert_string_not_equal(pcmig_latency_source_name((enum pcmig_latency_source)i), "unknown");
    assert_string_equal(pcmig_latency_source_name(PCMIG_LATENCY_SOURCE_COUNT), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_waits_behind_the_queue),
        cmocka_unit_test(a_queue_that_is_not_seen_gives_no_estimate),
        cmocka_unit_test(a_queue_that_is_no_longer_seen),
        cmocka_unit_test(a_huge_page_comes_whole),
        cmocka_unit_test(who_comes_later_counts_from_there),
        cmocka_unit_test(a_late_look_counts_nothing_twice),
        cmocka_unit_test(many_requests_are_short_ones),
        cmocka_unit_test(what_qemu_has_counted_takes_its_place),
        cmocka_unit_test(what_is_no_latency_is_refused),
        cmocka_unit_test(answers),
        cmocka_unit_test(a_definition_is_made_to_count),
        cmocka_unit_test(every_source_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
