/*
 * The functions of one request: their hooks in order, in reverse for the response, and on_log for
 * each that was called.
 *
 * The difficulty is the hot path: a hook that does nothing must cost next to nothing, so what can
 * be known before is in the route's plan, a request's state is one piece of memory, and everything
 * rare is out of line.
 */
#include "base/log.h"
#include "http/reply.h"
#include "proxy/api.h"
#include "proxy/filter.h"
#include "proxy/instance.h"

#include <stdlib.h>

struct slot {
        size_t used; /* of memory= */
        bool called;
};

/* Lives in the request's arena from chain_new on; chain_log ends it. */
struct chain {
        struct weir_task task;
        uint32_t magic;
        const struct chain_plan *plan;
        const struct chain_user *user;
        const struct chain_hook *waiting; /* whose verdict is awaited */
        uint32_t pos;                     /* in plan->request, then in plan->response */
        uint32_t entered;                 /* functions whose turn has come, in the route's order */
        unsigned at;                      /* this loop's index in instance.loops */
        bool logged;
        char *ctx;
        struct slot slots[];
};
#define CHAIN_MAGIC UINT32_C(0x43484149)

static void verdict(struct weir_task *t, weir_rc rc, bool timed_out);
static void collected(struct weir_task *t, enum chain_result how);

struct chain *chain_new(struct txn *t, struct function_conf *const *functions, size_t n,
                        const struct chain_user *user)
{
        const struct chain_plan *plan = n ? t->match.route->plan : NULL;
        struct arena *a = t->r->arena;
        struct chain *c;
        size_t slots;

        if (plan == NULL)
                return NULL;
        CHECK(functions == t->match.route->functions);
        slots = (sizeof(struct chain) + plan->n * sizeof(struct slot) + 15) / 16 * 16;
        c = arena_zalloc(a, slots + plan->ctx_size);
        if (UNLIKELY(c ==
                     NULL)) { /* `memory` is used up: no function may be passed over for that */
                c = calloc(1, slots + plan->ctx_size);
                CHECK(c != NULL);
                arena_on_end(a, free, c);
        }
        c->magic = CHAIN_MAGIC;
        c->plan = plan;
        c->user = user;
        c->ctx = (char *)c + slots;
        c->at = t->r->loop->index;
        task_init(&c->task, TASK_REQUEST, NULL, t->r->loop, a);
        c->task.txn = t;
        c->task.route = &t->match.route->label;
        c->task.verdict = verdict;
        return c;
}

static inline void aim(struct chain *c, const struct instance *i, const struct function_conf *use,
                       uint32_t order, uint32_t ctx)
{
        struct weir_task *t = &c->task;

        t->inst = i;
        t->use = use;
        t->il = i->loops[c->at];
        t->ctx = c->ctx + ctx;
        t->used = &c->slots[order].used;
        t->status = 0;
        t->mode = WEIR_BODY_SKIP;
        c->slots[order].called = true;
}

static inline weir_rc call_hook(struct chain *c, const struct chain_hook *h,
                                enum module_phase phase)
{
        struct weir_task *t = &c->task;
        int64_t stamp;
        weir_rc rc;

        aim(c, h->inst, h->use, h->order, h->ctx);
        stamp = task_enter(t, phase);
        rc = h->fn(t, h->inst->inst, t->ctx);
        task_leave(t, stamp);
        return rc;
}

/* ------------------------------------------------------------------ verdicts */

void task_say_failed(const struct weir_task *t, const char *what)
{
        t->txn->failures++; /* those that are not said too */
        if (log_quota(&t->il->quota, 5))
                log_warn(t->inst->subject, "%s %s; on_error=%s; request %.*s",
                         module_phase_name(t->phase), what,
                         t->use->on_error == ON_ERROR_FAIL_OPEN ? "fail_open" : "fail_closed",
                         STR_ARG(t->txn->request_id));
}

/* The use fails closed, or open: then CONTINUE. */
static COLD enum chain_result failed(struct chain *c, enum reason why)
{
        struct txn *t = c->task.txn;

        if (c->task.use->on_error == ON_ERROR_FAIL_OPEN)
                return CHAIN_CONTINUE;
        t->reason = why;
        if (c->task.responses)
                return CHAIN_CUT;
        filters_end(t);
        reply_fill(t->r, reason_rows[why].status, why, STR_NONE, STR_NONE);
        return CHAIN_RESPOND;
}

enum chain_result chain_respond(const struct weir_task *t)
{
        t->txn->reason = t->status == 429 ? REASON_RATE_LIMITED : REASON_FUNCTION;
        filters_end(t->txn);
        reply_fill(t->txn->r, t->status, t->txn->reason, t->body, STR_NONE);
        return CHAIN_RESPOND;
}

/* CONTINUE: the next function's turn. */
static enum chain_result decide(struct chain *c, const struct chain_hook *h, weir_rc rc,
                                bool timed_out)
{
        switch (rc) {
        case WEIR_CONTINUE:
                task_count(&c->task, CALL_CONTINUE);
                if (c->task.mode != WEIR_BODY_SKIP)
                        return filter_add(&c->task, c->user, collected);
                return CHAIN_CONTINUE;
        case WEIR_SUSPEND:
                c->waiting = h;
                return CHAIN_WAIT;
        case WEIR_RESPOND:
                task_count(&c->task, CALL_RESPOND);
                return chain_respond(&c->task);
        default:
                task_count(&c->task, timed_out ? CALL_TIMEOUT : CALL_ERROR);
                task_say_failed(&c->task, timed_out ? "took longer than timeout=" : "failed");
                return failed(c, timed_out ? REASON_FUNCTION_TIMEOUT : REASON_FUNCTION_ERROR);
        }
}

static COLD enum chain_result quarantined(struct chain *c, const struct chain_hook *h)
{
        aim(c, h->inst, h->use, h->order, h->ctx);
        c->task.phase = MODULE_REQUEST;
        task_count(&c->task, CALL_QUARANTINED);
        task_say_failed(&c->task, "is not called: the module is quarantined");
        return failed(c, REASON_FUNCTION_QUARANTINED);
}

/* ------------------------------------------------------------------ both ways */

/* Calls one hook; what most of them do, to go on at once, stays in line. */
static inline enum chain_result step(struct chain *c, const struct chain_hook *h,
                                     enum module_phase phase)
{
        weir_rc rc = call_hook(c, h, phase);

        if (LIKELY(rc == WEIR_CONTINUE && list_empty(&c->task.ops) &&
                   c->task.mode == WEIR_BODY_SKIP)) {
                task_count(&c->task, CALL_CONTINUE);
                return CHAIN_CONTINUE;
        }
        return decide(c, h, task_settle(&c->task, rc), false);
}

static enum chain_result run_request(struct chain *c)
{
        const struct chain_hook *h = c->plan->request + c->pos,
                                *end = c->plan->request + c->plan->n_request;

        for (; h < end; h++) {
                enum chain_result how;
                c->entered = h->order + 1;
                how = LIKELY(h->fn != NULL) ? step(c, h, MODULE_REQUEST) : quarantined(c, h);
                if (UNLIKELY(how != CHAIN_CONTINUE)) {
                        c->pos = (uint32_t)(h + 1 - c->plan->request);
                        return how;
                }
        }
        c->entered = c->plan->n;
        return CHAIN_CONTINUE;
}

static enum chain_result run_response(struct chain *c)
{
        const struct chain_hook *h = c->plan->response + c->pos,
                                *end = c->plan->response + c->plan->n_response;

        for (; h < end; h++) {
                enum chain_result how =
                        h->order < c->entered ? step(c, h, MODULE_RESPONSE) : CHAIN_CONTINUE;
                if (UNLIKELY(how != CHAIN_CONTINUE)) {
                        c->pos = (uint32_t)(h + 1 - c->plan->response);
                        return how;
                }
        }
        c->pos = c->plan->n_response;
        return CHAIN_CONTINUE;
}

/* A function has decided, later than in its hook. */
static void decided(struct chain *c, enum chain_result how)
{
        if (how == CHAIN_CONTINUE)
                how = c->task.responses ? run_response(c) : run_request(c);
        if (how != CHAIN_WAIT)
                c->user->resumed(c->task.txn, how);
}

static void verdict(struct weir_task *t, weir_rc rc, bool timed_out)
{
        struct chain *c = CONTAINER_OF(t, struct chain, task);
        const struct chain_hook *h = c->waiting;

        CHECK_OBJ(c, CHAIN_MAGIC);
        CHECK(h != NULL);
        c->waiting = NULL;
        decided(c, decide(c, h, rc, timed_out));
}

/* The body that a function waited for has come, and gone through its hook. */
static void collected(struct weir_task *t, enum chain_result how)
{
        struct chain *c = CONTAINER_OF(t, struct chain, task);

        CHECK_OBJ(c, CHAIN_MAGIC);
        CHECK(c->waiting == NULL);
        decided(c, how);
}

enum chain_result chain_request(struct chain *c)
{
        CHECK_OBJ(c, CHAIN_MAGIC);
        return run_request(c);
}

enum chain_result chain_response(struct chain *c)
{
        CHECK_OBJ(c, CHAIN_MAGIC);
        CHECK(c->waiting == NULL);
        if (!c->task.responses) {
                c->task.responses = true;
                c->pos = 0;
        }
        if (UNLIKELY(c->task.early != NULL))
                api_apply_early(&c->task);
        return run_response(c);
}

static inline void cancel(struct chain *c)
{
        task_drop_ops(&c->task);
        deadline_clear(&c->task.deadline);
        filters_end(c->task.txn);
        c->waiting = NULL;
}

void chain_cancel(struct chain *c)
{
        CHECK_OBJ(c, CHAIN_MAGIC);
        cancel(c);
}

void chain_log(struct chain *c)
{
        struct weir_task *t = &c->task;

        CHECK_OBJ(c, CHAIN_MAGIC);
        CHECK(!c->logged);
        cancel(c);
        c->logged = true;
        t->logging = true;
        for (uint32_t i = 0; i < c->plan->n_log; i++) {
                const struct chain_log_hook *h = &c->plan->log[i];
                int64_t stamp;
                if (!c->slots[h->order].called)
                        continue;
                aim(c, h->inst, h->use, h->order, h->ctx);
                stamp = task_enter(t, MODULE_LOG);
                h->fn(t, h->inst->inst, t->ctx);
                task_leave(t, stamp);
        }
        task_end(t);
}
