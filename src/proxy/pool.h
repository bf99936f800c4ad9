/*
 * Connections to servers: each loop keeps its own, idle ones newest first, so that the warm ones
 * are used and the others time out.
 *
 * Nothing here locks.  The holder of a connection is its exchange; between two it is idle here;
 * while it connects, the waiter that asked for it.
 */
#ifndef PROXY_POOL_H
#define PROXY_POOL_H

#include "http/h1_client.h"
#include "proxy/server.h"

struct pool_conn;
/* c is connected, or NULL and why not, in words too. */
typedef void pool_done(void *arg, struct h1_client *c, enum reason why, str error);

size_t pool_conn_size(void); /* for the slab they are kept in */

/* An idle connection, taken out; NULL: none. */
struct h1_client *pool_get(struct server_loop *sl);
/* Starts a new one; done follows, never inside this call.  NULL: *why at once. */
struct pool_conn *pool_connect(struct server_loop *sl, int64_t connect_us, pool_done *done,
                               void *arg, enum reason *why);
/* The waiter has gone: closed, done will not be called. */
void pool_cancel(struct pool_conn *pc, enum reason why);
/* How long it may be idle after the exchange that it is about to carry. */
void pool_set_idle(struct h1_client *c, int64_t idle_us);
void pool_close_idle(struct server_loop *sl, enum reason why);

#endif
