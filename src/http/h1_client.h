/*
 * HTTP/1 towards servers: one connection, one exchange at a time, idle in a pool between them.
 */
#ifndef HTTP_H1_CLIENT_H
#define HTTP_H1_CLIENT_H

#include "http/h1_parse.h"
#include "http/request.h"
#include "net/io.h"
#include "net/tls.h"

struct h1_client;

/* The pool's side of a connection. */
struct h1_client_pool {
        /* Connected (and TLS is up), or why not: then the connection is gone when this returns. */
        void (*connected)(struct h1_client *c, enum reason why);
        /* The exchange is over and the connection may carry another: keep it (h1_client_idle), bind
         * it again, or close it. */
        void (*released)(struct h1_client *c);
        /* It was closed: idle by the server, by surplus bytes or by timeout; busy after an exchange
         * that does not keep it or that broke.  c is gone when this returns. */
        void (*closed)(struct h1_client *c, enum reason why);
};

/* connect_us covers TCP and TLS.  tls: NULL, or held by the caller as long as the connection. host:
 * SNI when tls has no name of its own.  NULL: *why says at once why not. */
struct h1_client *h1_client_connect(struct loop *l, const struct addr *to, struct tls_client *tls,
                                    str host, int64_t connect_us, const struct h1_client_pool *pool,
                                    void *pool_ctx, enum reason *why);
void *h1_client_ctx(struct h1_client *c);
struct list *h1_client_link(struct h1_client *c); /* a list node for the pool's use */
struct h1_client *h1_client_of_link(struct list *n);
str h1_client_error(struct h1_client *c); /* in words, of a failed connect or handshake */
void h1_client_idle(struct h1_client *c,
                    int64_t idle_us); /* watched for closing; closed after idle_us (0: never) */
/* Binds x to the connection: sets x->ops, x->codec_ctx, x->reused.  Then call x->ops->start(x). */
void h1_client_bind(struct h1_client *c, struct exchange *x);
void h1_client_close(struct h1_client *c, enum reason why); /* no callback */

#endif
