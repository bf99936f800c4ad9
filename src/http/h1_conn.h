/*
 * One client connection, as h1_server.c (its life) and h1_stream.c (its requests) share it. Private
 * to these two.
 */
#ifndef HTTP_H1_CONN_H
#define HTTP_H1_CONN_H

#include "http/h1_loop.h"
#include "http/h1_server.h"

#define CONN_MAGIC UINT32_C(0x48315343)

enum conn_state { CONN_PROXY, CONN_TLS, CONN_IDLE, CONN_HEAD, CONN_BUSY, CONN_CLOSED };

/* What the deadline is for.  It stays armed when the timer is set to NONE: firing is then ignored.
 */
enum conn_timer { TIMER_NONE, TIMER_HEAD, TIMER_IDLE, TIMER_BODY, TIMER_SEND };

struct h1_stream; /* the codec's part of one request, h1_stream.c */

/* An address without the room for a path. */
struct short_addr {
        uint8_t len;
        char bytes[sizeof(struct sockaddr_in6)];
};

/* One client connection.  Invariant: request and stream are set in BUSY only; an IDLE one holds no
 * chunk.  Linked in its loop's list until it is closed. */
struct h1_conn {
        struct io io;
        uint32_t magic;
        uint8_t state, timer;
        bool keep : 1;    /* another request may follow */
        bool serving : 1; /* serve() is on the stack */
        bool served : 1;  /* a request has been here */
        bool local_known : 1;
        struct short_addr peer, local;
        struct list link;
        struct loop_task task;
        struct deadline deadline;
        const struct h1_server_conf *conf; /* valid in this turn only: see conf_of() */
        const struct h1_server_conf *(*refresh)(struct loop *l, void *listener);
        void *listener;
        struct h1_listener *stats;
        struct request *request;
        union {
                struct h1_stream *stream; /* BUSY */
                struct buf *preface; /* PROXY: the part of the header that came first, or NULL */
        };
        struct h1_scan scan;
        int64_t accepted, started;
        size_t unsent; /* when TIMER_SEND was armed */
        uint64_t serial;
};

/* h1_server.c.  Closing asks for a connection without a request. */
const struct h1_server_conf *h1_server_conf_of(struct h1_conn *c);
void h1_server_arm(struct h1_conn *c, enum conn_timer what, int64_t us);
void h1_server_close(struct h1_conn *c, enum reason why);
/* For the end after a response: what the client still sends must not cost it the response. */
void h1_server_close_lingering(struct h1_conn *c, enum reason why);
void h1_server_shorten(struct short_addr *s, const struct addr *a);

/* h1_stream.c.  What happens to a connection that may carry requests. */
void h1_stream_readable(struct h1_conn *c);
void h1_stream_drained(struct h1_conn *c);
void h1_stream_expired(struct h1_conn *c, enum conn_timer what);
void h1_stream_gone(struct h1_conn *c, enum reason why); /* there is a request */
/* The head was begun and did not become complete: flow answers for it. */
void h1_stream_refuse(struct h1_conn *c, enum reason why, uint64_t measured);

#endif
