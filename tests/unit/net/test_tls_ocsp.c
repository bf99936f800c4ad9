/*
 * OCSP: what is asked, and what an answer is worth.  With the argument "corpus DIR" it writes
 * answers of every kind, and the certificates that they are about, for the fuzzer.
 */
#include "net/tls_ocsp.c"

#include "pump.h"

#include "ocsp.h"

static struct arena *a;
static struct cert ca, other_ca, leaf, other, delegate, impostor;
static struct tls_ocsp *o;
static int64_t now;

static str chain_of(const struct cert *c, const struct cert *issuer)
{
        return arena_cat(a, (str[]){c->cert_pem, issuer->cert_pem}, 2);
}

static void make_all(void)
{
        str err;

        a = arena_new(0);
        now = (int64_t)time(NULL);
        ca = cert_make(a, "authority", NULL, NULL, 30, false);
        other_ca = cert_make(a, "other authority", NULL, NULL, 30, false);
        leaf = cert_make(a, "leaf", "DNS:leaf.test", &ca, 30, false);
        other = cert_make(a, "other", "DNS:other.test", &ca, 30, false);
        delegate = cert_make(a, "delegate", NULL, &ca, 30, false);
        cert_extension(delegate.x, ca.x, NID_ext_key_usage, "OCSPSigning");
        assert_true(X509_sign(delegate.x, ca.key, EVP_sha256()) > 0);
        impostor = cert_make(a, "impostor", NULL, &other_ca, 30, false);
        cert_extension(impostor.x, other_ca.x, NID_ext_key_usage, "OCSPSigning");
        assert_true(X509_sign(impostor.x, other_ca.key, EVP_sha256()) > 0);
        o = tls_ocsp_new(chain_of(&leaf, &ca), STR("leaf.pem"), a, &err);
        assert_non_null(o);
}

static int up(void **state UNUSED)
{
        make_all();
        return 0;
}

static int down(void **state UNUSED)
{
        struct cert *all[] = {&ca, &other_ca, &leaf, &other, &delegate, &impostor};

        tls_ocsp_free(o);
        for (size_t i = 0; i < COUNT(all); i++)
                cert_free(all[i]);
        arena_free(a);
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static struct answer fine(void)
{
        return (struct answer){.about = &leaf,
                               .issuer = &ca,
                               .status = V_OCSP_CERTSTATUS_GOOD,
                               .this_update = now - 60,
                               .next_update = now + 3600};
}

static enum tls_ocsp_verdict verdict(const struct answer *w)
{
        struct tls_ocsp_times t;

        return tls_ocsp_judge(o, ocsp_make(a, w), now, &t);
}

static void test_good(void **state UNUSED)
{
        struct answer w = fine();
        struct tls_ocsp_times t;

        assert_int_equal(tls_ocsp_judge(o, ocsp_make(a, &w), now, &t), TLS_OCSP_GOOD);
        assert_int_equal(t.this_update, now - 60);
        assert_int_equal(t.next_update, now + 3600);
        w.digest = EVP_sha256();
        assert_int_equal(verdict(&w), TLS_OCSP_GOOD);
        w.signer = &delegate;
        assert_int_equal(verdict(&w), TLS_OCSP_GOOD);
        w.next_update = 0; /* it does not say: an hour */
        assert_int_equal(tls_ocsp_judge(o, ocsp_make(a, &w), now, &t), TLS_OCSP_GOOD);
        assert_int_equal(t.next_update, now - 60 + TLS_OCSP_NO_NEXT_S);
}

static void test_status(void **state UNUSED)
{
        struct answer w = fine();

        w.status = V_OCSP_CERTSTATUS_REVOKED;
        assert_int_equal(verdict(&w), TLS_OCSP_REVOKED);
        w.status = V_OCSP_CERTSTATUS_UNKNOWN;
        assert_int_equal(verdict(&w), TLS_OCSP_UNKNOWN);
        w = fine();
        w.about = &other;
        assert_int_equal(verdict(&w), TLS_OCSP_FOREIGN);
}

static void test_times(void **state UNUSED)
{
        struct answer w = fine();

        w.this_update = now - 7200;
        w.next_update = now;
        assert_int_equal(verdict(&w), TLS_OCSP_EXPIRED);
        w.next_update = now + 1;
        assert_int_equal(verdict(&w), TLS_OCSP_GOOD);
        w.next_update = 0;
        assert_int_equal(verdict(&w), TLS_OCSP_EXPIRED);
        w.this_update = now + TLS_OCSP_SKEW_S;
        w.next_update = now + 7200;
        assert_int_equal(verdict(&w), TLS_OCSP_GOOD);
        w.this_update++;
        assert_int_equal(verdict(&w), TLS_OCSP_FUTURE);
        w.next_update = w.this_update; /* counts for no time */
        assert_int_equal(verdict(&w), TLS_OCSP_BROKEN);
}

static void test_signers(void **state UNUSED)
{
        struct answer w = fine();
        str der = ocsp_make(a, &w);
        char *changed = arena_dupz(a, der);
        struct tls_ocsp_times t;

        w.signer = &other; /* of the same authority, but not for OCSP */
        assert_int_equal(verdict(&w), TLS_OCSP_FORGED);
        w.signer = &impostor; /* for OCSP, but of another authority */
        assert_int_equal(verdict(&w), TLS_OCSP_FORGED);
        w.signer = &other_ca;
        assert_int_equal(verdict(&w), TLS_OCSP_FORGED);
        w.signer = &leaf; /* nobody vouches for itself */
        assert_int_equal(verdict(&w), TLS_OCSP_FORGED);
        changed[der.n - 1] ^= 1;
        assert_int_not_equal(tls_ocsp_judge(o, str_of(changed, der.n), now, &t), TLS_OCSP_GOOD);
}

static void test_bytes(void **state UNUSED)
{
        struct answer w = fine();
        str der = ocsp_make(a, &w);
        struct tls_ocsp_times t;
        char *big = calloc(1, TLS_OCSP_MAX + 1);

        assert_int_equal(tls_ocsp_judge(o, STR(""), now, &t), TLS_OCSP_BROKEN);
        assert_int_equal(tls_ocsp_judge(o, STR("x"), now, &t), TLS_OCSP_BROKEN);
        for (size_t n = 0; n < der.n; n++)
                assert_int_equal(tls_ocsp_judge(o, str_head(der, n), now, &t), TLS_OCSP_BROKEN);
        assert_int_equal(tls_ocsp_judge(o, arena_cat(a, (str[]){der, STR("x")}, 2), now, &t),
                         TLS_OCSP_BROKEN);
        assert_int_equal(tls_ocsp_judge(o, str_of(big, TLS_OCSP_MAX + 1), now, &t),
                         TLS_OCSP_BROKEN);
        free(big);
        /* tryLater, without anything else (RFC 6960 4.2.1) */
        assert_int_equal(tls_ocsp_judge(o, STR("\x30\x03\x0a\x01\x03"), now, &t),
                         TLS_OCSP_DECLINED);
        assert_int_equal(tls_ocsp_judge(o, STR("\x30\x03\x0a\x01\x00"), now, &t), TLS_OCSP_BROKEN);
        assert_int_equal(ERR_peek_error(), 0);
}

static void test_certificates(void **state UNUSED)
{
        str err = STR_NONE;
        struct cert addressed = cert_make(a, "x", NULL, &ca, 30, false);
        struct tls_ocsp *x;

        assert_null(tls_ocsp_new(leaf.cert_pem, STR("leaf.pem"), a, &err));
        assert_true(str_find(err, STR("leaf.pem: OCSP needs the certificate of the issuer")) == 0);
        assert_null(tls_ocsp_new(chain_of(&leaf, &other_ca), STR("leaf.pem"), a, &err));
        assert_null(tls_ocsp_new(STR("no"), STR("leaf.pem"), a, &err));
        assert_null(tls_ocsp_url(o, a).p);
        cert_extension(
                addressed.x, ca.x, NID_info_access,
                "OCSP;URI:https://no.test/,OCSP;URI:http://yes.test/o,OCSP;URI:http://b.test/");
        x = &(struct tls_ocsp){addressed.x, ca.x};
        assert_true(str_eq(tls_ocsp_url(x, a), STR("http://yes.test/o")));
        cert_free(&addressed);
        assert_false(tls_ocsp_must_staple(leaf.cert_pem));
        assert_false(tls_ocsp_must_staple(STR("no")));
}

static void test_request(void **state UNUSED)
{
        char out[TLS_OCSP_REQUEST_MAX];
        size_t n = tls_ocsp_request(o, out);
        const unsigned char *p = (const unsigned char *)out;
        OCSP_REQUEST *q = d2i_OCSP_REQUEST(NULL, &p, (long)n);
        OCSP_CERTID *id = OCSP_cert_to_id(NULL, leaf.x, ca.x);

        assert_non_null(q);
        assert_int_equal(OCSP_request_onereq_count(q), 1);
        assert_int_equal(OCSP_id_cmp(id, OCSP_onereq_get0_id(OCSP_request_onereq_get0(q, 0))), 0);
        OCSP_CERTID_free(id);
        OCSP_REQUEST_free(q);
}

static void test_refresh(void **state UNUSED)
{
        struct tls_ocsp_times t = {.this_update = 1000, .next_update = 3000};

        for (uint64_t chance = 0; chance < 1000; chance++) {
                int64_t wait = tls_ocsp_refresh(&t, 1000, chance);
                assert_in_range(wait, 900, 1100); /* half, a tenth of it either way */
        }
        assert_int_not_equal(tls_ocsp_refresh(&t, 1000, 0), tls_ocsp_refresh(&t, 1000, 150));
        for (uint64_t chance = 0; chance < 1000; chance++) {
                int64_t wait = tls_ocsp_refresh(&t, 2500, chance); /* half of what is left */
                assert_in_range(wait, 225, 275);
                assert_int_equal(tls_ocsp_refresh(&t, 2999, chance), 1);
                assert_int_equal(tls_ocsp_refresh(&t, 4000, chance), 1);
        }
        t = (struct tls_ocsp_times){0, INT64_MAX / 4};
        assert_true(tls_ocsp_refresh(&t, 0, UINT64_MAX) > 0);
}

static void put_file(const char *dir, const char *name, str data)
{
        char path[512];
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", dir, name);
        f = fopen(path, "w");
        CHECK(f && fwrite(data.p, 1, data.n, f) == data.n && fclose(f) == 0);
}

static void write_corpus(const char *dir)
{
        struct answer w = fine();

        printf("%lld\n%.*s", (long long)now, STR_ARG(chain_of(&leaf, &ca)));
        put_file(dir, "good", ocsp_make(a, &w));
        w.digest = EVP_sha256();
        w.signer = &delegate;
        put_file(dir, "delegate", ocsp_make(a, &w));
        w.signer = &impostor;
        put_file(dir, "impostor", ocsp_make(a, &w));
        w = fine();
        w.status = V_OCSP_CERTSTATUS_REVOKED;
        put_file(dir, "revoked", ocsp_make(a, &w));
        w = fine();
        w.next_update = 0;
        put_file(dir, "no_next", ocsp_make(a, &w));
        w.this_update = now - 7200;
        put_file(dir, "expired", ocsp_make(a, &w));
        w = fine();
        w.about = &other;
        put_file(dir, "foreign", ocsp_make(a, &w));
        put_file(dir, "try_later", STR("\x30\x03\x0a\x01\x03"));
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),    cmocka_unit_test(test_status),
                cmocka_unit_test(test_times),   cmocka_unit_test(test_signers),
                cmocka_unit_test(test_bytes),   cmocka_unit_test(test_certificates),
                cmocka_unit_test(test_request), cmocka_unit_test(test_refresh),
        };

        if (argc == 3 && strcmp(argv[1], "corpus") == 0) {
                make_all();
                write_corpus(argv[2]);
                return down(NULL);
        }
        return cmocka_run_group_tests(tests, up, down);
}
