/*
 * Generations: one compiled configuration with everything that belongs to it, immutable and
 * counted.
 *
 *   control thread: gen_build -> post gen_prepare to each loop -> all ready -> post gen_commit to
 * each loop
 *                                                             -> one failed -> gen_abort on each,
 * gen_free loops:          gen_commit makes it current; the old one ends on a loop when its last
 * request there is logged control thread: when every loop has acknowledged from its top level,
 * on_end is called, then gen_free
 *
 * A canary comes before the commit: gen_trial_begin lets a share of the clients in, gen_commit or
 * gen_trial_end closes it.  Listeners, their TLS and what servers are configured with stay those of
 * the current generation until then.
 *
 * No atomics per request: each loop counts its own.  What belongs to the process (upstreams, redis,
 * store) is only referred to.
 */
#ifndef PROXY_GEN_H
#define PROXY_GEN_H

#include "conf/conf.h"
#include "module/module.h"
#include "net/tls.h"
#include "proxy/chain.h"
#include "proxy/expiry.h"
#include "proxy/route.h"
#include "proxy/staple.h"
#include "proxy/trial.h"
#include "proxy/upstream.h"

/* This process, as generations see it.  Owned by worker or checker. */
struct house {
        struct loop *control;
        struct loop **loops;
        unsigned n_loops;
        struct upstreams *upstreams; /* NULL in the checker */
        struct store *store;
        bool checker;
        bool (*quarantined)(const uint8_t sha[32]);
        void (*module_opened)(struct house *h); /* before its test cases run; NULL: nobody asks */
        void (*gen_ended)(
                struct gen *g); /* control thread: every loop has let go; gen_free may follow */
        /* Path of the private copy of a module file's content for this process; NULL: *error.
         * (checker: memfd, worker: the master's copy) */
        const char *(*module_path)(struct house *h, const struct module_conf *m, str bytes,
                                   struct arena *a, str *error);
        void *ctx;
};

struct gen_loop { /* one loop's part; written by that loop only */
        /* Requests, handshakes ... that hold it here; only the loop writes. */
        _Atomic uint32_t live;
        bool prepared, current, retired, acked;
        bool trial;                /* on trial: a canary */
        struct gen_loop *canary;   /* of the current one: the one on trial; NULL: there is none */
        struct trial_share share;  /* on trial: who gets it */
        struct trial_tally *tally; /* of its last canary, on either side; owned */
        struct loop *loop;
        struct gen *gen;
        struct route_cells *cells; /* by route, bound on first use */
};

struct gen {
        uint32_t magic, number;
        struct house *house;
        struct conf *conf;
        struct route_table *routes;
        struct tls_server **tls;    /* by listen index; NULL: plain */
        struct tls_pair *tls_pairs; /* by number of the certificate */
        struct staples staples;
        struct expiry expiry;
        struct tls_server *
                *host_tls; /* by listen index, then the host's tls_index; NULL: not there */
        struct upstream **upstreams; /* by upstream index */
        struct tls_client **upstream_tls;
        struct redis_conf *redises; /* by store index */
        struct module **modules;
        size_t n_modules;
        struct instance_set *instances;
        struct downstream_conf
                *listens; /* by listen index; one more for connections whose listener has gone */
        uint32_t *route_base; /* by host index: number of its first route among all */
        uint32_t n_routes;
        struct gen_loop *per_loop; /* n_loops */
        uint32_t acks;             /* control thread */
        int64_t made;              /* wall, us */
};
#define GEN_MAGIC UINT32_C(0x47454e21)

/* Control thread.  NULL: all mistakes are in rep and everything is undone. */
struct gen *gen_build(struct house *h, uint32_t number, struct source *src, str path, str prefix,
                      struct report *rep);
void gen_free(struct gen *g);
/* What a client of that store needs; .tls is the caller's.  false: the mistake is in rep. */
MUST_CHECK bool gen_redis_conf(const struct conf *c, const struct redis_store_conf *r,
                               struct redis_conf *out, struct report *rep);
/* Loop threads. */
bool gen_prepare(struct gen *g, struct loop *l);
void gen_abort(struct gen *g, struct loop *l);
void gen_commit(struct gen *g, struct loop *l);
/* Prepared, but not committed: a share of the clients gets it; another share; nobody any more.
 * After the end it goes away as a replaced one does. */
void gen_trial_begin(struct gen *g, struct loop *l, const struct trial_share *share);
void gen_trial_share(struct gen *g, struct loop *l, const struct trial_share *share);
void gen_trial_end(struct gen *g, struct loop *l);
/* Control thread, before the commit of what was on trial: what it says of servers counts now. */
void gen_promote(struct gen *g);
struct gen_loop *gen_current(struct loop *l);              /* NULL before the first */
static inline uint32_t gen_live(const struct gen_loop *gl) /* any thread */
{
        return atomic_load_explicit(&gl->live, memory_order_relaxed);
}
static inline void gen_hold(struct gen_loop *gl)
{
        atomic_store_explicit(&gl->live, gen_live(gl) + 1, memory_order_relaxed);
}
void gen_drop(struct gen_loop *gl); /* may schedule the acknowledgement */
/* The listener of that address in generation g, or NULL (removed). */
const struct listen_conf *gen_listen(const struct gen *g, const struct addr *a);
/* Settings for a connection that was accepted on addr, of the newest generation of this loop.  NULL
 * before the first. */
const struct downstream_conf *gen_downstream(struct loop *l, const struct addr *addr);
/* Counts a finished request by route, status class and duration. */
void gen_count_request(const struct txn *t);

/* ---- gen_tls.c: what hosts ask of TLS. */
/* What is known of each certificate, whoever uses it; false: mistakes are in rep. */
MUST_CHECK bool gen_tls_prepare(struct gen *g, struct report *rep);
/* A listener's contexts, with all its hosts'; NULL: in rep. */
struct tls_server *gen_tls_listen(struct gen *g, const struct listen_conf *l, struct report *rep);
enum gen_fit {
        GEN_FITS,
        GEN_LAST,       /* too, but the client has not been asked for what it may show now */
        GEN_OTHER_NAME, /* the connection was made for a name of another policy */
        GEN_OUTDATED    /* and what it went through is asked of that name no more */
};
/* Did the connection go through what is asked of the host's clients (NULL: the listener's)? */
enum gen_fit gen_policy_fits(const struct gen *g, const struct listen_conf *listen,
                             const struct host_conf *host, const struct tls_facts *tls);

#endif
