/*
 * OCSP requests and responses.
 *
 * The difficulty is who may sign: the issuer, or a delegate whose certificate comes with the
 * response.  OpenSSL decides that, with the issuer as the only anchor (it need not be a root) and
 * without the trust that somebody may have put into a root for OCSP at large.
 */
#include "net/tls_ocsp.h"

#include "base/check.h"
#include "net/tls_type.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#define STATUS_REQUEST 5 /* the TLS extension that a must-staple certificate names */

struct tls_ocsp {
        X509 *cert, *issuer;
};

static const struct {
        const char *name, *text;
} verdicts[TLS_OCSP_VERDICTS] = {
        [TLS_OCSP_GOOD] = {"good", "the certificate is good"},
        [TLS_OCSP_REVOKED] = {"revoked", "the certificate was revoked"},
        [TLS_OCSP_UNKNOWN] = {"unknown", "the responder does not know the certificate"},
        [TLS_OCSP_EXPIRED] = {"expired", "the response has expired"},
        [TLS_OCSP_FUTURE] = {"future", "the response is of the future: one of the clocks is wrong"},
        [TLS_OCSP_BROKEN] = {"broken", "this is no OCSP response"},
        [TLS_OCSP_DECLINED] = {"declined", "the responder gave an error instead of an answer"},
        [TLS_OCSP_FOREIGN] = {"foreign", "the response is about another certificate"},
        [TLS_OCSP_FORGED] = {"forged", "the response is not signed by the certificate's issuer or "
                                       "by whom it has certified for OCSP"},
};

const char *tls_ocsp_name(enum tls_ocsp_verdict v)
{
        CHECK(v < TLS_OCSP_VERDICTS);
        return verdicts[v].name;
}

const char *tls_ocsp_text(enum tls_ocsp_verdict v)
{
        CHECK(v < TLS_OCSP_VERDICTS);
        return verdicts[v].text;
}

/* ---- the certificate ---- */

/* Whose key signed the first of them; NULL: that one is not among them. */
static X509 *issuer_of_first(STACK_OF(X509) * all)
{
        X509 *cert = sk_X509_value(all, 0);

        for (int i = 1; i < sk_X509_num(all); i++) {
                X509 *issuer = sk_X509_value(all, i);
                if (X509_check_issued(issuer, cert) == X509_V_OK &&
                    X509_verify(cert, X509_get0_pubkey(issuer)) == 1)
                        return issuer;
        }
        return NULL;
}

struct tls_ocsp *tls_ocsp_new(str chain, str file, struct arena *a, str *err)
{
        STACK_OF(X509) *all = tls_pem_certificates(chain);
        struct tls_ocsp *o = NULL;
        X509 *issuer;

        if (all == NULL) {
                ERR_clear_error();
                *err = arena_printf(a, "%.*s: no certificate in PEM form", STR_ARG(file));
                return NULL;
        }
        issuer = issuer_of_first(all);
        if (issuer != NULL) {
                o = calloc(1, sizeof(*o));
                CHECK(o != NULL);
                o->cert = sk_X509_value(all, 0);
                o->issuer = issuer;
                CHECK(X509_up_ref(o->cert) == 1 && X509_up_ref(o->issuer) == 1);
        } else {
                *err = arena_printf(a,
                                    "%.*s: OCSP needs the certificate of the issuer behind the "
                                    "certificate itself",
                                    STR_ARG(file));
        }
        sk_X509_pop_free(all, X509_free);
        ERR_clear_error();
        return o;
}

void tls_ocsp_free(struct tls_ocsp *o)
{
        if (o == NULL)
                return;
        X509_free(o->cert);
        X509_free(o->issuer);
        free(o);
}

str tls_ocsp_url(const struct tls_ocsp *o, struct arena *a)
{
        STACK_OF(OPENSSL_STRING) *urls = X509_get1_ocsp(o->cert);
        str found = STR_NONE;

        for (int i = 0; i < sk_OPENSSL_STRING_num(urls) && found.p == NULL; i++) {
                str url = str_z(sk_OPENSSL_STRING_value(urls, i));
                if (str_istarts(url, STR("http://")))
                        found = arena_dup(a, url);
        }
        X509_email_free(urls);
        return found;
}

bool tls_ocsp_must_staple(str chain)
{
        STACK_OF(X509) *all = tls_pem_certificates(chain);
        TLS_FEATURE *features = NULL;
        bool must = false;

        if (all != NULL)
                features = X509_get_ext_d2i(sk_X509_value(all, 0), NID_tlsfeature, NULL, NULL);
        for (int i = 0; i < sk_ASN1_INTEGER_num(features); i++)
                must = must ||
                       ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == STATUS_REQUEST;
        sk_ASN1_INTEGER_pop_free(features, ASN1_INTEGER_free);
        sk_X509_pop_free(all, X509_free);
        ERR_clear_error();
        return must;
}

/* ---- the request ---- */

size_t tls_ocsp_request(const struct tls_ocsp *o, char out[TLS_OCSP_REQUEST_MAX])
{
        OCSP_REQUEST *q = OCSP_REQUEST_new();
        OCSP_CERTID *id = OCSP_cert_to_id(NULL, o->cert, o->issuer); /* SHA-1: RFC 5019 2.1.1 */
        unsigned char *to = (unsigned char *)out;
        int n = 0;

        CHECK(q != NULL);
        if (id != NULL && OCSP_request_add0_id(q, id) != NULL) {
                n = i2d_OCSP_REQUEST(q, NULL);
                n = n > 0 && n <= (int)TLS_OCSP_REQUEST_MAX ? i2d_OCSP_REQUEST(q, &to) : 0;
        } else {
                OCSP_CERTID_free(id);
        }
        OCSP_REQUEST_free(q);
        ERR_clear_error();
        return (size_t)MAX(n, 0);
}

/* ---- the response ---- */

/* Was it signed by the issuer, or by a responder with a certificate of the issuer's for that? */
static bool signed_rightly(const struct tls_ocsp *o, OCSP_BASICRESP *basic, int64_t now_s)
{
        X509_STORE *store = X509_STORE_new();
        STACK_OF(X509) *chain = sk_X509_new_null();
        bool ok;

        CHECK(store != NULL && chain != NULL);
        CHECK(X509_STORE_add_cert(store, o->issuer) == 1 && sk_X509_push(chain, o->issuer) > 0);
        X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
        X509_VERIFY_PARAM_set_time(X509_STORE_get0_param(store), (time_t)now_s);
        ok = OCSP_basic_verify(basic, chain, store, OCSP_NOEXPLICIT) == 1;
        sk_X509_free(chain);
        X509_STORE_free(store);
        return ok;
}

/* The answer about our certificate, by whatever digest it names it. */
static OCSP_SINGLERESP *find_ours(const struct tls_ocsp *o, OCSP_BASICRESP *basic)
{
        for (int i = 0; i < OCSP_resp_count(basic); i++) {
                OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
                const OCSP_CERTID *id = OCSP_SINGLERESP_get0_id(single);
                ASN1_OBJECT *digest = NULL;
                const EVP_MD *md;
                OCSP_CERTID *ours;
                bool same;

                (void)OCSP_id_get0_info(NULL, &digest, NULL, NULL, (OCSP_CERTID *)(uintptr_t)id);
                md = digest ? EVP_get_digestbyobj(digest) : NULL;
                ours = md ? OCSP_cert_to_id(md, o->cert, o->issuer) : NULL;
                same = ours != NULL && OCSP_id_cmp(ours, id) == 0;
                OCSP_CERTID_free(ours);
                if (same)
                        return single;
        }
        return NULL;
}

static bool seconds(const ASN1_GENERALIZEDTIME *t, int64_t *out)
{
        struct tm tm;

        if (t == NULL || ASN1_GENERALIZEDTIME_check(t) != 1 || ASN1_TIME_to_tm(t, &tm) != 1)
                return false;
        *out = (int64_t)timegm(&tm);
        return true;
}

static enum tls_ocsp_verdict judge_single(OCSP_SINGLERESP *single, int64_t now_s,
                                          struct tls_ocsp_times *times)
{
        ASN1_GENERALIZEDTIME *this_update = NULL, *next_update = NULL;
        int status = OCSP_single_get0_status(single, NULL, NULL, &this_update, &next_update);

        if (!seconds(this_update, &times->this_update))
                return TLS_OCSP_BROKEN;
        times->next_update = times->this_update + TLS_OCSP_NO_NEXT_S;
        if (next_update != NULL && (!seconds(next_update, &times->next_update) ||
                                    times->next_update <= times->this_update))
                return TLS_OCSP_BROKEN;
        if (times->this_update > now_s + TLS_OCSP_SKEW_S)
                return TLS_OCSP_FUTURE;
        if (times->next_update <= now_s)
                return TLS_OCSP_EXPIRED;
        return status == V_OCSP_CERTSTATUS_GOOD      ? TLS_OCSP_GOOD
               : status == V_OCSP_CERTSTATUS_REVOKED ? TLS_OCSP_REVOKED
                                                     : TLS_OCSP_UNKNOWN;
}

static enum tls_ocsp_verdict judge(const struct tls_ocsp *o, OCSP_RESPONSE *r, int64_t now_s,
                                   struct tls_ocsp_times *times)
{
        OCSP_BASICRESP *basic;
        OCSP_SINGLERESP *single;
        enum tls_ocsp_verdict v;

        if (OCSP_response_status(r) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
                return TLS_OCSP_DECLINED;
        basic = OCSP_response_get1_basic(r);
        if (basic == NULL)
                return TLS_OCSP_BROKEN;
        single = find_ours(o, basic);
        if (single == NULL)
                v = TLS_OCSP_FOREIGN;
        else if (!signed_rightly(o, basic, now_s))
                v = TLS_OCSP_FORGED;
        else
                v = judge_single(single, now_s, times);
        OCSP_BASICRESP_free(basic);
        return v;
}

enum tls_ocsp_verdict tls_ocsp_judge(const struct tls_ocsp *o, str der, int64_t now_s,
                                     struct tls_ocsp_times *times)
{
        const unsigned char *p = (const unsigned char *)der.p;
        OCSP_RESPONSE *r;
        enum tls_ocsp_verdict v = TLS_OCSP_BROKEN;

        *times = (struct tls_ocsp_times){0};
        if (der.n == 0 || der.n > TLS_OCSP_MAX)
                return TLS_OCSP_BROKEN;
        r = d2i_OCSP_RESPONSE(NULL, &p, (long)der.n);
        if (r != NULL && p == (const unsigned char *)der.p + der.n)
                v = judge(o, r, now_s, times);
        OCSP_RESPONSE_free(r);
        ERR_clear_error();
        return v;
}

int64_t tls_ocsp_refresh(const struct tls_ocsp_times *t, int64_t now_s, uint64_t chance)
{
        int64_t half = (t->next_update - t->this_update) / 2, left = t->next_update - now_s;
        int64_t wait = t->this_update + half - now_s, spread;

        if (wait <= 0) {
                wait = left / 2;
                half = wait;
        }
        spread = MAX(half / 5, 0);
        return MAX(wait - spread / 2 + (int64_t)(chance % (uint64_t)(spread + 1)), 1);
}
