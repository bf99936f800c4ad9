/* What was read once is read again: round trip, absences, and bytes that are no bundle. */
#include "daemon/bundle.c"

#include "../base/unit.h"

#include <stdlib.h>
#include <sys/mman.h>

struct folder {
        char path[64];
};

static str in(struct folder *f, struct arena *a, const char *name)
{
        return arena_printf(a, "%s/%s", f->path, name);
}

static void put(struct folder *f, struct arena *a, const char *name, const char *text)
{
        FILE *file = fopen(in(f, a, name).p, "w");

        assert_non_null(file);
        assert_true(fputs(text, file) >= 0);
        assert_int_equal(fclose(file), 0);
}

static void make_folder(struct folder *f)
{
        strcpy(f->path, "/tmp/weir-bundle-XXXXXX");
        assert_non_null(mkdtemp(f->path));
}

static void remove_folder(struct folder *f, struct arena *a, const char *const *names, size_t n)
{
        for (size_t i = 0; i < n; i++)
                unlink(in(f, a, names[i]).p);
        assert_int_equal(rmdir(f->path), 0);
}

static void all_kinds_come_back(void **state)
{
        static const char *const names[] = {"a.conf", "b.conf"};
        struct arena *a = arena_new(0);
        struct folder f;
        struct bundle *b = bundle_collect(), *r;
        struct source *s = bundle_source(b);
        uint32_t uid = 1, gid = 1;
        str text, error, *paths;
        size_t n;
        int fd;

        (void)state;
        make_folder(&f);
        put(&f, a, "a.conf", "one");
        put(&f, a, "b.conf", "");
        setenv("WEIR_TEST_SET", "value", 1);
        unsetenv("WEIR_TEST_UNSET");
        assert_true(s->file(s, in(&f, a, "a.conf"), a, &text, &error));
        assert_true(s->file(s, in(&f, a, "b.conf"), a, &text, &error));
        assert_false(s->file(s, in(&f, a, "none"), a, &text, &error));
        assert_true(s->glob(s, in(&f, a, "*.conf"), a, &paths, &n));
        assert_int_equal(n, 2);
        assert_true(s->glob(s, in(&f, a, "*.none"), a, &paths, &n));
        assert_int_equal(n, 0);
        assert_true(s->env(s, STR("WEIR_TEST_SET"), &text));
        assert_false(s->env(s, STR("WEIR_TEST_UNSET"), &text));
        assert_true(s->user(s, STR("root"), STR_NONE, &uid, &gid));
        fd = bundle_seal(b);
        assert_true(fd >= 0);

        /* The world changes; the bundle does not. */
        put(&f, a, "a.conf", "two");
        setenv("WEIR_TEST_SET", "other", 1);
        setenv("WEIR_TEST_UNSET", "now", 1);
        r = bundle_map(fd);
        close(fd);
        assert_non_null(r);
        s = bundle_source(r);
        assert_true(s->file(s, in(&f, a, "a.conf"), a, &text, &error));
        ASSERT_STR(text, "one");
        assert_true(s->file(s, in(&f, a, "b.conf"), a, &text, &error));
        assert_int_equal(text.n, 0);
        assert_false(s->file(s, in(&f, a, "none"), a, &text, &error));
        assert_true(str_find(error, STR("No such file")) >= 0);
        assert_true(s->glob(s, in(&f, a, "*.conf"), a, &paths, &n));
        assert_int_equal(n, 2);
        assert_true(str_ends(paths[0], STR("/a.conf")) && str_ends(paths[1], STR("/b.conf")));
        assert_true(s->glob(s, in(&f, a, "*.none"), a, &paths, &n));
        assert_int_equal(n, 0);
        assert_true(s->env(s, STR("WEIR_TEST_SET"), &text));
        ASSERT_STR(text, "value");
        assert_false(s->env(s, STR("WEIR_TEST_UNSET"), &text));
        assert_true(s->user(s, STR("root"), STR_NONE, &uid, &gid));
        assert_int_equal(uid, 0);
        /* What was never asked is not there, though the system has it. */
        assert_false(s->file(s, STR("/etc/passwd"), a, &text, &error));
        assert_false(s->env(s, STR("PATH"), &text));
        bundle_free(r);
        bundle_free(b);
        remove_folder(&f, a, names, COUNT(names));
        arena_free(a);
}

static void what_was_put_counts(void **state)
{
        struct arena *a = arena_new(0);
        struct bundle *b = bundle_collect(), *r;
        struct source *s = bundle_source(b);
        str text, error;
        int fd;

        (void)state;
        assert_false(s->file(s, STR("/none/x.so"), a, &text, &error));
        bundle_put_file(b, STR("/none/x.so"), STR("first"));
        bundle_put_file(b, STR("/none/x.so"), STR("code"));
        assert_true(s->file(s, STR("/none/x.so"), a, &text, &error));
        fd = bundle_seal(b);
        r = bundle_map(fd);
        close(fd);
        assert_non_null(r);
        s = bundle_source(r);
        assert_true(s->file(s, STR("/none/x.so"), a, &text, &error));
        ASSERT_STR(text, "code");
        bundle_free(r);
        bundle_free(b);
        arena_free(a);
}

static void a_second_reading_is_the_first(void **state)
{
        static const char *const names[] = {"x"};
        struct arena *a = arena_new(0);
        struct folder f;
        struct bundle *b = bundle_collect();
        struct source *s = bundle_source(b);
        str text, error;

        (void)state;
        make_folder(&f);
        put(&f, a, "x", "before");
        assert_true(s->file(s, in(&f, a, "x"), a, &text, &error));
        put(&f, a, "x", "after");
        assert_true(s->file(s, in(&f, a, "x"), a, &text, &error));
        ASSERT_STR(text, "before");
        bundle_free(b);
        remove_folder(&f, a, names, COUNT(names));
        arena_free(a);
}

/* A valid image to damage: two entries. */
static str image(struct arena *a)
{
        struct bundle_head head = {.count = 2};
        struct entry_head one = {ENTRY_ENV, 1, 1, 3}, two = {ENTRY_FILE, 0, 2, 4};
        str parts[] = {str_of(&head, sizeof(head)), str_of(&one, sizeof(one)), STR("Aval"),
                       str_of(&two, sizeof(two)), STR("/fnone")};

        memcpy(head.magic, bundle_magic, sizeof(head.magic));
        return arena_cat(a, parts, COUNT(parts));
}

static bool reads(str bytes)
{
        struct bundle *b = bundle_new(true);
        bool ok = bundle_read(b, bytes);

        bundle_free(b);
        return ok;
}

static void damaged_bytes_are_refused(void **state)
{
        struct arena *a = arena_new(0);
        str good = image(a);
        char *copy = arena_dupz(a, good);

        (void)state;
        assert_true(reads(good));
        for (size_t n = 0; n < good.n; n++)
                assert_false(reads(str_head(good, n)));
        str longer[] = {good, STR("x")};
        assert_false(reads(arena_cat(a, longer, 2)));
        for (size_t i = 0; i < good.n;
             i++) { /* any value in any byte: read or refused, never more */
                for (int v = 0; v < 256; v += 51) {
                        memcpy(copy, good.p, good.n);
                        copy[i] = (char)v;
                        (void)reads(str_of(copy, good.n));
                }
        }
        memcpy(copy, good.p, good.n);
        copy[0] = 'x';
        assert_false(reads(str_of(copy, good.n)));
        memcpy(copy, good.p, good.n);
        memset(copy + offsetof(struct bundle_head, count), 0xff, 8);
        assert_false(reads(str_of(copy, good.n)));
        memcpy(copy, good.p, good.n);
        memset(copy + sizeof(struct bundle_head) + offsetof(struct entry_head, value_n), 0xff, 4);
        assert_false(reads(str_of(copy, good.n)));
        arena_free(a);
}

static void an_entry_given_twice_is_refused(void **state)
{
        struct arena *a = arena_new(0);
        struct bundle_head head = {.count = 2};
        struct entry_head one = {ENTRY_ENV, 1, 1, 1};
        str parts[] = {str_of(&head, sizeof(head)), str_of(&one, sizeof(one)), STR("Aa"),
                       str_of(&one, sizeof(one)), STR("Ab")};

        (void)state;
        memcpy(head.magic, bundle_magic, sizeof(head.magic));
        assert_false(reads(arena_cat(a, parts, COUNT(parts))));
        arena_free(a);
}

static void an_unsealed_file_is_refused(void **state)
{
        struct arena *a = arena_new(0);
        str good = image(a);
        int fd = memfd_create("x", MFD_CLOEXEC);

        (void)state;
        assert_int_equal(write(fd, good.p, good.n), good.n);
        assert_null(bundle_map(fd));
        close(fd);
        fd = memfd_make("x", &good, 1);
        struct bundle *b = bundle_map(fd);
        assert_non_null(b);
        uint8_t one[32], two[32];
        bundle_digest(b, one);
        crypto_sha256(good, two);
        assert_memory_equal(one, two, sizeof(one));
        bundle_free(b);
        close(fd);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(all_kinds_come_back),
                cmocka_unit_test(what_was_put_counts),
                cmocka_unit_test(a_second_reading_is_the_first),
                cmocka_unit_test(damaged_bytes_are_refused),
                cmocka_unit_test(an_entry_given_twice_is_refused),
                cmocka_unit_test(an_unsealed_file_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
