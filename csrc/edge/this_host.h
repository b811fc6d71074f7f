/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a URI leads to this machine: core/uri.h with its own name (gethostname(2)). */
#ifndef PCMIG_EDGE_THIS_HOST_H
#define PCMIG_EDGE_THIS_HOST_H

#include <stdbool.h>

bool pcmig_this_host(const char *uri);

#endif
