/*
 * A test case of a module while it runs.  Private to cases.c, cases_fake.c and cases_expect.c.
 */
#ifndef PROXY_CASES_PLAY_H
#define PROXY_CASES_PLAY_H

#include "conf/report.h"
#include "conf/source.h"
#include "net/redis.h"
#include "proxy/cases.h"
#include "proxy/chain.h"
#include "proxy/subrequest.h"

struct redis_call {
        struct redis_call *next;
        struct loop *loop; /* where it was asked */
        redis_fn *fn;
        void *arg;
};

/* One that was asked for; its head and answer live in the arena of the case. */
struct subrequest {
        struct subrequest *next;
        const struct subrequest_user *user;
        void *arg;
        weir_err error; /* it was refused */
        enum method method;
        uint64_t max_body;
};

/* One case while it runs.  There is at most one in a process. */
struct play {
        const weir_case *c;
        const struct module *m;
        struct arena *a;
        struct source source;
        str text; /* of the configuration */
        struct conf *conf;
        struct map *modules;
        struct store *store;
        struct loop *loop, *control;
        struct redis_conf *redises;
        struct upstream **upstreams; /* none of them is real */
        struct instance_set *set;
        struct report rep;
        /* Redis */
        str replies;              /* lines that are left */
        struct redis_call *calls; /* neither answered nor cancelled, oldest first */
        struct buf commands;      /* of this exchange, one per line */
        /* upstreams that functions ask */
        str answers;             /* that are left */
        struct subrequest *subs; /* neither answered nor cancelled, oldest first */
        struct buf asked;        /* of this exchange: lines as expectations have them */
        /* the exchange */
        struct request *r;
        struct txn txn;
        struct chain *chain;
        enum chain_result how;
        bool resumed;
        struct buf sent, got; /* the bodies as the server and the client have them */
        str verdict;
        struct case_result *out;
};

extern struct play cases_play;

/* The first thing that is wrong counts.  at: where in the texts of the case, or NULL. */
void cases_failed(struct play *p, const char *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
static inline bool cases_is_wrong(const struct play *p)
{
        return p->out->why.p != NULL;
}

str cases_next_line(str *rest);
/* The part before the next line that begins with "--"; *gap is how much time passes after it. */
str cases_next_part(str *rest, str *gap);
/* A message's head as it is on the wire: "\n" becomes "\r\n", and there is one empty line at the
 * end; *body is what follows that, without the end of its last line. */
str cases_head(struct play *p, str text, str *body);

/* ---- cases_fake.c: what stands in for Redis and upstreams. */
extern const struct redis_calls cases_redis;
extern const struct subrequest_calls cases_subrequests;
/* The oldest call that waits gets what the case says next. */
void cases_answer_redis(struct play *p);
void cases_answer_http(struct play *p);

/* ---- cases_expect.c: fails the case for the first of these lines that does not hold. */
void cases_expect(struct play *p, str expect);

#endif
