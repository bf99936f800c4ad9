/*
 * HTTP/2 towards clients: one connection and nghttp2's session for it.
 *
 *      readable -> feed -> (callbacks of nghttp2: streams, due) \
 *      flow, deadlines ---------- wake -------------------------> pump: what is due, frames, socket
 *
 * The difficulty is that nghttp2, flow and io call each other in circles.  So there is one place
 * where frames are sent, pump(), once a turn; callbacks only note what is due, and whoever submits
 * something from outside wakes it.  What was submitted becomes frames before that, as soon as
 * nobody is on the stack any more (frame()): of many responses in one turn each is over before the
 * next one is read, with its memory still in the CPU's caches.  A connection that must end says so
 * (over) and ends in pump(), never inside nghttp2.
 *
 * Drain: GOAWAY without a last stream, a PING, and when its answer has come the GOAWAY that names
 * the last one (RFC 9113 6.8), so that no request that was under way meanwhile is lost.
 */
#include "http/h2_server.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define DRAIN_WAIT SEC  /* for the answer to the PING */
#define QUEUE_MAX  1000 /* frames, beside those of the streams */
#define WINDOW_MAX (INT64_C(1) << 30)
#define FATAL      NGHTTP2_ERR_CALLBACK_FAILURE

const size_t h2_stream_size = sizeof(struct h2_stream);

static void pump(struct h2_server *h);
static void final_goaway(struct h2_server *h);

static struct h2_server *server_of(struct downstream *d)
{
        return CAST(struct h2_server, H2_SERVER_MAGIC, d->own);
}

/* ---------------------------------------------------------------- the end */

static void end_streams(struct h2_server *h, enum reason why)
{
        LIST_EACH (n, &h->streams)
                h2_stream_gone(CONTAINER_OF(n, struct h2_stream, link), why);
}

static void bury(struct downstream *d)
{
        struct h2_server *h = server_of(d);
        CHECK(!deadline_armed(&h->head) && !deadline_armed(&h->drain));
        if (list_linked(&h->frames.link)) /* asked for once more by what ended with it */
                list_remove(&h->frames.link);
        while (!list_empty(&h->streams))
                h2_stream_free(CONTAINER_OF(h->streams.next, struct h2_stream, link));
        nghttp2_session_del(h->ng);
        h->magic = DEAD_MAGIC;
        free(h);
}

static void leave(struct h2_server *h, enum reason why)
{
        deadline_clear(&h->head);
        deadline_clear(&h->drain);
        if (list_linked(&h->frames.link))
                list_remove(&h->frames.link);
        end_streams(h, why);
}

static void end(struct downstream *d, enum reason why)
{
        leave(server_of(d), why);
        downstream_close(d, why);
}

/* Says GOAWAY and why, as far as the socket takes it. */
static void end_with_goaway(struct h2_server *h, enum reason why)
{
        static const uint32_t codes[REASONS] = {
                [REASON_CLIENT_IDLE] = NGHTTP2_NO_ERROR,
                [REASON_SHUTDOWN] = NGHTTP2_NO_ERROR,
                [REASON_CLIENT_HEAD] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_PROTOCOL] = NGHTTP2_PROTOCOL_ERROR,
                [REASON_H2_RESETS] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_PINGS] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_SETTINGS] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_PRIORITIES] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_EMPTY_DATA] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_WINDOW_UPDATES] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_UNKNOWN] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_CONTINUATIONS] = NGHTTP2_ENHANCE_YOUR_CALM,
                [REASON_H2_BOMB] = NGHTTP2_ENHANCE_YOUR_CALM,
        };
        struct downstream *d = h->d;
        leave(h, why);
        (void)!nghttp2_session_terminate_session2(h->ng,
                                                  nghttp2_session_get_last_proc_stream_id(h->ng),
                                                  h->error ? h->error : codes[why]);
        (void)!h2_session_fill(h->ng, &d->io.out);
        downstream_close_lingering(d, why);
}

static const struct client_facts *facts_of(struct h2_server *h)
{
        if (!h->facts.serial)
                downstream_facts(h->d, &h->facts);
        return &h->facts;
}

static void say(struct h2_server *h, enum reason why)
{
        h2_guard_say(&h->guard, h->d->io.loop, &facts_of(h)->peer, why);
}

static bool is_abuse(enum reason why)
{
        return why >= REASON_H2_RESETS && why <= REASON_H2_BOMB;
}

/* ---------------------------------------------------------------- callbacks of nghttp2 */

static int stop(struct h2_server *h, enum reason why)
{
        if (why == REASON_NONE)
                return 0;
        h->over = why;
        return FATAL;
}

static struct h2_stream *stream_by_id(struct h2_server *h, int32_t id)
{
        struct h2_stream *s = nghttp2_session_get_stream_user_data(h->ng, id);
        if (s)
                CHECK_OBJ(s, H2_STREAM_MAGIC);
        return s;
}

static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
        struct h2_server *h = arg;
        if (hd->type == NGHTTP2_SETTINGS) {
                h2_windows_begin(&h->windows, ng);
                LIST_EACH (n, &h->streams) {
                        h2_windows_stream(&h->windows, ng,
                                          CONTAINER_OF(n, struct h2_stream, link)->id);
                }
        }
        return stop(h, h2_guard_frame(&h->guard, &h->limits, h->d->io.loop->now, hd));
}

static void head_expired(struct deadline *dl)
{
        struct h2_server *h = CONTAINER_OF(dl, struct h2_server, head);
        CHECK_OBJ(h, H2_SERVER_MAGIC);
        h->guard.limit = 0;
        say(h, REASON_CLIENT_HEAD);
        end_with_goaway(h, REASON_CLIENT_HEAD);
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
        struct h2_server *h = arg;
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
                h->head_of = h2_stream_new(h, frame->hd.stream_id);
                CHECK(nghttp2_session_set_stream_user_data(ng, frame->hd.stream_id, h->head_of) ==
                      0);
        } else {
                h->head_of = stream_by_id(h, frame->hd.stream_id);
        }
        h->head_id = frame->hd.stream_id;
        return 0;
}

static int on_header(nghttp2_session *ng UNUSED, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags UNUSED, void *arg)
{
        struct h2_server *h = arg;
        struct h2_stream *s = frame->hd.stream_id == h->head_id ? h->head_of : NULL;
        nghttp2_vec n = nghttp2_rcbuf_get_buf(name), v = nghttp2_rcbuf_get_buf(value);
        if (!s)
                return 0;
        h2_stream_field(s, frame->headers.cat != NGHTTP2_HCAT_REQUEST,
                        str_of((const char *)n.base, n.len), str_of((const char *)v.base, v.len));
        uint64_t bound = (uint64_t)h->d->conf->limits.head_max * 4;
        if (s->head.size <= bound)
                return 0;
        h->guard.measured = s->head.size;
        h->guard.limit = h->d->conf->limits.head_max;
        return stop(h, REASON_H2_BOMB);
}

/* What nghttp2 would pass over in silence: a name or value with bytes that may not be there. */
static int on_invalid_header(nghttp2_session *ng UNUSED, const nghttp2_frame *frame UNUSED,
                             nghttp2_rcbuf *name UNUSED, nghttp2_rcbuf *value UNUSED,
                             uint8_t flags UNUSED, void *arg UNUSED)
{
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* The log hears of it; flow never does. */
static void say_refused(struct h2_server *h, const char *why)
{
        static _Thread_local struct log_quota quota;
        char text[ADDR_TEXT], subject[ADDR_TEXT + 16];
        if (!log_wants(LOG_INFO) || !log_quota(&quota, 50))
                return;
        addr_print(&facts_of(h)->peer, text);
        snprintf(subject, sizeof(subject), "client %s", text);
        log_info(subject, "%s: a frame was refused: %s", reason_word(REASON_H2_PROTOCOL), why);
}

/* A stream that nghttp2 refuses is reset. */
static int on_invalid_frame(nghttp2_session *ng UNUSED, const nghttp2_frame *frame UNUSED,
                            int error, void *arg)
{
        say_refused(arg, nghttp2_strerror(error));
        return 0;
}

/* Types that weir does not know are ignored (RFC 9113 4.1); they are asked for because nghttp2
 * would not count them. */
static int on_extension(nghttp2_session *ng UNUSED, void **payload UNUSED,
                        const nghttp2_frame_hd *hd UNUSED, void *arg UNUSED)
{
        return NGHTTP2_ERR_CANCEL;
}

static int end_as_wrong(struct h2_server *h, uint32_t error)
{
        h->error = error;
        say_refused(h, nghttp2_http2_strerror(error));
        return stop(h, REASON_H2_PROTOCOL);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
        struct h2_server *h = arg;
        struct h2_stream *s = frame->hd.stream_id ? stream_by_id(h, frame->hd.stream_id) : NULL;
        bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
        switch (frame->hd.type) {
        case NGHTTP2_HEADERS:
                h->head_id = 0;
                h->head_of = NULL;
                deadline_clear(&h->head);
                if (s)
                        h2_stream_head(s, end);
                break;
        case NGHTTP2_DATA:
                if (s && end)
                        h2_stream_input_end(s);
                break;
        case NGHTTP2_RST_STREAM:
                if (s)
                        s->client_reset = true;
                break;
        case NGHTTP2_GOAWAY:
                h->client_goaway = true;
                break;
        case NGHTTP2_SETTINGS:
                if (h2_windows_overflow(&h->windows, ng))
                        return end_as_wrong(h, NGHTTP2_FLOW_CONTROL_ERROR);
                if (h->d->state == CONN_HEAD) { /* the client is there; requests may come later */
                        h->d->state = CONN_IDLE;
                        downstream_arm(h->d, TIMER_IDLE, h->d->conf->idle_us);
                }
                break;
        case NGHTTP2_PING:
                if ((frame->hd.flags & NGHTTP2_FLAG_ACK) && h->noticed)
                        final_goaway(h);
                break;
        }
        return 0;
}

static int on_data_chunk(nghttp2_session *ng, uint8_t flags UNUSED, int32_t id, const uint8_t *p,
                         size_t n, void *arg)
{
        struct h2_stream *s = stream_by_id(arg, id);
        if (s)
                h2_stream_data(s, str_of((const char *)p, n));
        else
                (void)!nghttp2_session_consume(ng, id, n);
        return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
        struct h2_server *h = arg;
        struct h2_stream *s = stream_by_id(h, id);
        if (!s)
                return 0;
        if (h->head_id == id) {
                h->head_id = 0;
                h->head_of = NULL;
                deadline_clear(&h->head);
        }
        if (s->r && s->out_end) {
                struct request *r = s->r;
                s->r = NULL;
                r->client = NULL;
                buf_clear(&s->early);
                r->flow->res_sent(r);
        } else if (s->r) {
                h2_stream_gone(s, s->client_reset                  ? REASON_CLIENT_GONE
                                  : code == NGHTTP2_INTERNAL_ERROR ? REASON_INTERNAL
                                                                   : REASON_BAD_REQUEST);
        }
        nghttp2_session_set_stream_user_data(ng, id, NULL);
        h2_stream_free(s);
        return 0;
}

/* Resets that are the client's doing cost as much as its own. */
static int on_frame_send(nghttp2_session *ng UNUSED, const nghttp2_frame *frame, void *arg)
{
        struct h2_server *h = arg;
        struct h2_stream *s = frame->hd.stream_id ? stream_by_id(h, frame->hd.stream_id) : NULL;
        bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
        if (frame->hd.type == NGHTTP2_DATA)
                h2_guard_data_sent(&h->guard);
        if (frame->hd.type == NGHTTP2_DATA && s)
                h2_stream_sent(s, frame->hd.length, end);
        else if (frame->hd.type == NGHTTP2_HEADERS && s)
                h2_stream_sent(s, 0, end);
        else if (frame->hd.type == NGHTTP2_RST_STREAM &&
                 (frame->rst_stream.error_code == NGHTTP2_PROTOCOL_ERROR ||
                  frame->rst_stream.error_code == NGHTTP2_REFUSED_STREAM ||
                  frame->rst_stream.error_code == NGHTTP2_FLOW_CONTROL_ERROR ||
                  frame->rst_stream.error_code == NGHTTP2_STREAM_CLOSED ||
                  frame->rst_stream.error_code == NGHTTP2_FRAME_SIZE_ERROR))
                return stop(h,
                            h2_guard_count(&h->guard, &h->limits, h->d->io.loop->now, H2_RESETS));
        return 0;
}

static int on_frame_not_send(nghttp2_session *ng, const nghttp2_frame *frame, int error UNUSED,
                             void *arg)
{
        if (frame->hd.type == NGHTTP2_HEADERS && stream_by_id(arg, frame->hd.stream_id))
                nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                          NGHTTP2_INTERNAL_ERROR);
        return 0;
}

static int send_data(nghttp2_session *ng UNUSED, nghttp2_frame *frame, const uint8_t *head,
                     size_t n, nghttp2_data_source *source, void *arg UNUSED)
{
        return h2_stream_put(source->ptr, frame, head, n);
}

static const nghttp2_session_callbacks *callbacks(void)
{
        static _Thread_local nghttp2_session_callbacks *c;
        if (c)
                return c;
        CHECK(nghttp2_session_callbacks_new(&c) == 0);
        nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
        nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback2(c, on_header);
        nghttp2_session_callbacks_set_on_invalid_header_callback2(c, on_invalid_header);
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, on_invalid_frame);
        nghttp2_session_callbacks_set_unpack_extension_callback(c, on_extension);
        nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data_chunk);
        nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
        nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
        nghttp2_session_callbacks_set_on_frame_not_send_callback(c, on_frame_not_send);
        nghttp2_session_callbacks_set_send_data_callback(c, send_data);
        return c;
}

/* ---------------------------------------------------------------- sending */

static void pump_task(struct loop_task *t)
{
        struct downstream *d = CONTAINER_OF(t, struct downstream, task);
        CHECK_OBJ(d, CONN_MAGIC);
        pump(server_of(d));
}

static void make_frames(struct h2_server *h)
{
        if (h2_session_fill(h->ng, &h->d->io.out) != 0 && h->over == REASON_NONE)
                h->over = REASON_H2_PROTOCOL;
}

/* What waits for the socket stays with nghttp2, for the client may yet say what is urgent. */
static void frame(struct loop_task *t)
{
        struct h2_server *h = CONTAINER_OF(t, struct h2_server, frames);
        CHECK_OBJ(h, H2_SERVER_MAGIC);
        if (h->d->io.writing || h->d->io.failed || h->over != REASON_NONE)
                return;
        h->pumping = true;
        make_frames(h);
        h->pumping = false;
}

void h2_server_wake(struct h2_server *h)
{
        struct downstream *d = h->d;
        if (h->pumping || d->state == CONN_CLOSED)
                return;
        loop_soon(d->io.loop, &h->frames, frame);
        loop_defer(d->io.loop, &d->task, pump_task);
}

static void run_due(struct h2_server *h)
{
        struct list *n;
        while ((n = list_pop(&h->due)) != NULL)
                h2_stream_run(CONTAINER_OF(n, struct h2_stream, due_link));
}

static void settle_conn(struct h2_server *h)
{
        struct downstream *d = h->d;
        if (d->io.writing) {
                if (d->timer != TIMER_SEND) {
                        h->unsent = io_unsent(&d->io);
                        downstream_arm(d, TIMER_SEND, downstream_conf_of(d)->send_us);
                }
                d->state = CONN_BUSY;
        } else if (h->n_streams > 0) {
                d->timer = TIMER_NONE;
                d->state = CONN_BUSY;
        } else if (d->state == CONN_BUSY) {
                d->state = CONN_IDLE;
                downstream_arm(d, TIMER_IDLE, downstream_conf_of(d)->idle_us);
        }
}

/* Why a connection on which nothing is under way ends; NONE: it stays. */
static enum reason end_reason(const struct h2_server *h)
{
        if (h->eof)
                return REASON_CLIENT_CLOSED;
        if (h->last_said)
                return codecs(h->d->io.loop)->draining ? REASON_SHUTDOWN
                       : h->limits.requests && h->requests >= h->limits.requests
                               ? REASON_H2_REQUESTS
                               : REASON_DONE;
        if (h->client_goaway)
                return REASON_CLIENT_CLOSED;
        /* GOAWAY was said by nghttp2 itself. */
        return h->noticed || nghttp2_session_want_read(h->ng) ? REASON_NONE : REASON_H2_PROTOCOL;
}

/* Whether this was the end, and if so ends. */
static bool ended(struct h2_server *h)
{
        struct downstream *d = h->d;
        if (h->over != REASON_NONE) {
                if (is_abuse(h->over))
                        say(h, h->over);
                end_with_goaway(h, h->over);
                return true;
        }
        if (nghttp2_session_want_write(h->ng) && !d->io.writing)
                return false; /* what waits for windows */
        bool broken = !h->noticed && !h->client_goaway && !nghttp2_session_want_read(h->ng);
        enum reason why = h->n_streams == 0 || broken ? end_reason(h) : REASON_NONE;
        if (why == REASON_NONE || (d->io.writing && !broken))
                return false;
        leave(h, why);
        downstream_close_lingering(d, why);
        return true;
}

/* Everything that is due, then frames as far as the socket takes them; sending makes room, and so
 * more may be due. */
static void pump(struct h2_server *h)
{
        struct downstream *d = h->d;
        if (d->state == CONN_CLOSED)
                return;
        h->pumping = true;
        for (;;) {
                run_due(h);
                if (d->io.writing || d->io.failed || h->over != REASON_NONE)
                        break;
                make_frames(h);
                if (d->io.out.n == 0 && list_empty(&h->due))
                        break;
                io_flush(&d->io);
        }
        h->pumping = false;
        if (!d->io.failed && !ended(h))
                settle_conn(h);
}

static void drained(struct io *io)
{
        struct downstream *d = downstream_of(io);
        if (d->timer == TIMER_SEND)
                d->timer = TIMER_NONE;
        pump(server_of(d));
}

/* ---------------------------------------------------------------- receiving */

static enum reason reason_of(struct h2_server *h, int error)
{
        if (h->over != REASON_NONE)
                return h->over;
        if (error == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS) {
                h->guard.limit = h->limits.continuations;
                h->guard.measured = h->guard.limit + 1;
                return REASON_H2_CONTINUATIONS;
        }
        if (error == NGHTTP2_ERR_FLOODED)
                return REASON_H2_PINGS;
        return REASON_H2_PROTOCOL;
}

/* All that has come goes to nghttp2, up to a frame that it would wrongly ignore. */
static int receive(struct h2_server *h, struct buf *in)
{
        while (in->n > 0) {
                uint32_t wrong;
                size_t n = h2_ids_read(&h->ids, buf_front(in), &wrong);
                int error = h2_session_feed(h->ng, in, n);
                if (error)
                        return error;
                if (wrong)
                        return end_as_wrong(h, wrong);
        }
        return 0;
}

static void feed(struct h2_server *h)
{
        struct downstream *d = h->d;
        h->pumping = true;
        (void)downstream_conf_of(d);
        int error = receive(h, &d->io.in);
        if (error) {
                h->over = reason_of(h, error);
                buf_clear(&d->io.in);
        }
        /* Answers pile up while the client reads none: more than any honest one would make. */
        size_t waiting = nghttp2_session_get_outbound_queue_size(h->ng);
        size_t bound = QUEUE_MAX + 4 * (size_t)h->limits.max_streams;
        if (waiting > bound && h->over == REASON_NONE) {
                h->guard.measured = waiting;
                h->guard.limit = bound;
                h->over = REASON_H2_RESETS;
        }
        if (h->head_id && !deadline_armed(&h->head))
                deadline_set(d->io.loop, &h->head, d->conf->head_us, head_expired);
        pump(h);
}

/* A half-close: complete requests are still answered.  The others are reset, or nghttp2 would wait
 * for their rest, and with it the connection.  A client that has closed altogether looks the same
 * until something is sent: GOAWAY, which is true, asks for no answer, and comes back as a reset. */
static void input_ended(struct h2_server *h)
{
        h->eof = true;
        LIST_EACH (n, &h->streams) {
                struct h2_stream *s = CONTAINER_OF(n, struct h2_stream, link);
                if (s->in_end || !s->r)
                        continue;
                h2_stream_gone(s, REASON_CLIENT_GONE);
                (void)!nghttp2_submit_rst_stream(h->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
        }
        if (h->n_streams > 0)
                final_goaway(h);
        pump(h);
}

static void readable(struct io *io)
{
        struct downstream *d = downstream_of(io);
        struct h2_server *h = server_of(d);
        if (io->failed) {
                end(d, REASON_CLIENT_GONE);
                return;
        }
        switch (io_read(io, 4 * BUF_CHUNK, NULL)) {
        case IO_OK:
                feed(h);
                break;
        case IO_AGAIN:
                break;
        case IO_EOF:
                input_ended(h);
                break;
        case IO_ERROR:
                end(d, h->n_streams ? REASON_CLIENT_GONE : REASON_CLIENT_CLOSED);
                break;
        }
}

/* ---------------------------------------------------------------- drain */

static void final_goaway(struct h2_server *h)
{
        if (h->last_said)
                return;
        h->last_said = true;
        deadline_clear(&h->drain);
        (void)!nghttp2_submit_goaway(h->ng, NGHTTP2_FLAG_NONE,
                                     nghttp2_session_get_last_proc_stream_id(h->ng),
                                     NGHTTP2_NO_ERROR, NULL, 0);
        h2_server_wake(h);
}

static void drain_waited(struct deadline *dl)
{
        struct h2_server *h = CONTAINER_OF(dl, struct h2_server, drain);
        CHECK_OBJ(h, H2_SERVER_MAGIC);
        final_goaway(h);
}

void h2_server_goaway(struct h2_server *h)
{
        if (h->noticed || h->d->state == CONN_CLOSED)
                return;
        h->noticed = true;
        (void)!nghttp2_submit_shutdown_notice(h->ng);
        (void)!nghttp2_submit_ping(h->ng, NGHTTP2_FLAG_NONE, NULL);
        deadline_set(h->d->io.loop, &h->drain, DRAIN_WAIT, drain_waited);
        h2_server_wake(h);
}

static void drain(struct downstream *d)
{
        h2_server_goaway(server_of(d));
}

/* ---------------------------------------------------------------- deadlines */

static void expired(struct downstream *d, enum conn_timer what)
{
        struct h2_server *h = server_of(d);
        if (what == TIMER_HEAD || what == TIMER_IDLE) {
                end_with_goaway(h, what == TIMER_HEAD ? REASON_CLIENT_HEAD : REASON_CLIENT_IDLE);
                return;
        }
        size_t unsent = io_unsent(&d->io);
        if (unsent < h->unsent) {
                h->unsent = unsent;
                downstream_arm(d, TIMER_SEND, downstream_conf_of(d)->send_us);
        } else {
                end(d, REASON_CLIENT_SEND);
        }
}

/* ---------------------------------------------------------------- the beginning */

static nghttp2_session *new_session(struct h2_server *h)
{
        nghttp2_option *o;
        nghttp2_session *ng;
        CHECK(nghttp2_option_new(&o) == 0);
        nghttp2_option_set_no_auto_window_update(o, 1);
        nghttp2_option_set_no_closed_streams(o, 1);
        nghttp2_option_set_builtin_recv_extension_type(o, NGHTTP2_PRIORITY_UPDATE);
        for (unsigned type = NGHTTP2_CONTINUATION + 1; type <= UINT8_MAX; type++)
                if (type != NGHTTP2_PRIORITY_UPDATE)
                        nghttp2_option_set_user_recv_extension_type(o, (uint8_t)type);
        nghttp2_option_set_max_send_header_block_length(o, MIB);
        /* Our own budget comes first, with a name. */
        nghttp2_option_set_stream_reset_rate_limit(o, UINT32_MAX, UINT32_MAX);
        if (h->limits.continuations)
                nghttp2_option_set_max_continuations(o, h->limits.continuations);
        CHECK(nghttp2_session_server_new3(&ng, callbacks(), h, o,
                                          &codecs(h->d->io.loop)->h2_memory.mem) == 0);
        nghttp2_option_del(o);
        return ng;
}

static void say_settings(struct h2_server *h)
{
        const struct downstream_conf *conf = downstream_conf_of(h->d);
        const nghttp2_settings_entry v[] = {
                {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h->limits.max_streams},
                {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, PIPE_HIGH},
                {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
                 conf->limits.head_max + 32 * conf->limits.fields_max},
                {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
                {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
        };
        int64_t window = MIN((int64_t)MAX(h->limits.max_streams, 16) * PIPE_HIGH, WINDOW_MAX);
        CHECK(nghttp2_submit_settings(h->ng, NGHTTP2_FLAG_NONE, v, COUNT(v)) == 0);
        CHECK(nghttp2_session_set_local_window_size(h->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)window) ==
              0);
}

static void begin(struct downstream *d)
{
        struct h2_server *h = calloc(1, sizeof(*h));
        CHECK(h != NULL);
        h->magic = H2_SERVER_MAGIC;
        h->d = d;
        h->limits = downstream_conf_of(d)->h2_limits;
        h->guard.since = d->io.loop->now;
        h->ids.left = NGHTTP2_CLIENT_MAGIC_LEN;
        list_init(&h->streams);
        list_init(&h->due);
        h->ng = new_session(h);
        d->own = h;
        d->state = CONN_HEAD; /* until the first stream */
        say_settings(h);
        if (codecs(d->io.loop)->draining)
                h2_server_goaway(h);
        feed(h);
}

const struct downstream_codec h2_codec = {
        .io = {.readable = readable, .drained = drained},
        .begin = begin,
        .expired = expired,
        .drain = drain,
        .end = end,
        .bury = bury,
};
