/*
 * A request of weir's own to an upstream, asked for by a function: one exchange with its answer
 * collected whole.
 *
 *     task (http) -> subrequest_start -> origin -> balance, pool, codec ... -> done
 *
 * To the upstream it is a request like any other: balanced, counted in flight, retried, watched for
 * ejection.  It belongs to one loop, and to whoever started it until done has been called or it is
 * cancelled.
 */
#ifndef PROXY_SUBREQUEST_H
#define PROXY_SUBREQUEST_H

#include "proxy/txn.h"
#include "proxy/upstream.h"

#include <weir/module.h>

#define SUBREQUEST_BODY_MAX (64 * KIB) /* of an answer, where max_body says nothing */

struct subrequest;

struct subrequest_answer {      /* valid during the call */
        const struct msg *head; /* hop-by-hop fields removed; NULL: there is none, */
        const struct buf *body; /* } and */
        weir_err error;         /* } these say why */
        str why;                /* in words */
};

struct subrequest_user {
        /* It holds that many bytes of memory now; false: that is too much, and the answer is
         * WEIR_E_NOMEM. */
        bool (*room)(void *arg, size_t held);
        /* Once, never from inside start or cancel; it is gone when this returns. */
        void (*done)(void *arg, const struct subrequest_answer *a);
};

struct subrequest_ask { /* read in the call of start only */
        struct loop *loop;
        const struct upstream_conf *conf;
        struct upstream *upstream; /* NULL where requests are not real */
        const struct txn *parent;  /* of the request it is made for; NULL: background work */
        const weir_http_req *req;  /* of this version's size */
        const struct subrequest_user *user;
        void *arg;
};

/* The head that is sent, with what it is made of in t, in the arena.  Other than WEIR_OK: it cannot
 * be sent, for what the function has put into it (RFC 9110 5.5, 7.2, 7.6.1, 9.1). */
MUST_CHECK weir_err subrequest_head(const struct subrequest_ask *ask, struct arena *a,
                                    struct txn *t, struct msg *head);

struct subrequest_calls { /* the real ones, or what a test case puts in their place */
        /* Never calls ask->user->done from inside. */
        struct subrequest *(*start)(const struct subrequest_ask *ask);
        void (*cancel)(struct subrequest *s); /* aborted at once; done does not follow */
};
extern const struct subrequest_calls subrequest_calls;

#endif
