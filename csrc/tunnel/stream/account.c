/* SPDX-License-Identifier: Apache-2.0 */
/* See account.h. */
#include "tunnel/stream/account.h"

#include "core/tunnel_request.h"
#include "edge/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names of figures as `show` has them. */
/* clang-format off */
static const struct {
    const char *name;
    size_t offset; /* of an atomic_llong */
} figures[] = {
#define FIGURE(member) offsetof(struct pcmig_account, member)
    {"bytes_out", FIGURE(bytes_out)},
    {"bytes_in", FIGURE(bytes_in)},
    {"records_out", FIGURE(records_out)},
    {"records_in", FIGURE(records_in)},
    {"crypto_out_us", FIGURE(crypto_out_us)},
    {"crypto_in_us", FIGURE(crypto_in_us)},
    {"streams", FIGURE(streams_now)},
    {"streams_ever", FIGURE(streams_ever)},
    {"connections", FIGURE(connections_now)},
    {"connections_ever", FIGURE(connections_ever)},
    {"lost", FIGURE(lost)},
    {"reconnects", FIGURE(reconnects)},
    {"queue_max_bytes", FIGURE(queue_max_bytes)},
    {"rtt_us", FIGURE(rtt_us)},
#undef FIGURE
};
/* clang-format on */

struct pcmig_account *pcmig_account_new(struct pcmig_account *all)
{
    struct pcmig_account *account = calloc(1, sizeof(*account));

    if (account == NULL)
        return NULL;
    if (pthread_mutex_init(&account->lock, NULL) != 0) {
        free(account);
        return NULL;
    }
    atomic_init(&account->references, 1);
    account->all = all != NULL ? pcmig_account_ref(all) : NULL;
    account->since_us = pcmig_clock_us();
    return account;
}

struct pcmig_account *pcmig_account_ref(struct pcmig_account *account)
{
    atomic_fetch_add(&account->references, 1);
    return account;
}

void pcmig_account_unref(struct pcmig_account *account)
{
    if (account == NULL || atomic_fetch_sub(&account->references, 1) != 1)
        return;
    pcmig_account_unref(account->all);
    pthread_mutex_destroy(&account->lock);
    free(account);
}

void pcmig_account_set_error(struct pcmig_account *account, const char *text)
{
    pthread_mutex_lock(&account->lock);
    snprintf(account->last_error, sizeof(account->last_error), "%s", text);
    pthread_mutex_unlock(&account->lock);
}

void pcmig_account_set_connection(struct pcmig_account *account, const char *cipher, const char *congestion)
{
    pthread_mutex_lock(&account->lock);
    snprintf(account->cipher, sizeof(account->cipher), "%s", cipher);
    snprintf(account->congestion, sizeof(account->congestion), "%s", congestion);
    pthread_mutex_unlock(&account->lock);
}

void pcmig_account_set_peer(struct pcmig_account *account, const struct pcmig_account_peer *peer)
{
    pthread_mutex_lock(&account->lock);
    account->peer = *peer;
    pthread_mutex_unlock(&account->lock);
}

size_t pcmig_account_print_figures(const struct pcmig_account *account, char *out, size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]) && at < size; i++) {
        const atomic_llong *value = (const atomic_llong *)((const char *)account + figures[i].offset);

        at += (size_t)snprintf(out + at, size - at, "%s=%lld ", figures[i].name, atomic_load(value));
    }
    return at < size ? at : size - 1;
}

void pcmig_account_print(struct pcmig_account *account, char *out, size_t size)
{
    char error[PCMIG_ACCOUNT_ERROR_BYTES], escaped[PCMIG_ACCOUNT_ERROR_BYTES], cipher[sizeof(account->cipher)];
    char congestion[sizeof(account->congestion)], subject[sizeof(account->peer.subject)];
    struct pcmig_account_peer peer;
    const size_t at = pcmig_account_print_figures(account, out, size);

    pthread_mutex_lock(&account->lock);
    memcpy(error, account->last_error, sizeof(error));
    memcpy(cipher, account->cipher, sizeof(cipher));
    memcpy(congestion, account->congestion, sizeof(congestion));
    peer = account->peer;
    pthread_mutex_unlock(&account->lock);
    pcmig_tunnel_request_escape(error, escaped, sizeof(escaped));
    pcmig_tunnel_request_escape(peer.subject, subject, sizeof(subject));
    if (at + 1 < size)
        snprintf(out + at, size - at,
                 "since_ms=%lld cipher=%s congestion=%s peer_address=%s peer_subject=%s peer_serial=%s "
                 "peer_fingerprint=%s error=%s",
                 (long long)((pcmig_clock_us() - account->since_us) / 1000), cipher, congestion, peer.address, subject,
                 peer.serial, peer.fingerprint, escaped);
}
