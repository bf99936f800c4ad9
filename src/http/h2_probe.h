/*
 * One GET over HTTP/2 of which only the status matters: for health checks.  Bytes in, bytes out.
 */
#ifndef HTTP_H2_PROBE_H
#define HTTP_H2_PROBE_H

#include "base/buf.h"

struct h2_probe;

struct h2_probe *h2_probe_new(str scheme, str authority, str path);
/* Takes what is in `in`, adds to `out` what is to be sent.  The status of the final head; 0: not
 * yet; -1: this is not HTTP/2, or the stream was reset. */
MUST_CHECK int h2_probe_step(struct h2_probe *p, struct buf *in, struct buf *out);
void h2_probe_free(struct h2_probe *p); /* NULL is fine */

#endif
