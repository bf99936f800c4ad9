/*
 * gRPC-Web towards the client, gRPC towards the server: the heads, and the bodies in the request's
 * pipes.
 */
#ifndef PROXY_BRIDGE_H
#define PROXY_BRIDGE_H

#include "http/request.h"

struct bridge;

/* r is a call of gRPC-Web (grpc_is_web).  In its arena. */
struct bridge *bridge_new(struct request *r);
/* What the client has sent meanwhile, and perhaps the end.  false: it is not what it says it is.
 * Must be told before anybody takes of *r->to_server what came. */
MUST_CHECK bool bridge_request(struct bridge *b);
void bridge_request_head(struct bridge *b, struct msg *sent); /* as it goes to the server */
/* r->res is the server's, and the beginning of its body is there; then more of it.  An answer that
 * is not gRPC stays as it is.  false: it is gRPC, but no messages. */
MUST_CHECK bool bridge_response_head(struct bridge *b);
MUST_CHECK bool bridge_response(struct bridge *b);

/* Turns the local answer in r->res, an error, into one that a client of gRPC-Web understands. */
void bridge_reply(struct request *r, enum reason why);

#endif
