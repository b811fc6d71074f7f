/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory worker of the test guest. Fills pages with a pattern made of page number and generation, rewrites random
 * pages, verifies pages in turn and before each rewrite, and says on standard output how far it got.
 *
 * usage: worker worker_mib=N write_pps=N verify_pps=N heartbeat_ms=N
 *
 * A heartbeat: "HB <sequence> <guest ms> <pages written> <pages verified in turn> <bad pages> <full verify passes>".
 * Each bad page, up to a number: "BAD <page> <generation> <offset of the first wrong word> <wrong words> <age>", where
 * the first wrong word is what the page held <age> generations ago, 0 = in none of the last ones: tells a page that was
 * left behind from one that was torn or overwritten.
 *
 * A line on its standard input, the console, has the guest end: "poweroff", "reboot", or "crash", which takes the
 * device pvpanic; or, with "write", write a sector to its first IDE disk.
 *
 * A second process wakes up a hundred times a second and does nothing else: see empty_tlb().
 *
 * Work is dealt out in ticks of one millisecond, and what a tick could not do is dropped, not caught up: work missing
 * from the record is then time that the guest lost, by whatever held it (a stopped vCPU, a page that was not there).
 */
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES      4096u
#define PAGE_WORDS      (PAGE_BYTES / sizeof(uint64_t))
#define TICK_US         1000u
#define TURN_US         10000u
#define BAD_PAGES_SHOWN 20u
#define AGES_TRIED      16u
#define PVPANIC_PORT    0x505 /* as in QEMU's documentation of pvpanic */
#define PVPANIC_CRASH   1
#define IDE_BASE        0x1f0 /* the first channel of the PC's, by programmed I/O: no driver is loaded */
#define SECTOR_WORDS    256u

struct options {
    uint64_t worker_mib, write_pps, verify_pps, heartbeat_ms;
};

struct memory {
    uint64_t *words;
    uint32_t *generations; /* what each page ought to hold, kept apart from the page itself */
    uint64_t pages;
};

struct record {
    uint64_t sequence, written, verified, bad, passes;
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

/* No two words of a page, no two pages and no two generations are alike: zeroed, stale and misplaced data all show. */
static uint64_t expected_word(uint64_t seed, unsigned index)
{
    return seed + (uint64_t)index * UINT64_C(0xd6e8feb86659fd93);
}

static uint64_t page_seed(uint64_t page, uint32_t generation)
{
    return scramble(page << 32 | generation);
}

static void write_page(struct memory *memory, uint64_t page)
{
    uint64_t *words = memory->words + page * PAGE_WORDS;
    uint64_t seed = page_seed(page, ++memory->generations[page]);

    for (unsigned i = 0; i < PAGE_WORDS; i++)
        words[i] = expected_word(seed, i);
}

static void show_bad_page(const struct memory *memory, uint64_t page)
{
    const uint64_t *words = memory->words + page * PAGE_WORDS;
    uint32_t generation = memory->generations[page], age;
    uint64_t seed = page_seed(page, generation);
    unsigned first = PAGE_WORDS, wrong = 0;

    for (unsigned i = 0; i < PAGE_WORDS; i++) {
        if (words[i] == expected_word(seed, i))
            continue;
        wrong++;
        if (first == PAGE_WORDS)
            first = i;
    }
    if (first == PAGE_WORDS)
        first = 0; /* right by now: what was wrong a moment ago has been written since */
    for (age = AGES_TRIED; age > 0; age--)
        if (age <= generation && words[first] == expected_word(page_seed(page, generation - age), first))
            break;
    printf("BAD %" PRIu64 " %" PRIu32 " %zu %u %" PRIu32 "\n", page, generation, first * sizeof(uint64_t), wrong, age);
}

static void verify_page(const struct memory *memory, uint64_t page, struct record *record)
{
    const uint64_t *words = memory->words + page * PAGE_WORDS;
    uint64_t seed = page_seed(page, memory->generations[page]);
    uint64_t difference = 0;

    for (unsigned i = 0; i < PAGE_WORDS; i++)
        difference |= words[i] ^ expected_word(seed, i);
    if (difference == 0)
        return;
    record->bad++;
    if (record->bad <= BAD_PAGES_SHOWN)
        show_bad_page(memory, page);
}

static bool parse_option(struct options *options, const char *word)
{
    const struct {
        const char *name;
        uint64_t *value;
    } known[] = {
        {"worker_mib=", &options->worker_mib},
        {"write_pps=", &options->write_pps},
        {"verify_pps=", &options->verify_pps},
        {"heartbeat_ms=", &options->heartbeat_ms},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        size_t length = strlen(known[i].name);

        if (strncmp(word, known[i].name, length) == 0) {
            char *end;

            *known[i].value = strtoull(word + length, &end, 10);
            return *end == '\0' && end != word + length;
        }
    }
    return false;
}

/* Pages due in a tick at a rate; the fraction is carried over, so that 1 page a second is one a second. */
static uint64_t due_in_tick(uint64_t pps, uint64_t *fraction)
{
    uint64_t due = pps * TICK_US + *fraction;

    *fraction = due % 1000000u;
    return due / 1000000u;
}

static void write_sector(void)
{
    static const uint8_t first_of_drive_0[] = {[2] = 1, [3] = 0, [4] = 0, [5] = 0, [6] = 0xe0, [7] = 0x30};

    if (iopl(3) != 0)
        return;
    for (unsigned short port = 2; port < sizeof(first_of_drive_0); port++)
        outb(first_of_drive_0[port], (unsigned short)(IDE_BASE + port));
    while ((inb(IDE_BASE + 7) & 0x88) != 0x08) /* not busy, and wants data */
        usleep(TICK_US);
    for (unsigned word = 0; word < SECTOR_WORDS; word++)
        outw((unsigned short)word, IDE_BASE);
}

static void obey(void)
{
    struct pollfd console = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[64] = "";

    if (poll(&console, 1, 0) <= 0 || read(STDIN_FILENO, line, sizeof(line) - 1) <= 0)
        return;
    if (strncmp(line, "write", 5) == 0)
        write_sector();
    if (strncmp(line, "poweroff", 8) == 0)
        reboot(RB_POWER_OFF);
    if (strncmp(line, "reboot", 6) == 0)
        reboot(RB_AUTOBOOT);
    if (strncmp(line, "crash", 5) == 0 && iopl(3) == 0)
        outb(PVPANIC_CRASH, PVPANIC_PORT);
}

static void work(struct memory *memory, const struct options *options)
{
    struct record record = {0};
    uint64_t random = 88172645463325252u, next_page = 0, write_fraction = 0, verify_fraction = 0;
    uint64_t tick_us = now_us(), heartbeat_us = tick_us;

    for (;;) {
        uint64_t writes = due_in_tick(options->write_pps, &write_fraction);
        uint64_t checks = due_in_tick(options->verify_pps, &verify_fraction);
        uint64_t now;

        while (writes-- > 0) {
            random ^= random << 13; /* xorshift64 */
            random ^= random >> 7;
            random ^= random << 17;
            verify_page(memory, random % memory->pages, &record);
            write_page(memory, random % memory->pages);
            record.written++;
        }
        while (checks-- > 0) {
            verify_page(memory, next_page, &record);
            record.verified++;
            if (++next_page == memory->pages) {
                next_page = 0;
                record.passes++;
            }
        }
        now = now_us();
        if (now >= heartbeat_us) {
            printf("HB %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", record.sequence++,
                   now / 1000u, record.written, record.verified, record.bad, record.passes);
            heartbeat_us = now + options->heartbeat_ms * 1000u;
            obey();
        }
        tick_us += TICK_US;
        if (tick_us > now)
            usleep((useconds_t)(tick_us - now));
        else
            tick_us = now; /* late: the ticks in between are lost */
    }
}

/*
 * With post-copy enabled, QEMU 11 loses an emulated guest's writes through entries of its TLB that are older than its
 * last look at the dirty pages, every 55 ms (doc/operate/check.rst). One process that never changes page tables is hit
 * far more than other guests, as nothing has QEMU empty its TLB. Two that take turns do;
 * a hundred turns a second cost next to nothing, a thousand a tenth of a core.
 */
static void empty_tlb(void)
{
    if (fork() == 0)
        for (;;)
            usleep(TURN_US);
}

int main(int argc, char **argv)
{
    struct options options = {.worker_mib = 128, .write_pps = 10000, .verify_pps = 10000, .heartbeat_ms = 20};
    struct memory memory;

    setvbuf(stdout, NULL, _IOLBF, 512);
    empty_tlb();
    for (int i = 1; i < argc; i++)
        if (!parse_option(&options, argv[i]))
            printf("worker: ignoring %s\n", argv[i]);
    memory.pages = options.worker_mib << 20 >> 12;
    memory.words = mmap(NULL, memory.pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory.generations = calloc(memory.pages, sizeof(*memory.generations));
    if (memory.pages == 0 || memory.words == MAP_FAILED || memory.generations == NULL) {
        printf("FAILED worker_mib=%" PRIu64 " does not fit\n", options.worker_mib);
        pause();
    }
    for (uint64_t page = 0; page < memory.pages; page++)
        write_page(&memory, page);
    printf("FILLED %" PRIu64 "\n", memory.pages);
    work(&memory, &options);
}
