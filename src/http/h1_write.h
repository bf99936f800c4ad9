/*
 * Heads as HTTP/1 bytes, appended to a buf.
 */
#ifndef HTTP_H1_WRITE_H
#define HTTP_H1_WRITE_H

#include "base/buf.h"
#include "http/msg.h"

/* Method, target, HTTP/1.1, Host (m->authority) first, fields, framing by m->framing and length, connection or upgrade fields. */
void h1_write_request(struct buf *out, const struct msg *m, bool keep_alive);
/* to_version: what the client speaks (10: never chunked).  Framing fields by m->framing; no_body: HEAD, framing fields stay as
 * the server gave them. */
void h1_write_response(struct buf *out, const struct msg *m, uint8_t to_version, bool keep_alive);
void h1_write_interim(struct buf *out, const struct msg *m);
void h1_write_chunk_head(struct buf *out, uint64_t n);
void h1_write_last_chunk(struct buf *out, const struct fields *trailers); /* NULL or empty: none */
str h1_status_phrase(int status);

#endif
