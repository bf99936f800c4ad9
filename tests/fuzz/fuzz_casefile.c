/*
 * Any bytes as a file of test cases: what is accepted has a name and an expectation, and each byte
 * of its texts comes from a line of the file.
 */
#include "daemon/casefile.h"

#include "base/check.h"

static void look(const struct casefile_case *c, const char *text, uint32_t lines)
{
        for (const char *p = text; p && *p; p++) {
                uint32_t line = casefile_line(c, p);
                CHECK(line >= c->line && line <= lines);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena *a = arena_new(0);
        struct report rep = {0};
        struct casefile f;
        uint32_t lines = 1;

        if (size > 4096)
                size = 4096;
        for (size_t i = 0; i < size; i++)
                lines += data[i] == '\n';
        if (casefile_parse(STR("fuzz"), str_of(data, size), a, &f, &rep)) {
                CHECK(rep.errors == 0 && f.n > 0);
                for (size_t i = 0; i < f.n; i++) {
                        const weir_case *c = &f.v[i].c;
                        CHECK(c->name && c->name[0] && c->expect);
                        look(&f.v[i], c->config, lines);
                        look(&f.v[i], c->request, lines);
                        look(&f.v[i], c->redis, lines);
                        look(&f.v[i], c->expect, lines);
                        look(&f.v[i], c->upstream, lines);
                        look(&f.v[i], c->http, lines);
                }
        } else {
                CHECK(rep.errors > 0 && rep.out.n > 0);
        }
        buf_clear(&rep.out);
        arena_free(a);
        return 0;
}
