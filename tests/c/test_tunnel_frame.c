/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes between two daemons: what is encoded decodes to the same, and what is not a frame is told from one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/tunnel_frame.h"

#define NAME "0123456789abcdef0123456789abcdef"

static struct pcmig_tunnel_hello stream_hello(void)
{
    struct pcmig_tunnel_hello hello = {
        .kind = PCMIG_TUNNEL_KIND_STREAM, .index = 2, .count = 4, .name = NAME, .clock_ms = UINT64_C(1790000000123)};

    memset(hello.stream, 0xa5, sizeof(hello.stream));
    return hello;
}

static void frames_come_back(void **state)
{
    static const struct pcmig_tunnel_frame frames[] = {
        {PCMIG_TUNNEL_FRAME_DATA, 0, 1, 0},
        {PCMIG_TUNNEL_FRAME_DATA, 0, PCMIG_TUNNEL_FRAME_PAYLOAD_BYTES, UINT64_MAX},
        {PCMIG_TUNNEL_FRAME_FIN, 0, 0, UINT64_C(0x0102030405060708)},
        {PCMIG_TUNNEL_FRAME_PING, 0, 0, 7},
        {PCMIG_TUNNEL_FRAME_PONG, 0, 0, 7},
        {PCMIG_TUNNEL_FRAME_RESET, PCMIG_TUNNEL_RESET_GONE, 0, 9},
        {PCMIG_TUNNEL_FRAME_RESET, PCMIG_TUNNEL_RESET_CLOSED, 0, 9},
        {PCMIG_TUNNEL_FRAME_BYE, 0, 0, 0},
    };
    uint8_t bytes[PCMIG_TUNNEL_FRAME_HEADER_BYTES];
    struct pcmig_tunnel_frame back;

    (void)state;
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        pcmig_tunnel_frame_encode(&frames[i], bytes);
        assert_true(pcmig_tunnel_frame_decode(bytes, &back));
        assert_int_equal(back.type, frames[i].type);
        assert_int_equal(back.code, frames[i].code);
        assert_int_equal(back.length, frames[i].length);
        assert_int_equal(back.seq, frames[i].seq);
    }
}

/* The layout is a contract between versions of the daemon. */
static void layout_of_a_frame(void **state)
{
    static const uint8_t expected[] = {1, 0, 0, 0, 0, 1, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8};
    const struct pcmig_tunnel_frame frame = {PCMIG_TUNNEL_FRAME_DATA, 0, 0x10002, UINT64_C(0x0102030405060708)};
    uint8_t bytes[PCMIG_TUNNEL_FRAME_HEADER_BYTES];

    (void)state;
    pcmig_tunnel_frame_encode(&frame, bytes);
    assert_memory_equal(bytes, expected, sizeof(expected));
}

static void what_is_no_frame(void **state)
{
    static const uint8_t bad[][PCMIG_TUNNEL_FRAME_HEADER_BYTES] = {
        {0},                         /* type 0 */
        {7},                         /* a type that there is not */
        {255, 255, 255, 255},        /* nonsense */
        {1},                         /* DATA of nothing */
        {1, 0, 0, 0, 0, 0x10, 0, 1}, /* DATA of more than a mebibyte */
        {1, 1, 0, 0, 0, 0, 0, 1},    /* DATA with a code */
        {1, 0, 1, 0, 0, 0, 0, 1},    /* reserved bytes */
        {1, 0, 0, 1, 0, 0, 0, 1},
        {2, 0, 0, 0, 0, 0, 0, 1},     /* FIN with a payload */
        {5},                          /* RESET without a reason */
        {5, PCMIG_TUNNEL_RESET_COUNT} /* one that there is not */
    };
    struct pcmig_tunnel_frame out;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(pcmig_tunnel_frame_decode(bad[i], &out));
}

static void hello_comes_back(void **state)
{
    const struct pcmig_tunnel_hello probe = {.kind = PCMIG_TUNNEL_KIND_PROBE, .clock_ms = 5};
    struct pcmig_tunnel_hello hello = stream_hello();
    uint8_t bytes[PCMIG_TUNNEL_FRAME_HELLO_BYTES];
    struct pcmig_tunnel_hello back;

    (void)state;
    pcmig_tunnel_frame_encode_hello(&hello, bytes);
    assert_int_equal(pcmig_tunnel_frame_decode_hello(bytes, &back), PCMIG_TUNNEL_ACCEPTED);
    assert_memory_equal(&back, &hello, sizeof(hello));
    hello.kind = PCMIG_TUNNEL_KIND_SPEAKING_STREAM;
    pcmig_tunnel_frame_encode_hello(&hello, bytes);
    assert_int_equal(pcmig_tunnel_frame_decode_hello(bytes, &back), PCMIG_TUNNEL_ACCEPTED);
    assert_memory_equal(&back, &hello, sizeof(hello));
    pcmig_tunnel_frame_encode_hello(&probe, bytes);
    assert_int_equal(pcmig_tunnel_frame_decode_hello(bytes, &back), PCMIG_TUNNEL_ACCEPTED);
    assert_string_equal(back.name, "");
    assert_int_equal(back.clock_ms, 5);
}

static void hello_that_is_refused(void **state)
{
    /* One byte at a time becomes wrong. */
    static const struct {
        size_t at;
        uint8_t value;
        enum pcmig_tunnel_verdict verdict;
    } rows[] = {
        {0, 'Q', PCMIG_TUNNEL_REFUSED_HELLO}, {4, 2, PCMIG_TUNNEL_REFUSED_VERSION},
        {4, 0, PCMIG_TUNNEL_REFUSED_VERSION}, {5, 3, PCMIG_TUNNEL_REFUSED_HELLO},
        {6, 4, PCMIG_TUNNEL_REFUSED_HELLO},   {7, 0, PCMIG_TUNNEL_REFUSED_HELLO},
        {7, 9, PCMIG_TUNNEL_REFUSED_HELLO},   {8, '.', PCMIG_TUNNEL_REFUSED_HELLO},
        {9, '/', PCMIG_TUNNEL_REFUSED_HELLO}, {20, 'A', PCMIG_TUNNEL_REFUSED_HELLO},
        {39, 0, PCMIG_TUNNEL_REFUSED_HELLO},  {39, 'g', PCMIG_TUNNEL_REFUSED_HELLO},
    };
    const struct pcmig_tunnel_hello hello = stream_hello();
    uint8_t bytes[PCMIG_TUNNEL_FRAME_HELLO_BYTES];
    struct pcmig_tunnel_hello out;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        pcmig_tunnel_frame_encode_hello(&hello, bytes);
        bytes[rows[i].at] = rows[i].value;
        assert_int_equal(pcmig_tunnel_frame_decode_hello(bytes, &out), rows[i].verdict);
    }
}

static void other_protocols_are_told_at_once(void **state)
{
    (void)state;
    assert_true(pcmig_tunnel_frame_maybe_hello((const uint8_t *)"", 0));
    assert_true(pcmig_tunnel_frame_maybe_hello((const uint8_t *)"PC", 2));
    assert_true(pcmig_tunnel_frame_maybe_hello((const uint8_t *)"PCMT\1", 5));
    assert_false(pcmig_tunnel_frame_maybe_hello((const uint8_t *)"G", 1));
    assert_false(pcmig_tunnel_frame_maybe_hello((const uint8_t *)"PCMX", 4));
}

static void answers(void **state)
{
    uint8_t bytes[PCMIG_TUNNEL_FRAME_ANSWER_BYTES];
    struct pcmig_tunnel_answer back;

    (void)state;
    for (int verdict = 0; verdict < PCMIG_TUNNEL_VERDICT_COUNT; verdict++) {
        const struct pcmig_tunnel_answer answer = {(enum pcmig_tunnel_verdict)verdict, UINT64_MAX - 1};

        pcmig_tunnel_frame_encode_answer(&answer, bytes);
        assert_true(pcmig_tunnel_frame_decode_answer(bytes, &back));
        assert_int_equal(back.verdict, verdict);
        assert_int_equal(back.clock_ms, UINT64_MAX - 1);
        assert_true(strlen(pcmig_tunnel_frame_verdict_text(answer.verdict)) > 5);
    }
    bytes[5] = PCMIG_TUNNEL_VERDICT_COUNT;
    assert_false(pcmig_tunnel_frame_decode_answer(bytes, &back));
    bytes[5] = 0;
    bytes[7] = 1;
    assert_false(pcmig_tunnel_frame_decode_answer(bytes, &back));
    memset(bytes, 0, sizeof(bytes));
    assert_false(pcmig_tunnel_frame_decode_answer(bytes, &back));
}

static void texts_are_never_missing(void **state)
{
    (void)state;
    assert_non_null(pcmig_tunnel_frame_verdict_text((enum pcmig_tunnel_verdict)200));
    for (unsigned code = 0; code < 256; code++)
        assert_non_null(pcmig_tunnel_frame_reset_text(code));
}

static void names(void **state)
{
    (void)state;
    assert_true(pcmig_tunnel_frame_is_name(NAME, 32));
    assert_false(pcmig_tunnel_frame_is_name(NAME, 31));
    assert_false(pcmig_tunnel_frame_is_name(NAME "0", 33));
    assert_false(pcmig_tunnel_frame_is_name("0123456789abcdef0123456789abcdeF", 32));
    assert_false(pcmig_tunnel_frame_is_name("../3456789abcdef0123456789abcdef", 32));
    assert_false(pcmig_tunnel_frame_is_name("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_back),
        cmocka_unit_test(layout_of_a_frame),
        cmocka_unit_test(what_is_no_frame),
        cmocka_unit_test(hello_comes_back),
        cmocka_unit_test(hello_that_is_refused),
        cmocka_unit_test(other_protocols_are_told_at_once),
        cmocka_unit_test(answers),
        cmocka_unit_test(texts_are_never_missing),
        cmocka_unit_test(names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
