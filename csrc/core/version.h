/* SPDX-License-Identifier: Apache-2.0 */
/* Of pcmig: what it leaves in files says who wrote them. The number is in the file VERSION; setup.py tells the
 * compiler, and programs of tests have none. */
#ifndef PCMIG_CORE_VERSION_H
#define PCMIG_CORE_VERSION_H

#ifndef PCMIG_VERSION
#define PCMIG_VERSION "0"
#endif

#endif
