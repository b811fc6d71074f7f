/* SPDX-License-Identifier: Apache-2.0 */
/* What went through the tunnel under one name. Figures are atomic: workers add, whoever shows reads. */
#ifndef PCMIG_TUNNEL_ACCOUNT_H
#define PCMIG_TUNNEL_ACCOUNT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PCMIG_ACCOUNT_ERROR_BYTES 256

struct pcmig_account {
    atomic_uint references;
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
    atomic_llong ktls;                              /* 1 when the kernel encrypts for the latest connection */
    pthread_mutex_t lock;                           /* of what follows */
    char last_error[PCMIG_ACCOUNT_ERROR_BYTES];     /* why the latest stream was lost; "" */
    char cipher[48];                                /* of the latest connection; "" */
    char congestion[16];                            /* TCP's congestion control, likewise */
};

/* One reference is the caller's. NULL when memory is short. */
struct pcmig_account *pcmig_account_new(void);
struct pcmig_account *pcmig_account_ref(struct pcmig_account *account);
void pcmig_account_unref(struct pcmig_account *account); /* NULL is fine */

void pcmig_account_set_error(struct pcmig_account *account, const char *text);
void pcmig_account_set_connection(struct pcmig_account *account, const char *cipher, const char *congestion);

/* "bytes_out=1 ... error=..." into OUT, values escaped as in core/tunnel_request.h; NUL-terminated, cut at SIZE. */
void pcmig_account_print(struct pcmig_account *account, char *out, size_t size);

#endif
