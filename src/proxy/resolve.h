/*
 * Names of server lines, resolved again by their TTL.  Control thread only.
 *
 * A name is asked once for all upstreams that use it, and the last good answer stays in force when
 * asking fails, so that neither a reload nor a resolver's death takes servers away.
 */
#ifndef PROXY_RESOLVE_H
#define PROXY_RESOLVE_H

#include "proxy/upstreams.h"

struct name;

/* One server line that is a name.  Owned by its upstream. */
struct name_use {
        struct list link;  /* of the name's users */
        struct name *name; /* NULL: the line is an address */
        struct upstream *u;
        int64_t floor; /* resolve=: not asked again sooner */
};

void resolve_begin(struct name_use *nu, struct upstream *u, str host, int64_t floor);
void resolve_end(struct name_use *nu);
/* Addresses without port, in a fixed order; *n 0: none are known.  *answered: it was tried already.
 */
const struct addr *resolve_addrs(const struct name_use *nu, size_t *n, bool *answered);
const char *resolve_error(const struct name_use *nu); /* of the last try; NULL: it went well */
/* Other resolvers: every name is asked again. */
void resolve_servers(struct upstreams *us, const str *servers, size_t n);
void resolve_free(struct upstreams *us);

#endif
