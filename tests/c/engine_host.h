/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the engine: a host of libvirt's test driver, which has what the test says. */
#ifndef ENGINE_HOST_H
#define ENGINE_HOST_H

struct engine_host {
    char path[64]; /* the file that describes it */
    char uri[72];
};

/* NODE is the host's XML, as in libvirt's doc/drvtest. Returns 0 or -1. */
int engine_host_make(struct engine_host *host, const char *node);
int engine_host_drop(struct engine_host *host);

#endif
