/*
 * The responses of a configuration: what is refused, what is only said, what is shown.
 */
#include "proxy/staple.c"

#include "../net/pump.h"

#include "../net/ocsp.h"
#include "conf/report.h"

static struct arena *a;
static struct cert ca, leaf;
static struct staples all;
static struct staple_show shown[8];

static int up(void **state UNUSED)
{
        a = arena_new(0);
        ca = cert_make(a, "authority", NULL, NULL, 30, false);
        leaf = cert_make(a, "leaf", "DNS:leaf.test", &ca, 30, false);
        tls_init();
        return 0;
}

static int down(void **state UNUSED)
{
        cert_free(&ca);
        cert_free(&leaf);
        arena_free(a);
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static struct listen_cert written(enum listen_ocsp how, int64_t age, int64_t life)
{
        int64_t now = (int64_t)time(NULL);
        struct answer w = {.about = &leaf,
                           .issuer = &ca,
                           .status = V_OCSP_CERTSTATUS_GOOD,
                           .this_update = now - age,
                           .next_update = now - age + life};
        struct listen_cert c = {.cert = {STR("leaf.pem"), STR_NONE}, .ocsp = how};

        c.cert.text = arena_cat(a, (str[]){leaf.cert_pem, ca.cert_pem}, 2);
        if (how == LISTEN_OCSP_FILE)
                c.ocsp_file = (struct file_text){STR("leaf.der"), ocsp_make(a, &w)};
        return c;
}

/* What is said, and whether it went well; errors and warnings as expected. */
static bool prepare(const struct listen_cert *c, struct tls_pair *pair, unsigned errors,
                    unsigned warnings, const char *text)
{
        struct report rep = {0};
        bool ok;

        all = (struct staples){.v = shown, .cap = COUNT(shown)};
        *pair = (struct tls_pair){.cert_pem = c->cert.text};
        ok = staple_prepare(&all, c, pair, a, &rep);
        assert_int_equal(rep.errors, errors);
        assert_int_equal(rep.warnings, warnings);
        assert_true(str_find(buf_pullup(&rep.out, rep.out.n), str_z(text)) >= 0 || !*text);
        buf_clear(&rep.out);
        return ok;
}

static void test_files(void **state UNUSED)
{
        struct listen_cert c = written(LISTEN_OCSP_FILE, 60, 3600);
        struct tls_pair p;

        assert_true(prepare(&c, &p, 0, 0, ""));
        assert_true(str_eq(p.ocsp, c.ocsp_file.text));
        assert_int_equal(all.n, 1);
        assert_int_equal(all.v[0].next_update, p.ocsp_next);
        c = written(LISTEN_OCSP_FILE, 7200, 3600);
        assert_true(prepare(&c, &p, 0, 1, "leaf.der: the response has expired: clients get none"));
        assert_null(p.ocsp.p);
        assert_int_equal(all.v[0].next_update, 0);
        c.ocsp_file.text = STR("nothing");
        assert_false(prepare(&c, &p, 1, 0, "leaf.der: this is no OCSP response"));
        c.cert.text = leaf.cert_pem;
        assert_false(prepare(&c, &p, 1, 0, "leaf.pem: OCSP needs the certificate of the issuer"));
        c.ocsp = LISTEN_OCSP_OFF;
        assert_true(prepare(&c, &p, 0, 0, ""));
        assert_int_equal(all.n, 0);
}

static void test_fetched(void **state UNUSED)
{
        struct listen_cert c = written(LISTEN_OCSP_FETCH, 0, 0);
        struct tls_staples *s = tls_staples_new();
        struct tls_pair p;
        uint8_t id[1][32];

        assert_true(prepare(&c, &p, 0, 1, "leaf.pem: the certificate names no OCSP responder"));
        assert_null(p.staple.all);
        tls_staple_id(c.cert.text, id[0]);
        tls_staples_claim(s, (const uint8_t(*)[32])id, 1, NULL, 0);
        tls_staples_use(s);
        assert_true(prepare(&c, &p, 0, 1, ""));
        assert_ptr_equal(p.staple.all, s);
        tls_staples_use(NULL);
        tls_staples_free(s);
}

static void test_metrics(void **state UNUSED)
{
        struct metric_region *r = metric_region_new(1, 1 << 20);
        struct metric_slot *slot = metric_slot(r, 0);
        struct listen_cert c = written(LISTEN_OCSP_FILE, 0, 1000);
        struct tls_pair p;
        str label = STR("certificate=\"leaf.pem\"");
        struct buf out = BUF_INIT;

        assert_true(prepare(&c, &p, 0, 0, ""));
        staple_show(&all, slot, p.ocsp_next - 70);
        assert_int_equal(metric_sum(r, METRIC_OCSP_EXPIRES, label), 70);
        staple_show(&all, slot, p.ocsp_next + 5);
        assert_int_equal(metric_sum(r, METRIC_OCSP_EXPIRES, label), 0);
        staple_hide(&all, slot);
        metric_export(r, &out);
        assert_true(str_find(buf_pullup(&out, out.n), STR("leaf.pem")) < 0);
        buf_clear(&out);
        metric_region_free(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_files),
                cmocka_unit_test(test_fetched),
                cmocka_unit_test(test_metrics),
        };
        return cmocka_run_group_tests(tests, up, down);
}
