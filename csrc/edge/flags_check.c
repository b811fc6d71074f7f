/* SPDX-License-Identifier: Apache-2.0 */
/* Ties core/flags.h to the libvirt that pcmig is built against: a bit that differs stops the build. A flag that libvirt
 * has and the table lacks cannot be seen here; tests/unit/test_flags.py compares the table with libvirt's header. No
 * code. */
#include "core/flags.h"

#include <libvirt/libvirt.h>

#define SAME(name) _Static_assert((unsigned)VIR_MIGRATE_##name == (unsigned)PCMIG_FLAG_##name, #name)

SAME(LIVE);
SAME(PEER2PEER);
SAME(TUNNELLED);
SAME(PERSIST_DEST);
SAME(UNDEFINE_SOURCE);
SAME(PAUSED);
SAME(NON_SHARED_DISK);
SAME(NON_SHARED_INC);
SAME(CHANGE_PROTECTION);
SAME(UNSAFE);
SAME(OFFLINE);
SAME(COMPRESSED);
SAME(ABORT_ON_ERROR);
SAME(AUTO_CONVERGE);
SAME(RDMA_PIN_ALL);
SAME(POSTCOPY);
SAME(TLS);
SAME(PARALLEL);
SAME(NON_SHARED_SYNCHRONOUS_WRITES);
#if LIBVIR_CHECK_VERSION(8, 5, 0)
SAME(POSTCOPY_RESUME);
SAME(ZEROCOPY);
#endif
