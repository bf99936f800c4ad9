/*
 * The seam.  One request: two messages and two pipes between a client codec (h1_stream, h2_server)
 * and flow; and one exchange: one attempt of it on one upstream connection (h1_client).
 *
 *   client codec --- begin, req_ready, res_room, gone ---> flow --- start, req_ready, res_room,
 * abort ---> upstream codec client codec <-- interim, head, res_ready, req_room, cut -- flow <--
 * interim, head, res_ready, req_room, failed -- upstream codec
 *
 * Neither codec knows the other.  Bytes are moved, not copied: a producer appends to pipe.data and
 * says ready; the consumer takes what it can with buf_move and says room.  A producer stops when
 * pipe.data.n reaches pipe.high (credit: an HTTP/2 codec grants its window from the same number),
 * so memory per request is bounded whatever the body's size.
 *
 * The client's codec fills req_body and takes from res_body.  The server's takes from *to_server
 * and fills *from_server, which are the same two pipes unless functions stand between
 * (proxy/filter.h).
 *
 * The one difficulty: either side may end the request inside a call.  Rule: a codec's call of
 * flow (begin, req_ready, req_failed, res_room, res_sent, gone; head, res_ready, failed ...) is the
 * last thing it does with the request or exchange in that callback, unless it holds it.
 */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include "base/addr.h"
#include "base/buf.h"
#include "base/reason.h"
#include "http/msg.h"
#include "http/websocket.h"
#include "net/loop.h"

struct request;
struct exchange;
struct tls_facts;

#define PIPE_HIGH (64 * KIB)

/* One direction of a body.  Owned by its request.  end: the producer has put the last byte
 * (trailers, if any, are in the msg). */
struct pipe {
        struct buf data;
        uint64_t passed; /* bytes ever produced */
        size_t high;     /* the producer stops at this much waiting */
        bool end;
        bool stalled; /* the producer has stopped for want of room: the consumer must say room (the
                         producer clears it) */
        struct websocket *frames; /* of a tunnel that weir keeps alive, flow's; NULL: bytes are
                                     bytes */
};

/* How a producer puts bytes in: n from the front of a queue, or those of s.  What frames leaves out
 * counts as passed all the same. */
static inline void pipe_move(struct pipe *p, struct buf *from, size_t n)
{
        p->passed += n;
        if (LIKELY(p->frames == NULL))
                buf_move(&p->data, from, n);
        else
                websocket_move(p->frames, &p->data, from, n);
}
static inline void pipe_put(struct pipe *p, str s)
{
        p->passed += s.n;
        if (LIKELY(p->frames == NULL))
                buf_puts(&p->data, s);
        else
                websocket_put(p->frames, &p->data, s);
}

static inline bool pipe_full(const struct pipe *p)
{
        return p->data.n >= p->high;
}
static inline bool pipe_done(const struct pipe *p) /* all was produced and taken */
{
        return p->end && p->data.n == 0;
}

/* What a client codec is told by flow. */
struct client_ops {
        /* A 1xx head, not 101 (res is a temporary msg). */
        void (*interim)(struct request *r, const struct msg *res);
        /* r->res is final: fields as they shall be sent, framing and length say what follows; the
         * codec adds framing and connection fields.  Bytes follow in r->res_body. */
        void (*head)(
                struct request *r); /* takes what is in r->res_body already: no res_ready for it */
        void (*res_ready)(struct request *r); /* more in r->res_body, or its end */
        /* r->req_body has room, or is wanted for the first time (a 100 Continue goes out if
         * expected). */
        void (*req_room)(struct request *r);
        /* The response cannot be completed: the connection or stream ends so that it looks cut.
         * The request is detached from the codec when this returns; no callback follows. */
        void (*cut)(struct request *r, enum reason why);
        /* The route's body and send timeouts (0: none) and limit of the body (0: none).
         * REASON_BODY_MAX: what the client announced or has sent is too much already (r->measured,
         * r->limit say so): answer it, no req_failed follows. */
        enum reason (*limits)(struct request *r, int64_t body_us, int64_t send_us,
                              uint64_t body_max);
        const struct client_facts *(*facts)(struct request *r);
};

/* About the client's connection; valid as long as it, filled once. */
struct client_facts {
        struct addr peer, local; /* after the PROXY protocol */
        str proxy_tlvs;          /* what a PROXY header said besides: see net/proxyproto.h */
        void *listener;          /* what downstream_accept was given */
        int64_t accepted;        /* loop time */
        uint64_t serial;         /* number of the connection in this process */
};

/* What flow is told by a client codec. */
struct flow_ops {
        /* The head is complete in r->req; or r->refused says why the request is refused (r->req
         * holds what could be read, and the codec closes after the response).  What has come of the
         * body is in r->req_body already, perhaps its end too: no req_ready is said for that. */
        void (*begin)(struct request *r);
        void (*req_ready)(struct request *r); /* more in r->req_body, or its end */
        void (*req_failed)(struct request *r,
                           enum reason why); /* the body is malformed, too large, too slow, cut */
        void (*res_room)(
                struct request *r); /* the client took bytes: r->res_body may be filled again */
        /* The whole response was handed to the socket, or the client has gone (no response or the
         * rest of it can be delivered).  The codec has detached (r->client is NULL): flow aborts
         * what is still under way, logs, and drops the request. */
        void (*res_sent)(struct request *r);
        void (*gone)(struct request *r, enum reason why);
};

#define REQUEST_MAGIC UINT32_C(0x52455155)

/* What a plain request fills of its arena until a server has it, and until it is over; bytes.  With
 * a thousand of them under way each is out of the CPU's caches whenever something happens to it,
 * and to wait for one line after the other would take as long as the work itself. */
#define REQUEST_FIRST (4 * KIB)
#define REQUEST_WHOLE (6 * KIB)
struct request {
        uint32_t magic;
        uint32_t holds;
        struct loop *loop;
        struct arena *arena;
        const struct client_ops *client; /* NULL once detached */
        void *client_ctx;                /* the codec's: its connection or stream */
        const struct flow_ops *flow;
        void *flow_ctx; /* struct flow, in the arena */
        struct msg req, res;
        struct pipe req_body, res_body;
        struct pipe *to_server, *from_server; /* &req_body, &res_body; see above */
        const struct tls_facts *tls;  /* of the client's connection, held: the log comes after it */
        enum reason refused;          /* by the codec, before flow */
        uint64_t measured, limit;     /* of the limit that refused it, for the message */
        int64_t started;              /* loop time of the first byte */
        uint64_t bytes_in, bytes_out; /* body bytes from and to the client */
        bool res_head_sent;           /* client->head was called */
        bool close_after;             /* flow asks that the connection is not kept */
        bool outdated; /* requests that follow should come by a new connection, in HTTP/2 too */
        bool tunnel;   /* both pipes are raw from the head of the response on */
};

/* A request with an arena of its own; holds is 1.  memory: the arena's limit (0: none). */
struct request *request_new(struct loop *l, const struct flow_ops *flow, size_t memory);
static inline void request_hold(struct request *r)
{
        r->holds++;
}
void request_drop(struct request *r); /* at zero: clears the pipes, frees the arena */

/* ------------------------------------------------------------------ upstream side */

/* What flow (its origin) is told by an upstream codec. */
struct exchange_user {
        void (*interim)(struct exchange *x); /* x->interim is a 1xx head */
        /* *x->res is complete; its slices are in x->r->arena.  What has come of the body is in
         * *r->from_server already.  If x->phase is DONE that was all of it: the connection has been
         * given back to its pool or closed before this call, and no res_ready follows. */
        void (*head)(struct exchange *x);
        /* More in *x->r->from_server, or its end: then the exchange is over (x->phase is DONE) and
         * the connection has been given back to its pool or closed before this call.  A tunnel is
         * over when both directions have ended: the server's end alone is said with another phase,
         * and once more when the client's has followed. */
        void (*res_ready)(struct exchange *x);
        void (*req_room)(
                struct exchange *x); /* wants (more of) *r->to_server: its producer may go on */
        /* There is no (further) response: x is over, its connection closed.  x->wrote,
         * x->body_taken, x->reused and x->got_byte say whether it may be sent again (traps 11). */
        void (*failed)(struct exchange *x, enum reason why);
};

struct exchange_ops {
        /* Writes the head (x->req: as it shall be sent, hop-by-hop already removed; the codec adds
         * framing and connection fields) and what there is of *r->to_server. */
        void (*start)(struct exchange *x);
        void (*req_ready)(struct exchange *x); /* more in *r->to_server, or its end */
        void (*res_room)(struct exchange *x);  /* bytes were taken from *r->from_server */
        void (*abort)(struct exchange *x, enum reason why); /* no callback follows */
};

enum exchange_phase { EXCHANGE_IDLE, EXCHANGE_WAITING, EXCHANGE_BODY, EXCHANGE_DONE };

#define EXCHANGE_MAGIC UINT32_C(0x45584348)
/* Lives in the request's arena; owned by flow's origin. */
struct exchange {
        uint32_t magic;
        enum exchange_phase phase;
        struct request *r;
        const struct exchange_ops *ops; /* of the codec it runs on; NULL: none yet, or no more */
        void *codec_ctx;
        const struct exchange_user *user;
        void *user_ctx;
        struct msg *req; /* as it shall be sent */
        struct msg *res; /* where the head is parsed to: &r->res */
        struct msg interim;
        struct buf kept; /* what was taken of the body, when it has failed or ended; the user's */
        size_t keep_max; /* as long as it is no more than this (HTTP/2 only); 0: nothing is kept */
        bool reused;     /* the connection had carried an exchange before */
        bool wrote;      /* at least one byte of the request left */
        bool body_taken; /* at least one byte was taken out of *r->to_server: cannot be sent again
                          */
        bool got_byte;   /* at least one byte of a response came */
        str error;       /* why it failed in words, in r's arena; absent: the reason says it all */
        bool kept_all;   /* kept holds all that was taken */
        bool refused;    /* the server said that it processed nothing of it: safe to send again */
        bool accept_upgrade;      /* the request asked for one: a 101 is legal */
        int64_t sent_at, head_at; /* loop time */
        int64_t response_us, response_idle_us, send_us; /* timeouts; 0: none */
        uint32_t head_max, line_max, fields_max;        /* for the response head */
};

#endif
