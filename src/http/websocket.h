/*
 * Where the frames of a WebSocket begin and end, in one direction of a tunnel (RFC 6455 5.2); so
 * that a PING of weir's own can go between two of them, and the PONGs that answer it stay here.
 *
 * Pure: bytes in, bytes out.  All passes as it came, at once, but for PONGs, which are held until
 * they are complete (131 bytes at most).  What is no WebSocket passes untouched, and gets no PING.
 */
#ifndef HTTP_WEBSOCKET_H
#define HTTP_WEBSOCKET_H

#include "base/buf.h"

#define WEBSOCKET_MARK 8 /* bytes of a PING of ours, by which its PONG is known again */

/* One direction.  Owned by whoever tracks the tunnel.  Invariant: frame[0..n) is the head of the
 * frame that is coming, as far as it is here; of a PONG (held) all that is here, and none of it has
 * passed.  left is what is still to come of the payload once the head is complete. */
struct websocket {
        uint64_t left;
        uint8_t mark[WEBSOCKET_MARK];
        uint8_t frame[131], n;
        bool held;
        bool closing; /* a CLOSE has passed: nothing may follow it (5.5.1) */
        bool broken;  /* no WebSocket */
        bool due;     /* ping goes in at the next boundary */
        uint8_t ping_n;
        uint8_t ping[2 + 4 + WEBSOCKET_MARK];
};

/* A tunnel's two directions share a mark. */
void websocket_begin(struct websocket *w, const uint8_t mark[WEBSOCKET_MARK]);

/* n bytes from the front of `from` (n <= from->n), or those of in, to the end of `to`. */
void websocket_move(struct websocket *w, struct buf *to, struct buf *from, size_t n);
void websocket_put(struct websocket *w, struct buf *to, str in);

/* Puts a PING at the end of `to`, where this direction's bytes go: now, or when the frame that is
 * coming has ended (due says so until then).  key: masks it, as all that goes to a server must be
 * (5.3); NULL: not masked.  false: this direction takes none any more. */
bool websocket_ping(struct websocket *w, struct buf *to, const uint8_t key[4]);

#endif
