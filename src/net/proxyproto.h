/*
 * PROXY protocol v1 and v2 headers (haproxy.org doc/proxy-protocol.txt), receiving side.  Pure.
 */
#ifndef NET_PROXYPROTO_H
#define NET_PROXYPROTO_H

#include "base/addr.h"

/* > 0: bytes of the header, *src / *dst filled (len 0: LOCAL or UNKNOWN: keep the socket's own);
 * 0: more bytes are needed; -1: not a valid header. */
int proxyproto_parse(str in, struct addr *src, struct addr *dst);
#define PROXYPROTO_MAX 4096

#endif
