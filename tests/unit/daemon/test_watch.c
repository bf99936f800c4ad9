/* Which folders must be watched for a path to be seen changing. */
#include "daemon/watch.h"

#include "base/str.h"

#include "../base/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char top[64], seen[64][256]; /* a loop of links is followed 40 times */
static size_t n_seen;

static const char *at(const char *name)
{
        static char path[8][256];
        static unsigned turn;
        char *p = path[turn++ % 8];

        snprintf(p, sizeof(path[0]), "%s/%s", top, name);
        return p;
}

static void note(const char *folder, void *arg)
{
        assert_ptr_equal(arg, seen);
        assert_true(n_seen < COUNT(seen));
        snprintf(seen[n_seen++], sizeof(seen[0]), "%s", folder);
}

static void look(const char *path)
{
        n_seen = 0;
        watch_folders(path, note, seen);
}

static bool has(const char *name)
{
        char real[4096], other[4096];

        assert_non_null(realpath(*name ? at(name) : top, real));
        for (size_t i = 0; i < n_seen; i++)
                if (realpath(seen[i], other) && strcmp(real, other) == 0)
                        return true;
        return false;
}

static int up(void **state)
{
        (void)state;
        snprintf(top, sizeof(top), "/tmp/weir-watch-XXXXXX");
        assert_non_null(mkdtemp(top));
        assert_int_equal(mkdir(at("live"), 0700), 0);
        assert_int_equal(mkdir(at("archive"), 0700), 0);
        assert_int_equal(mkdir(at("..2026"), 0700), 0);
        FILE *f = fopen(at("archive/one1.pem"), "w");
        assert_non_null(f);
        fclose(f);
        assert_int_equal(link(at("archive/one1.pem"), at("..2026/tls.crt")), 0);
        assert_int_equal(symlink("../archive/one1.pem", at("live/one.pem")), 0);
        assert_int_equal(symlink("..2026", at("..data")), 0);
        assert_int_equal(symlink("..data/tls.crt", at("tls.crt")), 0);
        assert_int_equal(symlink(at("loop2"), at("loop1")), 0);
        assert_int_equal(symlink(at("loop1"), at("loop2")), 0);
        return 0;
}

static int down(void **state)
{
        static const char *const files[] = {"tls.crt",        "..data",           "live/one.pem",
                                            "..2026/tls.crt", "archive/one1.pem", "loop1",
                                            "loop2"};
        static const char *const folders[] = {"..2026", "archive", "live", ""};

        (void)state;
        for (size_t i = 0; i < COUNT(files); i++)
                unlink(at(files[i]));
        for (size_t i = 0; i < COUNT(folders); i++)
                rmdir(at(folders[i]));
        return 0;
}

static void a_plain_file(void **state)
{
        (void)state;
        look(at("archive/one1.pem"));
        assert_int_equal(n_seen, 1);
        assert_true(has("archive"));
}

static void links_to_files_and_folders(void **state)
{
        (void)state;
        look(at("live/one.pem"));
        assert_int_equal(n_seen, 2);
        assert_true(has("live") && has("archive"));
        look(at("tls.crt")); /* as kubelet mounts a secret */
        assert_true(has("") && has("..2026"));
        assert_false(has("archive"));
}

static void what_is_not_there(void **state)
{
        (void)state;
        look(at("archive/none.pem"));
        assert_true(n_seen == 1 && has("archive"));
        look(at("none/at/all.pem")); /* where the first of it may come */
        assert_int_equal(n_seen, 1);
        assert_true(has(""));
        look(at("loop1"));
        assert_true(n_seen > 0 && has(""));
        look("relative");
        assert_int_equal(n_seen, 0);
        look("/");
        assert_int_equal(n_seen, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_plain_file),
                cmocka_unit_test(links_to_files_and_folders),
                cmocka_unit_test(what_is_not_there),
        };

        return cmocka_run_group_tests(tests, up, down);
}
