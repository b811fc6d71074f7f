/* SPDX-License-Identifier: Apache-2.0 */
/* Two whole daemons in one process, over loopback: for the sanitizers, above all TSan. What they refuse is in
 * tests/unit/test_tunnel_refusals.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "fair_clock.h"
#include "tunnel_pair.h"

static atomic_uint asked_for_kernel_tls;

/* In the place of the C library's: this kernel may have no TLS, and then nothing else tells that it was asked for. */
int setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
    if (level == IPPROTO_TCP && option == TCP_ULP)
        atomic_fetch_add(&asked_for_kernel_tls, 1);
    return (int)syscall(SYS_setsockopt, fd, level, option, value, len);
}

static atomic_bool asks_as_other;

/* In the place of the C library's: whoever runs this has no second user. */
int getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
    const int result = (int)syscall(SYS_getsockopt, fd, level, option, value, len);

    if (result == 0 && level == SOL_SOCKET && option == SO_PEERCRED && atomic_load(&asks_as_other))
        ((struct ucred *)value)->uid = 60000;
    return result;
}

/* Bytes whose place can be told, so that none is lost, doubled or moved without notice. */
static void fill(uint8_t *bytes, size_t len, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)((at + i) * 2654435761u >> 13);
}

struct flow {
    pthread_t thread;
    int fd;
    size_t bytes, chunk;
    bool right;
};

static void *write_all(void *arg)
{
    struct flow *flow = arg;
    uint8_t *bytes = malloc(flow->chunk);
    size_t at = 0;

    while (bytes != NULL && at < flow->bytes) {
        const size_t want = flow->bytes - at < flow->chunk ? flow->bytes - at : flow->chunk;
        ssize_t n;

        fill(bytes, want, at);
        n = send(flow->fd, bytes, want, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    shutdown(flow->fd, SHUT_WR);
    free(bytes);
    flow->right = at == flow->bytes;
    return NULL;
}

static void *read_all(void *arg)
{
    struct flow *flow = arg;
    uint8_t *bytes = malloc(flow->chunk), *expected = malloc(flow->chunk);
    bool same = true;
    size_t at = 0;
    ssize_t n = -1;

    while (bytes != NULL && expected != NULL && same && (n = recv(flow->fd, bytes, flow->chunk, 0)) > 0) {
        fill(expected, (size_t)n, at);
        same = memcmp(bytes, expected, (size_t)n) == 0;
        at += (size_t)n;
    }
    free(bytes);
    free(expected);
    flow->right = same && n == 0 && at == flow->bytes;
    return NULL;
}

/* BYTES in each direction of COUNT streams at once, with K connections each. */
static void run_flows(struct tunnel_pair *pair, unsigned count, unsigned k, size_t bytes)
{
    struct flow flows[4 * 4];
    char name[33];
    int listening, here[4], there[4];

    assert_in_range(count, 1, 4);
    tunnel_open(pair, name, k);
    listening = tunnel_listen(&pair->b, name);
    for (unsigned i = 0; i < count; i++) {
        here[i] = tunnel_connect(&pair->a, name);
        there[i] = tunnel_accept(listening);
        flows[4 * i] = (struct flow){.fd = here[i], .bytes = bytes, .chunk = 100000};
        flows[4 * i + 1] = (struct flow){.fd = there[i], .bytes = bytes, .chunk = 65536};
        flows[4 * i + 2] = (struct flow){.fd = there[i], .bytes = bytes / 8, .chunk = 4096};
        flows[4 * i + 3] = (struct flow){.fd = here[i], .bytes = bytes / 8, .chunk = 8192};
    }
    for (unsigned i = 0; i < 4 * count; i++)
        assert_int_equal(pthread_create(&flows[i].thread, NULL, i % 2 == 0 ? write_all : read_all, &flows[i]), 0);
    for (unsigned i = 0; i < 4 * count; i++) {
        assert_int_equal(pthread_join(flows[i].thread, NULL), 0);
        if (!flows[i].right)
            fail_msg("flow %u of %u streams with %u connections went wrong", i, count, k);
    }
    for (unsigned i = 0; i < count; i++) {
        close(here[i]);
        close(there[i]);
    }
    close(listening);
}

static void bytes_arrive(void **state)
{
    static const struct {
        bool plaintext;
        unsigned streams, connections;
    } rows[] = {{false, 1, 1}, {true, 1, 1}, {false, 3, 1}, {false, 1, 4}, {true, 2, 3}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct tunnel_pair pair;

        tunnel_pair_start(&pair, rows[i].plaintext);
        run_flows(&pair, rows[i].streams, rows[i].connections, 4000000);
        tunnel_pair_end(&pair);
    }
}

static void shown(struct tunnel_side *side, const char *name, const char *words)
{
    char answer[1024] = "";

    for (int i = 0; i < 6000 && strstr(answer, words) == NULL; i++) {
        usleep(10000);
        tunnel_ask(side, answer, sizeof(answer), "show %s", name);
    }
    if (strstr(answer, words) == NULL)
        fail_msg("'%s' lacks '%s'", answer, words);
}

/* A peer that ends without a word: both sides close at once, and a new stream is a reconnect. */
static void a_daemon_that_ends(void **state)
{
    struct tunnel_pair pair;
    char name[33], where[32], byte;
    int listening, here, there;

    (void)state;
    tunnel_pair_prepare(&pair, false);
    snprintf(where, sizeof(where), "127.0.0.1:%u", tunnel_quiet_port());
    pair.b.listen[0] = where;
    tunnel_side_start(&pair.a);
    tunnel_side_start(&pair.b);
    tunnel_open(&pair, name, 1);
    listening = tunnel_listen(&pair.b, name);
    here = tunnel_connect(&pair.a, name);
    there = tunnel_accept(listening);
    assert_int_equal(send(here, "1", 1, 0), 1);
    assert_int_equal(recv(there, &byte, 1, 0), 1);
    pcmig_tunnel_free(pair.b.tunnel);
    assert_int_equal(recv(here, &byte, 1, 0), 0);
    assert_int_equal(recv(there, &byte, 1, 0), 0);
    shown(&pair.a, name, "lost=1");
    close(here);
    close(there);
    tunnel_side_start(&pair.b); /* at the same port, as a daemon that was restarted */
    here = tunnel_connect(&pair.a, name);
    there = tunnel_accept(listening);
    assert_int_equal(send(there, "2", 1, 0), 1);
    assert_int_equal(recv(here, &byte, 1, 0), 1);
    shown(&pair.a, name, "reconnects=1");
    close(here);
    close(there);
    close(listening);
    tunnel_pair_end(&pair);
}

/* Requests, new streams, closes and reloads from several threads, while streams run. */
static void *busybody(void *arg)
{
    struct tunnel_pair *pair = arg;
    char answer[1024], error[PCMIG_TUNNEL_ERROR_BYTES], name[33];

    for (int i = 0; i < 10; i++) {
        int listening, here, there;

        tunnel_open(pair, name, 1 + (unsigned)i % 3);
        listening = tunnel_listen(&pair->b, name);
        here = tunnel_connect(&pair->a, name);
        there = tunnel_accept(listening);
        (void)pcmig_tunnel_reload(pair->b.tunnel, &pair->b.config, error);
        (void)send(here, "some", 4, MSG_NOSIGNAL);
        tunnel_ask(&pair->a, answer, sizeof(answer), "show %s", name);
        tunnel_ask(&pair->a, answer, sizeof(answer), "list");
        tunnel_ask(i % 2 ? &pair->a : &pair->b, answer, sizeof(answer), "close %s", name);
        close(here);
        close(there);
        close(listening);
    }
    return NULL;
}

static void much_at_once(void **state)
{
    struct tunnel_pair pair;
    pthread_t threads[3];

    (void)state;
    tunnel_pair_start(&pair, false);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, busybody, &pair), 0);
    run_flows(&pair, 2, 2, 3000000);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    tunnel_pair_end(&pair);
}

static void let_pass(int64_t us)
{
    const int64_t until_us = pcmig_clock_us() + us;

    while (pcmig_clock_us() < until_us)
        usleep(10000);
}

/* Silence of QEMUs is no silence of peers, who speak in time. */
static void an_idle_stream_is_alive(void **state)
{
    struct tunnel_pair pair;
    char name[33], byte = 0;
    int listening, here, there;

    (void)state;
    tunnel_pair_prepare(&pair, false);
    pair.a.config.dead_after_ms = pair.b.config.dead_after_ms = 2000;
    tunnel_side_start(&pair.a);
    tunnel_side_start(&pair.b);
    tunnel_open(&pair, name, 1);
    listening = tunnel_listen(&pair.b, name);
    here = tunnel_connect(&pair.a, name);
    there = tunnel_accept(listening);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(send(here, "x", 1, 0), 1);
        assert_int_equal(recv(there, &byte, 1, 0), 1);
        let_pass(5000000);
    }
    shown(&pair.a, name, "lost=0");
    close(here);
    close(there);
    close(listening);
    tunnel_pair_end(&pair);
}

/* Whoever does not read for longer than dead_after_ms is slow, not dead: the daemon answers for it. */
static void a_slow_reader_is_alive(void **state)
{
    struct tunnel_pair pair;
    struct flow in = {.bytes = 6000000, .chunk = 65536}, out = {.bytes = 6000000, .chunk = 65536};
    char name[33];
    int listening;

    (void)state;
    tunnel_pair_prepare(&pair, false);
    pair.a.config.dead_after_ms = pair.b.config.dead_after_ms = 2000;
    tunnel_side_start(&pair.a);
    tunnel_side_start(&pair.b);
    tunnel_open(&pair, name, 2);
    listening = tunnel_listen(&pair.b, name);
    out.fd = tunnel_connect(&pair.a, name);
    in.fd = tunnel_accept(listening);
    assert_int_equal(pthread_create(&out.thread, NULL, write_all, &out), 0);
    let_pass(5000000);
    assert_int_equal(pthread_create(&in.thread, NULL, read_all, &in), 0);
    assert_int_equal(pthread_join(out.thread, NULL), 0);
    assert_int_equal(pthread_join(in.thread, NULL), 0);
    if (!in.right || !out.right)
        tunnel_logged(&pair.a, "that all went well"); /* fails, and shows what the source said */
    close(in.fd);
    close(out.fd);
    close(listening);
    tunnel_pair_end(&pair);
}

/* And has the last bytes, though whoever sent them has ended long before, and has nothing more to wait for. */
static void a_slow_reader_has_all(void **state)
{
    enum { BYTES = 600000, READ = 12000 };
    static uint8_t bytes[READ], expected[READ];
    struct flow out = {.bytes = BYTES, .chunk = 65536};
    struct tunnel_pair pair;
    char name[33];
    int listening, there;
    size_t at = 0;
    ssize_t n;

    (void)state;
    tunnel_pair_prepare(&pair, false);
    pair.a.config.leave_ms = pair.b.config.leave_ms = 1000;
    pair.a.config.dead_after_ms = pair.b.config.dead_after_ms = 1000;
    tunnel_side_start(&pair.a);
    tunnel_side_start(&pair.b);
    tunnel_open(&pair, name, 1);
    listening = tunnel_listen(&pair.b, name);
    out.fd = tunnel_connect(&pair.a, name);
    there = tunnel_accept(listening);
    assert_return_code(shutdown(there, SHUT_WR), errno);
    assert_int_equal(pthread_create(&out.thread, NULL, write_all, &out), 0);
    while ((n = recv(there, bytes, sizeof(bytes), 0)) > 0) {
        fill(expected, (size_t)n, at);
        assert_memory_equal(bytes, expected, (size_t)n);
        at += (size_t)n;
        let_pass(60000);
    }
    assert_int_equal(pthread_join(out.thread, NULL), 0);
    assert_true(out.right);
    assert_int_equal(at, BYTES);
    shown(&pair.b, name, "lost=0");
    close(there);
    close(out.fd);
    close(listening);
    tunnel_pair_end(&pair);
}

static int open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = -3; /* ".", "..", and the folder's own */

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* Whoever comes meanwhile has to wait, and not for somebody else to come later. */
static void no_descriptor_is_left(void **state)
{
    enum { MOST = 256 };
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct rlimit before, less;
    struct tunnel_pair pair;
    char name[33], byte = 0, answer[64] = "";
    int listening, here, asking, there, fillers[MOST], count = 0, daemons, now;

    (void)state;
    tunnel_pair_start(&pair, false);
    daemons = open_descriptors();
    tunnel_open(&pair, name, 1);
    listening = tunnel_listen(&pair.b, name);
    here = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    asking = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(here >= 0 && asking >= 0);
    /* What was asked is closed by the daemons some time after the answer: it must not leave room later. Left are these
     * three, and the name's socket. */
    for (int waited_ms = 0; (now = open_descriptors()) > daemons + 4 && waited_ms < 60000; waited_ms++)
        usleep(1000);
    assert_true(now <= daemons + 4);
    assert_return_code(getrlimit(RLIMIT_NOFILE, &before), errno);
    less = (struct rlimit){.rlim_cur = MOST, .rlim_max = before.rlim_max};
    assert_return_code(setrlimit(RLIMIT_NOFILE, &less), errno);
    while (count < MOST && (fillers[count] = dup(here)) >= 0)
        count++;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", pair.a.run_dir, name);
    assert_return_code(connect(here, (struct sockaddr *)&address, sizeof(address)), errno);
    tunnel_logged(&pair.a, "cannot begin: Too many open files");
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", pair.a.control);
    assert_return_code(connect(asking, (struct sockaddr *)&address, sizeof(address)), errno);
    tunnel_logged(&pair.a, "no connection to the control socket can be accepted: Too many open files");
    while (count > 0)
        close(fillers[--count]);
    assert_return_code(setrlimit(RLIMIT_NOFILE, &before), errno);
    there = tunnel_accept(listening);
    assert_int_equal(send(here, "x", 1, 0), 1);
    assert_int_equal(recv(there, &byte, 1, 0), 1);
    assert_int_equal(send(asking, "list\n", 5, 0), 5);
    assert_true(recv(asking, answer, sizeof(answer) - 1, 0) > 0);
    assert_memory_equal(answer, "ok", 2);
    close(asking);
    close(here);
    close(there);
    close(listening);
    tunnel_pair_end(&pair);
}

static int ask_control(const struct tunnel_side *side)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", side->control);
    assert_return_code(connect(fd, (struct sockaddr *)&address, sizeof(address)), errno);
    return fd;
}

static void expect_answer(int fd)
{
    char answer[1024];

    assert_int_equal(send(fd, "list\n", 5, MSG_NOSIGNAL), 5);
    assert_true(recv(fd, answer, sizeof(answer), 0) > 2);
    assert_memory_equal(answer, "ok", 2);
}

/* COUNT of them, all of which are known to be accepted. */
static void ask_often(const struct tunnel_side *side, int clients[], int count)
{
    for (int i = 0; i < count; i++)
        clients[i] = ask_control(side);
    for (int i = 0; i < count; i++)
        expect_answer(clients[i]);
}

static void close_all(const int clients[], int count)
{
    for (int i = 0; i < count; i++)
        close(clients[i]);
}

static bool was_thrown_out(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

/* A socket of TCP that listens at PORT, which was 0. */
static int listen_quietly(unsigned *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_return_code(bind(fd, (struct sockaddr *)&address, len), errno);
    assert_return_code(listen(fd, 4), errno);
    assert_return_code(getsockname(fd, (struct sockaddr *)&address, &len), errno);
    *port = ntohs(address.sin_port);
    return fd;
}

/* "open NAME" to who listens quietly, which is not answered yet; PEER is the daemon's connection to there. */
static int ask_to_open(struct tunnel_side *side, const char *name, int *peer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unsigned port;
    const int quiet = listen_quietly(&port);
    char line[128];

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", side->control);
    assert_return_code(connect(fd, (struct sockaddr *)&address, sizeof(address)), errno);
    snprintf(line, sizeof(line), "open %s localhost %u\n", name, port);
    assert_int_equal(send(fd, line, strlen(line), 0), strlen(line));
    *peer = accept(quiet, NULL, NULL);
    assert_return_code(*peer, errno);
    close(quiet);
    return fd;
}

static void is_answered(int fd, const char *beginning)
{
    char answer[256] = "";

    assert_true(recv(fd, answer, sizeof(answer) - 1, 0) > 0);
    assert_memory_equal(answer, beginning, strlen(beginning));
    close(fd);
}

/* Who connects and asks for nothing locks nobody out: whoever has been idle for longest makes room. */
static void idle_clients_make_room(void **state)
{
    enum { MOST = 64, MORE = 3 };
    struct tunnel_pair pair;
    int clients[MOST], later[MORE];

    (void)state;
    tunnel_pair_start(&pair, false);
    ask_often(&pair.a, clients, MOST);
    let_pass(1100000);
    expect_answer(clients[0]);
    for (int i = 0; i < MORE; i++) {
        later[i] = ask_control(&pair.a);
        expect_answer(later[i]);
        assert_true(was_thrown_out(clients[i + 1]));
    }
    expect_answer(clients[0]);
    expect_answer(clients[MOST - 1]);
    tunnel_logged(&pair.a, "closed a connection to the control socket that asked for nothing");
    close_all(clients, MOST);
    close_all(later, MORE);
    tunnel_pair_end(&pair);
}

/* Whoever waits for a peer that takes its time is not idle, and what somebody opened stays when its connection goes. */
static void who_waits_is_not_idle(void **state)
{
    enum { MOST = 64 };
    struct tunnel_pair pair;
    char name[33], kept[33] = "00000000000000000000000000000001", line[128], byte = 0;
    int clients[MOST], listening, here, there, peer, later;

    (void)state;
    tunnel_pair_prepare(&pair, false);
    pair.a.config.dial_ms = 1;
    pair.a.config.handshake_ms = 600000;
    tunnel_side_start(&pair.a);
    tunnel_side_start(&pair.b);
    clients[0] = ask_to_open(&pair.a, kept, &peer); /* oldest of all, and not answered */
    clients[1] = ask_control(&pair.a);              /* opens, and has its answer */
    snprintf(name, sizeof(name), "%s", "00000000000000000000000000000002");
    snprintf(line, sizeof(line), "open %s localhost %u\n", name, pair.b.port);
    assert_int_equal(send(clients[1], line, strlen(line), MSG_NOSIGNAL), strlen(line));
    assert_true(recv(clients[1], line, sizeof(line), 0) > 3);
    assert_memory_equal(line, "ok ", 3);
    listening = tunnel_listen(&pair.b, name);
    here = tunnel_connect(&pair.a, name);
    there = tunnel_accept(listening);
    ask_often(&pair.a, clients + 2, MOST - 2);
    let_pass(1100000);
    later = ask_control(&pair.a);
    expect_answer(later);
    assert_true(was_thrown_out(clients[1]));
    assert_false(was_thrown_out(clients[0]));
    assert_int_equal(send(here, "x", 1, MSG_NOSIGNAL), 1);
    assert_int_equal(recv(there, &byte, 1, 0), 1);
    shown(&pair.a, name, "role=source");
    close(peer);
    is_answered(clients[0], "error localhost:");
    close_all(clients + 1, MOST - 1);
    close(later);
    close(here);
    close(there);
    close(listening);
    tunnel_pair_end(&pair);
}

/* The socket's group has 56 places, so that root and the daemon's user find one; and where it has fewer, an idle one of
 * theirs makes room for it. */
static void a_group_locks_nobody_out(void **state)
{
    enum { MOST = 64, OTHERS = 56 };
    struct tunnel_pair pair;
    int others[OTHERS], own[MOST], later[3];

    (void)state;
    tunnel_pair_prepare(&pair, false);
    pair.a.config.control_gid = getgid();
    tunnel_side_start(&pair.a);
    tunnel_side_start(&pair.b);
    atomic_store(&asks_as_other, true);
    ask_often(&pair.a, others, OTHERS);
    later[0] = ask_control(&pair.a); /* its own have asked just now */
    tunnel_logged(&pair.a, "refused a connection to the control socket: there are too many");
    assert_int_equal(recv(later[0], &(char){0}, 1, 0), 0);
    close(later[0]);
    atomic_store(&asks_as_other, false);
    ask_often(&pair.a, own, MOST - OTHERS);
    close_all(others, OTHERS);
    close_all(own, MOST - OTHERS);
    /* Once those are gone, that is: the daemon sees them go before whoever comes later. */
    ask_often(&pair.a, own, MOST);
    let_pass(1100000);
    atomic_store(&asks_as_other, true);
    for (int i = 0; i < 3; i++) {
        later[i] = ask_control(&pair.a);
        expect_answer(later[i]);
        assert_true(was_thrown_out(own[i]));
    }
    atomic_store(&asks_as_other, false);
    close_all(own, MOST);
    close_all(later, 3);
    tunnel_pair_end(&pair);
}

/* What ONE says to OTHER, and the other way round, until there is something at UNTIL. */
static void pass_on(int one, int other, int until)
{
    struct pollfd looks[] = {
        {.fd = one, .events = POLLIN}, {.fd = other, .events = POLLIN}, {.fd = until, .events = POLLIN}};
    uint8_t bytes[4096];

    while (poll(looks, 3, -1) > 0 && looks[2].revents == 0) {
        for (size_t i = 0; i < 2; i++) {
            const ssize_t n = looks[i].revents != 0 ? recv(looks[i].fd, bytes, sizeof(bytes), 0) : 0;

            if (n > 0)
                assert_int_equal(send(i == 0 ? other : one, bytes, (size_t)n, MSG_NOSIGNAL), n);
            else if (looks[i].revents != 0)
                looks[i].fd = -1;
        }
    }
}

/* Whoever opened it first is told what became of that, and does not close what another has opened since. */
static void closed_while_the_peer_is_asked(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct tunnel_pair pair;
    char name[33], answer[1024];
    int asking, peer, other, later, third = -1;

    (void)state;
    tunnel_pair_prepare(&pair, false);
    pair.a.config.dial_ms = 1;
    tunnel_side_start(&pair.a);
    tunnel_side_start(&pair.b);
    /* Whoever has opened it since is not answered yet either, and another peer is asked for it. */
    tunnel_open(&pair, name, 1);
    tunnel_ask(&pair.a, answer, sizeof(answer), "close %s", name);
    asking = ask_to_open(&pair.a, name, &peer);
    tunnel_ask(&pair.a, answer, sizeof(answer), "close %s", name);
    assert_string_equal(answer, "ok");
    later = ask_to_open(&pair.a, name, &other);
    close(peer);
    is_answered(asking, "error localhost:");
    tunnel_ask(&pair.a, answer, sizeof(answer), "show %s", name);
    assert_memory_equal(answer, "ok role=source ", 15);
    close(other);
    is_answered(later, "error localhost:");
    tunnel_ask(&pair.a, answer, sizeof(answer), "show %s", name);
    assert_memory_equal(answer, "error unknown name", 18);
    for (int good = 0; good < 3; good++) { /* 2: and the name leads elsewhere since */
        tunnel_open(&pair, name, 1);       /* a new name */
        tunnel_ask(&pair.a, answer, sizeof(answer), "close %s", name);
        assert_string_equal(answer, "ok");
        asking = ask_to_open(&pair.a, name, &peer);
        tunnel_ask(&pair.a, answer, sizeof(answer), "close %s", name);
        assert_string_equal(answer, "ok");
        if (good) {
            address.sin_port = htons((uint16_t)pair.b.port);
            other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            assert_return_code(connect(other, (struct sockaddr *)&address, sizeof(address)), errno);
            later = good == 2 ? ask_to_open(&pair.a, name, &third) : -1;
            pass_on(peer, other, asking);
            snprintf(answer, sizeof(answer), "error %s was closed while its peer was asked\n", name);
            is_answered(asking, answer);
            close(other);
            close(peer);
            if (good == 2) {
                close(third);
                is_answered(later, "error localhost:");
            }
            continue;
        }
        tunnel_ask(&pair.a, answer, sizeof(answer), "open %s localhost %u", name, pair.b.port);
        assert_memory_equal(answer, "ok ", 3);
        close(peer);
        is_answered(asking, "error localhost:");
        tunnel_ask(&pair.a, answer, sizeof(answer), "show %s", name);
        assert_memory_equal(answer, "ok role=source ", 15);
    }
    tunnel_pair_end(&pair);
}

/* Stopped with everything half done. */
static void stopped_in_the_middle(void **state)
{
    struct tunnel_pair pair;
    char name[33];
    int listening, here, there;
    static uint8_t bytes[300000];

    (void)state;
    tunnel_pair_start(&pair, false);
    tunnel_open(&pair, name, 3);
    listening = tunnel_listen(&pair.b, name);
    here = tunnel_connect(&pair.a, name);
    there = tunnel_accept(listening);
    (void)send(here, bytes, sizeof(bytes), MSG_DONTWAIT);
    (void)send(there, bytes, sizeof(bytes), MSG_DONTWAIT);
    close(tunnel_connect(&pair.a, name));
    pcmig_tunnel_stop(pair.a.tunnel, 50);
    tunnel_pair_end(&pair);
    close(here);
    close(there);
    close(listening);
}

/* Kernels before 6.14, and all that is known of OpenSSL, cannot renew a connection's keys there. */
static void nobody_asks_the_kernel_to_encrypt(void **state)
{
    struct tunnel_pair pair;

    (void)state;
    atomic_store(&asked_for_kernel_tls, 0);
    tunnel_pair_start(&pair, false);
    run_flows(&pair, 1, 2, 3000000);
    tunnel_pair_end(&pair);
    assert_int_equal(atomic_load(&asked_for_kernel_tls), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_asks_the_kernel_to_encrypt),
        cmocka_unit_test(bytes_arrive),
        cmocka_unit_test(a_daemon_that_ends),
        cmocka_unit_test(much_at_once),
        cmocka_unit_test(an_idle_stream_is_alive),
        cmocka_unit_test(a_slow_reader_is_alive),
        cmocka_unit_test(a_slow_reader_has_all),
        cmocka_unit_test(no_descriptor_is_left),
        cmocka_unit_test(idle_clients_make_room),
        cmocka_unit_test(who_waits_is_not_idle),
        cmocka_unit_test(a_group_locks_nobody_out),
        cmocka_unit_test(closed_while_the_peer_is_asked),
        cmocka_unit_test(stopped_in_the_middle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
