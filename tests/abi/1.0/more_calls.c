/* Behaves: like every_call, for the calls that it leaves out. */
#include <weir/module.h>

struct conf {
        weir_redis *store;
        weir_upstream *other;
        const weir_template *text, *with;
        const weir_regex *pattern;
        weir_str mine;
        int32_t refuse;
        weir_metric *ticks, *logged;
        weir_str name;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, store, REDIS, WEIR_REQUIRED, NULL, "Redis."),
        WEIR_ARG(struct conf, other, UPSTREAM, WEIR_REQUIRED, NULL, "Upstream."),
        WEIR_ARG(struct conf, text, TEMPLATE, 0, "$client_ip $arg_q", "Template."),
        WEIR_ARG(struct conf, pattern, REGEX, 0, "(b+)(?<last>.)", "Pattern."),
        WEIR_ARG(struct conf, with, TEMPLATE, WEIR_CAPTURES, "<$1-$last>", "What stands for it."),
        WEIR_ARG(struct conf, mine, VAR, 0, "mine", "Variable."),
        WEIR_ARG(struct conf, refuse, BOOL, 0, "off", "Be refused."),
};

#define COMMANDS 7
struct ctx {
        int left;
        weir_str said[COMMANDS];
};

static weir_rc say(weir_req *r, weir_str s)
{
        return weir->respond(r, s.p ? 200 : 500, s.p ? s : WEIR_STR("failed"));
}

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;

        if (c->refuse)
                return weir->conf_error(conf, &c->refuse, "as you wish");
        c->name = weir->conf_name(conf);
        c->ticks = weir->conf_metric(conf, WEIR_COUNTER, "ticks_total", "Ticks.", NULL, 0);
        c->logged = weir->conf_metric(conf, WEIR_COUNTER, "logged_total", "Ends.", NULL, 0);
        return WEIR_OK;
}

/* ---- background work of each loop: asks Redis, waits, and goes on */

static weir_rc tick(weir_task *t, const void *inst, void *ctx, void *arg);

static weir_rc waited(weir_task *t, const void *inst, void *ctx, void *arg)
{
        const struct conf *c = inst;

        (void)ctx, (void)arg;
        ++*(int64_t *)weir->loop_data(t);
        weir->metric_add(c->ticks, 1);
        return weir->spawn(t, 10000, tick, NULL, 0) ? WEIR_ERROR : WEIR_DONE;
}

static weir_rc ponged(weir_task *t, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        (void)inst, (void)ctx, (void)arg;
        return v->type == WEIR_V_STRING ? weir->timer(t, 5000, waited, NULL) : WEIR_ERROR;
}

static weir_rc tick(weir_task *t, const void *inst, void *ctx, void *arg)
{
        const struct conf *c = inst;

        (void)ctx, (void)arg;
        return weir->redis(t, c->store, ponged, NULL, WEIR_ARGV(WEIR_STR("PING")));
}

static weir_err loop_init(weir_task *t, const void *inst, void *loop)
{
        (void)inst, (void)loop;
        return weir->spawn(t, 0, tick, NULL, 0);
}

/* ---- any command, typed */

static weir_rc typed(weir_task *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        struct ctx *x = ctx;
        weir_str *said = arg, all = WEIR_STR("");

        (void)inst;
        *said = weir->format(
                r, "%d %.*s\n", v->type,
                WEIR_S(v->type == WEIR_V_ERROR ? weir_bytes(v->str.p, 3) : weir->json_write(r, v)));
        if (--x->left > 0)
                return WEIR_SUSPEND;
        for (int i = 0; i < COMMANDS; i++)
                all = weir->format(r, "%.*s%.*s", WEIR_S(all), WEIR_S(x->said[i]));
        return say(r, all);
}

#define ASK(...) weir->redis(r, c->store, typed, &x->said[x->left++], WEIR_ARGV(__VA_ARGS__))
#define W(s)     WEIR_STR(s)

static weir_rc commands(weir_req *r, const struct conf *c, struct ctx *x)
{
        ASK(W("PING"));
        ASK(W("DEL"), W("none"));
        ASK(W("GET"), W("none"));
        ASK(W("SET"), W("bytes"), weir_bytes("a\0\xff", 3));
        ASK(W("STRLEN"), W("bytes"));
        ASK(W("NONSENSE"));
        return ASK(W("EVAL"), W("return {1, {'a', {}}, false, 'b'}"), W("0"));
}

/* ---- at once */

static weir_str value(weir_req *r, const char *name)
{
        weir_str v = WEIR_STR("-");

        weir->var_get(r, weir->format(r, "%s", name), &v);
        return v;
}

static weir_rc variables(weir_req *r, const struct conf *c)
{
        weir_err set = weir->var_set(r, c->mine, W("own")),
                 foreign = weir->var_set(r, W("client_ip"), W("x"));
        weir_str own = value(r, "more_calls_mine");
        weir_err gone = weir->var_del(r, c->mine), again = weir->var_del(r, c->mine);

        return say(r, weir->format(r, "%.*s %.*s %.*s %.*s %.*s %.*s %.*s %.*s %d %d %d %d %.*s",
                                   WEIR_S(value(r, "method")), WEIR_S(value(r, "host")),
                                   WEIR_S(value(r, "uri")), WEIR_S(value(r, "query")),
                                   WEIR_S(value(r, "arg_q")), WEIR_S(value(r, "cookie_s")),
                                   WEIR_S(value(r, "header_x_in")), WEIR_S(own), set, foreign, gone,
                                   again, WEIR_S(value(r, "more_calls_mine"))));
}

static weir_rc peer(weir_req *r)
{
        return say(r, weir->format(r, "%.*s %s %.*s %.*s %.*s %s", WEIR_S(value(r, "client_ip")),
                                   value(r, "client_port").n > 1 ? "port" : "none",
                                   WEIR_S(value(r, "scheme")), WEIR_S(value(r, "tls_version")),
                                   WEIR_S(value(r, "tls_sni")),
                                   value(r, "tls_cipher").n > 1 ? "cipher" : "none"));
}

/* What the server sees of it is looked at there. */
static weir_rc change(weir_req *r)
{
        return weir->var_set(r, W("uri"), W("/new?x=1")) || weir->var_del(r, W("arg_x")) ||
                               weir->var_set(r, W("arg_y"), W("a b&c")) ||
                               weir->var_set(r, W("method"), W("PUT")) ||
                               weir->var_set(r, W("host"), W("h.example")) ||
                               weir->header_del(r, WEIR_REQUEST, W("x-in")) != 1
                       ? WEIR_ERROR
                       : WEIR_CONTINUE;
}

static weir_rc texts(weir_req *r, const struct conf *c)
{
        weir_str s = W("abbcbd");

        return say(r, weir->format(
                              r, "%.*s|%d%d|%.*s|%.*s|%.*s", WEIR_S(weir->expand(r, c->text)),
                              weir->regex_match(r, c->pattern, s),
                              weir->regex_match(r, c->pattern, W("xyz")),
                              WEIR_S(weir->regex_replace(r, c->pattern, s, c->with)),
                              WEIR_S(weir->dup(r, c->name)),
                              WEIR_S(weir->json_write(
                                      r, weir->json_parse(r, W("{\"a\": [1.5, \"\\u00e4\"]}"))))));
}

static weir_rc digests(weir_req *r)
{
        weir_str b64 = weir->encode(r, WEIR_BASE64, weir_bytes("\xfb\xff", 2));
        weir_str url = weir->encode(r, WEIR_BASE64URL, weir_bytes("\xfb\xff", 2));
        uint8_t md[32], *zeroed = weir->alloc(r, 100), one[16], two[16];

        weir->hmac_sha256(W("key"), W("The quick brown fox jumps over the lazy dog"), md);
        weir->random(one, sizeof(one));
        weir->random(two, sizeof(two));
        return say(r,
                   weir->format(r, "%.*s %.*s %d %.*s %.*s %02x%02x %d %d %d", WEIR_S(b64),
                                WEIR_S(url), (int)weir->decode(r, WEIR_BASE64, b64).n,
                                WEIR_S(weir->encode(r, WEIR_PERCENT, W("a b"))),
                                WEIR_S(weir->encode(r, WEIR_JSON, W("\"\n"))), md[0], md[31],
                                zeroed != NULL && zeroed[99] == 0,
                                memcmp(one, two, sizeof(one)) != 0, weir->equal(W("a"), W("b"))));
}

static weir_rc keys(weir_req *r)
{
        static const char secret[] = "0123456789abcdef0123456789abcdef";
        weir_str raw = weir_bytes(secret, 32), said;
        weir_key *key =
                weir->key_new(r, weir->format(r, "{\"kty\":\"oct\",\"k\":\"%.*s\"}",
                                              WEIR_S(weir->encode(r, WEIR_BASE64URL, raw))));
        uint8_t mac[32];

        if (key == NULL)
                return WEIR_ERROR;
        weir->hmac_sha256(raw, W("data"), mac);
        said = weir->format(r, "%d %d %d %d",
                            weir->key_verify(key, W("HS256"), W("data"), weir_bytes(mac, 32)),
                            weir->key_verify(key, W("HS256"), W("other"), weir_bytes(mac, 32)),
                            weir->key_verify(key, W("RS256"), W("data"), weir_bytes(mac, 32)),
                            weir->key_new(r, W("{\"kty\":\"none\"}")) != NULL);
        weir->key_free(key);
        return say(r, said);
}

static weir_rc clocks(weir_req *r)
{
        int64_t left = weir->time_left(r);

        return say(r, weir->format(r, "%lld %lld %d", (long long)weir->now_us(),
                                   (long long)weir->wall_us(), left > 0 && left <= 10000));
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        weir_str path = value(r, "path");

        if (weir_eq(path, W("/commands")))
                return commands(r, c, ctx);
        if (weir_eq(path, W("/other")))
                return weir->upstream_set(r, c->other) ? WEIR_ERROR : WEIR_CONTINUE;
        if (weir_eq(path, W("/named")))
                return weir->var_set(r, W("upstream"), W("other")) ||
                                       weir->var_set(r, W("upstream"), W("nobody")) != WEIR_E_NOENT
                               ? WEIR_ERROR
                               : WEIR_CONTINUE;
        return weir_eq(path, W("/variables")) ? variables(r, c)
               : weir_eq(path, W("/peer"))    ? peer(r)
               : weir_eq(path, W("/change"))  ? change(r)
               : weir_eq(path, W("/texts"))   ? texts(r, c)
               : weir_eq(path, W("/digests")) ? digests(r)
               : weir_eq(path, W("/keys"))    ? keys(r)
               : weir_eq(path, W("/clocks"))  ? clocks(r)
                                              : WEIR_CONTINUE;
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        (void)inst, (void)ctx;
        if (weir_eq(value(r, "path"), W("/status")))
                return weir->var_set(r, W("status"), W("202")) ? WEIR_ERROR : WEIR_CONTINUE;
        return weir->header_del(r, WEIR_RESPONSE, W("x-server")) < 0 ? WEIR_ERROR : WEIR_CONTINUE;
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;

        (void)ctx;
        if (!weir_eq(value(r, "status"), W("-")) &&
            weir->header_get(r, WEIR_REQUEST, W("x-in"), NULL) >= 0)
                weir->metric_add(c->logged, 1);
}

WEIR_MODULE(.name = "more_calls", .version = "1", WEIR_ARGS(struct conf, args),
            .ctx_size = sizeof(struct ctx), .loop_size = sizeof(int64_t), .create = create,
            .loop_init = loop_init, .on_request = request, .on_response = response,
            .on_log = on_log);
