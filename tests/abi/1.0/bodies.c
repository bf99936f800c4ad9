/*
 * Behaves: request=OP and response=OP say what it does with the bodies; its line in the log, what
 * it saw of them.
 */
#include <weir/module.h>

#include <stdlib.h>
#include <string.h>

enum { NONE, READ, UPPER, DOUBLE, GROW, DROP, TAIL, BUFFER, REVERSE, WAIT, ROUTE, FEW };
enum { NEVER, FAIL, ANSWER, HANG, STATUS };

struct conf {
        int32_t op[2], then;
        int64_t max, at;
};

static const weir_arg args[] = {
        WEIR_ARG_AS("request", struct conf, op[0], ENUM, 0, "none", "With a request's body.",
                    .choices =
                            "none read upper double grow drop tail buffer reverse wait route few"),
        WEIR_ARG_AS("response", struct conf, op[1], ENUM, 0, "none", "With a response's body.",
                    .choices =
                            "none read upper double grow drop tail buffer reverse wait route few"),
        WEIR_ARG(struct conf, max, SIZE, 0, "0", "Of a buffered body."),
        WEIR_ARG(struct conf, then, ENUM, 0, "never", "What it does at chunk number at.",
                 .choices = "never fail answer hang status"),
        WEIR_ARG(struct conf, at, INT, 0, "1", "At which chunk, from 1."),
};

struct seen {
        long bytes, chunks, first, last;
        weir_chunk chunk;
        int left;
};
struct ctx {
        struct seen of[2];
        int logged;
};

static int32_t mode_of(int32_t op)
{
        switch (op) {
        case NONE:
                return WEIR_BODY_SKIP;
        case READ:
        case WAIT:
        case FEW:
                return WEIR_BODY_READ;
        case BUFFER:
        case REVERSE:
        case ROUTE:
                return WEIR_BODY_BUFFER;
        default:
                return WEIR_BODY_REWRITE;
        }
}

static weir_rc head(weir_req *r, const struct conf *c, int side)
{
        if (c->op[side] != NONE && weir->body_mode(r, mode_of(c->op[side]), (uint64_t)c->max))
                return WEIR_ERROR;
        return WEIR_CONTINUE;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        (void)ctx;
        return head(r, inst, 0);
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        (void)ctx;
        return head(r, inst, 1);
}

static weir_rc emit(weir_req *r, const char *p, size_t n)
{
        return weir->body_emit(r, weir_bytes(p, n)) ? WEIR_ERROR : WEIR_REPLACED;
}

static weir_rc upper(weir_req *r, weir_str s)
{
        char out[16384];

        if (s.n > sizeof(out))
                return WEIR_ERROR;
        for (size_t i = 0; i < s.n; i++)
                out[i] = s.p[i] >= 'a' && s.p[i] <= 'z' ? (char)(s.p[i] - 32) : s.p[i];
        return emit(r, out, s.n);
}

static weir_rc reverse(weir_req *r, weir_str s)
{
        char *out = malloc(s.n + 1);
        weir_rc rc;

        for (size_t i = 0; i < s.n; i++)
                out[i] = s.p[s.n - 1 - i];
        rc = emit(r, out, s.n);
        free(out);
        return rc;
}

/* Each chunk a hundred times. */
static weir_rc grow(weir_req *r, const void *inst, void *ctx, void *arg)
{
        struct seen *seen = arg;

        (void)inst, (void)ctx;
        while (seen->left > 0) {
                weir_err err = weir->body_emit(r, seen->chunk.data);
                if (err == WEIR_E_FULL)
                        return weir->body_drain(r, grow, arg);
                if (err != WEIR_OK)
                        return WEIR_ERROR;
                seen->left--;
        }
        return WEIR_REPLACED;
}

static weir_rc waited(weir_req *r, const void *inst, void *ctx, void *arg)
{
        (void)r, (void)inst, (void)ctx, (void)arg;
        return WEIR_CONTINUE;
}

static weir_rc tail(weir_req *r, int side, const weir_chunk *c, const struct seen *seen)
{
        int32_t where = side ? WEIR_RESPONSE_TRAILERS : WEIR_REQUEST_TRAILERS;
        weir_str old = WEIR_STR("none");

        if (!(c->flags & WEIR_CHUNK_LAST))
                return WEIR_CONTINUE;
        weir->header_get(r, where, WEIR_STR("x-sum"), &old);
        if (weir->header_set(r, where, WEIR_STR("x-seen"),
                             weir->format(r, "%.*s %ld", WEIR_S(old), seen->bytes)) ||
            weir->header_set(r, where, WEIR_STR("content-length"), WEIR_STR("1")) != WEIR_E_DENIED)
                return WEIR_ERROR;
        weir->header_del(r, where, WEIR_STR("x-gone"));
        if (emit(r, c->data.p, c->data.n) == WEIR_ERROR)
                return WEIR_ERROR;
        return emit(r, ".", 1);
}

static weir_rc work(weir_req *r, const struct conf *conf, int side, const weir_chunk *c,
                    struct seen *seen)
{
        switch (conf->op[side]) {
        case UPPER:
                return upper(r, c->data);
        case DOUBLE:
                return emit(r, c->data.p, c->data.n) < 0 ? WEIR_ERROR
                                                         : emit(r, c->data.p, c->data.n);
        case GROW:
                seen->chunk = *c;
                seen->left = 100;
                return grow(r, NULL, NULL, seen);
        case DROP:
                return WEIR_REPLACED;
        case TAIL:
                return tail(r, side, c, seen);
        case BUFFER:
                weir->header_set(r, side, WEIR_STR("x-length"), weir->format(r, "%zu", c->data.n));
                return WEIR_CONTINUE;
        case REVERSE:
                return reverse(r, c->data);
        case WAIT:
                return weir->timer(r, 2000, waited, NULL);
        case ROUTE:
                return weir->var_set(r, WEIR_STR("upstream"), c->data) ? WEIR_ERROR : WEIR_CONTINUE;
        case FEW:
                return weir->body_mode(r, WEIR_BODY_SKIP, 0) ? WEIR_ERROR : WEIR_CONTINUE;
        default:
                return WEIR_CONTINUE;
        }
}

static weir_rc body(weir_req *r, const struct conf *conf, int side, struct ctx *x,
                    const weir_chunk *c)
{
        struct seen *seen = &x->of[side];

        if (c->offset != (uint64_t)seen->bytes)
                return WEIR_ERROR;
        seen->bytes += (long)c->data.n;
        seen->chunks++;
        seen->first += (c->flags & WEIR_CHUNK_FIRST) != 0;
        seen->last += (c->flags & WEIR_CHUNK_LAST) != 0;
        if (seen->chunks == conf->at && conf->then != NEVER) {
                if (conf->then == HANG)
                        return weir->timer(r, 3600 * INT64_C(1000000), waited, NULL);
                if (conf->then == ANSWER)
                        return weir->respond(r, 418, WEIR_STR("no\n"));
                if (conf->then == STATUS)
                        return weir->var_set(r, WEIR_STR("status"), WEIR_STR("299"))
                                       ? WEIR_ERROR
                                       : WEIR_CONTINUE;
                return WEIR_ERROR;
        }
        return work(r, conf, side, c, seen);
}

static weir_rc request_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *c)
{
        return body(r, inst, 0, ctx, c);
}

static weir_rc response_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *c)
{
        return body(r, inst, 1, ctx, c);
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        const struct ctx *x = ctx;

        (void)inst;
        weir->log(r, WEIR_LOG_INFO, "saw request %ld/%ld/%ld response %ld/%ld/%ld", x->of[0].bytes,
                  x->of[0].first, x->of[0].last, x->of[1].bytes, x->of[1].first, x->of[1].last);
}

#define POST(body) "POST / HTTP/1.1\nhost: a\n\n" body
#define OK(body)   "HTTP/1.1 200 OK\n\n" body
static const weir_case cases[] = {
        {.name = "a request's body",
         .config = "request=upper",
         .request = POST("abc"),
         .expect = "continue\nreq body ABC"},
        {.name = "a response's body",
         .config = "response=double",
         .upstream = OK("xy"),
         .expect = "continue\nbody xyxy"},
        {.name = "whole",
         .config = "request=buffer response=reverse",
         .request = POST("1234"),
         .upstream = OK("xyz"),
         .expect = "continue\nreq body 1234\nreq x-length: 4\nbody zyx"},
        {.name = "it waits",
         .config = "request=wait response=wait",
         .request = POST("abc"),
         .upstream = OK("def"),
         .expect = "continue\nreq body abc\nbody def"},
        {.name = "none", .config = "request=buffer", .expect = "continue\nreq x-length: 0"},
        {.name = "it fails",
         .config = "request=read then=fail",
         .request = POST("abc"),
         .expect = "error"},
        {.name = "it answers",
         .config = "request=buffer then=answer",
         .request = POST("abc"),
         .expect = "respond 418\nbody no"},
};

WEIR_MODULE(.name = "bodies", .version = "1", WEIR_ARGS(struct conf, args), WEIR_CASES(cases),
            .ctx_size = sizeof(struct ctx), .on_request = request, .on_response = response,
            .on_log = on_log, .on_request_body = request_body, .on_response_body = response_body);
