/*
 * lua: functions written in Lua, in the configuration or in a file of their own.
 *
 *     function lua <<LUA
 *     if request.headers["x-debug"] then request.headers["x-trace"] = request.id end
 *     LUA
 *     function lua ${file:access.lua};
 *     function lua { init <<LUA ... LUA  request <<LUA ... LUA  response <<LUA ... LUA }
 *
 * The difficulty is the place of a mistake: a user sees the configuration, so the compiler is fed
 * byte by byte and where it stops is the byte that is pointed at; later errors carry the
 * configuration's file and line because the chunks are named and numbered so.
 */
#include "lua_module.h"

#include <stdio.h>

#define AS(what)                                                                                   \
        WEIR_LITERAL("as"), WEIR_ARG_AS("name", struct handle_line, as, STR, WEIR_BARE, NULL,      \
                                        "What it is called in Lua, as " what ".NAME().")

static const weir_arg redis_line[] = {
        WEIR_ARG(struct handle_line, store, REDIS, WEIR_BARE | WEIR_REQUIRED, NULL,
                 "Name of a redis block."),
        AS("redis"),
};

static const weir_arg upstream_line[] = {
        WEIR_ARG(struct handle_line, upstream, UPSTREAM, WEIR_BARE | WEIR_REQUIRED, NULL,
                 "Name of an upstream."),
        AS("http"),
};

static const weir_arg metric_line[] = {
        WEIR_ARG(struct metric_line, kind, ENUM, WEIR_VERB, NULL, "", .choices = "counter gauge"),
        WEIR_ARG(struct metric_line, name, STR, WEIR_BARE | WEIR_REQUIRED, NULL, "Its name."),
        WEIR_ARG(struct metric_line, help, STR, WEIR_BARE, "A metric of a Lua function.",
                 "What it says."),
};

static const weir_arg args[] = {
        WEIR_ARG_AS("request", struct conf, hook[HOOK_REQUEST], TEXT, WEIR_BARE, NULL,
                    "Code that runs with the head of the request."),
        WEIR_ARG_AS("response", struct conf, hook[HOOK_RESPONSE], TEXT, 0, NULL,
                    "Code that runs with the head of the response."),
        WEIR_ARG_AS("log", struct conf, hook[HOOK_LOG], TEXT, 0, NULL,
                    "Code that runs when the request is over."),
        WEIR_ARG_AS("request_body", struct conf, hook[HOOK_REQUEST_BODY], TEXT, 0, NULL,
                    "Code that gets the request's body; what it returns takes its place."),
        WEIR_ARG_AS("response_body", struct conf, hook[HOOK_RESPONSE_BODY], TEXT, 0, NULL,
                    "Code that gets the response's body; what it returns takes its place."),
        WEIR_ARG(struct conf, body, ENUM, 0, "buffer",
                 "How that code gets a body: whole (buffer), or piece by piece as it comes, to be "
                 "changed (rewrite) or only seen (read).",
                 .choices = "buffer rewrite read"),
        WEIR_ARG(struct conf, body_max, SIZE, 0, NULL,
                 "How large a body that is taken whole may be; when not given, what the route's "
                 "body "
                 "max= says.",
                 .min = 1, .max = INT64_C(1) << 30),
        WEIR_ARG(struct conf, init, TEXT, 0, NULL,
                 "Code that runs once in each state, and makes the globals that the hooks share."),
        WEIR_LINES("redis", struct conf, redis, 0, struct handle_line, redis_line,
                   WEIR_COUNT(redis_line),
                   "A redis block that redis() asks, or with `as NAME` redis.NAME()."),
        WEIR_LINES("upstream", struct conf, upstream, 0, struct handle_line, upstream_line,
                   WEIR_COUNT(upstream_line),
                   "An upstream that http() asks, or with `as NAME` http.NAME()."),
        WEIR_LIST(struct conf, variable, VAR, 0, NULL,
                  "A variable that the code sets: NAME is $lua_NAME."),
        WEIR_LINES("counter", struct conf, metrics, 0, struct metric_line, metric_line,
                   WEIR_COUNT(metric_line),
                   "A counter for metric.add(), exported as weir_lua_NAME."),
        WEIR_LINES("gauge", struct conf, metrics, 0, struct metric_line, metric_line,
                   WEIR_COUNT(metric_line),
                   "A gauge for metric.add() and metric.set(), exported as weir_lua_NAME."),
        WEIR_ARG(struct conf, instructions, INT, 0, "1000000",
                 "How many instructions of Lua a hook may take before it is interrupted; not "
                 "counted "
                 "with `jit on`.",
                 .min = 10000, .max = INT64_C(1000000000000)),
        WEIR_ARG(struct conf, state_memory, SIZE, 0, "16m",
                 "How much memory the function may hold on each thread.", .min = INT64_C(262144),
                 .max = INT64_C(1) << 30),
        WEIR_ARG(struct conf, jit, BOOL, 0, "off",
                 "Compile to machine code: faster loops, but only the watchdog ends an endless "
                 "one."),
};

/* ------------------------------------------------------------------ create */

static int is_name(weir_str s)
{
        for (size_t i = 0; i < s.n; i++) {
                char l = (char)(s.p[i] | 32);
                if (!(l >= 'a' && l <= 'z') && s.p[i] != '_' &&
                    !(i > 0 && s.p[i] >= '0' && s.p[i] <= '9'))
                        return 0;
        }
        return s.n > 0;
}

/* what: "redis STORE", called call in Lua. */
static weir_err check_names(weir_conf *t, weir_list lines, const char *what, const char *call)
{
        weir_err err = WEIR_OK;

        WEIR_EACH (struct handle_line, line, lines) {
                if (line->as.p != NULL && !is_name(line->as))
                        err = weir->conf_error(t, &line->as, "\"%.*s\" is not a name in Lua",
                                               WEIR_S(line->as));
                WEIR_EACH (struct handle_line, other, lines) {
                        if (other == line)
                                break;
                        if (line->as.p == NULL && other->as.p == NULL)
                                err = weir->conf_error(
                                        t, line, "a second one needs a name: %s as NAME;", what);
                        else if (weir_eq(line->as, other->as))
                                err = weir->conf_error(t, &line->as, "%s.%.*s exists already", call,
                                                       WEIR_S(line->as));
                }
        }
        return err;
}

static weir_err make_metrics(weir_conf *t, struct conf *c)
{
        static const int32_t kinds[] = {WEIR_COUNTER, WEIR_GAUGE};
        static const char help[] = "Calls of Lua functions that a limit ended.";
        weir_err err = WEIR_OK;

        c->interrupted = weir->conf_metric(t, WEIR_COUNTER, "limited_total{limit=\"instructions\"}",
                                           help, NULL, 0);
        c->exhausted = weir->conf_metric(t, WEIR_COUNTER, "limited_total{limit=\"state_memory\"}",
                                         help, NULL, 0);
        WEIR_EACH (struct metric_line, line, c->metrics) {
                struct metric_line *own = (struct metric_line *)(uintptr_t)line; /* create's */
                if (!is_name(line->name) || weir_eq(line->name, WEIR_STR("limited_total"))) {
                        err = weir->conf_error(t, &line->name,
                                               "\"%.*s\" is not the name of a metric",
                                               WEIR_S(line->name));
                        continue;
                }
                WEIR_EACH (struct metric_line, other, c->metrics) {
                        if (other == line)
                                break;
                        if (weir_eq(other->name, line->name))
                                err = weir->conf_error(t, &line->name, "metric %.*s exists already",
                                                       WEIR_S(line->name));
                }
                own->metric = weir->conf_metric(
                        t, kinds[line->kind], weir->format(t, "%.*s", WEIR_S(line->name)).p,
                        weir->format(t, "%.*s", WEIR_S(line->help)).p, NULL, 0);
        }
        return err;
}

static weir_err check_text(weir_conf *t, lua_State *L, const weir_text *text)
{
        const char *at, *said, *message;

        if (text->text.p == NULL || state_load(L, text, &at) == 0)
                return WEIR_OK;
        /* "FILE:LINE: what": the place is said by weir. */
        said = lua_tostring(L, -1);
        for (message = said; *message != '\0'; message++)
                if (message[0] == ':' && message[1] >= '0' && message[1] <= '9') {
                        const char *p = message + 1 + strspn(message + 1, "0123456789");
                        if (p[0] == ':' && p[1] == ' ') {
                                said = p + 2;
                                break;
                        }
                }
        return weir->conf_error(t, at, "%s", said);
}

static weir_err compile(weir_conf *t, const struct conf *c)
{
        lua_State *L = luaL_newstate();
        weir_err err, all = WEIR_OK;

        if (L == NULL)
                return WEIR_E_NOMEM;
        for (int h = -1; h < HOOKS; h++) {
                err = check_text(t, L, h < 0 ? &c->init : &c->hook[h]);
                if (err != WEIR_OK)
                        all = err;
        }
        lua_close(L);
        return all;
}

static weir_err create(weir_conf *t, void *inst)
{
        struct conf *c = inst;
        struct state *s;
        char why[512];
        weir_err steps[4];
        int any = 0;

        for (int h = 0; h < HOOKS; h++)
                any = any || c->hook[h].text.p != NULL;
        if (!any)
                return weir->conf_error(
                        t, NULL,
                        "there is no code: request, response, request_body, response_body or log");
        steps[0] = check_names(t, c->redis, "redis STORE", "redis");
        steps[1] = check_names(t, c->upstream, "upstream NAME", "http");
        steps[2] = make_metrics(t, c);
        steps[3] = compile(t, c);
        for (size_t i = 0; i < WEIR_COUNT(steps); i++)
                if (steps[i] != WEIR_OK)
                        return steps[i];
        s = state_new(c, t, why, sizeof(why));
        if (s == NULL)
                return weir->conf_error(t, c->init.text.p ? (const void *)c->init.text.p : NULL,
                                        "init: %s", why);
        state_close(s);
        return WEIR_OK;
}

/* ------------------------------------------------------------------ loops, hooks */

static weir_err loop_init(weir_task *t, const void *inst, void *loop)
{
        struct part *p = loop;
        char why[512];

        p->state = state_new(inst, t, why, sizeof(why));
        if (p->state != NULL)
                return WEIR_OK;
        weir->log(t, WEIR_LOG_ERROR, "init: %s", why);
        return WEIR_E_UNAVAIL;
}

static void loop_fini(const void *inst, void *loop)
{
        struct part *p = loop;

        (void)inst;
        if (p->state != NULL)
                state_close(p->state);
}

static inline weir_rc hook(weir_req *r, const void *inst, void *ctx, enum hook h,
                           const weir_chunk *chunk)
{
        const struct conf *c = inst;
        struct call *x = &((struct ctx *)ctx)->of[h >= HOOK_RESPONSE];

        if (x->state != NULL) /* its hook before took longer than timeout= */
                state_drop(x);
        if (c->hook[h].text.p == NULL)
                return WEIR_CONTINUE;
        return state_begin(c, r, x, h, chunk);
}

/* A head's hook: the code for the body is to get it, unless the code for the head says otherwise.
 */
static inline weir_rc head(weir_req *r, const void *inst, void *ctx, enum hook h, enum hook body)
{
        static const int32_t modes[] = {WEIR_BODY_BUFFER, WEIR_BODY_REWRITE, WEIR_BODY_READ};
        const struct conf *c = inst;

        if (c->hook[body].text.p != NULL &&
            weir->body_mode(r, modes[c->body], (uint64_t)c->body_max) != WEIR_OK)
                return WEIR_ERROR;
        return hook(r, inst, ctx, h, NULL);
}

static weir_rc on_request(weir_req *r, const void *inst, void *ctx)
{
        return head(r, inst, ctx, HOOK_REQUEST, HOOK_REQUEST_BODY);
}

static weir_rc on_response(weir_req *r, const void *inst, void *ctx)
{
        return head(r, inst, ctx, HOOK_RESPONSE, HOOK_RESPONSE_BODY);
}

static weir_rc on_request_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        return hook(r, inst, ctx, HOOK_REQUEST_BODY, chunk);
}

static weir_rc on_response_body(weir_req *r, const void *inst, void *ctx, const weir_chunk *chunk)
{
        return hook(r, inst, ctx, HOOK_RESPONSE_BODY, chunk);
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        struct call *asked = &((struct ctx *)ctx)->of[WEIR_REQUEST];

        if (asked->state != NULL)
                state_drop(asked);
        hook(r, inst, ctx, HOOK_LOG, NULL);
}

/* ------------------------------------------------------------------ cases */

#define GET(fields)  "GET /a?k=v HTTP/1.1\nhost: a\n" fields "\n"
#define REQUEST(lua) "{ redis main; request \"" lua "\"; }"
static const weir_case cases[] = {
        {.name = "fields",
         .config = REQUEST("if request.headers['x-debug'] then "
                           "request.headers['x-trace'] = request.method .. request.path end "
                           "request.headers['x-gone'] = nil"),
         .request = GET("x-debug: 1\nx-gone: 1\n"),
         .expect = "continue\nreq x-trace: GET/a\nreq -x-gone"},
        {.name = "an answer",
         .config = REQUEST("return respond(403, 'no', {['X-Why'] = request.args.k})"),
         .request = GET(""),
         .expect = "respond 403\nbody no\nres x-why: v"},
        {.name = "the response",
         .config = "{ response \"response.headers['x-status'] = response.status\"; }",
         .request = GET(""),
         .upstream = "HTTP/1.1 404 Not Found\n\n",
         .expect = "continue\nres x-status: 404"},
        {.name = "redis answers",
         .config = REQUEST("request.headers['x-user'] = redis('GET', 'k')"),
         .request = GET(""),
         .redis = "$alice",
         .expect = "continue\nreq x-user: alice\nredis GET k"},
        {.name = "redis is away: an error, unless it is caught",
         .config = REQUEST("if request.headers.x then pcall(redis, 'GET', 'k') "
                           "else redis('GET', 'k') end"),
         .request = GET("") "--\n" GET("x: 1\n"),
         .redis = "!\n!",
         .expect = "error\n--\ncontinue"},
        {.name = "a request of its own",
         .config = "{ upstream main; request \"local a = http({ path = '/check', headers = { x = 1 "
                   "} }) "
                   "if a.status ~= 204 then respond(a.status, a.body) end\"; }",
         .request = GET("") "--\n" GET(""),
         .http = "HTTP/1.1 204 No Content\n\n--\nHTTP/1.1 402 Payment Required\n\npay",
         .expect = "continue\nhttp GET /check\nhttp x: 1\n--\nrespond 402\nbody pay"},
        {.name = "bodies",
         .config = "{ request_body \"local s = ... return #s > 0 and s:upper() or nil\"; "
                   "response_body \"return (...):reverse()\"; }",
         .request = "POST / HTTP/1.1\nhost: a\ncontent-length: 3\n\nabc",
         .upstream = "HTTP/1.1 200 OK\ncontent-length: 3\n\nxyz",
         .expect = "continue\nreq body ABC\nbody zyx"},
        {.name = "sleep",
         .config = REQUEST("sleep(0.5) request.headers.x = '1'"),
         .request = GET(""),
         .expect = "continue\nreq x: 1"},
        {.name = "an error",
         .config = REQUEST("local a = nil; a.b = 1"),
         .request = GET(""),
         .expect = "error"},
        {.name = "an endless loop ends",
         .config = "{ instructions 10000; request \"while true do pcall(function() while true do "
                   "end end) end\"; }",
         .request = GET(""),
         .expect = "error"},
};

WEIR_MODULE(.name = "lua", .version = "1.0", WEIR_ARGS(struct conf, args), WEIR_CASES(cases),
            .ctx_size = sizeof(struct ctx), .loop_size = sizeof(struct part), .create = create,
            .loop_init = loop_init, .loop_fini = loop_fini, .on_request = on_request,
            .on_response = on_response, .on_log = on_log, .on_request_body = on_request_body,
            .on_response_body = on_response_body);
