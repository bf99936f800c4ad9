/*
 * Early data through an io: it is read and answered before the handshake has ended, and the same
 * bytes are not taken again.  The client here is OpenSSL itself, so that each flight can be kept.
 */
#include "net/tls_replay.c"

#include "net/io.h"
#include "pump.h"

#include "certs.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop *l;
static struct arena *a;
static struct cert cert;
static struct tls_server *server;
static struct tls_tickets *tickets;
static SSL_CTX *ctx;
static SSL_SESSION *session;

/* ---- the server's side ---- */

static struct io srv;
static char got[40 * 1024];
static size_t got_n;
static unsigned readies;
static enum reason ready;
static enum io_result last;
static bool was_early; /* when the newest bytes came */

static void on_read(struct io *io)
{
        last = io_read(io, 7, NULL); /* less than may have come: the rest must not be forgotten */
        if (io->in.n > 0)
                was_early = tls_facts(io->tls)->early;
        while (io->in.n > 0) {
                str part = buf_front(&io->in);
                assert_true(got_n + part.n <= sizeof(got));
                memcpy(got + got_n, part.p, part.n);
                got_n += part.n;
                buf_drain(&io->in, part.n);
        }
}

static void on_ready(struct io *io UNUSED, enum reason r)
{
        readies++;
        ready = r;
}

static const struct io_owner owner = {.readable = on_read, .ready = on_ready};

/* A new connection; returns the client's socket. */
static int meet(void)
{
        int fd[2];

        if (srv.magic)
                io_close(&srv, REASON_DONE);
        got_n = readies = 0;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        io_open(&srv, l, fd[0], &owner);
        io_start_tls(&srv, tls_accept_peer(server, fd[0]));
        return fd[1];
}

/* ---- the client's ---- */

static int keep_session(SSL *ssl UNUSED, SSL_SESSION *s)
{
        SSL_SESSION_free(session);
        session = s;
        return 1;
}

static SSL *client(int fd)
{
        SSL *ssl = SSL_new(ctx);

        assert_non_null(ssl);
        assert_int_equal(SSL_set_fd(ssl, fd), 1);
        SSL_set_connect_state(ssl);
        return ssl;
}

/* Reads exactly want, by which the handshake goes on. */
static void client_reads(SSL *ssl, const char *want)
{
        char text[64];
        size_t n = 0, r;

        while (n < strlen(want)) {
                loop_turn(l, false);
                if (SSL_read_ex(ssl, text + n, sizeof(text) - n, &r) == 1)
                        n += r;
                else
                        assert_int_equal(SSL_get_error(ssl, 0), SSL_ERROR_WANT_READ);
        }
        assert_int_equal(n, strlen(want));
        assert_memory_equal(text, want, n);
}

static void client_ends(SSL *ssl)
{
        int fd = SSL_get_fd(ssl);

        SSL_shutdown(ssl); /* or the session could not be used again */
        SSL_free(ssl);
        close(fd);
}

static void say(const char *text)
{
        buf_puts(&srv.out, str_z(text));
        io_flush(&srv);
        assert_int_equal(srv.out.n, 0);
}

/* A whole handshake, for its ticket. */
static void get_ticket(void)
{
        SSL *ssl = client(meet());
        size_t n;

        while (SSL_do_handshake(ssl) != 1)
                loop_turn(l, false);
        assert_int_equal(SSL_write_ex(ssl, "hello", 5, &n), 1);
        PUMP_UNTIL(l, got_n == 5);
        assert_false(was_early);
        say("you");
        client_reads(ssl, "you");
        client_ends(ssl);
        assert_non_null(session);
        assert_int_equal(SSL_SESSION_get_max_early_data(session), 1000);
}

/* Sends early data with the ticket; what went out is in flight. */
static char flight[16 * 1024];
static size_t flight_n;

static SSL *early(const char *text)
{
        SSL *ssl = client(meet());
        ssize_t seen;
        size_t n;

        assert_int_equal(SSL_set_session(ssl, session), 1);
        assert_int_equal(SSL_write_early_data(ssl, text, strlen(text), &n), 1);
        assert_int_equal(n, strlen(text));
        seen = recv(srv.fd, flight, sizeof(flight), MSG_PEEK);
        assert_true(seen > 300);
        flight_n = (size_t)seen;
        return ssl;
}

/* ---- set-up ---- */

static int up(void **state UNUSED)
{
        static struct tls_pair pair;
        struct tls_server_conf conf = {.pairs = &pair,
                                       .n_pairs = 1,
                                       .version_min = 12,
                                       .version_max = 13,
                                       .max_early_data = 1000};
        str err;

        tls_init();
        a = arena_new(0);
        l = loop_new(0, NULL);
        tickets = tls_tickets_new();
        tls_tickets_use(tickets);
        record = tls_replay_new();
        record->born_wall = 0; /* any ticket is newer */
        cert = cert_make(a, "one", "DNS:one.example", NULL, 30, false);
        pair = (struct tls_pair){.cert_pem = cert.cert_pem, .key_pem = cert.key_pem};
        server = tls_server_new(&conf, a, &err);
        assert_non_null(server);
        ctx = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, keep_session);
        return 0;
}

static int down(void **state UNUSED)
{
        if (srv.magic)
                io_close(&srv, REASON_DONE);
        srv.magic = 0;
        SSL_SESSION_free(session);
        session = NULL;
        SSL_CTX_free(ctx);
        tls_server_drop(server);
        tls_tickets_use(NULL);

        tls_replay_free(record);
        tls_replay_use(NULL);
        cert_free(&cert);
        assert_int_equal(atomic_load(&l->handshakes), 0);
        loop_free(l);
        arena_free(a);
        arena_thread_end();
        buf_thread_end();
        io_thread_end();
        return 0;
}

/* ---- what happens ---- */

static void answered_before_the_handshake_ends(void **state UNUSED)
{
        SSL *ssl;

        get_ticket();
        ssl = early("what came early");
        PUMP_UNTIL(l, got_n == 15);
        assert_int_equal(readies, 1);
        assert_int_equal(ready, REASON_NONE);
        assert_memory_equal(got, "what came early", 15);
        assert_true(was_early);
        assert_true(tls_facts(srv.tls)->resumed);
        say("so did this"); /* the client has not even said that it is there */
        pump_turns(l, 3);
        assert_true(tls_facts(srv.tls)->early);
        client_reads(ssl, "so did this");
        assert_int_equal(SSL_get_early_data_status(ssl), SSL_EARLY_DATA_ACCEPTED);
        while (SSL_do_handshake(ssl) != 1) /* until now there could be more */
                loop_turn(l, false);
        PUMP_UNTIL(l, !tls_facts(srv.tls)->early);
        assert_int_equal(SSL_write(ssl, "later", 5), 5);
        PUMP_UNTIL(l, got_n == 20);
        assert_false(was_early);
        say("both");
        client_reads(ssl, "both");
        client_ends(ssl);
        PUMP_UNTIL(l, last == IO_EOF);
        assert_false(srv.truncated);
}

static void the_same_again_is_not_taken(void **state UNUSED)
{
        SSL *ssl;
        int fd;

        get_ticket();
        ssl = early("once");
        PUMP_UNTIL(l, got_n == 4);
        client_ends(ssl);
        fd = meet();
        assert_int_equal(write(fd, flight, flight_n), flight_n);
        PUMP_UNTIL(l, srv.tls->replayed);
        pump_turns(l, 5);
        assert_int_equal(readies, 0); /* it waits for a client that can end the handshake */
        assert_int_equal(got_n, 0);
        close(fd);
        PUMP_UNTIL(l, readies == 1);
        assert_int_equal(ready, REASON_TLS_FAILED);
}

static void paused_nothing_is_taken(void **state UNUSED)
{
        SSL *ssl;

        get_ticket();
        tls_replay_pause(record, true);
        ssl = early("too bad");
        while (SSL_do_handshake(ssl) != 1)
                loop_turn(l, false);
        assert_int_equal(SSL_get_early_data_status(ssl), SSL_EARLY_DATA_REJECTED);
        assert_int_equal(SSL_write(ssl, "again", 5), 5);
        PUMP_UNTIL(l, got_n == 5);
        assert_memory_equal(got, "again", 5);
        assert_false(was_early);
        client_ends(ssl);
}

/* More than the ticket allowed ends the connection. */
static void too_much(void **state UNUSED)
{
        static char much[3000];
        SSL *ssl;

        get_ticket();
        SSL_SESSION_set_max_early_data(session, 100000);
        memset(much, 'x', sizeof(much) - 1);
        ssl = early(much);
        PUMP_UNTIL(l, readies == 1 || last == IO_ERROR);
        assert_true(ready == REASON_TLS_FAILED || last == IO_ERROR);
        assert_true(got_n <= 1000);
        client_ends(ssl);
}

/* The connection may go while the handshake is still open. */
static void ends_in_the_middle(void **state UNUSED)
{
        SSL *ssl;

        get_ticket();
        ssl = early("a request");
        PUMP_UNTIL(l, got_n == 9);
        say("an answer");
        io_shutdown(&srv);
        pump_turns(l, 3);
        io_close(&srv, REASON_DONE);
        client_reads(ssl, "an answer");
        client_ends(ssl);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(answered_before_the_handshake_ends, up, down),
                cmocka_unit_test_setup_teardown(the_same_again_is_not_taken, up, down),
                cmocka_unit_test_setup_teardown(paused_nothing_is_taken, up, down),
                cmocka_unit_test_setup_teardown(too_much, up, down),
                cmocka_unit_test_setup_teardown(ends_in_the_middle, up, down),
        };
        (void)signal(SIGPIPE, SIG_IGN); /* OpenSSL's own socket BIO raises it */
        return cmocka_run_group_tests(tests, NULL, NULL);
}
