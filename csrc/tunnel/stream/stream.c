/* SPDX-License-Identifier: Apache-2.0 */
/* See stream.h. */
#include "tunnel/stream/stream.h"

#include "tunnel/stream/carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* What waits for a reader at this end. Small, so that the answer to a page request does not wait behind much. The
 * kernel doubles it for its own bookkeeping. */
enum { LOCAL_QUEUE_BYTES = 128 << 10 };

struct pcmig_stream_order {
    atomic_uint references;
    atomic_bool passed;
};

struct pcmig_stream {
    atomic_uint references;
    char name[PCMIG_TUNNEL_NAME_LEN + 1];
    uint8_t id[PCMIG_TUNNEL_FRAME_STREAM_BYTES];
    struct pcmig_account *account;
    unsigned count;

    struct pcmig_stream_order *order;  /* its own */
    struct pcmig_stream_order *before; /* of the stream that this one follows, or NULL */

    pthread_mutex_t lock; /* of all that follows */
    int local;
    bool over;
    char reason[PCMIG_STREAM_REASON_BYTES];
    struct pcmig_carrier *carriers[PCMIG_TUNNEL_CONNECTIONS]; /* not references: a carrier detaches before it goes */
    /* Sending. */
    uint64_t out_seq;  /* of the next frame */
    bool out_finished; /* FIN was taken */
    bool out_reset;    /* RESET was taken */
    /* Receiving. */
    uint64_t in_seq;                      /* whose turn it is */
    bool waits[PCMIG_TUNNEL_CONNECTIONS]; /* for its turn */
    uint64_t waits_for[PCMIG_TUNNEL_CONNECTIONS];
    bool in_finished;
    atomic_bool in_broken; /* nobody can read what comes */
    /* For queue_bytes. */
    int wires[PCMIG_TUNNEL_CONNECTIONS]; /* TCP sockets, -1 = none */
    atomic_size_t held[PCMIG_TUNNEL_CONNECTIONS];
};

struct pcmig_stream *pcmig_stream_new(const char *name, const uint8_t id[PCMIG_TUNNEL_FRAME_STREAM_BYTES],
                                      struct pcmig_account *account, unsigned count, int local)
{
    struct pcmig_stream *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->order = calloc(1, sizeof(*s->order));
    if (s->order == NULL || pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s->order);
        free(s);
        return NULL;
    }
    atomic_init(&s->order->references, 1);
    atomic_init(&s->references, 1);
    snprintf(s->name, sizeof(s->name), "%s", name);
    memcpy(s->id, id, sizeof(s->id));
    s->account = pcmig_account_ref(account);
    s->count = count;
    s->local = -1;
    for (unsigned i = 0; i < PCMIG_TUNNEL_CONNECTIONS; i++)
        s->wires[i] = -1;
    PCMIG_ACCOUNT_ADD(account, streams_now, 1);
    PCMIG_ACCOUNT_ADD(account, streams_ever, 1);
    if (atomic_load(&account->lost) > atomic_load(&account->reconnects))
        PCMIG_ACCOUNT_ADD(account, reconnects, 1);
    if (local >= 0)
        pcmig_stream_set_local(s, local);
    return s;
}

struct pcmig_stream *pcmig_stream_ref(struct pcmig_stream *s)
{
    atomic_fetch_add(&s->references, 1);
    return s;
}

void pcmig_stream_unref(struct pcmig_stream *s)
{
    if (s == NULL || atomic_fetch_sub(&s->references, 1) != 1)
        return;
    if (s->local >= 0)
        close(s->local);
    atomic_store(&s->order->passed, true);
    pcmig_stream_order_unref(s->order);
    pcmig_stream_order_unref(s->before);
    PCMIG_ACCOUNT_ADD(s->account, streams_now, -1);
    pcmig_account_unref(s->account);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct pcmig_stream_order *pcmig_stream_order(struct pcmig_stream *s)
{
    atomic_fetch_add(&s->order->references, 1);
    return s->order;
}

void pcmig_stream_order_unref(struct pcmig_stream_order *order)
{
    if (order != NULL && atomic_fetch_sub(&order->references, 1) == 1)
        free(order);
}

void pcmig_stream_follow(struct pcmig_stream *s, struct pcmig_stream_order *before)
{
    s->before = before;
}

bool pcmig_stream_may_begin(const struct pcmig_stream *s)
{
    return s->before == NULL || atomic_load(&s->before->passed);
}

void pcmig_stream_arrived(struct pcmig_stream *s)
{
    atomic_store(&s->order->passed, true);
}

bool pcmig_stream_left(struct pcmig_stream *s)
{
    struct pollfd look = {.events = POLLIN};
    char byte;
    bool left = false;

    pthread_mutex_lock(&s->lock);
    look.fd = s->local;
    /* Not one that only sends nothing more: it may want to read. */
    if (s->local >= 0 && poll(&look, 1, 0) > 0 && (look.revents & POLLHUP) != 0)
        left = recv(s->local, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
    pthread_mutex_unlock(&s->lock);
    return left;
}

const char *pcmig_stream_name(const struct pcmig_stream *s)
{
    return s->name;
}

const uint8_t *pcmig_stream_id(const struct pcmig_stream *s)
{
    return s->id;
}

unsigned pcmig_stream_count(const struct pcmig_stream *s)
{
    return s->count;
}

struct pcmig_account *pcmig_stream_account(const struct pcmig_stream *s)
{
    return s->account;
}

/* With the lock held. */
static void wake_all(struct pcmig_stream *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (s->carriers[i] != NULL)
            pcmig_carrier_wake(s->carriers[i]);
    }
}

bool pcmig_stream_attach(struct pcmig_stream *s, unsigned index, struct pcmig_carrier *carrier)
{
    bool attached;

    pthread_mutex_lock(&s->lock);
    attached = !s->over && index < s->count && s->carriers[index] == NULL;
    if (attached)
        s->carriers[index] = carrier;
    pthread_mutex_unlock(&s->lock);
    return attached;
}

unsigned pcmig_stream_detach(struct pcmig_stream *s, unsigned index)
{
    unsigned left = 0;

    pthread_mutex_lock(&s->lock);
    s->carriers[index] = NULL;
    s->waits[index] = false;
    s->wires[index] = -1;
    atomic_store(&s->held[index], 0);
    for (unsigned i = 0; i < s->count; i++)
        left += s->carriers[i] != NULL;
    pthread_mutex_unlock(&s->lock);
    return left;
}

void pcmig_stream_set_local(struct pcmig_stream *s, int local)
{
    const int size = LOCAL_QUEUE_BYTES;

    if (setsockopt(local, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0)
        errno = 0; /* the default works too, with more waiting */
    pthread_mutex_lock(&s->lock);
    s->local = local;
    if (s->over)
        shutdown(local, SHUT_RDWR);
    wake_all(s);
    pthread_mutex_unlock(&s->lock);
}

int pcmig_stream_local(struct pcmig_stream *s)
{
    int fd = -1;

    errno = 0;
    pthread_mutex_lock(&s->lock);
    if (s->local >= 0)
        fd = fcntl(s->local, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&s->lock);
    return fd;
}

/* With the lock held. */
static size_t waiting_bytes(const struct pcmig_stream *s)
{
    int n;

    return s->local >= 0 && ioctl(s->local, FIONREAD, &n) == 0 && n > 0 ? (size_t)n : 0;
}

size_t pcmig_stream_waiting_bytes(struct pcmig_stream *s)
{
    size_t bytes;

    pthread_mutex_lock(&s->lock);
    bytes = waiting_bytes(s);
    pthread_mutex_unlock(&s->lock);
    return bytes;
}

size_t pcmig_stream_queue_bytes(struct pcmig_stream *s)
{
    size_t bytes;
    int n;

    pthread_mutex_lock(&s->lock);
    bytes = waiting_bytes(s);
    for (unsigned i = 0; i < s->count; i++) {
        bytes += atomic_load(&s->held[i]);
        if (s->wires[i] >= 0 && ioctl(s->wires[i], SIOCOUTQ, &n) == 0 && n > 0)
            bytes += (size_t)n;
    }
    pthread_mutex_unlock(&s->lock);
    return bytes;
}

void pcmig_stream_note_wire(struct pcmig_stream *s, unsigned index, int wire)
{
    pthread_mutex_lock(&s->lock);
    s->wires[index] = wire;
    pthread_mutex_unlock(&s->lock);
}

void pcmig_stream_note_held(struct pcmig_stream *s, unsigned index, size_t bytes)
{
    atomic_store_explicit(&s->held[index], bytes, memory_order_relaxed);
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

/* With the lock held. Whether the local socket had something; FIN counts. */
static bool take_data(struct pcmig_stream *s, uint8_t *buffer, size_t size, struct pcmig_tunnel_frame *frame)
{
    ssize_t n;

    do
        n = recv(s->local, buffer, size, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    if (n > 0) {
        *frame = (struct pcmig_tunnel_frame){.type = PCMIG_TUNNEL_FRAME_DATA, .length = (uint32_t)n};
        PCMIG_ACCOUNT_ADD(s->account, bytes_out, n);
        return true;
    }
    /* 0, or ECONNRESET: it was closed and all was read. */
    *frame = (struct pcmig_tunnel_frame){.type = PCMIG_TUNNEL_FRAME_FIN};
    s->out_finished = true;
    return true;
}

enum pcmig_stream_take pcmig_stream_take(struct pcmig_stream *s, uint8_t *buffer, size_t size,
                                         struct pcmig_tunnel_frame *frame)
{
    enum pcmig_stream_take result = PCMIG_STREAM_DONE;

    pthread_mutex_lock(&s->lock);
    if (s->over) {
        result = PCMIG_STREAM_DONE;
    } else if (!s->out_finished) {
        result = take_data(s, buffer, size, frame) ? PCMIG_STREAM_FRAME : PCMIG_STREAM_EMPTY;
    } else if (atomic_load(&s->in_broken) && !s->in_finished && !s->out_reset) {
        *frame = (struct pcmig_tunnel_frame){.type = PCMIG_TUNNEL_FRAME_RESET, .code = PCMIG_TUNNEL_RESET_GONE};
        s->out_reset = true;
        result = PCMIG_STREAM_FRAME;
        wake_all(s);
    }
    if (result == PCMIG_STREAM_FRAME) {
        frame->seq = s->out_seq++;
        if (frame->type == PCMIG_TUNNEL_FRAME_FIN)
            wake_all(s);
    }
    pthread_mutex_unlock(&s->lock);
    return result;
}

/* --- receiving ---------------------------------------------------------------------------------------------------- */

bool pcmig_stream_turn(struct pcmig_stream *s, unsigned index, uint64_t seq)
{
    bool turn;

    pthread_mutex_lock(&s->lock);
    turn = seq == s->in_seq;
    s->waits[index] = !turn;
    s->waits_for[index] = seq;
    pthread_mutex_unlock(&s->lock);
    return turn;
}

void pcmig_stream_next(struct pcmig_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->in_seq++;
    for (unsigned i = 0; i < s->count; i++) {
        if (s->waits[i] && s->waits_for[i] == s->in_seq && s->carriers[i] != NULL)
            pcmig_carrier_wake(s->carriers[i]);
    }
    pthread_mutex_unlock(&s->lock);
}

size_t pcmig_stream_give(struct pcmig_stream *s, const uint8_t *bytes, size_t len)
{
    ssize_t n;

    /* Without the lock: this frame has its turn, so nobody else writes; and the descriptor stays open until the last
     * reference. */
    if (!atomic_load_explicit(&s->in_broken, memory_order_relaxed)) {
        do
            n = send(s->local, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (n >= 0) {
            PCMIG_ACCOUNT_ADD(s->account, bytes_in, n);
            return (size_t)n;
        }
        pthread_mutex_lock(&s->lock);
        atomic_store(&s->in_broken, true);
        wake_all(s);
        pthread_mutex_unlock(&s->lock);
    }
    return len;
}

void pcmig_stream_finish(struct pcmig_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->in_finished = true;
    shutdown(s->local, SHUT_WR);
    wake_all(s);
    pthread_mutex_unlock(&s->lock);
}

/* --- end ---------------------------------------------------------------------------------------------------------- */

bool pcmig_stream_finished(struct pcmig_stream *s)
{
    bool finished;

    pthread_mutex_lock(&s->lock);
    finished = (s->out_finished && s->in_finished) || s->out_reset;
    pthread_mutex_unlock(&s->lock);
    return finished;
}

bool pcmig_stream_end(struct pcmig_stream *s, const char *reason, bool lost)
{
    bool first;

    pthread_mutex_lock(&s->lock);
    first = !s->over && !((s->out_finished && s->in_finished) || s->out_reset);
    /* Before anybody sees the socket closed, and asks why or dials anew. */
    if (first && reason != NULL)
        pcmig_account_set_error(s->account, reason);
    if (first && lost)
        PCMIG_ACCOUNT_ADD(s->account, lost, 1);
    if (!s->over) {
        s->over = true;
        atomic_store(&s->order->passed, true);
        if (s->local >= 0)
            shutdown(s->local, SHUT_RDWR);
    }
    if (first && reason != NULL)
        snprintf(s->reason, sizeof(s->reason), "%s", reason);
    wake_all(s);
    pthread_mutex_unlock(&s->lock);
    return first;
}

bool pcmig_stream_over(struct pcmig_stream *s, char reason[PCMIG_STREAM_REASON_BYTES])
{
    bool over;

    pthread_mutex_lock(&s->lock);
    over = s->over;
    memcpy(reason, s->reason, sizeof(s->reason));
    pthread_mutex_unlock(&s->lock);
    return over;
}
