/*
 * What tls.c, tls_ticket.c and tls_io.c share: the objects behind the opaque types of net/tls.h.
 */
#ifndef NET_TLS_TYPE_H
#define NET_TLS_TYPE_H

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "net/io_type.h"
#include "net/tls.h"

#include <openssl/ssl.h>
#include <stdatomic.h>

/* Found by the digest of all the texts it was made from, so that a reload which changes nothing
 * makes nothing. Invariant: linked in its registry while refs > 0; immutable but for the count. */
struct tls_shared {
        struct list link;
        _Atomic uint64_t refs;
        uint8_t digest[32];
};

/* One listener: a context for each certificate (or for several of one name with different kinds of
 * key). */
struct tls_server {
        struct tls_shared shared;
        SSL_CTX **ctx; /* [0] is the default; all alike but for the certificate */
        size_t n_ctx;
        bool *unused;        /* for each pair: no client is ever shown it */
        struct map *names;   /* "a.example.com", "*.example.com" in lower case to SSL_CTX */
        unsigned char *alpn; /* wire format, in order of preference */
        unsigned alpn_n;
        int client_certificate; /* TLS_CLIENT_* */
        int client_depth, version_min, version_max;
        int64_t crl_expires; /* the first of the lists, seconds of the epoch; INT64_MAX: none does
                              */
        char *ciphers;
        struct map *hosts;        /* name to struct tls_server; NULL: the same for all names */
        struct tls_server **held; /* those in hosts */
        size_t n_held;
        uint8_t strength[32];        /* digest of versions and ciphers */
        uint8_t session_context[32]; /* of both strength and policy */
        bool early_data;
        bool kernel;        /* records are made by the kernel where it can */
        uint8_t policy[32]; /* digest of what client certificates are asked for and who is believed
                             */
};

struct tls_client {
        struct tls_shared shared;
        SSL_CTX *ctx;
        bool verify;
        char *name; /* NULL: the host of each connection */
};

/* tls_digest.c: of all that a server's or client's object is made from; of what decides which
 * clients are let in; of versions and ciphers; of both, for what a session must have been made
 * under. */
void tls_digest_server(const struct tls_server_conf *c, uint8_t out[32]);
void tls_digest_client(const struct tls_client_conf *c, uint8_t out[32]);
void tls_digest_policy(const struct tls_server_conf *c, uint8_t out[32]);
void tls_digest_strength(const struct tls_server_conf *c, uint8_t out[32]);
void tls_digest_session(const struct tls_server_conf *c, uint8_t out[32]);

/* tls_host.c: what hosts of a listener have of their own. */
void tls_host_add_all(struct tls_server *s, const struct tls_server_conf *c);
void tls_host_free(struct tls_server *s);
/* Within the client-hello callback: from here on the session is one of t's. */
MUST_CHECK bool tls_host_switch(SSL *ssl, struct tls_server *t);

/* The context for a client that asked for sni (absent: the default). */
SSL_CTX *tls_server_choose(const struct tls_server *s, str sni);

/* The policy or the key as a number. */
static inline uint64_t tls_word(const uint8_t digest[32])
{
        uint64_t v;

        memcpy(&v, digest, sizeof(v));
        return v;
}

static inline int tls_version_number(int v)
{
        return v == 13 ? TLS1_3_VERSION : TLS1_2_VERSION;
}

static inline int tls_verify_mode(int client_certificate)
{
        return client_certificate == TLS_CLIENT_REQUIRED
                       ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
               : client_certificate == TLS_CLIENT_OPTIONAL ? SSL_VERIFY_PEER
                                                           : SSL_VERIFY_NONE;
}

/* A session: one of server and client is set and held. */
struct tls_peer {
        uint32_t magic;
        int fd;
        SSL *ssl;
        struct tls_server *server;
        struct tls_client *client;
        struct buf raw;       /* received, not yet taken by OpenSSL */
        struct buf enc;       /* encrypted, not yet sent */
        struct buf first;     /* early data that came while the handshake was going on */
        int sock_error;       /* errno of a failed receive */
        uint32_t small_left;  /* bytes still to go in small records */
        int64_t last_write;   /* loop time */
        uint64_t session_key; /* client: where its ticket is kept */
        bool peeked : 1;      /* the first byte has been looked at */
        bool dry : 1;         /* the last receive took all there was */
        bool plenty : 1;      /* it filled all the room it had */
        bool raw_eof : 1;     /* FIN received */
        bool bio_eof : 1;     /* OpenSSL has been told of it */
        bool established : 1;
        bool notified : 1;    /* our close_notify is in enc or gone */
        bool early : 1;       /* server: there may be early data still to read */
        bool offered : 1;     /* server: the outcome of early data is to be counted */
        bool replayed : 1;    /* server: early data was not taken, as it had been before */
        bool no_name : 1;     /* verification is on but there is no name to verify */
        bool kernel : 1;      /* the kernel makes the records: io->out goes to it as it is, and enc
                                 holds what OpenSSL says besides, as tls_kernel.c writes it */
        uint8_t said_type;    /* kernel: of what OpenSSL writes next */
        uint8_t control_type; /* kernel: of the record at the front of enc, its header taken off; */
        uint16_t control_left; /* what is left of it, 0: enc begins with a header */
        struct tls_facts facts;
        uint32_t holds;              /* of facts, besides the owner's */
        char *sni, *error, *refused; /* what facts point to */
};
#define TLS_PEER_MAGIC UINT32_C(0x544c5350)

/* All certificates of a text; NULL when there is none or one is broken. */
STACK_OF(X509) * tls_pem_certificates(str pem);

/* Makes the ticket callback of a server context speak to the process's ring, if there is one. */
void tls_tickets_attach(SSL_CTX *ctx);
void tls_ticket_init(void);

/* Makes ctx answer with the pair's staple, if it has one, when x is the certificate it shows. */
void tls_staple_attach(SSL_CTX *ctx, X509 *x, const struct tls_pair *pair);
void tls_staple_init(void);
/* A server context takes up to max bytes of early data, each ClientHello's once. */
void tls_replay_attach(SSL_CTX *ctx, uint32_t max);
enum tls_seen { TLS_SEEN_NEW, TLS_SEEN_BEFORE, TLS_SEEN_FULL };
/* Remembers a ClientHello; now: seconds of the monotonic clock.  Any thread of any process. */
enum tls_seen tls_replay_see(struct tls_replay *r, str hello, int64_t now);

/* The text of the oldest error in this thread's queue, which is then empty.  Into cap bytes, never
 * empty. */
void tls_error_text(char *out, size_t cap);

/* tls_pem.c.  All certificates or lists of a text; NULL when there is none or one is broken (the
 * error is queued). */
BIO *tls_pem_open(str pem);
STACK_OF(X509_CRL) * tls_pem_lists(str pem);
int tls_pem_no_password(char *buf, int size, int writing, void *arg);

/* tls_client_cert.c. */
bool tls_load_crls(X509_STORE *store, str pem);
/* Makes a server context resume no session whose client would not be believed any more. */
void tls_client_attach(SSL_CTX *ctx);
int tls_note_refusal(int ok, X509_STORE_CTX *store);
void tls_note_absence(struct tls_peer *p);
void tls_client_text_free(struct tls_peer *p);

/* The BIO under every session, its data the peer: what is written goes to enc. */
int tls_bio_write(BIO *b, const char *in, int n);
long tls_bio_ctrl(BIO *b, int cmd, long num, void *ptr);

/* tls_kernel.c: sending by the kernel.  A BIO that gives it the keys when OpenSSL has them; then
 * kernel is set. */
void tls_kernel_bio(BIO_METHOD *m);
void tls_kernel_count(const struct tls_peer *p, struct metric_slot *m);
/* With kernel set.  What is in enc goes to the socket; and io->out after it. */
enum io_sent tls_kernel_flush(struct tls_peer *p, int *error);
enum io_sent tls_kernel_send(struct io *io);
bool tls_kernel_tail(const struct io *io); /* as io_type has it */
/* After a read: the client wants new keys, which the kernel cannot be given, and must get no data
 * under the old ones.  True: it has been told that this is the end. */
bool tls_kernel_rekey_due(struct tls_peer *p);

/* A new client session for the thread's cache (OpenSSL's callback). */
int tls_keep_session(SSL *ssl, SSL_SESSION *session);

#endif
