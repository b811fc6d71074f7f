/* SPDX-License-Identifier: Apache-2.0 */
/* See this_host.h. */
#include "edge/this_host.h"

#include "core/uri.h"

#include <unistd.h>

bool pcmig_this_host(const char *uri)
{
    char name[256] = "";

    return pcmig_uri_is_here(uri, gethostname(name, sizeof(name) - 1) == 0 ? name : NULL);
}
