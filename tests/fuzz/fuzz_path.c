/*
 * Paths: the form for matching is a fixed point without anything that could walk, and what the
 * server gets means the same.
 */
#include "base/check.h"
#include "http/path.h"

static bool has_dots(str path)
{
        for (str rest = str_from(path, 1), seg; rest.p;) {
                str after;
                str_cut(rest, '/', &seg, &after);
                if (str_eq(seg, STR(".")) || str_eq(seg, STR("..")))
                        return true;
                rest = after;
        }
        return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena *a = arena_new(0);
        struct path p, again;
        if (path_parse(a, str_of(data, size), &p) && p.norm.p[0] == '/') {
                CHECK(!has_dots(p.norm) && str_find(p.norm, STR("//")) < 0);
                CHECK(str_chr(p.norm, ';') < 0 && !str_has_ctl(p.norm));
                CHECK(!has_dots(p.sent));
                CHECK(path_parse(a, p.norm, &again) && str_eq(again.norm, p.norm));
                CHECK(str_eq(again.sent, p.norm));
                CHECK(path_parse(a, p.sent, &again) && str_eq(again.norm, p.norm));
                CHECK(str_eq(again.sent, p.sent));
        }
        arena_free(a);
        return 0;
}
