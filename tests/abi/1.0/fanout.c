/*
 * Behaves: asks upstreams as the path and the query say, and answers with what came of it.
 *
 *     /one?method=&path=&body=&field=NAME:VALUE&timeout=MS&max=BYTES   one request to upstream a
 *     /three        a/1, b/2 and a/3 at once, within within=; the sum of their bodies
 *     /many?n=      n at once to a
 *     /first        a and b at once; who answers first decides
 *     /twice        one to a, and after its answer one to b
 *     /response     the same as /one, when the response is there
 *     /scan         the request's body, whole, is put to a: 200 goes on, all else is 422
 *     /translate    each piece of the response's body is put to a, and its answer stands for it
 */
#include <weir/module.h>

#include <stdlib.h>
#include <string.h>

struct conf {
        weir_upstream *a, *b;
        int64_t within;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, a, UPSTREAM, WEIR_REQUIRED, NULL, "An upstream."),
        WEIR_ARG(struct conf, b, UPSTREAM, WEIR_REQUIRED, NULL, "Another one."),
        WEIR_ARG(struct conf, within, TIME, 0, "1s", "Of all that is asked."),
};

struct ctx {
        int left, good, bad;
        int64_t sum;
};

static weir_str arg(weir_req *r, const char *name)
{
        weir_str v = {NULL, 0};

        weir->var_get(r, weir->format(r, "arg_%s", name), &v);
        return v;
}

static int64_t number(weir_str s)
{
        char text[24] = "";

        memcpy(text, s.p ? s.p : "", s.n < sizeof(text) ? s.n : sizeof(text) - 1);
        return atoll(text);
}

/* ---- one */

static weir_str told(weir_req *r, const weir_http_res *res)
{
        weir_str back = weir_http_field(res, WEIR_STR("X-Back"));

        return weir->format(r, "status=%d error=%d fields=%d back=%.*s n=%d body=%.*s", res->status,
                            res->error, (int)res->n_fields, WEIR_S(back), (int)res->body.n,
                            (int)(res->body.n < 200 ? res->body.n : 200), res->body.p);
}

static weir_rc say(weir_task *r, const void *inst, void *ctx, const weir_http_res *res, void *arg)
{
        (void)inst, (void)ctx, (void)arg;
        return weir->respond(r, 200, told(r, res));
}

static weir_rc note(weir_task *r, const void *inst, void *ctx, const weir_http_res *res, void *arg)
{
        (void)inst, (void)ctx, (void)arg;
        return weir->header_set(r, WEIR_RESPONSE, WEIR_STR("x-told"), told(r, res)) ? WEIR_ERROR
                                                                                    : WEIR_CONTINUE;
}

static weir_rc one(weir_req *r, const struct conf *c, weir_http_fn *fn)
{
        weir_str field = arg(r, "field");
        const char *colon = field.p ? memchr(field.p, ':', field.n) : NULL;
        weir_kv kv = {{NULL, 0}, {NULL, 0}};

        if (colon != NULL) {
                kv.name = weir_bytes(field.p, (size_t)(colon - field.p));
                kv.value = weir_bytes(colon + 1, field.n - kv.name.n - 1);
        }
        return weir->http(r, c->a,
                          WEIR_HTTP(.method = arg(r, "method"), .path = arg(r, "path"),
                                    .body = arg(r, "body"), .fields = &kv,
                                    .n_fields = colon != NULL,
                                    .timeout_us = number(arg(r, "timeout")) * 1000,
                                    .max_body = (uint64_t)number(arg(r, "max"))),
                          fn, NULL);
}

/* ---- several at once */

static weir_rc add(weir_task *r, const void *inst, void *ctx, const weir_http_res *res, void *arg)
{
        struct ctx *x = ctx;

        (void)inst, (void)arg;
        if (res->status == 200) {
                x->good++;
                x->sum += number(res->body);
        } else {
                x->bad++;
        }
        if (--x->left > 0)
                return WEIR_SUSPEND;
        return weir->respond(
                r, 200, weir->format(r, "sum=%d good=%d bad=%d", (int)x->sum, x->good, x->bad));
}

static weir_rc ask(weir_req *r, const struct conf *c, struct ctx *x, weir_upstream *u,
                   weir_str path)
{
        x->left++;
        return weir->http(r, u, WEIR_HTTP(.path = path, .timeout_us = c->within), add, NULL);
}

static weir_rc three(weir_req *r, const struct conf *c, struct ctx *x)
{
        ask(r, c, x, c->a, WEIR_STR("/1"));
        ask(r, c, x, c->b, WEIR_STR("/2"));
        return ask(r, c, x, c->a, WEIR_STR("/3"));
}

static weir_rc many(weir_req *r, const struct conf *c, struct ctx *x)
{
        weir_rc rc = WEIR_ERROR;

        for (int64_t i = number(arg(r, "n")); i > 0; i--)
                rc = ask(r, c, x, c->a, weir->format(r, "/%d", (int)i));
        return rc;
}

static weir_rc first(weir_req *r, const struct conf *c)
{
        weir->http(r, c->a, WEIR_HTTP(.path = WEIR_STR("/first")), say, NULL);
        return weir->http(r, c->b, WEIR_HTTP(.path = WEIR_STR("/first")), say, NULL);
}

static weir_rc then(weir_task *r, const void *inst, void *ctx, const weir_http_res *res, void *arg)
{
        const struct conf *c = inst;

        (void)ctx, (void)arg;
        return weir->http(r, c->b, WEIR_HTTP(.path = WEIR_STR("/then"), .body = res->body), say,
                          NULL);
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        weir_str path;

        if (!weir->var_get(r, WEIR_STR("path"), &path))
                return WEIR_ERROR;
        if (weir_eq(path, WEIR_STR("/one")))
                return one(r, c, say);
        if (weir_eq(path, WEIR_STR("/three")))
                return three(r, c, ctx);
        if (weir_eq(path, WEIR_STR("/many")))
                return many(r, c, ctx);
        if (weir_eq(path, WEIR_STR("/first")))
                return first(r, c);
        if (weir_eq(path, WEIR_STR("/scan")))
                return weir->body_mode(r, WEIR_BODY_BUFFER, 65536) ? WEIR_ERROR : WEIR_CONTINUE;
        if (weir_eq(path, WEIR_STR("/twice")))
                return weir->http(r, c->a, WEIR_HTTP(.path = WEIR_STR("/1")), then, NULL);
        return WEIR_CONTINUE;
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        weir_str path;

        (void)ctx;
        if (!weir->var_get(r, WEIR_STR("path"), &path))
                return WEIR_ERROR;
        if (weir_eq(path, WEIR_STR("/translate")))
                return weir->body_mode(r, WEIR_BODY_REWRITE, 0) ? WEIR_ERROR : WEIR_CONTINUE;
        return weir_eq(path, WEIR_STR("/response")) ? one(r, inst, note) : WEIR_CONTINUE;
}

/* ---- bodies */

static weir_rc scanned(weir_task *r, const void *inst, void *ctx, const weir_http_res *res,
                       void *arg)
{
        (void)inst, (void)ctx, (void)arg;
        return res->status == 200 ? WEIR_CONTINUE : weir->respond(r, 422, told(r, res));
}

static weir_rc translated(weir_task *r, const void *inst, void *ctx, const weir_http_res *res,
                          void *arg)
{
        (void)inst, (void)ctx, (void)arg;
        return res->status != 200 || weir->body_emit(r, res->body) ? WEIR_ERROR : WEIR_REPLACED;
}

static weir_rc put(weir_req *r, const struct conf *c, weir_str body, weir_http_fn *fn)
{
        return weir->http(
                r, c->a,
                WEIR_HTTP(.method = WEIR_STR("POST"), .path = WEIR_STR("/body"), .body = body), fn,
                NULL);
}

static weir_rc request_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        (void)ctx;
        return put(r, inst, chunk->data, scanned);
}

static weir_rc response_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        (void)ctx;
        return chunk->data.n ? put(r, inst, chunk->data, translated) : WEIR_CONTINUE;
}

WEIR_MODULE(.name = "fanout", .version = "1", WEIR_ARGS(struct conf, args),
            .ctx_size = sizeof(struct ctx), .on_request = request, .on_request_body = request_body,
            .on_response = response, .on_response_body = response_body);
