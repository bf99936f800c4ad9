/*
 * Files with certificates and their like: the master sees when one changes, and reloads.
 *
 * Belongs to struct master.  Nothing of what is in them is understood here: contents are compared
 * by their digest, and whether a new one holds the checker finds out, as for any other reload.
 */
#ifndef DAEMON_WATCH_H
#define DAEMON_WATCH_H

#include "base/defs.h"

#include <stddef.h>
#include <stdint.h>

struct master;

struct watch_file {
        char *path;
        uint8_t sha[32]; /* of what was tried last */
};

/* Invariant: fd is open, and files are those of the plan in force, while there are any. */
struct watch {
        int fd; /* inotify on the folders; -1: none */
        struct watch_file *files;
        size_t n_files;
        int64_t first; /* of the changes that are being waited for; 0: there were none */
        bool ours;     /* the reload under way was started here */
        bool complained;
};

void watch_begin(struct master *m);
/* A plan was adopted: its files are watched from now on, and compared once, for they may have
 * changed since they were read. */
void watch_adopted(struct master *m);
/* A reload has ended. */
void watch_reload_done(struct master *m, bool ok);

/* The folders that must be watched for a path to be seen changing: its own, and those of every
 * symbolic link on the way.  Calls fn for each; some may come twice. */
void watch_folders(const char *path, void (*fn)(const char *folder, void *arg), void *arg);

#endif
