/*
 * log, metric, store, clocks, randomness and digests: host calls that need no more than their
 * arguments.
 */
#include "lua_module.h"

#include <lualib.h>
#include <stdlib.h>

/* ------------------------------------------------------------------ log */

#define FIELDS_MAX 32

/* The value at `at` as print would show it, in its place; its bytes are the state's while it is
 * there. */
static weir_str show(lua_State *L, int at)
{
        weir_str s;

        lua_getglobal(L, "tostring");
        lua_pushvalue(L, at);
        lua_call(L, 1, 1);
        lua_replace(L, at);
        s.p = lua_tolstring(L, at, &s.n);
        return s;
}

/* The first n values, as print would show them, with spaces between; on top of the stack then. */
static weir_str sentence(lua_State *L, int n)
{
        weir_str s;

        luaL_checkstack(L, 2 * n + 1, "too much to log");
        for (int i = 1; i <= n; i++) {
                if (i > 1)
                        lua_pushliteral(L, " ");
                lua_pushvalue(L, i);
                (void)show(L, lua_gettop(L));
        }
        if (n == 0)
                lua_pushliteral(L, "");
        else
                lua_concat(L, 2 * n - 1);
        s.p = lua_tolstring(L, -1, &s.n);
        return s;
}

static int by_name(const void *a, const void *b)
{
        const weir_kv *x = a, *y = b;
        int order = memcmp(x->name.p, y->name.p, x->name.n < y->name.n ? x->name.n : y->name.n);

        return order != 0 ? order : (x->name.n > y->name.n) - (x->name.n < y->name.n);
}

/* The members of the table at `at`, by name; their strings stay on the stack. */
static size_t named(lua_State *L, int at, weir_kv *kv)
{
        size_t n = 0;

        luaL_checkstack(L, 2 * FIELDS_MAX + 8, "too much to log");
        lua_pushnil(L);
        while (n < FIELDS_MAX && lua_next(L, at) != 0) {
                int value = lua_gettop(L);
                lua_pushvalue(L, value - 1); /* show would change the key under lua_next */
                lua_insert(L, value - 1);    /* copy, key, value */
                lua_insert(L, value - 1);    /* value, copy, key: as lua_next wants it */
                kv[n].name = show(L, value);
                kv[n].value = show(L, value - 1);
                n++;
        }
        qsort(kv, n, sizeof(*kv), by_name);
        return n;
}

static int log_line(lua_State *L)
{
        int32_t level = (int32_t)lua_tointeger(L, lua_upvalueindex(1));
        int n = lua_gettop(L);
        weir_kv kv[FIELDS_MAX] = {{{NULL, 0}, {NULL, 0}}};
        size_t n_kv = n > 0 && lua_istable(L, n) ? named(L, n--, kv) : 0;

        weir->log_fields(state_of(L)->task, level, sentence(L, n), kv, n_kv);
        return 0;
}

/* ------------------------------------------------------------------ metrics */

static weir_metric *metric_of(lua_State *L)
{
        weir_str name = state_string(L, 1);

        WEIR_EACH (struct metric_line, line, state_of(L)->conf->metrics)
                if (weir_eq(line->name, name))
                        return line->metric;
        state_raise(L, "metric %s: write counter %s; or gauge %s; in the function's block", name.p,
                    name.p, name.p);
        return NULL;
}

static int metric_add(lua_State *L)
{
        weir_metric *m = metric_of(L);

        weir->metric_add(m, luaL_optnumber(L, 2, 1));
        return 0;
}

static int metric_set(lua_State *L)
{
        weir_metric *m = metric_of(L);

        weir->metric_set(m, luaL_checknumber(L, 2));
        return 0;
}

/* ------------------------------------------------------------------ the local store */

/* Strings and counters are apart: a counter is a number, not its text. */
static weir_str key_of(lua_State *L, const char *kind)
{
        weir_str key;

        state_string(L, 1);
        lua_pushstring(L, kind);
        lua_pushvalue(L, 1);
        lua_concat(L, 2);
        key.p = lua_tolstring(L, -1, &key.n);
        lua_replace(L, 1);
        return key;
}

static int64_t ttl_of(lua_State *L, int i)
{
        double s = luaL_optnumber(L, i, 0);

        if (!(s >= 0 && s < 1e9))
                state_raise(L, "store: the time to live is in seconds, 0 for no end");
        return (int64_t)(s * 1e6);
}

static int store_get(lua_State *L)
{
        weir_str v;

        if (weir->local_get(state_of(L)->task, key_of(L, "s"), &v))
                return state_push(L, v);
        lua_pushnil(L);
        return 1;
}

/* store.set(key, value, seconds): whether there was room. */
static int store_set(lua_State *L)
{
        int64_t ttl = ttl_of(L, 3);
        weir_str value = state_string(L, 2);

        lua_pushboolean(L,
                        weir->local_set(state_of(L)->task, key_of(L, "s"), value, ttl) == WEIR_OK);
        return 1;
}

static int store_del(lua_State *L)
{
        weir_str key;

        lua_settop(L, 1);
        lua_pushvalue(L, 1);
        key = key_of(L, "s");
        weir->local_del(state_of(L)->task, key);
        lua_replace(L, 1);
        weir->local_del(state_of(L)->task, key_of(L, "n"));
        return 0;
}

struct step {
        double by, sum;
};

static void step(void *record, void *arg)
{
        double *n = record;
        struct step *s = arg;

        s->sum = *n += s->by;
}

/* store.incr(key, by, seconds): the new sum, or nil without room; by all loops and workers. */
static int store_incr(lua_State *L)
{
        struct step s = {.by = luaL_optnumber(L, 2, 1)};
        int64_t ttl = ttl_of(L, 3);

        if (weir->local_update(state_of(L)->task, key_of(L, "n"), sizeof(double), ttl, step, &s) ==
            WEIR_OK)
                lua_pushnumber(L, s.sum);
        else
                lua_pushnil(L);
        return 1;
}

/* ------------------------------------------------------------------ clocks, digests */

static int wall(lua_State *L)
{
        lua_pushnumber(L, (double)weir->wall_us() / 1e6);
        return 1;
}

static int now(lua_State *L)
{
        lua_pushnumber(L, (double)weir->now_us() / 1e6);
        return 1;
}

static int random_bytes(lua_State *L)
{
        char bytes[1024];
        lua_Integer n = luaL_checkinteger(L, 1);

        if (n < 0 || n > (lua_Integer)sizeof(bytes))
                return state_raise(L, "random_bytes: 0 to %d", (int)sizeof(bytes));
        weir->random(bytes, (size_t)n);
        return state_push(L, weir_bytes(bytes, (size_t)n));
}

static int sha256(lua_State *L)
{
        uint8_t md[32];

        weir->sha256(state_string(L, 1), md);
        return state_push(L, weir_bytes(md, sizeof(md)));
}

static int hmac_sha256(lua_State *L)
{
        uint8_t md[32];

        weir->hmac_sha256(state_string(L, 1), state_string(L, 2), md);
        return state_push(L, weir_bytes(md, sizeof(md)));
}

static int equal(lua_State *L)
{
        lua_pushboolean(L, weir->equal(state_string(L, 1), state_string(L, 2)));
        return 1;
}

/* ------------------------------------------------------------------ opening */

void host_open(lua_State *L)
{
        lua_newtable(L);
        state_add(L, "error", log_line, WEIR_LOG_ERROR);
        state_add(L, "warn", log_line, WEIR_LOG_WARN);
        state_add(L, "info", log_line, WEIR_LOG_INFO);
        state_add(L, "debug", log_line, WEIR_LOG_DEBUG);
        lua_setglobal(L, "log");

        lua_newtable(L);
        state_add(L, "add", metric_add, 0);
        state_add(L, "set", metric_set, 0);
        lua_setglobal(L, "metric");

        lua_newtable(L);
        state_add(L, "get", store_get, 0);
        state_add(L, "set", store_set, 0);
        state_add(L, "del", store_del, 0);
        state_add(L, "incr", store_incr, 0);
        lua_setglobal(L, "store");

        lua_pushvalue(L, LUA_GLOBALSINDEX);
        state_add(L, "print", log_line, WEIR_LOG_INFO);
        state_add(L, "time", wall, 0);
        state_add(L, "now", now, 0);
        state_add(L, "random_bytes", random_bytes, 0);
        state_add(L, "sha256", sha256, 0);
        state_add(L, "hmac_sha256", hmac_sha256, 0);
        state_add(L, "equal", equal, 0);
        lua_pop(L, 1);
}
