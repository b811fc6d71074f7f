/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First program of a cloud guest: loads the drivers of its NIC, gives it the address that its MAC stands for, and
 * becomes the memory worker, whose every line then leaves as one UDP datagram. For each disk that is named it starts a
 * disk worker (disk.c) beside.
 *
 * usage: init WORKER_OPTION... disk=PART...   (the words after "--" of the kernel's command line)
 *
 * Built with: MODULES and DISK_MODULES (names below /modules, in order, separated by spaces), COLLECTOR_ADDRESS,
 * COLLECTOR_MAC (twelve digits), COLLECTOR_PORT, NETMASK. A MAC that ends with x:y is the address a.b.x.y, a.b being
 * the collector's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NIC                "eth0"
#define DISK_WORD          "disk="
#define NIC_PATIENCE_TICKS 500 /* of 20 ms */

/* Says on the console what failed; the guest stays, so that the console can be read. */
static void fail(const char *what)
{
    printf("INIT FAILED %s: %s\n", what, strerror(errno));
    fflush(stdout);
    for (;;)
        pause();
}

static void load_modules(char *names)
{
    char *rest = names, *name;

    while ((name = strtok_r(rest, " ", &rest)) != NULL) {
        char path[128];
        int fd;

        snprintf(path, sizeof(path), "/modules/%s", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
            fail(name);
        close(fd);
    }
}

static struct sockaddr_in inet(uint32_t address, uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
}

static struct ifreq request(void)
{
    struct ifreq ifr;

    memset(&ifr, 0, sizeof(ifr));
    strcpy(ifr.ifr_name, NIC);
    return ifr;
}

/* Waits for the NIC, which its driver makes a moment after it is loaded, and returns its MAC's last two bytes. */
static uint32_t mac_tail(int fd)
{
    const struct timespec tick = {.tv_nsec = 20 * 1000 * 1000};
    struct ifreq ifr = request();

    for (int i = 0; ioctl(fd, SIOCGIFHWADDR, &ifr) != 0; i++) {
        if (i == NIC_PATIENCE_TICKS)
            fail("no " NIC);
        nanosleep(&tick, NULL);
    }
    return (uint32_t)(uint8_t)ifr.ifr_hwaddr.sa_data[4] << 8 | (uint8_t)ifr.ifr_hwaddr.sa_data[5];
}

static void set_address(int fd, unsigned long command, uint32_t value, const char *what)
{
    struct ifreq ifr = request();
    struct sockaddr_in address = inet(value, 0);

    memcpy(&ifr.ifr_addr, &address, sizeof(address));
    if (ioctl(fd, command, &ifr) != 0)
        fail(what);
}

/* A fixed entry: a heartbeat never waits for ARP, so a silence is the guest's or its port's. */
static void pin_collector(int fd, uint32_t collector)
{
    struct arpreq arp;
    struct sockaddr_in address = inet(collector, 0);
    uint64_t mac = strtoull(COLLECTOR_MAC, NULL, 16);

    memset(&arp, 0, sizeof(arp));
    memcpy(&arp.arp_pa, &address, sizeof(address));
    arp.arp_ha.sa_family = ARPHRD_ETHER;
    for (int i = 0; i < 6; i++)
        arp.arp_ha.sa_data[i] = (char)(mac >> (40 - 8 * i));
    arp.arp_flags = ATF_PERM | ATF_COM;
    strcpy(arp.arp_dev, NIC);
    if (ioctl(fd, SIOCSARP, &arp) != 0)
        fail("ARP entry");
}

/* Without a word that names a disk no driver for one is loaded: the guest then does not touch it. */
static void start_disk_workers(char **argv)
{
    char modules[] = DISK_MODULES;
    bool ready = false;
    char **kept = argv;

    for (; *argv != NULL; argv++) {
        char *words[] = {"disk", *argv + strlen(DISK_WORD), NULL};

        if (strncmp(*argv, DISK_WORD, strlen(DISK_WORD)) != 0) {
            *kept++ = *argv;
            continue;
        }
        if (!ready) {
            load_modules(modules);
            if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) != 0)
                fail("/dev");
            ready = true;
        }
        switch (fork()) {
        case -1:
            fail("fork");
            break;
        case 0:
            execv("/disk", words);
            fail("/disk");
        }
    }
    *kept = NULL;
}

int main(int argc, char **argv)
{
    char modules[] = MODULES;
    uint32_t collector = ntohl(inet_addr(COLLECTOR_ADDRESS));
    struct sockaddr_in to = inet(collector, COLLECTOR_PORT);
    struct ifreq ifr = request();
    uint32_t own;
    int fd;

    (void)argc;
    load_modules(modules);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0)
        fail("socket");
    own = (collector & 0xffff0000u) | mac_tail(fd);
    set_address(fd, SIOCSIFADDR, own, "address");
    set_address(fd, SIOCSIFNETMASK, ntohl(inet_addr(NETMASK)), "netmask");
    ifr.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &ifr) != 0)
        fail(NIC " up");
    pin_collector(fd, collector);
    if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) != 0)
        fail("connect");
    printf("INIT %u.%u.%u.%u\n", own >> 24, own >> 16 & 255, own >> 8 & 255, own & 255);
    fflush(stdout);
    if (dup2(fd, STDOUT_FILENO) < 0)
        fail("dup2");
    start_disk_workers(argv);
    execv("/worker", argv);
    fail("/worker");
}
