/*
 * The action `proxy`: attempts of one request at the servers of an upstream (origin.h).
 *
 *    pick -> (queue) -> idle connection | connect -> exchange -> head -> flow
 *      ^                                   |            |         |
 *      `------------- again? <-------------'------------'---------'
 *
 * What becomes of an answer is in origin_answer.c.
 *
 * The one difficulty: when a request may be sent once more.  Before anything was written it always
 * may; afterwards only if its method bears repeating, nothing was answered (or what was answered is
 * a status that is asked to be tried again) and all of its body is still here.  A kept connection
 * that the server had closed meanwhile is nobody's failure: that repetition is free, once per
 * attempt, on a connection that is new (RFC 9112 9.3.1, RFC 9110 9.2.2).
 *
 * Everything of a request is in its arena.  Calls of user are the last thing done in a callback,
 * and never come from inside origin_start: what fails at once is told at the end of the turn.
 */
#include "base/siphash.h"
#include "http/grpc.h"
#include "proxy/origin_type.h"
#include "proxy/proxyhead.h"
#include "proxy/retry.h"
#include "proxy/vars.h"

#define QUEUE_POLL (5 * MSEC) /* places may become free on other loops */

static void attempt(struct origin *o);

/* ------------------------------------------------------------------ queue */

static void count_queued(struct upstream_loop *ul, int by)
{
        uint32_t n = atomic_load_explicit(&ul->queued, memory_order_relaxed);

        atomic_store_explicit(&ul->queued, n + (uint32_t)by, memory_order_relaxed);
}

static void poll_due(struct deadline *d)
{
        origin_serve(CONTAINER_OF(d, struct upstream_loop, poll));
}

static void serve_task(struct loop_task *t)
{
        origin_serve(CONTAINER_OF(t, struct upstream_loop, serve));
}

static void leave_queue(struct origin *o)
{
        list_remove(&o->link);
        deadline_clear(&o->deadline);
        count_queued(o->ul, -1);
        if (list_empty(&o->ul->queue))
                deadline_clear(&o->ul->poll);
}

void origin_over(struct origin *o)
{
        o->state = ORIGIN_OVER;
        if (list_linked(&o->task.link))
                list_remove(&o->task.link);
}

static void fail_later(struct origin *o, enum reason why);

static void finish_failed(struct origin *o, enum reason why)
{
        if (o->starting) {
                fail_later(o, why);
                return;
        }
        origin_over(o);
        o->user->failed(o->t, why);
}

static void waited_too_long(struct deadline *d)
{
        struct origin *o = CONTAINER_OF(d, struct origin, deadline);
        bool nobody = o->ul->set->unresolved > 0 && o->ul->set->n == 0;

        leave_queue(o);
        if (!nobody && log_quota(&o->ul->quota, 3))
                log_warn(o->u->subject, "timeout queue=%lldms: every server is at max_connections",
                         (long long)(o->eff->queue / MSEC));
        finish_failed(o, nobody ? REASON_NO_SERVER : REASON_QUEUE_TIMEOUT);
}

static void enqueue(struct origin *o)
{
        struct upstream_loop *ul = o->ul;
        bool resolving = ul->set->n == 0;
        int64_t wait = resolving && o->eff->connect ? o->eff->connect : o->eff->queue;

        o->state = ORIGIN_QUEUED;
        list_push(&ul->queue, &o->link);
        count_queued(ul, 1);
        deadline_set(ul->loop, &o->deadline, wait, waited_too_long);
        if (!deadline_armed(&ul->poll))
                deadline_set(ul->loop, &ul->poll, QUEUE_POLL, poll_due);
}

/* ------------------------------------------------------------------ an attempt's end */

void origin_attempt_end(struct origin *o, enum server_result result)
{
        struct server_loop *sl = o->sl;

        if (o->held)
                deadline_clear(&o->deadline);
        o->held = false;
        o->sl = NULL;
        server_count(sl, result);
        inflight_sub(&sl->server->inflight);
        if (!list_empty(&o->ul->queue))
                loop_defer(o->ul->loop, &o->ul->serve, serve_task);
        server_drop(sl);
}

static void blame(struct origin *o, enum reason why, str words)
{
        struct server_loop *sl = o->sl;
        const char *text = reason_rows[why].text;

        if (!server_to_blame(why))
                return;
        if (log_quota(&sl->quota, 3))
                log_warn(o->u->subject, "server %.*s: %s%s%.*s", STR_ARG(sl->server->label), text,
                         words.n ? ": " : "", STR_ARG(words));
        if (!o->t->trial) /* what a canary makes of it must not cost the others their server */
                server_failed(sl, text);
}

/* ------------------------------------------------------------------ again? */

static bool body_is_here(const struct origin *o)
{
        return !o->x.body_taken || o->x.kept_all || o->replay.n > 0;
}

bool origin_may_retry(struct origin *o, uint32_t class, bool sent)
{
        const struct settings *eff = o->eff;

        if (!(eff->retry_on & class) || o->t->attempts >= eff->retry_attempts || o->head_given ||
            (sent && !retry_idempotent(o->req->method) && !eff->retry_non_idempotent))
                return false;
        if (!body_is_here(o)) {
                if (o->by_grpc)
                        retry_replay_exceeded(o->ul, eff->retry_replay);
                return false;
        }
        return retry_budget_take(o->ul, eff->retry_budget);
}

/* Both pipes as they were before the attempt. */
static void rewind_pipes(struct origin *o)
{
        struct request *r = o->t->r;

        buf_clear(&r->from_server->data);
        r->from_server->end = r->from_server->stalled = false;
        r->from_server->passed = 0;
        r->res = (struct msg){0};
        if (o->x.body_taken && o->replay.n > 0) {
                buf_clear(&r->to_server->data);
                buf_append(&r->to_server->data, &o->replay, o->replay.n);
        } else if (o->x.body_taken) {
                buf_move(&o->x.kept, &r->to_server->data, r->to_server->data.n);
                r->to_server->data = o->x.kept;
                o->x.kept = BUF_INIT;
        }
}

/* A server of gRPC is told how often the call has come before (gRPC A6), by the client's own count
 * and ours. */
static void say_repeated(struct origin *o)
{
        struct arena *a = o->t->r->arena;
        const struct field *f = fields_find(&o->t->r->req.fields, GRPC_ATTEMPTS);
        uint64_t n = 0;

        if (f != NULL && !str_u64(f->value, 1000, &n))
                n = 0;
        (void)!fields_set(a, &o->req->fields, FIELD_OTHER, GRPC_ATTEMPTS,
                          arena_printf(a, "%u", (unsigned)n + ++o->seen));
}

static void waited(struct deadline *d)
{
        struct origin *o = CONTAINER_OF(d, struct origin, deadline);

        CHECK_OBJ(o, ORIGIN_MAGIC);
        attempt(o);
}

void origin_again(struct origin *o, int64_t wait)
{
        rewind_pipes(o);
        if (o->x.wrote && !o->x.refused && grpc_is_request(o->req))
                say_repeated(o);
        metric_add(o->ul->retries, 1);
        if (wait == 0) {
                attempt(o);
                return;
        }
        o->state = ORIGIN_WAITING;
        deadline_set(origin_loop(o), &o->deadline, wait, waited);
}

/* ------------------------------------------------------------------ the exchange */

static void on_interim(struct exchange *x)
{
        struct origin *o = origin_of(x);

        o->user->interim(o->t, &x->interim);
}

static void room_later(struct loop_task *task)
{
        struct origin *o = CONTAINER_OF(task, struct origin, task);

        CHECK_OBJ(o, ORIGIN_MAGIC);
        if (o->state == ORIGIN_RUNNING)
                o->user->req_room(o->t);
}

static void on_req_room(struct exchange *x)
{
        struct origin *o = origin_of(x);

        if (o->starting)
                loop_defer(origin_loop(o), &o->task, room_later);
        else
                o->user->req_room(o->t);
}

static void run(struct origin *o, struct client_conn *c)
{
        o->state = ORIGIN_RUNNING;
        client_bind(c, &o->x);
        pool_carries(c, o->eff->idle);
        o->x.ops->start(&o->x);
}

/* It failed before or after its head; it may have been sent in part. */
static void attempt_failed(struct origin *o, enum reason why, str words, bool sent)
{
        bool retry;

        blame(o, why, words);
        retry = origin_may_retry(o, retry_class(why), sent);
        origin_attempt_end(o, server_result_of(why));
        if (retry) {
                o->last = why;
                origin_again(o, 0);
        } else {
                finish_failed(o, o->desperate && !o->head_given ? REASON_NO_SERVER : why);
        }
}

static void told_later(struct loop_task *task)
{
        struct origin *o = CONTAINER_OF(task, struct origin, task);

        CHECK_OBJ(o, ORIGIN_MAGIC);
        CHECK(o->state == ORIGIN_FAILED);
        if (o->sl)
                attempt_failed(o, o->why, STR_NONE, false);
        else
                finish_failed(o, o->why);
}

static void fail_later(struct origin *o, enum reason why)
{
        o->state = ORIGIN_FAILED;
        o->why = why;
        loop_defer(origin_loop(o), &o->task, told_later);
}

static void connected(void *arg, struct client_conn *c, enum reason why, str error)
{
        struct origin *o = CAST(struct origin, ORIGIN_MAGIC, arg);

        if (c)
                run(o, c);
        else
                attempt_failed(o, why, error, false);
}

static const struct exchange_user exchange_calls;

/* To the server that was picked: on a kept connection, else on a new one. */
static void send_to(struct origin *o)
{
        const struct settings *eff = o->eff;
        const struct server *s = o->sl->server;
        str head = s->proxy_version ? proxyhead(o->t, s) : STR_NONE;
        struct client_conn *c = o->fresh ? NULL : pool_get(o->sl, head);
        enum reason why = REASON_NONE;

        CHECK(o->x.kept.n == 0);
        o->x = (struct exchange){
                .magic = EXCHANGE_MAGIC,
                .r = o->t->r,
                .user = &exchange_calls,
                .user_ctx = o,
                .req = o->req,
                .res = &o->t->r->res,
                .accept_upgrade = o->req->upgrade.n > 0,
                .response_us = eff->response,
                .response_idle_us = eff->response_idle,
                .send_us = eff->response_idle,
                .head_max = (uint32_t)MIN(eff->header_max, UINT32_MAX),
                .line_max = (uint32_t)MIN(eff->header_line, UINT32_MAX),
                .fields_max = (uint32_t)MIN(eff->header_fields, UINT32_MAX),
                .keep_max = o->by_grpc && o->replay.n == 0 ? eff->retry_replay : 0,
        };
        if (c) {
                run(o, c);
                return;
        }
        if (pool_connect(o->sl, head, eff->connect, &o->wait, connected, o, &why))
                o->state = ORIGIN_CONNECTING;
        else
                fail_later(o, why);
}

/* The server gave the request back (HTTP/2), or had closed the kept connection before it saw it:
 * nobody failed, and any method may be sent again. */
static bool nobody_failed(const struct origin *o, enum reason why)
{
        const struct exchange *x = &o->x;

        if (x->refused)
                return !o->fresh && body_is_here(o);
        return x->reused && !x->got_byte && !o->head_given &&
               (why == REASON_UPSTREAM_RESET || why == REASON_UPSTREAM_TLS ||
                why == REASON_SERVER_CLOSED) &&
               body_is_here(o) && (!x->wrote || method_safe(o->req->method));
}

static void on_failed(struct exchange *x, enum reason why)
{
        struct origin *o = origin_of(x);

        if (x->refused)
                metric_add(o->ul->refused, 1);
        if (nobody_failed(o, why)) {
                rewind_pipes(o);
                o->fresh = true;
                metric_add(o->ul->retries, 1);
                send_to(o);
                return;
        }
        attempt_failed(o, why, x->error, x->wrote && !x->refused);
}

static const struct exchange_user exchange_calls = {
        .interim = on_interim,
        .head = origin_on_head,
        .res_ready = origin_on_res_ready,
        .req_room = on_req_room,
        .failed = on_failed,
};

/* ------------------------------------------------------------------ picking */

static enum balance_result pick(struct origin *o, const struct member **m)
{
        struct balance_pick p = {
                .set = o->ul->set,
                .loop = origin_loop(o)->index,
                .policy = o->u->balance,
                .now = origin_loop(o)->now,
                .key = o->key,
                .sticky = o->sticky,
                .named = o->t->wanted_server,
                .tried = &o->tried,
        };

        return balance_pick(&p, m);
}

static void took(struct origin *o, const struct member *m)
{
        struct txn *t = o->t;

        o->sl = server_here(m->server, origin_loop(o));
        server_hold(o->sl);
        if (o->tried.n < TRIED_MAX)
                o->tried.s[o->tried.n++] = m->server;
        o->fresh = false;
        o->desperate = server_ejected(m->server, origin_loop(o)->now);
        t->attempts++;
        t->upstream_us = -1;
        t->server = arena_dup(t->r->arena, m->server->label); /* the log may outlive the server */
        send_to(o);
}

static bool resolving(const struct upstream_loop *ul)
{
        return ul->set->n == 0 && ul->set->unresolved > 0;
}

static void no_server(struct origin *o)
{
        fail_later(o, o->last != REASON_NONE ? o->last : REASON_NO_SERVER);
}

static void attempt(struct origin *o)
{
        const struct member *m;

        if (o->tried.n == 0 && !list_empty(&o->ul->queue)) { /* first come, first served */
                enqueue(o);
                return;
        }
        switch (pick(o, &m)) {
        case BALANCE_OK:
                took(o, m);
                break;
        case BALANCE_FULL:
                enqueue(o);
                break;
        case BALANCE_NONE:
                if (resolving(o->ul))
                        enqueue(o);
                else
                        no_server(o);
        }
}

void origin_serve(struct upstream_loop *ul)
{
        while (!list_empty(&ul->queue)) {
                struct origin *o = CONTAINER_OF(ul->queue.next, struct origin, link);
                const struct member *m;
                enum balance_result r = pick(o, &m);

                if (r == BALANCE_FULL || (r == BALANCE_NONE && resolving(ul)))
                        break;
                leave_queue(o);
                if (r == BALANCE_OK)
                        took(o, m);
                else
                        no_server(o);
        }
        if (!list_empty(&ul->queue))
                deadline_set(ul->loop, &ul->poll, QUEUE_POLL, poll_due);
}

/* ------------------------------------------------------------------ what flow calls */

static void end_replay(void *arg)
{
        buf_clear(arg);
}

/* A body that was buffered whole is kept for as long as the request may be sent again. */
static void keep_body(struct origin *o)
{
        struct request *r = o->t->r;
        bool repeatable = retry_idempotent(o->req->method) || o->eff->retry_non_idempotent;

        if (!repeatable || o->eff->buffer_request == 0 || o->eff->retry_attempts < 2 ||
            !r->to_server->end || r->to_server->data.n == 0 ||
            r->to_server->data.n > o->eff->buffer_request)
                return;
        buf_append(&o->replay, &r->to_server->data, r->to_server->data.n);
        arena_on_end(r->arena, end_replay, &o->replay);
}

/* Its answers are judged by grpc-status, and what it sends is kept. */
static void prepare_grpc(struct origin *o)
{
        o->by_grpc = (o->eff->retry_on & RETRY_GRPC) && o->eff->retry_attempts > 1 &&
                     o->u->conf.protocol != PROTOCOL_HTTP1 && grpc_is_request(o->req);
        if (o->by_grpc)
                arena_on_end(o->t->r->arena, end_replay, &o->x.kept);
}

static void prepare_balance(struct origin *o)
{
        struct txn *t = o->t;
        str value;

        if (o->u->balance == BALANCE_HASH) {
                const struct template *tpl = t->upstream ? t->upstream->hash : NULL;
                /* The same everywhere and always, so that a restart moves no key. */
                o->key = siphash(1, 3, 0, 0, tpl ? vars_expand(t, tpl) : t->client_ip);
        }
        if (o->u->sticky_cookie.n) {
                value = vars_get_name(t, o->u->sticky_var);
                if (!str_hex64(value, UINT64_MAX, &o->sticky))
                        o->sticky = 0;
        }
}

struct origin *origin_start(struct txn *t, struct upstream *u, const struct settings *eff,
                            struct msg *req, const struct origin_user *user)
{
        struct origin *o = ARENA_NEW(t->r->arena, struct origin);

        CHECK_OBJ(u, UPSTREAM_MAGIC);
        CHECK(o != NULL);
        o->magic = ORIGIN_MAGIC;
        o->t = t;
        o->u = u;
        o->ul = upstream_here(u, t->r->loop);
        o->eff = eff;
        o->user = user;
        o->req = req;
        CHECK(o->ul->begun > 0);
        retry_budget_earn(o->ul, eff->retry_budget);
        keep_body(o);
        prepare_grpc(o);
        prepare_balance(o);
        o->starting = true;
        attempt(o);
        o->starting = false;
        return o;
}

void origin_req_ready(struct origin *o)
{
        CHECK_OBJ(o, ORIGIN_MAGIC);
        if (o->state == ORIGIN_RUNNING)
                o->x.ops->req_ready(&o->x);
}

void origin_res_room(struct origin *o)
{
        CHECK_OBJ(o, ORIGIN_MAGIC);
        if (o->state == ORIGIN_RUNNING)
                o->x.ops->res_room(&o->x);
}

void origin_abort(struct origin *o, enum reason why)
{
        enum origin_state state = o->state;

        CHECK_OBJ(o, ORIGIN_MAGIC);
        origin_over(o);
        switch (state) {
        case ORIGIN_QUEUED:
                leave_queue(o);
                break;
        case ORIGIN_CONNECTING:
                pool_cancel(&o->wait, why);
                break;
        case ORIGIN_RUNNING:
                o->x.ops->abort(&o->x, why);
                break;
        case ORIGIN_WAITING:
                deadline_clear(&o->deadline);
                break;
        case ORIGIN_FAILED:
        case ORIGIN_OVER:
                break;
        }
        if (!o->sl)
                return;
        if (why == REASON_REQUEST_TIMEOUT) { /* the whole exchange took too long, here */
                blame(o, why, STR_NONE);
                origin_attempt_end(o, SERVER_TIMEOUT);
        } else {
                origin_attempt_end(o, why == REASON_TUNNEL_IDLE ? server_result_of(why)
                                                                : SERVER_ABORTED);
        }
}
