/*
 * What becomes of a server's answer: it is given to flow, or the request is sent again because of
 * what it says.
 *
 *    head -> status 502 503 504, asked to be tried again -------------------> again
 *      |`--> a call of gRPC -> held until DATA or the end -> grpc-status ---> again
 *      |                                  |                              `--> flow
 *      `----------------------------------+---------------------------------> flow
 *
 * The one difficulty: gRPC says how a call went in its trailers, when the head might have gone to
 * the client long ago.  So the head of a call that may be sent again waits for what follows it.  A
 * client that has more to send may itself be waiting for that head, and the server for the client:
 * it is held no longer than HOLD_OPEN then.
 */
#include "http/field.h"
#include "http/grpc.h"
#include "proxy/origin_type.h"
#include "proxy/retry.h"

#include <stdio.h>

#define HOLD_OPEN (100 * MSEC)

/* Which server this was, for the client to come back to. */
static void give_cookie(struct origin *o)
{
        struct request *r = o->t->r;
        bool secure = str_eq(o->t->scheme, STR("https"));
        str value;

        if (!o->u->sticky_cookie.n || o->sticky == o->sl->server->sticky)
                return;
        value = arena_printf(r->arena, "%.*s=%016llx; Path=/; HttpOnly; SameSite=Lax%s",
                             STR_ARG(o->u->sticky_cookie),
                             (unsigned long long)o->sl->server->sticky, secure ? "; Secure" : "");
        if (value.p)
                fields_add(r->arena, &r->res.fields, FIELD_SET_COOKIE,
                           field_name_of(FIELD_SET_COOKIE), value);
}

static void exchange_over(struct origin *o)
{
        origin_over(o);
        origin_attempt_end(o, server_result_of_status(o->t->r->res.status));
}

/* The answer is final from here on. */
static void give_head(struct origin *o)
{
        o->head_given = true;
        o->x.keep_max = 0;
        buf_clear(&o->x.kept);
        give_cookie(o);
        if (o->x.phase == EXCHANGE_DONE)
                exchange_over(o);
        o->user->head(o->t);
}

static void server_did_well(struct origin *o)
{
        server_succeeded(o->sl, o->t->upstream_us);
        if (o->desperate)
                server_readmit(o->sl);
}

/* ------------------------------------------------------------------ by the status of HTTP */

/* Whether the request is on its way again. */
static bool again_by_status(struct origin *o, int status, uint32_t class)
{
        char why[32];

        snprintf(why, sizeof(why), "status %d", status);
        if (!o->t->trial)
                server_failed(o->sl, why);
        if (!origin_may_retry(o, class, true))
                return false;
        if (o->x.ops) /* else the response was complete with its head */
                o->x.ops->abort(&o->x, REASON_DONE);
        origin_attempt_end(o, server_result_of_status(status));
        o->last = REASON_NO_SERVER;
        origin_again(o, 0);
        return true;
}

/* ------------------------------------------------------------------ by the status of gRPC */

/* Nobody waits longer for a server than for its answer, nor than the caller does. */
static bool worth_waiting(const struct origin *o, int64_t wait)
{
        if (wait == 0)
                return true;
        if (o->eff->response && wait > o->eff->response)
                return false;
        return o->t->deadline == 0 || origin_loop(o)->now + wait < o->t->deadline;
}

static bool again_by_grpc(struct origin *o)
{
        const struct msg *res = &o->t->r->res;
        int status = grpc_status_in(res);
        uint32_t class = retry_class_of_grpc(status) & o->eff->retry_on;
        int64_t wait;
        char why[32];

        if (class == RETRY_GRPC_UNAVAILABLE) {
                snprintf(why, sizeof(why), "grpc-status %d", status);
                if (!o->t->trial)
                        server_failed(o->sl, why);
        } else {
                server_did_well(o);
        }
        if (!class || !grpc_pushback(res, &wait) || !worth_waiting(o, wait) ||
            !origin_may_retry(o, class, false))
                return false;
        origin_attempt_end(o, server_result_of_status(res->status));
        o->last = REASON_NO_SERVER;
        origin_again(o, wait);
        return true;
}

static void held_long_enough(struct deadline *d)
{
        struct origin *o = CONTAINER_OF(d, struct origin, deadline);

        CHECK_OBJ(o, ORIGIN_MAGIC);
        CHECK(o->state == ORIGIN_RUNNING && o->held);
        o->held = false;
        server_did_well(o);
        give_head(o);
}

/* The head of a call is here, and perhaps more. */
static void settle_held(struct origin *o)
{
        struct request *r = o->t->r;
        bool empty = r->from_server->passed == 0;

        if (empty && o->x.phase != EXCHANGE_DONE) {
                if (!o->held && !r->req_body.end)
                        deadline_set(origin_loop(o), &o->deadline, HOLD_OPEN, held_long_enough);
                o->held = true;
                return;
        }
        if (o->held)
                deadline_clear(&o->deadline);
        o->held = false;
        if (!empty)
                server_did_well(o);
        else if (again_by_grpc(o))
                return;
        give_head(o);
}

static bool judged_by_grpc(const struct origin *o)
{
        const struct msg *res = &o->t->r->res;
        const struct field *type = fields_get(&res->fields, FIELD_CONTENT_TYPE);

        return o->by_grpc && res->status == 200 && type && grpc_is_type(type->value);
}

/* ------------------------------------------------------------------ what the exchange says */

void origin_on_head(struct exchange *x)
{
        struct origin *o = origin_of(x);
        struct txn *t = o->t;
        int status = t->r->res.status;
        uint32_t class = retry_class_of_status(status);

        t->upstream_us = x->head_at - x->sent_at;
        metric_observe(o->ul->duration, (uint64_t)MAX(t->upstream_us, 0));
        if (class) {
                if (again_by_status(o, status, class))
                        return;
        } else if (judged_by_grpc(o)) {
                settle_held(o);
                return;
        } else {
                server_did_well(o);
        }
        give_head(o);
}

void origin_on_res_ready(struct exchange *x)
{
        struct origin *o = origin_of(x);

        if (o->held) {
                settle_held(o);
                return;
        }
        if (x->phase == EXCHANGE_DONE)
                exchange_over(o);
        o->user->res_ready(o->t);
}
