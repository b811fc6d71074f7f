/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever an operator gives as a migration URI tells a place, or nothing. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/channels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *uri = malloc(size + 1);
    struct pcmig_endpoint way;

    if (uri == NULL)
        return 0;
    memcpy(uri, data, size);
    uri[size] = '\0';
    if (pcmig_channels_way(uri, &way) != (!way.any_address || way.port != 0))
        abort();
    free(uri);
    return 0;
}
