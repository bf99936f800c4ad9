/*
 * What a regex must contain.
 *
 * Every part of a pattern yields either the finite list of all strings that it matches (exact), or
 * sets of strings one of which must occur in what it matches.  A concatenation multiplies exact
 * lists as long as they stay short; where it cannot, the list so far becomes a set of its own.  The
 * difficulty is to be wrong only to the safe side: `unknown` makes the whole pattern promise
 * nothing.
 */
#include "proxy/literal.h"

#include "base/check.h"

#define LENGTH_MAX 64 /* of one string: longer ones are cut off, which promises less */
#define DEPTH_MAX  32

struct part {
        bool exact;
        struct literal_set all; /* exact: every string that it can match ("" allowed here) */
        struct literals must;   /* not exact: what is known */
};

struct parser {
        struct arena *a;
        str in;
        size_t i;
        int depth;
        bool unknown;
};

static struct part parse_alternatives(struct parser *p);

static struct part nothing(void)
{
        return (struct part){.exact = false};
}

static struct part text(struct arena *a, const char *c, size_t n)
{
        struct part r = {.exact = true, .all.n = 1};
        char *copy = arena_dupz(a, str_of(c, n));
        for (size_t i = 0; i < n; i++)
                copy[i] = str_lower(copy[i]);
        r.all.s[0] = str_of(copy, n);
        return r;
}

static bool at(const struct parser *p, char c)
{
        return p->i < p->in.n && p->in.p[p->i] == c;
}

static bool eat(struct parser *p, char c)
{
        if (!at(p, c))
                return false;
        p->i++;
        return true;
}

/* A set is worth something only if none of its strings is empty. */
static void promise(struct literals *l, const struct literal_set *s)
{
        if (s->n == 0 || l->n == LITERAL_SETS)
                return;
        for (uint32_t i = 0; i < s->n; i++)
                if (s->s[i].n == 0)
                        return;
        l->set[l->n++] = *s;
}

static void promise_all(struct literals *to, const struct part *part)
{
        if (part->exact) {
                promise(to, &part->all);
                return;
        }
        for (uint32_t i = 0; i < part->must.n; i++)
                promise(to, &part->must.set[i]);
}

/* ------------------------------------------------------------------ atoms */

static struct part parse_escape(struct parser *p)
{
        if (p->i >= p->in.n) {
                p->unknown = true;
                return nothing();
        }
        char c = p->in.p[p->i++];
        if (strchr("dDwWsShHvVNR", c) != NULL)
                return nothing();
        if (strchr("bBAzZG", c) != NULL)
                return text(p->a, "", 0);
        if ((unsigned char)c >= 0x80 || (c >= '0' && c <= '9') ||
            (str_lower(c) >= 'a' && str_lower(c) <= 'z')) {
                p->unknown = true; /* back references, \Q, \x, \K ... */
                return nothing();
        }
        return text(p->a, &c, 1);
}

/* A class of up to four plain characters is a choice; any other is anything. */
static struct part parse_class(struct parser *p)
{
        struct part r = {.exact = true};
        bool plain = true, first = true;
        if (eat(p, '^'))
                plain = false;
        for (;; first = false) {
                if (p->i >= p->in.n) {
                        p->unknown = true;
                        return nothing();
                }
                char c = p->in.p[p->i++];
                if (c == ']' && !first)
                        break;
                if (c == '[' && (at(p, ':') || at(p, '.') || at(p, '='))) {
                        p->unknown = true;
                        return nothing();
                }
                if (c == '\\') {
                        if (p->i >= p->in.n || strchr("QEc", p->in.p[p->i]) != NULL) {
                                p->unknown = true;
                                return nothing();
                        }
                        c = p->in.p[p->i++];
                        if ((unsigned char)c >= 0x80 || (c >= '0' && c <= '9') ||
                            (str_lower(c) >= 'a' && str_lower(c) <= 'z'))
                                plain = false;
                }
                if (at(p, '-'))
                        plain = false;
                if (r.all.n == 4)
                        plain = false;
                if (plain)
                        r.all.s[r.all.n++] = text(p->a, &c, 1).all.s[0];
        }
        return plain && r.all.n > 0 ? r : nothing();
}

/* After "(": what kind of group it is.  false: none that is understood. */
static bool group_head(struct parser *p)
{
        if (at(p, '*'))
                return false;
        if (!eat(p, '?'))
                return true;
        if (eat(p, ':'))
                return true;
        eat(p, 'P');
        char close = at(p, '<') ? '>' : '\'';
        if (!eat(p, '<') && !eat(p, '\''))
                return false;
        if (at(p, '=') || at(p, '!')) /* look-behind */
                return false;
        while (p->i < p->in.n && p->in.p[p->i] != close)
                p->i++;
        return eat(p, close);
}

static struct part parse_group(struct parser *p)
{
        if (++p->depth > DEPTH_MAX || !group_head(p)) {
                p->unknown = true;
                return nothing();
        }
        struct part r = parse_alternatives(p);
        p->depth--;
        if (!eat(p, ')'))
                p->unknown = true;
        return r;
}

static struct part parse_atom(struct parser *p)
{
        char c = p->in.p[p->i++];
        switch (c) {
        case '\\':
                return parse_escape(p);
        case '[':
                return parse_class(p);
        case '(':
                return parse_group(p);
        case '.':
                return nothing();
        case '^':
        case '$':
                return text(p->a, "", 0);
        default:
                return text(p->a, &c, 1);
        }
}

/* ------------------------------------------------------------------ repetition */

/* "{2,5}" at i: its bounds.  Otherwise the brace is a character like any other. */
static bool braces(struct parser *p, uint64_t *min, uint64_t *max)
{
        str head, rest, lo, hi;
        if (!at(p, '{') || !str_cut(str_from(p->in, p->i + 1), '}', &head, &rest))
                return false;
        bool comma = str_cut(head, ',', &lo, &hi);
        if (comma && lo.n == 0)
                p->unknown = true; /* PCRE2 changed its mind about {,5} */
        if (!str_u64(lo, 65535, min))
                return false;
        *max = *min;
        if (comma && hi.n == 0)
                *max = UINT64_MAX;
        else if (comma && !str_u64(hi, 65535, max))
                return false;
        p->i += head.n + 2;
        return true;
}

static bool quantifier(struct parser *p, uint64_t *min, uint64_t *max)
{
        *min = *max = 1;
        if (eat(p, '?'))
                *min = 0;
        else if (eat(p, '*'))
                *min = 0, *max = UINT64_MAX;
        else if (eat(p, '+'))
                *max = UINT64_MAX;
        else if (!braces(p, min, max))
                return false;
        if (!eat(p, '?')) /* lazy and possessive match the same strings or fewer */
                eat(p, '+');
        return true;
}

static struct part parse_piece(struct parser *p)
{
        struct part r = parse_atom(p);
        uint64_t min, max;
        while (!p->unknown && quantifier(p, &min, &max)) {
                if (min == 1 && max == 1)
                        continue;
                if (min == 0 && max == 1 && r.exact && r.all.n < LITERAL_ALTERNATIVES) {
                        r.all.s[r.all.n++] = str_of("", 0);
                        continue;
                }
                struct part many = nothing();
                if (min > 0)
                        promise_all(&many.must, &r);
                r = many;
        }
        return r;
}

/* ------------------------------------------------------------------ concatenation, alternation */

static bool multiply(struct arena *a, struct literal_set *all, const struct literal_set *by)
{
        struct literal_set out = {0};
        if (all->n * by->n > LITERAL_ALTERNATIVES)
                return false;
        for (uint32_t i = 0; i < all->n; i++) {
                for (uint32_t j = 0; j < by->n; j++) {
                        if (all->s[i].n + by->s[j].n > LENGTH_MAX)
                                return false;
                        out.s[out.n++] = arena_cat(a, (str[]){all->s[i], by->s[j]}, 2);
                }
        }
        *all = out;
        return true;
}

static struct part parse_sequence(struct parser *p)
{
        struct part r = text(p->a, "", 0);
        struct literal_set run = r.all; /* all that the pieces since the last break can be */
        bool exact = true;
        while (p->i < p->in.n && !at(p, '|') && !at(p, ')') && !p->unknown) {
                struct part piece = parse_piece(p);
                if (piece.exact && multiply(p->a, &run, &piece.all))
                        continue;
                promise(&r.must, &run);
                exact = false;
                if (piece.exact) {
                        run = piece.all;
                        continue;
                }
                promise_all(&r.must, &piece);
                run = text(p->a, "", 0).all;
        }
        r.exact = exact;
        if (exact)
                r.all = run;
        else
                promise(&r.must, &run);
        return r;
}

static size_t shortest(const struct literal_set *s)
{
        size_t n = SIZE_MAX;
        for (uint32_t i = 0; i < s->n; i++)
                n = MIN(n, s->s[i].n);
        return n;
}

static const struct literal_set *longest_set(const struct part *part)
{
        const struct literal_set *best = NULL;
        if (part->exact)
                return &part->all;
        for (uint32_t i = 0; i < part->must.n; i++)
                if (best == NULL || shortest(&part->must.set[i]) > shortest(best))
                        best = &part->must.set[i];
        return best;
}

static bool add_set(struct literal_set *to, const struct literal_set *from)
{
        if (from == NULL || to->n + from->n > LITERAL_ALTERNATIVES)
                return false;
        for (uint32_t i = 0; i < from->n; i++)
                to->s[to->n++] = from->s[i];
        return true;
}

static struct part parse_alternatives(struct parser *p)
{
        struct part r = parse_sequence(p);
        while (!p->unknown && eat(p, '|')) {
                struct part other = parse_sequence(p), both = {.exact = r.exact && other.exact};
                struct literal_set any = {0};
                bool ok = add_set(&any, longest_set(&r)) && add_set(&any, longest_set(&other));
                if (!ok)
                        both.exact = false;
                else if (both.exact)
                        both.all = any;
                else
                        promise(&both.must, &any);
                r = both;
        }
        return r;
}

void literal_extract(struct arena *a, str pattern, struct literals *out)
{
        struct parser p = {.a = a, .in = pattern};
        struct literals found = {0};
        struct part all = parse_alternatives(&p);
        if (!p.unknown && p.i == p.in.n)
                promise_all(&found, &all);
        *out = found;
}
