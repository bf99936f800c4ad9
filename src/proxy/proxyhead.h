/*
 * The PROXY header with which connections to servers begin, where the upstream asks for one.
 */
#ifndef PROXY_PROXYHEAD_H
#define PROXY_PROXYHEAD_H

#include "proxy/server.h"
#include "proxy/txn.h"

/* For a request of t's client, in its arena; the same for each attempt.  Never empty. */
str proxyhead(struct txn *t, const struct server *s);
/* For weir's own connections (health checks). */
void proxyhead_own(struct buf *out, const struct server *s);

#endif
