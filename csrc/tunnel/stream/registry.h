/* SPDX-License-Identifier: Apache-2.0 */
/* Names and what runs under them, for accounting, and to find the stream that a further connection belongs to. For any
 * thread. */
#ifndef PCMIG_TUNNEL_STREAM_REGISTRY_H
#define PCMIG_TUNNEL_STREAM_REGISTRY_H

#include "core/tunnel_frame.h"
#include "tunnel/stream/account.h"
#include "tunnel/stream/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pcmig_registry;

enum { PCMIG_REGISTRY_NAMES = 1024 };

struct pcmig_registry *pcmig_registry_new(void); /* NULL when memory is short */
void pcmig_registry_free(struct pcmig_registry *registry);

/* The account of NAME, made when MAKE and there is none; one reference. When there are PCMIG_REGISTRY_NAMES, the one
 * that was used longest ago is forgotten. NULL when there is none, memory is short, or all of them are kept or in use.
 */
struct pcmig_account *pcmig_registry_account(struct pcmig_registry *registry, const char *name, bool make);

/* NAME is not forgotten to make room: it is open on this host, and will be closed. */
void pcmig_registry_keep(struct pcmig_registry *registry, const char *name);

/* NAME is no longer known; streams that run are not touched. Returns whether it was. */
bool pcmig_registry_forget(struct pcmig_registry *registry, const char *name);

/* A stream that runs; the registry takes a reference. False when memory is short. */
bool pcmig_registry_add(struct pcmig_registry *registry, struct pcmig_stream *stream);
void pcmig_registry_remove(struct pcmig_registry *registry, struct pcmig_stream *stream);

/* The running stream with this name and id, one reference; or NULL. */
struct pcmig_stream *pcmig_registry_find(struct pcmig_registry *registry, const char *name,
                                         const uint8_t id[PCMIG_TUNNEL_FRAME_STREAM_BYTES]);

/* Ends all streams of NAME (NULL: of every name). Returns how many. */
size_t pcmig_registry_end(struct pcmig_registry *registry, const char *name, const char *reason);

/* What all names together have had since the start, forgotten ones as well; the registry's. */
struct pcmig_account *pcmig_registry_all(struct pcmig_registry *registry);

/* How many names there are. */
size_t pcmig_registry_names(struct pcmig_registry *registry);

/* What is under way to the peer under NAME (NULL: under all), in bytes: see pcmig_stream_queue_bytes. Notes the most
 * there ever was in its account. */
size_t pcmig_registry_queue(struct pcmig_registry *registry, const char *name);

/* How many streams run. */
size_t pcmig_registry_streams(struct pcmig_registry *registry);

/* " NAME" for each name, to be free()d; NULL when memory is short. */
char *pcmig_registry_list(struct pcmig_registry *registry);

/* A name that has had no stream since before IDLE_SINCE_US, into NAME; false when there is none. It stays known. */
bool pcmig_registry_idle(struct pcmig_registry *registry, int64_t idle_since_us, char name[PCMIG_TUNNEL_NAME_LEN + 1]);

#endif
