/*
 * jwt: lets in who brings a signed token (RFC 7519), and says what it claims.
 *
 *     function jwt {
 *         jwks ${file:/etc/weir/jwks.json};
 *         issuer https://id.example.com;
 *         audience shop;
 *         claim sub as user;                      # $jwt_user
 *         claim realm_access.roles as roles;
 *     }
 *
 * The difficulty is cost: a signature takes as long as a hundred requests without.  So each loop
 * remembers the tokens that it has verified (jwt_cache.c).  Keys are in jwt_keys.c, what a token
 * must look like in jwt_token.c.
 */
#include "jwt.h"

enum { ACCEPTED, CACHED, REFUSED, MISSING, RESULTS };
enum { EXP_REQUIRED, EXP_OPTIONAL };

#define WAIT_US INT64_C(2000000) /* for keys that are being fetched */
#define LOOK_US 5000             /* how often a request looks whether they are there */

struct ctx {
        uint8_t digest[32];
        struct jwt_token token;
        uint64_t fetches; /* how many there had been when it began to wait */
        int64_t until;    /* how long it waits; 0: it has not */
};

static const weir_arg key_line[] = {
        WEIR_ARG(struct jwt_key_line, text, TEXT, WEIR_BARE | WEIR_REQUIRED | WEIR_SECRET, NULL,
                 "PEM public key, JWK or secret."),
        WEIR_ARG(struct jwt_key_line, id, STR, 0, NULL, "Its \"kid\"."),
};
static const weir_arg source_line[] = {
        WEIR_ARG(struct jwt_source, upstream, UPSTREAM, WEIR_BARE | WEIR_REQUIRED, NULL,
                 "Who publishes the keys."),
        WEIR_ARG(struct jwt_source, path, STR, 0, "/.well-known/jwks.json", "Where."),
        WEIR_ARG(struct jwt_source, host, STR, 0, NULL, "Host that is asked for."),
        WEIR_ARG(struct jwt_source, refresh, TIME, 0, NULL,
                 "How often they are fetched where an answer says nothing of it: 1h.", .min = 10000,
                 .max = INT64_C(604800000000)),
        WEIR_ARG(struct jwt_source, retry, TIME, 0, "10s",
                 "How soon after another fetch that failed, or for a key that is not known.",
                 .min = 10000, .max = INT64_C(3600000000)),
        WEIR_ARG(struct jwt_source, min_refresh, TIME, 0, NULL,
                 "How often at most, whatever an answer says: 1m, or refresh where that is less.",
                 .min = 10000, .max = INT64_C(604800000000)),
        WEIR_ARG(struct jwt_source, max_refresh, TIME, 0, NULL,
                 "How often at least, whatever an answer says: refresh where that is given, else "
                 "1d.",
                 .min = 10000, .max = INT64_C(604800000000)),
};
static const weir_arg args[] = {
        WEIR_LINES("key", struct jwt_conf, keys, 0, struct jwt_key_line, key_line, 2,
                   "A key to verify with: a PEM public key, a JWK, or a secret of 32 bytes and "
                   "more."),
        WEIR_ARG(struct jwt_conf, jwks, TEXT, WEIR_SECRET, NULL,
                 "A JWKS document, such as ${file:jwks.json}."),
        WEIR_LINES("jwks_upstream", struct jwt_conf, sources, 0, struct jwt_source, source_line, 7,
                   "An upstream that publishes a JWKS document."),
        WEIR_LIST(struct jwt_conf, algorithms, ENUM, 0, NULL,
                  "Algorithms that are taken; when not given, all that fit a key.",
                  .choices = "HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 "
                             "ES512 EdDSA"),
        WEIR_LIST(struct jwt_conf, issuer, STR, 0, NULL, "Who may have made it (iss)."),
        WEIR_LIST(struct jwt_conf, audience, STR, 0, NULL,
                  "Whom it must be for, one of them (aud)."),
        WEIR_LINES("claim", struct jwt_conf, claims, 0, struct credential_field,
                   credential_field_line, 3, "A claim as a variable."),
        WEIR_ARG(struct jwt_conf, exp, ENUM, 0, "required",
                 "Whether a token must say when it expires.", .choices = "required optional"),
        WEIR_ARG(struct jwt_conf, leeway, TIME, 0, "10s", "How much clocks may differ.", .min = 0,
                 .max = INT64_C(3600000000)),
        WEIR_ARG(struct jwt_conf, optional, BOOL, 0, "off",
                 "Whether requests without a token go on; a token that is wrong never does."),
        WEIR_ARG(struct jwt_conf, header, FIELD, 0, NULL,
                 "Field that carries it: Authorization, unless cookie or query is given."),
        WEIR_ARG(struct jwt_conf, scheme, STR, 0, NULL,
                 "What the field's value begins with; Bearer in Authorization."),
        WEIR_ARG(struct jwt_conf, query, STR, 0, NULL, "Parameter of the query that carries it."),
        WEIR_ARG(struct jwt_conf, cookie, STR, 0, NULL, "Cookie that carries it."),
        WEIR_ARG(struct jwt_conf, forward, BOOL, 0, "off", "Whether the server sees the token."),
        WEIR_ARG(struct jwt_conf, realm, STR, 0, "api", "Names what is asked for in challenges."),
        WEIR_ARG(struct jwt_conf, max_token, SIZE, 0, "8k", "Longest token that is looked at.",
                 .min = 64, .max = 65536),
        WEIR_ARG(struct jwt_conf, cache, INT, 0, "1024",
                 "How many verified tokens each thread remembers.", .min = 0, .max = 1000000),
};

/* ------------------------------------------------------------------ create */

/* 0: an error is reported. */
static int find_places(weir_conf *conf, struct jwt_conf *c)
{
        weir_str header = c->header, scheme = c->scheme;

        if (header.p == NULL && c->query.p == NULL && c->cookie.p == NULL)
                header = WEIR_STR("Authorization");
        if (scheme.p == NULL && weir_eq_icase(header, WEIR_STR("Authorization")))
                scheme = WEIR_STR("Bearer");
        c->places = (struct credential_places){header, scheme, c->query, c->cookie};
        if (scheme.p == NULL || header.p != NULL)
                return 1;
        weir->conf_error(conf, &c->scheme, "a scheme stands in a field: say header=");
        return 0;
}

static weir_err create(weir_conf *conf, void *inst)
{
        static const char *const names[RESULTS] = {
                "total{result=\"accepted\"}",
                "total{result=\"cached\"}",
                "total{result=\"refused\"}",
                "total{result=\"missing\"}",
        };
        struct jwt_conf *c = inst;
        weir_str realm = credential_quoted(conf, &c->realm);

        WEIR_EACH (int32_t, a, c->algorithms)
                c->allowed |= 1u << *a;
        if (c->algorithms.n == 0)
                c->allowed = (1u << JWT_ALGORITHMS) - 1;
        c->challenge = weir->format(conf, "Bearer realm=%.*s", WEIR_S(realm));
        for (int i = 0; i < RESULTS; i++)
                c->metric[i] =
                        weir->conf_metric(conf, WEIR_COUNTER, names[i],
                                          "Requests by what became of their token.", NULL, 0);
        if (!find_places(conf, c) || realm.p == NULL)
                return WEIR_E_INVAL;
        if (!jwt_fetch_create(conf, c))
                return WEIR_E_INVAL;
        if (c->keys.n == 0 && c->jwks.text.p == NULL && c->fetch == NULL)
                return weir->conf_error(conf, NULL, "it needs a key: key, jwks or jwks_upstream");
        c->own = jwt_set_of_conf(conf, c); /* last: where create fails, destroy does not come */
        return c->own ? WEIR_OK : WEIR_E_INVAL;
}

static void destroy(void *inst)
{
        jwt_set_free(((struct jwt_conf *)inst)->own);
}

static weir_err loop_init(weir_task *t, const void *inst, void *loop)
{
        const struct jwt_conf *c = inst;

        return jwt_cache_begin(loop, (size_t)c->cache) ? jwt_fetch_begin(t, c) : WEIR_E_NOMEM;
}

static void loop_fini(const void *inst, void *loop)
{
        (void)inst;
        jwt_cache_end(loop);
}

/* ------------------------------------------------------------------ verdicts */

/* RFC 6750 3: who brought nothing is only asked. */
static weir_rc missing(weir_req *r, const struct jwt_conf *c)
{
        weir->metric_add(c->metric[MISSING], 1);
        if (c->optional)
                return WEIR_CONTINUE;
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("WWW-Authenticate"), c->challenge);
        return weir->respond(r, 401, WEIR_STR("a token is required\n"));
}

static weir_rc refuse(weir_req *r, const struct jwt_conf *c, const char *why)
{
        weir->metric_add(c->metric[REFUSED], 1);
        weir->log(r, WEIR_LOG_INFO, "%s", why);
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("WWW-Authenticate"),
                         weir->format(r, "%.*s, error=\"invalid_token\", error_description=\"%s\"",
                                      WEIR_S(c->challenge), why));
        return weir->respond(r, 401, weir->format(r, "%s\n", why));
}

static weir_rc several(weir_req *r, const struct jwt_conf *c)
{
        weir->metric_add(c->metric[REFUSED], 1);
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("WWW-Authenticate"),
                         weir->format(r, "%.*s, error=\"invalid_request\"", WEIR_S(c->challenge)));
        return weir->respond(r, 400, WEIR_STR("one token is required\n"));
}

static weir_rc accept(weir_req *r, const struct jwt_conf *c, const weir_str *values, int result)
{
        weir->metric_add(c->metric[result], 1);
        return credential_accept(r, c->claims.v, c->claims.n, values,
                                 c->forward ? NULL : &c->places);
}

/* ------------------------------------------------------------------ the hook */

static const struct jwt_set *fetched(weir_req *r, const struct jwt_conf *c)
{
        return c->cell ? weir->cell_get(r, c->cell) : NULL;
}

/* What was verified with keys that are not the newest any more is verified again. */
static uint64_t serial_of(const struct jwt_conf *c, const struct jwt_set *fetched)
{
        return fetched ? fetched->serial : c->own->serial;
}

static weir_rc accept_new(weir_req *r, const struct jwt_conf *c, struct ctx *x,
                          const struct jwt_set *set)
{
        weir_str *values = weir->alloc(r, (c->claims.n + 1) * sizeof(*values));
        const char *why;
        int64_t until;

        if (values == NULL)
                return WEIR_ERROR;
        why = jwt_check(r, c, &x->token, &until);
        if (why != NULL)
                return refuse(r, c, why);
        credential_read(r, x->token.claims, c->claims.v, c->claims.n, values);
        jwt_cache_put(weir->loop_data(r), x->digest, serial_of(c, set), until,
                      credential_pack(r, "", 0, values, c->claims.n));
        return accept(r, c, values, ACCEPTED);
}

static weir_rc wait_for_keys(weir_task *r, const void *inst, void *ctx, void *arg);

static weir_rc refuse_unknown(weir_req *r, const struct jwt_conf *c, const struct jwt_set *set)
{
        if (c->own->n > 0 || set != NULL)
                return refuse(r, c, "no key is known for the token");
        weir->log(r, WEIR_LOG_ERROR, "there are no keys yet");
        return WEIR_ERROR;
}

/* No key of that name. */
static weir_rc unknown_key(weir_req *r, const struct jwt_conf *c, struct ctx *x,
                           const struct jwt_set *set)
{
        if (x->until == 0 && c->fetch != NULL) {
                x->fetches = jwt_fetch_count(c); /* before: it may be done at once */
                if (!jwt_fetch_early(r, c))
                        return refuse_unknown(r, c, set);
                x->until = weir->now_us() + WAIT_US;
                return weir->timer(r, LOOK_US, wait_for_keys, NULL);
        }
        return refuse_unknown(r, c, set);
}

static weir_rc verify(weir_req *r, const struct jwt_conf *c, struct ctx *x)
{
        const struct jwt_set *set = fetched(r, c);
        int own = jwt_set_verify(c->own, &x->token), other = JWT_NO_KEY;

        if (own != JWT_GENUINE)
                other = jwt_set_verify(set, &x->token);
        if (own == JWT_GENUINE || other == JWT_GENUINE)
                return accept_new(r, c, x, set);
        if (own == JWT_FORGED || other == JWT_FORGED)
                return refuse(r, c, "the token's signature is not genuine");
        return unknown_key(r, c, x, set);
}

static weir_rc wait_for_keys(weir_task *r, const void *inst, void *ctx, void *arg)
{
        const struct jwt_conf *c = inst;
        struct ctx *x = ctx;

        if (jwt_fetch_count(c) == x->fetches && weir->now_us() < x->until)
                return weir->timer(r, LOOK_US, wait_for_keys, arg);
        return verify(r, c, x);
}

static weir_rc accept_kept(weir_req *r, const struct jwt_conf *c, weir_str kept)
{
        weir_str *values = weir->alloc(r, (c->claims.n + 1) * sizeof(*values));

        if (values == NULL || !credential_unpack(kept, 0, values, c->claims.n))
                return WEIR_ERROR;
        return accept(r, c, values, CACHED);
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct jwt_conf *c = inst;
        struct ctx *x = ctx;
        weir_str text, kept;
        const char *why;
        int found = credential_find(r, &c->places, &text);

        if (found == CREDENTIAL_SEVERAL)
                return several(r, c);
        if (found == CREDENTIAL_NONE)
                return missing(r, c);
        weir->sha256(text, x->digest);
        kept = jwt_cache_get(weir->loop_data(r), x->digest, serial_of(c, fetched(r, c)),
                             weir->wall_us());
        if (kept.p != NULL)
                return accept_kept(r, c, kept);
        why = jwt_read(r, c, text, &x->token);
        return why ? refuse(r, c, why) : verify(r, c, x);
}

/* ------------------------------------------------------------------ cases */

#define SECRET "key 0123456789abcdef0123456789abcdef; "
/* {"alg":"HS256"} . {"sub":"alice","roles":["a","b"],"x":{"y":1}} */
#define TOKEN                                                                                      \
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsInJvbGVzIjpbImEiLCJiIl0sIngiOnsieSI6MX19."       \
        "NNgIaXMdluTR3xJ82YIWk1kR96CrfjyfduX8p9at_aY"
#define FORGED "eyJhbGciOiJIUzI1NiIsImtpZCI6InoifQ.e30.AA" /* kid z */
#define JWKS                                                                                       \
        "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\",\"k\":"                                         \
        "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}"
#define GET(h)    "GET / HTTP/1.1\nhost: a\n" h "\n"
#define BEARER(t) GET("authorization: Bearer " t "\n")
#define INVALID(why)                                                                               \
        "respond 401\nres www-authenticate: Bearer realm=\"api\", error=\"invalid_token\", "       \
        "error_description=\"" why "\""
static const weir_case cases[] = {
        {.name = "genuine, and remembered",
         .config = "{ " SECRET "exp optional; claim sub as user; claim roles as roles; "
                   "claim x.y as y; claim none as none; }",
         .request = BEARER(TOKEN) "--\n" BEARER(TOKEN),
         .expect = "continue\nvar jwt_user=alice\nvar jwt_roles=a b\nvar jwt_y=1\n"
                   "req -authorization\n--\ncontinue\nvar jwt_user=alice\nvar "
                   "jwt_roles=a b\n"
                   "var jwt_y=1\nreq -authorization"},
        {.name = "without exp",
         .config = "{ " SECRET "}",
         .request = BEARER(TOKEN),
         .expect = INVALID("the token does not expire")},
        {.name = "another issuer, another audience, another algorithm",
         .config = "{ " SECRET "exp optional; issuer a b; }",
         .request = BEARER(TOKEN),
         .expect = INVALID("the token is from another issuer")},
        {.name = "another audience",
         .config = "{ " SECRET "exp optional; audience a b; }",
         .request = BEARER(TOKEN),
         .expect = INVALID("the token is for another audience")},
        {.name = "another algorithm",
         .config = "{ " SECRET "exp optional; algorithms HS384 ES256; }",
         .request = BEARER(TOKEN),
         .expect = INVALID("the token's algorithm is not allowed")},
        {.name = "another secret",
         .config = "{ key 0123456789abcdef0123456789abcdeX; exp optional; }",
         .request = BEARER(TOKEN),
         .expect = INVALID("the token's signature is not genuine")},
        {.name = "what is no token",
         .config = "{ " SECRET "exp optional; }",
         .request = BEARER("x") "--\n" BEARER("..") "--\n" BEARER(TOKEN ".x") "--\n" BEARER(
                 "eyJhbGciOiJIUzI1NiIsImFsZyI6IkhTMjU2In0"
                 ".e30.AA") "--\n" BEARER("W10.e30.AA"),
         .expect = INVALID("the token is malformed") "\n--\n" INVALID(
                 "the token "
                 "is "
                 "malformed") "\n--\n" INVALID("the token is malformed") "\n--\n" INVALID("the "
                                                                                          "token "
                                                                                          "is "
                                                                                          "malforme"
                                                                                          "d") "\n-"
                                                                                               "-"
                                                                                               "\n" INVALID(
                                                                                                       "the token is malformed")},
        {.name = "none, and an extension",
         .config = "{ " SECRET "exp optional; }",
         .request = BEARER("eyJhbGciOiJub25lIn0.e30.") "--\n" BEARER(
                 "eyJhbGciOiJIUzI1NiIsImNyaXQiOltdfQ.e30.AA"),
         .expect = INVALID("the token's algorithm is not allowed") "\n--\n" INVALID(
                 "the token uses an extension")},
        {.name = "keys of an upstream",
         .config = "{ jwks_upstream main path=/keys retry=10s; exp optional; claim sub as user; }",
         .http = "HTTP/1.1 200 OK\n\n" JWKS "\n--\nHTTP/1.1 500 No\n\nx",
         .request = BEARER(TOKEN) "-- 1s\n" BEARER(FORGED) "-- 2h\n" BEARER(TOKEN),
         .expect = "http GET /keys\ncontinue\nvar jwt_user=alice\n--\n" INVALID(
                 "no key is known for the token") "\n--\ncontinue\nvar jwt_user=alice"},
        {.name = "no keys yet",
         .config = "{ jwks_upstream main retry=1s; exp optional; }",
         .http = "!\n--\nHTTP/1.1 200 OK\n\n{}\n--\nHTTP/1.1 200 OK\n\n" JWKS,
         .request = BEARER(TOKEN) "-- 990ms\n" BEARER(TOKEN) "-- 990ms\n" BEARER(TOKEN),
         .expect = "error\n--\nerror\n--\ncontinue"},
        {.name = "no token",
         .config = "{ " SECRET "}",
         .request = GET("") "--\n" GET("authorization: Basic YTpi\n"),
         .expect = "respond 401\nres www-authenticate: Bearer realm=\"api\"\n--\n"
                   "respond 401\nres www-authenticate: Bearer realm=\"api\""},
        {.name = "no token where none is needed",
         .config = "{ " SECRET "optional on; }",
         .request = GET("") "--\n" BEARER("x"),
         .expect = "continue\n--\n" INVALID("the token is malformed")},
        {.name = "two tokens",
         .config = "{ " SECRET "}",
         .request = GET("authorization: Bearer x\nauthorization: Bearer y\n"),
         .expect = "respond 400\n"
                   "res www-authenticate: Bearer realm=\"api\", "
                   "error=\"invalid_request\""},
};

WEIR_MODULE(.name = "jwt", .version = "1.0", WEIR_ARGS(struct jwt_conf, args), WEIR_CASES(cases),
            .ctx_size = sizeof(struct ctx), .loop_size = sizeof(struct jwt_cache), .create = create,
            .destroy = destroy, .loop_init = loop_init, .loop_fini = loop_fini,
            .on_request = request);
