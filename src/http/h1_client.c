/*
 * HTTP/1 towards servers: one connection, one exchange at a time.
 *
 *      CONNECTING -> IDLE -> BOUND -> BUSY -> IDLE (released) | closed
 *
 * The difficulty: request and response pass at the same time, and either may end first.  The
 * response rules: when it is complete the exchange is over, and a connection whose request has not
 * been sent to its end is not used again.  As on the other side, pool and flow may do anything
 * inside a call of them, so the connection is given back before they are told, and telling is the
 * last thing.
 */
#include "http/h1_client.h"

#include "http/codecs.h"
#include "http/field.h"
#include "http/h1_body.h"
#include "http/h1_write.h"

#define CLIENT_MAGIC UINT32_C(0x48314343)
#define INTERIM_MAX  32 /* 1xx heads before a final one */
#define CONTINUE_US                                                                                \
        SEC /* a server that ignores Expect gets the body after this (RFC 9110 10.1.1) */

enum client_state { CLIENT_CONNECTING, CLIENT_IDLE, CLIENT_BUSY, CLIENT_CLOSED };

/* What the deadline is for; it may stay armed after that has passed, firing is then ignored. */
enum client_timer {
        TIMER_NONE,
        TIMER_CONNECT,
        TIMER_POOL,
        TIMER_SEND,
        TIMER_CONTINUE,
        TIMER_RESPONSE,
        TIMER_SILENCE
};

/* One connection to a server.  Owned by its pool until closed() or a failed connected().
 * Invariant: x is set in BUSY only, and x->codec_ctx is this connection then. */
struct h1_client {
        struct io io;
        uint32_t magic;
        uint8_t state, timer;
        bool used : 1; /* has carried an exchange */
        bool tunnel : 1;
        bool awaiting : 1; /* the body is held back until the server says 100 */
        uint8_t interims;
        struct client_conn conn;
        struct loop_task task;
        struct deadline deadline;
        struct exchange *x;
        struct arena *arena; /* of x's request, to be known before x is in the CPU's caches */
        struct h1_scan scan; /* of the response's head */
        struct h1_reader in;
        struct h1_writer out;
        size_t unsent; /* when TIMER_SEND was armed */
        const char *error;
};

const size_t h1_client_size = sizeof(struct h1_client);
_Static_assert(sizeof(struct h1_client) < 600, "an idle connection is small");

static const struct exchange_ops exchange_ops;
static const struct client_conn_ops conn_ops;
static void on_deadline(struct deadline *d);
static void advance(struct h1_client *c);

static struct h1_client *client_of(struct io *io)
{
        struct h1_client *c = CONTAINER_OF(io, struct h1_client, io);
        CHECK_OBJ(c, CLIENT_MAGIC);
        return c;
}

static struct h1_client *client_of_conn(struct client_conn *conn)
{
        struct h1_client *c = CONTAINER_OF(conn, struct h1_client, conn);
        CHECK_OBJ(c, CLIENT_MAGIC);
        return c;
}

static struct h1_client *client_of_exchange(struct exchange *x)
{
        CHECK_OBJ(x, EXCHANGE_MAGIC);
        struct h1_client *c = x->codec_ctx;
        CHECK_OBJ(c, CLIENT_MAGIC);
        CHECK(c->x == x);
        return c;
}

static void arm(struct h1_client *c, enum client_timer what, int64_t us)
{
        c->timer = (uint8_t)what;
        deadline_set(c->io.loop, &c->deadline, us, on_deadline);
}

/* ---------------------------------------------------------------- the end */

static void bury(struct loop_task *t)
{
        struct h1_client *c = CONTAINER_OF(t, struct h1_client, task);
        struct loop *l = c->io.loop;
        c->magic = DEAD_MAGIC;
        slab_put(&codecs(l)->clients, c);
}

static void end_client(struct h1_client *c, enum reason why)
{
        if (c->state == CLIENT_CLOSED)
                return;
        CHECK(c->x == NULL);
        c->state = CLIENT_CLOSED;
        c->conn.room = 0;
        deadline_clear(&c->deadline);
        io_close(&c->io, why);
        loop_defer(c->io.loop, &c->task, bury);
}

static void close_and_tell(struct h1_client *c, enum reason why)
{
        end_client(c, why);
        c->conn.pool->closed(&c->conn, why);
}

/* The exchange is over, one way or the other; returns it. */
static struct exchange *detach(struct h1_client *c)
{
        struct exchange *x = c->x;
        c->x = NULL;
        c->conn.busy = 0;
        c->timer = TIMER_NONE;
        x->ops = NULL;
        x->codec_ctx = NULL;
        x->phase = EXCHANGE_DONE;
        return x;
}

static void fail(struct h1_client *c, enum reason why)
{
        struct exchange *x = detach(c);
        struct request *r = x->r;
        request_hold(r);
        client_explain(&c->io, why, x);
        close_and_tell(c, why);
        x->user->failed(x, why);
        request_drop(r);
}

/* The response is complete: the connection goes back to its pool, or is closed. */
static void release(struct h1_client *c)
{
        bool sent = c->out.done && !c->io.writing && !c->out.broken;
        bool keep = c->x->res->keep_alive && sent && c->io.in.n == 0 && !c->io.eof &&
                    !c->io.failed && !c->tunnel;
        detach(c);
        if (keep) {
                c->state = CLIENT_IDLE;
                c->conn.room = 1;
                c->conn.pool->released(&c->conn);
        } else {
                close_and_tell(c, c->tunnel    ? REASON_TUNNEL_END
                                  : !sent      ? REASON_UPSTREAM_EARLY
                                  : c->io.in.n ? REASON_UPSTREAM_SURPLUS
                                               : REASON_DONE);
        }
}

/* ---------------------------------------------------------------- timers */

/* Which silence counts now: the server takes nothing, answers nothing, or stops in the middle. */
static void settle_timer(struct h1_client *c)
{
        struct exchange *x = c->x;
        if (c->tunnel) {
                c->timer = TIMER_NONE; /* flow watches it */
        } else if (c->io.writing) {
                if (c->timer != TIMER_SEND) {
                        c->unsent = io_unsent(&c->io);
                        arm(c, TIMER_SEND, x->send_us);
                }
        } else if (x->phase == EXCHANGE_WAITING && c->awaiting) {
                if (c->timer != TIMER_CONTINUE)
                        arm(c, TIMER_CONTINUE, CONTINUE_US);
        } else if (x->phase == EXCHANGE_WAITING && c->out.done) {
                if (c->timer != TIMER_RESPONSE)
                        arm(c, TIMER_RESPONSE, x->response_us);
        } else if (x->phase == EXCHANGE_BODY && !x->r->from_server->stalled) {
                arm(c, TIMER_SILENCE, x->response_idle_us);
        } else {
                c->timer = TIMER_NONE;
        }
}

/* ---------------------------------------------------------------- the request goes out */

/* Both directions of a tunnel have ended and all has been sent. */
static bool tunnel_over(const struct h1_client *c)
{
        return c->tunnel && c->in.done && c->out.done && !c->io.writing;
}

/* The response has ended, and so has the exchange. */
static void end_exchange(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct request *r = x->r;
        request_hold(r);
        release(c);
        x->user->res_ready(x);
        request_drop(r);
}

/* Sends what there is of the request; what waits for the socket goes first, so that it only shrinks
 * and send_expired() sees whether it does. */
static void push(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct pipe *p = x->r->to_server;
        if (c->io.writing)
                return;
        do {
                if (h1_writer_put(&c->out, p, &c->io.out, &x->r->req.trailers) > 0)
                        x->body_taken = true;
                if (c->io.out.n > 0)
                        x->wrote = true;
                io_flush(&c->io);
        } while (!c->out.done && !c->io.writing && !c->io.failed && p->data.n > 0);
        if (c->tunnel && c->out.done)
                io_shutdown(&c->io);
        if (tunnel_over(c)) {
                end_exchange(c);
                return;
        }
        settle_timer(c);
        /* A request that has ended short of its announced length cannot be completed. */
        if (c->out.broken)
                fail(c, REASON_INTERNAL);
        else if (p->stalled && !pipe_full(p))
                x->user->req_room(x);
}

static void ops_start(struct exchange *x)
{
        struct h1_client *c = client_of_exchange(x);
        CHECK(x->phase == EXCHANGE_IDLE);
        x->phase = EXCHANGE_WAITING;
        x->sent_at = c->io.loop->now;
        c->used = true;
        c->tunnel = false;
        c->interims = 0;
        c->scan = (struct h1_scan){.kind = H1_RESPONSE};
        h1_write_request(&c->io.out, x->req, true);
        h1_writer_begin(&c->out, x->req->framing, x->req->length);
        bool more = !x->r->to_server->end;
        c->awaiting = more && x->req->expect_continue && x->r->to_server->data.n == 0;
        if (!more || c->awaiting) {
                push(c);
                return;
        }
        struct request *r = x->r;
        request_hold(r);
        push(c);
        if (c->x == x && !r->to_server->end)
                x->user->req_room(x);
        request_drop(r);
}

static void ops_req_ready(struct exchange *x)
{
        struct h1_client *c = client_of_exchange(x);
        c->awaiting = false; /* the client did not wait either */
        if (x->phase != EXCHANGE_IDLE && !c->io.failed)
                push(c);
}

static void drained(struct io *io)
{
        struct h1_client *c = client_of(io);
        if (c->state != CLIENT_BUSY || c->x->phase == EXCHANGE_IDLE)
                return;
        c->timer = TIMER_NONE;
        push(c);
}

/* ---------------------------------------------------------------- the response comes in */

static enum reason take_body(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct request *r = x->r;
        struct h1_limits lim = {x->head_max, x->line_max, x->fields_max};
        enum reason why = h1_reader_take(&c->in, &c->io.in, r->from_server, r->arena,
                                         &x->res->trailers, &lim);
        if (r->from_server->stalled)
                io_pause(&c->io);
        return why == REASON_NONE ? why : REASON_UPSTREAM_FRAMING;
}

/* The server may switch to a protocol that was asked for, once the request is complete. */
static bool switch_is_legal(const struct h1_client *c, const struct msg *res)
{
        const struct exchange *x = c->x;
        str asked = x->req->upgrade;
        return x->accept_upgrade && c->out.done && !c->io.writing && res->upgrade.p &&
               field_list_has(asked, res->upgrade);
}

static void begin_body(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct request *r = x->r;
        x->phase = EXCHANGE_BODY;
        x->head_at = c->io.loop->now;
        if (x->res->framing == FRAMING_TUNNEL) {
                c->tunnel = true;
                r->to_server->end = r->to_server->stalled = false;
                h1_writer_begin(&c->out, FRAMING_TUNNEL, 0);
        }
        h1_reader_begin(&c->in, x->res->framing, x->res->length);
}

/* *x->res is the final head. */
static void final_head(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct request *r = x->r;
        if (x->res->status == 101 && !switch_is_legal(c, x->res)) {
                fail(c, REASON_UPSTREAM_SWITCH);
                return;
        }
        begin_body(c);
        enum reason why = take_body(c);
        if (why != REASON_NONE) {
                fail(c, why);
                return;
        }
        request_hold(r);
        if (c->in.done)
                release(c);
        else
                settle_timer(c);
        x->user->head(x);
        request_drop(r);
}

/* The body is wanted now. */
static void ask_for_body(struct h1_client *c)
{
        c->awaiting = false;
        settle_timer(c);
        c->x->user->req_room(c->x);
}

/* Returns whether the exchange goes on waiting for a final head here. */
static bool interim_head(struct h1_client *c, const struct msg *m)
{
        struct exchange *x = c->x;
        struct request *r = x->r;
        if (++c->interims > INTERIM_MAX) {
                fail(c, REASON_UPSTREAM_HEAD);
                return false;
        }
        x->interim = *m;
        c->scan = (struct h1_scan){.kind = H1_RESPONSE};
        request_hold(r);
        x->user->interim(x);
        bool on = c->state == CLIENT_BUSY && c->x == x && x->phase == EXCHANGE_WAITING;
        if (on && m->status == 100 && c->awaiting) {
                ask_for_body(c);
                on = c->state == CLIENT_BUSY && c->x == x && x->phase == EXCHANGE_WAITING;
        }
        request_drop(r);
        return on;
}

static enum reason head_reason(enum reason why)
{
        switch (why) {
        case REASON_HEADER_LINE:
        case REASON_FIELD_LINE:
        case REASON_HEADER_MAX:
        case REASON_HEADER_FIELDS:
                return REASON_UPSTREAM_HEADER_MAX;
        default:
                return REASON_UPSTREAM_HEAD;
        }
}

/* Heads at the front of the queue. */
static void take_head(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct h1_limits lim = {x->head_max, x->line_max, x->fields_max};
        for (;;) {
                enum reason why;
                uint64_t measured;
                str text = buf_pullup(&c->io.in, (size_t)lim.head_max + 1);
                ptrdiff_t n = h1_head_end(&c->scan, text, &lim, &why, &measured);
                if (n == 0)
                        return;
                if (n < 0) {
                        fail(c, head_reason(why));
                        return;
                }
                struct msg m = {0};
                str head = arena_dup(x->r->arena, str_head(text, (size_t)n));
                why = head.p ? h1_parse_response(x->r->arena, head, x->req->method, &m)
                             : REASON_UPSTREAM_HEADER_MAX;
                buf_drain(&c->io.in, (size_t)n);
                if (why != REASON_NONE) {
                        fail(c, why);
                        return;
                }
                if (m.status >= 200 || m.status == 101) {
                        *x->res = m;
                        final_head(c);
                        return;
                }
                if (!interim_head(c, &m) || c->io.in.n == 0)
                        return;
        }
}

/* More of the body, or its end. */
static void body_came(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct request *r = x->r;
        uint64_t before = r->from_server->passed;
        enum reason why = take_body(c);
        if (why != REASON_NONE) {
                fail(c, why);
                return;
        }
        if (!c->in.done) {
                settle_timer(c);
                if (r->from_server->passed != before)
                        x->user->res_ready(x);
                return;
        }
        end_exchange(c);
}

/* What is in the queue belongs to the exchange. */
static void advance(struct h1_client *c)
{
        if (c->x->phase == EXCHANGE_WAITING)
                take_head(c);
        else
                body_came(c);
}

/* The server has finished sending. */
static void server_ended(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct pipe *p = x->r->from_server;
        bool cut = c->io.truncated && !c->tunnel;
        if (x->phase != EXCHANGE_BODY || cut || !h1_reader_eof(&c->in, p)) {
                fail(c, REASON_UPSTREAM_RESET);
        } else if (c->tunnel && !tunnel_over(c)) {
                x->user->res_ready(x); /* the other direction goes on */
        } else {
                end_exchange(c);
        }
}

static void busy_readable(struct h1_client *c)
{
        struct exchange *x = c->x;
        struct pipe *p = x->r->from_server;
        bool body = x->phase == EXCHANGE_BODY;
        if (body && pipe_full(p)) /* a reset, but what came before it is read when there is room */
                return;
        size_t want = body ? p->high - p->data.n : BUF_CHUNK;
        switch (io_read(&c->io, want, NULL)) {
        case IO_OK:
                x->got_byte = true;
                if (x->phase == EXCHANGE_IDLE)
                        fail(c, REASON_UPSTREAM_SURPLUS); /* an answer before the question */
                else
                        advance(c);
                break;
        case IO_AGAIN:
                break;
        case IO_EOF:
                server_ended(c);
                break;
        case IO_ERROR:
                fail(c, client_lost(&c->io));
                break;
        }
}

static void idle_readable(struct h1_client *c)
{
        switch (io_read(&c->io, 1, NULL)) {
        case IO_AGAIN:
                break;
        case IO_OK:
                close_and_tell(c, REASON_UPSTREAM_SURPLUS);
                break;
        case IO_EOF:
        case IO_ERROR:
                close_and_tell(c, REASON_SERVER_CLOSED);
                break;
        }
}

static void readable(struct io *io)
{
        struct h1_client *c = client_of(io);
        if (c->state == CLIENT_BUSY) {
                arena_prefetch(c->arena, REQUEST_WHOLE); /* comes while the kernel reads */
                busy_readable(c);
        } else {
                idle_readable(c);
        }
}

/* Bytes that had no credit when they came. */
static void advance_task(struct loop_task *t)
{
        struct h1_client *c = CONTAINER_OF(t, struct h1_client, task);
        CHECK_OBJ(c, CLIENT_MAGIC);
        if (c->state == CLIENT_BUSY && c->x->phase == EXCHANGE_BODY && c->io.in.n > 0)
                advance(c);
}

static void ops_res_room(struct exchange *x)
{
        struct h1_client *c = client_of_exchange(x);
        x->r->from_server->stalled = false;
        if (c->io.in.n > 0)
                loop_defer(c->io.loop, &c->task, advance_task);
        io_resume(&c->io);
        settle_timer(c);
}

static void ops_abort(struct exchange *x, enum reason why)
{
        struct h1_client *c = client_of_exchange(x);
        detach(c);
        close_and_tell(c, why);
}

static const struct exchange_ops exchange_ops = {
        .start = ops_start,
        .req_ready = ops_req_ready,
        .res_room = ops_res_room,
        .abort = ops_abort,
};

/* ---------------------------------------------------------------- connecting */

static void connect_failed(struct h1_client *c, enum reason why, const char *error)
{
        c->error = error;
        c->conn.pool->connected(&c->conn, why);
        end_client(c, why);
}

static void ready(struct io *io, enum reason why)
{
        struct h1_client *c = client_of(io);
        if (why == REASON_NONE) {
                c->state = CLIENT_IDLE;
                c->conn.room = 1;
                c->timer = TIMER_NONE;
                c->conn.pool->connected(&c->conn, why);
        } else if (why == REASON_CONNECT_FAILED) {
                connect_failed(c, why, strerror(io->error));
        } else {
                connect_failed(c, REASON_UPSTREAM_TLS, NULL);
        }
}

static const struct io_owner client_owner = {readable, drained, ready};

struct client_conn *h1_client_connect(struct loop *l, const struct addr *to, struct tls_client *tls,
                                      str host, int64_t connect_us, const struct client_pool *pool,
                                      void *pool_ctx, enum reason *why)
{
        struct slab *slab = &codecs(l)->clients;
        struct h1_client *c = slab_get(slab);
        enum reason failed = io_connect(&c->io, l, to, &client_owner);
        if (failed != REASON_NONE) {
                slab_put(slab, c);
                *why = failed;
                return NULL;
        }
        c->magic = CLIENT_MAGIC;
        c->state = CLIENT_CONNECTING;
        c->conn.ops = &conn_ops;
        c->conn.pool = pool;
        c->conn.pool_ctx = pool_ctx;
        if (tls)
                io_start_tls(&c->io, tls_connect_peer(tls, c->io.fd, host));
        arm(c, TIMER_CONNECT, connect_us);
        return &c->conn;
}

void h1_client_preface(struct client_conn *conn, str bytes)
{
        io_preface(&client_of_conn(conn)->io, bytes);
}

/* ---------------------------------------------------------------- what the pool does */

static str conn_error(struct client_conn *conn)
{
        struct h1_client *c = client_of_conn(conn);
        if (c->error)
                return str_z(c->error);
        return c->io.tls ? tls_facts(c->io.tls)->error : STR_NONE;
}

static void conn_idle(struct client_conn *conn, int64_t idle_us)
{
        struct h1_client *c = client_of_conn(conn);
        CHECK(c->state == CLIENT_IDLE);
        arm(c, TIMER_POOL, idle_us);
}

static void conn_bind(struct client_conn *conn, struct exchange *x)
{
        struct h1_client *c = client_of_conn(conn);
        CHECK(c->state == CLIENT_IDLE && c->x == NULL);
        CHECK_OBJ(x, EXCHANGE_MAGIC);
        c->state = CLIENT_BUSY;
        c->conn.busy = 1;
        c->conn.room = 0;
        c->timer = TIMER_NONE;
        c->x = x;
        c->arena = x->r->arena;
        x->phase = EXCHANGE_IDLE;
        x->ops = &exchange_ops;
        x->codec_ctx = c;
        x->reused = c->used;
}

static void conn_close(struct client_conn *conn, enum reason why)
{
        struct h1_client *c = client_of_conn(conn);
        if (c->x)
                detach(c);
        end_client(c, why);
}

static const struct client_conn_ops conn_ops = {
        .bind = conn_bind,
        .idle = conn_idle,
        .close = conn_close,
        .error = conn_error,
};

/* ---------------------------------------------------------------- deadlines */

static void send_expired(struct h1_client *c)
{
        size_t unsent = io_unsent(&c->io);
        if (unsent < c->unsent) {
                c->unsent = unsent;
                arm(c, TIMER_SEND, c->x->send_us);
        } else {
                fail(c, REASON_RESPONSE_TIMEOUT);
        }
}

static void on_deadline(struct deadline *d)
{
        struct h1_client *c = CONTAINER_OF(d, struct h1_client, deadline);
        CHECK_OBJ(c, CLIENT_MAGIC);
        enum client_timer what = c->timer;
        c->timer = TIMER_NONE;
        switch (what) {
        case TIMER_NONE:
                break;
        case TIMER_CONNECT:
                connect_failed(c, REASON_CONNECT_TIMEOUT, "timed out");
                break;
        case TIMER_POOL:
                close_and_tell(c, REASON_IDLE);
                break;
        case TIMER_SEND:
                send_expired(c);
                break;
        case TIMER_CONTINUE:
                if (c->awaiting)
                        ask_for_body(c);
                break;
        case TIMER_RESPONSE:
                fail(c, REASON_RESPONSE_TIMEOUT);
                break;
        case TIMER_SILENCE:
                fail(c, REASON_RESPONSE_IDLE);
                break;
        }
}
