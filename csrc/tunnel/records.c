/* SPDX-License-Identifier: Apache-2.0 */
/* See records.h. Section numbers are RFC 8446's. */
#include "tunnel/records.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/objects.h>
#include <openssl/params.h>
#include <openssl/ssl.h>

enum {
    HEADER_BYTES = 5,
    TYPE_BYTES = 1,
    TAG_BYTES = 16,
    OUTER_TYPE = PCMIG_RECORD_DATA, /* of all that is encrypted, 5.2 */
    LEGACY_VERSION = 3,             /* both of its bytes */
};

struct pcmig_records {
    EVP_CIPHER *cipher;
    EVP_CIPHER_CTX *context;
    EVP_KDF *kdf;
    const char *digest;
    bool seals;
    uint8_t secret[PCMIG_RECORDS_SECRET_BYTES];
    size_t secret_len;
    struct pcmig_record_keys keys;
    uint64_t number; /* of the next record */
};

/* HKDF-Expand-Label with an empty context (7.1). */
static bool expand(const struct pcmig_records *r, const char *label, uint8_t *to, size_t len)
{
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(r->kdf);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)r->digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)r->secret, r->secret_len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, (void *)"tls13 ", 6),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (void *)label, strlen(label)),
        OSSL_PARAM_construct_end(),
    };
    const bool done = context != NULL && EVP_KDF_derive(context, to, len, params) > 0;

    EVP_KDF_CTX_free(context);
    return done;
}

/* Key and IV of the present secret (7.3). */
static bool take_keys(struct pcmig_records *r)
{
    r->number = 0;
    return expand(r, "key", r->keys.key, r->keys.key_len) && expand(r, "iv", r->keys.iv, sizeof(r->keys.iv)) &&
           EVP_CipherInit_ex2(r->context, r->cipher, r->keys.key, r->keys.iv, r->seals, NULL) == 1;
}

struct pcmig_records *pcmig_records_new(const SSL_CIPHER *cipher, const uint8_t *secret, size_t len, bool seals)
{
    const EVP_MD *digest = SSL_CIPHER_get_handshake_digest(cipher);
    const char *name = OBJ_nid2sn(SSL_CIPHER_get_cipher_nid(cipher));
    struct pcmig_records *r = calloc(1, sizeof(*r));

    if (r == NULL || digest == NULL || name == NULL || len > sizeof(r->secret))
        goto err;
    r->digest = EVP_MD_get0_name(digest);
    r->seals = seals;
    memcpy(r->secret, secret, len);
    r->secret_len = len;
    r->kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_TLS1_3_KDF, NULL);
    r->cipher = EVP_CIPHER_fetch(NULL, name, NULL);
    r->context = EVP_CIPHER_CTX_new();
    if (r->kdf == NULL || r->cipher == NULL || r->context == NULL)
        goto err;
    r->keys.key_len = (size_t)EVP_CIPHER_get_key_length(r->cipher);
    if (r->keys.key_len > sizeof(r->keys.key) || EVP_CIPHER_get_iv_length(r->cipher) != PCMIG_RECORDS_IV_BYTES ||
        !take_keys(r))
        goto err;
    return r;

err:
    ERR_clear_error();
    pcmig_records_free(r);
    return NULL;
}

void pcmig_records_free(struct pcmig_records *r)
{
    if (r == NULL)
        return;
    EVP_CIPHER_CTX_free(r->context);
    EVP_CIPHER_free(r->cipher);
    EVP_KDF_free(r->kdf);
    OPENSSL_cleanse(r, sizeof(*r));
    free(r);
}

bool pcmig_records_renew(struct pcmig_records *r)
{
    uint8_t next[PCMIG_RECORDS_SECRET_BYTES];
    bool done = expand(r, "traffic upd", next, r->secret_len);

    memcpy(r->secret, next, r->secret_len);
    OPENSSL_cleanse(next, sizeof(next));
    done = done && take_keys(r);
    ERR_clear_error();
    return done;
}

void pcmig_records_keys(const struct pcmig_records *r, struct pcmig_record_keys *keys)
{
    *keys = r->keys;
}

/* Sets the next record's nonce (5.3), and takes its header as what is authenticated besides (5.2). */
static bool begin(struct pcmig_records *r, const uint8_t *header)
{
    uint8_t nonce[PCMIG_RECORDS_IV_BYTES];
    int n;

    memcpy(nonce, r->keys.iv, sizeof(nonce));
    for (size_t i = 0; i < sizeof(r->number); i++)
        nonce[sizeof(nonce) - 1 - i] ^= (uint8_t)(r->number >> 8 * i);
    r->number++;
    return EVP_CipherInit_ex2(r->context, NULL, NULL, nonce, r->seals, NULL) == 1 &&
           EVP_CipherUpdate(r->context, NULL, &n, header, HEADER_BYTES) == 1;
}

size_t pcmig_records_seal(struct pcmig_records *r, enum pcmig_record_type type, const uint8_t *plain, size_t len,
                          uint8_t *to)
{
    const size_t length = len + TYPE_BYTES + TAG_BYTES;
    const uint8_t header[HEADER_BYTES] = {OUTER_TYPE, LEGACY_VERSION, LEGACY_VERSION, (uint8_t)(length >> 8),
                                          (uint8_t)length};
    const uint8_t inner_type = (uint8_t)type;
    uint8_t *at = to + HEADER_BYTES;
    int n = 0, last = 0, rest = 0;

    memcpy(to, header, sizeof(header));
    if (!begin(r, header) || (len > 0 && EVP_CipherUpdate(r->context, at, &n, plain, (int)len) != 1) ||
        EVP_CipherUpdate(r->context, at + n, &last, &inner_type, TYPE_BYTES) != 1 ||
        EVP_CipherFinal_ex(r->context, at + n + last, &rest) != 1 ||
        EVP_CIPHER_CTX_ctrl(r->context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, at + len + TYPE_BYTES) != 1)
        return 0;
    return HEADER_BYTES + length;
}

/* The bytes of the record behind the header at IN. */
static size_t length_of(const uint8_t *in)
{
    return (size_t)in[3] << 8 | in[4];
}

static bool is_header(const uint8_t *in)
{
    const size_t length = length_of(in);

    return in[0] == OUTER_TYPE && in[1] == LEGACY_VERSION && in[2] == LEGACY_VERSION &&
           length >= TYPE_BYTES + TAG_BYTES && length <= PCMIG_RECORDS_OPENED_BYTES + TAG_BYTES;
}

bool pcmig_records_is_whole(const uint8_t *in, size_t len)
{
    return len >= HEADER_BYTES && (!is_header(in) || len - HEADER_BYTES >= length_of(in));
}

enum pcmig_record_opened pcmig_records_open(struct pcmig_records *r, const uint8_t *in, size_t len, size_t *taken,
                                            uint8_t *to, size_t *got, uint8_t *type)
{
    size_t length, inner;
    int n = 0, rest = 0;

    if (!pcmig_records_is_whole(in, len))
        return PCMIG_RECORD_PARTIAL;
    if (!is_header(in))
        return PCMIG_RECORD_BROKEN;
    length = length_of(in);
    inner = length - TAG_BYTES;
    if (!begin(r, in) || EVP_CipherUpdate(r->context, to, &n, in + HEADER_BYTES, (int)inner) != 1 ||
        EVP_CIPHER_CTX_ctrl(r->context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, (void *)(in + HEADER_BYTES + inner)) != 1 ||
        EVP_CipherFinal_ex(r->context, to + n, &rest) != 1) {
        ERR_clear_error();
        return PCMIG_RECORD_BROKEN;
    }
    /* The type is behind the content, and zeros may be behind that (5.4). */
    while (inner > 0 && to[inner - 1] == 0)
        inner--;
    if (inner == 0)
        return PCMIG_RECORD_BROKEN;
    *taken = HEADER_BYTES + length;
    *got = inner - 1;
    *type = to[inner - 1];
    return PCMIG_RECORD_OPENED;
}
