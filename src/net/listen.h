/*
 * Accepting: from listening sockets that the master made to connections on this loop.
 *
 * At most 16 accepts per turn; when descriptors or max_connections run out accepting stops and
 * resumes when a connection closes.  A loop that carries clearly more than another hands the fresh
 * descriptor over.
 */
#ifndef NET_LISTEN_H
#define NET_LISTEN_H

#include "base/addr.h"
#include "net/loop.h"

struct listen_accept;

/* Called on the loop that shall own the connection. */
typedef void listen_fn(struct loop *l, int fd, const struct addr *peer, void *arg);

/* fd stays the caller's and is made non-blocking.  peers: all loops of the worker (for hand-over;
 * copied), n >= 1.  fn(arg) must be callable on each; arg must live until each has turned once
 * after listen_stop. */
struct listen_accept *listen_start(struct loop *l, int fd, struct loop **peers, unsigned n_peers,
                                   listen_fn *fn, void *arg);
void listen_stop(struct listen_accept *a); /* accepts what waits in the backlog first, then takes
                                              the fd out; frees a */

/* Process-wide budget of client connections: max is max_connections (0: half of what RLIMIT_NOFILE
 * leaves after a reserve, because each may need a connection to a server).  Raises the soft limit
 * to the hard one.  Whatever max is, the last descriptors are not given to clients.  Before
 * threads, or again at a reload. */
void listen_budget(uint64_t max);
void listen_closed(
        struct loop *l); /* a client connection ended (the owner calls it once for each accepted) */

uint64_t listen_connections(void); /* client connections of this process now */

/* Making sockets (master).  reuseport: one of several for this address.  -1: err says why.  Proves
 * the address free with a plain bind first unless `ours` says weir itself holds it. */
int listen_socket(const struct addr *a, int backlog, bool reuseport, bool v6only, bool ours,
                  char *err, size_t err_cap);

#endif
