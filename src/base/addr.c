/*
 * Socket addresses as text and as bytes.
 *
 * The difficulty is IPv4 inside IPv6: a dual-stack listener shows an IPv4 client as ::ffff:a.b.c.d,
 * and an operator who wrote 10.0.0.0/8 means that client too.  So networks are kept as 128 bits
 * with IPv4 mapped, and printing unmaps.
 */
#include "base/addr.h"

#include "base/map.h"

#include <arpa/inet.h>
#include <stdio.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void addr_make_v4(struct addr *a, const struct in_addr *ip, uint16_t port)
{
        memset(a, 0, sizeof(*a));
        a->len = sizeof(a->in);
        a->in.sin_family = AF_INET;
        a->in.sin_addr = *ip;
        a->in.sin_port = htons(port);
}

static void addr_make_v6(struct addr *a, const struct in6_addr *ip, uint16_t port)
{
        memset(a, 0, sizeof(*a));
        a->len = sizeof(a->in6);
        a->in6.sin6_family = AF_INET6;
        a->in6.sin6_addr = *ip;
        a->in6.sin6_port = htons(port);
}

bool addr_parse_ip(str text, uint16_t port, struct addr *out)
{
        char z[INET6_ADDRSTRLEN];
        struct in_addr v4;
        struct in6_addr v6;

        if (!str_copyz(z, sizeof(z), text))
                return false;
        if (inet_pton(AF_INET, z, &v4) == 1)
                addr_make_v4(out, &v4, port);
        else if (inet_pton(AF_INET6, z, &v6) == 1)
                addr_make_v6(out, &v6, port);
        else
                return false;
        return true;
}

static bool addr_parse_unix(str path, struct addr *out)
{
        struct addr a = {0};

        if (path.n == 0 || !str_copyz(a.un.sun_path, sizeof(a.un.sun_path), path))
                return false;
        a.un.sun_family = AF_UNIX;
        a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1);
        *out = a;
        return true;
}

bool addr_parse(str text, struct addr *out)
{
        ptrdiff_t colon;
        uint64_t port;
        str ip;

        if (str_starts(text, STR("unix:")))
                return addr_parse_unix(str_from(text, 5), out);
        colon = str_rchr(text, ':');
        if (colon < 0 || !str_u64(str_from(text, (size_t)colon + 1), 65535, &port))
                return false;
        ip = str_head(text, (size_t)colon);
        if (str_eq(ip, STR("*"))) {
                addr_make_v6(out, &in6addr_any, (uint16_t)port);
                return true;
        }
        if (ip.n >= 2 && ip.p[0] == '[' && ip.p[ip.n - 1] == ']') {
                ip = str_of(ip.p + 1, ip.n - 2);
                return str_chr(ip, ':') >= 0 && addr_parse_ip(ip, (uint16_t)port, out);
        }
        /* Without brackets a colon is ambiguous: "::1:80" is itself an address. */
        return str_chr(ip, ':') < 0 && addr_parse_ip(ip, (uint16_t)port, out);
}

bool addr_bytes(const struct addr *a, uint8_t ip[16])
{
        if (a->len == 0)
                return false;
        if (a->sa.sa_family == AF_INET) {
                memcpy(ip, mapped_prefix, sizeof(mapped_prefix));
                memcpy(ip + 12, &a->in.sin_addr, 4);
                return true;
        }
        if (a->sa.sa_family == AF_INET6) {
                memcpy(ip, &a->in6.sin6_addr, 16);
                return true;
        }
        return false;
}

static str addr_unix_path(const struct addr *a)
{
        size_t head = offsetof(struct sockaddr_un, sun_path);

        if (a->len <= head) /* an unnamed client */
                return STR("");
        return str_of(a->un.sun_path, strnlen(a->un.sun_path, a->len - head));
}

/* Each request prints its client's: inet_ntop takes ten times as long. */
static size_t print_v4(const uint8_t ip[4], char *out)
{
        char *p = out;

        for (unsigned i = 0; i < 4; i++) {
                p += str_put_u64(p, ip[i]);
                *p++ = '.';
        }
        *--p = '\0';
        return (size_t)(p - out);
}

size_t addr_print_ip(const struct addr *a, char out[ADDR_TEXT])
{
        uint8_t ip[16];

        if (a->len == 0) {
                memcpy(out, "-", 2);
        } else if (!addr_bytes(a, ip)) {
                memcpy(out, "unix:", 6);
        } else if (memcmp(ip, mapped_prefix, sizeof(mapped_prefix)) == 0) {
                return print_v4(ip + 12, out);
        } else {
                inet_ntop(AF_INET6, ip, out, ADDR_TEXT);
        }
        return strlen(out);
}

size_t addr_print(const struct addr *a, char out[ADDR_TEXT])
{
        char ip[ADDR_TEXT];
        int n;

        if (a->len == 0)
                return addr_print_ip(a, out);
        if (a->sa.sa_family == AF_UNIX) {
                str path = addr_unix_path(a);
                n = snprintf(out, ADDR_TEXT, "unix:%.*s", STR_ARG(path));
        } else {
                addr_print_ip(a, ip);
                n = snprintf(out, ADDR_TEXT, strchr(ip, ':') ? "[%s]:%u" : "%s:%u", ip,
                             (unsigned)addr_port(a));
        }
        return (size_t)MIN(n, ADDR_TEXT - 1);
}

uint16_t addr_port(const struct addr *a)
{
        if (a->len == 0)
                return 0;
        if (a->sa.sa_family == AF_INET)
                return ntohs(a->in.sin_port);
        return a->sa.sa_family == AF_INET6 ? ntohs(a->in6.sin6_port) : 0;
}

void addr_set_port(struct addr *a, uint16_t port)
{
        if (a->len != 0 && a->sa.sa_family == AF_INET)
                a->in.sin_port = htons(port);
        else if (a->len != 0 && a->sa.sa_family == AF_INET6)
                a->in6.sin6_port = htons(port);
}

/* The bytes that make an address what it is, without padding and without the mapping. */
static size_t addr_identity(const struct addr *a, char key[ADDR_TEXT + 24])
{
        uint8_t ip[16];
        uint16_t port = addr_port(a);
        uint32_t scope = 0;

        if (a->len == 0)
                return 0;
        if (!addr_bytes(a, ip)) {
                str path = addr_unix_path(a);
                key[0] = 'u';
                memcpy(key + 1, path.p, path.n);
                return 1 + path.n;
        }
        if (a->sa.sa_family == AF_INET6)
                scope = a->in6.sin6_scope_id;
        key[0] = 'i';
        memcpy(key + 1, ip, 16);
        memcpy(key + 17, &port, 2);
        memcpy(key + 19, &scope, 4);
        return 23;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
        char x[ADDR_TEXT + 24], y[ADDR_TEXT + 24];
        size_t n;

        if (a->len != 0 && b->len != 0 && a->sa.sa_family == AF_INET &&
            b->sa.sa_family == AF_INET) /* the common case */
                return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr &&
                       a->in.sin_port == b->in.sin_port;
        n = addr_identity(a, x);
        return n == addr_identity(b, y) && memcmp(x, y, n) == 0;
}

uint64_t addr_hash(const struct addr *a)
{
        char key[ADDR_TEXT + 24];

        return map_hash(str_of(key, addr_identity(a, key)));
}

/* Whether all bits of ip from bit `bits` on are 0. */
static bool host_bits_clear(const uint8_t ip[16], unsigned bits)
{
        for (unsigned i = bits; i < 128; i++)
                if (ip[i / 8] & (0x80 >> i % 8))
                        return false;
        return true;
}

bool cidr_parse(str text, struct cidr *out)
{
        struct addr a;
        struct cidr c;
        uint64_t bits;
        unsigned width;
        str ip, len;

        (void)str_cut(text, '/', &ip, &len);
        if (!addr_parse_ip(ip, 0, &a) || !addr_bytes(&a, c.ip))
                return false;
        width = a.sa.sa_family == AF_INET ? 32 : 128;
        bits = width;
        if (len.p != NULL && !str_u64(len, width, &bits))
                return false;
        c.bits = (uint8_t)(128 - width + bits);
        if (!host_bits_clear(c.ip, c.bits))
                return false;
        *out = c;
        return true;
}

bool cidr_has(const struct cidr *c, const struct addr *a)
{
        uint8_t ip[16];
        unsigned whole = c->bits / 8, rest = c->bits % 8;

        if (!addr_bytes(a, ip) || memcmp(ip, c->ip, whole) != 0)
                return false;
        return rest == 0 || ((ip[whole] ^ c->ip[whole]) & (0xff00 >> rest) & 0xff) == 0;
}
