/*
 * The path's form for matching, and what the server gets (configuration.md, "The path").  Pure.
 */
#ifndef HTTP_PATH_H
#define HTTP_PATH_H

#include "base/arena.h"

struct path {
        str norm;  /* for routes, captures, $path: unreserved decoded, other escapes upper-case,
                      ;parameters and // gone */
        str sent;  /* what the server gets: as written, or without dot segments if there were any */
        str query; /* after the '?', absent when there is none */
};

/* target: in origin form or "*".  false: decoders disagree or it is broken (400 ambiguous_path).
 * Allocates only when the path is not in its normal form already. */
MUST_CHECK bool path_parse(struct arena *a, str target, struct path *out);

/* Percent-encodes what is not plain; s itself when there is nothing to do, absent when the arena is
 * full. */
str path_escape(struct arena *a, str s, bool (*plain)(unsigned char c));
bool path_is_unreserved(unsigned char c); /* RFC 3986 2.3 */

#endif
