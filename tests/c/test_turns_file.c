/* SPDX-License-Identifier: Apache-2.0 */
/* The file that the migrations of a host share, between real processes: seen, killed, stopped in the middle, full, and
 * not a file of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "edge/clock.h"
#include "edge/route.h"
#include "edge/turns_file.h"

#define CACHE_US 60000

static char folder[] = "/tmp/pcmig-turns.XXXXXX";
static char path[128];

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/migrations/turns-2", folder);
    return setenv("PCMIG_RUN_DIR", folder, 1);
}

static int drop_folder(void **state)
{
    char inner[128];

    (void)state;
    snprintf(inner, sizeof(inner), "%s/migrations", folder);
    unlink(path);
    rmdir(path);
    rmdir(inner);
    return rmdir(folder);
}

static int fresh(void **state)
{
    char inner[128];

    (void)state;
    snprintf(inner, sizeof(inner), "%s/migrations", folder);
    unlink(path);
    rmdir(path);
    (void)mkdir(inner, 0700); /* as any user: pcmig itself makes it for root */
    return 0;
}

static struct pcmig_turns_row row_of(const char *name)
{
    struct pcmig_turns_row row = {.network = 1, .phase = PCMIG_TURNS_PRECOPY, .stamp_us = pcmig_clock_us()};

    snprintf(row.name, sizeof(row.name), "%s", name);
    return row;
}

static bool seen(struct pcmig_turns_seat *seat, const char *name)
{
    struct pcmig_turns_row rows[PCMIG_TURNS_ROWS];
    size_t me = PCMIG_TURNS_ROWS, count;
    bool found = false;

    usleep(CACHE_US);
    count = pcmig_turns_read(seat, rows, &me);
    assert_true(me < count);
    for (size_t i = 0; i < count; i++)
        found = found || strcmp(rows[i].name, name) == 0;
    return found;
}

/* Another process with a row of this name, which it does not give back. */
static pid_t neighbour(const char *name)
{
    struct pcmig_turns_row row = row_of(name);
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct pcmig_turns_seat *seat = pcmig_turns_join();

        if (seat == NULL)
            _exit(1);
        pcmig_turns_write(seat, &row);
        if (write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void of_this_process(void **state)
{
    struct pcmig_turns_seat *one = pcmig_turns_join(), *two = pcmig_turns_join();
    struct pcmig_turns_row row = row_of("g1"), rows[PCMIG_TURNS_ROWS];
    size_t me;

    (void)state;
    assert_non_null(one);
    assert_non_null(two);
    pcmig_turns_write(one, &row);
    assert_int_equal(pcmig_turns_read(two, rows, &me), 2);
    assert_string_equal(rows[1 - me].name, "g1");
    pcmig_turns_leave(one);
    assert_int_equal(pcmig_turns_read(two, rows, &me), 1);
    assert_int_equal(me, 0);
    pcmig_turns_leave(two);
    pcmig_turns_leave(NULL);
}

/* What a killed process leaves behind is nobody's, at once, and is used again. */
static void killed(void **state)
{
    pid_t first = neighbour("first"), second = neighbour("second");
    struct pcmig_turns_seat *seat = pcmig_turns_join();
    struct pcmig_turns_file_facts facts;

    (void)state;
    assert_true(seen(seat, "first"));
    assert_true(seen(seat, "second"));
    pcmig_turns_file_probe(&facts);
    assert_int_equal(facts.state, PCMIG_TURNS_FILE_SHARED);
    assert_int_equal(facts.rows, 2);
    assert_string_equal(facts.path, path);
    end(first);
    assert_false(seen(seat, "first"));
    assert_true(seen(seat, "second"));
    first = neighbour("third");
    assert_true(seen(seat, "third"));
    assert_true(seen(seat, "second"));
    end(first);
    end(second);
    assert_false(seen(seat, "second"));
    pcmig_turns_leave(seat);
}

/* The probe has the file open a second time, and closing that must not give the rows away. */
static void still_ours_after_a_probe(void **state)
{
    struct pcmig_turns_seat *seat = pcmig_turns_join();
    struct pcmig_turns_row row = row_of("g1");
    struct pcmig_turns_file_facts facts;
    int status;
    pid_t pid;

    (void)state;
    pcmig_turns_write(seat, &row);
    pcmig_turns_file_probe(&facts);
    assert_int_equal(facts.rows, 0);
    pid = fork();
    if (pid == 0) {
        int fd = open(path, O_RDWR);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

        _exit(fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_WRLCK ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    pcmig_turns_leave(seat);
}

/* A child that does not call exec has the locks' file open as well: it must not keep them, nor take the row for its
 * own. */
static void forked(void **state)
{
    struct pcmig_turns_seat *seat;
    struct pcmig_turns_row row = row_of("parent"), rows[PCMIG_TURNS_ROWS];
    int ready[2];
    pid_t parent, child;
    size_t me;

    (void)state;
    assert_int_equal(pipe(ready), 0);
    parent = fork();
    assert_true(parent >= 0);
    if (parent == 0) {
        seat = pcmig_turns_join();
        pcmig_turns_write(seat, &row);
        child = fork();
        if (child == 0) {
            child = pcmig_turns_read(seat, rows, &me) == 0 ? getpid() : -1;
            pcmig_turns_write(seat, &row);
            pcmig_turns_leave(seat);
            if (write(ready[1], &child, sizeof(child)) != sizeof(child))
                _exit(1);
        }
        pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &child, sizeof(child)), sizeof(child));
    assert_true(child > 0);
    close(ready[0]);
    close(ready[1]);
    seat = pcmig_turns_join();
    assert_true(seen(seat, "parent"));
    end(parent);
    assert_int_equal(kill(child, 0), 0);
    assert_false(seen(seat, "parent"));
    kill(child, SIGKILL);
    pcmig_turns_leave(seat);
}

static void full(void **state)
{
    struct pcmig_turns_seat *seats[PCMIG_TURNS_ROWS];
    pid_t other = neighbour("other");

    (void)state;
    for (int i = 0; i < PCMIG_TURNS_ROWS - 1; i++) {
        seats[i] = pcmig_turns_join();
        assert_non_null(seats[i]);
    }
    assert_null(pcmig_turns_join());
    assert_true(seen(seats[0], "other"));
    for (int i = 0; i < PCMIG_TURNS_ROWS - 1; i++)
        pcmig_turns_leave(seats[i]);
    end(other);
}

/* Whatever somebody puts there, the migrations of this process know of each other, and nothing is overwritten. */
static void not_ours(void **state)
{
    static const char other[] = "pcmig turns 2\nof another version";
    struct pcmig_turns_file_facts facts;
    struct pcmig_turns_seat *one, *two;
    struct pcmig_turns_row row = row_of("g1");
    char back[sizeof(other)] = "";
    int fd = open(path, O_RDWR | O_CREAT, 0600);

    (void)state;
    assert_int_equal(write(fd, other, sizeof(other)), sizeof(other));
    one = pcmig_turns_join();
    two = pcmig_turns_join();
    pcmig_turns_write(one, &row);
    assert_true(seen(two, "g1"));
    pcmig_turns_leave(one);
    pcmig_turns_leave(two);
    assert_int_equal(pread(fd, back, sizeof(back), 0), sizeof(back));
    assert_memory_equal(back, other, sizeof(other));
    close(fd);
    pcmig_turns_file_probe(&facts);
    assert_int_equal(facts.state, PCMIG_TURNS_FILE_FOREIGN);

    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    pcmig_turns_file_probe(&facts);
    assert_int_equal(facts.state, PCMIG_TURNS_FILE_FOREIGN);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    pcmig_turns_file_probe(&facts);
    assert_int_equal(facts.state, PCMIG_TURNS_FILE_FOREIGN);
    rmdir(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    pcmig_turns_file_probe(&facts);
    assert_int_equal(facts.state, PCMIG_TURNS_FILE_FOREIGN);
}

/* A file that is cut short, or full of anything, has no rows. */
static void garbage(void **state)
{
    struct pcmig_turns_row rows[PCMIG_TURNS_ROWS], row = row_of("mine");
    unsigned char bytes[PCMIG_TURNS_ROW_BYTES * 8];
    struct pcmig_turns_seat *seat = pcmig_turns_join();
    int fd = open(path, O_RDWR);
    size_t me;

    (void)state;
    memset(bytes, 0x5a, sizeof(bytes));
    assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 3 * PCMIG_TURNS_ROW_BYTES), sizeof(bytes));
    usleep(CACHE_US);
    assert_int_equal(pcmig_turns_read(seat, rows, &me), 1);
    assert_int_equal(ftruncate(fd, 17), 0);
    usleep(CACHE_US);
    assert_int_equal(pcmig_turns_read(seat, rows, &me), 1);
    pcmig_turns_write(seat, &row);
    assert_true(seen(seat, "mine"));
    pcmig_turns_leave(seat);
    close(fd);
}

static void no_folder(void **state)
{
    struct pcmig_turns_file_facts facts;

    (void)state;
    setenv("PCMIG_RUN_DIR", "/proc/no/such", 1);
    pcmig_turns_file_probe(&facts);
    setenv("PCMIG_RUN_DIR", folder, 1);
    assert_int_equal(facts.state, PCMIG_TURNS_FILE_MISSING);
    assert_string_equal(pcmig_turns_file_state_name(facts.state), "missing");
    assert_string_equal(pcmig_turns_file_state_name(PCMIG_TURNS_FILE_STATE_COUNT), "unknown");
}

/* Rows that were taken before there was a file are not in it, and whoever came later has taken theirs there. */
static void without_the_file_and_with_it(void **state)
{
    struct pcmig_turns_row row = row_of("mine"), rows[PCMIG_TURNS_ROWS];
    struct pcmig_turns_file_facts facts;
    struct pcmig_turns_seat *seat;
    bool mine = false, theirs = false;
    size_t count;
    pid_t other;

    (void)state;
    setenv("PCMIG_RUN_DIR", "/proc/no/such", 1);
    seat = pcmig_turns_join();
    setenv("PCMIG_RUN_DIR", folder, 1);
    assert_non_null(seat);
    pcmig_turns_write(seat, &row);
    other = neighbour("theirs");
    count = pcmig_turns_file_rows(rows);
    for (size_t i = 0; i < count; i++) {
        mine = mine || strcmp(rows[i].name, "mine") == 0;
        theirs = theirs || strcmp(rows[i].name, "theirs") == 0;
    }
    pcmig_turns_file_probe(&facts);
    pcmig_turns_leave(seat);
    end(other);
    assert_int_equal(count, 2);
    assert_true(mine && theirs);
    assert_int_equal(facts.rows, 1);
}

static void networks(void **state)
{
    (void)state;
    assert_int_equal(pcmig_turns_network("qemu:///system"), pcmig_turns_network(NULL));
    assert_int_equal(pcmig_turns_network("qemu+unix:///system?socket=/x"), pcmig_turns_network(NULL));
    assert_int_equal(pcmig_turns_network("qemu+ssh://root@a/system"), pcmig_turns_network("qemu+tcp://a/system"));
    assert_int_not_equal(pcmig_turns_network("qemu+tcp://a/system"), pcmig_turns_network("qemu+tcp://b/system"));
    assert_int_not_equal(pcmig_turns_network("qemu+tcp://a/system"), pcmig_turns_network(NULL));
    assert_int_not_equal(pcmig_turns_network(NULL), 0);
}

static void interfaces(void **state)
{
    struct sockaddr_storage peer = {0};
    struct sockaddr_in *address = (struct sockaddr_in *)&peer;

    (void)state;
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(pcmig_route_interface(&peer), if_nametoindex("lo"));
    peer.ss_family = AF_UNIX;
    assert_int_equal(pcmig_route_interface(&peer), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(of_this_process, fresh),
        cmocka_unit_test_setup(killed, fresh),
        cmocka_unit_test_setup(full, fresh),
        cmocka_unit_test_setup(forked, fresh),
        cmocka_unit_test_setup(still_ours_after_a_probe, fresh),
        cmocka_unit_test_setup(not_ours, fresh),
        cmocka_unit_test_setup(garbage, fresh),
        cmocka_unit_test_setup(no_folder, fresh),
        cmocka_unit_test_setup(without_the_file_and_with_it, fresh),
        cmocka_unit_test_setup(networks, fresh),
        cmocka_unit_test_setup(interfaces, fresh),
    };

    return cmocka_run_group_tests_name("turns_file", tests, make_folder, drop_folder);
}
