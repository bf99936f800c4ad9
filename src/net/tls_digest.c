/*
 * Digests of TLS configurations: by them generations share what is the same, and a session knows
 * what it was made under.
 *
 * The difficulty is that no two configurations may run together into one text: each part goes in
 * with its length.
 */
#include "net/tls_type.h"

#include "base/crypto.h"

/* Appends a text with its length, so that no two configurations run together. */
static void put_text(struct buf *b, str s)
{
        uint64_t n = s.p ? s.n : UINT64_MAX;

        buf_put(b, &n, sizeof(n));
        buf_puts(b, s);
}

static void put_number(struct buf *b, int64_t v)
{
        buf_put(b, &v, sizeof(v));
}

static void end(struct buf *b, uint8_t out[32])
{
        crypto_sha256(buf_pullup(b, b->n), out);
        buf_clear(b);
}

/* All that decides which clients are let in. */
static void put_policy(struct buf *b, const struct tls_server_conf *c)
{
        bool off = c->client_certificate == TLS_CLIENT_OFF;

        put_number(b, c->client_certificate);
        put_text(b, off ? STR_NONE : c->client_ca_pem);
        put_text(b, off ? STR_NONE : c->client_crl_pem);
        put_number(b, off ? 0 : c->client_depth);
}

void tls_digest_policy(const struct tls_server_conf *c, uint8_t out[32])
{
        struct buf b = BUF_INIT;

        put_policy(&b, c);
        end(&b, out);
}

static void put_strength(struct buf *b, const struct tls_server_conf *c)
{
        put_number(b, c->version_min);
        put_number(b, c->version_max);
        put_text(b, c->ciphers);
}

void tls_digest_strength(const struct tls_server_conf *c, uint8_t out[32])
{
        struct buf b = BUF_INIT;

        put_strength(&b, c);
        end(&b, out);
}

void tls_digest_session(const struct tls_server_conf *c, uint8_t out[32])
{
        struct buf b = BUF_INIT;

        put_policy(&b, c);
        put_strength(&b, c);
        end(&b, out);
}

static void put_hosts(struct buf *b, const struct tls_server_conf *c)
{
        for (size_t i = 0; i < c->n_hosts; i++) {
                const struct tls_host *h = &c->hosts[i];
                put_number(b, (int64_t)h->n_names);
                for (size_t k = 0; k < h->n_names; k++)
                        put_text(b, h->names[k]);
                put_text(b, h->server ? str_of(h->server->shared.digest, 32) : STR_NONE);
        }
}

void tls_digest_server(const struct tls_server_conf *c, uint8_t out[32])
{
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < c->n_pairs; i++) {
                put_text(&b, c->pairs[i].cert_pem);
                put_text(&b, c->pairs[i].key_pem);
                put_text(&b, c->pairs[i].ocsp);
                put_number(&b, c->pairs[i].staple.all ? (int64_t)c->pairs[i].staple.at : -1);
                put_number(&b, c->pairs[i].staple.epoch);
        }
        put_number(&b, -1);
        for (size_t i = 0; i < c->n_alpn; i++)
                put_text(&b, c->alpn[i]);
        put_number(&b, -2);
        put_strength(&b, c);
        put_policy(&b, c);
        put_hosts(&b, c);
        put_number(&b, c->max_early_data);
        put_number(&b, c->kernel);
        end(&b, out);
}

void tls_digest_client(const struct tls_client_conf *c, uint8_t out[32])
{
        struct buf b = BUF_INIT;

        put_number(&b, c->verify);
        put_text(&b, c->ca_pem);
        put_text(&b, c->name);
        put_text(&b, c->cert_pem);
        put_text(&b, c->key_pem);
        for (size_t i = 0; i < c->n_alpn; i++)
                put_text(&b, c->alpn[i]);
        end(&b, out);
}
