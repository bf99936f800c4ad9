/*
 * Connections to servers: each loop keeps its own, the warm ones first, so that they are used and
 * the others time out.
 *
 * Nothing here locks, and nothing here knows a protocol: a connection says how many exchanges it
 * carries and how many more it may.  One that may carry more is filed in its server's list; one
 * that carries none is idle, which is bounded by keepalive.  While a connection comes about it
 * belongs to those who wait for it: one (HTTP/1), or as many as it is likely to carry (HTTP/2).
 */
#ifndef PROXY_POOL_H
#define PROXY_POOL_H

#include "http/client.h"
#include "proxy/server.h"

struct pool_conn;
/* c is connected and has room for one exchange at least, which is to be bound at once; or NULL and
 * why not, in words too. */
typedef void pool_done(void *arg, struct client_conn *c, enum reason why, str error);

/* One who waits for a connection.  Invariant: linked until done is called or it is cancelled. */
struct pool_wait {
        struct list link;
        struct pool_conn *pc; /* NULL: its connection has come, or not; it is about to be told */
        struct server_loop *sl;
        int64_t connect_us;
        str head; /* what the connection shall begin with; absent: nothing */
        pool_done *done;
        void *arg;
};

size_t pool_conn_size(void); /* for the slab they are kept in */

/* A connection that has room and began with head (a PROXY header; absent: with none), to be bound
 * at once; NULL: none. */
struct client_conn *pool_get(struct server_loop *sl, str head);
/* Waits for a new one; done follows, never inside this call.  false: *why at once.  head is copied.
 */
bool pool_connect(struct server_loop *sl, str head, int64_t connect_us, struct pool_wait *w,
                  pool_done *done, void *arg, enum reason *why);
/* The waiter has gone: done will not be called, and what nobody waits for is closed. */
void pool_cancel(struct pool_wait *w, enum reason why);
/* An exchange was bound to it: how long it may be idle afterwards. */
void pool_carries(struct client_conn *c, int64_t idle_us);
void pool_close_idle(struct server_loop *sl, enum reason why);

#endif
