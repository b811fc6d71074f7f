/* SPDX-License-Identifier: Apache-2.0 */
/* What a host says of itself through libvirt: versions, name, capabilities. Reads only. */
#ifndef PCMIG_EDGE_VIRT_FACTS_H
#define PCMIG_EDGE_VIRT_FACTS_H

#include "core/host_uuid.h"
#include "edge/virt.h"

/* Versions as major * 1000000 + minor * 1000 + micro; 0 = not reported. Texts may be NULL: not reported. */
struct pcmig_virt_facts {
    unsigned long client_version;    /* of the library in this process (virGetVersion) */
    unsigned long libvirt_version;   /* of the daemon (virConnectGetLibVersion) */
    unsigned long qemu_version;      /* of its default emulator (virConnectGetVersion) */
    char *driver;                    /* "QEMU" (virConnectGetType) */
    char *hostname;                  /* virConnectGetHostname: what a peer-to-peer migration connects to by default */
    char *uri;                       /* as the daemon understood it */
    char *capabilities;              /* XML: CPU, migration features, kinds of guests */
    char uuid[PCMIG_HOST_UUID_SIZE]; /* of the host; "" = not reported */
    int encrypted;                   /* 1, 0, -1 = not reported */
    int secure;                      /* encrypted, or local to the host; 1, 0, -1 */
};

/* Only the daemon's version must be there; whatever else it does not tell stays empty. Returns 0, or -1. */
int pcmig_virt_facts_read(struct pcmig_virt_conn *conn, struct pcmig_virt_facts *out, struct pcmig_virt_error *error);

/* Only the host's UUID: "" where it does not say. */
void pcmig_virt_host_uuid(struct pcmig_virt_conn *conn, char out[PCMIG_HOST_UUID_SIZE]);

/* Frees the texts. Fine on a zeroed struct, and twice. */
void pcmig_virt_facts_clear(struct pcmig_virt_facts *facts);

#endif
