/*
 * Certificates of clients: which are revoked, why one was refused, and what is told of one that was
 * believed.
 *
 * The difficulty: what stands in a certificate was written by whoever asked for it, and an
 * authority may have signed anything.  So every text is escaped here before anybody sees it: no
 * control, no byte above ASCII, and in a list no comma that is part of a value.
 */
#include "net/tls_type.h"

#include "base/check.h"
#include "base/crypto.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#define SUBJECT_MAX 512 /* of a refused certificate, for a line of the log */

/* ---- revocation lists ---- */

/* Every CRL of the text into the store, which from then on wants one of each CA of a chain; false:
 * there is none, or one is broken. */
bool tls_load_crls(X509_STORE *store, str pem)
{
        STACK_OF(X509_CRL) *all = tls_pem_lists(pem);

        if (all == NULL)
                return false;
        for (int i = 0; i < sk_X509_CRL_num(all); i++)
                CHECK(X509_STORE_add_crl(store, sk_X509_CRL_value(all, i)) == 1);
        sk_X509_CRL_pop_free(all, X509_CRL_free);
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
        return true;
}

/* ---- resumption ---- */

/* A session that is resumed brings the certificate along and asks nobody about it again, and its
 * life begins anew with every ticket of TLS 1.3.  So what time alone does to a certificate, or to
 * the lists it was looked up in, is looked at here: then a full handshake says what is wrong. */
static bool outlived(SSL *ssl, SSL_SESSION *session)
{
        const struct tls_peer *p = SSL_get_app_data(ssl);
        const X509 *x = session != NULL ? SSL_SESSION_get0_peer(session) : NULL;

        if (x == NULL)
                return false;
        return X509_cmp_current_time(X509_get0_notAfter(x)) <= 0 ||
               (p != NULL && p->server->crl_expires <= (int64_t)time(NULL));
}

/* OpenSSL's contract: a ticket was opened, or not. */
static SSL_TICKET_RETURN on_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name UNUSED,
                                   size_t n UNUSED, SSL_TICKET_STATUS status, void *arg UNUSED)
{
        if ((status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) ||
            outlived(ssl, session))
                return SSL_TICKET_RETURN_IGNORE_RENEW;
        return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

void tls_client_attach(SSL_CTX *ctx)
{
        CHECK(SSL_CTX_set_session_ticket_cb(ctx, NULL, on_opened, NULL) == 1);
}

/* ---- texts ---- */

/* A name as RFC 4514 writes it; controls and what is not ASCII are escaped. */
static char *name_text(const X509_NAME *name)
{
        BIO *b = BIO_new(BIO_s_mem());
        char *p, *copy;
        long n;

        CHECK(b != NULL);
        X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253);
        n = BIO_get_mem_data(b, &p);
        copy = str_dupz(str_of(p, (size_t)MAX(n, 0)));
        BIO_free(b);
        return copy;
}

/* The last common name, which is the most specific one, with whatever bytes it has. */
static str common_name(const X509_NAME *name)
{
        unsigned char *text = NULL;
        int at = -1, next, n;
        str copy = STR_NONE;

        while ((next = X509_NAME_get_index_by_NID(name, NID_commonName, at)) >= 0)
                at = next;
        if (at < 0)
                return STR_NONE;
        n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
        if (n >= 0)
                copy = str_of(str_dupz(str_of(text, (size_t)n)), (size_t)n);
        OPENSSL_free(text);
        return copy;
}

static char *serial_text(const X509 *x)
{
        BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
        char *hex = n ? BN_bn2hex(n) : NULL, *copy = str_dupz(str_z(hex ? hex : ""));

        OPENSSL_free(hex);
        BN_free(n);
        return copy;
}

static char *fingerprint_text(const X509 *x)
{
        unsigned char sha[EVP_MAX_MD_SIZE];
        char hex[2 * EVP_MAX_MD_SIZE];
        unsigned n = 0;

        if (X509_digest(x, EVP_sha256(), sha, &n) != 1)
                n = 0;
        crypto_hex(hex, sha, n);
        return str_dupz(str_of(hex, 2 * (size_t)n));
}

static char *expires_text(const X509 *x)
{
        struct tm tm;
        char text[64];

        if (ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) != 1)
                return str_dupz(STR(""));
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
        return str_dupz(str_z(text));
}

/* In a list: what could end an element or a line is written as RFC 4514 would. */
static void put_escaped(struct buf *b, str s)
{
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if (c < 0x20 || c >= 0x7f || c == ',' || c == '\\')
                        buf_printf(b, "\\%02X", c);
                else
                        buf_put(b, &s.p[i], 1);
        }
}

static void put_ip(struct buf *b, const ASN1_OCTET_STRING *ip)
{
        int n = ASN1_STRING_length(ip);
        char text[INET6_ADDRSTRLEN] = "";

        if (n == 4 || n == 16)
                (void)inet_ntop(n == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(ip), text,
                                sizeof(text));
        buf_puts(b, str_z(text));
}

static char *san_text(const X509 *x)
{
        GENERAL_NAMES *alt = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
        struct buf b = BUF_INIT;
        char *copy;

        for (int i = 0; i < sk_GENERAL_NAME_num(alt); i++) {
                const GENERAL_NAME *g = sk_GENERAL_NAME_value(alt, i);
                const char *kind = g->type == GEN_DNS     ? "DNS:"
                                   : g->type == GEN_URI   ? "URI:"
                                   : g->type == GEN_EMAIL ? "email:"
                                   : g->type == GEN_IPADD ? "IP:"
                                                          : NULL;
                if (kind == NULL)
                        continue;
                buf_printf(&b, "%s%s", b.n ? "," : "", kind);
                if (g->type == GEN_IPADD)
                        put_ip(&b, g->d.iPAddress);
                else
                        put_escaped(&b, str_of(ASN1_STRING_get0_data(g->d.ia5),
                                               (size_t)ASN1_STRING_length(g->d.ia5)));
        }
        GENERAL_NAMES_free(alt);
        copy = str_dupz(buf_pullup(&b, b.n));
        buf_clear(&b);
        return copy;
}

/* The certificate as RFC 9440 2.1 writes it: the bytes of a structured field. */
static char *field_text(X509 *x)
{
        unsigned char *der = NULL;
        int n = i2d_X509(x, &der);
        struct arena *a = arena_new(0);
        char *copy;
        str parts[] = {STR(":"), STR(""), STR(":")};

        if (n > 0)
                parts[1] = crypto_base64(a, str_of(der, (size_t)n), false);
        copy = str_dupz(n > 0 ? arena_cat(a, parts, 3) : STR(""));
        OPENSSL_free(der);
        arena_free(a);
        return copy;
}

/* In memory of its own. */
static str make(X509 *x, enum tls_client_text what)
{
        switch (what) {
        case TLS_CLIENT_SUBJECT:
                return str_z(name_text(X509_get_subject_name(x)));
        case TLS_CLIENT_CN:
                return common_name(X509_get_subject_name(x));
        case TLS_CLIENT_ISSUER:
                return str_z(name_text(X509_get_issuer_name(x)));
        case TLS_CLIENT_SERIAL:
                return str_z(serial_text(x));
        case TLS_CLIENT_SAN:
                return str_z(san_text(x));
        case TLS_CLIENT_FINGERPRINT:
                return str_z(fingerprint_text(x));
        case TLS_CLIENT_EXPIRES:
                return str_z(expires_text(x));
        case TLS_CLIENT_FIELD:
                return str_z(field_text(x));
        case TLS_CLIENT_TEXTS:
                break;
        }
        UNREACHABLE();
}

str tls_client_text(const struct tls_facts *f, enum tls_client_text what)
{
        if (f == NULL || !f->client_verified)
                return STR_NONE;
        if (f->client_text[what].p != NULL)
                return f->client_text[what];
        struct tls_peer *p = f->peer;
        CHECK_OBJ(p, TLS_PEER_MAGIC);
        X509 *x = SSL_get0_peer_certificate(p->ssl);
        CHECK(x != NULL);
        return p->facts.client_text[what] = make(x, what);
}

/* ---- why one was refused ---- */

/* OpenSSL's callback for each certificate of a chain: it changes no verdict, it remembers the first
 * bad one. */
int tls_note_refusal(int ok, X509_STORE_CTX *store)
{
        SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
        struct tls_peer *p = ssl ? SSL_get_app_data(ssl) : NULL;
        X509 *x = X509_STORE_CTX_get0_cert(store);

        if (ok || p == NULL || p->refused != NULL)
                return ok;
        char *subject = x ? name_text(X509_get_subject_name(x)) : str_dupz(STR(""));
        str shown = str_head(str_z(subject), MIN(strlen(subject), (size_t)SUBJECT_MAX));
        p->refused = str_dupz(shown);
        free(subject);
        p->facts.refused = str_z(p->refused);
        p->facts.refusal = str_z(X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)));
        return ok;
}

/* A handshake that failed for want of a certificate; to be asked while the error is queued. */
void tls_note_absence(struct tls_peer *p)
{
        unsigned long e = ERR_peek_error();

        if (p->server == NULL || ERR_GET_LIB(e) != ERR_LIB_SSL ||
            ERR_GET_REASON(e) != SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
                return;
        p->facts.refused = STR("");
        p->facts.refusal = STR("no certificate");
}

void tls_client_text_free(struct tls_peer *p)
{
        for (unsigned i = 0; i < TLS_CLIENT_TEXTS; i++)
                free((char *)(uintptr_t)p->facts.client_text[i].p);
        free(p->refused);
}
