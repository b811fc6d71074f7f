/* A BIO between OpenSSL and a socket that gathers: records to send are collected and go out with one system call, and one call
 * fetches many records. OpenSSL's own socket BIO makes one call for each record written and two for each read. */
#ifndef PCMIG_TUNNEL_BIO_H
#define PCMIG_TUNNEL_BIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bio_st; /* OpenSSL's BIO */

/* Bytes from START to END wait. */
struct pcmig_bio_buffer {
    uint8_t *bytes;
    size_t size, start, end;
};

/* The two ends of the BIO, owned by whoever reads from and writes to the socket. */
struct pcmig_bio {
    struct pcmig_bio_buffer in;  /* from the socket, for OpenSSL */
    struct pcmig_bio_buffer out; /* from OpenSSL, for the socket */
};

/* A BIO over BUFFERS, which must outlive it. To OpenSSL an empty `in` and a full `out` are a socket that would block. NULL when memory
 * is short. */
struct bio_st *pcmig_bio_new(struct pcmig_bio *buffers);

#endif
