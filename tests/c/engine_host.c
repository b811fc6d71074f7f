/* SPDX-License-Identifier: Apache-2.0 */
/* See engine_host.h. */
#include "engine_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

int engine_host_make(struct engine_host *host, const char *node)
{
    ssize_t written;
    int fd;

    (void)snprintf(host->path, sizeof(host->path), "/tmp/pcmig-test-XXXXXX.xml");
    fd = mkstemps(host->path, 4);
    if (fd < 0)
        return -1;
    written = write(fd, node, strlen(node));
    (void)close(fd);
    (void)snprintf(host->uri, sizeof(host->uri), "test://%s", host->path);
    return written == (ssize_t)strlen(node) ? 0 : -1;
}

int engine_host_drop(struct engine_host *host)
{
    return unlink(host->path);
}
