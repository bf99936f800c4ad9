/*
 * Modules in this process: opened from a private copy, checked, counted, closed at zero (core-notes
 * B).
 *
 * The difficulty: dlopen compares names and inodes, so a new version is seen only under a name
 * never used before; and dlclose that succeeds may leave the object mapped.  Control thread only
 * (or the checker's main thread).
 */
#ifndef MODULE_MODULE_H
#define MODULE_MODULE_H

#include "base/arena.h"
#include "base/buf.h"

#include <weir/module.h>

#define MODULE_NAME_MAX 64

/* What a module is opened from.  path is a uniquely named copy that stays until the last drop
 * ("/var/cache/weir/modules/x.0123456789ab.7.so", or "/proc/self/fd/N" of a sealed memfd whose
 * descriptor stays open). */
struct module_file {
        str name;   /* in the configuration; absent: whatever it calls itself */
        str origin; /* the installed file, for messages */
        str bytes;  /* its content, as in the bundle */
        const char *path;
};

struct module {
        uint32_t magic, refs;
        str name, origin;
        uint8_t sha[32];
        char id[13];   /* first 12 hex digits of sha */
        uint32_t copy; /* serial in this process: crumbs name it */
        const weir_module
                *desc;      /* a copy with this weir's struct sizes: tables have plain strides */
        const char *pinned; /* why it cannot be unloaded; NULL: it can */
        char build_id[41];
        void *handle;
        uintptr_t load_addr;
        /* private to module.c */
        struct module *next;
        struct arena *arena; /* of desc and the strings */
};
#define MODULE_MAGIC UINT32_C(0x4d4f4455)

/* What a thread does in a module: the last byte of a crumb. */
enum module_phase {
        MODULE_LOAD = 1,
        MODULE_CREATE,
        MODULE_LOOP_INIT,
        MODULE_REQUEST,
        MODULE_RESPONSE,
        MODULE_COMPLETION,
        MODULE_WORK,
        MODULE_LOG,
        MODULE_LOOP_FINI,
        MODULE_DESTROY,
        MODULE_DROP,
        MODULE_REQUEST_BODY,
        MODULE_RESPONSE_BODY,
        MODULE_PHASES
};
const char *module_phase_name(unsigned phase); /* "on_request"; never NULL */

/* The same content already open: shared, one more reference.  NULL: *error says why, naming file
 * and the rule. */
MUST_CHECK struct module *module_open(const struct module_file *f, const weir_host *host,
                                      struct arena *a, str *error);
void module_drop(struct module *m); /* closes at zero; checks that it is gone; pinned ones stay */
struct module *module_hold(struct module *m);
/* The one open under that serial (of a crumb), or NULL. */
const struct module *module_by_copy(uint32_t copy);
/* Those open now, for status; returns how many. */
size_t module_list(const struct module **out, size_t max);
/* Where in the program an address is: "usleep+0x2c (libc.so.6)", or object and offset, as functions
 * of a module are hidden.  Any thread. */
void module_put_place(struct buf *b, const void *address);
unsigned module_leaked(void); /* copies that dlclose left mapped */

/* ELF lint over the bytes (pure, fuzzed): refuses what cannot be unloaded or weakens the process;
 * see module/elf.h. */

#endif
