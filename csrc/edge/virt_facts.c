/* SPDX-License-Identifier: Apache-2.0 */
/* See virt_facts.h. */
#include "edge/virt_facts.h"

#include "edge/virt_internal.h"

#include <stdlib.h>
#include <string.h>

/* libvirt lends some strings and gives others: these are lent. */
static char *copy(const char *text)
{
    return text != NULL ? strdup(text) : NULL;
}

int pcmig_virt_facts_read(struct pcmig_virt_conn *conn, struct pcmig_virt_facts *out, struct pcmig_virt_error *error)
{
    memset(out, 0, sizeof(*out));
    if (virConnectGetLibVersion(conn->ptr, &out->libvirt_version) < 0) {
        pcmig_virt_error_take(error);
        return -1;
    }
    if (virGetVersion(&out->client_version, NULL, NULL) < 0)
        out->client_version = 0;
    if (virConnectGetVersion(conn->ptr, &out->qemu_version) < 0)
        out->qemu_version = 0;
    out->driver = copy(virConnectGetType(conn->ptr));
    out->hostname = virConnectGetHostname(conn->ptr);
    out->uri = virConnectGetURI(conn->ptr);
    out->capabilities = virConnectGetCapabilities(conn->ptr);
    (void)pcmig_host_uuid(out->capabilities, out->uuid);
    out->encrypted = virConnectIsEncrypted(conn->ptr);
    out->secure = virConnectIsSecure(conn->ptr);
    return 0;
}

void pcmig_virt_host_uuid(struct pcmig_virt_conn *conn, char out[PCMIG_HOST_UUID_SIZE])
{
    char *capabilities = virConnectGetCapabilities(conn->ptr);

    (void)pcmig_host_uuid(capabilities, out);
    free(capabilities);
}

void pcmig_virt_facts_clear(struct pcmig_virt_facts *facts)
{
    free(facts->driver);
    free(facts->hostname);
    free(facts->uri);
    free(facts->capabilities);
    memset(facts, 0, sizeof(*facts));
}
