/*
 * TLS contexts: certificates, names, policies.  Sessions and bytes are tls_io.c's, ticket keys
 * tls_ticket.c's.
 *
 * The difficulty is trust that leaks sideways: a ticket got under one verification policy must not
 * open another.  The session id context is a digest of the policy alone, fixed before the client
 * has said which name it wants; the client-hello callback then changes nothing but the certificate,
 * unless the name belongs to a host with parameters of its own: tls_host.c.
 */
#include "net/tls_type.h"

#include "base/check.h"
#include "base/crypto.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define CIPHERS_12     "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS         "X25519:P-256:P-384:P-521"
#define SESSION_LIFE_S (2 * 3600)
#define NAME_MAX_BYTES 255

/* ---- what is shared between generations ---- */

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list servers = {&servers, &servers}, clients = {&clients, &clients};

/* The object with this digest, held, or NULL.  One whose count has reached 0 is already dying. */
static struct tls_shared *registry_find(struct list *registry, const uint8_t digest[32])
{
        LIST_EACH (n, registry) {
                struct tls_shared *s = CONTAINER_OF(n, struct tls_shared, link);
                uint64_t refs = atomic_load(&s->refs);

                if (memcmp(s->digest, digest, 32) != 0)
                        continue;
                while (refs > 0)
                        if (atomic_compare_exchange_weak(&s->refs, &refs, refs + 1))
                                return s;
        }
        return NULL;
}

static struct tls_shared *registry_get(struct list *registry, const uint8_t digest[32])
{
        struct tls_shared *s;

        pthread_mutex_lock(&registry_lock);
        s = registry_find(registry, digest);
        pthread_mutex_unlock(&registry_lock);
        return s;
}

static void registry_add(struct list *registry, struct tls_shared *s, const uint8_t digest[32])
{
        memcpy(s->digest, digest, 32);
        atomic_store(&s->refs, 1);
        pthread_mutex_lock(&registry_lock);
        list_push(registry, &s->link);
        pthread_mutex_unlock(&registry_lock);
}

/* True: that was the last one and the caller frees. */
static bool registry_drop(struct tls_shared *s)
{
        if (atomic_fetch_sub(&s->refs, 1) != 1)
                return false;
        pthread_mutex_lock(&registry_lock);
        list_remove(&s->link);
        pthread_mutex_unlock(&registry_lock);
        return true;
}

/* ---- errors ---- */

void tls_error_text(char *out, size_t cap)
{
        unsigned long e = ERR_peek_error();
        const char *reason = e ? ERR_reason_error_string(e) : NULL;

        snprintf(out, cap, "%s", reason ? reason : "unknown error");
        ERR_clear_error();
}

static void say(str *err, struct arena *a, str file, const char *what)
{
        char why[160];

        if (ERR_peek_error() != 0) {
                tls_error_text(why, sizeof(why));
                *err = arena_printf(a, "%.*s: %s: %s", STR_ARG(file), what, why);
        } else {
                *err = arena_printf(a, "%.*s: %s", STR_ARG(file), what);
        }
}

/* ---- pairs and authorities ---- */

/* Certificate, chain and key into ctx (beside one of another kind of key that it may already have).
 */
static bool load_pair(SSL_CTX *ctx, str cert, str cert_file, str key, str key_file, struct arena *a,
                      str *err)
{
        STACK_OF(X509) *chain = tls_pem_certificates(cert);
        EVP_PKEY *pkey = NULL;
        BIO *b;
        bool ok = false;

        if (chain == NULL) {
                say(err, a, cert_file, "no certificate in PEM form");
                return false;
        }
        b = tls_pem_open(key);
        pkey = PEM_read_bio_PrivateKey(b, NULL, tls_pem_no_password, NULL);
        BIO_free(b);
        if (pkey == NULL) {
                say(err, a, key_file, "no private key in PEM form without a password");
                goto out;
        }
        if (SSL_CTX_use_certificate(ctx, sk_X509_value(chain, 0)) != 1) {
                say(err, a, cert_file, "the certificate cannot be used");
                goto out;
        }
        if (X509_check_private_key(sk_X509_value(chain, 0), pkey) != 1) {
                ERR_clear_error();
                *err = arena_printf(a, "%.*s: the key does not belong to the certificate in %.*s",
                                    STR_ARG(key_file), STR_ARG(cert_file));
                goto out;
        }
        if (SSL_CTX_use_PrivateKey(ctx, pkey) != 1) {
                say(err, a, key_file, "the key cannot be used");
                goto out;
        }
        X509_free(sk_X509_shift(chain));
        if (SSL_CTX_set1_chain(ctx, chain) != 1) {
                say(err, a, cert_file, "the chain cannot be used");
                goto out;
        }
        ok = true;
out:
        EVP_PKEY_free(pkey);
        sk_X509_pop_free(chain, X509_free);
        return ok;
}

/* Makes the certificates of pem the ones that ctx believes; as a server their names are sent to
 * clients. */
static bool load_authorities(SSL_CTX *ctx, str pem, str file, bool announce, struct arena *a,
                             str *err)
{
        STACK_OF(X509) *all = tls_pem_certificates(pem);
        X509_STORE *store = SSL_CTX_get_cert_store(ctx);

        if (all == NULL) {
                say(err, a, file, "no CA certificate in PEM form");
                return false;
        }
        for (int i = 0; i < sk_X509_num(all); i++) {
                CHECK(X509_STORE_add_cert(store, sk_X509_value(all, i)) == 1);
                if (announce)
                        CHECK(SSL_CTX_add_client_CA(ctx, sk_X509_value(all, i)) == 1);
        }
        sk_X509_pop_free(all, X509_free);
        return true;
}

/* ---- a server's contexts ---- */

/* The ALPN wire form of a list; false when a name is not one. */
static bool alpn_wire(const str *names, size_t n, unsigned char **out, unsigned *out_n)
{
        size_t total = 0;
        unsigned char *w;

        *out = NULL;
        *out_n = 0;
        for (size_t i = 0; i < n; i++) {
                if (names[i].n == 0 || names[i].n > 255)
                        return false;
                total += 1 + names[i].n;
        }
        if (total == 0)
                return true;
        w = *out = malloc(total);
        CHECK(w != NULL);
        for (size_t i = 0; i < n; i++) {
                *w++ = (unsigned char)names[i].n;
                memcpy(w, names[i].p, names[i].n);
                w += names[i].n;
        }
        *out_n = (unsigned)total;
        return true;
}

static int on_alpn(SSL *ssl UNUSED, const unsigned char **out, unsigned char *out_n,
                   const unsigned char *in, unsigned in_n, void *arg)
{
        const struct tls_server *s = arg;

        /* SSL_select_next_proto takes the first of its first list; its fallback is no agreement. */
        if (SSL_select_next_proto((unsigned char **)out, out_n, s->alpn, s->alpn_n, in, in_n) !=
            OPENSSL_NPN_NEGOTIATED)
                return SSL_TLSEXT_ERR_ALERT_FATAL;
        return SSL_TLSEXT_ERR_OK;
}

/* The one host_name of a server_name extension (RFC 6066 3); absent when there is none or it is
 * malformed. */
static str hello_sni(SSL *ssl)
{
        const unsigned char *p;
        size_t n, list, name;

        if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) != 1 || n < 5)
                return STR_NONE;
        list = (size_t)p[0] << 8 | p[1];
        name = (size_t)p[3] << 8 | p[4];
        if (list != n - 2 || p[2] != TLSEXT_NAMETYPE_host_name || name == 0 || name > n - 5 ||
            name > NAME_MAX_BYTES)
                return STR_NONE;
        return str_of(p + 5, name);
}

SSL_CTX *tls_server_choose(const struct tls_server *s, str sni)
{
        char name[NAME_MAX_BYTES + 1];
        ptrdiff_t dot;
        SSL_CTX *ctx;

        if (sni.n == 0 || sni.n > NAME_MAX_BYTES)
                return s->ctx[0];
        for (size_t i = 0; i < sni.n; i++)
                name[i] = str_lower(sni.p[i]);
        sni = str_of(name, sni.n);
        ctx = map_get(s->names, sni);
        dot = str_chr(sni, '.');
        if (ctx == NULL && dot > 0) {
                name[dot - 1] = '*';
                ctx = map_get(s->names, str_from(sni, (size_t)dot - 1));
        }
        return ctx ? ctx : s->ctx[0];
}

static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
        struct tls_peer *p = SSL_get_app_data(ssl);
        str sni = hello_sni(ssl);
        struct tls_server *s = tls_server_for(arg, sni);
        SSL_CTX *ctx = tls_server_choose(s, sni);

        if (p != NULL && p->sni == NULL && sni.p != NULL && !memchr(sni.p, 0, sni.n) &&
            !str_has_ctl(sni))
                p->sni = str_dupz(sni);
        if ((ctx != SSL_get_SSL_CTX(ssl) && SSL_set_SSL_CTX(ssl, ctx) == NULL) ||
            (s != arg && !tls_host_switch(ssl, s))) {
                *alert = SSL_AD_INTERNAL_ERROR;
                return SSL_CLIENT_HELLO_ERROR;
        }
        return SSL_CLIENT_HELLO_SUCCESS;
}

static void context_modes(SSL_CTX *ctx)
{
        SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
        /* An end without close_notify is told as truncated; what it means, the protocol above
         * knows. */
        SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                         SSL_OP_IGNORE_UNEXPECTED_EOF);
}

/* All of a server's contexts are made by this, so that they differ in the certificate alone. */
static SSL_CTX *server_context(struct tls_server *s, const struct tls_server_conf *c,
                               struct arena *a, str *err)
{
        SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

        CHECK(ctx != NULL);
        context_modes(ctx);
        SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
        SSL_CTX_set_min_proto_version(ctx, tls_version_number(s->version_min));
        SSL_CTX_set_max_proto_version(ctx, tls_version_number(s->version_max));
        CHECK(SSL_CTX_set1_groups_list(ctx, GROUPS) == 1);
        if (SSL_CTX_set_cipher_list(ctx, s->ciphers) != 1) {
                say(err, a, STR("ciphers"), "no such cipher");
                goto fail;
        }
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_timeout(ctx, SESSION_LIFE_S);
        CHECK(SSL_CTX_set_session_id_context(ctx, s->session_context, sizeof(s->session_context)) ==
              1);
        tls_tickets_attach(ctx);
        tls_client_attach(ctx);
        if (c->kernel)
                SSL_CTX_set_options(ctx, SSL_OP_ENABLE_KTLS);
        if (c->max_early_data > 0)
                tls_replay_attach(ctx, c->max_early_data);
        SSL_CTX_set_client_hello_cb(ctx, on_client_hello, s);
        if (s->alpn_n > 0)
                SSL_CTX_set_alpn_select_cb(ctx, on_alpn, s);
        if (c->client_certificate != TLS_CLIENT_OFF) {
                if (!load_authorities(ctx, c->client_ca_pem, c->client_ca_file, true, a, err))
                        goto fail;
                if (c->client_crl_pem.p != NULL &&
                    !tls_load_crls(SSL_CTX_get_cert_store(ctx), c->client_crl_pem)) {
                        say(err, a, c->client_crl_file, "no revocation list in PEM form");
                        goto fail;
                }
        }
        SSL_CTX_set_verify_depth(ctx, s->client_depth);
        SSL_CTX_set_verify(ctx, tls_verify_mode(s->client_certificate), tls_note_refusal);
        return ctx;
fail:
        SSL_CTX_free(ctx);
        return NULL;
}

/* The name in lower case; what is put first stays. */
static void add_name(struct tls_server *s, SSL_CTX *ctx, const char *p, size_t n)
{
        char name[NAME_MAX_BYTES];

        if (n == 0 || n > sizeof(name) || memchr(p, 0, n))
                return;
        for (size_t i = 0; i < n; i++)
                name[i] = str_lower(p[i]);
        if (map_get(s->names, str_of(name, n)) == NULL)
                map_put(s->names, str_of(name, n), ctx);
}

/* DNS names of the certificate, or its common name when it has none. */
static void add_names(struct tls_server *s, SSL_CTX *ctx, X509 *x)
{
        GENERAL_NAMES *alt = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
        bool any = false;
        char cn[NAME_MAX_BYTES + 1];
        int n;

        for (int i = 0; i < sk_GENERAL_NAME_num(alt); i++) {
                const GENERAL_NAME *g = sk_GENERAL_NAME_value(alt, i);
                if (g->type != GEN_DNS)
                        continue;
                any = true;
                add_name(s, ctx, (const char *)ASN1_STRING_get0_data(g->d.dNSName),
                         (size_t)ASN1_STRING_length(g->d.dNSName));
        }
        GENERAL_NAMES_free(alt);
        if (any)
                return;
        n = X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn, sizeof(cn));
        if (n > 0)
                add_name(s, ctx, cn, (size_t)n);
}

static bool has_name(const GENERAL_NAMES *all, const GENERAL_NAME *name)
{
        for (int i = 0; i < sk_GENERAL_NAME_num(all); i++)
                if (GENERAL_NAME_cmp(sk_GENERAL_NAME_value(all, i), (GENERAL_NAME *)name) == 0)
                        return true;
        return false;
}

/* In whatever order; without any they are not alike. */
static bool same_names(const X509 *x, const X509 *y)
{
        GENERAL_NAMES *ax = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
        GENERAL_NAMES *ay = X509_get_ext_d2i(y, NID_subject_alt_name, NULL, NULL);
        bool same = ax != NULL && ay != NULL;

        for (int i = 0; same && i < sk_GENERAL_NAME_num(ax); i++)
                same = has_name(ay, sk_GENERAL_NAME_value(ax, i));
        for (int i = 0; same && i < sk_GENERAL_NAME_num(ay); i++)
                same = has_name(ax, sk_GENERAL_NAME_value(ay, i));
        GENERAL_NAMES_free(ax);
        GENERAL_NAMES_free(ay);
        return same;
}

/* An earlier context for the same names whose key is of another kind: the client's algorithms
 * choose between them. */
static SSL_CTX *sibling(const struct tls_server *s, X509 *x)
{
        int type = EVP_PKEY_get_base_id(X509_get0_pubkey(x));

        for (size_t i = 0; i < s->n_ctx; i++) {
                bool taken = false;
                X509 *y = SSL_CTX_get0_certificate(s->ctx[i]);
                if (!same_names(x, y))
                        continue;
                for (int more = SSL_CTX_set_current_cert(s->ctx[i], SSL_CERT_SET_FIRST); more;
                     more = SSL_CTX_set_current_cert(s->ctx[i], SSL_CERT_SET_NEXT)) {
                        y = SSL_CTX_get0_certificate(s->ctx[i]);
                        taken = taken || EVP_PKEY_get_base_id(X509_get0_pubkey(y)) == type;
                }
                if (!taken)
                        return s->ctx[i];
        }
        return NULL;
}

static bool server_add(struct tls_server *s, const struct tls_server_conf *c,
                       const struct tls_pair *pair, struct arena *a, str *err)
{
        STACK_OF(X509) *chain = tls_pem_certificates(pair->cert_pem);
        SSL_CTX *ctx;
        bool fresh;

        if (chain == NULL) {
                say(err, a, pair->cert_file, "no certificate in PEM form");
                return false;
        }
        ctx = sibling(s, sk_X509_value(chain, 0));
        fresh = ctx == NULL;
        sk_X509_pop_free(chain, X509_free);
        if (fresh) {
                ctx = server_context(s, c, a, err);
                if (ctx == NULL)
                        return false;
                s->ctx[s->n_ctx++] = ctx;
        }
        if (!load_pair(ctx, pair->cert_pem, pair->cert_file, pair->key_pem, pair->key_file, a, err))
                return false;
        tls_staple_attach(ctx, SSL_CTX_get0_certificate(ctx), pair);
        if (fresh) {
                size_t had = map_count(s->names);
                add_names(s, ctx, SSL_CTX_get0_certificate(ctx));
                s->unused[pair - c->pairs] = s->n_ctx > 1 && map_count(s->names) == had;
        }
        return true;
}

static void server_free(struct tls_server *s)
{
        tls_host_free(s);
        free(s->ciphers);
        for (size_t i = 0; i < s->n_ctx; i++)
                SSL_CTX_free(s->ctx[i]);
        map_free(s->names);
        free(s->ctx);
        free(s->unused);
        free(s->alpn);
        free(s);
}

const char *tls_library(void)
{
        return OpenSSL_version(OPENSSL_VERSION);
}

struct tls_server *tls_server_new(const struct tls_server_conf *c, struct arena *a, str *err)
{
        struct tls_server *s;
        uint8_t digest[32];

        tls_init();
        tls_digest_server(c, digest);
        s = (struct tls_server *)registry_get(&servers, digest);
        if (s != NULL)
                return s;
        if (c->n_pairs == 0) {
                *err = STR("tls: certificate is missing");
                return NULL;
        }
        s = calloc(1, sizeof(*s));
        CHECK(s != NULL);
        s->client_certificate = c->client_certificate;
        s->client_depth = c->client_depth;
        if (c->client_crl_pem.p == NULL || !tls_crl_expires(c->client_crl_pem, &s->crl_expires))
                s->crl_expires = INT64_MAX;
        s->version_min = c->version_min;
        s->version_max = c->version_max ? c->version_max : 13;
        s->ciphers = str_dupz(c->ciphers.n ? c->ciphers : STR(CIPHERS_12));
        s->early_data = c->max_early_data > 0;
        s->kernel = c->kernel;
        tls_digest_policy(c, s->policy);
        tls_digest_strength(c, s->strength);
        tls_digest_session(c, s->session_context);
        tls_host_add_all(s, c);
        s->names = map_new();
        s->ctx = calloc(c->n_pairs, sizeof(*s->ctx));
        s->unused = calloc(c->n_pairs, sizeof(*s->unused));
        CHECK(s->ctx != NULL && s->unused != NULL);
        if (!alpn_wire(c->alpn, c->n_alpn, &s->alpn, &s->alpn_n)) {
                *err = STR("tls: a protocol name is empty or longer than 255 bytes");
                server_free(s);
                return NULL;
        }
        for (size_t i = 0; i < c->n_pairs; i++) {
                if (!server_add(s, c, &c->pairs[i], a, err)) {
                        server_free(s);
                        return NULL;
                }
        }
        registry_add(&servers, &s->shared, digest);
        return s;
}

struct tls_server *tls_server_hold(struct tls_server *s)
{
        atomic_fetch_add_explicit(&s->shared.refs, 1, memory_order_relaxed);
        return s;
}

void tls_server_drop(struct tls_server *s)
{
        if (s != NULL && registry_drop(&s->shared))
                server_free(s);
}

bool tls_server_unused(const struct tls_server *s, size_t pair)
{
        return s->unused[pair];
}

uint64_t tls_server_policy(const struct tls_server *s)
{
        return tls_word(s->policy);
}

bool tls_server_demands(const struct tls_server *s)
{
        return s->client_certificate == TLS_CLIENT_REQUIRED;
}

uint64_t tls_server_strength(const struct tls_server *s)
{
        return tls_word(s->strength);
}

/* ---- a client's context ---- */

static void client_free(struct tls_client *c)
{
        SSL_CTX_free(c->ctx);
        free(c->name);
        free(c);
}

static bool client_fill(struct tls_client *t, const struct tls_client_conf *c, struct arena *a,
                        str *err)
{
        unsigned char *alpn;
        unsigned alpn_n;

        if (!alpn_wire(c->alpn, c->n_alpn, &alpn, &alpn_n)) {
                *err = STR("tls: a protocol name is empty or longer than 255 bytes");
                return false;
        }
        CHECK(alpn_n == 0 || SSL_CTX_set_alpn_protos(t->ctx, alpn, alpn_n) == 0);
        free(alpn);
        if (c->cert_pem.p != NULL &&
            !load_pair(t->ctx, c->cert_pem, c->cert_file, c->key_pem, c->key_file, a, err))
                return false;
        if (!c->verify)
                return true;
        SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER, NULL);
        if (c->ca_pem.p != NULL)
                return load_authorities(t->ctx, c->ca_pem, c->ca_file, false, a, err);
        if (SSL_CTX_set_default_verify_paths(t->ctx) != 1) {
                say(err, a, STR("tls"), "the system's CA certificates cannot be read");
                return false;
        }
        return true;
}

struct tls_client *tls_client_new(const struct tls_client_conf *c, struct arena *a, str *err)
{
        struct tls_client *t;
        uint8_t digest[32];

        tls_init();
        tls_digest_client(c, digest);
        t = (struct tls_client *)registry_get(&clients, digest);
        if (t != NULL)
                return t;
        t = calloc(1, sizeof(*t));
        CHECK(t != NULL);
        t->verify = c->verify;
        t->name = c->name.n ? str_dupz(c->name) : NULL;
        t->ctx = SSL_CTX_new(TLS_client_method());
        CHECK(t->ctx != NULL);
        context_modes(t->ctx);
        SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION);
        SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(t->ctx, tls_keep_session);
        if (!client_fill(t, c, a, err)) {
                client_free(t);
                return NULL;
        }
        registry_add(&clients, &t->shared, digest);
        return t;
}

struct tls_client *tls_client_hold(struct tls_client *c)
{
        atomic_fetch_add_explicit(&c->shared.refs, 1, memory_order_relaxed);
        return c;
}

void tls_client_drop(struct tls_client *c)
{
        if (c != NULL && registry_drop(&c->shared))
                client_free(c);
}

uint64_t tls_client_key(const struct tls_client *c)
{
        return tls_word(c->shared.digest);
}
