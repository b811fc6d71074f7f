/* SPDX-License-Identifier: Apache-2.0 */
/* See channels.h. */
#include "core/channels.h"

#include <arpa/inet.h>
#include <string.h>

#define PORT_TEXT_MAX 5

bool pcmig_channels_usual_port(uint16_t port)
{
    return port >= PCMIG_CHANNELS_PORT_MIN && port <= PCMIG_CHANNELS_PORT_MAX;
}

bool pcmig_endpoint_fits(const struct pcmig_endpoint *peer, const struct pcmig_endpoint *way)
{
    return (way->any_address || memcmp(peer->address, way->address, sizeof(way->address)) == 0) &&
           (way->port == 0 || peer->port == way->port);
}

static bool fits_a_way(const struct pcmig_endpoint *peer, const struct pcmig_endpoint *ways, size_t way_count)
{
    for (size_t i = 0; i < way_count; i++) {
        if (pcmig_endpoint_fits(peer, &ways[i]))
            return true;
    }
    return way_count == 0;
}

/* Drops from what is chosen so far all that lack a property, if any has it. */
static void prefer(struct pcmig_connection *connections, size_t count, bool (*has)(const struct pcmig_connection *))
{
    bool any = false;

    for (size_t i = 0; i < count; i++)
        any = any || (connections[i].mine && has(&connections[i]));
    for (size_t i = 0; any && i < count; i++)
        connections[i].mine = connections[i].mine && has(&connections[i]);
}

/* Disks' servers (Ceph's OSDs, iSCSI, NBD) have other ports. A destination may be configured to other ports too, so
 * this is no condition. */
static bool has_usual_port(const struct pcmig_connection *connection)
{
    return pcmig_channels_usual_port(connection->peer.port);
}

static bool is_the_guests_with_usual_port(const struct pcmig_connection *connection)
{
    return connection->owner == PCMIG_OWNER_GUEST && has_usual_port(connection);
}

/* All channels of a migration lead to one address and port, and are of one maker: QEMU, or libvirt in its place.
 * QEMU's own to the destination's address, whatever the port, share the way with them (a disk's copy goes through a
 * port of its own); of unknown owners, another port is another guest's migration to the same host. */
static bool belong_together(const struct pcmig_connection *a, const struct pcmig_connection *b)
{
    return a->owner == b->owner && memcmp(a->peer.address, b->peer.address, sizeof(a->peer.address)) == 0 &&
           (a->owner == PCMIG_OWNER_GUEST || a->peer.port == b->peer.port);
}

static bool one_maker(const struct pcmig_connection *connections, size_t count)
{
    bool guest = false, unknown = false;

    for (size_t i = 0; i < count; i++) {
        guest = guest || (connections[i].mine && connections[i].owner == PCMIG_OWNER_GUEST);
        unknown = unknown || (connections[i].mine && connections[i].owner != PCMIG_OWNER_GUEST);
    }
    return !guest || !unknown;
}

enum pcmig_channels pcmig_channels_choose(struct pcmig_connection *connections, size_t count,
                                          const struct pcmig_endpoint *ways, size_t way_count)
{
    const struct pcmig_connection *first = NULL;

    for (size_t i = 0; i < count; i++) {
        struct pcmig_connection *c = &connections[i];

        c->mine = !c->before && !c->accepted && c->owner != PCMIG_OWNER_OTHER &&
                  fits_a_way(&c->peer, ways, way_count) &&
                  (c->owner == PCMIG_OWNER_GUEST || way_count > 0 || has_usual_port(c));
    }
    prefer(connections, count, is_the_guests_with_usual_port);
    if (one_maker(connections, count))
        prefer(connections, count, has_usual_port);
    for (size_t i = 0; i < count; i++) {
        if (!connections[i].mine)
            continue;
        if (first == NULL)
            first = &connections[i];
        if (belong_together(first, &connections[i]))
            continue;
        for (size_t j = 0; j < count; j++)
            connections[j].mine = false;
        return PCMIG_CHANNELS_UNCLEAR;
    }
    return first != NULL ? PCMIG_CHANNELS_FOUND : PCMIG_CHANNELS_NONE;
}

/* Digits from TEXT to END as a port; 0 = they are none. */
static uint16_t port_of(const char *text, const char *end)
{
    unsigned port = 0;

    if (end - text > PORT_TEXT_MAX)
        return 0;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return 0;
        port = port * 10 + (unsigned)(*text - '0');
    }
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

static bool address_of(const char *text, size_t len, uint8_t out[16])
{
    char copy[INET6_ADDRSTRLEN];
    struct in_addr v4;

    if (len == 0 || len >= sizeof(copy))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (inet_pton(AF_INET6, copy, out) == 1)
        return true;
    if (inet_pton(AF_INET, copy, &v4) != 1)
        return false;
    memset(out, 0, 10);
    memset(out + 10, 0xff, 2);
    memcpy(out + 12, &v4, sizeof(v4));
    return true;
}

bool pcmig_channels_way(const char *uri, struct pcmig_endpoint *way)
{
    const char *host, *end, *host_end, *colon;

    memset(way, 0, sizeof(*way));
    way->any_address = true;
    host = uri != NULL ? strchr(uri, ':') : NULL;
    if (host == NULL)
        return false;
    host++;
    if (strncmp(host, "//", 2) == 0)
        host += 2;
    end = host + strcspn(host, "/?");
    if (*host == '[') {
        host_end = memchr(host, ']', (size_t)(end - host));
        if (host_end == NULL)
            return false;
        way->any_address = !address_of(host + 1, (size_t)(host_end - host) - 1, way->address);
        colon = host_end + 1 < end && host_end[1] == ':' ? host_end + 1 : NULL;
    } else {
        colon = memchr(host, ':', (size_t)(end - host));
        way->any_address = !address_of(host, (size_t)((colon != NULL ? colon : end) - host), way->address);
    }
    if (colon != NULL)
        way->port = port_of(colon + 1, end);
    if (way->any_address)
        memset(way->address, 0, sizeof(way->address));
    return !way->any_address || way->port != 0;
}
