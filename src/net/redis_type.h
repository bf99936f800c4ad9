/*
 * What redis.c (the connection and its circuit) and redis_call.c (commands and their answers)
 * share.
 */
#ifndef NET_REDIS_TYPE_H
#define NET_REDIS_TYPE_H

#include "net/dns.h"
#include "net/redis_wire.h"

#define REDIS_SETTLED      (1 * SEC) /* a connection that lived so long is replaced without waiting */
#define REDIS_GREETING_MAX 4

enum redis_state { DOWN, CONNECTING, GREETING, READY };
enum redis_result {
        RESULT_OK,
        RESULT_ERROR,
        RESULT_TIMEOUT,
        RESULT_UNAVAILABLE,
        RESULT_CLOSED,
        REDIS_RESULTS
};

/* Invariant: linked in sent, waiting or failing of its client; fn is NULL once its caller has had
 * its answer or has cancelled (then it is in sent, keeping its place). */
struct redis_call {
        struct list link;
        struct deadline deadline;
        struct redis *redis;
        redis_fn *fn;
        void *arg;
        int64_t begun;
        str script; /* absent: rest is the whole command */
        char sha[40];
        uint32_t words; /* of a script's command */
        uint8_t fail;   /* why it is in failing */
        bool waiting;
        char *rest; /* encoded words that may have to be sent later or again */
        size_t rest_n;
        char small[160]; /* rest, if it fits */
};

struct redis {
        struct io io;
        struct list link; /* in loop->redises */
        struct loop *loop;
        uint8_t key[32];
        unsigned refs;
        /* What it was made from; copies. */
        char *name, *host, *user, *password, *subject;
        struct addr addr;
        uint16_t port;
        uint32_t database;
        struct tls_client *tls;
        int64_t connect_us, command_us;

        enum redis_state state;
        bool open;  /* the circuit */
        bool stale; /* to be replaced by a new connection as soon as nothing waits for this one */
        bool connect_due, flush_due;
        struct redis_wire *wire;
        struct list sent, waiting, failing;
        unsigned n_sent, n_waiting;
        const char *greeting[REDIS_GREETING_MAX];
        unsigned greeting_n, greeting_i;
        struct deadline connect_timer, retry_timer;
        int64_t backoff, ready_at;
        unsigned failures; /* since the last success */
        int64_t window;
        unsigned window_all, window_failed;
        char why[200]; /* of the last failure */
        /* Of a server given by name; dns is NULL otherwise. */
        struct dns *dns;
        struct deadline name_timer;
        struct addr addrs[8]; /* what the name has */
        unsigned n_addrs, addr_i;
        bool asking, name_ending;
        int64_t asked, name_retry;

        struct loop_task task;
        metric_cell *count[REDIS_RESULTS], *duration, *up;
};

/* redis.c */
void redis_at_end_of_turn(struct redis *r);
void redis_succeeded(struct redis *r);
void redis_failed(struct redis *r, const char *what); /* a command did; may end the connection */

/* redis_name.c */
void redis_name_begin(struct redis *r, const str *resolvers, size_t n);
void redis_name_failed(struct redis *r); /* no connection: another address, or ask anew */
void redis_name_end(struct redis *r);

/* redis_call.c */
void redis_call_fail(struct redis_call *c, int fail); /* to be told at the end of the turn */
void redis_calls_deliver(struct redis *r);            /* tells those that have failed */
void redis_calls_send(struct redis *r);               /* what waits goes into the pipeline */
void redis_calls_answered(struct redis *r,
                          const struct redis_reply *reply); /* the first in the pipeline */
bool redis_calls_wanted(const struct redis *r);             /* somebody still waits for an answer */
void redis_calls_thread_end(void); /* frees recycled calls, if all have come back */

#endif
