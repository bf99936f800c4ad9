/*
 * OCSP (RFC 6960, in the profile of RFC 5019): the question about one certificate, and what an
 * answer is worth.  Pure: bytes and a moment in, verdict out.
 *
 * An answer comes from a network that anybody may have written, so nothing in it is believed before
 * its signature was: by the issuer itself, or by a responder that the issuer has certified for
 * this.
 */
#ifndef NET_TLS_OCSP_H
#define NET_TLS_OCSP_H

#include "base/arena.h"

#define TLS_OCSP_MAX         (64 * KIB) /* bytes of a response */
#define TLS_OCSP_REQUEST_MAX KIB
#define TLS_OCSP_SKEW_S      300  /* clocks of a responder and ours may differ by */
#define TLS_OCSP_NO_NEXT_S   3600 /* how long a response counts that does not say so itself */

enum tls_ocsp_verdict {
        TLS_OCSP_GOOD,
        TLS_OCSP_REVOKED,
        TLS_OCSP_UNKNOWN,  /* the responder does not know the certificate */
        TLS_OCSP_EXPIRED,  /* nextUpdate has passed */
        TLS_OCSP_FUTURE,   /* thisUpdate is to come */
        TLS_OCSP_BROKEN,   /* no OCSP response */
        TLS_OCSP_DECLINED, /* the responder says that it does not answer (tryLater ...) */
        TLS_OCSP_FOREIGN,  /* about another certificate */
        TLS_OCSP_FORGED,   /* signed by somebody who may not, or not at all */
        TLS_OCSP_VERDICTS
};

/* Seconds of the epoch; valid for GOOD and EXPIRED. */
struct tls_ocsp_times {
        int64_t this_update, next_update;
};

/* A certificate and who issued it.  Immutable; any thread. */
struct tls_ocsp;

/* chain: PEM, the certificate first, its issuer among the others.  NULL: *err (in a) names file. */
MUST_CHECK struct tls_ocsp *tls_ocsp_new(str chain, str file, struct arena *a, str *err);
void tls_ocsp_free(struct tls_ocsp *o); /* NULL is fine */

/* The first http responder of the certificate (RFC 5280 4.2.2.1); absent: it names none. */
str tls_ocsp_url(const struct tls_ocsp *o, struct arena *a);
/* The certificate asks clients to insist on a staple (RFC 7633); chain as above. */
bool tls_ocsp_must_staple(str chain);
/* The request in DER, without a nonce so that responders may answer from a cache; 0: it cannot be
 * made. */
size_t tls_ocsp_request(const struct tls_ocsp *o, char out[TLS_OCSP_REQUEST_MAX]);

enum tls_ocsp_verdict tls_ocsp_judge(const struct tls_ocsp *o, str der, int64_t now_s,
                                     struct tls_ocsp_times *times);
const char *tls_ocsp_name(enum tls_ocsp_verdict v); /* one word, for metrics */
const char *tls_ocsp_text(enum tls_ocsp_verdict v); /* "the response ..." */

/* Seconds until a good response should be replaced: half of its life, a tenth earlier or later by
 * chance; of one whose half has passed, half of what is left.  At least 1. */
int64_t tls_ocsp_refresh(const struct tls_ocsp_times *t, int64_t now_s, uint64_t chance);

#endif
