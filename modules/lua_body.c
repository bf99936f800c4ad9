/*
 * Bodies: the code gets data and whether it is the last, and what it returns, or gives to emit,
 * takes its place.
 *
 * The difficulty is back-pressure: what is emitted may be more than weir takes at once, so emit
 * puts piece by piece and waits, as a call of Lua's that looks as if it blocked, until the peer has
 * taken what is on its way.
 */
#include "lua_module.h"

#define PIECE_MAX 65536 /* bytes that body_emit takes */

static const char code[] = "local put, drain, chunk = ...\n"
                           "function emit(text)\n"
                           "  local at = 1\n"
                           "  repeat\n"
                           "    local n = put(text, at)\n"
                           "    at = at + n\n"
                           "    if n == 0 and at <= #text then drain() end\n"
                           "  until at > #text\n"
                           "end\n"
                           "local emit = emit\n"
                           "return function(hook)\n"
                           "  return function()\n"
                           "    local out = hook(chunk())\n"
                           "    if out ~= nil then emit(out) end\n"
                           "  end\n"
                           "end\n";

static const char wrapper[] = "weir body"; /* its address: the key in the registry */

/* put(text, at): how many bytes from there on were taken; 0: weir has enough for now. */
static int put(lua_State *L)
{
        struct call *x = state_call(L);
        weir_str text = state_string(L, 1);
        size_t from = (size_t)luaL_checkinteger(L, 2) - 1;
        size_t n = text.n - from < PIECE_MAX ? text.n - from : PIECE_MAX;
        weir_err err = weir->body_emit(x->r, weir_bytes(text.p + from, n));

        if (err != WEIR_OK && err != WEIR_E_FULL)
                return state_raise(L, "emit: %s", message_error(err));
        x->emitted = 1;
        lua_pushinteger(L, err == WEIR_OK ? (lua_Integer)n : 0);
        return 1;
}

static weir_rc drained(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)inst;
        (void)ctx;
        return state_go_on(t, arg);
}

static int drain(lua_State *L)
{
        struct call *x = state_call(L);

        if (weir->body_drain(x->r, drained, x) != WEIR_SUSPEND)
                return state_raise(L, "emit: %s", message_error(WEIR_E_FULL));
        return lua_yield(L, 0);
}

/* data, and whether it is the last */
static int chunk(lua_State *L)
{
        const weir_chunk *c = state_call(L)->chunk;

        state_push(L, c->data);
        lua_pushboolean(L, (c->flags & WEIR_CHUNK_LAST) != 0);
        return 2;
}

static int body_mode(lua_State *L)
{
        static const char *const names[] = {"skip", "read", "rewrite", "buffer", NULL};
        static const int32_t modes[] = {WEIR_BODY_SKIP, WEIR_BODY_READ, WEIR_BODY_REWRITE,
                                        WEIR_BODY_BUFFER};
        struct call *x = state_call(L);
        int i = luaL_checkoption(L, 1, NULL, names);
        weir_err err = weir->body_mode(x->r, modes[i], (uint64_t)x->state->conf->body_max);

        if (err != WEIR_OK)
                return state_raise(L, "body_mode: %s", message_error(err));
        return 0;
}

void body_wrap(lua_State *L)
{
        lua_pushlightuserdata(L, (void *)(uintptr_t)wrapper);
        lua_rawget(L, LUA_REGISTRYINDEX);
        lua_insert(L, -2);
        lua_call(L, 1, 1);
}

void body_open(lua_State *L)
{
        static const lua_CFunction functions[] = {put, drain, chunk};

        lua_pushlightuserdata(L, (void *)(uintptr_t)wrapper);
        if (luaL_loadbuffer(L, code, sizeof(code) - 1, "=lua") != 0)
                lua_error(L);
        for (size_t i = 0; i < WEIR_COUNT(functions); i++)
                lua_pushcfunction(L, functions[i]);
        lua_call(L, 3, 1);
        lua_rawset(L, LUA_REGISTRYINDEX);
        lua_pushvalue(L, LUA_GLOBALSINDEX);
        state_add(L, "body_mode", body_mode, 0);
        lua_pop(L, 1);
}
