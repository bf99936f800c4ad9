/*
 * One server of an upstream at run time: whether it may be used, how it does, and its connections
 * on each loop.
 *
 * States are facts side by side, not a list: what active checks say (down), what an operator says
 * (down, drain), and until when it is ejected for failing.  Loops read them with relaxed atomics;
 * every change moves the epoch of all upstreams, which is how loops learn that their lists of
 * candidates are stale.
 *
 * Life: made by the control thread for an upstream's set and found again by name, address and what
 * shapes a connection, so that a reload keeps it.  When no set holds it any more it is retired:
 * each loop closes its idle connections, and answers when nothing there refers to it; then the
 * control thread frees it.  A retired server never comes back.
 */
#ifndef PROXY_SERVER_H
#define PROXY_SERVER_H

#include "base/addr.h"
#include "base/log.h"
#include "base/reason.h"
#include "conf/model.h"
#include "net/loop.h"
#include "net/tls.h"
#include "proxy/inflight.h"

struct upstreams;
struct upstream_conf;
struct health;
struct server;

enum { SERVER_CHECK_DOWN = 1, SERVER_ADMIN_DOWN = 2, SERVER_ADMIN_DRAIN = 4 };

/* What became of an attempt: labels of weir_upstream_requests_total and
 * weir_upstream_connects_total. */
enum server_result {
        SERVER_1XX,
        SERVER_2XX,
        SERVER_3XX,
        SERVER_4XX,
        SERVER_5XX,
        SERVER_CONNECT_ERROR,
        SERVER_TIMEOUT,
        SERVER_RESET,
        SERVER_BAD_RESPONSE,
        SERVER_ABORTED,
        SERVER_RESULTS
};
enum server_connect {
        SERVER_CONNECT_OK,
        SERVER_CONNECT_FAILED,
        SERVER_CONNECT_TIMEOUT,
        SERVER_CONNECT_TLS,
        SERVER_CONNECTS
};

/* One loop's part of a server.  Belongs to that loop, but for idle_n (read by the control thread)
 * and msg (whoever posted it). */
struct server_loop {
        _Alignas(64) struct server *server;
        struct loop *loop;
        struct list idle;       /* of client_conn: those that have room; the pool's */
        struct list connecting; /* of pool_conn; the pool's */
        struct list link;       /* in the loop's list of servers with connections */
        _Atomic uint32_t idle_n, connections_n, streams_n;
        uint32_t likely; /* exchanges that a new connection is likely to carry */
        uint32_t holds;  /* connections and attempts here that refer to the server */
        bool retired;
        struct loop_msg msg; /* retire, and its answer */
        struct log_quota quota;
        metric_cell *requests[SERVER_RESULTS], *connects[SERVER_CONNECTS],
                *ejections; /* made at first use */
};

#define SERVER_MAGIC UINT32_C(0x53525652)
struct server {
        uint32_t magic;
        uint32_t uses; /* members of live sets; control thread */
        uint32_t acks; /* loops that have let go; control thread */
        uint32_t n_loops;
        struct upstreams *us;
        struct list link;    /* in the list of all */
        str key;             /* what it is found by */
        str upstream, label; /* label: the line as written, or "name/ip:port" */
        str line, host;      /* the line as written; its host alone, for SNI */
        char *subject;       /* "upstream users", for the log */
        struct addr addr;
        struct tls_client *tls; /* NULL: plain; held */
        enum upstream_protocol protocol;
        uint32_t proxy_version, proxy_tlvs; /* its PROXY header: as in upstream_conf */
        struct inflight inflight;
        uint64_t hash;   /* of its label: for consistent hashing */
        uint64_t sticky; /* value of a sticky cookie */

        /* Of the newest configuration. */
        _Atomic uint32_t keepalive;      /* idle connections for each loop */
        _Atomic uint32_t eject_failures; /* 0: never */
        _Atomic int64_t eject_for, slow_start;

        /* State. */
        _Atomic uint32_t flags;
        _Atomic uint32_t failures;     /* in a row */
        _Atomic uint32_t ejections;    /* in a row: exponent of the back-off */
        _Atomic int64_t ejected_until; /* loop time */
        _Atomic int64_t up_since;      /* it came back or was added then; 0: there from the start */
        _Atomic uint32_t head_us;      /* moving average until a response head; 0: not known */
        _Atomic int64_t head_at;       /* of the last sample */

        struct health *health;     /* control thread; NULL: no checks */
        bool was_ejected;          /* as last seen by the control thread */
        struct server_loop *loops; /* n_loops */
};

#define SERVER_EJECT_MAX (300 * SEC) /* longest ejection, unless for= is longer */

struct server_id {
        str upstream, label, line, host;
        struct addr addr;
        struct tls_client *tls;
        str key; /* of all that distinguishes it */
        enum upstream_protocol protocol;
        uint32_t proxy_version, proxy_tlvs;
};
/* Control thread.  Copies id. */
struct server *server_new(struct upstreams *us, const struct server_id *id);
char *server_subject(str upstream); /* "upstream NAME", malloc'd */
void server_free(struct server *s); /* nothing refers to it any more */
void server_configure(struct server *s, const struct upstream_conf *conf);
void server_retire(struct server *s);                             /* uses has fallen to zero */
void server_gauges(struct server *s, int64_t now, bool write_up); /* from time to time */

/* Any thread. */
static inline uint32_t server_flags(const struct server *s)
{
        return atomic_load_explicit(&s->flags, memory_order_relaxed);
}
static inline bool server_ejected(const struct server *s, int64_t now)
{
        return atomic_load_explicit(&s->ejected_until, memory_order_relaxed) > now;
}
const char *server_state(const struct server *s,
                         int64_t now); /* "up" "down" "ejected" "drain" "admin_down" */
/* Weight now: weight * SERVER_WEIGHT_ONE, less while it starts slowly (then *until is moved down to
 * when it should be asked again). */
#define SERVER_WEIGHT_ONE 128
uint32_t server_weight(const struct server *s, uint32_t weight, int64_t now, int64_t *until);
uint64_t
server_head_us(const struct server *s,
               int64_t now); /* average, halved for each 5 s without a sample; 0: not known */

/* Control thread: what checks and operators say. */
void server_check_down(struct server *s, const char *why);
void server_check_up(struct server *s, int64_t now);
void server_admin(struct server *s, uint32_t flags,
                  int64_t now); /* 0, SERVER_ADMIN_DOWN, SERVER_ADMIN_DRAIN */

/* Loops: what became of attempts. */
void server_succeeded(struct server_loop *sl, int64_t head_us);
void server_failed(struct server_loop *sl, const char *why); /* counts towards ejection */
void server_readmit(
        struct server_loop *sl); /* it did well although it was ejected: it is not any more */
enum server_result server_result_of(enum reason why);
enum server_result server_result_of_status(int status);
/* Is it the server's fault?  An end of a tunnel is not, nor that weir has no descriptors left. */
bool server_to_blame(enum reason why);
void server_count(struct server_loop *sl, enum server_result r);
void server_count_connect(struct server_loop *sl, enum server_connect r);

static inline struct server_loop *server_here(struct server *s, const struct loop *l)
{
        return &s->loops[l->index];
}
static inline void server_hold(struct server_loop *sl)
{
        sl->holds++;
}
void server_drop(struct server_loop *sl);

#endif
