/*
 * Keys that a server publishes: fetched by background work, kept in a cell that all loops read.
 *
 * The difficulty is who asks when.  Every loop has work that looks whether it is time, and the
 * first one to find so asks for all.  When it is time the server says itself (Cache-Control), but
 * it can neither make us ask all the time nor keep a key in force for ever.  A token that names a
 * key nobody knows makes it time at once, for keys change; but not within `retry` of the last time,
 * or anybody could make us ask for ever. What cannot be had or read changes nothing: the last keys
 * stay.
 */
#include "jwt.h"

#include <stdatomic.h>

#define TIMEOUT_US INT64_C(5000000)
#define BODY_MAX   (128 * 1024)
#define MINUTE_US  INT64_C(60000000)
#define HOUR_US    (60 * MINUTE_US)
#define DAY_US     (24 * HOUR_US)

/* Of one instance, for all loops of the process. */
struct jwt_fetch {
        const struct jwt_source *source;
        weir_metric *fetched, *failed;
        int64_t refresh, min_refresh, max_refresh; /* min <= refresh <= max */
        _Atomic int64_t last;                      /* when the last one began */
        _Atomic int64_t gap;                       /* from that one to the next */
        _Atomic int under_way, has_failed;
        _Atomic uint64_t finished; /* how many have ended, in whatever way */
};

static int64_t less(int64_t a, int64_t b)
{
        return a < b ? a : b;
}

/* What is not given follows from what is.  0: an error is reported. */
static int find_times(weir_conf *conf, struct jwt_fetch *f)
{
        const struct jwt_source *s = f->source;
        const int64_t *wrong = s->min_refresh ? &s->min_refresh : &s->max_refresh;

        f->max_refresh = s->max_refresh ? s->max_refresh : s->refresh ? s->refresh : DAY_US;
        f->min_refresh = s->min_refresh ? s->min_refresh
                                        : less(MINUTE_US, s->refresh ? s->refresh : f->max_refresh);
        f->refresh = s->refresh ? s->refresh : less(HOUR_US, f->max_refresh);
        if (s->refresh == 0 && f->refresh < f->min_refresh)
                f->refresh = f->min_refresh;
        atomic_init(&f->gap, f->refresh);
        if (f->min_refresh <= f->refresh && f->refresh <= f->max_refresh)
                return 1;
        weir->conf_error(conf, wrong,
                         "refresh must be between min_refresh (%lld ms) and max_refresh (%lld ms)",
                         (long long)(f->min_refresh / 1000), (long long)(f->max_refresh / 1000));
        return 0;
}

int jwt_fetch_create(weir_conf *conf, struct jwt_conf *c)
{
        if (c->sources.n == 0)
                return 1;
        if (c->sources.n > 1) {
                weir->conf_error(conf, (const struct jwt_source *)c->sources.v + 1,
                                 "there can be one jwks_upstream");
                return 0;
        }
        c->fetch = weir->alloc(conf, sizeof(*c->fetch));
        c->fetch->source = c->sources.v;
        if (!find_times(conf, c->fetch))
                return 0;
        atomic_init(&c->fetch->last, INT64_MIN / 2);
        c->fetch->fetched =
                weir->conf_metric(conf, WEIR_COUNTER, "fetches_total{result=\"fetched\"}",
                                  "Fetches of keys.", NULL, 0);
        c->fetch->failed = weir->conf_metric(conf, WEIR_COUNTER, "fetches_total{result=\"failed\"}",
                                             "Fetches of keys.", NULL, 0);
        c->cell = weir->conf_cell(conf, jwt_set_free);
        return 1;
}

/* One asks for all.  0: it is not time yet, or another one was first. */
static int claim(struct jwt_fetch *f, int64_t gap)
{
        int64_t now = weir->now_us(), last = atomic_load(&f->last);

        if (now - last < gap || !atomic_compare_exchange_strong(&f->last, &last, now))
                return 0;
        atomic_store(&f->under_way, 1);
        return 1;
}

static void ended(struct jwt_fetch *f, int good)
{
        weir->metric_add(good ? f->fetched : f->failed, 1);
        atomic_store(&f->has_failed, !good);
        atomic_store(&f->under_way, 0);
        atomic_fetch_add(&f->finished, 1);
}

static int64_t gap_after(const struct jwt_fetch *f, const weir_http_res *res)
{
        int64_t said = jwt_lifetime(res->fields, res->n_fields);

        if (said < 0)
                return f->refresh;
        return said < f->min_refresh ? f->min_refresh : less(said, f->max_refresh);
}

static weir_rc answered(weir_task *t, const void *inst, void *ctx, const weir_http_res *res,
                        void *arg)
{
        const struct jwt_conf *c = inst;
        const struct jwt_set *before = weir->cell_get(t, c->cell);
        struct jwt_set *set = res->status == 200 ? jwt_set_of_jwks(t, res->body) : NULL;

        (void)ctx, (void)arg;
        if (res->status == 0)
                weir->log(t, WEIR_LOG_WARN, "the keys were not fetched: %.*s", WEIR_S(res->body));
        else if (res->status != 200)
                weir->log(t, WEIR_LOG_WARN, "the keys were not fetched: status %d", res->status);
        else if (set == NULL)
                weir->log(t, WEIR_LOG_WARN,
                          "what was fetched is no JWKS document with a key to verify with");
        if (set != NULL)
                atomic_store(&c->fetch->gap, gap_after(c->fetch, res));
        if (set != NULL && before != NULL && memcmp(set->digest, before->digest, 32) == 0)
                jwt_set_free(set); /* what was verified with the same keys stays so */
        else if (set != NULL)
                weir->cell_set(c->cell, set);
        ended(c->fetch, set != NULL);
        return WEIR_DONE;
}

static weir_rc ask(weir_task *t, const void *inst, void *ctx, void *arg)
{
        const struct jwt_conf *c = inst;
        const struct jwt_source *s = c->fetch->source;
        const weir_kv fields[] = {{WEIR_STR("Accept"), WEIR_STR("application/json")},
                                  {WEIR_STR("Host"), s->host}};
        weir_rc rc = weir->http(t, s->upstream,
                                WEIR_HTTP(.path = s->path, .timeout_us = TIMEOUT_US,
                                          .max_body = BODY_MAX, .fields = fields,
                                          .n_fields = s->host.p ? 2 : 1),
                                answered, NULL);

        (void)ctx, (void)arg;
        if (rc != WEIR_SUSPEND)
                ended(c->fetch, 0);
        return rc;
}

/* On each loop, for ever. */
static weir_rc look(weir_task *t, const void *inst, void *ctx, void *arg)
{
        const struct jwt_conf *c = inst;
        struct jwt_fetch *f = c->fetch;
        int64_t soon = less(f->source->retry, f->min_refresh), gap = atomic_load(&f->gap);

        if (atomic_load(&f->has_failed))
                gap = less(gap, f->source->retry);

        if (weir->spawn(t, soon, look, NULL, 0))
                return WEIR_ERROR;
        return claim(f, gap) ? ask(t, inst, ctx, arg) : WEIR_DONE;
}

weir_err jwt_fetch_begin(weir_task *t, const struct jwt_conf *c)
{
        return c->fetch ? weir->spawn(t, 0, look, NULL, 0) : WEIR_OK;
}

int jwt_fetch_early(weir_task *t, const struct jwt_conf *c)
{
        if (atomic_load(&c->fetch->under_way))
                return 1;
        if (!claim(c->fetch, c->fetch->source->retry))
                return 0;
        if (weir->spawn(t, 0, ask, NULL, 0) == WEIR_OK)
                return 1;
        atomic_store(&c->fetch->under_way, 0);
        return 0;
}

uint64_t jwt_fetch_count(const struct jwt_conf *c)
{
        return atomic_load(&c->fetch->finished);
}
