/*
 * Bodies of gRPC-Web and of gRPC, turned into each other as they come.
 *
 * Binary gRPC-Web differs from gRPC only in its end: the trailers are a last frame of the body.  In
 * text it is base64 as well, of as many pieces as there are, each with padding of its own.
 *
 * Pure and incremental: however the bytes are cut, what comes out is the same.
 * Source: gRPC Web (PROTOCOL-WEB); RFC 4648 4.
 */
#ifndef HTTP_GRPC_WEB_H
#define HTTP_GRPC_WEB_H

#include "base/buf.h"
#include "http/msg.h"

/* A request in text.  Zero is the beginning. */
struct grpc_web_decoder {
        uint32_t bits; /* of the digits of this quantum */
        uint8_t digits, padding;
};
/* Takes all of in; what it says is added to out.  false: it is not base64. */
MUST_CHECK bool grpc_web_decode(struct grpc_web_decoder *d, struct buf *in, struct buf *out);
/* Whether the body may end here: not in the middle of a quantum. */
MUST_CHECK bool grpc_web_decoded(const struct grpc_web_decoder *d);

/* A response.  Zero, but for text, is the beginning. */
struct grpc_web_encoder {
        bool text;
        uint8_t prefix;  /* bytes seen of the message's own 5 */
        uint8_t carried; /* bytes of carry: they do not make a quantum yet */
        unsigned char carry[2];
        uint32_t left; /* of the message, behind its prefix */
};
/* Takes all of in, messages of gRPC; adds them to out.  In text the end of each message is padded,
 * so that none waits for the next one.  false: these are no messages. */
MUST_CHECK bool grpc_web_encode(struct grpc_web_encoder *e, struct buf *in, struct buf *out);
/* The last frame: all of trailers.  false: the body ended in the middle of a message. */
MUST_CHECK bool grpc_web_encode_end(struct grpc_web_encoder *e, const struct fields *trailers,
                                    struct buf *out);

#endif
