/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a host's TCP connections carry a guest's migration.
 *
 * QEMU holds many: viewers, serial consoles, network disks. A migration's own (QEMU calls them channels: the stream,
 * the page requests, the parallel ones) are told from them by what is known of each. What that leaves open stays
 * open: figures of somebody else's connection are worse than none. Pure: no sockets, no clock, no allocation. */
#ifndef PCMIG_CORE_CHANNELS_H
#define PCMIG_CORE_CHANNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* libvirt's defaults of migration_port_min and migration_port_max (qemu.conf at the destination). */
#define PCMIG_CHANNELS_PORT_MIN 49152
#define PCMIG_CHANNELS_PORT_MAX 49215

/* Where a connection leads to. */
struct pcmig_endpoint {
    bool any_address;
    uint8_t address[16]; /* IPv6; an IPv4 address as ::ffff:a.b.c.d */
    uint16_t port;       /* 0 = any */
};

enum pcmig_owner {
    PCMIG_OWNER_UNKNOWN = 0, /* nobody lets us see whose it is */
    PCMIG_OWNER_GUEST,       /* the guest's QEMU */
    PCMIG_OWNER_OTHER,
};

struct pcmig_connection {
    struct pcmig_endpoint peer;
    enum pcmig_owner owner;
    bool before;   /* it was there before the migrate call */
    bool accepted; /* this host listens at its local port; QEMU connects to where it migrates to */
    bool mine;     /* out: it belongs to the migration */
};

enum pcmig_channels {
    PCMIG_CHANNELS_NONE = 0, /* nothing that could be it */
    PCMIG_CHANNELS_FOUND,
    PCMIG_CHANNELS_UNCLEAR, /* several that could, and they lead to different places: none is chosen */
};

/* Marks those of COUNT connections that are the migration's. WAYS: where it may lead to, as far as it was told; none
 * = not told. To be asked while a migration is under way, so that its connection is among them. */
enum pcmig_channels pcmig_channels_choose(struct pcmig_connection *connections, size_t count,
                                          const struct pcmig_endpoint *ways, size_t way_count);

/* What a migration URI tells ("tcp://192.0.2.7:49160", "tcp:[2001:db8::7]"): an address when it is a literal one, for
 * a name is the source's libvirt's to resolve, and a port when it has one. Returns false when it tells nothing. NULL
 * is fine. */
bool pcmig_channels_way(const char *uri, struct pcmig_endpoint *way);

bool pcmig_endpoint_fits(const struct pcmig_endpoint *peer, const struct pcmig_endpoint *way);

/* Whether a port is one of those that libvirt gives migrations unless it is told otherwise. */
bool pcmig_channels_usual_port(uint16_t port);

#endif
