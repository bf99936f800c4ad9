/*
 * A request that has become a tunnel: how long it may be silent (`timeout tunnel=`), and, of a
 * WebSocket, whether both ends still live (`websocket ping=`); counted while it is open.
 */
#ifndef PROXY_TUNNEL_H
#define PROXY_TUNNEL_H

#include "base/json.h"
#include "base/metric.h"
#include "proxy/txn.h"

struct tunnel;
enum tunnel_side { TUNNEL_CLIENT, TUNNEL_SERVER };

/* What flow is told, from the top level of the loop; the tunnel may be ended inside. */
struct tunnel_user {
        void (*ready)(struct txn *t, enum tunnel_side to); /* a PING is in the pipe to that side */
        void (*idle)(struct txn *t);                       /* it has been silent for too long */
};

/* t->r->res is the 101, its head not yet sent.  In the request's arena; from here on flow says
 * whenever bytes have come, and when it is over. */
struct tunnel *tunnel_begin(struct txn *t, const struct tunnel_user *user);
void tunnel_heard(struct tunnel *n, enum tunnel_side from);
void tunnel_end(struct tunnel *n);

/* "websockets" of /status, summed over all workers.  Any thread. */
void tunnel_status(struct metric_region *metrics, struct json_writer *w);

#endif
