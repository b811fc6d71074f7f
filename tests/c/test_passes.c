/* SPDX-License-Identifier: Apache-2.0 */
/* Passes are counted in pages, whatever QEMU calls an iteration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/convergence.h"
#include "core/passes.h"

#define PAGE        4096u
#define GUEST_PAGES 68608u /* 256 MiB of RAM and 12 MiB of video memory and ROMs: memory_total of a real guest */
#define SECOND      INT64_C(1000000)

static struct pcmig_sample sample(uint64_t sent, uint64_t remaining, uint64_t iteration)
{
    return (struct pcmig_sample){
        .memory_total_bytes = (uint64_t)GUEST_PAGES * PAGE,
        .memory_remaining_bytes = remaining * PAGE,
        .zero_pages = sent / 4,
        .normal_pages = sent - sent / 4,
        .iteration = iteration,
        .page_size_bytes = PAGE,
        .queue_bytes = -1,
    };
}

static bool feed(struct pcmig_passes *passes, int64_t t_us, uint64_t sent, uint64_t remaining, uint64_t iteration)
{
    struct pcmig_sample s = sample(sent, remaining, iteration);

    return pcmig_passes_feed(passes, t_us, &s);
}

/* QEMU 10: the remainder falls, and jumps at the synchronisation, which comes 900 pages before the end. */
static void saw_tooth(void **state)
{
    struct pcmig_passes p;
    uint64_t sent = 0;

    (void)state;
    pcmig_passes_init(&p, 50);
    assert_int_equal(pcmig_passes_permille(&p), 0);
    for (int i = 0; sent < GUEST_PAGES - 900; i++, sent += 2000) {
        assert_false(feed(&p, i * SECOND, sent, GUEST_PAGES - sent, 1));
        assert_int_equal(p.running.dirtied_pages, 0);
    }
    sent = GUEST_PAGES - 900;
    /* Close to the end, not synchronised: the next pass cannot begin with these 900 pages. */
    assert_false(feed(&p, 40 * SECOND, sent, 900, 1));
    assert_int_equal(pcmig_passes_permille(&p), 986);
    /* The sample of the iteration event. */
    assert_true(feed(&p, 41 * SECOND, sent + 10, 890 + 31804, 2));
    assert_int_equal(p.done, 1);
    assert_int_equal(p.last.number, 1);
    assert_int_equal(p.last.dirtied_pages, 31804);
    assert_int_equal(p.last.start_us, 0);
    assert_int_equal(p.last.end_us, 41 * SECOND);
    assert_int_equal(p.running.start_remaining_pages, 32694);
    assert_int_equal(pcmig_passes_permille(&p), 0);

    sent += 10;
    assert_false(feed(&p, 42 * SECOND, sent + 16347, 16347, 2));
    assert_int_equal(pcmig_passes_permille(&p), 500);
    assert_int_equal(p.running.dirtied_pages, 0);
    /* The synchronisation is seen late: after the next pass's first 40 pages. */
    assert_true(feed(&p, 50 * SECOND, sent + 31800 + 40, 894 + 31000 - 40, 3));
    assert_int_equal(p.done, 2);
    assert_int_equal(p.last.start_remaining_pages, 32694);
    assert_int_equal(p.last.dirtied_pages, 31000);
    assert_int_equal(p.running.start_us, 50 * SECOND);
}

/* A fast link: QEMU 10 synchronises long before the end, when the rest fits in the downtime limit. */
static void synchronised_early(void **state)
{
    struct pcmig_passes p;

    (void)state;
    pcmig_passes_init(&p, 50);
    assert_false(feed(&p, 1, 10000, GUEST_PAGES - 10000, 1));
    assert_false(feed(&p, 2, 40000, 28608 + 5000, 2));
    assert_int_equal(p.running.dirtied_pages, 5000);
    assert_true(feed(&p, 3, 70000, 3608, 2));
    assert_int_equal(p.last.dirtied_pages, 5000);
    assert_int_equal(p.running.start_remaining_pages, 3608);
}

/* QEMU 11 with post-copy: an iteration every 55 ms, the remainder moves all the time. */
static void continuous(void **state)
{
    struct pcmig_passes p;
    uint64_t sent = 0, dirty_behind = 0, last_dirtied = 0;
    unsigned ended_at = 0;

    (void)state;
    pcmig_passes_init(&p, 20);
    for (unsigned i = 1; i <= 460 && p.done < 2; i++) {
        sent += 165; /* 12.5 MB/s */
        if (p.done == 0)
            dirty_behind = sent * 32768 / GUEST_PAGES; /* the working set is spread over memory */
        if (feed(&p, (int64_t)i * 55000, sent, (sent < GUEST_PAGES ? GUEST_PAGES - sent : 0) + dirty_behind, i)) {
            assert_int_equal(p.done, 1);
            ended_at = i;
            break;
        }
        assert_true(p.running.dirtied_pages >= last_dirtied);
        last_dirtied = p.running.dirtied_pages;
    }
    assert_in_range(ended_at, 405, 416); /* 68608 / 165 = 415.8, less 2 % */
    assert_in_range(p.last.dirtied_pages, 32000, 32768);
    assert_int_equal(p.running.start_remaining_pages, p.last.remaining_pages);
}

static void idle_guest(void **state)
{
    struct pcmig_passes p;

    (void)state;
    pcmig_passes_init(&p, 50);
    assert_false(feed(&p, 1, 0, GUEST_PAGES, 1));
    assert_true(feed(&p, 2, GUEST_PAGES, 0, 2));
    /* Nothing to do is no pass, however often QEMU synchronises. */
    assert_false(feed(&p, 3, GUEST_PAGES, 0, 3));
    assert_false(feed(&p, 4, GUEST_PAGES, 0, 4));
    assert_int_equal(p.done, 1);
    assert_int_equal(pcmig_passes_permille(&p), 0);
}

static void late_and_backwards(void **state)
{
    struct pcmig_passes p, before;
    struct pcmig_sample none = {0};

    (void)state;
    pcmig_passes_init(&p, 50);
    assert_false(pcmig_passes_feed(&p, 1, &none)); /* set-up: no totals yet */
    assert_int_equal(p.running.number, 0);
    assert_false(feed(&p, 100, 5000, GUEST_PAGES - 5000, 1));
    before = p;
    assert_false(feed(&p, 200, 4000, GUEST_PAGES - 4000, 1)); /* counters of an older sample */
    assert_memory_equal(&before, &p, sizeof(p));
    assert_false(feed(&p, 99, 6000, GUEST_PAGES - 6000, 1)); /* an older time */
    assert_memory_equal(&before, &p, sizeof(p));
    assert_false(feed(&p, 300, 0, GUEST_PAGES, 0)); /* counters that began anew */
    assert_memory_equal(&before, &p, sizeof(p));
    /* Remaining memory read a moment before the pages: never a negative figure. */
    assert_false(feed(&p, 400, 6000, GUEST_PAGES - 6100, 1));
    assert_int_equal(p.running.dirtied_pages, 0);
}

static void first_sample_late(void **state)
{
    struct pcmig_passes p;

    (void)state;
    pcmig_passes_init(&p, 50);
    assert_true(feed(&p, 9 * SECOND, 90000, 20000, 4));
    assert_int_equal(p.last.dirtied_pages, 90000 + 20000 - GUEST_PAGES);
    assert_int_equal(p.running.start_us, 9 * SECOND);
}

/* Memory that QEMU leaves out never gets sent; iterations that libvirt does not report are inferred. */
static void odd_reports(void **state)
{
    struct pcmig_passes p;

    (void)state;
    pcmig_passes_init(&p, 50);
    assert_false(feed(&p, 1, 0, 40000, 1));
    assert_int_equal(p.running.start_remaining_pages, 40000);
    assert_true(feed(&p, 2, 39500, 500 + 700, 2));

    pcmig_passes_init(&p, 50);
    assert_false(feed(&p, 1, GUEST_PAGES - 100, 100, 0));
    assert_true(feed(&p, 2, GUEST_PAGES - 50, 50 + 9000, 0));
    assert_int_equal(p.last.dirtied_pages, 9000);
}

static void extremes(void **state)
{
    struct pcmig_passes p;
    struct pcmig_sample s = sample(0, 0, 1);

    (void)state;
    s.memory_total_bytes = s.memory_remaining_bytes = s.normal_pages = s.zero_pages = UINT64_MAX;
    s.page_size_bytes = 1;
    pcmig_passes_init(&p, 100000);
    assert_false(pcmig_passes_feed(&p, INT64_MIN, &s)); /* before the start */
    assert_false(pcmig_passes_feed(&p, 0, &s));
    assert_int_equal(pcmig_passes_sent_pages(&s), UINT64_C(1) << 52);
    assert_int_equal(pcmig_passes_permille(&p), 1000);
    s.page_size_bytes = 0;
    assert_int_equal(pcmig_passes_pages(&s, 8192), 2);
}

/* Passes of QEMU 10 that are shorter than a window, each of which leaves 860 of 1000 pages: so says every window, as
 * none begins or ends where somebody happened to look. Some said 490, and others 1000. */
static void windows_are_whole_passes(void **state)
{
    struct pcmig_passes p = {.done = 1};
    struct pcmig_convergence c;
    uint64_t sent = GUEST_PAGES, left = 16000, iteration = 2;
    int64_t t_us = 20 * SECOND;

    (void)state;
    pcmig_convergence_init(&c);
    for (int pass = 0; pass < 12; pass++, iteration++) {
        int64_t took_us = (int64_t)left * 25; /* 40 pages in a ms */

        for (int64_t at_us = 0; at_us < took_us; at_us += 150000) {
            uint64_t by_now = (uint64_t)at_us / 25;
            struct pcmig_sample s = sample(sent + by_now, left - by_now, iteration);

            pcmig_convergence_feed(&c, t_us + at_us, &s, &p);
        }
        sent += left;
        t_us += took_us;
        left = left * 860 / 1000;
        for (int i = 0; i < PCMIG_CONVERGENCE_WINDOWS && c.windows[i].took_us > 0; i++)
            assert_in_range(pcmig_convergence_permille(&c.windows[i]), 855, 865);
    }
    assert_true(c.known);
}

/* A guest of a second. QEMU 10 has synchronised when a third of the first pass was left, as that fits in the downtime
 * limit; what it finds then is found in the second pass, which is seen from there on. It was seen from its end on. */
static void a_pass_that_ends_early_begins_the_next(void **state)
{
    struct pcmig_passes p;
    struct pcmig_convergence c;
    struct pcmig_sample s;
    int64_t t_us = 0;

    (void)state;
    pcmig_passes_init(&p, PCMIG_PASSES_TOLERANCE_PERMILLE);
    pcmig_convergence_init(&c);
    for (uint64_t pass = 0, sent = 0, left = GUEST_PAGES; pass < 2; pass++) {
        uint64_t until = sent + (pass == 0 ? GUEST_PAGES * 2 / 3 : GUEST_PAGES);

        for (; sent < until; sent += GUEST_PAGES / 20, left -= GUEST_PAGES / 20, t_us += 50000) {
            assert_false(c.known);
            s = sample(sent, left, pass + 1);
            (void)pcmig_passes_feed(&p, t_us, &s);
            pcmig_convergence_feed(&c, t_us, &s, &p);
        }
        left = GUEST_PAGES; /* all that was sent is dirty again */
        s = sample(sent, left, pass + 2);
        (void)pcmig_passes_feed(&p, t_us, &s);
        pcmig_convergence_feed(&c, t_us, &s, &p);
    }
    assert_true(c.known);
    assert_in_range(pcmig_convergence_permille(&c.lowest), 900, 1100);
}

/* A minute of waiting for other migrations, or of set-up, tells nothing of a guest: it is judged as soon as one that
 * began at once. It took a second and a half for 0.15 s. */
static void waiting_is_no_evidence_to_wait_for(void **state)
{
    int64_t took_us[2];

    (void)state;
    for (int waited = 0; waited < 2; waited++) {
        struct pcmig_passes p = {.done = 1};
        struct pcmig_convergence c;
        int64_t start_us = waited * 60 * SECOND, t_us = start_us;
        uint64_t sent = GUEST_PAGES, iteration = 2;
        struct pcmig_sample s = sample(0, 0, 1);

        pcmig_convergence_init(&c);
        pcmig_convergence_feed(&c, start_us, &s, &p);
        for (; !c.known && t_us < start_us + 10 * SECOND; t_us += 25000, sent += 1000, iteration++) {
            s = sample(sent, 5000, iteration);
            pcmig_convergence_feed(&c, t_us, &s, &p);
        }
        assert_true(c.known);
        took_us[waited] = t_us - start_us;
        /* Nor does it count again when the others' turn has been in between. */
        pcmig_convergence_pause(&c);
        assert_int_equal(pcmig_convergence_window_us(&c, t_us), 50000);
    }
    assert_int_equal(took_us[0], took_us[1]);
    assert_in_range(took_us[1], 150000, 250000);
}

/* QEMU 11 synchronises within a pass, from which nothing is learned: what was not sent yet cannot be dirty again. */
static void a_turn_is_no_pass(void **state)
{
    struct pcmig_passes p;
    struct pcmig_convergence c;

    (void)state;
    pcmig_passes_init(&p, PCMIG_PASSES_TOLERANCE_PERMILLE);
    pcmig_convergence_init(&c);
    for (uint64_t sent = 0; sent < GUEST_PAGES * 9 / 10; sent += GUEST_PAGES / 20) {
        struct pcmig_sample s = sample(sent, GUEST_PAGES - sent, 1 + sent * 20 / GUEST_PAGES);

        (void)pcmig_passes_feed(&p, (int64_t)sent * 100, &s);
        pcmig_convergence_feed(&c, (int64_t)sent * 100, &s, &p);
        assert_false(c.started);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saw_tooth),
        cmocka_unit_test(synchronised_early),
        cmocka_unit_test(continuous),
        cmocka_unit_test(idle_guest),
        cmocka_unit_test(late_and_backwards),
        cmocka_unit_test(first_sample_late),
        cmocka_unit_test(odd_reports),
        cmocka_unit_test(extremes),
        cmocka_unit_test(windows_are_whole_passes),
        cmocka_unit_test(a_pass_that_ends_early_begins_the_next),
        cmocka_unit_test(a_turn_is_no_pass),
        cmocka_unit_test(waiting_is_no_evidence_to_wait_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
