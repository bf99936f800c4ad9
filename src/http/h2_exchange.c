/*
 * HTTP/2 towards servers: exchanges as streams, and what the server answers (h2_exchange.h).
 *
 * The one difficulty is credit.  A stream's window is as large as a pipe: what the server may send
 * is what the pipe can take, and only bytes that have left the pipe are given back, so a slow
 * client holds one pipe's worth and no other stream waits for it (the connection's window is given
 * back at once).
 */
#include "http/h2_exchange.h"

#include "base/crypto.h"
#include "http/field.h"

#define INTERIM_MAX 16
#define CONTINUE_US (1 * SEC) /* how long a body waits for a 100 that may never come */
#define HEAD_HARD   4         /* times the limit: a head that is larger costs the connection */

static const struct exchange_ops exchange_ops;
static void on_deadline(struct deadline *d);

struct h2_stream *h2_stream_of(struct exchange *x)
{
        CHECK_OBJ(x, EXCHANGE_MAGIC);
        struct h2_stream *s = x->codec_ctx;
        CHECK_OBJ(s, H2_STREAM_MAGIC);
        CHECK(s->x == x);
        return s;
}

struct h2_stream *h2_stream_here(struct h2_client *c, int32_t id)
{
        return id == 0 ? NULL : nghttp2_session_get_stream_user_data(c->session, id);
}

void h2_note(struct h2_stream *s)
{
        if (s->x && !list_linked(&s->news))
                list_push(&s->c->news, &s->news);
}

/* Why the exchange fails: the first reason counts. */
void h2_note_failure(struct h2_stream *s, enum reason why)
{
        if (s->why == REASON_NONE)
                s->why = why;
        h2_note(s);
}

static void arm(struct h2_stream *s, enum h2_timer what, int64_t us)
{
        s->timer = (uint8_t)what;
        deadline_set(s->c->io.loop, &s->deadline, us, on_deadline);
}

/* ---------------------------------------------------------------- life */

static void file_dead(struct h2_stream *s)
{
        list_remove(&s->link);
        list_push(&s->c->dead, &s->link);
}

void h2_reap(struct h2_client *c)
{
        struct list *n;
        while ((n = list_pop(&c->dead)) != NULL) {
                struct h2_stream *s = CONTAINER_OF(n, struct h2_stream, link);
                CHECK_OBJ(s, H2_STREAM_MAGIC);
                CHECK(s->x == NULL && !list_linked(&s->news));
                s->magic = DEAD_MAGIC;
                slab_put(&h2_loop(c->io.loop)->streams, s);
        }
}

void h2_bind(struct h2_client *c, struct exchange *x)
{
        struct h2_stream *s = slab_get(&h2_loop(c->io.loop)->streams);
        s->magic = H2_STREAM_MAGIC;
        s->c = c;
        s->x = x;
        s->last_interim = &s->first_interim;
        list_push(&c->streams, &s->link);
        c->n_streams++;
        x->phase = EXCHANGE_IDLE;
        x->ops = &exchange_ops;
        x->codec_ctx = s;
}

/* nghttp2 has done with the stream, or never knew it. */
void h2_stream_closed(struct h2_stream *s)
{
        if (s->closed)
                return;
        s->closed = true;
        s->c->n_streams--;
        if (!s->x)
                file_dead(s);
}

/* The exchange is over, one way or the other. */
struct exchange *h2_detach(struct h2_stream *s)
{
        struct exchange *x = s->x;
        s->x = NULL;
        s->c->conn.busy--;
        s->timer = H2_TIMER_NONE;
        deadline_clear(&s->deadline);
        if (list_linked(&s->news))
                list_remove(&s->news);
        if (x->keep_max > 0 && s->keeping) {
                buf_move(&x->kept, &s->kept, s->kept.n);
                x->kept_all = true;
        }
        buf_clear(&s->kept);
        x->ops = NULL;
        x->codec_ctx = NULL;
        x->phase = EXCHANGE_DONE;
        if (s->closed)
                file_dead(s);
        else if (s->id == 0)
                h2_stream_closed(s);
        return x;
}

/* Detached, and what the server still does for it is called off. */
static struct exchange *call_off(struct h2_stream *s)
{
        struct h2_client *c = s->c;
        int32_t id = s->id;
        bool open = !s->closed && id != 0;
        struct exchange *x = h2_detach(s);
        if (open && c->state == H2_OPEN) {
                (void)nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
                h2_schedule(c);
        }
        return x;
}

/* The server has processed nothing: what was taken of the body is put back, if it was little. */
static void give_back(struct h2_stream *s)
{
        struct exchange *x = s->x;
        struct pipe *p = x->r->to_server;
        struct buf all = BUF_INIT;
        x->refused = true;
        if (!x->body_taken || !s->keeping)
                return;
        buf_move(&all, &s->kept, s->kept.n);
        buf_move(&all, &p->data, p->data.n);
        p->data = all;
        x->body_taken = false;
}

static void fail(struct h2_stream *s, enum reason why)
{
        if (why == REASON_UPSTREAM_REFUSED)
                give_back(s);
        struct exchange *x = call_off(s);
        struct request *r = x->r;
        request_hold(r);
        x->user->failed(x, why);
        request_drop(r);
}

void h2_fail_all(struct h2_client *c, enum reason why)
{
        struct list *n = c->streams.next;
        while (n != &c->streams) {
                struct h2_stream *s = CONTAINER_OF(n, struct h2_stream, link);
                if (!s->x) {
                        n = n->next;
                        continue;
                }
                fail(s, s->why != REASON_NONE ? s->why : why);
                n = c->streams.next; /* any of them may have gone */
        }
}

/* ---------------------------------------------------------------- timers */

/* Which silence counts now: the server takes nothing, answers nothing, or stops in the middle. */
void h2_settle_timer(struct h2_stream *s)
{
        struct exchange *x = s->x;
        bool sending = !s->out_done && (!x->wrote || x->r->to_server->data.n > 0 ||
                                        (x->r->to_server->end && !s->connect));
        if (s->tunnel) {
                s->timer = H2_TIMER_NONE; /* flow watches it */
        } else if (x->phase == EXCHANGE_WAITING && s->awaiting && x->wrote) {
                if (s->timer != H2_TIMER_CONTINUE)
                        arm(s, H2_TIMER_CONTINUE, CONTINUE_US);
        } else if (sending) {
                if (s->timer != H2_TIMER_SEND) {
                        s->mark = s->sent;
                        arm(s, H2_TIMER_SEND, x->send_us);
                }
        } else if (x->phase == EXCHANGE_WAITING && (s->out_done || s->connect)) {
                if (s->timer != H2_TIMER_RESPONSE)
                        arm(s, H2_TIMER_RESPONSE, x->response_us);
        } else if (x->phase == EXCHANGE_BODY && !x->r->from_server->stalled) {
                arm(s, H2_TIMER_SILENCE, x->response_idle_us);
        } else {
                s->timer = H2_TIMER_NONE;
        }
}

void h2_wake_body(struct h2_stream *s)
{
        if (!s->deferred || s->closed)
                return;
        s->deferred = false;
        (void)nghttp2_session_resume_data(s->c->session, s->id);
        h2_schedule(s->c);
}

/* The body is wanted now. */
static void ask_for_body(struct h2_stream *s)
{
        s->awaiting = false;
        h2_wake_body(s);
        h2_settle_timer(s);
        s->x->user->req_room(s->x);
}

/* The server was silent for too long; perhaps the whole connection is dead. */
static void timed_out(struct h2_stream *s, enum reason why)
{
        struct h2_client *c = s->c;
        if (c->heard < s->x->sent_at)
                c->doubted = true;
        h2_schedule(c);
        fail(s, why);
}

static void on_deadline(struct deadline *d)
{
        struct h2_stream *s = CONTAINER_OF(d, struct h2_stream, deadline);
        CHECK_OBJ(s, H2_STREAM_MAGIC);
        enum h2_timer what = s->timer;
        s->timer = H2_TIMER_NONE;
        switch (what) {
        case H2_TIMER_NONE:
                break;
        case H2_TIMER_SEND:
                if (s->sent != s->mark)
                        h2_settle_timer(s);
                else
                        timed_out(s, REASON_RESPONSE_TIMEOUT);
                break;
        case H2_TIMER_CONTINUE:
                if (s->awaiting)
                        ask_for_body(s);
                break;
        case H2_TIMER_RESPONSE:
                timed_out(s, REASON_RESPONSE_TIMEOUT);
                break;
        case H2_TIMER_SILENCE:
                timed_out(s, REASON_RESPONSE_IDLE);
                break;
        }
}

/* ---------------------------------------------------------------- the response comes in */

int h2_on_begin_headers(nghttp2_session *session UNUSED, const nghttp2_frame *frame, void *ctx)
{
        struct h2_stream *s = h2_stream_here(ctx, frame->hd.stream_id);
        if (!s)
                return 0;
        s->m = (struct msg){.version = 20, .keep_alive = true};
        s->m_bytes = s->m_fields = 0;
        return 0;
}

/* Counts a field against the limits; false: it is too much. */
static bool within_limits(struct h2_stream *s, size_t name_n, size_t value_n)
{
        const struct exchange *x = s->x;
        s->m_bytes += name_n + value_n + 4;
        return s->m_bytes <= x->head_max && name_n + value_n + 4 <= x->line_max &&
               ++s->m_fields <= x->fields_max + 1; /* :status is none */
}

static enum reason take_status(struct msg *m, str value)
{
        uint64_t status;
        if (value.n != 3 || !str_u64(value, 999, &status) || status < 100)
                return REASON_UPSTREAM_HEAD;
        m->status = (int)status;
        return REASON_NONE;
}

static enum reason take_field(struct h2_stream *s, str name, str value)
{
        struct arena *a = s->x->r->arena;
        enum field_id id = field_id_of(name);
        if (!field_name_ok(name) || !field_value_ok(value))
                return REASON_UPSTREAM_HEAD;
        if (id != FIELD_OTHER && (field_flags_of(id) & FIELD_F_HOP) && id != FIELD_HTTP2_SETTINGS)
                return REASON_UPSTREAM_HEAD;
        if (id == FIELD_CONTENT_LENGTH && !str_u64(value, INT64_MAX, &s->m.length))
                return REASON_UPSTREAM_FRAMING;
        name = id != FIELD_OTHER ? field_name_of(id) : arena_dup(a, name);
        value = value.n ? arena_dup(a, value) : STR("");
        return name.p && value.p && fields_add(a, &s->m.fields, id, name, value)
                       ? REASON_NONE
                       : REASON_UPSTREAM_HEADER_MAX;
}

int h2_on_header(nghttp2_session *session UNUSED, const nghttp2_frame *frame, const uint8_t *name,
                 size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags UNUSED,
                 void *ctx)
{
        struct h2_stream *s = h2_stream_here(ctx, frame->hd.stream_id);
        enum reason why;
        str n = str_of(name, name_n), v = str_of(value, value_n);
        if (!s || !s->x)
                return 0;
        s->x->got_byte = true;
        if (!within_limits(s, name_n, value_n)) {
                h2_note_failure(s, REASON_UPSTREAM_HEADER_MAX);
                return s->m_bytes > (uint64_t)s->x->head_max * HEAD_HARD
                               ? NGHTTP2_ERR_CALLBACK_FAILURE
                               : 0;
        }
        if (s->why != REASON_NONE)
                return 0;
        why = str_eq(n, STR(":status")) ? take_status(&s->m, v) : take_field(s, n, v);
        if (why != REASON_NONE)
                h2_note_failure(s, why);
        return 0;
}

/* nghttp2 would leave the field out; a server that sends such things is not trusted. */
int h2_on_invalid_header(nghttp2_session *session UNUSED, const nghttp2_frame *frame,
                         const uint8_t *name UNUSED, size_t name_n UNUSED,
                         const uint8_t *value UNUSED, size_t value_n UNUSED, uint8_t flags UNUSED,
                         void *ctx)
{
        struct h2_stream *s = h2_stream_here(ctx, frame->hd.stream_id);
        if (s)
                h2_note_failure(s, REASON_UPSTREAM_HEAD);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void take_interim(struct h2_stream *s)
{
        struct h2_interim *i = ARENA_NEW(s->x->r->arena, struct h2_interim);
        if (!i || ++s->interims > INTERIM_MAX || s->m.status == 101 ||
            fields_get(&s->m.fields, FIELD_CONTENT_LENGTH)) {
                h2_note_failure(s, REASON_UPSTREAM_HEAD);
                return;
        }
        i->m = s->m;
        *s->last_interim = i;
        s->last_interim = &i->next;
}

/* The answer to the client's key (RFC 6455 4.2.2), which HTTP/2 has no use for. */
static void accept_key(struct exchange *x)
{
        static const str magic = STR_INIT("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        struct arena *a = x->r->arena;
        struct field *key = fields_find(&x->req->fields, STR("Sec-WebSocket-Key"));
        uint8_t digest[20];
        if (!key)
                return;
        crypto_sha1(arena_cat(a, (str[]){key->value, magic}, 2), digest);
        fields_add(a, &x->res->fields, FIELD_OTHER, STR("Sec-WebSocket-Accept"),
                   crypto_base64(a, str_of(digest, sizeof(digest)), false));
}

/* The seam speaks of a switch as HTTP/1 does. */
static void take_switch(struct h2_stream *s)
{
        struct msg *res = s->x->res;
        res->status = 101;
        res->framing = FRAMING_TUNNEL;
        res->upgrade = STR("websocket");
        fields_del_id(&res->fields, FIELD_CONTENT_LENGTH);
        accept_key(s->x);
        s->tunnel = true;
}

static void take_final(struct h2_stream *s, bool end)
{
        struct exchange *x = s->x;
        struct msg *res = x->res;
        *res = s->m;
        s->got_head = true;
        if (x->keep_max == 0) {
                s->keeping = false;
                buf_clear(&s->kept);
        }
        if (s->connect && res->status / 100 == 2)
                take_switch(s);
        else if (x->req->method == METHOD_HEAD || res->status == 204 || res->status == 304)
                res->framing = FRAMING_NONE;
        else if (fields_get(&res->fields, FIELD_CONTENT_LENGTH))
                res->framing = FRAMING_LENGTH;
        else
                res->framing = end ? FRAMING_NONE : FRAMING_CHUNKED;
        s->connect = false;
        h2_note(s);
}

static void take_trailers(struct h2_stream *s)
{
        FIELDS_EACH(f, &s->m.fields)
        {
                unsigned flags = field_flags_of(f->id);
                if (flags & FIELD_F_FRAMING) {
                        h2_note_failure(s, REASON_UPSTREAM_FRAMING);
                        return;
                }
                if (flags & FIELD_F_NOTRAILER)
                        f->flags |= FIELD_DELETED;
        }
        s->x->res->trailers = s->m.fields;
}

static void stream_ended(struct h2_stream *s)
{
        s->ended = true;
        h2_note(s);
}

void h2_stream_frame_came(struct h2_client *c, const nghttp2_frame *frame)
{
        struct h2_stream *s = h2_stream_here(c, frame->hd.stream_id);
        bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
        if (!s || !s->x || s->why != REASON_NONE)
                return;
        switch (frame->hd.type) {
        case NGHTTP2_HEADERS:
                if (s->got_head)
                        take_trailers(s);
                else if (s->m.status < 200)
                        take_interim(s);
                else
                        take_final(s, end);
                h2_note(s);
                break;
        case NGHTTP2_DATA:
                break;
        case NGHTTP2_RST_STREAM:
                s->reset = true;
                return;
        default:
                return;
        }
        if (end)
                stream_ended(s);
}

/* Credit for what has left the pipe.  While flow collects more than a window, for all that came
 * until the pipe is full, which the last window may overfill: nghttp2 grants halves of a window
 * only, and a pipe that lacks less would never be full. */
static void give_credit(struct h2_stream *s)
{
        struct pipe *p = s->x->r->from_server;
        bool collecting = p->high > PIPE_HIGH && !pipe_full(p);
        uint64_t gone = p->passed > p->data.n ? p->passed - p->data.n : 0;
        uint64_t upto = collecting ? p->passed : gone;
        if (upto > s->told && !s->closed) {
                (void)nghttp2_session_consume_stream(s->c->session, s->id,
                                                     (size_t)(upto - s->told));
                s->told = upto;
                h2_schedule(s->c);
        }
        /* nghttp2 grants half a window at a time: as long as less than that is outstanding, the
         * server cannot be without credit, and nobody needs to say room. */
        p->stalled = !p->end && p->passed - s->told > PIPE_HIGH / 2;
}

int h2_on_data(nghttp2_session *session, uint8_t flags UNUSED, int32_t id, const uint8_t *data,
               size_t n, void *ctx)
{
        struct h2_client *c = ctx;
        struct h2_stream *s = h2_stream_here(c, id);
        (void)nghttp2_session_consume_connection(session, n);
        if (!s || !s->x || s->why != REASON_NONE)
                return 0;
        struct pipe *p = s->x->r->from_server;
        pipe_put(p, str_of(data, n));
        s->more = true;
        h2_note(s);
        return 0;
}

void h2_stream_invalid(struct h2_client *c, const nghttp2_frame *frame, int error)
{
        struct h2_stream *s = h2_stream_here(c, frame->hd.stream_id);
        if (s)
                h2_note_failure(s, error == NGHTTP2_ERR_HTTP_HEADER ? REASON_UPSTREAM_HEAD
                                                                    : REASON_UPSTREAM_FRAMING);
}

static enum reason close_reason(const struct h2_stream *s, uint32_t code)
{
        if (!s->got_head && (code == NGHTTP2_REFUSED_STREAM || s->not_sent))
                return REASON_UPSTREAM_REFUSED;
        if (!s->reset && code == NGHTTP2_PROTOCOL_ERROR) /* ours: nghttp2 checks the framing */
                return REASON_UPSTREAM_FRAMING;
        return REASON_UPSTREAM_STREAM_RESET;
}

int h2_on_stream_close(nghttp2_session *session UNUSED, int32_t id, uint32_t code, void *ctx)
{
        struct h2_stream *s = h2_stream_here(ctx, id);
        if (!s)
                return 0;
        if (s->x && (!s->ended || (s->tunnel && code != NGHTTP2_NO_ERROR))) {
                h2_note_failure(s, close_reason(s, code));
                if (s->reset)
                        s->x->error = str_z(nghttp2_http2_strerror(code));
        }
        if (s->x && s->tunnel && s->ended) { /* the server wants no more either */
                s->out_done = s->out_ended = true;
                h2_note(s);
        }
        h2_stream_closed(s);
        return 0;
}

/* ---------------------------------------------------------------- telling */

static bool tunnel_over(const struct h2_stream *s)
{
        return s->ended && s->out_done;
}

/* 1xx heads, in order; returns whether the exchange goes on. */
static bool tell_interims(struct h2_stream *s)
{
        struct exchange *x = s->x;
        struct h2_interim *i;
        while ((i = s->first_interim) != NULL) {
                s->first_interim = i->next;
                if (!s->first_interim)
                        s->last_interim = &s->first_interim;
                x->interim = i->m;
                x->user->interim(x);
                if (s->x != x)
                        return false;
                if (i->m.status == 100 && s->awaiting) {
                        ask_for_body(s);
                        if (s->x != x)
                                return false;
                }
        }
        return true;
}

/* The response is complete: no more is wanted, and the server's early answer ends the request. */
static void complete(struct h2_stream *s)
{
        struct exchange *x = s->x;
        x->r->from_server->end = true;
        x->r->from_server->stalled = false;
        call_off(s);
}

static void tell_head(struct h2_stream *s)
{
        struct exchange *x = s->x;
        s->told_head = true;
        s->more = false;
        x->phase = EXCHANGE_BODY;
        x->head_at = s->c->io.loop->now;
        s->awaiting = false; /* whoever still sends a body may do so */
        if (s->tunnel)
                x->r->to_server->end = x->r->to_server->stalled = false;
        h2_wake_body(s);
        if (s->ended && !s->tunnel) {
                complete(s);
        } else {
                x->r->from_server->end = s->ended;
                give_credit(s);
                h2_settle_timer(s);
        }
        x->user->head(x);
}

static void tell_body(struct h2_stream *s)
{
        struct exchange *x = s->x;
        s->more = false;
        if (s->tunnel ? tunnel_over(s) : s->ended) {
                complete(s);
        } else {
                x->r->from_server->end = s->ended;
                give_credit(s);
                h2_settle_timer(s);
        }
        x->user->res_ready(x);
}

static void tell_sent(struct h2_stream *s)
{
        struct exchange *x = s->x;
        struct pipe *p = x->r->to_server;
        bool took = s->took;
        s->took = s->out_ended = false;
        if (s->tunnel && tunnel_over(s)) {
                tell_body(s);
                return;
        }
        h2_settle_timer(s);
        if (took && p->stalled && !pipe_full(p))
                x->user->req_room(x);
}

static void tell(struct h2_stream *s)
{
        struct exchange *x = s->x;
        if (!tell_interims(s))
                return;
        if (s->why != REASON_NONE) {
                fail(s, s->why);
                return;
        }
        if (s->took || s->out_ended) {
                tell_sent(s);
                if (s->x != x)
                        return;
        }
        if (s->got_head && !s->told_head)
                tell_head(s);
        else if (s->told_head && (s->more || (s->ended && !x->r->from_server->end)))
                tell_body(s);
}

void h2_tell(struct h2_client *c)
{
        struct list *n;
        while (c->state != H2_CLOSED && (n = list_pop(&c->news)) != NULL) {
                struct h2_stream *s = CONTAINER_OF(n, struct h2_stream, news);
                CHECK_OBJ(s, H2_STREAM_MAGIC);
                struct request *r = s->x->r;
                request_hold(r);
                tell(s);
                request_drop(r);
        }
}

/* ---------------------------------------------------------------- what flow does */

static void ops_res_room(struct exchange *x)
{
        struct h2_stream *s = h2_stream_of(x);
        x->r->from_server->stalled = false;
        if (s->c->state != H2_OPEN)
                return;
        give_credit(s);
        h2_settle_timer(s);
}

static void ops_abort(struct exchange *x, enum reason why UNUSED)
{
        call_off(h2_stream_of(x));
}

static const struct exchange_ops exchange_ops = {
        .start = h2_start,
        .req_ready = h2_req_ready,
        .res_room = ops_res_room,
        .abort = ops_abort,
};
