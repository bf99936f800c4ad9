/*
 * Inside of the action `proxy`: what origin.c (attempts of a request) and origin_answer.c (what
 * becomes of an answer) share.
 */
#ifndef PROXY_ORIGIN_TYPE_H
#define PROXY_ORIGIN_TYPE_H

#include "base/check.h"
#include "http/client.h"
#include "proxy/origin.h"
#include "proxy/pool.h"
#include "proxy/upstreams.h"

enum origin_state {
        ORIGIN_QUEUED,
        ORIGIN_FAILED,
        ORIGIN_CONNECTING,
        ORIGIN_RUNNING,
        ORIGIN_WAITING,
        ORIGIN_OVER
};

#define ORIGIN_MAGIC UINT32_C(0x4f524947)
/* Invariant: sl is set from a pick until the attempt ends, and counts one request in flight there.
 * QUEUED: link is in ul->queue. FAILED: task is to tell.  CONNECTING: wait is in the pool. RUNNING:
 * x is on a connection.  WAITING: the server is left alone until deadline. */
struct origin {
        uint32_t magic;
        enum origin_state state;
        struct txn *t;
        struct upstream *u;
        struct upstream_loop *ul;
        const struct settings *eff;
        const struct origin_user *user;
        struct msg *req;
        struct server_loop *sl;
        struct pool_wait wait;
        struct exchange x;
        struct list link;
        struct deadline deadline; /* QUEUED, WAITING, or held */
        struct loop_task task;
        enum reason why;  /* FAILED */
        enum reason last; /* why the attempt before failed; NONE: there was none */
        bool starting;    /* inside origin_start: nobody may be called */
        bool head_given;
        bool by_grpc;   /* a call that may be sent again for its grpc-status */
        bool held;      /* its head is here, and nobody was told */
        bool fresh;     /* not on a kept connection */
        bool desperate; /* at a server that is ejected, because all are */
        uint32_t seen;  /* attempts that reached a server before this one */
        uint64_t key, sticky;
        struct tried tried;
        struct buf replay; /* the body, when it was buffered to be sent again */
};

static inline struct loop *origin_loop(const struct origin *o)
{
        return o->ul->loop;
}
static inline struct origin *origin_of(struct exchange *x)
{
        return CAST(struct origin, ORIGIN_MAGIC, x->user_ctx);
}

/* ---- origin.c */
void origin_over(struct origin *o); /* nothing more comes of it */
/* The attempt is over and counted; its server is let go. */
void origin_attempt_end(struct origin *o, enum server_result result);
/* Whether it may be sent again for this cause; sent: a server may have acted on it.  Takes one from
 * the budget when it says yes. */
MUST_CHECK bool origin_may_retry(struct origin *o, uint32_t class, bool sent);
/* The next attempt, after wait (us). */
void origin_again(struct origin *o, int64_t wait);

/* ---- origin_answer.c: what an exchange says of its answer */
void origin_on_head(struct exchange *x);
void origin_on_res_ready(struct exchange *x);

#endif
