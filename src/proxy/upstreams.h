/*
 * Inside of the upstreams of this process: what upstream, server, pool, health and resolve share.
 *
 * The control thread owns all lists here.  A loop owns its element of every per-loop array.
 */
#ifndef PROXY_UPSTREAMS_H
#define PROXY_UPSTREAMS_H

#include "base/map.h"
#include "base/slab.h"
#include "proxy/balance.h"
#include "proxy/upstream.h"

/* One loop's part of all upstreams. */
struct upstreams_loop {
        _Alignas(64) struct slab connections; /* of struct pool_conn */
        struct list active; /* of server_loop: servers that have had connections here */
        bool closing;       /* the process drains: nothing is kept idle */
};

struct upstreams {
        struct loop *control, **loops;
        unsigned n_loops, worker;
        struct inflight_region *inflight;
        _Atomic uint64_t epoch; /* moves when the state of any server changes */
        struct upstreams_loop *per_loop;
        struct list upstreams;        /* of struct upstream */
        struct list servers, retired; /* of struct server */
        struct map *by_conf;          /* content of a block -> upstream */
        struct map *by_key; /* what distinguishes a server -> server, as long as uses > 0 */
        struct map *admin;  /* upstream NUL server -> flags by command */
        struct map *names;  /* resolve.c */
        struct dns *dns;    /* made when the first name is asked for, or by upstreams_resolvers */
        str resolvers;      /* their texts, each with a newline */
        bool new_resolvers; /* they are being replaced */
        struct deadline tick;
        bool stopping; /* upstreams_free is at work: nothing is published */
        bool trial;    /* what is held now is for a canary */
};

/* One loop's part of an upstream.  Belongs to that loop, but for queued (also read by the control
 * thread) and msg. */
struct upstream_loop {
        _Alignas(64) struct upstream *u;
        struct loop *loop;
        struct server_set *set;
        uint32_t begun;         /* generations that use it here */
        double tokens;          /* retries that the budget allows now: RETRY_TOKENS at most */
        struct list queue;      /* of origins that wait for a place, first come first */
        struct deadline poll;   /* places may become free on other loops */
        struct loop_task serve; /* or here, in this turn */
        _Atomic uint32_t queued;
        metric_cell *duration, *retries, *refused, *over_budget, *over_replay;
        struct log_quota quota;
        struct server_set *next; /* being published */
        struct loop_msg msg;
};

#define RETRY_TOKENS 10.0

struct name_use; /* resolve.h */

#define UPSTREAM_MAGIC UINT32_C(0x55505354)
/* Invariant: set is what a loop uses that has answered the last publication; the one before it
 * lives until all have. */
struct upstream {
        uint32_t magic, refs;
        struct upstreams *us;
        struct list link;
        str key; /* content of its block */
        str name;
        char *subject; /* "upstream users" */
        enum balance balance;
        str sticky_cookie, sticky_var; /* "SRV", "cookie_SRV"; absent: none */
        int64_t check_interval;
        struct upstream_conf conf; /* of its server lines and settings: what sets are made of; texts
                                      are its own */
        struct arena *arena;       /* of conf and the texts */
        struct tls_client *tls;
        struct name_use *name_uses; /* by server line; NULL where it is an address */
        struct server_set *set, *old;
        unsigned publishing; /* loops that have not answered */
        bool stale;          /* changed again meanwhile */
        bool trial;          /* only a canary has held it: what it says of servers counts not yet */
        metric_cell *idle_cell, *connections_cell, *streams_cell, *queued_cell;
        struct upstream_loop *loops;
};

static inline struct upstream_loop *upstream_here(struct upstream *u, const struct loop *l)
{
        return &u->loops[l->index];
}
/* Flags by command for whatever server comes under that name; 0: none. */
void upstreams_remember_admin(struct upstreams *us, str upstream, str server, uint32_t flags);
/* Control thread: names have other addresses now. */
void upstream_changed(struct upstream *u);

#endif
