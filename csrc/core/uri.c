/* SPDX-License-Identifier: Apache-2.0 */
/* See uri.h. */
#include "core/uri.h"

#include <string.h>
#include <strings.h>

/* The host inside URI and its length; NULL = it has no place for one. */
static const char *find_host(const char *uri, size_t *len)
{
    const char *host = strstr(uri, "://");
    const char *user, *port;

    if (host == NULL)
        return NULL;
    host += 3;
    *len = strcspn(host, "/?#");
    user = memchr(host, '@', *len);
    if (user != NULL) {
        *len -= (size_t)(user + 1 - host);
        host = user + 1;
    }
    if (*len > 0 && host[0] == '[') {
        const char *end = memchr(host, ']', *len);

        *len = (end != NULL ? (size_t)(end - host) : *len) - 1;
        return host + 1;
    }
    port = memchr(host, ':', *len);
    if (port != NULL)
        *len = (size_t)(port - host);
    return host;
}

bool pcmig_uri_host(const char *uri, char *host, size_t size)
{
    size_t len = 0;
    const char *begin = uri != NULL ? find_host(uri, &len) : NULL;

    if (begin == NULL || len == 0 || len >= size)
        return false;
    memcpy(host, begin, len);
    host[len] = '\0';
    return true;
}

bool pcmig_uri_is_here(const char *uri, const char *own_name)
{
    size_t len = 0;
    const char *host = uri != NULL ? find_host(uri, &len) : NULL;

    if (uri == NULL || (host != NULL && len == 0))
        return true;
    if (host == NULL)
        return false;
    return (len == 9 && strncasecmp(host, "localhost", len) == 0) || (len >= 4 && memcmp(host, "127.", 4) == 0) ||
           (len == 3 && memcmp(host, "::1", 3) == 0) ||
           (own_name != NULL && strlen(own_name) == len && strncasecmp(host, own_name, len) == 0);
}
