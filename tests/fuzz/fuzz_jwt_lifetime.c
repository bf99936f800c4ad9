/*
 * How long an answer is good: never negative but for "nothing said", the same however a list is
 * divided into fields, not longer with something more, and nothing at all with no-store.
 *
 * A newline divides the input into values of Cache-Control; the last one is the Age.
 */
#include "base/check.h"

#define WEIR_MODULE_SHARED
#include <weir/module.h>

#include "../../modules/jwt_lifetime.c"

#define FIELDS 16

static size_t fields_of(weir_str s, weir_kv *v)
{
        size_t n = 0;

        while (n < FIELDS - 1) {
                const char *end = s.n ? memchr(s.p, '\n', s.n) : NULL;
                weir_str one = weir_bytes(s.p, end ? (size_t)(end - s.p) : s.n);
                v[n++] = (weir_kv){end ? WEIR_STR("cache-control") : WEIR_STR("AGE"), one};
                if (end == NULL)
                        break;
                s = weir_bytes(end + 1, s.n - one.n - 1);
        }
        return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        weir_kv v[FIELDS + 1];
        size_t n = fields_of(weir_bytes(data, size), v);
        int64_t whole = jwt_lifetime(v, n), other;
        weir_str rest, first, list = v[0].value;

        CHECK(whole >= -1 && whole <= SECONDS_MAX * SECOND_US);
        if (n > 1) { /* the first list in two */
                rest = list;
                first = element(&rest);
                CHECK(first.p >= list.p && first.p + first.n <= list.p + list.n);
                v[0].value = first;
                v[n] = (weir_kv){WEIR_STR("Cache-Control"), rest};
                CHECK(jwt_lifetime(v, rest.p != NULL ? n + 1 : n) == whole);
                v[0].value = list;
        }
        v[n] = (weir_kv){WEIR_STR("Cache-Control"), WEIR_STR("public, max-age=60")};
        other = jwt_lifetime(v, n + 1);
        CHECK(other >= 0 && other <= 60 * SECOND_US && (whole < 0 || other <= whole));
        v[n].value = WEIR_STR("No-Store");
        CHECK(jwt_lifetime(v, n + 1) == 0);
        return 0;
}
