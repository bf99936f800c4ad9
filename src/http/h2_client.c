/*
 * HTTP/2 towards servers: the connection (h2_client.h).
 *
 *    readable -> nghttp2 -> callbacks note news -> settle (pool) -> tell (exchanges) -> settle
 *    end of the turn: nghttp2 -> io.out -> one write
 *
 * The one difficulty: what the server does to the connection (SETTINGS, GOAWAY, floods, silence)
 * changes what the pool may do with it, and each call of the pool or of an exchange may close it.
 * So the pool is told first, in one place, and the memory stays until the turn has ended.
 */
#include "http/h2_client.h"

#include "http/h2_exchange.h"
#include "http/h2_session.h"

#include <stdlib.h>

#define READ_MAX    (64 * KIB)
#define CONN_WINDOW (1 * MIB) /* streams are bounded one by one; this only keeps the pipe full */
#define KEEP        256       /* recycled objects */

/* A server must show life: after this silence of a connection that carries something it is asked,
 * and given up when no answer comes.  Asked again only when something came in between, or much
 * later: servers of gRPC count more frequent ones as abuse. */
#define PING_AFTER (10 * SEC)
#define PING_WAIT  (10 * SEC)
#define PING_AGAIN (310 * SEC)

/* Frames that carry nothing: so many at once, so many a second, and some for each that does. */
#define BUDGET_MAX    4000
#define BUDGET_SECOND 200
#define BUDGET_EARNED 4
/* Frames of unknown types, and DATA of closed streams, are passed over without a word: what came
 * beyond those that were spoken of, since the last that carried something, and beyond the windows
 * of the streams that we reset.  More than the CONTINUATIONs of one head. */
#define STRANGE_MAX (int64_t)(160 * KIB)

enum client_timer { TIMER_NONE, TIMER_CONNECT, TIMER_POOL, TIMER_BEAT };

static void on_deadline(struct deadline *d);
static const struct client_conn_ops conn_ops;

static struct h2_client *client_of(struct io *io)
{
        struct h2_client *c = CONTAINER_OF(io, struct h2_client, io);
        CHECK_OBJ(c, H2_CLIENT_MAGIC);
        return c;
}

static struct h2_client *client_of_conn(struct client_conn *conn)
{
        struct h2_client *c = CONTAINER_OF(conn, struct h2_client, conn);
        CHECK_OBJ(c, H2_CLIENT_MAGIC);
        return c;
}

static void arm(struct h2_client *c, enum client_timer what, int64_t us)
{
        c->timer = (uint8_t)what;
        deadline_set(c->io.loop, &c->deadline, us, on_deadline);
}

/* ---------------------------------------------------------------- the end */

static void bury(struct loop_task *t)
{
        struct h2_client *c = CONTAINER_OF(t, struct h2_client, task);
        struct h2_loop *h = h2_loop(c->io.loop);
        nghttp2_session_del(c->session);
        c->session = NULL;
        while (!list_empty(&c->streams)) {
                struct list *n = list_pop(&c->streams);
                list_push(&c->dead, n);
        }
        h2_reap(c);
        c->magic = DEAD_MAGIC;
        slab_put(&h->clients, c);
}

static void end_client(struct h2_client *c, enum reason why)
{
        if (c->state == H2_CLOSED)
                return;
        c->state = H2_CLOSED;
        c->conn.room = 0;
        deadline_clear(&c->deadline);
        io_close(&c->io, why);
        loop_defer(c->io.loop, &c->task, bury);
}

static void connect_failed(struct h2_client *c, enum reason why, const char *error)
{
        c->error = error;
        c->conn.pool->connected(&c->conn, why);
        end_client(c, why);
}

/* The connection has come to its end, and so has all that it carries. */
static void fail(struct h2_client *c, enum reason why)
{
        if (c->state == H2_CLOSED)
                return;
        if (c->state == H2_SETTLING) {
                if (why == REASON_UPSTREAM_TLS)
                        connect_failed(c, why, NULL);
                else
                        connect_failed(c, REASON_CONNECT_FAILED,
                                       "the server does not speak HTTP/2");
                return;
        }
        LIST_EACH (n, &c->streams) {
                struct h2_stream *s = CONTAINER_OF(n, struct h2_stream, link);
                if (s->x)
                        client_explain(&c->io, why, s->x);
        }
        end_client(c, why);
        c->conn.pool->closed(&c->conn, why);
        h2_fail_all(c, why);
}

/* ---------------------------------------------------------------- what it may carry */

static uint64_t ids_left(const struct h2_client *c)
{
        return (UINT64_C(0x80000001) - nghttp2_session_get_next_stream_id(c->session)) / 2;
}

static uint32_t room(const struct h2_client *c)
{
        uint32_t limit = nghttp2_session_get_remote_settings(
                c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
        uint64_t ids = ids_left(c);
        if (c->goaway || c->broken || c->doubted)
                return 0;
        limit = MIN(limit, H2_STREAMS_MAX);
        limit = limit > c->n_streams ? limit - c->n_streams : 0;
        return (uint32_t)MIN(limit, ids);
}

/* The pool is told when what it files the connection by has changed. */
static void settle(struct h2_client *c)
{
        if (c->state == H2_SETTLING) {
                if (!c->settled || room(c) == 0)
                        return;
                c->state = H2_OPEN;
                c->timer = TIMER_NONE;
                deadline_clear(&c->deadline);
                c->conn.room = room(c);
                c->told_busy = 0;
                c->told_room = c->conn.room;
                c->conn.pool->connected(&c->conn, REASON_NONE);
        }
        if (c->state != H2_OPEN)
                return;
        c->conn.room = room(c);
        if (c->conn.busy == 0 && (c->goaway || c->doubted || ids_left(c) == 0)) {
                fail(c, c->goaway ? REASON_SERVER_CLOSED : REASON_DONE);
                return;
        }
        if (c->conn.busy == c->told_busy && c->conn.room == c->told_room)
                return;
        c->told_busy = c->conn.busy;
        c->told_room = c->conn.room;
        c->conn.pool->released(&c->conn);
}

/* ---------------------------------------------------------------- out */

/* What nghttp2 has to say, as far as the socket takes it. */
static void flush(struct h2_client *c)
{
        while (!c->io.writing && !c->io.failed) {
                int error = h2_session_fill(c->session, &c->io.out);
                if (error) {
                        c->broken = true;
                        c->broken_why = REASON_UPSTREAM_H2;
                }
                if (c->io.out.n == 0)
                        break;
                io_flush(&c->io);
                if (error)
                        break;
        }
}

/* After anything that happened: the pool, the exchanges, and the pool again. */
static void follow_up(struct h2_client *c)
{
        if (c->state != H2_CLOSED)
                settle(c);
        if (c->state != H2_CLOSED)
                h2_tell(c);
        if (c->state != H2_CLOSED && c->broken) {
                fail(c, c->broken_why);
                return;
        }
        h2_reap(c);
        if (c->state != H2_CLOSED)
                settle(c);
}

static void turn_ends(struct loop_task *t)
{
        struct h2_client *c = CONTAINER_OF(t, struct h2_client, task);
        CHECK_OBJ(c, H2_CLIENT_MAGIC);
        flush(c);
        follow_up(c);
}

void h2_schedule(struct h2_client *c)
{
        if (c->state == H2_OPEN || c->state == H2_SETTLING)
                loop_defer(c->io.loop, &c->task, turn_ends);
}

static void drained(struct io *io)
{
        struct h2_client *c = client_of(io);
        if (c->session)
                h2_schedule(c);
}

/* ---------------------------------------------------------------- in */

static void break_off(struct h2_client *c, enum reason why)
{
        if (c->broken)
                return;
        c->broken = true;
        c->broken_why = why;
}

static void feed(struct h2_client *c)
{
        while (c->io.in.n > 0 && !c->broken) {
                str in = buf_front(&c->io.in);
                c->strange += (int64_t)in.n;
                ssize_t n = nghttp2_session_mem_recv(c->session, (const uint8_t *)in.p, in.n);
                if (n < 0)
                        break_off(c, REASON_UPSTREAM_H2);
                else
                        buf_drain(&c->io.in, (size_t)n);
                if (c->strange > STRANGE_MAX)
                        break_off(c, REASON_UPSTREAM_FLOOD);
        }
        if (c->broken)
                buf_clear(&c->io.in);
}

/* All that waits, up to READ_MAX, goes through nghttp2 before anybody is told: exchanges then get
 * more at once. */
static enum io_result read_some(struct h2_client *c, size_t *got)
{
        enum io_result r = IO_OK;
        bool empty = false;
        *got = 0;
        while (r == IO_OK && !empty && !c->broken && *got < READ_MAX) {
                size_t before = c->io.in.n;
                r = io_read(&c->io, READ_MAX - *got, &empty);
                *got += c->io.in.n - before;
                feed(c);
        }
        return r;
}

static void readable(struct io *io)
{
        struct h2_client *c = client_of(io);
        size_t got;
        if (!c->session) /* nothing is due before ready() */
                return;
        enum io_result r = read_some(c, &got);
        if (got > 0) {
                if (c->broken) /* a GOAWAY should still reach the server that broke the rules */
                        flush(c);
                follow_up(c);
                h2_schedule(c);
        }
        if (r == IO_EOF || r == IO_ERROR)
                fail(c, c->conn.busy > 0 || c->state == H2_SETTLING ? client_lost(io)
                                                                    : REASON_SERVER_CLOSED);
}

/* Whether it is a frame for which a server may be thanked. */
static bool carries(const nghttp2_frame_hd *hd)
{
        return (hd->type == NGHTTP2_DATA && hd->length > 0) || hd->type == NGHTTP2_HEADERS;
}

static void earn(struct h2_client *c)
{
        c->budget = MIN(c->budget + BUDGET_EARNED, BUDGET_MAX);
}

static void measure_windows(struct h2_client *c)
{
        h2_windows_begin(&c->windows, c->session);
        LIST_EACH (n, &c->streams) {
                struct h2_stream *s = CONTAINER_OF(n, struct h2_stream, link);
                if (s->id != 0)
                        h2_windows_stream(&c->windows, c->session, s->id);
        }
}

static int on_begin_frame(nghttp2_session *session UNUSED, const nghttp2_frame_hd *hd, void *ctx)
{
        struct h2_client *c = ctx;
        int64_t now = c->io.loop->now;
        if (!(hd->type == NGHTTP2_PING && (hd->flags & NGHTTP2_FLAG_ACK))) {
                c->heard = now;
                c->doubted = false;
        }
        c->strange -= (int64_t)hd->length + 9;
        if (hd->type == NGHTTP2_SETTINGS)
                measure_windows(c);
        if (carries(hd)) {
                c->strange = MIN(c->strange, 0);
                earn(c);
                return 0;
        }
        if (c->budget == 0 && now > c->refilled) {
                c->budget = (uint32_t)MIN((now - c->refilled) * BUDGET_SECOND / SEC, BUDGET_MAX);
                c->refilled = now;
        }
        if (c->budget == 0) {
                break_off(c, REASON_UPSTREAM_FLOOD);
                return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        c->budget--;
        return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
        struct h2_client *c = ctx;
        bool ack = frame->hd.flags & NGHTTP2_FLAG_ACK;
        switch (frame->hd.type) {
        case NGHTTP2_SETTINGS:
                c->settled = c->settled || !ack;
                if (h2_windows_overflow(&c->windows, session))
                        return nghttp2_session_terminate_session(session,
                                                                 NGHTTP2_FLOW_CONTROL_ERROR);
                break;
        case NGHTTP2_PING:
                if (ack)
                        c->pinging = c->doubted = false;
                break;
        case NGHTTP2_GOAWAY:
                c->goaway = true;
                break;
        default:
                h2_stream_frame_came(c, frame);
        }
        return 0;
}

static int on_frame_send(nghttp2_session *session UNUSED, const nghttp2_frame *frame, void *ctx)
{
        struct h2_client *c = ctx;
        if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
                break_off(c, REASON_UPSTREAM_H2);
        if (carries(&frame->hd))
                earn(c);
        /* What was under way for the stream is passed over like a strange frame, and is none. */
        if (frame->hd.type == NGHTTP2_RST_STREAM)
                c->strange = MAX(c->strange - (int64_t)PIPE_HIGH, -(int64_t)CONN_WINDOW);
        h2_stream_frame_sent(c, frame);
        return 0;
}

static int on_frame_not_send(nghttp2_session *session UNUSED, const nghttp2_frame *frame,
                             int error UNUSED, void *ctx)
{
        h2_stream_not_sent(ctx, frame);
        return 0;
}

static int on_invalid_frame(nghttp2_session *session UNUSED, const nghttp2_frame *frame, int error,
                            void *ctx)
{
        h2_stream_invalid(ctx, frame, error);
        return 0;
}

/* ---------------------------------------------------------------- per loop */

struct h2_loop *h2_loop(struct loop *l)
{
        struct h2_loop *h = l->slot[LOOP_SLOT_H2_CLIENT];
        if (LIKELY(h != NULL))
                return h;
        h = calloc(1, sizeof(*h));
        CHECK(h != NULL && nghttp2_session_callbacks_new(&h->calls) == 0 &&
              nghttp2_option_new(&h->option) == 0);
        slab_init(&h->clients, sizeof(struct h2_client), KEEP);
        slab_init(&h->streams, sizeof(struct h2_stream), KEEP);
        h2_memory_init(&h->memory);
        nghttp2_session_callbacks_set_on_begin_frame_callback(h->calls, on_begin_frame);
        nghttp2_session_callbacks_set_on_frame_recv_callback(h->calls, on_frame_recv);
        nghttp2_session_callbacks_set_on_frame_send_callback(h->calls, on_frame_send);
        nghttp2_session_callbacks_set_on_frame_not_send_callback(h->calls, on_frame_not_send);
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(h->calls, on_invalid_frame);
        nghttp2_session_callbacks_set_on_begin_headers_callback(h->calls, h2_on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(h->calls, h2_on_header);
        nghttp2_session_callbacks_set_on_invalid_header_callback(h->calls, h2_on_invalid_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(h->calls, h2_on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(h->calls, h2_on_stream_close);
        nghttp2_session_callbacks_set_send_data_callback(h->calls, h2_send_data);
        nghttp2_option_set_no_auto_window_update(h->option, 1);
        nghttp2_option_set_no_closed_streams(h->option, 1);
        nghttp2_option_set_max_send_header_block_length(h->option, 2 * MIB);
        l->slot[LOOP_SLOT_H2_CLIENT] = h;
        return h;
}

void h2_client_loop_end(struct loop *l)
{
        struct h2_loop *h = l->slot[LOOP_SLOT_H2_CLIENT];
        if (!h)
                return;
        CHECK(h->clients.live == 0 && h->streams.live == 0);
        slab_end(&h->clients);
        slab_end(&h->streams);
        h2_memory_end(&h->memory);
        nghttp2_session_callbacks_del(h->calls);
        nghttp2_option_del(h->option);
        free(h);
        l->slot[LOOP_SLOT_H2_CLIENT] = NULL;
}

/* ---------------------------------------------------------------- connecting */

static void begin_session(struct h2_client *c)
{
        struct h2_loop *h = h2_loop(c->io.loop);
        const nghttp2_settings_entry settings[] = {
                {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0},
                {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, PIPE_HIGH},
        };
        CHECK(nghttp2_session_client_new3(&c->session, h->calls, c, h->option, &h->memory.mem) ==
              0);
        CHECK(nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, COUNT(settings)) ==
              0);
        CHECK(nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
                                                    CONN_WINDOW) == 0);
        c->state = H2_SETTLING;
        c->heard = c->refilled = c->io.loop->now;
        c->budget = BUDGET_MAX;
        h2_schedule(c);
}

static void ready(struct io *io, enum reason why)
{
        struct h2_client *c = client_of(io);
        if (why == REASON_CONNECT_FAILED)
                connect_failed(c, why, strerror(io->error));
        else if (why != REASON_NONE)
                connect_failed(c, REASON_UPSTREAM_TLS, NULL);
        else if (io->tls && !str_eq(tls_facts(io->tls)->alpn, STR("h2")))
                connect_failed(c, REASON_UPSTREAM_TLS,
                               "the server does not agree to h2 (ALPN), which `protocol h2` needs");
        else
                begin_session(c);
}

static const struct io_owner client_owner = {readable, drained, ready};

struct client_conn *h2_client_connect(struct loop *l, const struct addr *to, struct tls_client *tls,
                                      str host, int64_t connect_us, const struct client_pool *pool,
                                      void *pool_ctx, enum reason *why)
{
        struct slab *slab = &h2_loop(l)->clients;
        struct h2_client *c = slab_get(slab);
        enum reason failed = io_connect(&c->io, l, to, &client_owner);
        if (failed != REASON_NONE) {
                slab_put(slab, c);
                *why = failed;
                return NULL;
        }
        c->magic = H2_CLIENT_MAGIC;
        c->conn.ops = &conn_ops;
        c->conn.pool = pool;
        c->conn.pool_ctx = pool_ctx;
        list_init(&c->streams);
        list_init(&c->news);
        list_init(&c->dead);
        if (tls)
                io_start_tls(&c->io, tls_connect_peer(tls, c->io.fd, host));
        arm(c, TIMER_CONNECT, connect_us);
        return &c->conn;
}

/* ---------------------------------------------------------------- what the pool does */

static str conn_error(struct client_conn *conn)
{
        struct h2_client *c = client_of_conn(conn);
        if (c->error)
                return str_z(c->error);
        return c->io.tls ? tls_facts(c->io.tls)->error : STR_NONE;
}

static void conn_idle(struct client_conn *conn, int64_t idle_us)
{
        struct h2_client *c = client_of_conn(conn);
        CHECK(c->state == H2_OPEN && conn->busy == 0);
        arm(c, TIMER_POOL, idle_us);
}

static void conn_bind(struct client_conn *conn, struct exchange *x)
{
        struct h2_client *c = client_of_conn(conn);
        CHECK(c->state == H2_OPEN && conn->room > 0);
        CHECK_OBJ(x, EXCHANGE_MAGIC);
        x->reused = c->used;
        c->used = true;
        if (conn->busy == 0)
                arm(c, TIMER_BEAT, PING_AFTER);
        h2_bind(c, x);
        c->told_busy = ++conn->busy; /* the pool knows */
        c->told_room = --conn->room;
}

static void conn_close(struct client_conn *conn, enum reason why)
{
        struct h2_client *c = client_of_conn(conn);
        LIST_EACH (n, &c->streams) {
                struct h2_stream *s = CONTAINER_OF(n, struct h2_stream, link);
                if (s->x)
                        h2_detach(s);
        }
        if (c->state == H2_OPEN && !c->io.writing &&
            nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR) == 0)
                flush(c);
        end_client(c, why);
}

static const struct client_conn_ops conn_ops = {
        .bind = conn_bind,
        .idle = conn_idle,
        .close = conn_close,
        .error = conn_error,
};

/* ---------------------------------------------------------------- deadlines */

static void beat(struct h2_client *c)
{
        int64_t now = c->io.loop->now, silent = now - c->heard;
        if (c->conn.busy == 0)
                return;
        if (c->pinging && c->heard <= c->pinged) {
                fail(c, REASON_UPSTREAM_PING);
        } else if (silent < PING_AFTER) {
                c->pinging = false;
                arm(c, TIMER_BEAT, PING_AFTER - silent);
        } else if (c->pinged > c->heard && now - c->pinged < PING_AGAIN) {
                arm(c, TIMER_BEAT, PING_AGAIN - (now - c->pinged));
        } else {
                c->pinging = nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL) == 0;
                c->pinged = now;
                arm(c, TIMER_BEAT, PING_WAIT);
                h2_schedule(c);
        }
}

static void on_deadline(struct deadline *d)
{
        struct h2_client *c = CONTAINER_OF(d, struct h2_client, deadline);
        CHECK_OBJ(c, H2_CLIENT_MAGIC);
        enum client_timer what = c->timer;
        c->timer = TIMER_NONE;
        switch (what) {
        case TIMER_NONE:
                break;
        case TIMER_CONNECT:
                connect_failed(c, REASON_CONNECT_TIMEOUT,
                               c->state == H2_SETTLING ? "no SETTINGS of HTTP/2 came"
                                                       : "timed out");
                break;
        case TIMER_POOL:
                fail(c, REASON_IDLE);
                break;
        case TIMER_BEAT:
                beat(c);
                break;
        }
}
