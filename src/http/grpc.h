/*
 * gRPC as far as a proxy must know it: who speaks it, how long the caller waits, and how an answer
 * of weir's own has to look so that the caller's library understands it.
 * Source: gRPC over HTTP2 (PROTOCOL-HTTP2), http-grpc-status-mapping.
 */
#ifndef HTTP_GRPC_H
#define HTTP_GRPC_H

#include "http/request.h"

/* Fields. */
#define GRPC_STATUS   STR("grpc-status")
#define GRPC_MESSAGE  STR("grpc-message")
#define GRPC_PUSHBACK STR("grpc-retry-pushback-ms")
#define GRPC_ATTEMPTS STR("grpc-previous-rpc-attempts")

enum grpc_status {
        GRPC_CANCELLED = 1,
        GRPC_UNKNOWN = 2,
        GRPC_DEADLINE_EXCEEDED = 4,
        GRPC_PERMISSION_DENIED = 7,
        GRPC_RESOURCE_EXHAUSTED = 8,
        GRPC_ABORTED = 10,
        GRPC_UNIMPLEMENTED = 12,
        GRPC_INTERNAL = 13,
        GRPC_UNAVAILABLE = 14,
        GRPC_DATA_LOSS = 15,
        GRPC_UNAUTHENTICATED = 16
};

/* application/grpc and application/grpc+proto and its kin, not grpc-web. */
bool grpc_is_request(const struct msg *req);
bool grpc_is_web(const struct msg *req); /* application/grpc-web and its kin */
bool grpc_is_web_type(str type);         /* a content type of these; */
bool grpc_is_web_text(str type);         /* one of them in base64 */

/* A content type as those of grpc_is_request. */
bool grpc_is_type(str type);
/* "UNAVAILABLE"; of a number that has no name "?". */
const char *grpc_status_name(int status);

/* grpc-status of a whole answer, from its trailers or (Trailers-Only) its head; -1: it has none. */
int grpc_status_in(const struct msg *res);
/* How long the server wants to be left alone before the call comes again (gRPC A6); absent: 0.
 * false: it does not want it again. */
MUST_CHECK bool grpc_pushback(const struct msg *res, int64_t *us);

/* The value of grpc-timeout, "250m": 1 to 8 digits and a unit (H M S m u n), in microseconds, at
 * least 1.  false: it is none. */
MUST_CHECK bool grpc_timeout(str value, int64_t *us);

/* What an HTTP status of weir's own means to a gRPC client; why: REASON_REQUEST_TIMEOUT is the end
 * of the caller's patience, not the server's fault. */
enum grpc_status grpc_status_of(int status, enum reason why);

/* Turns the local answer in r->res, an error, into one that a gRPC client understands: HTTP 200, no
 * body, grpc-status and grpc-message in the head.  Fields that functions have set stay. */
void grpc_reply(struct request *r, enum reason why);

#endif
