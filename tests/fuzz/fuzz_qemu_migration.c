/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever stands where QEMU's answer should be is read or refused. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/qemu_migration.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char status[32];

    if (pcmig_qemu_migration_status((const char *)data, size, status, sizeof(status)) == 0) {
        if (strlen(status) == 0)
            abort();
        (void)pcmig_qemu_migration_kept(status);
    }
    return 0;
}
