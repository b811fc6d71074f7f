/* SPDX-License-Identifier: Apache-2.0 */
/* The migrate call, which blocks until libvirt is done, and its resumption: on a thread and a connection of its own. */
#include "core/flags.h"
#include "edge/threads.h"
#include "engine/control.h"

#include <stdlib.h>
#include <string.h>

#define STACK_BYTES (512 * 1024)

struct call {
    struct pcmig_migration *m;
    struct pcmig_virt_conn *conn;     /* NULL = to be opened */
    struct pcmig_virt_domain *domain; /* likewise */
    const char *migrate_uri;          /* lives as long as the migration */
    int64_t bandwidth_mib;
    bool resume;
    bool stale; /* what it has of its own is older than a while of waiting, and may be broken: it opens anew */
};

static int open_own(struct call *call, struct pcmig_virt_error *error)
{
    if (call->stale) {
        pcmig_virt_domain_free(call->domain);
        pcmig_virt_close(call->conn);
        call->domain = NULL;
        call->conn = NULL;
    }
    if (call->conn == NULL)
        call->conn = pcmig_virt_open(call->m->args.source_uri, call->m->args.connect_timeout_ms, error);
    if (call->conn != NULL && call->domain == NULL)
        call->domain = pcmig_virt_lookup(call->conn, call->m->uuid, error);
    return call->domain != NULL ? 0 : -1;
}

static bool migrate(struct call *call, struct pcmig_virt_error *error)
{
    const struct pcmig_migration_args *args = &call->m->args;
    struct pcmig_virt_migrate_args to = {
        .dest_uri = args->dest_uri,
        .flags = args->flags | PCMIG_FLAG_LIVE | PCMIG_FLAG_PEER2PEER,
        .migrate_uri = call->migrate_uri,
        .dest_name = args->dest_name,
        .listen_address = args->listen_address,
        .disks_uri = args->disks_uri,
        .disks = args->disks,
        .dest_xml = args->dest_xml,
        .persist_xml = args->persist_xml,
        .tls_destination = args->tls_destination,
        .parallel_connections = args->parallel_connections,
        .bandwidth_mib = (int)call->bandwidth_mib,
        .postcopy_bandwidth_mib = args->postcopy_bandwidth_mib,
    };

    if (args->policy != PCMIG_POLICY_NEVER || call->resume)
        to.flags |= PCMIG_FLAG_POSTCOPY;
    if (call->resume)
        to.flags |= PCMIG_FLAG_POSTCOPY_RESUME;
    if (open_own(call, error) < 0)
        return false;
    if (!call->resume)
        pcmig_sampling_start(call->m, call->domain);
    return pcmig_virt_migrate(call->domain, &to, error) == 0;
}

static void end(struct call *call)
{
    pcmig_virt_domain_free(call->domain);
    pcmig_virt_close(call->conn);
    pcmig_migration_unref(call->m);
    free(call);
}

static void *call_main(void *arg)
{
    struct call *call = arg;
    struct pcmig_migration *m = call->m;
    struct pcmig_virt_error error = {0};
    bool succeeded = migrate(call, &error);

    pthread_mutex_lock(&m->lock);
    m->mailbox.call_returned = true;
    m->mailbox.call_succeeded = succeeded;
    m->mailbox.call_error = error;
    pthread_cond_broadcast(&m->cond);
    pthread_mutex_unlock(&m->lock);
    end(call);
    return NULL;
}

/* What is known of the guest, and is more than nothing. */
static void tell(struct control *c, enum pcmig_input_kind kind, int64_t number)
{
    struct pcmig_input input = {.t_us = pcmig_migration_now_us(c->m), .kind = kind, .code = number};

    if (number > 0)
        pcmig_control_feed(c, &input);
}

int pcmig_call_start(struct control *c, const char *resume_uri)
{
    struct pcmig_migration *m = c->m;
    struct call *call = calloc(1, sizeof(*call));

    if (call == NULL)
        return -1;
    call->m = pcmig_migration_ref(m);
    call->resume = resume_uri != NULL;
    call->bandwidth_mib = call->resume ? m->args.bandwidth_mib : pcmig_bandwidth_shared(c, c->bandwidth.precopy_mib);
    call->migrate_uri = resume_uri != NULL && resume_uri[0] != '\0' ? resume_uri : m->args.migrate_uri;
    if (!call->resume) {
        call->conn = m->call_conn;
        call->domain = m->call_domain;
        m->call_conn = NULL;
        m->call_domain = NULL;
        call->stale = c->others.waited;
        c->others.called_us = pcmig_migration_now_us(m);
        c->others.set_again = c->others.bound_mib > 0;
        pcmig_control_event(c, PCMIG_EVENT_MIGRATE_CALLED);
        tell(c, PCMIG_INPUT_HOST_PAGE, m->host_page_bytes);
        tell(c, PCMIG_INPUT_VCPUS, m->vcpus);
    }
    if (pcmig_thread_begin(STACK_BYTES, call_main, call) != 0) {
        end(call);
        return -1;
    }
    c->call = CALL_RUNS;
    return 0;
}
