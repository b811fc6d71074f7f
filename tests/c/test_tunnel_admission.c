/* SPDX-License-Identifier: Apache-2.0 */
/* Who may come in, by a clock that the test has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "tunnel/admission/admission.h"

enum { TOTAL = 64, OF_ONE = 16, SECOND_US = 1000000, PEOPLE = 4096 };

static char people[PEOPLE]; /* each address of it is one */
static bool evicted[PEOPLE];

static void evict(void *who)
{
    evicted[(char *)who - people] = true;
}

static enum pcmig_admission_answer enter(struct pcmig_admission *a, uint32_t address, int64_t now_us, unsigned who)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};

    assert_in_range(who, 0, PEOPLE - 1);
    return pcmig_admission_enter(a, (struct sockaddr *)&from, now_us, &people[who]);
}

static struct pcmig_admission *fresh(void)
{
    struct pcmig_admission *a = pcmig_admission_new(TOTAL, OF_ONE, 50, evict);

    assert_non_null(a);
    memset(evicted, 0, sizeof(evicted));
    return a;
}

static unsigned count_evicted(unsigned from, unsigned to)
{
    unsigned count = 0;

    for (unsigned i = from; i < to; i++)
        count += evicted[i];
    return count;
}

/* Idle connections of a few addresses take all places, and whoever comes from elsewhere gets one of theirs. */
static void a_crowd_makes_room(void **state)
{
    struct pcmig_admission *a = fresh();
    unsigned who = 0;

    (void)state;
    for (unsigned address = 1; address <= TOTAL / OF_ONE; address++) {
        for (unsigned i = 0; i < OF_ONE; i++)
            assert_int_equal(enter(a, address, SECOND_US, who++), PCMIG_ADMISSION_GRANTED);
    }
    assert_int_equal(count_evicted(0, who), 0);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(enter(a, 1000 + i, SECOND_US, who++), PCMIG_ADMISSION_GRANTED);
    assert_int_equal(count_evicted(0, TOTAL), 10);
    assert_int_equal(count_evicted(TOTAL, who), 0);
    pcmig_admission_free(a);
}

/* One address that has all that it may have: its own make room, whichever. */
static void one_address_makes_room_for_itself(void **state)
{
    struct pcmig_admission *a = fresh();

    (void)state;
    assert_int_equal(enter(a, 7, SECOND_US, 0), PCMIG_ADMISSION_GRANTED);
    for (unsigned i = 1; i <= OF_ONE + 5; i++)
        assert_int_equal(enter(a, 8, SECOND_US, i), PCMIG_ADMISSION_GRANTED);
    assert_int_equal(count_evicted(1, OF_ONE + 6), 5);
    assert_false(evicted[0]);
    pcmig_admission_free(a);
}

/* How many of COUNT that come within a second from ADDRESS get in. */
static unsigned in_one_second(struct pcmig_admission *a, uint32_t address, int64_t from_us, unsigned count)
{
    unsigned granted = 0;

    for (unsigned i = 0; i < count; i++) {
        if (enter(a, address, from_us + (int64_t)i * SECOND_US / count, i % PEOPLE) == PCMIG_ADMISSION_GRANTED) {
            granted++;
            pcmig_admission_leave(a, &people[i % PEOPLE]);
        }
    }
    return granted;
}

static void how_often_one_may_come(void **state)
{
    struct pcmig_admission *a = fresh();
    int64_t now_us = SECOND_US;

    (void)state;
    assert_in_range(in_one_second(a, 1, now_us, 10000), 32, 43); /* a burst, and ten more */
    assert_in_range(in_one_second(a, 1, now_us += SECOND_US, 10000), 9, 11);
    /* Another is not concerned. */
    assert_in_range(in_one_second(a, 2, now_us, 20), 20, 20);
    /* Whom somebody was verified from may come more often. */
    assert_int_equal(enter(a, 3, now_us, 0), PCMIG_ADMISSION_GRANTED);
    pcmig_admission_verified(a, &people[0], true, now_us);
    assert_in_range(in_one_second(a, 3, now_us, 10000), 128, 182);
    assert_in_range(in_one_second(a, 3, now_us += SECOND_US, 10000), 47, 53);
    pcmig_admission_free(a);
}

/* One host that was verified from hundreds of its addresses has them be strangers again: as many as all strangers
 * together, and not each of them as many as one that is known. */
static void one_host_with_many_addresses(void **state)
{
    struct pcmig_admission *a = fresh();
    const struct pcmig_pace pace = pcmig_admission_pace_of_one(50);
    struct pcmig_tokens of_certificate;
    unsigned granted = 0;

    (void)state;
    pcmig_tokens_fill(&of_certificate, pace, SECOND_US);
    for (unsigned i = 0; i < 50000; i++) {
        const int64_t now_us = SECOND_US + (int64_t)i * 100; /* five seconds */

        if (enter(a, 100 + i % 300, now_us, 0) == PCMIG_ADMISSION_GRANTED) {
            granted++;
            pcmig_admission_verified(a, &people[0], pcmig_tokens_take(&of_certificate, pace, now_us), now_us);
        }
    }
    /* What strangers may, and what the certificate may; and as often again, until it is noticed that it may not. */
    assert_in_range(granted, 256 + 5 * 100, 128 + 5 * 100 + 2 * (256 + 5 * 100));
    pcmig_admission_free(a);
}

/* Thousands of addresses, all of them strangers: together they may come as often as some, and one that is known comes
 * in beside them, long after it was seen last. */
static void many_strangers(void **state)
{
    struct pcmig_admission *a = fresh();
    unsigned granted = 0;

    (void)state;
    assert_int_equal(enter(a, 5, SECOND_US, 0), PCMIG_ADMISSION_GRANTED);
    pcmig_admission_verified(a, &people[0], true, SECOND_US);
    for (unsigned i = 0; i < 100000; i++) {
        const int64_t now_us = SECOND_US + (int64_t)i * 50; /* five seconds */

        granted += enter(a, 100 + i, now_us, 1 + i % (PEOPLE - 1)) == PCMIG_ADMISSION_GRANTED;
        if (i % 1000 == 0) {
            assert_int_equal(enter(a, 5, now_us, 0), PCMIG_ADMISSION_GRANTED);
            pcmig_admission_verified(a, &people[0], true, now_us);
        }
    }
    assert_in_range(granted, 620, 640);
    pcmig_admission_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crowd_makes_room),     cmocka_unit_test(one_address_makes_room_for_itself),
        cmocka_unit_test(how_often_one_may_come), cmocka_unit_test(one_host_with_many_addresses),
        cmocka_unit_test(many_strangers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
