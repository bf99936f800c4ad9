/*
 * Slices of bytes: pointer and length, never NUL-terminated, never owning.
 *
 * p == NULL means absent; an empty string has p != NULL and n == 0.  All functions take absent
 * strings as empty unless they say otherwise.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include "base/defs.h"

#include <string.h>

typedef struct str {
        const char *p;
        size_t n;
} str;

#define STR(lit) ((str){"" lit, sizeof(lit) - 1})
#define STR_INIT(lit)                                                                              \
        {                                                                                          \
                "" lit, sizeof(lit) - 1                                                            \
        } /* for static initialisers */
#define STR_NONE ((str){NULL, 0})

/* log("%.*s", STR_ARG(s)) */
#define STR_ARG(s) ((s).n > 0x7fffffff ? 0x7fffffff : (int)(s).n), ((s).p ? (s).p : "")

static inline str str_of(const void *p, size_t n)
{
        return (str){(const char *)p, n};
}

static inline str str_z(const char *z) /* of a C string; NULL is absent */
{
        return (str){z, z ? strlen(z) : 0};
}

static inline bool str_eq(str a, str b)
{
        return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline str str_from(str s, size_t i) /* s without its first i bytes; i <= s.n */
{
        return (str){s.p + i, s.n - i};
}

static inline str str_head(str s, size_t n) /* at most the first n bytes */
{
        return (str){s.p, s.n < n ? s.n : n};
}

static inline bool str_starts(str s, str prefix)
{
        return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

static inline bool str_ends(str s, str suffix)
{
        return s.n >= suffix.n &&
               (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

bool str_ieq(str a, str b); /* ASCII case-insensitive */
bool str_istarts(str s, str prefix);
int str_cmp(str a, str b);        /* bytewise, shorter first when a prefix */
ptrdiff_t str_chr(str s, char c); /* index or -1 */
ptrdiff_t str_rchr(str s, char c);
ptrdiff_t str_find(str s, str needle); /* index or -1 */
str str_trim(str s);                   /* spaces and tabs off both ends */
bool str_has_ctl(str s);               /* any byte < 0x20 but TAB, or 0x7f */

/* Bytes of the UTF-8 sequence (RFC 3629) that s begins with; 0 when there is none. */
size_t str_utf8(str s);

/* Cuts s at the first c: *head gets what is before, *rest what is after; without c: all and
 * absent.  Returns whether c was found. */
bool str_cut(str s, char c, str *head, str *rest);

/* Whole-string decimal / hex numbers, no sign, no space; false when empty, foreign or > max. */
MUST_CHECK bool str_u64(str s, uint64_t max, uint64_t *out);
MUST_CHECK bool str_hex64(str s, uint64_t max, uint64_t *out);

/* 0..15, or -1. */
int str_hex_digit(char c);
/* Decimal digits of v into buf (20 bytes suffice), returns how many. */
size_t str_put_u64(char *buf, uint64_t v);

/* The shortest of %.15g and %.17g that reads back as v; NaN, +Inf, -Inf.  Returns how many bytes.
 */
#define STR_DOUBLE_MAX 32
size_t str_put_double(char buf[STR_DOUBLE_MAX], double v);

/* Copies with a NUL into a caller's buffer of size cap; false when it does not fit or s has a NUL.
 */
MUST_CHECK bool str_copyz(char *buf, size_t cap, str s);

/* Levenshtein distance, bounded: returns max + 1 when above max.  For "did you mean". */
unsigned str_distance(str a, str b, unsigned max);

/* malloc'd NUL-terminated copy; aborts when memory is out. */
char *str_dupz(str s);

extern const unsigned char str_lower_table[256];
static inline char str_lower(char c)
{
        return (char)str_lower_table[(unsigned char)c];
}

#endif
