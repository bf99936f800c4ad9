/*
 * PROXY protocol headers, both versions, read from the front of a connection.
 *
 * The difficulty is to say "not valid" as soon as it is known and "more" only while the bytes could
 * still become a header, so that a client that speaks something else is not waited for.
 */
#include "net/proxyproto.h"

#define V1_MAX  107 /* with CRLF, section 2.1 */
#define V2_HEAD 16

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
static bool parse_v1_line(str line, struct addr *src, struct addr *dst)
{
        struct addr s, d;
        str family, from, to, from_port;
        uint16_t sport, dport;
        int want;

        if (str_eq(line, STR("UNKNOWN")) || str_starts(line, STR("UNKNOWN "))) {
                src->len = dst->len = 0;
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
        *src = s;
        *dst = d;
        return true;
}

static int parse_v1(str in, struct addr *src, struct addr *dst)
{
        ptrdiff_t end = str_find(str_head(in, V1_MAX), STR("\r\n"));

        if (end < 0)
                return in.n < V1_MAX ? 0 : -1;
        if (!parse_v1_line(str_of(in.p + 6, (size_t)end - 6), src, dst))
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

static int parse_v2(str in, struct addr *src, struct addr *dst)
{
        unsigned command, family, transport;
        size_t len;

        if (in.n < V2_HEAD)
                return 0;
        command = (unsigned char)in.p[12];
        family = (unsigned char)in.p[13] >> 4;
        transport = (unsigned char)in.p[13] & 0xf;
        len = (size_t)(unsigned char)in.p[14] << 8 | (unsigned char)in.p[15];
        if ((command != 0x20 && command != 0x21) || family > 3 || transport > 2 ||
            V2_HEAD + len > PROXYPROTO_MAX)
                return -1;
        if (command == 0x21 && transport == 1 &&
            ((family == 1 && len < 12) || (family == 2 && len < 36) || (family == 3 && len < 216)))
                return -1;
        if (in.n < V2_HEAD + len)
                return 0;
        in = str_from(in, V2_HEAD);
        src->len = dst->len = 0;
        if (command == 0x21 && transport == 1 && family == 1) {
                make_v4(src, in.p, in.p + 8);
                make_v4(dst, in.p + 4, in.p + 10);
        } else if (command == 0x21 && transport == 1 && family == 2) {
                make_v6(src, in.p, in.p + 32);
                make_v6(dst, in.p + 16, in.p + 34);
        }
        return (int)(V2_HEAD + len);
}

int proxyproto_parse(str in, struct addr *src, struct addr *dst)
{
        if (in.n == 0)
                return 0;
        if (agrees(in, v2_signature, sizeof(v2_signature)))
                return parse_v2(in, src, dst);
        if (agrees(in, "PROXY ", 6))
                return in.n < 6 ? 0 : parse_v1(in, src, dst);
        return -1;
}
