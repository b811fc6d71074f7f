/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a frame's header, a hello and an answer: what decodes encodes to the same bytes, and bounds hold. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/tunnel_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_frame(const uint8_t *in)
{
    uint8_t again[PCMIG_TUNNEL_FRAME_HEADER_BYTES];
    struct pcmig_tunnel_frame frame;

    if (!pcmig_tunnel_frame_decode(in, &frame))
        return;
    require(frame.length <= PCMIG_TUNNEL_FRAME_PAYLOAD_BYTES);
    require((frame.length > 0) == (frame.type == PCMIG_TUNNEL_FRAME_DATA));
    require(pcmig_tunnel_frame_reset_text(frame.code) != NULL);
    pcmig_tunnel_frame_encode(&frame, again);
    require(memcmp(in, again, sizeof(again)) == 0);
}

static void check_hello(const uint8_t *in)
{
    uint8_t again[PCMIG_TUNNEL_FRAME_HELLO_BYTES];
    struct pcmig_tunnel_hello hello;
    const enum pcmig_tunnel_verdict verdict = pcmig_tunnel_frame_decode_hello(in, &hello);

    require(strlen(pcmig_tunnel_frame_verdict_text(verdict)) > 0);
    if (verdict != PCMIG_TUNNEL_ACCEPTED)
        return;
    require(pcmig_tunnel_frame_maybe_hello(in, PCMIG_TUNNEL_FRAME_HELLO_BYTES));
    if (hello.kind == PCMIG_TUNNEL_KIND_PROBE) {
        require(hello.name[0] == '\0');
        return; /* its name is not looked at */
    }
    require(hello.index < hello.count && hello.count <= PCMIG_TUNNEL_CONNECTIONS);
    require(strlen(hello.name) == PCMIG_TUNNEL_NAME_LEN &&
            strspn(hello.name, "0123456789abcdef") == PCMIG_TUNNEL_NAME_LEN);
    pcmig_tunnel_frame_encode_hello(&hello, again);
    require(memcmp(in, again, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pcmig_tunnel_answer answer;

    (void)pcmig_tunnel_frame_maybe_hello(data, (uint32_t)size);
    (void)pcmig_tunnel_frame_is_name((const char *)data, (uint32_t)size);
    if (size >= PCMIG_TUNNEL_FRAME_HEADER_BYTES)
        check_frame(data);
    if (size >= PCMIG_TUNNEL_FRAME_ANSWER_BYTES && pcmig_tunnel_frame_decode_answer(data, &answer))
        require(answer.verdict < PCMIG_TUNNEL_VERDICT_COUNT);
    if (size >= PCMIG_TUNNEL_FRAME_HELLO_BYTES)
        check_hello(data);
    return 0;
}
