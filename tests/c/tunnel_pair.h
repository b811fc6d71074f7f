/* SPDX-License-Identifier: Apache-2.0 */
/* Two tunnel daemons in this process, with certificates made for them, and sockets in the place of QEMU. Everything
 * fails the test that runs when it does not work. */
#ifndef PCMIG_TESTS_TUNNEL_PAIR_H
#define PCMIG_TESTS_TUNNEL_PAIR_H

#include "tunnel/tunnel.h"

#include <stdbool.h>
#include <stddef.h>

struct tunnel_side {
    char run_dir[64];
    char control[64];
    struct pcmig_tunnel_config config; /* may be changed before tunnel_side_start */
    struct pcmig_tunnel *tunnel;
    unsigned port;
    const char *listen[1];
};

struct tunnel_pair {
    char folder[32];
    char ca[64], certificate[64], key[64]; /* files; one certificate for both hosts */
    struct tunnel_side a, b;               /* source, destination */
};

/* A folder with certificates, and the configuration of both sides; nothing runs yet. */
void tunnel_pair_prepare(struct tunnel_pair *pair, bool plaintext);
/* One that nobody has on loopback, and that the kernel gives to nobody. */
unsigned tunnel_quiet_port(void);

void tunnel_side_start(struct tunnel_side *side);

/* Prepares and starts both. */
void tunnel_pair_start(struct tunnel_pair *pair, bool plaintext);

/* Stops what runs and removes the folder. */
void tunnel_pair_end(struct tunnel_pair *pair);

/* A request of SIDE's control socket; the answer, without its newline, in ANSWER. */
void tunnel_ask(struct tunnel_side *side, char *answer, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Opens a fresh NAME from a to b with K connections for each stream. */
void tunnel_open(struct tunnel_pair *pair, char name[33], unsigned k);

/* A destination's QEMU listens under NAME; a source's connects; the destination's accepts. Descriptors that block. */
int tunnel_listen(struct tunnel_side *side, const char *name);
int tunnel_connect(struct tunnel_side *side, const char *name);
int tunnel_accept(int listening);

/* Waits up to five seconds until a message of SIDE has TEXT in it. */
void tunnel_logged(struct tunnel_side *side, const char *text);

#endif
