/*
 * The two messages of grpc.health.v1, as bytes: the question about a service and the answer to it.
 *
 * Pure; any bytes may be given, none are kept.
 * Source: gRPC Health Checking Protocol; gRPC over HTTP2 (Length-Prefixed-Message); protobuf
 * encoding.
 */
#ifndef HTTP_GRPC_HEALTH_H
#define HTTP_GRPC_HEALTH_H

#include "base/buf.h"

#define GRPC_HEALTH_PATH STR("/grpc.health.v1.Health/Check")

enum grpc_health {
        GRPC_HEALTH_BROKEN = -1, /* this is no answer */
        GRPC_HEALTH_UNKNOWN = 0, /* also a status that this version of the protocol has not */
        GRPC_HEALTH_SERVING = 1,
        GRPC_HEALTH_NOT_SERVING = 2,
        GRPC_HEALTH_SERVICE_UNKNOWN = 3
};

/* Adds the body of a request: one message that asks for a service; service empty: for the server
 * as a whole. */
void grpc_health_ask(struct buf *out, str service);
/* The whole body of a response with grpc-status 0: exactly one message, not compressed. */
enum grpc_health grpc_health_answer(str body);
/* "SERVING"; of BROKEN too. */
const char *grpc_health_name(enum grpc_health h);

#endif
