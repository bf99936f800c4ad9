/*
 * Whose a request is (side.h).
 *
 * The difficulty: what a client has shown when its connection began, it has shown to the old
 * generation's listener, which may have asked for less than the new one would.
 */
#include "proxy/side.h"

#include "net/tls.h"
#include "proxy/flow.h"
#include "proxy/forward.h"
#include "proxy/gen.h"
#include "proxy/trial.h"

static const struct flow_listener *listener_of(const struct txn *t)
{
        return t->r->client->facts(t->r)->listener;
}

/* The request is this generation's from here on. */
static void belong(struct txn *t, struct gen_loop *gl)
{
        const struct client_facts *facts = t->r->client->facts(t->r);

        t->gl = gl;
        t->gen = gl->gen;
        gen_hold(gl);
        t->listen = gen_listen(t->gen, &listener_of(t)->addr);
        t->tls = t->r->tls;
        t->proxy_tlvs = facts->proxy_tlvs;
        t->early = t->tls != NULL && t->tls->early;
        t->eff = t->listen ? &t->listen->eff : &t->gen->conf->eff;
        forward_client(t);
}

/* A canary is on: the client's address says whose the request is. */
static COLD struct gen_loop *choose(struct txn *t, struct gen_loop *old)
{
        struct gen_loop *new = old->canary;
        uint64_t below = trial_now(&new->share, t->r->loop->now);
        struct addr who;

        if (below == 0)
                return old;
        who = forward_address(old->gen->conf, t->r);
        t->trial = trial_has(&new->share, below, &who) &&
                   gen_listen(new->gen, &listener_of(t)->addr) !=
                           NULL; /* listeners are the old one's */
        if (below < TRIAL_ALL)
                trial_begin(t, t->trial ? new->tally : old->tally);
        return t->trial ? new : old;
}

void side_take(struct txn *t)
{
        struct gen_loop *gl = gen_current(t->r->loop);

        belong(t, UNLIKELY(gl->canary != NULL) ? choose(t, gl) : gl);
}

void side_go_back(struct txn *t)
{
        struct gen_loop *new = t->gl;

        trial_leave(t);
        t->trial = false;
        t->match = (struct route_match){0};
        belong(t, gen_current(t->r->loop));
        gen_drop(new);
}
