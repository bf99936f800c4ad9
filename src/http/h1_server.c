/*
 * HTTP/1 towards clients: the life of a connection.
 *
 *      PROXY -> TLS -> IDLE <-> HEAD <-> BUSY       (from IDLE on: h1_stream.c)
 *        \-------\-------\--------\--------\--> closed, lingering where the client may still send
 *
 * The difficulty is the beginning: a PROXY header comes in the clear before TLS, so not a byte
 * behind it may be taken.  Connection objects are freed at the end of the turn in which they are
 * closed, because whoever closes one may have been called by it.
 */
#include "http/h1_conn.h"
#include "net/listen.h"
#include "net/proxyproto.h"

#include <stdlib.h>

#define LINGER_US (2 * SEC)

const size_t h1_server_size = sizeof(struct h1_conn);
_Static_assert(sizeof(struct h1_conn) < 600, "an idle connection is small");

static void on_deadline(struct deadline *d);

static struct h1_conn *conn_of(struct io *io)
{
        struct h1_conn *c = CONTAINER_OF(io, struct h1_conn, io);
        CHECK_OBJ(c, CONN_MAGIC);
        return c;
}

/* A conf is valid for a turn: the newest is asked for each time. */
const struct h1_server_conf *h1_server_conf_of(struct h1_conn *c)
{
        if (c->refresh)
                c->conf = c->refresh(c->io.loop, c->listener);
        return c->conf;
}

void h1_server_arm(struct h1_conn *c, enum conn_timer what, int64_t us)
{
        c->timer = (uint8_t)what;
        deadline_set(c->io.loop, &c->deadline, us, on_deadline);
}

/* ---------------------------------------------------------------- the end of a connection */

static void bury(struct loop_task *t)
{
        struct h1_conn *c = CONTAINER_OF(t, struct h1_conn, task);
        struct loop *l = c->io.loop;
        c->magic = DEAD_MAGIC;
        slab_put(&h1_loop(l)->servers, c);
}

static void leave(struct h1_conn *c)
{
        struct loop *l = c->io.loop;
        if (c->state == CONN_PROXY && c->preface) {
                buf_clear(c->preface);
                free(c->preface);
        }
        c->state = CONN_CLOSED;
        deadline_clear(&c->deadline);
        list_remove(&c->link);
        h1_loop(l)->n_connections--;
        metric_set(c->stats->open_cell, (int64_t)--c->stats->open);
        listen_closed(l);
        loop_defer(l, &c->task, bury);
}

void h1_server_close(struct h1_conn *c, enum reason why)
{
        CHECK(c->request == NULL);
        if (c->state == CONN_CLOSED)
                return;
        io_close(&c->io, why);
        leave(c);
}

void h1_server_close_lingering(struct h1_conn *c, enum reason why)
{
        io_close_lingering(&c->io, why, LINGER_US);
        leave(c);
}

/* ---------------------------------------------------------------- deadlines */

static void head_expired(struct h1_conn *c)
{
        if (c->state == CONN_HEAD)
                h1_stream_refuse(c, REASON_CLIENT_HEAD, 0);
        else if (c->state == CONN_TLS)
                h1_server_close(c, REASON_TLS_TIMEOUT);
        else
                h1_server_close(c, c->state == CONN_PROXY ? REASON_PROXY_PROTOCOL
                                                          : REASON_CLIENT_HEAD);
}

static void on_deadline(struct deadline *d)
{
        struct h1_conn *c = CONTAINER_OF(d, struct h1_conn, deadline);
        CHECK_OBJ(c, CONN_MAGIC);
        enum conn_timer what = c->timer;
        c->timer = TIMER_NONE;
        switch (what) {
        case TIMER_NONE:
                break;
        case TIMER_HEAD:
                head_expired(c);
                break;
        case TIMER_IDLE:
                h1_server_close(c, REASON_CLIENT_IDLE);
                break;
        case TIMER_BODY:
        case TIMER_SEND:
                h1_stream_expired(c, what);
                break;
        }
}

/* ---------------------------------------------------------------- the beginning of a connection */

void h1_server_shorten(struct short_addr *s, const struct addr *a)
{
        s->len = (uint8_t)MIN(a->len, sizeof(s->bytes));
        memcpy(s->bytes, &a->sa, s->len);
}

static void start_protocol(struct h1_conn *c)
{
        const struct h1_server_conf *conf = h1_server_conf_of(c);
        c->stream = NULL;
        if (!conf->tls) {
                c->state = CONN_IDLE;
                return;
        }
        c->state = CONN_TLS;
        io_start_tls(&c->io, tls_accept_peer(conf->tls, c->io.fd));
}

/* Looks at what has come without taking more than the header: what follows it may be TLS. */
static void proxy_readable(struct h1_conn *c)
{
        char text[PROXYPROTO_MAX];
        struct addr src = {0}, dst = {0};
        size_t had = c->preface ? c->preface->n : 0;
        ptrdiff_t more = io_peek(&c->io, text + had, sizeof(text) - had);
        if (more == 0)
                return;
        int n = -1;
        if (more > 0) {
                if (had)
                        buf_copy_out(c->preface, 0, text, had);
                n = proxyproto_parse(str_of(text, had + (size_t)more), &src, &dst);
        }
        if (n < 0 || (n == 0 && had + (size_t)more == sizeof(text))) {
                h1_server_close(c, REASON_PROXY_PROTOCOL);
                return;
        }
        if (n == 0) { /* taken, or the socket would stay readable and keep us turning */
                if (!c->preface)
                        c->preface = calloc(1, sizeof(*c->preface));
                CHECK(c->preface != NULL);
                buf_put(c->preface, text + had, (size_t)more);
                io_skip(&c->io, (size_t)more);
                return;
        }
        io_skip(&c->io, (size_t)n - had);
        if (c->preface) {
                buf_clear(c->preface);
                free(c->preface);
        }
        if (src.len)
                h1_server_shorten(&c->peer, &src);
        if (dst.len) {
                h1_server_shorten(&c->local, &dst);
                c->local_known = true;
        }
        start_protocol(c);
}

static void answer_plain_on_tls(struct h1_conn *c)
{
        buf_puts(&c->io.out, STR("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                                 "Content-Length: 42\r\nConnection: close\r\n\r\n"
                                 "400: plain HTTP was sent to an HTTPS port\n"));
        metric_add(metric_series(c->io.loop->metrics, METRIC_LOCAL_REPLIES,
                                 STR("reason=\"http_on_tls\"")),
                   1);
        h1_server_close_lingering(c, REASON_HTTP_ON_TLS);
}

static void ready(struct io *io, enum reason why)
{
        struct h1_conn *c = conn_of(io);
        if (why == REASON_NONE)
                c->state = CONN_IDLE;
        else if (why == REASON_HTTP_ON_TLS)
                answer_plain_on_tls(c);
        else
                h1_server_close(c, why);
}

static void readable(struct io *io)
{
        struct h1_conn *c = conn_of(io);
        switch ((enum conn_state)c->state) {
        case CONN_PROXY:
                proxy_readable(c);
                break;
        case CONN_IDLE:
        case CONN_HEAD:
        case CONN_BUSY:
                h1_stream_readable(c);
                break;
        case CONN_TLS:
        case CONN_CLOSED:
                UNREACHABLE();
        }
}

static void drained(struct io *io)
{
        h1_stream_drained(conn_of(io));
}

static const struct io_owner conn_owner = {readable, drained, ready};

void h1_server_accept(struct loop *l, int fd, const struct addr *peer,
                      const struct h1_server_conf *conf, void *listener)
{
        struct h1_loop *h = h1_loop(l);
        struct h1_conn *c = slab_get(&h->servers);
        c->magic = CONN_MAGIC;
        c->conf = conf;
        c->refresh = conf->refresh;
        c->listener = listener;
        c->accepted = c->started = l->now;
        c->serial = (uint64_t)l->index << 40 | ++h->serial;
        h1_server_shorten(&c->peer, peer);
        c->stats = h1_loop_listener(l, conf->name);
        metric_add(c->stats->total, 1);
        metric_set(c->stats->open_cell, (int64_t)++c->stats->open);
        h->n_connections++;
        list_push(&h->connections, &c->link);
        io_open(&c->io, l, fd, &conn_owner);
        h1_server_arm(c, TIMER_HEAD, conf->head_us);
        if (conf->proxy_protocol)
                c->state = CONN_PROXY;
        else
                start_protocol(c);
}

/* ---------------------------------------------------------------- all connections of a loop */

uint32_t h1_server_drain(struct loop *l, bool on)
{
        struct h1_loop *h = h1_loop(l);
        h->draining = on;
        if (on)
                LIST_EACH (n, &h->connections) {
                        struct h1_conn *c = CONTAINER_OF(n, struct h1_conn, link);
                        if (c->state == CONN_IDLE && c->served && c->io.in.n == 0)
                                h1_server_close_lingering(c, REASON_SHUTDOWN);
                }
        return h->n_connections;
}

uint32_t h1_server_count(struct loop *l)
{
        return h1_loop(l)->n_connections;
}

void h1_server_close_all(struct loop *l, enum reason why)
{
        struct h1_loop *h = h1_loop(l);
        while (!list_empty(&h->connections)) {
                struct h1_conn *c = CONTAINER_OF(h->connections.next, struct h1_conn, link);
                if (c->request)
                        h1_stream_gone(c, why);
                else
                        h1_server_close(c, why);
        }
}
