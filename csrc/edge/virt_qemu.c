/* SPDX-License-Identifier: Apache-2.0 */
/* See virt_qemu.h. */
#include "edge/virt_qemu.h"

#include "core/qemu_migration.h"
#include "edge/virt_internal.h"

#include <libvirt/libvirt-qemu.h>
#include <stdlib.h>
#include <string.h>

static const char query[] = "{\"execute\":\"query-migrate\"}";
static const char strange[] = "QEMU's answer to query-migrate is not what QEMU 5.2 to 11 give";

int pcmig_virt_qemu_latency(struct pcmig_virt_domain *domain, struct pcmig_latency_figures *out,
                            struct pcmig_virt_error *error)
{
    char *answer = NULL;
    int result;

    if (virDomainQemuMonitorCommand(domain->ptr, query, &answer, 0) < 0 || answer == NULL) {
        pcmig_virt_error_take(error);
        free(answer);
        return -1;
    }
    result = pcmig_qemu_migration_latency(answer, strlen(answer), out);
    if (result < 0)
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED, "%s", strange);
    free(answer);
    return result;
}

int pcmig_virt_qemu_migration(struct pcmig_virt_domain *domain, char *out, size_t size, int64_t *sent_bytes,
                              struct pcmig_virt_error *error)
{
    char *answer = NULL;
    int result;

    if (virDomainQemuMonitorCommand(domain->ptr, query, &answer, 0) < 0 || answer == NULL) {
        pcmig_virt_error_take(error);
        return -1;
    }
    result = pcmig_qemu_migration_status(answer, strlen(answer), out, size);
    *sent_bytes = pcmig_qemu_migration_ram(answer, strlen(answer), "transferred");
    if (result < 0)
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED, "%s", strange);
    free(answer);
    return result;
}

int pcmig_virt_qemu_pause(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    char why[256] = "";
    char *answer = NULL;
    bool done;

    if (virDomainQemuMonitorCommand(domain->ptr, "{\"execute\":\"migrate-pause\"}", &answer, 0) < 0 || answer == NULL) {
        pcmig_virt_error_take(error);
        free(answer);
        return -1;
    }
    done = pcmig_qemu_done(answer, strlen(answer));
    if (!done) {
        (void)pcmig_qemu_refused(answer, strlen(answer), why, sizeof(why));
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "QEMU at the source does not pause: %s", why);
    }
    free(answer);
    return done ? 0 : -1;
}
