/*
 * auth_request: asks a server of yours whether a request may pass.
 *
 *     function auth_request {
 *         upstream auth;
 *         path /check;
 *         pass Authorization Cookie;
 *         set X-Route $route;
 *         copy X-User as X-User;
 *         variable X-Role as role;
 *         cache 30s;
 *         key $header_authorization;
 *     }
 *
 * 2xx lets it pass, 401 and 403 go to the client, and all else is an error, for on_error to decide.
 *
 * The difficulty is who may say what.  What a client says about itself in fields that this function
 * or a proxy fills in must reach neither the server that is asked nor the one behind, whatever
 * becomes of the question: so those are taken off before it is asked.
 */
#include <weir/module.h>

struct take { /* a field of the answer, and where it goes */
        int32_t verb;
        weir_str from, to;
};
enum { COPY, VARIABLE };
struct set {
        weir_str name;
        const weir_template *value;
};
enum { ALLOWED, CACHED, DENIED, FAILED, RESULTS };

struct conf {
        weir_upstream *upstream;
        const weir_template *path, *key;
        weir_str method;
        weir_list pass, sets, takes;
        int32_t body;
        int64_t cache;
        /* worked out by create */
        weir_str context; /* of what is remembered: by other lines it means something else */
        weir_metric *metric[RESULTS];
};

static const weir_arg set_line[] = {
        WEIR_ARG(struct set, name, FIELD, WEIR_BARE | WEIR_REQUIRED, NULL, "Field name."),
        WEIR_ARG(struct set, value, TEMPLATE, WEIR_BARE | WEIR_REQUIRED, NULL, "Its value."),
};
#define VERB WEIR_ARG(struct take, verb, ENUM, WEIR_VERB, NULL, "", .choices = "copy variable")
#define FROM                                                                                       \
        WEIR_ARG(struct take, from, FIELD, WEIR_BARE | WEIR_REQUIRED, NULL,                        \
                 "Field of the answer."),                                                          \
                WEIR_LITERAL("as")
static const weir_arg copy_line[] = {
        VERB,
        FROM,
        WEIR_ARG(struct take, to, FIELD, WEIR_BARE | WEIR_REQUIRED, NULL, "Field of the request."),
};
static const weir_arg variable_line[] = {
        VERB,
        FROM,
        WEIR_ARG(struct take, to, VAR, WEIR_BARE | WEIR_REQUIRED, NULL, "Name of the variable."),
};
static const weir_arg args[] = {
        WEIR_ARG(struct conf, upstream, UPSTREAM, WEIR_REQUIRED, NULL, "Who is asked."),
        WEIR_ARG(struct conf, path, TEMPLATE, 0, "$uri", "The path it is asked for."),
        WEIR_ARG(struct conf, method, STR, 0, "GET", "The method."),
        WEIR_LIST(struct conf, pass, FIELD, 0, NULL,
                  "Fields of the request that it is told; when not given, all but those of the "
                  "body, of conditions, and of proxies before."),
        WEIR_LINES("set", struct conf, sets, 0, struct set, set_line, 2,
                   "Tells it a field of your own."),
        WEIR_LINES("copy", struct conf, takes, 0, struct take, copy_line, 4,
                   "A field of its answer that the request gets; what the client sent under that "
                   "name is removed."),
        WEIR_LINES("variable", struct conf, takes, 0, struct take, variable_line, 4,
                   "A field of its answer that becomes the variable $auth_request_NAME."),
        WEIR_ARG(struct conf, body, BOOL, 0, "off",
                 "Whether the body of a 401 or 403 goes to the client too."),
        WEIR_ARG(struct conf, cache, TIME, 0, "0s",
                 "How long a yes is believed; needs key.  0s: it is asked each time."),
        WEIR_ARG(struct conf, key, TEMPLATE, 0, NULL,
                 "What a yes is remembered under: all that the answer depends on.  Requests whose "
                 "key is empty are asked for each time."),
};

/* A question under way. */
struct ctx {
        weir_str key; /* in the local store; absent: not to be remembered */
};

static weir_str context_of(weir_conf *conf, const struct conf *c)
{
        weir_str s = weir->conf_name(conf);

        WEIR_EACH (struct take, t, c->takes)
                s = weir->format(conf, "%.*s;%d %.*s %.*s", WEIR_S(s), t->verb, WEIR_S(t->from),
                                 WEIR_S(t->to));
        return s;
}

static int is_method(weir_str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!(s.p[i] >= 'A' && s.p[i] <= 'Z') && s.p[i] != '-' && s.p[i] != '_')
                        return 0;
        return s.n != 0 && !weir_eq(s, WEIR_STR("CONNECT"));
}

static weir_err create(weir_conf *conf, void *inst)
{
        static const char *const names[RESULTS] = {
                "total{result=\"allowed\"}",
                "total{result=\"cached\"}",
                "total{result=\"denied\"}",
                "total{result=\"error\"}",
        };
        struct conf *c = inst;

        if (!is_method(c->method))
                return weir->conf_error(conf, &c->method, "%.*s is no method", WEIR_S(c->method));
        if (c->cache != 0 && c->key == NULL)
                return weir->conf_error(conf, &c->cache,
                                        "cache needs key: what the answer depends on");
        if (c->cache == 0 && c->key != NULL)
                return weir->conf_error(conf, &c->key, "key has no effect without cache");
        c->context = context_of(conf, c);
        for (int i = 0; i < RESULTS; i++)
                c->metric[i] = weir->conf_metric(conf, WEIR_COUNTER, names[i],
                                                 "Requests that were asked about.", NULL, 0);
        return WEIR_OK;
}

static weir_rc fail(weir_req *r, const struct conf *c, weir_str why)
{
        weir->metric_add(c->metric[FAILED], 1);
        weir->log(r, WEIR_LOG_WARN, "%.*s", WEIR_S(why));
        return WEIR_ERROR;
}

/* ------------------------------------------------------------------ what it is told */

/* Not of the request but of its body, its conditions, this connection, or told by proxies. */
static int withheld(weir_str name)
{
        static const char *const names[] = {
                "host",
                "connection",
                "keep-alive",
                "proxy-connection",
                "te",
                "trailer",
                "transfer-encoding",
                "upgrade",
                "http2-settings",
                "expect",
                "content-length",
                "content-encoding",
                "content-range",
                "content-type",
                "accept-encoding",
                "if-match",
                "if-none-match",
                "if-modified-since",
                "if-range",
                "if-unmodified-since",
                "range",
                "forwarded",
                "x-real-ip",
                "client-cert",
                "via",
                "client-cert-chain",
                "early-data",
        };
        static const char *const families[] = {"x-forwarded-", "x-original-"};

        for (size_t i = 0; i < WEIR_COUNT(names); i++)
                if (weir_eq_icase(name, weir_bytes(names[i], strlen(names[i]))))
                        return 1;
        for (size_t i = 0; i < WEIR_COUNT(families); i++) {
                size_t n = strlen(families[i]);
                if (name.n > n && weir_eq_icase(weir_bytes(name.p, n), weir_bytes(families[i], n)))
                        return 1;
        }
        return 0;
}

static int passes(const struct conf *c, weir_str name)
{
        WEIR_EACH (weir_str, one, c->pass) {
                if (weir_eq_icase(*one, name))
                        return 1;
        }
        return c->pass.n == 0 && !withheld(name);
}

static weir_str variable(weir_req *r, weir_str name)
{
        weir_str v = {NULL, 0};

        weir->var_get(r, name, &v);
        return v;
}

static int is_set(const struct conf *c, weir_str name)
{
        WEIR_EACH (struct set, s, c->sets) {
                if (weir_eq_icase(s->name, name))
                        return 1;
        }
        return 0;
}

/* The fields it is told, *n of them; NULL: there is no room. */
static weir_kv *told(weir_req *r, const struct conf *c, size_t *n)
{
        const weir_kv own[] = {
                {WEIR_STR("X-Original-URI"), variable(r, WEIR_STR("uri"))},
                {WEIR_STR("X-Original-Method"), variable(r, WEIR_STR("method"))},
                {WEIR_STR("X-Forwarded-For"), variable(r, WEIR_STR("client_ip"))},
                {WEIR_STR("X-Forwarded-Proto"), variable(r, WEIR_STR("scheme"))},
                {WEIR_STR("X-Forwarded-Host"), variable(r, WEIR_STR("host"))},
        };
        size_t most = 0;
        weir_kv kv, *v;

        while (weir->header_at(r, WEIR_REQUEST, most, &kv) == 1)
                most++;
        most += WEIR_COUNT(own) + c->sets.n;
        v = weir->alloc(r, most * sizeof(*v));
        if (v == NULL)
                return NULL;
        *n = 0;
        for (size_t i = 0; weir->header_at(r, WEIR_REQUEST, i, &kv) == 1; i++)
                if (passes(c, kv.name) && !is_set(c, kv.name))
                        v[(*n)++] = kv;
        for (size_t i = 0; i < WEIR_COUNT(own); i++)
                if (own[i].value.p != NULL && !is_set(c, own[i].name))
                        v[(*n)++] = own[i];
        WEIR_EACH (struct set, s, c->sets) {
                v[*n] = (weir_kv){s->name, weir->expand(r, s->value)};
                if (v[*n].value.p == NULL)
                        return NULL;
                *n += v[*n].value.n != 0;
        }
        return v;
}

/* ------------------------------------------------------------------ what it says */

/* What the client says under a name that the answer fills in counts for nothing. */
static weir_rc take_off(weir_req *r, const struct conf *c)
{
        WEIR_EACH (struct take, t, c->takes) {
                if (t->verb == COPY && weir->header_del(r, WEIR_REQUEST, t->to) < 0)
                        return WEIR_ERROR;
        }
        return WEIR_CONTINUE;
}

/* value absent: the answer has no such field. */
static weir_rc put(weir_req *r, const struct take *t, weir_str value)
{
        if (value.p == NULL)
                return WEIR_CONTINUE;
        return (t->verb == VARIABLE ? weir->var_set(r, t->to, value)
                                    : weir->header_set(r, WEIR_REQUEST, t->to, value))
                       ? WEIR_ERROR
                       : WEIR_CONTINUE;
}

/* ------------------------------------------------------------------ what is remembered */

#define ABSENT UINT32_MAX

/* Its name in the local store; absent: nothing to go by. */
static weir_str key_of(weir_req *r, const struct conf *c)
{
        weir_str key = weir->expand(r, c->key);
        uint8_t md[32];

        if (key.n == 0)
                return (weir_str){NULL, 0};
        weir->hmac_sha256(c->context, key, md);
        return weir->encode(r, WEIR_BASE64, weir_bytes(md, sizeof(md)));
}

/* The values of all takes, each after its length. */
static void remember(weir_req *r, const struct conf *c, weir_str key, const weir_http_res *res)
{
        size_t n = 1;
        char *p, *at;

        WEIR_EACH (struct take, t, c->takes)
                n += sizeof(uint32_t) + weir_http_field(res, t->from).n;
        at = p = weir->alloc(r, n);
        if (p == NULL)
                return;
        WEIR_EACH (struct take, t, c->takes) {
                weir_str v = weir_http_field(res, t->from);
                uint32_t length = v.p ? (uint32_t)v.n : ABSENT;
                memcpy(at, &length, sizeof(length));
                if (v.n != 0)
                        memcpy(at + sizeof(length), v.p, v.n);
                at += sizeof(length) + v.n;
        }
        *at = '.';
        weir->local_set(r, key, weir_bytes(p, n), c->cache);
}

/* WEIR_SUSPEND: it was written by other lines than these, and it must be asked. */
static weir_rc recall(weir_req *r, const struct conf *c, weir_str kept)
{
        WEIR_EACH (struct take, t, c->takes) {
                weir_str v = {NULL, 0};
                uint32_t length;
                if (kept.n < sizeof(length))
                        return WEIR_SUSPEND;
                memcpy(&length, kept.p, sizeof(length));
                kept = weir_bytes(kept.p + sizeof(length), kept.n - sizeof(length));
                if (length != ABSENT) {
                        if (length > kept.n)
                                return WEIR_SUSPEND;
                        v = weir_bytes(kept.p, length);
                        kept = weir_bytes(kept.p + length, kept.n - length);
                }
                if (put(r, t, v) != WEIR_CONTINUE)
                        return WEIR_ERROR;
        }
        return kept.n == 1 ? WEIR_CONTINUE : WEIR_SUSPEND;
}

/* ------------------------------------------------------------------ asking */

static weir_rc allow(weir_req *r, const struct conf *c, const struct ctx *x,
                     const weir_http_res *res)
{
        WEIR_EACH (struct take, t, c->takes) {
                if (put(r, t, weir_http_field(res, t->from)) != WEIR_CONTINUE)
                        return fail(r, c, WEIR_STR("a field of the answer could not be taken"));
        }
        if (x->key.p != NULL)
                remember(r, c, x->key, res);
        weir->metric_add(c->metric[ALLOWED], 1);
        return WEIR_CONTINUE;
}

static weir_rc deny(weir_req *r, const struct conf *c, const weir_http_res *res)
{
        weir_str type = weir_http_field(res, WEIR_STR("content-type")),
                 challenge = WEIR_STR("www-authenticate"),
                 body = res->status == 401 ? WEIR_STR("authentication is required\n")
                                           : WEIR_STR("forbidden\n");

        for (size_t i = 0; i < res->n_fields; i++)
                if (weir_eq_icase(res->fields[i].name, challenge) &&
                    weir->header_add(r, WEIR_RESPONSE, res->fields[i].name, res->fields[i].value))
                        return fail(r, c, WEIR_STR("the answer's challenge could not be taken"));
        if (c->body) {
                body = res->body;
                if (type.p != NULL)
                        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("Content-Type"), type);
        }
        weir->metric_add(c->metric[DENIED], 1);
        return weir->respond(r, res->status, body);
}

static weir_rc answered(weir_task *r, const void *inst, void *ctx, const weir_http_res *res,
                        void *arg)
{
        const struct conf *c = inst;

        (void)arg;
        if (res->status >= 200 && res->status < 300)
                return allow(r, c, ctx, res);
        if (res->status == 401 || res->status == 403)
                return deny(r, c, res);
        if (res->status == 0)
                return fail(r, c, weir->format(r, "no answer: %.*s", WEIR_S(res->body)));
        return fail(r, c, weir->format(r, "the answer has status %d", res->status));
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;
        weir_str kept;
        weir_kv *fields;
        size_t n;

        if (c->cache != 0)
                x->key = key_of(r, c);
        fields = told(r, c, &n); /* which may be of names that are taken off */
        if (take_off(r, c) != WEIR_CONTINUE || fields == NULL)
                return fail(r, c, WEIR_STR("memory is used up"));
        if (x->key.p != NULL && weir->local_get(r, x->key, &kept) == 1) {
                weir_rc rc = recall(r, c, kept);
                if (rc == WEIR_CONTINUE)
                        weir->metric_add(c->metric[CACHED], 1);
                if (rc != WEIR_SUSPEND)
                        return rc;
        }
        return weir->http(r, c->upstream,
                          WEIR_HTTP(.method = c->method, .path = weir->expand(r, c->path),
                                    .fields = fields, .n_fields = n),
                          answered, NULL);
}

/* ------------------------------------------------------------------ cases */

#define GET(fields) "GET /a?b=c HTTP/1.1\nhost: a.example:81\n" fields "\n"
#define YES         "HTTP/1.1 200 OK\nx-user: alice\nx-role: admin\n\n"
#define TAKES       "copy X-User as X-User; variable X-Role as role; "
static const weir_case cases[] = {
        {.name = "yes",
         .config = "{ upstream main; " TAKES "}",
         .request = GET("x-user: forged\ncookie: s=1\n"),
         .http = YES,
         .expect = "continue\nreq x-user: alice\nvar auth_request_role=admin\nhttp GET /a?b=c\n"
                   "http cookie: s=1\nhttp x-original-uri: /a?b=c\nhttp x-original-method: GET\n"
                   "http x-forwarded-for: 192.0.2.1\nhttp x-forwarded-host: a.example\n"
                   "http host: main"},
        {.name = "what the answer does not say is not the client's to say",
         .config = "{ upstream main; " TAKES "}",
         .request = GET("x-user: forged\n"),
         .http = "HTTP/1.1 204 No Content\n\n",
         .expect = "continue\nreq -x-user\nreq -x-role"},
        {.name = "only what is passed, and what is set",
         .config = "{ upstream main; path /check; method HEAD; pass Cookie; set X-Original-URI "
                   "$path; }",
         .request = GET("x-forwarded-for: 10.0.0.1\ncookie: s=1\nauthorization: x\n"),
         .http = "HTTP/1.1 200 OK\n\n",
         .expect = "continue\nhttp HEAD /check\nhttp cookie: s=1\nhttp x-original-uri: /a"},
        {.name = "401",
         .config = "upstream=main",
         .request = GET(""),
         .http = "HTTP/1.1 401 No\nWWW-Authenticate: Basic realm=\"a\"\n"
                 "www-authenticate: Bearer\n\nwho are you\n",
         .expect = "respond 401\nres www-authenticate: Basic realm=\"a\"\n"
                   "res www-authenticate: Bearer\nbody authentication is required"},
        {.name = "403 with its body",
         .config = "upstream=main body=on",
         .request = GET(""),
         .http = "HTTP/1.1 403 No\ncontent-type: text/html\n\n<p>no\n",
         .expect = "respond 403\nbody <p>no\nres content-type: text/html"},
        {.name = "all else is an error",
         .config = "upstream=main",
         .request = GET("") "--\n" GET("") "--\n" GET("") "--\n" GET(""),
         .http = "HTTP/1.1 302 Found\nlocation: /login\n\n--\nHTTP/1.1 500 Oh\n\n--\n!\n--\n~\n",
         .expect = "error\n--\nerror\n--\nerror\n--\nerror"},
        {.name = "a yes is remembered",
         .config = "{ upstream main; cache 10s; key $header_authorization; " TAKES "}",
         .request = GET("authorization: a\n") "-- 9s\n" GET("authorization: a\nx-user: forged\n") //
         "-- 2s\n" GET("authorization: a\n") "--\n" GET("authorization: b\n"),
         .http = YES "--\nHTTP/1.1 200 OK\nx-user: bob\n\n--\nHTTP/1.1 403 No\n\n",
         .expect = "continue\nreq x-user: alice\n--\ncontinue\nreq x-user: alice\n"
                   "var auth_request_role=admin\n--\ncontinue\nreq x-user: bob\n--\nrespond 403"},
        {.name = "a no is not, nor what has no key",
         .config = "{ upstream main; cache 10s; key $header_authorization; }",
         .request = GET("authorization: a\n") "--\n" GET("authorization: a\n") "--\n" GET("") //
         "--\n" GET(""),
         .http = "HTTP/1.1 403 No\n\n--\nHTTP/1.1 200 OK\n\n--\nHTTP/1.1 200 OK\n\n--\nHTTP/1.1 "
                 "401 No\n\n",
         .expect = "respond 403\n--\ncontinue\n--\ncontinue\n--\nrespond 401"},
};

WEIR_MODULE(.name = "auth_request", .version = "1.0", WEIR_ARGS(struct conf, args),
            WEIR_CASES(cases), .ctx_size = sizeof(struct ctx), .create = create,
            .on_request = request);
