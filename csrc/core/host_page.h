/* SPDX-License-Identifier: Apache-2.0 */
/* The host's pages that a guest's memory lies in, by its definition. Pure. */
#ifndef PCMIG_CORE_HOST_PAGE_H
#define PCMIG_CORE_HOST_PAGE_H

#include <stdint.h>

/* XML: of virDomainGetXMLDesc, as libvirt's own writer has it (<memoryBacking><hugepages><page size='2048'
 * unit='KiB'/>, or <hugepages/> alone for the host's usual ones), or NULL. Returns the size of huge pages in bytes, 0
 * where there are none. Of several sizes the first. */
int64_t pcmig_host_page_bytes(const char *xml);

#endif
