/* First process of a guest that crashes, powers off or restarts when it is told to: by a line on its serial console. Meanwhile it
 * changes its memory all the time. Reads "crash", "poweroff", "reboot"; says "ready", "did it". */
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

static void obey(const char *word)
{
    if (strncmp(word, "crash", 5) == 0 && iopl(3) == 0)
        outb(PVPANIC_CRASH, PVPANIC_PORT);
    if (strncmp(word, "poweroff", 8) == 0)
        reboot(RB_POWER_OFF);
    if (strncmp(word, "reboot", 6) == 0)
        reboot(RB_AUTOBOOT);
}

int main(void)
{
    unsigned char *memory = mmap(NULL, WORK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct pollfd console = {.fd = 0, .events = POLLIN};
    unsigned char tick = 0;
    char line[64];

    if (memory == MAP_FAILED)
        return 1;
    setvbuf(stdout, NULL, _IONBF, 0);
    for (;;) {
        tick++;
        for (size_t i = 0; i < WORK_BYTES; i += PAGE_BYTES)
            memory[i] = tick ^ (unsigned char)rand();
        if (tick == 1)
            puts("ready");
        if (poll(&console, 1, 5) > 0 && read(0, line, sizeof(line)) > 0) {
            obey(line);
            puts("did it");
        }
    }
}
