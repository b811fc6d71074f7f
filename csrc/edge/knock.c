/* SPDX-License-Identifier: Apache-2.0 */
/* See knock.h. */
#include "edge/knock.h"

#include "edge/clock.h"
#include "edge/threads.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* As many as are asked at once; a migration rarely has more. */
#define AT_ONCE     64
#define STACK_BYTES (512 * 1024)

struct pcmig_knocks {
    atomic_uint holders; /* the caller, and the threads that still wait */
    atomic_uint begun;
    atomic_uint_least64_t latest; /* the number of a call, and below it the answers to that one: it only grows */
};

/* One call's attempts. */
struct round {
    struct pcmig_knocks *knocks;
    uint32_t number;
    uint32_t made;
    uint32_t answers;
};

struct pcmig_knocks *pcmig_knocks_open(void)
{
    struct pcmig_knocks *knocks = calloc(1, sizeof(*knocks));

    if (knocks != NULL)
        atomic_init(&knocks->holders, 1);
    return knocks;
}

void pcmig_knocks_close(struct pcmig_knocks *knocks)
{
    if (knocks != NULL && atomic_fetch_sub(&knocks->holders, 1) == 1)
        free(knocks);
}

struct pcmig_knocked pcmig_knocked(const struct pcmig_knocks *knocks)
{
    const uint64_t latest = atomic_load(&knocks->latest);

    return (struct pcmig_knocked){
        .begun = atomic_load(&knocks->begun), .latest = (uint32_t)(latest >> 32), .answers = (uint32_t)latest};
}

/* Unless a later call's is there already: its thread may have been the faster one. */
static void tell(const struct round *round)
{
    const uint64_t now = (uint64_t)round->number << 32 | round->answers;
    uint_least64_t before = atomic_load(&round->knocks->latest);

    while (before < now && !atomic_compare_exchange_weak(&round->knocks->latest, &before, now))
        continue;
}

static socklen_t address(const struct pcmig_socket *socket, bool peer, struct sockaddr_storage *out)
{
    const void *from = peer ? (const void *)socket->id.idiag_dst : (const void *)socket->id.idiag_src;
    uint16_t port = peer ? socket->id.idiag_dport : socket->id.idiag_sport;

    memset(out, 0, sizeof(*out));
    if (socket->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;

        in->sin_family = AF_INET;
        in->sin_port = port;
        memcpy(&in->sin_addr, from, sizeof(in->sin_addr));
        return sizeof(*in);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

        in6->sin6_family = AF_INET6;
        in6->sin6_port = port;
        in6->sin6_scope_id = socket->id.idiag_if;
        memcpy(&in6->sin6_addr, from, sizeof(in6->sin6_addr));
        return sizeof(*in6);
    }
}

/* Has the socket ignore a listener's answer (SYN and ACK), so that no connection comes of it: QEMU at the destination
 * listens at its port for as long as the migration lasts, takes any connection there for the resumed stream, and a
 * false one spoils the true one. The filter sees segments from their TCP header on (Linux, net/ipv4/tcp_ipv4.c,
 * tcp_v4_rcv). */
static int refuse_to_connect(int fd)
{
    enum { TCP_FLAGS_AT = 13, TCP_SYN = 0x02 };
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS_AT),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, TCP_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    const struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

/* Takes the old connection's port, which the kernel may have given to one to somewhere else meanwhile: only a socket
 * that is under repair may share it with that one (Linux, net/ipv4/tcp.c, tcp_setsockopt: SK_FORCE_REUSE). That needs
 * CAP_NET_ADMIN; without it a shared port cannot be had. */
static int take_port(int fd, const struct sockaddr_storage *local, socklen_t size)
{
    int on = 1, off = TCP_REPAIR_OFF_NO_WP, status;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        return -1;
    if (bind(fd, (const struct sockaddr *)local, size) == 0)
        return 0;
    if (errno != EADDRINUSE || setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
        return -1;
    status = bind(fd, (const struct sockaddr *)local, size);
    /* A socket under repair would be connected without a word to the other end. */
    return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) < 0 ? -1 : status;
}

/* Returns a descriptor to wait for, or -1 when there is nothing to wait for. */
static int begin(struct round *round, const struct pcmig_socket *old)
{
    struct sockaddr_storage local, peer;
    socklen_t local_size = address(old, false, &local), peer_size = address(old, true, &peer);
    int fd = socket(old->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    if (refuse_to_connect(fd) == 0 && take_port(fd, &local, local_size) == 0) {
        round->made++; /* also where there is no way there: it says as much */
        if (connect(fd, (struct sockaddr *)&peer, peer_size) < 0 && errno == EINPROGRESS)
            return fd;
    }
    close(fd);
    return -1;
}

/* What the other end says of the old connection, or that it has none, comes in as a segment (Linux 4.2); a listener's
 * answer is dropped by the filter (4.12). The kernel counts both. */
static bool has_answered(int fd)
{
    struct tcp_info info = {0};
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t info_size = sizeof(info), memory_size = sizeof(memory);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_size) == 0 && info.tcpi_segs_in > 0)
        return true;
    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &memory_size) == 0 && memory[SK_MEMINFO_DROPS] > 0;
}

static void finish(struct round *round, int fd)
{
    const bool answered = has_answered(fd);

    close(fd); /* first: who hears of the answer may try again, and would not get the port */
    if (!answered)
        return;
    round->answers++;
    tell(round);
}

/* Whatever comes of an attempt, the other end has answered by then, or cannot be reached. */
static void wait_for_all(struct round *round, struct pollfd *waits, size_t count, int wait_ms)
{
    int64_t until_us = pcmig_clock_us() + (int64_t)wait_ms * 1000;
    size_t open = count;

    while (open > 0) {
        int64_t left_ms = (until_us - pcmig_clock_us() + 999) / 1000;
        int ready = left_ms > 0 ? poll(waits, count, (int)left_ms) : 0;

        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return;
        for (size_t i = 0; i < count; i++) {
            if (waits[i].fd < 0 || waits[i].revents == 0)
                continue;
            finish(round, waits[i].fd);
            waits[i].fd = -1; /* which poll passes over */
            open--;
        }
    }
}

static void knock(struct round *round, const struct pcmig_socket *sockets, size_t count, int wait_ms)
{
    struct pollfd waits[AT_ONCE];
    size_t open = 0;

    for (size_t i = 0; i < count && open < AT_ONCE; i++) {
        int fd = begin(round, &sockets[i]);

        if (fd >= 0)
            waits[open++] = (struct pollfd){.fd = fd, .events = POLLOUT};
    }
    wait_for_all(round, waits, open, wait_ms);
    for (size_t i = 0; i < open; i++) {
        if (waits[i].fd >= 0)
            finish(round, waits[i].fd);
    }
    if (round->made > 0)
        tell(round);
}

struct job {
    struct round round;
    int wait_ms;
    size_t count;
    struct pcmig_socket sockets[];
};

static void *job_main(void *arg)
{
    struct job *job = arg;

    knock(&job->round, job->sockets, job->count, job->wait_ms);
    pcmig_knocks_close(job->round.knocks);
    free(job);
    return NULL;
}

void pcmig_knock(struct pcmig_knocks *knocks, const struct pcmig_socket *sockets, size_t count, int wait_ms)
{
    struct round round = {.knocks = knocks};
    struct job *job;

    if (count == 0)
        return;
    round.number = (uint32_t)atomic_fetch_add(&knocks->begun, 1) + 1;
    job = calloc(1, sizeof(*job) + count * sizeof(*sockets));
    if (job != NULL) {
        atomic_fetch_add(&knocks->holders, 1);
        job->round = round;
        job->wait_ms = wait_ms;
        job->count = count;
        memcpy(job->sockets, sockets, count * sizeof(*sockets));
        if (pcmig_thread_begin(STACK_BYTES, job_main, job) == 0)
            return;
        pcmig_knocks_close(knocks); /* the thread's */
        free(job);
    }
    knock(&round, sockets, count, wait_ms);
}
