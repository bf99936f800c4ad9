/*
 * Lua states: what is in them, how much they may take, and the coroutines that hooks run in.
 *
 *   state_begin -> resume --- done ------> verdict; the coroutine waits for the next call
 *                    ^ |
 *                    | yield: SUSPEND      (redis, sleep)
 *                    `--- state_go_on      the completion
 *
 * The difficulty: whatever the code does, the loop must come back and the worker must live.  An
 * instruction count interrupts endless loops, also those that catch the interruption; an allocator
 * refuses beyond state_memory, but only while something of Lua's runs that can catch that; all that
 * can raise runs in a coroutine or in lua_cpcall.
 */
#include "lua_module.h"

#include <luajit.h>
#include <lualib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define HOOK_EVERY 1000 /* instructions: how exactly they are counted */

/* ------------------------------------------------------------------ limits */

static void *allocate(void *ud, void *p, size_t old, size_t n)
{
        struct state *s = ud;
        void *new;

        if (n == 0) {
                free(p);
                s->used -= old;
                return NULL;
        }
        if (n > old && s->bounded && s->used + (n - old) > (size_t)s->conf->state_memory)
                return NULL;
        new = realloc(p, n);
        if (new == NULL && (n <= old || !s->bounded))
                abort(); /* nothing would catch it */
        if (new != NULL)
                s->used += n - old;
        return new;
}

static void count(lua_State *L, lua_Debug *ar);

static void count_from(struct state *s, int64_t left)
{
        s->left = left;
        if (!s->tripped)
                return;
        s->tripped = 0;
        lua_sethook(s->L, count, LUA_MASKCOUNT, HOOK_EVERY);
}

static void count(lua_State *L, lua_Debug *ar)
{
        struct state *s = state_of(L);

        (void)ar;
        s->left -= HOOK_EVERY;
        if (s->left > 0)
                return;
        if (!s->tripped) { /* pcall may catch this one, so the next instruction raises too */
                s->tripped = 1;
                lua_sethook(L, count, LUA_MASKCOUNT, 1);
        }
        state_raise(L, "interrupted: more instructions than instructions= allows");
}

/* ------------------------------------------------------------------ code */

/* Feeds the compiler one byte at a time: what it has taken is where it is. */
struct feed {
        weir_str text;
        int64_t lines; /* before the text, for it to have its own numbers */
        size_t at;
};

static const char *feed(lua_State *L, void *data, size_t *n)
{
        struct feed *f = data;

        (void)L;
        *n = 1;
        if (f->lines > 0) {
                f->lines--;
                return "\n";
        }
        if (f->at == f->text.n) {
                *n = 0;
                return NULL;
        }
        return f->text.p + f->at++;
}

/* What the compiler had read when it stopped ends with the token it names, or a byte later. */
static const char *token(const struct feed *f, const char *said)
{
        size_t end = f->at, n = strlen(said);
        const char *near = NULL;

        for (const char *p = said; (p = strstr(p, " near '")) != NULL; p++)
                near = p + 7;
        if (near != NULL && said[n - 1] == '\'') {
                n = (size_t)(said + n - 1 - near);
                for (size_t back = 0; back < 2 && n > 0 && n + back <= end; back++)
                        if (memcmp(f->text.p + end - back - n, near, n) == 0)
                                return f->text.p + end - back - n;
        }
        while (end > 0 && strchr(" \t\r\n", f->text.p[end - 1]) != NULL)
                end--;
        return f->text.p + (end > 0 ? end - 1 : 0);
}

/* That, unless the message speaks of an earlier line: then how that line begins. */
static const char *place(const struct feed *f, int64_t first, const char *said)
{
        const char *at = token(f, said), *end = f->text.p + f->text.n, *p = said;
        int64_t line = 0;

        while (line == 0 && (p = strchr(p, ':')) != NULL)
                line = strtoll(++p, NULL, 10);
        for (p = f->text.p; p < at && first < line; p++)
                first += *p == '\n';
        if (memchr(p, '\n', (size_t)(at - p)) == NULL)
                return at;
        while (p + 1 < end && (*p == ' ' || *p == '\t'))
                p++;
        return p;
}

int state_load(lua_State *L, const weir_text *text, const char **at)
{
        struct feed f = {.text = text->text, .lines = text->line - 1};
        int rc;

        lua_pushlstring(L, "@", 1);
        lua_pushlstring(L, text->file.p ? text->file.p : "lua", text->file.p ? text->file.n : 3);
        lua_concat(L, 2);
        rc = lua_loadx(L, feed, &f, lua_tostring(L, -1), "t");
        lua_remove(L, -2);
        if (rc != 0 && at != NULL)
                *at = place(&f, text->line, lua_tostring(L, -1));
        return rc;
}

int state_raise(lua_State *L, const char *fmt, ...)
{
        char text[512];
        lua_Debug ar;
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        for (int level = 0; lua_getstack(L, level, &ar); level++) {
                lua_getinfo(L, "Sl", &ar);
                if (ar.currentline <= 0 || ar.source[0] != '@')
                        continue; /* not the configuration's */
                lua_pushfstring(L, "%s:%d: %s", ar.short_src, ar.currentline, text);
                return lua_error(L);
        }
        lua_pushstring(L, text);
        return lua_error(L);
}

/* ------------------------------------------------------------------ what is in a state */

void state_add(lua_State *L, const char *name, lua_CFunction fn, int n)
{
        lua_pushinteger(L, n);
        lua_pushcclosure(L, fn, 1);
        lua_setfield(L, -2, name);
}

/* The C function's handler would run where nothing counts its instructions. */
static const char own_xpcall[] = "local pcall = pcall\n"
                                 "local function settle(handler, ok, ...)\n"
                                 "  if ok then return true, ... end\n"
                                 "  return false, handler(...)\n"
                                 "end\n"
                                 "function xpcall(f, handler, ...)\n"
                                 "  return settle(handler, pcall(f, ...))\n"
                                 "end\n";

static void open_library(lua_State *L, const char *name, lua_CFunction fn)
{
        lua_pushcfunction(L, fn);
        lua_pushstring(L, name);
        lua_call(L, 1, 0);
}

static void forget(lua_State *L, const char *table, const char *const *names)
{
        lua_getglobal(L, table);
        for (; *names != NULL; names++) {
                lua_pushnil(L);
                lua_setfield(L, -2, *names);
        }
        lua_pop(L, 1);
}

/* What reaches outside of the state, or would let code that is not the configuration's in. */
static void sandbox(lua_State *L, const struct conf *c)
{
        static const char *const base[] = {
                "collectgarbage", "coroutine", "dofile",   "gcinfo",  "getfenv", "load", "loadfile",
                "loadstring",     "module",    "newproxy", "require", "setfenv", "jit",  NULL};
        static const char *const os[] = {"execute", "exit",      "getenv",  "remove",
                                         "rename",  "setlocale", "tmpname", NULL};
        static const char *const string[] = {"dump", NULL};
        uint32_t seed;

        open_library(L, "", luaopen_base);
        open_library(L, LUA_TABLIBNAME, luaopen_table);
        open_library(L, LUA_STRLIBNAME, luaopen_string);
        open_library(L, LUA_MATHLIBNAME, luaopen_math);
        open_library(L, LUA_BITLIBNAME, luaopen_bit);
        open_library(L, LUA_OSLIBNAME, luaopen_os);
        if (c->jit)
                open_library(L, LUA_JITLIBNAME, luaopen_jit);
        luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | (c->jit ? LUAJIT_MODE_ON : LUAJIT_MODE_OFF));
        forget(L, "_G", base);
        forget(L, "os", os);
        forget(L, "string", string);
        if (luaL_loadbuffer(L, own_xpcall, sizeof(own_xpcall) - 1, "=lua") != 0)
                lua_error(L);
        lua_call(L, 0, 0);
        weir->random(&seed, sizeof(seed));
        lua_getglobal(L, "math");
        lua_getfield(L, -1, "randomseed");
        lua_pushnumber(L, seed);
        lua_call(L, 1, 0);
        lua_pop(L, 1);
}

static int new_global(lua_State *L)
{
        lua_pushvalue(L, 2);
        return state_raise(L, "global \"%s\" is assigned: write local, or make it in init",
                           lua_tostring(L, -1) ? lua_tostring(L, -1) : "?");
}

/* A global made in one request would be seen by others that run meanwhile. */
static void close_globals(lua_State *L)
{
        lua_pushvalue(L, LUA_GLOBALSINDEX);
        lua_createtable(L, 0, 2);
        lua_pushcfunction(L, new_global);
        lua_setfield(L, -2, "__newindex");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_setmetatable(L, -2);
        lua_pop(L, 1);
}

static int build(lua_State *L)
{
        struct state *s = lua_touserdata(L, 1);
        const struct conf *c = s->conf;

        sandbox(L, c);
        message_open(L);
        wait_open(L);
        host_open(L);
        body_open(L);
        value_open(L);
        if (!c->jit)
                lua_sethook(L, count, LUA_MASKCOUNT, HOOK_EVERY);
        if (c->init.text.p != NULL) {
                if (state_load(L, &c->init, NULL) != 0)
                        return lua_error(L);
                lua_call(L, 0, 0);
        }
        close_globals(L);
        for (int h = 0; h < HOOKS; h++) {
                if (c->hook[h].text.p == NULL)
                        continue;
                if (state_load(L, &c->hook[h], NULL) != 0)
                        return lua_error(L);
                if (h == HOOK_REQUEST_BODY || h == HOOK_RESPONSE_BODY)
                        body_wrap(L);
                s->ref[h] = luaL_ref(L, LUA_REGISTRYINDEX);
        }
        return 0;
}

static int panic(lua_State *L)
{
        (void)L;
        abort();
}

struct state *state_new(const struct conf *c, weir_task *t, char *why, size_t why_max)
{
        struct state *s = calloc(1, sizeof(*s));

        if (s == NULL)
                abort();
        s->conf = c;
        s->L = lua_newstate(allocate, s);
        if (s->L == NULL) { /* a LuaJIT that wants memory of its own choosing */
                snprintf(why, why_max, "this LuaJIT cannot bound its memory (it needs GC64)");
                free(s);
                return NULL;
        }
        lua_atpanic(s->L, panic);
        lua_gc(s->L, LUA_GCSETPAUSE, 150);
        s->task = t;
        s->bounded = 1;
        s->left = c->instructions;
        if (lua_cpcall(s->L, build, s) != 0) {
                const char *said = lua_tostring(s->L, -1);
                snprintf(why, why_max, "%s", said ? said : "an error that is no string");
                s->bounded = 0;
                state_close(s);
                return NULL;
        }
        s->bounded = 0;
        s->task = NULL;
        return s;
}

void state_close(struct state *s)
{
        lua_close(s->L);
        free(s);
}

/* ------------------------------------------------------------------ calls */

static int new_thread(lua_State *L)
{
        struct thread *t = lua_touserdata(L, 1);

        t->co = lua_newthread(L);
        t->ref = luaL_ref(L, LUA_REGISTRYINDEX);
        return 0;
}

/* Of a state that another has replaced, the last call closes it. */
static void let_go(struct state *s)
{
        if (--s->calls == 0 && s->retired)
                state_close(s);
}

/* The call holds its coroutine no longer.  broken: that cannot be used again. */
static void release(struct call *x, int broken)
{
        struct state *s = x->state;

        x->state = NULL;
        if (!broken && s->n_idle < IDLE_MAX)
                s->idle[s->n_idle++] = x->thread;
        else
                luaL_unref(s->L, LUA_REGISTRYINDEX, x->thread.ref);
        let_go(s);
}

void state_drop(struct call *x)
{
        release(x, 1);
}

/* The state is full.  Another one takes its place, unless most of it was garbage. */
static void exhausted(weir_task *t, struct state *s)
{
        struct part *p = weir->loop_data(t);

        lua_gc(s->L, LUA_GCCOLLECT, 0);
        if (s->used <= (size_t)s->conf->state_memory / 2 || p->state != s)
                return;
        weir->log(t, WEIR_LOG_WARN,
                  "its state holds %zu bytes of state_memory=%lld: it is replaced by a new one",
                  s->used, (long long)s->conf->state_memory);
        p->state = NULL;
        s->retired = 1;
}

static int has_place(const char *said)
{
        for (const char *p = said; (p = strchr(p, ':')) != NULL; p++) {
                size_t digits = strspn(p + 1, "0123456789");
                if (digits > 0 && p[1 + digits] == ':')
                        return 1;
        }
        return 0;
}

/* Logs what ended a call.  Where the instruction is no longer known (no memory, no stack), the
 * function's first line, or the code's, stands for it. */
static void say(weir_task *t, const struct call *x, int rc)
{
        lua_State *co = x->thread.co;
        const char *said = rc == LUA_ERRMEM                  ? "not enough memory (state_memory=)"
                           : lua_type(co, -1) == LUA_TSTRING ? lua_tostring(co, -1)
                                                             : "an error that is no string";
        lua_Debug ar;

        if (rc == LUA_ERRMEM)
                weir->metric_add(x->state->conf->exhausted, 1);
        else if (x->state->tripped)
                weir->metric_add(x->state->conf->interrupted, 1);
        if (has_place(said)) {
                weir->log(t, WEIR_LOG_ERROR, "%s", said);
                return;
        }
        for (int level = 0; lua_getstack(co, level, &ar); level++) {
                lua_getinfo(co, "Sl", &ar);
                if (ar.source[0] != '@' || (ar.currentline <= 0 && ar.linedefined <= 0))
                        continue;
                weir->log(t, WEIR_LOG_ERROR, "%s%s:%d: %s", ar.currentline > 0 ? "" : "below ",
                          ar.short_src, ar.currentline > 0 ? ar.currentline : ar.linedefined, said);
                return;
        }
        weir->log(t, WEIR_LOG_ERROR, "below %.*s:%lld: %s", WEIR_S(x->text->file),
                  (long long)x->text->line, said);
}

weir_rc state_go_on(weir_task *t, struct call *x)
{
        struct state *s = x->state;
        lua_State *co = x->thread.co;
        int rc;

        x->r = t;
        count_from(s, x->left);
        s->running = x;
        s->task = t;
        s->bounded = 1;
        rc = lua_resume(co, 0);
        s->bounded = 0;
        s->running = NULL;
        s->task = NULL;
        if (rc == 0) {
                lua_settop(co, 0);
                release(x, 0);
                return x->answered ? WEIR_RESPOND : x->emitted ? WEIR_REPLACED : WEIR_CONTINUE;
        }
        if (rc == LUA_YIELD) {
                x->left = s->left;
                return WEIR_SUSPEND;
        }
        say(t, x, rc);
        s->calls++;
        release(x, 1); /* what it held is garbage now */
        if (rc == LUA_ERRMEM)
                exhausted(t, s);
        let_go(s);
        return WEIR_ERROR;
}

weir_rc state_begin(const struct conf *c, weir_req *r, struct call *x, enum hook hook,
                    const weir_chunk *chunk)
{
        struct part *p = weir->loop_data(r);
        struct state *s = p->state;
        char why[512];

        if (s != NULL && s->used > (size_t)c->state_memory) { /* by its suspended calls */
                s->calls++;
                exhausted(r, s);
                let_go(s);
                s = p->state;
        }
        if (s == NULL) {
                s = p->state = state_new(c, r, why, sizeof(why));
                if (s == NULL) {
                        weir->log(r, WEIR_LOG_ERROR, "init: %s", why);
                        return WEIR_ERROR;
                }
        }
        if (s->n_idle > 0)
                x->thread = s->idle[--s->n_idle];
        else if (lua_cpcall(s->L, new_thread, &x->thread) != 0)
                abort(); /* nothing is refused between calls */
        s->calls++;
        x->state = s;
        x->text = &c->hook[hook];
        x->left = c->instructions;
        x->answered = 0;
        x->emitted = 0;
        x->chunk = chunk;
        lua_rawgeti(x->thread.co, LUA_REGISTRYINDEX, s->ref[hook]);
        return state_go_on(r, x);
}
