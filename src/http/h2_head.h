/*
 * Request heads that come as header blocks (RFC 9113 8): what nghttp2 lets through, by the limits
 * and the rules of weir.  Pure but for the arena.
 */
#ifndef HTTP_H2_HEAD_H
#define HTTP_H2_HEAD_H

#include "http/h1_parse.h"
#include "http/request.h"

/* One header block on its way into a msg.  Zero it.  why: the first thing that is wrong with it;
 * no more is kept from then on, only counted. */
struct h2_head {
        uint64_t size; /* as HTTP/1 would have written it */
        uint32_t lines;
        size_t cookies, cookie_bytes; /* crumbs: fields of their own in HTTP/2 */
        enum reason why;
        uint64_t measured;
        str scheme, protocol;
};

/* The next field; both slices are copied. */
void h2_head_add(struct h2_head *h, struct arena *a, struct msg *m, const struct h1_limits *lim,
                 str name, str value);
/* The block is complete: m as h1_parse_request would have made it.  end: no body follows. */
enum reason h2_head_end(struct h2_head *h, struct arena *a, struct msg *m, bool end);
/* The same for trailers; what is not allowed in them is left out, framing is refused. */
void h2_trailer_add(struct h2_head *h, struct arena *a, struct fields *out,
                    const struct h1_limits *lim, str name, str value);

#endif
