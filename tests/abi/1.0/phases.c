/*
 * Behaves, and asks for what it cannot have: makes each call of the host in each place where a
 * module runs, and says in the log what came of it.
 */
#include <weir/module.h>

#include <stdio.h>
#include <stdlib.h>

struct conf {
        weir_redis *store;
        weir_upstream *side;
        const weir_template *text;
        const weir_regex *pattern;
        const weir_template *with;
        weir_str mine;
        weir_cell *cell;
        weir_script *script;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, store, REDIS, WEIR_REQUIRED, NULL, "Redis."),
        WEIR_ARG(struct conf, side, UPSTREAM, WEIR_REQUIRED, NULL, "Upstream."),
        WEIR_ARG(struct conf, text, TEMPLATE, 0, "$method", "Template."),
        WEIR_ARG(struct conf, pattern, REGEX, 0, "b", "Pattern."),
        WEIR_ARG(struct conf, with, TEMPLATE, WEIR_CAPTURES, "c", "What stands for it."),
        WEIR_ARG(struct conf, mine, VAR, 0, "mine", "Variable."),
};

struct lines {
        char text[2000];
        size_t n;
};

static void say(struct lines *l, const char *call, int got)
{
        int n = snprintf(l->text + l->n, sizeof(l->text) - l->n, " %s=%d", call, got);

        l->n += n > 0 && (size_t)n < sizeof(l->text) - l->n ? (size_t)n : 0;
}

static weir_rc never(weir_task *r, const void *inst, void *ctx, void *arg)
{
        (void)r, (void)inst, (void)ctx, (void)arg;
        return WEIR_ERROR;
}

static weir_rc never_redis(weir_task *r, const void *inst, void *ctx, const weir_value *v,
                           void *arg)
{
        (void)v;
        return never(r, inst, ctx, arg);
}

static weir_rc never_http(weir_task *r, const void *inst, void *ctx, const weir_http_res *res,
                          void *arg)
{
        (void)res;
        return never(r, inst, ctx, arg);
}

static void update(void *record, void *arg)
{
        (void)arg;
        ++*(int64_t *)record;
}

#define S(lit) WEIR_STR(lit)

static void message(weir_task *t, const struct conf *c, struct lines *l)
{
        weir_str v = {NULL, 0};
        weir_kv kv;

        say(l, "var_get", weir->var_get(t, S("method"), &v));
        say(l, "var_set", weir->var_set(t, c->mine, S("x")));
        say(l, "var_del", weir->var_del(t, c->mine));
        say(l, "method", weir->var_set(t, S("method"), S("POST")));
        say(l, "status", weir->var_set(t, S("status"), S("201")));
        say(l, "upstream", weir->upstream_set(t, c->side));
        for (int32_t where = WEIR_REQUEST; where <= WEIR_RESPONSE_TRAILERS; where++) {
                say(l, "get", weir->header_get(t, where, S("x-none"), &v));
                say(l, "at", weir->header_at(t, where, 10000, &kv));
                say(l, "set", weir->header_set(t, where, S("x-set"), S("1")));
                say(l, "add", weir->header_add(t, where, S("x-set"), S("2")));
                say(l, "del", weir->header_del(t, where, S("x-set")));
        }
        say(l, "where", weir->header_set(t, 4, S("x-set"), S("1")));
}

static void others(weir_task *t, const struct conf *c, struct lines *l)
{
        weir_str v = {NULL, 0};
        weir_key *key = weir->key_new(t, S("no key"));

        say(l, "alloc", weir->alloc(t, 10) != NULL);
        say(l, "dup", weir->dup(t, S("x")).p != NULL);
        say(l, "format", weir->format(t, "%d", 1).p != NULL);
        say(l, "expand", weir->expand(t, c->text).p != NULL);
        say(l, "local_set", weir->local_set(t, S("k"), S("v"), 0));
        say(l, "local_get", weir->local_get(t, S("k"), &v));
        say(l, "local_del", weir->local_del(t, S("k")));
        say(l, "local_update", weir->local_update(t, S("u"), 8, 0, update, NULL));
        say(l, "loop_data", weir->loop_data(t) != NULL);
        say(l, "cell_get", weir->cell_get(t, c->cell) != NULL);
        say(l, "encode", weir->encode(t, WEIR_HEX, S("a")).p != NULL);
        say(l, "decode", weir->decode(t, WEIR_HEX, S("61")).p != NULL);
        say(l, "json", weir->json_write(t, weir->json_parse(t, S("[1]"))).p != NULL);
        say(l, "match", weir->regex_match(t, c->pattern, S("abc")));
        say(l, "replace", weir->regex_replace(t, c->pattern, S("abc"), c->with).p != NULL);
        say(l, "key", key != NULL);
        say(l, "time_left", weir->time_left(t) >= 0);
}

/* Where nothing may wait. */
static void operations(weir_task *t, const struct conf *c, struct lines *l)
{
        weir_waiter *w = NULL;

        say(l, "timer", weir->timer(t, 1, never, NULL));
        say(l, "redis", weir->redis(t, c->store, never_redis, NULL, WEIR_ARGV(S("PING"))));
        say(l, "script",
            weir->redis_script(t, c->store, c->script, 0, never_redis, NULL, WEIR_ARGV(S("x"))));
        say(l, "http", weir->http(t, c->side, WEIR_HTTP(.path = S("/")), never_http, NULL));
        say(l, "wait", weir->wait(t, never, NULL, &w));
        say(l, "drain", weir->body_drain(t, never, NULL));
}

static void in_create(weir_task *t, struct lines *l)
{
        say(l, "conf_name", weir->conf_name(t).p != NULL);
        say(l, "conf_metric",
            weir->conf_metric(t, WEIR_COUNTER, "late_total", "Late.", NULL, 0) != NULL);
        say(l, "conf_cell", weir->conf_cell(t, NULL) != NULL);
        say(l, "conf_script", weir->conf_script(t, S("return 1")) != NULL);
}

static void finish(weir_task *t, const char *where, const struct lines *l)
{
        weir->log(t, WEIR_LOG_INFO, "in %s:%.*s", where, (int)l->n, l->text);
}

static void all(weir_task *t, const struct conf *c, const char *where)
{
        struct lines l = {.n = 0};

        message(t, c, &l);
        others(t, c, &l);
        say(&l, "emit", weir->body_emit(t, S("e")));
        say(&l, "mode", weir->body_mode(t, WEIR_BODY_READ, 0));
        finish(t, where, &l);
}

static weir_rc work(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)ctx, (void)arg;
        all(t, inst, "work");
        return WEIR_DONE;
}

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;
        struct lines l = {.n = 0};

        c->cell = weir->conf_cell(conf, NULL);
        c->script = weir->conf_script(conf, S("return 1"));
        weir->cell_set(c->cell, c);
        all(conf, c, "create");
        operations(conf, c, &l);
        say(&l, "respond", weir->respond(conf, 200, S("x")));
        in_create(conf, &l);
        finish(conf, "create, more", &l);
        return weir->spawn(conf, 0, work, NULL, 0);
}

static weir_err loop_init(weir_task *t, const void *inst, void *loop)
{
        struct lines l = {.n = 0};

        (void)loop;
        all(t, inst, "loop_init");
        operations(t, inst, &l);
        say(&l, "respond", weir->respond(t, 200, S("x")));
        in_create(t, &l);
        finish(t, "loop_init, more", &l);
        return WEIR_OK;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        struct lines l = {.n = 0};

        (void)ctx;
        all(r, inst, "on_request");
        in_create(r, &l);
        say(&l, "drain", weir->body_drain(r, never, NULL));
        finish(r, "on_request, more", &l);
        return weir->body_mode(r, WEIR_BODY_READ, 0) ? WEIR_ERROR : WEIR_CONTINUE;
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        (void)ctx;
        all(r, inst, "on_response");
        return weir->body_mode(r, WEIR_BODY_READ, 0) ? WEIR_ERROR : WEIR_CONTINUE;
}

static weir_rc request_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        (void)ctx;
        if (chunk->flags & WEIR_CHUNK_LAST)
                all(r, inst, "on_request_body");
        return WEIR_CONTINUE;
}

static weir_rc response_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        struct lines l = {.n = 0};

        (void)ctx;
        if (chunk->flags & WEIR_CHUNK_LAST) {
                all(r, inst, "on_response_body");
                say(&l, "respond", weir->respond(r, 200, S("x")));
                finish(r, "on_response_body, more", &l);
        }
        return WEIR_CONTINUE;
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        struct lines l = {.n = 0};

        (void)ctx;
        all(r, inst, "on_log");
        operations(r, inst, &l);
        say(&l, "respond", weir->respond(r, 200, S("x")));
        in_create(r, &l);
        finish(r, "on_log, more", &l);
}

WEIR_MODULE(.name = "phases", .version = "1", WEIR_ARGS(struct conf, args),
            .loop_size = sizeof(int64_t), .create = create, .loop_init = loop_init,
            .on_request = request, .on_response = response, .on_request_body = request_body,
            .on_response_body = response_body, .on_log = on_log);
