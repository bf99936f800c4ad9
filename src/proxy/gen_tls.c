/*
 * What hosts ask of TLS: making their contexts, and whether a connection may carry a request.
 *
 * The difficulty: the handshake goes by the name in the client's hello, the request by its Host,
 * and a client may say one thing there and another here.  So a request is let through only where
 * its host asks for what the connection went through.
 */
#include "proxy/gen.h"

/* ------------------------------------------------------------------ building */

bool gen_tls_prepare(struct gen *g, struct report *rep)
{
        struct conf *c = g->conf;
        bool ok = true;

        g->host_tls = ARENA_ARRAY(c->arena, struct tls_server *, c->n_listens * c->n_host_tls + 1);
        g->tls_pairs = ARENA_ARRAY(c->arena, struct tls_pair, c->n_certs + 1);
        g->staples.cap = c->n_certs;
        g->staples.v = ARENA_ARRAY(c->arena, struct staple_show, c->n_certs + 1);
        for (size_t i = 0; i < c->n_certs; i++) {
                const struct listen_cert *cert = c->certs[i];
                struct tls_pair *pair = &g->tls_pairs[i];
                *pair = (struct tls_pair){.cert_pem = cert->cert.text,
                                          .key_pem = cert->key.text,
                                          .cert_file = cert->cert.file,
                                          .key_file = cert->key.file};
                ok = staple_prepare(&g->staples, cert, pair, c->arena, rep) && ok;
        }
        expiry_read(&g->expiry, c, rep);
        return ok;
}

/* Where a listener's mistake was written: the message begins with what it is about. */
static const struct conf_pos *place(const struct listen_conf *l, size_t pair, str error)
{
        const struct listen_cert *cert = &l->certs[pair];

        if (str_starts(error, STR("ciphers")))
                return &l->ciphers_pos;
        if (l->client_certificate && str_starts(error, l->client_ca.file))
                return &l->client_ca_pos;
        if (l->client_certificate && l->client_crl.file.p && str_starts(error, l->client_crl.file))
                return &l->client_crl_pos;
        return str_starts(error, cert->key.file) ? &cert->key_pos : &cert->cert_pos;
}

/* Once: what a listener has wrong, its hosts have too. */
static void say(struct report *rep, const struct conf_pos *at, str error)
{
        struct report one = {0};

        report_error(&one, at, "%.*s", STR_ARG(error));
        if (str_find(buf_pullup(&rep->out, rep->out.n), buf_pullup(&one.out, one.out.n)) < 0)
                report_error(rep, at, "%.*s", STR_ARG(error));
        buf_clear(&one.out);
}

/* A context that failed names its first mistake; asked for each certificate alone it names all. */
static bool mistakes(const struct listen_conf *l, const struct tls_server_conf *all,
                     struct arena *a, struct report *rep)
{
        bool any = false;
        str shared = STR_NONE; /* what is wrong with the listener is wrong for every certificate */

        for (size_t i = 0; i < all->n_pairs; i++) {
                struct tls_server_conf one = *all;
                str error = STR_NONE;
                one.pairs = &all->pairs[i];
                one.n_pairs = 1;
                struct tls_server *s = tls_server_new(&one, a, &error);
                if (s != NULL) {
                        tls_server_drop(s);
                        continue;
                }
                const struct conf_pos *at = place(l, i, error);
                if (shared.p != NULL && str_eq(shared, error))
                        continue;
                if (at == &l->ciphers_pos || at == &l->client_ca_pos || at == &l->client_crl_pos)
                        shared = error;
                say(rep, at, error);
                any = true;
        }
        return any;
}

/* Once: hosts inherit their listener's. */
static void warn_unused(const struct tls_server *s, const struct listen_conf *l, struct report *rep)
{
        for (size_t i = 0; i < l->n_certs; i++) {
                struct report one = {0};
                str text;
                if (!tls_server_unused(s, i))
                        continue;
                report_warning(&one, &l->certs[i].cert_pos,
                               "%.*s is never shown: certificates before it have all its names",
                               STR_ARG(l->certs[i].cert.file));
                text = buf_pullup(&one.out, one.out.n);
                if (str_find(buf_pullup(&rep->out, rep->out.n), text) < 0)
                        report_warning(
                                rep, &l->certs[i].cert_pos,
                                "%.*s is never shown: certificates before it have all its names",
                                STR_ARG(l->certs[i].cert.file));
                buf_clear(&one.out);
        }
}

/* A listener's or one of its hosts' contexts; NULL: in rep. */
static struct tls_server *server_of(struct gen *g, const struct listen_conf *l,
                                    const struct tls_host *hosts, size_t n_hosts,
                                    struct report *rep)
{
        struct arena *a = g->conf->arena;
        /* Whoever speaks HTTP/1.1 takes HTTP/1.0 too: clients may offer that alone. */
        str *alpn = ARENA_ARRAY(a, str, l->n_protocols + 1);
        size_t n_alpn = l->n_protocols;
        for (size_t i = 0; i < l->n_protocols; i++) {
                alpn[i] = l->protocols[i];
                if (str_eq(alpn[i], STR("http/1.1"))) {
                        alpn[l->n_protocols] = STR("http/1.0");
                        n_alpn = l->n_protocols + 1;
                }
        }
        struct tls_server_conf conf = {.pairs =
                                               l->n_certs ? &g->tls_pairs[l->certs[0].index] : NULL,
                                       .n_pairs = l->n_certs,
                                       .alpn = alpn,
                                       .n_alpn = n_alpn,
                                       .version_min = l->version_min,
                                       .version_max = l->version_max,
                                       .ciphers = l->ciphers,
                                       .client_certificate = l->client_certificate,
                                       .client_ca_pem = l->client_ca.text,
                                       .client_ca_file = l->client_ca.file,
                                       .client_crl_pem = l->client_crl.text,
                                       .client_crl_file = l->client_crl.file,
                                       .client_depth = (int)l->client_depth,
                                       .max_early_data = l->early_data ? l->max_early_data : 0,
                                       .kernel = l->kernel_tls,
                                       .hosts = hosts,
                                       .n_hosts = n_hosts};
        str error = STR_NONE;
        struct tls_server *s = tls_server_new(&conf, a, &error);
        if (s == NULL && !mistakes(l, &conf, a, rep)) /* only together they do not fit */
                say(rep, &l->pos, error);
        if (s != NULL)
                warn_unused(s, l, rep);
        return s;
}

/* The listener's parameters, with what the host has of its own laid over them. */
static struct listen_conf *overlay(struct arena *a, const struct listen_conf *l,
                                   const struct listen_conf *own)
{
        struct listen_conf *x = ARENA_NEW(a, struct listen_conf);

        *x = *l;
        x->pos = own->pos;
        if (own->n_certs) {
                x->certs = own->certs;
                x->n_certs = own->n_certs;
        }
        if (own->n_protocols) {
                x->protocols = own->protocols;
                x->n_protocols = own->n_protocols;
        }
        if (own->version_min) {
                x->version_min = own->version_min;
                x->version_max = own->version_max;
        }
        if (own->ciphers.p) {
                x->ciphers = own->ciphers;
                x->ciphers_pos = own->ciphers_pos;
        }
        if (own->client_written) {
                x->client_certificate = own->client_certificate;
                x->client_ca = own->client_ca;
                x->client_crl = own->client_crl;
                x->client_depth = own->client_depth;
                x->client_ca_pos = own->client_ca_pos;
                x->client_crl_pos = own->client_crl_pos;
        }
        return x;
}

struct tls_server *gen_tls_listen(struct gen *g, const struct listen_conf *l, struct report *rep)
{
        const struct conf *c = g->conf;
        struct tls_host *hosts;
        size_t n = 0;
        bool ok = true;

        if (c->n_host_tls == 0)
                return server_of(g, l, NULL, 0, rep);
        /* All hosts are named, also those without a block: an exact name is nearer than a wildcard
         * that has one. */
        hosts = ARENA_ARRAY(c->arena, struct tls_host, c->n_hosts);
        for (size_t i = 0; i < c->n_hosts; i++) {
                const struct host_conf *h = &c->hosts[i];
                if (!listen_serves(l, h))
                        continue;
                hosts[n] = (struct tls_host){.names = h->names, .n_names = h->n_names};
                if (h->tls) {
                        struct tls_server *s =
                                server_of(g, overlay(c->arena, l, h->tls), NULL, 0, rep);
                        g->host_tls[l->index * c->n_host_tls + h->tls_index] = hosts[n].server = s;
                        ok = ok && s != NULL;
                }
                n++;
        }
        return ok ? server_of(g, l, hosts, n, rep) : NULL;
}

/* ------------------------------------------------------------------ requests */

/* What is asked of clients of the host; the listener speaks TLS. */
static const struct tls_server *asked(const struct gen *g, const struct listen_conf *listen,
                                      const struct host_conf *host)
{
        const struct tls_server *own = NULL;

        if (host->tls != NULL)
                own = g->host_tls[listen->index * g->conf->n_host_tls + host->tls_index];
        return own != NULL ? own : g->tls[listen->index];
}

enum gen_fit gen_policy_fits(const struct gen *g, const struct listen_conf *listen,
                             const struct host_conf *host, const struct tls_facts *tls)
{
        struct tls_server *all = listen ? g->tls[listen->index] : NULL;

        /* In the clear nobody has shown anything, and what was shown to a listener that has gone
         * cannot be compared. */
        if (all == NULL)
                return host != NULL && host->tls != NULL &&
                                       host->tls->client_certificate == TLS_CLIENT_REQUIRED
                               ? GEN_OTHER_NAME
                               : GEN_FITS;
        if (tls == NULL) /* plain, and kept from before the listener spoke TLS */
                return GEN_OUTDATED;
        const struct tls_server *by_name = tls_server_for(all, tls->sni);
        uint64_t policy = tls_server_policy(by_name);
        bool same = policy == tls->policy;
        /* Who has shown nothing is welcome where nothing must be shown. */
        if (!same && (tls->client_verified || tls_server_demands(by_name)))
                return GEN_OUTDATED;
        const struct tls_server *want = host != NULL ? asked(g, listen, host) : by_name;
        if (want != by_name && (tls_server_policy(want) != policy ||
                                tls_server_strength(want) != tls_server_strength(by_name)))
                return GEN_OTHER_NAME;
        return same ? GEN_FITS : GEN_LAST;
}
