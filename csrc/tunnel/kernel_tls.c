/* SPDX-License-Identifier: Apache-2.0 */
/* See kernel_tls.h. Layouts: linux/tls.h; behaviour: Documentation/networking/tls.rst of Linux. */
#include "tunnel/kernel_tls.h"

#include <string.h>
#include <sys/socket.h>

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <openssl/crypto.h>

/* What older headers of the C library lack (linux/tcp.h, linux/socket.h). */
#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

enum { AES_128_GCM = 0x01, AES_256_GCM = 0x02, CHACHA20_POLY1305 = 0x03 }; /* 0x13.. */

/* All of them begin with the same. */
union crypto_info {
    struct tls_crypto_info info;
    struct tls12_crypto_info_aes_gcm_128 aes_128;
    struct tls12_crypto_info_aes_gcm_256 aes_256;
#ifdef TLS_CIPHER_CHACHA20_POLY1305
    struct tls12_crypto_info_chacha20_poly1305 chacha20;
#endif
};

/* Returns its size, 0 for a suite that the kernel does not know. The number of the next record is 0. */
static socklen_t fill(union crypto_info *to, unsigned suite, const struct pcmig_record_keys *keys)
{
    memset(to, 0, sizeof(*to));
    to->info.version = TLS_1_3_VERSION;
    switch (suite & 0xff) {
    case AES_128_GCM:
        to->info.cipher_type = TLS_CIPHER_AES_GCM_128;
        memcpy(to->aes_128.key, keys->key, sizeof(to->aes_128.key));
        memcpy(to->aes_128.salt, keys->iv, sizeof(to->aes_128.salt));
        memcpy(to->aes_128.iv, keys->iv + sizeof(to->aes_128.salt), sizeof(to->aes_128.iv));
        return sizeof(to->aes_128);
    case AES_256_GCM:
        to->info.cipher_type = TLS_CIPHER_AES_GCM_256;
        memcpy(to->aes_256.key, keys->key, sizeof(to->aes_256.key));
        memcpy(to->aes_256.salt, keys->iv, sizeof(to->aes_256.salt));
        memcpy(to->aes_256.iv, keys->iv + sizeof(to->aes_256.salt), sizeof(to->aes_256.iv));
        return sizeof(to->aes_256);
#ifdef TLS_CIPHER_CHACHA20_POLY1305
    case CHACHA20_POLY1305:
        to->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
        memcpy(to->chacha20.key, keys->key, sizeof(to->chacha20.key));
        memcpy(to->chacha20.iv, keys->iv, sizeof(to->chacha20.iv));
        return sizeof(to->chacha20);
#endif
    default:
        return 0;
    }
}

bool pcmig_kernel_tls_renew(int fd, unsigned suite, const struct pcmig_record_keys *keys)
{
    union crypto_info info;
    const socklen_t len = fill(&info, suite, keys);
    const bool done = len > 0 && setsockopt(fd, SOL_TLS, TLS_TX, &info, len) == 0;

    OPENSSL_cleanse(&info, sizeof(info));
    return done;
}

bool pcmig_kernel_tls_begin(int fd, unsigned suite, const struct pcmig_record_keys *keys, bool *renews)
{
    *renews = false;
    if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) < 0 || !pcmig_kernel_tls_renew(fd, suite, keys))
        return false;
    /* The same once more changes nothing, as nothing was sent; before 6.14 it is EBUSY. */
    *renews = pcmig_kernel_tls_renew(fd, suite, keys);
    return true;
}

bool pcmig_kernel_tls_say(int fd, const unsigned char *message, size_t len)
{
    union {
        struct cmsghdr header; /* for its alignment */
        unsigned char bytes[CMSG_SPACE(sizeof(unsigned char))];
    } control = {.bytes = {0}};
    struct iovec vector = {.iov_base = (void *)message, .iov_len = len};
    struct msghdr text = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *type = CMSG_FIRSTHDR(&text);

    type->cmsg_level = SOL_TLS;
    type->cmsg_type = TLS_SET_RECORD_TYPE;
    type->cmsg_len = CMSG_LEN(sizeof(unsigned char));
    *CMSG_DATA(type) = PCMIG_RECORD_HANDSHAKE;
    return sendmsg(fd, &text, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}
