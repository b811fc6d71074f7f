/* SPDX-License-Identifier: Apache-2.0 */
/* core/channels: which connections are the migration's, over all combinations of what is known of three. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/channels.h"

enum { ADDRESSES = 2, PORTS = 3, OWNERS = 3, KINDS = ADDRESSES * PORTS * OWNERS * 4, CONNECTIONS = 3 };

static const uint16_t ports[PORTS] = {49152, 49215, 6800};

static struct pcmig_endpoint place(uint8_t host, uint16_t port)
{
    return (struct pcmig_endpoint){.address = {[10] = 0xff, [11] = 0xff, [12] = 192, [15] = host}, .port = port};
}

static struct pcmig_connection kind(unsigned n)
{
    return (struct pcmig_connection){
        .peer = place((uint8_t)(1 + n % ADDRESSES), ports[n / ADDRESSES % PORTS]),
        .owner = (enum pcmig_owner)(n / ADDRESSES / PORTS % OWNERS),
        .before = n / ADDRESSES / PORTS / OWNERS % 2 != 0,
        .accepted = n / ADDRESSES / PORTS / OWNERS / 2 != 0,
        .mine = true, /* which is overwritten */
    };
}

/* What holds whatever is known. */
static void expect_sense(const struct pcmig_connection *c, enum pcmig_channels found, const struct pcmig_endpoint *ways,
                         size_t way_count)
{
    const struct pcmig_connection *first = NULL;

    for (size_t i = 0; i < CONNECTIONS; i++) {
        if (!c[i].mine)
            continue;
        assert_false(c[i].before || c[i].accepted);
        assert_true(c[i].owner != PCMIG_OWNER_OTHER);
        assert_true(way_count == 0 || pcmig_endpoint_fits(&c[i].peer, ways));
        if (first == NULL)
            first = &c[i];
        assert_memory_equal(c[i].peer.address, first->peer.address, sizeof(first->peer.address));
        assert_int_equal(c[i].owner, first->owner);
        if (c[i].owner == PCMIG_OWNER_UNKNOWN) /* two ports are two migrations */
            assert_int_equal(c[i].peer.port, first->peer.port);
        if (c[i].owner == PCMIG_OWNER_UNKNOWN && way_count == 0)
            assert_true(pcmig_channels_usual_port(c[i].peer.port));
    }
    assert_int_equal(found == PCMIG_CHANNELS_FOUND, first != NULL);
}

static void every_combination(void **state)
{
    const struct pcmig_endpoint way = place(2, 0);
    size_t seen[3] = {0};

    (void)state;
    for (unsigned n = 0; n < (unsigned)KINDS * KINDS * KINDS; n++) {
        for (size_t way_count = 0; way_count < 2; way_count++) {
            struct pcmig_connection c[CONNECTIONS] = {kind(n % KINDS), kind(n / KINDS % KINDS),
                                                      kind(n / KINDS / KINDS)};
            enum pcmig_channels found = pcmig_channels_choose(c, CONNECTIONS, &way, way_count);

            expect_sense(c, found, &way, way_count);
            seen[found]++;
        }
    }
    assert_true(seen[PCMIG_CHANNELS_NONE] > 0 && seen[PCMIG_CHANNELS_FOUND] > 0 && seen[PCMIG_CHANNELS_UNCLEAR] > 0);
}

static struct pcmig_connection to(uint8_t host, uint16_t port, enum pcmig_owner owner)
{
    return (struct pcmig_connection){.peer = place(host, port), .owner = owner};
}

static void expect(struct pcmig_connection a, struct pcmig_connection b, const char *mine)
{
    struct pcmig_connection both[] = {a, b};
    enum pcmig_channels found = pcmig_channels_choose(both, 2, NULL, 0);

    assert_int_equal(both[0].mine, mine[0] == '1');
    assert_int_equal(both[1].mine, mine[1] == '1');
    if (strcmp(mine, "??") == 0)
        assert_int_equal(found, PCMIG_CHANNELS_UNCLEAR);
}

static void what_tells(void **state)
{
    const enum pcmig_owner guest = PCMIG_OWNER_GUEST, unknown = PCMIG_OWNER_UNKNOWN;

    (void)state;
    expect(to(1, 49160, guest), to(2, 6800, guest), "10");  /* a disk */
    expect(to(1, 49160, guest), to(1, 49161, guest), "11"); /* a disk's copy shares the way */
    expect(to(1, 5000, guest), to(1, 5000, guest), "11");   /* a destination of other ports */
    expect(to(1, 5000, guest), to(2, 6800, guest), "??");
    expect(to(1, 49160, guest), to(2, 49160, guest), "??");
    expect(to(1, 49160, guest), to(2, 49160, unknown), "10"); /* another guest's */
    expect(to(1, 6800, guest), to(2, 49160, unknown), "??");  /* a disk, or a destination of other ports? */
    expect(to(1, 49160, unknown), to(1, 49160, unknown), "11");
    expect(to(1, 49160, unknown), to(1, 49161, unknown), "??"); /* two guests to one host */
    expect(to(1, 6800, unknown), to(1, 5000, unknown), "00");
}

static void expect_way(const char *uri, bool told, bool any_address, uint8_t last, uint16_t port)
{
    struct pcmig_endpoint way;

    assert_int_equal(pcmig_channels_way(uri, &way), told);
    assert_int_equal(way.any_address, any_address);
    assert_int_equal(way.address[15], last);
    assert_int_equal(way.port, port);
}

static void what_a_uri_tells(void **state)
{
    (void)state;
    expect_way(NULL, false, true, 0, 0);
    expect_way("", false, true, 0, 0);
    expect_way("tcp", false, true, 0, 0);
    expect_way("tcp://", false, true, 0, 0);
    expect_way("tcp://host", false, true, 0, 0);
    expect_way("tcp://host:49160", true, true, 0, 49160);
    expect_way("tcp:192.0.2.7", true, false, 7, 0);
    expect_way("tcp://192.0.2.7:49160/", true, false, 7, 49160);
    expect_way("tcp://192.0.2.7:0", true, false, 7, 0);
    expect_way("tcp://192.0.2.7:65536", true, false, 7, 0);
    expect_way("tcp://192.0.2.7:4916x", true, false, 7, 0);
    expect_way("tcp://192.0.2.777", false, true, 0, 0);
    expect_way("tcp://[2001:db8::9]", true, false, 9, 0);
    expect_way("tcp:[2001:db8::9]:49160?x=1", true, false, 9, 49160);
    expect_way("tcp://[2001:db8::9", false, true, 0, 0);
    expect_way("tcp://[]:7", true, true, 0, 7);
    expect_way("rdma://192.0.2.7:49160", true, false, 7, 49160);
}

/* Both families name an IPv4 address alike. */
static void an_address_fits(void **state)
{
    struct pcmig_endpoint way, peer = place(7, 49160);

    (void)state;
    peer.address[13] = 0;
    peer.address[14] = 2;
    assert_true(pcmig_channels_way("tcp://192.0.2.7", &way));
    assert_true(pcmig_endpoint_fits(&peer, &way));
    assert_true(pcmig_channels_way("tcp://[::ffff:192.0.2.7]:49160", &way));
    assert_true(pcmig_endpoint_fits(&peer, &way));
    assert_true(pcmig_channels_way("tcp://192.0.2.7:49161", &way));
    assert_false(pcmig_endpoint_fits(&peer, &way));
    assert_true(pcmig_channels_way("tcp://192.0.2.8", &way));
    assert_false(pcmig_endpoint_fits(&peer, &way));
    assert_true(pcmig_channels_way("tcp://name:49160", &way));
    assert_true(pcmig_endpoint_fits(&peer, &way));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_combination),
        cmocka_unit_test(what_tells),
        cmocka_unit_test(what_a_uri_tells),
        cmocka_unit_test(an_address_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
