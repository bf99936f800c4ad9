/*
 * Staples: OCSP responses that are sent in handshakes, and the memory in which all processes share
 * those that were fetched.
 *
 *   master: new, claim (a place for each certificate)    fetcher: find, put    worker: find, read
 *
 * Invariant: a place belongs to one certificate until the master gives it away, which changes its
 * epoch; a reference from before is then dead and reads as empty.  A place has one writer at a
 * time.
 */
#ifndef NET_TLS_STAPLE_H
#define NET_TLS_STAPLE_H

#include "base/buf.h"
#include "net/tls_ocsp.h"

#define TLS_STAPLES_MAX 256 /* certificates of one configuration whose responses are fetched */

struct tls_staples;

struct tls_staple_ref {
        struct tls_staples *all; /* NULL: none */
        uint32_t at, epoch;
};

struct tls_staples *tls_staples_new(void); /* master, before the first fork */
void tls_staples_free(struct tls_staples *s);
/* Master: a place for each of ids[0..n), beside those of keep[0..n_keep), which stay.  The others
 * may be given away.  n and n_keep at most TLS_STAPLES_MAX. */
void tls_staples_claim(struct tls_staples *s, const uint8_t (*ids)[32], size_t n,
                       const uint8_t (*keep)[32], size_t n_keep);
void tls_staples_use(struct tls_staples *s); /* process-wide, before the first context */

/* The place of a certificate, named by tls_staple_id; .all NULL: it has none. */
struct tls_staple_ref tls_staple_find(const uint8_t id[32]);
void tls_staple_id(str chain_pem, uint8_t out[32]);
/* Fetcher: the response in use from now on.  At most TLS_OCSP_MAX bytes. */
void tls_staple_put(const struct tls_staple_ref *r, str der, const struct tls_ocsp_times *t);
/* How long what is there counts; false: nothing is. */
bool tls_staple_times(const struct tls_staple_ref *r, struct tls_ocsp_times *t);
/* Any thread, without a lock: copies the response to out; 0: there is none that counts at now_s. */
size_t tls_staple_read(const struct tls_staple_ref *r, int64_t now_s,
                       unsigned char out[TLS_OCSP_MAX]);

/* For a process that takes over: all responses, in a form that only load reads. */
void tls_staples_save(struct tls_staples *s, struct buf *out);
/* Before the first claim, which keeps what it names.  false: not what save writes (what came before
 * the mistake counts). */
MUST_CHECK bool tls_staples_load(struct tls_staples *s, str text);

#endif
