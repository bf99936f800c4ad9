/*
 * The way of a request: one machine with named steps (step.tbl), always ending in LOG.
 */
#ifndef PROXY_FLOW_H
#define PROXY_FLOW_H

#include "proxy/gen.h"

extern const struct flow_ops flow_ops; /* what client codecs call */

/* An accepted socket on a listening address: finds the listener in the current generation and
 * starts a connection.  arg of listen_fn is a struct flow_listener that lives as long as the
 * process listens there. */
struct flow_listener {
        struct addr addr;
};
void flow_accept(struct loop *l, int fd, const struct addr *peer, void *flow_listener);
uint64_t flow_requests(struct loop *l); /* in progress on this loop */

#endif
