/*
 * Where the configuration's files and environment come from: the file system (the checker, which
 * records all it reads into a bundle) or a bundle (workers).  conf reads nothing in any other way.
 */
#ifndef CONF_SOURCE_H
#define CONF_SOURCE_H

#include "base/arena.h"

struct source {
        /* Content of an absolute path, in a.  false: *error says why ("No such file or directory").
         */
        bool (*file)(struct source *s, str path, struct arena *a, str *content, str *error);
        /* Sorted absolute paths that match an absolute pattern; none is fine. */
        bool (*glob)(struct source *s, str pattern, struct arena *a, str **paths, size_t *n);
        bool (*env)(struct source *s, str name, str *value); /* false: unset */
        /* uid and gid of names; false: no such user or group. */
        bool (*user)(struct source *s, str user, str group, uint32_t *uid, uint32_t *gid);
};

/* What is in an open file, in a; false: *error says why. */
MUST_CHECK bool source_read(int fd, struct arena *a, str *content, str *error);

/* The live file system and environment. */
struct source *source_system(void);

#endif
