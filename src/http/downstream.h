/*
 * The client's side: connections from when they are accepted until a codec has them and they end.
 * HTTP/1 or HTTP/2, the rest of weir never asks.
 */
#ifndef HTTP_DOWNSTREAM_H
#define HTTP_DOWNSTREAM_H

#include "http/h1_parse.h"
#include "http/request.h"
#include "net/io.h"
#include "net/tls.h"

/* What HTTP/2 may cost (http2 in a listen block); 0: no limit.  Counts are for ten seconds. */
struct h2_limits {
        uint32_t max_streams, requests, continuations;
        uint32_t resets, pings, settings, priorities, empty_data, window_updates, unknown;
};

/* Settings of a listener; they act before a host is known.  Immutable.  A reload makes a new one:
 * refresh is asked for it before each request. */
struct downstream_conf {
        struct h1_limits limits;
        struct h2_limits h2_limits;
        bool h1, h2; /* protocols that are spoken; over TLS chosen by ALPN, in the clear by the
                        client's first bytes */
        int64_t head_us, idle_us; /* timeout client_head, client_idle */
        int64_t body_us,
                send_us; /* timeout client_body, client_send, until flow sets the route's */
        size_t request_memory;
        const struct flow_ops *flow;
        struct tls_server *tls; /* NULL: plain */
        bool proxy_protocol;    /* a PROXY header comes first */
        const char *name;       /* for messages and metric labels: "0.0.0.0:443" */
        /* The newest conf for this listener, valid until the loop's next turn at least. */
        const struct downstream_conf *(*refresh)(struct loop *l, void *listener);
};

/* Takes the accepted socket over.  listener: opaque, handed on in client_facts. */
void downstream_accept(struct loop *l, int fd, const struct addr *peer,
                       const struct downstream_conf *conf, void *listener);

/* Drain: from now on this loop closes idle connections and tells the others' clients that no
 * further request is taken (Connection: close, GOAWAY).  Returns how many are open.  on false:
 * keeps again (a reload ended the drain). */
uint32_t downstream_drain(struct loop *l, bool on);
uint32_t downstream_count(struct loop *l);
void downstream_close_all(struct loop *l, enum reason why);

/* Frees what http keeps per loop (before loop_free); no connection may be open. */
void codecs_end(struct loop *l);

#endif
