/*
 * TLS contexts: what is loaded, which name gets which certificate, what is shared, and what is said
 * when a file is wrong.
 */
#include "net/tls.c"

#include "pump.h"

#include "certs.h"

static struct arena *a;
static struct cert ca, one, two, wild, plain_cn, rsa_one, rsa_turned, rsa_fewer, one_again;

static int up(void **state UNUSED)
{
        a = arena_new(0);
        ca = cert_make(a, "test authority", NULL, NULL, 30, false);
        one = cert_make(a, "one", "DNS:one.example,DNS:also.one.example", &ca, 30, false);
        rsa_one = cert_make(a, "one", "DNS:one.example,DNS:also.one.example", &ca, 30, true);
        rsa_turned = cert_make(a, "one", "DNS:also.one.example,DNS:one.example", &ca, 30, true);
        rsa_fewer = cert_make(a, "one", "DNS:one.example", &ca, 30, true);
        one_again = cert_make(a, "one", "DNS:one.example,DNS:also.one.example", &ca, 30, false);
        two = cert_make(a, "two", "DNS:TWO.example", &ca, 30, false);
        wild = cert_make(a, "wild", "DNS:*.one.example,DNS:*.two.example", &ca, 30, false);
        plain_cn = cert_make(a, "cn.example", NULL, &ca, 30, false);
        return 0;
}

static int down(void **state UNUSED)
{
        cert_free(&ca);
        cert_free(&one);
        cert_free(&rsa_one);
        cert_free(&rsa_turned);
        cert_free(&rsa_fewer);
        cert_free(&one_again);
        cert_free(&two);
        cert_free(&wild);
        cert_free(&plain_cn);
        arena_free(a);
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static struct tls_pair pair(const struct cert *c)
{
        return (struct tls_pair){.cert_pem = c->cert_pem,
                                 .key_pem = c->key_pem,
                                 .cert_file = STR("site.pem"),
                                 .key_file = STR("site.key")};
}

static const str h1[] = {STR_INIT("http/1.1")};

static struct tls_server_conf conf(const struct tls_pair *pairs, size_t n)
{
        return (struct tls_server_conf){
                .pairs = pairs,
                .n_pairs = n,
                .alpn = h1,
                .n_alpn = 1,
                .version_min = 12,
                .version_max = 13,
        };
}

static bool chosen(const struct tls_server *s, const char *sni, const struct cert *want)
{
        return X509_cmp(SSL_CTX_get0_certificate(tls_server_choose(s, str_z(sni))), want->x) == 0;
}

static void test_names(void **state UNUSED)
{
        struct tls_pair p[] = {pair(&one), pair(&two), pair(&wild), pair(&plain_cn)};
        struct tls_server_conf c = conf(p, COUNT(p));
        str err = STR_NONE;
        struct tls_server *s = tls_server_new(&c, a, &err);

        assert_non_null(s);
        assert_int_equal(s->n_ctx, 4);
        assert_true(chosen(s, "one.example", &one));
        assert_true(chosen(s, "ONE.Example", &one));
        assert_true(chosen(s, "also.one.example", &one)); /* exact before wildcard */
        assert_true(chosen(s, "other.one.example", &wild));
        assert_true(chosen(s, "a.b.one.example", &one)); /* a star is one label: the default */
        assert_true(chosen(s, "two.example", &two));
        assert_true(chosen(s, "x.two.example", &wild));
        assert_true(chosen(s, "cn.example", &plain_cn));
        assert_true(chosen(s, "unknown.example", &one));
        assert_true(chosen(s, "", &one));
        assert_true(chosen(s, NULL, &one));
        assert_true(chosen(s, ".two.example", &one));
        tls_server_drop(s);
}

static void test_two_kinds_of_key_share_a_context(void **state UNUSED)
{
        struct tls_pair p[] = {pair(&one), pair(&rsa_one)};
        struct tls_server_conf c = conf(p, COUNT(p));
        str err = STR_NONE;
        struct tls_server *s = tls_server_new(&c, a, &err);

        assert_non_null(s);
        assert_int_equal(s->n_ctx, 1);
        tls_server_drop(s);
        p[1] = pair(&rsa_turned); /* the same names in another order */
        s = tls_server_new(&c, a, &err);
        assert_non_null(s);
        assert_int_equal(s->n_ctx, 1);
        tls_server_drop(s);
        p[1] = pair(&rsa_fewer);
        s = tls_server_new(&c, a, &err);
        assert_non_null(s);
        assert_int_equal(s->n_ctx, 2);
        assert_true(chosen(s, "one.example", &one));
        tls_server_drop(s);
}

/* A third one of a kind that is there already does not push the first one out. */
static void test_the_first_of_a_kind_counts(void **state UNUSED)
{
        struct tls_pair p[] = {pair(&one), pair(&rsa_one), pair(&rsa_turned), pair(&one_again)};
        struct tls_server_conf c = conf(p, COUNT(p));
        str err = STR_NONE;
        struct tls_server *s = tls_server_new(&c, a, &err);
        X509 *shown[2];

        assert_non_null(s);
        SSL_CTX *ctx = tls_server_choose(s, STR("one.example"));
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(
                        SSL_CTX_set_current_cert(ctx, i ? SSL_CERT_SET_NEXT : SSL_CERT_SET_FIRST),
                        1);
                shown[i] = SSL_CTX_get0_certificate(ctx);
        }
        assert_int_equal(SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT), 0);
        assert_true(X509_cmp(shown[0], rsa_one.x) == 0 || X509_cmp(shown[1], rsa_one.x) == 0);
        assert_true(X509_cmp(shown[0], one.x) == 0 || X509_cmp(shown[1], one.x) == 0);
        tls_server_drop(s);
}

static void test_shared_by_content(void **state UNUSED)
{
        struct tls_pair p[] = {pair(&one)}, q[] = {pair(&two)};
        struct tls_server_conf c = conf(p, 1), d = conf(q, 1);
        str err = STR_NONE;
        struct tls_server *s = tls_server_new(&c, a, &err);
        struct tls_server *t = tls_server_new(&c, a, &err);
        struct tls_server *u = tls_server_new(&d, a, &err);

        assert_ptr_equal(s, t);
        assert_ptr_not_equal(s, u);
        assert_int_equal(tls_server_policy(s), tls_server_policy(u));
        tls_server_drop(s);
        tls_server_drop(t);
        assert_true(list_linked(&u->shared.link));
        assert_ptr_equal(servers.next, &u->shared.link); /* the only one left */
        assert_ptr_equal(servers.prev, &u->shared.link);
        c.client_certificate = TLS_CLIENT_REQUIRED;
        c.client_ca_pem = ca.cert_pem;
        c.client_ca_file = STR("ca.pem");
        s = tls_server_new(&c, a, &err);
        assert_non_null(s);
        assert_int_not_equal(tls_server_policy(s), tls_server_policy(u));
        c.client_depth = 1; /* all that decides who is let in is the policy */
        t = tls_server_new(&c, a, &err);
        assert_non_null(t);
        assert_int_not_equal(tls_server_policy(s), tls_server_policy(t));
        tls_server_drop(t);
        tls_server_drop(s);
        tls_server_drop(u);
        tls_server_drop(NULL);
        assert_true(list_empty(&servers));
}

/* Exact, then the longest suffix; a host without parameters of its own is nearer all the same. */
static void test_hosts(void **state UNUSED)
{
        static const str strict_names[] = {STR_INIT("a.example"), STR_INIT("*.example")},
                         open_names[] = {STR_INIT("open.example"), STR_INIT("*.b.example")};
        struct tls_pair p[] = {pair(&one)}, q[] = {pair(&two)};
        struct tls_server_conf c = conf(p, 1), d = conf(q, 1);
        str err = STR_NONE;

        d.client_certificate = TLS_CLIENT_REQUIRED;
        d.client_ca_pem = ca.cert_pem;
        struct tls_server *strict = tls_server_new(&d, a, &err);
        struct tls_server *bare = tls_server_new(&c, a, &err);
        struct tls_host hosts[] = {{strict_names, COUNT(strict_names), strict},
                                   {open_names, COUNT(open_names), NULL}};
        c.hosts = hosts;
        c.n_hosts = COUNT(hosts);
        struct tls_server *all = tls_server_new(&c, a, &err);
        static const struct {
                const char *name;
                bool strict;
        } cases[] = {{"a.example", true},
                     {"A.Example.", true},
                     {"x.example", true},
                     {"y.x.example", true},
                     {"open.example", false},
                     {"x.b.example", false},
                     {"y.x.b.example", false},
                     {"b.example", true},
                     {"example", false},
                     {"other", false},
                     {"", false},
                     {NULL, false},
                     {"..example", true},
                     {"example.", false},
                     {".", false}};

        assert_non_null(all);
        assert_ptr_not_equal(all, bare); /* hosts are part of what is shared by content */
        tls_server_drop(strict);         /* the listener holds it */
        for (size_t i = 0; i < COUNT(cases); i++)
                if (tls_server_for(all, str_z(cases[i].name)) != (cases[i].strict ? strict : all))
                        fail_msg("%s", cases[i].name);
        assert_ptr_equal(tls_server_for(bare, STR("a.example")), bare);
        tls_server_drop(bare);
        tls_server_drop(all);
        assert_true(list_empty(&servers));
}

static void refuses(const struct tls_server_conf *c, const char *text)
{
        str err = STR_NONE;

        assert_null(tls_server_new(c, a, &err));
        assert_true(str_find(err, str_z(text)) >= 0);
        assert_int_equal(ERR_peek_error(), 0);
}

static void test_messages_name_the_file(void **state UNUSED)
{
        struct tls_pair p = pair(&one);
        struct tls_server_conf c = conf(&p, 1);

        p.cert_pem = STR("nothing");
        refuses(&c, "site.pem: no certificate in PEM form");
        p = pair(&one);
        p.cert_pem =
                arena_cat(a, (str[]){one.cert_pem, STR("-----BEGIN CERTIFICATE-----\nAA\n")}, 2);
        refuses(&c, "site.pem: ");
        p = pair(&one);
        p.key_pem = STR("");
        refuses(&c, "site.key: no private key");
        p.key_pem = two.key_pem;
        refuses(&c, "site.key: the key does not belong to the certificate in site.pem");
        p.key_pem = rsa_one.key_pem;
        refuses(&c, "site.key");
        p = pair(&one);
        c.ciphers = STR("NO-SUCH-CIPHER");
        refuses(&c, "ciphers");
        c.ciphers = STR_NONE;
        c.client_certificate = TLS_CLIENT_OPTIONAL;
        c.client_ca_pem = STR("x");
        c.client_ca_file = STR("ca.pem");
        refuses(&c, "ca.pem: no CA certificate");
        c.client_ca_pem = ca.cert_pem;
        c.client_crl_file = STR("list.pem");
        c.client_crl_pem = STR("");
        refuses(&c, "list.pem: no revocation list");
        c.client_crl_pem = ca.cert_pem; /* PEM, but of something else */
        refuses(&c, "list.pem: no revocation list");
        c = conf(NULL, 0);
        refuses(&c, "certificate is missing");
}

static void test_clients(void **state UNUSED)
{
        struct tls_client_conf c = {.verify = true,
                                    .ca_pem = ca.cert_pem,
                                    .ca_file = STR("ca.pem"),
                                    .name = STR("one.example"),
                                    .alpn = h1,
                                    .n_alpn = 1};
        str err = STR_NONE;
        struct tls_client *x = tls_client_new(&c, a, &err), *y, *z;

        assert_non_null(x);
        y = tls_client_new(&c, a, &err);
        assert_ptr_equal(x, y);
        c.name = STR("two.example");
        z = tls_client_new(&c, a, &err);
        assert_int_not_equal(tls_client_key(x), tls_client_key(z));
        tls_client_drop(x);
        tls_client_drop(y);
        tls_client_drop(z);
        c.ca_pem = STR("x");
        assert_null(tls_client_new(&c, a, &err));
        assert_true(str_find(err, STR("ca.pem: ")) >= 0);
        c.verify = false;
        c.cert_pem = one.cert_pem;
        c.cert_file = STR("c.pem");
        c.key_pem = two.key_pem;
        c.key_file = STR("c.key");
        assert_null(tls_client_new(&c, a, &err));
        assert_true(str_find(err, STR("c.key: the key does not belong")) >= 0);
        assert_true(list_empty(&clients));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_two_kinds_of_key_share_a_context),
                cmocka_unit_test(test_the_first_of_a_kind_counts),
                cmocka_unit_test(test_shared_by_content),
                cmocka_unit_test(test_hosts),
                cmocka_unit_test(test_messages_name_the_file),
                cmocka_unit_test(test_clients),
        };
        return cmocka_run_group_tests(tests, up, down);
}
