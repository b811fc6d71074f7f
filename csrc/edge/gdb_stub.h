/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a guest's gdb stub that does one thing: has the guest's processors go on. */
#ifndef PCMIG_EDGE_GDB_STUB_H
#define PCMIG_EDGE_GDB_STUB_H

#include "edge/virt.h"

#include <stdint.h>

/* Connects to a stub that listens on the socket PATH. Returns a descriptor, or -1 with ERROR. */
int pcmig_gdb_stub_dial(const char *path, int64_t timeout_ms, struct pcmig_virt_error *error);

/* Has the stub at the other end of FD, which does not block, detach: that lets all processors go on. Waits TIMEOUT_MS
 * at the most. Returns 0 when the stub said that it has, or -1 with ERROR: then nobody knows whether it has. */
int pcmig_gdb_stub_go_on(int fd, int64_t timeout_ms, struct pcmig_virt_error *error);

#endif
