/*
 * Path normalisation.
 *
 * The difficulty: two texts grow side by side, what routes see and what the server gets, and they
 * must never tell different stories.  So ".." takes the same segments away from both, also where
 * empty segments ("//", "/;x") stand between, which only one of them shows.  What no rule can make
 * agree is refused: see hides_dots() and overlong().
 */
#include "http/path.h"

#include "base/check.h"

enum { PLAIN, ODD };

/* Bytes that need a closer look anywhere in a path: '%', ';', '\\', and what no URI may hold. */
static const unsigned char path_class[256] = {
        [0 ... 0x20] = ODD, ['"'] = ODD,  ['%'] = ODD,          [';'] = ODD, ['<'] = ODD,
        ['>'] = ODD,        ['\\'] = ODD, ['^'] = ODD,          ['`'] = ODD, ['{'] = ODD,
        ['|'] = ODD,        ['}'] = ODD,  [0x7f ... 0xff] = ODD};

/* Nothing to decode, remove, merge or refuse. */
static bool path_is_plain(str raw)
{
        unsigned char before = 0;
        for (size_t i = 0; i < raw.n; i++) {
                unsigned char c = (unsigned char)raw.p[i];
                if (UNLIKELY(path_class[c]))
                        return false;
                if (before == '/' && UNLIKELY(c == '/' || c == '.'))
                        return false;
                before = c;
        }
        return true;
}

/* One byte of the path, decoded. */
struct glyph {
        unsigned char c;
        bool escaped;
};

/* Reads the glyph at *i; false: a broken escape or a control. */
static bool path_next(str s, size_t *i, struct glyph *g)
{
        unsigned char c = (unsigned char)s.p[*i];
        *g = (struct glyph){c, false};
        *i += 1;
        if (c == '%') {
                if (s.n - *i < 2)
                        return false;
                int hi = str_hex_digit(s.p[*i]);
                int lo = str_hex_digit(s.p[*i + 1]);
                if (hi < 0 || lo < 0)
                        return false;
                *g = (struct glyph){(unsigned char)(hi << 4 | lo), true};
                *i += 2;
        }
        return g->c >= 0x20 && g->c != 0x7f && (g->escaped || c != ' ');
}

bool path_is_unreserved(unsigned char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '.' || c == '_' || c == '~';
}

/* c after before begins a UTF-8 form longer than needed: lax decoders make "." or "/" of it. */
static bool overlong(unsigned char before, unsigned char c)
{
        if ((c & 0xc0) != 0x80)
                return false;
        return before == 0xc0 || before == 0xc1 || (before == 0xe0 && c < 0xa0) ||
               (before == 0xf0 && c < 0x90);
}

static bool is_dots(const char *p, size_t n)
{
        return (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.');
}

/*
 * Checks every glyph of a segment, and whether it has a dot segment that only some decoders see:
 * because "%2F", "%5C" or "\" is a slash for them, or "%3B" the start of parameters.
 * *bad is such a finding or a malformed byte.
 */
static bool segment_is_clean(str seg)
{
        char piece[3] = {0}; /* the first bytes of the current piece, enough to know dots */
        size_t n = 0;
        unsigned char before = 0;
        bool params = false, hidden = false;
        for (size_t i = 0; i < seg.n;) {
                struct glyph g;
                if (!path_next(seg, &i, &g) || overlong(before, g.c))
                        return false;
                before = g.c;
                if (g.c == '\\' || (g.c == '/' && g.escaped)) {
                        if (is_dots(piece, n))
                                return false;
                        n = 0;
                        params = false;
                        hidden = true;
                } else if (g.c == ';') {
                        if (g.escaped && !params && is_dots(piece, n))
                                return false;
                        params = true;
                } else if (!params) {
                        if (n < sizeof(piece))
                                piece[n] = (char)g.c;
                        n += n < sizeof(piece);
                }
        }
        return !(hidden && is_dots(piece, n));
}

/* Appends the segment up to its parameters, decoded as far as it may be; returns the new end. */
static char *segment_put(str seg, char *out)
{
        static const char digits[] = "0123456789ABCDEF";
        for (size_t i = 0; i < seg.n;) {
                struct glyph g = {0, false};
                if (!path_next(seg, &i, &g))
                        UNREACHABLE(); /* segment_is_clean() has read it */
                if (g.c == ';' && !g.escaped)
                        break;
                if (g.escaped ? path_is_unreserved(g.c) : !path_class[g.c]) {
                        *out++ = (char)g.c;
                } else {
                        *out++ = '%';
                        *out++ = digits[g.c >> 4];
                        *out++ = digits[g.c & 15];
                }
        }
        return out;
}

/* Takes the last segment off text[0..n); returns the new length. */
static size_t pop_norm(const char *text, size_t n)
{
        while (n > 0 && text[n - 1] != '/')
                n--;
        return n > 0 ? n - 1 : 0;
}

/* The same for the raw text: segments of which the other shows nothing go with it. */
static size_t pop_sent(const char *text, size_t n)
{
        bool empty = true;
        while (n > 0 && empty) {
                size_t end = n;
                n = pop_norm(text, n);
                empty = end == n + 1 || text[n + 1] == ';';
        }
        return n;
}

/* Fills norm and sent from a path that is not plain. */
static bool path_rewrite(struct arena *a, str raw, struct path *out)
{
        char *m = arena_alloc(a, raw.n * 3), *s = arena_alloc(a, raw.n);
        if (!m || !s)
                return false;
        size_t mn = 0, sn = 0;
        bool dots = false, last = false;
        for (str rest = str_from(raw, 1); !last;) {
                str seg, after;
                last = !str_cut(rest, '/', &seg, &after);
                rest = after;
                if (!segment_is_clean(seg))
                        return false;
                m[mn] = '/';
                size_t n = (size_t)(segment_put(seg, m + mn + 1) - (m + mn + 1));
                if (is_dots(m + mn + 1, n)) {
                        dots = true;
                        if (n == 2) {
                                mn = pop_norm(m, mn);
                                sn = pop_sent(s, sn);
                        }
                        seg.n = n = 0;
                        if (!last)
                                continue;
                        m[mn] = '/';
                }
                if (n > 0 || last)
                        mn += n + 1;
                s[sn] = '/';
                memcpy(s + sn + 1, seg.p, seg.n);
                sn += seg.n + 1;
        }
        out->norm = str_of(m, mn);
        out->sent = dots ? str_of(s, sn) : raw;
        return true;
}

bool path_parse(struct arena *a, str target, struct path *out)
{
        struct path p = {.query = STR_NONE};
        str raw = target;
        const char *mark = memchr(target.p, '?', target.n);
        if (mark) {
                raw.n = (size_t)(mark - target.p);
                p.query = str_from(target, raw.n + 1);
        }
        p.norm = p.sent = raw;
        if (raw.n == 0 || (raw.p[0] != '/' && !str_eq(target, STR("*"))))
                return false;
        if (UNLIKELY(!path_is_plain(raw)) && !path_rewrite(a, raw, &p))
                return false;
        *out = p;
        return true;
}

str path_escape(struct arena *a, str s, bool (*plain)(unsigned char c))
{
        static const char hex[] = "0123456789ABCDEF";
        size_t bad = 0, n = 0;
        char *out;

        for (size_t i = 0; i < s.n; i++)
                bad += !plain((unsigned char)s.p[i]);
        if (bad == 0)
                return s;
        out = arena_alloc(a, s.n + 2 * bad);
        if (out == NULL)
                return STR_NONE;
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if (plain(c)) {
                        out[n++] = (char)c;
                        continue;
                }
                out[n++] = '%';
                out[n++] = hex[c >> 4];
                out[n++] = hex[c & 15];
        }
        return str_of(out, n);
}
