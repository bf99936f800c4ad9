/*
 * Calls into modules, and the operations they wait for.
 */
#include "proxy/task.h"

#include "base/log.h"
#include "net/redis.h"
#include "proxy/api.h"
#include "proxy/filter.h"
#include "proxy/instance.h"
#include "proxy/subrequest.h"

#include <stdlib.h>

_Thread_local struct weir_task *task_current;

enum op_kind { OP_TIMER, OP_WAIT, OP_REDIS, OP_HTTP, OP_DRAIN };

/* One outstanding operation.  Lives in its task's arena; linked in task->ops until it completes or
 * is dropped, then in task->spare: a body hook may wait at every chunk. */
struct op {
        struct list link;
        struct op *spare;
        struct weir_task *task;
        enum op_kind kind;
        weir_fn *fn;
        weir_redis_fn *redis_fn;
        void *arg;
        struct deadline timer;
        struct redis_call *call;
        struct weir_waiter *waiter;
        weir_http_fn *http_fn;
        struct subrequest *sub;
        size_t held; /* its part of task->held */
};

/* Outlives its task: freed when it has been woken.  Invariant: op is NULL once the task waits no
 * longer. */
struct weir_waiter {
        uint32_t magic;
        struct op *op;
        struct loop *loop;
        struct set_loop *sl;
        const struct instance *inst;
        void (*drop)(void *);
        void *result;
        struct loop_msg msg;
};
#define WAITER_MAGIC UINT32_C(0x57414954)

/* ------------------------------------------------------------------ calls */

void task_complain(const struct instance *i, const char *what)
{
        static _Thread_local struct log_quota quota;
        if (log_quota(&quota, 10))
                log_error(i ? i->subject : "modules", "%s", what);
}

bool task_misused(const struct weir_task *t, const char *call)
{
        char what[128];

        if (t != NULL && t == task_current)
                snprintf(what, sizeof(what), "%s() was called in %s, where it cannot be", call,
                         module_phase_name(t->phase));
        else
                snprintf(what, sizeof(what), "%s() was called outside of its task", call);
        task_complain(task_current ? task_current->inst : NULL, what);
        return false;
}

int64_t task_measure(const struct weir_task *t)
{
        return t->il != NULL ? loop_clock(CLOCK_MONOTONIC) : 0;
}

static COLD void ran_over(struct weir_task *t, int64_t took)
{
        str route = t->route ? *t->route : STR("");

        if (t->il->over != NULL)
                metric_add(t->il->over, 1);
        if (log_quota(&t->il->quota, 2))
                log_warn(t->inst->subject, "%s%s%.*s ran for %lld us, budget= is %lld us",
                         module_phase_name(t->phase), t->route ? " on route " : "", STR_ARG(route),
                         (long long)took, (long long)t->use->budget);
        t->il->measured = 0;
}

void task_measured(struct weir_task *t, int64_t stamp)
{
        struct instance_loop *il = t->il;
        int64_t took = loop_clock(CLOCK_MONOTONIC) - stamp;

        instance_observe(il, took);
        if (t->use->budget != 0 && took > t->use->budget)
                ran_over(t, took);
        if (il->measured < TASK_MEASURED_FIRST)
                il->measured++;
        else
                il->unmeasured = TASK_MEASURED_EVERY - 1;
}

static void on_timeout(struct deadline *d)
{
        struct weir_task *t = CONTAINER_OF(d, struct weir_task, deadline);
        task_drop_ops(t);
        t->verdict(t, WEIR_ERROR, true);
}

weir_rc task_settle(struct weir_task *t, weir_rc rc)
{
        if (rc == WEIR_SUSPEND) {
                if (!list_empty(&t->ops)) {
                        int64_t timeout =
                                t->kind == TASK_WORK ? TASK_WORK_TIMEOUT : t->use->timeout;
                        if (task_draining(
                                    t)) /* how fast a peer takes is not the function's doing */
                                deadline_clear(&t->deadline);
                        else if (!deadline_armed(&t->deadline) && timeout != 0)
                                deadline_set(t->loop, &t->deadline, timeout, on_timeout);
                        return rc;
                }
                task_complain(t->inst,
                              "WEIR_SUSPEND was returned, but there is nothing to wait for");
                rc = WEIR_ERROR;
        } else if (rc == WEIR_RESPOND && t->status == 0) {
                task_complain(t->inst, "WEIR_RESPOND was returned, but respond() was not called");
                rc = WEIR_ERROR;
        } else if (rc == WEIR_REPLACED && t->stage != NULL && stage_replaces(t->stage)) {
                ;
        } else if (rc != WEIR_CONTINUE && rc != WEIR_RESPOND && rc != WEIR_ERROR) {
                task_complain(t->inst, "an unknown verdict was returned");
                rc = WEIR_ERROR;
        }
        task_drop_ops(t);
        deadline_clear(&t->deadline);
        return rc;
}

static const struct redis_calls *redis_of(const struct weir_task *t)
{
        return t->inst->set->env.redis_calls;
}

static void op_spare(struct op *op)
{
        op->spare = op->task->spare;
        op->task->spare = op;
}

static void http_count(struct instance_loop *il, enum asked_result r)
{
        static const char *const words[ASKED_RESULTS] = {"answered", "failed", "dropped"};
        struct metric_slot *metrics = il->sl->loop->metrics;

        if (il->asked[r] == NULL && metrics != NULL) {
                struct buf labels = BUF_INIT;
                metric_label(&labels, "function", il->inst->conf->name);
                metric_label(&labels, "result", str_z(words[r]));
                il->asked[r] = metric_series(metrics, METRIC_FUNCTION_ASKED,
                                             buf_pullup(&labels, labels.n));
                buf_clear(&labels);
        }
        if (il->asked[r] != NULL)
                metric_add(il->asked[r], 1);
}

void task_drop_ops_(struct weir_task *t)
{
        struct list *n;

        while ((n = list_pop(&t->ops)) != NULL) {
                struct op *op = CONTAINER_OF(n, struct op, link);
                switch (op->kind) {
                case OP_TIMER:
                        deadline_clear(&op->timer);
                        break;
                case OP_REDIS:
                        redis_of(t)->cancel(op->call);
                        break;
                case OP_WAIT:
                        op->waiter->op = NULL;
                        break;
                case OP_HTTP:
                        t->inst->set->env.subrequest_calls->cancel(op->sub);
                        t->held -= op->held;
                        http_count(t->il, ASKED_DROPPED);
                        break;
                case OP_DRAIN:
                        break;
                }
                op_spare(op);
        }
}

void task_end(struct weir_task *t)
{
        task_drop_ops(t);
        deadline_clear(&t->deadline);
        for (struct cell_hold *h = t->cells; h != NULL; h = h->next)
                cell_done(h->local);
        t->cells = NULL;
}

/* ------------------------------------------------------------------ operations */

static struct op *op_new(struct weir_task *t, enum op_kind kind, const char *call)
{
        struct op *op;

        if (!task_valid(t, 1u << TASK_REQUEST | 1u << TASK_WORK, call))
                return NULL;
        if (t->logging) {
                task_complain(t->inst, "on_log cannot wait");
                return NULL;
        }
        op = t->spare;
        if (op != NULL) {
                t->spare = op->spare;
        } else if (api_room_to_ask(t, sizeof(*op))) {
                size_t before = arena_used(t->arena);
                op = arena_alloc(t->arena, sizeof(*op));
                api_took(t, before);
        }
        if (op != NULL)
                *op = (struct op){.task = t, .kind = kind};
        return op;
}

void task_complete(struct weir_task *t, weir_rc rc)
{
        rc = task_settle(t, rc);
        if (rc != WEIR_SUSPEND)
                t->verdict(t, rc, false);
}

static void op_complete(struct op *op, void *arg)
{
        struct weir_task *t = op->task;
        weir_fn *fn = op->fn;
        int64_t stamp;
        weir_rc rc;

        list_remove(&op->link);
        op_spare(op);
        stamp = task_enter(t, MODULE_COMPLETION);
        rc = fn(t, t->inst->inst, t->ctx, arg);
        task_leave(t, stamp);
        task_complete(t, rc);
}

static void timer_fired(struct deadline *d)
{
        struct op *op = CONTAINER_OF(d, struct op, timer);
        op_complete(op, op->arg);
}

weir_rc task_timer(weir_task *t, int64_t us, weir_fn *fn, void *arg)
{
        struct op *op = op_new(t, OP_TIMER, "timer");

        if (op == NULL)
                return WEIR_ERROR;
        op->fn = fn;
        op->arg = arg;
        list_push(&t->ops, &op->link);
        deadline_set(t->loop, &op->timer, MAX(us, 1), timer_fired);
        return WEIR_SUSPEND;
}

weir_rc task_wait(weir_task *t, weir_fn *fn, void (*drop)(void *), weir_waiter **out)
{
        struct op *op = op_new(t, OP_WAIT, "wait");
        struct weir_waiter *w;

        if (op == NULL)
                return WEIR_ERROR;
        w = calloc(1, sizeof(*w));
        CHECK(w != NULL);
        *w = (struct weir_waiter){.magic = WAITER_MAGIC,
                                  .inst = t->inst,
                                  .op = op,
                                  .loop = t->loop,
                                  .sl = t->il->sl,
                                  .drop = drop};
        op->fn = fn;
        op->waiter = w;
        list_push(&t->ops, &op->link);
        set_loop_hold(w->sl);
        *out = w;
        return WEIR_SUSPEND;
}

weir_rc task_body_drain(weir_task *t, weir_fn *fn, void *arg)
{
        struct op *op = op_new(t, OP_DRAIN, "body_drain");

        if (op == NULL)
                return WEIR_ERROR;
        if (t->stage == NULL || !stage_streams(t->stage)) {
                task_complain(t->inst, "body_drain() is for body hooks that REWRITE");
                op_spare(op);
                return WEIR_ERROR;
        }
        op->fn = fn;
        op->arg = arg;
        list_push(&t->ops, &op->link);
        return WEIR_SUSPEND;
}

static struct op *find_drain(const struct weir_task *t)
{
        for (struct list *n = t->ops.next; t->stage != NULL && n != &t->ops; n = n->next) {
                struct op *op = CONTAINER_OF(n, struct op, link);
                if (op->kind == OP_DRAIN)
                        return op;
        }
        return NULL;
}

bool task_draining(const struct weir_task *t)
{
        return find_drain(t) != NULL;
}

void task_drained(struct weir_task *t)
{
        struct op *op = find_drain(t);

        CHECK(op != NULL);
        op_complete(op, op->arg);
}

static void woken(struct loop_msg *m)
{
        struct weir_waiter *w = CONTAINER_OF(m, struct weir_waiter, msg);
        struct set_loop *sl = w->sl;
        struct op *op = w->op;
        void *result = w->result;
        const struct instance *i = w->inst;
        void (*drop)(void *) = w->drop;

        CHECK_OBJ(w, WAITER_MAGIC);
        w->magic = DEAD_MAGIC;
        free(w);
        if (op != NULL)
                op_complete(op, result);
        else if (drop != NULL)
                instance_drop(i, drop, result);
        set_loop_release(sl);
}

void task_wake(weir_waiter *w, void *result)
{
        CHECK_OBJ(w, WAITER_MAGIC);
        w->result = result;
        w->msg.fn = woken;
        loop_post(w->loop, &w->msg);
}

/* ------------------------------------------------------------------ redis */

static const weir_value *value_of(struct arena *a, const struct redis_reply *r)
{
        static const int32_t types[] = {
                [REDIS_FAIL] = WEIR_V_FAIL,       [REDIS_NIL] = WEIR_V_NULL,
                [REDIS_INTEGER] = WEIR_V_INTEGER, [REDIS_STRING] = WEIR_V_STRING,
                [REDIS_STATUS] = WEIR_V_STRING,   [REDIS_ERROR] = WEIR_V_ERROR,
                [REDIS_ARRAY] = WEIR_V_ARRAY};
        weir_value *v = arena_zalloc(a, sizeof(*v));
        const weir_value **elem;
        str text;

        if (v == NULL)
                return NULL;
        text = arena_dup(a, r->text);
        *v = (weir_value){.size = sizeof(*v),
                          .type = types[r->type],
                          .integer = r->integer,
                          .number = (double)r->integer,
                          .str = {text.p, text.n},
                          .n = r->n};
        if (r->text.p != NULL && text.p == NULL)
                return NULL;
        if (r->type == REDIS_FAIL)
                v->integer = r->fail == REDIS_TIMEOUT ? WEIR_E_TIMEOUT : WEIR_E_UNAVAIL;
        if (r->n == 0)
                return v;
        elem = arena_zalloc(a, r->n * sizeof(*elem));
        if (elem == NULL)
                return NULL;
        v->elem = elem;
        for (size_t i = 0; i < r->n; i++)
                if ((elem[i] = value_of(a, &r->elem[i])) == NULL)
                        return NULL;
        return v;
}

/* What value_of takes, or nearly. */
static size_t size_of(const struct redis_reply *r)
{
        size_t n = sizeof(weir_value) + r->text.n + r->n * sizeof(void *);

        for (size_t i = 0; i < r->n; i++)
                n += size_of(&r->elem[i]);
        return n;
}

static void replied(const struct redis_reply *r, void *arg)
{
        static const weir_value full = {.size = sizeof(full),
                                        .type = WEIR_V_FAIL,
                                        .integer = WEIR_E_NOMEM,
                                        .str = {"memory is used up", 17}};
        struct op *op = arg;
        struct weir_task *t = op->task;
        weir_redis_fn *fn = op->redis_fn;
        void *own = op->arg;
        const weir_value *v = NULL;
        size_t before = arena_used(t->arena);
        int64_t stamp;
        weir_rc rc;

        list_remove(&op->link);
        op_spare(op);
        if (api_room(t, size_of(r)))
                v = value_of(t->arena, r);
        api_took(t, before);
        stamp = task_enter(t, MODULE_COMPLETION);
        rc = fn(t, t->inst->inst, t->ctx, v ? v : &full, own);
        task_leave(t, stamp);
        task_complete(t, rc);
}

static struct redis *redis_here(struct weir_task *t, const weir_redis *handle)
{
        const struct redis_store_conf *conf = (const struct redis_store_conf *)handle;
        struct set_loop *sl = t->il->sl;

        if (handle == NULL || sl->set->env.redises == NULL)
                return NULL;
        if (sl->redis[conf->index] == NULL)
                sl->redis[conf->index] =
                        redis_of(t)->get(t->loop, &sl->set->env.redises[conf->index]);
        return sl->redis[conf->index];
}

static struct op *redis_op(weir_task *t, weir_redis *r, weir_redis_fn *fn, void *arg,
                           const weir_str *argv, size_t argc, const char *call,
                           struct redis **client)
{
        struct op *op = op_new(t, OP_REDIS, call);

        if (op == NULL)
                return NULL;
        *client = redis_here(t, r);
        if (*client == NULL || argc == 0) {
                task_complain(t->inst, "redis() without a store or a command");
                return NULL;
        }
        for (size_t i = 0; i < argc; i++)
                if (argv[i].p == NULL)
                        return NULL;
        op->redis_fn = fn;
        op->arg = arg;
        return op;
}

_Static_assert(sizeof(str) == sizeof(weir_str) && offsetof(str, n) == offsetof(weir_str, n),
               "one layout");

weir_rc task_redis(weir_task *t, weir_redis *r, weir_redis_fn *fn, void *arg, const weir_str *argv,
                   size_t argc)
{
        struct redis *client;
        struct op *op = redis_op(t, r, fn, arg, argv, argc, "redis", &client);

        if (op == NULL)
                return WEIR_ERROR;
        op->call = redis_of(t)->command(client, (const str *)argv, argc, 0, replied, op);
        list_push(&t->ops, &op->link);
        return WEIR_SUSPEND;
}

weir_rc task_redis_script(weir_task *t, weir_redis *r, const weir_script *s, size_t n_keys,
                          weir_redis_fn *fn, void *arg, const weir_str *argv, size_t argc)
{
        struct redis *client;
        struct op *op;

        if (s == NULL || n_keys > argc)
                return WEIR_ERROR;
        op = redis_op(t, r, fn, arg, argv, argc, "redis_script", &client);
        if (op == NULL)
                return WEIR_ERROR;
        op->call = redis_of(t)->script(client, s->text, s->sha, (const str *)argv, n_keys, argc, 0,
                                       replied, op);
        list_push(&t->ops, &op->link);
        return WEIR_SUSPEND;
}

/* ------------------------------------------------------------------ sub-requests */

static bool http_room(void *arg, size_t held)
{
        struct op *op = arg;
        struct weir_task *t = op->task;

        t->held += held - op->held;
        op->held = held;
        return api_room(t, 0);
}

static void http_done(void *arg, const struct subrequest_answer *a)
{
        struct op *op = arg;
        struct weir_task *t = op->task;
        const weir_http_res *res;
        weir_http_fn *fn;
        void *given;
        int64_t stamp;
        weir_rc rc;

        list_remove(&op->link);
        t->held -= op->held;
        res = api_http_res(t, a);
        fn = op->http_fn;
        given = op->arg;
        op_spare(op);
        http_count(t->il, res->status ? ASKED_ANSWERED : ASKED_FAILED);
        stamp = task_enter(t, MODULE_COMPLETION);
        rc = fn(t, t->inst->inst, t->ctx, res, given);
        task_leave(t, stamp);
        task_complete(t, rc);
}

weir_rc task_http(weir_task *t, weir_upstream *u, const weir_http_req *req, weir_http_fn *fn,
                  void *arg)
{
        static const struct subrequest_user user = {.room = http_room, .done = http_done};
        struct op *op = op_new(t, OP_HTTP, "http");
        struct subrequest_ask ask = {.user = &user, .arg = op};
        weir_http_req whole;

        if (op == NULL || !api_http_ask(t, u, req, &whole, &ask))
                return WEIR_ERROR;
        op->http_fn = fn;
        op->arg = arg;
        op->sub = t->inst->set->env.subrequest_calls->start(&ask);
        list_push(&t->ops, &op->link);
        return WEIR_SUSPEND;
}
