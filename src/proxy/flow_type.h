/*
 * Inside of the way of a request: what flow.c (the machine, and who calls it) and flow_step.c (its
 * steps) share.
 */
#ifndef PROXY_FLOW_TYPE_H
#define PROXY_FLOW_TYPE_H

#include "base/check.h"
#include "proxy/bridge.h"
#include "proxy/chain.h"
#include "proxy/flow.h"
#include "proxy/origin.h"
#include "proxy/tunnel.h"

#define FLOW_MAGIC UINT32_C(0x464c4f57)

enum step {
#define STEP(id, fn, text) STEP_##id,
#include "proxy/step.tbl"
#undef STEP
        STEPS
};

enum flow_next { FLOW_MORE, FLOW_PARKED };

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

static inline struct flow *flow_of(struct txn *t)
{
        struct flow *f = CONTAINER_OF(t, struct flow, t);
        CHECK_OBJ(f, FLOW_MAGIC);
        return f;
}

/* ---- flow.c */
extern const struct chain_user flow_chain_user;
extern const struct origin_user flow_origin_user;
/* Sets up weir's own answer, which fill makes; the machine goes on at RESPONSE. */
enum flow_next flow_answer(struct flow *f, enum reason why, void (*fill)(struct txn *t));
enum flow_next flow_refuse(struct flow *f, enum reason why); /* the same, said and counted */
/* For the moments when something failed while the machine was parked; the request may be gone
 * afterwards. */
void flow_fail(struct flow *f, enum reason why);
void flow_more_body(struct txn *t); /* more of the request's body is wanted: may run the machine */
void flow_count_reply(const struct flow *f);

/* ---- flow_step.c */
/* Each makes its step and says where it goes on; one that calls out returns PARKED. */
extern enum flow_next (*const flow_steps[STEPS])(struct flow *);
enum flow_next flow_after_chain(struct flow *f, enum chain_result how);

#endif
