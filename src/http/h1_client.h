/*
 * HTTP/1 towards servers: one connection, one exchange at a time, idle in a pool between them.
 */
#ifndef HTTP_H1_CLIENT_H
#define HTTP_H1_CLIENT_H

#include "http/client.h"
#include "http/h1_parse.h"
#include "net/io.h"

/* connect_us covers TCP and TLS.  tls: NULL, or held by the caller as long as the connection. host:
 * SNI when tls has no name of its own.  NULL: *why says at once why not. */
struct client_conn *h1_client_connect(struct loop *l, const struct addr *to, struct tls_client *tls,
                                      str host, int64_t connect_us, const struct client_pool *pool,
                                      void *pool_ctx, enum reason *why);
/* Right after it: what goes out before all else, in the clear (a PROXY header). */
void h1_client_preface(struct client_conn *c, str bytes);

#endif
