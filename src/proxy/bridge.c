/*
 * gRPC-Web bridged to gRPC (bridge.h).
 *
 *    client --- base64, frames --> to_server: bytes, frames --------------------> server
 *    client <-- base64, frames, trailers as a frame -- from_server <-- frames, trailers -- server
 *
 * Functions that read or change the bodies stand between it and the client, as they do for heads.
 *
 * The one difficulty: a pipe has two ends that know nothing of a third.  What came in is turned in
 * the pipe itself, when flow is told of it and before it tells the taker: the last `passed - seen`
 * bytes of the data are new, those before them have been turned already.  Credit is counted by
 * what is in the pipe, and so stays true, give or take the third that base64 is longer.
 */
#include "proxy/bridge.h"

#include "base/check.h"
#include "http/grpc.h"
#include "http/grpc_web.h"

/* Lives in the request's arena. */
struct bridge {
        struct request *r;
        bool text;    /* the request is */
        bool answers; /* the answer is of gRPC */
        bool ended;   /* its last frame was made */
        uint64_t req_seen, res_seen;
        struct grpc_web_decoder in;
        struct grpc_web_encoder out;
};

/* "+proto" of a content type; absent: none. */
static str suffix_of(str type)
{
        str kind, parameters;
        ptrdiff_t plus;

        str_cut(type, ';', &kind, &parameters);
        kind = str_trim(kind);
        plus = str_chr(kind, '+');
        return plus < 0 ? STR_NONE : str_from(kind, (size_t)plus);
}

static str type_of(const struct msg *m)
{
        const struct field *f = fields_get(&m->fields, FIELD_CONTENT_TYPE);

        return f ? f->value : STR("");
}

/* What the client wants to read: what it accepts, else what it writes. */
static bool wants_text(const struct msg *req)
{
        const struct field *accept = fields_find(&req->fields, STR("Accept"));
        str rest = accept ? accept->value : STR_NONE, one;

        while (rest.p) {
                (void)str_cut(rest, ',', &one, &rest);
                one = str_trim(one);
                if (grpc_is_web_type(one))
                        return grpc_is_web_text(one);
        }
        return grpc_is_web_text(type_of(req));
}

struct bridge *bridge_new(struct request *r)
{
        struct bridge *b = ARENA_NEW(r->arena, struct bridge);

        CHECK(b != NULL);
        b->r = r;
        b->text = grpc_is_web_text(type_of(&r->req));
        b->out.text = wants_text(&r->req);
        return b;
}

static void set_type(struct arena *a, struct msg *m, str kind, str suffix)
{
        str parts[] = {kind, suffix.p ? suffix : STR("")};

        (void)!fields_set(a, &m->fields, FIELD_CONTENT_TYPE, field_name_of(FIELD_CONTENT_TYPE),
                          arena_cat(a, parts, 2));
}

/* Takes out what has come since; what was there before is in *turned. */
static struct buf take_new(struct pipe *p, uint64_t *seen, struct buf *turned)
{
        size_t fresh = (size_t)(p->passed - *seen);
        struct buf raw = BUF_INIT;

        CHECK(fresh <= p->data.n);
        *seen = p->passed;
        if (p->data.n > fresh)
                buf_move(turned, &p->data, p->data.n - fresh);
        raw = p->data;
        p->data = BUF_INIT;
        return raw;
}

bool bridge_request(struct bridge *b)
{
        struct pipe *p = b->r->to_server;
        struct buf turned = BUF_INIT, raw;
        bool well = true;

        if (!b->text)
                return true;
        if (p->passed != b->req_seen) {
                raw = take_new(p, &b->req_seen, &turned);
                well = grpc_web_decode(&b->in, &raw, &turned);
                buf_clear(&raw);
                p->data = turned;
        }
        return well && (!p->end || grpc_web_decoded(&b->in));
}

void bridge_request_head(struct bridge *b, struct msg *sent)
{
        set_type(b->r->arena, sent, STR("application/grpc"), suffix_of(type_of(&b->r->req)));
        if (b->text && sent->framing == FRAMING_LENGTH) /* of the text */
                sent->framing = FRAMING_CHUNKED;
}

/* ------------------------------------------------------------------ answers */

static bool is_grpc_field(const struct field *f)
{
        return str_istarts(f->name, STR("grpc-"));
}

/* An answer whose head was all (Trailers-Only): what gRPC says there belongs into the last frame.
 * server: other fields are perhaps the service's own and are said there too. */
static struct fields trailers_of_head(struct request *r, bool server)
{
        struct fields out = {0};

        FIELDS_EACH(f, &r->res.fields)
        {
                bool own = f->id == FIELD_OTHER && server &&
                           !str_istarts(f->name, STR("access-control-"));
                if (!is_grpc_field(f) && !own)
                        continue;
                fields_add(r->arena, &out, f->id, f->name, f->value);
                if (is_grpc_field(f))
                        f->flags |= FIELD_DELETED;
        }
        return out;
}

static bool end_answer(struct bridge *b, struct fields trailers)
{
        struct request *r = b->r;

        b->ended = true;
        if (!fields_find(&trailers, GRPC_STATUS)) { /* so a client of gRPC would take it */
                fields_add(r->arena, &trailers, FIELD_OTHER, GRPC_STATUS, STR("2"));
                fields_add(r->arena, &trailers, FIELD_OTHER, GRPC_MESSAGE,
                           STR("the server sent no grpc-status"));
        }
        r->res.trailers = (struct fields){0};
        return grpc_web_encode_end(&b->out, &trailers, &r->from_server->data);
}

static void set_head(struct request *r, bool text, str suffix)
{
        struct msg *res = &r->res;

        set_type(r->arena, res,
                 text ? STR("application/grpc-web-text") : STR("application/grpc-web"), suffix);
        (void)fields_del_id(&res->fields, FIELD_CONTENT_LENGTH);
        (void)fields_del_id(&res->fields, FIELD_TRAILER);
        res->framing = FRAMING_CHUNKED;
}

bool bridge_response_head(struct bridge *b)
{
        struct request *r = b->r;
        str type = type_of(&r->res), suffix = suffix_of(type);
        bool only_head =
                r->from_server->end && r->from_server->passed == 0 && r->res.trailers.n == 0;

        b->answers = r->res.status == 200 && grpc_is_type(type);
        if (!b->answers)
                return true;
        set_head(r, b->out.text, suffix.p ? suffix : suffix_of(type_of(&r->req)));
        return only_head ? end_answer(b, trailers_of_head(r, true)) : bridge_response(b);
}

bool bridge_response(struct bridge *b)
{
        struct pipe *p = b->r->from_server;
        struct buf turned = BUF_INIT, raw;
        bool well;

        if (!b->answers || b->ended)
                return true;
        if (p->passed != b->res_seen) {
                raw = take_new(p, &b->res_seen, &turned);
                well = grpc_web_encode(&b->out, &raw, &turned);
                buf_clear(&raw);
                p->data = turned;
                if (!well)
                        return false;
        }
        return !p->end || end_answer(b, b->r->res.trailers);
}

void bridge_reply(struct request *r, enum reason why)
{
        struct grpc_web_encoder out = {.text = wants_text(&r->req)};
        struct fields trailers;

        grpc_reply(r, why);
        trailers = trailers_of_head(r, false);
        set_head(r, out.text, suffix_of(type_of(&r->req)));
        CHECK(grpc_web_encode_end(&out, &trailers, &r->res_body.data));
        r->res_body.passed = r->res_body.data.n;
        r->res.framing = FRAMING_LENGTH;
        r->res.length = r->res_body.data.n;
}
