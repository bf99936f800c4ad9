/*
 * Socket addresses: parsing, printing, comparing, networks in CIDR form.  Pure but for nothing.
 */
#ifndef BASE_ADDR_H
#define BASE_ADDR_H

#include "base/arena.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

struct addr {
        socklen_t len; /* 0: none */
        union {
                struct sockaddr sa;
                struct sockaddr_in in;
                struct sockaddr_in6 in6;
                struct sockaddr_un un;
        };
};

#define ADDR_TEXT 128 /* enough for any printed form */

/* "1.2.3.4:80", "[::1]:80", "unix:/path", "*:80" (any, v6 with v4).  false for names and nonsense.
 */
MUST_CHECK bool addr_parse(str text, struct addr *out);
/* An IP without port. */
MUST_CHECK bool addr_parse_ip(str text, uint16_t port, struct addr *out);
size_t addr_print(const struct addr *a,
                  char out[ADDR_TEXT]); /* with port; returns length, NUL-terminated */
size_t addr_print_ip(const struct addr *a,
                     char out[ADDR_TEXT]); /* without; v4-mapped v6 printed as v4; unix: "unix:" */
/* The address as 16 bytes, IPv4 as v4-mapped; false for unix and empty ones. */
MUST_CHECK bool addr_bytes(const struct addr *a, uint8_t ip[16]);
uint16_t addr_port(const struct addr *a);
void addr_set_port(struct addr *a, uint16_t port);
bool addr_equal(const struct addr *a, const struct addr *b);
uint64_t addr_hash(const struct addr *a);

struct cidr {
        uint8_t ip[16];
        uint8_t bits;
}; /* v4 as v4-mapped, bits counted from 128 */
MUST_CHECK bool cidr_parse(str text,
                           struct cidr *out); /* "10.0.0.0/8", "::1", host bits must be 0 */
bool cidr_has(const struct cidr *c, const struct addr *a); /* unix addresses: never */

#endif
