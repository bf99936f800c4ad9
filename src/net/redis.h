/*
 * Redis: one pipelined connection per loop and store, deadlines for every command, a circuit that
 * opens.
 *
 * hiredis is used for the protocol only (redisReader); the socket is an io like any other.  Replies
 * are matched in order, so a command whose caller has given up stays in the queue and its late
 * reply is dropped.  Nothing ever blocks a loop.
 */
#ifndef NET_REDIS_H
#define NET_REDIS_H

#include "net/io.h"
#include "net/tls.h"

struct redis_conf {
        str name; /* of the redis block, for messages and metrics */
        struct addr addr;
        str host; /* host: a name to be resolved (addr.len 0) or absent */
        uint16_t port;
        const str *resolvers;
        size_t n_resolvers; /* for host; 0: the system's */
        str user, password;
        uint32_t database;
        struct tls_client *tls; /* NULL: plain */
        int64_t connect_us, command_us;
};

enum redis_type {
        REDIS_FAIL,
        REDIS_NIL,
        REDIS_INTEGER,
        REDIS_STRING,
        REDIS_STATUS,
        REDIS_ERROR,
        REDIS_ARRAY
};
struct redis_reply { /* valid during the callback */
        enum redis_type type;
        int64_t integer;
        str text; /* STRING STATUS ERROR; FAIL: why */
        enum { REDIS_UNAVAILABLE = 1, REDIS_TIMEOUT, REDIS_CLOSED } fail;
        size_t n;
        const struct redis_reply *elem;
};
typedef void redis_fn(const struct redis_reply *r, void *arg);

struct redis;
struct redis_call;

/* The client of this loop for this content of conf: shared by generations (found by hash), counted.
 */
struct redis *redis_get(struct loop *l, const struct redis_conf *c);
void redis_drop(
        struct redis *r); /* what waits still gets its answer; the connection goes with the last */
/* Another server from now on (a name's addresses are looked up by the client itself). */
void redis_set_addr(struct redis *r, const struct addr *a);

/* Queues a command; all of a turn leave in one write.  fn is called exactly once unless cancelled,
 * never inside this call (REDIS_UNAVAILABLE when the circuit is open is delivered at the end of the
 * turn).  timeout_us 0: the conf's. */
struct redis_call *redis_command(struct redis *r, const str *argv, size_t argc, int64_t timeout_us,
                                 redis_fn *fn, void *arg);
void redis_cancel(struct redis_call *c); /* fn will not be called */
/* Script by SHA, the text when the server does not know it.  sha: 40 hex digits of SHA-1 of script.
 * argc counts the keys and the arguments behind them.  script must stay until fn is called or the
 * call cancelled. */
struct redis_call *redis_script(struct redis *r, str script, const char *sha,
                                const str *keys_and_args, size_t n_keys, size_t argc,
                                int64_t timeout_us, redis_fn *fn, void *arg);
bool redis_ready(const struct redis *r); /* connected and the circuit is closed */

#endif
