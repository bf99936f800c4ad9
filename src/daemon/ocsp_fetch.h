/*
 * Fetching OCSP responses over HTTP, for as long as the process lives: each certificate with
 * ocsp=fetch is asked about when it has no response, and again at half of the response's life.
 */
#ifndef DAEMON_OCSP_FETCH_H
#define DAEMON_OCSP_FETCH_H

#include "conf/model.h"
#include "net/loop.h"

/* Begins; what comes goes to the places of net/tls_staple.h.  conf must stay.  A certificate that
 * stands in several listeners is asked about once. */
void ocsp_fetch_start(struct loop *l, const struct conf *conf);

/* What an address consists of.  Pure. */
struct ocsp_url {
        str authority, host, path; /* host: without port and brackets */
        uint16_t port;
};
MUST_CHECK bool ocsp_url_parse(str url, struct ocsp_url *out); /* http only */

#endif
