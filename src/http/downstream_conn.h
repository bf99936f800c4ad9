/*
 * One client connection, as downstream.c (its life) and the codecs (its requests) share it.
 * Private to these.
 */
#ifndef HTTP_DOWNSTREAM_CONN_H
#define HTTP_DOWNSTREAM_CONN_H

#include "http/codecs.h"
#include "http/downstream.h"

#define CONN_MAGIC UINT32_C(0x434f4e4e)

/* FIRST: the client's first bytes will say which protocol it speaks.  From IDLE on a codec has the
 * connection: IDLE waits for a request, HEAD reads one's head, BUSY has at least one under way. */
enum conn_state { CONN_PROXY, CONN_TLS, CONN_FIRST, CONN_IDLE, CONN_HEAD, CONN_BUSY, CONN_CLOSED };

/* What the deadline is for.  It stays armed when the timer is set to NONE: firing is then ignored.
 */
enum conn_timer { TIMER_NONE, TIMER_HEAD, TIMER_IDLE, TIMER_BODY, TIMER_SEND };

struct downstream;

/* What a protocol makes of a connection; chosen once, before the first byte is taken. */
struct downstream_codec {
        struct io_owner io; /* calls straight into the codec: nothing stands between */
        void (*begin)(struct downstream *c); /* it is the codec's now; c->io.in may hold bytes */
        void (*expired)(struct downstream *c, enum conn_timer what);
        void (*drain)(struct downstream *c); /* no further requests: see downstream_drain() */
        /* Ends at once, with all requests that are under way. */
        void (*end)(struct downstream *c, enum reason why);
        void (*bury)(struct downstream *c); /* at the end of the turn; may be NULL */
};
extern const struct downstream_codec h1_codec, h2_codec;

/* An address without the room for a path. */
struct short_addr {
        uint8_t len;
        char bytes[sizeof(struct sockaddr_in6)];
};

/* One client connection, the first member of a codec's own.  Invariant: an IDLE one holds no
 * chunk.  Linked in its loop's list until it is closed. */
struct downstream {
        struct io io;
        uint32_t magic;
        uint8_t state, timer;
        bool served : 1; /* a request has been here */
        bool local_known : 1;
        struct short_addr peer, local;
        struct list link;
        struct loop_task task;
        struct deadline deadline;
        const struct downstream_codec *codec; /* NULL: PROXY, TLS, FIRST */
        const struct downstream_conf *conf; /* valid in this turn only: see downstream_conf_of() */
        const struct downstream_conf *(*refresh)(struct loop *l, void *listener);
        void *listener;
        struct codecs_listener *stats;
        void *own;           /* HTTP/2's part, which is not small */
        struct buf *preface; /* PROXY: the part of the header that came first, or NULL */
        str tlvs;            /* of the PROXY header, malloc'd; absent: none */
        int64_t accepted, started;
        uint64_t serial;
};

static inline struct downstream *downstream_of(struct io *io)
{
        struct downstream *c = CONTAINER_OF(io, struct downstream, io);
        CHECK_OBJ(c, CONN_MAGIC);
        return c;
}

const struct downstream_conf *downstream_conf_of(struct downstream *c);
void downstream_arm(struct downstream *c, enum conn_timer what, int64_t us);
/* The codec has no request any more. */
void downstream_close(struct downstream *c, enum reason why);
/* For the end after a response: what the client still sends must not cost it the response. */
void downstream_close_lingering(struct downstream *c, enum reason why);
/* A new request of this connection, as conf has it. */
struct request *downstream_request(struct downstream *c, const struct downstream_conf *conf);
void downstream_facts(struct downstream *c, struct client_facts *f);
/* The setting's value, in the words of a head's limits; 0: why is no such limit. */
uint64_t downstream_limit_of(const struct h1_limits *limits, enum reason why);

#endif
