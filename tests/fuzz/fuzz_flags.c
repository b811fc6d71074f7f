/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the text of flags: parse, check, resolve and render never leave their bounds, and what is rendered
 * parses to the same flags again. The first two bytes are the versions and the user. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/conflicts.h"
#include "core/flags.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check(uint32_t bits, const struct pcmig_conflicts_context *context)
{
    struct pcmig_conflicts_finding found[PCMIG_CONFLICTS_MAX];
    const size_t n = pcmig_conflicts_check(bits, context, found);
    char message[512];

    require(n <= PCMIG_CONFLICTS_MAX);
    for (size_t i = 0; i < n; i++) {
        const int len = pcmig_conflicts_describe(&found[i], context, message, sizeof(message));

        require(len > 0 && (size_t)len == strlen(message));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pcmig_conflicts_context context = {0};
    struct pcmig_flags flags, again;
    struct pcmig_flags_error err;
    const char *text;
    char rendered[1024], message[PCMIG_FLAGS_MESSAGE_MAX];
    size_t len;

    if (size < 2)
        return 0;
    context.qemu_version = (data[0] & 15u) * 1000000u;
    context.libvirt_version = (data[0] >> 4) * 1000000u;
    context.nova = data[1] & 1;
    text = (const char *)data + 2;
    size -= 2;
    if (pcmig_flags_parse(text, size, &flags, &err) < 0) {
        const int shown = pcmig_flags_error_describe(&err, message, sizeof(message));

        require(shown > 0 && (size_t)shown == strlen(message) && strchr(message, '\n') == NULL);
        require(err.token == text + err.offset && err.len > 0 && err.offset + err.len <= size);
        return 0;
    }
    require((flags.bits & ~PCMIG_FLAGS_ALL) == 0);
    require(flags.policy == NULL || (flags.bits & PCMIG_FLAG_POSTCOPY));
    check(flags.bits, &context);
    len = pcmig_flags_render(flags.bits, rendered, sizeof(rendered));
    require(len < sizeof(rendered) && len == strlen(rendered));
    require(pcmig_flags_parse(rendered, len, &again, &err) == 0 && again.bits == flags.bits && again.policy == NULL);
    check(pcmig_conflicts_resolve(flags.bits, &context), &context);
    return 0;
}
