/*
 * One request over HTTP/2 whose answer only a health check wants: a GET of which the status
 * matters, or a call of grpc.health.v1.  Bytes in, bytes out.
 */
#ifndef HTTP_H2_PROBE_H
#define HTTP_H2_PROBE_H

#include "base/buf.h"

struct h2_probe;

#define H2_PROBE_BODY_MAX ((size_t)1024) /* of an answer of gRPC; more is none */

/* What is known of the answer.  body belongs to the probe. */
struct h2_answer {
        int status;            /* of the final head; 0: not yet */
        bool is_grpc;          /* its content type */
        int grpc_status;       /* -1: none came */
        char grpc_message[80]; /* cut to fit, escapes and all */
        str body;              /* at most H2_PROBE_BODY_MAX + 1 bytes, which is too many */
};

enum h2_probe_result {
        H2_PROBE_MORE,  /* not yet */
        H2_PROBE_THERE, /* the head of a GET, or the whole answer to a call */
        H2_PROBE_BAD    /* this is not HTTP/2, or the stream was reset */
};

struct h2_probe *h2_probe_new(str scheme, str authority, str path);
/* Asks for the health of a service; empty: of the server.  timeout: in us, told to the server. */
struct h2_probe *h2_probe_call(str scheme, str authority, str service, int64_t timeout);
/* Takes what is in `in`, adds to `out` what is to be sent. */
MUST_CHECK enum h2_probe_result h2_probe_step(struct h2_probe *p, struct buf *in, struct buf *out);
const struct h2_answer *h2_probe_answer(struct h2_probe *p); /* good until the next step */
void h2_probe_free(struct h2_probe *p);                      /* NULL is fine */

#endif
