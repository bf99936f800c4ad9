/*
 * HTTP/1 towards clients: one connection, its requests one after the other (pipelined ones wait in
 * its input).
 */
#ifndef HTTP_H1_SERVER_H
#define HTTP_H1_SERVER_H

#include "http/h1_parse.h"
#include "http/request.h"
#include "net/io.h"
#include "net/tls.h"

/* Settings of a listener; they act before a host is known.  Immutable.  A reload makes a new one:
 * refresh is asked for it before each request. */
struct h1_server_conf {
        struct h1_limits limits;
        int64_t head_us, idle_us; /* timeout client_head, client_idle */
        int64_t body_us,
                send_us; /* timeout client_body, client_send, until flow sets the route's */
        size_t request_memory;
        const struct flow_ops *flow;
        struct tls_server *tls; /* NULL: plain */
        bool proxy_protocol;    /* a PROXY header comes first */
        const char *name;       /* for messages and metric labels: "0.0.0.0:443" */
        /* The newest conf for this listener, valid until the loop's next turn at least. */
        const struct h1_server_conf *(*refresh)(struct loop *l, void *listener);
};

/* Takes the accepted socket over.  listener: opaque, handed on in client_facts. */
void h1_server_accept(struct loop *l, int fd, const struct addr *peer,
                      const struct h1_server_conf *conf, void *listener);

/* Drain: from now on this loop closes idle connections and says Connection: close on every
 * response. Returns how many are open.  on false: keeps again (a reload ended the drain). */
uint32_t h1_server_drain(struct loop *l, bool on);
uint32_t h1_server_count(struct loop *l);
void h1_server_close_all(struct loop *l, enum reason why);

/* flow: the route's body and send timeouts (0: none) and limit of the body (0: none) for r.
 * REASON_BODY_MAX: what the client announced or has sent is too much already (r->measured, r->limit
 * say so): answer it, no req_failed follows. */
MUST_CHECK enum reason h1_server_limits(struct request *r, int64_t body_us, int64_t send_us,
                                        uint64_t body_max);

/* Frees what http keeps per loop (before loop_free); no connection may be open. */
void h1_loop_end(struct loop *l);

#endif
