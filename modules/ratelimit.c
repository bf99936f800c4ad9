/*
 * ratelimit: at most so many requests for each key, counted in one place for all loops and workers,
 * or in Redis for all machines.
 *
 *     limit api { rate 100/s; burst 200; key $client_ip; store main; }       function ratelimit
 * api; function ratelimit rate=5/m burst=5 key=$client_ip on_store_error=deny;
 *
 * The algorithm is GCRA: a key is one time stamp, the moment when its allowance will be full again
 * ("tat").  A request costs T = 1/rate; it conforms when after it that moment is no further away
 * than burst * T.  That is a token bucket of `burst` tokens filled at `rate`, in eight bytes.
 *
 * The difficulty is the store that is away: then on_store_error says what clients get, within the
 * block's `timeout command=`. A refusal is remembered here for as long as it holds, so a flood
 * costs Redis one command per key and refusal.
 */
#include <weir/module.h>

#include <arpa/inet.h>

#define LONGEST_US INT64_C(900000000000000) /* 28 years: what a burst may take to refill */

enum { ALLOW, DENY, LOCAL };
enum { ALLOWED, LIMITED, DEGRADED_ALLOWED, DEGRADED_LIMITED, RESULTS };

struct conf {
        weir_rate rate;
        int64_t burst;
        const weir_template *key;
        weir_redis *store; /* NULL: local */
        int32_t on_store_error;
        int32_t fields;
        int64_t ipv6_prefix;
        weir_str secret;
        /* worked out by create */
        int64_t cost_ns, depth_ns; /* T, and burst * T */
        weir_str name, shown;      /* shown: as a string of structured fields, with its quotes */
        weir_str policy;           /* RateLimit-Policy */
        weir_str cost_us, depth_us;
        weir_script *script;
        weir_metric *metric[RESULTS];
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, rate, RATE, WEIR_REQUIRED, NULL, "How many requests in which time.",
                 .min = 1, .max = INT64_C(1000000000)),
        WEIR_ARG(struct conf, burst, INT, 0, NULL,
                 "How many at once after a pause; when not given, the rate's number.", .min = 1,
                 .max = INT64_C(1000000000)),
        WEIR_ARG(struct conf, key, TEMPLATE, 0, "$client_ip",
                 "What is counted apart: requests whose key is the same share one allowance."),
        WEIR_ARG(struct conf, store, STORE, 0, "local",
                 "Where it is counted: local, or the name of a redis block."),
        WEIR_ARG(struct conf, on_store_error, ENUM, 0, "local",
                 "When the store does not answer: allow, deny (503), or count here (local).",
                 .choices = "allow deny local"),
        WEIR_ARG(struct conf, fields, BOOL, 0, "on",
                 "Send RateLimit and RateLimit-Policy with responses."),
        WEIR_ARG(struct conf, ipv6_prefix, INT, 0, "64",
                 "A key that is an IPv6 address counts for its network of this length.", .min = 1,
                 .max = 128),
        WEIR_ARG(struct conf, secret, STR, WEIR_SECRET, "weir",
                 "Names in Redis are digests keyed with it: the same on all machines that share a "
                 "limit."),
};

/* All of a decision, at Redis' own time.  KEYS[1] the key; ARGV T and burst * T in microseconds.
 * Answers {conforms, microseconds until the allowance is full, microseconds until a request will
 * conform}. */
static const char script[] =
        "local t = redis.call('TIME')\n"
        "local now = t[1] * 1000000 + t[2]\n"
        "local cost, depth = tonumber(ARGV[1]), tonumber(ARGV[2])\n"
        "local tat = tonumber(redis.call('GET', KEYS[1]) or now)\n"
        "if tat < now then tat = now end\n"
        "if tat > now + depth then tat = now + depth end\n"
        "if tat + cost > now + depth then\n"
        "  return {0, math.ceil(tat - now), math.ceil(tat + cost - depth - now)}\n"
        "end\n"
        "tat = tat + cost\n"
        "redis.call('SET', KEYS[1], string.format('%.1f', tat), 'PX',"
        " math.ceil((tat - now) / 1000) + 1)\n"
        "return {1, math.ceil(tat - now), 0}\n";

/* A request on its way to a decision. */
struct ctx {
        weir_str key;    /* what is counted */
        weir_str bucket; /* its name in Redis */
};

/* ------------------------------------------------------------------ create */

/* For structured fields, with its quotes.  A name that weir made shows the route, which is nobody's
 * business. */
static weir_str shown(weir_conf *c, weir_str name)
{
        for (size_t i = 0; i < name.n; i++) {
                char l = (char)(name.p[i] | 32);
                if (!(l >= 'a' && l <= 'z') && !(name.p[i] >= '0' && name.p[i] <= '9') &&
                    strchr("-_.", name.p[i]) == NULL)
                        return WEIR_STR("\"default\"");
        }
        return weir->format(c, "\"%.*s\"", WEIR_S(name));
}

static int64_t seconds_up(int64_t us)
{
        return (us + 999999) / 1000000;
}

static weir_err create(weir_conf *conf, void *inst)
{
        static const char *const names[RESULTS] = {
                "total{result=\"allowed\"}",
                "total{result=\"limited\"}",
                "total{result=\"allowed_degraded\"}",
                "total{result=\"limited_degraded\"}",
        };
        struct conf *c = inst;
        double cost = (double)c->rate.per_us * 1000 / (double)c->rate.count;

        if (c->burst == 0)
                c->burst = c->rate.count;
        if (cost * (double)c->burst > (double)LONGEST_US * 1000)
                return weir->conf_error(conf, &c->burst,
                                        "the burst takes more than 28 years to refill");
        c->cost_ns = cost < 1 ? 1 : (int64_t)cost;
        c->depth_ns = (int64_t)(cost * (double)c->burst);
        if (c->depth_ns < c->cost_ns)
                c->depth_ns = c->cost_ns;
        c->cost_us = weir->format(conf, "%.3f", cost / 1000);
        c->depth_us = weir->format(conf, "%.3f", cost * (double)c->burst / 1000);
        c->name = weir->conf_name(conf);
        c->shown = shown(conf, c->name);
        c->policy = weir->format(conf, "%.*s;q=%lld;w=%lld", WEIR_S(c->shown), (long long)c->burst,
                                 (long long)seconds_up(c->depth_ns / 1000));
        c->script = weir->conf_script(conf, weir_bytes(script, sizeof(script) - 1));
        for (int i = 0; i < RESULTS; i++)
                c->metric[i] = weir->conf_metric(conf, WEIR_COUNTER, names[i],
                                                 "Decisions of limits.", NULL, 0);
        return WEIR_OK;
}

/* ------------------------------------------------------------------ answers */

/* left_us: until the allowance is full. */
static void tell(weir_req *r, const struct conf *c, int64_t left_us)
{
        int64_t room = (c->depth_ns / 1000 - left_us) * 1000 / c->cost_ns;

        if (!c->fields)
                return;
        weir->header_add(r, WEIR_RESPONSE, WEIR_STR("RateLimit-Policy"), c->policy);
        weir->header_add(r, WEIR_RESPONSE, WEIR_STR("RateLimit"),
                         weir->format(r, "%.*s;r=%lld;t=%lld", WEIR_S(c->shown),
                                      (long long)(room > 0 ? room : 0),
                                      (long long)seconds_up(left_us)));
}

/* Up to a tenth more at random, so that those who were refused together do not come back together.
 */
static int64_t retry_after(int64_t retry_us)
{
        int64_t s = seconds_up(retry_us);
        uint32_t jitter;

        if (s < 1)
                s = 1;
        weir->random(&jitter, sizeof(jitter));
        return s + (int64_t)(jitter % (uint64_t)(s / 10 + 1));
}

static weir_rc refuse(weir_req *r, int32_t status, int64_t retry_us)
{
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("Retry-After"),
                         weir->format(r, "%lld", (long long)retry_after(retry_us)));
        return weir->respond(r, status,
                             status == 429 ? WEIR_STR("too many requests\n")
                                           : WEIR_STR("the limit cannot be checked\n"));
}

/* tag, the limit's name and the key, apart by a NUL, which a name cannot hold. */
static weir_str joined(weir_req *r, char tag, weir_str name, weir_str key)
{
        char *p = weir->alloc(r, name.n + key.n + 2);

        if (p == NULL)
                return weir_bytes(NULL, 0);
        p[0] = tag;
        memcpy(p + 1, name.p, name.n);
        p[name.n + 1] = '\0';
        memcpy(p + name.n + 2, key.p, key.n);
        return weir_bytes(p, name.n + key.n + 2);
}

/* ------------------------------------------------------------------ counting here */

struct decision {
        const struct conf *c;
        int64_t now_ns, left_ns, retry_ns;
};

/* One key's record changes while nobody else looks at it. */
static void gcra(void *record, void *arg)
{
        struct decision *d = arg;
        int64_t tat, *stored = record;

        tat = *stored > d->now_ns ? *stored : d->now_ns;
        if (tat > d->now_ns + d->c->depth_ns) /* the burst was larger before a reload */
                tat = d->now_ns + d->c->depth_ns;
        d->left_ns = tat - d->now_ns;
        d->retry_ns = d->left_ns + d->c->cost_ns - d->c->depth_ns;
        if (d->retry_ns > 0)
                return;
        d->retry_ns = 0;
        *stored = tat + d->c->cost_ns;
        d->left_ns += d->c->cost_ns;
}

static weir_rc decide_here(weir_req *r, const struct conf *c, weir_str key, int degraded)
{
        struct decision d = {.c = c, .now_ns = weir->now_us() * 1000};
        weir_str name = joined(r, degraded ? 'f' : 'l', c->name, key);

        if (weir->local_update(r, name, sizeof(int64_t), c->depth_ns / 1000 + 1000000, gcra, &d))
                return WEIR_ERROR;
        weir->metric_add(
                c->metric[(d.retry_ns ? LIMITED : ALLOWED) + (degraded ? DEGRADED_ALLOWED : 0)], 1);
        if (!degraded)
                tell(r, c, (d.left_ns + 999) / 1000);
        return d.retry_ns ? refuse(r, 429, d.retry_ns / 1000) : WEIR_CONTINUE;
}

/* ------------------------------------------------------------------ counting in Redis */

static weir_rc store_failed(weir_req *r, const struct conf *c, weir_str key)
{
        if (c->on_store_error == LOCAL)
                return decide_here(r, c, key, 1);
        if (c->on_store_error == ALLOW) {
                weir->metric_add(c->metric[DEGRADED_ALLOWED], 1);
                return WEIR_CONTINUE;
        }
        weir->metric_add(c->metric[DEGRADED_LIMITED], 1);
        return refuse(r, 503, 0);
}

/* What is known of a refusal that still holds: when it ends, and when the allowance will be full.
 */
struct refusal {
        int64_t until_us, full_us;
};

static weir_rc limited(weir_req *r, const struct conf *c, const struct refusal *f)
{
        int64_t now = weir->now_us();

        weir->metric_add(c->metric[LIMITED], 1);
        tell(r, c, f->full_us - now);
        return refuse(r, 429, f->until_us - now);
}

/* {0 or 1, time, time}: a store that answers anything else has decided nothing. */
static int is_decision(const weir_value *v)
{
        if (v->type != WEIR_V_ARRAY || v->n != 3)
                return 0;
        for (size_t i = 0; i < 3; i++)
                if (v->elem[i]->type != WEIR_V_INTEGER || v->elem[i]->integer < 0 ||
                    v->elem[i]->integer > LONGEST_US)
                        return 0;
        return v->elem[0]->integer <= 1;
}

static weir_rc replied(weir_req *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;
        struct refusal f;
        int64_t now = weir->now_us();

        (void)arg;
        if (!is_decision(v)) {
                if (v->type == WEIR_V_ERROR)
                        weir->log(r, WEIR_LOG_ERROR, "the store answered %.*s", WEIR_S(v->str));
                else if (v->type != WEIR_V_FAIL)
                        weir->log(r, WEIR_LOG_ERROR, "the store's answer is no decision");
                return store_failed(r, c, x->key);
        }
        f.full_us = now + v->elem[1]->integer;
        f.until_us = now + v->elem[2]->integer;
        if (v->elem[0]->integer == 0) {
                weir->local_set(r, x->bucket, weir_bytes(&f, sizeof(f)), v->elem[2]->integer);
                return limited(r, c, &f);
        }
        weir->metric_add(c->metric[ALLOWED], 1);
        tell(r, c, v->elem[1]->integer);
        return WEIR_CONTINUE;
}

/* Nothing that a client sends stands in Redis, and nobody can make two keys fall together. */
static weir_str bucket_of(weir_req *r, const struct conf *c, weir_str key)
{
        weir_str both = joined(r, 'r', c->name, key);
        uint8_t md[32];

        if (both.p == NULL)
                return both;
        weir->hmac_sha256(c->secret, both, md);
        both = weir->encode(r, WEIR_HEX, weir_bytes(md, 16));
        return weir->format(r, "weir:rl:{%.*s}", WEIR_S(both));
}

static weir_rc decide_there(weir_req *r, const struct conf *c, struct ctx *x)
{
        weir_str known;
        struct refusal f;

        x->bucket = bucket_of(r, c, x->key);
        if (x->bucket.p == NULL)
                return WEIR_ERROR;
        if (weir->local_get(r, x->bucket, &known) && known.n == sizeof(f)) {
                memcpy(&f, known.p, sizeof(f));
                if (f.until_us > weir->now_us())
                        return limited(r, c, &f);
        }
        return weir->redis_script(r, c->store, c->script, 1, replied, NULL,
                                  WEIR_ARGV(x->bucket, c->cost_us, c->depth_us));
}

/* ------------------------------------------------------------------ the hook */

/* One client can have a whole IPv6 network of addresses. */
static weir_str network(weir_req *r, const struct conf *c, weir_str key)
{
        char text[INET6_ADDRSTRLEN];
        unsigned char a[16];

        if (key.n < 2 || key.n >= sizeof(text) || c->ipv6_prefix == 128 ||
            memchr(key.p, ':', key.n) == NULL)
                return key;
        memcpy(text, key.p, key.n);
        text[key.n] = '\0';
        if (inet_pton(AF_INET6, text, a) != 1)
                return key;
        for (int64_t bit = c->ipv6_prefix; bit < 128; bit++)
                a[bit / 8] &= (unsigned char)~(128 >> bit % 8);
        inet_ntop(AF_INET6, a, text, sizeof(text));
        return weir->format(r, "%s/%lld", text, (long long)c->ipv6_prefix);
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;

        x->key = weir->expand(r, c->key);
        if (x->key.p == NULL)
                return WEIR_ERROR;
        x->key = network(r, c, x->key);
        return c->store == NULL ? decide_here(r, c, x->key, 0) : decide_there(r, c, x);
}

/* ------------------------------------------------------------------ cases */

#define GET        "GET /?k=a HTTP/1.1\nhost: a\n\n"
#define OTHER      "GET /?k=b HTTP/1.1\nhost: a\n\n"
#define KEYED(...) "{ rate 1/s; burst 2; key $arg_k; " __VA_ARGS__ " }"
static const weir_case cases[] = {
        {.name = "a burst, a refusal, and the next token",
         .config = KEYED("store local;"),
         .request = GET "--\n" GET "--\n" GET "-- 1s\n" GET,
         .expect = "continue\n--\ncontinue\n--\nrespond 429\nres retry-after: 1\n--\ncontinue"},
        {.name = "keys are apart",
         .config = KEYED(""),
         .request = GET "--\n" GET "--\n" GET "--\n" OTHER,
         .expect = "continue\n--\ncontinue\n--\nrespond 429\n--\ncontinue"},
        {.name = "redis allows",
         .config = KEYED("store main;"),
         .request = GET,
         .redis = "[1,1000000,0]",
         .expect = "continue\nres ratelimit-policy: \"case\";q=2;w=2\nres ratelimit: "
                   "\"case\";r=1;t=1"},
        {.name = "a refusal is remembered",
         .config = KEYED("store main;"),
         .request = GET "--\n" GET "-- 3s\n" GET,
         .redis = "[0,2000000,2000000]\n[1,1000000,0]",
         .expect = "respond 429\nres retry-after: 2\n--\nrespond 429\n--\ncontinue"},
        {.name = "an answer that is no decision",
         .config = KEYED("store main; on_store_error deny;"),
         .request = GET "--\n" GET "--\n" GET "--\n" GET "--\n" GET,
         .redis = "[_,_,_]\n[$1,$2,$3]\n[0,-5,-7]\n[0,9223372036854775807,1]\n[1,1]",
         .expect =
                 "respond 503\n--\nrespond 503\n--\nrespond 503\n--\nrespond 503\n--\nrespond 503"},
        {.name = "the store is away: allow",
         .config = KEYED("store main; on_store_error allow;"),
         .request = GET,
         .redis = "!",
         .expect = "continue\nres -ratelimit"},
        {.name = "the store is away: deny",
         .config = KEYED("store main; on_store_error deny;"),
         .request = GET,
         .redis = "~",
         .expect = "respond 503\nres retry-after: 1"},
        {.name = "the store is away: local",
         .config = KEYED("store main;"),
         .request = GET "--\n" GET "--\n" GET,
         .redis = "!\n!\n!",
         .expect = "continue\n--\ncontinue\n--\nrespond 429"},
};

WEIR_MODULE(.name = "ratelimit", .version = "1.0", WEIR_ARGS(struct conf, args), .named = "limit",
            WEIR_CASES(cases), .ctx_size = sizeof(struct ctx), .create = create,
            .on_request = request);
