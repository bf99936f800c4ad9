/*
 * Which encodings of a response a client likes (RFC 9110 12.5.3), and lists of a field.
 *
 * Pure: nothing is asked of the host, whatever a stranger writes.  Fields of one name add up, so a
 * list may be read part by part; of an encoding that is named twice the last word counts.
 *
 * Included by a module after <weir/module.h>.
 */
#ifndef MODULES_ACCEPT_H
#define MODULES_ACCEPT_H

enum { ACCEPT_ZSTD, ACCEPT_BROTLI, ACCEPT_GZIP, ACCEPT_ENCODINGS };

static const weir_str accept_tokens[ACCEPT_ENCODINGS] = {
        [ACCEPT_ZSTD] = {"zstd", 4}, [ACCEPT_BROTLI] = {"br", 2}, [ACCEPT_GZIP] = {"gzip", 4}};

/* Weights in thousandths, 0 to 1000; -1: not named. */
struct accept_wishes {
        int of[ACCEPT_ENCODINGS], any, identity;
};

#define ACCEPT_NOTHING_SAID                                                                        \
        {                                                                                          \
                {-1, -1, -1}, -1, -1                                                               \
        }

static inline weir_str accept_trim(weir_str s)
{
        while (s.n && (*s.p == ' ' || *s.p == '\t'))
                s.p++, s.n--;
        while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
                s.n--;
        return s;
}

/* The part before the next `at`, trimmed; *rest is what follows it, absent at the end. */
static inline weir_str accept_cut(weir_str *rest, char at)
{
        const char *end = rest->n ? memchr(rest->p, at, rest->n) : NULL;
        weir_str part = {rest->p, end ? (size_t)(end - rest->p) : rest->n};

        *rest = end ? weir_bytes(end + 1, rest->n - part.n - 1) : (weir_str){NULL, 0};
        return accept_trim(part);
}

/* "0.25" in thousandths (12.4.2); what is no weight counts as refused. */
static inline int accept_weight(weir_str s)
{
        int q, unit = 100;

        if (s.n == 0 || s.n > 5 || (s.p[0] != '0' && s.p[0] != '1') || (s.n > 1 && s.p[1] != '.'))
                return 0;
        q = (s.p[0] - '0') * 1000;
        for (size_t i = 2; i < s.n; i++, unit /= 10) {
                if (s.p[i] < '0' || s.p[i] > '9')
                        return 0;
                q += (s.p[i] - '0') * unit;
        }
        return q > 1000 ? 0 : q;
}

/* One element of the list. */
static inline void accept_wish(struct accept_wishes *w, weir_str element)
{
        weir_str name = accept_cut(&element, ';'), parameter;
        int q = 1000;

        while (element.p) {
                parameter = accept_cut(&element, ';');
                if (parameter.n > 1 && (parameter.p[0] | 32) == 'q' && parameter.p[1] == '=')
                        q = accept_weight(weir_bytes(parameter.p + 2, parameter.n - 2));
        }
        for (int i = 0; i < ACCEPT_ENCODINGS; i++)
                if (weir_eq_icase(name, accept_tokens[i]))
                        w->of[i] = q;
        if (weir_eq_icase(name, WEIR_STR("x-gzip")))
                w->of[ACCEPT_GZIP] = q;
        if (weir_eq(name, WEIR_STR("*")))
                w->any = q;
        if (weir_eq_icase(name, WEIR_STR("identity")))
                w->identity = q;
}

/* A whole field. */
static inline void accept_read(struct accept_wishes *w, weir_str value)
{
        while (value.p)
                accept_wish(w, accept_cut(&value, ','));
}

/* Of n that are offered the one that is liked best, of equal ones the first; -1: none, for nothing
 * is said of them or the response as it is is liked better. */
static inline int32_t accept_best(const struct accept_wishes *w, const int32_t *offered, size_t n)
{
        int32_t best = -1;
        int best_q = 0;

        for (size_t i = 0; i < n; i++) {
                int q = w->of[offered[i]] >= 0 ? w->of[offered[i]] : w->any;
                if (q > best_q) {
                        best = offered[i];
                        best_q = q;
                }
        }
        return w->identity > best_q ? -1 : best;
}

#endif
