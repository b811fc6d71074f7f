/* SPDX-License-Identifier: Apache-2.0 */
/* See tunnel_frame.h. */
#include "core/tunnel_frame.h"

#include <stddef.h>
#include <string.h>

static const uint8_t magic[4] = {'P', 'C', 'M', 'T'};

/* What a frame of each type may have. */
static const struct {
    bool known;
    bool coded;
    uint32_t min_bytes;
    uint32_t max_bytes;
} shapes[] = {
    [PCMIG_TUNNEL_FRAME_DATA] = {true, false, 1, PCMIG_TUNNEL_FRAME_PAYLOAD_BYTES},
    [PCMIG_TUNNEL_FRAME_FIN] = {true, false, 0, 0},
    [PCMIG_TUNNEL_FRAME_PING] = {true, false, 0, 0},
    [PCMIG_TUNNEL_FRAME_PONG] = {true, false, 0, 0},
    [PCMIG_TUNNEL_FRAME_RESET] = {true, true, 0, 0},
    [PCMIG_TUNNEL_FRAME_BYE] = {true, false, 0, 0},
};

static const char *const verdicts[] = {
    [PCMIG_TUNNEL_ACCEPTED] = "accepted",
    [PCMIG_TUNNEL_REFUSED_VERSION] = "the peer speaks another version of the tunnel's protocol",
    [PCMIG_TUNNEL_REFUSED_HELLO] = "what was said after the handshake is not the tunnel's protocol",
    [PCMIG_TUNNEL_REFUSED_PEER] = "this host's certificate is not on the peer's list of allowed hosts",
    [PCMIG_TUNNEL_REFUSED_NAME] = "no QEMU at the peer listens under this name",
    [PCMIG_TUNNEL_REFUSED_SOCKET] = "what the peer has under this name is not the socket of the guest's QEMU",
    [PCMIG_TUNNEL_REFUSED_LIMIT] = "the peer has as many streams as it takes",
    [PCMIG_TUNNEL_REFUSED_STOPPING] = "the peer's daemon is about to end",
};
_Static_assert(sizeof(verdicts) / sizeof(verdicts[0]) == PCMIG_TUNNEL_VERDICT_COUNT, "every verdict has a text");

static const char *const resets[] = {
    [0] = "no reason was given",
    [PCMIG_TUNNEL_RESET_GONE] = "the peer's QEMU has closed its socket",
    [PCMIG_TUNNEL_RESET_CLOSED] = "the peer was told to close the stream",
};
_Static_assert(sizeof(resets) / sizeof(resets[0]) == PCMIG_TUNNEL_RESET_COUNT, "every reset has a text");

static void put_u32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void put_u64(uint8_t *out, uint64_t value)
{
    put_u32(out, (uint32_t)(value >> 32));
    put_u32(out + 4, (uint32_t)value);
}

static uint32_t get_u32(const uint8_t *in)
{
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

static uint64_t get_u64(const uint8_t *in)
{
    return (uint64_t)get_u32(in) << 32 | get_u32(in + 4);
}

void pcmig_tunnel_frame_encode(const struct pcmig_tunnel_frame *frame, uint8_t out[PCMIG_TUNNEL_FRAME_HEADER_BYTES])
{
    out[0] = (uint8_t)frame->type;
    out[1] = frame->code;
    out[2] = out[3] = 0;
    put_u32(out + 4, frame->length);
    put_u64(out + 8, frame->seq);
}

bool pcmig_tunnel_frame_decode(const uint8_t in[PCMIG_TUNNEL_FRAME_HEADER_BYTES], struct pcmig_tunnel_frame *out)
{
    const uint8_t type = in[0], code = in[1];
    const uint32_t length = get_u32(in + 4);

    if (type >= sizeof(shapes) / sizeof(shapes[0]) || !shapes[type].known || in[2] != 0 || in[3] != 0)
        return false;
    if (shapes[type].coded ? code == 0 || code >= PCMIG_TUNNEL_RESET_COUNT : code != 0)
        return false;
    if (length < shapes[type].min_bytes || length > shapes[type].max_bytes)
        return false;
    *out = (struct pcmig_tunnel_frame){
        .type = (enum pcmig_tunnel_frame_type)type, .code = code, .length = length, .seq = get_u64(in + 8)};
    return true;
}

void pcmig_tunnel_frame_encode_hello(const struct pcmig_tunnel_hello *hello,
                                     uint8_t out[PCMIG_TUNNEL_FRAME_HELLO_BYTES])
{
    memset(out, 0, PCMIG_TUNNEL_FRAME_HELLO_BYTES);
    memcpy(out, magic, sizeof(magic));
    out[4] = PCMIG_TUNNEL_FRAME_VERSION;
    out[5] = (uint8_t)hello->kind;
    out[6] = hello->index;
    out[7] = hello->count;
    if (hello->kind != PCMIG_TUNNEL_KIND_PROBE)
        memcpy(out + 8, hello->name, PCMIG_TUNNEL_NAME_LEN);
    memcpy(out + 40, hello->stream, sizeof(hello->stream));
    put_u64(out + 56, hello->clock_ms);
}

enum pcmig_tunnel_verdict pcmig_tunnel_frame_decode_hello(const uint8_t in[PCMIG_TUNNEL_FRAME_HELLO_BYTES],
                                                          struct pcmig_tunnel_hello *out)
{
    memset(out, 0, sizeof(*out));
    if (memcmp(in, magic, sizeof(magic)) != 0)
        return PCMIG_TUNNEL_REFUSED_HELLO;
    if (in[4] != PCMIG_TUNNEL_FRAME_VERSION)
        return PCMIG_TUNNEL_REFUSED_VERSION;
    if (in[5] >= PCMIG_TUNNEL_KIND_COUNT)
        return PCMIG_TUNNEL_REFUSED_HELLO;
    out->kind = (enum pcmig_tunnel_kind)in[5];
    out->index = in[6];
    out->count = in[7];
    memcpy(out->stream, in + 40, sizeof(out->stream));
    out->clock_ms = get_u64(in + 56);
    if (out->kind == PCMIG_TUNNEL_KIND_PROBE)
        return PCMIG_TUNNEL_ACCEPTED;
    if (out->count == 0 || out->count > PCMIG_TUNNEL_CONNECTIONS || out->index >= out->count ||
        !pcmig_tunnel_frame_is_name((const char *)in + 8, PCMIG_TUNNEL_NAME_LEN))
        return PCMIG_TUNNEL_REFUSED_HELLO;
    memcpy(out->name, in + 8, PCMIG_TUNNEL_NAME_LEN);
    return PCMIG_TUNNEL_ACCEPTED;
}

bool pcmig_tunnel_frame_maybe_hello(const uint8_t *in, uint32_t len)
{
    return memcmp(in, magic, len < sizeof(magic) ? len : sizeof(magic)) == 0;
}

void pcmig_tunnel_frame_encode_answer(const struct pcmig_tunnel_answer *answer,
                                      uint8_t out[PCMIG_TUNNEL_FRAME_ANSWER_BYTES])
{
    memset(out, 0, PCMIG_TUNNEL_FRAME_ANSWER_BYTES);
    memcpy(out, magic, sizeof(magic));
    out[4] = PCMIG_TUNNEL_FRAME_VERSION;
    out[5] = (uint8_t)answer->verdict;
    put_u64(out + 8, answer->clock_ms);
}

bool pcmig_tunnel_frame_decode_answer(const uint8_t in[PCMIG_TUNNEL_FRAME_ANSWER_BYTES],
                                      struct pcmig_tunnel_answer *out)
{
    /* A peer of another version says so with a verdict, in this same layout. */
    if (memcmp(in, magic, sizeof(magic)) != 0 || in[5] >= PCMIG_TUNNEL_VERDICT_COUNT || in[6] != 0 || in[7] != 0)
        return false;
    *out = (struct pcmig_tunnel_answer){.verdict = (enum pcmig_tunnel_verdict)in[5], .clock_ms = get_u64(in + 8)};
    return true;
}

const char *pcmig_tunnel_frame_verdict_text(enum pcmig_tunnel_verdict verdict)
{
    return (unsigned)verdict < PCMIG_TUNNEL_VERDICT_COUNT ? verdicts[verdict]
                                                          : "the peer refused for an unknown reason";
}

const char *pcmig_tunnel_frame_reset_text(unsigned code)
{
    return resets[code < PCMIG_TUNNEL_RESET_COUNT ? code : 0];
}

bool pcmig_tunnel_frame_is_name(const char *name, uint32_t len)
{
    if (len != PCMIG_TUNNEL_NAME_LEN)
        return false;
    for (uint32_t i = 0; i < len; i++) {
        if (!((name[i] >= '0' && name[i] <= '9') || (name[i] >= 'a' && name[i] <= 'f')))
            return false;
    }
    return true;
}
