/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk worker of a cloud guest: writes numbered blocks to a part of a disk in turn, one at a time and each to the
 * platter, and reads older ones back. Says on standard output how far it got.
 *
 * usage: disk NAME:START_MIB:MIB:WRITES_PER_S
 *
 * At its start it reads all of its part, where an earlier boot may have written: "FOUND <disk> <number> <bad>", the
 * highest number there, and the blocks that do not hold what they must, given that one. It goes on from there, and says
 * that line once a second: at the start of a guest nobody may hear it yet. Then, every tenth of a second at most: "DISK
 * <disk> <number> <verified> <bad> <errors>", the number of the last write that the disk has acknowledged, blocks read
 * back, those that were wrong, and reads and writes that failed.
 *
 * The block of number n is n - 1 modulo their count, and no two numbers have a word in common. So a write that was lost
 * after its acknowledgement shows, and so does anybody else who writes there.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES     4096u
#define BLOCK_WORDS     (BLOCK_BYTES / sizeof(uint64_t))
#define SCAN_BYTES      (1u << 20)
#define REPORT_US       100000u
#define FOUND_US        1000000u
#define DISK_PATIENCE_S 60u

struct part {
    char name[16];
    uint64_t start_bytes, blocks, writes_per_s;
    int fd;
};

struct record {
    uint64_t number, verified, bad, errors;
};

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* One step of the splitmix64 generator: neighbouring numbers come out unlike. */
static uint64_t scramble(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The first word is the number itself, so that a block tells which one it is; 0 is one that was never written. */
static void fill(const struct part *part, uint64_t *words, uint64_t number)
{
    words[0] = number;
    for (unsigned i = 1; i < BLOCK_WORDS; i++)
        words[i] = scramble(number ^ (part->start_bytes + i) << 32);
}

static bool holds(const struct part *part, const uint64_t *words, uint64_t number)
{
    uint64_t expected[BLOCK_WORDS] = {0};

    if (number != 0)
        fill(part, expected, number);
    return memcmp(words, expected, BLOCK_BYTES) == 0;
}

static off_t place(const struct part *part, uint64_t number)
{
    return (off_t)(part->start_bytes + (number - 1) % part->blocks * BLOCK_BYTES);
}

/* The number that a block must hold once NUMBER is the last one written. */
static uint64_t due(const struct part *part, uint64_t block, uint64_t number)
{
    uint64_t turn;

    if (number <= block)
        return 0;
    turn = (number - 1 - block) / part->blocks;
    return turn * part->blocks + block + 1;
}

static bool parse(struct part *part, const char *text)
{
    uint64_t start_mib, mib;
    char end;

    if (sscanf(text, "%15[a-z]:%" SCNu64 ":%" SCNu64 ":%" SCNu64 "%c", part->name, &start_mib, &mib,
               &part->writes_per_s, &end) != 4)
        return false;
    part->start_bytes = start_mib << 20;
    part->blocks = (mib << 20) / BLOCK_BYTES;
    return mib > 0 && part->writes_per_s > 0;
}

static bool open_disk(struct part *part)
{
    char path[32];

    snprintf(path, sizeof(path), "/dev/%s", part->name);
    for (unsigned tick = 0; tick < DISK_PATIENCE_S * 10; tick++) {
        part->fd = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
        if (part->fd >= 0)
            return true;
        usleep(100000);
    }
    return false;
}

/* Reads the whole part twice: for the highest number, and for what does not fit it. */
static bool scan(const struct part *part, uint64_t *buffer, struct record *record)
{
    uint64_t per_read = SCAN_BYTES / BLOCK_BYTES, highest = 0;

    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t block = 0; block < part->blocks; block += per_read) {
            if (pread(part->fd, buffer, SCAN_BYTES, (off_t)(part->start_bytes + block * BLOCK_BYTES)) != SCAN_BYTES)
                return false;
            for (uint64_t i = 0; i < per_read; i++) {
                const uint64_t *words = buffer + i * BLOCK_WORDS;

                if (pass == 1)
                    record->bad += !holds(part, words, due(part, block + i, highest));
                else if (words[0] > highest && (words[0] - 1) % part->blocks == block + i)
                    highest = words[0];
            }
        }
    }
    record->number = highest;
    return true;
}

static void work(const struct part *part, uint64_t *buffer, struct record *record)
{
    const struct record found = *record;
    uint64_t report_us = 0, found_us = 0, lag = part->blocks / 2;

    record->bad = 0;

    for (;;) {
        uint64_t next = record->number + 1, older = next > lag ? next - lag : 0;

        fill(part, buffer, next);
        if (pwrite(part->fd, buffer, BLOCK_BYTES, place(part, next)) == (ssize_t)BLOCK_BYTES)
            record->number = next;
        else
            record->errors++;
        if (older == 0)
            older = next; /* nothing old is there yet: what has just been written */
        if (record->number == next) {
            if (pread(part->fd, buffer, BLOCK_BYTES, place(part, older)) == (ssize_t)BLOCK_BYTES) {
                record->verified++;
                record->bad += !holds(part, buffer, older);
            } else {
                record->errors++;
            }
        }
        if (now_us() >= report_us) {
            printf("DISK %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", part->name, record->number,
                   record->verified, record->bad, record->errors);
            report_us = now_us() + REPORT_US;
        }
        if (now_us() >= found_us) {
            printf("FOUND %s %" PRIu64 " %" PRIu64 "\n", part->name, found.number, found.bad);
            found_us = now_us() + FOUND_US;
        }
        usleep((useconds_t)(1000000u / part->writes_per_s));
    }
}

int main(int argc, char **argv)
{
    struct record record = {0};
    struct part part = {0};
    void *buffer = NULL;

    setvbuf(stdout, NULL, _IOLBF, 512);
    if (argc != 2 || !parse(&part, argv[1])) {
        printf("FAILED disk: usage: disk NAME:START_MIB:MIB:WRITES_PER_S\n");
        return 2;
    }
    if (posix_memalign(&buffer, BLOCK_BYTES, SCAN_BYTES) != 0) {
        printf("FAILED disk %s: no memory\n", part.name);
        return 1;
    }
    if (!open_disk(&part) || !scan(&part, buffer, &record)) {
        printf("FAILED disk %s: %s\n", part.name, strerror(errno));
        return 1;
    }
    work(&part, buffer, &record);
}
