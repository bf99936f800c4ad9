/*
 * What a hook waits for: redis, http and sleep.  They look like calls that block; the request is
 * suspended meanwhile, and the state serves others.
 *
 * The difficulty: what comes must become values of Lua, which can raise, so not in the completion
 * but in the coroutine, which goes on with a second C function:
 *
 *     function(...) start(store, ...) return finish() end
 */
#include "lua_module.h"

#include <lualib.h>
#include <stdlib.h>

#define REDIS_WORDS 64     /* of a command that need no memory of their own */
#define SLEEP_MAX   3600.0 /* seconds */

/* ------------------------------------------------------------------ sleep */

static weir_rc slept(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)inst;
        (void)ctx;
        return state_go_on(t, arg);
}

static int sleep_for(lua_State *L)
{
        struct call *x = state_call(L);
        double s = luaL_checknumber(L, 1);

        if (!(s >= 0 && s <= SLEEP_MAX))
                return state_raise(L, "sleep: 0 to %.0f seconds", SLEEP_MAX);
        if (weir->timer(x->r, (int64_t)(s * 1e6), slept, x) != WEIR_SUSPEND)
                return state_raise(L, "sleep: nothing can wait here, or memory= is used up");
        return lua_yield(L, 0);
}

/* ------------------------------------------------------------------ redis */

static weir_rc replied(weir_task *t, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        struct call *x = arg;

        (void)inst;
        (void)ctx;
        x->reply = v;
        return state_go_on(t, x);
}

/* start(store, word...) */
static int redis_start(lua_State *L)
{
        struct call *x = state_call(L);
        weir_str few[REDIS_WORDS], *argv = few;
        int n = lua_gettop(L) - 1;

        if (n < 1)
                return state_raise(L, "redis: a command is wanted");
        if (n > REDIS_WORDS)
                argv = weir->alloc(x->r, (size_t)n * sizeof(*argv));
        if (argv == NULL)
                return state_raise(L, "redis: %s", message_error(WEIR_E_NOMEM));
        for (int i = 0; i < n; i++) {
                if (!lua_isstring(L, i + 2)) /* a number is one */
                        return state_raise(L, "redis: word %d is a %s, not a string", i + 1,
                                           luaL_typename(L, i + 2));
                argv[i] = state_string(L, i + 2);
        }
        if (weir->redis(x->r, lua_touserdata(L, 1), replied, x, argv, (size_t)n) != WEIR_SUSPEND)
                return state_raise(L, "redis: nothing can wait here, or memory= is used up");
        return lua_yield(L, 0);
}

static int redis_finish(lua_State *L)
{
        const weir_value *v = state_call(L)->reply;

        if (v->type == WEIR_V_FAIL || v->type == WEIR_V_ERROR)
                return state_raise(L, "redis: %.*s", WEIR_S(v->str));
        value_push(L, v, 0);
        return 1;
}

/* ------------------------------------------------------------------ http */

static weir_rc answered(weir_task *t, const void *inst, void *ctx, const weir_http_res *res,
                        void *arg)
{
        struct call *x = arg;

        (void)inst;
        (void)ctx;
        x->res = res;
        return state_go_on(t, x);
}

/* A member of the table at index 2, or fallback; the value stays on the stack, to be held. */
static weir_str member(lua_State *L, const char *name, weir_str fallback)
{
        lua_getfield(L, 2, name);
        if (lua_isnil(L, -1))
                return fallback;
        if (!lua_isstring(L, -1))
                state_raise(L, "http: %s is a %s, not a string", name, luaL_typename(L, -1));
        return state_string(L, -1);
}

static double number(lua_State *L, const char *name, double max)
{
        double n;

        lua_getfield(L, 2, name);
        n = lua_isnil(L, -1) ? 0 : lua_tonumber(L, -1);
        if (!lua_isnil(L, -1) && !(n > 0 && n <= max))
                state_raise(L, "http: %s must be a number up to %.0f", name, max);
        lua_pop(L, 1);
        return n;
}

/* req.fields, of the table `headers`: a value is a string, a number or a list of these. */
static void http_fields(lua_State *L, weir_task *t, weir_http_req *req)
{
        weir_kv *kv;
        size_t n = 0;
        int headers;

        lua_getfield(L, 2, "headers");
        headers = lua_gettop(L);
        if (lua_isnil(L, headers))
                return;
        if (!lua_istable(L, headers))
                state_raise(L, "http: headers is a %s, not a table", luaL_typename(L, headers));
        for (lua_pushnil(L); lua_next(L, headers) != 0; lua_pop(L, 1))
                n += lua_istable(L, -1) ? lua_objlen(L, -1) : 1;
        req->fields = kv = weir->alloc(t, (n + 1) * sizeof(*kv));
        if (kv == NULL)
                state_raise(L, "http: %s", message_error(WEIR_E_NOMEM));
        for (lua_pushnil(L); lua_next(L, headers) != 0; lua_pop(L, 1)) {
                size_t many = lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
                if (lua_type(L, -2) != LUA_TSTRING)
                        state_raise(L, "http: a header's name is a %s, not a string",
                                    luaL_typename(L, -2));
                for (size_t i = 0; i < (lua_istable(L, -1) ? many : 1); i++) {
                        if (lua_istable(L, -1))
                                lua_rawgeti(L, -1, (int)i + 1);
                        else
                                lua_pushvalue(L, -1);
                        if (!lua_isstring(L, -1))
                                state_raise(L, "http: a header's value is a %s, not a string",
                                            luaL_typename(L, -1));
                        kv[req->n_fields].name = state_string(L, -3);
                        kv[req->n_fields++].value =
                                weir->dup(t, state_string(L, -1)); /* a number's text goes */
                        lua_pop(L, 1);
                }
        }
}

/* start(upstream, "/path") or start(upstream, { path =, method =, headers =, body = ... }) */
static int http_start(lua_State *L)
{
        struct call *x = state_call(L);
        weir_http_req req = {.size = sizeof(req)};
        weir_str none = {NULL, 0};

        lua_settop(L, 2);
        if (lua_isstring(L, 2)) {
                req.path = state_string(L, 2);
        } else {
                if (!lua_istable(L, 2))
                        return state_raise(L, "http: a path or a table is wanted");
                req.path = member(L, "path", WEIR_STR("/"));
                req.method = member(L, "method", none);
                req.body = member(L, "body", none);
                req.timeout_us = (int64_t)(number(L, "timeout", SLEEP_MAX) * 1e6);
                req.max_body = (uint64_t)number(L, "max_body", 1e12);
                http_fields(L, x->r, &req);
        }
        if (weir->http(x->r, lua_touserdata(L, 1), &req, answered, x) != WEIR_SUSPEND)
                return state_raise(L, "http: nothing can wait here, or memory= is used up");
        return lua_yield(L, 0);
}

static void push_lower(lua_State *L, weir_str s)
{
        luaL_Buffer b;

        luaL_buffinit(L, &b);
        for (size_t i = 0; i < s.n; i++)
                luaL_addchar(&b, s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 32) : s.p[i]);
        luaL_pushresult(&b);
}

/* { status =, body =, headers = {name = first value} } */
static int http_finish(lua_State *L)
{
        const weir_http_res *res = state_call(L)->res;

        if (res->status == 0)
                return state_raise(L, "http: %.*s", WEIR_S(res->body));
        lua_createtable(L, 0, 3);
        lua_pushinteger(L, res->status);
        lua_setfield(L, -2, "status");
        state_push(L, res->body);
        lua_setfield(L, -2, "body");
        lua_createtable(L, 0, (int)res->n_fields);
        for (size_t i = res->n_fields; i-- > 0;) { /* the first of a name is the last written */
                push_lower(L, res->fields[i].name);
                state_push(L, res->fields[i].value);
                lua_rawset(L, -3);
        }
        lua_setfield(L, -2, "headers");
        return 1;
}

/* ------------------------------------------------------------------ opening */

static const char waiting[] = "local start, finish = ...\n"
                              "return function(handle, called)\n"
                              "  if called then\n"
                              "    return function(_, ...) start(handle, ...) return finish() end\n"
                              "  end\n"
                              "  return function(...) start(handle, ...) return finish() end\n"
                              "end\n";

/* Pushes the maker of functions: maker(handle, called); called: as a metatable's __call. */
static void push_maker(lua_State *L, lua_CFunction start, lua_CFunction finish)
{
        if (luaL_loadbuffer(L, waiting, sizeof(waiting) - 1, "=lua") != 0)
                lua_error(L);
        lua_pushcfunction(L, start);
        lua_pushcfunction(L, finish);
        lua_call(L, 2, 1);
}

/* The table on top gets handle's function: as NAME, or as what calling the table does.  The maker
 * is below it. */
static void add_handle(lua_State *L, void *handle, weir_str as)
{
        if (as.p != NULL)
                state_push(L, as);
        else
                lua_createtable(L, 0, 1);
        lua_pushvalue(L, -3);
        lua_pushlightuserdata(L, handle);
        lua_pushboolean(L, as.p == NULL);
        lua_call(L, 2, 1);
        if (as.p != NULL) {
                lua_rawset(L, -3);
        } else {
                lua_setfield(L, -2, "__call");
                lua_setmetatable(L, -2);
        }
}

void wait_open(lua_State *L)
{
        push_maker(L, redis_start, redis_finish);
        lua_newtable(L);
        WEIR_EACH (struct handle_line, line, state_of(L)->conf->redis)
                add_handle(L, line->store, line->as);
        lua_setglobal(L, "redis");
        lua_pop(L, 1);

        push_maker(L, http_start, http_finish);
        lua_newtable(L);
        WEIR_EACH (struct handle_line, line, state_of(L)->conf->upstream)
                add_handle(L, line->upstream, line->as);
        lua_setglobal(L, "http");
        lua_pop(L, 1);

        lua_pushvalue(L, LUA_GLOBALSINDEX);
        state_add(L, "sleep", sleep_for, 0);
        lua_pop(L, 1);
}
