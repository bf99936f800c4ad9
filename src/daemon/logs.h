/*
 * Log files: only the master, which may have the rights, opens them; workers get the descriptors.
 */
#ifndef DAEMON_LOGS_H
#define DAEMON_LOGS_H

#include "base/list.h"
#include "daemon/plan.h"

/* One access log file. */
struct log_file {
        struct list link;
        char path[PATH_MAX];
        int fd;
        bool fresh, leaving; /* as in sockets.h */
};

struct logs {
        struct list all;
        char error_path[PATH_MAX]; /* "stderr" until a plan says otherwise */
        int error_level;
        int next_error_fd; /* of the reload under way; -1: it stays where it is */
        int kept_fd; /* the number that the log writes to, once it is not standard error; -1 */
};

void logs_init(struct logs *l);
MUST_CHECK bool logs_prepare(struct logs *l, const struct plan *p, char *err, size_t cap);
void logs_commit(struct logs *l, const struct plan *p);
void logs_abort(struct logs *l);
/* Opens everything again; false: err names a file that stays the old one. */
bool logs_reopen(struct logs *l, char *err, size_t cap);
bool logs_send(const struct logs *l, int channel, bool fresh_only); /* access logs */
bool logs_send_error(const struct logs *l, int channel);

#endif
