/*
 * What a hook waits for: redis and sleep.  They look like calls that block; the request is
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

/* ------------------------------------------------------------------ opening */

static const char waiting[] = "local start, finish = ...\n"
                              "return function(handle, called)\n"
                              "  if called then\n"
                              "    return function(_, ...) start(handle, ...) return finish() end\n"
                              "  end\n"
                              "  return function(...) start(handle, ...) return finish() end\n"
                              "end\n";

/* Pushes the maker of functions: maker(handle, called); called: as a metatable's __call. */
static void push_maker(lua_State *L, struct state *s, lua_CFunction start, lua_CFunction finish)
{
        if (luaL_loadbuffer(L, waiting, sizeof(waiting) - 1, "=lua") != 0)
                lua_error(L);
        lua_pushlightuserdata(L, s);
        lua_pushcclosure(L, start, 1);
        lua_pushlightuserdata(L, s);
        lua_pushcclosure(L, finish, 1);
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

void wait_open(lua_State *L, struct state *s)
{
        push_maker(L, s, redis_start, redis_finish);
        lua_newtable(L);
        WEIR_EACH (struct redis_line, line, s->conf->redis)
                add_handle(L, line->store, line->as);
        lua_setglobal(L, "redis");
        lua_pop(L, 1);

        lua_pushvalue(L, LUA_GLOBALSINDEX);
        state_add(L, s, "sleep", sleep_for, 0);
        lua_pop(L, 1);
}
