/* The examples of RFC 7515 and 8037, each algorithm with a key made here, and no algorithm with
 * another's key. */
#include "base/crypto_key.c"

#include "unit.h"

static struct arena *arena;

static struct crypto_key *key(const char *text)
{
        return crypto_key_new(arena, str_z(text));
}

static str decoded(const char *text)
{
        str out = STR_NONE;
        assert_true(crypto_base64_decode(arena, str_z(text), true, &out));
        return out;
}

#define JOE                                                                                        \
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp" \
        "0cnVlfQ"
#define SECRET_JWK                                                                                 \
        "{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75"          \
        "aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\""
#define RSA_N                                                                                      \
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt" \
        "0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSX" \
        "ndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5" \
        "IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
#define RSA_JWK "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\""
#define P256_X  "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define P256_Y  "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define EC_JWK  "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" P256_X "\",\"y\":\"" P256_Y "\""
#define P521_JWK                                                                                   \
        "{\"kty\":\"EC\",\"crv\":\"P-521\",\"x\":\"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrj"   \
        "cBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk\",\"y\":\"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQ"   \
        "yyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2\""
#define ED_JWK                                                                                     \
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHU"   \
        "Ro\""

/* RFC 7515 A.1 to A.4, RFC 8037 A.4 */
static const struct {
        const char *jwk, *alg, *data, *sig;
} examples[] = {
        {SECRET_JWK "}", "HS256", "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9" JOE,
         "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"},
        {RSA_JWK "}", "RS256", "eyJhbGciOiJSUzI1NiJ9" JOE,
         "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W"
         "2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkS"
         "jtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnv"
         "Wh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
        {EC_JWK "}", "ES256", "eyJhbGciOiJFUzI1NiJ9" JOE,
         "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
        {P521_JWK "}", "ES512", "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA",
         "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7Xdt"
         "AG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_"
         "Jn"},
        {ED_JWK "}", "EdDSA", "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
         "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
};

static void the_examples_hold(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT(examples); i++) {
                struct crypto_key *k = key(examples[i].jwk);
                str data = str_z(examples[i].data), sig = decoded(examples[i].sig);
                char *bad = arena_dupz(arena, sig);

                assert_non_null(k);
                for (size_t n = 0; n < COUNT(algs); n++) {
                        bool mine = strcmp(algs[n].name, examples[i].alg) == 0;
                        if (crypto_key_verify(k, str_z(algs[n].name), data, sig) != mine)
                                fail_msg("%s with a key of %s", algs[n].name, examples[i].alg);
                }
                assert_false(crypto_key_verify(k, STR("none"), data, sig));
                assert_false(crypto_key_verify(k, STR("none"), data, STR("")));
                assert_false(crypto_key_verify(k, str_z(examples[i].alg), data, STR("")));
                assert_false(crypto_key_verify(k, str_z(examples[i].alg), data, STR_NONE));
                assert_false(crypto_key_verify(k, str_z(examples[i].alg),
                                               str_head(data, data.n - 1), sig));
                assert_false(crypto_key_verify(k, str_z(examples[i].alg), data,
                                               str_head(sig, sig.n - 1)));
                for (size_t at = 0; at < sig.n; at += 7) {
                        bad[at] = (char)(bad[at] ^ 1);
                        assert_false(crypto_key_verify(k, str_z(examples[i].alg), data,
                                                       str_of(bad, sig.n)));
                        bad[at] = (char)(bad[at] ^ 1);
                }
                crypto_key_free(k);
        }
}

/* ------------------------------------------------------------------ keys made here */

static char *pem_of(EVP_PKEY *pkey, bool private)
{
        BIO *bio = BIO_new(BIO_s_mem());
        char *p, *text;
        long n;

        assert_int_equal(private ? PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL)
                                 : PEM_write_bio_PUBKEY(bio, pkey),
                         1);
        n = BIO_get_mem_data(bio, &p);
        text = arena_dupz(arena, str_of(p, (size_t)n));
        BIO_free(bio);
        return text;
}

/* A signature as JOSE has it. */
static str signed_by(EVP_PKEY *pkey, const struct alg *alg, str data)
{
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        EVP_PKEY_CTX *pctx = NULL;
        unsigned char *sig = arena_alloc(arena, 2048), *both = arena_zalloc(arena, 2048);
        const unsigned char *p = sig;
        size_t n = 2048, size;
        ECDSA_SIG *rs;

        assert_int_equal(EVP_DigestSignInit(ctx, &pctx,
                                            alg->digest < 0 ? NULL : digests[alg->digest], NULL,
                                            pkey),
                         1);
        if (alg->pss) {
                EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING);
                EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST);
        }
        assert_int_equal(EVP_DigestSign(ctx, sig, &n, (const unsigned char *)data.p, data.n), 1);
        EVP_MD_CTX_free(ctx);
        if (alg->kind < P256 || alg->kind > P521)
                return str_of((char *)sig, n);
        size = curves[alg->kind - P256].size;
        rs = d2i_ECDSA_SIG(NULL, &p, (long)n);
        BN_bn2binpad(ECDSA_SIG_get0_r(rs), both, (int)size);
        BN_bn2binpad(ECDSA_SIG_get0_s(rs), both + size, (int)size);
        ECDSA_SIG_free(rs);
        return str_of((char *)both, 2 * size);
}

static void every_algorithm(void **state)
{
        EVP_PKEY *pkey[] = {[RSA_KEY] = EVP_RSA_gen(2048),
                            [P256] = EVP_EC_gen("P-256"),
                            [P384] = EVP_EC_gen("P-384"),
                            [P521] = EVP_EC_gen("P-521"),
                            [ED25519] = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};
        str data = STR("signed"), sig;

        (void)state;
        for (size_t i = 0; i < COUNT(algs); i++) {
                if (algs[i].kind == SECRET)
                        continue;
                sig = signed_by(pkey[algs[i].kind], &algs[i], data);
                for (size_t with = RSA_KEY; with <= ED25519; with++) {
                        struct crypto_key *k = key(pem_of(pkey[with], false));
                        assert_non_null(k);
                        for (size_t as = 0; as < COUNT(algs); as++)
                                if (crypto_key_verify(k, str_z(algs[as].name), data, sig) !=
                                    (as == i && with == algs[i].kind))
                                        fail_msg("a signature of %s, taken as %s with key %zu",
                                                 algs[i].name, algs[as].name, with);
                        crypto_key_free(k);
                }
        }
        for (size_t i = RSA_KEY; i <= ED25519; i++) {
                assert_null(key(pem_of(pkey[i], true)));
                EVP_PKEY_free(pkey[i]);
        }
}

/* The public key's own text must not serve as a secret. */
static void a_public_key_is_no_secret(void **state)
{
        EVP_PKEY *pkey = EVP_RSA_gen(2048);
        const char *pem = pem_of(pkey, false);
        struct crypto_key *k = key(pem);
        unsigned char mac[32];
        unsigned n = 0;

        (void)state;
        HMAC(EVP_sha256(), pem, (int)strlen(pem), (const unsigned char *)"x", 1, mac, &n);
        assert_false(crypto_key_verify(k, STR("HS256"), STR("x"), str_of((char *)mac, 32)));
        crypto_key_free(k);
        EVP_PKEY_free(pkey);
}

/* RFC 4231 4.3's data under a secret that is as long as the digest, and one byte less. */
static void short_secrets(void **state)
{
        static const size_t size[] = {32, 48, 64};
        char text[256], secret[64] = {0};

        (void)state;
        for (size_t i = 0; i < 3; i++) {
                for (size_t n = size[i] - 1; n <= size[i]; n++) {
                        unsigned char mac[64];
                        unsigned len = 0;
                        struct crypto_key *k;
                        str s = crypto_base64(arena, str_of(secret, n), true);

                        HMAC(digests[i], secret, (int)n, (const unsigned char *)"x", 1, mac, &len);
                        snprintf(text, sizeof(text), "{\"kty\":\"oct\",\"k\":\"%.*s\"}",
                                 STR_ARG(s));
                        k = key(text);
                        assert_non_null(k);
                        assert_int_equal(crypto_key_verify(k, str_z(algs[i].name), STR("x"),
                                                           str_of((char *)mac, len)),
                                         n == size[i]);
                        crypto_key_free(k);
                }
        }
}

static void what_is_no_key(void **state)
{
        static const char *const rows[] = {
                "",
                "x",
                "{}",
                "[]",
                "{\"kty\":\"oct\"}",
                "{\"kty\":\"oct\",\"k\":\"\"}",
                "{\"kty\":\"oct\",\"k\":\"=\"}",
                "{\"kty\":\"oct\",\"k\":\"AAAA\",\"alg\":\"RS256\"}",
                SECRET_JWK ",\"use\":\"enc\"}",
                SECRET_JWK ",\"use\":1}",
                SECRET_JWK ",\"key_ops\":[\"encrypt\"]}",
                SECRET_JWK ",\"key_ops\":\"verify\"}",
                SECRET_JWK ",\"alg\":\"none\"}",
                SECRET_JWK ",\"alg\":\"A128KW\"}",
                SECRET_JWK ",\"k\":\"AAAA\"}", /* a name twice */
                RSA_JWK ",\"d\":\"AAAA\"}",
                RSA_JWK ",\"alg\":\"ES256\"}",
                "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\"}",
                "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQ\"}",
                "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"Ag\"}",
                "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
                EC_JWK ",\"d\":\"AAAA\"}",
                "{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" P256_X "\",\"y\":\"" P256_Y "\"}",
                "{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"" P256_X "\",\"y\":\"" P256_Y "\"}",
                "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" P256_Y "\",\"y\":\"" P256_X "\"}",
                "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" P256_X "\"}",
                "{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" P256_X "\"}",
                "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}",
                "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
                "-----BEGIN PUBLIC KEY-----\n",
        };
        EVP_PKEY *small = EVP_RSA_gen(1024), *dsa = EVP_EC_gen("secp256k1");

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++)
                if (key(rows[i]) != NULL)
                        fail_msg("taken for a key: %s", rows[i]);
        assert_null(key(pem_of(small, false)));
        assert_null(key(pem_of(dsa, false)));
        assert_null(crypto_key_new(arena, STR_NONE));
        EVP_PKEY_free(small);
        EVP_PKEY_free(dsa);
        crypto_key_free(NULL);
        assert_false(crypto_key_verify(NULL, STR("HS256"), STR("x"), STR("x")));
}

static void a_jwk_says_its_algorithm(void **state)
{
        struct crypto_key *k = key(SECRET_JWK ",\"alg\":\"HS256\",\"use\":\"sig\",\"key_ops\":[1,"
                                              "\"verify\"],\"kid\":\"1\"}"),
                          *other = key(SECRET_JWK ",\"alg\":\"HS512\"}");
        str data = str_z(examples[0].data), sig = decoded(examples[0].sig);

        (void)state;
        assert_true(crypto_key_verify(k, STR("HS256"), data, sig));
        assert_false(crypto_key_verify(other, STR("HS256"), data, sig));
        crypto_key_free(k);
        crypto_key_free(other);
}

static int begin(void **state)
{
        (void)state;
        arena = arena_new(0);
        return 0;
}

static int end(void **state)
{
        (void)state;
        arena_free(arena);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_examples_hold),
                cmocka_unit_test(every_algorithm),
                cmocka_unit_test(a_public_key_is_no_secret),
                cmocka_unit_test(short_secrets),
                cmocka_unit_test(what_is_no_key),
                cmocka_unit_test(a_jwk_says_its_algorithm),
        };

        return cmocka_run_group_tests(tests, begin, end);
}
