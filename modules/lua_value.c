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
#include <stdio.h>

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

/* Text that grows, in memory of the state's: a userdata at stack index 2. */
struct text {
        lua_State *L;
        struct state *s;
        char *p;
        size_t n, room;
};
#define TEXT_AT 2

static void put(struct text *t, const char *p, size_t n)
{
        if (n > t->room - t->n) {
                size_t room = t->room;
                char *more;
                while (n > room - t->n)
                        room *= 2;
                more = lua_newuserdata(t->L, room);
                memcpy(more, t->p, t->n);
                lua_replace(t->L, TEXT_AT);
                t->p = more;
                t->room = room;
        }
        memcpy(t->p + t->n, p, n);
        t->n += n;
}

static void put_string(struct text *t, weir_str s)
{
        weir_str quoted = weir->encode(t->s->task, WEIR_JSON, s);

        if (quoted.p == NULL)
                state_raise(t->L, "json.encode: %s", message_error(WEIR_E_NOMEM));
        put(t, quoted.p, quoted.n);
}

static void put_number(struct text *t, double v)
{
        char digits[40];
        int n;

        if (!isfinite(v))
                state_raise(t->L, "json.encode: %s", isnan(v) ? "not a number" : "infinity");
        if (v == floor(v) && fabs(v) <= EXACT_MAX)
                n = snprintf(digits, sizeof(digits), "%.0f", v);
        else
                n = snprintf(digits, sizeof(digits), "%.17g", v);
        put(t, digits, (size_t)n);
}

static void put_value(struct text *t, int i, int depth);

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

static void put_table(struct text *t, int i, int depth)
{
        lua_State *L = t->L;
        int first = 1;

        if (depth == DEPTH_MAX)
                state_raise(L, "json.encode: nested deeper than %d", DEPTH_MAX);
        luaL_checkstack(L, 6, "nested too deeply");
        if (is_array(L, i)) {
                int n = (int)lua_objlen(L, i);
                for (int k = 1; k <= n; k++) {
                        put(t, k == 1 ? "[" : ",", 1);
                        lua_rawgeti(L, i, k);
                        put_value(t, lua_gettop(L), depth + 1);
                        lua_pop(L, 1);
                }
                put(t, n > 0 ? "]" : "[]", n > 0 ? 1 : 2);
                return;
        }
        for (lua_pushnil(L); lua_next(L, i) != 0; lua_pop(L, 1)) {
                int key = lua_gettop(L) - 1;
                if (lua_type(L, key) != LUA_TSTRING)
                        state_raise(L, "json.encode: a name is a %s, not a string",
                                    luaL_typename(L, key));
                put(t, first ? "{" : ",", 1);
                first = 0;
                put_string(t, state_string(L, key));
                put(t, ":", 1);
                put_value(t, key + 1, depth + 1);
        }
        put(t, first ? "{}" : "}", first ? 2 : 1);
}

static void put_value(struct text *t, int i, int depth)
{
        lua_State *L = t->L;

        switch (lua_type(L, i)) {
        case LUA_TNIL:
                put(t, "null", 4);
                break;
        case LUA_TBOOLEAN:
                put(t, lua_toboolean(L, i) ? "true" : "false", lua_toboolean(L, i) ? 4 : 5);
                break;
        case LUA_TNUMBER:
                put_number(t, lua_tonumber(L, i));
                break;
        case LUA_TSTRING:
                put_string(t, state_string(L, i));
                break;
        case LUA_TTABLE:
                put_table(t, i, depth);
                break;
        default:
                if (lua_type(L, i) != LUA_TLIGHTUSERDATA || lua_touserdata(L, i) != NULL)
                        state_raise(L, "json.encode: a %s", luaL_typename(L, i));
                put(t, "null", 4);
                break;
        }
}

static int json_encode(lua_State *L)
{
        struct text t = {.L = L, .s = state_of(L), .room = 256};

        lua_settop(L, 1);
        t.p = lua_newuserdata(L, t.room);
        put_value(&t, 1, 0);
        return state_push(L, weir_bytes(t.p, t.n));
}

static int json_array(lua_State *L)
{
        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        mark_array(L);
        return 1;
}

/* ------------------------------------------------------------------ codecs */

static int encode(lua_State *L)
{
        weir_str s = weir->encode(state_of(L)->task, (int32_t)lua_tointeger(L, lua_upvalueindex(2)),
                                  state_string(L, 1));

        if (s.p == NULL)
                return state_raise(L, "encode: %s", message_error(WEIR_E_NOMEM));
        return state_push(L, s);
}

/* nil: it is none. */
static int decode(lua_State *L)
{
        weir_str s = weir->decode(state_of(L)->task, (int32_t)lua_tointeger(L, lua_upvalueindex(2)),
                                  state_string(L, 1));

        if (s.p != NULL)
                return state_push(L, s);
        lua_pushnil(L);
        return 1;
}

void value_open(lua_State *L, struct state *s)
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
                state_add(L, s, "encode", encode, codecs[i].how);
                state_add(L, s, "decode", decode, codecs[i].how);
                lua_setglobal(L, codecs[i].name);
        }
        lua_pushlightuserdata(L, (void *)(uintptr_t)array_mark);
        lua_createtable(L, 0, 1);
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_rawset(L, LUA_REGISTRYINDEX);
        lua_newtable(L);
        state_add(L, s, "decode", json_decode, 0);
        state_add(L, s, "encode", json_encode, 0);
        state_add(L, s, "array", json_array, 0);
        lua_pushlightuserdata(L, NULL);
        lua_setfield(L, -2, "null");
        lua_setglobal(L, "json");
}
