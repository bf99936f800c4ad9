/*
 * What may be tried again, as far as it does not depend on where a request stands: causes, methods,
 * the budget.
 */
#ifndef PROXY_RETRY_H
#define PROXY_RETRY_H

#include "http/msg.h"
#include "proxy/upstreams.h"

/* The causes of `retry on=` that a failure counts as; 0: never tried again. */
uint32_t retry_class(enum reason why);
uint32_t retry_class_of_status(int status);
uint32_t retry_class_of_grpc(int status); /* grpc-status */
bool retry_idempotent(enum method m);     /* RFC 9110 9.2.2 */

/* budget: retries as a share of requests, of one upstream on one loop.  Each request earns its
 * share; each retry takes one, or is refused, which is counted and said.  At most RETRY_TOKENS are
 * saved up. */
void retry_budget_earn(struct upstream_loop *ul, double budget);
MUST_CHECK bool retry_budget_take(struct upstream_loop *ul, double budget);
/* More of a call was sent than retry replay= keeps: it cannot be repeated, which is counted and
 * said. */
void retry_replay_exceeded(struct upstream_loop *ul, uint64_t replay);

#endif
