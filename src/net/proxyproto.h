/*
 * PROXY protocol headers, versions 1 and 2 (haproxy.org doc/proxy-protocol.txt), read and written.
 * Pure; any thread.
 */
#ifndef NET_PROXYPROTO_H
#define NET_PROXYPROTO_H

#include "base/addr.h"
#include "base/buf.h"

/* The types that are known (section 2.2). */
enum {
        PROXYPROTO_ALPN = 0x01,
        PROXYPROTO_AUTHORITY = 0x02,
        PROXYPROTO_CRC32C = 0x03,
        PROXYPROTO_NOOP = 0x04,
        PROXYPROTO_UNIQUE_ID = 0x05,
        PROXYPROTO_SSL = 0x20,
        PROXYPROTO_SSL_VERSION = 0x21,
        PROXYPROTO_SSL_CN = 0x22,
        PROXYPROTO_NETNS = 0x30
};
#define PROXYPROTO_UNIQUE_ID_MAX 128
#define PROXYPROTO_NAME_MAX      255 /* of an authority or a protocol */

/* What a header says.  Invariant: tlvs is well formed. */
struct proxyproto {
        struct addr src, dst; /* len 0: LOCAL, UNKNOWN or UNSPEC: keep the socket's own; of AF_UNIX
                                 the family alone */
        str tlvs;             /* of version 2, all of them, in the input; absent: none */
};

#define PROXYPROTO_MAX 4096 /* longest header that is read */

/* > 0: bytes of the header, *out filled; 0: more bytes are needed; -1: not a valid header. */
int proxyproto_parse(str in, struct proxyproto *out);

/* The first value of a type in what proxyproto_parse gave; absent: there is none. */
str proxyproto_tlv(str tlvs, unsigned type);

/* Of the SSL value (section 2.2.6). */
struct proxyproto_ssl {
        bool tls;                  /* the client spoke it */
        bool cert_conn, cert_sess; /* and showed a certificate, in this connection, or at least in
                                      the session that it is of */
        bool verified;             /* and it was good */
        str version, cn;           /* absent: not said */
};
bool proxyproto_ssl(str tlvs, struct proxyproto_ssl *out); /* false: there is none */

/* What is to be said.  Names that are absent, empty or longer than may be are left out. */
struct proxyproto_says {
        int version;          /* 1 or 2 */
        bool local;           /* of weir itself: LOCAL, UNKNOWN */
        struct addr src, dst; /* not both of IP: UNKNOWN, UNSPEC, and no values then */
        str authority, alpn, unique_id;
        struct proxyproto_ssl ssl; /* tls false: left out */
};
void proxyproto_write(struct buf *out, const struct proxyproto_says *says);

uint32_t proxyproto_crc32c(uint32_t crc, str s); /* RFC 3720 B.4; begin with 0 */

#endif
