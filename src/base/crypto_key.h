/*
 * Keys to verify signatures with, as JOSE has them (RFC 7515, 7517, 7518, 8037).
 */
#ifndef BASE_CRYPTO_KEY_H
#define BASE_CRYPTO_KEY_H

#include "base/arena.h"

/* One public key, or one secret.  Immutable; any thread may verify with it. */
struct crypto_key;

/* From a PEM public key (SubjectPublicKeyInfo) or one JWK; free with crypto_key_free.  scratch:
 * what reading takes stays in there.  NULL: not understood, not for verifying signatures, a private
 * key, RSA below 2048 bits, or a curve other than P-256, P-384, P-521 and Ed25519. */
MUST_CHECK struct crypto_key *crypto_key_new(struct arena *scratch, str text);
void crypto_key_free(struct crypto_key *k); /* NULL: nothing */

/* alg as in JOSE: HS256 RS256 PS256 ES256, the same with 384 and 512, EdDSA.  false: not genuine,
 * or alg is not one for this key: a secret is for HS only, and at least as long as the digest; an
 * RSA key for RS and PS, a curve for its own ES; a JWK with "alg" for that one alone. */
MUST_CHECK bool crypto_key_verify(const struct crypto_key *k, str alg, str data, str sig);

#endif
