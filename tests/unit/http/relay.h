/*
 * The smallest flow there can be: every request goes to one server, on a kept connection if there
 * is one.  It joins the two codecs as proxy/flow.c does, so that the seam itself can be tried.
 */
#ifndef TESTS_HTTP_RELAY_H
#define TESTS_HTTP_RELAY_H

#include "http/downstream.h"
#include "http/field.h"
#include "http/h1_client.h"
#include "http/reply.h"

struct relay_request {
        struct exchange x;
        struct msg sent;
};

static struct {
        struct addr server;
        struct list idle;
        unsigned connects, kept, finished, gone, failed;
        enum reason why;
        struct request *last;
} relay;

static void relay_head(struct exchange *x)
{
        struct request *r = x->r;
        field_strip_hop(&r->res.fields);
        r->tunnel = r->res.status == 101;
        r->res_head_sent = true;
        r->client->head(r);
}

static void relay_interim(struct exchange *x)
{
        x->r->client->interim(x->r, &x->interim);
}

static void relay_res_ready(struct exchange *x)
{
        if (x->r->client)
                x->r->client->res_ready(x->r);
}

static void relay_req_room(struct exchange *x)
{
        if (x->r->client)
                x->r->client->req_room(x->r);
}

static void relay_fail(struct request *r, enum reason why)
{
        relay.failed++;
        relay.why = why;
        if (r->res_head_sent) {
                r->client->cut(r, why);
                request_drop(r);
                return;
        }
        reply_fill(r, reason_rows[why].status, why, STR_NONE, STR_NONE);
        r->res_head_sent = true;
        r->client->head(r);
}

static void relay_failed(struct exchange *x, enum reason why)
{
        relay_fail(x->r, why);
}

static const struct exchange_user relay_user = {relay_interim, relay_head, relay_res_ready,
                                                relay_req_room, relay_failed};

static void relay_connected(struct client_conn *c, enum reason why)
{
        struct request *r = c->pool_ctx;
        struct relay_request *q = r->flow_ctx;
        if (why != REASON_NONE) {
                relay_fail(r, why);
                return;
        }
        client_bind(c, &q->x);
        q->x.ops->start(&q->x);
}

static void relay_released(struct client_conn *c)
{
        relay.kept++;
        list_push_front(&relay.idle, &c->link);
        client_idle(c, 60 * SEC);
}

static void relay_closed(struct client_conn *c, enum reason why)
{
        (void)why;
        if (list_linked(&c->link))
                list_remove(&c->link);
}

static const struct client_pool relay_pool = {relay_connected, relay_released, relay_closed};

static void relay_begin(struct request *r)
{
        struct relay_request *q = ARENA_NEW(r->arena, struct relay_request);
        enum reason why;
        relay.last = r;
        r->flow_ctx = q;
        if (r->refused != REASON_NONE) {
                relay_fail(r, r->refused);
                return;
        }
        field_strip_hop(&r->req.fields);
        q->sent = r->req;
        q->x = (struct exchange){.magic = EXCHANGE_MAGIC,
                                 .r = r,
                                 .user = &relay_user,
                                 .req = &q->sent,
                                 .res = &r->res,
                                 .accept_upgrade = r->req.upgrade.n > 0,
                                 .response_us = 30 * SEC,
                                 .response_idle_us = 30 * SEC,
                                 .head_max = 32768,
                                 .line_max = 16384,
                                 .fields_max = 128};
        struct list *n = list_pop(&relay.idle);
        if (n) {
                struct client_conn *c = CONTAINER_OF(n, struct client_conn, link);
                client_bind(c, &q->x);
                q->x.ops->start(&q->x);
                return;
        }
        relay.connects++;
        if (!h1_client_connect(r->loop, &relay.server, NULL, STR("h"), 10 * SEC, &relay_pool, r,
                               &why))
                relay_fail(r, why);
}

static struct exchange *relay_exchange(struct request *r)
{
        return &((struct relay_request *)r->flow_ctx)->x;
}

static void relay_req_ready(struct request *r)
{
        struct exchange *x = relay_exchange(r);
        if (x->ops)
                x->ops->req_ready(x);
}

static void relay_res_room(struct request *r)
{
        struct exchange *x = relay_exchange(r);
        if (x->ops)
                x->ops->res_room(x);
}

static void relay_end(struct request *r, enum reason why)
{
        struct exchange *x = relay_exchange(r);
        if (x->ops)
                x->ops->abort(x, why);
        relay.last = NULL;
        request_drop(r);
}

static void relay_req_failed(struct request *r, enum reason why)
{
        struct exchange *x = relay_exchange(r);
        if (x->ops)
                x->ops->abort(x, why);
        relay_fail(r, why);
}

static void relay_res_sent(struct request *r)
{
        relay.finished++;
        relay_end(r, REASON_DONE);
}

static void relay_gone(struct request *r, enum reason why)
{
        relay.gone++;
        relay_end(r, why);
}

static const struct flow_ops relay_flow = {relay_begin,    relay_req_ready, relay_req_failed,
                                           relay_res_room, relay_res_sent,  relay_gone};

static void relay_close_idle(void)
{
        for (struct list *n; (n = list_pop(&relay.idle)) != NULL;)
                client_close(CONTAINER_OF(n, struct client_conn, link), REASON_SHUTDOWN);
}

#endif
