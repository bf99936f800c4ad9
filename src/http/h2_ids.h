/*
 * Which streams a client may still send on (RFC 9113 5.1, 5.1.1).
 */
#ifndef HTTP_H2_IDS_H
#define HTTP_H2_IDS_H

#include "base/str.h"

#include <nghttp2/nghttp2.h>

/* The client's last streams, of one connection.  Bit n of both maps is stream last - 2n; open is a
 * part of opened.  Zero it but for left, which begins with the length of the client's preface. */
struct h2_ids {
        int32_t last;
        uint64_t opened,
                open;       /* open: neither END_STREAM nor RST_STREAM has come from the client */
        uint32_t left;      /* bytes of the payload that is being stepped over */
        uint8_t n, head[9]; /* what has come of the next frame's head */
};

/* Reads the heads of frames, bytes as they come from the client.  How many of them may go to
 * nghttp2: all, or those before a frame that no client may send; then *error is what the connection
 * has to end with, else NGHTTP2_NO_ERROR.  A head of which a part came before is not held back. */
MUST_CHECK size_t h2_ids_read(struct h2_ids *ids, str bytes, uint32_t *error);

#endif
