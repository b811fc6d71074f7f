/* SPDX-License-Identifier: Apache-2.0 */
/* Records of TLS 1.3 against those of RFC 8448, and whatever is none. (test_tunnel_channel has OpenSSL at the other
 * end.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/ssl.h>

#include "tunnel/records.h"

enum { ROOM = PCMIG_RECORDS_OPENED_BYTES + PCMIG_RECORDS_OVERHEAD_BYTES };

/* RFC 8448, 3: client_application_traffic_secret_0, its key and IV, and the record of the bytes 0 to 49. */
static const uint8_t rfc_secret[] = {0x9e, 0x40, 0x64, 0x6c, 0xe7, 0x9a, 0x7f, 0x9d, 0xc0, 0x5a, 0xf8,
                                     0x88, 0x9b, 0xce, 0x65, 0x52, 0x87, 0x5a, 0xfa, 0x0b, 0x06, 0xdf,
                                     0x00, 0x87, 0xf7, 0x92, 0xeb, 0xb7, 0xc1, 0x75, 0x04, 0xa5};
static const uint8_t rfc_key[] = {0x17, 0x42, 0x2d, 0xda, 0x59, 0x6e, 0xd5, 0xd9,
                                  0xac, 0xd8, 0x90, 0xe3, 0xc6, 0x3f, 0x50, 0x51};
static const uint8_t rfc_iv[] = {0x5b, 0x78, 0x92, 0x3d, 0xee, 0x08, 0x57, 0x90, 0x33, 0xe5, 0x23, 0xd9};
static const uint8_t rfc_record[] = {
    0x17, 0x03, 0x03, 0x00, 0x43, 0xa2, 0x3f, 0x70, 0x54, 0xb6, 0x2c, 0x94, 0xd0, 0xaf, 0xfa, 0xfe, 0x82, 0x28,
    0xba, 0x55, 0xcb, 0xef, 0xac, 0xea, 0x42, 0xf9, 0x14, 0xaa, 0x66, 0xbc, 0xab, 0x3f, 0x2b, 0x98, 0x19, 0xa8,
    0xa5, 0xb4, 0x6b, 0x39, 0x5b, 0xd5, 0x4a, 0x9a, 0x20, 0x44, 0x1e, 0x2b, 0x62, 0x97, 0x4e, 0x1f, 0x5a, 0x62,
    0x92, 0xa2, 0x97, 0x70, 0x14, 0xbd, 0x1e, 0x3d, 0xea, 0xe6, 0x3a, 0xee, 0xbb, 0x21, 0x69, 0x49, 0x15, 0xe4};

/* The first three suites of RFC 8446, B.4. */
static const SSL_CIPHER *suite(uint8_t number)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    const SSL_CIPHER *found = SSL_CIPHER_find(ssl, (const uint8_t[]){0x13, number});

    SSL_free(ssl);
    SSL_CTX_free(context); /* suites are static */
    assert_non_null(found);
    return found;
}

static struct pcmig_records *rfc_records(bool seals)
{
    struct pcmig_records *records = pcmig_records_new(suite(1), rfc_secret, sizeof(rfc_secret), seals);

    assert_non_null(records);
    return records;
}

static enum pcmig_record_opened open_one(struct pcmig_records *opens, const uint8_t *in, size_t len, uint8_t *to,
                                         size_t *got, uint8_t *type)
{
    size_t taken = 0;
    const enum pcmig_record_opened opened = pcmig_records_open(opens, in, len, &taken, to, got, type);

    assert_int_equal(taken, opened == PCMIG_RECORD_OPENED ? len : 0);
    return opened;
}

static void as_in_rfc_8448(void **state)
{
    struct pcmig_records *seals = rfc_records(true), *opens = rfc_records(false);
    struct pcmig_record_keys keys;
    uint8_t plain[50], record[ROOM], back[PCMIG_RECORDS_OPENED_BYTES], type;
    size_t got;

    (void)state;
    pcmig_records_keys(seals, &keys);
    assert_int_equal(keys.key_len, sizeof(rfc_key));
    assert_memory_equal(keys.key, rfc_key, sizeof(rfc_key));
    assert_memory_equal(keys.iv, rfc_iv, sizeof(rfc_iv));
    for (uint8_t i = 0; i < sizeof(plain); i++)
        plain[i] = i;
    assert_int_equal(pcmig_records_seal(seals, PCMIG_RECORD_DATA, plain, sizeof(plain), record), sizeof(rfc_record));
    assert_memory_equal(record, rfc_record, sizeof(rfc_record));
    assert_int_equal(open_one(opens, rfc_record, sizeof(rfc_record), back, &got, &type), PCMIG_RECORD_OPENED);
    assert_int_equal(type, PCMIG_RECORD_DATA);
    assert_int_equal(got, sizeof(plain));
    assert_memory_equal(back, plain, sizeof(plain));
    pcmig_records_free(seals);
    pcmig_records_free(opens);
}

static void every_suite_and_size(void **state)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 4096, PCMIG_RECORDS_DATA_BYTES - 1, PCMIG_RECORDS_DATA_BYTES};
    static const uint8_t secret[PCMIG_RECORDS_SECRET_BYTES] = {7};
    uint8_t *plain = malloc(ROOM), *record = malloc(ROOM), *back = malloc(ROOM), type;
    size_t got;

    (void)state;
    assert_true(plain != NULL && record != NULL && back != NULL);
    for (size_t i = 0; i < PCMIG_RECORDS_DATA_BYTES; i++)
        plain[i] = (uint8_t)(i * 7 >> 2);
    for (uint8_t number = 1; number <= 3; number++) {
        const size_t len = number == 2 ? 48 : 32; /* of the suite's digest */
        struct pcmig_records *seals = pcmig_records_new(suite(number), secret, len, true);
        struct pcmig_records *opens = pcmig_records_new(suite(number), secret, len, false);

        assert_true(seals != NULL && opens != NULL);
        for (unsigned round = 0; round < 3; round++) {
            for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                const size_t n = pcmig_records_seal(seals, PCMIG_RECORD_DATA, plain, sizes[i], record);

                assert_int_equal(n, sizes[i] + PCMIG_RECORDS_OVERHEAD_BYTES);
                assert_int_equal(open_one(opens, record, n, back, &got, &type), PCMIG_RECORD_OPENED);
                assert_int_equal(got, sizes[i]);
                assert_memory_equal(back, plain, got);
            }
            assert_true(pcmig_records_renew(seals) && pcmig_records_renew(opens));
        }
        pcmig_records_free(seals);
        pcmig_records_free(opens);
    }
    free(plain);
    free(record);
    free(back);
}

/* A record that comes again, or one that another key has sealed. */
static void order_and_key_count(void **state)
{
    struct pcmig_records *seals = rfc_records(true), *opens = rfc_records(false);
    uint8_t record[ROOM], back[PCMIG_RECORDS_OPENED_BYTES], type;
    size_t got, n;

    (void)state;
    n = pcmig_records_seal(seals, PCMIG_RECORD_DATA, (const uint8_t *)"once", 4, record);
    assert_int_equal(open_one(opens, record, n, back, &got, &type), PCMIG_RECORD_OPENED);
    assert_int_equal(open_one(opens, record, n, back, &got, &type), PCMIG_RECORD_BROKEN);
    pcmig_records_free(opens);
    opens = rfc_records(false);
    assert_true(pcmig_records_renew(opens));
    assert_int_equal(open_one(opens, record, n, back, &got, &type), PCMIG_RECORD_BROKEN);
    pcmig_records_free(seals);
    pcmig_records_free(opens);
}

static void any_changed_bit_breaks_it(void **state)
{
    uint8_t record[sizeof(rfc_record)], back[PCMIG_RECORDS_OPENED_BYTES], type;
    size_t got;

    (void)state;
    for (size_t bit = 0; bit < 8 * sizeof(record); bit++) {
        struct pcmig_records *opens = rfc_records(false);
        enum pcmig_record_opened opened;

        memcpy(record, rfc_record, sizeof(record));
        record[bit / 8] ^= (uint8_t)(1 << bit % 8);
        opened = open_one(opens, record, sizeof(record), back, &got, &type);
        /* A longer one is awaited. */
        assert_int_equal(opened, (record[3] << 8 | record[4]) > 0x43 && record[3] < 0x40 && record[0] == 0x17 &&
                                         record[1] == 3 && record[2] == 3
                                     ? PCMIG_RECORD_PARTIAL
                                     : PCMIG_RECORD_BROKEN);
        pcmig_records_free(opens);
    }
}

static void half_a_record_is_awaited(void **state)
{
    struct pcmig_records *opens = rfc_records(false);
    uint8_t back[PCMIG_RECORDS_OPENED_BYTES], type;
    size_t got;

    (void)state;
    for (size_t len = 0; len < sizeof(rfc_record); len++) {
        assert_false(pcmig_records_is_whole(rfc_record, len));
        assert_int_equal(open_one(opens, rfc_record, len, back, &got, &type), PCMIG_RECORD_PARTIAL);
    }
    assert_true(pcmig_records_is_whole(rfc_record, sizeof(rfc_record)));
    assert_int_equal(open_one(opens, rfc_record, sizeof(rfc_record), back, &got, &type), PCMIG_RECORD_OPENED);
    pcmig_records_free(opens);
}

/* RFC 8446, 5.2 and 5.4: lengths, padding, a record with nothing in it. */
static void lengths_and_padding(void **state)
{
    static const uint8_t padded[] = {'a', 'b', 'c', PCMIG_RECORD_DATA, 0, 0}, nothing[3];
    struct pcmig_records *seals = rfc_records(true), *opens = rfc_records(false);
    uint8_t record[ROOM], back[PCMIG_RECORDS_OPENED_BYTES], type;
    size_t got, n;

    (void)state;
    /* With 0 for its type the last byte is padding too. */
    n = pcmig_records_seal(seals, (enum pcmig_record_type)0, padded, sizeof(padded), record);
    assert_int_equal(open_one(opens, record, n, back, &got, &type), PCMIG_RECORD_OPENED);
    assert_int_equal(type, PCMIG_RECORD_DATA);
    assert_int_equal(got, 3);
    assert_memory_equal(back, "abc", 3);
    n = pcmig_records_seal(seals, (enum pcmig_record_type)0, nothing, sizeof(nothing), record);
    assert_int_equal(open_one(opens, record, n, back, &got, &type), PCMIG_RECORD_BROKEN);
    /* Too short for a tag, and one byte too long. */
    assert_int_equal(open_one(opens, (const uint8_t[]){0x17, 3, 3, 0, 16}, 5, back, &got, &type), PCMIG_RECORD_BROKEN);
    assert_int_equal(open_one(opens, (const uint8_t[]){0x17, 3, 3, 0x40, 0x12}, 5, back, &got, &type),
                     PCMIG_RECORD_BROKEN);
    assert_int_equal(open_one(opens, (const uint8_t[]){0x17, 3, 3, 0x40, 0x11}, 5, back, &got, &type),
                     PCMIG_RECORD_PARTIAL);
    pcmig_records_free(seals);
    pcmig_records_free(opens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_in_rfc_8448),           cmocka_unit_test(every_suite_and_size),
        cmocka_unit_test(order_and_key_count),      cmocka_unit_test(any_changed_bit_breaks_it),
        cmocka_unit_test(half_a_record_is_awaited), cmocka_unit_test(lengths_and_padding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
