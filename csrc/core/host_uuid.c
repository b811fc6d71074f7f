/* SPDX-License-Identifier: Apache-2.0 */
/* See host_uuid.h. */
#include "core/host_uuid.h"

#include <string.h>

bool pcmig_host_uuid(const char *capabilities, char out[PCMIG_HOST_UUID_SIZE])
{
    static const char open[] = "<uuid>", close[] = "</uuid>";
    const size_t len = PCMIG_HOST_UUID_SIZE - 1;
    const char *host = capabilities != NULL ? strstr(capabilities, "<host>") : NULL;
    const char *end = host != NULL ? strstr(host, "</host>") : NULL;
    const char *at = end != NULL ? strstr(host, open) : NULL;

    out[0] = '\0';
    if (at == NULL || at > end)
        return false;
    at += strlen(open);
    if (strspn(at, "0123456789abcdef-") != len || strncmp(at + len, close, strlen(close)) != 0)
        return false;
    memcpy(out, at, len);
    out[len] = '\0';
    return true;
}
