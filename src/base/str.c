/*
 * Slices of bytes: comparing, searching, numbers.
 *
 * The difficulty is what callers pass: absent strings (p == NULL), which memcmp and memchr must
 * never see, and numbers one above the largest.
 */
#include "base/str.h"

#include "base/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define LOWER_16(b)                                                                                \
        b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7, b + 8, b + 9, b + 10, b + 11, b + 12,  \
                b + 13, b + 14, b + 15

/* clang-format off */
const unsigned char str_lower_table[256] = {
        LOWER_16(0x00), LOWER_16(0x10), LOWER_16(0x20), LOWER_16(0x30),
        0x40, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
        'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 0x5b, 0x5c, 0x5d, 0x5e, 0x5f,
        LOWER_16(0x60), LOWER_16(0x70), LOWER_16(0x80), LOWER_16(0x90),
        LOWER_16(0xa0), LOWER_16(0xb0), LOWER_16(0xc0), LOWER_16(0xd0),
        LOWER_16(0xe0), LOWER_16(0xf0),
};
/* clang-format on */

static bool equal_folded(const char *a, const char *b, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (a[i] != b[i] && str_lower(a[i]) != str_lower(b[i]))
                        return false;
        return true;
}

bool str_ieq(str a, str b)
{
        return a.n == b.n && equal_folded(a.p, b.p, a.n);
}

bool str_istarts(str s, str prefix)
{
        return s.n >= prefix.n && equal_folded(s.p, prefix.p, prefix.n);
}

int str_cmp(str a, str b)
{
        size_t n = MIN(a.n, b.n);
        int r = n ? memcmp(a.p, b.p, n) : 0;

        if (r == 0)
                r = (a.n > b.n) - (a.n < b.n);
        return r;
}

ptrdiff_t str_chr(str s, char c)
{
        const char *p = s.n ? memchr(s.p, c, s.n) : NULL;

        return p ? p - s.p : -1;
}

ptrdiff_t str_rchr(str s, char c)
{
        const char *p = s.n ? memrchr(s.p, c, s.n) : NULL;

        return p ? p - s.p : -1;
}

ptrdiff_t str_find(str s, str needle)
{
        const char *p;

        if (needle.n == 0)
                return 0;
        p = s.n >= needle.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;
        return p ? p - s.p : -1;
}

static bool is_blank(char c)
{
        return c == ' ' || c == '\t';
}

str str_trim(str s)
{
        while (s.n > 0 && is_blank(s.p[0]))
                s = str_from(s, 1);
        while (s.n > 0 && is_blank(s.p[s.n - 1]))
                s.n--;
        return s;
}

bool str_has_ctl(str s)
{
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if ((c < 0x20 && c != '\t') || c == 0x7f)
                        return true;
        }
        return false;
}

size_t str_utf8(str s)
{
        const unsigned char *p = (const unsigned char *)s.p;
        unsigned char low = 0x80, high = 0xbf; /* of the second byte */
        size_t n;

        if (s.n == 0)
                return 0;
        if (p[0] < 0x80)
                return 1;
        n = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4;
        if (p[0] < 0xc2 || p[0] > 0xf4 || s.n < n)
                return 0;
        if (p[0] == 0xe0 || p[0] == 0xf0)
                low = p[0] == 0xe0 ? 0xa0 : 0x90; /* not longer than needed */
        else if (p[0] == 0xed || p[0] == 0xf4)
                high = p[0] == 0xed ? 0x9f : 0x8f; /* no surrogates, nothing above U+10FFFF */
        if (p[1] < low || p[1] > high)
                return 0;
        for (size_t i = 2; i < n; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        return n;
}

bool str_cut(str s, char c, str *head, str *rest)
{
        ptrdiff_t i = str_chr(s, c);

        *head = i < 0 ? s : str_head(s, (size_t)i);
        *rest = i < 0 ? STR_NONE : str_from(s, (size_t)i + 1);
        return i >= 0;
}

int str_hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c = str_lower(c);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool number(str s, unsigned base, uint64_t max, uint64_t *out)
{
        uint64_t v = 0;

        for (size_t i = 0; i < s.n; i++) {
                unsigned d = (unsigned)str_hex_digit(s.p[i]);
                if (d >= base || v > (max - MIN(d, max)) / base || d > max)
                        return false;
                v = v * base + d;
        }
        if (s.n == 0)
                return false;
        *out = v;
        return true;
}

bool str_u64(str s, uint64_t max, uint64_t *out)
{
        uint64_t v = 0;

        if (UNLIKELY(s.n >= 20)) /* else there are too few digits to overflow */
                return number(s, 10, max, out);
        for (size_t i = 0; i < s.n; i++) {
                unsigned d = (unsigned char)s.p[i] - (unsigned)'0';
                if (d > 9)
                        return false;
                v = v * 10 + d;
        }
        if (s.n == 0 || v > max)
                return false;
        *out = v;
        return true;
}

bool str_hex64(str s, uint64_t max, uint64_t *out)
{
        return number(s, 16, max, out);
}

size_t str_put_u64(char *buf, uint64_t v)
{
        char digits[20];
        size_t n = 0;

        do
                digits[sizeof(digits) - ++n] = (char)('0' + v % 10);
        while ((v /= 10) != 0);
        memcpy(buf, digits + sizeof(digits) - n, n);
        return n;
}

size_t str_put_double(char buf[STR_DOUBLE_MAX], double v)
{
        int n;

        if (isnan(v))
                n = snprintf(buf, STR_DOUBLE_MAX, "NaN");
        else if (isinf(v))
                n = snprintf(buf, STR_DOUBLE_MAX, v < 0 ? "-Inf" : "+Inf");
        else if ((n = snprintf(buf, STR_DOUBLE_MAX, "%.15g", v)), strtod(buf, NULL) != v)
                n = snprintf(buf, STR_DOUBLE_MAX, "%.17g", v);
        return (size_t)n;
}

bool str_copyz(char *buf, size_t cap, str s)
{
        if (s.n >= cap || str_chr(s, '\0') >= 0)
                return false;
        if (s.n)
                memcpy(buf, s.p, s.n);
        buf[s.n] = '\0';
        return true;
}

#define DISTANCE_MAX 64 /* names that people mistype are shorter */

unsigned str_distance(str a, str b, unsigned max)
{
        unsigned row[DISTANCE_MAX + 1];
        size_t gap = a.n > b.n ? a.n - b.n : b.n - a.n;

        if (gap > max || b.n > DISTANCE_MAX)
                return max + 1;
        for (size_t j = 0; j <= b.n; j++)
                row[j] = (unsigned)j;
        for (size_t i = 0; i < a.n; i++) {
                unsigned diagonal = row[0], least = row[0] = (unsigned)i + 1;
                for (size_t j = 0; j < b.n; j++) {
                        unsigned change = diagonal + (a.p[i] != b.p[j]);
                        diagonal = row[j + 1];
                        row[j + 1] = MIN(change, MIN(diagonal, row[j]) + 1);
                        least = MIN(least, row[j + 1]);
                }
                if (least > max)
                        return max + 1;
        }
        return MIN(row[b.n], max + 1);
}

char *str_dupz(str s)
{
        char *z = malloc(s.n + 1);

        CHECK(z != NULL);
        if (s.n)
                memcpy(z, s.p, s.n);
        z[s.n] = '\0';
        return z;
}
