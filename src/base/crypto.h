/*
 * Digests, secrets, encodings, randomness: the one home of libcrypto outside TLS.
 * Fetched once per process (crypto_init), so that no call pays for an implicit fetch.
 */
#ifndef BASE_CRYPTO_H
#define BASE_CRYPTO_H

#include "base/arena.h"

void crypto_init(void); /* once, before threads; again is fine */
void crypto_sha256(str data, uint8_t out[32]);
void crypto_sha1(str data, uint8_t out[20]); /* names of Redis scripts; not for security */
void crypto_hmac_sha256(str key, str data, uint8_t out[32]);
void crypto_random(void *p, size_t n); /* fit for keys */
uint64_t crypto_fast_random(void);     /* per-thread xorshift, for balancing and ids */
bool crypto_equal(str a, str b);       /* constant time for equal lengths */
uint64_t crypto_siphash(const uint8_t key[16], str data); /* SipHash-2-4 */

void crypto_hex(char *out, const void *p, size_t n); /* 2n lower-case digits, no NUL */
/* One digit for the lowest 6 bits of v, and back; -1: it is none. */
char crypto_base64_digit(unsigned v, bool url);
int crypto_base64_value(char c, bool url);
str crypto_base64(struct arena *a, str s, bool url); /* url: alphabet of RFC 4648 5, no padding */
MUST_CHECK bool crypto_base64_decode(struct arena *a, str s, bool url, str *out); /* strict */

#endif
