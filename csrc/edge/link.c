/* SPDX-License-Identifier: Apache-2.0 */
/* See link.h. */
#include "edge/link.h"

#include "core/channels.h"
#include "edge/clock.h"
#include "edge/qemu_process.h"
#include "edge/sock_diag.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UUID_SIZE       37
#define WAYS_MAX        16
/* The stream, the channel of page requests, and what parallel connections there are (QEMU: up to 255). */
#define CHANNELS_MAX    258
/* New channels are looked for this often: the one for page requests may come in the middle of a migration. */
#define FIND_US         1000000
/* While there are none yet; then less and less often. */
#define FIND_FIRST_US   50000
/* A socket that QEMU has made and not yet connected is in no list. So often it is missed before it is no connection. */
#define LOOKS_PER_INODE 3
#define LISTED_STATES   (1U << TCP_ESTABLISHED | 1U << TCP_SYN_SENT | 1U << TCP_LISTEN)

struct channel {
    struct pcmig_socket socket; /* as seen last */
    bool open;                  /* established at the last look; the others stay known until there are new ones */
    int64_t well_us;            /* last time that it was asked about silence and was not silent */
};

/* A socket that QEMU holds. */
struct held {
    uint64_t inode;
    unsigned looks; /* in how many lists it was missed */
    bool placed;    /* it is known whether it is a channel */
};

struct pcmig_link {
    char uuid[UUID_SIZE];
    bool at_source;
    struct pcmig_endpoint ways[WAYS_MAX];
    size_t way_count;
    struct pcmig_qemu_process qemu;
    int64_t search_us; /* when QEMU may be searched for again */
    int64_t find_us;   /* when channels may be */
    int64_t find_every_us;
    struct held *held; /* by inode; only where QEMU's sockets may be seen */
    size_t held_count;
    uint64_t *before; /* cookies of connections that are not the migration's; only where they may not */
    size_t before_count;
    size_t before_capacity;
    size_t channel_count;
    struct channel channels[CHANNELS_MAX];
    struct sockaddr_storage peer; /* ss_family AF_UNSPEC until a connection was seen */
    struct pcmig_knocks *knocks;
};

static struct pcmig_endpoint peer_of(const struct pcmig_socket *socket)
{
    struct pcmig_endpoint peer = {.port = ntohs(socket->id.idiag_dport)};

    if (socket->family == AF_INET) {
        memset(peer.address + 10, 0xff, 2);
        memcpy(peer.address + 12, socket->id.idiag_dst, 4);
    } else {
        memcpy(peer.address, socket->id.idiag_dst, sizeof(peer.address));
    }
    return peer;
}

static uint64_t cookie_of(const struct pcmig_socket *socket)
{
    return (uint64_t)socket->id.idiag_cookie[1] << 32 | socket->id.idiag_cookie[0];
}

/* --- whose it is -------------------------------------------------------------------------------------------------- */

static void search_qemu(struct pcmig_link *link, int64_t now_us)
{
    if (link->qemu.pid_count > 0 || now_us < link->search_us)
        return;
    link->search_us = now_us + FIND_US;
    pcmig_qemu_process_find(link->uuid, &link->qemu);
}

static struct held *find_held(const struct pcmig_link *link, uint64_t inode)
{
    size_t from = 0, to = link->held_count;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (link->held[middle].inode == inode)
            return &link->held[middle];
        if (link->held[middle].inode < inode)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}

/* Reads which sockets QEMU holds by now. Returns 0, or -1 when that is not to be had. */
static int read_held(struct pcmig_link *link)
{
    uint64_t *inodes = NULL;
    size_t count = 0;
    struct held *held;

    if (pcmig_qemu_process_sockets(&link->qemu, &inodes, &count) < 0)
        return -1;
    held = calloc(count + 1, sizeof(*held));
    if (held == NULL) {
        free(inodes);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        const struct held *old = find_held(link, inodes[i]);

        held[i] = old != NULL ? *old : (struct held){.inode = inodes[i]};
    }
    free(inodes);
    free(link->held);
    link->held = held;
    link->held_count = count;
    return 0;
}

static bool was_before(const struct pcmig_link *link, const struct pcmig_socket *socket)
{
    uint64_t cookie = cookie_of(socket);

    for (size_t i = 0; i < link->before_count; i++) {
        if (link->before[i] == cookie)
            return true;
    }
    return false;
}

/* Short of memory it is forgotten, which at worst leaves open which connections are the migration's. */
static void note_before(struct pcmig_link *link, const struct pcmig_socket *socket)
{
    if (was_before(link, socket))
        return;
    if (link->before_count == link->before_capacity) {
        size_t capacity = link->before_capacity == 0 ? 16 : link->before_capacity * 2;
        uint64_t *before = realloc(link->before, capacity * sizeof(*before));

        if (before == NULL)
            return;
        link->before = before;
        link->before_capacity = capacity;
    }
    link->before[link->before_count++] = cookie_of(socket);
}

/* --- finding ------------------------------------------------------------------------------------------------------ */

/* What one list of the host's sockets is searched for. */
struct search {
    const struct pcmig_link *link;
    bool owners_seen; /* link->held tells which are QEMU's */
    bool failed;
    struct pcmig_socket *sockets;
    size_t count;
    size_t capacity;
    uint8_t listening[UINT16_MAX / 8 + 1]; /* a bit per local port */
};

static enum pcmig_owner owner_of(const struct search *search, const struct pcmig_socket *socket)
{
    const struct pcmig_link *link = search->link;

    if (search->owners_seen)
        return find_held(link, socket->inode) != NULL ? PCMIG_OWNER_GUEST : PCMIG_OWNER_OTHER;
    if (link->qemu.cgroup != 0 && socket->cgroup == link->qemu.cgroup)
        return PCMIG_OWNER_GUEST;
    return link->at_source || link->qemu.pid_count > 0 ? PCMIG_OWNER_UNKNOWN : PCMIG_OWNER_OTHER;
}

/* Keeps few of the many: what may be a channel. */
static bool is_of_interest(const struct search *search, const struct pcmig_socket *socket)
{
    const struct pcmig_link *link = search->link;
    struct pcmig_endpoint peer;

    if (search->owners_seen) {
        const struct held *held = find_held(link, socket->inode);

        return held != NULL && !held->placed;
    }
    if (socket->state != TCP_ESTABLISHED)
        return false;
    if (owner_of(search, socket) == PCMIG_OWNER_GUEST)
        return true;
    peer = peer_of(socket);
    for (size_t i = 0; i < link->way_count; i++) {
        if (pcmig_endpoint_fits(&peer, &link->ways[i]))
            return true;
    }
    return link->way_count == 0 && pcmig_channels_usual_port(peer.port);
}

static void take(void *context, const struct pcmig_socket *socket)
{
    struct search *search = context;

    if (socket->state == TCP_LISTEN) {
        uint16_t port = ntohs(socket->id.idiag_sport);

        search->listening[port / 8] |= (uint8_t)(1U << port % 8);
        return;
    }
    if (search->failed || !is_of_interest(search, socket))
        return;
    if (search->count == search->capacity) {
        size_t capacity = search->capacity == 0 ? 16 : search->capacity * 2;
        struct pcmig_socket *sockets = realloc(search->sockets, capacity * sizeof(*sockets));

        search->failed = sockets == NULL;
        if (search->failed)
            return;
        search->sockets = sockets;
        search->capacity = capacity;
    }
    search->sockets[search->count++] = *socket;
}

static bool is_channel(const struct pcmig_link *link, const struct pcmig_socket *socket)
{
    for (size_t i = 0; i < link->channel_count; i++) {
        if (cookie_of(&link->channels[i].socket) == cookie_of(socket))
            return true;
    }
    return false;
}

static const struct channel *first_open(const struct pcmig_link *link)
{
    for (size_t i = 0; i < link->channel_count; i++) {
        if (link->channels[i].open)
            return &link->channels[i];
    }
    return NULL;
}

/* QEMU closes its connections one after the other. Those that are left while it does must not make the others
 * forgotten: the destination may not have noticed. A migration's next stream has new connections. */
static void add_channel(struct pcmig_link *link, const struct pcmig_socket *socket, int64_t now_us)
{
    size_t kept = 0;

    for (size_t i = 0; i < link->channel_count; i++) {
        if (link->channels[i].open)
            link->channels[kept++] = link->channels[i];
    }
    link->channel_count = kept;
    if (kept < CHANNELS_MAX)
        link->channels[link->channel_count++] = (struct channel){.socket = *socket, .open = true, .well_us = now_us};
}

/* What the choice says of the sockets that QEMU holds. */
static void place_held(struct pcmig_link *link, const struct search *search, enum pcmig_channels found)
{
    for (size_t i = 0; i < link->held_count; i++) {
        struct held *held = &link->held[i];
        const struct pcmig_socket *socket = NULL;

        for (size_t j = 0; j < search->count && !held->placed; j++) {
            if (search->sockets[j].inode == held->inode)
                socket = &search->sockets[j];
        }
        if (socket != NULL)
            held->placed = found == PCMIG_CHANNELS_FOUND && socket->state == TCP_ESTABLISHED;
        else if (!held->placed)
            held->placed = ++held->looks >= LOOKS_PER_INODE;
    }
}

static enum pcmig_channels choose(struct pcmig_link *link, const struct search *search, int64_t now_us)
{
    const struct channel *known = first_open(link);
    struct pcmig_endpoint here;
    struct pcmig_connection *connections = calloc(search->count + 1, sizeof(*connections));
    enum pcmig_channels found;
    size_t count = 0;

    if (connections == NULL)
        return PCMIG_CHANNELS_UNCLEAR;
    for (size_t i = 0; i < search->count; i++) {
        const struct pcmig_socket *socket = &search->sockets[i];
        uint16_t port = ntohs(socket->id.idiag_sport);

        connections[count++] = (struct pcmig_connection){
            .peer = peer_of(socket),
            .owner = owner_of(search, socket),
            .before = socket->state != TCP_ESTABLISHED || was_before(link, socket) || is_channel(link, socket),
            .accepted = (search->listening[port / 8] >> port % 8 & 1) != 0,
        };
    }
    if (known != NULL) { /* the others lead there too */
        here = peer_of(&known->socket);
        if (search->owners_seen)
            here.port = 0;
        found = pcmig_channels_choose(connections, count, &here, 1);
    } else {
        found = pcmig_channels_choose(connections, count, link->ways, link->way_count);
    }
    for (size_t i = 0; i < count; i++) {
        if (connections[i].mine)
            add_channel(link, &search->sockets[i], now_us);
    }
    /* Ours is among them, so the rest are others', and stay so. */
    if (known != NULL || found == PCMIG_CHANNELS_FOUND) {
        found = PCMIG_CHANNELS_FOUND;
        for (size_t i = 0; i < count && !search->owners_seen; i++) {
            if (!is_channel(link, &search->sockets[i]))
                note_before(link, &search->sockets[i]);
        }
    }
    free(connections);
    return found;
}

static bool all_placed(const struct pcmig_link *link)
{
    for (size_t i = 0; i < link->held_count; i++) {
        if (!link->held[i].placed)
            return false;
    }
    return true;
}

/* Looks through all sockets of the host. BASELINE: for those that are not the migration's, which has not begun. */
static enum pcmig_channels search_list(struct pcmig_link *link, int fd, bool owners_seen, bool baseline, int64_t now_us)
{
    struct search *search = calloc(1, sizeof(*search));
    enum pcmig_channels found = PCMIG_CHANNELS_UNCLEAR;

    if (search == NULL)
        return PCMIG_CHANNELS_UNCLEAR;
    search->link = link;
    search->owners_seen = owners_seen;
    if (pcmig_sock_diag_list(fd, LISTED_STATES, take, search) == 0 && !search->failed) {
        if (baseline) {
            for (size_t i = 0; i < search->count; i++)
                note_before(link, &search->sockets[i]);
        } else {
            found = choose(link, search, now_us);
            place_held(link, search, found);
        }
    }
    free(search->sockets);
    free(search);
    return found;
}

static void find_channels(struct pcmig_link *link, int fd, int64_t now_us)
{
    enum pcmig_channels found = PCMIG_CHANNELS_FOUND;
    bool owners_seen, any = first_open(link) != NULL;

    if (now_us < link->find_us)
        return;
    search_qemu(link, now_us);
    owners_seen = read_held(link) == 0;
    /* Most of the time QEMU has no socket that was not there a second ago. */
    if (!owners_seen || !all_placed(link))
        found = search_list(link, fd, owners_seen, false, now_us);
    else if (!any)
        found = PCMIG_CHANNELS_NONE;
    if (found == PCMIG_CHANNELS_FOUND)
        link->find_every_us = FIND_US;
    link->find_us = now_us + link->find_every_us;
    if (link->find_every_us < FIND_US)
        link->find_every_us *= 2;
}

/* What is there before the migration's connections are. */
static void take_baseline(struct pcmig_link *link)
{
    int fd;

    search_qemu(link, pcmig_clock_us());
    if (read_held(link) == 0) {
        for (size_t i = 0; i < link->held_count; i++)
            link->held[i].placed = true;
        return;
    }
    fd = pcmig_sock_diag_open();
    if (fd < 0)
        return;
    (void)search_list(link, fd, false, true, 0);
    close(fd);
}

/* Where the migration may lead to: known only if each of its ways is. */
static void take_ways(struct pcmig_link *link, const struct pcmig_link_args *args)
{
    const char *const *more = args->resume_uris;
    const char *uri = args->migrate_uri;

    for (;;) {
        if (link->way_count == WAYS_MAX || !pcmig_channels_way(uri, &link->ways[link->way_count])) {
            link->way_count = 0;
            return;
        }
        link->way_count++;
        if (more == NULL || *more == NULL)
            return;
        uri = *more++;
    }
}

struct pcmig_link *pcmig_link_open(const struct pcmig_link_args *args)
{
    struct pcmig_link *link = calloc(1, sizeof(*link));

    if (link == NULL)
        return NULL;
    link->knocks = pcmig_knocks_open();
    if (link->knocks == NULL) {
        free(link);
        return NULL;
    }
    memcpy(link->uuid, args->uuid, strnlen(args->uuid, sizeof(link->uuid) - 1));
    link->at_source = args->at_source;
    link->find_every_us = FIND_FIRST_US;
    take_ways(link, args);
    if (!args->adopted)
        take_baseline(link);
    return link;
}

void pcmig_link_close(struct pcmig_link *link)
{
    if (link == NULL)
        return;
    free(link->held);
    free(link->before);
    pcmig_knocks_close(link->knocks);
    free(link);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static void take_peer(struct pcmig_link *link, const struct pcmig_socket *socket)
{
    memset(&link->peer, 0, sizeof(link->peer));
    link->peer.ss_family = socket->family;
    if (socket->family == AF_INET)
        memcpy(&((struct sockaddr_in *)&link->peer)->sin_addr, socket->id.idiag_dst, sizeof(struct in_addr));
    else
        memcpy(&((struct sockaddr_in6 *)&link->peer)->sin6_addr, socket->id.idiag_dst, sizeof(struct in6_addr));
}

/* Asks for each channel, and for new ones when it is time. Returns whether there are any. */
static bool look(struct pcmig_link *link, bool info, int64_t now_us)
{
    int fd = pcmig_sock_diag_open();
    bool were_open = first_open(link) != NULL;
    const struct channel *first;

    if (fd < 0)
        return false;
    for (size_t i = 0; i < link->channel_count; i++) {
        struct channel *channel = &link->channels[i];

        if (channel->open)
            channel->open = pcmig_sock_diag_one(fd, &channel->socket, info, &channel->socket) == 0 &&
                            channel->socket.state == TCP_ESTABLISHED;
    }
    if (were_open && first_open(link) == NULL) {
        link->find_us = 0;
        link->find_every_us = FIND_FIRST_US;
    }
    find_channels(link, fd, now_us);
    close(fd);
    first = first_open(link);
    if (first != NULL)
        take_peer(link, &first->socket);
    return first != NULL;
}

int64_t pcmig_link_queue_bytes(struct pcmig_link *link)
{
    int64_t bytes = 0;

    if (!look(link, false, pcmig_clock_us()))
        return -1;
    for (size_t i = 0; i < link->channel_count; i++) {
        if (link->channels[i].open)
            bytes += link->channels[i].socket.queue_bytes;
    }
    return bytes;
}

int64_t pcmig_link_round_trip_us(struct pcmig_link *link)
{
    int64_t shortest_us = -1;

    if (!look(link, true, pcmig_clock_us()))
        return -1;
    for (size_t i = 0; i < link->channel_count; i++) {
        int64_t us = link->channels[i].socket.round_trip_us;

        if (link->channels[i].open && us > 0 && (shortest_us < 0 || us < shortest_us))
            shortest_us = us;
    }
    return shortest_us;
}

/* The kernel has sent it again, or has asked for room again, and nothing came back. Data that is merely under way is
 * no silence, however long ago the last acknowledgement was. */
static bool is_silent(const struct pcmig_socket *socket)
{
    return socket->has_info && ((socket->unacked_segments > 0 && socket->timeouts > 0) || socket->probes > 1);
}

int64_t pcmig_link_silence_ms(struct pcmig_link *link)
{
    int64_t now_us = pcmig_clock_us(), longest_ms = 0;

    if (!look(link, true, now_us))
        return -1;
    for (size_t i = 0; i < link->channel_count; i++) {
        struct channel *channel = &link->channels[i];
        int64_t ms = (now_us - channel->well_us) / 1000;

        if (!channel->open)
            continue;
        if (!is_silent(&channel->socket)) {
            channel->well_us = now_us;
            continue;
        }
        if (ms > channel->socket.acknowledged_ms_ago)
            ms = channel->socket.acknowledged_ms_ago;
        if (longest_ms < ms)
            longest_ms = ms;
    }
    return longest_ms;
}

bool pcmig_link_peer(const struct pcmig_link *link, struct sockaddr_storage *out)
{
    *out = link->peer;
    return link->peer.ss_family != AF_UNSPEC;
}

unsigned pcmig_link_wake(struct pcmig_link *link, int wait_ms)
{
    struct pcmig_socket gone[CHANNELS_MAX];
    unsigned count = 0;
    int fd = pcmig_sock_diag_open();

    if (fd < 0)
        return 0;
    for (size_t i = 0; i < link->channel_count; i++) {
        struct pcmig_socket now;

        if (pcmig_sock_diag_at(fd, &link->channels[i].socket, &now) == 0) {
            if (now.inode != 0)
                continue; /* QEMU has it: this one lives */
            (void)pcmig_sock_diag_destroy(fd, &now);
        }
        gone[count++] = link->channels[i].socket;
    }
    close(fd);
    pcmig_knock(link->knocks, gone, count, wait_ms);
    return count;
}

struct pcmig_knocked pcmig_link_woken(const struct pcmig_link *link)
{
    return pcmig_knocked(link->knocks);
}
