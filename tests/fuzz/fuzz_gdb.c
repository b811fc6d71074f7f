/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a stub sends is read or refused, and after the first mistake nothing is believed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/gdb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pcmig_gdb_reader reader = {0};
    bool broken = false;
    char path[300], command[700];

    for (size_t i = 0; i < size; i++) {
        enum pcmig_gdb_said said = pcmig_gdb_read(&reader, (char)data[i]);

        if (broken && said != PCMIG_GDB_NO_STUB)
            abort();
        broken = broken || said == PCMIG_GDB_NO_STUB;
        if (reader.len > sizeof(reader.packet))
            abort();
    }
    if (size < sizeof(path)) {
        memcpy(path, data, size);
        path[size] = '\0';
        if (pcmig_gdb_listen_command(path, command, sizeof(command)) && strlen(command) < strlen(path))
            abort();
    }
    return 0;
}
