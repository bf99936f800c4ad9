/*
 * The HTTP/1 parser: bytes in, result out (RFC 9112, RFC 9110 5).  Pure, incremental, strict: what
 * is ambiguous is refused.
 *
 * The difficulty: a head arrives in any pieces.  h1_head_end finds its end and enforces the limits
 * as the bytes come, remembering where it was; when the head is complete it is copied to the
 * request's arena and parsed in one pass by h1_parse_request or h1_parse_response.
 */
#ifndef HTTP_H1_PARSE_H
#define HTTP_H1_PARSE_H

#include "base/reason.h"
#include "http/msg.h"

struct h1_limits {
        uint32_t head_max, line_max, fields_max;
};

enum h1_kind { H1_REQUEST, H1_RESPONSE, H1_TRAILER };

struct h1_scan { /* zero it for each head, but for kind */
        enum h1_kind kind;
        uint32_t pos; /* scanned so far */
        uint32_t line_start, lines;
        uint32_t skip; /* bytes of one leading empty line, tolerated before a request line */
};

/* in: all bytes of the head (or trailer section) that have come, contiguous from its first.  > 0:
 * its length with the skipped and the final empty line; 0: more is needed; -1: *why, in the words
 * of a request (a limit or a malformed line end), *measured.  The answer does not depend on the
 * pieces. */
ptrdiff_t h1_head_end(struct h1_scan *s, str in, const struct h1_limits *lim, enum reason *why,
                      uint64_t *measured);

/* head: complete, from the start line (without s->skip bytes) to its final CRLF CRLF; must stay in
 * memory as long as m.  REASON_NONE, or why it
 * is refused (m then holds what could be read).  Checks the start line, field syntax, Host (one;
 * HTTP/1.1 must; authority syntax), target forms, framing (RFC 9112 6.3: CL with TE, lists, signs,
 * overflow; TE other than exactly chunked; TE in HTTP/1.0), Connection, Upgrade, Expect. */
enum reason h1_parse_request(struct arena *a, str head, struct msg *m);
/* The start line alone, as far as it can be read: for the log of a request that is refused earlier.
 */
void h1_peek_request(struct arena *a, str head, struct msg *m);
/* host [":" port] of RFC 3986 3.2, without user information and escapes; port at most 65535. */
bool h1_authority_ok(str a);
/* method: of the request that it answers (HEAD, CONNECT).  The same rules; REASON_UPSTREAM_*. */
enum reason h1_parse_response(struct arena *a, str head, enum method method, struct msg *m);

/* Chunked bodies (RFC 9112 7.1), incremental. */
struct h1_chunked {
        int state;
        uint32_t digits; /* of this chunk's size */
        uint32_t ext;    /* bytes of extensions beyond what the data excuses */
        uint64_t size;
        uint64_t left; /* bytes of data of this chunk that are still to come */
};
enum h1_step {
        H1_MORE,     /* bytes ran out */
        H1_DATA,     /* up to c->left bytes of data follow; say h1_chunked_took */
        H1_TRAILERS, /* the trailer section starts here; an empty line alone ends it */
        H1_BAD
};
/* Consumes framing at the front of in; *used is how much. */
enum h1_step h1_chunked_next(struct h1_chunked *c, str in, size_t *used);
void h1_chunked_took(struct h1_chunked *c, uint64_t n);
/* section: complete, as found by h1_head_end.  Framing and routing fields are refused. */
enum reason h1_parse_trailers(struct arena *a, str section, struct fields *out);

#endif
