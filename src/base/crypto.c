/*
 * Digests, secrets, encodings, randomness.
 *
 * The difficulty is the fork: OpenSSL's generator notices one by itself, our fast one must be told,
 * or two workers would draw the same numbers.
 */
#include "base/crypto.h"

#include "base/check.h"
#include "base/siphash.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>

static EVP_MD *sha256;
static EVP_MAC_CTX *hmac; /* knows its digest, has no key; each call works on a copy */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Counts forks; written only by the one thread of a child that has just been made. */
static uint64_t forks = 1;

static _Thread_local struct {
        uint64_t s[2];
        uint64_t forks; /* when it was seeded; 0: never */
} fast;

static void forked(void)
{
        forks++;
}

static void init(void)
{
        char digest[] = "SHA256";
        OSSL_PARAM params[] = {
                OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                OSSL_PARAM_construct_end(),
        };
        EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);

        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
        CHECK(sha256 && mac);
        hmac = EVP_MAC_CTX_new(mac);
        CHECK(hmac && EVP_MAC_CTX_set_params(hmac, params) == 1);
        EVP_MAC_free(mac);
        CHECK(pthread_atfork(NULL, NULL, forked) == 0);
}

void crypto_init(void)
{
        CHECK(pthread_once(&once, init) == 0);
}

void crypto_sha256(str data, uint8_t out[32])
{
        crypto_init();
        CHECK(EVP_Digest(data.p ? data.p : "", data.n, out, NULL, sha256, NULL) == 1);
}

void crypto_sha1(str data, uint8_t out[20])
{
        crypto_init();
        CHECK(EVP_Digest(data.p ? data.p : "", data.n, out, NULL, EVP_sha1(), NULL) == 1);
}

void crypto_hmac_sha256(str key, str data, uint8_t out[32])
{
        EVP_MAC_CTX *ctx;
        size_t n;

        crypto_init();
        ctx = EVP_MAC_CTX_dup(hmac);
        CHECK(ctx != NULL);
        CHECK(EVP_MAC_init(ctx, (const unsigned char *)(key.p ? key.p : ""), key.n, NULL) == 1);
        CHECK(EVP_MAC_update(ctx, (const unsigned char *)(data.p ? data.p : ""), data.n) == 1);
        CHECK(EVP_MAC_final(ctx, out, &n, 32) == 1 && n == 32);
        EVP_MAC_CTX_free(ctx);
}

void crypto_random(void *p, size_t n)
{
        unsigned char *at = p;

        while (n > 0) {
                int some = (int)MIN(n, (size_t)1 << 20);
                CHECK(RAND_bytes(at, some) == 1);
                at += some;
                n -= (size_t)some;
        }
}

static COLD void seed_fast(void)
{
        crypto_init();
        crypto_random(fast.s, sizeof(fast.s));
        fast.s[0] |= 1; /* the one state it must not have is all zeros */
        fast.forks = forks;
}

/* xorshift128+ (Vigna 2014): not for secrets. */
uint64_t crypto_fast_random(void)
{
        uint64_t x, y;

        if (UNLIKELY(fast.forks != forks))
                seed_fast();
        x = fast.s[0];
        y = fast.s[1];
        fast.s[0] = y;
        x ^= x << 23;
        fast.s[1] = x ^ y ^ (x >> 17) ^ (y >> 26);
        return fast.s[1] + y;
}

bool crypto_equal(str a, str b)
{
        return a.n == b.n && (a.n == 0 || CRYPTO_memcmp(a.p, b.p, a.n) == 0);
}

uint64_t crypto_siphash(const uint8_t key[16], str data)
{
        return siphash(2, 4, siphash_word((const char *)key, 8),
                       siphash_word((const char *)key + 8, 8), data);
}

void crypto_hex(char *out, const void *p, size_t n)
{
        static const char digits[] = "0123456789abcdef";
        const unsigned char *b = p;

        for (size_t i = 0; i < n; i++) {
                out[2 * i] = digits[b[i] >> 4];
                out[2 * i + 1] = digits[b[i] & 15];
        }
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/* Digits 62 and 63. */
static const char *special(bool url)
{
        return url ? "-_" : "+/";
}

char crypto_base64_digit(unsigned v, bool url)
{
        v &= 63;
        return v < 62 ? alphabet[v] : special(url)[v - 62];
}

str crypto_base64(struct arena *a, str s, bool url)
{
        size_t n = s.n / 3 * 4 + (s.n % 3 == 0 ? 0 : url ? s.n % 3 + 1 : 4), o = 0;
        const unsigned char *b = (const unsigned char *)s.p;
        char *out = arena_alloc(a, n + 1);

        if (!out)
                return STR_NONE;
        for (size_t i = 0; i < s.n; i += 3) {
                size_t some = MIN(s.n - i, (size_t)3);
                unsigned v = (unsigned)b[i] << 16 | (some > 1 ? (unsigned)b[i + 1] << 8 : 0) |
                             (some > 2 ? b[i + 2] : 0);
                for (size_t k = 0; k <= some; k++)
                        out[o++] = crypto_base64_digit(v >> (18 - 6 * k), url);
                for (size_t k = some; k < 3 && !url; k++)
                        out[o++] = '=';
        }
        CHECK(o == n);
        out[n] = '\0';
        return str_of(out, n);
}

int crypto_base64_value(char c, bool url)
{
        if (c >= 'A' && c <= 'Z')
                return c - 'A';
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 26;
        if (c >= '0' && c <= '9')
                return c - '0' + 52;
        if (c == special(url)[0])
                return 62;
        return c == special(url)[1] ? 63 : -1;
}

bool crypto_base64_decode(struct arena *a, str s, bool url, str *out)
{
        unsigned v = 0, bits = 0;
        size_t n = 0;
        char *p;

        if (!url) { /* RFC 4648 3.2: padding is required where it applies */
                if (s.n % 4 != 0)
                        return false;
                for (int i = 0; i < 2 && s.n > 0 && s.p[s.n - 1] == '='; i++)
                        s.n--;
        }
        if (s.n % 4 == 1)
                return false;
        p = arena_alloc(a, s.n / 4 * 3 + 3);
        if (!p)
                return false;
        for (size_t i = 0; i < s.n; i++) {
                int d = crypto_base64_value(s.p[i], url);
                if (d < 0)
                        return false;
                v = (v << 6 | (unsigned)d) & 0xffff;
                bits += 6;
                if (bits >= 8) {
                        bits -= 8;
                        p[n++] = (char)(v >> bits);
                }
        }
        if (v & ((1u << bits) - 1)) /* RFC 4648 3.5: one text for each value */
                return false;
        p[n] = '\0';
        *out = str_of(p, n);
        return true;
}
