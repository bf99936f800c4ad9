/*
 * Bodies between a socket's queue and a pipe, by the framing that the head announced (RFC 9112 6,
 * 7). Both codecs use both halves.  Pure but for the bufs.
 */
#ifndef HTTP_H1_BODY_H
#define HTTP_H1_BODY_H

#include "http/h1_parse.h"
#include "http/request.h"

/* From the socket.  Invariant: done when the body is complete, then nothing is taken any more. */
struct h1_reader {
        enum framing framing;
        bool done;
        uint64_t left; /* of FRAMING_LENGTH */
        struct h1_chunked chunk;
        struct h1_scan scan; /* of the trailer section */
        uint64_t measured;   /* what in it broke a limit */
};

void h1_reader_begin(struct h1_reader *b, enum framing framing, uint64_t length);
/* Moves what there is from in to p, up to p's credit; sets p->end, or p->stalled when there is no
 * more credit.  Trailers go to *trailers, in arena a. */
enum reason h1_reader_take(struct h1_reader *b, struct buf *in, struct pipe *p, struct arena *a,
                           struct fields *trailers, const struct h1_limits *lim);
/* The peer has finished sending: whether that is a proper end of the body (then p->end is set). */
MUST_CHECK bool h1_reader_eof(struct h1_reader *b, struct pipe *p);

/* To the socket.  Invariant: done when the last byte of the body has been put. */
struct h1_writer {
        enum framing framing;
        bool done;
        bool broken;   /* the pipe ended with fewer, or went on with more, than was announced */
        uint64_t left; /* of FRAMING_LENGTH */
};

#define H1_OUT_HIGH (64 * KIB) /* no more is put while this much waits for the socket */

void h1_writer_begin(struct h1_writer *w, enum framing framing, uint64_t length);
/* Moves what there is from p to out; returns how many bytes of the body were taken. */
size_t h1_writer_put(struct h1_writer *w, struct pipe *p, struct buf *out,
                     const struct fields *trailers);

#endif
