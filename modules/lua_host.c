/*
 * log, metric, store, clocks, randomness and digests: host calls that need no more than their
 * arguments.
 */
#include "lua_module.h"

#include <lualib.h>

/* ------------------------------------------------------------------ log */

/* The arguments, as print would show them, with spaces between. */
static weir_str sentence(lua_State *L)
{
        int n = lua_gettop(L);
        weir_str s;

        for (int i = 1; i <= n; i++) {
                lua_getglobal(L, "tostring");
                lua_pushvalue(L, i);
                lua_call(L, 1, 1);
                lua_replace(L, i);
        }
        luaL_checkstack(L, n + 1, "too much to log");
        for (int i = 1; i < n; i++) {
                lua_pushliteral(L, " ");
                lua_insert(L, 2 * i);
        }
        if (n == 0)
                lua_pushliteral(L, "");
        else
                lua_concat(L, 2 * n - 1);
        s.p = lua_tolstring(L, -1, &s.n);
        return s;
}

static int log_line(lua_State *L)
{
        weir_str s = sentence(L);

        weir->log(state_of(L)->task, (int32_t)lua_tointeger(L, lua_upvalueindex(2)), "%.*s",
                  WEIR_S(s));
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

void host_open(lua_State *L, struct state *s)
{
        lua_newtable(L);
        state_add(L, s, "error", log_line, WEIR_LOG_ERROR);
        state_add(L, s, "warn", log_line, WEIR_LOG_WARN);
        state_add(L, s, "info", log_line, WEIR_LOG_INFO);
        state_add(L, s, "debug", log_line, WEIR_LOG_DEBUG);
        lua_setglobal(L, "log");

        lua_newtable(L);
        state_add(L, s, "add", metric_add, 0);
        state_add(L, s, "set", metric_set, 0);
        lua_setglobal(L, "metric");

        lua_newtable(L);
        state_add(L, s, "get", store_get, 0);
        state_add(L, s, "set", store_set, 0);
        state_add(L, s, "del", store_del, 0);
        state_add(L, s, "incr", store_incr, 0);
        lua_setglobal(L, "store");

        lua_pushvalue(L, LUA_GLOBALSINDEX);
        state_add(L, s, "print", log_line, WEIR_LOG_INFO);
        state_add(L, s, "time", wall, 0);
        state_add(L, s, "now", now, 0);
        state_add(L, s, "random_bytes", random_bytes, 0);
        state_add(L, s, "sha256", sha256, 0);
        state_add(L, s, "hmac_sha256", hmac_sha256, 0);
        state_add(L, s, "equal", equal, 0);
        lua_pop(L, 1);
}
