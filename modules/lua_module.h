/*
 * What the files of the lua module share: an instance's arguments, a Lua state, and a hook's call
 * in it.
 *
 *   lua.c          arguments, hooks
 *   lua_state.c    states: sandbox, limits, coroutines
 *   lua_message.c  request, response, var, respond
 *   lua_wait.c     redis, http, sleep: what suspends a request
 *   lua_body.c     emit, body_mode: what becomes of a body
 *   lua_host.c     log, metric, store, clocks, digests
 *   lua_value.c    json, base64, hex, percent
 */
#ifndef MODULES_LUA_MODULE_H
#define MODULES_LUA_MODULE_H

#define WEIR_MODULE_SHARED
#include <weir/module.h>

#include <lauxlib.h>
#include <lua.h>

enum hook { HOOK_REQUEST, HOOK_REQUEST_BODY, HOOK_RESPONSE, HOOK_RESPONSE_BODY, HOOK_LOG, HOOKS };

/* `redis STORE as NAME;` or `upstream NAME as NAME;`  as absent: what redis() or http() itself
 * asks. */
struct handle_line {
        union {
                weir_redis *store;
                weir_upstream *upstream;
        };
        weir_str as;
};

/* `counter NAME HELP;` */
struct metric_line {
        int32_t kind; /* index in "counter gauge" */
        weir_str name, help;
        weir_metric *metric; /* made by create */
};

/* An instance.  Written by create only. */
struct conf {
        weir_text hook[HOOKS], init;
        weir_list redis;    /* struct handle_line */
        weir_list upstream; /* struct handle_line */
        weir_list metrics;  /* struct metric_line */
        weir_list variable; /* weir_str */
        int64_t instructions, state_memory;
        int64_t body_max;
        int32_t body; /* index in "buffer rewrite read" */
        int32_t jit;
        weir_metric *interrupted, *exhausted; /* calls that a limit ended; made by create */
};

struct thread {
        lua_State *co;
        int ref; /* what keeps it, in the registry */
};

#define IDLE_MAX 64 /* coroutines kept for the next calls */

/* One Lua state.  Invariant: calls are the coroutines that hooks run or wait in; task is set while
 * Lua runs, running while that is a hook.  Belongs to a loop (struct part), or to create. */
struct state {
        lua_State *L;
        const struct conf *conf;
        weir_task *task;
        struct call *running;
        size_t used;  /* bytes, garbage included */
        int64_t left; /* instructions of the call that runs */
        uint32_t calls, n_idle;
        int32_t bounded; /* state_memory holds now: not between calls, where nothing catches */
        int32_t tripped; /* the budget is used up: every instruction raises */
        int32_t retired; /* closed with its last call */
        int ref[HOOKS];  /* the hooks' functions */
        struct thread idle[IDLE_MAX];
};

/* A hook's call.  Invariant: state is NULL when no coroutine is held. */
struct call {
        struct state *state;
        struct thread thread;
        int64_t left; /* instructions, while suspended */
        weir_req *r;
        const weir_text *text;   /* the hook's */
        const weir_chunk *chunk; /* of a body's hook, when it begins */
        int32_t emitted;         /* emit(), or a body's hook has returned something */
        int32_t answered;        /* respond() */
        const weir_value *reply; /* of the operation that has ended */
        const weir_http_res *res;
};

/* The ctx of a request.  The hooks of its two messages may wait at the same time. */
struct ctx {
        struct call of[2]; /* WEIR_REQUEST, WEIR_RESPONSE; the log's is the response's */
};

/* A loop's part of an instance. */
struct part {
        struct state *state; /* NULL: the next call makes one */
};

/* ---- lua_state.c */

/* A state with everything in it and init run; NULL: *why says why, of error_max bytes. */
struct state *state_new(const struct conf *c, weir_task *t, char *why, size_t why_max);
void state_close(struct state *s);

/* Compiles text, named and numbered as the configuration is, onto the stack.  0, or as lua_load;
 * *at then is the byte that was wrong. */
int state_load(lua_State *L, const weir_text *text, const char **at);

/* Begins a call of hook, and goes on with one that waited: the verdict.  What went wrong is
 * logged. */
weir_rc state_begin(const struct conf *c, weir_req *r, struct call *x, enum hook hook,
                    const weir_chunk *chunk);
weir_rc state_go_on(weir_task *t, struct call *x);
void state_drop(struct call *x); /* a call that is waited for no longer */

/* It is the allocator's argument: a few instructions, an upvalue would be dozens. */
static inline struct state *state_of(lua_State *L)
{
        void *s;

        (void)lua_getallocf(L, &s);
        return s;
}

/* Raises, with the place in the configuration that called. */
int state_raise(lua_State *L, const char *fmt, ...) WEIR_PRINTF(2, 3);

/* The call that runs; raises outside of a request. */
static inline struct call *state_call(lua_State *L)
{
        struct call *x = state_of(L)->running;

        if (x == NULL)
                state_raise(L, "there is no request here");
        return x;
}

/* t[name] = fn, t on top; fn's upvalue is n. */
void state_add(lua_State *L, const char *name, lua_CFunction fn, int n);

static inline weir_str state_string(lua_State *L, int i)
{
        weir_str s;
        s.p = luaL_checklstring(L, i, &s.n);
        return s;
}
static inline int state_push(lua_State *L, weir_str s)
{
        lua_pushlstring(L, s.p, s.n);
        return 1;
}

/* ---- Each adds its globals. */
void message_open(lua_State *L);
void wait_open(lua_State *L);
void host_open(lua_State *L);
void body_open(lua_State *L);
void value_open(lua_State *L);

/* ---- lua_body.c: the function on top becomes one that emits what it returns. */
void body_wrap(lua_State *L);

/* ---- lua_value.c: pushes v; JSON's null and Redis' nil within an array as is_json says. */
void value_push(lua_State *L, const weir_value *v, int is_json);

/* ---- lua_message.c: what a host call's error means. */
const char *message_error(weir_err err);

#endif
