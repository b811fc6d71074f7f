/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a guest's gdb stub that does one thing: has the guest's processors go on. */
#ifndef PCMIG_EDGE_GDB_STUB_H
#define PCMIG_EDGE_GDB_STUB_H

#include "edge/virt.h"

#include <stdint.h>

/* Connects to the stub that listens on the socket PATH, has it detach, which lets all processors go on, and closes the
 * connection. Waits TIMEOUT_MS at the most. Returns 0 when the stub said that it has, or -1 with ERROR: then nobody
 * knows whether it has. */
int pcmig_gdb_stub_go_on(const char *path, int64_t timeout_ms, struct pcmig_virt_error *error);

#endif
