/*
 * The way of a request: one machine with named steps, always ending in LOG.
 *
 * The difficulty: codecs, functions and origin may each end the request inside a call that flow
 * makes.  So every entry holds the request, a step that calls out returns PARKED, and whoever ends
 * it goes through finish(), once.
 */
#include "proxy/flow_type.h"

#include "http/downstream.h"
#include "proxy/accesslog.h"
#include "proxy/answer.h"
#include "proxy/filter.h"
#include "proxy/forward.h"
#include "proxy/refusal.h"
#include "proxy/side.h"

static void run(struct flow *f);
static void finish(struct flow *f);

static struct flow *flow_of_request(struct request *r)
{
        return CAST(struct flow, FLOW_MAGIC, r->flow_ctx);
}

/* ------------------------------------------------------------------ per loop */

/* Counters of a loop that belong to no generation. */
struct flow_loop {
        metric_cell *reasons[REASONS], *limits[REASONS];
        metric_cell *open, *bytes_in, *bytes_out;
        uint64_t requests;
};

static struct flow_loop *flow_loop(struct loop *l)
{
        struct flow_loop *fl = l->slot[LOOP_SLOT_PROXY];
        if (LIKELY(fl != NULL))
                return fl;
        static _Thread_local struct flow_loop own;
        fl = l->slot[LOOP_SLOT_PROXY] = &own;
        fl->open = metric_series(l->metrics, METRIC_REQUESTS_OPEN, STR(""));
        fl->bytes_in = metric_series(l->metrics, METRIC_BYTES_IN, STR(""));
        fl->bytes_out = metric_series(l->metrics, METRIC_BYTES_OUT, STR(""));
        return fl;
}

uint64_t flow_requests(struct loop *l)
{
        return flow_loop(l)->requests;
}

void flow_count_reply(const struct flow *f)
{
        struct loop *l = f->t.r->loop;

        refusal_count_reply(l, &flow_loop(l)->reasons[f->t.reason], f->t.reason);
}

/* ------------------------------------------------------------------ local answers */

enum flow_next flow_answer(struct flow *f, enum reason why, void (*fill)(struct txn *t))
{
        f->t.reason = why;
        f->local = true;
        f->step = STEP_RESPONSE;
        filters_end(&f->t);
        fill(&f->t);
        return FLOW_MORE;
}

enum flow_next flow_refuse(struct flow *f, enum reason why)
{
        struct loop *l = f->t.r->loop;
        refusal_say(f->t.r, why);
        if (refusal_is_limit(why))
                refusal_count_limit(l, &flow_loop(l)->limits[why], why);
        return flow_answer(f, why, answer_refusal);
}

/* The response has begun and cannot be completed: it must look cut. */
static void cut(struct flow *f, enum reason why)
{
        struct request *r = f->t.r;
        f->t.reason = why;
        if (r->client != NULL)
                r->client->cut(r, why);
        finish(f);
}

/* For the moments when something failed while the machine was parked. */
static void fail(struct flow *f, enum reason why)
{
        struct request *r = f->t.r;
        if (f->finished)
                return;
        if (f->origin != NULL) {
                origin_abort(f->origin, why);
                f->origin = NULL;
        }
        if (r->res_head_sent) {
                cut(f, why);
                return;
        }
        if (f->chain != NULL)
                chain_cancel(f->chain);
        flow_refuse(f, why);
        run(f);
}

void flow_fail(struct flow *f, enum reason why)
{
        struct request *r = f->t.r;
        request_hold(r);
        fail(f, why);
        request_drop(r);
}

/* ------------------------------------------------------------------ the machine */

static void run(struct flow *f)
{
        while (!f->finished && flow_steps[f->step](f) == FLOW_MORE)
                ;
}

static void enter(struct flow *f)
{
        struct request *r = f->t.r;
        request_hold(r);
        run(f);
        request_drop(r);
}

/* ------------------------------------------------------------------ what functions say */

static void resumed(struct txn *t, enum chain_result how)
{
        struct flow *f = flow_of(t);
        struct request *r = t->r;
        if (f->finished)
                return;
        request_hold(r);
        if (flow_after_chain(f, how) == FLOW_MORE)
                run(f);
        request_drop(r);
}

/* The whole body is wanted before the route's action, whose limit may be another one. */
static enum reason body_wanted(struct txn *t)
{
        enum reason why = forward_limits(t);
        if (why == REASON_NONE)
                t->r->client->req_room(t->r);
        return why;
}

static void req_came(struct flow *f);
static void res_came(struct flow *f);

static void body_ready(struct txn *t, bool response)
{
        if (response)
                res_came(flow_of(t));
        else
                req_came(flow_of(t));
}

static void body_room(struct txn *t, bool response)
{
        struct flow *f = flow_of(t);
        if (!response && t->r->client != NULL)
                t->r->client->req_room(t->r);
        else if (response && f->origin != NULL)
                origin_res_room(f->origin);
}

static void body_decided(struct txn *t, enum chain_result how)
{
        struct flow *f = flow_of(t);
        if (how == CHAIN_CUT) {
                flow_fail(f, t->reason);
                return;
        }
        chain_cancel(f->chain); /* a response function may be waiting */
        resumed(t, how);
}

const struct chain_user flow_chain_user = {
        .resumed = resumed,
        .wanted = body_wanted,
        .ready = body_ready,
        .room = body_room,
        .decided = body_decided,
};

/* ------------------------------------------------------------------ what origin says */

static void origin_interim(struct txn *t, const struct msg *res)
{
        if (t->r->client != NULL && !t->r->res_head_sent)
                t->r->client->interim(t->r, res);
}

/* The exchange is over; what functions still do to its request is not wanted. */
static void server_ended(struct flow *f)
{
        f->origin = NULL;
        filter_end(&f->t, false);
}

static void origin_has_head(struct txn *t)
{
        struct flow *f = flow_of(t);
        f->step = STEP_HOLD;
        if (t->r->from_server->end)
                filter_end(t, false);
        if (f->bridge != NULL && !bridge_response_head(f->bridge))
                flow_fail(f, REASON_UPSTREAM_FRAMING);
        else
                enter(f);
}

/* More in r->res_body. */
static void res_came(struct flow *f)
{
        struct request *r = f->t.r;
        if (f->step == STEP_HOLD)
                enter(f);
        else if (f->step == STEP_DELIVER && r->client != NULL)
                r->client->res_ready(r);
}

static void origin_res_ready(struct txn *t)
{
        struct flow *f = flow_of(t);
        struct request *r = t->r;
        if (f->tunnel != NULL)
                tunnel_heard(f->tunnel, TUNNEL_SERVER);
        if (r->from_server->end && !r->tunnel)
                server_ended(f);
        if (f->bridge != NULL && !bridge_response(f->bridge))
                flow_fail(f, REASON_UPSTREAM_FRAMING);
        else if (UNLIKELY(t->filter[WEIR_RESPONSE] != NULL))
                filter_came(t->filter[WEIR_RESPONSE]);
        else
                res_came(f);
}

void flow_more_body(struct txn *t)
{
        if (UNLIKELY(t->filter[WEIR_REQUEST] != NULL))
                filter_room(t->filter[WEIR_REQUEST]);
        else if (t->r->client != NULL)
                t->r->client->req_room(t->r);
}

static void origin_failed(struct txn *t, enum reason why)
{
        struct flow *f = flow_of(t);
        f->origin = NULL;
        flow_fail(f, why);
}

const struct origin_user flow_origin_user = {
        .interim = origin_interim,
        .head = origin_has_head,
        .res_ready = origin_res_ready,
        .req_room = flow_more_body,
        .failed = origin_failed,
};

/* ------------------------------------------------------------------ what the client says */

/* Zeroed but for the captures: half of it, which few requests need. */
static struct flow *flow_new(struct arena *a)
{
        struct flow *f = arena_alloc(a, sizeof(*f));

        CHECK(f != NULL);
        memset(f, 0, offsetof(struct flow, t.match.caps.g));
        return f;
}

static void begin(struct request *r)
{
        struct flow *f = flow_new(r->arena);
        struct txn *t = &f->t;
        struct flow_loop *fl = flow_loop(r->loop);

        f->magic = FLOW_MAGIC;
        r->flow_ctx = f;
        t->r = r;
        t->upstream_us = -1;
        side_take(t);
        metric_set(fl->open, (int64_t)++fl->requests);
        f->step = STEP_ROUTE;
        enter(f);
}

static void req_failed(struct request *r, enum reason why);

/* More in *r->to_server. */
static void req_came(struct flow *f)
{
        struct request *r = f->t.r;
        bool wanted = f->step == STEP_BUFFER || f->origin != NULL;
        if (f->tunnel != NULL)
                tunnel_heard(f->tunnel, TUNNEL_CLIENT);
        if (f->bridge != NULL && wanted && !bridge_request(f->bridge))
                req_failed(r, REASON_BAD_GRPC_WEB);
        else if (f->step == STEP_BUFFER)
                enter(f);
        else if (f->origin != NULL)
                origin_req_ready(f->origin);
}

static void req_ready(struct request *r)
{
        struct flow *f = flow_of_request(r);
        if (UNLIKELY(f->t.filter[WEIR_REQUEST] != NULL))
                filter_came(f->t.filter[WEIR_REQUEST]);
        else
                req_came(f);
}

static void req_failed(struct request *r, enum reason why)
{
        r->close_after = true;
        flow_fail(flow_of_request(r), why);
}

static void res_room(struct request *r)
{
        struct flow *f = flow_of_request(r);
        if (UNLIKELY(f->t.filter[WEIR_RESPONSE] != NULL))
                filter_room(f->t.filter[WEIR_RESPONSE]);
        else if (f->origin != NULL)
                origin_res_room(f->origin);
}

static void res_sent(struct request *r)
{
        finish(flow_of_request(r));
}

static void gone(struct request *r, enum reason why)
{
        struct flow *f = flow_of_request(r);
        f->t.reason = why;
        if (!r->res_head_sent)
                r->res.status = 499; /* as other proxies log it: nobody was there to answer */
        if (f->chain != NULL)
                chain_cancel(f->chain);
        finish(f);
}

const struct flow_ops flow_ops = {
        .begin = begin,
        .req_ready = req_ready,
        .req_failed = req_failed,
        .res_room = res_room,
        .res_sent = res_sent,
        .gone = gone,
};

/* ------------------------------------------------------------------ the end */

static void finish(struct flow *f)
{
        struct txn *t = &f->t;
        struct request *r = t->r;
        struct flow_loop *fl = flow_loop(r->loop);

        if (f->finished)
                return;
        f->finished = true;
        f->step = STEP_LOG;
        deadline_clear(&f->deadline);
        if (f->tunnel != NULL)
                tunnel_end(f->tunnel);
        if (f->origin != NULL)
                origin_abort(f->origin, t->reason ? t->reason : REASON_CLIENT_GONE);
        f->origin = NULL;
        t->finished = r->loop->now;
        if (f->chain != NULL)
                chain_log(f->chain);
        gen_count_request(t);
        if (UNLIKELY(t->tally != NULL))
                trial_ended(t);
        if (t->eff->access_log != NULL && t->eff->access_log->path.p != NULL)
                accesslog_write(t, t->eff->access_log);
        metric_add(fl->bytes_in, r->bytes_in);
        metric_add(fl->bytes_out, r->bytes_out);
        metric_set(fl->open, (int64_t)--fl->requests);
        f->magic = DEAD_MAGIC;
        gen_drop(t->gl);
        request_drop(r);
}

/* ------------------------------------------------------------------ connections */

void flow_accept(struct loop *l, int fd, const struct addr *peer, void *flow_listener)
{
        struct flow_listener *fl = flow_listener;
        downstream_accept(l, fd, peer, gen_downstream(l, &fl->addr), fl);
}
