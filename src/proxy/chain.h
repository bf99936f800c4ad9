/*
 * The functions of a request, in order for the request and in reverse for the response; suspending,
 * deadlines, on_error, breadcrumbs.
 */
#ifndef PROXY_CHAIN_H
#define PROXY_CHAIN_H

#include "net/redis.h"
#include "proxy/txn.h"

struct instance; /* one function of a generation: struct function_conf that was created, see api.h
                  */
struct instance_set;     /* all of a generation */
struct subrequest_calls; /* subrequest.h */
struct upstream;

enum chain_result {
        CHAIN_CONTINUE, /* all have run */
        CHAIN_RESPOND,  /* r->res and r->res_body hold an answer (reply_fill); t->reason says
                           FUNCTION, RATE_LIMITED, FUNCTION_ERROR ... */
        CHAIN_WAIT, /* suspended: user->resumed comes, never from inside the call that returned this
                     */
        CHAIN_CUT   /* a response function failed closed, or a body is larger than a function takes:
                       answer t->reason instead, or cut the response whose head has gone */
};

struct chain;
struct chain_user {
        void (*resumed)(struct txn *t, enum chain_result how);
        /* For functions that read or change bodies; response: of which message. */
        /* All of the request's is wanted before the next function's turn: have it come.  NONE, or
         * why it cannot. */
        enum reason (*wanted)(struct txn *t);
        /* More in *r->to_server or r->res_body, or the end. */
        void (*ready)(struct txn *t, bool response);
        /* Bytes were taken of r->req_body or *r->from_server, or are wanted. */
        void (*room)(struct txn *t, bool response);
        /* Of a body that is passing: RESPOND or CUT (t->reason), as chain_request would say. */
        void (*decided)(struct txn *t, enum chain_result how);
};

/* NULL when the route (or host) has no functions: costs nothing. */
struct chain *chain_new(struct txn *t, struct function_conf *const *functions, size_t n,
                        const struct chain_user *user);
enum chain_result chain_request(struct chain *c);
/* Response hooks of the functions that were entered, in reverse, on t->r->res. */
enum chain_result chain_response(struct chain *c); /* CUT and RESPOND: once the answer stands in
                                                      r->res, call again for the functions left */
void chain_log(struct chain *c); /* on_log of each function of which a hook was called; drops what
                                    is outstanding */
void chain_cancel(
        struct chain *c); /* the client has gone: completions are dropped; chain_log still comes */

/* ---- instances: all functions of a generation. */
struct redis_calls { /* net/redis.h, or what a test case puts in its place */
        struct redis *(*get)(struct loop *l, const struct redis_conf *c);
        void (*drop)(struct redis *r);
        struct redis_call *(*command)(struct redis *r, const str *argv, size_t argc,
                                      int64_t timeout_us, redis_fn *fn, void *arg);
        struct redis_call *(*script)(struct redis *r, str script, const char *sha,
                                     const str *keys_and_args, size_t n_keys, size_t argc,
                                     int64_t timeout_us, redis_fn *fn, void *arg);
        void (*cancel)(struct redis_call *c);
};
struct instance_env { /* of this process */
        struct loop *control;
        struct loop **loops;
        unsigned n_loops;
        struct store *store;                        /* the local store */
        bool checker;                               /* no background work, no network */
        bool (*quarantined)(const uint8_t sha[32]); /* NULL: none */
        const struct redis_conf
                *redises; /* by store index; NULL: none can be reached (the checker) */
        const struct redis_calls *redis_calls; /* NULL: the real ones */
        struct upstream *const
                *upstreams; /* by upstream index, filled in before a loop begins; NULL: none */
        const struct subrequest_calls *subrequest_calls; /* NULL: the real ones */
};
/* Control thread: create for every function of c (linked already).  NULL: mistakes are in rep,
 * everything was destroyed again. */
struct instance_set *instances_create(struct instance_env *env, struct conf *c, struct report *rep);
void instances_destroy(struct instance_set *s); /* control thread, after every loop has ended */
bool instances_loop_begin(struct instance_set *s,
                          struct loop *l); /* loop_init of all; false: one failed (undone) */
void instances_loop_end(struct instance_set *s, struct loop *l); /* loop_fini */
/* Generation becomes active / is replaced: background tasks may begin / not yet begun ones are
 * dropped. */
void instances_activate(struct instance_set *s, struct loop *l);
void instances_retire(struct instance_set *s, struct loop *l);
uint32_t
instances_pending(const struct instance_set *s,
                  const struct loop *l); /* background tasks and waiters that hold the generation */
const struct conf_handles *
instances_handles(struct conf *c, struct map *modules,
                  struct arena *a); /* for conf_link_functions: map name -> struct module */
extern const weir_host api_host;    /* the table modules are opened with */

#endif
