/*
 * api_key: a key that Redis knows opens the door, and says whose it is.
 *
 *     function api_key {
 *         store main;
 *         record hash;
 *         field plan as plan;             # $api_key_plan
 *     }
 *
 * Under apikey:DIGEST, the key's SHA-256 in hexadecimal, Redis has the owner's name (record
 * string), or a hash or a JSON object with a member `owner` and others.  $api_key_owner is who it
 * is.
 *
 * The difficulty is to ask Redis rarely without believing a key for long that was taken back: what
 * it said is kept in the local store for `ttl`, that a key is unknown for `negative_ttl`, and while
 * Redis is away what was said before may serve for `stale` more.  Anybody can make up keys, so
 * those that are unknown share `max_unknown` places, and push out each other but no one else.
 */
#include <weir/module.h>

#include "credential.h"

#define KEY_MAX 1024

enum { RECORD_STRING, RECORD_HASH, RECORD_JSON };
enum { ACCEPTED, CACHED, STALE, UNKNOWN, MISSING, FAILED, RESULTS };

struct conf {
        weir_str header, scheme, query, cookie, prefix, owner, realm;
        weir_redis *store;
        weir_list fields;
        int64_t ttl, negative_ttl, stale, max_unknown;
        int32_t record, forward;
        /* worked out by create */
        struct credential_places places;
        weir_str challenge;
        weir_str cache; /* what the names in the local store begin with */
        struct credential_field *field;
        size_t n_fields; /* the owner is the first */
        weir_metric *metric[RESULTS], *forgotten;
};

/* What is kept of a key that is known: this, and behind it the fields. */
struct kept {
        int64_t fresh_until; /* now_us */
};

/* Names are those in the local store. */
struct ctx {
        weir_str cached;
        weir_str stale; /* what was kept, and is not fresh any more; else absent */
        uint8_t digest[32];
        weir_str place; /* where it would be kept that it is unknown, as its digest */
        int taken;      /* there another one is, that is still believed */
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, store, REDIS, WEIR_REQUIRED, NULL, "The Redis that knows the keys."),
        WEIR_ARG(struct conf, header, FIELD, 0, NULL,
                 "Field that carries the key: X-API-Key, unless query or cookie is given."),
        WEIR_ARG(struct conf, scheme, STR, 0, NULL,
                 "What the field's value begins with, such as Bearer."),
        WEIR_ARG(struct conf, query, STR, 0, NULL, "Parameter of the query that carries it."),
        WEIR_ARG(struct conf, cookie, STR, 0, NULL, "Cookie that carries it."),
        WEIR_ARG(struct conf, prefix, STR, 0, "apikey:", "What the names in Redis begin with."),
        WEIR_ARG(struct conf, record, ENUM, 0, "string", "What Redis has under that name.",
                 .choices = "string hash json"),
        WEIR_ARG(struct conf, owner, VAR, 0, "owner", "Variable that receives the owner."),
        WEIR_LINES("field", struct conf, fields, 0, struct credential_field, credential_field_line,
                   3, "Another field of the record, as a variable."),
        WEIR_ARG(struct conf, ttl, TIME, 0, "30s", "How long an answer of Redis is believed.",
                 .min = 0, .max = INT64_C(86400000000)),
        WEIR_ARG(struct conf, negative_ttl, TIME, 0, "5s",
                 "How long it is believed that a key is unknown.", .min = 0,
                 .max = INT64_C(86400000000)),
        WEIR_ARG(struct conf, max_unknown, INT, 0, "1024",
                 "Of how many unknown keys it is remembered.", .min = 0, .max = 1000000),
        WEIR_ARG(struct conf, stale, TIME, 0, "0s",
                 "How much longer than ttl a known key is let in while Redis does not answer.",
                 .min = 0, .max = INT64_C(604800000000)),
        WEIR_ARG(struct conf, forward, BOOL, 0, "off", "Whether the server sees the key."),
        WEIR_ARG(struct conf, realm, STR, 0, "api", "Names what is asked for in challenges."),
};

/* ------------------------------------------------------------------ create */

/* Answers kept by a use that reads something else, or in another form (the first digit), are not
 * for this one. */
static weir_str cache_name(weir_conf *conf, const struct conf *c)
{
        weir_str all, name = weir->conf_name(conf);
        uint8_t md[32];

        all = weir->format(conf, "2\n%.*s\n%d\n%.*s", WEIR_S(name), c->record, WEIR_S(c->prefix));
        for (size_t i = 0; i < c->n_fields; i++)
                all = weir->format(conf, "%.*s\n%.*s", WEIR_S(all), WEIR_S(c->field[i].name));
        weir->sha256(all, md);
        return weir->encode(conf, WEIR_HEX, weir_bytes(md, 8));
}

static weir_err create(weir_conf *conf, void *inst)
{
        static const char *const names[RESULTS] = {
                "total{result=\"accepted\"}", "total{result=\"cached\"}",
                "total{result=\"stale\"}",    "total{result=\"unknown\"}",
                "total{result=\"missing\"}",  "total{result=\"error\"}",
        };
        struct conf *c = inst;

        if (c->header.p == NULL && c->query.p == NULL && c->cookie.p == NULL)
                c->header = WEIR_STR("X-API-Key");
        if (c->scheme.p != NULL && c->header.p == NULL)
                weir->conf_error(conf, &c->scheme, "a scheme stands in a field: say header=");
        if (c->record == RECORD_STRING && c->fields.n > 0)
                weir->conf_error(conf, c->fields.v,
                                 "a string has no fields: say record hash or json");
        c->places = (struct credential_places){c->header, c->scheme, c->query, c->cookie};
        c->field = weir->alloc(conf, (c->fields.n + 1) * sizeof(*c->field));
        c->field[c->n_fields++] = (struct credential_field){WEIR_STR("owner"), c->owner};
        WEIR_EACH (struct credential_field, f, c->fields)
                c->field[c->n_fields++] = *f;
        c->cache = cache_name(conf, c);
        c->challenge =
                weir->format(conf, "ApiKey realm=%.*s", WEIR_S(credential_quoted(conf, &c->realm)));
        for (int i = 0; i < RESULTS; i++)
                c->metric[i] = weir->conf_metric(conf, WEIR_COUNTER, names[i],
                                                 "Requests by what became of their key.", NULL, 0);
        c->forgotten = weir->conf_metric(
                conf, WEIR_COUNTER, "forgotten_total",
                "Unknown keys that were forgotten early, for there were more than max_unknown.",
                NULL, 0);
        return WEIR_OK;
}

/* ------------------------------------------------------------------ verdicts */

static weir_rc missing(weir_req *r, const struct conf *c)
{
        weir->metric_add(c->metric[MISSING], 1);
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("WWW-Authenticate"), c->challenge);
        return weir->respond(r, 401, WEIR_STR("one API key is required\n"));
}

static weir_rc unknown(weir_req *r, const struct conf *c)
{
        weir->metric_add(c->metric[UNKNOWN], 1);
        return weir->respond(r, 403, WEIR_STR("unknown API key\n"));
}

static weir_rc accept(weir_req *r, const struct conf *c, const weir_str *values, int result)
{
        weir->metric_add(c->metric[result], 1);
        return credential_accept(r, c->field, c->n_fields, values, c->forward ? NULL : &c->places);
}

/* ------------------------------------------------------------------ what is kept */

static void keep_known(weir_req *r, const struct conf *c, const struct ctx *x,
                       const weir_str *values)
{
        struct kept head = {weir->now_us() + c->ttl};
        weir_str kept;

        if (c->ttl + c->stale == 0)
                return;
        kept = credential_pack(r, &head, sizeof(head), values, c->n_fields);
        if (kept.p != NULL)
                weir->local_set(r, x->cached, kept, c->ttl + c->stale);
}

static void keep_unknown(weir_req *r, const struct conf *c, const struct ctx *x)
{
        weir->local_del(r, x->cached);
        if (x->place.p == NULL)
                return;
        if (x->taken)
                weir->metric_add(c->forgotten, 1);
        weir->local_set(r, x->place, weir_bytes(x->digest, sizeof(x->digest)), c->negative_ttl);
}

/* Whether Redis has said so not long ago. */
static int is_unknown(weir_req *r, const struct conf *c, struct ctx *x)
{
        weir_str other;
        uint64_t h;

        if (c->negative_ttl == 0 || c->max_unknown == 0)
                return 0;
        memcpy(&h, x->digest, sizeof(h)); /* a SHA-256 is spread well already */
        x->place = weir->format(r, "%.*s-%llu", WEIR_S(c->cache),
                                (unsigned long long)(h % (uint64_t)c->max_unknown));
        if (!weir->local_get(r, x->place, &other))
                return 0;
        x->taken = !weir_eq(other, weir_bytes(x->digest, sizeof(x->digest)));
        return !x->taken;
}

static weir_rc accept_kept(weir_req *r, const struct conf *c, weir_str kept, int result)
{
        weir_str *values = weir->alloc(r, c->n_fields * sizeof(*values));

        if (values == NULL || !credential_unpack(kept, sizeof(struct kept), values, c->n_fields))
                return WEIR_ERROR;
        return accept(r, c, values, result);
}

/* ------------------------------------------------------------------ what Redis says */

static weir_rc failed(weir_req *r, const struct conf *c, const struct ctx *x, const weir_value *v)
{
        if (v->type == WEIR_V_ERROR)
                weir->log(r, WEIR_LOG_ERROR, "the store answered %.*s", WEIR_S(v->str));
        else if (v->type != WEIR_V_FAIL)
                weir->log(r, WEIR_LOG_ERROR, "what the store has is not what record= says");
        if (x->stale.p != NULL)
                return accept_kept(r, c, x->stale, STALE);
        weir->metric_add(c->metric[FAILED], 1);
        return WEIR_ERROR;
}

/* name, value, name, value ... */
static weir_str hash_field(const weir_value *v, weir_str name)
{
        for (size_t i = 0; i + 1 < v->n; i += 2)
                if (weir_eq(v->elem[i]->str, name) && v->elem[i + 1]->type == WEIR_V_STRING)
                        return v->elem[i + 1]->str;
        return weir_bytes(NULL, 0);
}

enum { READ_NOTHING, READ_ALL, READ_WRONG };

/* ALL: values are those of the record; NOTHING: there is none; WRONG: it is no such record. */
static int read_record(weir_req *r, const struct conf *c, const weir_value *v, weir_str *values)
{
        const weir_value *json;

        if (v->type == WEIR_V_NULL || (v->type == WEIR_V_STRING && v->str.n == 0) ||
            (c->record == RECORD_HASH && v->type == WEIR_V_ARRAY && v->n == 0))
                return READ_NOTHING;
        if (c->record == RECORD_HASH) {
                if (v->type != WEIR_V_ARRAY)
                        return READ_WRONG;
                for (size_t i = 0; i < c->n_fields; i++)
                        values[i] = hash_field(v, c->field[i].name);
                return READ_ALL;
        }
        if (v->type != WEIR_V_STRING)
                return READ_WRONG;
        if (c->record == RECORD_STRING) {
                values[0] = v->str;
                return READ_ALL;
        }
        json = weir->json_parse(r, v->str);
        if (json == NULL || json->type != WEIR_V_OBJECT)
                return READ_WRONG;
        credential_read(r, json, c->field, c->n_fields, values);
        return READ_ALL;
}

static weir_rc replied(weir_task *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        const struct conf *c = inst;
        const struct ctx *x = ctx;
        weir_str *values = weir->alloc(r, c->n_fields * sizeof(*values));

        (void)arg;
        if (values == NULL)
                return WEIR_ERROR;
        if (v->type == WEIR_V_FAIL || v->type == WEIR_V_ERROR)
                return failed(r, c, x, v);
        switch (read_record(r, c, v, values)) {
        case READ_NOTHING:
                keep_unknown(r, c, x);
                return unknown(r, c);
        case READ_ALL:
                keep_known(r, c, x, values);
                return accept(r, c, values, ACCEPTED);
        default:
                return failed(r, c, x, v);
        }
}

/* ------------------------------------------------------------------ the hook */

static weir_rc ask(weir_req *r, const struct conf *c, weir_str hex)
{
        static const weir_str command[] = {[RECORD_STRING] = {"GET", 3},
                                           [RECORD_HASH] = {"HGETALL", 7},
                                           [RECORD_JSON] = {"GET", 3}};
        weir_str name = weir->format(r, "%.*s%.*s", WEIR_S(c->prefix), WEIR_S(hex));

        return weir->redis(r, c->store, replied, NULL, WEIR_ARGV(command[c->record], name));
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;
        weir_str key, hex, found;
        struct kept head;

        if (credential_find(r, &c->places, &key) != CREDENTIAL_FOUND || key.n == 0)
                return missing(r, c);
        if (key.n > KEY_MAX)
                return unknown(r, c);
        weir->sha256(key, x->digest);
        hex = weir->encode(r, WEIR_HEX, weir_bytes(x->digest, sizeof(x->digest)));
        x->cached = weir->format(r, "%.*s%.*s", WEIR_S(c->cache), WEIR_S(hex));
        if (weir->local_get(r, x->cached, &found) && found.n >= sizeof(head)) {
                memcpy(&head, found.p, sizeof(head));
                if (head.fresh_until > weir->now_us())
                        return accept_kept(r, c, found, CACHED);
                x->stale = found;
        }
        return is_unknown(r, c, x) ? unknown(r, c) : ask(r, c, hex);
}

/* ------------------------------------------------------------------ cases */

/* The digest is that of "k". */
#define NAME   "apikey:8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"
#define GET(h) "GET /a?k=k&z=1 HTTP/1.1\nhost: a\n" h "\n"
#define KEY    GET("x-api-key: k\n")
static const weir_case cases[] = {
        {.name = "known, then remembered, then asked again",
         .config = "store=main",
         .redis = "$alice\n$bob",
         .request = KEY "--\n" KEY "-- 31s\n" KEY,
         .expect = "continue\nredis GET " NAME "\nvar api_key_owner=alice\nreq -x-api-key\n--\n"
                   "continue\nvar api_key_owner=alice\nreq -x-api-key\n--\ncontinue\n"
                   "var api_key_owner=bob"},
        {.name = "unknown, for a while",
         .config = "store=main",
         .redis = "_\n$alice",
         .request = KEY "-- 4s\n" KEY "-- 2s\n" KEY,
         .expect = "respond 403\n--\nrespond 403\n--\ncontinue\nvar api_key_owner=alice"},
        {.name = "unknown ones share a place",
         .config = "store=main max_unknown=1",
         .redis = "_\n_\n$alice",
         .request = KEY "--\n" KEY "--\n" GET("x-api-key: j\n") "--\n" KEY,
         .expect = "respond 403\n--\nrespond 403\n--\nrespond 403\n--\ncontinue"},
        {.name = "none, an empty one, two",
         .config = "store=main",
         .request = GET("") "--\n" GET("x-api-key:\n") "--\n" GET("x-api-key: k\nx-api-key: k\n"),
         .expect = "respond 401\nres www-authenticate: ApiKey realm=\"api\"\n--\nrespond 401\n--\n"
                   "respond 401"},
        {.name = "the store is away",
         .config = "store=main",
         .redis = "!\n~\n-ERR no\n:1",
         .request = KEY "--\n" KEY "--\n" KEY "--\n" KEY,
         .expect = "error\n--\nerror\n--\nerror\n--\nerror"},
        {.name = "the store is away: stale",
         .config = "store=main ttl=10s stale=20s",
         .redis = "$alice\n!\n~\n!",
         .request = KEY "-- 11s\n" KEY "-- 11s\n" KEY "-- 9s\n" KEY,
         .expect = "continue\n--\ncontinue\nvar api_key_owner=alice\n--\ncontinue\n--\nerror"},
        {.name = "taken back while stale",
         .config = "store=main ttl=10s stale=20s negative_ttl=0s",
         .redis = "$alice\n_\n!",
         .request = KEY "-- 11s\n" KEY "--\n" KEY,
         .expect = "continue\n--\nrespond 403\n--\nerror"},
        {.name = "a hash",
         .config = "{ store main; record hash; field plan as plan; field none as none; }",
         .redis = "[$plan,$gold,$owner,$alice]",
         .request = KEY "--\n" KEY,
         .expect = "continue\nredis HGETALL " NAME
                   "\nvar api_key_plan=gold\nvar api_key_owner=alice\n--\ncontinue\n"
                   "var api_key_plan=gold\nvar api_key_owner=alice"},
        {.name = "an empty hash is none",
         .config = "{ store main; record hash; }",
         .redis = "[]",
         .request = KEY,
         .expect = "respond 403"},
        {.name = "an object",
         .config = "{ store main; record json; field a.b as b; field n as n; field list as list; }",
         .redis = "${\"owner\":\"alice\",\"a\":{\"b\":true},\"n\":7,\"list\":[\"x\",2]}\n$[1]\n$no",
         .request = KEY "-- 31s\n" KEY "--\n" KEY,
         .expect = "continue\nvar api_key_owner=alice\nvar api_key_b=true\nvar api_key_n=7\n"
                   "var api_key_list=x 2\n--\nerror\n--\nerror"},
        {.name = "in the query",
         .config = "store=main query=k",
         .redis = "$alice",
         .request = KEY,
         .expect = "continue\nvar uri=/a?z=1\nreq x-api-key: k"},
        {.name = "in a cookie",
         .config = "store=main cookie=k",
         .redis = "$alice",
         .request = GET("cookie: a=1; k=k; b=2\n"),
         .expect = "continue\nreq cookie: a=1; b=2"},
        {.name = "with a scheme, and forwarded",
         .config = "store=main header=Authorization scheme=Token forward=on",
         .redis = "$alice",
         .request = GET("authorization: token  k\n") "--\n" GET("authorization: Basic k\n"),
         .expect = "continue\nreq authorization: token  k\n--\nrespond 401"},
};

WEIR_MODULE(.name = "api_key", .version = "1.0", WEIR_ARGS(struct conf, args), WEIR_CASES(cases),
            .ctx_size = sizeof(struct ctx), .create = create, .on_request = request);
