/* SPDX-License-Identifier: Apache-2.0 */
/* See domain_files.h. */
#include "core/domain_files.h"

#include <stddef.h>
#include <string.h>

bool pcmig_domain_files(const char *xml)
{
    static const char *const marks[] = {"<source file=", "<nvram", "<tpm "};

    for (size_t i = 0; xml != NULL && i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (strstr(xml, marks[i]) != NULL)
            return true;
    }
    return xml == NULL;
}
