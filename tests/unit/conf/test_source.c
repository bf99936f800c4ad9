/* The live file system: content of any size, sorted globs, users. */
#include "conf/source.c"

#include "../base/unit.h"

struct fixture {
        char dir[64];
        struct arena *a;
};

static int setup(void **state)
{
        struct fixture *f = calloc(1, sizeof *f);

        strcpy(f->dir, "/tmp/weir-source-XXXXXX");
        assert_non_null(mkdtemp(f->dir));
        f->a = arena_new(0);
        *state = f;
        return 0;
}

static str path(struct fixture *f, const char *name)
{
        return arena_printf(f->a, "%s/%s", f->dir, name);
}

static void put(struct fixture *f, const char *name, size_t n)
{
        FILE *out = fopen(path(f, name).p, "w");

        assert_non_null(out);
        for (size_t i = 0; i < n; i++)
                fputc('a' + (int)(i % 26), out);
        fclose(out);
}

static int teardown(void **state)
{
        struct fixture *f = *state;
        static const char *const names[] = {"b.conf", "a.conf", "c.txt"};

        for (size_t i = 0; i < 3; i++)
                unlink(path(f, names[i]).p);
        assert_int_equal(rmdir(f->dir), 0);
        arena_free(f->a);
        free(f);
        return 0;
}

static void files(void **state)
{
        struct fixture *f = *state;
        struct source *s = source_system();
        str content, error;
        const size_t sizes[] = {0, 1, 4095, 4096, 4097, 100000};

        for (size_t i = 0; i < 6; i++) {
                put(f, "a.conf", sizes[i]);
                assert_true(s->file(s, path(f, "a.conf"), f->a, &content, &error));
                assert_int_equal(content.n, sizes[i]);
                if (sizes[i])
                        assert_int_equal(content.p[sizes[i] - 1], 'a' + (int)((sizes[i] - 1) % 26));
        }
        /* a file that does not know its size */
        assert_true(s->file(s, STR("/proc/self/status"), f->a, &content, &error));
        assert_true(str_starts(content, STR("Name:")));
        assert_false(s->file(s, path(f, "none"), f->a, &content, &error));
        ASSERT_STR(error, "No such file or directory");
        assert_false(s->file(s, path(f, ""), f->a, &content, &error));
        ASSERT_STR(error, "Is a directory");
        assert_false(s->file(s, STR("/a\0b"), f->a, &content, &error));
        ASSERT_STR(error, "not a path");
}

static void globs(void **state)
{
        struct fixture *f = *state;
        struct source *s = source_system();
        size_t n = 9;
        str *v;

        put(f, "b.conf", 1);
        put(f, "a.conf", 1);
        put(f, "c.txt", 1);
        assert_true(s->glob(s, path(f, "*.conf"), f->a, &v, &n));
        assert_int_equal(n, 2);
        assert_true(str_eq(v[0], path(f, "a.conf")));
        assert_true(str_eq(v[1], path(f, "b.conf")));
        assert_true(s->glob(s, path(f, "*.none"), f->a, &v, &n));
        assert_int_equal(n, 0);
}

static void environment_and_users(void **state)
{
        struct source *s = source_system();
        uint32_t uid = 7, gid = 7;
        str v;

        (void)state;
        setenv("WEIR_TEST_SOURCE", "a b", 1);
        assert_true(s->env(s, STR("WEIR_TEST_SOURCE"), &v));
        ASSERT_STR(v, "a b");
        unsetenv("WEIR_TEST_SOURCE");
        assert_false(s->env(s, STR("WEIR_TEST_SOURCE"), &v));
        assert_true(s->user(s, STR("root"), STR(""), &uid, &gid));
        assert_int_equal(uid, 0);
        assert_int_equal(gid, 0);
        uid = gid = 7;
        assert_false(s->user(s, STR("root"), STR("surely-no-such-group"), &uid, &gid));
        assert_false(s->user(s, STR("surely-no-such-user"), STR(""), &uid, &gid));
        assert_int_equal(uid, 7);
        assert_int_equal(gid, 7);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(files, setup, teardown),
                cmocka_unit_test_setup_teardown(globs, setup, teardown),
                cmocka_unit_test(environment_and_users),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
