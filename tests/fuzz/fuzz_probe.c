/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a file of /proc/sys: refused, or integers that are read again from what they print as. */
#include "edge/probe.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t first[3], second[3];
    char text[3 * 24] = "";
    size_t len = 0;
    int count = pcmig_probe_parse_ints((const char *)data, size, first, 3);

    if (count < -1 || count > 3)
        abort();
    for (int i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%" PRId64 " ", first[i]);
    if (count >= 0 && pcmig_probe_parse_ints(text, len, second, 3) != count)
        abort();
    for (int i = 0; i < count; i++) {
        if (first[i] != second[i])
            abort();
    }
    return 0;
}
