/*
 * Behaves: stamps each hook and completion of a request with the letter that it was built with
 * (-DLETTER="a") and answers with the stamps, asking Redis in each hook.  held= names the Redis
 * that the hook of the number in the path's end asks in place of store=.
 *
 *     /0 in on_request, /1 in on_request_body, /2 in on_response, /3 in on_response_body
 */
#include <weir/module.h>

#include <string.h>

#ifndef LETTER
#define LETTER "a"
#endif

struct conf {
        weir_redis *store, *held;
        weir_metric *mixed;
        char letter;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, store, REDIS, WEIR_REQUIRED, NULL, "What all hooks ask."),
        WEIR_ARG(struct conf, held, REDIS, WEIR_REQUIRED, NULL, "What one hook asks instead."),
};

struct ctx {
        char seen[32];
        size_t n;
        int at, last;
};

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;

        c->letter = LETTER[0];
        c->mixed = weir->conf_metric(conf, WEIR_COUNTER, "mixed_total", "Requests of two versions.",
                                     NULL, 0);
        return WEIR_OK;
}

/* Both what this code was built with and what its instance was made by. */
static void stamp(struct ctx *x, const struct conf *c)
{
        if (x->n + 2 <= sizeof(x->seen)) {
                x->seen[x->n++] = LETTER[0];
                x->seen[x->n++] = c->letter;
        }
}

static weir_rc ask(weir_req *r, const struct conf *c, struct ctx *x, int hook, weir_redis_fn *fn)
{
        stamp(x, c);
        return weir->redis(r, x->at == hook ? c->held : c->store, fn, NULL,
                           WEIR_ARGV(WEIR_STR("GET"), WEIR_STR("swap")));
}

static weir_rc go_on(weir_task *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        (void)r, (void)arg;
        stamp(ctx, inst);
        return v->type == WEIR_V_STRING ? WEIR_CONTINUE : WEIR_ERROR;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        struct ctx *x = ctx;
        weir_str path;

        if (!weir->var_get(r, WEIR_STR("path"), &path) ||
            weir->body_mode(r, WEIR_BODY_BUFFER, 0) != WEIR_OK)
                return WEIR_ERROR;
        x->at = path.p[path.n - 1] - '0';
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("x-first"), WEIR_STR(LETTER));
        return ask(r, inst, x, 0, go_on);
}

static weir_rc request_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        (void)chunk;
        return ask(r, inst, ctx, 1, go_on);
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        if (weir->body_mode(r, WEIR_BODY_REWRITE, 0) != WEIR_OK)
                return WEIR_ERROR;
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("x-then"), WEIR_STR(LETTER));
        return ask(r, inst, ctx, 2, go_on);
}

static weir_rc replace(weir_task *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        struct ctx *x = ctx;

        (void)arg;
        stamp(x, inst);
        if (v->type != WEIR_V_STRING || weir->body_emit(r, weir_bytes(x->seen, x->n)) != WEIR_OK)
                return WEIR_ERROR;
        return WEIR_REPLACED;
}

static weir_rc response_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        return chunk->flags & WEIR_CHUNK_LAST ? ask(r, inst, ctx, 3, replace) : WEIR_REPLACED;
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;

        (void)r;
        stamp(x, c);
        for (size_t i = 1; i < x->n; i++)
                if (x->seen[i] != x->seen[0]) {
                        weir->metric_add(c->mixed, 1);
                        return;
                }
}

WEIR_MODULE(.name = "swap", .version = LETTER, WEIR_ARGS(struct conf, args),
            .ctx_size = sizeof(struct ctx), .create = create, .on_request = request,
            .on_response = response, .on_request_body = request_body,
            .on_response_body = response_body, .on_log = on_log);
