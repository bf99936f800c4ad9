/*
 * TLS contexts: what OpenSSL is told.  The one home of libssl with tls_io.c.
 *
 * The difficulty: a session or ticket of one name must never open another name with another
 * verification policy. So the policy is chosen in the client-hello callback only, the session id
 * context is a hash of the verification policy, and every context of a server shares the process's
 * ticket keys.
 *
 * Contexts are immutable, counted and shared between generations by content hash; a connection
 * holds its own.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/arena.h"
#include "base/reason.h"
#include "net/tls_staple.h"

enum { TLS_CLIENT_OFF, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRED };

struct tls_pair {
        str cert_pem, key_pem;
        str cert_file, key_file; /* names for messages */
        /* OCSP: a response that was judged, and until when it counts; or the place of those that
         * are fetched. */
        str ocsp;
        int64_t ocsp_next;
        struct tls_staple_ref staple;
};

/* Names that are served under other parameters: "a.example.com", "*.example.com", lower case. */
struct tls_server;
struct tls_host {
        const str *names;
        size_t n_names;
        struct tls_server *server; /* NULL: the listener's own parameters */
};

struct tls_server_conf { /* one listener, all texts already read */
        const struct tls_pair *pairs;
        size_t n_pairs; /* the first is the default */
        const str *alpn;
        size_t n_alpn;                /* "http/1.1" ... in order of preference */
        int version_min, version_max; /* 12 or 13 */
        str ciphers;                  /* OpenSSL list for 1.2; absent: the default */
        int client_certificate;       /* TLS_CLIENT_* */
        str client_ca_pem, client_ca_file;
        str client_crl_pem, client_crl_file; /* absent: nobody asks whether one was revoked */
        int client_depth; /* CAs between a client's certificate and one of client_ca_pem */
        const struct tls_host *hosts; /* each server is held; the nearest name decides */
        size_t n_hosts;
        uint32_t max_early_data; /* bytes of TLS 1.3 early data; 0: none is taken */
        bool kernel;             /* the kernel encrypts what is sent, where it can */
};
struct tls_client_conf { /* one upstream */
        bool verify;
        str ca_pem, ca_file; /* absent: the system's store */
        str name;            /* SNI and verified name; an IP is verified as such and not sent */
        str cert_pem, key_pem, cert_file, key_file; /* absent: none */
        const str *alpn;
        size_t n_alpn;
};

struct tls_client;

/* On failure NULL and a message that names the file in err (allocated in a).  Safe on any thread.
 */
MUST_CHECK struct tls_server *tls_server_new(const struct tls_server_conf *c, struct arena *a,
                                             str *err);
MUST_CHECK struct tls_client *tls_client_new(const struct tls_client_conf *c, struct arena *a,
                                             str *err);
struct tls_server *tls_server_hold(struct tls_server *s);
void tls_server_drop(struct tls_server *s);
struct tls_client *tls_client_hold(struct tls_client *c);
void tls_client_drop(struct tls_client *c);
uint64_t tls_client_key(const struct tls_client *c); /* hash of all that shapes a connection: pools
                                                        are keyed by it */
uint64_t tls_server_policy(const struct tls_server *s); /* hash of the client verification policy */
bool tls_server_demands(const struct tls_server *s);    /* whether it must be shown a certificate */
uint64_t tls_server_strength(const struct tls_server *s); /* hash of versions and ciphers */
/* Whether the pair, by its number in the conf, is never shown: those before it have all its names.
 */
bool tls_server_unused(const struct tls_server *s, size_t pair);
/* Whose parameters hold for a client that asks for this name: s, or one of its hosts'. */
struct tls_server *tls_server_for(struct tls_server *s, str name);

/* Ticket keys: a ring in shared memory that the master makes; every process reads it.  One process
 * writes it at a time: the master, or its fetcher. */
#define TLS_TICKET_KEYS      6 /* the next one, the one that seals, three old ones; one in hand */
#define TLS_TICKET_OLD       3
#define TLS_TICKET_FILE_KEYS 5
#define TLS_TICKET_KEY_BYTES 80 /* name 16, MAC key 32, cipher key 32 */
#define TLS_TICKET_BYTES     (TLS_TICKET_KEYS * TLS_TICKET_KEY_BYTES)
struct tls_tickets;

/* All keys, newest first.  Those before v[seal] are known, so that tickets of other machines open,
 * but seal nothing yet.  Invariant: seal < n. */
struct tls_ticket_set {
        uint32_t n, seal;
        struct tls_ticket_entry {
                uint8_t key[TLS_TICKET_KEY_BYTES];
                int64_t from; /* when it begins to seal, us of the epoch; 0: nobody said */
        } v[TLS_TICKET_KEYS];
};

enum tls_tickets_result {
        TLS_TICKETS_BROKEN, /* nothing was changed */
        TLS_TICKETS_KEPT,   /* what seals is what sealed before */
        TLS_TICKETS_ROTATED,
        TLS_TICKETS_STAGED /* known from now on; load it later */
};

struct tls_tickets *
tls_tickets_new(void); /* in shared memory, first key made; master, before fork */
void tls_tickets_rotate(struct tls_tickets *t); /* a new key, made here */
/* Content of a key file: 80 bytes a key, newest first.  load: its first key seals from now on.
 * stage: that waits if nobody here knew the key, so that other machines can read it first. */
MUST_CHECK enum tls_tickets_result tls_tickets_load(struct tls_tickets *t, str content);
MUST_CHECK enum tls_tickets_result tls_tickets_stage(struct tls_tickets *t, str content);
void tls_tickets_get(struct tls_tickets *t, struct tls_ticket_set *out);
enum tls_tickets_result tls_tickets_put(struct tls_tickets *t, const struct tls_ticket_set *set);
bool tls_tickets_file_ok(str content);
size_t tls_tickets_save(struct tls_tickets *t,
                        char out[TLS_TICKET_BYTES]); /* what tls_tickets_load takes; bytes */
int64_t tls_tickets_since(struct tls_tickets *t);    /* what seals does so since, us of the epoch */
void tls_tickets_use(struct tls_tickets *t);         /* process-wide, before the first context */

/* Which early data was taken already (tls_replay.c). */
struct tls_replay;
struct tls_replay *tls_replay_new(void); /* in shared memory; master, before fork */
void tls_replay_free(struct tls_replay *r);
void tls_replay_use(struct tls_replay *r); /* process-wide, before the first connection */
/* Nothing is taken while another process has the same ticket keys, or is about to (an upgrade).
 * Any process. */
void tls_replay_pause(struct tls_replay *r, bool on);
#define TLS_EARLY_DATA (16 * KIB) /* what is read, and dropped, even where it is not taken */

/* One session: made for an io's socket, freed by the io.  Belongs to its loop's thread. */
struct tls_peer;
struct tls_peer *tls_accept_peer(struct tls_server *s, int fd); /* io_start_tls takes it over */
/* host: the name to verify and to ask for where the conf gives none (one of the two there must be,
 * to verify at all). Tickets are reused by key and name (a small per-thread cache). */
struct tls_peer *tls_connect_peer(struct tls_client *c, int fd, str host);
void tls_peer_free(struct tls_peer *p);

/* What can be told of a client's certificate; each is made when it is first asked for. */
enum tls_client_text {
        TLS_CLIENT_SUBJECT,     /* RFC 4514 */
        TLS_CLIENT_CN,          /* the last common name in it, as UTF-8: not escaped */
        TLS_CLIENT_ISSUER,      /* RFC 4514 */
        TLS_CLIENT_SERIAL,      /* hex, upper case */
        TLS_CLIENT_SAN,         /* "DNS:a,URI:b,email:c,IP:d" */
        TLS_CLIENT_FINGERPRINT, /* SHA-256, hex */
        TLS_CLIENT_EXPIRES,     /* "2026-12-27T09:10:31Z" */
        TLS_CLIENT_FIELD,       /* value of Client-Cert, RFC 9440 */
        TLS_CLIENT_TEXTS
};

struct tls_facts {             /* valid as long as the peer, or somebody who holds them */
        str version;           /* "TLSv1.3" */
        str cipher, sni, alpn; /* absent when none */
        bool early; /* what has come so far came as early data: it may be a replay until this is
                       false, which is when the handshake has ended */
        bool resumed, client_verified;
        uint64_t policy; /* of the verification it went through */
        str error;       /* last failure in words, for the log */
        bool broken;     /* that was a record or the peer's alert, not the socket */
        bool plain_http; /* the handshake failed because the client spoke plain HTTP */
        str refused;     /* subject of the client certificate that made it fail, empty: there was
                            none; absent: it was not that */
        str refusal;     /* why: OpenSSL's words */
        str client_text[TLS_CLIENT_TEXTS]; /* made so far: ask tls_client_text */
        struct tls_peer *peer;             /* whose they are */
};
const struct tls_facts *tls_facts(struct tls_peer *p);
/* For who may outlive the connection; in its loop.  p, f: may be NULL. */
const struct tls_facts *tls_facts_hold(struct tls_peer *p);
void tls_facts_drop(const struct tls_facts *f);
/* Absent without a verified certificate; valid as long as f.  f may be NULL. */
str tls_client_text(const struct tls_facts *f, enum tls_client_text what);

/* When the first certificate of a PEM text, or the first of its revocation lists, expires; seconds
 * of the epoch.  false: there is none that says so. */
MUST_CHECK bool tls_certificate_expires(str pem, int64_t *out);
MUST_CHECK bool tls_crl_expires(str pem, int64_t *out);

void tls_init(void); /* process-wide, before threads */
void tls_thread_end(void);
const char *tls_library(void); /* "OpenSSL 3.0.11 ..." */

#endif
