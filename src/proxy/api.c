/*
 * The host table: memory, the local store, logging, metrics, clocks and values; and the table
 * itself.
 *
 * Everything here runs on the task's thread, but for what T4 of the public header lists.
 */
#include "proxy/api.h"

#include "base/crypto.h"
#include "base/crypto_key.h"
#include "base/json.h"
#include "base/log.h"
#include "base/shm.h"
#include "proxy/filter.h"
#include "proxy/instance.h"
#include "proxy/vars.h"
#include "proxy/work.h"

#include <stdio.h>

static const weir_str failed_str = {NULL, 0};

/* ------------------------------------------------------------------ memory */

static bool room(const struct weir_task *t, size_t n, size_t held)
{
        size_t max, used;

        if (t->kind == TASK_WORK) {
                max = t->inst->memory;
                used = arena_used(t->arena);
        } else if (t->used == NULL) {
                return true;
        } else if (t->use->memory != 0) {
                max = t->use->memory;
                used = *t->used;
        } else { /* no memory= of its own: what the whole request may have */
                max = t->txn->eff->request_memory;
                used = arena_used(t->arena);
        }
        used += held;
        return max == 0 || (used <= max && n <= max - used);
}

bool api_room(const struct weir_task *t, size_t n)
{
        return room(t, n, t->held);
}

bool api_room_to_ask(const struct weir_task *t, size_t n)
{
        return room(t, n, 0);
}

static void *host_alloc(weir_task *t, size_t n)
{
        size_t before;
        void *p;

        if (!task_valid(t, ~0u, "alloc") || !api_room(t, n))
                return NULL;
        before = arena_used(t->arena);
        p = arena_zalloc(t->arena, n);
        api_took(t, before);
        return p;
}

static weir_str host_dup(weir_task *t, weir_str s)
{
        size_t before;
        str copy;

        if (!task_valid(t, ~0u, "dup") || s.p == NULL || !api_room(t, s.n + 1))
                return failed_str;
        before = arena_used(t->arena);
        copy = arena_dup(t->arena, api_str(s));
        api_took(t, before);
        return api_weir(copy);
}

static weir_str host_format(weir_task *t, const char *fmt, ...)
{
        size_t before;
        va_list ap;
        str s;

        if (!task_valid(t, ~0u, "format"))
                return failed_str;
        before = arena_used(t->arena);
        va_start(ap, fmt);
        s = arena_vprintf(t->arena, fmt, ap);
        va_end(ap);
        api_took(t, before);
        return api_room(t, 0) ? api_weir(s) : failed_str;
}

/* ------------------------------------------------------------------ background, loops */

static void *host_loop_data(weir_task *t)
{
        return task_valid(t, ~0u, "loop_data") && t->il != NULL ? t->il->data : NULL;
}

static int64_t host_time_left(weir_task *t)
{
        int64_t budget;

        if (!task_valid(t, ~0u, "time_left") || t->loop == NULL)
                return 0;
        budget = t->use->budget ? t->use->budget : SEC;
        return MAX(t->loop->now + budget - loop_clock(CLOCK_MONOTONIC), 0);
}

static int64_t host_now_us(void)
{
        return loop_self ? loop_self->now : loop_clock(CLOCK_MONOTONIC);
}

static int64_t host_wall_us(void)
{
        return loop_self ? loop_self->wall : loop_clock(CLOCK_REALTIME);
}

/* ------------------------------------------------------------------ the local store */

/* A module's own key space: its name, a tag, and the key, or its digest when it is long.  false:
 * nothing can be stored. */
static bool store_key(const struct weir_task *t, weir_str key, char out[STORE_KEY_MAX], str *full)
{
        str module;
        size_t n;

        if (!task_valid(t, ~0u, "local store") || key.p == NULL || t->inst->set->env.store == NULL)
                return false;
        module = str_z(t->inst->desc->name);
        memcpy(out, module.p, module.n);
        n = module.n;
        out[n++] = '\0';
        if (key.n < STORE_KEY_MAX - n) {
                out[n++] = 'k';
                memcpy(out + n, key.p, key.n);
                n += key.n;
        } else {
                out[n++] = 'h';
                crypto_sha256(api_str(key), (uint8_t *)out + n);
                n += 32;
        }
        *full = str_of(out, n);
        return true;
}

static int32_t host_local_get(weir_task *t, weir_str key, weir_str *value)
{
        char buf[STORE_KEY_MAX];
        size_t before;
        str full, v;

        if (!store_key(t, key, buf, &full) || !api_room(t, 0))
                return 0;
        before = arena_used(t->arena);
        if (!store_get(t->inst->set->env.store, full, host_now_us(), t->arena, &v))
                return 0;
        api_took(t, before);
        if (!api_room(t, 0))
                return 0;
        *value = api_weir(v);
        return v.p != NULL;
}

static weir_err host_local_set(weir_task *t, weir_str key, weir_str value, int64_t ttl_us)
{
        char buf[STORE_KEY_MAX];
        str full;

        if (value.p == NULL || ttl_us < 0)
                return WEIR_E_INVAL;
        if (!store_key(t, key, buf, &full))
                return WEIR_E_UNAVAIL;
        return store_set(t->inst->set->env.store, full, api_str(value), host_now_us(), ttl_us)
                       ? WEIR_OK
                       : WEIR_E_FULL;
}

static weir_err host_local_del(weir_task *t, weir_str key)
{
        char buf[STORE_KEY_MAX];
        str full;

        if (!store_key(t, key, buf, &full))
                return WEIR_E_UNAVAIL;
        store_del(t->inst->set->env.store, full);
        return WEIR_OK;
}

static weir_err host_local_update(weir_task *t, weir_str key, size_t n, int64_t ttl_us,
                                  void (*fn)(void *record, void *arg), void *arg)
{
        char buf[STORE_KEY_MAX];
        str full;

        if (ttl_us < 0)
                return WEIR_E_INVAL;
        if (!store_key(t, key, buf, &full))
                return WEIR_E_UNAVAIL;
        return store_update(t->inst->set->env.store, full, n, host_now_us(), ttl_us, fn, arg)
                       ? WEIR_OK
                       : WEIR_E_FULL;
}

/* ------------------------------------------------------------------ cells */

static const void *host_cell_get(weir_task *t, weir_cell *cell)
{
        struct cell_local *l;
        struct cell_hold *h;

        if (!task_valid(t, ~0u, "cell_get") || t->loop == NULL)
                return NULL;
        if (t->head != NULL) /* it stays valid for the request's other hooks */
                t = t->head;
        l = cell_pick(cell, set_index(t->inst->set, t->loop));
        if (l == NULL)
                return NULL;
        for (h = t->cells; h != NULL; h = h->next) {
                if (h->local == l) { /* this task has it already */
                        cell_done(l);
                        return cell_value(l);
                }
        }
        h = arena_alloc(t->arena, sizeof(*h));
        if (h == NULL) {
                cell_done(l);
                return NULL;
        }
        *h = (struct cell_hold){.next = t->cells, .local = l};
        t->cells = h;
        return cell_value(l);
}

/* ------------------------------------------------------------------ observing */

#define LINES_OF_THREADS 10 /* a second, of all threads that modules have made */
#define LOG_SUBJECT      256
#define LOG_FIELDS       64 /* more than fit into a line */

/* Whether a line of this task's is wanted now, and what it is about. */
static bool log_begin(weir_task *t, int32_t level, const char *call, enum log_level *l,
                      char subject[static LOG_SUBJECT])
{
        static struct log_quota threads;

        *l = level <= WEIR_LOG_ERROR   ? LOG_ERROR
             : level >= WEIR_LOG_DEBUG ? LOG_DEBUG
                                       : (enum log_level)(level - 1);
        if (!log_wants(*l) || (t != NULL && !task_valid(t, ~0u, call)))
                return false;
        if (t == NULL ? !log_quota(&threads, LINES_OF_THREADS)
                      : t->il != NULL && !instance_may_log(t->il, t->use->log_lines))
                return false;
        if (t != NULL && t->kind == TASK_REQUEST)
                snprintf(subject, LOG_SUBJECT, "%s request %.*s", t->inst->subject,
                         STR_ARG(str_head(t->txn->request_id, 64)));
        else
                snprintf(subject, LOG_SUBJECT, "%s", t ? t->inst->subject : "modules");
        return true;
}

static void host_log(weir_task *t, int32_t level, const char *fmt, ...)
{
        enum log_level l;
        char subject[LOG_SUBJECT];
        va_list ap;

        if (!log_begin(t, level, "log", &l, subject))
                return;
        va_start(ap, fmt);
        log_vwrite(l, subject, fmt, ap);
        va_end(ap);
}

static void host_log_fields(weir_task *t, int32_t level, weir_str message, const weir_kv *fields,
                            size_t n)
{
        struct log_field f[LOG_FIELDS];
        enum log_level l;
        char subject[LOG_SUBJECT];

        if (!log_begin(t, level, "log_fields", &l, subject))
                return;
        n = MIN(n, (size_t)LOG_FIELDS);
        for (size_t i = 0; i < n; i++)
                f[i] = (struct log_field){api_str(fields[i].name), api_str(fields[i].value)};
        log_write_fields(l, subject, api_str(message), f, n);
}

/* This thread's cells; another thread's (a module's own) use the control thread's. */
static metric_cell *metric_here(const weir_metric *m)
{
        const struct instance_set *s;

        if (m == NULL)
                return NULL;
        s = m->inst->set;
        return m->cells[loop_self ? set_index(s, loop_self) : s->env.n_loops];
}

static void host_metric_add(weir_metric *m, double v)
{
        metric_cell *c = metric_here(m);

        if (c != NULL && m->kind != WEIR_HISTOGRAM)
                metric_real_add(c, v);
}

static void host_metric_set(weir_metric *m, double v)
{
        metric_cell *c = metric_here(m);

        if (c == NULL)
                return;
        if (m->kind == WEIR_HISTOGRAM)
                metric_custom_observe(c, m->bounds, m->n_bounds, v);
        else if (m->kind == WEIR_GAUGE)
                metric_real_set(c, v);
}

/* ------------------------------------------------------------------ values */

static str encode_hex(struct arena *a, str s)
{
        char *p = arena_alloc(a, 2 * s.n + 1);

        if (p == NULL)
                return STR_NONE;
        crypto_hex(p, s.p, s.n);
        return str_of(p, 2 * s.n);
}

static str encode_json(struct arena *a, str s)
{
        struct buf b = BUF_INIT;
        str out;

        json_string(&b, s);
        out = arena_dup(a, buf_pullup(&b, b.n));
        buf_clear(&b);
        return out;
}

static str decode_hex(struct arena *a, str s)
{
        char *p = s.n % 2 == 0 ? arena_alloc(a, s.n / 2 + 1) : NULL;

        if (p == NULL)
                return STR_NONE;
        for (size_t i = 0; i < s.n / 2; i++) {
                int hi = str_hex_digit(s.p[2 * i]), lo = str_hex_digit(s.p[2 * i + 1]);
                if (hi < 0 || lo < 0)
                        return STR_NONE;
                p[i] = (char)(hi << 4 | lo);
        }
        return str_of(p, s.n / 2);
}

static str decode_percent(struct arena *a, str s)
{
        char *p = arena_alloc(a, s.n + 1);
        size_t n = 0;

        if (p == NULL)
                return STR_NONE;
        for (size_t i = 0; i < s.n; i++) {
                int hi, lo;
                if (s.p[i] != '%') {
                        p[n++] = s.p[i];
                        continue;
                }
                if (s.n - i < 3 || (hi = str_hex_digit(s.p[i + 1])) < 0 ||
                    (lo = str_hex_digit(s.p[i + 2])) < 0)
                        return STR_NONE;
                p[n++] = (char)(hi << 4 | lo);
                i += 2;
        }
        return str_of(p, n);
}

static str encode(struct arena *a, int32_t how, str s)
{
        switch (how) {
        case WEIR_HEX:
                return encode_hex(a, s);
        case WEIR_BASE64:
        case WEIR_BASE64URL:
                return crypto_base64(a, s, how == WEIR_BASE64URL);
        case WEIR_PERCENT:
                return vars_query_encode(a, s);
        case WEIR_JSON:
                return encode_json(a, s);
        default:
                return STR_NONE;
        }
}

static str decode(struct arena *a, int32_t how, str s)
{
        str out = STR_NONE;

        switch (how) {
        case WEIR_HEX:
                return decode_hex(a, s);
        case WEIR_BASE64:
        case WEIR_BASE64URL:
                return crypto_base64_decode(a, s, how == WEIR_BASE64URL, &out) ? out : STR_NONE;
        case WEIR_PERCENT:
                return decode_percent(a, s);
        default:
                return STR_NONE;
        }
}

static weir_str convert(weir_task *t, const char *call, str (*fn)(struct arena *, int32_t, str),
                        int32_t how, weir_str s)
{
        size_t before;
        str out;

        if (!task_valid(t, ~0u, call) || s.p == NULL || !api_room(t, s.n))
                return failed_str;
        before = arena_used(t->arena);
        out = fn(t->arena, how, api_str(s));
        api_took(t, before);
        return api_room(t, 0) ? api_weir(out) : failed_str;
}

static weir_str host_encode(weir_task *t, int32_t how, weir_str s)
{
        return convert(t, "encode", encode, how, s);
}

static weir_str host_decode(weir_task *t, int32_t how, weir_str s)
{
        return convert(t, "decode", decode, how, s);
}

/* base/json.h makes its values in the public layout. */
_Static_assert(sizeof(struct json_value) == sizeof(weir_value), "one layout");
_Static_assert(offsetof(struct json_value, str) == offsetof(weir_value, str), "one layout");
_Static_assert(offsetof(struct json_value, name) == offsetof(weir_value, name), "one layout");
_Static_assert(offsetof(struct json_value, elem) == offsetof(weir_value, elem), "one layout");
_Static_assert((int)JSON_V_NULL == (int)WEIR_V_NULL && (int)JSON_V_OBJECT == (int)WEIR_V_OBJECT,
               "one list of types");

static const weir_value *host_json_parse(weir_task *t, weir_str s)
{
        const struct json_value *v;
        size_t before;

        if (!task_valid(t, ~0u, "json_parse") || s.p == NULL || !api_room(t, s.n))
                return NULL;
        before = arena_used(t->arena);
        v = json_parse(t->arena, api_str(s));
        api_took(t, before);
        return api_room(t, 0) ? (const weir_value *)(const void *)v : NULL;
}

static bool write_value(struct weir_task *t, struct json_writer *w, const weir_value *v, int depth);

static bool write_elements(struct weir_task *t, struct json_writer *w, const weir_value *v,
                           int depth)
{
        bool object = v->type == WEIR_V_OBJECT;

        json_open(w, object ? '{' : '[');
        for (size_t i = 0; i < v->n; i++) {
                if (v->elem == NULL || v->elem[i] == NULL)
                        return false;
                if (object)
                        json_key(w, api_str(v->elem[i]->name));
                if (!write_value(t, w, v->elem[i], depth + 1))
                        return false;
        }
        json_close(w);
        return true;
}

static bool write_value(struct weir_task *t, struct json_writer *w, const weir_value *v, int depth)
{
        if (v->size < sizeof(*v) || depth > JSON_DEPTH_MAX || !api_room(t, w->out->n))
                return false;
        switch (v->type) {
        case WEIR_V_NULL:
                json_null(w);
                return true;
        case WEIR_V_BOOL:
                json_bool(w, v->integer != 0);
                return true;
        case WEIR_V_INTEGER:
                json_i64(w, v->integer);
                return true;
        case WEIR_V_NUMBER:
                json_double(w, v->number);
                return true;
        case WEIR_V_STRING:
                json_str(w, api_str(v->str));
                return true;
        case WEIR_V_ARRAY:
        case WEIR_V_OBJECT:
                return depth < JSON_DEPTH_MAX && write_elements(t, w, v, depth);
        default:
                return false;
        }
}

static weir_str host_json_write(weir_task *t, const weir_value *v)
{
        struct buf out = BUF_INIT;
        struct json_writer w;
        weir_str s = failed_str;

        if (!task_valid(t, ~0u, "json_write") || v == NULL)
                return s;
        json_begin(&w, &out);
        if (write_value(t, &w, v, 0))
                s = host_dup(t, api_weir(buf_pullup(&out, out.n)));
        buf_clear(&out);
        return s;
}

static void host_sha256(weir_str data, uint8_t out[32])
{
        crypto_sha256(api_str(data), out);
}

static void host_hmac_sha256(weir_str key, weir_str data, uint8_t out[32])
{
        crypto_hmac_sha256(api_str(key), api_str(data), out);
}

static int32_t host_equal(weir_str a, weir_str b)
{
        return a.p != NULL && b.p != NULL && crypto_equal(api_str(a), api_str(b));
}

/* ------------------------------------------------------------------ keys */

static weir_key *host_key_new(weir_task *t, weir_str text)
{
        struct crypto_key *k;
        size_t before;

        if (!task_valid(t, ~0u, "key_new") || text.p == NULL || !api_room(t, text.n))
                return NULL;
        before = arena_used(t->arena);
        k = crypto_key_new(t->arena, api_str(text));
        api_took(t, before);
        return (weir_key *)k;
}

static void host_key_free(weir_key *k)
{
        crypto_key_free((struct crypto_key *)k);
}

static int32_t host_key_verify(const weir_key *k, weir_str alg, weir_str data, weir_str sig)
{
        return crypto_key_verify((const struct crypto_key *)k, api_str(alg), api_str(data),
                                 api_str(sig));
}

/* ------------------------------------------------------------------ the table */

const weir_host api_host = {
        .size = sizeof(weir_host),
        .abi_major = WEIR_ABI_MAJOR,
        .abi_minor = WEIR_ABI_MINOR,
        .version = "weir " WEIR_VERSION,
        .alloc = host_alloc,
        .dup = host_dup,
        .format = host_format,
        .var_get = api_var_get,
        .var_set = api_var_set,
        .var_del = api_var_del,
        .expand = api_expand,
        .upstream_set = api_upstream_set,
        .header_get = api_header_get,
        .header_at = api_header_at,
        .header_set = api_header_set,
        .header_add = api_header_add,
        .header_del = api_header_del,
        .respond = api_respond,
        .redis = task_redis,
        .redis_script = task_redis_script,
        .timer = task_timer,
        .wait = task_wait,
        .wake = task_wake,
        .spawn = work_spawn,
        .loop_data = host_loop_data,
        .time_left = host_time_left,
        .local_get = host_local_get,
        .local_set = host_local_set,
        .local_del = host_local_del,
        .local_update = host_local_update,
        .cell_set = cell_put,
        .cell_get = host_cell_get,
        .log = host_log,
        .log_fields = host_log_fields,
        .metric_add = host_metric_add,
        .metric_set = host_metric_set,
        .now_us = host_now_us,
        .wall_us = host_wall_us,
        .random = crypto_random,
        .encode = host_encode,
        .decode = host_decode,
        .json_parse = host_json_parse,
        .regex_match = api_regex_match,
        .regex_replace = api_regex_replace,
        .sha256 = host_sha256,
        .hmac_sha256 = host_hmac_sha256,
        .equal = host_equal,
        .key_new = host_key_new,
        .key_free = host_key_free,
        .key_verify = host_key_verify,
        .conf_error = instance_conf_error,
        .conf_name = instance_conf_name,
        .conf_metric = instance_conf_metric,
        .conf_cell = instance_conf_cell,
        .conf_script = instance_conf_script,
        .http = task_http,
        .json_write = host_json_write,
        .body_mode = filter_body_mode,
        .body_emit = filter_body_emit,
        .body_drain = task_body_drain,
};
