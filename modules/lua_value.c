/*
 * Values from outside and back: Redis' replies, JSON, and the codecs.
 *
 * The difficulty: Lua has no null and no arrays.  json.null stands for the one; a table is an array
 * when it has a first element, or was marked by json.array, which decode does too, so that what
 * was read is written as it was.
 */
#include "lua_module.h"

#include <lualib.h>
#include <math.h>

#define DEPTH_MAX 32
#define EXACT_MAX 9007199254740992.0 /* 2^53: whole numbers up to here are exact */

static const char array_mark[] =
        "weir array"; /* its address: the metatable's key in the registry */

/* ------------------------------------------------------------------ to Lua */

static void mark_array(lua_State *L)
{
        lua_pushlightuserdata(L, (void *)(uintptr_t)array_mark);
        lua_rawget(L, LUA_REGISTRYINDEX);
        lua_setmetatable(L, -2);
}

void value_push(lua_State *L, const weir_value *v, int is_json)
{
        luaL_checkstack(L, 6, "nested too deeply");
        switch (v->type) {
        case WEIR_V_BOOL:
                lua_pushboolean(L, v->integer != 0);
                break;
        case WEIR_V_INTEGER:
        case WEIR_V_NUMBER:
                lua_pushnumber(L, v->number);
                break;
        case WEIR_V_STRING:
        case WEIR_V_ERROR:
                state_push(L, v->str);
                break;
        case WEIR_V_ARRAY:
                lua_createtable(L, (int)(v->n < 65536 ? v->n : 65536), 0);
                for (size_t i = 0; i < v->n; i++) {
                        value_push(L, v->elem[i], is_json);
                        if (!is_json && lua_isnil(L, -1)) { /* it would end the list */
                                lua_pop(L, 1);
                                lua_pushboolean(L, 0);
                        }
                        lua_rawseti(L, -2, (int)i + 1);
                }
                if (is_json)
                        mark_array(L);
                break;
        case WEIR_V_OBJECT:
                lua_newtable(L);
                for (size_t i = 0; i < v->n; i++) {
                        state_push(L, v->elem[i]->name);
                        value_push(L, v->elem[i], is_json);
                        lua_rawset(L, -3);
                }
                break;
        default:
                if (is_json)
                        lua_pushlightuserdata(L, NULL);
                else
                        lua_pushnil(L);
                break;
        }
}

static int json_decode(lua_State *L)
{
        const weir_value *v = weir->json_parse(state_of(L)->task, state_string(L, 1));

        if (v == NULL) {
                lua_pushnil(L);
                lua_pushliteral(L, "not JSON, nested too deeply, a name twice, or too large");
                return 2;
        }
        value_push(L, v, 1);
        return 1;
}

/* ------------------------------------------------------------------ from Lua */

/* A value that is being made of what stands at a place of the stack; all of it in the task's
 * memory, but for the strings, which Lua holds. */
struct making {
        lua_State *L;
        weir_task *t;
};

static void *take(const struct making *m, size_t n)
{
        void *p = weir->alloc(m->t, n);

        if (p == NULL)
                state_raise(m->L, "json.encode: %s", message_error(WEIR_E_NOMEM));
        return p;
}

static weir_value *make(const struct making *m, int i, int depth);

static int is_array(lua_State *L, int i)
{
        int marked;

        if (lua_objlen(L, i) > 0)
                return 1;
        if (!lua_getmetatable(L, i))
                return 0;
        lua_pushlightuserdata(L, (void *)(uintptr_t)array_mark);
        lua_rawget(L, LUA_REGISTRYINDEX);
        marked = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
        return marked;
}

static void make_array(const struct making *m, weir_value *v, int i, int depth)
{
        const weir_value **elem;

        v->type = WEIR_V_ARRAY;
        v->n = lua_objlen(m->L, i);
        v->elem = elem = take(m, (v->n + 1) * sizeof(*elem));
        for (size_t k = 0; k < v->n; k++) {
                lua_rawgeti(m->L, i, (int)k + 1);
                elem[k] = make(m, lua_gettop(m->L), depth + 1);
                lua_pop(m->L, 1);
        }
}

static void make_object(const struct making *m, weir_value *v, int i, int depth)
{
        const weir_value **elem;
        size_t n = 0;

        for (lua_pushnil(m->L); lua_next(m->L, i) != 0; lua_pop(m->L, 1))
                n++;
        v->type = WEIR_V_OBJECT;
        v->elem = elem = take(m, (n + 1) * sizeof(*elem));
        for (lua_pushnil(m->L); lua_next(m->L, i) != 0; lua_pop(m->L, 1)) {
                int key = lua_gettop(m->L) - 1;
                weir_value *member;
                if (lua_type(m->L, key) != LUA_TSTRING)
                        state_raise(m->L, "json.encode: a name is a %s, not a string",
                                    luaL_typename(m->L, key));
                member = make(m, key + 1, depth + 1);
                member->name = state_string(m->L, key);
                elem[v->n++] = member;
        }
}

static void make_number(const struct making *m, weir_value *v, double n)
{
        if (!isfinite(n))
                state_raise(m->L, "json.encode: %s", isnan(n) ? "not a number" : "infinity");
        v->number = n;
        v->type = WEIR_V_NUMBER;
        if (n == floor(n) && fabs(n) <= EXACT_MAX) {
                v->type = WEIR_V_INTEGER;
                v->integer = (int64_t)n;
        }
}

static weir_value *make(const struct making *m, int i, int depth)
{
        weir_value *v = take(m, sizeof(*v));
        lua_State *L = m->L;

        v->size = sizeof(*v);
        switch (lua_type(L, i)) {
        case LUA_TBOOLEAN:
                v->type = WEIR_V_BOOL;
                v->integer = lua_toboolean(L, i);
                return v;
        case LUA_TNUMBER:
                make_number(m, v, lua_tonumber(L, i));
                return v;
        case LUA_TSTRING:
                v->type = WEIR_V_STRING;
                v->str = state_string(L, i);
                return v;
        case LUA_TTABLE:
                if (depth == DEPTH_MAX)
                        state_raise(L, "json.encode: nested deeper than %d", DEPTH_MAX);
                luaL_checkstack(L, 6, "nested too deeply");
                (is_array(L, i) ? make_array : make_object)(m, v, i, depth);
                return v;
        default:
                if (!lua_isnil(L, i) &&
                    (lua_type(L, i) != LUA_TLIGHTUSERDATA || lua_touserdata(L, i) != NULL))
                        state_raise(L, "json.encode: a %s", luaL_typename(L, i));
                v->type = WEIR_V_NULL;
                return v;
        }
}

static int json_encode(lua_State *L)
{
        struct making m = {L, state_of(L)->task};
        weir_str s;

        luaL_checkany(L, 1);
        s = weir->json_write(m.t, make(&m, 1, 0));
        if (s.p == NULL)
                return state_raise(L, "json.encode: %s", message_error(WEIR_E_NOMEM));
        return state_push(L, s);
}

static int json_array(lua_State *L)
{
        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        if (lua_getmetatable(L, 1) && !is_array(L, 1))
                return state_raise(L, "json.array: the table has a metatable already");
        lua_settop(L, 1);
        mark_array(L);
        return 1;
}

/* ------------------------------------------------------------------ codecs */

static int encode(lua_State *L)
{
        weir_str s = weir->encode(state_of(L)->task, (int32_t)lua_tointeger(L, lua_upvalueindex(1)),
                                  state_string(L, 1));

        if (s.p == NULL)
                return state_raise(L, "encode: %s", message_error(WEIR_E_NOMEM));
        return state_push(L, s);
}

/* nil: it is none. */
static int decode(lua_State *L)
{
        weir_str s = weir->decode(state_of(L)->task, (int32_t)lua_tointeger(L, lua_upvalueindex(1)),
                                  state_string(L, 1));

        if (s.p != NULL)
                return state_push(L, s);
        lua_pushnil(L);
        return 1;
}

void value_open(lua_State *L)
{
        static const struct {
                const char *name;
                int how;
        } codecs[] = {{"hex", WEIR_HEX},
                      {"base64", WEIR_BASE64},
                      {"base64url", WEIR_BASE64URL},
                      {"percent", WEIR_PERCENT}};

        for (size_t i = 0; i < WEIR_COUNT(codecs); i++) {
                lua_newtable(L);
                state_add(L, "encode", encode, codecs[i].how);
                state_add(L, "decode", decode, codecs[i].how);
                lua_setglobal(L, codecs[i].name);
        }
        lua_pushlightuserdata(L, (void *)(uintptr_t)array_mark);
        lua_createtable(L, 0, 1);
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_rawset(L, LUA_REGISTRYINDEX);
        lua_newtable(L);
        state_add(L, "decode", json_decode, 0);
        state_add(L, "encode", json_encode, 0);
        state_add(L, "array", json_array, 0);
        lua_pushlightuserdata(L, NULL);
        lua_setfield(L, -2, "null");
        lua_setglobal(L, "json");
}
