/*
 * Certificates and revocation lists as texts: reading them, and when they expire.
 *
 * The difficulty: the end of a text and a broken part of it look the same to a loop that reads
 * until there is no more; only the error that was left behind tells them apart.
 */
#include "net/tls_type.h"

#include "base/check.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <time.h>

/* Nobody is there to type one. */
int tls_pem_no_password(char *buf UNUSED, int size UNUSED, int writing UNUSED, void *arg UNUSED)
{
        return -1;
}

BIO *tls_pem_open(str pem)
{
        BIO *b = BIO_new_mem_buf(pem.n ? pem.p : "", (int)MIN(pem.n, (size_t)INT32_MAX));

        CHECK(b != NULL);
        ERR_clear_error();
        return b;
}

STACK_OF(X509) * tls_pem_certificates(str pem)
{
        STACK_OF(X509) *all = sk_X509_new_null();
        BIO *b = tls_pem_open(pem);
        X509 *x;

        CHECK(all != NULL);
        while ((x = PEM_read_bio_X509(b, NULL, tls_pem_no_password, NULL)) != NULL)
                CHECK(sk_X509_push(all, x) > 0);
        BIO_free(b);
        if (sk_X509_num(all) > 0 && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) {
                ERR_clear_error();
                return all; /* what stopped it was the end of the text */
        }
        sk_X509_pop_free(all, X509_free);
        return NULL;
}

/* The same for revocation lists. */
STACK_OF(X509_CRL) * tls_pem_lists(str pem)
{
        STACK_OF(X509_CRL) *all = sk_X509_CRL_new_null();
        BIO *b = tls_pem_open(pem);
        X509_CRL *crl;

        CHECK(all != NULL);
        while ((crl = PEM_read_bio_X509_CRL(b, NULL, NULL, NULL)) != NULL)
                CHECK(sk_X509_CRL_push(all, crl) > 0);
        BIO_free(b);
        if (sk_X509_CRL_num(all) > 0 &&
            ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) {
                ERR_clear_error();
                return all;
        }
        sk_X509_CRL_pop_free(all, X509_CRL_free);
        return NULL;
}

/* Seconds of the epoch. */
static bool unix_time(const ASN1_TIME *t, int64_t *out)
{
        struct tm tm;

        if (t == NULL || ASN1_TIME_to_tm(t, &tm) != 1)
                return false;
        *out = (int64_t)timegm(&tm);
        return true;
}

bool tls_certificate_expires(str pem, int64_t *out)
{
        BIO *b = tls_pem_open(pem);
        X509 *x = PEM_read_bio_X509(b, NULL, tls_pem_no_password, NULL);
        bool ok = x != NULL && unix_time(X509_get0_notAfter(x), out);

        ERR_clear_error();
        X509_free(x);
        BIO_free(b);
        return ok;
}

bool tls_crl_expires(str pem, int64_t *out)
{
        STACK_OF(X509_CRL) *all = tls_pem_lists(pem);
        int64_t one;
        bool any = false;

        for (int i = 0; i < sk_X509_CRL_num(all); i++) {
                if (!unix_time(X509_CRL_get0_nextUpdate(sk_X509_CRL_value(all, i)), &one))
                        continue;
                *out = any ? MIN(*out, one) : one;
                any = true;
        }
        sk_X509_CRL_pop_free(all, X509_CRL_free);
        return any;
}
