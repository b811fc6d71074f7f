/* SPDX-License-Identifier: Apache-2.0 */
/* What went through the tunnel under one name. Figures are atomic: workers add, whoever shows reads. */
#ifndef PCMIG_TUNNEL_STREAM_ACCOUNT_H
#define PCMIG_TUNNEL_STREAM_ACCOUNT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PCMIG_ACCOUNT_ERROR_BYTES 256

/* The other end of a connection; "" where it has shown no certificate. */
struct pcmig_account_peer {
    char address[80];
    char subject[256];
    char serial[64];
    char fingerprint[65];
};

struct pcmig_account {
    atomic_uint references;
    struct pcmig_account *all;            /* where the same is counted of all names together; NULL in that one */
    int64_t since_us;                     /* CLOCK_MONOTONIC */
    atomic_llong bytes_out, bytes_in;     /* payload: from the local socket, to it */
    atomic_llong records_out, records_in; /* of TLS */
    atomic_llong crypto_out_us, crypto_in_us;
    atomic_llong streams_now, streams_ever;
    atomic_llong connections_now, connections_ever; /* TCP */
    atomic_llong reconnects;                        /* streams that began after an earlier one was lost */
    atomic_llong lost;                              /* streams that ended because the peer was lost */
    atomic_llong queue_max_bytes;                   /* as far as it was looked at: see pcmig_registry_queue */
    atomic_llong rtt_us;                            /* of TCP */
    pthread_mutex_t lock;                           /* of what follows */
    char last_error[PCMIG_ACCOUNT_ERROR_BYTES];     /* why the latest stream was lost; "" */
    char cipher[48];                                /* of the latest connection; "" */
    struct pcmig_account_peer peer;                 /* likewise */
    char congestion[16];                            /* TCP's congestion control, likewise */
};

/* Adds to a figure, here and of all. */
#define PCMIG_ACCOUNT_ADD(account, figure, n)                                                                          \
    do {                                                                                                               \
        atomic_fetch_add(&(account)->figure, (n));                                                                     \
        if ((account)->all != NULL)                                                                                    \
            atomic_fetch_add(&(account)->all->figure, (n));                                                            \
    } while (0)

/* One reference is the caller's. ALL: the account of all names, or NULL. NULL when memory is short. */
struct pcmig_account *pcmig_account_new(struct pcmig_account *all);
struct pcmig_account *pcmig_account_ref(struct pcmig_account *account);
void pcmig_account_unref(struct pcmig_account *account); /* NULL is fine */

void pcmig_account_set_error(struct pcmig_account *account, const char *text);
void pcmig_account_set_connection(struct pcmig_account *account, const char *cipher, const char *congestion);

void pcmig_account_set_peer(struct pcmig_account *account, const struct pcmig_account_peer *peer);

/* The figures alone, "bytes_out=1 ... rtt_us=0 ", into OUT. Returns their length. */
size_t pcmig_account_print_figures(const struct pcmig_account *account, char *out, size_t size);

/* "bytes_out=1 ... error=..." into OUT, values escaped as in core/tunnel_request.h; NUL-terminated, cut at SIZE. */
void pcmig_account_print(struct pcmig_account *account, char *out, size_t size);

#endif
