/*
 * Inside of HTTP/2 towards servers: what h2_client.c (the connection) and h2_exchange.c (its
 * streams) share.
 *
 * The one difficulty: nghttp2 calls us in the middle of reading and writing, and there nobody may
 * be called who could end the connection.  So its callbacks only note what happened in the stream
 * and put it in c->news; when nghttp2 has returned h2_tell() tells the exchanges.
 */
#ifndef HTTP_H2_EXCHANGE_H
#define HTTP_H2_EXCHANGE_H

#include "base/check.h"
#include "http/h2_client.h"
#include "http/h2_memory.h"
#include "http/h2_session.h"

#include <nghttp2/nghttp2.h>

struct h2_loop {
        struct slab clients, streams;
        struct h2_memory memory;
        nghttp2_session_callbacks *calls;
        nghttp2_option *option;
};
struct h2_loop *h2_loop(struct loop *l);

/* Of a body, for a request that the server gives back: all that the first window lets go of a
 * server that has given no other (RFC 9113 6.9.2), and who refuses a stream gives it no credit. */
#define H2_KEPT_MAX (64 * KIB)

enum h2_state {
        H2_CONNECTING, /* TCP, TLS */
        H2_SETTLING,   /* until the server's SETTINGS */
        H2_OPEN,
        H2_CLOSED
};

#define H2_CLIENT_MAGIC UINT32_C(0x48324343)
/* Invariant: conn.busy counts the streams that have an exchange; n_streams all that nghttp2 has not
 * closed yet, which is what the server's limit is about. */
struct h2_client {
        struct io io;
        uint32_t magic;
        uint8_t state, timer;
        bool used : 1;
        bool settled : 1; /* SETTINGS have come */
        bool goaway : 1;  /* takes no more streams */
        bool broken : 1;  /* nghttp2 gave up on it, or we on the server */
        bool pinging : 1;
        bool doubted : 1; /* a stream timed out and nothing came since it began */
        struct client_conn conn;
        struct list streams, news, dead; /* of h2_stream */
        uint32_t n_streams, told_busy, told_room;
        nghttp2_session *session;
        struct loop_task task;
        struct deadline deadline;
        int64_t heard;             /* last time a frame came that is no answer to our PING */
        int64_t pinged, refilled;  /* when */
        struct h2_windows windows; /* while SETTINGS are being received */
        uint32_t budget;           /* of frames that carry nothing */
        int64_t strange;           /* bytes of frames that nghttp2 does not speak of */
        enum reason broken_why;
        const char *error;
};

enum h2_timer {
        H2_TIMER_NONE,
        H2_TIMER_SEND,
        H2_TIMER_CONTINUE,
        H2_TIMER_RESPONSE,
        H2_TIMER_SILENCE
};

struct h2_interim {
        struct h2_interim *next;
        struct msg m;
};

#define H2_STREAM_MAGIC UINT32_C(0x48325354)
/* Owned by its connection until nghttp2 has closed the stream and the exchange is over.  Invariant:
 * x is set while the exchange is not over; codec_ctx is this then. */
struct h2_stream {
        uint32_t magic;
        int32_t id; /* 0: not submitted */
        struct h2_client *c;
        struct exchange *x;
        struct list link; /* in c->streams, or c->dead */
        struct list news; /* in c->news */
        struct deadline deadline;
        uint8_t timer, interims;
        bool closed : 1; /* nghttp2 has done with it */
        /* Request. */
        bool connect : 1;  /* extended CONNECT, not answered yet */
        bool tunnel : 1;   /* both ways are raw */
        bool awaiting : 1; /* the body is held back until the server says 100 */
        bool deferred : 1; /* nghttp2 waits to be told that there is more of the body */
        bool out_done : 1; /* END_STREAM has gone */
        bool keeping : 1;  /* kept holds all of the body that was taken */
        bool not_sent : 1;
        /* Response. */
        bool got_head : 1;
        bool told_head : 1;
        bool ended : 1; /* END_STREAM has come */
        bool reset : 1; /* RST_STREAM has come */
        /* News. */
        bool more : 1, took : 1, out_ended : 1;
        bool refused : 1;
        enum reason why; /* the exchange fails */
        struct h2_interim *first_interim, **last_interim;
        struct msg m; /* the head, or the trailers, being read */
        uint64_t m_bytes;
        uint32_t m_fields;
        uint64_t told;       /* bytes of the response whose credit was given back */
        uint64_t left;       /* of the request's announced length */
        uint64_t sent, mark; /* bytes of the request's body; when TIMER_SEND was armed */
        struct buf kept;     /* for a request that the server gives back */
};

/* ---- h2_client.c */
void h2_schedule(struct h2_client *c); /* what is to be written goes out at the end of this turn */

/* ---- h2_request.c */
void h2_start(struct exchange *x);
void h2_req_ready(struct exchange *x);

/* ---- h2_exchange.c */
struct h2_stream *h2_stream_of(struct exchange *x);
struct h2_stream *h2_stream_here(struct h2_client *c, int32_t id); /* NULL: none, or closed */
void h2_note(struct h2_stream *s);                                 /* there is news */
void h2_note_failure(struct h2_stream *s, enum reason why);        /* the first one counts */
void h2_stream_closed(struct h2_stream *s); /* nghttp2 has done with it, or never knew it */
void h2_settle_timer(struct h2_stream *s);
void h2_wake_body(struct h2_stream *s);
void h2_bind(struct h2_client *c, struct exchange *x);
void h2_tell(struct h2_client *c); /* the news */
struct exchange *h2_detach(struct h2_stream *s);
void h2_fail_all(struct h2_client *c, enum reason why); /* the connection is closed */
void h2_reap(struct h2_client *c);                      /* streams that are over */

/* Callbacks of nghttp2 about streams. */
int h2_on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *ctx);
int h2_on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                 size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *ctx);
int h2_on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                         size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                         void *ctx);
int h2_on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
               void *ctx);
int h2_on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *ctx);
int h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                 nghttp2_data_source *source, void *ctx);
void h2_stream_frame_came(struct h2_client *c, const nghttp2_frame *frame);
void h2_stream_frame_sent(struct h2_client *c, const nghttp2_frame *frame);
void h2_stream_not_sent(struct h2_client *c, const nghttp2_frame *frame);
void h2_stream_invalid(struct h2_client *c, const nghttp2_frame *frame, int error);

#endif
