/*
 * Keys to verify signatures with.
 *
 * The difficulty is confusion: who sends a token names the algorithm, and a public key must never
 * be taken for a secret, nor one curve for another.  So the key has a kind of its own, each
 * algorithm is for one kind, and nothing else is tried.
 */
#include "base/crypto_key.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/json.h"

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <pthread.h>
#include <stdlib.h>

#define TEXT_MAX     (64 * KIB)
#define RSA_BITS_MIN 2048 /* RFC 7518 3.3 */
#define RSA_BITS_MAX 8192 /* what a verification may cost */
#define COORD_MAX    66   /* bytes of a coordinate of P-521 */

enum kind { SECRET, RSA_KEY, P256, P384, P521, ED25519 };

static const struct alg {
        const char *name;
        enum kind kind;
        int digest; /* index in digests; -1: the algorithm has its own */
        bool pss;
} algs[] = {
        {"HS256", SECRET, 0, false},   {"HS384", SECRET, 1, false},  {"HS512", SECRET, 2, false},
        {"RS256", RSA_KEY, 0, false},  {"RS384", RSA_KEY, 1, false}, {"RS512", RSA_KEY, 2, false},
        {"PS256", RSA_KEY, 0, true},   {"PS384", RSA_KEY, 1, true},  {"PS512", RSA_KEY, 2, true},
        {"ES256", P256, 0, false},     {"ES384", P384, 1, false},    {"ES512", P521, 2, false},
        {"EdDSA", ED25519, -1, false},
};

static const struct curve {
        enum kind kind;
        const char *jose, *openssl;
        size_t size; /* bytes of a coordinate */
} curves[] = {
        {P256, "P-256", "prime256v1", 32},
        {P384, "P-384", "secp384r1", 48},
        {P521, "P-521", "secp521r1", COORD_MAX},
};

/* Owned by whoever made it.  Invariant: pkey is NULL for a secret and nothing else. */
struct crypto_key {
        enum kind kind;
        EVP_PKEY *pkey;
        char *secret;
        size_t n_secret;
        const struct alg *only; /* NULL: all that fit the kind */
};

static EVP_MD *digests[3];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void)
{
        static const char *const names[] = {"SHA256", "SHA384", "SHA512"};

        for (size_t i = 0; i < COUNT(names); i++) {
                digests[i] = EVP_MD_fetch(NULL, names[i], NULL);
                CHECK(digests[i] != NULL);
        }
}

static const struct alg *alg_of(str name)
{
        for (size_t i = 0; i < COUNT(algs); i++)
                if (str_eq(name, str_z(algs[i].name)))
                        return &algs[i];
        return NULL;
}

static struct crypto_key *key_of(enum kind kind, EVP_PKEY *pkey)
{
        struct crypto_key *k;

        if (pkey == NULL)
                return NULL;
        k = calloc(1, sizeof(*k));
        CHECK(k != NULL);
        *k = (struct crypto_key){.kind = kind, .pkey = pkey};
        return k;
}

void crypto_key_free(struct crypto_key *k)
{
        if (k == NULL)
                return;
        EVP_PKEY_free(k->pkey);
        if (k->secret != NULL)
                OPENSSL_cleanse(k->secret, k->n_secret);
        free(k->secret);
        free(k);
}

/* ------------------------------------------------------------------ PEM */

static bool kind_of(const EVP_PKEY *pkey, enum kind *kind)
{
        char group[64];

        switch (EVP_PKEY_get_base_id(pkey)) {
        case EVP_PKEY_RSA:
                *kind = RSA_KEY;
                return EVP_PKEY_get_bits(pkey) >= RSA_BITS_MIN &&
                       EVP_PKEY_get_bits(pkey) <= RSA_BITS_MAX;
        case EVP_PKEY_ED25519:
                *kind = ED25519;
                return true;
        case EVP_PKEY_EC:
                if (EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) != 1)
                        return false;
                for (size_t i = 0; i < COUNT(curves); i++) {
                        *kind = curves[i].kind;
                        if (strcmp(group, curves[i].openssl) == 0)
                                return true;
                }
                return false;
        default:
                return false;
        }
}

static int no_password(char *buf, int size, int rwflag, void *arg)
{
        (void)buf, (void)size, (void)rwflag, (void)arg;
        return -1;
}

static struct crypto_key *from_pem(str text)
{
        BIO *bio = BIO_new_mem_buf(text.p, (int)text.n);
        EVP_PKEY *pkey;
        enum kind kind;

        CHECK(bio != NULL);
        pkey = PEM_read_bio_PUBKEY(bio, NULL, no_password, NULL);
        BIO_free(bio);
        if (pkey != NULL && !kind_of(pkey, &kind)) {
                EVP_PKEY_free(pkey);
                return NULL;
        }
        return pkey ? key_of(kind, pkey) : NULL;
}

/* ------------------------------------------------------------------ JWK */

static const struct json_value *member(const struct json_value *o, const char *name)
{
        for (size_t i = 0; i < o->n; i++)
                if (str_eq(o->elem[i]->name, str_z(name)))
                        return o->elem[i];
        return NULL;
}

/* Absent when there is none of that name, or when it is no string. */
static str text_member(const struct json_value *o, const char *name)
{
        const struct json_value *v = member(o, name);
        return v != NULL && v->type == JSON_V_STRING ? v->str : STR_NONE;
}

/* A member in base64url; absent when there is none or it is malformed. */
static str bytes_member(struct arena *a, const struct json_value *o, const char *name)
{
        str text = text_member(o, name), out = STR_NONE;
        return text.p && crypto_base64_decode(a, text, true, &out) ? out : STR_NONE;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *bld)
{
        EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
        OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
        EVP_PKEY *pkey = NULL;

        CHECK(ctx != NULL && params != NULL);
        if (EVP_PKEY_fromdata_init(ctx) != 1 ||
            EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
                pkey = NULL;
        OSSL_PARAM_free(params);
        EVP_PKEY_CTX_free(ctx);
        return pkey;
}

static struct crypto_key *rsa_of(struct arena *a, const struct json_value *o)
{
        str n = bytes_member(a, o, "n"), e = bytes_member(a, o, "e");
        OSSL_PARAM_BLD *bld;
        EVP_PKEY *pkey = NULL;
        BIGNUM *bn, *be;
        int bits;

        if (n.p == NULL || e.p == NULL || n.n > RSA_BITS_MAX / 8 || e.n > 4)
                return NULL;
        bld = OSSL_PARAM_BLD_new();
        bn = BN_bin2bn((const unsigned char *)n.p, (int)n.n, NULL);
        be = BN_bin2bn((const unsigned char *)e.p, (int)e.n, NULL);
        CHECK(bld != NULL && bn != NULL && be != NULL);
        bits = BN_num_bits(bn);
        if (bits >= RSA_BITS_MIN && BN_is_odd(bn) && BN_is_odd(be) && !BN_is_one(be)) {
                CHECK(OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, bn) == 1 &&
                      OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, be) == 1);
                pkey = from_params("RSA", bld);
        }
        OSSL_PARAM_BLD_free(bld);
        BN_free(bn);
        BN_free(be);
        return key_of(RSA_KEY, pkey);
}

/* A point that is not on its curve is refused by OpenSSL. */
static struct crypto_key *ec_of(struct arena *a, const struct json_value *o)
{
        str crv = text_member(o, "crv"), x = bytes_member(a, o, "x"), y = bytes_member(a, o, "y");
        unsigned char point[1 + 2 * COORD_MAX] = {POINT_CONVERSION_UNCOMPRESSED};
        const struct curve *c = NULL;
        OSSL_PARAM_BLD *bld;
        EVP_PKEY *pkey;

        for (size_t i = 0; i < COUNT(curves); i++)
                if (str_eq(crv, str_z(curves[i].jose)))
                        c = &curves[i];
        if (c == NULL || x.p == NULL || y.p == NULL || x.n != c->size || y.n != c->size)
                return NULL;
        memcpy(point + 1, x.p, x.n);
        memcpy(point + 1 + x.n, y.p, y.n);
        bld = OSSL_PARAM_BLD_new();
        CHECK(bld != NULL &&
              OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, c->openssl, 0) ==
                      1 &&
              OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point,
                                               1 + 2 * c->size) == 1);
        pkey = from_params("EC", bld);
        OSSL_PARAM_BLD_free(bld);
        return key_of(c->kind, pkey);
}

static struct crypto_key *okp_of(struct arena *a, const struct json_value *o)
{
        str x = bytes_member(a, o, "x");

        if (!str_eq(text_member(o, "crv"), STR("Ed25519")) || x.p == NULL || x.n != 32)
                return NULL;
        return key_of(ED25519, EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL,
                                                           (const unsigned char *)x.p, x.n));
}

static struct crypto_key *secret_of(struct arena *a, const struct json_value *o)
{
        str s = bytes_member(a, o, "k");
        struct crypto_key *k;

        if (s.p == NULL || s.n == 0)
                return NULL;
        k = calloc(1, sizeof(*k));
        CHECK(k != NULL);
        *k = (struct crypto_key){.kind = SECRET, .secret = malloc(s.n), .n_secret = s.n};
        CHECK(k->secret != NULL);
        memcpy(k->secret, s.p, s.n);
        OPENSSL_cleanse((char *)(uintptr_t)s.p, s.n);
        return k;
}

/* RFC 7517 4.2, 4.3: is it meant for verifying? */
static bool verifies(const struct json_value *o)
{
        const struct json_value *use = member(o, "use"), *ops = member(o, "key_ops");

        if (use != NULL && !str_eq(text_member(o, "use"), STR("sig")))
                return false;
        if (ops == NULL)
                return true;
        for (size_t i = 0; ops->type == JSON_V_ARRAY && i < ops->n; i++)
                if (ops->elem[i]->type == JSON_V_STRING && str_eq(ops->elem[i]->str, STR("verify")))
                        return true;
        return false;
}

static struct crypto_key *from_jwk(struct arena *a, str text)
{
        const struct json_value *o = json_parse(a, text);
        const struct alg *only = NULL;
        struct crypto_key *k = NULL;
        str kty;

        if (o == NULL || o->type != JSON_V_OBJECT || !verifies(o))
                return NULL;
        if (member(o, "alg") != NULL && (only = alg_of(text_member(o, "alg"))) == NULL)
                return NULL;
        kty = text_member(o, "kty");
        if (str_eq(kty, STR("oct")))
                k = secret_of(a, o);
        else if (member(o, "d") != NULL)
                return NULL; /* a private key has no business here */
        else if (str_eq(kty, STR("RSA")))
                k = rsa_of(a, o);
        else if (str_eq(kty, STR("EC")))
                k = ec_of(a, o);
        else if (str_eq(kty, STR("OKP")))
                k = okp_of(a, o);
        if (k != NULL && only != NULL && only->kind != k->kind) {
                crypto_key_free(k);
                return NULL;
        }
        if (k != NULL)
                k->only = only;
        return k;
}

struct crypto_key *crypto_key_new(struct arena *scratch, str text)
{
        struct crypto_key *k;

        CHECK(pthread_once(&once, init) == 0);
        text = str_trim(text);
        while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
                text.n--;
        if (text.p == NULL || text.n == 0 || text.n > TEXT_MAX)
                return NULL;
        k = text.p[0] == '{' ? from_jwk(scratch, text) : from_pem(text);
        ERR_clear_error();
        return k;
}

/* ------------------------------------------------------------------ verifying */

static bool verify_hmac(const struct crypto_key *k, const struct alg *alg, str data, str sig)
{
        size_t size = (size_t)EVP_MD_get_size(digests[alg->digest]);
        unsigned char out[EVP_MAX_MD_SIZE];
        unsigned n = 0;

        /* RFC 7518 3.2: a secret is at least as long as the digest */
        return k->n_secret >= size && k->n_secret <= INT32_MAX &&
               HMAC(digests[alg->digest], k->secret, (int)k->n_secret,
                    (const unsigned char *)data.p, data.n, out, &n) != NULL &&
               crypto_equal(str_of((char *)out, n), sig);
}

static bool verify_with(const struct crypto_key *k, const struct alg *alg, str data,
                        const unsigned char *sig, size_t n)
{
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        EVP_PKEY_CTX *pctx = NULL;
        bool genuine;

        CHECK(ctx != NULL);
        genuine = EVP_DigestVerifyInit(ctx, &pctx, alg->digest < 0 ? NULL : digests[alg->digest],
                                       NULL, k->pkey) == 1 &&
                  (!alg->pss ||
                   (EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
                    EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1)) &&
                  EVP_DigestVerify(ctx, sig, n, (const unsigned char *)data.p, data.n) == 1;
        EVP_MD_CTX_free(ctx);
        return genuine;
}

/* RFC 7518 3.4: both numbers side by side, each as long as a coordinate; OpenSSL wants DER. */
static bool verify_ecdsa(const struct crypto_key *k, const struct alg *alg, str data, str sig)
{
        const unsigned char *p = (const unsigned char *)sig.p;
        const struct curve *c = &curves[k->kind - P256];
        unsigned char *der = NULL;
        ECDSA_SIG *both;
        BIGNUM *r, *s;
        bool genuine;
        int n;

        if (sig.n != 2 * c->size)
                return false;
        both = ECDSA_SIG_new();
        r = BN_bin2bn(p, (int)c->size, NULL);
        s = BN_bin2bn(p + c->size, (int)c->size, NULL);
        CHECK(both != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(both, r, s) == 1);
        n = i2d_ECDSA_SIG(both, &der);
        ECDSA_SIG_free(both);
        genuine = n > 0 && verify_with(k, alg, data, der, (size_t)n);
        OPENSSL_free(der);
        return genuine;
}

bool crypto_key_verify(const struct crypto_key *k, str alg, str data, str sig)
{
        const struct alg *a = alg_of(alg);
        bool genuine;

        if (k == NULL || a == NULL || a->kind != k->kind || (k->only != NULL && k->only != a) ||
            data.p == NULL || sig.p == NULL)
                return false;
        if (k->kind == SECRET)
                return verify_hmac(k, a, data, sig);
        if (k->kind == RSA_KEY || k->kind == ED25519)
                genuine = verify_with(k, a, data, (const unsigned char *)sig.p, sig.n);
        else
                genuine = verify_ecdsa(k, a, data, sig);
        if (!genuine)
                ERR_clear_error();
        return genuine;
}
