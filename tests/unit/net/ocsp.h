/*
 * OCSP responses for tests, about any certificate, by any signer, of any time.
 */
#ifndef TESTS_NET_OCSP_H
#define TESTS_NET_OCSP_H

#include "certs.h"

#include <openssl/ocsp.h>

struct answer {
        const struct cert *about, *issuer;
        const struct cert *signer;        /* NULL: the issuer */
        int status;                       /* V_OCSP_CERTSTATUS_* */
        int64_t this_update, next_update; /* seconds of the epoch; 0: no next */
        const EVP_MD *digest;             /* of the certificate's id; NULL: SHA-1 */
};

static str ocsp_make(struct arena *a, const struct answer *w)
{
        OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
        OCSP_CERTID *id = OCSP_cert_to_id(w->digest, w->about->x, w->issuer->x);
        ASN1_TIME *this_update = ASN1_TIME_set(NULL, (time_t)w->this_update);
        ASN1_TIME *next_update =
                w->next_update ? ASN1_TIME_set(NULL, (time_t)w->next_update) : NULL;
        ASN1_TIME *revoked =
                w->status == V_OCSP_CERTSTATUS_REVOKED ? ASN1_TIME_dup(this_update) : NULL;
        const struct cert *signer = w->signer ? w->signer : w->issuer;
        OCSP_RESPONSE *r;
        unsigned char *der = NULL;
        int n;
        str out;

        assert_non_null(OCSP_basic_add1_status(basic, id, w->status, 0, revoked,
                                               (ASN1_TIME *)this_update, next_update));
        assert_int_equal(OCSP_basic_sign(basic, signer->x, signer->key, EVP_sha256(), NULL,
                                         w->signer ? 0 : OCSP_NOCERTS),
                         1);
        r = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
        n = i2d_OCSP_RESPONSE(r, &der);
        assert_true(n > 0);
        out = arena_dup(a, str_of(der, (size_t)n));
        OPENSSL_free(der);
        OCSP_RESPONSE_free(r);
        OCSP_BASICRESP_free(basic);
        OCSP_CERTID_free(id);
        ASN1_TIME_free(this_update);
        ASN1_TIME_free(next_update);
        ASN1_TIME_free(revoked);
        return out;
}

#endif
