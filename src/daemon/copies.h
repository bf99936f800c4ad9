/*
 * Private copies of module files, from which workers open them: named files that the master writes
 * where programs may be mapped, or memory files.
 */
#ifndef DAEMON_COPIES_H
#define DAEMON_COPIES_H

#include "base/arena.h"
#include "base/list.h"
#include "module/module.h"

#include <limits.h>

#ifndef WEIR_LOCALSTATEDIR
#define WEIR_LOCALSTATEDIR "/var"
#endif
#define COPIES_DIR WEIR_LOCALSTATEDIR "/cache/weir/modules"

/* One copy, written once under a name never used again.  Owned by copies. */
struct copy {
        struct list link;
        uint8_t sha[32];
        char path[PATH_MAX];
        bool wanted; /* by the configuration in force or the one being prepared */
};

/* The master's.  Invariant: a file exists for each in all, from copies_make until copies_sweep. */
struct copies {
        struct list all;
        bool usable; /* the folder takes files that can be mapped as programs */
        uint32_t gid;
        bool has_gid;
        uint64_t serial;
};

/* As root only; prepares the folder and removes what dead masters left. */
void copies_open(struct copies *c, bool has_gid, uint32_t gid);
/* The copy of that content, made when there is none; NULL: there is no such place (use memory). */
struct copy *copies_make(struct copies *c, const char *name, const uint8_t sha[32], str bytes);
/* Unlinks what is neither wanted nor used(ctx, sha). */
void copies_sweep(struct copies *c, bool (*used)(void *ctx, const uint8_t sha[32]), void *ctx);
void copies_close(struct copies *c); /* unlinks all */

/* In a checker or worker: copies in sealed memory files whose descriptors stay open, so that their
 * names stay unique. */
struct memory_copies {
        struct list all;
};
void memory_copies_init(struct memory_copies *m);
/* "/proc/self/fd/N" in a; NULL: *error. */
const char *memory_copies_make(struct memory_copies *m, str bytes, struct arena *a, str *error);
/* Closes those of modules that are not open any more; does nothing once a copy has leaked. */
void memory_copies_sweep(struct memory_copies *m);

#endif
