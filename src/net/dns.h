/*
 * Names to addresses with their TTL, through c-ares on one loop (the control thread's).
 */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "base/addr.h"
#include "net/loop.h"

struct dns;
#define DNS_ADDRS_MAX 64
struct dns_answer {
        bool ok;
        const char *error;
        uint32_t ttl_s;
        size_t n;
        struct addr a[DNS_ADDRS_MAX];
}; /* ports are 0 */

/* servers: "ADDR:PORT" texts, n 0: the system's resolv.conf. */
struct dns *dns_new(struct loop *l, const str *servers, size_t n);
void dns_free(struct dns *d); /* pending queries end with error first */
/* A and AAAA together (hosts file too).  fn is called once on the loop, at the end of a turn
 * (dns_free: inside that call), and may call dns_free.  ttl_s is between 5 s and an hour. */
void dns_query(struct dns *d, str name, void (*fn)(const struct dns_answer *, void *arg),
               void *arg);

#endif
