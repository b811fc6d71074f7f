/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a host says of itself, its UUID is whole or there is none. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/host_uuid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char out[PCMIG_HOST_UUID_SIZE];
    char *text = malloc(size + 1);
    bool found;

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    found = pcmig_host_uuid(text, out);
    if (strlen(out) != (found ? sizeof(out) - 1 : 0))
        abort();
    free(text);
    return 0;
}
