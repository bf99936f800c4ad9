/*
 * What the server is told about the client and its request: addresses, forwarded fields, target,
 * Host.
 */
#ifndef PROXY_FORWARD_H
#define PROXY_FORWARD_H

#include "proxy/txn.h"

/* Fills host, port, client, scheme and request_id of t from the connection and, where the peer is
 * trusted, from its fields. */
void forward_client(struct txn *t);
/* The client's address as that configuration's trusted_proxies let it be told; for a canary, which
 * needs it before the generation is chosen. */
struct addr forward_address(const struct conf *c, struct request *r);
/* Tells the client's codec the limits of t->eff.  REASON_BODY_MAX: the body is too large already.
 */
MUST_CHECK enum reason forward_limits(struct txn *t);
/* Of a request that came as early data: whether it is not one that may come twice (RFC 8470 4),
 * which is then counted. */
MUST_CHECK bool forward_too_early(const struct txn *t);
/* A call of gRPC-Web, where grpc_web is on. */
bool forward_is_web(const struct txn *t);
/* How long the whole exchange may take (us): timeout request=, or what a caller of gRPC says if
 * that is shorter; 0: any time. */
int64_t forward_patience(const struct txn *t);
/* Chooses the proxy target (weights, or what a function set) and the settings that go with it. */
void forward_target(struct txn *t);
/* The head for the server, made of r->req: hop-by-hop removed, X-Forwarded-*, Via and X-Request-ID
 * set. */
void forward_request(struct txn *t, struct msg *sent);

#endif
