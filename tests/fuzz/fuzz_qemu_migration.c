/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever stands where QEMU's answer should be is read or refused. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/qemu_migration.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pcmig_latency_figures latency = {.mean_us = UINT64_MAX};
    char status[32], text[64];

    if (pcmig_qemu_migration_status((const char *)data, size, status, sizeof(status)) == 0) {
        if (strlen(status) == 0)
            abort();
        (void)pcmig_qemu_migration_kept(status);
    }
    if (pcmig_qemu_run_state((const char *)data, size, status, sizeof(status)) == 0 && strlen(status) == 0)
        abort();
    if (pcmig_qemu_migration_ram((const char *)data, size, "remaining") < -1)
        abort();
    /* What is no answer leaves OUT alone; a time in us is of one in ns, which fits. */
    if ((pcmig_qemu_migration_latency((const char *)data, size, &latency) == 1) == (latency.mean_us == UINT64_MAX))
        abort();
    if (pcmig_qemu_version((const char *)data, size) > 999999999)
        abort();
    (void)pcmig_qemu_capability((const char *)data, size, "release-ram");
    if (pcmig_qemu_monitor_folder((const char *)data, size, text, sizeof(text)) == 0 &&
        (text[0] != '/' || strlen(text) >= sizeof(text)))
        abort();
    if (pcmig_qemu_text((const char *)data, size, text, sizeof(text)) == 0 && strlen(text) >= sizeof(text))
        abort();
    if (pcmig_qemu_refused((const char *)data, size, text, sizeof(text)) && strlen(text) >= sizeof(text))
        abort();
    (void)pcmig_qemu_done((const char *)data, size);
    return 0;
}
