/*
 * HTTP/2 towards servers: the request goes out (h2_exchange.h).
 *
 * The one difficulty: a body leaves its pipe only when the server's window takes it.  While there
 * is nothing to send, or nothing may be sent yet, nghttp2 is told "deferred" and woken again; what
 * a DATA frame holds goes from the pipe to the socket's queue without a copy, but for the little
 * that is kept for a server that gives the request back.
 */
#include "http/field.h"
#include "http/grpc.h"
#include "http/h2_exchange.h"
#include "http/h2_session.h"

struct names { /* of nghttp2, in the request's arena */
        struct arena *a;
        nghttp2_nv *v;
        size_t n;
};

static void put(struct names *to, str name, str value, uint8_t flags)
{
        to->v[to->n++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.p,
                                      .namelen = name.n,
                                      .value = (uint8_t *)(uintptr_t)(value.n ? value.p : ""),
                                      .valuelen = value.n,
                                      .flags = flags};
}

static str lower(struct arena *a, str s)
{
        char *p = arena_dupz(a, s);
        for (size_t i = 0; p && i < s.n; i++)
                p[i] = str_lower(p[i]);
        return p ? str_of(p, s.n) : STR_NONE;
}

static void put_field(struct names *to, const struct field *f)
{
        str name = f->id != FIELD_OTHER ? h2_name_of(f->id) : lower(to->a, f->name);
        bool secret = f->id == FIELD_AUTHORIZATION || f->id == FIELD_PROXY_AUTHORIZATION;
        if (name.n)
                put(to, name, f->value, secret ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE);
}

static bool field_passes(const struct field *f)
{
        return f->id == FIELD_OTHER ||
               (!(field_flags_of(f->id) & (FIELD_F_HOP | FIELD_F_FRAMING)) &&
                f->id != FIELD_EXPECT);
}

static bool is_websocket(const struct msg *m)
{
        return m->upgrade.n && field_list_has(m->upgrade, STR("websocket"));
}

/* TE is hop-by-hop; what the client said of trailers is true of us as well.  (gRPC asks for them
 * whoever calls.) */
static bool takes_trailers(const struct request *r)
{
        FIELDS_EACH(f, &r->req.fields)
        {
                if (f->id == FIELD_TE && field_list_has(f->value, STR("trailers")))
                        return true;
        }
        return false;
}

static void put_head(struct h2_stream *s, struct names *to)
{
        struct exchange *x = s->x;
        const struct msg *m = x->req;
        char digits[20];
        put(to, STR(":method"), s->connect ? STR("CONNECT") : m->method_text, 0);
        if (s->connect)
                put(to, STR(":protocol"), STR("websocket"), 0);
        put(to, STR(":scheme"), s->c->io.tls ? STR("https") : STR("http"), 0);
        if (m->authority.n)
                put(to, STR(":authority"), m->authority, 0);
        put(to, STR(":path"), m->target, 0);
        FIELDS_EACH(f, &m->fields)
        {
                if (field_passes(f) && !(s->connect && str_ieq(f->name, STR("Sec-WebSocket-Key"))))
                        put_field(to, f);
        }
        if (takes_trailers(x->r) || grpc_is_request(m))
                put(to, STR("te"), STR("trailers"), 0);
        if (m->expect_continue)
                put(to, STR("expect"), STR("100-continue"), 0);
        if (m->framing == FRAMING_LENGTH && !s->connect) {
                str n = arena_dup(to->a, str_of(digits, str_put_u64(digits, m->length)));
                put(to, STR("content-length"), n, 0);
        }
}

/* Fields of a request's trailers, with END_STREAM; or none, and the last DATA has it. */
static bool put_trailers(struct h2_stream *s)
{
        const struct fields *fs = &s->x->r->req.trailers;
        struct names to = {.a = s->x->r->arena};
        if (fs->n == 0)
                return false;
        to.v = ARENA_ARRAY(to.a, nghttp2_nv, fs->n);
        if (!to.v)
                return false;
        FIELDS_EACH(f, fs)
        {
                if (!(field_flags_of(f->id) & (FIELD_F_NOTRAILER | FIELD_F_HOP | FIELD_F_FRAMING)))
                        put_field(&to, f);
        }
        return to.n > 0 && nghttp2_submit_trailer(s->c->session, s->id, to.v, to.n) == 0;
}

static ssize_t body_later(struct h2_stream *s)
{
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
}

/* How much of the body goes into the next DATA; h2_send_data takes it. */
static ssize_t read_body(nghttp2_session *session UNUSED, int32_t id UNUSED, uint8_t *to UNUSED,
                         size_t most, uint32_t *flags, nghttp2_data_source *source,
                         void *ctx UNUSED)
{
        struct h2_stream *s = source->ptr;
        CHECK_OBJ(s, H2_STREAM_MAGIC);
        if (!s->x || s->awaiting || s->connect)
                return body_later(s);
        struct pipe *p = s->x->r->to_server;
        bool counted = s->x->req->framing == FRAMING_LENGTH && !s->tunnel;
        size_t n = h2_data_length(p, most);
        bool end = p->end && n == p->data.n;
        if (n == 0 && !end)
                return body_later(s);
        if (counted && (n > s->left || (end && n < s->left))) {
                h2_note_failure(
                        s, REASON_INTERNAL); /* not what was announced: it cannot be completed */
                return body_later(s);
        }
        s->left -= counted ? n : 0;
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        if (end) {
                *flags |= NGHTTP2_DATA_FLAG_EOF;
                if (!s->tunnel && put_trailers(s))
                        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        }
        return (ssize_t)n;
}

/* What was taken is kept while the server may still give the request back, or for whoever may want
 * to send it again. */
static void keep(struct h2_stream *s, size_t n)
{
        if (!s->keeping)
                return;
        if (s->kept.n + n > MAX(H2_KEPT_MAX, s->x->keep_max) ||
            (s->got_head && s->x->keep_max == 0)) {
                s->keeping = false;
                buf_clear(&s->kept);
                return;
        }
        buf_append(&s->kept, &s->x->r->to_server->data, n);
}

int h2_send_data(nghttp2_session *session UNUSED, nghttp2_frame *frame, const uint8_t *head,
                 size_t n, nghttp2_data_source *source, void *ctx)
{
        struct h2_client *c = ctx;
        struct h2_stream *s = source->ptr;
        CHECK_OBJ(s, H2_STREAM_MAGIC);
        if (n > 0) {
                CHECK(s->x != NULL);
                keep(s, n);
        }
        h2_data_put(&c->io.out, frame, head, s->x ? s->x->r->to_server : NULL, n);
        if (n == 0)
                return 0;
        s->x->body_taken = true;
        s->sent += n;
        s->took = true;
        h2_note(s);
        return 0;
}

void h2_stream_frame_sent(struct h2_client *c, const nghttp2_frame *frame)
{
        struct h2_stream *s = h2_stream_here(c, frame->hd.stream_id);
        if (!s || !s->x || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
                return;
        s->x->wrote = true;
        s->out_done = s->out_done || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
        s->out_ended = true;
        h2_note(s);
}

/* A request that nghttp2 did not send: a GOAWAY came first, or ids have run out. */
void h2_stream_not_sent(struct h2_client *c, const nghttp2_frame *frame)
{
        if (frame->hd.type != NGHTTP2_HEADERS)
                return;
        LIST_EACH (n, &c->streams) {
                struct h2_stream *s = CONTAINER_OF(n, struct h2_stream, link);
                if (s->id == frame->hd.stream_id && (!s->x || !s->x->wrote)) {
                        if (s->x) {
                                s->not_sent = true;
                                h2_note_failure(s, REASON_UPSTREAM_REFUSED);
                        }
                        h2_stream_closed(s);
                        return;
                }
        }
}

static bool submit(struct h2_stream *s)
{
        struct exchange *x = s->x;
        struct names to = {.a = x->r->arena};
        nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_body};
        bool no_body = !s->connect && (x->req->framing == FRAMING_NONE ||
                                       (x->r->to_server->end && x->r->to_server->data.n == 0 &&
                                        x->r->req.trailers.n == 0));
        int32_t id;
        to.v = ARENA_ARRAY(to.a, nghttp2_nv, x->req->fields.n + 8);
        if (!to.v)
                return false;
        put_head(s, &to);
        if (no_body && x->req->framing == FRAMING_LENGTH && x->req->length > 0)
                return false;
        id = nghttp2_submit_request(s->c->session, NULL, to.v, to.n, no_body ? NULL : &body, s);
        if (id < 0)
                return false;
        s->id = id;
        return true;
}

void h2_start(struct exchange *x)
{
        struct h2_stream *s = h2_stream_of(x);
        struct request *r = x->r;
        CHECK(x->phase == EXCHANGE_IDLE);
        x->phase = EXCHANGE_WAITING;
        x->sent_at = s->c->io.loop->now;
        h2_schedule(s->c);
        s->connect = is_websocket(x->req) && x->accept_upgrade;
        if (s->connect && nghttp2_session_get_remote_settings(
                                  s->c->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) != 1) {
                h2_note_failure(s, REASON_UPSTREAM_NO_TUNNEL);
                return;
        }
        s->left = x->req->length;
        s->keeping = true;
        s->awaiting = !r->to_server->end && x->req->expect_continue && r->to_server->data.n == 0;
        if (!submit(s)) {
                h2_note_failure(s, REASON_INTERNAL);
                return;
        }
        h2_settle_timer(s);
        if (!r->to_server->end && !s->awaiting)
                x->user->req_room(x);
}

void h2_req_ready(struct exchange *x)
{
        struct h2_stream *s = h2_stream_of(x);
        s->awaiting = false; /* the client did not wait either */
        if (x->phase == EXCHANGE_IDLE || s->c->state != H2_OPEN)
                return;
        h2_wake_body(s);
        h2_settle_timer(s);
}
