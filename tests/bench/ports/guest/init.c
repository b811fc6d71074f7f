/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First program of a guest on a network: loads the drivers of its network cards, gives each its addresses, and becomes
 * the memory worker. The kernel answers pings by itself.
 *
 * usage: init WORKER_OPTION... net=DEVICE,IPV4,IPV6...   (the words after "--" of the kernel's command line)
 *
 * Networks are /24 and /64. Built with MODULES: names below /modules, in order, separated by spaces.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NET_WORD       "net="
#define PATIENCE_TICKS 500 /* of 20 ms */

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

static void set_ipv4(int fd, struct ifreq ifr, unsigned long command, const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    if (inet_pton(AF_INET, text, &address.sin_addr) != 1)
        fail(text);
    memcpy(&ifr.ifr_addr, &address, sizeof(address));
    if (ioctl(fd, command, &ifr) != 0)
        fail(text);
}

static void set_up(int fd, int fd6, char *word)
{
    const struct timespec tick = {.tv_nsec = 20 * 1000 * 1000};
    char *rest = word, *device = strtok_r(rest, ",", &rest), *ipv4 = strtok_r(rest, ",", &rest);
    char *ipv6 = strtok_r(rest, ",", &rest);
    struct in6_ifreq ifr6 = {.ifr6_prefixlen = 64};
    struct ifreq ifr;

    if (device == NULL || ipv4 == NULL || ipv6 == NULL)
        fail("net=");
    memset(&ifr, 0, sizeof(ifr));
    strncpy(ifr.ifr_name, device, IFNAMSIZ - 1);
    for (int i = 0; ioctl(fd, SIOCGIFINDEX, &ifr) != 0; i++) { /* its driver makes it a moment after it is loaded */
        if (i == PATIENCE_TICKS)
            fail(device);
        nanosleep(&tick, NULL);
    }
    ifr6.ifr6_ifindex = ifr.ifr_ifindex;
    set_ipv4(fd, ifr, SIOCSIFADDR, ipv4);
    set_ipv4(fd, ifr, SIOCSIFNETMASK, "255.255.255.0");
    ifr.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &ifr) != 0)
        fail("up");
    if (inet_pton(AF_INET6, ipv6, &ifr6.ifr6_addr) != 1 || ioctl(fd6, SIOCSIFADDR, &ifr6) != 0)
        fail(ipv6);
}

int main(int argc, char **argv)
{
    char modules[] = MODULES, **kept = argv;
    int fd, fd6;

    (void)argc;
    load_modules(modules);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    fd6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || fd6 < 0)
        fail("socket");
    for (char **word = argv; *word != NULL; word++) {
        if (strncmp(*word, NET_WORD, strlen(NET_WORD)) == 0)
            set_up(fd, fd6, *word + strlen(NET_WORD));
        else
            *kept++ = *word;
    }
    *kept = NULL;
    execv("/worker", argv);
    fail("/worker");
}
