/*
 * A process in a test: loops, a metric region, upstreams; and servers' connections that do what the
 * test says.
 *
 * The fake client stands in for http/h1_client and http/h2_client: connections wait until the test
 * connects, answers or breaks them.
 */
#ifndef TESTS_PROXY_UPSTREAM_FIXTURE_H
#define TESTS_PROXY_UPSTREAM_FIXTURE_H

#include "base/check.h"
#include "base/metric.h"
#include "http/h1_client.h"
#include "http/h2_client.h"
#include "proxy/pool.h"
#include "proxy/upstreams.h"
#include "proxy/vars.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define LOOPS 2

static struct metric_region *region;
static struct loop *control, *loops[LOOPS];
static struct upstreams *us;

/* ------------------------------------------------------------------ fake client */

struct fake {
        struct client_conn conn;
        struct list all;
        struct addr to;
        struct exchange *x; /* the last bound */
        bool connecting, used, idle, h2;
        int64_t idle_us;
        unsigned serial;
        const char *error;
};

static struct list clients; /* all that live */
static struct list graves;  /* those that have ended */
static unsigned connects;   /* ever asked for */
static enum reason refuse_at_once;

static struct fake *fake_of(struct client_conn *c)
{
        return CONTAINER_OF(c, struct fake, conn);
}

static void client_end(struct fake *c)
{
        assert_false(list_linked(&c->conn.link)); /* whoever kept it has let it go */
        list_remove(&c->all);
        c->conn.room = 0;
        list_push(&graves, &c->all); /* the memory stays to the end of the turn, here of the test */
}

static void fake_idle(struct client_conn *conn, int64_t idle_us)
{
        fake_of(conn)->idle = true;
        fake_of(conn)->idle_us = idle_us;
}

static void fake_close(struct client_conn *conn, enum reason why)
{
        (void)why;
        client_end(fake_of(conn));
}

static str fake_error(struct client_conn *conn)
{
        return str_z(fake_of(conn)->error);
}

static void fake_bind(struct client_conn *conn, struct exchange *x);
static const struct client_conn_ops fake_conn = {fake_bind, fake_idle, fake_close, fake_error};

static struct client_conn *fake_connect(const struct addr *to, const struct client_pool *pool,
                                        void *pool_ctx, enum reason *why)
{
        struct fake *c;

        connects++;
        if (refuse_at_once != REASON_NONE) {
                *why = refuse_at_once;
                return NULL;
        }
        c = calloc(1, sizeof(*c));
        c->conn.ops = &fake_conn;
        c->conn.pool = pool;
        c->conn.pool_ctx = pool_ctx;
        c->to = *to;
        c->connecting = true;
        c->serial = connects;
        list_push(&clients, &c->all);
        return &c->conn;
}

struct client_conn *h1_client_connect(struct loop *l, const struct addr *to, struct tls_client *tls,
                                      str host, int64_t connect_us, const struct client_pool *pool,
                                      void *pool_ctx, enum reason *why)
{
        (void)l, (void)tls, (void)host, (void)connect_us;
        return fake_connect(to, pool, pool_ctx, why);
}

static char prefaced[256]; /* what the newest connection began with */
void h1_client_preface(struct client_conn *c, str bytes)
{
        (void)c;
        assert_true(bytes.n < sizeof(prefaced));
        memcpy(prefaced, bytes.p, bytes.n);
        prefaced[bytes.n] = '\0';
}

struct client_conn *h2_client_connect(struct loop *l, const struct addr *to, struct tls_client *tls,
                                      str host, int64_t connect_us, const struct client_pool *pool,
                                      void *pool_ctx, enum reason *why)
{
        (void)l, (void)tls, (void)host, (void)connect_us;
        struct client_conn *conn = fake_connect(to, pool, pool_ctx, why);
        if (conn)
                fake_of(conn)->h2 = true;
        return conn;
}

/* What the exchange on c was told. */
static bool start_wants_body; /* a start calls for more of the body */
static unsigned started, aborted, req_readies, res_rooms;

static void x_start(struct exchange *x)
{
        struct fake *c = x->codec_ctx;

        started++;
        x->phase = EXCHANGE_WAITING;
        x->reused = c->used;
        x->wrote = true;
        x->sent_at = x->r->loop->now;
        if (x->r->req_body.data.n > 0) {
                x->body_taken = true;
                buf_clear(&x->r->req_body.data);
        }
        c->used = true;
        if (start_wants_body)
                x->user->req_room(x);
}

static void x_req_ready(struct exchange *x)
{
        (void)x;
        req_readies++;
}

static void x_res_room(struct exchange *x)
{
        (void)x;
        res_rooms++;
}

static void x_over(struct fake *c)
{
        c->conn.busy--;
        c->conn.room = 1;
        c->x->ops = NULL;
        c->x->phase = EXCHANGE_DONE;
        c->x = NULL;
}

static void x_abort(struct exchange *x, enum reason why)
{
        struct fake *c = x->codec_ctx;

        aborted++;
        x_over(c);
        c->conn.pool->closed(&c->conn, why);
        client_end(c);
}

static const struct exchange_ops fake_ops = {x_start, x_req_ready, x_res_room, x_abort};

static void fake_bind(struct client_conn *conn, struct exchange *x)
{
        struct fake *c = fake_of(conn);

        assert_true(conn->room > 0);
        assert_false(c->connecting);
        conn->busy++;
        conn->room--;
        c->idle = false;
        c->x = x;
        x->ops = &fake_ops;
        x->codec_ctx = c;
}

/* ---- what the test does to connections */

static struct fake *client(unsigned serial) /* the serial-th that was ever asked for */
{
        LIST_EACH (n, &clients) {
                struct fake *c = CONTAINER_OF(n, struct fake, all);
                if (c->serial == serial)
                        return c;
        }
        fail_msg("connection %u is gone", serial);
        return NULL;
}

static UNUSED unsigned clients_alive(void)
{
        unsigned n = 0;

        LIST_EACH (l, &clients) {
                n++;
        }
        return n;
}

static UNUSED void client_connected(unsigned serial, enum reason why)
{
        struct fake *c = client(serial);

        c->connecting = false;
        c->conn.room = why ? 0 : 1;
        c->error = why ? "Connection refused" : NULL;
        c->conn.pool->connected(&c->conn, why);
        if (why)
                client_end(c);
}

static UNUSED void client_head(unsigned serial, int status)
{
        struct exchange *x = client(serial)->x;

        assert_non_null(x);
        x->got_byte = true;
        x->phase = EXCHANGE_BODY;
        *x->res = (struct msg){.status = status, .version = 11};
        x->head_at = x->sent_at + 1000;
        x->user->head(x);
}

/* Head and end came together: the connection is given back before the head is told, and no more
 * follows. */
static UNUSED void client_answers(unsigned serial, int status)
{
        struct fake *c = client(serial);
        struct exchange *x = c->x;

        x->got_byte = true;
        *x->res = (struct msg){.status = status, .version = 11};
        x->head_at = x->sent_at + 1000;
        x->r->res_body.end = true;
        x_over(c);
        c->conn.pool->released(&c->conn);
        x->user->head(x);
}

static UNUSED void client_body_end(unsigned serial, bool keep)
{
        struct fake *c = client(serial);
        struct exchange *x = c->x;

        x->r->res_body.end = true;
        x_over(c);
        if (keep) {
                c->conn.pool->released(&c->conn);
        } else {
                c->conn.pool->closed(&c->conn, REASON_DONE);
                client_end(c);
        }
        x->user->res_ready(x);
}

static UNUSED void client_fails(unsigned serial, enum reason why, bool wrote)
{
        struct fake *c = client(serial);
        struct exchange *x = c->x;

        x->wrote = wrote;
        x_over(c);
        c->conn.pool->closed(&c->conn, why);
        client_end(c);
        x->user->failed(x, why);
}

static UNUSED void client_closed_idle(unsigned serial)
{
        struct fake *c = client(serial);

        assert_true(c->idle);
        c->conn.pool->closed(&c->conn, REASON_SERVER_CLOSED);
        client_end(c);
}

/* ------------------------------------------------------------------ fake resolver and variables */

struct query {
        void (*fn)(const struct dns_answer *, void *);
        void *arg;
        char name[64];
};
static struct query queries[16];
static unsigned n_queries; /* ever made */
static str variable;       /* value of every template and cookie */

struct dns *dns_new(struct loop *l, const str *servers, size_t n)
{
        (void)l, (void)servers, (void)n;
        return (struct dns *)queries;
}

void dns_free(struct dns *d)
{
        struct dns_answer none = {.error = "Channel is being destroyed"};

        assert_ptr_equal(d, queries);
        for (unsigned i = 0; i < n_queries; i++) {
                struct query q = queries[i];
                queries[i].fn = NULL;
                if (q.fn)
                        q.fn(&none, q.arg);
        }
}

void dns_query(struct dns *d, str name, void (*fn)(const struct dns_answer *, void *arg), void *arg)
{
        (void)d;
        assert_true(n_queries < COUNT(queries));
        assert_true(str_copyz(queries[n_queries].name, sizeof(queries[0].name), name));
        queries[n_queries].fn = fn;
        queries[n_queries++].arg = arg;
}

/* ips: "10.0.0.1 10.0.0.2"; NULL: an error. */
static UNUSED void dns_answers(unsigned query, const char *ips, uint32_t ttl)
{
        struct dns_answer a = {.ok = ips != NULL, .error = "Domain name not found", .ttl_s = ttl};
        struct query q = queries[query];
        str rest = str_z(ips), ip;

        assert_non_null(q.fn);
        queries[query].fn = NULL;
        while (rest.p) {
                str_cut(rest, ' ', &ip, &rest);
                assert_true(addr_parse_ip(ip, 0, &a.a[a.n++]));
        }
        q.fn(&a, q.arg);
}

str vars_get_name(struct txn *t, str name)
{
        (void)t, (void)name;
        return variable;
}

str vars_lookup(void *ctx, const struct template_op *op)
{
        (void)ctx, (void)op;
        return variable;
}

str template_expand(const struct template *t, struct arena *a, template_lookup *lookup, void *ctx)
{
        (void)t, (void)a, (void)lookup, (void)ctx;
        return variable;
}

/* ------------------------------------------------------------------ process */

static UNUSED int process_up(void **state)
{
        (void)state;
        list_init(&clients);
        list_init(&graves);
        connects = started = aborted = req_readies = res_rooms = 0;
        refuse_at_once = REASON_NONE;
        start_wants_body = false;
        n_queries = 0;
        variable = STR_NONE;
        region = metric_region_new(LOOPS + 1, 256 * KIB);
        for (unsigned i = 0; i < LOOPS; i++) {
                metric_slot_begin(metric_slot(region, i));
                loops[i] = loop_new(i, metric_slot(region, i));
        }
        metric_slot_begin(metric_slot(region, LOOPS));
        control = loop_new(UINT32_MAX, metric_slot(region, LOOPS));
        us = upstreams_new(control, loops, LOOPS, NULL, 0);
        return 0;
}

static UNUSED void turn_all(void) /* messages between all of them have been answered */
{
        for (int round = 0; round < 4; round++) {
                for (unsigned i = 0; i < LOOPS; i++)
                        loop_turn(loops[i], false);
                loop_turn(control, false);
        }
}

static UNUSED int process_down(void **state)
{
        (void)state;
        for (unsigned i = 0; i < LOOPS; i++)
                upstreams_close_idle(us, loops[i]);
        turn_all();
        assert_true(list_empty(&clients));
        while (!list_empty(&graves))
                free(CONTAINER_OF(list_pop(&graves), struct fake, all));
        for (unsigned i = 0; i < LOOPS; i++)
                loop_free(loops[i]);
        upstreams_free(us);
        loop_free(control);
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static UNUSED uint64_t metric_of(unsigned family, const char *labels)
{
        return metric_sum(region, family, str_z(labels));
}

/* "10.0.0.1:80 weight" lines */
static UNUSED struct server_conf line(const char *text, uint32_t weight)
{
        struct server_conf sc = {.text = str_z(text), .weight = weight};

        assert_true(addr_parse(sc.text, &sc.addr));
        return sc;
}

#endif
