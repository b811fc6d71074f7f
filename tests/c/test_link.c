/* SPDX-License-Identifier: Apache-2.0 */
/* edge/link on real sockets: whose they are, what waits, silence, and waking an end that has not noticed. Loopback;
 * ports of libvirt's default range where no QEMU of this UUID runs. Where one does, it is this program, run again
 * under such a name and with such sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "edge/arrival.h"
#include "edge/link.h"

#define FIRST_PORT 49152
#define LAST_PORT  49215
#define ANY_PORT   1

#define PATIENCE_MS 60000 /* on a machine that may be very busy */

/* Of this run alone: another one may go on beside it, and QEMU's are told apart by it. */
static char uuid[37];

struct pair {
    int source;      /* connected to ... */
    int destination; /* ... this one */
};

static void close_pair(const struct pair *pair)
{
    close(pair->source);
    close(pair->destination);
}

/* Those of its migrations are among the ports that the kernel takes by itself. */
static bool is_libvirts(uint16_t port)
{
    return port >= FIRST_PORT && port <= LAST_PORT;
}

/* At 127.0.0.HOST. */
static int listen_at(uint8_t host, uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000U + host)};
    socklen_t size = sizeof(address);

    assert_true(fd >= 0);
    if (*port == ANY_PORT) { /* none of libvirt's */
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 1), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
        if (is_libvirts(ntohs(address.sin_port))) {
            int another = listen_at(host, port);

            close(fd);
            return another;
        }
        *port = ntohs(address.sin_port);
        return fd;
    }
    for (uint16_t p = LAST_PORT; p >= FIRST_PORT; p--) {
        address.sin_port = htons(p);
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0) {
            *port = p;
            return fd;
        }
    }
    fail_msg("no free port from %d to %d", FIRST_PORT, LAST_PORT);
    return -1;
}

static int listen_somewhere(uint16_t *port)
{
    *port = 0;
    return listen_at(1, port);
}

static struct pair connect_pair_to(int listener, uint16_t port)
{
    struct pair pair;
    struct sockaddr_in address;
    socklen_t size = sizeof(address);

    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(ntohs(address.sin_port), port);
    pair.source = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(pair.source >= 0);
    assert_int_equal(connect(pair.source, (struct sockaddr *)&address, sizeof(address)), 0);
    pair.destination = accept(listener, NULL, NULL);
    assert_true(pair.destination >= 0);
    size = sizeof(address);
    assert_int_equal(getsockname(pair.source, (struct sockaddr *)&address, &size), 0);
    if (is_libvirts(ntohs(address.sin_port))) { /* the destination's end would look like a source's */
        struct pair another = connect_pair_to(listener, port);

        close_pair(&pair);
        return another;
    }
    return pair;
}

static struct pair connect_to(uint8_t host, uint16_t port)
{
    int listener = listen_at(host, &port);
    struct pair pair = connect_pair_to(listener, port);

    close(listener);
    return pair;
}

static struct pair connect_pair(void)
{
    return connect_to(1, 0);
}

static void sleep_ms(int ms)
{
    struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    while (nanosleep(&wait, &wait) < 0)
        continue;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct pcmig_link *open_link(bool adopted)
{
    return pcmig_link_open(&(struct pcmig_link_args){.uuid = uuid, .adopted = adopted, .at_source = true});
}

/* One that knows the connections that there are. */
static struct pcmig_link *open_and_look(void)
{
    struct pcmig_link *link = open_link(true);

    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    return link;
}

static void what_waits(void **state)
{
    struct pair pair = connect_pair();
    struct pcmig_link *link = open_link(true);
    struct sockaddr_storage peer;
    char bytes[65536] = {0};

    (void)state;
    assert_non_null(link);
    assert_false(pcmig_link_peer(link, &peer));
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_true(pcmig_link_peer(link, &peer));
    assert_int_equal(((struct sockaddr_in *)&peer)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_in_range(pcmig_link_round_trip_us(link), 1, 999999);
    /* Until the other side's buffer is full too, as nobody reads there. */
    while (send(pair.source, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        continue;
    assert_int_equal(errno, EAGAIN);
    assert_true(pcmig_link_queue_bytes(link) > 0);
    /* The window is full, which its kernel acknowledges: that is no silence. */
    assert_true(pcmig_link_silence_ms(link) < 1000);
    close(pair.source);
    close(pair.destination);
    pcmig_link_close(link);
}

static void nothing_to_see(void **state)
{
    struct pcmig_link *link = open_link(true);

    (void)state;
    assert_non_null(link);
    assert_int_equal(pcmig_link_round_trip_us(link), -1);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    assert_int_equal(pcmig_link_silence_ms(link), -1);
    assert_int_equal(pcmig_link_wake(link, 100), 0);
    pcmig_link_close(link);
}

/* --- whose connections they are ----------------------------------------------------------------------------------- */

/* Its segments are lost from now on: the filter lets none in. */
static void make_deaf(int fd)
{
    struct sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    const struct sock_fprog program = {.len = 1, .filter = drop};

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
}

static void send_byte(int fd)
{
    assert_int_equal(send(fd, "x", 1, 0), 1);
}

/* What waits in FD has been acknowledged, which may take the other end's kernel a moment. */
static void wait_for_acknowledgement(int fd)
{
    int left = 1;

    for (int waited_ms = 0; left > 0 && waited_ms < PATIENCE_MS; waited_ms++) {
        sleep_ms(1);
        assert_int_equal(ioctl(fd, SIOCOUTQ, &left), 0);
    }
    assert_int_equal(left, 0);
}

static void send_and_receive(const struct pair *pair)
{
    char byte;

    send_byte(pair->source);
    assert_int_equal(recv(pair->destination, &byte, 1, 0), 1);
    wait_for_acknowledgement(pair->source);
}

struct process {
    pid_t pid;
    int control;
};

/* A QEMU of this UUID that holds each of COUNT descriptors, as its parent does. Nobody but root may see which. */
static struct process start_qemu(const int *fds, size_t count)
{
    struct process qemu;
    int ready[2];
    char byte;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    qemu.pid = fork();
    assert_true(qemu.pid >= 0);
    if (qemu.pid == 0) {
        char fd[16];

        snprintf(fd, sizeof(fd), "%d", fcntl(ready[1], F_DUPFD, 3));
        for (size_t i = 0; i < count; i++) {
            if (fcntl(fds[i], F_SETFD, 0) < 0)
                _exit(1);
        }
        execl("/proc/self/exe", "qemu-system-x86_64", "-uuid", uuid, fd, (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return qemu;
}

static int be_qemu(const char *ready)
{
    if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || write(atoi(ready), "x", 1) != 1)
        return 1;
    for (;;)
        pause();
}

static void stop(const struct process *process)
{
    assert_int_equal(kill(process->pid, SIGKILL), 0);
    assert_int_equal(waitpid(process->pid, NULL, 0), process->pid);
}

static struct process start_qemu_of_pairs(const struct pair *pairs, size_t count)
{
    int fds[16];

    assert_true(count <= sizeof(fds) / sizeof(fds[0]));
    for (size_t i = 0; i < count; i++)
        fds[i] = pairs[i].source;
    return start_qemu(fds, count);
}

static void assert_peer(const struct pcmig_link *link, uint8_t host)
{
    struct sockaddr_storage peer;

    assert_true(pcmig_link_peer(link, &peer));
    assert_int_equal(ntohl(((struct sockaddr_in *)&peer)->sin_addr.s_addr), 0x7f000000U + host);
}

/* Who may read nothing of QEMU: a second process without rights, which answers questions. */
static int be_nobody(int control)
{
    struct pcmig_link *link = NULL;
    char question;
    int64_t reply = 0;

    if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
        return 1;
    while (read(control, &question, 1) == 1) {
        if (question == 'b' || question == 'a') /* before the call; adopted */
            link = open_link(question == 'a');
        else if (question == 'q')
            reply = pcmig_link_queue_bytes(link);
        else
            reply = pcmig_link_silence_ms(link);
        if (write(control, &reply, sizeof(reply)) != sizeof(reply))
            break;
    }
    pcmig_link_close(link);
    return 0;
}

static struct process start_nobody(void)
{
    struct process nobody;
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    nobody.pid = fork();
    assert_true(nobody.pid >= 0);
    if (nobody.pid == 0) {
        /* The test's sockets are not to live on here. */
        if (ends[1] > 3)
            (void)close_range(3, (unsigned)ends[1] - 1, 0);
        (void)close_range((unsigned)ends[1] + 1, ~0U, 0);
        _exit(be_nobody(ends[1]));
    }
    close(ends[1]);
    nobody.control = ends[0];
    return nobody;
}

static int64_t ask(const struct process *nobody, char question)
{
    int64_t reply;

    assert_int_equal(write(nobody->control, &question, 1), 1);
    assert_int_equal(read(nobody->control, &reply, sizeof(reply)), sizeof(reply));
    return reply;
}

static void end_nobody(const struct process *nobody)
{
    int status;

    close(nobody->control);
    assert_int_equal(waitpid(nobody->pid, &status, 0), nobody->pid);
    assert_int_equal(status, 0);
}

/* A viewer that was there before the call, and one that came later: their laptops are closed. */
static void a_deaf_viewer_is_not_the_migration(void **state)
{
    uint16_t port = ANY_PORT;
    int vnc = listen_at(1, &port), first_viewer, second_viewer, held[4];
    struct pair first = connect_pair_to(vnc, port), second = connect_pair_to(vnc, port), stream = connect_to(2, 0);
    struct process qemu;
    struct pcmig_link *link;

    (void)state;
    held[0] = vnc;
    held[1] = first_viewer = first.destination; /* which QEMU has accepted */
    held[2] = second_viewer = second.destination;
    held[3] = stream.source;
    qemu = start_qemu(held, 4);
    link = open_link(true); /* so that the first tells no baseline */
    assert_non_null(link);
    make_deaf(first.source);
    make_deaf(second.source);
    send_byte(first_viewer);
    send_byte(second_viewer);
    for (int look = 0; look < 4; look++) {
        send_and_receive(&stream);
        assert_int_equal(pcmig_link_queue_bytes(link), 0);
        assert_int_equal(pcmig_link_silence_ms(link), 0);
        assert_peer(link, 2);
        sleep_ms(400);
    }
    pcmig_link_close(link);
    stop(&qemu);
    close_pair(&first);
    close_pair(&second);
    close_pair(&stream);
    close(vnc);
}

/* A disk's server, connected to before the call and, as it lost a connection, after it. */
static void a_network_disk_is_not_the_migration(void **state)
{
    struct pair pairs[] = {connect_to(3, ANY_PORT), connect_to(4, ANY_PORT), connect_to(2, 0)};
    struct process qemu = start_qemu_of_pairs(pairs, 1);
    struct pcmig_link *link = open_link(false);

    (void)state;
    assert_non_null(link);
    stop(&qemu);
    qemu = start_qemu_of_pairs(pairs, 3);
    pcmig_link_close(link);
    link = open_link(true);
    make_deaf(pairs[0].destination);
    make_deaf(pairs[1].destination);
    send_byte(pairs[0].source);
    send_byte(pairs[1].source);
    send_and_receive(&pairs[2]);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_peer(link, 2);
    make_deaf(pairs[2].destination);
    send_byte(pairs[2].source);
    assert_int_equal(pcmig_link_queue_bytes(link), 1);
    pcmig_link_close(link);
    stop(&qemu);
    for (size_t i = 0; i < 3; i++)
        close_pair(&pairs[i]);
}

/* At ports that no rule knows, to two places: neither is taken. What was there before the call is not. */
static void what_is_unclear_is_unknown(void **state)
{
    struct pair pairs[] = {connect_to(3, ANY_PORT), connect_to(2, ANY_PORT)};
    struct process qemu = start_qemu_of_pairs(pairs, 2);
    struct pcmig_link *link = open_link(true);

    (void)state;
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    assert_int_equal(pcmig_link_silence_ms(link), -1);
    pcmig_link_close(link);
    link = pcmig_link_open(
        &(struct pcmig_link_args){.uuid = uuid, .adopted = true, .at_source = true, .migrate_uri = "tcp:127.0.0.2"});
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_peer(link, 2);
    pcmig_link_close(link);
    link = open_link(false);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    pcmig_link_close(link);
    stop(&qemu);
    close_pair(&pairs[0]);
    close_pair(&pairs[1]);
}

/* A big Ceph: the migration's socket is the newest of hundreds. */
static void the_newest_of_many_sockets(void **state)
{
    enum { SOCKETS = 700 };
    struct rlimit limit;
    int held[SOCKETS + 1];
    struct pair stream;
    struct process qemu;
    struct pcmig_link *link;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < SOCKETS + 100)
        limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (size_t i = 0; i < SOCKETS; i++) {
        held[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(held[i] >= 0);
    }
    stream = connect_to(2, 0);
    held[SOCKETS] = stream.source;
    qemu = start_qemu(held, SOCKETS + 1);
    link = open_link(true);
    assert_non_null(link);
    send_and_receive(&stream);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_peer(link, 2);
    pcmig_link_close(link);
    stop(&qemu);
    for (size_t i = 0; i < SOCKETS; i++)
        close(held[i]);
    close_pair(&stream);
}

/* The channel of page requests: nothing for a while, then a page. It is silent when nothing comes back, and only from
 * then on. */
static void an_idle_channel_is_not_silent(void **state)
{
    struct pair pair = connect_pair();
    struct pcmig_link *link = open_link(true);
    int64_t silence_ms, before_ms, well_ms, second_ms;

    (void)state;
    assert_non_null(link);
    send_and_receive(&pair);
    sleep_ms(1500);
    well_ms = now_ms();
    assert_int_equal(pcmig_link_silence_ms(link), 0);
    make_deaf(pair.destination);
    send_byte(pair.source);
    /* Its acknowledgement may be under way, and this process may have waited for a CPU. */
    silence_ms = pcmig_link_silence_ms(link);
    assert_in_range(silence_ms, 0, now_ms() - well_ms);
    second_ms = now_ms();
    for (int look = 0; look < 2; look++) {
        sleep_ms(700);
        before_ms = now_ms();
        silence_ms = pcmig_link_silence_ms(link);
        /* From the last look that found it well, which was one of the first two. */
        assert_in_range(silence_ms, before_ms - second_ms - 50, now_ms() - well_ms + 50);
    }
    close_pair(&pair);
    pcmig_link_close(link);
}

/* The destination has no room, says so, and dies: nothing is under way, so TCP does not send it again, it asks for
 * room. */
static void who_asks_for_room_in_vain_is_silent(void **state)
{
    struct pair pair = connect_pair();
    struct pcmig_link *link = open_link(true);
    char bytes[65536] = {0};
    int64_t silence_ms = 0;

    (void)state;
    assert_non_null(link);
    while (send(pair.source, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        continue;
    assert_int_equal(errno, EAGAIN);
    sleep_ms(100);
    assert_int_equal(pcmig_link_silence_ms(link), 0);
    make_deaf(pair.destination);
    for (int look = 0; look < 40 && silence_ms < 500; look++) {
        sleep_ms(200);
        silence_ms = pcmig_link_silence_ms(link);
    }
    assert_true(silence_ms >= 500);
    close_pair(&pair);
    pcmig_link_close(link);
}

/* A caller who may not see whose sockets they are: two guests of this host migrate at once. */
static void of_two_migrations_none_is_guessed(void **state)
{
    struct pair others = connect_to(3, 0), own, later;
    int held[1] = {others.source};
    struct process qemu, nobody = start_nobody();

    (void)state;
    qemu = start_qemu(held, 1);
    ask(&nobody, 'b');
    make_deaf(others.destination);
    send_byte(others.source);
    assert_int_equal(ask(&nobody, 'q'), -1); /* that was there before the call */
    own = connect_to(2, 0);
    sleep_ms(60);
    assert_int_equal(ask(&nobody, 'q'), 0);
    send_byte(own.source); /* which nobody reads: it is acknowledged all the same */
    wait_for_acknowledgement(own.source);
    assert_int_equal(ask(&nobody, 's'), 0);
    /* A third begins, to the same host. This one is known by then. */
    later = connect_to(2, 0);
    make_deaf(later.destination);
    send_byte(later.source);
    sleep_ms(1100);
    assert_int_equal(ask(&nobody, 'q'), 0);
    assert_int_equal(ask(&nobody, 's'), 0);
    end_nobody(&nobody);

    /* Of one that is met on the way, nobody can tell which of the three it is. */
    nobody = start_nobody();
    ask(&nobody, 'a');
    assert_int_equal(ask(&nobody, 'q'), -1);
    assert_int_equal(ask(&nobody, 's'), -1);
    stop(&qemu);
    close_pair(&others);
    close_pair(&later);
    sleep_ms(200);
    assert_int_equal(ask(&nobody, 'q'), 0); /* one is left, and it is one of them */
    end_nobody(&nobody);
    close_pair(&own);
}

/* Moves this process, and so what it makes, into a cgroup. */
static bool enter(const char *cgroup)
{
    char path[256], pid[32];
    int fd, length = snprintf(pid, sizeof(pid), "%d", getpid());
    bool entered;

    snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    entered = write(fd, pid, (size_t)length) == length;
    close(fd);
    return entered;
}

/* Where libvirt gives each guest a cgroup, its own connections are known without any rights. */
static void a_guests_own_cgroup_tells(void **state)
{
    static const char *const roots[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
    const char *root = NULL;
    char scope[200];
    struct pair own, others;
    struct process qemu, nobody;

    (void)state;
    for (size_t i = 0; i < 2 && root == NULL; i++) {
        snprintf(scope, sizeof(scope), "%s/machine-qemu\\x2d1\\x2dpcmig-test-%d.scope", roots[i], getpid());
        if (mkdir(scope, 0755) == 0 && enter(scope))
            root = roots[i];
        else
            (void)rmdir(scope);
    }
    if (root == NULL) {
        print_message("skipped: needs root and cgroup v2 to give a guest a cgroup\n");
        skip();
    }
    own = connect_to(2, 0);
    qemu = start_qemu(&own.source, 1);
    assert_true(enter(root));
    others = connect_to(3, 0);
    make_deaf(others.destination);
    send_byte(others.source);
    nobody = start_nobody();
    ask(&nobody, 'a');
    assert_int_equal(ask(&nobody, 'q'), 0);
    send_byte(own.source);
    wait_for_acknowledgement(own.source);
    assert_int_equal(ask(&nobody, 's'), 0);
    end_nobody(&nobody);
    stop(&qemu);
    close_pair(&own);
    close_pair(&others);
    assert_int_equal(rmdir(scope), 0);
}

/* Somebody migrates a guest of another host from here. */
static void a_guest_of_another_host(void **state)
{
    struct pair pair = connect_pair();
    struct pcmig_link *link = pcmig_link_open(&(struct pcmig_link_args){.uuid = uuid, .adopted = true});

    (void)state;
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    pcmig_link_close(link);
    close_pair(&pair);
}

/* --- waking ------------------------------------------------------------------------------------------------------- */

/* Whether lose() can: not without CAP_NET_ADMIN. */
static bool can_lose(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), repair = 1;
    int status, error;

    assert_true(fd >= 0);
    status = setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &repair, sizeof(repair));
    error = errno;
    close(fd);
    if (status == 0)
        return true;
    assert_int_equal(error, EPERM);
    print_message("skipped: needs CAP_NET_ADMIN to lose a connection without a word\n");
    return false;
}

/* The source's end is gone without a word, as after a cut. */
static void lose(const struct pair *pair)
{
    int repair = 1;

    assert_int_equal(setsockopt(pair->source, IPPROTO_TCP, TCP_REPAIR, &repair, sizeof(repair)), 0);
    close(pair->source); /* in repair mode the kernel says nothing to the other end */
}

static void expect_reset(const struct pair *pair)
{
    struct pollfd wait = {.fd = pair->destination, .events = POLLIN};
    char byte;

    assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
    assert_int_equal(recv(pair->destination, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
}

static void expect_quiet(const struct pair *pair)
{
    struct pollfd wait = {.fd = pair->destination, .events = POLLIN};

    assert_int_equal(poll(&wait, 1, 200), 0);
}

/* So many connections are tried to have the destination notice, for the NUMBERth time, and so many answer. */
static void expect_answers(const struct pcmig_link *link, uint32_t number, uint32_t count)
{
    for (int waited_ms = 0; pcmig_link_woken(link).latest < number && waited_ms < PATIENCE_MS; waited_ms++)
        sleep_ms(1);
    assert_int_equal(pcmig_link_woken(link).latest, number);
    assert_int_equal(pcmig_link_woken(link).answers, count);
}

/* A link that knows PAIR, which can be lost; skips the test where none can. */
static struct pcmig_link *open_with(struct pair *pair)
{
    if (!can_lose())
        skip();
    *pair = connect_pair();
    return open_and_look();
}

/* The destination has nothing to send and would wait for ever. */
static void a_half_open_end_is_reset(void **state)
{
    struct pair pair;
    struct pcmig_link *link = open_with(&pair);

    (void)state;
    lose(&pair);
    expect_quiet(&pair);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    assert_int_equal(pcmig_link_wake(link, 300), 1);
    expect_reset(&pair);
    expect_answers(link, 1, 1);
    /* Nobody has the connection there any more, and it is no secret. */
    assert_int_equal(pcmig_link_wake(link, 300), 1);
    expect_answers(link, 2, 1);
    close(pair.destination);
    pcmig_link_close(link);
}

/* QEMU closes the stream before the channel of page requests, and between the two somebody looks. */
static void the_first_of_two_to_go_is_not_forgotten(void **state)
{
    struct pair main_stream, requests;
    struct pcmig_link *link;
    uint16_t port = 0;
    int listener;

    (void)state;
    if (!can_lose())
        skip();
    listener = listen_somewhere(&port);
    main_stream = connect_pair_to(listener, port);
    requests = connect_pair_to(listener, port);
    close(listener);
    link = open_and_look();
    lose(&main_stream);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    lose(&requests);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    expect_quiet(&main_stream);
    assert_int_equal(pcmig_link_wake(link, 300), 2);
    expect_reset(&main_stream);
    expect_reset(&requests);
    close(main_stream.destination);
    close(requests.destination);
    pcmig_link_close(link);
}

/* The port is free again, and the kernel gave it to a connection to somewhere else. */
static void a_port_that_another_has_by_now(void **state)
{
    uint16_t port = ANY_PORT;
    int elsewhere = listen_at(1, &port);
    struct sockaddr_in local, other = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof(local);
    struct pair pair;
    struct pcmig_link *link = open_with(&pair);
    int heir;

    (void)state;
    assert_int_equal(getsockname(pair.source, (struct sockaddr *)&local, &size), 0);
    lose(&pair);
    heir = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(heir >= 0);
    assert_int_equal(bind(heir, (struct sockaddr *)&local, sizeof(local)), 0);
    other.sin_addr = local.sin_addr;
    assert_int_equal(connect(heir, (struct sockaddr *)&other, sizeof(other)), 0);
    assert_int_equal(pcmig_link_wake(link, 300), 1);
    expect_reset(&pair);
    close(heir);
    close(elsewhere);
    close(pair.destination);
    pcmig_link_close(link);
}

/* The destination has noticed already, and QEMU there still listens: it must not see a connection. */
static void a_listener_at_the_old_port_sees_nothing(void **state)
{
    uint16_t port = 0;
    int listener = listen_somewhere(&port);
    struct pair pair = connect_pair_to(listener, port);
    struct pcmig_link *link = open_link(true);
    struct pollfd wait = {.fd = listener, .events = POLLIN};
    struct linger at_once = {.l_onoff = 1};

    (void)state;
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_int_equal(setsockopt(pair.destination, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    close(pair.destination); /* with a reset, so that nothing of it is left at either end */
    close(pair.source);
    assert_int_equal(pcmig_link_wake(link, 300), 1);
    assert_int_equal(poll(&wait, 1, 1500), 0);
    expect_answers(link, 1, 1);
    close(listener);
    pcmig_link_close(link);
}

static void a_deaf_destination_has_not_answered(void **state)
{
    struct pair pair;
    struct pcmig_link *link = open_with(&pair);

    (void)state;
    make_deaf(pair.destination);
    lose(&pair);
    assert_int_equal(pcmig_link_wake(link, 50), 1);
    expect_answers(link, 1, 0);
    close(pair.destination);
    pcmig_link_close(link);
}

/* A new one where another one was. */
static struct pair connect_again(const struct sockaddr_in *source, const struct sockaddr_in *destination)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct pair pair = {.source = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};

    assert_true(listener >= 0 && pair.source >= 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)destination, sizeof(*destination)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(bind(pair.source, (const struct sockaddr *)source, sizeof(*source)), 0);
    assert_int_equal(connect(pair.source, (const struct sockaddr *)destination, sizeof(*destination)), 0);
    pair.destination = accept(listener, NULL, NULL);
    assert_true(pair.destination >= 0);
    close(listener);
    return pair;
}

/* The network came back, and was cut again: that somebody was reached once says nothing any more. */
static void each_attempt_counts_by_itself(void **state)
{
    struct sockaddr_in source, destination;
    socklen_t size = sizeof(source);
    struct pair pair;
    struct pcmig_link *link = open_with(&pair);

    (void)state;
    assert_int_equal(getsockname(pair.source, (struct sockaddr *)&source, &size), 0);
    assert_int_equal(getsockname(pair.destination, (struct sockaddr *)&destination, &size), 0);
    lose(&pair);
    assert_int_equal(pcmig_link_wake(link, 300), 1);
    expect_answers(link, 1, 1);
    close(pair.destination);
    pair = connect_again(&source, &destination);
    make_deaf(pair.destination);
    lose(&pair);
    assert_int_equal(pcmig_link_wake(link, 50), 1);
    expect_answers(link, 2, 0);
    close(pair.destination);
    pcmig_link_close(link);
}

/* Many channels, and a destination that does not answer: whoever steers the migration does not wait for it. */
static void nobody_waits_for_a_deaf_destination(void **state)
{
    enum { CHANNELS = 8 };
    struct pair pairs[CHANNELS];
    struct pcmig_link *link;
    uint16_t port = 0;
    int listener;

    (void)state;
    if (!can_lose())
        skip();
    listener = listen_somewhere(&port);
    for (size_t i = 0; i < CHANNELS; i++)
        pairs[i] = connect_pair_to(listener, port);
    link = open_and_look();
    for (size_t i = 0; i < CHANNELS; i++) {
        make_deaf(pairs[i].destination);
        lose(&pairs[i]);
    }
    assert_int_equal(pcmig_link_wake(link, 3600000), CHANNELS); /* a thread of its own waits for that long */
    for (size_t i = 0; i < CHANNELS; i++)
        close(pairs[i].destination);
    close(listener);
    pcmig_link_close(link);
}

static void a_live_stream_is_left_alone(void **state)
{
    struct pair pair = connect_pair();
    struct pcmig_link *link = open_link(true);
    char byte = 'x';

    (void)state;
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_int_equal(pcmig_link_wake(link, 100), 0);
    assert_int_equal(send(pair.source, &byte, 1, 0), 1);
    assert_int_equal(recv(pair.destination, &byte, 1, 0), 1);
    assert_int_equal(send(pair.destination, &byte, 1, 0), 1);
    assert_int_equal(recv(pair.source, &byte, 1, 0), 1);
    close(pair.source);
    close(pair.destination);
    pcmig_link_close(link);
}

/* --- the end at the destination ----------------------------------------------------------------------------------- */

static void a_stream_that_brings_nothing_is_reset(void **state)
{
    uint16_t port = ANY_PORT;
    int vnc = listen_at(1, &port);
    struct pair stream = connect_pair(), viewer = connect_pair_to(vnc, port);
    const int held[] = {stream.destination, viewer.destination};
    struct pcmig_arrival arrival;
    struct process qemu;
    int64_t before_ms;
    char byte;

    (void)state;
    assert_int_equal(pcmig_arrival_look(uuid, &arrival), -1);
    assert_int_equal(errno, ESRCH);
    assert_int_equal(pcmig_arrival_reset(uuid), -1);
    qemu = start_qemu(held, 2);
    if (geteuid() != 0) { /* nor may one look who has no rights */
        assert_int_equal(pcmig_arrival_look(uuid, &arrival), -1);
        assert_int_equal(errno, EACCES);
    } else {
        before_ms = now_ms();
        send_and_receive(&stream);
        assert_int_equal(pcmig_arrival_look(uuid, &arrival), 0);
        assert_int_equal(arrival.connections, 1);
        assert_in_range(arrival.silent_ms, 0, now_ms() - before_ms + 20);
        sleep_ms(1250);
        send_and_receive(&viewer); /* which says nothing of the stream */
        assert_int_equal(pcmig_arrival_look(uuid, &arrival), 0);
        assert_true(arrival.silent_ms >= 1200);
        assert_int_equal(pcmig_arrival_reset(uuid), 1);
        assert_true(recv(stream.destination, &byte, 1, MSG_DONTWAIT) < 0);
        assert_int_not_equal(errno, EAGAIN);
        assert_int_equal(pcmig_arrival_look(uuid, &arrival), 0);
        assert_int_equal(arrival.connections, 0);
        assert_int_equal(arrival.silent_ms, -1);
        assert_int_equal(pcmig_arrival_reset(uuid), 0);
        send_and_receive(&viewer);
    }
    stop(&qemu);
    close_pair(&stream);
    close_pair(&viewer);
    close(vnc);
}

/* To a loopback of its own: whoever else is at work here has connections and takes ports too. */
static bool leave_the_others(void)
{
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    bool is_up;
    int fd;

    if (unshare(CLONE_NEWNET) < 0)
        return false;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    is_up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &loopback) == 0;
    if (fd >= 0)
        close(fd);
    return is_up;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_see),
        cmocka_unit_test(what_waits),
        cmocka_unit_test(a_deaf_viewer_is_not_the_migration),
        cmocka_unit_test(a_network_disk_is_not_the_migration),
        cmocka_unit_test(what_is_unclear_is_unknown),
        cmocka_unit_test(the_newest_of_many_sockets),
        cmocka_unit_test(an_idle_channel_is_not_silent),
        cmocka_unit_test(who_asks_for_room_in_vain_is_silent),
        cmocka_unit_test(of_two_migrations_none_is_guessed),
        cmocka_unit_test(a_guests_own_cgroup_tells),
        cmocka_unit_test(a_guest_of_another_host),
        cmocka_unit_test(a_deaf_destination_has_not_answered),
        cmocka_unit_test(each_attempt_counts_by_itself),
        cmocka_unit_test(nobody_waits_for_a_deaf_destination),
        cmocka_unit_test(a_live_stream_is_left_alone),
        cmocka_unit_test(a_half_open_end_is_reset),
        cmocka_unit_test(the_first_of_two_to_go_is_not_forgotten),
        cmocka_unit_test(a_port_that_another_has_by_now),
        cmocka_unit_test(a_listener_at_the_old_port_sees_nothing),
        cmocka_unit_test(a_stream_that_brings_nothing_is_reset),
    };

    if (argc > 3 && strcmp(argv[1], "-uuid") == 0)
        return be_qemu(argv[3]);
    snprintf(uuid, sizeof(uuid), "00000000-1111-2222-3333-%012d", getpid());
    if (!leave_the_others() && errno != EPERM) {
        perror("a network namespace for the test");
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
