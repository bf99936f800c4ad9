/*
 * Tasks: what the handle of every host call stands for, and the operations a task waits for.
 *
 *   enter -> hook -> leave -> settle --- SUSPEND ---> operations, deadline
 *                                ^                        |
 *                                `---- completion <-------'   what it returns is the verdict
 *
 * The difficulty: a completion may come at any later time, or never.  So each operation is in its
 * task's list from start to completion; a verdict empties the list, and what cannot be called back
 * (a waiter, a late reply) loses its way home.
 */
#ifndef PROXY_TASK_H
#define PROXY_TASK_H

#include "base/crumb.h"
#include "module/module.h"
#include "proxy/txn.h"

struct instance;
struct instance_loop;

enum task_kind { TASK_REQUEST, TASK_CONF, TASK_LOOP, TASK_WORK };

struct stage;
struct op;
struct early_field; /* a change to the response before there is one */

/* A cell's value that a task has seen: valid until the task's end. */
struct cell_hold {
        struct cell_hold *next;
        struct cell_local *local;
};
struct cell_local;

/* Invariant: ops is empty unless the task is suspended or a call of it is running.  Belongs to one
 * thread.  Owned by a chain (request), an instance (conf), an instance_loop (loop) or itself
 * (work). */
struct weir_task {
        uint32_t magic;
        uint8_t kind;    /* enum task_kind */
        uint8_t phase;   /* enum module_phase of the call */
        bool responses;  /* the response hooks' turn */
        bool logging;    /* on_log: nothing can be changed or begun */
        bool completing; /* the call that runs is a completion */
        uint8_t mode;    /* what body_mode said in this call: WEIR_BODY_* */
        uint64_t mode_max;
        int32_t status; /* respond() was called: its status; 0: it was not */
        str body;       /* and its body */
        struct instance_loop *il;
        const struct instance *inst;
        struct loop *loop; /* NULL in the checker's create */
        struct arena *arena;
        struct txn *txn; /* requests only */
        void *ctx;
        const struct function_conf *use; /* label, timeout, budget, memory */
        const str *route;                /* its label; NULL: not of a request */
        size_t *used; /* bytes of the request's arena that this function has taken; NULL: the arena
                         is its own */
        struct list ops;
        size_t held; /* by its sub-requests, outside of the arena; counts against memory= */
        struct deadline deadline;
        /* The verdict after a suspension, from the top level of the loop.  May end the task. */
        void (*verdict)(struct weir_task *, weir_rc, bool timed_out);
        struct early_field *early, **early_end;
        struct cell_hold *cells;
        struct op *spare; /* operations that are over: the next ones */
        str expanded; /* what expand() returned last: the request's or the configuration's memory */
        /* Of a body hook's task: the request's own, which keeps what must live as long as that, and
         * what it is a part of.  NULL in all others. */
        struct weir_task *head;
        struct stage *stage;
};
#define TASK_MAGIC UINT32_C(0x5441534b)

#define TASK_MEASURED_FIRST                                                                        \
        64 /* calls that are measured at first, and after one that took too long */
#define TASK_MEASURED_EVERY 64 /* later one in so many */
#define TASK_WORK_TIMEOUT   (60 * SEC)

extern _Thread_local struct weir_task *task_current; /* whose call this thread is in, or NULL */

/* The slow halves of task_enter and task_leave (instance.h): a call that is measured. */
int64_t task_measure(const struct weir_task *t); /* a time stamp, or 0 */
void task_measured(struct weir_task *t, int64_t stamp);

/* What a hook's or completion's result means: SUSPEND only when something is outstanding (then the
 * deadline is armed), RESPOND only after respond(); all else drops what is outstanding. */
weir_rc task_settle(struct weir_task *t, weir_rc rc);
/* What a call or completion has returned, of a task that is not a hook being entered; t may be gone
 * afterwards. */
void task_complete(struct weir_task *t, weir_rc rc);
void task_drop_ops_(struct weir_task *t);
static inline void task_drop_ops(struct weir_task *t)
{
        if (UNLIKELY(!list_empty(&t->ops)))
                task_drop_ops_(t);
}
void task_end(struct weir_task *t); /* ops, deadline, cells; the arena is its owner's */

/* Operations of the host table. */
weir_rc task_timer(weir_task *t, int64_t us, weir_fn *fn, void *arg);
weir_rc task_wait(weir_task *t, weir_fn *fn, void (*drop)(void *), weir_waiter **out);
void task_wake(weir_waiter *w, void *result);
weir_rc task_body_drain(weir_task *t, weir_fn *fn, void *arg);
/* Whether t waits for that, among others; and that the peer has taken all. */
bool task_draining(const struct weir_task *t);
void task_drained(struct weir_task *t);
weir_rc task_redis(weir_task *t, weir_redis *r, weir_redis_fn *fn, void *arg, const weir_str *argv,
                   size_t argc);
weir_rc task_redis_script(weir_task *t, weir_redis *r, const weir_script *s, size_t n_keys,
                          weir_redis_fn *fn, void *arg, const weir_str *argv, size_t argc);
weir_rc task_http(weir_task *t, weir_upstream *u, const weir_http_req *req, weir_http_fn *fn,
                  void *arg);
struct weir_script {
        str text;
        char sha[41];
};

/* The module did what the header forbids: said once in a while, with its name. */
COLD void task_complain(const struct instance *i, const char *what);
COLD bool task_misused(const struct weir_task *t, const char *call); /* says so; false */
/* t is what this thread is running now, and of one of kinds (bits 1 << kind). */
static inline bool task_valid(const struct weir_task *t, unsigned kinds, const char *call)
{
        return LIKELY(t != NULL && t == task_current &&
                      (kinds == ~0u || (1u << t->kind & kinds))) ||
               task_misused(t, call);
}

#endif
