/*
 * The functions of a generation, as chain, task and api see them.  Private to those files.
 *
 *   instance_set -- instance (one function) -- instance_loop (its part on one thread)
 *                \- set_loop (one thread's part of all: Redis clients, what holds the generation)
 *
 * An instance is immutable once created; an instance_loop belongs to its thread.
 */
#ifndef PROXY_INSTANCE_H
#define PROXY_INSTANCE_H

#include "base/log.h"
#include "module/module.h"
#include "proxy/chain.h"
#include "proxy/task.h"

enum call_result {
        CALL_CONTINUE,
        CALL_RESPOND,
        CALL_ERROR,
        CALL_TIMEOUT,
        CALL_QUARANTINED,
        CALL_RESULTS
};

/* What became of a request that a function has made. */
enum asked_result { ASKED_ANSWERED, ASKED_FAILED, ASKED_DROPPED, ASKED_RESULTS };

#define INSTANCE_MAGIC     UINT32_C(0x494e5354)
#define INSTANCE_SET_MAGIC UINT32_C(0x494e5345)

/* One thread's part of a set.  Written by that thread only. */
struct set_loop {
        struct instance_set *set;
        struct loop *loop;        /* NULL: not begun */
        struct redis **redis;     /* by store index, opened on first use */
        _Atomic uint32_t pending; /* background tasks that run and waiters of this thread; others
                                     only read it */
        bool active, retired;
};

/* One thread's part of an instance: what an empty hook touches is in the first cache line. */
struct instance_loop {
        const struct instance *inst;
        struct set_loop *sl;
        metric_cell *results[CALL_RESULTS];
        uint32_t unmeasured; /* calls until the next one is measured */
        uint32_t measured;   /* in a row, at the beginning and after one that ran too long */
        metric_cell *over;
        metric_cell *duration; /* of the measured calls; NULL: none was yet */
        void *data;            /* loop_data */
        struct arena *arena;   /* of loop_init */
        struct list works;     /* background tasks, begun or not */
        uint32_t n_works;
        bool inited; /* loop_fini is due */
        struct log_quota quota;
        struct log_quota lines; /* of the module's own */
        struct deadline held;   /* armed while some were held back and nobody was told */
        metric_cell *lines_held;
        metric_cell *asked[ASKED_RESULTS]; /* made at first use */
};

struct instance {
        uint32_t magic;
        uint32_t index, copy; /* for crumbs */
        const weir_module *desc;
        void *inst;
        struct instance_loop **loops; /* n_loops, then the control thread's; NULL until begun */
        struct instance_set *set;
        const struct function_conf *conf;
        const struct constants *constants; /* conf's; never NULL */
        const char *subject;               /* "function headers (weir.conf:12)" */
        struct arena *arena;               /* until destroy has returned */
        size_t memory;                     /* bound of a background task's arena */
        struct weir_cell *cells;
        struct weir_metric *metrics;
        bool quarantined, created;
};

struct instance_set {
        uint32_t magic;
        struct instance_env env;
        struct conf *conf;
        struct arena *arena;
        struct instance **v;
        size_t n;
        struct set_loop *loops; /* n_loops + 1: the last is the control thread's */
        _Atomic bool control_active, control_retired; /* told to the control thread, once each */
        struct loop_msg activate, retire;
        struct report *rep; /* while creating */
};

static inline unsigned set_index(const struct instance_set *s, const struct loop *l)
{
        return l->index < s->env.n_loops ? l->index : s->env.n_loops;
}

static inline struct instance_loop *instance_here(const struct instance *i, const struct loop *l)
{
        return i->loops[set_index(i->set, l)];
}

/* i NULL: the task is aimed at one later. */
static inline void task_init(struct weir_task *t, enum task_kind kind, const struct instance *i,
                             struct loop *l, struct arena *a)
{
        t->magic = TASK_MAGIC;
        t->kind = (uint8_t)kind;
        t->inst = i;
        t->use = i ? i->conf : NULL;
        t->il = i && l ? instance_here(i, l) : NULL;
        t->loop = l;
        t->arena = a;
        list_init(&t->ops);
        t->early_end = &t->early;
}

/* Around each call into the module.  Returns a time stamp when the call is measured, else 0. */
static inline int64_t task_enter(struct weir_task *t, enum module_phase phase)
{
        struct instance_loop *il = t->il;

        t->phase = (uint8_t)phase;
        task_current = t;
        crumb_enter(t->inst->copy, t->inst->index, (uint8_t)phase, &t->use->label, t->route);
        if (LIKELY(il != NULL && il->unmeasured != 0)) {
                il->unmeasured--;
                return 0;
        }
        return task_measure(t);
}

static inline void task_leave(struct weir_task *t, int64_t stamp)
{
        crumb_leave();
        task_current = NULL;
        if (UNLIKELY(stamp != 0))
                task_measured(t, stamp);
}

static inline void task_count(const struct weir_task *t, enum call_result result)
{
        if (LIKELY(t->il->results[result] != NULL))
                metric_add(t->il->results[result], 1);
}
/* The call that t stands for has failed: counted for a canary; what on_error= does about it is said
 * too (chain.c). */
COLD void task_say_failed(const struct weir_task *t, const char *what);
/* t's answer in place of whatever there is: RESPOND (chain.c). */
COLD enum chain_result chain_respond(const struct weir_task *t);

/* A hook of a route's function, with what its use says; fn NULL: the module is quarantined and the
 * use fails closed. */
struct chain_hook {
        weir_rc (*fn)(weir_req *, const void *, void *);
        const struct instance *inst;
        const struct function_conf *use;
        uint32_t order; /* of the function in the route */
        uint32_t ctx;   /* offset of its ctx */
};

struct chain_log_hook {
        void (*fn)(weir_req *, const void *, void *);
        const struct instance *inst;
        const struct function_conf *use;
        uint32_t order, ctx;
};

/* What a route's functions do, worked out once: functions without a hook are not in it. */
struct chain_plan {
        uint32_t n; /* functions */
        uint32_t n_request, n_response, n_log;
        size_t ctx_size;                             /* of all, 16-aligned each */
        const struct chain_hook *request, *response; /* response: in reverse */
        const struct chain_log_hook *log;
};

/* The module's function that frees what nobody reads any more.  May run inside another call:
 * cell_set in a hook. */
static inline void instance_drop(const struct instance *i, void (*drop)(void *), void *value)
{
        struct crumb *c = crumb_self;
        uint64_t outer = atomic_load_explicit(&c->where, memory_order_relaxed);
        const str *function = atomic_load_explicit(&c->function, memory_order_relaxed);
        const str *route = atomic_load_explicit(&c->route, memory_order_relaxed);

        crumb_enter(i->copy, i->index, MODULE_DROP, &i->conf->label, NULL);
        drop(value);
        crumb_leave();
        atomic_store_explicit(&c->function, function, memory_order_relaxed);
        atomic_store_explicit(&c->route, route, memory_order_relaxed);
        atomic_store_explicit(&c->where, outer, memory_order_release);
}

/* ---- cells (cell.c): one pointer that all loops read, freed after its last reader. */
struct cell_local;
struct weir_cell *cell_new(const struct instance *i, void (*drop)(void *), struct weir_cell *next);
struct weir_cell *cell_next(const struct weir_cell *c);
void cell_put(struct weir_cell *c, void *value); /* any thread */
struct cell_local *cell_pick(struct weir_cell *c,
                             unsigned loop); /* NULL: nothing was set; give back with cell_done */
const void *cell_value(const struct cell_local *l);
void cell_done(struct cell_local *l);
void cell_forget(struct weir_cell *c, unsigned loop); /* the thread's own reference: at its end */
void cell_end(struct weir_cell *c);                   /* after every thread has ended */

/* ---- metrics of functions (instance.c) */
struct weir_metric {
        struct weir_metric *next;
        const struct instance *inst;
        int32_t kind;
        str name, labels, help;
        const double *bounds;
        size_t n_bounds;
        metric_cell **cells; /* by thread, as instance.loops; NULL: nobody counts there */
};

const char *instance_result(unsigned result); /* "continue": the label of enum call_result */
/* Counts how long a measured call ran. */
#define INSTANCE_DURATION "weir_function_duration_seconds"
COLD void instance_observe(struct instance_loop *il, int64_t us);

/* Whether the function may write one more line to the log now (log_lines=); what is held back is
 * counted, and told in one line a second later. */
bool instance_may_log(struct instance_loop *il, uint32_t lines);

/* ---- host calls of create (instance.c) */
weir_err instance_conf_error(weir_conf *t, const void *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
weir_str instance_conf_name(weir_conf *t);
weir_metric *instance_conf_metric(weir_conf *t, int32_t kind, const char *name, const char *help,
                                  const double *bounds, size_t n);
weir_cell *instance_conf_cell(weir_conf *t, void (*drop)(void *value));
weir_script *instance_conf_script(weir_conf *t, weir_str text);

/* Late work and waiters: pending holds the generation on that thread. */
static inline void set_loop_hold(struct set_loop *sl)
{
        atomic_fetch_add_explicit(&sl->pending, 1, memory_order_relaxed);
}
static inline void set_loop_release(struct set_loop *sl)
{
        CHECK(atomic_fetch_sub_explicit(&sl->pending, 1, memory_order_release) > 0);
}

#endif
