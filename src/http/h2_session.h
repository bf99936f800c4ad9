/*
 * What both sides of HTTP/2 share: bytes between a connection's queues and nghttp2, DATA between
 * pipes and frames, and fields as nghttp2 wants them.  It knows neither servers nor clients.
 */
#ifndef HTTP_H2_SESSION_H
#define HTTP_H2_SESSION_H

#include "http/request.h"

#include <nghttp2/nghttp2.h>

#define H2_OUT_HIGH (64 * KIB) /* no more frames are made while this much waits for the socket */

/* The first n bytes of `in` go to the session, chunk by chunk and uncopied.  0, or the error with
 * which the session is over (nghttp2's, or a callback's). */
MUST_CHECK int h2_session_feed(nghttp2_session *ng, struct buf *in, size_t n);
/* Frames that are due, to the end of out, until it holds H2_OUT_HIGH bytes.  0, or an error. */
MUST_CHECK int h2_session_fill(nghttp2_session *ng, struct buf *out);

/* How many of p's bytes the next DATA frame takes, at most `most`: a chunk that is worth it goes
 * out whole, so that it is moved and not copied. */
size_t h2_data_length(const struct pipe *p, size_t most);
/* One DATA frame (nghttp2_send_data_callback): its head and n bytes of p. */
void h2_data_put(struct buf *out, const nghttp2_frame *frame, const uint8_t *head, struct pipe *p,
                 size_t n);

/* Whether SETTINGS of the peer bring a stream's window above 2^31-1.  That is an error of the
 * connection (RFC 9113 6.9.2); nghttp2 resets the streams, and only them.  Asked in three steps:
 * h2_windows_begin as the frame begins, h2_windows_stream for each stream then, and
 * h2_windows_overflow once nghttp2 has taken the frame. */
struct h2_windows {
        int64_t widest;  /* of the streams' windows */
        int64_t initial; /* that they began with */
};
void h2_windows_begin(struct h2_windows *w, nghttp2_session *ng);
void h2_windows_stream(struct h2_windows *w, nghttp2_session *ng, int32_t id);
bool h2_windows_overflow(const struct h2_windows *w, nghttp2_session *ng);

/* A well-known name as HTTP/2 wants it, in lower case; stays. */
str h2_name_of(enum field_id id);

/* Fields on their way to nghttp2, which copies values; and names, in lower case, unless they stay.
 */
struct h2_fields {
        nghttp2_nv *v;
        size_t n, cap;
};
/* The name is in lower case and stays. */
void h2_fields_add(struct arena *a, struct h2_fields *out, str name, str value);
/* All that may pass from a message: neither hop-by-hop fields nor framing. */
void h2_fields_pass(struct arena *a, struct h2_fields *out, const struct fields *fs);
void h2_fields_trailers(struct arena *a, struct h2_fields *out, const struct fields *fs);

#endif
