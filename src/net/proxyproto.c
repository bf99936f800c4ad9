/*
 * PROXY protocol headers, both versions, read from the front of a connection, and written.
 *
 * The difficulty in reading is to say "not valid" as soon as it is known and "more" only while the
 * bytes could still become a header, so that a client that speaks something else is not waited for.
 */
#include "net/proxyproto.h"

#include "base/check.h"

#include <arpa/inet.h>

#define V1_MAX   107 /* with CRLF, section 2.1 */
#define V2_HEAD  16
#define TLV_HEAD 3
#define SSL_HEAD 5 /* client, verify */

static const char v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";

static bool agrees(str in, const char *magic, size_t n)
{
        return memcmp(in.p, magic, MIN(in.n, n)) == 0;
}

/* Takes the word before the next space off *s; empty words do not exist. */
static bool word(str *s, str *out)
{
        str rest;

        if (!str_cut(*s, ' ', out, &rest) || out->n == 0)
                return false;
        *s = rest;
        return true;
}

static bool port_number(str s, uint16_t *out)
{
        uint64_t v;

        if ((s.n > 1 && s.p[0] == '0') || !str_u64(s, 65535, &v))
                return false;
        *out = (uint16_t)v;
        return true;
}

/* line: what follows "PROXY " without CRLF. */
static bool parse_v1_line(str line, struct proxyproto *out)
{
        struct addr s, d;
        str family, from, to, from_port;
        uint16_t sport, dport;
        int want;

        if (str_eq(line, STR("UNKNOWN")) || str_starts(line, STR("UNKNOWN "))) {
                *out = (struct proxyproto){0};
                return true;
        }
        if (!word(&line, &family) || !word(&line, &from) || !word(&line, &to) ||
            !word(&line, &from_port) || !port_number(from_port, &sport) ||
            !port_number(line, &dport))
                return false;
        if (str_eq(family, STR("TCP4")))
                want = AF_INET;
        else if (str_eq(family, STR("TCP6")))
                want = AF_INET6;
        else
                return false;
        if (!addr_parse_ip(from, sport, &s) || !addr_parse_ip(to, dport, &d) ||
            s.sa.sa_family != want || d.sa.sa_family != want)
                return false;
        *out = (struct proxyproto){.src = s, .dst = d};
        return true;
}

static int parse_v1(str in, struct proxyproto *out)
{
        ptrdiff_t end = str_find(str_head(in, V1_MAX), STR("\r\n"));

        if (end < 0)
                return in.n < V1_MAX ? 0 : -1;
        if (!parse_v1_line(str_of(in.p + 6, (size_t)end - 6), out))
                return -1;
        return (int)end + 2;
}

static void make_v4(struct addr *a, const char *ip, const char *port)
{
        memset(a, 0, sizeof(*a));
        a->len = sizeof(a->in);
        a->in.sin_family = AF_INET;
        memcpy(&a->in.sin_addr, ip, 4);
        memcpy(&a->in.sin_port, port, 2);
}

static void make_v6(struct addr *a, const char *ip, const char *port)
{
        memset(a, 0, sizeof(*a));
        a->len = sizeof(a->in6);
        a->in6.sin6_family = AF_INET6;
        memcpy(&a->in6.sin6_addr, ip, 16);
        memcpy(&a->in6.sin6_port, port, 2);
}

/* ---- values ---- */

static size_t number16(const char *p)
{
        return (size_t)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

/* Takes the first value off *s; false at the end, or where there is half of one. */
static bool cut_tlv(str *s, unsigned *type, str *value)
{
        size_t n;

        if (s->n < TLV_HEAD || (n = number16(s->p + 1)) > s->n - TLV_HEAD)
                return false;
        *type = (unsigned char)s->p[0];
        *value = str_of(s->p + TLV_HEAD, n);
        *s = str_from(*s, TLV_HEAD + n);
        return true;
}

uint32_t proxyproto_crc32c(uint32_t crc, str s)
{
        static const uint32_t nibble[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                            0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                            0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                            0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

        crc = ~crc;
        for (size_t i = 0; i < s.n; i++) {
                crc ^= (unsigned char)s.p[i];
                crc = crc >> 4 ^ nibble[crc & 0xf];
                crc = crc >> 4 ^ nibble[crc & 0xf];
        }
        return ~crc;
}

/* The sum is of the whole header with zeros in its own place (section 2.2.3). */
static bool checksum_ok(str header, str sum)
{
        size_t at = (size_t)(sum.p - header.p);
        uint32_t crc = proxyproto_crc32c(0, str_head(header, at));

        crc = proxyproto_crc32c(crc, str_of("\0\0\0", 4));
        crc = proxyproto_crc32c(crc, str_from(header, at + 4));
        return crc == ((uint32_t)number16(sum.p) << 16 | (uint32_t)number16(sum.p + 2));
}

static bool ssl_ok(str value)
{
        unsigned type;
        str sub;

        if (value.n < SSL_HEAD)
                return false;
        value = str_from(value, SSL_HEAD);
        while (cut_tlv(&value, &type, &sub))
                ;
        return value.n == 0;
}

static bool tlvs_ok(str header, str tlvs)
{
        bool summed = false;
        unsigned type;
        str v;

        while (cut_tlv(&tlvs, &type, &v)) {
                switch (type) {
                case PROXYPROTO_ALPN:
                case PROXYPROTO_AUTHORITY:
                        if (v.n > PROXYPROTO_NAME_MAX)
                                return false;
                        break;
                case PROXYPROTO_UNIQUE_ID:
                        if (v.n > PROXYPROTO_UNIQUE_ID_MAX)
                                return false;
                        break;
                case PROXYPROTO_CRC32C:
                        if (v.n != 4 || summed || !checksum_ok(header, v))
                                return false;
                        summed = true;
                        break;
                case PROXYPROTO_SSL:
                        if (!ssl_ok(v))
                                return false;
                        break;
                default: /* whose meaning is between the two ends */
                        break;
                }
        }
        return tlvs.n == 0;
}

str proxyproto_tlv(str tlvs, unsigned type)
{
        unsigned t;
        str value;

        while (cut_tlv(&tlvs, &t, &value))
                if (t == type)
                        return value;
        return STR_NONE;
}

bool proxyproto_ssl(str tlvs, struct proxyproto_ssl *out)
{
        str value = proxyproto_tlv(tlvs, PROXYPROTO_SSL), subs;
        unsigned client;

        if (value.p == NULL)
                return false;
        client = (unsigned char)value.p[0];
        subs = str_from(value, SSL_HEAD);
        *out = (struct proxyproto_ssl){
                .tls = client & 0x01,
                .cert_conn = client & 0x02,
                .cert_sess = client & 0x04,
                .version = proxyproto_tlv(subs, PROXYPROTO_SSL_VERSION),
                .cn = proxyproto_tlv(subs, PROXYPROTO_SSL_CN),
        };
        out->verified = (client & 0x06) && memcmp(value.p + 1, "\0\0\0", 4) == 0;
        return true;
}

/* ---- version 2 ---- */

static const size_t v2_addresses[] = {0, 12, 36, 216}; /* UNSPEC, INET, INET6, UNIX */

static void v2_addrs(const char *p, unsigned family, struct proxyproto *out)
{
        struct addr name = {.len = offsetof(struct sockaddr_un, sun_path)};

        switch (family) {
        case 1:
                make_v4(&out->src, p, p + 8);
                make_v4(&out->dst, p + 4, p + 10);
                break;
        case 2:
                make_v6(&out->src, p, p + 32);
                make_v6(&out->dst, p + 16, p + 34);
                break;
        case 3: /* not the socket's own: what is said of that must not be believed of this */
                name.sa.sa_family = AF_UNIX;
                out->src = out->dst = name;
                break;
        }
}

static int parse_v2(str in, struct proxyproto *out)
{
        struct proxyproto got = {0};
        unsigned command, family, transport;
        size_t n, addresses;

        if (in.n < V2_HEAD)
                return 0;
        command = (unsigned char)in.p[12];
        family = (unsigned char)in.p[13] >> 4;
        transport = (unsigned char)in.p[13] & 0xf;
        n = V2_HEAD + number16(in.p + 14);
        if ((command != 0x20 && command != 0x21) || family >= COUNT(v2_addresses) ||
            transport > 2 || n > PROXYPROTO_MAX)
                return -1;
        /* LOCAL: the sender's own; UNSPEC, and no stream: nothing is told.  Whatever follows is not
         * looked at then. */
        bool told = command == 0x21 && transport == 1 && family != 0;
        addresses = V2_HEAD + v2_addresses[family];
        if (told && n < addresses)
                return -1;
        if (in.n < n)
                return 0;
        in = str_head(in, n);
        if (told) {
                v2_addrs(in.p + V2_HEAD, family, &got);
                if (n > addresses)
                        got.tlvs = str_from(in, addresses);
                if (!tlvs_ok(in, got.tlvs))
                        return -1;
        }
        *out = got;
        return (int)n;
}

int proxyproto_parse(str in, struct proxyproto *out)
{
        if (in.n == 0)
                return 0;
        if (agrees(in, v2_signature, sizeof(v2_signature)))
                return parse_v2(in, out);
        if (agrees(in, "PROXY ", 6))
                return in.n < 6 ? 0 : parse_v1(in, out);
        return -1;
}

/* ---- writing ---- */

struct ends {
        uint8_t src[16], dst[16];
        uint16_t sport, dport;
        bool v4; /* both are v4-mapped: the last four bytes */
};

static bool is_v4(const uint8_t ip[16])
{
        static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

        return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

/* One family for both, so one of IPv4 beside one of IPv6 becomes v4-mapped. */
static bool ends_of(struct ends *e, const struct proxyproto_says *says)
{
        if (says->local || !addr_bytes(&says->src, e->src) || !addr_bytes(&says->dst, e->dst))
                return false;
        e->sport = addr_port(&says->src);
        e->dport = addr_port(&says->dst);
        e->v4 = is_v4(e->src) && is_v4(e->dst);
        return true;
}

static void write_v1(struct buf *out, const struct proxyproto_says *says)
{
        char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
        struct ends e;
        int family, skip;

        if (!ends_of(&e, says)) {
                buf_puts(out, STR("PROXY UNKNOWN\r\n"));
                return;
        }
        family = e.v4 ? AF_INET : AF_INET6;
        skip = e.v4 ? 12 : 0;
        CHECK(inet_ntop(family, e.src + skip, from, sizeof(from)) != NULL);
        CHECK(inet_ntop(family, e.dst + skip, to, sizeof(to)) != NULL);
        buf_printf(out, "PROXY TCP%c %s %s %u %u\r\n", e.v4 ? '4' : '6', from, to, e.sport,
                   e.dport);
}

/* The body of a version 2 header; nothing in it can be longer than it has room for. */
struct body {
        char p[1536];
        size_t n;
};

static void put(struct body *b, const void *p, size_t n)
{
        CHECK(n <= sizeof(b->p) - b->n);
        memcpy(b->p + b->n, p, n);
        b->n += n;
}

static void put16(struct body *b, size_t v)
{
        put(b, (char[]){(char)(v >> 8), (char)v}, 2);
}

static void put_tlv(struct body *b, char type, str value, size_t max)
{
        if (value.n == 0 || value.n > max)
                return;
        put(b, &type, 1);
        put16(b, value.n);
        put(b, value.p, value.n);
}

static void put_ssl(struct body *b, const struct proxyproto_ssl *ssl)
{
        struct body sub = {.n = 0};
        char client = (char)(1 | ssl->cert_conn << 1 | ssl->cert_sess << 2);

        put(&sub, (char[]){client, 0, 0, 0, (char)!ssl->verified}, SSL_HEAD);
        put_tlv(&sub, PROXYPROTO_SSL_VERSION, ssl->version, PROXYPROTO_NAME_MAX);
        put_tlv(&sub, PROXYPROTO_SSL_CN, ssl->cn, PROXYPROTO_NAME_MAX);
        put_tlv(b, PROXYPROTO_SSL, str_of(sub.p, sub.n), sizeof(sub.p));
}

static void put_ends(struct body *b, const struct ends *e)
{
        size_t skip = e->v4 ? 12 : 0;

        put(b, e->src + skip, 16 - skip);
        put(b, e->dst + skip, 16 - skip);
        put16(b, e->sport);
        put16(b, e->dport);
}

static void write_v2(struct buf *out, const struct proxyproto_says *says)
{
        struct body head = {.n = 0}, b = {.n = 0};
        struct ends e;
        char family = 0;

        if (ends_of(&e, says)) {
                family = e.v4 ? 0x11 : 0x21;
                put_ends(&b, &e);
                put_tlv(&b, PROXYPROTO_ALPN, says->alpn, PROXYPROTO_NAME_MAX);
                put_tlv(&b, PROXYPROTO_AUTHORITY, says->authority, PROXYPROTO_NAME_MAX);
                put_tlv(&b, PROXYPROTO_UNIQUE_ID, says->unique_id, PROXYPROTO_UNIQUE_ID_MAX);
                if (says->ssl.tls)
                        put_ssl(&b, &says->ssl);
        }
        put(&head, v2_signature, sizeof(v2_signature));
        put(&head, (char[]){says->local ? 0x20 : 0x21, family}, 2);
        put16(&head, b.n);
        buf_put(out, head.p, head.n);
        buf_put(out, b.p, b.n);
}

void proxyproto_write(struct buf *out, const struct proxyproto_says *says)
{
        if (says->version == 1)
                write_v1(out, says);
        else
                write_v2(out, says);
}
