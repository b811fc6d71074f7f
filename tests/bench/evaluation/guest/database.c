/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First process of the guest that has a database: starts PostgreSQL, has pgbench load it for as long as the guest
 * lives, and says on the console how far that got.
 *
 * usage: init clients=N heartbeat_ms=N
 *
 * A heartbeat has the form of the memory worker's (tests/bed/guest/worker.c), "HB <sequence> <guest ms>
 * <transactions> 0 <failures> <checks passed>", and is followed, where transactions have ended since the one before it,
 * by the slowest of them: "TX <guest ms at its end> <its microseconds>".
 *
 * "check" on its standard input, the console, has it verify once that all that the transactions did is there: the three
 * balances and the history of pgbench's tables have the same sum, or memory was lost. One that does not have it, a
 * transaction that fails, and a pgbench that ends are failures.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define BIN      "/usr/lib/postgresql/15/bin/"
#define USER     65534 /* PostgreSQL does not run as root; who made the tables had this number, too */
#define AGAIN_MS 500u  /* pgbench is refused while PostgreSQL starts */

struct options {
    uint64_t clients, heartbeat_ms;
};

struct record {
    uint64_t sequence, transactions, failures, checks;
    uint64_t slowest_us, slowest_end_ms; /* since the last heartbeat; 0 = none ended */
};

struct children {
    pid_t server, load, check; /* 0 = none */
};

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* Says why there will be no heartbeat. The kernel would panic if this process ended. */
static void fail(const char *what)
{
    printf("FAILED %s: %s\n", what, strerror(errno));
    for (;;)
        pause();
}

static void mount_all(void)
{
    const struct {
        const char *kind, *where;
    } wanted[] = {{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"devpts", "/dev/pts"}, {"tmpfs", "/dev/shm"}};

    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (mkdir(wanted[i].where, 0755) != 0 && errno != EEXIST)
            fail(wanted[i].where);
        if (mount(wanted[i].kind, wanted[i].where, wanted[i].kind, 0, NULL) != 0 && errno != EBUSY)
            fail(wanted[i].where);
    }
    if (chmod("/dev/shm", 01777) != 0 || chmod("/run", 01777) != 0)
        fail("/dev/shm, /run");
}

/* A terminal's line arrives as soon as it is written, which that of a pipe or a file does not. Returns its end here. */
static int open_terminal(char *name, size_t room)
{
    struct termios raw;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK), slave;

    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0 || ptsname_r(master, name, room) != 0)
        fail("a terminal");
    slave = open(name, O_RDWR | O_NOCTTY); /* stays open, or reading fails whenever pgbench ends */
    if (slave < 0 || tcgetattr(slave, &raw) != 0)
        fail(name);
    cfmakeraw(&raw);
    if (tcsetattr(slave, TCSANOW, &raw) != 0 || chmod(name, 0666) != 0)
        fail(name);
    return master;
}

/* QUIET: what it says is not for the console. LOG: terminal for a line per transaction, or NULL; pgbench writes it to a
 * file that is named after its process. */
static pid_t start(char *const words[], bool quiet, const char *log)
{
    pid_t child = fork();
    char file[64];

    if (child != 0)
        return child < 0 ? 0 : child; /* tried again later */
    if (log != NULL) {
        snprintf(file, sizeof(file), "/run/tx.%d", (int)getpid());
        unlink(file);
        if (symlink(log, file) != 0)
            _exit(1);
    }
    if (quiet && (freopen("/dev/null", "w", stdout) == NULL || freopen("/dev/null", "w", stderr) == NULL))
        _exit(1);
    if (setgid(USER) != 0 || setuid(USER) != 0)
        _exit(1);
    execv(words[0], words);
    _exit(1);
}

static pid_t start_server(void)
{
    char *words[] = {BIN "postgres", "-D", "/data", NULL};

    return start(words, false, NULL);
}

static pid_t start_load(const struct options *options, const char *log)
{
    char clients[24];
    char *words[] = {BIN "pgbench", "-h",    "/run", "-U",        "postgres", "-n",
                     "-c",          clients, "-T",   "100000000", "--log",    "--log-prefix=/run/tx",
                     "postgres",    NULL};

    snprintf(clients, sizeof(clients), "%" PRIu64, options->clients);
    return start(words, true, log);
}

static pid_t start_check(void)
{
    char *words[] = {BIN "pgbench", "-h", "/run", "-U",         "postgres", "-n",
                     "-t",          "1",  "-f",   "/check.sql", "postgres", NULL};

    return start(words, true, NULL);
}

static void reap(struct children *children, struct record *record, uint64_t *again_ms)
{
    int status;

    for (pid_t child; (child = waitpid(-1, &status, WNOHANG)) > 0;) {
        bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;

        if (child == children->server) {
            errno = ECHILD;
            fail("PostgreSQL has ended");
        } else if (child == children->check) {
            children->check = 0;
            record->checks += good;
            record->failures += !good;
        } else if (child == children->load) {
            children->load = 0;
            record->failures += record->transactions > 0;
            *again_ms = now_ms() + AGAIN_MS;
        }
    }
}

/* "<client> <number> <microseconds> <script> <seconds> <microseconds>", or "failed" instead of the third. */
static void count(struct record *record, const char *line)
{
    char took[24];
    uint64_t took_us;
    char *end;

    if (sscanf(line, "%*u %*u %23s", took) != 1)
        return;
    took_us = strtoull(took, &end, 10);
    if (*end != '\0') {
        record->failures++;
        return;
    }
    record->transactions++;
    if (took_us >= record->slowest_us) {
        record->slowest_us = took_us;
        record->slowest_end_ms = now_ms();
    }
}

static void read_log(int log, struct record *record)
{
    static char text[8192];
    static size_t used;
    ssize_t got = read(log, text + used, sizeof(text) - used - 1);

    if (got <= 0)
        return;
    used += (size_t)got;
    text[used] = '\0';
    for (char *line = text, *end;; line = end + 1) {
        end = strchr(line, '\n');
        if (end == NULL) {
            used = strlen(line);
            memmove(text, line, used);
            break;
        }
        *end = '\0';
        count(record, line);
    }
    if (used == sizeof(text) - 1)
        used = 0; /* no line is as long as that */
}

static void beat(struct record *record)
{
    printf("HB %" PRIu64 " %" PRIu64 " %" PRIu64 " 0 %" PRIu64 " %" PRIu64 "\n", record->sequence++, now_ms(),
           record->transactions, record->failures, record->checks);
    if (record->slowest_us > 0)
        printf("TX %" PRIu64 " %" PRIu64 "\n", record->slowest_end_ms, record->slowest_us);
    record->slowest_us = 0;
}

static void obey(struct children *children)
{
    char line[64] = "";

    if (read(STDIN_FILENO, line, sizeof(line) - 1) <= 0)
        return;
    if (strncmp(line, "check", 5) == 0 && children->check == 0)
        children->check = start_check();
}

int main(int argc, char **argv)
{
    struct options options = {.clients = 2, .heartbeat_ms = 20};
    struct sched_param first = {.sched_priority = 1};
    struct record record = {0};
    struct children children = {0};
    uint64_t again_ms = 0, beat_ms;
    char terminal[64];
    int log;

    setvbuf(stdout, NULL, _IOLBF, 512);
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "clients=%" SCNu64, &options.clients) != 1 &&
            sscanf(argv[i], "heartbeat_ms=%" SCNu64, &options.heartbeat_ms) != 1)
            printf("init: ignoring %s\n", argv[i]);
    mount_all();
    log = open_terminal(terminal, sizeof(terminal));
    /* A heartbeat is to wait for the machine, never for the database; what is started here has no such right. */
    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) != 0)
        printf("init: heartbeats wait for the database: %s\n", strerror(errno));
    children.server = start_server();
    if (children.server == 0)
        fail("PostgreSQL");
    beat_ms = now_ms();
    for (;;) {
        struct pollfd inputs[] = {{.fd = log, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        uint64_t now = now_ms();

        poll(inputs, 2, beat_ms > now ? (int)(beat_ms - now) : 0);
        if (inputs[0].revents & POLLIN)
            read_log(log, &record);
        if (inputs[1].revents & POLLIN)
            obey(&children);
        now = now_ms();
        if (now < beat_ms)
            continue;
        beat_ms = now + options.heartbeat_ms;
        reap(&children, &record, &again_ms);
        if (children.load == 0 && now >= again_ms)
            children.load = start_load(&options, terminal);
        beat(&record);
    }
}
