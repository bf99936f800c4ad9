/*
 * request, response, var and respond: the messages as Lua sees them.
 *
 * The difficulty is the price: nothing is made per request.  The tables are empty ones that stand
 * for whichever request's call runs, and a field becomes a string of Lua's when it is read.
 */
#include "lua_module.h"

#include <stdio.h>

const char *message_error(weir_err err)
{
        switch (err) {
        case WEIR_E_NOMEM:
                return "the request's memory= is used up";
        case WEIR_E_INVAL:
                return "such a value cannot be sent";
        case WEIR_E_PHASE:
                return "it is too late for that, or too early";
        case WEIR_E_DENIED:
                return "weir itself decides on that";
        case WEIR_E_FULL:
                return "there is no room";
        case WEIR_E_NOENT:
                return "there is none of that name";
        case WEIR_E_UNAVAIL:
                return "no answer";
        case WEIR_E_TIMEOUT:
                return "no answer in time";
        default:
                return "failed";
        }
}

static void check(lua_State *L, weir_err err, const char *what, weir_str name)
{
        if (err < WEIR_OK)
                state_raise(L, "%s %.*s: %s", what, (int)(name.n < 64 ? name.n : 64), name.p,
                            message_error(err));
}

static int32_t where_of(lua_State *L)
{
        return (int32_t)lua_tointeger(L, lua_upvalueindex(1));
}

/* ------------------------------------------------------------------ fields */

static inline int header_read(lua_State *L, int32_t where)
{
        struct call *x = state_call(L);
        weir_str v;

        if (weir->header_get(x->r, where, state_string(L, 2), &v) <= 0)
                return 0;
        return state_push(L, v);
}

static void set_fields(lua_State *L, weir_req *r, int32_t where, weir_str name, int value)
{
        int type = lua_type(L, value);
        size_t n;

        if (type == LUA_TNIL) {
                check(L, weir->header_del(r, where, name), "field", name);
        } else if (type != LUA_TTABLE) {
                check(L, weir->header_set(r, where, name, state_string(L, value)), "field", name);
        } else {
                check(L, weir->header_del(r, where, name), "field", name);
                n = lua_objlen(L, value);
                for (size_t i = 1; i <= n; i++) {
                        lua_rawgeti(L, value, (int)i);
                        check(L, weir->header_add(r, where, name, state_string(L, -1)), "field",
                              name);
                        lua_pop(L, 1);
                }
        }
}

static inline int header_write(lua_State *L, int32_t where)
{
        set_fields(L, state_call(L)->r, where, state_string(L, 2), 3);
        return 0;
}

/* Each a function of its own: to ask an upvalue where costs more than to find the field. */
#define FIELDS(name, where)                                                                        \
        static int name##_read(lua_State *L)                                                       \
        {                                                                                          \
                return header_read(L, where);                                                      \
        }                                                                                          \
        static int name##_write(lua_State *L)                                                      \
        {                                                                                          \
                return header_write(L, where);                                                     \
        }
FIELDS(request_headers, WEIR_REQUEST)
FIELDS(response_headers, WEIR_RESPONSE)
FIELDS(request_trailers, WEIR_REQUEST_TRAILERS)
FIELDS(response_trailers, WEIR_RESPONSE_TRAILERS)

static int add_header(lua_State *L)
{
        struct call *x = state_call(L);
        weir_str name = state_string(L, 1);

        check(L, weir->header_add(x->r, where_of(L), name, state_string(L, 2)), "field", name);
        return 0;
}

/* All values of one name. */
static int header_values(lua_State *L)
{
        struct call *x = state_call(L);
        weir_str name = state_string(L, 1);
        weir_kv kv;
        int n = 0;

        lua_newtable(L);
        for (size_t i = 0; weir->header_at(x->r, where_of(L), i, &kv); i++) {
                if (!weir_eq_icase(kv.name, name))
                        continue;
                state_push(L, kv.value);
                lua_rawseti(L, -2, ++n);
        }
        return 1;
}

/* for name, value in request.each_header() do: of the fields as they were when it began. */
static int next_header(lua_State *L)
{
        int i = (int)lua_tointeger(L, lua_upvalueindex(2)) + 1;

        lua_pushinteger(L, i);
        lua_replace(L, lua_upvalueindex(2));
        lua_rawgeti(L, lua_upvalueindex(1), 2 * i - 1);
        lua_rawgeti(L, lua_upvalueindex(1), 2 * i);
        return 2;
}

static int each_header(lua_State *L)
{
        struct call *x = state_call(L);
        weir_kv kv;

        lua_newtable(L);
        for (size_t i = 0; weir->header_at(x->r, where_of(L), i, &kv); i++) {
                state_push(L, kv.name);
                lua_rawseti(L, -2, (int)(2 * i + 1));
                state_push(L, kv.value);
                lua_rawseti(L, -2, (int)(2 * i + 2));
        }
        lua_pushinteger(L, 0);
        lua_pushcclosure(L, next_header, 2);
        return 1;
}

/* ------------------------------------------------------------------ variables */

static int push_variable(lua_State *L, weir_str name)
{
        weir_str v;

        if (!weir->var_get(state_call(L)->r, name, &v))
                return 0;
        return state_push(L, v);
}

static void set_variable(lua_State *L, weir_str name, int value)
{
        weir_req *r = state_call(L)->r;

        if (!lua_isnil(L, value)) {
                check(L, weir->var_set(r, name, state_string(L, value)), "variable", name);
        } else {
                weir_err err = weir->var_del(r, name);
                check(L, err == WEIR_E_NOENT ? WEIR_OK : err, "variable", name);
        }
}

static int var_read(lua_State *L)
{
        return push_variable(L, state_string(L, 2));
}

static int var_write(lua_State *L)
{
        set_variable(L, state_string(L, 2), 3);
        return 0;
}

/* The variable PREFIX_key, the prefix being the upvalue. */
static weir_str prefixed(lua_State *L)
{
        weir_str s;

        lua_pushvalue(L, lua_upvalueindex(1));
        lua_pushvalue(L, 2);
        lua_concat(L, 2);
        s.p = lua_tolstring(L, -1, &s.n);
        lua_replace(L, 2);
        return s;
}

static int part_read(lua_State *L)
{
        return push_variable(L, prefixed(L));
}

static int part_write(lua_State *L)
{
        set_variable(L, prefixed(L), 3);
        return 0;
}

/* request.x: the variable of that name, but for what is shorter without the word request. */
static int request_read(lua_State *L)
{
        weir_str name = state_string(L, 2);

        return push_variable(L, weir_eq(name, WEIR_STR("id")) ? WEIR_STR("request_id") : name);
}

static int response_read(lua_State *L)
{
        weir_str name = state_string(L, 2), v;

        if (!weir_eq(name, WEIR_STR("status")))
                return push_variable(L, name);
        if (!weir->var_get(state_call(L)->r, name, &v))
                return 0;
        state_push(L, v);
        lua_pushnumber(L, lua_tonumber(L, -1));
        return 1;
}

/* ------------------------------------------------------------------ answers */

/* respond(status, body, fields) */
static int respond(lua_State *L)
{
        struct call *x = state_call(L);
        int32_t status = (int32_t)luaL_checkinteger(L, 1);
        weir_str body = lua_isnoneornil(L, 2) ? WEIR_STR("") : state_string(L, 2);

        if (status < 200 || status > 599)
                return state_raise(L, "respond: the status must be 200 to 599");
        if (!lua_isnoneornil(L, 3)) {
                luaL_checktype(L, 3, LUA_TTABLE);
                lua_settop(L, 3);
                for (lua_pushnil(L); lua_next(L, 3) != 0; lua_pop(L, 1)) {
                        if (lua_type(L, 4) != LUA_TSTRING)
                                return state_raise(L, "respond: a field's name must be a string");
                        set_fields(L, x->r, WEIR_RESPONSE, state_string(L, 4), 5);
                }
        }
        if (weir->respond(x->r, status, body) != WEIR_RESPOND)
                return state_raise(L, "respond: it is too late, or memory= is used up");
        x->answered = 1;
        return 0;
}

/* ------------------------------------------------------------------ tables */

/* Gives the table below the top a metatable whose functions have the value on top, which it takes,
 * as upvalue. */
static void stands_for(lua_State *L, lua_CFunction read, lua_CFunction write)
{
        lua_createtable(L, 0, 3);
        lua_pushvalue(L, -2);
        lua_pushcclosure(L, read, 1);
        lua_setfield(L, -2, "__index");
        lua_pushvalue(L, -2);
        lua_pushcclosure(L, write, 1);
        lua_setfield(L, -2, "__newindex");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_setmetatable(L, -3);
        lua_pop(L, 1);
}

/* t[name] = an empty table that stands for fields or variables; t on top. */
static void add_fields(lua_State *L, int32_t where)
{
        int asks = where == WEIR_REQUEST;

        lua_newtable(L);
        lua_pushnil(L);
        stands_for(L, asks ? request_headers_read : response_headers_read,
                   asks ? request_headers_write : response_headers_write);
        lua_setfield(L, -2, "headers");
        lua_newtable(L);
        lua_pushnil(L);
        stands_for(L, asks ? request_trailers_read : response_trailers_read,
                   asks ? request_trailers_write : response_trailers_write);
        lua_setfield(L, -2, "trailers");
        state_add(L, "add_header", add_header, where);
        state_add(L, "header_values", header_values, where);
        state_add(L, "each_header", each_header, where);
}

static void add_part(lua_State *L, const char *name, const char *prefix)
{
        lua_newtable(L);
        lua_pushstring(L, prefix);
        stands_for(L, part_read, part_write);
        lua_setfield(L, -2, name);
}

void message_open(lua_State *L)
{
        lua_newtable(L);
        add_fields(L, WEIR_REQUEST);
        add_part(L, "args", "arg_");
        add_part(L, "cookies", "cookie_");
        lua_pushnil(L);
        stands_for(L, request_read, var_write);
        lua_setglobal(L, "request");

        lua_newtable(L);
        add_fields(L, WEIR_RESPONSE);
        lua_pushnil(L);
        stands_for(L, response_read, var_write);
        lua_setglobal(L, "response");

        lua_newtable(L);
        lua_pushnil(L);
        stands_for(L, var_read, var_write);
        lua_setglobal(L, "var");

        lua_pushvalue(L, LUA_GLOBALSINDEX);
        state_add(L, "respond", respond, 0);
        lua_pop(L, 1);
}
