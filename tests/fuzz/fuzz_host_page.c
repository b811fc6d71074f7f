/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a guest's definition says, a huge page has a size that there is. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/host_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    int64_t bytes;

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    bytes = pcmig_host_page_bytes(text);
    if (bytes < 0 || bytes % 1024 != 0 || bytes > INT64_C(1) << 34)
        abort();
    free(text);
    return 0;
}
