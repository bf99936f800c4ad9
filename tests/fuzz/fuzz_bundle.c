/* Bundles: any bytes are read or refused, and what was read answers like one. */
#include "daemon/bundle.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct bundle *b = bundle_new(true);
        struct source *s = bundle_source(b);

        if (bundle_read(b, str_of(data, size))) {
                struct arena *a = arena_new(0);
                uint32_t uid, gid;
                str text, error, *paths, key;
                size_t n = 0, cursor = 0;
                void *value;
                while (map_at(b->by, &cursor, &key, &value)) {
                        const struct entry *e = value;
                        if (s->file(s, e->name, a, &text, &error))
                                CHECK(text.n <= size);
                        if (s->glob(s, e->name, a, &paths, &n))
                                CHECK(n <= size);
                        (void)s->env(s, e->name, &text);
                        (void)s->user(s, e->name, STR(""), &uid, &gid);
                }
                arena_free(a);
        }
        bundle_free(b);
        return 0;
}
