/* SPDX-License-Identifier: Apache-2.0 */
/* See domain_files.h. */
#include "core/domain_files.h"

#include <stddef.h>
#include <string.h>

bool pcmig_domain_files(const char *xml)
{
    /* A volume of a pool may be a file of one that both hosts mount; what a pool is, the definition does not say. An
     * NVDIMM is a file at the <path> of its source; firmware that keeps its variables outside of flash has a
     * <varstore>; a console may be written into a file. */
    static const char *const marks[] = {"<source file=",
                                        "<source pool=",
                                        "<source dir=",
                                        "<path>",
                                        "<nvram",
                                        "<varstore",
                                        "<tpm ",
                                        "<serial type='file'",
                                        "<console type='file'",
                                        "<channel type='file'",
                                        "<parallel type='file'"};

    for (size_t i = 0; xml != NULL && i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (strstr(xml, marks[i]) != NULL)
            return true;
    }
    return xml == NULL;
}
