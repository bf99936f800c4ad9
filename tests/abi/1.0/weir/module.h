/*
 * weir/module.h - the one public header of weir's functions
 *
 * Changes:  ABI 1.0  message heads, variables, answers, Redis, requests of its own,
 *                    timers, the local store, bodies, keys for signatures.  Frozen:
 *                    a module built against it loads into every weir with ABI 1.
 *
 * Lives at src/include/weir/module.h, installs as <includedir>/weir/module.h.
 * It includes three standard headers and nothing else: no type of weir's own,
 * and none of a library that weir might upgrade, crosses this boundary.
 *
 * A module is one shared object with ONE exported symbol, weir_module_entry.
 *
 *      #include <weir/module.h>
 *      static weir_rc hello(weir_req *r, const void *inst, void *ctx) {
 *              (void)inst; (void)ctx;
 *              weir->header_set(r, WEIR_REQUEST, WEIR_STR("x-hello"), WEIR_STR("weir"));
 *              return WEIR_CONTINUE;
 *      }
 *      WEIR_MODULE(.name = "hello", .version = "1.0", .on_request = hello);
 *
 *      cc -std=c11 -fPIC -shared -fvisibility=hidden -o hello.so hello.c
 *
 * --------------------------------------------------------------------- tasks
 *
 *  Every call of the module happens in a task: something being done, with an
 *  arena, a place in the log, and an end.  There is one type with three names;
 *  the name that a host call uses says in what it works:
 *
 *      weir_req    one HTTP exchange passing through (one h2 stream); its arena
 *                  lives until on_log has returned
 *      weir_conf   an instance being created; its arena lives until destroy
 *                  has returned
 *      weir_task   any of these, or background work (spawn), whose arena lives
 *                  until it has ended
 *
 *  A handle is good for the call that got it and for that call's completions:
 *  two hooks of one request may be given different ones (the ctx is the same).
 *  A call that needs a weir_req or weir_conf and gets something else fails
 *  (WEIR_E_PHASE, WEIR_ERROR, 0 or NULL) and is logged as the module's bug.
 *
 * ----------------------------------------------------------------- lifetimes
 *
 *  copy        One private image of the .so; the file on disk may change at any
 *              time.  Two generations can have two copies of one module: C
 *              statics are per copy, NOT shared and NOT carried over.  What must
 *              outlive a reload goes into the local store or into Redis.
 *  instance    One function of one configuration generation.
 *  request     Keeps the generation it began in until on_log has returned.
 *
 *      create -> [loop_init -> hooks, tasks -> loop_fini] on each loop -> destroy
 *
 *  create and destroy run in the checker process too: create has no effects
 *  outside the process, and opens no files: the user writes ${file:PATH}, and the
 *  argument holds the content.  A configuration becomes active when create and
 *  loop_init have succeeded everywhere; otherwise destroy follows at once.
 *
 *  Strings (weir_str) are not NUL-terminated.  One that the host hands out is
 *  valid as long as the arena of the task it was handed to; one from an argument
 *  until destroy returns.  The host copies every string it is given.
 *  p == NULL means failed or absent.  A host call given such a string fails in
 *  turn, so of a chain of calls only the last result need be looked at.
 *
 * ----------------------------------------------------------------- threading
 *
 *  T1  All hooks and completions of one task run on one thread, one at a time,
 *      never inside a host call that the module makes.  While one waits, another
 *      may run: a body hook of the request beside one of the response.
 *  T2  A loop is one thread with its requests and tasks.  The control thread has
 *      no requests; it runs create, destroy, and what create spawned.  On a loop
 *      nothing may block; on the control thread briefly.
 *  T3  The instance may be written in create only.  What changes later belongs
 *      to a loop (loop_data), to all (cell, local store), or to Redis.
 *  T4  Any thread may call: wake, cell_set, metric_*, key_verify, key_free,
 *      now_us, wall_us, random, sha256, hmac_sha256, equal, and, with a NULL task, log
 *      and log_fields.
 *      All else only from a hook or completion of the task that is passed.
 *  T5  A module with threads of its own joins them before destroy returns.  No
 *      signal handlers, atexit handlers, pthread keys or C++ thread_local
 *      objects with destructors: the loader refuses what it can see of these.
 *
 * ------------------------------------------------------------------- waiting
 *
 *  W1  A hook that must wait starts one or more operations (redis, redis_script,
 *      http, timer, wait, body_drain) and returns WEIR_SUSPEND, which is what they
 *      return.
 *  W2  What a completion returns IS the hook's verdict: WEIR_SUSPEND waits for
 *      another one still to come, anything else ends the call and drops what is
 *      outstanding.  Several at once:  return --x->left ? WEIR_SUSPEND : sum(r, x);
 *  W3  A completion never runs inside the call that started it, at most once,
 *      and not at all after the verdict or when the client has gone.  on_log is
 *      the only call that always comes: exactly once for each request of which
 *      a hook was called.
 *  W4  WEIR_SUSPEND with nothing outstanding is WEIR_ERROR: nothing can hang.
 *  W5  A hook has its function's `timeout=` from entry to verdict, waiting included;
 *      a background task 60 s.  When that is over it ends as WEIR_ERROR.  `budget=`
 *      is how long a call may run before it returns: no one can stop a C function,
 *      so it is watched (the first calls, then a sample), counted and logged; see
 *      time_left.  While body_drain waits only the peer's own time-outs count.
 *  W6  Every hook but on_log may wait.  create, destroy, loop_* may not.
 *
 * ---------------------------------------------------------------- versioning
 *
 *  V1  Same WEIR_ABI_MAJOR: compatible.  Another: refused at load.
 *  V2  Within a major the structs only GROW AT THE END; nothing is reordered,
 *      retyped, removed or given another meaning.  Each carries, or comes with,
 *      its size as its writer knew it; fields beyond it read as zero.  weir_str,
 *      _kv, _list, _text and _rate have none: they never change.
 *  V3  Old module, new host: always loads.  New module, old host: loads if
 *      .host_size_min fits; functions past that are tested with WEIR_HAS(fn).
 *  V4  Enumerations grow: have a default branch.  All integers have fixed width;
 *      no enum, bool, long, bitfield or va_list crosses.
 *  V5  A security fix may make a function refuse more than it did.
 */
#ifndef WEIR_MODULE_H
#define WEIR_MODULE_H 1

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_ABI_MAJOR  1
#define WEIR_ABI_MINOR  0
#define WEIR_ABI_MAGIC  UINT32_C(0x52494557)    /* "WEIR", little endian */

#if defined(__GNUC__)
#define WEIR_EXPORT             __attribute__((visibility("default"), used))
#define WEIR_HIDDEN             __attribute__((visibility("hidden")))
#define WEIR_UNUSED             __attribute__((unused))
#define WEIR_PRINTF(f, a)       __attribute__((format(printf, f, a)))
#else
#define WEIR_EXPORT
#define WEIR_HIDDEN
#define WEIR_UNUSED
#define WEIR_PRINTF(f, a)
#endif

/* --------------------------------------------------------------- basic types */

typedef struct weir_str { const char *p; size_t n; } weir_str;

#ifdef __cplusplus
#define WEIR_STR(lit)   weir_str{ "" lit, sizeof(lit) - 1 }
#else
#define WEIR_STR(lit)   ((weir_str){ "" lit, sizeof(lit) - 1 })
#endif

static inline weir_str weir_bytes(const void *p, size_t n)
{ weir_str s = { (const char *)p, n }; return s; }

/* printf("%.*s", WEIR_S(s)): stops at a NUL byte */
#define WEIR_S(s)       ((s).n > INT32_MAX ? INT32_MAX : (int)(s).n), (s).p

/* A failed or absent string equals nothing.  For secrets: weir->equal. */
static inline int weir_eq(weir_str a, weir_str b)
{ return a.p && b.p && a.n == b.n && memcmp(a.p, b.p, a.n) == 0; }

/* The same without case, of ASCII: field names. */
static inline int weir_eq_icase(weir_str a, weir_str b)
{
        if (!a.p || !b.p || a.n != b.n)
                return 0;
        for (size_t i = 0; i < a.n; i++) {
                unsigned char x = (unsigned char)a.p[i], y = (unsigned char)b.p[i];
                if (x != y && ((x | 32) != (y | 32) || (x | 32) < 'a' || (x | 32) > 'z'))
                        return 0;
        }
        return 1;
}

typedef struct weir_task weir_task, weir_req, weir_conf;        /* see "tasks" */

/* Opaque; every one belongs to the host. */
typedef struct weir_template    weir_template;  /* "lit$var${capture}" compiled */
typedef struct weir_regex       weir_regex;     /* a compiled regular expression */
typedef struct weir_redis       weir_redis;     /* a redis block of the configuration */
typedef struct weir_script      weir_script;    /* a Lua script for Redis */
typedef struct weir_upstream    weir_upstream;  /* an upstream block */
typedef struct weir_metric      weir_metric;
typedef struct weir_cell        weir_cell;      /* one value that all loops read */
typedef struct weir_waiter      weir_waiter;    /* wakes one waiting task, once */
typedef struct weir_key         weir_key;       /* a key to verify signatures with */

/* What a hook or completion decides. */
typedef int32_t weir_rc;
enum {
        WEIR_CONTINUE = 0,      /* go on: next function, then the route's action */
        WEIR_DONE     = 0,      /* the same, said of a background task */
        WEIR_RESPOND  = 1,      /* respond() has been called: skip to the response
                                 * hooks of the functions entered so far */
        WEIR_SUSPEND  = 2,      /* wait for a completion */
        WEIR_REPLACED = 3,      /* body hooks in REWRITE or BUFFER: what was given to
                                 * body_emit (perhaps nothing) stands for this chunk */
        WEIR_ERROR    = -1      /* the use's on_error decides: fail_open as CONTINUE,
                                 * fail_closed answers 503, in place of a response
                                 * too, or cuts a response whose head has gone; of a
                                 * background task: logged and counted */
};

/* Result of a host call that can fail; negative. */
typedef int32_t weir_err;
enum {
        WEIR_OK        = 0,
        WEIR_E_NOMEM   = -1,    /* the task's `memory=` is used up */
        WEIR_E_INVAL   = -2,    /* e.g. CR, LF or NUL in a field; a failed string */
        WEIR_E_PHASE   = -3,    /* not in this task, or too late in it */
        WEIR_E_DENIED  = -4,    /* hop-by-hop or framing field, read-only variable */
        WEIR_E_FULL    = -5,    /* a bounded table or buffer is full */
        WEIR_E_NOENT   = -6,
        WEIR_E_UNAVAIL = -7,    /* circuit open, upstream down */
        WEIR_E_TIMEOUT = -8
};

/* ------------------------------------------------- arguments of a function */

/*
 * A module parses nothing.  It describes a struct; the host reads the words of
 * the configuration into it, checks, defaults and documents them, and reports
 * mistakes with file, line and column.  One rule covers every form:
 *
 *      name=value   on the function's line, or
 *      name value;  in its block, or, for an argument that is WEIR_BARE,
 *      value        on its line: bare words fill these in the order of the table.
 *
 * A list takes several words (name a b;) and may be repeated; a bare one must be
 * the last.  With `=` they stand in one word: name="a b".  A list of LINEs holds
 * one struct for each line of that name; a line is read by these same rules:
 *
 *      set response Server weir;       key jwks=${file:k.json};  claim sub as user;
 *
 * Several arguments may fill one list of LINEs (same offset): it keeps the order
 * written, and a WEIR_VERB in the line tells which name it was.
 *
 * name, on_error, timeout, budget and memory of a function are the host's.
 */
enum {                          /*                 field            written     */
        WEIR_T_STR      = 1,    /* weir_str         any word                     */
        WEIR_T_FIELD    = 2,    /* weir_str         header name, one that may be set */
        WEIR_T_VAR      = 3,    /* weir_str         user: this function sets the
                                 *                  variable $MODULE_user; the field
                                 *                  holds "MODULE_user", for var_set */
        WEIR_T_TEXT     = 4,    /* weir_text        "...", <<RAW block, ${file:PATH} */
        WEIR_T_TEMPLATE = 5,    /* const weir_template *  $client_ip, "a${id}b"  */
        WEIR_T_ENUM     = 6,    /* int32_t          one of .choices; its index   */
        WEIR_T_BOOL     = 7,    /* int32_t          on off                       */
        WEIR_T_INT      = 8,    /* int64_t          -5, 200                      */
        WEIR_T_NUMBER   = 9,    /* double           0.2, 20%                     */
        WEIR_T_TIME     = 10,   /* int64_t, us      250ms 5s 2m 1h 7d            */
        WEIR_T_SIZE     = 11,   /* int64_t, bytes   8k 1m 2g                     */
        WEIR_T_RATE     = 12,   /* weir_rate        100/s 600/m 20/60s           */
        /* The next three are the only source of such handles: what the operator
         * did not name in the configuration, a module cannot reach. */
        WEIR_T_REDIS    = 13,   /* weir_redis *     name of a redis block        */
        WEIR_T_STORE    = 14,   /* weir_redis *     the same, or `local`: NULL   */
        WEIR_T_UPSTREAM = 15,   /* weir_upstream *  name of an upstream          */
        WEIR_T_LINE     = 16,   /* weir_list of structs, see WEIR_LINES          */
        WEIR_T_LITERAL  = 17,   /* no field: a bare word, the argument's name itself;
                                 * must be there if a later bare word is */
        WEIR_T_REGEX    = 18    /* const weir_regex *  PCRE2, over bytes: '^/a/(.*)$' */
};
enum {
        WEIR_REQUIRED   = 1,
        WEIR_BARE       = 2,    /* may be given without its name */
        WEIR_SECRET     = 4,    /* never shown in logs, dumps or the admin interface */
        WEIR_DEPRECATED = 8,    /* accepted with a warning: .help says what instead */
        WEIR_VERB       = 16,   /* an ENUM of a line, never written: the line's name */
        WEIR_MANY       = 32,   /* set by WEIR_LIST and WEIR_LINES */
        WEIR_CAPTURES   = 64    /* a TEMPLATE whose $1, $NAME are captures of the REGEX
                                 * before it in the table, for regex_replace */
};

typedef struct weir_text {      /* .text.p == NULL: not given */
        weir_str text, file;    /* the content; the file that it comes from */
        int64_t  line;          /* of the first character in that file, from 1 */
} weir_text;

typedef struct weir_rate { int64_t count, per_us; } weir_rate;

typedef struct weir_list { const void *v; size_t n; } weir_list;

/* Any element type: WEIR_EACH (weir_str, s, inst->names), and of a list of REGEX
 * WEIR_EACH (const weir_regex *, re, inst->patterns), where *re is one of them. */
#define WEIR_EACH(E, e, list) \
        for (E const *e = (E const *)(list).v, *e##_end = e ? e + (list).n : e; e != e##_end; e++)

typedef struct weir_arg {
        const char *name;               /* [a-z][a-z0-9_]* */
        uint32_t    type, flags;        /* WEIR_T_*; WEIR_REQUIRED ... */
        size_t      offset;
        const char *dflt;               /* as it would be written, not checked against
                                         * min and max; NULL: the field stays zero */
        const char *help;               /* one sentence for the manual */
        const char *choices;            /* ENUM: "request response" */
        int64_t     min, max;           /* INT TIME SIZE, RATE's count; both 0: unchecked */
        const struct weir_arg *line;    /* LINE: the arguments of one line, */
        size_t      n_line, line_size;  /* how many, and the size of its struct */
} weir_arg;

#define WEIR_C_STR      weir_str
#define WEIR_C_FIELD    weir_str
#define WEIR_C_VAR      weir_str
#define WEIR_C_TEXT     weir_text
#define WEIR_C_TEMPLATE const weir_template *
#define WEIR_C_ENUM     int32_t
#define WEIR_C_BOOL     int32_t
#define WEIR_C_INT      int64_t
#define WEIR_C_NUMBER   double
#define WEIR_C_TIME     int64_t
#define WEIR_C_SIZE     int64_t
#define WEIR_C_RATE     weir_rate
#define WEIR_C_REDIS    weir_redis *
#define WEIR_C_STORE    weir_redis *
#define WEIR_C_UPSTREAM weir_upstream *
#define WEIR_C_REGEX    const weir_regex *

#ifdef __cplusplus
#define WEIR_OFF_(S, f, T)      offsetof(S, f)
#else   /* a field of the wrong type does not compile */
#define WEIR_OFF_(S, f, T)      _Generic(((S *)0)->f, T: offsetof(S, f))
#endif
#define WEIR_ARG_(nm, ty, fl, off, df, ...) \
        { .name = nm, .type = ty, .flags = (fl), .offset = off, .dflt = df, .help = __VA_ARGS__ }

/* Argument `field` of struct S, of a TYPE without its WEIR_T_.  After the help
 * text may follow .choices = "a b", or .min = 1, .max = 9.  _AS: when the name in
 * the configuration is another one than the field's. */
#define WEIR_ARG(S, field, TYPE, flags, dflt, ...) \
        WEIR_ARG_(#field, WEIR_T_##TYPE, flags, \
                  WEIR_OFF_(S, field, WEIR_C_##TYPE), dflt, __VA_ARGS__)
#define WEIR_ARG_AS(name, S, field, TYPE, flags, dflt, ...) \
        WEIR_ARG_(name, WEIR_T_##TYPE, flags, \
                  WEIR_OFF_(S, field, WEIR_C_##TYPE), dflt, __VA_ARGS__)

/* The field is a weir_list of what TYPE's field would be. */
#define WEIR_LIST(S, field, TYPE, flags, dflt, ...) \
        WEIR_ARG_(#field, WEIR_T_##TYPE, (flags) | WEIR_MANY, \
                  WEIR_OFF_(S, field, weir_list), dflt, __VA_ARGS__)

/* The field is a weir_list of E, one for each line `name`, read by the first n
 * rows of the table. */
#define WEIR_LINES(name, S, field, flags, E, table, n, ...) \
        WEIR_ARG_(name, WEIR_T_LINE, (flags) | WEIR_MANY, \
                  WEIR_OFF_(S, field, weir_list), NULL, __VA_ARGS__, \
                  .line = (table), .n_line = (n), .line_size = sizeof(E))

#define WEIR_LITERAL(word)      WEIR_ARG_(word, WEIR_T_LITERAL, WEIR_BARE, 0, NULL, "")

/* ------------------------------------------------------------------- values */

/* A Redis reply, or a JSON document. */
enum { WEIR_V_FAIL = 0,         /* no answer: .integer a weir_err, .str says why */
       WEIR_V_NULL = 1, WEIR_V_BOOL = 2, WEIR_V_INTEGER = 3, WEIR_V_NUMBER = 4,
       WEIR_V_STRING = 5, WEIR_V_ARRAY = 6, WEIR_V_OBJECT = 7,
       WEIR_V_ERROR = 8 };      /* what Redis answered: "-ERR ..." */

typedef struct weir_value {
        uint32_t size;
        int32_t  type;
        int64_t  integer;       /* INTEGER; BOOL: 0 or 1 */
        double   number;        /* INTEGER and NUMBER */
        weir_str str;           /* STRING, ERROR; JSON's ARRAY and OBJECT: their source */
        weir_str name;          /* of a member, in its OBJECT */
        size_t   n;             /* elements or members */
        const struct weir_value *const *elem;
} weir_value;

/* Member of an object, or NULL; v may be NULL or of any type. */
static inline const weir_value *weir_get(const weir_value *v, weir_str name)
{
        for (size_t i = 0; v && v->type == WEIR_V_OBJECT && i < v->n; i++)
                if (weir_eq(v->elem[i]->name, name))
                        return v->elem[i];
        return NULL;
}

/* Its string, or an absent one if there is none of that name and type. */
static inline weir_str weir_get_str(const weir_value *v, weir_str name)
{
        weir_str none = { NULL, 0 };
        v = weir_get(v, name);
        return v && v->type == WEIR_V_STRING ? v->str : none;
}

/* ---------------------------------------------------- messages, completions */

/* Which fields.  Trailers: there with the LAST chunk of that body and in on_log; can
 * be changed with LAST, in REWRITE and BUFFER. */
enum { WEIR_REQUEST = 0, WEIR_RESPONSE = 1,
       WEIR_REQUEST_TRAILERS = 2, WEIR_RESPONSE_TRAILERS = 3 };

/* What a function wants of a body; it says so in on_request or on_response (or a
 * completion of it), with body_mode. */
enum { WEIR_BODY_SKIP = 0,      /* the default: its body hook is not called */
       WEIR_BODY_READ = 1,      /* each chunk as it streams by, unchanged */
       WEIR_BODY_REWRITE = 2,   /* the same, and may be REPLACED */
       WEIR_BODY_BUFFER = 3 };  /* one call with the whole body, before the next
                                 * function's turn and the route's action: fields,
                                 * variables and the upstream can still be changed
                                 * and the request be answered; may be REPLACED */

/* A body hook gets chunks in order, of 16 KiB at most unless it is BUFFER.  LAST comes
 * once, perhaps with no data; not when the peer fails in the middle, the request is
 * answered otherwise, or this hook has failed or has said SKIP.  A message without a
 * body (GET, HEAD, 204, 304) is one empty chunk, FIRST and LAST, before its head goes;
 * what is emitted where no body can be is dropped.  After a 101 there are no chunks. */
typedef struct weir_chunk {
        uint32_t size;
        uint32_t flags;         /* WEIR_CHUNK_* */
        weir_str data;          /* valid until the verdict; may be empty */
        uint64_t offset;        /* of data in the body, as this function gets it */
} weir_chunk;
enum { WEIR_CHUNK_FIRST = 1, WEIR_CHUNK_LAST = 2 };

typedef struct weir_kv { weir_str name, value; } weir_kv;

typedef struct weir_http_req {
        uint32_t size, flags;   /* sizeof(weir_http_req); 0 */
        weir_str method, path;  /* absent: GET; with the query, encoded */
        weir_str body;          /* absent: none */
        const weir_kv *fields;  /* Host is the upstream's name unless given here */
        size_t   n_fields;
        int64_t  timeout_us;    /* 0: the upstream's settings */
        uint64_t max_body;      /* of the answer; 0: 64 KiB; more is WEIR_E_FULL */
} weir_http_req;

#define WEIR_HTTP(...)  (&(const weir_http_req){ .size = sizeof(weir_http_req), __VA_ARGS__ })

typedef struct weir_http_res {
        uint32_t size;
        int32_t  status;        /* 0: no answer, .error says why, .body in words */
        weir_err error;
        uint32_t flags;
        weir_str body;
        const weir_kv *fields;  /* hop-by-hop ones are gone */
        size_t   n_fields;
} weir_http_res;

/* The first field of that name in an answer, or an absent string. */
static inline weir_str weir_http_field(const weir_http_res *res, weir_str name)
{
        weir_str none = { NULL, 0 };
        for (size_t i = 0; i < res->n_fields; i++)
                if (weir_eq_icase(res->fields[i].name, name))
                        return res->fields[i].value;
        return none;
}

/* Completions.  ctx: .ctx_size zeroed bytes of this instance in this task.
 * arg: what was given with the operation. */
typedef weir_rc weir_fn(weir_task *, const void *inst, void *ctx, void *arg);
typedef weir_rc weir_redis_fn(weir_task *, const void *inst, void *ctx,
                              const weir_value *, void *arg);
typedef weir_rc weir_http_fn(weir_task *, const void *inst, void *ctx,
                             const weir_http_res *, void *arg);

enum { WEIR_LOG_ERROR = 1, WEIR_LOG_WARN = 2, WEIR_LOG_INFO = 3, WEIR_LOG_DEBUG = 4 };
enum { WEIR_COUNTER = 1, WEIR_GAUGE = 2, WEIR_HISTOGRAM = 3 };
enum { WEIR_HEX = 1, WEIR_BASE64 = 2, WEIR_BASE64URL = 3, WEIR_PERCENT = 4,
       WEIR_JSON = 5 };         /* a string with its quotes; encode only */

/* ---------------------------------------------------------------- test cases */

/*
 * The host runs them, with a fake clock, Redis and upstreams, on each load before
 * a configuration that uses the module may become active (`weir -t` and the
 * module test runner do the same).  One that fails keeps the running one.
 *
 *   config    what would follow the module's name: "store=main ttl=5s" or
 *             "{ set response A b; }".  A redis block and an upstream named
 *             main exist.
 *   request   raw HTTP/1.1, "\n" is enough; what follows the empty line is the
 *             body.  Several, separated by a line "--", or "-- 30s" to let that time
 *             pass; tasks that are due run in between.
 *   redis     replies in order, one per line: $text  :42  _ (null)
 *             [1,$a,_]  -ERR text  ! (no answer)  ~ (time-out)
 *   upstream  raw answer of the proxied upstream, body and all; absent: 200
 *   expect    one per line, all must hold; with "--" as in request:
 *             "continue" | "respond 403" | "error" | "req name: value" | "req -name" |
 *             "res name: value" | "res -name" | "body text" (the response's) |
 *             "req body text" | "var name=value" | "redis GET key" |
 *             "http GET /path" | "http name: value" | "http body text"
 *   http      raw answers to the module's own requests in order, separated by a line
 *             "--"; or ! (no answer) or ~ (time-out); absent: !
 */
typedef struct weir_case {
        const char *name, *config, *request, *redis, *upstream, *expect, *http;
} weir_case;

/* ---------------------------------------------------------------- the module */

enum {
        WEIR_ANSWERS = 1,       /* always answers: a route with it needs no action */
        WEIR_PINNED  = 2        /* cannot be unloaded; kept until the process ends */
};

typedef struct weir_module {
        uint32_t magic;                 /* WEIR_ABI_MAGIC    } filled in by  */
        uint16_t abi_major, abi_minor;  /* of this header    } WEIR_MODULE() */
        uint32_t size;                  /* of this struct    }               */
        uint32_t arg_size;              /* of weir_arg, in all its tables    */
        uint32_t case_size;             /* of weir_case      }               */
        uint32_t host_size_min;         /* bytes of weir_host it cannot do without */

        const char *name;               /* [a-z][a-z0-9_]*, its name in the configuration */
        const char *version;            /* free text, shown by the admin interface */
        uint64_t flags;                 /* WEIR_ANSWERS ... */
        const weir_arg *args;           /* } WEIR_ARGS() */
        size_t n_args;                  /* }             */
        size_t inst_size;               /* } the struct that args describe */
        const char *named;              /* "limit": then `limit NAME { ... }` at the top
                                         * is one instance with these arguments, and
                                         * `function MODULE NAME;` uses it, anywhere;
                                         * no argument may then be BARE */
        size_t ctx_size;                /* bytes per task, zeroed, gone when it ends */
        size_t loop_size;               /* bytes per instance and loop, zeroed */
        const weir_case *cases;         /* } WEIR_CASES() */
        size_t n_cases;                 /* }              */

        /* Control thread.  inst holds the arguments.  What it returns other than
         * WEIR_OK, or a conf_error, refuses the whole configuration (destroy is
         * then not called). */
        weir_err (*create)(weir_conf *, void *inst);
        void     (*destroy)(void *inst);

        /* On each loop before its first and after its last request and task; this
         * task's arena lives until loop_fini has returned.  loop is NULL if
         * loop_size is 0. */
        weir_err (*loop_init)(weir_task *, const void *inst, void *loop);
        void     (*loop_fini)(const void *inst, void *loop);

        /* Hooks.  NULL: not interested, costs nothing.  Request hooks run in the
         * order of the configuration, response hooks in reverse, also for answers
         * that weir or a function makes.  Body hooks follow that order: one
         * function's output is the next one's input. */
        weir_rc  (*on_request)(weir_req *, const void *inst, void *ctx);
        weir_rc  (*on_response)(weir_req *, const void *inst, void *ctx);
        void     (*on_log)(weir_req *, const void *inst, void *ctx);
        weir_rc  (*on_request_body)(weir_req *, const void *inst, void *ctx, const weir_chunk *);
        weir_rc  (*on_response_body)(weir_req *, const void *inst, void *ctx, const weir_chunk *);
        /* ABI 1.0 ends here. */
} weir_module;

/* ------------------------------------------------------------------ the host */

typedef struct weir_host {
        uint32_t size;                  /* bytes of this table in the running host */
        uint16_t abi_major, abi_minor;
        const char *version;            /* "weir 1.4.2" */

        /* Memory of the task's arena: never freed one by one, NULL (or a failed
         * string) when its `memory=` is used up.  What is large or must go earlier:
         * malloc, and free it in on_log. */
        void    *(*alloc)(weir_task *, size_t);
        weir_str (*dup)(weir_task *, weir_str);
        weir_str (*format)(weir_task *, const char *fmt, ...) WEIR_PRINTF(2, 3);

        /* Variables: the names of the configuration, without `$`: client_ip, path,
         * arg_NAME, cookie_NAME, a capture, what other functions set.  get: 1 and
         * the value, or 0.  set: the function's own (type VAR), and in on_request
         * method, host (the Host sent), uri (the target sent, encoded), arg_NAME
         * (encodes), upstream (by its name), server (one of the upstream's, as $server
         * names it; while it is not up, the others serve); in on_response status.
         * expand: absent variables are empty, in background work those of a request too. */
        int32_t  (*var_get)(weir_req *, weir_str name, weir_str *value);
        weir_err (*var_set)(weir_req *, weir_str name, weir_str value);
        weir_err (*var_del)(weir_req *, weir_str name);
        weir_str (*expand)(weir_task *, const weir_template *);
        /* In on_request: the upstream an argument names, in place of the route's. */
        weir_err (*upstream_set)(weir_req *, const weir_upstream *);

        /* Fields; names compare without case.  get: how many there are of that
         * name, value is the first.  at: 1, or 0 past the end; i stays valid until
         * the block is changed.  del: how many there were.  Response fields changed
         * before there is a response are kept and applied to whatever is sent; get and
         * at find none until then.  Framing and hop-by-hop fields (Content-Length,
         * Connection ...) can be read only, and so can Host: set variable host. */
        int32_t  (*header_get)(weir_req *, int32_t where, weir_str name, weir_str *value);
        int32_t  (*header_at)(weir_req *, int32_t where, size_t i, weir_kv *);
        weir_err (*header_set)(weir_req *, int32_t where, weir_str name, weir_str value);
        weir_err (*header_add)(weir_req *, int32_t where, weir_str name, weir_str value);
        int32_t  (*header_del)(weir_req *, int32_t where, weir_str name);

        /* Answer in place of the upstream, with the response fields set so far and
         * text/plain unless they say otherwise; in on_response: in place of the response
         * that is there, whose fields and body are dropped.  In a body hook: BUFFER, and
         * that of a request as long as no response's head has gone.  status 200 to 599.  Returns
         * the verdict: WEIR_RESPOND, or WEIR_ERROR when it is too late or wrong. */
        weir_rc  (*respond)(weir_req *, int32_t status, weir_str body);

        /* mode: of the body of the message whose head's hook is running; the last one
         * said counts.  REWRITE drops the fields that would no longer be true
         * (Content-Length, ETag, Accept-Ranges, digests) at once, so that the hook can set
         * others; BUFFER does with the first emit.  max (BUFFER): bytes; more is answered
         * 413, from upstream 502; 0: the route's `body max=`.  In a body hook only SKIP:
         * no more chunks after this one.
         * emit: goes on after the verdict, before the chunk itself unless that is REPLACED.
         * 64 KiB a call (BUFFER: max), then WEIR_E_FULL and nothing is queued: body_drain,
         * whose completion comes when the peer has taken it, and go on there; not in
         * BUFFER.  While a body hook waits, its body is not read. */
        weir_err (*body_mode)(weir_req *, int32_t mode, uint64_t max);
        weir_err (*body_emit)(weir_req *, weir_str data);
        weir_rc  (*body_drain)(weir_req *, weir_fn *, void *arg);

        /* Operations: WEIR_SUSPEND once under way, or WEIR_ERROR; then fn is not
         * called.  redis: one command, pipelined with the loop's others, within the
         * block's `timeout command=`.  What fn gets lives as long as the task.
         * redis_script: the same with a script (conf_script), sent by its digest, with
         * its text where Redis does not know it; the first n_keys of argv are KEYS. */
        weir_rc  (*redis)(weir_task *, weir_redis *, weir_redis_fn *, void *arg,
                          const weir_str *argv, size_t argc);
        weir_rc  (*redis_script)(weir_task *, weir_redis *, const weir_script *, size_t n_keys,
                                 weir_redis_fn *, void *arg, const weir_str *argv, size_t argc);

        /* Another operation: an exchange with the upstream, as requests that are
         * proxied there have them (balanced, kept connections, retries, health).  Not on the
         * control thread.  Redirects are not followed; of 1xx and trailers nothing is said.  Once
         * it is under way fn is told of everything that is wrong: of a malformed method, path or
         * field (WEIR_E_INVAL), of a framing or hop-by-hop field (WEIR_E_DENIED), of servers that
         * are down or break off (WEIR_E_UNAVAIL), of time-outs (WEIR_E_TIMEOUT), which count
         * against the server like any other.  What it holds until then counts as the task's
         * memory; a verdict aborts it. */
        weir_rc  (*http)(weir_task *, weir_upstream *, const weir_http_req *,
                         weir_http_fn *, void *arg);

        weir_rc  (*timer)(weir_task *, int64_t us, weir_fn *, void *arg);
        /* wait: until wake(waiter, result), from any thread, which must come exactly
         * once for each waiter and holds the generation until then.  fn gets result as
         * its arg; if the task waits no longer, drop(result) is called in its place, on
         * the same thread; NULL: nothing to do. */
        weir_rc  (*wait)(weir_task *, weir_fn *, void (*drop)(void *result), weir_waiter **);
        void     (*wake)(weir_waiter *, void *result);

        /* Background work: fn runs in a task of its own after that many us, on the
         * thread of the caller: of a hook, task or loop_init that loop; of create the
         * control thread.  Not before the configuration is active; in the checker never.
         * fn's arg is a copy of the n bytes of data (no pointers into this task's
         * arena) in the new task's own; NULL if n is 0.  A periodic job spawns its
         * successor.  When the generation is replaced, tasks not yet begun are
         * dropped, running ones finish.  1,000 per instance and thread, then
         * WEIR_E_FULL. */
        weir_err (*spawn)(weir_task *, int64_t after_us, weir_fn *, const void *data, size_t n);
        void    *(*loop_data)(weir_task *);     /* NULL on the control thread */
        int64_t  (*time_left)(weir_task *);     /* us of `budget=`, counted from the
                                                 * beginning of the loop's turn */

        /* The local store: a key space per module in one table of `store_size`, shared
         * by all workers and loops; survives reloads; least recently used goes first.
         * ttl_us 0: no end.  get: 1 and a copy, or 0.  update: fn changes a record of
         * n bytes (zeroed if new or of another size; no pointers: other processes see
         * it) while nobody else does; it calls nothing of the host. */
        int32_t  (*local_get)(weir_task *, weir_str key, weir_str *value);
        weir_err (*local_set)(weir_task *, weir_str key, weir_str value, int64_t ttl_us);
        weir_err (*local_del)(weir_task *, weir_str key);
        weir_err (*local_update)(weir_task *, weir_str key, size_t n, int64_t ttl_us,
                                 void (*fn)(void *record, void *arg), void *arg);

        /* A cell holds one pointer of the module's own, made by any thread of this
         * worker and read by all.  get: NULL before the first set; valid as long as the
         * task, however often it is set meanwhile.  The cell's drop gets each value after
         * its last reader, on any thread; what is left, before destroy. */
        void     (*cell_set)(weir_cell *, void *value);
        const void *(*cell_get)(weir_task *, weir_cell *);

        /* Observing.  Of log lines beyond log_lines= a second (10) only the number is written.
         * log_fields: a message and what is known by name, for programs that read the log
         * (name=value, in quotes where need be); up to 64; an absent value is left out.  add: counter, gauge.  set: a gauge; a histogram counts it. */
        void     (*log)(weir_task *, int32_t level, const char *fmt, ...) WEIR_PRINTF(3, 4);
        void     (*log_fields)(weir_task *, int32_t level, weir_str message,
                               const weir_kv *fields, size_t n);
        void     (*metric_add)(weir_metric *, double);
        void     (*metric_set)(weir_metric *, double);

        /* Clocks (read once per turn of the loop; fake in test cases), randomness. */
        int64_t  (*now_us)(void);               /* monotonic */
        int64_t  (*wall_us)(void);              /* since 1970 */
        void     (*random)(void *, size_t);     /* fit for keys */

        /* encode, decode: WEIR_HEX ...; decode is strict.  json_parse: NULL when
         * malformed, a name occurs twice in an object, or nested deeper than 32. */
        weir_str (*encode)(weir_task *, int32_t how, weir_str);
        weir_str (*decode)(weir_task *, int32_t how, weir_str);
        const weir_value *(*json_parse)(weir_task *, weir_str);
        /* The text of a document: of json_parse, of Redis (its NULL too), or put together of
         * structs with .size, .type and what goes with it.  A failed string: another type is
         * in it, or it is nested deeper than 32.  Bytes that are not UTF-8 become U+FFFD. */
        weir_str (*json_write)(weir_task *, const weir_value *);
        /* match: 1, 0, or WEIR_E_FULL when the match limit is hit, which is never "no".
         * replace: each match in subject by with, whose WEIR_CAPTURES are its own;
         * subject itself when there is none. */
        int32_t  (*regex_match)(weir_task *, const weir_regex *, weir_str subject);
        weir_str (*regex_replace)(weir_task *, const weir_regex *, weir_str subject,
                                  const weir_template *with);
        void     (*sha256)(weir_str data, uint8_t out[32]);
        void     (*hmac_sha256)(weir_str key, weir_str data, uint8_t out[32]);
        int32_t  (*equal)(weir_str, weir_str);  /* constant time; 1 equal */
        /* A PEM public key or one JWK, the module's own until key_free; NULL: not
         * understood, private, RSA below 2048 bits, or not for verifying.  verify: alg as
         * in JOSE (RS256, PS256, ES256, HS256 and so on, EdDSA), sig as it decodes; 1
         * genuine, 0 not, or alg does not fit the key's kind, curve or length. */
        weir_key *(*key_new)(weir_task *, weir_str);
        void     (*key_free)(weir_key *);
        int32_t  (*key_verify)(const weir_key *, weir_str alg, weir_str data, weir_str sig);

        /* In create.  error: at is the address of the field in question, or of a byte
         * of its text (a line of a raw block, or of a ${file:}, is pointed at exactly);
         * NULL: the function as a whole.  Report all mistakes, then return what it returns.  name: of the
         * named block, else from `name=`, else made of route and place; the same across
         * reloads as long as these are.  metric: exported as weir_MODULE_name, labelled
         * function="conf_name"; name may end in more labels, as in
         * "requests_total{result=\"denied\"}"; bounds: a histogram's n upper ones. */
        weir_err (*conf_error)(weir_conf *, const void *at, const char *fmt, ...) WEIR_PRINTF(3, 4);
        weir_str (*conf_name)(weir_conf *);
        weir_metric *(*conf_metric)(weir_conf *, int32_t kind, const char *name, const char *help,
                                    const double *bounds, size_t n);
        weir_cell *(*conf_cell)(weir_conf *, void (*drop)(void *value));
        weir_script *(*conf_script)(weir_conf *, weir_str text);
        /* ABI 1.0 ends here. */
} weir_host;

/* ---------------------------------------------------------------------- glue */

/* Called once per copy; what it returns is checked (magic, major, sizes, name,
 * arguments) before anything else of the module is called. */
typedef const weir_module *weir_entry_fn(const weir_host *);

#define WEIR_HAS(fn) \
        (offsetof(weir_host, fn) + sizeof(weir->fn) <= weir->size && weir->fn != NULL)
#define WEIR_COUNT(a)   (sizeof(a) / sizeof((a)[0]))
#define WEIR_ARGV(...)  ((const weir_str[]){ __VA_ARGS__ }), \
                        (sizeof((const weir_str[]){ __VA_ARGS__ }) / sizeof(weir_str))
#define WEIR_KVS(...)   ((const weir_kv[]){ __VA_ARGS__ }), \
                        (sizeof((const weir_kv[]){ __VA_ARGS__ }) / sizeof(weir_kv))
#define WEIR_ARGS(S, a) .args = (a), .n_args = WEIR_COUNT(a), .inst_size = sizeof(S)
#define WEIR_CASES(a)   .cases = (a), .n_cases = WEIR_COUNT(a)

/* `weir` is the host's table.  A module of several files defines
 * WEIR_MODULE_SHARED before each #include, and has WEIR_MODULE in one of them. */
#ifdef WEIR_MODULE_SHARED
extern WEIR_HIDDEN const weir_host *weir;
#define WEIR_HOST_DEF_  const weir_host *weir
#else
static WEIR_UNUSED const weir_host *weir;
#define WEIR_HOST_DEF_  struct weir_no_such_struct
#endif

#ifdef __cplusplus
#define WEIR_EXTERN_C_  extern "C"
#else
#define WEIR_EXTERN_C_
#endif

/* To load into older hosts too, define WEIR_HOST_MIN before the #include, as offsetof(weir_host,
 * the first call that it can do without), and guard what is newer with WEIR_HAS(). */
#ifndef WEIR_HOST_MIN
#define WEIR_HOST_MIN   sizeof(weir_host)
#endif
#define WEIR_MODULE(...) \
        WEIR_HOST_DEF_; \
        WEIR_EXTERN_C_ WEIR_EXPORT const weir_module *weir_module_entry(const weir_host *); \
        WEIR_EXTERN_C_ WEIR_EXPORT const weir_module *weir_module_entry(const weir_host *host_) \
        { \
                static const weir_module module_ = { \
                        .magic = WEIR_ABI_MAGIC, \
                        .abi_major = WEIR_ABI_MAJOR, .abi_minor = WEIR_ABI_MINOR, \
                        .size = sizeof(weir_module), \
                        .arg_size = sizeof(weir_arg), \
                        .case_size = sizeof(weir_case), \
                        .host_size_min = (uint32_t)(WEIR_HOST_MIN), __VA_ARGS__ \
                }; \
                weir = host_; \
                return &module_; \
        } \
        struct weir_semicolon_follows_

#ifdef __cplusplus
}
#endif
#endif /* WEIR_MODULE_H */
