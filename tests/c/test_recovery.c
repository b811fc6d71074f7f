/* SPDX-License-Identifier: Apache-2.0 */
/* core/recovery: an interrupted post-copy is resumed, and nothing is done to one that lives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/recovery.h"

#define S INT64_C(1000000)

static struct pcmig_recovery_view view(int64_t t_us, enum pcmig_half source, enum pcmig_half destination)
{
    return (struct pcmig_recovery_view){.t_us = t_us,
                                        .source = source,
                                        .destination = destination,
                                        .destination_asked = true,
                                        .wakes = PCMIG_RECOVERY_WAKES_HEARD,
                                        .sent_bytes = -1,
                                        .silence_ms = -1,
                                        .still_ms = -1};
}

static enum pcmig_recovery_step step(struct pcmig_recovery *recovery, struct pcmig_recovery_view at)
{
    return pcmig_recovery_next(recovery, &at).step;
}

/* TCP has nothing to miss, and yet nothing moves: the source waits for a word that was lost. Twice the silence, and a
 * second look. */
static void nothing_moves(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY, PCMIG_HALF_POSTCOPY);

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    at.silence_ms = 0;
    at.still_ms = 19999;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
    at.t_us += S;
    at.still_ms = 20000;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
    at.t_us += S;
    at.still_ms = 21000;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_PAUSE);
    /* It moves again. */
    at.t_us += S;
    at.still_ms = 0;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);

    pcmig_recovery_init(&recovery, 0, 1); /* nobody wants it */
    at.still_ms = INT32_MAX;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
    at.t_us += S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
}

/* Both halves agree: at once, then ever more slowly, over the networks in turn, for ever. */
static void both_say_so(void **state)
{
    struct pcmig_recovery recovery;
    int64_t t = 100 * S, last = 0;
    unsigned resumes = 0;

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 2);
    while (resumes < 10) {
        struct pcmig_recovery_view at = view(t, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
        struct pcmig_recovery_order order = pcmig_recovery_next(&recovery, &at);

        if (order.step == PCMIG_RECOVERY_RESUME) {
            assert_int_equal(order.network, resumes % 2);
            resumes++;
            if (resumes == 1)
                assert_int_equal(t, 100 * S);
            /* With the moment that a destination needs which has just been woken. */
            if (resumes == 2)
                assert_in_range(t - last, S, 3 * S);
            if (resumes == 5)
                assert_in_range(t - last, 8 * S, 10 * S);
            assert_true(t - last <= 32 * S || last == 0);
            last = t;
        } else if (order.step != PCMIG_RECOVERY_WAKE) {
            assert_int_equal(order.step, PCMIG_RECOVERY_WAIT);
        }
        t += S / 10;
    }
    assert_int_equal(recovery.attempts, 10);
}

/* Six times the silence that counts as dead, in which libvirt there answers and its QEMU does not notice, or a resume
 * does not return. */
static void a_destination_that_hangs(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY);

    (void)state;
    pcmig_recovery_init(&recovery, 5000, 1);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
    (void)step(&recovery, at);
    at.t_us += 30 * S - 1;
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
    at.t_us += 1;
    at.call_running = true;
    at.destination = PCMIG_HALF_POSTCOPY_FAILED; /* it has noticed, and takes no resume */
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_HANGS);
    at.call_running = false; /* an attempt failed: the next one may not */
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);

    pcmig_recovery_init(&recovery, 0, 1); /* where no silence counts as dead */
    at.call_running = true;
    (void)step(&recovery, at);
    at.t_us += 60 * S;
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_HANGS);
    at.destination = PCMIG_HALF_UNKNOWN; /* that is told as such */
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
    at.destination = PCMIG_HALF_POSTCOPY_FAILED;
    at.source_runs = true; /* the guest turned back */
    (void)step(&recovery, at);
    at.t_us += 60 * S;
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
}

/* libvirt refuses each attempt. Where the source's QEMU says that it sends, and nothing moves, it is told to pause,
 * from the second on, once between two of them, and the next one is made soon; where it waits, it is the destination's
 * that does not, and that hangs. */
static void refusals(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
    enum pcmig_recovery_step found;
    unsigned pauses = 0, resumes = 0;

    (void)state;
    assert_true(pcmig_recovery_refused("operation is not valid: QEMU reports migration is still running"));
    assert_false(pcmig_recovery_refused("post-copy migration of domain g1 has not failed"));
    assert_false(pcmig_recovery_refused(""));
    pcmig_recovery_init(&recovery, 10000, 1);
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
    at.refused = at.source_sends = true;
    at.sent_bytes = 4096;
    for (int looks = 0; looks < 600; looks++) {
        at.t_us += S / 10;
        at.said_us = at.t_us;
        found = step(&recovery, at);
        if (found == PCMIG_RECOVERY_PAUSE_QEMU) {
            pauses++;
            assert_int_equal(pauses, resumes); /* none for the first, one for each that follows */
            assert_true(recovery.retry_us <= at.t_us + 2 * S);
        }
        resumes += found == PCMIG_RECOVERY_RESUME;
        assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
    }
    assert_true(pauses > 3);
    at.call_running = true;
    assert_int_not_equal(step(&recovery, at), PCMIG_RECOVERY_PAUSE_QEMU);

    pcmig_recovery_init(&recovery, 10000, 1);
    at.call_running = at.source_sends = false;
    (void)step(&recovery, at);
    at.t_us += 60 * S;
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at),
                     PCMIG_RECOVERY_NOT_STUCK); /* it has not said whether it is its own */
    at.source_waits = true;
    (void)step(&recovery, at);
    for (int looks = 0; looks < 599; looks++) {
        at.t_us += S / 10;
        assert_int_not_equal(step(&recovery, at), PCMIG_RECOVERY_PAUSE_QEMU);
        assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
    }
    for (int looks = 0; looks < 10; looks++) {
        at.t_us += S / 10;
        (void)step(&recovery, at);
    }
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_HANGS);
    at.refused = false; /* it failed in another way: its end is not all that helps */
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
}

/* Two attempts that were refused, then a look each tenth of a second, at which the source has sent MOVES bytes more.
 * Returns how many there are before a pause is ordered, or -1 when none is before the next attempt. */
static int pause_after(struct pcmig_recovery *recovery, struct pcmig_recovery_view *at, int64_t moves,
                       int64_t silence_ms)
{
    pcmig_recovery_init(recovery, 10000, 1);
    while (recovery->attempts < 2) {
        (void)step(recovery, *at);
        at->t_us += S;
        at->refused = recovery->attempts > 0;
    }
    at->source_sends = true;
    at->silence_ms = silence_ms;
    for (int looks = 0; looks < 20; looks++) {
        at->said_us = at->t_us;
        if (step(recovery, *at) == PCMIG_RECOVERY_PAUSE_QEMU)
            return looks;
        at->t_us += S / 10;
        at->sent_bytes += moves;
    }
    return -1;
}

/* A QEMU that went on with a resume may serve its guest: it is left alone as long as anything moves. */
static void a_stream_that_lives_is_not_paused(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);

    (void)state;
    at.sent_bytes = 0;
    assert_int_equal(pause_after(&recovery, &at, 1, 0), -1);
    at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
    at.sent_bytes = 0;
    assert_int_equal(pause_after(&recovery, &at, 0, 0), 10); /* not before a second has passed between two looks */
    at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
    at.sent_bytes = 0;
    assert_int_equal(pause_after(&recovery, &at, 1, 10000), 10); /* into the void */
    at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
    assert_int_equal(pause_after(&recovery, &at, 0, 0), -1); /* it does not say what it has sent */
    at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY);
    at.sent_bytes = 0;
    assert_int_equal(pause_after(&recovery, &at, 0, 10000), -1); /* libvirt there says that it flows */
}

/* Nor is it resumed: a resume at the moment in which all has crossed would have libvirt miss that. */
static void a_stream_that_lives_is_not_resumed(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
    unsigned attempts;

    (void)state;
    at.sent_bytes = 0;
    assert_int_equal(pause_after(&recovery, &at, 4096, 0), -1);
    attempts = recovery.attempts;
    for (int looks = 0; looks < 600; looks++) {
        at.t_us += S / 10;
        at.said_us = at.t_us;
        at.sent_bytes += looks % 10 == 0 ? 4096 : 0;
        assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    }
    assert_int_equal(recovery.attempts, attempts);
    at.source_sends = false; /* QEMU has noticed that it is gone */
    at.source_waits = true;
    at.t_us += 60 * S;
    (void)step(&recovery, at); /* the destination is woken first */
    at.t_us += 10 * S;
    (void)step(&recovery, at);
    assert_int_equal(recovery.attempts, attempts + 1);
}

/* Nor is it at first: libvirt calls a half broken as soon as its own connection is. */
static void the_first_resume_waits_for_the_sources_word(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);

    (void)state;
    /* It has not answered yet, and may never: that is no reason to wait for long. */
    pcmig_recovery_init(&recovery, 10000, 1);
    at.source_asked = true;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us += 2 * S - 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us += 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);

    /* It flows, for as long as it does. */
    pcmig_recovery_init(&recovery, 10000, 1);
    at.source_asked = false;
    at.source_sends = true;
    at.sent_bytes = 4096;
    for (int looks = 0; looks < 600; looks++) {
        at.t_us = at.said_us = at.t_us + S / 10;
        at.sent_bytes += looks % 9 == 0 ? 4096 : 0;
        assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    }
    assert_int_equal(recovery.attempts, 0);
    assert_true(pcmig_recovery_flows(&recovery, &at));
    at.source_sends = false;
    at.source_waits = true;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);

    /* It takes its stream for one that flows, and nothing moves. */
    pcmig_recovery_init(&recovery, 10000, 1);
    at.source_sends = true;
    at.source_waits = false;
    at.said_us = at.t_us;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us = at.said_us = at.t_us + S - 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us = at.said_us = at.t_us + 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);

    /* It said so, and does not answer any more: an old word counts for as long as a byte. */
    pcmig_recovery_init(&recovery, 10000, 1);
    at.said_us = at.t_us;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us += 5 * S - 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us += 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);

    /* All has crossed, and libvirt at the destination is to say so; if it does not, for long, it may need a push. */
    pcmig_recovery_init(&recovery, 10000, 1);
    at.source_sends = false;
    at.source_done = true;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us += 60 * S - 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us += 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
    at.source_done = false;
    at.source_sends = true;

    /* It does not say what it sends, or says of itself that it waits. */
    pcmig_recovery_init(&recovery, 10000, 1);
    at.sent_bytes = -1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
    pcmig_recovery_init(&recovery, 10000, 1);
    at.source_sends = false;
    at.source_waits = true;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
}

/* Refused once, then failed in another way: that is no second time. */
static void refusals_are_counted_in_a_row(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
    unsigned attempts = 0;

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    at.sent_bytes = 4096;
    at.source_sends = true;
    for (int looks = 0; looks < 600; looks++) {
        at.refused = recovery.attempts % 2 != 0;
        assert_int_not_equal(step(&recovery, at), PCMIG_RECOVERY_PAUSE_QEMU);
        at.t_us += S / 10;
        at.said_us = at.t_us;
        attempts = recovery.attempts;
    }
    assert_true(attempts > 3);
}

/* An order to pause that may still be carried out must not find the next stream; one that failed is given again, and
 * attempts go on meanwhile. */
static void a_pause_that_is_out(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
    unsigned pauses = 0, attempts;

    (void)state;
    at.sent_bytes = 0;
    assert_int_equal(pause_after(&recovery, &at, 0, 0), 10);
    at.pausing = true;
    for (int looks = 0; looks < 600; looks++) {
        enum pcmig_recovery_step found;

        at.t_us = at.said_us = at.t_us + S / 10;
        found = step(&recovery, at);
        assert_true(found == PCMIG_RECOVERY_WAIT || found == PCMIG_RECOVERY_WAKE);
    }
    at.pausing = false;
    attempts = recovery.attempts;
    pcmig_recovery_pause_failed(&recovery);
    for (int looks = 0; looks < 600; looks++) {
        at.t_us = at.said_us = at.t_us + S / 10;
        if (step(&recovery, at) == PCMIG_RECOVERY_PAUSE_QEMU) {
            pcmig_recovery_pause_failed(&recovery);
            pauses++;
        }
    }
    assert_true(recovery.attempts > attempts + 2);
    assert_in_range(pauses, 3, 600 / 10);
}

/* The source is asked anew after each attempt: until it has said, what was known holds, and nothing new is made of it.
 * Where nothing has reached the destination's kernel, it has not noticed. */
static void hanging_is_certain(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    (void)step(&recovery, at);
    at.refused = at.source_waits = true;
    at.wakes = PCMIG_RECOVERY_WAKES_UNHEARD;
    at.t_us += S;
    (void)step(&recovery, at);
    at.t_us += 59 * S;
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
    at.t_us += 1 * S;
    at.call_running = true; /* another attempt, which is no other way of being stuck */
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_UNNOTICED);
    at.call_running = false;
    at.wakes = PCMIG_RECOVERY_WAKES_HEARD;
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
    at.t_us += 30 * S;
    at.source_waits = false; /* another attempt: it has not said yet */
    (void)step(&recovery, at);
    at.t_us += 30 * S;
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_HANGS);
    at.source_sends = true; /* it was not the destination's */
    (void)step(&recovery, at);
    assert_int_equal(pcmig_recovery_stuck(&recovery, &at), PCMIG_RECOVERY_NOT_STUCK);
}

/* Over a network that is broken, one that merely waits looks as one that hangs; so does one of which nobody saw the
 * connections. */
static void what_was_not_woken_is_no_hang(void **state)
{
    static const struct {
        enum pcmig_half destination;
        enum pcmig_recovery_wakes wakes;
        bool resumed; /* what does not end is a resume, and not the migrate call */
        enum pcmig_recovery_stuck stuck;
    } rows[] = {
        {PCMIG_HALF_POSTCOPY, PCMIG_RECOVERY_WAKES_HEARD, false, PCMIG_RECOVERY_HANGS},
        {PCMIG_HALF_POSTCOPY, PCMIG_RECOVERY_WAKES_UNHEARD, false, PCMIG_RECOVERY_UNNOTICED},
        {PCMIG_HALF_POSTCOPY, PCMIG_RECOVERY_WAKES_NONE, false, PCMIG_RECOVERY_UNNOTICED},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_RECOVERY_WAKES_HEARD, false, PCMIG_RECOVERY_HANGS},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_RECOVERY_WAKES_UNHEARD, false, PCMIG_RECOVERY_UNNOTICED},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_RECOVERY_WAKES_NONE, false, PCMIG_RECOVERY_UNNOTICED},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_RECOVERY_WAKES_HEARD, true, PCMIG_RECOVERY_HANGS},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_RECOVERY_WAKES_UNHEARD, true, PCMIG_RECOVERY_UNNOTICED},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_RECOVERY_WAKES_NONE, true, PCMIG_RECOVERY_HANGS},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_recovery recovery;
        struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, rows[i].destination);

        pcmig_recovery_init(&recovery, 10000, 1);
        if (rows[i].resumed)
            assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
        at.call_running = true;
        at.wakes = rows[i].wakes;
        (void)step(&recovery, at);
        at.t_us += 60 * S;
        (void)step(&recovery, at);
        assert_int_equal(pcmig_recovery_stuck(&recovery, &at), rows[i].stuck);
    }
}

/* The network is there: the destination asked for pages in the attempt, which failed in its handshake. */
static void an_attempt_that_reached_the_destination(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
    int64_t last_us = 0;
    unsigned quick = 0;

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    at.requests = 1000;
    while (recovery.attempts < 20) {
        if (step(&recovery, at) == PCMIG_RECOVERY_RESUME) {
            /* Not before the first failed attempts have shown that it is not the network. */
            quick += recovery.attempts > 5 && at.t_us - last_us <= 3 * S;
            assert_true(recovery.attempts <= 4 || recovery.attempts > 12 || at.t_us - last_us <= 10 * S);
            last_us = at.t_us;
            if (recovery.attempts >= 4)
                at.requests += 10;
        }
        at.t_us += S / 10;
    }
    assert_in_range(quick, 6, 9); /* and not for ever */
    assert_true(at.t_us - last_us < S);
    assert_true(recovery.retry_us - last_us > 20 * S);
}

static void no_two_calls_at_once(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    at.call_running = true;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.call_running = false;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
}

/* No attempt while it does not answer, and one at once when it does. */
static void destination_away(void **state)
{
    struct pcmig_recovery recovery;

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    for (int i = 0; i < 6; i++)
        (void)step(&recovery, view(i * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED));
    assert_true(recovery.retry_us > 6 * S);
    assert_int_equal(step(&recovery, view(7 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_UNKNOWN)), PCMIG_RECOVERY_WAIT);
    assert_int_equal(step(&recovery, view(3600 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_UNKNOWN)),
                     PCMIG_RECOVERY_WAIT);
    recovery.retry_us = INT64_MAX;
    assert_int_equal(step(&recovery, view(3601 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED)),
                     PCMIG_RECOVERY_RESUME);
}

/* Only the source's host reaches it: nothing to wait for but the back-off. */
static void destination_never_asked(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_UNKNOWN);

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    at.destination_asked = false;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
}

static void destination_has_not_noticed(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY);

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    /* libvirt's call waits for its QEMU: it is woken although the call has not returned. */
    at.call_running = true;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAKE);
    at.t_us = 2 * S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us = 7 * S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAKE);
    /* It may be libvirt's own connection that broke: libvirt tells, and refuses what would harm. */
    at.call_running = false;
    at.t_us = 9 * S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
    at.t_us = 13 * S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAKE);
}

/* libvirt there gave up when its own connection broke, and QEMU has not noticed: each resume is refused until it has.
 */
static void destination_libvirt_alone_has_noticed(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
    at.call_running = true;
    at.t_us = 3 * S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.call_running = false;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAKE);
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_WAIT);
    at.t_us = 5 * S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
    assert_int_equal(recovery.attempts, 2);
}

static void silence(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(S, PCMIG_HALF_POSTCOPY, PCMIG_HALF_UNKNOWN);

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    at.call_running = true;
    at.silence_ms = 9999;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
    at.silence_ms = 10000;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE); /* one look is no reason to pause anything */
    at.t_us = 2 * S - 1;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
    at.t_us = 2 * S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_PAUSE);
    pcmig_recovery_init(&recovery, 0, 1); /* 0 = never */
    at.silence_ms = INT32_MAX;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
}

/* What a look in between says anew, or does not know, is no agreement. */
static void silence_is_seen_twice_in_a_row(void **state)
{
    static const int64_t between[] = {0, 9999, -1};
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(S, PCMIG_HALF_POSTCOPY, PCMIG_HALF_UNKNOWN);

    (void)state;
    for (size_t i = 0; i < sizeof(between) / sizeof(between[0]); i++) {
        pcmig_recovery_init(&recovery, 10000, 1);
        for (int64_t second = 1; second < 20; second++) {
            at.t_us = second * S;
            at.silence_ms = second % 2 != 0 ? 60000 : between[i];
            assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
        }
    }
    /* Nor is what was seen long ago, for the looks that find it well are not told. */
    pcmig_recovery_init(&recovery, 10000, 1);
    at.silence_ms = 60000;
    for (int64_t second = 1; second < 20; second += 4) {
        at.t_us = second * S;
        assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
    }
    /* Nor what was seen of a stream that has broken since. */
    at.t_us = 30 * S;
    at.silence_ms = 60000;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
    at.source = PCMIG_HALF_MIGRATING;
    (void)step(&recovery, at);
    at.t_us = 40 * S;
    at.source = PCMIG_HALF_POSTCOPY;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_NONE);
    at.t_us = 41 * S;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_PAUSE);
}

static void source_has_not_noticed(void **state)
{
    struct pcmig_recovery recovery;

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    assert_int_equal(step(&recovery, view(S, PCMIG_HALF_POSTCOPY, PCMIG_HALF_POSTCOPY_FAILED)), PCMIG_RECOVERY_WAIT);
    assert_int_equal(step(&recovery, view(4 * S, PCMIG_HALF_POSTCOPY, PCMIG_HALF_POSTCOPY_FAILED)),
                     PCMIG_RECOVERY_PAUSE);
}

static void crashing_libvirt_is_held(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view at = view(S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    at.destination_libvirt = 11003000;
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_HELD);
    at.destination_libvirt = 11002000; /* where the crash came in */
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_HELD);
    assert_non_null(strstr(pcmig_recovery_hold(&at), "upgrade libvirt"));
    assert_int_equal(recovery.attempts, 0);
    at.destination_libvirt = 12008000; /* upgraded meanwhile */
    assert_int_equal(step(&recovery, at), PCMIG_RECOVERY_RESUME);
    at.destination_libvirt = 0;
    at.source_libvirt = 11003000;
    assert_non_null(pcmig_recovery_hold(&at));
    at.source_libvirt = 9000000;
    assert_null(pcmig_recovery_hold(&at));
    at.source_libvirt = 11001999;
    assert_null(pcmig_recovery_hold(&at));
    at.source_libvirt = 11004000;
    assert_null(pcmig_recovery_hold(&at));
}

/* Either end's: the source has to know the flag, and the destination to take the stream up again. */
static void libvirt_without_a_resume_is_held(void **state)
{
    static const struct {
        unsigned long source, destination;
        bool held;
    } rows[] = {
        {8000000, 8000000, true}, {8004999, 12008000, true}, {12008000, 8004000, true}, {8004000, 0, true},
        {0, 8004999, true},       {8005000, 8005000, false}, {12008000, 0, false},      {0, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_recovery recovery;
        struct pcmig_recovery_view at = view(S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED);
        const char *text;

        pcmig_recovery_init(&recovery, 10000, 1);
        at.source_libvirt = rows[i].source;
        at.destination_libvirt = rows[i].destination;
        assert_int_equal(step(&recovery, at), rows[i].held ? PCMIG_RECOVERY_HELD : PCMIG_RECOVERY_RESUME);
        text = pcmig_recovery_hold(&at);
        if (!rows[i].held) {
            assert_null(text);
            continue;
        }
        assert_non_null(strstr(text, "before 8.5 cannot resume"));
        assert_non_null(strstr(text, "upgrade libvirt at both ends"));
        assert_int_equal(recovery.attempts, 0);
    }
    /* 11.2 and 11.3 crash as the destination; as the source they do what they are told. */
    assert_null(pcmig_recovery_hold(
        &(struct pcmig_recovery_view){.source_libvirt = 11003000, .destination_libvirt = 12008000}));
}

/* Whatever else the halves are, nothing is resumed and nothing paused. */
static void nothing_else(void **state)
{
    (void)state;
    for (int source = 0; source < PCMIG_HALF_COUNT; source++) {
        for (int destination = 0; destination < PCMIG_HALF_COUNT; destination++) {
            struct pcmig_recovery recovery;
            struct pcmig_recovery_view at = view(50 * S, (enum pcmig_half)source, (enum pcmig_half)destination);
            enum pcmig_recovery_step found;

            pcmig_recovery_init(&recovery, 10000, 1);
            (void)pcmig_recovery_next(&recovery, &at);
            at.t_us += 60 * S;
            found = pcmig_recovery_next(&recovery, &at).step;
            if (found == PCMIG_RECOVERY_RESUME || found == PCMIG_RECOVERY_WAKE)
                assert_true(source == PCMIG_HALF_POSTCOPY_FAILED &&
                            (destination == PCMIG_HALF_POSTCOPY_FAILED || destination == PCMIG_HALF_POSTCOPY));
            if (found == PCMIG_RECOVERY_PAUSE)
                assert_true(source == PCMIG_HALF_POSTCOPY && destination == PCMIG_HALF_POSTCOPY_FAILED);
        }
    }
}

static void hurry(void **state)
{
    struct pcmig_recovery recovery;

    (void)state;
    pcmig_recovery_init(&recovery, 10000, 1);
    for (int i = 0; i < 100; i++)
        (void)step(&recovery, view(i * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED));
    assert_int_equal(step(&recovery, view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED)),
                     PCMIG_RECOVERY_WAIT);
    pcmig_recovery_hurry(&recovery);
    assert_int_equal(step(&recovery, view(100 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED)),
                     PCMIG_RECOVERY_WAKE);
    assert_int_equal(step(&recovery, view(102 * S, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED)),
                     PCMIG_RECOVERY_RESUME);
}

static void nothing_is_ordered_for_a_guest_that_turned_back(void **state)
{
    struct pcmig_recovery recovery;
    struct pcmig_recovery_view view = {.source = PCMIG_HALF_POSTCOPY_FAILED,
                                       .destination = PCMIG_HALF_POSTCOPY_FAILED,
                                       .destination_asked = true,
                                       .silence_ms = -1,
                                       .still_ms = -1};

    (void)state;
    pcmig_recovery_init(&recovery, 0, 1);
    assert_int_not_equal(pcmig_recovery_next(&recovery, &view).step, PCMIG_RECOVERY_NONE);
    view.source_unclear = true; /* or an interrupted destination, of a record that went the other way */
    assert_int_equal(pcmig_recovery_next(&recovery, &view).step, PCMIG_RECOVERY_WAIT);
    view.source_unclear = false;
    view.source_runs = true;
    assert_int_equal(pcmig_recovery_next(&recovery, &view).step, PCMIG_RECOVERY_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_ordered_for_a_guest_that_turned_back),
        cmocka_unit_test(both_say_so),
        cmocka_unit_test(nothing_moves),
        cmocka_unit_test(a_destination_that_hangs),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_stream_that_lives_is_not_paused),
        cmocka_unit_test(a_stream_that_lives_is_not_resumed),
        cmocka_unit_test(the_first_resume_waits_for_the_sources_word),
        cmocka_unit_test(refusals_are_counted_in_a_row),
        cmocka_unit_test(a_pause_that_is_out),
        cmocka_unit_test(hanging_is_certain),
        cmocka_unit_test(what_was_not_woken_is_no_hang),
        cmocka_unit_test(an_attempt_that_reached_the_destination),
        cmocka_unit_test(no_two_calls_at_once),
        cmocka_unit_test(destination_away),
        cmocka_unit_test(destination_never_asked),
        cmocka_unit_test(destination_has_not_noticed),
        cmocka_unit_test(destination_libvirt_alone_has_noticed),
        cmocka_unit_test(silence),
        cmocka_unit_test(silence_is_seen_twice_in_a_row),
        cmocka_unit_test(source_has_not_noticed),
        cmocka_unit_test(crashing_libvirt_is_held),
        cmocka_unit_test(libvirt_without_a_resume_is_held),
        cmocka_unit_test(nothing_else),
        cmocka_unit_test(hurry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
