/*
 * Memory for nghttp2, recycled: each stream takes a few small pieces and gives them back, and
 * malloc costs as much as the rest of what is done with them.  Belongs to one loop; what is large
 * goes to malloc.
 */
#ifndef HTTP_H2_MEMORY_H
#define HTTP_H2_MEMORY_H

#include "base/slab.h"

#include <nghttp2/nghttp2.h>

#define H2_MEMORY_CLASSES 16

/* Invariant: class[i] has pieces of (i + 1) * 64 bytes, their heads included.  A loop has one
 * for its clients' sessions, in struct codecs, and one for its servers', in struct h2_loop; the
 * sessions end before. */
struct h2_memory {
        struct slab class[H2_MEMORY_CLASSES];
        nghttp2_mem mem; /* for nghttp2_session_server_new3 and its like */
};

void h2_memory_init(struct h2_memory *m);
void h2_memory_end(struct h2_memory *m);

#endif
