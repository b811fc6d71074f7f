/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.3 records of one direction of a connection, once OpenSSL's handshake has agreed on the secrets (RFC 8446, 5.1
 * to 5.5 and 7.2 to 7.3). OpenSSL's own record layer copies each byte twice on its way, which costs as much as the
 * encryption; this one reads plaintext where it lies and writes the record where it is sent from, and the other way
 * round. Ciphers and key derivation are OpenSSL's (EVP). Pure: no socket, no clock. Not for several threads at once. */
#ifndef PCMIG_TUNNEL_RECORDS_H
#define PCMIG_TUNNEL_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_cipher_st; /* OpenSSL's SSL_CIPHER */
struct pcmig_records;

/* RFC 8446, 5.1: the types that may follow the handshake. */
enum pcmig_record_type {
    PCMIG_RECORD_ALERT = 21,
    PCMIG_RECORD_HANDSHAKE = 22,
    PCMIG_RECORD_DATA = 23,
};

#define PCMIG_RECORDS_DATA_BYTES 16384 /* of plaintext in a record, at most */
#define PCMIG_RECORDS_OPENED_BYTES                                                                                     \
    (PCMIG_RECORDS_DATA_BYTES + 1)      /* room to open any record: its type is in there too */
#define PCMIG_RECORDS_OVERHEAD_BYTES 22 /* header 5, type 1, tag 16 */
#define PCMIG_RECORDS_KEY_BYTES      32
#define PCMIG_RECORDS_IV_BYTES       12
#define PCMIG_RECORDS_SECRET_BYTES   48 /* at most: as long as the suite's digest */

/* What the records are protected with, for whoever is to go on with it (the kernel). */
struct pcmig_record_keys {
    uint8_t key[PCMIG_RECORDS_KEY_BYTES]; /* the first key_len */
    uint8_t iv[PCMIG_RECORDS_IV_BYTES];
    size_t key_len;
};

enum pcmig_record_opened {
    PCMIG_RECORD_OPENED,
    PCMIG_RECORD_PARTIAL, /* there is no whole record */
    PCMIG_RECORD_BROKEN,  /* not a record, changed on the way, or memory is short: the connection cannot go on */
};

/* CIPHER: the suite that was agreed on; SECRET: the first application traffic secret of this direction, LEN bytes;
 * SEALS: to seal, not to open. NULL when OpenSSL does not have what it takes or memory is short. */
struct pcmig_records *pcmig_records_new(const struct ssl_cipher_st *cipher, const uint8_t *secret, size_t len,
                                        bool seals);
void pcmig_records_free(struct pcmig_records *records); /* NULL is fine */

/* One record with LEN bytes of PLAIN (at most PCMIG_RECORDS_DATA_BYTES) to TO, which does not overlap and has room for
 * the overhead too. Returns the record's bytes; 0 when OpenSSL failed. */
size_t pcmig_records_seal(struct pcmig_records *records, enum pcmig_record_type type, const uint8_t *plain, size_t len,
                          uint8_t *to);

/* The record at the front of the LEN bytes of IN, which took *TAKEN of them; its *GOT bytes of plaintext to TO, which
 * does not overlap and has room for PCMIG_RECORDS_OPENED_BYTES. What is in TO counts only when OPENED is returned. */
enum pcmig_record_opened pcmig_records_open(struct pcmig_records *records, const uint8_t *in, size_t len, size_t *taken,
                                            uint8_t *to, size_t *got, uint8_t *type);

/* Whether pcmig_records_open would say something else than PARTIAL. */
bool pcmig_records_is_whole(const uint8_t *in, size_t len);

/* To the next key (7.2), from number 0. False when OpenSSL failed. */
bool pcmig_records_renew(struct pcmig_records *records);

/* The present key; the caller has to wipe it. */
void pcmig_records_keys(const struct pcmig_records *records, struct pcmig_record_keys *keys);

#endif
