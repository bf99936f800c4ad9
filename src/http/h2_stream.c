/*
 * Streams and their requests.
 *
 *      HEADERS -> head -> begin -> flow       DATA -> req_body -> flow
 *      HEADERS <- ops_head <- flow            DATA <- res_body <- flow
 *
 * The difficulty is credit: a stream's window is the room in its request's pipe.  What the client
 * has sent is given back to it (nghttp2_session_consume_stream) only when it has left the pipe, so
 * a stalled server costs one pipe and stops that stream alone; the connection's window is given
 * back at once, for the streams bound the memory already.
 *
 * nghttp2 is never told anything inside a callback of it but what its manual allows there, and flow
 * is never called from one but to say that the client has gone: h2_due() puts it off.  The conf is
 * asked for once for all that was read (h2_server.c), not for each stream and field.
 */
#include "http/h2_server.h"

#include "http/field.h"
#include "http/h2_priority.h"

#define WINDOW PIPE_HIGH

static const struct client_ops client_ops;
static void expired(struct deadline *d);

/* ---------------------------------------------------------------- beginning and end */

struct h2_stream *h2_stream_new(struct h2_server *h, int32_t id)
{
        struct downstream *d = h->d;
        const struct downstream_conf *conf = d->conf;
        struct request *r = downstream_request(d, conf);
        struct h2_stream *s = slab_get(&codecs(d->io.loop)->streams);
        s->magic = H2_STREAM_MAGIC;
        s->id = id;
        s->h = h;
        s->r = r;
        s->body_us = conf->body_us;
        s->send_us = conf->send_us;
        r->client = &client_ops;
        r->client_ctx = s;
        list_push(&h->streams, &s->link);
        h->n_streams++;
        return s;
}

static struct request *detach(struct h2_stream *s)
{
        struct request *r = s->r;
        r->client = NULL;
        s->r = NULL;
        s->timer = TIMER_NONE;
        deadline_clear(&s->deadline);
        buf_clear(&s->early);
        return r;
}

void h2_stream_gone(struct h2_stream *s, enum reason why)
{
        bool begun = s->begun;
        if (!s->r)
                return;
        struct request *r = detach(s);
        if (begun)
                r->flow->gone(r, why);
        else
                request_drop(r);
}

void h2_stream_free(struct h2_stream *s)
{
        struct loop *l = s->h->d->io.loop;
        CHECK(!s->r);
        if (list_linked(&s->due_link))
                list_remove(&s->due_link);
        list_remove(&s->link);
        deadline_clear(&s->deadline);
        s->h->n_streams--;
        s->magic = DEAD_MAGIC;
        slab_put(&codecs(l)->streams, s);
}

static void reset(struct h2_stream *s, uint32_t code)
{
        CHECK(nghttp2_submit_rst_stream(s->h->ng, NGHTTP2_FLAG_NONE, s->id, code) == 0);
        h2_server_wake(s->h);
}

/* ---------------------------------------------------------------- timers */

static void arm(struct h2_stream *s, enum conn_timer what, int64_t us)
{
        s->mark = s->h->sent;
        s->timer = (uint8_t)what;
        deadline_set(s->r->loop, &s->deadline, us, expired);
}

/* The client must take what waits, or send what is expected.  progress: it just did. */
static void settle_timer(struct h2_stream *s, bool progress)
{
        struct request *r = s->r;
        if (s->head_sent && !s->out_end && r->res_body.data.n > 0) {
                if (progress || s->timer != TIMER_SEND)
                        arm(s, TIMER_SEND, s->send_us);
        } else if (s->begun && !s->in_done && !s->tunnel && !s->expect &&
                   nghttp2_session_get_stream_local_window_size(s->h->ng, s->id) > 0) {
                if (progress || s->timer != TIMER_BODY)
                        arm(s, TIMER_BODY, s->body_us);
        } else if (s->timer != TIMER_NONE) {
                s->timer = TIMER_NONE;
                deadline_clear(&s->deadline);
        }
}

/* ---------------------------------------------------------------- request heads */

void h2_stream_field(struct h2_stream *s, bool trailer, str name, str value)
{
        struct request *r = s->r;
        const struct h1_limits *lim = &s->h->d->conf->limits;
        if (!r)
                return;
        if (trailer)
                h2_trailer_add(&s->head, r->arena, &r->req.trailers, lim, name, value);
        else
                h2_head_add(&s->head, r->arena, &r->req, lim, name, value);
}

static void stop_input(struct h2_stream *s)
{
        s->in_done = true;
        s->r->req_body.stalled = false;
}

static void refuse(struct h2_stream *s, enum reason why)
{
        struct request *r = s->r;
        r->refused = why;
        r->limit = downstream_limit_of(&s->h->d->conf->limits, why);
        r->measured = s->head.measured;
        r->req.upgrade = STR_NONE;
        stop_input(s);
        r->req_body.end = true;
        h2_due(s, H2_DUE_BEGIN);
}

static void body_failed(struct h2_stream *s, enum reason why)
{
        stop_input(s);
        s->why = why;
        h2_due(s, H2_DUE_FAIL);
}

static void end_head(struct h2_stream *s, bool end)
{
        struct request *r = s->r;
        enum reason why = h2_head_end(&s->head, r->arena, &r->req, end);
        s->in_end = end;
        if (why != REASON_NONE) {
                refuse(s, why);
                return;
        }
        s->tunnel = r->req.upgrade.p != NULL;
        s->in_done = end && !s->tunnel;
        s->expect = r->req.expect_continue;
        r->req_body.end = end || s->tunnel;
        r->req_body.stalled = !r->req_body.end;
        s->head = (struct h2_head){0};
        h2_due(s, H2_DUE_BEGIN);
}

void h2_stream_head(struct h2_stream *s, bool end)
{
        if (!s->r)
                return;
        if (!s->begun && !(s->due & H2_DUE_BEGIN))
                end_head(s, end);
        else if (s->head.why != REASON_NONE && !s->in_done)
                body_failed(s, s->head.why);
        else if (end)
                h2_stream_input_end(s);
}

/* ---------------------------------------------------------------- request bodies */

/* Gives back what has left the pipe.  While more than a window is collected it gives back all until
 * the pipe is full, which the last window may overfill: nghttp2 announces credit by halves of a
 * window only, and a pipe that lacks less would never be filled. */
static void give_credit(struct h2_stream *s)
{
        const struct pipe *p = &s->r->req_body;
        bool collecting = p->high > WINDOW && !pipe_full(p);
        size_t keep = collecting ? 0 : p->data.n + s->early.n;
        if (s->in_done)
                keep = 0;
        if (s->held <= keep)
                return;
        (void)!nghttp2_session_consume_stream(s->h->ng, s->id, s->held - keep);
        s->held = keep;
        h2_server_wake(s->h);
}

/* Within a callback of nghttp2. */
void h2_stream_data(struct h2_stream *s, str bytes)
{
        struct request *r = s->r;
        (void)!nghttp2_session_consume_connection(s->h->ng, bytes.n);
        if (!r || s->in_done) {
                (void)!nghttp2_session_consume_stream(s->h->ng, s->id, bytes.n);
                return;
        }
        struct pipe *p = &r->req_body;
        s->held += bytes.n;
        if (s->tunnel && !r->tunnel) {
                buf_puts(&s->early, bytes);
                return;
        }
        pipe_put(p, bytes);
        r->bytes_in = p->passed;
        s->expect = false;
        if (s->body_max && r->bytes_in > s->body_max) {
                r->measured = r->bytes_in;
                r->limit = s->body_max;
                body_failed(s, REASON_BODY_MAX);
        } else {
                h2_due(s, H2_DUE_READY);
        }
}

void h2_stream_input_end(struct h2_stream *s)
{
        s->in_end = true;
        if (!s->r || s->in_done || (s->tunnel && !s->r->tunnel))
                return;
        s->in_done = true;
        s->r->req_body.end = true;
        s->r->req_body.stalled = false;
        h2_due(s, H2_DUE_READY);
}

/* ---------------------------------------------------------------- what is due */

static void begin_flow(struct h2_stream *s)
{
        struct request *r = s->r;
        struct h2_server *h = s->h;
        s->begun = true;
        h->d->served = true;
        if (++h->requests >= h->limits.requests && h->limits.requests)
                h2_server_goaway(h);
        r->flow->begin(r);
}

/* The response is complete.  What the client still sends of its request is not wanted. */
static void finish(struct h2_stream *s)
{
        if (s->tunnel && s->r->tunnel && !s->in_done)
                return; /* the other direction goes on */
        if (!s->in_end)
                reset(s, NGHTTP2_NO_ERROR);
        struct request *r = detach(s);
        r->flow->res_sent(r);
}

/* The stream itself stays: nghttp2 closes streams only in calls that are not made here. */
void h2_stream_run(struct h2_stream *s)
{
        unsigned due = s->due;
        s->due = 0;
        if (s->r && (due & H2_DUE_BEGIN))
                begin_flow(s);
        else if (s->r && (due & H2_DUE_READY) && s->begun && !(due & H2_DUE_FAIL))
                s->r->flow->req_ready(s->r);
        if (s->r && (due & H2_DUE_FAIL))
                s->r->flow->req_failed(s->r, s->why);
        if (s->r && (due & H2_DUE_SENT || (s->out_end && s->in_done)))
                finish(s);
        else if (s->r && (due & H2_DUE_ROOM) && s->r->res_body.stalled &&
                 !pipe_full(&s->r->res_body))
                s->r->flow->res_room(s->r);
        if (s->r)
                settle_timer(s, due & (H2_DUE_READY | H2_DUE_ROOM));
}

/* ---------------------------------------------------------------- responses: DATA */

/* The body ends: here, or with trailers. */
static int end_body(struct h2_stream *s, uint32_t *flags)
{
        struct request *r = s->r;
        struct h2_fields out = {0};
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        h2_fields_trailers(r->arena, &out, &r->res.trailers);
        if (out.n == 0)
                return 0;
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        return nghttp2_submit_trailer(s->h->ng, s->id, out.v, out.n);
}

/* How much of the body goes next (nghttp2_data_source_read_callback). */
static ssize_t read_body(nghttp2_session *ng UNUSED, int32_t id UNUSED, uint8_t *to UNUSED,
                         size_t most, uint32_t *flags, nghttp2_data_source *source,
                         void *arg UNUSED)
{
        struct h2_stream *s = source->ptr;
        if (!s->r)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        struct pipe *p = &s->r->res_body;
        size_t n = h2_data_length(p, most);
        if (n == 0 && !p->end) {
                s->deferred = true;
                return NGHTTP2_ERR_DEFERRED;
        }
        bool last = p->end && n == p->data.n;
        /* More or less than was announced: it must look cut. */
        if (s->counted && (n > s->left || (last && n < s->left)))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        if (last && end_body(s, flags) != 0)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        return (ssize_t)n;
}

int h2_stream_put(struct h2_stream *s, const nghttp2_frame *frame, const uint8_t *head, size_t n)
{
        if (!s->r || n > s->r->res_body.data.n)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        h2_data_put(&s->h->d->io.out, frame, head, &s->r->res_body, n);
        if (s->counted)
                s->left -= n;
        s->r->bytes_out += n;
        s->h->sent += n;
        return 0;
}

void h2_stream_sent(struct h2_stream *s, size_t bytes, bool end)
{
        s->out_end |= end;
        if (end)
                h2_due(s, H2_DUE_SENT);
        else if (bytes > 0)
                h2_due(s, H2_DUE_ROOM);
}

/* ---------------------------------------------------------------- responses: what flow says */

static struct h2_stream *stream_of(struct request *r)
{
        struct h2_stream *s = r->client_ctx;
        CHECK_OBJ(s, H2_STREAM_MAGIC);
        CHECK(s->r == r);
        return s;
}

static void put_status(struct h2_fields *out, struct arena *a, char text[4], int status)
{
        text[0] = (char)('0' + status / 100);
        text[1] = (char)('0' + status / 10 % 10);
        text[2] = (char)('0' + status % 10);
        h2_fields_add(a, out, STR(":status"), str_of(text, 3));
}

/* Both pipes are raw from here on. */
static void begin_tunnel(struct h2_stream *s)
{
        struct request *r = s->r;
        struct pipe *p = &r->req_body;
        s->body_max = 0;
        p->end = s->in_done = s->in_end;
        p->stalled = !p->end;
        if (s->early.n > 0)
                pipe_move(p, &s->early, s->early.n);
        r->bytes_in = p->passed;
        if (p->data.n > 0 || p->end)
                h2_due(s, H2_DUE_READY);
}

static void put_length(struct h2_fields *out, struct request *r, char text[24], bool no_body)
{
        const struct field *given = fields_get(&r->res.fields, FIELD_CONTENT_LENGTH);
        if (r->tunnel || r->res.status == 204)
                return;
        if (no_body && given)
                h2_fields_add(r->arena, out, STR("content-length"), given->value);
        else if (r->res.framing == FRAMING_LENGTH || (r->res.framing == FRAMING_NONE && !no_body))
                h2_fields_add(r->arena, out, STR("content-length"),
                              str_of(text, str_put_u64(text, r->res.framing == FRAMING_LENGTH
                                                                     ? r->res.length
                                                                     : 0)));
}

/* The server may know better than the client what is urgent (RFC 9218 8). */
static void settle_priority(struct h2_stream *s)
{
        static const str name = STR_INIT("Priority");
        const struct request *r = s->r;
        const struct field *says = fields_find(&r->res.fields, name),
                           *asks = fields_find(&r->req.fields, name);
        struct h2_priority p = H2_PRIORITY_DEFAULT;

        if (LIKELY(!says))
                return;
        if (asks)
                h2_priority_read(&p, asks->value);
        h2_priority_read(&p, says->value);
        const nghttp2_extpri pri = {.urgency = p.urgency, .inc = p.incremental};
        (void)!nghttp2_session_change_extpri_stream_priority(s->h->ng, s->id, &pri, 0);
}

static void ops_head(struct request *r)
{
        struct h2_stream *s = stream_of(r);
        struct h2_fields out = {0};
        char status[4], length[24];
        bool no_body = r->req.method == METHOD_HEAD || r->res.status == 204 || r->res.status == 304;
        /* What has no body ends with its head: gRPC clients take nothing else for an error that has
         * no trailers. */
        bool over = pipe_done(&r->res_body) && r->res.trailers.n == 0;
        bool bodiless = no_body || (!r->tunnel && (over || r->res.framing == FRAMING_NONE));
        put_status(&out, r->arena, status, r->tunnel ? 200 : r->res.status);
        if (r->tunnel)
                fields_del(&r->res.fields, STR("Sec-WebSocket-Accept"));
        h2_fields_pass(r->arena, &out, &r->res.fields);
        if (!fields_get(&r->res.fields, FIELD_DATE))
                h2_fields_add(r->arena, &out, STR("date"), field_date(r->loop->wall));
        put_length(&out, r, length, no_body);
        s->head_sent = true;
        s->expect = false;
        s->counted = r->res.framing == FRAMING_LENGTH && !r->tunnel;
        s->left = r->res.length;
        nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_body};
        if (nghttp2_submit_response(s->h->ng, s->id, out.v, out.n, bodiless ? NULL : &body) != 0)
                reset(s, NGHTTP2_INTERNAL_ERROR);
        settle_priority(s);
        if (r->tunnel)
                begin_tunnel(s);
        if (r->outdated)
                h2_server_goaway(s->h);
        settle_timer(s, true);
        h2_server_wake(s->h);
}

static void ops_res_ready(struct request *r)
{
        struct h2_stream *s = stream_of(r);
        if (!s->head_sent || !s->deferred)
                return;
        s->deferred = false;
        (void)!nghttp2_session_resume_data(s->h->ng, s->id);
        settle_timer(s, false);
        h2_server_wake(s->h);
}

static void ops_interim(struct request *r, const struct msg *res)
{
        struct h2_stream *s = stream_of(r);
        struct h2_fields out = {0};
        char status[4];
        if (s->head_sent)
                return;
        if (res->status == 100)
                s->expect = false;
        put_status(&out, r->arena, status, res->status);
        h2_fields_pass(r->arena, &out, &res->fields);
        (void)!nghttp2_submit_headers(s->h->ng, NGHTTP2_FLAG_NONE, s->id, NULL, out.v, out.n, NULL);
        settle_timer(s, true);
        h2_server_wake(s->h);
}

static void ops_req_room(struct request *r)
{
        struct h2_stream *s = stream_of(r);
        if (s->in_done)
                return;
        if (s->expect && !s->head_sent)
                ops_interim(r, &(const struct msg){.status = 100});
        s->expect = false;
        r->req_body.stalled = true; /* so that we hear of every byte that is taken */
        give_credit(s);
        settle_timer(s, false);
}

/* What the client has must not look complete. */
static void ops_cut(struct request *r, enum reason why)
{
        struct h2_stream *s = stream_of(r);
        bool cancelled = why == REASON_SHUTDOWN;
        detach(s);
        reset(s, cancelled ? NGHTTP2_CANCEL : NGHTTP2_INTERNAL_ERROR);
}

static const struct client_facts *ops_facts(struct request *r)
{
        struct h2_server *h = stream_of(r)->h;
        if (!h->facts.serial)
                downstream_facts(h->d, &h->facts);
        return &h->facts;
}

static enum reason ops_limits(struct request *r, int64_t body_us, int64_t send_us,
                              uint64_t body_max)
{
        struct h2_stream *s = stream_of(r);
        s->body_us = body_us;
        s->send_us = send_us;
        s->body_max = body_max;
        uint64_t known = r->req.framing == FRAMING_LENGTH ? r->req.length : r->req_body.passed;
        if (body_max == 0 || known <= body_max)
                return REASON_NONE;
        r->measured = known;
        r->limit = body_max;
        stop_input(s);
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

/* The client takes what it is sent; it is weir that sends it other streams, by their priority. */
static bool others_come_first(const struct h2_stream *s)
{
        return s->h->sent != s->mark &&
               nghttp2_session_get_stream_remote_window_size(s->h->ng, s->id) > 0;
}

static void expired(struct deadline *dl)
{
        struct h2_stream *s = CONTAINER_OF(dl, struct h2_stream, deadline);
        CHECK_OBJ(s, H2_STREAM_MAGIC);
        enum conn_timer what = s->timer;
        s->timer = TIMER_NONE;
        if (!s->r)
                return;
        if (what == TIMER_BODY) {
                body_failed(s, REASON_CLIENT_BODY);
                h2_server_wake(s->h);
        } else if (what == TIMER_SEND && others_come_first(s)) {
                arm(s, TIMER_SEND, s->send_us);
        } else if (what == TIMER_SEND) {
                reset(s, NGHTTP2_CANCEL);
                h2_stream_gone(s, REASON_CLIENT_SEND);
        }
}
