/*
 * Listeners.
 *
 * The difficulty: [::]:PORT takes IPv4 too unless another line has that port, which is known only
 * when all lines were read.
 */
#include "conf/compile.h"

struct listen_build {
        struct listen_conf l;
        struct settings own;
        VEC(struct listen_cert) certs;
};

static struct listen_build *build_of(const struct scope *s)
{
        return s->object;
}

static bool needs_tls(struct compile *c, struct scope *s, const struct args *a)
{
        if (build_of(s)->l.tls)
                return true;
        report_error(c->rep, &a->node->words[0].pos,
                     "%s makes no sense without tls: listen ADDR:PORT tls { ... }", a->d->name);
        return false;
}

void compile_listen_hosts(struct compile *c, struct scope *s, const struct args *a)
{
        struct listen_conf *l = &build_of(s)->l;
        str *v = ARENA_ARRAY(c->a, str, a->n + 1);

        for (size_t i = 0; i < a->n; i++) {
                v[i] = compile_lower(c->a, a->word[i]->text);
                *VEC_ADD(c->a, &c->refs) = (struct reference){
                        .name = v[i], .pos = a->word[i]->pos, .kind = REF_LISTEN_HOST};
        }
        l->hosts = v;
        l->n_hosts = a->n;
}

/* ocsp=FILE|fetch|off */
static bool certificate_ocsp(struct compile *c, const struct args *a, struct listen_cert *cert)
{
        const struct word *w = compile_key(a, "ocsp");

        if (!w || compile_is(w, "off"))
                return true;
        cert->ocsp_pos = w->pos;
        cert->ocsp = compile_is(w, "fetch") ? LISTEN_OCSP_FETCH : LISTEN_OCSP_FILE;
        return cert->ocsp == LISTEN_OCSP_FETCH || compile_file(c, w, &cert->ocsp_file);
}

void compile_certificate(struct compile *c, struct scope *s, const struct args *a)
{
        const struct word *key = compile_key(a, "key");
        struct listen_cert cert = {0};

        if (!needs_tls(c, s, a))
                return;
        if (!key) {
                report_error(c->rep, &a->node->end, "certificate needs key=FILE");
                return;
        }
        cert.cert_pos = a->word[0]->pos;
        cert.key_pos = key->pos;
        bool ok = compile_file(c, a->word[0], &cert.cert);
        ok = compile_file(c, key, &cert.key) && ok;
        if (certificate_ocsp(c, a, &cert) && ok)
                *VEC_ADD(c->a, &build_of(s)->certs) = cert;
}

void compile_protocols(struct compile *c, struct scope *s, const struct args *a)
{
        static const str names[] = {STR_INIT("h2"), STR_INIT("h2c"), STR_INIT("http/1.1")};
        struct listen_conf *l = &build_of(s)->l;
        str *v = ARENA_ARRAY(c->a, str, a->n + 1);
        size_t n = 0, i, k;

        for (i = 0; i < a->n; i++) {
                const struct word *w = a->word[i];
                for (k = 0; k < n && !str_eq(v[k], w->text); k++)
                        ;
                if (k < n)
                        report_error(c->rep, &w->pos, "%.*s is given twice", STR_ARG(w->text));
                else if (compile_is(w, "http/1.1") || compile_is(w, l->tls ? "h2" : "h2c"))
                        v[n++] = w->text;
                else if (compile_is(w, "h2"))
                        report_error(c->rep, &w->pos, "h2 needs tls; without it the name is h2c");
                else if (compile_is(w, "h2c"))
                        report_error(c->rep, &w->pos, "h2c is without tls; with it the name is h2");
                else
                        report_unknown(c->rep, &w->pos, w->text, names, COUNT(names),
                                       "\"%.*s\" is not a protocol (h2, h2c, http/1.1)",
                                       STR_ARG(w->text));
        }
        l->protocols = v;
        l->n_protocols = n;
}

void compile_http2(struct compile *c, struct scope *s, const struct args *a)
{
        compile_keys(c, s, a, &build_of(s)->l);
}

void compile_versions(struct compile *c, struct scope *s, const struct args *a)
{
        struct listen_conf *l = &build_of(s)->l;
        int min = 99, max = 0;

        if (!needs_tls(c, s, a))
                return;
        for (size_t i = 0; i < a->n; i++) {
                int v = compile_is(a->word[i], "1.2") ? 12 : compile_is(a->word[i], "1.3") ? 13 : 0;
                if (v == 0) {
                        report_error(c->rep, &a->word[i]->pos,
                                     "\"%.*s\" is not a version of TLS (1.2 or 1.3)",
                                     STR_ARG(a->word[i]->text));
                        return;
                }
                min = MIN(min, v);
                max = MAX(max, v);
        }
        l->version_min = min;
        l->version_max = max;
}

void compile_ciphers(struct compile *c, struct scope *s, const struct args *a)
{
        if (!needs_tls(c, s, a))
                return;
        build_of(s)->l.ciphers = a->word[0]->text;
        build_of(s)->l.ciphers_pos = a->word[0]->pos;
}

void compile_client_certificate(struct compile *c, struct scope *s, const struct args *a)
{
        static const str modes[] = {STR_INIT("off"), STR_INIT("optional"), STR_INIT("required")};
        struct listen_conf *l = &build_of(s)->l;
        const struct word *w = a->word[0];
        int mode = 0;

        if (!needs_tls(c, s, a))
                return;
        while (mode < (int)COUNT(modes) && !str_eq(w->text, modes[mode]))
                mode++;
        if (mode == (int)COUNT(modes)) {
                report_unknown(c->rep, &w->pos, w->text, modes, COUNT(modes),
                               "\"%.*s\" is not off, optional or required", STR_ARG(w->text));
                return;
        }
        const struct word *ca = compile_key(a, "ca");
        if (mode > 0 && !ca) {
                report_error(c->rep, &a->node->end, "client_certificate %.*s needs ca=FILE",
                             STR_ARG(w->text));
                return;
        }
        if (mode == 0 && a->n_keyed) {
                report_error(c->rep, &w->pos, "client_certificate off takes no parameters");
                return;
        }
        const struct word *crl = compile_key(a, "crl");
        if (ca)
                l->client_ca_pos = ca->pos;
        if (crl)
                l->client_crl_pos = crl->pos;
        l->client_certificate = mode;
        l->client_written = true;
        compile_keys(c, s, a, l);
}

static bool on_or_off(struct compile *c, const struct word *w)
{
        static const str names[] = {STR_INIT("on"), STR_INIT("off")};
        bool on = compile_is(w, "on");

        if (!on && !compile_is(w, "off"))
                report_unknown(c->rep, &w->pos, w->text, names, COUNT(names),
                               "\"%.*s\" is not on or off", STR_ARG(w->text));
        return on;
}

void compile_early_data(struct compile *c, struct scope *s, const struct args *a)
{
        struct listen_conf *l = &build_of(s)->l;

        if (!needs_tls(c, s, a))
                return;
        l->early_data = on_or_off(c, a->word[0]);
        l->early_data_pos = a->word[0]->pos;
        compile_keys(c, s, a, l);
}

void compile_kernel_tls(struct compile *c, struct scope *s, const struct args *a)
{
        struct listen_conf *l = &build_of(s)->l;

        if (!needs_tls(c, s, a))
                return;
        l->kernel_tls = on_or_off(c, a->word[0]);
        l->kernel_tls_pos = a->word[0]->pos;
}

void compile_ticket_keys(struct compile *c, struct scope *s, const struct args *a)
{
        if (needs_tls(c, s, a))
                (void)compile_ticket_file(c, a->word[0]);
}

static bool listen_address(struct compile *c, const struct word *w, struct addr *out)
{
        str text = w->text;

        if (str_starts(text, STR("unix:"))) {
                str parts[] = {STR("unix:"), lex_path(c->a, c->conf->prefix, str_from(text, 5))};
                if (text.n > 5 && addr_parse(arena_cat(c->a, parts, 2), out))
                        return true;
        } else if (addr_parse(text, out) && addr_port(out) != 0) {
                return true;
        }
        report_error(c->rep, &w->pos,
                     "\"%.*s\" is not an address to listen on (0.0.0.0:80, [::]:80, unix:/path)",
                     STR_ARG(text));
        return false;
}

void compile_listen(struct compile *c, struct scope *s, const struct args *a)
{
        struct listen_build b = {.l = {.pos = a->word[0]->pos, .text = a->word[0]->text}};
        struct scope in = {.context = LISTEN, .object = &b, .own = &b.own, .names = c->names_top};
        struct listen_conf *l = &b.l;

        for (size_t i = 1; i < a->n; i++) {
                bool *flag = compile_is(a->word[i], "tls")              ? &l->tls
                             : compile_is(a->word[i], "proxy_protocol") ? &l->proxy_protocol
                                                                        : NULL;
                if (!flag || *flag) {
                        compile_surplus(c, TOP, a, a->word[i]);
                        return;
                }
                *flag = true;
        }
        l->version_min = 12;
        l->version_max = 13;
        l->n_protocols = l->tls ? 2 : 1;
        l->protocols = compile_dup(c->a,
                                   l->tls ? (const str[]){STR("h2"), STR("http/1.1")}
                                          : (const str[]){STR("http/1.1")},
                                   l->n_protocols, sizeof(str));
        compile_key_defaults(c, LISTEN, "http2", l);
        compile_keys(c, s, a, l);
        compile_block(c, a->node->child, a->node->n_children, &in);
        if (l->tls && !tree_has(a->node, "certificate"))
                report_error(c->rep, &a->word[0]->pos,
                             "tls needs a certificate: certificate FILE key=FILE;");
        if (l->early_data && l->version_max < 13)
                report_error(c->rep, &l->early_data_pos, "early_data needs versions 1.3");
        l->certs = COMPILE_TAKE(c->a, b.certs);
        l->n_certs = b.certs.n;
        l->own = b.own;
        if (!listen_address(c, a->word[0], &l->addr))
                return;
        if (l->kernel_tls && l->addr.sa.sa_family == AF_UNIX)
                report_error(c->rep, &l->kernel_tls_pos,
                             "kernel_tls needs TCP: the kernel has no TLS for unix sockets");
        for (size_t i = 0; i < c->listens.n; i++) {
                if (addr_equal(&c->listens.v[i].addr, &l->addr)) {
                        report_error(c->rep, &l->pos, "listen %.*s exists already (line %u)",
                                     STR_ARG(l->text), c->listens.v[i].pos.line);
                        return;
                }
        }
        l->index = (uint32_t)c->listens.n;
        *VEC_ADD(c->a, &c->listens) = *l;
}

/* A host's own part of it: read as a listener's, of which only what is written counts. */
void compile_host_tls(struct compile *c, struct scope *s, const struct args *a)
{
        struct host_conf *h = s->object;
        struct listen_build b = {
                .l = {.pos = a->node->words[0].pos, .text = h->names[0], .tls = true}};
        struct scope in = {.context = HOST_TLS, .object = &b, .names = c->names_top};

        for (size_t i = 0; i < h->n_names; i++) {
                if (!str_eq(h->names[i], STR("*")))
                        continue;
                report_error(c->rep, &b.l.pos,
                             "tls has no place in host *: it is chosen by a name, before the "
                             "request is known; for all others it stands in the listen block");
                return;
        }
        compile_block(c, a->node->child, a->node->n_children, &in);
        b.l.certs = COMPILE_TAKE(c->a, b.certs);
        b.l.n_certs = b.certs.n;
        h->tls = compile_dup(c->a, &b.l, 1, sizeof(b.l));
}

static bool any_v6(const struct addr *a)
{
        return a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

void compile_listens_done(struct compile *c)
{
        for (size_t i = 0; i < c->listens.n; i++) {
                struct listen_conf *l = &c->listens.v[i];
                if (l->addr.sa.sa_family != AF_INET6)
                        continue;
                l->v6only = !any_v6(&l->addr);
                for (size_t k = 0; k < c->listens.n; k++) {
                        const struct addr *other = &c->listens.v[k].addr;
                        if (other->sa.sa_family == AF_INET &&
                            addr_port(other) == addr_port(&l->addr))
                                l->v6only = true;
                }
        }
}
