/*
 * The requests of one client connection, one after the other.
 *
 *      IDLE -> HEAD -> BUSY (flow has the request) -> IDLE ...
 *
 * The difficulty: flow may end the request, and with it this connection's part in it, inside any
 * call of it.  So each entry does its own work first and tells flow last; what must go on after a
 * response (the next pipelined request) is done at the top level, by serve() or by a task, never
 * from inside flow.
 */
#include "http/downstream_conn.h"
#include "http/h1_body.h"
#include "http/h1_write.h"

#define PIPELINED_MAX (16 * KIB) /* waits behind a request; then reading is paused */

/* The codec's part of a connection.  Invariant: request and stream are set in BUSY only. */
struct h1_conn {
        struct downstream d;
        struct request *request;
        struct h1_stream *stream;
        struct h1_scan scan;
        size_t unsent;    /* when TIMER_SEND was armed */
        bool keep : 1;    /* another request may follow */
        bool serving : 1; /* serve() is on the stack */
};

const size_t h1_conn_size = sizeof(struct h1_conn);
_Static_assert(sizeof(struct h1_conn) < 600, "an idle connection is small");

/* The codec's part of one request; lives in its arena. */
struct h1_stream {
        struct h1_reader in;
        struct h1_writer out;
        int64_t body_us, send_us;
        uint64_t body_max;
        struct h1_limits limits;
        bool expect;    /* a 100 Continue is due when the body is asked for */
        bool no_body;   /* the response has none, whatever its head says */
        bool head_sent; /* the final head is in io.out */
        struct client_facts facts;
};

static void deliver(struct h1_conn *c);
static void finish(struct h1_conn *c);
static void next_task(struct loop_task *t);
static const struct client_ops client_ops;

static struct h1_conn *conn_of(struct downstream *d)
{
        return CONTAINER_OF(d, struct h1_conn, d);
}

static struct h1_conn *conn_of_request(struct request *r)
{
        struct h1_conn *c = r->client_ctx;
        CHECK_OBJ(&c->d, CONN_MAGIC);
        CHECK(c->request == r);
        return c;
}

/* The request is no longer ours; returns it. */
static struct request *detach(struct h1_conn *c)
{
        struct request *r = c->request;
        r->client = NULL;
        c->request = NULL;
        c->stream = NULL;
        return r;
}

static void client_gone(struct h1_conn *c, enum reason why)
{
        struct request *r = detach(c);
        downstream_close(&c->d, why);
        r->flow->gone(r, why);
}

/* ---------------------------------------------------------------- timers */

/* While a request is in progress: the client must take what waits, or send what is expected. */
static void settle_timer(struct h1_conn *c)
{
        struct h1_stream *s = c->stream;
        if (c->d.io.writing) {
                if (c->d.timer != TIMER_SEND) {
                        c->unsent = io_unsent(&c->d.io);
                        downstream_arm(&c->d, TIMER_SEND, s->send_us);
                }
        } else if (!s->in.done && s->in.framing != FRAMING_TUNNEL && !s->expect &&
                   !c->d.io.paused) {
                downstream_arm(&c->d, TIMER_BODY, s->body_us);
        } else {
                c->d.timer = TIMER_NONE;
        }
}

/* ---------------------------------------------------------------- request heads */

static void begin_flow(struct h1_conn *c, struct request *r)
{
        c->request = r;
        c->d.state = CONN_BUSY;
        c->d.timer = TIMER_NONE;
        c->d.served = true;
        r->flow->begin(r);
}

static struct request *new_request(struct h1_conn *c, const struct downstream_conf *conf)
{
        struct request *r = downstream_request(&c->d, conf);
        struct h1_stream *s = ARENA_NEW(r->arena, struct h1_stream);
        CHECK(s != NULL);
        s->body_us = conf->body_us;
        s->send_us = conf->send_us;
        s->limits = conf->limits;
        r->client = &client_ops;
        r->client_ctx = c;
        r->started = c->d.started;
        c->stream = s;
        return r;
}

/* No more is read: the answer is the last thing on this connection. */
static void stop_input(struct h1_conn *c)
{
        c->keep = false;
        c->stream->in.done = true;
        io_pause(&c->d.io);
        buf_clear(&c->d.io.in);
}

/* The head cannot be read to its end; flow answers for it. */
static void refuse_head(struct h1_conn *c, enum reason why, uint64_t measured)
{
        const struct downstream_conf *conf = downstream_conf_of(&c->d);
        struct request *r = new_request(c, conf);
        str seen = arena_dup(r->arena, str_from(buf_front(&c->d.io.in),
                                                MIN(c->scan.skip, buf_front(&c->d.io.in).n)));
        if (seen.p)
                h1_peek_request(r->arena, seen, &r->req);
        r->refused = why;
        r->limit = downstream_limit_of(&conf->limits, why);
        r->measured = measured;
        stop_input(c);
        r->req_body.end = true;
        begin_flow(c, r);
}

/* What is there of the body goes into the pipe. */
static enum reason take_body(struct h1_conn *c)
{
        struct h1_stream *s = c->stream;
        struct request *r = c->request;
        enum reason why = h1_reader_take(&s->in, &c->d.io.in, &r->req_body, r->arena,
                                         &r->req.trailers, &s->limits);
        r->bytes_in = r->req_body.passed;
        uint64_t known = r->bytes_in + s->in.chunk.left; /* a chunk is as long as it says */
        if (why == REASON_NONE && s->body_max && known > s->body_max) {
                r->measured = known;
                r->limit = s->body_max;
                why = REASON_BODY_MAX;
        }
        if (s->in.measured) { /* the trailers broke a limit */
                r->measured = s->in.measured;
                r->limit = downstream_limit_of(&s->limits, why);
        }
        if (r->req_body.stalled)
                io_pause(&c->d.io);
        return why;
}

static void body_failed(struct h1_conn *c, enum reason why)
{
        struct request *r = c->request;
        stop_input(c);
        c->d.timer = TIMER_NONE;
        r->flow->req_failed(r, why);
}

/* The head is complete: its first n bytes of the queue. */
static void begin(struct h1_conn *c, size_t n)
{
        struct request *r = new_request(c, downstream_conf_of(&c->d));
        struct h1_stream *s = c->stream;
        str head = arena_dup(r->arena, str_from(str_head(buf_front(&c->d.io.in), n), c->scan.skip));
        r->refused = head.p ? h1_parse_request(r->arena, head, &r->req) : REASON_HEADER_MAX;
        buf_drain(&c->d.io.in, n);
        if (r->refused != REASON_NONE) {
                stop_input(c);
                r->req_body.end = true;
                begin_flow(c, r);
                return;
        }
        c->keep = r->req.keep_alive;
        c->request = r;
        h1_reader_begin(&s->in, r->req.framing, r->req.length);
        enum reason why = take_body(c);
        if (s->in.done) {
                begin_flow(c, r);
                return;
        }
        s->expect = r->req.expect_continue && r->bytes_in == 0;
        request_hold(r);
        begin_flow(c, r);
        if (r->client && why != REASON_NONE)
                body_failed(c, why);
        else if (r->client)
                settle_timer(c);
        request_drop(r);
}

/* Reads the head at the front of the queue.  false: more bytes are needed. */
static bool next_request(struct h1_conn *c)
{
        const struct downstream_conf *conf = downstream_conf_of(&c->d);
        struct loop *l = c->d.io.loop;
        if (c->d.state == CONN_IDLE) {
                c->d.state = CONN_HEAD;
                c->d.started = l->now;
                c->scan = (struct h1_scan){.kind = H1_REQUEST};
        }
        enum reason why;
        uint64_t measured = 0;
        str text = buf_pullup(&c->d.io.in, (size_t)conf->limits.head_max + 3);
        ptrdiff_t n = h1_head_end(&c->scan, text, &conf->limits, &why, &measured);
        if (n > 0)
                begin(c, (size_t)n);
        else if (n < 0)
                refuse_head(c, why, measured);
        else if (c->d.io.eof)
                downstream_close(&c->d, REASON_CLIENT_GONE);
        else if (c->d.timer != TIMER_HEAD)
                downstream_arm(&c->d, TIMER_HEAD, conf->head_us);
        return n != 0;
}

/* All requests that have come, as far as their responses go out at once. */
static void serve(struct h1_conn *c)
{
        c->serving = true;
        while ((c->d.state == CONN_IDLE || c->d.state == CONN_HEAD) && c->d.io.in.n > 0)
                if (!next_request(c))
                        break;
        c->serving = false;
        if (c->d.state == CONN_IDLE && c->d.io.eof)
                downstream_close(&c->d, REASON_CLIENT_CLOSED);
}

static void head_readable(struct h1_conn *c)
{
        switch (io_read(&c->d.io, BUF_CHUNK, NULL)) {
        case IO_OK:
                serve(c);
                break;
        case IO_AGAIN:
                break;
        case IO_EOF:
                downstream_close(&c->d, c->d.io.in.n ? REASON_CLIENT_GONE : REASON_CLIENT_CLOSED);
                break;
        case IO_ERROR:
                downstream_close(&c->d, REASON_CLIENT_GONE);
                break;
        }
}

/* ---------------------------------------------------------------- request bodies */

/* Bytes have come for the body. */
static void body_advance(struct h1_conn *c)
{
        struct request *r = c->request;
        uint64_t before = r->req_body.passed;
        enum reason why = take_body(c);
        if (why != REASON_NONE) {
                body_failed(c, why);
                return;
        }
        c->stream->expect = false;
        settle_timer(c);
        if (r->req_body.passed != before || r->req_body.end)
                r->flow->req_ready(r);
}

/* The client's direction of a tunnel is over; so may be the whole of it. */
static void tunnel_input_ended(struct h1_conn *c)
{
        struct request *r = c->request;
        request_hold(r);
        r->flow->req_ready(r);
        if (r->client && c->stream->out.done && !c->d.io.writing)
                finish(c);
        request_drop(r);
}

static void body_eof(struct h1_conn *c)
{
        struct h1_stream *s = c->stream;
        if (!h1_reader_eof(&s->in, &c->request->req_body))
                body_failed(c, REASON_BAD_BODY);
        else if (s->in.framing == FRAMING_TUNNEL)
                tunnel_input_ended(c);
}

static void busy_readable(struct h1_conn *c)
{
        struct h1_stream *s = c->stream;
        struct pipe *p = &c->request->req_body;
        if (c->d.io.failed) {
                client_gone(c, REASON_CLIENT_GONE);
                return;
        }
        size_t want = s->in.done || pipe_full(p) ? BUF_CHUNK : p->high - p->data.n;
        switch (io_read(&c->d.io, want, NULL)) {
        case IO_OK:
                if (!s->in.done)
                        body_advance(c);
                else if (c->d.io.in.n > PIPELINED_MAX)
                        io_pause(&c->d.io);
                break;
        case IO_AGAIN:
                break;
        case IO_EOF: /* a half-close: the response still goes out */
                if (!s->in.done)
                        body_eof(c);
                break;
        case IO_ERROR:
                client_gone(c, REASON_CLIENT_GONE);
                break;
        }
}

/* Work that was put off to the top level: the next request, or body bytes that had no credit. */
static void next_task(struct loop_task *t)
{
        struct h1_conn *c = CONTAINER_OF(t, struct h1_conn, d.task);
        CHECK_OBJ(&c->d, CONN_MAGIC);
        if (c->d.state != CONN_BUSY)
                serve(c);
        else if (c->stream->in.done)
                return;
        else if (c->d.io.in.n > 0)
                body_advance(c);
        else if (c->d.io.eof)
                body_eof(c);
}

/* ---------------------------------------------------------------- responses: what flow says */

/* The whole response was handed to the socket. */
static void finish(struct h1_conn *c)
{
        struct h1_stream *s = c->stream;
        struct loop *l = c->d.io.loop;
        bool tunnel = s->out.framing == FRAMING_TUNNEL;
        bool keep = c->keep && s->in.done && !s->out.broken && !codecs(l)->draining && !tunnel &&
                    !(c->d.io.eof && c->d.io.in.n == 0);
        struct request *r = detach(c);
        if (!keep) {
                downstream_close_lingering(&c->d, tunnel ? REASON_TUNNEL_END : REASON_DONE);
        } else {
                c->d.state = CONN_IDLE;
                c->d.timer = TIMER_NONE;
                if (c->d.io.in.n == 0)
                        downstream_arm(&c->d, TIMER_IDLE, downstream_conf_of(&c->d)->idle_us);
                else if (!c->serving)
                        loop_defer(l, &c->d.task, next_task);
                io_resume(&c->d.io);
        }
        r->flow->res_sent(r);
}

/* Everything that the response has goes out, as far as the socket takes it.  Nothing is added to
 * what waits for the socket, so that it only shrinks and send_expired() sees whether it does. */
static void deliver(struct h1_conn *c)
{
        struct h1_stream *s = c->stream;
        struct request *r = c->request;
        struct pipe *p = &r->res_body;
        if (c->d.io.writing)
                return;
        do {
                r->bytes_out += h1_writer_put(&s->out, p, &c->d.io.out, &r->res.trailers);
                io_flush(&c->d.io);
        } while (!s->out.done && !c->d.io.writing && !c->d.io.failed && p->data.n > 0);
        if (c->d.io.failed) /* the next readable() says that the client has gone */
                return;
        if (s->out.done && s->out.framing == FRAMING_TUNNEL)
                io_shutdown(&c->d.io);
        bool all = s->out.framing != FRAMING_TUNNEL || s->in.done;
        if (s->out.done && all && !c->d.io.writing) {
                finish(c);
                return;
        }
        settle_timer(c);
        if (p->stalled && !pipe_full(p))
                r->flow->res_room(r);
}

static void drained(struct io *io)
{
        struct h1_conn *c = conn_of(downstream_of(io));
        if (c->d.state != CONN_BUSY)
                return;
        c->d.timer = TIMER_NONE;
        if (c->stream->head_sent)
                deliver(c);
        else
                settle_timer(c);
}

/* Chooses what follows the head: HTTP/1.0 knows no chunks. */
static enum framing response_framing(const struct request *r, bool no_body, uint8_t version)
{
        enum framing framing = r->res.framing;
        if (r->tunnel)
                return FRAMING_TUNNEL;
        if (r->res.status == 204 || (no_body && framing != FRAMING_LENGTH))
                return FRAMING_NONE;
        if (framing == FRAMING_CHUNKED || framing == FRAMING_CLOSE)
                return version >= 11 ? FRAMING_CHUNKED : FRAMING_CLOSE;
        return framing;
}

/* After a 101 both pipes are raw. */
static void begin_tunnel(struct h1_conn *c)
{
        struct request *r = c->request;
        h1_reader_begin(&c->stream->in, FRAMING_TUNNEL, 0);
        c->stream->body_max = 0;
        r->req_body.end = r->req_body.stalled = false;
        if (c->d.io.in.n > 0 || c->d.io.eof)
                loop_defer(c->d.io.loop, &c->d.task, next_task);
        io_resume(&c->d.io);
}

static void ops_head(struct request *r)
{
        struct h1_conn *c = conn_of_request(r);
        struct h1_stream *s = c->stream;
        uint8_t version = r->req.version ? r->req.version : 11;
        s->no_body = r->req.method == METHOD_HEAD || r->res.status == 204 || r->res.status == 304;
        enum framing framing = response_framing(r, s->no_body, version);
        c->keep = c->keep && !r->close_after && !r->outdated && s->in.done &&
                  framing != FRAMING_CLOSE && !codecs(r->loop)->draining;
        h1_write_response(&c->d.io.out, &r->res,
                          &(struct h1_response_form){.version = version,
                                                     .keep_alive = c->keep,
                                                     .no_body = s->no_body,
                                                     .framing = framing,
                                                     .wall = r->loop->wall});
        s->head_sent = true;
        s->expect = false;
        h1_writer_begin(&s->out, s->no_body ? FRAMING_NONE : framing, r->res.length);
        if (framing == FRAMING_TUNNEL)
                begin_tunnel(c);
        deliver(c);
}

static void ops_res_ready(struct request *r)
{
        struct h1_conn *c = conn_of_request(r);
        if (c->stream->head_sent && !c->d.io.failed)
                deliver(c);
}

static void ops_interim(struct request *r, const struct msg *res)
{
        struct h1_conn *c = conn_of_request(r);
        if (c->stream->head_sent || r->req.version < 11)
                return;
        if (res->status == 100)
                c->stream->expect = false;
        h1_write_interim(&c->d.io.out, res);
        io_flush(&c->d.io);
        settle_timer(c);
}

static void ops_req_room(struct request *r)
{
        struct h1_conn *c = conn_of_request(r);
        struct h1_stream *s = c->stream;
        if (s->in.done)
                return;
        if (s->expect && !s->head_sent) {
                buf_puts(&c->d.io.out, STR("HTTP/1.1 100 Continue\r\n\r\n"));
                io_flush(&c->d.io);
        }
        s->expect = false;
        r->req_body.stalled = false;
        if (c->d.io.in.n > 0)
                loop_defer(r->loop, &c->d.task, next_task);
        io_resume(&c->d.io);
        settle_timer(c);
}

/* What the client has must not look complete.  A body without framing ends with the connection, so
 * only how that ends tells. */
static void ops_cut(struct request *r, enum reason why)
{
        struct h1_conn *c = conn_of_request(r);
        if (c->stream->head_sent && c->stream->out.framing == FRAMING_CLOSE)
                io_cut_at_close(&c->d.io);
        detach(c);
        downstream_close(&c->d, why);
}

/* ---------------------------------------------------------------- facts and limits */

static const struct client_facts *ops_facts(struct request *r)
{
        struct h1_conn *c = conn_of_request(r);
        struct client_facts *f = &c->stream->facts;
        if (!f->serial)
                downstream_facts(&c->d, f);
        return f;
}

static enum reason ops_limits(struct request *r, int64_t body_us, int64_t send_us,
                              uint64_t body_max)
{
        struct h1_conn *c = conn_of_request(r);
        struct h1_stream *s = c->stream;
        s->body_us = body_us;
        s->send_us = send_us;
        s->body_max = body_max;
        uint64_t known = r->req.framing == FRAMING_LENGTH ? r->req.length
                                                          : r->req_body.passed + s->in.chunk.left;
        if (body_max == 0 || known <= body_max)
                return REASON_NONE;
        r->measured = known;
        r->limit = body_max;
        stop_input(c);
        return REASON_BODY_MAX;
}

static const struct client_ops client_ops = {
        .interim = ops_interim,
        .head = ops_head,
        .res_ready = ops_res_ready,
        .req_room = ops_req_room,
        .cut = ops_cut,
        .limits = ops_limits,
        .facts = ops_facts,
};

/* ---------------------------------------------------------------- deadlines */

static void send_expired(struct h1_conn *c)
{
        size_t unsent = io_unsent(&c->d.io);
        if (unsent < c->unsent) {
                c->unsent = unsent;
                downstream_arm(&c->d, TIMER_SEND, c->stream->send_us);
        } else { /* what the kernel holds for this client, megabytes perhaps, goes at once */
                io_reset_at_close(&c->d.io);
                client_gone(c, REASON_CLIENT_SEND);
        }
}

static void expired(struct downstream *d, enum conn_timer what)
{
        struct h1_conn *c = conn_of(d);
        if (what == TIMER_HEAD && d->state == CONN_HEAD)
                refuse_head(c, REASON_CLIENT_HEAD, 0);
        else if (what == TIMER_HEAD)
                downstream_close(d, REASON_CLIENT_HEAD);
        else if (what == TIMER_IDLE)
                downstream_close(d, REASON_CLIENT_IDLE);
        else if (what == TIMER_BODY)
                body_failed(c, REASON_CLIENT_BODY);
        else
                send_expired(c);
}

/* ---------------------------------------------------------------- the connection */

static void readable(struct io *io)
{
        struct h1_conn *c = conn_of(downstream_of(io));
        if (c->d.state == CONN_BUSY)
                busy_readable(c);
        else
                head_readable(c);
}

static void begin_codec(struct downstream *d)
{
        if (d->io.in.n > 0)
                serve(conn_of(d));
}

static void drain(struct downstream *d)
{
        if (d->state == CONN_IDLE && d->served && d->io.in.n == 0)
                downstream_close_lingering(d, REASON_SHUTDOWN);
}

static void end(struct downstream *d, enum reason why)
{
        struct h1_conn *c = conn_of(d);
        if (c->request)
                client_gone(c, why);
        else
                downstream_close(d, why);
}

const struct downstream_codec h1_codec = {
        .io = {.readable = readable, .drained = drained},
        .begin = begin_codec,
        .expired = expired,
        .drain = drain,
        .end = end,
};
