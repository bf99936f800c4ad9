/*
 * Connections to servers, per loop (pool.h).
 *
 * The one difficulty: who owns a connection's record.  It lives from pool_connect until the client
 * says that the connection is gone or until it is closed here; each holds its server for so long.
 */
#include "proxy/pool.h"

#include "base/check.h"
#include "proxy/upstreams.h"

#define POOL_CONN_MAGIC UINT32_C(0x504f4f4c)
struct pool_conn {
        uint32_t magic;
        struct server_loop *sl;
        struct h1_client *c;
        pool_done *done; /* while it connects; NULL afterwards */
        void *arg;
        int64_t idle_us;
        bool idle;
};

size_t pool_conn_size(void)
{
        return sizeof(struct pool_conn);
}

static struct upstreams_loop *here(struct server_loop *sl)
{
        return &sl->server->us->per_loop[sl->loop->index];
}

static void set_idle_n(struct server_loop *sl, uint32_t n)
{
        atomic_store_explicit(&sl->idle_n, n, memory_order_relaxed);
}

static uint32_t idle_n(const struct server_loop *sl)
{
        return atomic_load_explicit(&sl->idle_n, memory_order_relaxed);
}

static void leave_idle(struct pool_conn *pc)
{
        list_remove(h1_client_link(pc->c));
        pc->idle = false;
        set_idle_n(pc->sl, idle_n(pc->sl) - 1);
}

static void conn_end(struct pool_conn *pc)
{
        struct server_loop *sl = pc->sl;

        if (pc->idle)
                leave_idle(pc);
        pc->magic = DEAD_MAGIC;
        slab_put(&here(sl)->connections, pc);
        server_drop(sl);
}

/* The connection goes before its hold of the server: it uses the server's TLS context. */
static void conn_close(struct pool_conn *pc, enum reason why)
{
        if (pc->idle)
                leave_idle(pc);
        h1_client_close(pc->c, why);
        conn_end(pc);
}

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

static void on_connected(struct h1_client *c, enum reason why)
{
        struct pool_conn *pc = CAST(struct pool_conn, POOL_CONN_MAGIC, h1_client_ctx(c));
        pool_done *done = pc->done;
        void *arg = pc->arg;

        pc->done = NULL;
        server_count_connect(pc->sl, connect_result(why));
        if (why == REASON_NONE) {
                done(arg, c, REASON_NONE, STR_NONE);
        } else {
                str error = h1_client_error(c);
                conn_end(pc);
                done(arg, NULL, why, error);
        }
}

static void on_released(struct h1_client *c)
{
        struct pool_conn *pc = CAST(struct pool_conn, POOL_CONN_MAGIC, h1_client_ctx(c));
        struct server_loop *sl = pc->sl;
        bool end = sl->retired || here(sl)->closing;

        if (end ||
            idle_n(sl) >= atomic_load_explicit(&sl->server->keepalive, memory_order_relaxed)) {
                conn_close(pc, end ? REASON_SHUTDOWN : REASON_POOL_FULL);
                return;
        }
        list_push_front(&sl->idle, h1_client_link(c));
        pc->idle = true;
        set_idle_n(sl, idle_n(sl) + 1);
        h1_client_idle(c, pc->idle_us);
}

static void on_closed(struct h1_client *c, enum reason why)
{
        (void)why; /* counted where the socket is closed */
        conn_end(CAST(struct pool_conn, POOL_CONN_MAGIC, h1_client_ctx(c)));
}

static const struct h1_client_pool pool_calls = {on_connected, on_released, on_closed};

struct h1_client *pool_get(struct server_loop *sl)
{
        struct h1_client *c;

        if (list_empty(&sl->idle))
                return NULL;
        c = h1_client_of_link(sl->idle.next);
        leave_idle(CAST(struct pool_conn, POOL_CONN_MAGIC, h1_client_ctx(c)));
        return c;
}

struct pool_conn *pool_connect(struct server_loop *sl, int64_t connect_us, pool_done *done,
                               void *arg, enum reason *why)
{
        struct server *s = sl->server;
        struct pool_conn *pc = slab_get(&here(sl)->connections);

        *pc = (struct pool_conn){.magic = POOL_CONN_MAGIC, .sl = sl, .done = done, .arg = arg};
        pc->c = h1_client_connect(sl->loop, &s->addr, s->tls, s->host, connect_us, &pool_calls, pc,
                                  why);
        if (!pc->c) {
                server_count_connect(sl, connect_result(*why));
                pc->magic = DEAD_MAGIC;
                slab_put(&here(sl)->connections, pc);
                return NULL;
        }
        server_hold(sl);
        if (!list_linked(&sl->link))
                list_push(&here(sl)->active, &sl->link);
        return pc;
}

void pool_cancel(struct pool_conn *pc, enum reason why)
{
        CHECK_OBJ(pc, POOL_CONN_MAGIC);
        CHECK(pc->done != NULL);
        conn_close(pc, why);
}

void pool_set_idle(struct h1_client *c, int64_t idle_us)
{
        CAST(struct pool_conn, POOL_CONN_MAGIC, h1_client_ctx(c))->idle_us = idle_us;
}

void pool_close_idle(struct server_loop *sl, enum reason why)
{
        struct list *n;

        while ((n = sl->idle.next) != &sl->idle)
                conn_close(CAST(struct pool_conn, POOL_CONN_MAGIC,
                                h1_client_ctx(h1_client_of_link(n))),
                           why);
}
