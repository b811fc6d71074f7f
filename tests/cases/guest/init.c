/* SPDX-License-Identifier: Apache-2.0 */
/* First process of a guest that crashes, powers off or restarts when it is told to: by a line on its serial console.
 * Meanwhile it changes its memory all the time. Reads "crash", "poweroff" or "reboot"; says "ready" first. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <unistd.h>

#define PVPANIC_PORT  0x505 /* as in QEMU's documentation of pvpanic */
#define PVPANIC_CRASH 1
#define WORK_BYTES    (32UL << 20)
#define PAGE_BYTES    4096
#define PAGES_BETWEEN 16 /* in post-copy each may take a while */

static void obey(void)
{
    struct pollfd console = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[64] = "";

    if (poll(&console, 1, 0) <= 0 || read(STDIN_FILENO, line, sizeof(line) - 1) <= 0)
        return;
    if (strncmp(line, "crash", 5) == 0 && iopl(3) == 0)
        outb(PVPANIC_CRASH, PVPANIC_PORT);
    if (strncmp(line, "poweroff", 8) == 0)
        reboot(RB_POWER_OFF);
    if (strncmp(line, "reboot", 6) == 0)
        reboot(RB_AUTOBOOT);
}

int main(void)
{
    unsigned char *memory = mmap(NULL, WORK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return 1;
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t page = 0;; page++) {
        memory[page * PAGE_BYTES % WORK_BYTES] = (unsigned char)rand();
        if (page == WORK_BYTES / PAGE_BYTES)
            puts("ready");
        if (page % PAGES_BETWEEN == 0)
            obey();
    }
}
