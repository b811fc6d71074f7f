/* SPDX-License-Identifier: Apache-2.0 */
/* What the tunnel has to tell: a bounded queue of (level, text) that Python drains and logs.
 *
 * Of each kind a few are told at once; the rest of a period is counted and told as one line at its end, so that ten
 * thousand refused connections are some lines. All functions are for any thread. */
#ifndef PCMIG_TUNNEL_MESSAGES_H
#define PCMIG_TUNNEL_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCMIG_MESSAGES_TEXT_BYTES 512

enum pcmig_messages_kind {
    PCMIG_MESSAGES_LIFE = 0,  /* start, stop, reload */
    PCMIG_MESSAGES_NAME,      /* a name was opened, closed, dropped */
    PCMIG_MESSAGES_STREAM,    /* a stream began or ended */
    PCMIG_MESSAGES_PEER,      /* whose stream it is */
    PCMIG_MESSAGES_HANDSHAKE, /* refused before or in the handshake */
    PCMIG_MESSAGES_REFUSED,   /* refused after it: name, socket, allow list */
    PCMIG_MESSAGES_LIMIT,     /* too many connections */
    PCMIG_MESSAGES_LOST,      /* a peer was lost, could not be reached */
    PCMIG_MESSAGES_KIND_COUNT
};

/* As Python's logging counts. */
enum pcmig_messages_level {
    PCMIG_MESSAGES_DEBUG = 10,
    PCMIG_MESSAGES_INFO = 20,
    PCMIG_MESSAGES_WARNING = 30,
    PCMIG_MESSAGES_ERROR = 40,
};

struct pcmig_messages;

/* NULL with errno set when there is no memory or no descriptor. */
struct pcmig_messages *pcmig_messages_new(void);
void pcmig_messages_free(struct pcmig_messages *messages); /* NULL is fine */

void pcmig_messages_add(struct pcmig_messages *messages, enum pcmig_messages_kind kind, enum pcmig_messages_level level,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The oldest message; false when there is none (the descriptor is unreadable then). */
bool pcmig_messages_take(struct pcmig_messages *messages, int *level, char text[PCMIG_MESSAGES_TEXT_BYTES]);

/* Readable while there are messages. */
int pcmig_messages_fd(const struct pcmig_messages *messages);

/* Tells what was only counted in periods that have ended: call it about once a second while something happens. Returns
 * whether something is still being counted. */
bool pcmig_messages_tick(struct pcmig_messages *messages);

#endif
