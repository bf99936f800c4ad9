/*
 * cors: says which other sites' scripts may read what weir serves (Fetch standard, CORS protocol).
 *
 *     function cors {
 *         origins https://app.example.com;
 *         methods GET PUT DELETE;
 *         headers Content-Type Authorization;
 *         credentials on;
 *     }
 *
 * The question before a request (preflight) is answered here: it carries no credentials, so the
 * function stands before those that ask for some.  Everything else goes on, and its response tells
 * the browser whether the script may see it.
 *
 * The difficulty is the cache between: an answer made for one origin must not be given to another,
 * so all that depends on the origin says so, also when none was sent.
 */
#include <weir/module.h>

#define ORIGIN_MAX  512  /* of what a client sends; more is none that we know */
#define HEADERS_MAX 4096 /* of Access-Control-Request-Headers */

typedef const weir_regex *regex_ref;

struct conf {
        weir_list origins, origin_regex, methods, headers, expose;
        int32_t credentials, private_network;
        int64_t max_age;
        /* worked out by create */
        int32_t anybody, any_method, any_header;
        weir_str methods_text, headers_text, expose_text, max_age_text;
};

static const weir_arg args[] = {
        WEIR_LIST(struct conf, origins, STR, 0, NULL,
                  "Who may read: https://app.example.com, https://*.example.com for all names "
                  "below it, null, or * for everybody."),
        WEIR_LIST(struct conf, origin_regex, REGEX, 0, NULL,
                  "The same as regular expressions; begin with ^ and end with $."),
        WEIR_LIST(struct conf, methods, STR, 0, "GET HEAD POST",
                  "Methods that scripts may use, or * for all."),
        WEIR_LIST(struct conf, headers, STR, 0, NULL,
                  "Fields that scripts may set beyond the harmless ones, or * for all."),
        WEIR_LIST(struct conf, expose, STR, 0, NULL,
                  "Fields of responses that scripts may read beyond the harmless ones."),
        WEIR_ARG(struct conf, credentials, BOOL, 0, "off",
                 "Whether cookies and the like may come along; not with origins *."),
        WEIR_ARG(struct conf, max_age, TIME, 0, "10m",
                 "How long a browser may remember the answer to a preflight.", .min = 0,
                 .max = INT64_C(86400000000)),
        WEIR_ARG(struct conf, private_network, BOOL, 0, "off",
                 "Whether public sites may reach this one in a private network."),
};

/* What on_response says; worked out once for each request. */
struct ctx {
        weir_str origin; /* absent: not allowed, or not asked */
        int32_t preflight;
        weir_str method, headers; /* of a preflight: what it asked for */
};

static const weir_str none = {NULL, 0};

/* ------------------------------------------------------------------ create */

static int is_token_char(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static int is_token(weir_str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!is_token_char(s.p[i]))
                        return 0;
        return s.n > 0;
}

static int is_digits(weir_str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < '0' || s.p[i] > '9')
                        return 0;
        return s.n > 0;
}

/* scheme "://" host [ ":" port ], as browsers write it: in lower case, without a path. */
static int split_origin(weir_str s, weir_str *scheme, weir_str *host, weir_str *port)
{
        const char *at = s.p ? memmem(s.p, s.n, "://", 3) : NULL, *colon;
        weir_str rest;

        if (at == NULL)
                return 0;
        *scheme = weir_bytes(s.p, (size_t)(at - s.p));
        rest = weir_bytes(at + 3, s.n - scheme->n - 3);
        colon = memrchr(rest.p, ':', rest.n);
        if (colon != NULL && memchr(colon, ']', (size_t)(rest.p + rest.n - colon)) != NULL)
                colon = NULL; /* within an IPv6 address */
        *host = colon ? weir_bytes(rest.p, (size_t)(colon - rest.p)) : rest;
        *port = colon ? weir_bytes(colon + 1, rest.n - host->n - 1) : none;
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] >= 'A' && s.p[i] <= 'Z')
                        return 0;
        for (size_t i = 0; i < host->n; i++)
                if (!is_token_char(host->p[i]) && strchr(":[]", host->p[i]) == NULL)
                        return 0;
        return is_token(*scheme) && host->n > 0 && (colon == NULL || is_digits(*port));
}

static void check_origin(weir_conf *conf, struct conf *c, const weir_str *o)
{
        weir_str scheme, host, port;
        const char *star = memchr(o->p, '*', o->n);

        if (weir_eq(*o, WEIR_STR("*"))) {
                c->anybody = 1;
                return;
        }
        if (weir_eq(*o, WEIR_STR("null")))
                return;
        if (!split_origin(*o, &scheme, &host, &port))
                weir->conf_error(conf, o->p,
                                 "\"%.*s\" is not an origin (such as https://app.example.com, in "
                                 "lower case and without a path)",
                                 WEIR_S(*o));
        else if (star != NULL && (star != host.p || host.n < 3 || host.p[1] != '.' ||
                                  memchr(host.p + 1, '*', host.n - 1) != NULL))
                weir->conf_error(conf, star,
                                 "\"*\" stands for whole names at the left: https://*.example.com");
        else if ((weir_eq(scheme, WEIR_STR("https")) && weir_eq(port, WEIR_STR("443"))) ||
                 (weir_eq(scheme, WEIR_STR("http")) && weir_eq(port, WEIR_STR("80"))))
                weir->conf_error(conf, port.p, "browsers leave out the default port");
}

static void check_tokens(weir_conf *conf, const weir_list *list, const char *what, int32_t *any)
{
        WEIR_EACH (weir_str, s, *list) {
                if (any != NULL && weir_eq(*s, WEIR_STR("*")))
                        *any = 1;
                else if (!is_token(*s) || memchr(s->p, '*', s->n) != NULL)
                        weir->conf_error(conf, s->p, "\"%.*s\" is not the name of a %s", WEIR_S(*s),
                                         what);
        }
}

static weir_str joined(weir_conf *conf, const weir_list *list)
{
        weir_str out = WEIR_STR("");

        WEIR_EACH (weir_str, s, *list)
                out = weir->format(conf, "%.*s%s%.*s", WEIR_S(out), out.n ? ", " : "", WEIR_S(*s));
        return out;
}

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;

        if (c->origins.n == 0 && c->origin_regex.n == 0)
                return weir->conf_error(conf, NULL, "it needs origins or origin_regex");
        WEIR_EACH (weir_str, o, c->origins)
                check_origin(conf, c, o);
        check_tokens(conf, &c->methods, "method", &c->any_method);
        check_tokens(conf, &c->headers, "field", &c->any_header);
        check_tokens(conf, &c->expose, "field", NULL);
        c->methods_text = joined(conf, &c->methods);
        c->headers_text = joined(conf, &c->headers);
        c->expose_text = joined(conf, &c->expose);
        c->max_age_text = weir->format(conf, "%lld", (long long)(c->max_age / 1000000));
        if (c->anybody && c->credentials)
                return weir->conf_error(conf, &c->credentials,
                                        "with credentials any site could act for its visitors: "
                                        "name the origins");
        return WEIR_OK;
}

/* ------------------------------------------------------------------ who may */

/* All names below what follows the star, of any depth, but not that one itself. */
static int is_below(weir_str pattern, weir_str origin)
{
        const char *star = memchr(pattern.p, '*', pattern.n);
        size_t head, tail;

        if (star == NULL)
                return 0;
        head = (size_t)(star - pattern.p);
        tail = pattern.n - head - 1;
        if (origin.n <= head + tail || memcmp(origin.p, pattern.p, head) != 0 ||
            memcmp(origin.p + origin.n - tail, star + 1, tail) != 0)
                return 0;
        for (size_t i = head; i < origin.n - tail; i++)
                if (origin.p[i] != '.' && origin.p[i] != '-' && origin.p[i] != '_' &&
                    !(origin.p[i] >= 'a' && origin.p[i] <= 'z') &&
                    !(origin.p[i] >= '0' && origin.p[i] <= '9'))
                        return 0;
        return origin.p[head] != '.';
}

/* 1, 0, or a match limit that was hit. */
static int32_t is_allowed(weir_req *r, const struct conf *c, weir_str origin)
{
        weir_str scheme, host, port;

        if (c->anybody)
                return 1;
        WEIR_EACH (weir_str, o, c->origins)
                if (weir_eq(*o, origin) || is_below(*o, origin))
                        return 1;
        if (c->origin_regex.n == 0 || !split_origin(origin, &scheme, &host, &port))
                return 0;
        WEIR_EACH (regex_ref, re, c->origin_regex) {
                int32_t match = weir->regex_match(r, *re, origin);
                if (match != 0)
                        return match;
        }
        return 0;
}

/* The one field of that name; absent when there is none, or several. */
static weir_str only(weir_req *r, weir_str name)
{
        weir_str v;

        return weir->header_get(r, WEIR_REQUEST, name, &v) == 1 ? v : none;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;
        weir_str origin = only(r, WEIR_STR("Origin")), method;
        int32_t allowed;

        if (origin.p == NULL)
                return WEIR_CONTINUE;
        allowed = origin.n <= ORIGIN_MAX ? is_allowed(r, c, origin) : 0;
        if (allowed < 0)
                return WEIR_ERROR;
        if (allowed)
                x->origin = weir->dup(r, origin);
        if (!weir->var_get(r, WEIR_STR("method"), &method) || !weir_eq(method, WEIR_STR("OPTIONS")))
                return WEIR_CONTINUE;
        x->method = only(r, WEIR_STR("Access-Control-Request-Method"));
        if (x->method.p == NULL)
                return WEIR_CONTINUE; /* an OPTIONS of its own */
        x->preflight = 1;
        x->headers = only(r, WEIR_STR("Access-Control-Request-Headers"));
        return allowed ? weir->respond(r, 204, WEIR_STR(""))
                       : weir->respond(r, 403, WEIR_STR("this origin is not allowed\n"));
}

/* ------------------------------------------------------------------ what is said */

static weir_rc set(weir_req *r, weir_str name, weir_str value)
{
        return weir->header_set(r, WEIR_RESPONSE, name, value) ? WEIR_ERROR : WEIR_CONTINUE;
}

/* Is name one of those in a list with commas? */
static int is_listed(weir_str list, weir_str name)
{
        while (list.n > 0) {
                const char *comma = memchr(list.p, ',', list.n);
                weir_str one = weir_bytes(list.p, comma ? (size_t)(comma - list.p) : list.n);
                size_t skip = one.n + (comma != NULL);
                while (one.n > 0 && strchr(" \t", one.p[0]) != NULL)
                        one = weir_bytes(one.p + 1, one.n - 1);
                while (one.n > 0 && strchr(" \t", one.p[one.n - 1]) != NULL)
                        one.n--;
                if (weir_eq_icase(one, name) || weir_eq(one, WEIR_STR("*")))
                        return 1;
                list = weir_bytes(list.p + skip, list.n - skip);
        }
        return 0;
}

static weir_rc vary(weir_req *r, weir_str name)
{
        weir_kv kv;

        for (size_t i = 0; weir->header_at(r, WEIR_RESPONSE, i, &kv); i++)
                if (weir_eq_icase(kv.name, WEIR_STR("Vary")) && is_listed(kv.value, name))
                        return WEIR_CONTINUE;
        return weir->header_add(r, WEIR_RESPONSE, WEIR_STR("Vary"), name) ? WEIR_ERROR
                                                                          : WEIR_CONTINUE;
}

/* Names with commas and blanks, and nothing that a field could be broken with. */
static int is_names(weir_str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!is_token_char(s.p[i]) && strchr(", \t", s.p[i]) == NULL)
                        return 0;
        return s.p != NULL && s.n > 0 && s.n <= HEADERS_MAX;
}

/* "*" does not hold with credentials, nor for Authorization: what was asked for is given back. */
static weir_rc answer_preflight(weir_req *r, const struct conf *c, const struct ctx *x)
{
        weir_str methods = c->any_method ? x->method : c->methods_text;
        weir_str headers = c->any_header ? x->headers : c->headers_text;
        weir_str private = only(r, WEIR_STR("Access-Control-Request-Private-Network"));

        if (c->any_method && vary(r, WEIR_STR("Access-Control-Request-Method")))
                return WEIR_ERROR;
        if (c->any_header && vary(r, WEIR_STR("Access-Control-Request-Headers")))
                return WEIR_ERROR;
        if (is_names(methods) && set(r, WEIR_STR("Access-Control-Allow-Methods"), methods))
                return WEIR_ERROR;
        if (is_names(headers) && set(r, WEIR_STR("Access-Control-Allow-Headers"), headers))
                return WEIR_ERROR;
        if (c->private_network && weir_eq(private, WEIR_STR("true")) &&
            set(r, WEIR_STR("Access-Control-Allow-Private-Network"), WEIR_STR("true")))
                return WEIR_ERROR;
        return set(r, WEIR_STR("Access-Control-Max-Age"), c->max_age_text);
}

static weir_rc allow(weir_req *r, const struct conf *c, const struct ctx *x)
{
        if (set(r, WEIR_STR("Access-Control-Allow-Origin"), c->anybody ? WEIR_STR("*") : x->origin))
                return WEIR_ERROR;
        if (c->credentials &&
            set(r, WEIR_STR("Access-Control-Allow-Credentials"), WEIR_STR("true")))
                return WEIR_ERROR;
        if (x->preflight)
                return answer_preflight(r, c, x);
        if (c->expose_text.n == 0)
                return WEIR_CONTINUE;
        return set(r, WEIR_STR("Access-Control-Expose-Headers"), c->expose_text);
}

/* A server that speaks of CORS itself is not heard: two answers are none. */
static weir_rc forget(weir_req *r)
{
        static const char *const names[] = {
                "Access-Control-Allow-Origin",          "Access-Control-Allow-Credentials",
                "Access-Control-Allow-Methods",         "Access-Control-Allow-Headers",
                "Access-Control-Expose-Headers",        "Access-Control-Max-Age",
                "Access-Control-Allow-Private-Network",
        };

        for (size_t i = 0; i < WEIR_COUNT(names); i++)
                if (weir->header_del(r, WEIR_RESPONSE, weir_bytes(names[i], strlen(names[i]))) < 0)
                        return WEIR_ERROR;
        return WEIR_CONTINUE;
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        const struct ctx *x = ctx;

        if (forget(r) || (!c->anybody && vary(r, WEIR_STR("Origin"))))
                return WEIR_ERROR;
        return x->origin.p != NULL ? allow(r, c, x) : WEIR_CONTINUE;
}

/* ------------------------------------------------------------------ cases */

#define A      "{ origins https://a.test https://*.b.test:8443; credentials on; expose X-N; "
#define GET(o) "GET / HTTP/1.1\nhost: h\norigin: " o "\n\n"
#define ASK(o) "OPTIONS / HTTP/1.1\nhost: h\norigin: " o "\naccess-control-request-method: PUT\n"
#define ORIGIN "res access-control-allow-origin: "
#define DENIED "\nres -access-control-allow-origin\nres -access-control-allow-credentials"
static const weir_case cases[] = {
        {.name = "an origin that is listed",
         .config = A "}",
         .request = GET("https://a.test"),
         .upstream = "HTTP/1.1 200 OK\naccess-control-allow-origin: *\nvary: accept\n\n",
         .expect =
                 "continue\n" ORIGIN "https://a.test\nres access-control-expose-headers: X-N\n"
                 "res access-control-allow-credentials: true\nres vary: Origin\nres vary: accept"},
        {.name = "below a name",
         .config = A "}",
         .request = GET("https://x.y.b.test:8443") "--\n" GET("https://b.test:8443") "--\n" GET(
                 "https://x.b.test") "--\n" GET("https://x/.b.test:8443") "--\n" GET("https://"
                                                                                     ".b.test:"
                                                                                     "8443"),
         .expect = "continue\n" ORIGIN "https://x.y.b.test:8443\n--\ncontinue" DENIED
                   "\n--\ncontinue" DENIED "\n--\ncontinue" DENIED "\n--\ncontinue" DENIED},
        {.name = "another origin, and none",
         .config = A "}",
         .request = GET("https://a.test.evil") "--\nGET / HTTP/1.1\nhost: h\n\n",
         .upstream = "HTTP/1.1 200 OK\naccess-control-allow-origin: *\n\n",
         .expect = "continue\nres vary: Origin" DENIED "\n--\ncontinue\nres vary: Origin" DENIED},
        {.name = "everybody",
         .config = "{ origins *; }",
         .request = GET("null"),
         .expect = "continue\n" ORIGIN "*\nres -vary\nres -access-control-allow-credentials"},
        {.name = "preflight",
         .config = A "methods GET PUT; headers X-A X-B; max_age 1m; }",
         .request = ASK("https://a.test") "\n",
         .expect =
                 "respond 204\n" ORIGIN "https://a.test\nres access-control-max-age: 60\n"
                 "res access-control-allow-methods: GET, PUT\nres -access-control-expose-headers\n"
                 "res access-control-allow-headers: X-A, X-B\nres vary: Origin\n"
                 "res -access-control-allow-private-network"},
        {.name = "preflight of another origin",
         .config = A "}",
         .request = ASK("https://c.test") "\n",
         .expect = "respond 403\nres vary: Origin\nres -access-control-allow-methods" DENIED},
        {.name = "preflight, everything goes",
         .config = A "methods *; headers *; private_network on; }",
         .request = ASK("https://a.test") "access-control-request-headers: authorization,x-q\n"
                                          "access-control-request-private-network: true\n\n",
         .expect = "respond 204\nres access-control-allow-methods: PUT\n"
                   "res access-control-allow-headers: authorization,x-q\n"
                   "res vary: Access-Control-Request-Headers\n"
                   "res vary: Access-Control-Request-Method\n"
                   "res access-control-allow-private-network: true"},
        {.name = "what is no origin meets no expression",
         .config = "{ origin_regex '^https://[a-z]+\\.test'; }",
         .request = GET("https://x.test") "--\n" GET("https://x.test/.evil") "--\n" GET(
                 "x https://x.test"),
         .expect =
                 "continue\n" ORIGIN "https://x.test\n--\ncontinue" DENIED "\n--\ncontinue" DENIED},
        {.name = "an OPTIONS that asks for nothing",
         .config = A "}",
         .request = "OPTIONS / HTTP/1.1\nhost: h\norigin: https://a.test\n\n",
         .expect = "continue\n" ORIGIN "https://a.test"},
};

WEIR_MODULE(.name = "cors", .version = "1.0", WEIR_ARGS(struct conf, args), WEIR_CASES(cases),
            .ctx_size = sizeof(struct ctx), .create = create, .on_request = request,
            .on_response = response);
