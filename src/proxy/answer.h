/*
 * Answers that weir makes itself: what they say.
 */
#ifndef PROXY_ANSWER_H
#define PROXY_ANSWER_H

#include "proxy/txn.h"

/* Each fills r->res and r->res_body. */
void answer_refusal(struct txn *t); /* for t->reason */
void answer_respond(struct txn *t); /* what the route's respond says */
void answer_redirect(struct txn *t);

#endif
