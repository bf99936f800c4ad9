/*
 * TLS between two ios on one loop: names, protocols, client certificates, resumption and its
 * limits, transfers, ends.
 */
#include "net/tls_io.c"

#include "base/shm.h"
#include "pump.h"

#include "certs.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop *l;
static struct arena *a;
static struct cert ca, other_ca, one, two, expired, ip, user;

/* ---- a peer that gathers what it reads and says what happened ---- */

struct side {
        struct io io;
        struct tls_facts facts;
        char version[16], sni[64], subject[64], alpn[16], error[256];
        size_t received, sent, to_send;
        uint64_t hash;
        enum io_result last;
        unsigned readies, readables;
        enum reason ready;
        bool hold; /* reads nothing by itself */
};

static struct side srv, cli;

static uint64_t hash_bytes(uint64_t h, str s)
{
        for (size_t i = 0; i < s.n; i++)
                h = (h ^ (unsigned char)s.p[i]) * UINT64_C(1099511628211);
        return h;
}

static void on_read(struct io *io)
{
        struct side *s = (struct side *)io;

        s->readables++;
        if (s->hold)
                return;
        s->last = io_read(io, IO_TURN_MAX, NULL);
        while (io->in.n > 0) {
                str part = buf_front(&io->in);
                s->hash = hash_bytes(s->hash, part);
                s->received += part.n;
                buf_drain(&io->in, part.n);
        }
}

static void feed(struct side *s)
{
        char part[777];

        while (s->sent < s->to_send && !s->io.writing && !s->io.failed) {
                while (s->sent < s->to_send && s->io.out.n < 128 * KIB) {
                        size_t n = MIN(sizeof(part), s->to_send - s->sent);
                        for (size_t i = 0; i < n; i++)
                                part[i] = (char)((s->sent + i) * 2654435761u >> 11);
                        buf_put(&s->io.out, part, n);
                        s->sent += n;
                }
                io_flush(&s->io);
        }
        if (s->sent == s->to_send)
                io_shutdown(&s->io);
}

static void on_drained(struct io *io)
{
        struct side *s = (struct side *)io;

        if (s->sent < s->to_send)
                feed(s);
}

static void copy(char *to, size_t cap, str s)
{
        assert_true(str_copyz(to, cap, s));
}

static void on_ready(struct io *io, enum reason r)
{
        struct side *s = (struct side *)io;

        s->readies++;
        s->ready = r;
        if (io->tls == NULL)
                return;
        s->facts = *tls_facts(io->tls);
        copy(s->version, sizeof(s->version), s->facts.version);
        copy(s->sni, sizeof(s->sni), s->facts.sni);
        copy(s->alpn, sizeof(s->alpn), s->facts.alpn);
        copy(s->subject, sizeof(s->subject),
             tls_client_text(tls_facts(io->tls), TLS_CLIENT_SUBJECT));
        copy(s->error, sizeof(s->error), s->facts.error);
}

static const struct io_owner owner = {on_read, on_drained, on_ready};

/* ---- making things ---- */

static int group_up(void **state UNUSED)
{
        tls_init();
        a = arena_new(0);
        ca = cert_make(a, "authority", NULL, NULL, 30, false);
        other_ca = cert_make(a, "other authority", NULL, NULL, 30, false);
        one = cert_make(a, "one", "DNS:one.example", &ca, 30, false);
        two = cert_make(a, "two", "DNS:two.example", &ca, 30, false);
        expired = cert_make(a, "old", "DNS:old.example", &ca, -1, false);
        ip = cert_make(a, "ip", "IP:127.0.0.1", &ca, 30, false);
        user = cert_make(a, "some user", NULL, &other_ca, 30, false);
        return 0;
}

static int group_down(void **state UNUSED)
{
        struct cert *all[] = {&ca, &other_ca, &one, &two, &expired, &ip, &user};

        for (size_t i = 0; i < COUNT(all); i++)
                cert_free(all[i]);
        arena_free(a);
        arena_thread_end();
        buf_thread_end();
        io_thread_end();
        return 0;
}

static int up(void **state UNUSED)
{
        l = loop_new(0, NULL);
        memset(&srv, 0, sizeof(srv));
        memset(&cli, 0, sizeof(cli));
        return 0;
}

static void close_both(void)
{
        if (srv.io.magic)
                io_close(&srv.io, REASON_DONE);
        if (cli.io.magic)
                io_close(&cli.io, REASON_DONE);
        assert_null(srv.io.tls);
        assert_null(cli.io.tls);
        assert_int_equal(atomic_load(&l->handshakes), 0);
}

static int down(void **state UNUSED)
{
        close_both();
        io_linger_end(l);
        loop_free(l);
        tls_thread_end();
        tls_tickets_use(NULL);
        return 0;
}

static const str h1[] = {STR_INIT("http/1.1")};
static const str h2_h1[] = {STR_INIT("h2"), STR_INIT("http/1.1")};

static struct tls_server_conf server_conf(const struct tls_pair *p, size_t n)
{
        return (struct tls_server_conf){
                .pairs = p, .n_pairs = n, .version_min = 12, .version_max = 13};
}

static struct tls_pair pair(const struct cert *c)
{
        return (struct tls_pair){.cert_pem = c->cert_pem,
                                 .key_pem = c->key_pem,
                                 .cert_file = STR("c.pem"),
                                 .key_file = STR("c.key")};
}

static struct tls_server *server_of(const struct tls_server_conf *c)
{
        str err = STR_NONE;
        struct tls_server *s = tls_server_new(c, a, &err);

        if (s == NULL)
                fail_msg("%.*s", STR_ARG(err));
        return s;
}

static struct tls_server *simple_server(const struct cert *c, int version)
{
        struct tls_pair p = pair(c);
        struct tls_server_conf conf = server_conf(&p, 1);

        conf.version_min = conf.version_max = version;
        return server_of(&conf);
}

static struct tls_server *policy_server(const struct cert *c, int version, int policy)
{
        struct tls_pair p = pair(c);
        struct tls_server_conf conf = server_conf(&p, 1);

        conf.version_min = conf.version_max = version;
        conf.client_certificate = policy;
        conf.client_ca_pem = other_ca.cert_pem;
        conf.client_ca_file = STR("clients.pem");
        return server_of(&conf);
}

static struct tls_client *client_of(const struct tls_client_conf *c)
{
        str err = STR_NONE;
        struct tls_client *t = tls_client_new(c, a, &err);

        if (t == NULL)
                fail_msg("%.*s", STR_ARG(err));
        return t;
}

static struct tls_client_conf client_conf(const char *name)
{
        return (struct tls_client_conf){.verify = true,
                                        .ca_pem = ca.cert_pem,
                                        .ca_file = STR("ca.pem"),
                                        .name = str_z(name)};
}

/* Connects both sides and waits until the server's handshake, and the client's, are over. */
static void meet(struct tls_server *s, struct tls_client *c, str host)
{
        int fd[2];

        memset(&srv, 0, sizeof(srv));
        memset(&cli, 0, sizeof(cli));
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        io_open(&srv.io, l, fd[0], &owner);
        io_start_tls(&srv.io, tls_accept_peer(s, fd[0]));
        io_open(&cli.io, l, fd[1], &owner);
        io_start_tls(&cli.io, tls_connect_peer(c, fd[1], host));
        assert_int_equal(cli.readies, 0);
        PUMP_UNTIL(l, srv.readies == 1 && cli.readies == 1);
}

/* Both are ready, and say a word each way (which also brings the client its tickets). */
static void talk(void)
{
        assert_int_equal(srv.ready, REASON_NONE);
        assert_int_equal(cli.ready, REASON_NONE);
        buf_puts(&cli.io.out, STR("hello"));
        io_flush(&cli.io);
        PUMP_UNTIL(l, srv.received == 5);
        buf_puts(&srv.io.out, STR("you"));
        io_flush(&srv.io);
        PUMP_UNTIL(l, cli.received == 3);
}

/* ---- names and protocols ---- */

static void test_facts(void **state UNUSED)
{
        static const int versions[] = {12, 13};

        for (size_t i = 0; i < COUNT(versions); i++) {
                struct tls_pair p[] = {pair(&one), pair(&two)};
                struct tls_server_conf conf = server_conf(p, 2);
                struct tls_client_conf cc = client_conf("two.example");
                struct tls_server *s;
                struct tls_client *c;

                conf.alpn = h2_h1;
                conf.n_alpn = 2;
                conf.version_min = conf.version_max = versions[i];
                cc.alpn = h1;
                cc.n_alpn = 1;
                s = server_of(&conf);
                c = client_of(&cc); /* verifies: so the certificate of two.example was chosen */
                meet(s, c, STR_NONE);
                talk();
                assert_string_equal(srv.version, versions[i] == 12 ? "TLSv1.2" : "TLSv1.3");
                assert_string_equal(srv.sni, "two.example");
                assert_string_equal(srv.alpn, "http/1.1");
                assert_string_equal(cli.alpn, "http/1.1");
                assert_true(srv.facts.cipher.n > 0);
                assert_false(srv.facts.resumed);
                assert_false(srv.facts.client_verified);
                assert_false(srv.facts.client_verified);
                assert_int_equal(srv.facts.policy, tls_server_policy(s));
                close_both();
                tls_server_drop(s);
                tls_client_drop(c);
        }
}

static void test_no_common_protocol(void **state UNUSED)
{
        static const str foreign[] = {STR_INIT("spdy/3")};
        struct tls_pair p = pair(&one);
        struct tls_server_conf conf = server_conf(&p, 1);
        struct tls_client_conf cc = client_conf("one.example");
        struct tls_server *s;
        struct tls_client *c;

        conf.alpn = h1;
        conf.n_alpn = 1;
        cc.alpn = foreign;
        cc.n_alpn = 1;
        s = server_of(&conf);
        c = client_of(&cc);
        meet(s, c, STR_NONE);
        assert_int_equal(srv.ready, REASON_TLS_FAILED);
        assert_int_equal(cli.ready, REASON_UPSTREAM_TLS);
        assert_true(strstr(cli.error, "no application protocol") != NULL);
        tls_server_drop(s);
        tls_client_drop(c);
}

static void test_no_common_version(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 12);
        struct tls_client_conf cc = client_conf("one.example");
        struct tls_client *c = client_of(&cc);

        SSL_CTX_set_min_proto_version(c->ctx, TLS1_3_VERSION);
        meet(s, c, STR_NONE);
        assert_int_equal(srv.ready, REASON_TLS_FAILED);
        assert_int_equal(cli.ready, REASON_UPSTREAM_TLS);
        assert_true(srv.error[0] != 0);
        tls_server_drop(s);
        tls_client_drop(c);
}

/* ---- verification of servers ---- */

static void refuses(const struct cert *cert, const struct tls_client_conf *cc, str host,
                    const char *why)
{
        struct tls_server *s = simple_server(cert, 13);
        struct tls_client *c = client_of(cc);

        meet(s, c, host);
        assert_int_equal(cli.ready, REASON_UPSTREAM_TLS);
        if (strstr(cli.error, why) == NULL)
                fail_msg("'%s' does not say '%s'", cli.error, why);
        close_both();
        tls_server_drop(s);
        tls_client_drop(c);
}

static void accepts(const struct cert *cert, const struct tls_client_conf *cc, str host,
                    const char *sni)
{
        struct tls_server *s = simple_server(cert, 13);
        struct tls_client *c = client_of(cc);

        meet(s, c, host);
        talk();
        assert_string_equal(srv.sni, sni);
        close_both();
        tls_server_drop(s);
        tls_client_drop(c);
}

static void test_verification(void **state UNUSED)
{
        struct tls_client_conf cc = client_conf("one.example");

        accepts(&one, &cc, STR_NONE, "one.example");
        accepts(&one, &cc, STR("ignored.example"), "one.example"); /* the configured name wins */
        refuses(&two, &cc, STR_NONE, "hostname mismatch");
        cc = client_conf("old.example");
        refuses(&expired, &cc, STR_NONE, "certificate has expired");
        cc = client_conf(NULL);
        accepts(&one, &cc, STR("one.example"), "one.example");
        refuses(&one, &cc, STR("two.example"), "hostname mismatch");
        accepts(&ip, &cc, STR("127.0.0.1"), ""); /* an address is not sent */
        refuses(&ip, &cc, STR("127.0.0.2"), "IP address mismatch");
        cc.ca_pem = other_ca.cert_pem;
        refuses(&one, &cc, STR("one.example"), "unable to get local issuer certificate");
        cc.verify = false;
        accepts(&expired, &cc, STR("whatever.example"), "whatever.example");
        accepts(&one, &cc, STR_NONE, "");
}

static void test_no_name_to_verify(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 13);
        struct tls_client_conf cc = client_conf(NULL);
        struct tls_client *c = client_of(&cc);
        int fd[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        io_open(&cli.io, l, fd[1], &owner);
        io_start_tls(&cli.io, tls_connect_peer(c, fd[1], STR_NONE));
        PUMP_UNTIL(l, cli.readies == 1);
        assert_int_equal(cli.ready, REASON_UPSTREAM_TLS);
        assert_string_equal(cli.error, "no name to verify the certificate against");
        close(fd[0]);
        tls_server_drop(s);
        tls_client_drop(c);
}

/* ---- client certificates ---- */

static struct tls_client *client_with(const struct cert *cert)
{
        struct tls_client_conf cc = client_conf("one.example");

        if (cert != NULL) {
                cc.cert_pem = cert->cert_pem;
                cc.key_pem = cert->key_pem;
        }
        return client_of(&cc);
}

static void test_client_certificates(void **state UNUSED)
{
        static const int versions[] = {12, 13};
        struct tls_client *with = client_with(&user), *without = client_with(NULL),
                          *wrong = client_with(&two); /* of an authority that is not believed */

        for (size_t i = 0; i < COUNT(versions); i++) {
                struct tls_server *s = policy_server(&one, versions[i], TLS_CLIENT_REQUIRED);
                meet(s, with, STR_NONE);
                talk();
                assert_true(srv.facts.client_verified);
                assert_string_equal(srv.subject, "CN=some user");
                close_both();
                meet(s, without, STR_NONE);
                assert_int_equal(srv.ready, REASON_TLS_FAILED);
                assert_true(strstr(srv.error, "did not return a certificate") != NULL);
                close_both();
                meet(s, wrong, STR_NONE);
                assert_int_equal(srv.ready, REASON_TLS_FAILED);
                assert_true(strstr(srv.error, "unable to get local issuer certificate") != NULL);
                close_both();
                tls_server_drop(s);

                s = policy_server(&one, versions[i], TLS_CLIENT_OPTIONAL);
                meet(s, without, STR_NONE);
                talk();
                assert_false(srv.facts.client_verified);
                close_both();
                meet(s, with, STR_NONE);
                talk();
                assert_true(srv.facts.client_verified);
                close_both();
                tls_server_drop(s);
        }
        tls_client_drop(with);
        tls_client_drop(without);
        tls_client_drop(wrong);
}

static void test_held_facts_outlive_the_connection(void **state UNUSED)
{
        struct tls_client *c = client_with(&user);
        struct tls_server *s = policy_server(&one, 13, TLS_CLIENT_REQUIRED);
        const struct tls_facts *held[2];

        meet(s, c, STR("one.example"));
        talk();
        for (size_t i = 0; i < COUNT(held); i++)
                held[i] = tls_facts_hold(srv.io.tls);
        close_both();
        tls_server_drop(s);
        tls_facts_drop(held[0]);
        assert_true(str_eq(held[1]->sni, STR("one.example")));
        assert_true(str_eq(held[1]->version, STR("TLSv1.3")));
        assert_true(str_eq(tls_client_text(held[1], TLS_CLIENT_ISSUER), STR("CN=other authority")));
        tls_facts_drop(held[1]);
        assert_null(tls_facts_hold(NULL));
        tls_facts_drop(NULL);
        tls_client_drop(c);
}

/* ---- resumption ---- */

static bool resumes(struct tls_server *s, struct tls_client *c)
{
        bool r;

        meet(s, c, STR_NONE);
        talk();
        assert_int_equal(srv.facts.resumed, cli.facts.resumed);
        r = srv.facts.resumed;
        close_both();
        return r;
}

static void forget_sessions(void)
{
        tls_thread_end();
}

static void test_resumption(void **state UNUSED)
{
        static const int versions[] = {12, 13};
        struct tls_tickets *t = tls_tickets_new();

        tls_tickets_use(t);
        for (size_t i = 0; i < COUNT(versions); i++) {
                struct tls_client *c = client_with(&user);
                struct tls_server *s = simple_server(&one, versions[i]);
                struct tls_pair p = pair(&one);
                struct tls_server_conf conf = server_conf(&p, 1);
                struct tls_server *again, *required, *required_again;

                forget_sessions();
                assert_false(resumes(s, c));
                assert_true(resumes(s, c));
                assert_true(resumes(s, c));
                /* Another context of the same policy, as after a reload: the ticket still opens it.
                 */
                conf.version_min = conf.version_max = versions[i];
                conf.alpn = h1;
                conf.n_alpn = 1;
                again = server_of(&conf);
                assert_ptr_not_equal(again, s);
                assert_true(resumes(again, c));
                /* After rotations too, until its key has left the ring. */
                tls_tickets_rotate(t);
                assert_true(resumes(s, c));
                for (int k = 0; k < TLS_TICKET_KEYS; k++)
                        tls_tickets_rotate(t);
                assert_false(resumes(s, c));
                assert_true(resumes(s, c));
                /* Another policy: never, in neither direction, and the certificate is asked for. */
                required = policy_server(&one, versions[i], TLS_CLIENT_REQUIRED);
                assert_false(resumes(required, c));
                assert_true(resumes(required, c));
                meet(required, c, STR_NONE);
                talk();
                assert_true(srv.facts.resumed && srv.facts.client_verified);
                assert_string_equal(srv.subject, "CN=some user"); /* the session remembers who */
                close_both();
                assert_false(resumes(s, c));
                required_again = policy_server(&one, versions[i], TLS_CLIENT_OPTIONAL);
                assert_false(resumes(required_again, c));
                tls_server_drop(required_again);
                tls_server_drop(required);
                tls_server_drop(again);
                tls_server_drop(s);
                tls_client_drop(c);
        }
        shm_free(t, 4096);
}

/* A ticket got where no certificate is asked for does not get a client without one in where it is
 * required. */
static void test_ticket_is_no_way_in(void **state UNUSED)
{
        static const int versions[] = {12, 13};
        struct tls_tickets *t = tls_tickets_new();
        struct tls_client *c = client_with(NULL);

        tls_tickets_use(t);
        for (size_t i = 0; i < COUNT(versions); i++) {
                struct tls_server *open = simple_server(&one, versions[i]);
                struct tls_server *closed = policy_server(&one, versions[i], TLS_CLIENT_REQUIRED);

                forget_sessions();
                assert_false(resumes(open, c));
                assert_true(resumes(open, c));
                meet(closed, c, STR_NONE);
                assert_int_equal(srv.ready, REASON_TLS_FAILED);
                close_both();
                tls_server_drop(open);
                tls_server_drop(closed);
        }
        tls_client_drop(c);
        shm_free(t, 4096);
}

/* ---- bytes ---- */

static void transfer(struct side *from, struct side *to, size_t n)
{
        uint64_t h = 0;

        from->to_send = n;
        feed(from);
        PUMP_UNTIL(l, to->last == IO_EOF);
        for (size_t i = 0; i < n; i++) {
                char c = (char)(i * 2654435761u >> 11);
                h = hash_bytes(h, str_of(&c, 1));
        }
        assert_int_equal(to->received, n);
        assert_int_equal(to->hash, h);
        assert_false(to->io.truncated);
        assert_int_equal(io_unsent(&from->io), 0);
}

static void test_large_transfers(void **state UNUSED)
{
        static const int versions[] = {12, 13};

        for (size_t i = 0; i < COUNT(versions); i++) {
                struct tls_server *s = simple_server(&one, versions[i]);
                struct tls_client *c = client_with(NULL);

                meet(s, c, STR_NONE);
                transfer(&srv, &cli, 4 * MIB + 4711);
                /* Half closed: the other direction still goes. */
                transfer(&cli, &srv, 1 * MIB + 3);
                assert_null(srv.io.tls->raw.first);
                assert_null(srv.io.tls->enc.first);
                close_both();
                tls_server_drop(s);
                tls_client_drop(c);
        }
}

static void test_pause_with_bytes_inside(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 13);
        struct tls_client *c = client_with(NULL);

        meet(s, c, STR_NONE);
        talk();
        srv.hold = true;
        srv.readables = 0;
        buf_puts(&cli.io.out, STR("0123456789"));
        io_flush(&cli.io);
        PUMP_UNTIL(l, srv.readables > 0);
        assert_int_equal(io_read(&srv.io, 4, NULL), IO_OK);
        assert_int_equal(srv.io.in.n, 4);
        io_pause(&srv.io);
        pump_turns(l, 5);
        srv.readables = 0;
        pump_turns(l, 5);
        assert_int_equal(srv.readables, 0);
        /* The socket is empty: only io knows that there is more. */
        io_resume(&srv.io);
        PUMP_UNTIL(l, srv.readables > 0);
        assert_int_equal(io_read(&srv.io, 100, NULL), IO_OK);
        assert_int_equal(srv.io.in.n, 10);
        assert_true(str_eq(buf_front(&srv.io.in), STR("0123456789")));
        tls_server_drop(s);
        tls_client_drop(c);
}

/* The size of each TLS record, seen on the wire. */
static void test_record_sizes_and_coalescing(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 13);
        struct tls_client *c = client_with(NULL);
        static unsigned char wire[256 * KIB];
        size_t n = 0, off = 0, records = 0, largest_early = 0, largest_late = 0;

        meet(s, c, STR_NONE);
        talk();
        io_pause(&cli.io); /* from here on the test itself reads the client's socket */
        /* Many small slices, a head and 100 KiB. */
        for (int i = 0; i < 20; i++)
                buf_puts(&srv.io.out, STR("Header-Field: value\r\n"));
        for (int i = 0; i < 100; i++) {
                static char block[KIB];
                buf_put(&srv.io.out, block, sizeof(block));
        }
        io_flush(&srv.io);
        for (;;) {
                ssize_t r = recv(cli.io.fd, wire + n, sizeof(wire) - n, 0);
                if (r <= 0)
                        break;
                n += (size_t)r;
                pump_turns(l, 2);
        }
        while (off + 5 <= n) {
                size_t len = (size_t)wire[off + 3] << 8 | wire[off + 4];
                if (off < SMALL_PHASE - KIB)
                        largest_early = MAX(largest_early, len);
                largest_late = MAX(largest_late, len);
                off += 5 + len;
                records++;
        }
        assert_int_equal(off, n);
        assert_true(n > 100 * KIB);
        assert_true(largest_early <= RECORD_SMALL + 64);
        assert_true(largest_late > BUF_CHUNK);
        assert_true(records < 13 + 8); /* small slices did not become records of their own */
        tls_server_drop(s);
        tls_client_drop(c);
}

static void test_truncated(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 13);
        struct tls_client *c = client_with(NULL);

        meet(s, c, STR_NONE);
        talk();
        shutdown(cli.io.fd, SHUT_WR); /* a FIN without close_notify */
        PUMP_UNTIL(l, srv.last == IO_EOF);
        assert_true(srv.io.truncated);
        /* Only half of it: the client still gets its answer. */
        buf_puts(&srv.io.out, STR("the answer"));
        io_flush(&srv.io);
        PUMP_UNTIL(l, cli.received == 13);
        io_close(&srv.io, REASON_DONE);
        PUMP_UNTIL(l, cli.last == IO_EOF);
        assert_false(cli.io.truncated); /* io_close said goodbye */
        tls_server_drop(s);
        tls_client_drop(c);
}

static void test_garbage_after_the_handshake(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 13);
        struct tls_client *c = client_with(NULL);

        meet(s, c, STR_NONE);
        talk();
        assert_int_equal(send(cli.io.fd, "this is no record at all", 24, 0), 24);
        PUMP_UNTIL(l, srv.last == IO_ERROR);
        assert_int_equal(srv.io.error, 0);
        assert_true(tls_facts(srv.io.tls)->error.n > 0);
        assert_int_equal(ERR_peek_error(), 0);
        tls_server_drop(s);
        tls_client_drop(c);
}

/* ---- what is not TLS ---- */

static void raw_client(const char *bytes, struct tls_server *s, int fd[2])
{
        memset(&srv, 0, sizeof(srv));
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        io_open(&srv.io, l, fd[0], &owner);
        io_start_tls(&srv.io, tls_accept_peer(s, fd[0]));
        pump_turns(l, 3);
        assert_int_equal(srv.readies, 0);
        if (bytes != NULL)
                assert_int_equal(send(fd[1], bytes, strlen(bytes), 0), strlen(bytes));
        else
                close(fd[1]);
        PUMP_UNTIL(l, srv.readies == 1);
}

static void test_plain_http(void **state UNUSED)
{
        static const char *const requests[] = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                               "OPTIONS * HTTP/1.1\r\n", "PATCH /", "P"};
        struct tls_server *s = simple_server(&one, 13);

        for (size_t i = 0; i < COUNT(requests); i++) {
                char got[64] = "";
                int fd[2];

                raw_client(requests[i], s, fd);
                assert_int_equal(srv.ready, REASON_HTTP_ON_TLS);
                assert_true(srv.facts.plain_http);
                buf_puts(&srv.io.out, STR("HTTP/1.1 400 Bad Request\r\n\r\n"));
                io_flush(&srv.io);
                assert_int_equal(recv(fd[1], got, sizeof(got) - 1, 0), 28);
                assert_string_equal(got, "HTTP/1.1 400 Bad Request\r\n\r\n");
                io_close_lingering(&srv.io, REASON_HTTP_ON_TLS, 10 * SEC);
                assert_int_equal(io_lingering(l), 1);
                close(fd[1]);
                PUMP_UNTIL(l, io_lingering(l) == 0);
        }
        tls_server_drop(s);
}

static void test_garbage_is_not_http(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 13);
        int fd[2];

        raw_client("\x01\x02\x03\x04\x05\x06 nonsense", s, fd);
        assert_int_equal(srv.ready, REASON_TLS_FAILED);
        assert_false(srv.facts.plain_http);
        assert_true(srv.error[0] != 0);
        io_close(&srv.io, REASON_TLS_FAILED);
        close(fd[1]);
        raw_client("get / HTTP/1.1\r\n", s, fd);
        assert_int_equal(srv.ready, REASON_TLS_FAILED);
        io_close(&srv.io, REASON_TLS_FAILED);
        close(fd[1]);
        raw_client(NULL, s, fd); /* closed before a byte */
        assert_int_equal(srv.ready, REASON_TLS_FAILED);
        assert_string_equal(srv.error, "the peer closed the connection");
        tls_server_drop(s);
}

static void test_lingering_over_tls(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 13);
        struct tls_client *c = client_with(NULL);

        meet(s, c, STR_NONE);
        talk();
        cli.received = 0;
        for (int i = 0; i < 3000; i++)
                buf_puts(&srv.io.out, STR("0123456789012345678901234567890123456789"));
        io_close_lingering(&srv.io, REASON_BODY_MAX, 10 * SEC);
        assert_null(srv.io.tls);
        assert_int_equal(io_lingering(l), 1);
        PUMP_UNTIL(l, cli.last == IO_EOF);
        assert_int_equal(cli.received, 120000);
        assert_false(cli.io.truncated);
        io_close(&cli.io, REASON_DONE);
        PUMP_UNTIL(l, io_lingering(l) == 0);
        tls_server_drop(s);
        tls_client_drop(c);
}

/* The sockets are full both ways: a handshake flight and a close wait for room instead of being
 * lost. */
static void test_handshake_through_a_narrow_socket(void **state UNUSED)
{
        struct tls_server *s = simple_server(&one, 12);
        struct tls_client *c = client_with(NULL);
        int fd[2], small = 1;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
        setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
        io_open(&srv.io, l, fd[0], &owner);
        io_start_tls(&srv.io, tls_accept_peer(s, fd[0]));
        io_open(&cli.io, l, fd[1], &owner);
        io_start_tls(&cli.io, tls_connect_peer(c, fd[1], STR_NONE));
        assert_int_equal(atomic_load(&l->handshakes), 2);
        PUMP_UNTIL(l, srv.readies == 1 && cli.readies == 1);
        assert_int_equal(atomic_load(&l->handshakes), 0);
        transfer(&srv, &cli, 300 * KIB);
        tls_server_drop(s);
        tls_client_drop(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_facts),
                T(test_no_common_protocol),
                T(test_no_common_version),
                T(test_verification),
                T(test_no_name_to_verify),
                T(test_client_certificates),
                T(test_held_facts_outlive_the_connection),
                T(test_resumption),
                T(test_ticket_is_no_way_in),
                T(test_large_transfers),
                T(test_pause_with_bytes_inside),
                T(test_record_sizes_and_coalescing),
                T(test_truncated),
                T(test_garbage_after_the_handshake),
                T(test_plain_http),
                T(test_garbage_is_not_http),
                T(test_lingering_over_tls),
                T(test_handshake_through_a_narrow_socket),
        };
        return cmocka_run_group_tests(tests, group_up, group_down);
}
