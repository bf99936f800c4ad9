/*
 * Hosts of a listener with TLS parameters of their own.
 *
 * The difficulty: a session is made with the listener's parameters before the client has said which
 * name it wants.  So in the client-hello callback, before OpenSSL has looked at versions, ciphers
 * or tickets, everything that a context gives to a session is given to it again.
 */
#include "net/tls_type.h"

#include "base/check.h"

#include <stdlib.h>

#define NAME_MAX_BYTES 255

void tls_host_add_all(struct tls_server *s, const struct tls_server_conf *c)
{
        if (c->n_hosts == 0)
                return;
        s->hosts = map_new();
        s->held = calloc(c->n_hosts, sizeof(struct tls_server *));
        CHECK(s->held != NULL);
        for (size_t i = 0; i < c->n_hosts; i++) {
                const struct tls_host *h = &c->hosts[i];
                if (h->server != NULL)
                        s->held[s->n_held++] = tls_server_hold(h->server);
                for (size_t k = 0; k < h->n_names; k++)
                        map_put(s->hosts, h->names[k], h->server != NULL ? h->server : s);
        }
}

void tls_host_free(struct tls_server *s)
{
        for (size_t i = 0; i < s->n_held; i++)
                tls_server_drop(s->held[i]);
        free(s->held);
        if (s->hosts != NULL)
                map_free(s->hosts);
}

/* Exact, then the longest "*.suffix": as hosts are chosen for requests. */
struct tls_server *tls_server_for(struct tls_server *s, str name)
{
        char text[NAME_MAX_BYTES + 1];
        struct tls_server *t;

        if (s->hosts == NULL || name.n == 0 || name.n > NAME_MAX_BYTES)
                return s;
        for (size_t i = 0; i < name.n; i++)
                text[i] = str_lower(name.p[i]);
        if (text[name.n - 1] == '.') /* the root's dot names the same host */
                name.n--;
        t = map_get(s->hosts, str_of(text, name.n));
        for (size_t i = 1; t == NULL && i < name.n; i++) {
                if (text[i] != '.')
                        continue;
                text[i - 1] = '*';
                t = map_get(s->hosts, str_of(text + i - 1, name.n - i + 1));
        }
        return t != NULL ? t : s;
}

/* The context itself has been switched: what follows it are the certificate, who is believed, ALPN;
 * what was copied from the first one is set here. */
bool tls_host_switch(SSL *ssl, struct tls_server *t)
{
        struct tls_peer *p = SSL_get_app_data(ssl);

        SSL_set_verify(ssl, tls_verify_mode(t->client_certificate), tls_note_refusal);
        SSL_set_verify_depth(ssl, t->client_depth);
        if (SSL_set_session_id_context(ssl, t->session_context, sizeof(t->session_context)) != 1 ||
            SSL_set_min_proto_version(ssl, tls_version_number(t->version_min)) != 1 ||
            SSL_set_max_proto_version(ssl, tls_version_number(t->version_max)) != 1 ||
            SSL_set_cipher_list(ssl, t->ciphers) != 1)
                return false;
        if (p != NULL) {
                struct tls_server *old = p->server;
                p->server = tls_server_hold(t);
                p->facts.policy = tls_word(t->policy);
                tls_server_drop(old);
        }
        return true;
}
