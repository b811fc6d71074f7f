/* SPDX-License-Identifier: Apache-2.0 */
/* See route.h. Messages: rtnetlink(7). */
#include "edge/route.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define MESSAGE_MAX 8192
/* The kernel answers at once; this only bounds a surprise. */
#define ANSWER_MS   1000

struct message {
    union {
        struct nlmsghdr header;
        char bytes[MESSAGE_MAX];
    };
};

struct pcmig_route {
    struct pcmig_route *next;
    unsigned users;
    struct sockaddr_storage peer; /* one that the route leads to */
    /* What tells the route from others. */
    unsigned char family;
    unsigned char prefix_len;
    uint32_t table;
    uint32_t priority;
    unsigned char prefix[16];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pcmig_route *changed;

/* --- netlink ------------------------------------------------------------------------------------------------------ */

static int open_netlink(void)
{
    struct timeval patience = {.tv_sec = ANSWER_MS / 1000, .tv_usec = ANSWER_MS % 1000 * 1000};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Sends REQUEST and takes the answer into ANSWER. Returns 0, or -1 with errno (the kernel's, when it refused). */
static int ask(int fd, const struct message *request, struct message *answer)
{
    ssize_t n;

    if (send(fd, request, request->header.nlmsg_len, 0) != (ssize_t)request->header.nlmsg_len)
        return -1;
    do {
        n = recv(fd, answer, sizeof(*answer), 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -1;
    if (!NLMSG_OK(&answer->header, (size_t)n)) {
        errno = EPROTO;
        return -1;
    }
    if (answer->header.nlmsg_type == NLMSG_ERROR) {
        const struct nlmsgerr *error = NLMSG_DATA(&answer->header);

        errno = -error->error;
        return error->error == 0 ? 0 : -1;
    }
    return 0;
}

static int add_attribute(struct message *message, unsigned short type, const void *data, size_t len)
{
    size_t offset = NLMSG_ALIGN(message->header.nlmsg_len);
    struct rtattr *attribute = (struct rtattr *)(message->bytes + offset);

    if (offset + RTA_SPACE(len) > sizeof(message->bytes)) {
        errno = EMSGSIZE;
        return -1;
    }
    memset(attribute, 0, RTA_SPACE(len));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(len);
    memcpy(RTA_DATA(attribute), data, len);
    message->header.nlmsg_len = (uint32_t)(offset + RTA_LENGTH(len));
    return 0;
}

/* The route that the kernel would take to PEER; with RTM_F_FIB_MATCH in FLAGS as it stands in the table. */
static int get_route(int fd, const struct sockaddr_storage *peer, unsigned flags, struct message *answer)
{
    struct message request = {0};
    struct rtmsg *route = NLMSG_DATA(&request.header);
    const void *address;
    size_t len;

    if (peer->ss_family == AF_INET) {
        address = &((const struct sockaddr_in *)peer)->sin_addr;
        len = sizeof(struct in_addr);
    } else if (peer->ss_family == AF_INET6) {
        address = &((const struct sockaddr_in6 *)peer)->sin6_addr;
        len = sizeof(struct in6_addr);
    } else {
        errno = EAFNOSUPPORT;
        return -1;
    }
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(*route));
    request.header.nlmsg_type = RTM_GETROUTE;
    request.header.nlmsg_flags = NLM_F_REQUEST;
    route->rtm_family = (unsigned char)peer->ss_family;
    route->rtm_dst_len = (unsigned char)(len * 8);
    route->rtm_flags = flags;
    if (add_attribute(&request, RTA_DST, address, len) < 0 || ask(fd, &request, answer) < 0)
        return -1;
    if (answer->header.nlmsg_type != RTM_NEWROUTE || answer->header.nlmsg_len < NLMSG_LENGTH(sizeof(*route))) {
        errno = EPROTO;
        return -1;
    }
    return 0;
}

static const struct rtattr *find_attribute(const struct message *message, unsigned short type)
{
    const struct rtmsg *route = NLMSG_DATA(&message->header);
    const struct rtattr *attribute = RTM_RTA(route);
    size_t left = RTM_PAYLOAD(&message->header);

    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        if ((attribute->rta_type & NLA_TYPE_MASK) == type)
            return attribute;
    }
    return NULL;
}

static bool has_quickack(const struct message *message)
{
    const struct rtattr *metrics = find_attribute(message, RTA_METRICS);
    const struct rtattr *metric;
    size_t left;

    if (metrics == NULL)
        return false;
    metric = RTA_DATA(metrics);
    left = RTA_PAYLOAD(metrics);
    for (; RTA_OK(metric, left); metric = RTA_NEXT(metric, left)) {
        uint32_t value;

        if (metric->rta_type != RTAX_QUICKACK || RTA_PAYLOAD(metric) < sizeof(value))
            continue;
        memcpy(&value, RTA_DATA(metric), sizeof(value));
        return value != 0;
    }
    return false;
}

/* METRICS (or NULL) without quickack, then with it if WANTED, as the payload of a new attribute. Returns its length or
 * 0. */
static size_t write_metrics(char *out, size_t size, const struct rtattr *metrics, bool wanted)
{
    const struct rtattr *metric = metrics != NULL ? RTA_DATA(metrics) : NULL;
    size_t left = metrics != NULL ? RTA_PAYLOAD(metrics) : 0;
    uint32_t one = 1;
    size_t used = 0;

    for (; metric != NULL && RTA_OK(metric, left); metric = RTA_NEXT(metric, left)) {
        if (metric->rta_type == RTAX_QUICKACK || used + RTA_ALIGN(metric->rta_len) > size)
            continue;
        memcpy(out + used, metric, metric->rta_len);
        used += RTA_ALIGN(metric->rta_len);
    }
    if (wanted && used + RTA_SPACE(sizeof(one)) <= size) {
        struct rtattr *added = (struct rtattr *)(out + used);

        added->rta_type = RTAX_QUICKACK;
        added->rta_len = RTA_LENGTH(sizeof(one));
        memcpy(RTA_DATA(added), &one, sizeof(one));
        used += RTA_SPACE(sizeof(one));
    }
    return used;
}

/* Puts FOUND back into its table, all the same but for quickack. */
static int replace_route(int fd, const struct message *found, bool quickack)
{
    const struct rtmsg *old = NLMSG_DATA(&found->header);
    const struct rtattr *attribute = RTM_RTA(old);
    size_t left = RTM_PAYLOAD(&found->header);
    struct message request = {0}, answer;
    struct rtmsg *route = NLMSG_DATA(&request.header);
    _Alignas(struct rtattr) char metrics[1024] = {0};
    size_t metrics_len = write_metrics(metrics, sizeof(metrics), find_attribute(found, RTA_METRICS), quickack);

    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(*route));
    request.header.nlmsg_type = RTM_NEWROUTE;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_REPLACE | NLM_F_ACK;
    *route = *old;
    route->rtm_flags &= RTNH_F_ONLINK; /* the others tell of a state and cannot be set */
    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        if (attribute->rta_type == RTA_METRICS || attribute->rta_type == RTA_CACHEINFO)
            continue;
        if (add_attribute(&request, attribute->rta_type, RTA_DATA(attribute), RTA_PAYLOAD(attribute)) < 0)
            return -1;
    }
    if (metrics_len > 0 && add_attribute(&request, RTA_METRICS, metrics, metrics_len) < 0)
        return -1;
    return ask(fd, &request, &answer);
}

/* --- shared changes ----------------------------------------------------------------------------------------------- */

static void identify(struct pcmig_route *route, const struct message *found)
{
    const struct rtmsg *header = NLMSG_DATA(&found->header);
    const struct rtattr *table = find_attribute(found, RTA_TABLE);
    const struct rtattr *priority = find_attribute(found, RTA_PRIORITY);
    const struct rtattr *prefix = find_attribute(found, RTA_DST);

    route->family = header->rtm_family;
    route->prefix_len = header->rtm_dst_len;
    route->table = header->rtm_table;
    if (table != NULL && RTA_PAYLOAD(table) >= sizeof(route->table))
        memcpy(&route->table, RTA_DATA(table), sizeof(route->table));
    if (priority != NULL && RTA_PAYLOAD(priority) >= sizeof(route->priority))
        memcpy(&route->priority, RTA_DATA(priority), sizeof(route->priority));
    if (prefix != NULL && RTA_PAYLOAD(prefix) <= sizeof(route->prefix))
        memcpy(route->prefix, RTA_DATA(prefix), RTA_PAYLOAD(prefix));
}

static bool same_route(const struct pcmig_route *a, const struct pcmig_route *b)
{
    return a->family == b->family && a->prefix_len == b->prefix_len && a->table == b->table &&
           a->priority == b->priority && memcmp(a->prefix, b->prefix, sizeof(a->prefix)) == 0;
}

static struct pcmig_route *find_changed(const struct pcmig_route *like)
{
    struct pcmig_route *route = changed;

    while (route != NULL && !same_route(route, like))
        route = route->next;
    return route;
}

static bool changeable(const struct message *found)
{
    const struct rtmsg *route = NLMSG_DATA(&found->header);

    /* A route from a router advertisement has a lifetime that a replacement would lose. */
    return route->rtm_type == RTN_UNICAST && route->rtm_protocol != RTPROT_RA &&
           (route->rtm_family == AF_INET || find_attribute(found, RTA_MULTIPATH) == NULL);
}

enum pcmig_route_result pcmig_route_quickack(const struct sockaddr_storage *peer, struct pcmig_route **out)
{
    enum pcmig_route_result result = PCMIG_ROUTE_UNFIT;
    struct pcmig_route like = {0};
    struct pcmig_route *route;
    struct message found;
    int fd = open_netlink();

    *out = NULL;
    if (fd < 0)
        return PCMIG_ROUTE_UNFIT;
    pthread_mutex_lock(&lock);
    if (get_route(fd, peer, RTM_F_FIB_MATCH, &found) < 0 || !changeable(&found))
        goto out;
    identify(&like, &found);
    route = find_changed(&like);
    if (route != NULL) {
        route->users++;
        *out = route;
        result = PCMIG_ROUTE_SET;
        goto out;
    }
    if (has_quickack(&found)) {
        result = PCMIG_ROUTE_PRESENT;
        goto out;
    }
    route = malloc(sizeof(*route));
    if (route == NULL)
        goto out;
    if (replace_route(fd, &found, true) < 0) {
        result = errno == EPERM || errno == EACCES ? PCMIG_ROUTE_DENIED : PCMIG_ROUTE_UNFIT;
        free(route);
        goto out;
    }
    *route = like;
    route->peer = *peer;
    route->users = 1;
    route->next = changed;
    changed = route;
    *out = route;
    result = PCMIG_ROUTE_SET;
out:
    pthread_mutex_unlock(&lock);
    close(fd);
    return result;
}

void pcmig_route_restore(struct pcmig_route *route)
{
    struct pcmig_route **link = &changed;
    struct pcmig_route now = {0};
    struct message found;
    int fd;

    if (route == NULL)
        return;
    pthread_mutex_lock(&lock);
    if (--route->users > 0) {
        pthread_mutex_unlock(&lock);
        return;
    }
    while (*link != route)
        link = &(*link)->next;
    *link = route->next;
    fd = open_netlink();
    /* As it is now: if somebody changed or removed it meanwhile, theirs stays. */
    if (fd >= 0 && get_route(fd, &route->peer, RTM_F_FIB_MATCH, &found) == 0) {
        identify(&now, &found);
        /* A failure leaves a metric behind that harms nobody, and there is nobody to tell. */
        if (same_route(&now, route) && has_quickack(&found))
            (void)replace_route(fd, &found, false);
    }
    if (fd >= 0)
        close(fd);
    pthread_mutex_unlock(&lock);
    free(route);
}

uint32_t pcmig_route_interface(const struct sockaddr_storage *peer)
{
    const struct rtattr *interface;
    struct message found;
    uint32_t index = 0;
    int fd = open_netlink();

    if (fd < 0)
        return 0;
    if (get_route(fd, peer, 0, &found) == 0 && (interface = find_attribute(&found, RTA_OIF)) != NULL &&
        RTA_PAYLOAD(interface) >= sizeof(index))
        memcpy(&index, RTA_DATA(interface), sizeof(index));
    close(fd);
    return index;
}

const char *pcmig_route_result_name(enum pcmig_route_result result)
{
    static const char *const names[] = {
        [PCMIG_ROUTE_OFF] = "off",       [PCMIG_ROUTE_SET] = "set",     [PCMIG_ROUTE_PRESENT] = "present",
        [PCMIG_ROUTE_DENIED] = "denied", [PCMIG_ROUTE_UNFIT] = "unfit",
    };
    _Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_ROUTE_COUNT, "every result has a name");

    return (unsigned)result < PCMIG_ROUTE_COUNT ? names[result] : "unknown";
}
