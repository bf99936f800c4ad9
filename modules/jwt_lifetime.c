/*
 * How long an answer says that it is good (RFC 9111 4.2): as keys are, that a server publishes.
 *
 * The difficulty: two statements may contradict each other, and one may be unreadable.  The shorter
 * one counts then, and what cannot be read counts as no time at all (4.2.1).
 */
#include "jwt.h"

#define SECOND_US   INT64_C(1000000)
#define SECONDS_MAX (INT64_C(1) << 31) /* 1.2.2: more is as good */

/* The part before the next comma that is not in quotes; *rest is what follows it, absent at the
 * end. */
static weir_str element(weir_str *rest)
{
        size_t n = 0, begin = 0, end;
        int quoted = 0;
        weir_str one;

        for (; n < rest->n && (quoted || rest->p[n] != ','); n++) {
                if (rest->p[n] == '"')
                        quoted = !quoted;
                else if (quoted && rest->p[n] == '\\' && n + 1 < rest->n)
                        n++;
        }
        for (end = n; end > 0 && (rest->p[end - 1] == ' ' || rest->p[end - 1] == '\t'); end--)
                ;
        while (begin < end && (rest->p[begin] == ' ' || rest->p[begin] == '\t'))
                begin++;
        one = weir_bytes(rest->p + begin, end - begin);
        *rest = n < rest->n ? weir_bytes(rest->p + n + 1, rest->n - n - 1) : weir_bytes(NULL, 0);
        return one;
}

/* delta-seconds, also in quotes (5.2); -1: it is none. */
static int64_t seconds(weir_str s)
{
        int64_t v = 0;

        if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"')
                s = weir_bytes(s.p + 1, s.n - 2);
        if (s.n == 0)
                return -1;
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9')
                        return -1;
                v = v * 10 + (s.p[i] - '0');
                if (v > SECONDS_MAX)
                        v = SECONDS_MAX;
        }
        return v;
}

/* What one directive says, in seconds; -1: nothing of this. */
static int64_t directive(weir_str one)
{
        const char *equal = one.n ? memchr(one.p, '=', one.n) : NULL;
        weir_str name = weir_bytes(one.p, equal ? (size_t)(equal - one.p) : one.n);
        int64_t v;

        if (weir_eq_icase(name, WEIR_STR("no-store")) || weir_eq_icase(name, WEIR_STR("no-cache")))
                return 0;
        if (!weir_eq_icase(name, WEIR_STR("max-age")))
                return -1;
        v = equal ? seconds(weir_bytes(equal + 1, one.n - name.n - 1)) : -1;
        return v < 0 ? 0 : v;
}

int64_t jwt_lifetime(const weir_kv *fields, size_t n)
{
        int64_t said = -1, age = 0;

        for (size_t i = 0; i < n; i++) {
                weir_str rest = fields[i].value;
                if (weir_eq_icase(fields[i].name, WEIR_STR("Age"))) {
                        int64_t v = seconds(rest);
                        age = v > age ? v : age;
                }
                while (weir_eq_icase(fields[i].name, WEIR_STR("Cache-Control")) && rest.p != NULL) {
                        int64_t v = directive(element(&rest));
                        if (v >= 0 && (said < 0 || v < said))
                                said = v;
                }
        }
        if (said < 0)
                return -1;
        return said > age ? (said - age) * SECOND_US : 0;
}
