/*
 * A plan: what the master must know of a configuration that it cannot read, in a layout that needs
 * no parser.
 *
 * Written by the checker while it still has the master's rights, before any module is loaded; read
 * by the master (and by workers) from a sealed memfd.  Every string in it ends with a NUL inside
 * its field once plan_map has accepted it.
 */
#ifndef DAEMON_PLAN_H
#define DAEMON_PLAN_H

#include "conf/model.h"

#include <limits.h>

enum plan_tickets { PLAN_TICKETS_OWN, PLAN_TICKETS_FILE, PLAN_TICKETS_REDIS };

struct plan_head {
        uint32_t magic, size;      /* size: of this struct */
        uint32_t threads, workers; /* threads 0: auto */
        uint32_t has_user, uid, gid;
        int32_t log_level;
        uint64_t store_size, max_connections;
        int64_t shutdown_timeout, drain_delay;
        uint32_t has_admin;
        struct addr admin;
        char error_log[PATH_MAX], pid_file[PATH_MAX], control[PATH_MAX];
        uint32_t n_listens, n_logs, n_modules;
        uint32_t n_fetches;
        uint32_t watched_bytes; /* 0: nothing is watched */
        uint32_t ticket_source; /* enum plan_tickets */
        int64_t ticket_rotate, ticket_check;
        char ticket_file[PATH_MAX];
};
#define PLAN_MAGIC UINT32_C(0x4e414c50)

struct plan_listen {
        struct addr addr;
        int32_t backlog;
        uint32_t v6only;
};

struct plan_log {
        char path[PATH_MAX]; /* "stdout", or absolute */
};

struct plan_module {
        char name[80], path[PATH_MAX];
        uint8_t sha[32];
};

/* Owns the mapping; everything else points into it. */
struct plan {
        const struct plan_head *head;
        const struct plan_listen *listens;
        const struct plan_log *logs;
        const struct plan_module *modules;
        const uint8_t (
                *fetches)[32]; /* names of the certificates whose OCSP responses are fetched */
        const char *watched; /* files with certificates and their like: SHA-256 of the content that
                                was read, then the absolute path and a NUL, one behind the other */
        str map;
};

struct plan_watched {
        const char *path;
        const uint8_t *sha;
};

/* shas: of each module's file, in the order of c->modules.  A sealed memfd; -1: *error names the
 * setting that does not fit. */
int plan_make(const struct conf *c, const uint8_t (*shas)[32], struct arena *a, str *error);
struct plan *plan_map(int fd);  /* NULL: not a plan */
void plan_free(struct plan *p); /* NULL is fine */
/* The entry at *at, which begins with 0 and moves on; false at the end. */
bool plan_watched_next(const struct plan *p, uint32_t *at, struct plan_watched *out);

#endif
