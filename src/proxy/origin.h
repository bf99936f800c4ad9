/*
 * The action `proxy`: choose a server, get a connection, run the exchange, try again where that is
 * safe, until a response head is there or every attempt has failed.
 *
 *     flow -> origin_start -> balance -> pool (idle | connect | queue) -> exchange (h1_client) ->
 * flow
 */
#ifndef PROXY_ORIGIN_H
#define PROXY_ORIGIN_H

#include "proxy/txn.h"
#include "proxy/upstream.h"

struct origin;
struct origin_user {
        void (*interim)(struct txn *t, const struct msg *res); /* 1xx of the server */
        void (*head)(struct txn *t); /* t->r->res is there (as the server sent it, hop-by-hop not
                                        yet removed) */
        void (*res_ready)(struct txn *t);               /* more in r->res_body, or its end */
        void (*req_room)(struct txn *t);                /* r->req_body was taken from */
        void (*failed)(struct txn *t, enum reason why); /* before a head: answer for it (502 503
                                                           504); after: cut the response */
};

/* req: the head as it shall be sent (in the arena; hop-by-hop removed, forwarded fields set). Calls
 * of user never come from inside origin_start. retriable body: the request has no body, or what was
 * taken can be sent again (buffered). */
struct origin *origin_start(struct txn *t, struct upstream *u, const struct settings *eff,
                            struct msg *req, const struct origin_user *user);
void origin_req_ready(struct origin *o);
void origin_res_room(struct origin *o);
void origin_abort(struct origin *o, enum reason why); /* client gone, timeout: at once; no callback
                                                         follows.  Safe after the end. */

/* For upstream and tests: requests that wait here are given what has become free. */
struct upstream_loop;
void origin_serve(struct upstream_loop *ul);

#endif
