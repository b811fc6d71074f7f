/* SPDX-License-Identifier: Apache-2.0 */
/* See tunnel_request.h. */
#include "core/tunnel_request.h"

#include <stdio.h>
#include <string.h>

enum { NEEDS_NAME = 1, NEEDS_PEER = 2, TAKES_STREAMS = 4, MAX_WORDS = 5 };

static const struct {
    const char *verb;
    unsigned takes;
    const char *usage;
} verbs[] = {
    [PCMIG_TUNNEL_VERB_OPEN] = {"open", NEEDS_NAME | NEEDS_PEER | TAKES_STREAMS, "open NAME PEER [PORT] [streams=K]"},
    [PCMIG_TUNNEL_VERB_CLOSE] = {"close", NEEDS_NAME, "close NAME"},
    [PCMIG_TUNNEL_VERB_SHOW] = {"show", NEEDS_NAME, "show NAME"},
    [PCMIG_TUNNEL_VERB_LIST] = {"list", 0, "list"},
    [PCMIG_TUNNEL_VERB_PROBE] = {"probe", NEEDS_PEER, "probe PEER [PORT]"},
    [PCMIG_TUNNEL_VERB_RELOAD] = {"reload", 0, "reload"},
    [PCMIG_TUNNEL_VERB_PEERS] = {"peers", 0, "peers"},
    [PCMIG_TUNNEL_VERB_METRICS] = {"metrics", 0, "metrics"},
};
_Static_assert(sizeof(verbs) / sizeof(verbs[0]) == PCMIG_TUNNEL_VERB_COUNT, "every verb has a row");

struct word {
    const char *text;
    size_t len;
};

struct error {
    char *text;
    size_t size;
};

static bool is_word(struct word w, const char *text)
{
    return w.len == strlen(text) && memcmp(w.text, text, w.len) == 0;
}

/* "WHAT: 'WORD'", the word cut and without what cannot be printed. Returns false, for its callers to return. */
static bool fail(struct error error, const char *what, struct word w)
{
    char shown[48];
    size_t n = w.len < sizeof(shown) - 1 ? w.len : sizeof(shown) - 1;

    for (size_t i = 0; i < n; i++)
        shown[i] = w.text[i] >= ' ' && w.text[i] <= '~' ? w.text[i] : '?';
    shown[n] = '\0';
    snprintf(error.text, error.size, "%s: '%s'", what, shown);
    return false;
}

static bool parse_number(struct word w, unsigned min, unsigned max, unsigned *out)
{
    unsigned value = 0;

    if (w.len == 0 || w.len > 5)
        return false;
    for (size_t i = 0; i < w.len; i++) {
        if (w.text[i] < '0' || w.text[i] > '9')
            return false;
        value = value * 10 + (unsigned)(w.text[i] - '0');
    }
    *out = value;
    return value >= min && value <= max;
}

/* Letters, digits and what addresses need; an address of IPv6 may stand in brackets. */
static bool parse_peer(struct word w, char out[PCMIG_TUNNEL_REQUEST_PEER_LEN + 1])
{
    if (w.len >= 2 && w.text[0] == '[' && w.text[w.len - 1] == ']')
        w = (struct word){w.text + 1, w.len - 2};
    if (w.len == 0 || w.len > PCMIG_TUNNEL_REQUEST_PEER_LEN || w.text[0] == '-' || w.text[0] == '.')
        return false;
    for (size_t i = 0; i < w.len; i++) {
        const char c = w.text[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr(".:-_%", c)) ||
            c == '\0')
            return false;
    }
    memcpy(out, w.text, w.len);
    out[w.len] = '\0';
    return true;
}

/* Splits LINE; returns the number of words, or 0 when there is an empty one or there are too many. */
static size_t split(const char *line, size_t len, struct word words[MAX_WORDS])
{
    size_t n = 0, start = 0;

    for (size_t i = 0; i <= len; i++) {
        if (i < len && line[i] != ' ')
            continue;
        if (i == start || n == MAX_WORDS)
            return 0;
        words[n++] = (struct word){line + start, i - start};
        start = i + 1;
    }
    return n;
}

static bool parse_rest(const struct word *words, size_t n, unsigned takes, struct pcmig_tunnel_request *out,
                       struct error error, const char *usage)
{
    static const char streams[] = "streams=";
    size_t at = 1;
    unsigned number;

    if (takes & NEEDS_NAME) {
        if (at == n)
            return fail(error, "a name is missing", (struct word){usage, strlen(usage)});
        if (!pcmig_tunnel_frame_is_name(words[at].text, (uint32_t)words[at].len))
            return fail(error, "a name is 32 lower-case hex digits", words[at]);
        memcpy(out->name, words[at++].text, PCMIG_TUNNEL_NAME_LEN);
    }
    if (takes & NEEDS_PEER) {
        if (at == n)
            return fail(error, "a peer is missing", (struct word){usage, strlen(usage)});
        if (!parse_peer(words[at], out->peer))
            return fail(error, "a peer is a host name or an address", words[at]);
        at++;
        out->port = PCMIG_TUNNEL_REQUEST_PORT;
        if (at < n && words[at].text[0] != 's') {
            if (!parse_number(words[at], 1, 65535, &number))
                return fail(error, "a port is a number from 1 to 65535", words[at]);
            out->port = (uint16_t)number;
            at++;
        }
    }
    if (takes & TAKES_STREAMS) {
        out->streams = 1;
        if (at < n && words[at].len > strlen(streams) && memcmp(words[at].text, streams, strlen(streams)) == 0) {
            const struct word value = {words[at].text + strlen(streams), words[at].len - strlen(streams)};

            if (!parse_number(value, 1, PCMIG_TUNNEL_CONNECTIONS, &number))
                return fail(error, "streams is a number from 1 to 8", words[at]);
            out->streams = (uint8_t)number;
            at++;
        }
    }
    if (at < n)
        return fail(error, "this word is too much", words[at]);
    return true;
}
_Static_assert(PCMIG_TUNNEL_CONNECTIONS == 8, "the text above says 8");

bool pcmig_tunnel_request_parse(const char *line, size_t len, struct pcmig_tunnel_request *out, char *error,
                                size_t error_size)
{
    const struct error to = {error, error_size};
    struct word words[MAX_WORDS];
    size_t n;

    memset(out, 0, sizeof(*out));
    if (len >= PCMIG_TUNNEL_REQUEST_LINE_BYTES) {
        snprintf(error, error_size, "a request has at most %d characters", PCMIG_TUNNEL_REQUEST_LINE_BYTES - 1);
        return false;
    }
    n = split(line, len, words);
    if (n == 0)
        return fail(to, "a request is one to five words, separated by single spaces", (struct word){line, len});
    for (size_t i = 0; i < PCMIG_TUNNEL_VERB_COUNT; i++) {
        if (!is_word(words[0], verbs[i].verb))
            continue;
        out->verb = (enum pcmig_tunnel_verb)i;
        return parse_rest(words, n, verbs[i].takes, out, to, verbs[i].usage);
    }
    return fail(to, "there are open, close, show, list, probe, reload, peers and metrics, but not", words[0]);
}

void pcmig_tunnel_request_escape(const char *value, char *out, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t at = 0;

    if (size == 0)
        return;
    for (const unsigned char *c = (const unsigned char *)value; *c != '\0'; c++) {
        const bool plain = *c > ' ' && *c != '%' && *c < 0x7f;

        if (at + (plain ? 1 : 3) >= size)
            break;
        if (plain) {
            out[at++] = (char)*c;
        } else {
            out[at++] = '%';
            out[at++] = digits[*c >> 4];
            out[at++] = digits[*c & 15];
        }
    }
    out[at] = '\0';
}
