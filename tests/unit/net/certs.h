/*
 * Certificates for tests, made when they are needed: an authority and leaves with any names, age
 * and kind of key.
 */
#ifndef TESTS_NET_CERTS_H
#define TESTS_NET_CERTS_H

#include "base/arena.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

struct cert {
        str cert_pem, key_pem;
        X509 *x;
        EVP_PKEY *key;
};

static str cert_pem_text(struct arena *a, BIO *b)
{
        char *p;
        long n = BIO_get_mem_data(b, &p);
        str s = arena_dup(a, str_of(p, (size_t)n));

        BIO_free(b);
        return s;
}

static void cert_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
        X509V3_CTX ctx;
        X509_EXTENSION *e;

        X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
        e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
        assert_non_null(e);
        assert_int_equal(X509_add_ext(x, e, -1), 1);
        X509_EXTENSION_free(e);
}

/* cn: the subject.  san: "DNS:a,DNS:b,IP:1.2.3.4" or NULL.  by: NULL signs itself (an authority).
 * days: from now, may be negative. */
static struct cert cert_make(struct arena *a, const char *cn, const char *san,
                             const struct cert *by, long days, bool rsa)
{
        static long serial = 1;
        struct cert c;
        X509_NAME *name = X509_NAME_new();
        BIO *b;

        c.key = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
        c.x = X509_new();
        assert_non_null(c.key);
        X509_set_version(c.x, 2);
        ASN1_INTEGER_set(X509_get_serialNumber(c.x), serial++);
        X509_gmtime_adj(X509_getm_notBefore(c.x), -10 * 86400);
        X509_gmtime_adj(X509_getm_notAfter(c.x), days * 86400);
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
        X509_set_subject_name(c.x, name);
        X509_set_issuer_name(c.x, by ? X509_get_subject_name(by->x) : name);
        X509_NAME_free(name);
        X509_set_pubkey(c.x, c.key);
        cert_extension(c.x, by ? by->x : c.x, NID_basic_constraints,
                       by ? "critical,CA:FALSE" : "critical,CA:TRUE");
        if (san != NULL)
                cert_extension(c.x, by ? by->x : c.x, NID_subject_alt_name, san);
        assert_true(X509_sign(c.x, by ? by->key : c.key, EVP_sha256()) > 0);

        b = BIO_new(BIO_s_mem());
        PEM_write_bio_X509(b, c.x);
        c.cert_pem = cert_pem_text(a, b);
        b = BIO_new(BIO_s_mem());
        PEM_write_bio_PrivateKey(b, c.key, NULL, NULL, 0, NULL, NULL);
        c.key_pem = cert_pem_text(a, b);
        return c;
}

static void cert_free(struct cert *c)
{
        X509_free(c->x);
        EVP_PKEY_free(c->key);
}

#endif
