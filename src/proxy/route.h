/*
 * From host and path to a route: exact host names, then the longest *.suffix, then *; in a host the
 * first route in written order that matches.  The index may never change that answer.
 */
#ifndef PROXY_ROUTE_H
#define PROXY_ROUTE_H

#include "base/reason.h"
#include "conf/model.h"

struct route_table; /* immutable, shared by threads; lives as long as its conf */

struct route_table *route_table_new(const struct conf *c);
void route_table_free(struct route_table *t);

struct route_match {
        const struct host_conf *host;
        const struct route_conf *route;
        size_t rest;                /* prefix routes: where $path_rest begins in path */
        struct regex_captures caps; /* regex routes; caps.n 0 otherwise */
};

/* Do all `when` lines of route hold? */
typedef bool route_when(void *ctx, const struct route_conf *route, enum reason *refused);

/* host: lower case, without port.  REASON_NONE and *out; or NO_HOST, NO_ROUTE, REGEX_LIMIT (then
 * out->route is not changed). */
enum reason route_find(const struct route_table *t, const struct listen_conf *listen, str host,
                       str path, route_when *when, void *ctx, struct route_match *out);

/* Routes of h of which nothing is known in advance: tried on every request.  For `-t` to say so. */
size_t route_always_tried(const struct route_table *t, const struct host_conf *h,
                          const uint32_t **routes);

#endif
