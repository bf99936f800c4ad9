/*
 * TLS sessions, and how their bytes pass through an io.
 *
 *    socket -> raw -> (OpenSSL) -> io->in          socket <- enc <- (OpenSSL) <- io->out
 *
 * The difficulty is system calls: OpenSSL's own socket BIO receives each record in two, ends every
 * read with an EAGAIN, and sends each record in one.  So a BIO of ours stands between: it receives
 * as much as there is at once, knows from a short receive that the socket is empty, and gathers
 * records until they leave in one sendmsg (which raises no SIGPIPE either).  raw and enc are empty,
 * and hold no memory, while a connection is idle.
 */
#include "net/io_type.h"
#include "net/tls_type.h"

#include "base/crypto.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>

#define RECORD_MAX   (16 * KIB)
#define RECORD_SMALL 1300       /* one segment: the first bytes can be used before more have come */
#define SMALL_PHASE  (16 * KIB) /* about what a fresh congestion window lets out */
#define SMALL_AGAIN  (1 * SEC)  /* silence after which it begins anew */
#define BATCH        (64 * KIB) /* encrypted before it is sent */
#define RECEIVE      (64 * KIB) /* at once, where the last time there was plenty */
#define RECORD_FAIR  (8 * KIB)  /* what is less is put together with what follows */

static BIO_METHOD *bio_method, *bio_kernel;
static _Thread_local char scratch[RECORD_MAX];

/* ---- the BIO ---- */

static void receive(struct tls_peer *p)
{
        size_t room;
        ssize_t r = io_receive(p->fd, &p->raw, p->plenty ? RECEIVE : BUF_CHUNK, &room);

        p->plenty = r > 0 && (size_t)r == room;
        p->dry = !p->plenty;
        p->raw_eof = r == 0;
        if (r < 0 && errno != EAGAIN)
                p->sock_error = errno;
}

static int bio_read(BIO *b, char *out, int want)
{
        struct tls_peer *p = BIO_get_data(b);
        size_t n;

        BIO_clear_retry_flags(b);
        if (p->raw.n == 0 && !p->dry && !p->raw_eof && p->sock_error == 0)
                receive(p);
        if (p->raw.n > 0) {
                n = buf_copy_out(&p->raw, 0, out, (size_t)want);
                buf_drain(&p->raw, n);
                return (int)n;
        }
        if (p->raw_eof) {
                p->bio_eof = true;
                return 0;
        }
        if (p->sock_error == 0)
                BIO_set_retry_read(b);
        return -1;
}

int tls_bio_write(BIO *b, const char *in, int n)
{
        struct tls_peer *p = BIO_get_data(b);

        BIO_clear_retry_flags(b);
        buf_put(&p->enc, in, (size_t)n);
        return n;
}

long tls_bio_ctrl(BIO *b, int cmd, long num UNUSED, void *ptr UNUSED)
{
        struct tls_peer *p = BIO_get_data(b);

        switch (cmd) {
        case BIO_CTRL_FLUSH:
                return 1;
        case BIO_CTRL_EOF:
                return p->bio_eof;
        default:
                return 0;
        }
}

static BIO_METHOD *method(int type)
{
        BIO_METHOD *m = BIO_meth_new(type, "weir");

        CHECK(m != NULL);
        BIO_meth_set_read(m, bio_read);
        BIO_meth_set_write(m, tls_bio_write);
        BIO_meth_set_ctrl(m, tls_bio_ctrl);
        return m;
}

static void init_once(void)
{
        int type;

        crypto_init();
        CHECK(OPENSSL_init_ssl(0, NULL) == 1);
        tls_ticket_init();
        tls_staple_init();
        type = BIO_get_new_index() | BIO_TYPE_SOURCE_SINK;
        bio_method = method(type);
        bio_kernel = method(type);
        tls_kernel_bio(bio_kernel);
}

void tls_init(void)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;

        pthread_once(&once, init_once);
}

#define PEER_BYTES (16 * KIB) /* what a session held, about: see loop.trimmed */

/* ---- sessions to servers, kept by thread ---- */

#define SESSIONS 64

static _Thread_local struct {
        uint64_t key;
        SSL_SESSION *session;
} sessions[SESSIONS];

int tls_keep_session(SSL *ssl, SSL_SESSION *session)
{
        struct tls_peer *p = SSL_get_app_data(ssl);
        size_t i = p->session_key % SESSIONS;

        if (sessions[i].session != NULL)
                SSL_SESSION_free(sessions[i].session);
        sessions[i].key = p->session_key;
        sessions[i].session = session;
        return 1; /* the reference is ours now */
}

static void offer_session(struct tls_peer *p)
{
        size_t i = p->session_key % SESSIONS;

        if (sessions[i].session != NULL && sessions[i].key == p->session_key)
                SSL_set_session(p->ssl, sessions[i].session);
}

void tls_thread_end(void)
{
        for (size_t i = 0; i < SESSIONS; i++) {
                SSL_SESSION_free(sessions[i].session);
                sessions[i].session = NULL;
        }
}

/* ---- peers ---- */

static struct tls_peer *peer_new(SSL_CTX *ctx, const BIO_METHOD *m, int fd)
{
        struct tls_peer *p = calloc(1, sizeof(*p));
        BIO *b = BIO_new(m);

        CHECK(p != NULL && b != NULL);
        p->magic = TLS_PEER_MAGIC;
        p->fd = fd;
        p->facts.peer = p;
        p->small_left = SMALL_PHASE;
        p->ssl = SSL_new(ctx);
        CHECK(p->ssl != NULL);
        BIO_set_data(b, p);
        BIO_set_init(b, 1);
        SSL_set_bio(p->ssl, b, b);
        SSL_set_app_data(p->ssl, p);
        return p;
}

struct tls_peer *tls_accept_peer(struct tls_server *s, int fd)
{
        struct tls_peer *p = peer_new(s->ctx[0], s->kernel ? bio_kernel : bio_method, fd);

        p->server = tls_server_hold(s);
        p->facts.policy = tls_word(s->policy);
        p->early = p->offered = s->early_data;
        SSL_set_accept_state(p->ssl);
        return p;
}

/* The name to verify and to ask for; an address is verified as one and not sent (RFC 6066 3). */
static void set_name(struct tls_peer *p, const char *name)
{
        X509_VERIFY_PARAM *param = SSL_get0_param(p->ssl);
        struct in6_addr ip;

        if (inet_pton(AF_INET, name, &ip) == 1 || inet_pton(AF_INET6, name, &ip) == 1) {
                CHECK(X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1);
                return;
        }
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        CHECK(SSL_set1_host(p->ssl, name) == 1);
        SSL_set_tlsext_host_name(p->ssl, name);
}

struct tls_peer *tls_connect_peer(struct tls_client *c, int fd, str host)
{
        struct tls_peer *p = peer_new(c->ctx, bio_method, fd);
        str name = c->name ? str_z(c->name) : host;

        p->client = tls_client_hold(c);
        SSL_set_connect_state(p->ssl);
        if (name.n > 0) {
                p->sni = str_dupz(name);
                set_name(p, p->sni);
        } else {
                p->no_name = c->verify;
        }
        p->session_key = tls_client_key(c) ^ map_hash(name);
        offer_session(p);
        return p;
}

void tls_peer_free(struct tls_peer *p)
{
        if (p == NULL)
                return;
        CHECK_OBJ(p, TLS_PEER_MAGIC);
        if (p->holds > 0) {
                p->holds--;
                return;
        }
        SSL_free(p->ssl);
        tls_server_drop(p->server);
        tls_client_drop(p->client);
        buf_clear(&p->raw);
        buf_clear(&p->enc);
        buf_clear(&p->first);
        free(p->sni);
        tls_client_text_free(p);
        free(p->error);
        p->magic = DEAD_MAGIC;
        free(p);
}

const struct tls_facts *tls_facts(struct tls_peer *p)
{
        CHECK_OBJ(p, TLS_PEER_MAGIC);
        return &p->facts;
}

const struct tls_facts *tls_facts_hold(struct tls_peer *p)
{
        if (p == NULL)
                return NULL;
        p->holds++;
        return tls_facts(p);
}

void tls_facts_drop(const struct tls_facts *f)
{
        if (f != NULL)
                tls_peer_free(f->peer); /* whoever is the last */
}

/* OpenSSL looks for the reason of a failure in this queue; clearing it is dear where it is empty
 * already. */
static inline void drain_errors(void)
{
        if (UNLIKELY(ERR_peek_error() != 0))
                ERR_clear_error();
}

/* ---- facts ---- */

static void set_error(struct tls_peer *p, const char *text)
{
        free(p->error);
        p->error = str_dupz(str_z(text));
        p->facts.error = str_z(p->error);
}

/* Why the last call to OpenSSL failed, in words; the thread's error queue is empty afterwards. */
static void explain(struct tls_peer *p)
{
        char text[256];
        long verify = SSL_get_verify_result(p->ssl);
        size_t n;

        p->facts.broken = p->sock_error == 0 && ERR_peek_error() != 0;
        if (p->sock_error != 0) {
                ERR_clear_error();
                set_error(p, strerror(p->sock_error));
        } else if (ERR_peek_error() == 0) {
                set_error(p, p->raw_eof ? "the peer closed the connection" : "the session failed");
        } else {
                tls_note_absence(p);
                tls_error_text(text, sizeof(text));
                n = strlen(text);
                if (verify != X509_V_OK)
                        snprintf(text + n, sizeof(text) - n, ": %s",
                                 X509_verify_cert_error_string(verify));
                set_error(p, text);
        }
}

static void set_facts(struct tls_peer *p)
{
        const unsigned char *alpn;
        unsigned n;

        p->established = true;
        p->facts.version = str_z(SSL_get_version(p->ssl));
        p->facts.cipher = str_z(SSL_get_cipher_name(p->ssl));
        p->facts.sni = str_z(p->sni);
        p->facts.resumed = SSL_session_reused(p->ssl);
        SSL_get0_alpn_selected(p->ssl, &alpn, &n);
        if (n > 0)
                p->facts.alpn = str_of(alpn, n);
        if (p->server != NULL && p->server->client_certificate != TLS_CLIENT_OFF)
                p->facts.client_verified = SSL_get0_peer_certificate(p->ssl) != NULL &&
                                           SSL_get_verify_result(p->ssl) == X509_V_OK;
}

/* Handshakes with clients are counted by version and result. */
static void count_handshake(const struct io *io, const struct tls_peer *p, bool failed)
{
        struct buf b = BUF_INIT;
        const char *version = !failed ? p->facts.version.p : "none";

        if (p->server == NULL || io->loop->metrics == NULL)
                return;
        metric_label(&b, "version", str_z(version));
        metric_label(&b, "result",
                     failed             ? STR("failed")
                     : p->facts.resumed ? STR("resumed")
                                        : STR("full"));
        metric_add(metric_series(io->loop->metrics, METRIC_HANDSHAKES, buf_pullup(&b, b.n)), 1);
        buf_clear(&b);
}

/* ---- handshake ---- */

static const struct io_type kernel_type;

static enum io_sent send_enc(struct tls_peer *p, int *error)
{
        return p->kernel ? tls_kernel_flush(p, error) : io_send_buf(p->fd, &p->enc, error);
}

static enum io_step fail(struct io *io, struct tls_peer *p, enum reason *why)
{
        *why = p->client             ? REASON_UPSTREAM_TLS
               : p->facts.plain_http ? REASON_HTTP_ON_TLS
                                     : REASON_TLS_FAILED;
        io->error = p->sock_error;
        p->facts.sni = str_z(p->sni);
        count_handshake(io, p, true);
        return IO_STEP_FAILED;
}

static void tls_release(struct io *io);
static bool no_pending(const struct io *io UNUSED)
{
        return false;
}
static size_t no_unsent(const struct io *io UNUSED)
{
        return 0;
}

/* A client that spoke plain HTTP: what is said to it from here on is plain too. */
static const struct io_type refused = {
        .read = io_plain_read,
        .send = io_plain_send,
        .pending = no_pending,
        .unsent = no_unsent,
        .release = tls_release,
};

/* No TLS record begins with a capital letter, and every HTTP method does. */
static enum io_step look_at_first_byte(struct io *io, struct tls_peer *p, enum reason *why)
{
        char c;
        ssize_t r;

        do
                r = recv(p->fd, &c, 1, MSG_PEEK);
        while (r < 0 && errno == EINTR);
        if (r < 0 && errno == EAGAIN)
                return IO_STEP_WAIT;
        if (r <= 0) {
                p->sock_error = r < 0 ? errno : 0;
                p->raw_eof = r == 0;
                explain(p);
                return fail(io, p, why);
        }
        p->peeked = true;
        if (c < 'A' || c > 'Z')
                return IO_STEP_DONE;
        p->facts.plain_http = true;
        set_error(p, "plain HTTP instead of a TLS handshake");
        io->type = &refused;
        return fail(io, p, why);
}

/* Early data that a client offered: was it taken? */
static void count_early(const struct io *io, struct tls_peer *p)
{
        int status = SSL_get_early_data_status(p->ssl);

        if (status == SSL_EARLY_DATA_NOT_SENT) /* or not known yet */
                return;
        p->offered = false;
        if (io->loop->metrics == NULL)
                return;
        metric_add(metric_series(io->loop->metrics, METRIC_EARLY_DATA,
                                 p->replayed                         ? STR("result=\"replayed\"")
                                 : status == SSL_EARLY_DATA_ACCEPTED ? STR("result=\"accepted\"")
                                                                     : STR("result=\"rejected\"")),
                   1);
}

/* The handshake as SSL_do_handshake would, where early data may come before its end: the first of
 * it ends the waiting, and what is left of the handshake goes on in tls_read. */
static int handshake_early(struct tls_peer *p)
{
        size_t n = 0;

        switch (SSL_read_early_data(p->ssl, scratch, sizeof(scratch), &n)) {
        case SSL_READ_EARLY_DATA_SUCCESS:
                buf_put(&p->first, scratch, n);
                p->facts.early = true;
                return 1;
        case SSL_READ_EARLY_DATA_FINISH:
                p->early = false;
                return SSL_do_handshake(p->ssl);
        default:
                return 0;
        }
}

static enum io_step tls_handshake(struct io *io, enum reason *why)
{
        struct tls_peer *p = io->tls;
        int r;

        if (p->server != NULL && !p->peeked) {
                enum io_step s = look_at_first_byte(io, p, why);
                if (s != IO_STEP_DONE)
                        return s;
        }
        if (p->no_name) {
                set_error(p, "no name to verify the certificate against");
                return fail(io, p, why);
        }
        p->dry = false;
        drain_errors();
        r = p->early ? handshake_early(p) : SSL_do_handshake(p->ssl);
        if (p->offered)
                count_early(io, p);
        if (r != 1 && SSL_get_error(p->ssl, r) == SSL_ERROR_WANT_READ) {
                r = 0;
        } else if (r != 1) {
                explain(p);
                r = -1;
        }
        /* A flight, or the alert that says why not. */
        if (send_enc(p, &p->sock_error) == IO_SENT_FAILED && r >= 0) {
                explain(p);
                r = -1;
        }
        if (p->kernel)
                io->type = &kernel_type;
        if (r < 0)
                return fail(io, p, why);
        if (r == 0)
                return IO_STEP_WAIT;
        set_facts(p);
        count_handshake(io, p, false);
        if (p->server != NULL && p->server->kernel)
                tls_kernel_count(p, io->loop->metrics);
        return IO_STEP_DONE;
}

/* ---- reading ---- */

static bool tls_pending(const struct io *io)
{
        return io->tls->raw.n > 0 || io->tls->first.n > 0 || SSL_pending(io->tls->ssl) > 0;
}

/* Why SSL_read gave nothing; what was got before is told first, and this again by the next read. */
static enum io_result read_end(struct io *io, struct tls_peer *p, size_t got, bool *drained)
{
        int why = SSL_get_error(p->ssl, 0);

        if (why == SSL_ERROR_WANT_READ) {
                if (drained)
                        *drained = true;
                return got > 0 ? IO_OK : IO_AGAIN;
        }
        if (got > 0) {
                drain_errors();
                return IO_OK;
        }
        if (why == SSL_ERROR_ZERO_RETURN && !io->failed) {
                io->truncated = p->bio_eof;
                return IO_EOF;
        }
        explain(p);
        if (!io->failed)
                io->error = p->sock_error;
        return IO_ERROR;
}

/* SSL_read_ex, which also ends a handshake; before that, early data. */
static bool read_record(struct tls_peer *p, void *out, size_t room, size_t *n)
{
        bool ok;

        if (UNLIKELY(p->early)) {
                int r = SSL_read_early_data(p->ssl, out, room, n);
                if (r != SSL_READ_EARLY_DATA_FINISH)
                        return r == SSL_READ_EARLY_DATA_SUCCESS;
                p->early = false;
        }
        ok = SSL_read_ex(p->ssl, out, room, n) == 1;
        if (UNLIKELY(p->facts.early))
                p->facts.early = !SSL_is_init_finished(p->ssl);
        return ok;
}

static enum io_result tls_read(struct io *io, size_t want, bool *drained)
{
        struct tls_peer *p = io->tls;
        enum io_result result = IO_OK;
        size_t got = 0;

        want = MIN(want, IO_TURN_MAX);
        p->dry = false;
        if (UNLIKELY(p->first.n > 0)) {
                got = MIN(want, p->first.n);
                buf_move(&io->in, &p->first, got);
        }
        while (got < want) {
                struct iovec iov[2];
                size_t n = 0;

                buf_read_iov(&io->in, MIN(want - got, BUF_CHUNK), iov, 2);
                drain_errors();
                if (!read_record(p, iov[0].iov_base, iov[0].iov_len, &n)) {
                        buf_commit_iov(&io->in, 0);
                        result = read_end(io, p, got, drained);
                        break;
                }
                buf_commit_iov(&io->in, n);
                got += n;
                if (p->dry && !p->raw_eof && !tls_pending(io)) {
                        if (drained)
                                *drained = true;
                        break;
                }
        }
        /* Answers of the protocol itself: a key update, an alert. */
        if (p->enc.n > 0)
                io_flush(io);
        return result;
}

/* ---- writing ---- */

static size_t record_size(struct io *io, struct tls_peer *p)
{
        if (io->loop->now - p->last_write > SMALL_AGAIN)
                p->small_left = SMALL_PHASE;
        p->last_write = io->loop->now;
        return p->small_left > 0 ? RECORD_SMALL : RECORD_MAX;
}

/* One record from the front of out; small pieces are put together. */
static bool encrypt(struct io *io, struct tls_peer *p)
{
        size_t limit = record_size(io, p), n;
        str front = buf_front(&io->out);

        if (front.n < MIN(limit, RECORD_FAIR) && front.n < io->out.n)
                front = str_of(scratch, buf_copy_out(&io->out, 0, scratch, limit));
        drain_errors();
        /* Before the client has ended its handshake, nothing else is allowed. */
        if ((UNLIKELY(p->facts.early)
                     ? SSL_write_early_data(p->ssl, front.p, MIN(front.n, limit), &n)
                     : SSL_write_ex(p->ssl, front.p, MIN(front.n, limit), &n)) != 1) {
                explain(p);
                io->error = p->sock_error;
                return false;
        }
        buf_drain(&io->out, n);
        p->small_left -= (uint32_t)MIN(n, p->small_left);
        return true;
}

static enum io_sent tls_send(struct io *io)
{
        struct tls_peer *p = io->tls;
        enum io_sent s;

        do {
                while (io->out.n > 0 && p->enc.n < BATCH)
                        if (!encrypt(io, p))
                                return IO_SENT_FAILED;
                if (io->out.n == 0 && io->shut_due && !p->notified) {
                        p->notified = true;
                        drain_errors();
                        SSL_shutdown(p->ssl);
                }
                s = io_send_buf(p->fd, &p->enc, &io->error);
        } while (s == IO_SENT_ALL && io->out.n > 0);
        return s;
}

static size_t tls_unsent(const struct io *io)
{
        return io->tls->enc.n;
}

/* An orderly end where it costs no waiting. */
static void tls_release(struct io *io)
{
        struct tls_peer *p = io->tls;
        int ignored;

        if (p->established && !p->notified && !io->failed && !io->cut && io_unsent(io) == 0) {
                drain_errors();
                SSL_shutdown(p->ssl);
                (void)send_enc(p, &ignored);
        }
        drain_errors();
        io->loop->trimmed += PEER_BYTES;
        tls_peer_free(p);
        io->tls = NULL;
}

static const struct io_type tls_type = {
        .read = tls_read,
        .send = tls_send,
        .handshake = tls_handshake,
        .pending = tls_pending,
        .unsent = tls_unsent,
        .release = tls_release,
};

static enum io_result kernel_read(struct io *io, size_t want, bool *drained)
{
        struct tls_peer *p = io->tls;
        enum io_result r = tls_read(io, want, drained);

        if (!tls_kernel_rekey_due(p))
                return r;
        set_error(p, "the client asked for new keys, which kernel_tls cannot change");
        return IO_ERROR;
}

/* The kernel has the keys for sending. */
static const struct io_type kernel_type = {
        .read = kernel_read,
        .send = tls_kernel_send,
        .tail = tls_kernel_tail,
        .handshake = tls_handshake,
        .pending = tls_pending,
        .unsent = tls_unsent,
        .release = tls_release,
};

void io_preface(struct io *io, str bytes)
{
        CHECK(io->connecting && io->out.n == 0);
        buf_puts(io->tls ? &io->tls->enc : &io->out, bytes);
}

void io_start_tls(struct io *io, struct tls_peer *tls)
{
        CHECK_OBJ(tls, TLS_PEER_MAGIC);
        CHECK(io->tls == NULL);
        tls->fd = io->fd;
        io->tls = tls;
        io_set_type(io, &tls_type, tls->client != NULL);
}
