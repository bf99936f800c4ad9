/*
 * Heads as HTTP/1 bytes, appended to a buf.
 */
#ifndef HTTP_H1_WRITE_H
#define HTTP_H1_WRITE_H

#include "base/buf.h"
#include "http/msg.h"

/* Method, target, HTTP/1.1, Host (m->authority) first, fields, framing by m->framing and length,
 * connection or upgrade fields.  Left out of m->fields: hop-by-hop and framing fields and Expect,
 * which are written from what m says. */
void h1_write_request(struct buf *out, const struct msg *m, bool keep_alive);

struct h1_response_form {
        uint8_t version; /* of the client; 10: is told when the connection is kept */
        bool keep_alive;
        bool no_body;         /* HEAD, 304: Content-Length stays as the server gave it */
        enum framing framing; /* as it is sent; CLOSE: no framing fields */
        int64_t wall;         /* for a Date when there is none */
};
void h1_write_response(struct buf *out, const struct msg *m, const struct h1_response_form *form);
void h1_write_interim(struct buf *out, const struct msg *m);
void h1_write_chunk_head(struct buf *out, uint64_t n);
void h1_write_last_chunk(struct buf *out, const struct fields *trailers); /* NULL or empty: none */
str h1_status_phrase(int status);

#endif
