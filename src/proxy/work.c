/*
 * Background work of functions.
 *
 * The difficulty: what is begun holds its generation on that thread, what is not is dropped with
 * it; and a piece of work ends inside its own call as well as in a completion.
 */
#include "proxy/work.h"

#include "base/log.h"
#include "proxy/instance.h"

#include <stdlib.h>

/* A background task: begun once `start` has fired. */
struct work {
        struct weir_task task;
        struct list link; /* il->works */
        struct deadline start;
        int64_t after;
        weir_fn *fn;
        void *data;
        bool begun;
};

static void work_end(struct work *w)
{
        struct instance_loop *il = w->task.il;
        struct arena *a = w->task.arena;

        task_end(&w->task);
        deadline_clear(&w->start);
        list_remove(&w->link);
        il->n_works--;
        if (w->begun)
                set_loop_release(il->sl);
        w->task.magic = DEAD_MAGIC;
        free(w);
        arena_free(a);
}

static void work_count(struct work *w, weir_rc rc, bool timed_out)
{
        struct instance_loop *il = w->task.il;
        enum call_result result = timed_out         ? CALL_TIMEOUT
                                  : rc == WEIR_DONE ? CALL_CONTINUE
                                                    : CALL_ERROR;

        if (il->results[result] != NULL)
                metric_add(il->results[result], 1);
        if (rc != WEIR_DONE && log_quota(&il->quota, 2))
                log_warn(il->inst->subject, "background work %s",
                         timed_out ? "took longer than 60 s" : "ended with an error");
}

static void work_verdict(struct weir_task *t, weir_rc rc, bool timed_out)
{
        struct work *w = CONTAINER_OF(t, struct work, task);
        work_count(w, rc, timed_out);
        work_end(w);
}

static void work_start(struct deadline *d)
{
        struct work *w = CONTAINER_OF(d, struct work, start);
        struct weir_task *t = &w->task;
        int64_t stamp;
        weir_rc rc;

        w->begun = true;
        set_loop_hold(t->il->sl);
        stamp = task_enter(t, MODULE_WORK);
        rc = w->fn(t, t->inst->inst, t->ctx, w->data);
        task_leave(t, stamp);
        task_complete(t, rc);
}

static struct work *work_new(const struct instance *i, struct instance_loop *il, struct loop *l,
                             const void *data, size_t n)
{
        struct arena *a = arena_new(i->memory);
        struct work *w;
        void *ctx = arena_zalloc(a, i->desc->ctx_size + 1);
        void *copy = arena_alloc(a, n + 1);

        if (ctx == NULL || copy == NULL) {
                arena_free(a);
                return NULL;
        }
        w = calloc(1, sizeof(*w));
        CHECK(w != NULL);
        task_init(&w->task, TASK_WORK, i, l, a);
        w->task.il = il;
        w->task.ctx = ctx;
        w->task.verdict = work_verdict;
        w->data = n ? memcpy(copy, data, n) : NULL;
        return w;
}

weir_err work_spawn(weir_task *t, int64_t after_us, weir_fn *fn, const void *data, size_t n)
{
        struct instance_loop *il;
        struct work *w;

        if (!task_valid(t, ~0u, "spawn"))
                return WEIR_E_PHASE;
        il = t->il;
        if (il == NULL || il->sl->set->env.checker)
                return WEIR_OK; /* the checker has no background */
        if (il->sl->retired)
                return WEIR_OK; /* as one that was not yet begun */
        if (il->n_works >= WORK_MAX)
                return WEIR_E_FULL;
        w = work_new(t->inst, il, t->loop, data, n);
        if (w == NULL)
                return WEIR_E_NOMEM;
        w->fn = fn;
        w->after = MAX(after_us, 1);
        list_push(&il->works, &w->link);
        il->n_works++;
        if (il->sl->active)
                deadline_set(t->loop, &w->start, w->after, work_start);
        return WEIR_OK;
}

void work_activate(struct instance_loop *il)
{
        LIST_EACH (n, &il->works) {
                struct work *w = CONTAINER_OF(n, struct work, link);
                if (!w->begun)
                        deadline_set(w->task.loop, &w->start, w->after, work_start);
        }
}

void work_drop(struct instance_loop *il, bool running)
{
        LIST_EACH (n, &il->works) {
                struct work *w = CONTAINER_OF(n, struct work, link);
                if (running || !w->begun)
                        work_end(w);
        }
}
