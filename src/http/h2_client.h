/*
 * HTTP/2 towards servers: one connection, many exchanges, each a stream of it.
 *
 * It is connected when the server's SETTINGS are here, so that nothing is sent before it is known
 * how many streams the server takes, and so that a server which speaks something else fails the
 * connect and no request.
 */
#ifndef HTTP_H2_CLIENT_H
#define HTTP_H2_CLIENT_H

#include "http/client.h"
#include "net/io.h"

#define H2_STREAMS_MAX 256 /* on one connection, whatever the server would take */

/* As h1_client_connect; connect_us covers the server's SETTINGS too.  With tls the server must
 * agree to "h2"; without it HTTP/2 is spoken from the first byte (prior knowledge). */
struct client_conn *h2_client_connect(struct loop *l, const struct addr *to, struct tls_client *tls,
                                      str host, int64_t connect_us, const struct client_pool *pool,
                                      void *pool_ctx, enum reason *why);
void h2_client_loop_end(struct loop *l); /* frees what is recycled here */

#endif
