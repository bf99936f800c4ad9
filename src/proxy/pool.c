/*
 * Connections to servers, per loop (pool.h).
 *
 * The one difficulty: who owns a connection's record.  It lives from pool_connect until the client
 * says that the connection is gone or until it is closed here; each holds its server for so long.
 * Any call of a waiter may end it, so after one the connection itself is asked (its memory lives to
 * the end of the turn): without room it is of no use to the next waiter, without pool_ctx its
 * record is gone.
 *
 * A connection that began with a PROXY header is one client's: it carries only what has the same
 * header, byte for byte.
 */
#include "proxy/pool.h"

#include "base/check.h"
#include "http/h1_client.h"
#include "http/h2_client.h"
#include "proxy/upstreams.h"

#include <stdlib.h>

#define POOL_CONN_MAGIC UINT32_C(0x504f4f4c)
/* Invariant: filed, while its client's link is in sl->idle: it has room then.  idle: filed, and
 * counted as carrying nothing.  Waiters are there only while it connects. */
struct pool_conn {
        uint32_t magic;
        uint32_t n_waiters;
        struct server_loop *sl;
        struct client_conn *c;
        struct list waiters; /* of struct pool_wait */
        struct list link;    /* in sl->connecting */
        uint32_t busy;       /* as counted in streams_n */
        int64_t idle_us;
        str head; /* what it began with, malloc'd; absent: nothing */
        bool connecting, idle;
};

size_t pool_conn_size(void)
{
        return sizeof(struct pool_conn);
}

static struct pool_conn *conn_of(struct client_conn *c)
{
        return CAST(struct pool_conn, POOL_CONN_MAGIC, c->pool_ctx);
}

static struct upstreams_loop *here(struct server_loop *sl)
{
        return &sl->server->us->per_loop[sl->loop->index];
}

static uint32_t count(const _Atomic uint32_t *n)
{
        return atomic_load_explicit(n, memory_order_relaxed);
}

static void add(_Atomic uint32_t *n, int by) /* this loop alone writes it */
{
        atomic_store_explicit(n, count(n) + (uint32_t)by, memory_order_relaxed);
}

/* ------------------------------------------------------------------ filed or not */

static void unfile(struct pool_conn *pc)
{
        if (list_linked(&pc->c->link))
                list_remove(&pc->c->link);
        if (pc->idle) {
                pc->idle = false;
                add(&pc->sl->idle_n, -1);
        }
}

static void conn_end(struct pool_conn *pc)
{
        struct server_loop *sl = pc->sl;

        unfile(pc);
        if (list_linked(&pc->link))
                list_remove(&pc->link);
        add(&sl->connections_n, -1);
        add(&sl->streams_n, -(int)pc->busy);
        pc->c->pool_ctx = NULL;
        pc->magic = DEAD_MAGIC;
        free((char *)pc->head.p);
        slab_put(&here(sl)->connections, pc);
        server_drop(sl);
}

/* The connection goes before its hold of the server: it uses the server's TLS context. */
static void conn_close(struct pool_conn *pc, enum reason why)
{
        unfile(pc);
        client_close(pc->c, why);
        conn_end(pc);
}

/* It carries nothing: kept, or closed. */
static void file_idle(struct pool_conn *pc)
{
        struct server_loop *sl = pc->sl;
        bool end = sl->retired || here(sl)->closing;

        /* Those of clients that have gone would fill it for good: the longest idle one makes room.
         */
        if (pc->head.n && !end && !list_empty(&sl->idle) &&
            count(&sl->idle_n) >= count(&sl->server->keepalive))
                conn_close(conn_of(CONTAINER_OF(sl->idle.prev, struct client_conn, link)),
                           REASON_POOL_FULL);
        if (end || count(&sl->idle_n) >= count(&sl->server->keepalive)) {
                conn_close(pc, end ? REASON_SHUTDOWN : REASON_POOL_FULL);
                return;
        }
        list_push_front(&sl->idle, &pc->c->link);
        pc->idle = true;
        add(&sl->idle_n, 1);
        client_idle(pc->c, pc->idle_us);
}

static void count_streams(struct pool_conn *pc)
{
        add(&pc->sl->streams_n, (int)pc->c->busy - (int)pc->busy);
        pc->busy = pc->c->busy;
}

static void on_released(struct client_conn *c)
{
        struct pool_conn *pc = conn_of(c);

        unfile(pc);
        count_streams(pc);
        if (c->busy == 0 && c->room == 0)
                client_idle(c, pc->idle_us); /* until the server takes something again */
        else if (c->busy == 0)
                file_idle(pc);
        else if (c->room > 0)
                list_push_front(&pc->sl->idle, &c->link);
}

static void on_closed(struct client_conn *c, enum reason why)
{
        (void)why; /* counted where the socket is closed */
        conn_end(conn_of(c));
}

/* ------------------------------------------------------------------ connecting */

static enum server_connect connect_result(enum reason why)
{
        switch (why) {
        case REASON_NONE:
                return SERVER_CONNECT_OK;
        case REASON_CONNECT_TIMEOUT:
                return SERVER_CONNECT_TIMEOUT;
        case REASON_UPSTREAM_TLS:
                return SERVER_CONNECT_TLS;
        default:
                return SERVER_CONNECT_FAILED;
        }
}

/* All who wait for pc, in a list of the caller's. */
static void take_waiters(struct pool_conn *pc, struct list *to)
{
        struct list *n;

        list_init(to);
        while ((n = list_pop(&pc->waiters)) != NULL) {
                CONTAINER_OF(n, struct pool_wait, link)->pc = NULL;
                list_push(to, n);
        }
        pc->n_waiters = 0;
        pc->connecting = false;
        list_remove(&pc->link);
}

static bool wait_for(struct server_loop *sl, struct pool_wait *w, enum reason *why);

/* The connection took fewer than waited for it. */
static void wait_on(struct pool_wait *w)
{
        struct client_conn *c = pool_get(w->sl, w->head);
        enum reason why = REASON_NONE;

        if (c)
                w->done(w->arg, c, REASON_NONE, STR_NONE);
        else if (!wait_for(w->sl, w, &why))
                w->done(w->arg, NULL, why, STR_NONE);
}

static void give_out(struct client_conn *c, struct list *waiters)
{
        struct list *n;

        while ((n = list_pop(waiters)) != NULL) {
                struct pool_wait *w = CONTAINER_OF(n, struct pool_wait, link);
                if (c->room > 0)
                        w->done(w->arg, c, REASON_NONE, STR_NONE);
                else
                        wait_on(w);
        }
        if (c->pool_ctx && c->room > 0 && !list_linked(&c->link))
                on_released(c);
}

static void on_connected(struct client_conn *c, enum reason why)
{
        struct pool_conn *pc = conn_of(c);
        struct server_loop *sl = pc->sl;
        struct list waiters, *n;

        take_waiters(pc, &waiters);
        server_count_connect(sl, connect_result(why));
        if (why == REASON_NONE) {
                sl->likely = c->room;
                give_out(c, &waiters);
                return;
        }
        str error = client_error(c);
        conn_end(pc);
        while ((n = list_pop(&waiters)) != NULL) {
                struct pool_wait *w = CONTAINER_OF(n, struct pool_wait, link);
                w->done(w->arg, NULL, why, error);
        }
}

static const struct client_pool pool_calls = {on_connected, on_released, on_closed};

static struct pool_conn *conn_new(struct server_loop *sl, str head, int64_t connect_us,
                                  enum reason *why)
{
        struct server *s = sl->server;
        struct pool_conn *pc = slab_get(&here(sl)->connections);

        *pc = (struct pool_conn){.magic = POOL_CONN_MAGIC, .sl = sl, .connecting = true};
        list_init(&pc->waiters);
        pc->c = (s->protocol == PROTOCOL_HTTP1 ? h1_client_connect : h2_client_connect)(
                sl->loop, &s->addr, s->tls, s->host, connect_us, &pool_calls, pc, why);
        if (!pc->c) {
                server_count_connect(sl, connect_result(*why));
                pc->magic = DEAD_MAGIC;
                slab_put(&here(sl)->connections, pc);
                return NULL;
        }
        if (head.n) {
                pc->head = str_of(str_dupz(head), head.n);
                h1_client_preface(pc->c, head);
        }
        server_hold(sl);
        add(&sl->connections_n, 1);
        list_push(&sl->connecting, &pc->link);
        if (!list_linked(&sl->link))
                list_push(&here(sl)->active, &sl->link);
        return pc;
}

/* One that comes about and is likely to carry one more, the oldest first; NULL: none. */
static struct pool_conn *conn_to_share(struct server_loop *sl)
{
        LIST_EACH (n, &sl->connecting) {
                struct pool_conn *pc = CONTAINER_OF(n, struct pool_conn, link);
                if (pc->n_waiters < sl->likely)
                        return pc;
        }
        return NULL;
}

static bool wait_for(struct server_loop *sl, struct pool_wait *w, enum reason *why)
{
        struct pool_conn *pc = sl->likely > 1 ? conn_to_share(sl) : NULL;

        if (!pc)
                pc = conn_new(sl, w->head, w->connect_us, why);

        if (!pc)
                return false;
        w->pc = pc;
        pc->n_waiters++;
        list_push(&pc->waiters, &w->link);
        return true;
}

/* ------------------------------------------------------------------ what origin asks for */

/* As the list is bounded by keepalive, so is the search. */
static struct client_conn *get_own(struct server_loop *sl, str head)
{
        LIST_EACH (n, &sl->idle) {
                struct client_conn *c = CONTAINER_OF(n, struct client_conn, link);
                if (str_eq(conn_of(c)->head, head)) {
                        unfile(conn_of(c));
                        return c;
                }
        }
        return NULL;
}

struct client_conn *pool_get(struct server_loop *sl, str head)
{
        struct client_conn *c;

        if (list_empty(&sl->idle))
                return NULL;
        if (head.n)
                return get_own(sl, head);
        c = CONTAINER_OF(sl->idle.next, struct client_conn, link);
        unfile(conn_of(c));
        if (c->room > 1)
                list_push_front(&sl->idle, &c->link);
        return c;
}

bool pool_connect(struct server_loop *sl, str head, int64_t connect_us, struct pool_wait *w,
                  pool_done *done, void *arg, enum reason *why)
{
        *w = (struct pool_wait){
                .sl = sl, .head = head, .connect_us = connect_us, .done = done, .arg = arg};
        return wait_for(sl, w, why);
}

void pool_cancel(struct pool_wait *w, enum reason why)
{
        struct pool_conn *pc = w->pc;

        CHECK(list_linked(&w->link));
        list_remove(&w->link);
        if (!pc)
                return;
        CHECK_OBJ(pc, POOL_CONN_MAGIC);
        CHECK(pc->connecting && pc->n_waiters > 0);
        if (--pc->n_waiters == 0)
                conn_close(pc, why);
}

void pool_carries(struct client_conn *c, int64_t idle_us)
{
        struct pool_conn *pc = conn_of(c);

        pc->idle_us = idle_us;
        count_streams(pc);
}

void pool_close_idle(struct server_loop *sl, enum reason why)
{
        LIST_EACH (n, &sl->idle) {
                struct client_conn *c = CONTAINER_OF(n, struct client_conn, link);
                if (c->busy == 0)
                        conn_close(conn_of(c), why);
        }
}
