/* flags: -pthread
 * Behaves: /WORD of the path says which calls of the host it makes, and the answer tells what came
 * of them. */
#include <weir/module.h>

#include <pthread.h>
#include <stdlib.h>

struct conf {
        weir_redis *store;
        weir_str seen;
        int64_t every;
        weir_cell *cell;
        weir_metric *counter, *gauge, *histogram;
        weir_script *script;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, store, REDIS, WEIR_REQUIRED, NULL, "Redis."),
        WEIR_ARG(struct conf, seen, VAR, 0, "seen", "Variable."),
        WEIR_ARG(struct conf, every, TIME, 0, "20ms", "Of the periodic job."),
};

struct ctx {
        int left;
        weir_str text;
        pthread_t thread;
        weir_waiter *waiter;
        int joined;
};

static weir_rc say(weir_req *r, weir_str s)
{
        return weir->respond(r, s.p ? 200 : 500, s.p ? s : WEIR_STR("failed"));
}

/* ---- background ---- */

static weir_rc tick(weir_task *t, const void *inst, void *ctx, void *arg)
{
        const struct conf *c = inst;
        int *old = NULL;
        int n = 1 + (arg ? *(int *)arg : 0);

        (void)ctx;
        old = malloc(sizeof(*old));
        *old = n;
        weir->cell_set(c->cell, old);
        return weir->spawn(t, c->every, tick, &n, sizeof(n)) ? WEIR_ERROR : WEIR_CONTINUE;
}

static weir_err create(weir_conf *conf, void *inst)
{
        static const double bounds[] = {1, 10};
        struct conf *c = inst;

        c->cell = weir->conf_cell(conf, free);
        c->counter = weir->conf_metric(conf, WEIR_COUNTER, "calls_total{kind=\"any\"}", "Calls.",
                                       NULL, 0);
        c->gauge = weir->conf_metric(conf, WEIR_GAUGE, "level", "Level.", NULL, 0);
        c->histogram = weir->conf_metric(conf, WEIR_HISTOGRAM, "size", "Sizes.", bounds, 2);
        c->script = weir->conf_script(conf, WEIR_STR("return {KEYS[1], ARGV[1], 7}"));
        return weir->spawn(conf, c->every, tick, NULL, 0);
}

static weir_err loop_init(weir_task *t, const void *inst, void *loop)
{
        (void)t, (void)inst;
        *(int64_t *)loop = 1000;
        return WEIR_OK;
}

/* ---- waiting ---- */

static weir_rc after_timer(weir_task *r, const void *inst, void *ctx, void *arg)
{
        (void)inst, (void)ctx;
        return say(r, weir->format(r, "timer %s", (const char *)arg));
}

static void *waker(void *arg)
{
        struct ctx *x = arg;

        weir->wake(x->waiter, strdup("from a thread"));
        return NULL;
}

static weir_rc woken(weir_task *r, const void *inst, void *ctx, void *result)
{
        weir_str s = weir->dup(r, weir_bytes(result, strlen(result)));

        (void)inst, (void)ctx;
        free(result);
        return say(r, s);
}

static weir_rc one_of_two(weir_task *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        struct ctx *x = ctx;

        (void)inst;
        x->text =
                weir->format(r, "%.*s%s=%.*s;", WEIR_S(x->text), (const char *)arg, WEIR_S(v->str));
        return --x->left ? WEIR_SUSPEND : say(r, x->text);
}

static weir_rc scripted(weir_task *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        (void)inst, (void)ctx, (void)arg;
        if (v->type != WEIR_V_ARRAY || v->n != 3)
                return WEIR_ERROR;
        return say(r, weir->format(r, "%.*s %.*s %d", WEIR_S(v->elem[0]->str),
                                   WEIR_S(v->elem[1]->str), (int)v->elem[2]->integer));
}

static weir_rc redis_two(weir_req *r, const struct conf *c, struct ctx *x)
{
        x->left = 2;
        x->text = WEIR_STR("");
        weir->redis(r, c->store, one_of_two, "set",
                    WEIR_ARGV(WEIR_STR("SET"), WEIR_STR("k"), WEIR_STR("v")));
        return weir->redis(r, c->store, one_of_two, "get",
                           WEIR_ARGV(WEIR_STR("GET"), WEIR_STR("k")));
}

/* ---- at once ---- */

static void add_one(void *record, void *arg)
{
        *(int64_t *)arg = ++*(int64_t *)record;
}

static weir_rc store(weir_req *r)
{
        weir_str got = WEIR_STR("none");
        int64_t n = 0;

        if (weir->local_update(r, WEIR_STR("n"), sizeof(n), 0, add_one, &n) ||
            weir->local_set(r, WEIR_STR("text"), WEIR_STR("kept"), 0))
                return WEIR_ERROR;
        weir->local_get(r, WEIR_STR("text"), &got);
        weir->local_del(r, WEIR_STR("text"));
        return say(r, weir->format(r, "%d %.*s %d", (int)n, WEIR_S(got),
                                   weir->local_get(r, WEIR_STR("text"), &got)));
}

static weir_rc headers(weir_req *r)
{
        weir_str v = WEIR_STR("");
        weir_kv kv;
        size_t at = 0;
        int n = weir->header_get(r, WEIR_REQUEST, WEIR_STR("x-in"), &v);

        while (weir->header_at(r, WEIR_REQUEST, at, &kv) == 1)
                at++;
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("x-out"), v);
        weir->header_add(r, WEIR_RESPONSE, WEIR_STR("x-out"), WEIR_STR("2"));
        return say(r, weir->format(
                              r, "%d %.*s %s %d %d", n, WEIR_S(v), at >= 3 ? "all" : "few",
                              weir->header_set(r, WEIR_RESPONSE, WEIR_STR("content-length"), v),
                              weir->header_set(r, WEIR_RESPONSE, WEIR_STR("x"), WEIR_STR("a\nb"))));
}

static weir_rc forms(weir_req *r)
{
        const weir_value *v = weir->json_parse(r, WEIR_STR("{\"a\": [1, \"x\"]}"));
        weir_str hex = weir->encode(r, WEIR_HEX, WEIR_STR("az"));
        uint8_t md[32];

        weir->sha256(WEIR_STR("abc"), md);
        return say(r, weir->format(r, "%.*s %.*s %02x%02x %s %d", WEIR_S(hex),
                                   WEIR_S(weir->decode(r, WEIR_HEX, hex)), md[0], md[31],
                                   v && v->n == 1 ? "json" : "no json",
                                   weir->equal(WEIR_STR("a"), WEIR_STR("a"))));
}

static weir_rc observe(weir_req *r, const struct conf *c)
{
        int64_t *mine = weir->loop_data(r);
        const int *ticks = weir->cell_get(r, c->cell);

        weir->metric_add(c->counter, 2);
        weir->metric_set(c->gauge, 5);
        weir->metric_set(c->histogram, 7);
        weir->log(r, WEIR_LOG_WARN, "a line of %s", "its own");
        weir->log_fields(r, WEIR_LOG_WARN, WEIR_STR("said\nso"),
                         WEIR_KVS({WEIR_STR("plain"), WEIR_STR("/a-b:1")},
                                  {WEIR_STR("a name"), WEIR_STR("two words")},
                                  {WEIR_STR("none"), {NULL, 0}}, {WEIR_STR("empty"), WEIR_STR("")},
                                  {WEIR_STR("odd"), WEIR_STR("\"\\\n")}));
        return say(r, weir->format(r, "%d %d", mine ? (int)++*mine : 0, ticks ? *ticks : 0));
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;
        weir_str path;

        if (!weir->var_get(r, WEIR_STR("path"), &path) ||
            weir->var_set(r, c->seen, weir->format(r, "saw %.*s", WEIR_S(path))))
                return WEIR_ERROR;
        if (weir_eq(path, WEIR_STR("/timer")))
                return weir->timer(r, 200000, after_timer, "done");
        if (weir_eq(path, WEIR_STR("/redis")))
                return redis_two(r, c, x);
        if (weir_eq(path, WEIR_STR("/script")))
                return weir->redis_script(r, c->store, c->script, 1, scripted, NULL,
                                          WEIR_ARGV(WEIR_STR("key"), WEIR_STR("arg")));
        if (weir_eq(path, WEIR_STR("/thread"))) {
                weir_rc rc = weir->wait(r, woken, free, &x->waiter);
                x->joined = pthread_create(&x->thread, NULL, waker, x) == 0;
                return rc;
        }
        return weir_eq(path, WEIR_STR("/store"))     ? store(r)
               : weir_eq(path, WEIR_STR("/headers")) ? headers(r)
               : weir_eq(path, WEIR_STR("/forms"))   ? forms(r)
               : weir_eq(path, WEIR_STR("/observe")) ? observe(r, c)
                                                     : WEIR_CONTINUE;
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        (void)inst, (void)ctx;
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("x-seen"), WEIR_STR("response"));
        return WEIR_CONTINUE;
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        struct ctx *x = ctx;

        (void)r, (void)inst;
        if (x->joined)
                pthread_join(x->thread, NULL);
}

WEIR_MODULE(.name = "every_call", .version = "1", WEIR_ARGS(struct conf, args),
            .ctx_size = sizeof(struct ctx), .loop_size = sizeof(int64_t), .create = create,
            .loop_init = loop_init, .on_request = request, .on_response = response,
            .on_log = on_log);
