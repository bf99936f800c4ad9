/*
 * Reading a configuration: text -> tokens -> tree -> model.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include "base/buf.h"
#include "conf/model.h"
#include "conf/source.h"

/* Reads path (absolute) and all it names.  All mistakes go to rep; NULL when there was an error.
 * prefix: absolute folder.  Functions are known by name only; their arguments come with
 * conf_link_functions.  Free with conf_free. */
struct conf *conf_read(struct source *src, str path, str prefix, struct report *rep);
/* The same, but gives what could be read even after mistakes, so that functions' arguments can be
 * checked in the same run: not to be run with.  NULL only when path itself cannot be read. */
struct conf *conf_read_all(struct source *src, str path, str prefix, struct report *rep);
void conf_free(struct conf *c); /* NULL is fine; instances must be destroyed before */

/* Finds the module of a name among those loaded; NULL: not there. */
typedef const struct module *conf_find_module(void *ctx, str name, const weir_module **desc);
/* Host handles for arguments of type REDIS, STORE, UPSTREAM and templates are what these return
 * (ctx is the caller's). */
struct conf_handles {
        weir_redis *(*redis)(void *ctx, const struct redis_store_conf *r);
        weir_upstream *(*upstream)(void *ctx, const struct upstream_conf *u);
        const weir_template *(*template)(void *ctx, const struct template *t);
        conf_find_module *find;
        void *ctx;
};
/* Compiles every function's arguments by its module's schema into inst.  false: mistakes are in
 * rep. */
MUST_CHECK bool conf_link_functions(struct conf *c, const struct conf_handles *h,
                                    struct report *rep);
/* For a function that finds a mistake in create: at is the address of a field of inst, or a byte of
 * its text; NULL: the whole function. */
void conf_function_error(const struct function_conf *f, const void *at, struct report *rep,
                         const char *text);

/* Path of the `control` line's socket, absolute, whatever other mistakes there are; absent when not
 * given. */
str conf_control_path(struct source *src, str path, str prefix, struct arena *a);

/* The effective configuration as text that reads back to the same (-T); secrets are masked. */
void conf_dump(const struct conf *c, struct buf *out);

#define CONF_CONTROL_DEFAULT "/run/weir/control.sock"

#endif
