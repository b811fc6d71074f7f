/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a line of the control socket, and as a value in its answers. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/tunnel_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_request(const char *line, size_t len)
{
    struct pcmig_tunnel_request request;
    char error[256] = "";

    if (!pcmig_tunnel_request_parse(line, len, &request, error, sizeof(error))) {
        require(error[0] != '\0');
        for (const char *c = error; *c != '\0'; c++)
            require(*c >= ' ' && *c <= '~');
        return;
    }
    require((unsigned)request.verb < PCMIG_TUNNEL_VERB_COUNT);
    if (request.verb <= PCMIG_TUNNEL_VERB_SHOW)
        require(pcmig_tunnel_frame_is_name(request.name, PCMIG_TUNNEL_NAME_LEN) &&
                request.name[PCMIG_TUNNEL_NAME_LEN] == 0);
    if (request.verb == PCMIG_TUNNEL_VERB_OPEN || request.verb == PCMIG_TUNNEL_VERB_PROBE) {
        require(request.port != 0 && request.peer[0] != '\0' && request.peer[0] != '-');
        require(strpbrk(request.peer, "/ \t\n") == NULL);
    }
    if (request.verb == PCMIG_TUNNEL_VERB_OPEN)
        require(request.streams >= 1 && request.streams <= PCMIG_TUNNEL_CONNECTIONS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), small[16];

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    check_request(text, size);
    pcmig_tunnel_request_escape(text, small, sizeof(small));
    require(strlen(small) < sizeof(small));
    for (const char *c = small; *c != '\0'; c++)
        require(*c > ' ' && *c <= '~');
    free(text);
    return 0;
}
