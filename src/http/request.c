/*
 * Requests: one arena that holds everything, the request itself included.
 */
#include "http/request.h"

#include "base/check.h"
#include "net/tls.h"

struct request *request_new(struct loop *l, const struct flow_ops *flow, size_t memory)
{
        struct arena *a = arena_new(memory);
        arena_prefetch(a, REQUEST_FIRST);
        struct request *r = ARENA_NEW(a, struct request);
        CHECK(r != NULL);
        r->magic = REQUEST_MAGIC;
        r->holds = 1;
        r->loop = l;
        r->arena = a;
        r->flow = flow;
        r->req_body.high = r->res_body.high = PIPE_HIGH;
        r->to_server = &r->req_body;
        r->from_server = &r->res_body;
        r->started = l->now;
        return r;
}

void request_drop(struct request *r)
{
        CHECK_OBJ(r, REQUEST_MAGIC);
        CHECK(r->holds > 0);
        if (--r->holds > 0)
                return;
        buf_clear(&r->req_body.data);
        buf_clear(&r->res_body.data);
        tls_facts_drop(r->tls);
        r->magic = DEAD_MAGIC;
        arena_free(r->arena);
}
