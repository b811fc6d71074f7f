/* SPDX-License-Identifier: Apache-2.0 */
/* What OpenSSL reads from and writes to below a channel, in place of its own BIO of a socket: it writes into a buffer,
 * so that a batch of records leaves with one system call, and it reads from the socket no more often than it may, so
 * that a peer that never pauses does not keep a thread. Not for several threads at once. No call blocks. */
#ifndef PCMIG_TUNNEL_TLS_WIRE_H
#define PCMIG_TUNNEL_TLS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bio_st; /* OpenSSL's BIO */

/* Bytes from `start` to `end`. */
struct pcmig_wire_buffer {
    uint8_t *bytes;
    size_t size, start, end;
};

struct pcmig_wire {
    int fd;                       /* a socket; it stays the caller's */
    struct pcmig_wire_buffer out; /* written, for the caller to send; what finds no room waits for it (WANT_WRITE) */
    unsigned reads_left;          /* from the socket; then there is nothing to read (WANT_READ) */
    /* What the reads have met since the caller cleared it: */
    bool dry;          /* there was less than there was room for: no more is read */
    bool empty;        /* there was nothing */
    bool ended;        /* the peer has closed its direction */
    int error;         /* errno of the read that failed */
    unsigned reads;    /* that brought something */
    size_t read_bytes; /* and what they brought */
    int64_t read_us;   /* and took */
};

/* A BIO for both directions; WIRE has to live longer. NULL when memory is short. */
struct bio_st *pcmig_wire_bio(struct pcmig_wire *wire);

#endif
