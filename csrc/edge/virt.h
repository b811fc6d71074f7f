/* SPDX-License-Identifier: Apache-2.0 */
/* Every call to libvirt, behind types of our own.
 *
 * All functions that take a `struct pcmig_virt_error` return 0 (or a pointer) on success and -1 (or NULL) on failure
 * with the error filled in. They may block for as long as libvirt does (keepalive breaks a dead connection after about
 * 12 s); none may be called with the GIL held, from an event callback, or, but through engine/ask.h, by the control
 * thread once a migration runs. API level: libvirt >= 8.0.
 */
#ifndef PCMIG_EDGE_VIRT_H
#define PCMIG_EDGE_VIRT_H

#include "core/halves.h"
#include "core/input.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCMIG_VIRT_UUID_SIZE 37 /* text form with its NUL */

struct pcmig_virt_error {
    int code;   /* virErrorNumber; 0 = no error */
    int domain; /* virErrorDomain */
    char message[512];
};

/* What a libvirt error means to a caller; the rows are in virt.c. */
enum pcmig_virt_failure {
    PCMIG_VIRT_FAILURE_OTHER = 0,
    PCMIG_VIRT_FAILURE_CONNECT,     /* no connection, or it broke */
    PCMIG_VIRT_FAILURE_NO_DOMAIN,   /* the guest is not known there */
    PCMIG_VIRT_FAILURE_UNSUPPORTED, /* this libvirt, QEMU or guest cannot do it */
    PCMIG_VIRT_FAILURE_INVALID,     /* not in the guest's present state */
    PCMIG_VIRT_FAILURE_DENIED,      /* authentication or access */
    PCMIG_VIRT_FAILURE_BUSY,        /* another job holds the guest's lock: worth a retry */
};

enum pcmig_virt_failure pcmig_virt_classify(const struct pcmig_virt_error *error);

/* An error of our own, in libvirt's terms, so that callers need to know one kind only. */
void pcmig_virt_error_set(struct pcmig_virt_error *error, enum pcmig_virt_failure failure, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Says what was being done with URI: libvirt's own text may name a socket or an address, and seldom the host. */
void pcmig_virt_error_explain(struct pcmig_virt_error *error, const char *what, const char *uri);

struct pcmig_virt_conn;
struct pcmig_virt_domain;

/* Tells that the process runs libvirt's default event loop by itself (virEventRunDefaultImpl), so that pcmig_virt_init
 * starts no thread for it. Returns false when that thread runs already. */
bool pcmig_virt_share_event_loop(void);

/* Starts libvirt's event loop on a thread of its own, once per process. */
int pcmig_virt_init(struct pcmig_virt_error *error);

/* Opens a connection with keepalive, waiting TIMEOUT_MS at the most. libvirt cannot cancel an open: after a timeout it
 * is left to a thread that closes it should it ever succeed. */
struct pcmig_virt_conn *pcmig_virt_open(const char *uri, int64_t timeout_ms, struct pcmig_virt_error *error);

/* The same without waiting. DONE(OPAQUE), which may be NULL, is called once, on a thread of the attempt's own, when it
 * is over, even when nobody waits for it any more. NULL with ERROR, and no call of DONE, when it cannot begin. */
struct pcmig_virt_opening;
struct pcmig_virt_opening *pcmig_virt_open_begin(const char *uri, void (*done)(void *opaque), void *opaque,
                                                 struct pcmig_virt_error *error);
/* Whether it is over; then CONN is the connection, or NULL with ERROR, and OPENING is gone. */
bool pcmig_virt_open_poll(struct pcmig_virt_opening *opening, struct pcmig_virt_conn **conn,
                          struct pcmig_virt_error *error);
void pcmig_virt_open_abandon(struct pcmig_virt_opening *opening); /* NULL is fine */
void pcmig_virt_close(struct pcmig_virt_conn *conn);              /* NULL is fine */

/* Versions as major * 1000000 + minor * 1000 + micro: of the daemon and of its default QEMU. 0 = not reported. */
int pcmig_virt_versions(struct pcmig_virt_conn *conn, unsigned long *libvirt, unsigned long *qemu,
                        struct pcmig_virt_error *error);

/* NAME is a name, UUID or id, as virsh takes them. */
struct pcmig_virt_domain *pcmig_virt_lookup(struct pcmig_virt_conn *conn, const char *name,
                                            struct pcmig_virt_error *error);
void pcmig_virt_domain_free(struct pcmig_virt_domain *domain); /* NULL is fine */
const char *pcmig_virt_domain_name(const struct pcmig_virt_domain *domain);
const char *pcmig_virt_domain_uuid(const struct pcmig_virt_domain *domain);
int pcmig_virt_domain_persistent(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error); /* 1, 0 or -1 */
/* Whether the guest runs in software emulation (TCG): 1, 0, or -1 on error. */
int pcmig_virt_domain_emulated(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error);
/* Memory that the guest may have at the most; 0 when libvirt does not tell. */
uint64_t pcmig_virt_domain_memory_bytes(struct pcmig_virt_domain *domain);
/* Virtual processors of a guest that runs; 0 = libvirt does not tell. */
int pcmig_virt_domain_vcpus(struct pcmig_virt_domain *domain);
/* As the destination takes it, with what is secret in it. free() it. */
char *pcmig_virt_migratable_xml(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error);
char *pcmig_virt_domain_xml(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error); /* free() it */

/* What a host says of a guest, all of it at once. */
struct pcmig_virt_guest {
    enum pcmig_half half;
    bool runs_on;            /* its processors run although its post-copy was interrupted. Of the source's half that is
                              * so of a guest that turned back, and of no other */
    bool running;            /* its processors run here, as far as libvirt knows */
    bool left_over;          /* the host has it shut off because it was migrated away */
    bool shut_down;          /* the host has it shut off, and says that it was shut down, by itself or on request: no
                              * crash, nor destroyed, nor moved. It may have been long ago */
    bool stopped_to_migrate; /* it is stopped, and by libvirt for a migration rather than by a user or an I/O error */
};

/* Of the guest with this UUID on CONN. "no such guest" is not an error: its half is PCMIG_HALF_ABSENT. */
int pcmig_virt_guest(struct pcmig_virt_conn *conn, const char *uuid, struct pcmig_virt_guest *guest,
                     struct pcmig_virt_error *error);
/* The half alone. */
int pcmig_virt_half(struct pcmig_virt_conn *conn, const char *uuid, enum pcmig_half *half,
                    struct pcmig_virt_error *error);

/* The number that libvirt gave the guest when it was started; -1 = it is off, not known, or the host does not answer.
 */
int pcmig_virt_id(struct pcmig_virt_conn *conn, const char *uuid);

/* What is left of a guest (virt_definition.c). Whether it has a definition: 1, 0, or -1 where the host does not know
 * the guest or does not answer. */
int pcmig_virt_defined(struct pcmig_virt_conn *conn, const char *uuid);
/* Whether the host has a saved state of the guest (managed save): false where it does not know the guest or does not
 * answer. */
bool pcmig_virt_saved(struct pcmig_virt_conn *conn, const char *uuid);
/* Has the host forget what is left over, DEFINED or not; NVRAM and TPM state stay (libvirt >= 8.9). Returns whether it
 * has. Nobody may call this who has not asked core/guard.h. */
bool pcmig_virt_forget(struct pcmig_virt_conn *conn, const char *uuid, bool defined);

/* Whether the guest starts with the host: 1, 0 or -1. A guest without a definition never does. */
int pcmig_virt_autostart(struct pcmig_virt_conn *conn, const char *uuid, struct pcmig_virt_error *error);
int pcmig_virt_set_autostart(struct pcmig_virt_conn *conn, const char *uuid, bool on, struct pcmig_virt_error *error);

/* UUIDs of the guests that are active on CONN: COUNT of them, to be free()d as one block. Returns 0 or -1. */
int pcmig_virt_active(struct pcmig_virt_conn *conn, char (**uuids)[PCMIG_VIRT_UUID_SIZE], size_t *count,
                      struct pcmig_virt_error *error);

/* libvirt runs one job at a time for a guest, and a migration is but one kind of them. The others are somebody else's:
 * nothing of ours may take them for a migration, or end them. */
enum pcmig_virt_job_kind {
    PCMIG_VIRT_JOB_NONE = 0,
    PCMIG_VIRT_JOB_MIGRATION,
    PCMIG_VIRT_JOB_OTHER,
};

struct pcmig_virt_job {
    enum pcmig_virt_job_kind kind;
    const char *name;           /* of OTHER: "backup", static; otherwise NULL */
    bool lasts;                 /* of OTHER: it may well take longer than libvirt waits for it (30 s) */
    struct pcmig_sample sample; /* of MIGRATION: its statistics, queue_bytes = -1 */
};

/* The job that runs for the guest. Returns 0, or -1 on error (which says nothing about the migration: see
 * doc/develop/architecture.rst). */
int pcmig_virt_job(struct pcmig_virt_domain *domain, struct pcmig_virt_job *job, struct pcmig_virt_error *error);

/* pcmig_virt_job() for whom cannot wait: libvirt gives QEMU 30 s to answer. After PATIENCE_MS it fails with
 * PCMIG_VIRT_FAILURE_BUSY; the question, and its connection, then stay open until libvirt has an answer. */
int pcmig_virt_job_within(struct pcmig_virt_domain *domain, int64_t patience_ms, struct pcmig_virt_job *job,
                          struct pcmig_virt_error *error);

struct pcmig_virt_migrate_args {
    const char *dest_uri;
    unsigned int flags; /* VIR_MIGRATE_* as they go to libvirt */
    const char *migrate_uri;
    const char *dest_name;
    const char *listen_address;
    const char *disks_uri;
    const char *const *disks; /* NULL-terminated, or NULL = all */
    const char *dest_xml;
    const char *persist_xml;
    const char *tls_destination;
    int parallel_connections; /* 0 = libvirt's default */
    int bandwidth_mib;        /* 0 = unlimited */
    int postcopy_bandwidth_mib;
};

/* Blocks until libvirt is done with the migration. */
int pcmig_virt_migrate(struct pcmig_virt_domain *domain, const struct pcmig_virt_migrate_args *args,
                       struct pcmig_virt_error *error);
int pcmig_virt_start_postcopy(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error);
/* MIB = 0 means unlimited. POSTCOPY chooses which of the two bandwidths is set. */
int pcmig_virt_set_speed(struct pcmig_virt_domain *domain, int64_t mib, bool postcopy, struct pcmig_virt_error *error);
int pcmig_virt_set_max_downtime(struct pcmig_virt_domain *domain, int64_t downtime_ms, struct pcmig_virt_error *error);
/* Has QEMU sample for SECONDS (1 to 60) how much of its memory the guest writes to. Returns at once; 0, or -1 with
 * ERROR: another job runs for the guest, or libvirt (< 7.2) or QEMU (< 5.2) cannot. */
int pcmig_virt_sample_writes(struct pcmig_virt_domain *domain, int seconds, struct pcmig_virt_error *error);
/* What came of it, in bytes a second. Returns 1; 0 = not yet, or libvirt has no time to ask; -1 with ERROR. A query,
 * which a migration does not hinder. */
int pcmig_virt_sampled_writes(struct pcmig_virt_domain *domain, int64_t *bytes_ps, struct pcmig_virt_error *error);
/* The options of virsh migrate that repeat FLAGS in a resume ("--persistent", ...), static; returns how many. libvirt
 * takes what happens to the definitions from the call that ends the migration. */
#define PCMIG_VIRT_RESUME_OPTIONS 7
size_t pcmig_virt_resume_options(unsigned int flags, const char *out[PCMIG_VIRT_RESUME_OPTIONS]);
/* Cancels in pre-copy. libvirt itself refuses in post-copy, so no memory can be lost by it; a job that is no migration
 * is refused here, as libvirt would end whatever runs. SETTING_UP: also while nothing has moved yet; at the moment at
 * which QEMU begins, a cancellation can have it stand still for good (QEMU 11.1, 1 of about 10 tries within 1 ms), so a
 * caller that is not in a hurry waits for the first figures. PATIENCE_MS: as of pcmig_virt_job_within(); 0 = for as
 * long as QEMU takes. */
int pcmig_virt_abort(struct pcmig_virt_domain *domain, bool setting_up, int64_t patience_ms,
                     struct pcmig_virt_error *error);

/* Lets a paused guest run. Nobody may call this who has not asked core/guard.h. */
int pcmig_virt_resume(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error);
/* Ends what the host has of the guest (virDomainDestroy). Nobody may call this who has not asked core/guard.h. */
int pcmig_virt_destroy(struct pcmig_virt_conn *conn, const char *uuid, struct pcmig_virt_error *error);

/* Interrupts post-copy at the source: both QEMUs keep what they have, and wait to be resumed. libvirt >= 8.5. */
int pcmig_virt_pause_postcopy(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error);

/* Events of one guest. The callback runs on the event thread and must neither block nor call libvirt. INPUT's time is
 * not set. A broken connection is reported through `closed`. */
struct pcmig_virt_callbacks {
    void (*input)(void *opaque, const struct pcmig_input *input);
    void (*closed)(void *opaque);
    void (*release)(void *opaque); /* called once per pcmig_virt_watch, failed ones too, when no callback can follow */
};

struct pcmig_virt_watch;

/* Follows the guest with this UUID on CONN, as source or as destination (where it need not exist yet). */
struct pcmig_virt_watch *pcmig_virt_watch(struct pcmig_virt_conn *conn, const char *uuid, bool source,
                                          const struct pcmig_virt_callbacks *callbacks, void *opaque,
                                          struct pcmig_virt_error *error);
void pcmig_virt_unwatch(struct pcmig_virt_watch *watch); /* NULL is fine */
/* Its callbacks are called no more, from now on but for one that runs; asks nobody. NULL is fine. */
void pcmig_virt_watch_mute(struct pcmig_virt_watch *watch);

/* Whether the host has no guest with this UUID, and every event of one that it had before has been given to whoever
 * watches it on CONN. */
bool pcmig_virt_gone(struct pcmig_virt_conn *conn, const char *uuid);

#endif
