/* SPDX-License-Identifier: Apache-2.0 */
/* Each of the calls that a thread, or a condition with a clock, takes may fail: whoever asked is told, and nothing is
 * left half made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>

#include "edge/clock.h"
#include "edge/threads.h"

static int refusal; /* what the next pthread_condattr_setclock() says; 0 = it works */

/* In the place of the C library's. */
int pthread_condattr_setclock(pthread_condattr_t *attr, clockid_t clock)
{
    int (*real)(pthread_condattr_t *, clockid_t);
    void *found = dlsym(RTLD_NEXT, "pthread_condattr_setclock");

    assert_non_null(found);
    memcpy(&real, &found, sizeof(real));
    return refusal != 0 ? refusal : real(attr, clock);
}

static void *say(void *arg)
{
    sem_post(arg);
    return NULL;
}

static void a_thread_that_nobody_joins(void **state)
{
    sem_t ran;

    (void)state;
    assert_int_equal(sem_init(&ran, 0, 0), 0);
    assert_int_equal(pcmig_thread_begin(256 * 1024, say, &ran), 0);
    while (sem_wait(&ran) != 0)
        assert_int_equal(errno, EINTR);
    /* Less than a stack may have (pthread_attr_setstacksize(3)): no thread with another one instead. */
    assert_int_equal(pcmig_thread_begin(100, say, &ran), EINVAL);
    assert_int_equal(sem_trywait(&ran), -1);
    sem_destroy(&ran);
}

static void a_wait_ends_by_the_clock_of_the_engine(void **state)
{
    const int64_t until_us = pcmig_clock_us() + 20000;
    const struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    pthread_mutex_t lock;
    pthread_cond_t condition;

    (void)state;
    assert_int_equal(pcmig_waiting_init(&lock, &condition), 0);
    assert_int_equal(pthread_mutex_lock(&lock), 0);
    while (pthread_cond_timedwait(&condition, &lock, &until) == 0)
        continue;
    assert_true(pcmig_clock_us() >= until_us);
    assert_int_equal(pthread_mutex_unlock(&lock), 0);
    assert_int_equal(pthread_cond_destroy(&condition), 0);
    assert_int_equal(pthread_mutex_destroy(&lock), 0);
}

/* A condition with the wall clock would end its waits at once, or never. */
static void without_its_clock_there_is_no_condition(void **state)
{
    pthread_mutex_t lock;
    pthread_cond_t condition;

    (void)state;
    refusal = ENOMEM;
    assert_int_equal(pcmig_condition_init(&condition), ENOMEM);
    assert_int_equal(pcmig_waiting_init(&lock, &condition), ENOMEM);
    refusal = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_that_nobody_joins),
        cmocka_unit_test(a_wait_ends_by_the_clock_of_the_engine),
        cmocka_unit_test(without_its_clock_there_is_no_condition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
