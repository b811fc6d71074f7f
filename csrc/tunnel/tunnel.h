/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon as a whole: what `pcmig tunnel` runs. Nothing in this room calls libvirt or Python. */
#ifndef PCMIG_TUNNEL_TUNNEL_H
#define PCMIG_TUNNEL_TUNNEL_H

#include "tunnel/messages.h"
#include "tunnel/tls/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PCMIG_TUNNEL_ERROR_BYTES 512

struct pcmig_tunnel;

struct pcmig_tunnel_config {
    const char *run_dir;       /* of the local sockets */
    const char *control;       /* path of the control socket */
    const char *const *listen; /* "ADDRESS:PORT" ..., see pcmig_peer_listen */
    size_t listen_count;
    struct pcmig_tls_files files;
    const char *congestion;   /* see pcmig_peer_set_congestion */
    bool plaintext;           /* no TLS at all: files are not read, and everybody is let in */
    const char *const *allow; /* patterns on names of dialling peers; none = any certificate of the CA */
    size_t allow_count;
    gid_t owner_gid;               /* QEMU's group: of the sockets for the source's QEMU; see place.h */
    uid_t socket_uid;              /* whom the destination's sockets have to belong to; (uid_t)-1: anybody */
    gid_t control_gid;             /* who may use the control socket beside root and this user; (gid_t)-1: nobody */
    unsigned workers;              /* threads that move bytes; 0 = as many as CPUs, at most 8 */
    unsigned dead_after_ms;        /* silence after which a peer is lost */
    unsigned handshake_ms;         /* for connecting, TLS and hello together */
    unsigned socket_wait_ms;       /* how long the destination's socket may take to appear */
    unsigned dial_ms;              /* how long the source tries to reach the peer again for a new stream */
    unsigned leave_ms;             /* how long the last bytes of a stream wait for the peer to read them */
    unsigned idle_name_ms;         /* a name without streams for so long is dropped */
    unsigned max_half_open;        /* connections that have not been verified yet */
    unsigned max_half_open_of_one; /* of these, from one address */
    unsigned max_handshakes_per_s; /* with one address, see tunnel/admission/admission.h */
    unsigned max_carriers;         /* TCP connections */
    unsigned max_of_one_peer;      /* of these, accepted with one certificate */
};

/* The defaults of all that has one; the rest is 0, ids are -1. */
void pcmig_tunnel_defaults(struct pcmig_tunnel_config *config);

/* Checks, reads certificates, makes the folder and binds all sockets; nothing runs yet. CONFIG is copied. NULL with a
 * sentence in ERROR. */
struct pcmig_tunnel *pcmig_tunnel_new(const struct pcmig_tunnel_config *config, char error[PCMIG_TUNNEL_ERROR_BYTES]);

/* Starts the threads. False with a sentence in ERROR. Once only. */
bool pcmig_tunnel_start(struct pcmig_tunnel *tunnel, char error[PCMIG_TUNNEL_ERROR_BYTES]);

/* Takes nothing new; waits up to GRACE_MS for streams to end, then ends them, and the threads. May be called again, and
 * without start. */
void pcmig_tunnel_stop(struct pcmig_tunnel *tunnel, unsigned grace_ms);
void pcmig_tunnel_free(struct pcmig_tunnel *tunnel); /* stops first; NULL is fine */

/* Puts CONFIG in force and reads the certificates that it names, for connections from now on; listens where it says.
 * Streams go on, but for those whose peer CONFIG would not let in: they are ended at once. run_dir, control, the ids,
 * workers and the limits stay as they were at the start. False with a sentence in ERROR: nothing has changed. From any
 * thread but the tunnel's own. */
bool pcmig_tunnel_reload(struct pcmig_tunnel *tunnel, const struct pcmig_tunnel_config *config,
                         char error[PCMIG_TUNNEL_ERROR_BYTES]);

/* The control socket's `reload` waits for whoever made the tunnel, who knows where settings are: it tells of it by a
 * message. Returns the number of the latest that waits, or 0; the answer, a line that begins with "ok" or "error", is
 * for all up to that NUMBER. From any thread. */
unsigned pcmig_tunnel_reload_asked(struct pcmig_tunnel *tunnel);
bool pcmig_tunnel_answer_reload(struct pcmig_tunnel *tunnel, unsigned number, const char *answer);

/* How long ago the thread that has been silent for longest was seen to run: up to a second or two when all is well. 0
 * when there are none. Not the one that waits for name servers. */
unsigned pcmig_tunnel_silent_ms(const struct pcmig_tunnel *tunnel);

/* When the certificates in force end to be good; all 0 in plaintext. From any thread. */
struct pcmig_tls_ends pcmig_tunnel_ends(struct pcmig_tunnel *tunnel);

/* The queue of what is to be logged. */
struct pcmig_messages *pcmig_tunnel_messages(struct pcmig_tunnel *tunnel);

/* Ports listened on, in the order of config.listen; returns how many. */
size_t pcmig_tunnel_ports(const struct pcmig_tunnel *tunnel, uint16_t *ports, size_t size);

#endif
