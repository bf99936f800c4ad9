/* flags: -pthread
 * Behaves: does one operation in one hook and decides in its completion, as the query says.
 *
 *     hook=request|request_body|response|response_body   where; each of the others goes on
 *     mode=read|rewrite|buffer                           of the body of that hook
 *     op=none|timer|redis|script|http|wait|drain         what it waits for
 *     then=go|fail|answer|replace                        its verdict
 *     long=1                                             a timer of an hour; 300 ms of the thread
 *
 * An operation that failed is a failure of the function.  It counts begun_total, completed_total,
 * dropped_total and logged_total.
 */
#include <weir/module.h>

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct conf {
        weir_redis *store;
        weir_upstream *side;
        weir_script *script;
        weir_metric *begun, *completed, *dropped, *logged;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, store, REDIS, WEIR_REQUIRED, NULL, "Redis."),
        WEIR_ARG(struct conf, side, UPSTREAM, WEIR_REQUIRED, NULL,
                 "Upstream for requests of its own."),
};

struct woken {
        weir_metric *dropped;
        int us;
};
struct ctx {
        pthread_t thread;
        weir_waiter *waiter;
        struct woken *woken;
        int joined, done;
};

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;

        c->script = weir->conf_script(conf, WEIR_STR("return redis.call('GET', KEYS[1])"));
        c->begun = weir->conf_metric(conf, WEIR_COUNTER, "begun_total", "Begun.", NULL, 0);
        c->completed = weir->conf_metric(conf, WEIR_COUNTER, "completed_total", "Done.", NULL, 0);
        c->dropped = weir->conf_metric(conf, WEIR_COUNTER, "dropped_total", "Dropped.", NULL, 0);
        c->logged = weir->conf_metric(conf, WEIR_COUNTER, "logged_total", "Ends.", NULL, 0);
        return WEIR_OK;
}

static int says(weir_req *r, const char *name, const char *value)
{
        weir_str v = {NULL, 0};

        weir->var_get(r, weir->format(r, "arg_%s", name), &v);
        return weir_eq(v, weir_bytes(value, strlen(value)));
}

static weir_rc decide(weir_req *r)
{
        if (says(r, "then", "fail"))
                return WEIR_ERROR;
        if (says(r, "then", "answer"))
                return weir->respond(r, 418, WEIR_STR("answered"));
        if (says(r, "then", "replace"))
                return weir->body_emit(r, WEIR_STR("new")) ? WEIR_ERROR : WEIR_REPLACED;
        return WEIR_CONTINUE;
}

/* ---- completions */

static weir_rc timed(weir_task *r, const void *inst, void *ctx, void *arg)
{
        const struct conf *c = inst;

        (void)ctx, (void)arg;
        weir->metric_add(c->completed, 1);
        return decide(r);
}

static weir_rc replied(weir_task *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        const struct conf *c = inst;

        (void)ctx, (void)arg;
        weir->metric_add(c->completed, 1);
        return v->type == WEIR_V_STRING && weir_eq(v->str, WEIR_STR("v")) ? decide(r) : WEIR_ERROR;
}

static weir_rc answered(weir_task *r, const void *inst, void *ctx, const weir_http_res *res,
                        void *arg)
{
        const struct conf *c = inst;

        (void)ctx, (void)arg;
        weir->metric_add(c->completed, 1);
        return res->status == 200 && weir_eq(res->body, WEIR_STR("side")) ? decide(r) : WEIR_ERROR;
}

static weir_rc woken(weir_task *r, const void *inst, void *ctx, void *result)
{
        free(result);
        return timed(r, inst, ctx, NULL);
}

static void drop(void *result)
{
        struct woken *w = result;

        weir->metric_add(w->dropped, 1);
        free(w);
}

static void *waker(void *arg)
{
        struct ctx *x = arg;

        usleep((useconds_t)x->woken->us);
        weir->wake(x->waiter, x->woken);
        return NULL;
}

static weir_rc wait(weir_req *r, const struct conf *c, struct ctx *x, int us)
{
        weir_rc rc = weir->wait(r, woken, drop, &x->waiter);

        if (rc != WEIR_SUSPEND)
                return rc;
        x->woken = malloc(sizeof(*x->woken));
        *x->woken = (struct woken){c->dropped, us};
        x->joined = pthread_create(&x->thread, NULL, waker, x) == 0;
        return rc;
}

static weir_rc step(weir_req *r, const struct conf *c, struct ctx *x)
{
        int is_long = says(r, "long", "1");

        if (x->done++)
                return WEIR_CONTINUE;
        weir->metric_add(c->begun, 1);
        if (says(r, "op", "timer"))
                return weir->timer(r, is_long ? 3600 * INT64_C(1000000) : 2000, timed, NULL);
        if (says(r, "op", "redis"))
                return weir->redis(r, c->store, replied, NULL,
                                   WEIR_ARGV(WEIR_STR("GET"), WEIR_STR("k")));
        if (says(r, "op", "script"))
                return weir->redis_script(r, c->store, c->script, 1, replied, NULL,
                                          WEIR_ARGV(WEIR_STR("k")));
        if (says(r, "op", "http"))
                return weir->http(r, c->side, WEIR_HTTP(.path = WEIR_STR("/side")), answered, NULL);
        if (says(r, "op", "wait"))
                return wait(r, c, x, is_long ? 300000 : 2000);
        if (says(r, "op", "drain"))
                return weir->body_drain(r, timed, NULL);
        return decide(r);
}

/* ---- hooks */

static weir_rc head(weir_req *r, const struct conf *c, struct ctx *x, const char *hook,
                    const char *body)
{
        int32_t mode = says(r, "mode", "buffer")    ? WEIR_BODY_BUFFER
                       : says(r, "mode", "rewrite") ? WEIR_BODY_REWRITE
                                                    : WEIR_BODY_READ;

        if (says(r, "hook", body) && weir->body_mode(r, mode, 0) != WEIR_OK)
                return WEIR_ERROR;
        return says(r, "hook", hook) ? step(r, c, x) : WEIR_CONTINUE;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        return head(r, inst, ctx, "request", "request_body");
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        return head(r, inst, ctx, "response", "response_body");
}

static weir_rc body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        struct ctx *x = ctx;

        (void)chunk;
        if (says(r, "then", "replace") && x->done)
                return WEIR_REPLACED;
        return step(r, inst, ctx);
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;

        (void)r;
        weir->metric_add(c->logged, 1);
        if (x->joined)
                pthread_join(x->thread, NULL);
}

WEIR_MODULE(.name = "steps", .version = "1", WEIR_ARGS(struct conf, args),
            .ctx_size = sizeof(struct ctx), .create = create, .on_request = request,
            .on_response = response, .on_request_body = body, .on_response_body = body,
            .on_log = on_log);
