/*
 * HTTP/2 towards clients, as h2_server.c (connections) and h2_stream.c (streams and their requests)
 * share it.  Private to these two.
 */
#ifndef HTTP_H2_SERVER_H
#define HTTP_H2_SERVER_H

#include "http/downstream_conn.h"
#include "http/h2_guard.h"
#include "http/h2_head.h"
#include "http/h2_ids.h"
#include "http/h2_session.h"

#define H2_SERVER_MAGIC UINT32_C(0x48325352)
#define H2_STREAM_MAGIC UINT32_C(0x48325354)

/* Work that is put off until nghttp2 has returned: flow may do anything then. */
enum {
        H2_DUE_BEGIN = 1, /* the request's head is complete */
        H2_DUE_READY = 2, /* more of its body, or its end */
        H2_DUE_FAIL = 4,  /* its body has failed: see why */
        H2_DUE_ROOM = 8,  /* bytes were taken out of res_body */
        H2_DUE_SENT = 16  /* END_STREAM has gone out */
};

/* The part of a connection that HTTP/2 has.  Owned by its downstream (d->own); freed at the end of
 * the turn in which that is closed.  Invariant: n_streams counts what is in streams; due holds only
 * members of it. */
struct h2_server {
        uint32_t magic;
        struct downstream *d;
        nghttp2_session *ng;
        struct list streams, due;
        struct loop_task frames; /* what was submitted becomes frames */
        uint32_t n_streams, requests;
        bool pumping : 1;            /* pump() is on the stack: nobody need ask for it */
        bool noticed : 1;            /* GOAWAY without a last stream has been sent */
        bool last_said : 1;          /* and the one that names it */
        bool eof : 1;                /* the client has finished sending */
        bool client_goaway : 1;      /* and says that it asks no more */
        enum reason over;            /* why the connection ends now; NONE: it does not */
        uint32_t error;              /* what its GOAWAY says then; 0: what follows from over */
        size_t unsent;               /* when TIMER_SEND was armed */
        uint64_t sent;               /* bytes of DATA, ever */
        struct deadline head, drain; /* a header block, the answer to the PING behind GOAWAY */
        int32_t head_id;             /* the stream whose header block is being received, or 0 */
        struct h2_stream *head_of;   /* that stream, or NULL: looked up once for all its fields */
        struct h2_guard guard;
        struct h2_ids ids;
        struct h2_windows windows; /* while SETTINGS are being received */
        struct h2_limits limits;   /* of the conf it began with: its SETTINGS say the same */
        struct client_facts facts;
};

/* One stream, as long as nghttp2 has it.  r is NULL once its request is detached. */
struct h2_stream {
        uint32_t magic;
        int32_t id;
        struct h2_server *h;
        struct list link, due_link;
        struct request *r;
        struct h2_head head; /* then of the trailers */
        struct deadline deadline;
        int64_t body_us, send_us;
        uint64_t body_max, left; /* left: of a response with a length */
        uint64_t mark;           /* what the connection had sent when TIMER_SEND was armed */
        size_t held;             /* bytes received whose window is not given back */
        struct buf early;        /* of a tunnel that is not up yet */
        uint8_t due;
        uint8_t timer;      /* enum conn_timer */
        bool begun : 1;     /* flow has the request */
        bool in_done : 1;   /* no more of the body is wanted, or it is complete */
        bool in_end : 1;    /* the client's END_STREAM has come */
        bool expect : 1;    /* a 100 is due when the body is asked for */
        bool tunnel : 1;    /* asked to become one */
        bool head_sent : 1; /* the final head is nghttp2's */
        bool counted : 1;   /* the response has a length */
        bool deferred : 1;  /* nghttp2 waits to be told of more to send */
        bool out_end : 1;   /* END_STREAM has gone out */
        bool client_reset : 1;
        enum reason why; /* DUE_FAIL */
};

/* h2_server.c */
void h2_server_wake(struct h2_server *h); /* something was submitted: it goes out this turn */
void h2_server_goaway(struct h2_server *h);
static inline void h2_due(struct h2_stream *s, unsigned what)
{
        s->due |= (uint8_t)what;
        if (!list_linked(&s->due_link))
                list_push(&s->h->due, &s->due_link);
}

/* h2_stream.c */
struct h2_stream *h2_stream_new(struct h2_server *h, int32_t id);
void h2_stream_field(struct h2_stream *s, bool trailer, str name, str value);
void h2_stream_head(struct h2_stream *s, bool end);  /* a header block is complete */
void h2_stream_data(struct h2_stream *s, str bytes); /* of a DATA frame */
void h2_stream_input_end(struct h2_stream *s);       /* END_STREAM */
void h2_stream_run(struct h2_stream *s);             /* what is due */
void h2_stream_sent(struct h2_stream *s, size_t bytes,
                    bool end); /* a frame has gone to the queue */
int h2_stream_put(struct h2_stream *s, const nghttp2_frame *frame, const uint8_t *head, size_t n);
/* Its request ends without (the rest of) a response. */
void h2_stream_gone(struct h2_stream *s, enum reason why);
void h2_stream_free(struct h2_stream *s);

#endif
