/* Whose files are loaded: owners, modes, kinds, and links. */
#include "daemon/trust.c"

#include "../base/unit.h"

#include <stdio.h>

#define STRANGER 54321

static const struct proc_user workers = {true, 4711, 4712};

static bool judge(mode_t mode, uid_t uid, gid_t gid, const struct proc_user *user, const char *says)
{
        struct arena *a = arena_new(0);
        struct stat st = {.st_mode = mode, .st_uid = uid, .st_gid = gid};
        str error = STR_NONE;
        bool ok = trust_file(&st, user, a, &error);

        if (says)
                assert_true(str_find(error, str_z(says)) >= 0);
        arena_free(a);
        return ok;
}

static void root_and_weir_are_trusted(void **state)
{
        static const struct proc_user nobody_set = {false, 4711, 4712};

        (void)state;
        assert_true(judge(S_IFREG | 0644, 0, 0, &workers, NULL));
        assert_true(judge(S_IFREG | 0755, geteuid(), STRANGER, &workers, NULL));
        assert_true(judge(S_IFREG | 0600, workers.uid, STRANGER, &workers, NULL));
        assert_false(judge(S_IFREG | 0644, STRANGER, 0, &workers, "belongs to uid 54321"));
        assert_false(judge(S_IFREG | 0644, 4711, 0, &nobody_set, "belongs to"));
}

static void nobody_else_may_write(void **state)
{
        (void)state;
        assert_false(judge(S_IFREG | 0646, 0, 0, &workers, "can be written by anybody"));
        assert_false(judge(S_IFREG | 0664, 0, STRANGER, &workers, "can be written by group 54321"));
        assert_true(judge(S_IFREG | 0664, 0, 0, &workers, NULL));
        assert_true(judge(S_IFREG | 0664, 0, workers.gid, &workers, NULL));
}

static void only_files_are_modules(void **state)
{
        (void)state;
        assert_false(judge(S_IFDIR | 0755, 0, 0, &workers, "not a regular file"));
        assert_false(judge(S_IFIFO | 0600, 0, 0, &workers, "not a regular file"));
        assert_false(judge(S_IFCHR | 0600, 0, 0, &workers, "not a regular file"));
}

static void what_a_link_leads_to_is_judged(void **state)
{
        struct arena *a = arena_new(0);
        char dir[] = "/tmp/weir-trust-XXXXXX";
        str file, link, error = STR_NONE;
        int fd;

        (void)state;
        assert_non_null(mkdtemp(dir));
        file = arena_printf(a, "%s/x.so", dir);
        link = arena_printf(a, "%s/y.so", dir);
        fd = open(arena_dupz(a, file), O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        assert_int_equal(fchmod(fd, 0600), 0);
        assert_int_equal(symlink("x.so", arena_dupz(a, link)), 0);
        close(fd);
        fd = trust_open(link, &workers, a, &error);
        assert_true(fd >= 0);
        close(fd);
        assert_int_equal(chmod(arena_dupz(a, file), 0602), 0);
        assert_int_equal(trust_open(link, &workers, a, &error), -1);
        assert_true(str_find(error, STR("y.so can be written by anybody")) >= 0);
        assert_int_equal(unlink(arena_dupz(a, file)), 0);
        assert_int_equal(trust_open(link, &workers, a, &error), -1);
        assert_true(str_find(error, STR("No such file")) >= 0);
        unlink(arena_dupz(a, link));
        rmdir(dir);
        arena_free(a);
}

static void folders_count_when_root_looks(void **state)
{
        struct arena *a = arena_new(0);
        char dir[] = "/tmp/weir-trust-XXXXXX";
        str file, error = STR_NONE;

        (void)state;
        assert_non_null(mkdtemp(dir));
        file = arena_printf(a, "%s/x.so", dir);
        assert_true(folders_ok(arena_dupz(a, file), a, &error)); /* /tmp is sticky */
        assert_int_equal(chmod(dir, 0777), 0);
        assert_false(folders_ok(arena_dupz(a, file), a, &error));
        assert_true(str_find(error, str_z(dir)) >= 0);
        assert_int_equal(chmod(dir, 01777), 0);
        assert_true(folders_ok(arena_dupz(a, file), a, &error));
        rmdir(dir);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(root_and_weir_are_trusted),
                cmocka_unit_test(nobody_else_may_write),
                cmocka_unit_test(only_files_are_modules),
                cmocka_unit_test(what_a_link_leads_to_is_judged),
                cmocka_unit_test(folders_count_when_root_looks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
