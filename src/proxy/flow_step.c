/*
 * The steps of a request, in the order of step.tbl.
 *
 * The difficulty: a call out may end the request before it returns.  So a step sets what it goes on
 * with before it calls, and looks at `finished` and at the step itself where it goes on afterwards.
 */
#include "proxy/flow_type.h"

#include "http/field.h"
#include "http/grpc.h"
#include "proxy/answer.h"
#include "proxy/filter.h"
#include "proxy/forward.h"
#include "proxy/side.h"
#include "proxy/vars.h"

static enum flow_next step_route(struct flow *f)
{
        struct txn *t = &f->t;
        struct request *r = t->r;
        enum reason why = r->refused;

        if (why == REASON_NONE && !path_parse(r->arena, r->req.target, &t->path))
                why = REASON_AMBIGUOUS_PATH;
        if (why != REASON_NONE) {
                r->close_after = r->close_after || r->refused != REASON_NONE;
                return flow_refuse(f, why);
        }
        if (UNLIKELY(t->early) && forward_too_early(t))
                return flow_refuse(f, REASON_TOO_EARLY);
        if (str_eq(t->path.norm, STR("*"))) /* OPTIONS * is about the host as a whole */
                t->path.norm = STR("/");
        why = route_find(t->gen->routes, t->listen, t->host, t->path.norm, vars_when, t, &t->match);
        enum gen_fit fit = gen_policy_fits(t->gen, t->listen, t->match.host, t->tls);
        if (UNLIKELY(t->trial) && fit != GEN_FITS) {
                side_go_back(t);
                return FLOW_MORE;
        }
        r->outdated = fit == GEN_LAST || fit == GEN_OUTDATED;
        if (fit == GEN_OTHER_NAME || fit == GEN_OUTDATED) {
                t->match = (struct route_match){0};
                why = REASON_MISDIRECTED;
        }
        if (why != REASON_NONE)
                return flow_refuse(f, why);

        t->eff = &t->match.route->eff;
        if (t->match.route->action != ACTION_PROXY) /* else the upstream's settings count too */
                why = forward_limits(t);
        if (why != REASON_NONE)
                return flow_refuse(f, why);
        f->step = STEP_REQUEST;
        return FLOW_MORE;
}

enum flow_next flow_after_chain(struct flow *f, enum chain_result how)
{
        bool response = f->step == STEP_RESPONSE;
        switch (how) {
        case CHAIN_WAIT:
                return FLOW_PARKED;
        case CHAIN_CONTINUE:
                f->step = response ? STEP_SEND : STEP_ACTION;
                return FLOW_MORE;
        case CHAIN_RESPOND:
                /* A function has filled the response; what the server may still send is not wanted.
                 */
                f->local = true;
                if (f->origin != NULL)
                        origin_abort(f->origin, f->t.reason);
                f->origin = NULL;
                f->step = STEP_RESPONSE; /* for the functions that are left */
                return FLOW_MORE;
        case CHAIN_CUT:
                if (f->origin != NULL)
                        origin_abort(f->origin, f->t.reason);
                f->origin = NULL;
                return flow_refuse(f, f->t.reason);
        }
        UNREACHABLE();
}

static void request_timeout(struct deadline *d)
{
        flow_fail(CONTAINER_OF(d, struct flow, deadline), REASON_REQUEST_TIMEOUT);
}

static void bound(struct flow *f)
{
        struct txn *t = &f->t;
        int64_t us = forward_patience(t);

        t->deadline = us != 0 ? t->r->loop->now + us : 0;
        if (us != 0 || deadline_armed(&f->deadline))
                deadline_set(t->r->loop, &f->deadline, us, request_timeout);
}

static enum flow_next step_request(struct flow *f)
{
        struct txn *t = &f->t;
        const struct route_conf *route = t->match.route;
        bound(f);
        f->chain = chain_new(t, route->functions, route->n_functions, &flow_chain_user);
        if (f->chain == NULL) {
                f->step = STEP_ACTION;
                return FLOW_MORE;
        }
        return flow_after_chain(f, chain_request(f->chain));
}

static enum flow_next step_action(struct flow *f)
{
        struct txn *t = &f->t;
        switch (t->match.route->action) {
        case ACTION_RESPOND:
                return flow_answer(f, REASON_RESPOND, answer_respond);
        case ACTION_REDIRECT:
                return flow_answer(f, REASON_REDIRECT, answer_redirect);
        case ACTION_FUNCTION:
                return flow_refuse(
                        f, REASON_INTERNAL); /* it said that it always answers, and did not */
        case ACTION_PROXY:
                break;
        }
        const struct settings *before = t->eff;
        forward_target(t);
        if (t->eff->request != before->request || t->eff->grpc_web != before->grpc_web)
                /* the upstream has one of its own */
                bound(f);
        if (t->r->req.upgrade.p != NULL && !t->eff->upgrade)
                return flow_refuse(f, REASON_UPGRADE_OFF);
        enum reason why = forward_limits(t);
        if (why != REASON_NONE)
                return flow_refuse(f, why);
        if (forward_is_web(t) && t->upstream->protocol != PROTOCOL_HTTP1) {
                f->bridge = bridge_new(t->r);
                if (!bridge_request(f->bridge))
                        return flow_refuse(f, REASON_BAD_GRPC_WEB);
        }
        f->step = STEP_BUFFER;
        return FLOW_MORE;
}

/* A body up to `buffer request=` is here before a server is asked; a larger one streams from there
 * on. */
static enum flow_next step_buffer(struct flow *f)
{
        struct request *r = f->t.r;
        uint64_t want = f->t.eff->buffer_request;
        bool body = r->req.framing != FRAMING_NONE && r->req.upgrade.p == NULL;
        if (UNLIKELY(f->t.filter[WEIR_REQUEST] != NULL)) {
                enum chain_result how = filter_open(f->t.filter[WEIR_REQUEST]);
                if (how != CHAIN_CONTINUE)
                        return flow_after_chain(f, how);
                if (f->bridge != NULL && !bridge_request(f->bridge))
                        return flow_refuse(f, REASON_BAD_GRPC_WEB);
        }
        struct pipe *p = r->to_server;
        if (want != 0 && body && !p->end) {
                p->high = want;
                if (!pipe_full(p)) {
                        flow_more_body(&f->t);
                        if (f->finished || f->step != STEP_BUFFER || !(p->end || pipe_full(p)))
                                return FLOW_PARKED;
                }
                p->high = PIPE_HIGH;
        }
        f->step = STEP_ORIGIN;
        return FLOW_MORE;
}

static enum flow_next step_origin(struct flow *f)
{
        struct txn *t = &f->t;
        forward_request(t, &f->sent);
        if (UNLIKELY(t->filter[WEIR_REQUEST] != NULL))
                filter_frame(t->filter[WEIR_REQUEST], &f->sent);
        if (f->bridge != NULL)
                bridge_request_head(f->bridge, &f->sent);
        f->origin = origin_start(t, t->gen->upstreams[t->upstream->index], t->eff, &f->sent,
                                 &flow_origin_user);
        return FLOW_PARKED;
}

/* A body up to `buffer response=` is held back, so that a slow client does not keep the server. */
static enum flow_next step_hold(struct flow *f)
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
                                return FLOW_PARKED;
                }
        }
        f->step = STEP_RESPONSE;
        return FLOW_MORE;
}

static enum flow_next step_response(struct flow *f)
{
        struct request *r = f->t.r;
        if (!f->local)
                field_strip_hop(&r->res.fields);
        if (f->chain == NULL) {
                f->step = STEP_SEND;
                return FLOW_MORE;
        }
        return flow_after_chain(f, chain_response(f->chain));
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
        flow_fail(flow_of(t), REASON_TUNNEL_IDLE);
}

static const struct tunnel_user tunnel_user = {.ready = tunnel_ready, .idle = tunnel_idle};

static enum flow_next step_send(struct flow *f)
{
        struct request *r = f->t.r;
        bool web = f->local && r->res.status >= 400 && forward_is_web(&f->t);
        bool call = f->local && r->res.status >= 400 && grpc_is_request(&r->req);
        if (call || web) /* its body becomes a message in the head or in trailers */
                filter_end(&f->t, true);
        if (UNLIKELY(f->t.filter[WEIR_RESPONSE] != NULL)) {
                enum chain_result how = filter_open(f->t.filter[WEIR_RESPONSE]);
                if (how != CHAIN_CONTINUE)
                        return flow_after_chain(f, how);
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
                flow_count_reply(f);
                if (call)
                        grpc_reply(r, f->t.reason);
                else if (web)
                        bridge_reply(r, f->t.reason);
        }
        r->res_head_sent = true;
        r->client->head(r);
        return FLOW_PARKED;
}

static enum flow_next step_deliver(struct flow *f UNUSED)
{
        return FLOW_PARKED; /* codec and origin move the body between themselves */
}

static enum flow_next step_log(struct flow *f UNUSED)
{
        return FLOW_PARKED;
}

enum flow_next (*const flow_steps[STEPS])(struct flow *) = {
#define STEP(id, fn, text) [STEP_##id] = fn,
#include "proxy/step.tbl"
#undef STEP
};
