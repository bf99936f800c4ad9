/*
 * Behaves badly: takes memory by the call that the query names (by=) until that is refused, and
 * fails.  got is how much it had; refused counts requests of which one call was refused.
 */
#include <weir/module.h>

struct conf {
        weir_redis *store;
        const weir_template *text;
        const weir_regex *pattern;
        const weir_template *with;
        weir_metric *got, *refused;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, store, REDIS, 0, NULL, "Redis."),
        WEIR_ARG(struct conf, text, TEMPLATE, 0, "and $header_x_long", "Template."),
        WEIR_ARG(struct conf, pattern, REGEX, 0, "a{100}", "Pattern."),
        WEIR_ARG(struct conf, with, TEMPLATE, WEIR_CAPTURES, "bb", "What stands for it."),
};

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;

        c->got = weir->conf_metric(conf, WEIR_GAUGE, "got", "Bytes.", NULL, 0);
        c->refused = weir->conf_metric(conf, WEIR_COUNTER, "refused_total", "Refused.", NULL, 0);
        return WEIR_OK;
}

static weir_rc replied(weir_task *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        const struct conf *c = inst;
        double *all = ctx;

        (void)arg;
        if (v->type == WEIR_V_STRING) {
                *all += (double)v->str.n;
                weir->metric_set(c->got, *all);
                return weir->redis(r, c->store, replied, NULL,
                                   WEIR_ARGV(WEIR_STR("GET"), WEIR_STR("large")));
        }
        weir->metric_add(c->refused, v->type == WEIR_V_FAIL && v->integer == WEIR_E_NOMEM);
        return WEIR_ERROR;
}

static weir_rc never(weir_task *r, const void *inst, void *ctx, void *arg)
{
        (void)r, (void)inst, (void)ctx, (void)arg;
        return WEIR_ERROR;
}

/* One call; how much that has taken, 0 if it was refused. */
static size_t take(weir_req *r, const struct conf *c, weir_str by, weir_str text)
{
        const weir_value *v;
        weir_str got = {NULL, 0};

        if (weir_eq(by, WEIR_STR("alloc")))
                return weir->alloc(r, 1024) ? 1024 : 0;
        if (weir_eq(by, WEIR_STR("timer")))
                return weir->timer(r, 3600 * INT64_C(1000000), never, NULL) == WEIR_SUSPEND ? 64
                                                                                            : 0;
        if (weir_eq(by, WEIR_STR("json"))) {
                v = weir->json_parse(r, WEIR_STR("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]"));
                return v ? 16 * sizeof(weir_value) : 0;
        }
        if (weir_eq(by, WEIR_STR("variable")))
                weir->var_get(r, WEIR_STR("arg_long"), &got);
        else if (weir_eq(by, WEIR_STR("local")))
                weir->local_get(r, WEIR_STR("text"), &got);
        else
                got = weir_eq(by, WEIR_STR("dup"))      ? weir->dup(r, text)
                      : weir_eq(by, WEIR_STR("format")) ? weir->format(r, "%.*s", WEIR_S(text))
                      : weir_eq(by, WEIR_STR("encode")) ? weir->encode(r, WEIR_HEX, text)
                      : weir_eq(by, WEIR_STR("decode")) ? weir->decode(r, WEIR_HEX, text)
                      : weir_eq(by, WEIR_STR("expand"))
                              ? weir->expand(r, c->text)
                              : weir->regex_replace(r, c->pattern, text, c->with);
        return got.p ? got.n : 0;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        weir_str by = {NULL, 0};
        char bytes[1000] = "";
        weir_str text = weir_bytes(bytes, sizeof(bytes));
        double *all = ctx;
        size_t n;

        memset(bytes, 'a', sizeof(bytes));
        if (!weir->var_get(r, WEIR_STR("arg_by"), &by))
                return WEIR_CONTINUE;
        if (weir_eq(by, WEIR_STR("redis")))
                return weir->redis(r, c->store, replied, NULL,
                                   WEIR_ARGV(WEIR_STR("GET"), WEIR_STR("large")));
        weir->local_set(r, WEIR_STR("text"), text, 0);
        while (*all < 1e8 && (n = take(r, c, by, text)) > 0)
                *all += (double)n;
        weir->metric_set(c->got, *all);
        weir->metric_add(c->refused, 1);
        return WEIR_ERROR;
}

WEIR_MODULE(.name = "hungry", .version = "1", WEIR_ARGS(struct conf, args),
            .ctx_size = sizeof(double), .create = create, .on_request = request);
