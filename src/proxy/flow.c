/*
 * The way of a request: one machine with named steps, always ending in LOG.
 *
 * The difficulty: codecs, functions and origin may each end the request inside a call that flow
 * makes.  So every entry holds the request, a step that calls out returns PARKED, and whoever ends
 * it goes through finish(), once.
 */
#include "proxy/flow.h"

#include "base/log.h"
#include "http/downstream.h"
#include "http/field.h"
#include "http/grpc.h"
#include "proxy/accesslog.h"
#include "proxy/answer.h"
#include "proxy/bridge.h"
#include "proxy/filter.h"
#include "proxy/forward.h"
#include "proxy/origin.h"
#include "proxy/refusal.h"
#include "proxy/side.h"
#include "proxy/tunnel.h"
#include "proxy/vars.h"

#include <stdio.h>

#define FLOW_MAGIC UINT32_C(0x464c4f57)

enum step {
#define STEP(id, fn, text) STEP_##id,
#include "proxy/step.tbl"
#undef STEP
        STEPS
};

enum next { MORE, PARKED };

/* Lives in the request's arena from begin to finish.  Invariant: step only goes forward, but for a
 * local answer, which goes to RESPONSE from anywhere before SEND. */
struct flow {
        uint32_t magic;
        enum step step;
        struct chain *chain;
        struct origin *origin;
        struct tunnel *tunnel;    /* from a 101 on */
        struct bridge *bridge;    /* a call of gRPC-Web that goes on as one of gRPC; else NULL */
        struct msg sent;          /* the head for the server */
        struct deadline deadline; /* timeout request= */
        bool finished, local;     /* local: weir or a function answers */
        struct txn t;             /* last: see flow_new */
};

static void run(struct flow *f);
static void finish(struct flow *f);

static struct flow *flow_of(struct txn *t)
{
        struct flow *f = CONTAINER_OF(t, struct flow, t);
        CHECK_OBJ(f, FLOW_MAGIC);
        return f;
}

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

/* ------------------------------------------------------------------ local answers */

/* Sets up weir's own answer, which fill makes; the machine goes on at RESPONSE. */
static enum next answer(struct flow *f, enum reason why, void (*fill)(struct txn *t))
{
        f->t.reason = why;
        f->local = true;
        f->step = STEP_RESPONSE;
        filters_end(&f->t);
        fill(&f->t);
        return MORE;
}

static enum next refuse(struct flow *f, enum reason why)
{
        struct loop *l = f->t.r->loop;
        refusal_say(f->t.r, why);
        if (refusal_is_limit(why))
                refusal_count_limit(l, &flow_loop(l)->limits[why], why);
        return answer(f, why, answer_refusal);
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
        refuse(f, why);
        run(f);
}

static void fail_held(struct flow *f, enum reason why)
{
        struct request *r = f->t.r;
        request_hold(r);
        fail(f, why);
        request_drop(r);
}

/* ------------------------------------------------------------------ steps */

static enum next step_route(struct flow *f)
{
        struct txn *t = &f->t;
        struct request *r = t->r;
        enum reason why = r->refused;

        if (why == REASON_NONE && !path_parse(r->arena, r->req.target, &t->path))
                why = REASON_AMBIGUOUS_PATH;
        if (why != REASON_NONE) {
                r->close_after = r->close_after || r->refused != REASON_NONE;
                return refuse(f, why);
        }
        if (UNLIKELY(t->early) && forward_too_early(t))
                return refuse(f, REASON_TOO_EARLY);
        if (str_eq(t->path.norm, STR("*"))) /* OPTIONS * is about the host as a whole */
                t->path.norm = STR("/");
        why = route_find(t->gen->routes, t->listen, t->host, t->path.norm, vars_when, t, &t->match);
        enum gen_fit fit = gen_policy_fits(t->gen, t->listen, t->match.host, t->tls);
        if (UNLIKELY(t->trial) && fit != GEN_FITS) {
                side_go_back(t);
                return MORE;
        }
        if (fit != GEN_FITS) {
                t->match = (struct route_match){0};
                r->close_after = fit == GEN_OUTDATED;
                why = REASON_MISDIRECTED;
        }
        if (why != REASON_NONE)
                return refuse(f, why);

        t->eff = &t->match.route->eff;
        if (t->match.route->action != ACTION_PROXY) /* else the upstream's settings count too */
                why = forward_limits(t);
        if (why != REASON_NONE)
                return refuse(f, why);
        f->step = STEP_REQUEST;
        return MORE;
}

static const struct chain_user chain_user;
static void origin_req_room(struct txn *t);

static enum next after_chain(struct flow *f, enum chain_result how)
{
        bool response = f->step == STEP_RESPONSE;
        switch (how) {
        case CHAIN_WAIT:
                return PARKED;
        case CHAIN_CONTINUE:
                f->step = response ? STEP_SEND : STEP_ACTION;
                return MORE;
        case CHAIN_RESPOND:
                /* A function has filled the response; what the server may still send is not wanted.
                 */
                f->local = true;
                if (f->origin != NULL)
                        origin_abort(f->origin, f->t.reason);
                f->origin = NULL;
                f->step = STEP_RESPONSE; /* for the functions that are left */
                return MORE;
        case CHAIN_CUT:
                if (f->origin != NULL)
                        origin_abort(f->origin, f->t.reason);
                f->origin = NULL;
                return refuse(f, f->t.reason);
        }
        UNREACHABLE();
}

static void resumed(struct txn *t, enum chain_result how)
{
        struct flow *f = flow_of(t);
        struct request *r = t->r;
        if (f->finished)
                return;
        request_hold(r);
        if (after_chain(f, how) == MORE)
                run(f);
        request_drop(r);
}

/* ------------------------------------------------------------------ functions on bodies */

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
                fail_held(f, t->reason);
                return;
        }
        chain_cancel(f->chain); /* a response function may be waiting */
        resumed(t, how);
}

static const struct chain_user chain_user = {
        .resumed = resumed,
        .wanted = body_wanted,
        .ready = body_ready,
        .room = body_room,
        .decided = body_decided,
};

static void request_timeout(struct deadline *d)
{
        fail_held(CONTAINER_OF(d, struct flow, deadline), REASON_REQUEST_TIMEOUT);
}

static void bound(struct flow *f)
{
        struct txn *t = &f->t;
        int64_t us = forward_patience(t);

        t->deadline = us != 0 ? t->r->loop->now + us : 0;
        if (us != 0 || deadline_armed(&f->deadline))
                deadline_set(t->r->loop, &f->deadline, us, request_timeout);
}

static enum next step_request(struct flow *f)
{
        struct txn *t = &f->t;
        const struct route_conf *route = t->match.route;
        bound(f);
        f->chain = chain_new(t, route->functions, route->n_functions, &chain_user);
        if (f->chain == NULL) {
                f->step = STEP_ACTION;
                return MORE;
        }
        return after_chain(f, chain_request(f->chain));
}

static enum next step_action(struct flow *f)
{
        struct txn *t = &f->t;
        switch (t->match.route->action) {
        case ACTION_RESPOND:
                return answer(f, REASON_RESPOND, answer_respond);
        case ACTION_REDIRECT:
                return answer(f, REASON_REDIRECT, answer_redirect);
        case ACTION_FUNCTION:
                return refuse(f, REASON_INTERNAL); /* it said that it always answers, and did not */
        case ACTION_PROXY:
                break;
        }
        const struct settings *before = t->eff;
        forward_target(t);
        if (t->eff->request != before->request || t->eff->grpc_web != before->grpc_web)
                /* the upstream has one of its own */
                bound(f);
        if (t->r->req.upgrade.p != NULL && !t->eff->upgrade)
                return refuse(f, REASON_UPGRADE_OFF);
        enum reason why = forward_limits(t);
        if (why != REASON_NONE)
                return refuse(f, why);
        if (forward_is_web(t) && t->upstream->protocol != PROTOCOL_HTTP1) {
                f->bridge = bridge_new(t->r);
                if (!bridge_request(f->bridge))
                        return refuse(f, REASON_BAD_GRPC_WEB);
        }
        f->step = STEP_BUFFER;
        return MORE;
}

/* A body up to `buffer request=` is here before a server is asked; a larger one streams from there
 * on. */
static enum next step_buffer(struct flow *f)
{
        struct request *r = f->t.r;
        uint64_t want = f->t.eff->buffer_request;
        bool body = r->req.framing != FRAMING_NONE && r->req.upgrade.p == NULL;
        if (UNLIKELY(f->t.filter[WEIR_REQUEST] != NULL)) {
                enum chain_result how = filter_open(f->t.filter[WEIR_REQUEST]);
                if (how != CHAIN_CONTINUE)
                        return after_chain(f, how);
                if (f->bridge != NULL && !bridge_request(f->bridge))
                        return refuse(f, REASON_BAD_GRPC_WEB);
        }
        struct pipe *p = r->to_server;
        if (want != 0 && body && !p->end) {
                p->high = want;
                if (!pipe_full(p)) {
                        origin_req_room(&f->t);
                        if (f->finished || f->step != STEP_BUFFER || !(p->end || pipe_full(p)))
                                return PARKED;
                }
                p->high = PIPE_HIGH;
        }
        f->step = STEP_ORIGIN;
        return MORE;
}

static const struct origin_user origin_user;

static enum next step_origin(struct flow *f)
{
        struct txn *t = &f->t;
        forward_request(t, &f->sent);
        if (UNLIKELY(t->filter[WEIR_REQUEST] != NULL))
                filter_frame(t->filter[WEIR_REQUEST], &f->sent);
        if (f->bridge != NULL)
                bridge_request_head(f->bridge, &f->sent);
        f->origin = origin_start(t, t->gen->upstreams[t->upstream->index], t->eff, &f->sent,
                                 &origin_user);
        return PARKED;
}

/* A body up to `buffer response=` is held back, so that a slow client does not keep the server. */
static enum next step_hold(struct flow *f)
{
        struct request *r = f->t.r;
        uint64_t want = f->t.eff->buffer_response;
        if (want != 0 && r->res.status != 101 && !r->res_body.end) {
                r->res_body.high = MAX(want, PIPE_HIGH);
                if (r->res_body.data.n < want) {
                        if (r->res_body.stalled && f->origin != NULL)
                                origin_res_room(f->origin);
                        if (f->finished || f->step != STEP_HOLD ||
                            !(r->res_body.end || r->res_body.data.n >= want))
                                return PARKED;
                }
        }
        f->step = STEP_RESPONSE;
        return MORE;
}

static enum next step_response(struct flow *f)
{
        struct request *r = f->t.r;
        if (!f->local)
                field_strip_hop(&r->res.fields);
        if (f->chain == NULL) {
                f->step = STEP_SEND;
                return MORE;
        }
        return after_chain(f, chain_response(f->chain));
}

static void tunnel_ready(struct txn *t, enum tunnel_side to)
{
        if (to == TUNNEL_CLIENT)
                t->r->client->res_ready(t->r);
        else if (flow_of(t)->origin != NULL)
                origin_req_ready(flow_of(t)->origin);
}

static void tunnel_idle(struct txn *t)
{
        fail_held(flow_of(t), REASON_TUNNEL_IDLE);
}

static const struct tunnel_user tunnel_user = {.ready = tunnel_ready, .idle = tunnel_idle};

static enum next step_send(struct flow *f)
{
        struct request *r = f->t.r;
        bool web = f->local && r->res.status >= 400 && forward_is_web(&f->t);
        bool call = f->local && r->res.status >= 400 && grpc_is_request(&r->req);
        if (call || web) /* its body becomes a message in the head or in trailers */
                filter_end(&f->t, true);
        if (UNLIKELY(f->t.filter[WEIR_RESPONSE] != NULL)) {
                enum chain_result how = filter_open(f->t.filter[WEIR_RESPONSE]);
                if (how != CHAIN_CONTINUE)
                        return after_chain(f, how);
                filter_frame(f->t.filter[WEIR_RESPONSE], &r->res);
        }
        f->step = STEP_DELIVER;
        if (UNLIKELY(f->t.tally != NULL))
                trial_answered(&f->t);
        if (!f->local && r->res.status == 101) {
                r->tunnel = true;
                filters_end(&f->t);
                deadline_clear(&f->deadline);
                f->tunnel = tunnel_begin(&f->t, &tunnel_user);
        }
        if (f->local) {
                refusal_count_reply(r->loop, &flow_loop(r->loop)->reasons[f->t.reason],
                                    f->t.reason);
                if (call)
                        grpc_reply(r, f->t.reason);
                else if (web)
                        bridge_reply(r, f->t.reason);
        }
        r->res_head_sent = true;
        r->client->head(r);
        return PARKED;
}

static enum next step_deliver(struct flow *f UNUSED)
{
        return PARKED; /* codec and origin move the body between themselves */
}

static enum next step_log(struct flow *f UNUSED)
{
        return PARKED;
}

static enum next (*const steps[STEPS])(struct flow *) = {
#define STEP(id, fn, text) [STEP_##id] = fn,
#include "proxy/step.tbl"
#undef STEP
};

static void run(struct flow *f)
{
        while (!f->finished && steps[f->step](f) == MORE)
                ;
}

static void enter(struct flow *f)
{
        struct request *r = f->t.r;
        request_hold(r);
        run(f);
        request_drop(r);
}

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
                fail_held(f, REASON_UPSTREAM_FRAMING);
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
                fail_held(f, REASON_UPSTREAM_FRAMING);
        else if (UNLIKELY(t->filter[WEIR_RESPONSE] != NULL))
                filter_came(t->filter[WEIR_RESPONSE]);
        else
                res_came(f);
}

static void origin_req_room(struct txn *t)
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
        fail_held(f, why);
}

static const struct origin_user origin_user = {
        .interim = origin_interim,
        .head = origin_has_head,
        .res_ready = origin_res_ready,
        .req_room = origin_req_room,
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
        fail_held(flow_of_request(r), why);
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
