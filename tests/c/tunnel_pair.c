/* SPDX-License-Identifier: Apache-2.0 */
/* See tunnel_pair.h. */
#include "tunnel_pair.h"

#include "tunnel_certificates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_MS = 600000 };

static void must(bool worked, const char *what)
{
    if (!worked)
        fail_msg("%s did not work", what);
}

/* --- daemons ------------------------------------------------------------------------------------------------------ */

static void prepare_side(struct tunnel_pair *pair, struct tunnel_side *side, const char *letter, bool plaintext)
{
    snprintf(side->run_dir, sizeof(side->run_dir), "%s/%s", pair->folder, letter);
    snprintf(side->control, sizeof(side->control), "%s/%s.control", pair->folder, letter);
    pcmig_tunnel_defaults(&side->config);
    side->listen[0] = "127.0.0.1:0";
    side->config.run_dir = side->run_dir;
    side->config.control = side->control;
    side->config.listen = side->listen;
    side->config.listen_count = 1;
    side->config.workers = 2;
    /* What a test is not about takes as long as a busy machine needs. */
    side->config.dead_after_ms = side->config.handshake_ms = PATIENCE_MS;
    side->config.socket_wait_ms = side->config.dial_ms = PATIENCE_MS;
    side->config.plaintext = plaintext;
    if (!plaintext)
        side->config.files =
            (struct pcmig_tls_files){.ca = pair->ca, .certificate = pair->certificate, .key = pair->key};
}

void tunnel_pair_prepare(struct tunnel_pair *pair, bool plaintext)
{
    memset(pair, 0, sizeof(*pair));
    snprintf(pair->folder, sizeof(pair->folder), "/tmp/pcmig-XXXXXX");
    must(mkdtemp(pair->folder) != NULL, "mkdtemp");
    snprintf(pair->ca, sizeof(pair->ca), "%s/ca.pem", pair->folder);
    snprintf(pair->certificate, sizeof(pair->certificate), "%s/host.pem", pair->folder);
    snprintf(pair->key, sizeof(pair->key), "%s/host.key", pair->folder);
    tunnel_certificates_make(pair->ca, pair->certificate, pair->key);
    prepare_side(pair, &pair->a, "a", plaintext);
    prepare_side(pair, &pair->b, "b", plaintext);
}

unsigned tunnel_quiet_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un mine = {.sun_family = AF_UNIX}; /* its abstract name (unix(7)) is one process's */

    for (int tries = 0; tries < 1000; tries++) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int name = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        uint16_t random = 0;
        bool is_free;

        must(fd >= 0 && name >= 0 && getrandom(&random, sizeof(random), 0) == sizeof(random), "a port");
        address.sin_port = htons(30000 + random % 2000);
        snprintf(mine.sun_path + 1, sizeof(mine.sun_path) - 1, "pcmig-quiet-port-%u", ntohs(address.sin_port));
        is_free = bind(name, (struct sockaddr *)&mine, sizeof(mine)) == 0 &&
                  bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
        close(fd);
        if (is_free)
            return ntohs(address.sin_port); /* the name's socket is open until this process ends */
        close(name);
    }
    fail_msg("no free port from 30000 to 31999");
    return 0;
}

void tunnel_side_start(struct tunnel_side *side)
{
    char error[PCMIG_TUNNEL_ERROR_BYTES] = "";
    uint16_t port = 0;

    side->tunnel = pcmig_tunnel_new(&side->config, error);
    if (side->tunnel == NULL || !pcmig_tunnel_start(side->tunnel, error))
        fail_msg("%s", error);
    must(pcmig_tunnel_ports(side->tunnel, &port, 1) == 1 && port != 0, "a port");
    side->port = port;
}

void tunnel_pair_start(struct tunnel_pair *pair, bool plaintext)
{
    tunnel_pair_prepare(pair, plaintext);
    tunnel_side_start(&pair->a);
    tunnel_side_start(&pair->b);
}

void tunnel_pair_end(struct tunnel_pair *pair)
{
    char command[64];

    pcmig_tunnel_free(pair->a.tunnel);
    pcmig_tunnel_free(pair->b.tunnel);
    snprintf(command, sizeof(command), "rm -r %s", pair->folder);
    must(system(command) == 0, command);
}

/* --- sockets ------------------------------------------------------------------------------------------------------ */

static int local_socket(const char *path, struct sockaddr_un *address)
{
    const struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    must(fd >= 0, "a socket");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0 &&
             setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == 0,
         "a timeout");
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof(address->sun_path), "%s", path);
    return fd;
}

void tunnel_ask(struct tunnel_side *side, char *answer, size_t size, const char *format, ...)
{
    struct sockaddr_un address;
    const int fd = local_socket(side->control, &address);
    char line[2048];
    size_t len;
    va_list args;
    ssize_t n;

    va_start(args, format);
    vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    len = strlen(line);
    line[len++] = '\n';
    must(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, side->control);
    must(send(fd, line, len, 0) == (ssize_t)len, "a request");
    n = recv(fd, answer, size - 1, 0);
    must(n > 0 && answer[n - 1] == '\n', "an answer");
    answer[n - 1] = '\0';
    close(fd);
}

void tunnel_open(struct tunnel_pair *pair, char name[33], unsigned k)
{
    unsigned char random[16];
    char answer[1024];

    must(getrandom(random, sizeof(random), 0) == sizeof(random), "getrandom");
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(name + 2 * i, 3, "%02x", random[i]);
    tunnel_ask(&pair->a, answer, sizeof(answer), "open %s localhost %u streams=%u", name, pair->b.port, k);
    if (strncmp(answer, "ok ", 3) != 0)
        fail_msg("%s", answer);
}

static int named_socket(struct tunnel_side *side, const char *name, struct sockaddr_un *address)
{
    char path[108];

    snprintf(path, sizeof(path), "%s/%s", side->run_dir, name);
    return local_socket(path, address);
}

int tunnel_listen(struct tunnel_side *side, const char *name)
{
    struct sockaddr_un address;
    const int fd = named_socket(side, name, &address);

    must(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 16) == 0, "listening");
    return fd;
}

int tunnel_connect(struct tunnel_side *side, const char *name)
{
    struct sockaddr_un address;
    const int fd = named_socket(side, name, &address);

    must(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "connecting");
    return fd;
}

int tunnel_accept(int listening)
{
    const struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    const int fd = accept(listening, NULL, NULL);

    must(fd >= 0, "accepting");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0, "a timeout");
    return fd;
}

void tunnel_logged(struct tunnel_side *side, const char *text)
{
    struct pcmig_messages *messages = pcmig_tunnel_messages(side->tunnel);
    struct pollfd readable = {.fd = pcmig_messages_fd(messages), .events = POLLIN};
    char line[PCMIG_MESSAGES_TEXT_BYTES], last[PCMIG_MESSAGES_TEXT_BYTES] = "nothing";
    int level;

    do {
        while (pcmig_messages_take(messages, &level, line)) {
            memcpy(last, line, sizeof(last));
            if (strstr(line, text) != NULL)
                return;
        }
    } while (poll(&readable, 1, PATIENCE_MS) == 1);
    fail_msg("no message with '%s'; the last was '%s'", text, last);
}
