/* SPDX-License-Identifier: Apache-2.0 */
/* See host_page.h. */
#include "core/host_page.h"

#include <stddef.h>
#include <string.h>

/* The usual huge page of most machines. */
#define USUAL_KIB 2048
/* The largest that a machine of today has: 16 GiB. */
#define MOST_KIB  (INT64_C(16) << 20)

/* TEXT between FROM and TO, or NULL. */
static const char *find(const char *from, const char *to, const char *text)
{
    const char *at = from != NULL ? strstr(from, text) : NULL;

    return at != NULL && at < to ? at : NULL;
}

int64_t pcmig_host_page_bytes(const char *xml)
{
    static const char size[] = "<page size='";
    const char *backing = xml != NULL ? strstr(xml, "<memoryBacking>") : NULL;
    const char *end = backing != NULL ? strstr(backing, "</memoryBacking>") : NULL;
    const char *huge = end != NULL ? find(backing, end, "<hugepages") : NULL, *at;
    int64_t kib = 0;

    if (huge == NULL)
        return 0;
    at = find(huge, end, size);
    if (at != NULL) {
        for (at += strlen(size); *at >= '0' && *at <= '9' && kib <= MOST_KIB; at++)
            kib = kib * 10 + (*at - '0');
        if (strncmp(at, "' unit='KiB'", strlen("' unit='KiB'")) != 0)
            kib = 0;
    }
    return (kib > 0 && kib <= MOST_KIB ? kib : USUAL_KIB) * 1024;
}
