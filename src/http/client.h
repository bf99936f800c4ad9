/*
 * A connection to a server as its pool sees it: whatever protocol it speaks, it carries exchanges,
 * one at a time (HTTP/1) or many (HTTP/2), and can be idle, full or gone.
 *
 * The codec embeds struct client_conn and keeps busy and room true; the pool owns link and
 * pool_ctx.  Invariant: a connection that is closed or takes no more has no room; its memory lives
 * until the end of the turn in which it was closed.
 */
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H

#include "base/list.h"
#include "http/request.h"
#include "net/io.h"
#include "net/tls.h"

struct client_conn;

/* The pool's side of a connection. */
struct client_pool {
        /* Ready for exchanges, or why not: then the connection is gone when this returns. */
        void (*connected)(struct client_conn *c, enum reason why);
        /* An exchange is over, or the server takes more or fewer than before: what the connection
         * carries and may carry is in busy and room.  With busy 0 it is for the pool to keep
         * (client_idle), bind or close it. */
        void (*released)(struct client_conn *c);
        /* It was closed: idle by the server, by surplus bytes or by timeout; busy after an exchange
         * that does not keep it or that broke.  c is gone when this returns. */
        void (*closed)(struct client_conn *c, enum reason why);
};

struct client_conn_ops {
        void (*bind)(struct client_conn *c, struct exchange *x);
        void (*idle)(struct client_conn *c, int64_t idle_us);
        void (*close)(struct client_conn *c, enum reason why);
        str (*error)(struct client_conn *c);
};

struct client_conn {
        const struct client_conn_ops *ops;
        const struct client_pool *pool;
        void *pool_ctx;
        struct list link; /* the pool's */
        uint32_t busy;    /* exchanges on it */
        uint32_t room;    /* how many more may be bound now */
};

/* Binds x to the connection, which has room: sets x->ops, x->codec_ctx, x->reused.  Then call
 * x->ops->start(x). */
static inline void client_bind(struct client_conn *c, struct exchange *x)
{
        c->ops->bind(c, x);
}
/* Watched for closing; closed after idle_us (0: never). */
static inline void client_idle(struct client_conn *c, int64_t idle_us)
{
        c->ops->idle(c, idle_us);
}
static inline void client_close(struct client_conn *c, enum reason why) /* no callback */
{
        c->ops->close(c, why);
}
static inline str client_error(struct client_conn *c) /* of a failed connect, in words */
{
        return c->ops->error(c);
}

/* Why a connection ended on which io_read has failed.  A server of TLS 1.3 that refuses our
 * certificate, or the want of one, says so when our handshake is over (RFC 8446 4.4.2.4). */
static inline enum reason client_lost(const struct io *io)
{
        return io->tls && tls_facts(io->tls)->broken ? REASON_UPSTREAM_TLS : REASON_UPSTREAM_RESET;
}
/* The words for x, which fails for that reason; before the io is closed. */
static inline void client_explain(const struct io *io, enum reason why, struct exchange *x)
{
        if (why == REASON_UPSTREAM_TLS && io->tls)
                x->error = arena_dup(x->r->arena, tls_facts(io->tls)->error);
}

#endif
