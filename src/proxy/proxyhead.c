/*
 * What servers are told about a client in a PROXY header (proxyhead.h).
 *
 * The difficulty: it is what the pool tells connections apart by, so it is made of nothing but what
 * it says, and without it nothing may be sent.
 */
#include "proxy/proxyhead.h"

#include "base/check.h"
#include "net/proxyproto.h"

static void say_tls(struct proxyproto_says *says, const struct tls_facts *f, uint32_t tlvs)
{
        if (tlvs & PROXY_TLV_AUTHORITY)
                says->authority = f->sni;
        if (tlvs & PROXY_TLV_ALPN)
                says->alpn = f->alpn;
        if (tlvs & PROXY_TLV_SSL)
                says->ssl = (struct proxyproto_ssl){
                        .tls = true,
                        .cert_conn = f->client_verified && !f->resumed,
                        .cert_sess = f->client_verified,
                        .verified = f->client_verified,
                        .version = f->version,
                        .cn = tls_client_text(f, TLS_CLIENT_CN),
                };
}

static void say_client(struct buf *out, struct txn *t, const struct server *s)
{
        struct proxyproto_says says = {
                .version = (int)s->proxy_version,
                .src = t->client,
                .dst = t->r->client->facts(t->r)->local,
        };

        if (s->proxy_tlvs & PROXY_TLV_UNIQUE_ID)
                says.unique_id = t->request_id;
        if (t->tls)
                say_tls(&says, t->tls, s->proxy_tlvs);
        proxyproto_write(out, &says);
}

str proxyhead(struct txn *t, const struct server *s)
{
        struct buf b = BUF_INIT;
        str head;

        if (t->r->client)
                say_client(&b, t, s);
        else /* what a function asks for is no client's */
                proxyhead_own(&b, s);
        head = arena_dup(t->r->arena, buf_pullup(&b, b.n));
        buf_clear(&b);
        return head;
}

void proxyhead_own(struct buf *out, const struct server *s)
{
        proxyproto_write(
                out, &(struct proxyproto_says){.version = (int)s->proxy_version, .local = true});
}
