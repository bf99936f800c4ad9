/*
 * What the PROXY header of a client's connection told besides addresses, as text.
 *
 * The difficulty: values are bytes of somebody else's making, and go into fields and log lines.  So
 * what is not printable ASCII is percent-encoded, and the percent sign with it, which keeps any
 * value readable back.
 */
#include "proxy/vars_proxy.h"

#include "http/path.h"
#include "net/proxyproto.h"

static bool plain(unsigned char c)
{
        return c >= 0x20 && c < 0x7f && c != '%';
}

static str raw(const struct txn *t, const struct template_op *op)
{
        struct proxyproto_ssl ssl;

        switch ((enum variable)op->var) {
        case VAR_PROXY_PROTOCOL_AUTHORITY:
                return proxyproto_tlv(t->proxy_tlvs, PROXYPROTO_AUTHORITY);
        case VAR_PROXY_PROTOCOL_ALPN:
                return proxyproto_tlv(t->proxy_tlvs, PROXYPROTO_ALPN);
        case VAR_PROXY_PROTOCOL_UNIQUE_ID:
                return proxyproto_tlv(t->proxy_tlvs, PROXYPROTO_UNIQUE_ID);
        case VAR_PROXY_TLV:
                return proxyproto_tlv(t->proxy_tlvs, op->group);
        default:
                break;
        }
        if (!proxyproto_ssl(t->proxy_tlvs, &ssl) || !ssl.tls)
                return STR_NONE;
        if (op->var == VAR_PROXY_PROTOCOL_SSL_VERSION)
                return ssl.version;
        if (op->var == VAR_PROXY_PROTOCOL_SSL_CN)
                return ssl.cn;
        return ssl.verified ? STR("yes") : STR("no");
}

str vars_proxy(struct txn *t, const struct template_op *op)
{
        return path_escape(t->r->arena, raw(t, op), plain);
}
